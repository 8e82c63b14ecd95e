"""Two threads of which one comes in between two steps of the other: tried at each step, one after the other.

What shows once in a million runs, or on several processors at once alone, shows here in each run.
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

import session_kit

LIBRARY = str(Path(session_kit.__file__).parent)
PATIENCE = 0.005
"""Seconds after which a thread that we keep waiting, by a lock, is left to end later."""

Act = Callable[[], object]
Scene = tuple[Act, Act]
"""What we do, and what another thread does meanwhile."""


def at_every_step(scene: Callable[[], Scene], *inside: str, check: Act = lambda: None) -> int:
    """Let another thread do its part after each step of ours, and return how many there were.

    scene: called anew for each step. check: called when both have done their part.
    inside: how the names of the files begin whose code is done by steps, each an instruction of Python. Default: all of
        the library.
    What either of the two raises is raised.
    """
    steps, before, number = _Steps(inside or (LIBRARY,)), sys.gettrace(), 0
    # All the time, and once in vain: Python 3.12 tells of instructions from the second time on that it is asked to, and
    # 3.13 of those of a function from its second call on that is traced; it forgets that in a call that is not.
    try:
        steps.interrupted(*scene(), sys.maxsize)
        while steps.interrupted(*scene(), number):
            check()
            number += 1
    finally:
        sys.settrace(before)
    assert number, "nothing was done by steps"
    return number


class _Steps:
    """The steps of this thread, at one of which another thread comes in."""

    def __init__(self, inside: tuple[str, ...]) -> None:
        self._inside, self._process = inside, os.getpid()
        self._left, self._other = sys.maxsize, threading.Thread()

    def trace(self, frame: FrameType, kind: str, argument: object) -> Any:
        if not frame.f_code.co_filename.startswith(self._inside):
            return None
        frame.f_trace_lines, frame.f_trace_opcodes = False, True
        if kind == "opcode":
            if self._left == 0 and os.getpid() == self._process:  # a child may not be ready yet to start a thread
                self._other.start()
                self._other.join(PATIENCE)
            self._left -= 1
        return self.trace

    def interrupted(self, act: Act, meanwhile: Act, number: int) -> bool:
        """Whether there are so many steps."""
        errors: list[BaseException] = []
        self._other = threading.Thread(target=lambda: _guarded(meanwhile, errors))
        self._left = number
        sys.settrace(self.trace)
        _guarded(act, errors)
        came, self._left = self._left < 0, sys.maxsize
        if came:
            self._other.join(10)
            assert not self._other.is_alive(), "the two wait for each other"
        if errors:
            errors[0].add_note(f"at step {number}")
            raise errors[0]
        return came


def _guarded(act: Act, errors: list[BaseException]) -> None:
    try:
        act()
    except BaseException as error:
        errors.append(error)
