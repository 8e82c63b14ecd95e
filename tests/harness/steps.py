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
    # Python 3.13 tells of the instructions of a function from the second time on that it is asked to.
    _interrupted(*scene(), sys.maxsize, inside or (LIBRARY,))
    number = 0
    while _interrupted(*scene(), number, inside or (LIBRARY,)):
        check()
        number += 1
    assert number, "nothing was done by steps"
    return number


def _interrupted(act: Act, meanwhile: Act, number: int, inside: tuple[str, ...]) -> bool:
    """Whether there are so many steps."""
    errors: list[BaseException] = []
    left, other = number, threading.Thread(target=lambda: _guarded(meanwhile, errors))

    def trace(frame: FrameType, kind: str, argument: object) -> Any:
        nonlocal left
        if not frame.f_code.co_filename.startswith(inside):
            return None
        frame.f_trace_lines, frame.f_trace_opcodes = False, True
        if kind == "opcode":
            if left == 0 and os.getpid() == process:  # no thread can be started in a child that is not ready yet
                sys.settrace(before)
                other.start()
                other.join(PATIENCE)
            left -= 1
        return trace

    before, process = sys.gettrace(), os.getpid()
    sys.settrace(trace)
    try:
        _guarded(act, errors)
    finally:
        sys.settrace(before)
    if left < 0:
        other.join(10)
        assert not other.is_alive(), "the two wait for each other"
    if errors:
        errors[0].add_note(f"at step {number}")
        raise errors[0]
    return left < 0


def _guarded(act: Act, errors: list[BaseException]) -> None:
    try:
        act()
    except BaseException as error:
        errors.append(error)
