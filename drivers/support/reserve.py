"""Room on a disk that is set aside, so that what frees room can still be written when the disk is full."""

from __future__ import annotations

import contextlib
import logging
import os
from pathlib import Path

from session_kit.drivers.support.folder import NOFOLLOW

log = logging.getLogger("session_kit.drivers")


class Reserve:
    """A file of `size` bytes that says nothing. owner: the driver, for messages."""

    def __init__(self, path: Path, size: int, owner: object) -> None:
        self._path = path
        self._size = size
        self._owner = owner

    def keep(self) -> None:
        """Set the room aside, unless it is; where there is not enough, do nothing."""
        try:
            if self._path.exists():
                return
            file = os.open(self._path, os.O_WRONLY | os.O_CREAT | NOFOLLOW, 0o600)
            try:
                if hasattr(os, "posix_fallocate"):
                    os.posix_fallocate(file, 0, self._size)
                else:
                    os.write(file, bytes(self._size))
            finally:
                os.close(file)
        except OSError:
            with contextlib.suppress(OSError):
                self._path.unlink()

    def use(self) -> bool:
        """Give the room away; False if there is none."""
        try:
            self._path.unlink()
        except FileNotFoundError:
            return False
        log.warning("%r: the disk is full; the room kept in reserve is used, so that sessions can end", self._owner)
        return True
