"""Locks between the threads and processes of one machine, each a file in a folder."""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from session_kit.drivers.errors import DriverUnavailable
from session_kit.drivers.support.folder import NOFOLLOW

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]  # a module or nothing: mypy knows the module

FLAGS = os.O_RDWR | os.O_CREAT | getattr(os, "O_CLOEXEC", 0) | NOFOLLOW


class FileLocks:
    """One lock for each name. Who holds one may die: the lock ends with it.

    folder: of the files. timeout: seconds to wait for a lock. owner: the driver, for messages.
    restore: makes the folder, if it was removed.
    """

    available = fcntl is not None
    """Whether this system has such locks; without them nobody is kept out."""

    def __init__(self, folder: Path, timeout: float, *, owner: object, restore: Callable[[], None]) -> None:
        self._folder = folder
        self._timeout = timeout
        self._owner = owner
        self._restore = restore
        self._begin()

    def _begin(self) -> None:
        self._guard = threading.Lock()
        self._held: set[int] = set()  # descriptors

    @contextlib.contextmanager
    def held(self, name: str) -> Iterator[None]:
        """Hold a lock. `DriverUnavailable` if it is not to be had; `OSError` as it comes."""
        if not self.available:
            yield
            return
        with self._guard:
            descriptor = self._open(name)
            self._held.add(descriptor)
        try:
            deadline = time.monotonic() + self._timeout
            while True:
                try:
                    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    if time.monotonic() > deadline:
                        raise DriverUnavailable(
                            f"{self._owner!r} stayed locked by another writer for longer than"
                            f" timeout={self._timeout:g} s"
                        ) from None
                    time.sleep(0.001)
            yield
        finally:
            with self._guard:
                self._held.discard(descriptor)
                os.close(descriptor)

    def _open(self, name: str) -> int:
        try:
            return os.open(self._folder / name, FLAGS, 0o600)
        except FileNotFoundError:
            self._restore()
            return os.open(self._folder / name, FLAGS, 0o600)

    def before_fork(self) -> None:
        """Let nobody open a lock while the process is copied."""
        self._guard.acquire()

    def after_fork_in_parent(self) -> None:
        """Go on."""
        self._guard.release()

    def after_fork(self) -> None:
        """Let go in the child of what the parent's threads hold: a lock lasts until its last copy is closed."""
        for descriptor in self._held:
            os.close(descriptor)
        self._begin()
