"""What keeps a server from answering, said in one line that shows no password, no key and no value."""

from __future__ import annotations

import os
import re
from typing import Final

from session_kit.drivers.errors import DriverUnavailable


class ServerError(Exception):
    """What a server answers when it refuses a command. code: its first word, like `WRONGTYPE`."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.code = text.partition(" ")[0]


class ProtocolError(OSError):
    """What came is no answer to what was asked."""


FAILURES: Final = (OSError, UnicodeError, ServerError)
CLOSED: Final = "the driver or its event loop was closed"
_BAD_USER = "the server refuses the user name or password"
_REFUSALS = {
    "NOAUTH": _BAD_USER,
    "WRONGPASS": _BAD_USER,
    "NOPERM": "the user may not do this (ACL); sessions need read, write, scan and eval on their keys",
    "OOM": "the server has no memory left for it (maxmemory)",
    "READONLY": "the server is a read-only replica",
}


def is_lost(error: Exception) -> bool:
    """Whether the connection is gone. Not after a timeout: a second attempt would only double the wait."""
    return isinstance(error, ConnectionError)


def unavailable(where: str, error: Exception) -> DriverUnavailable:
    """The error to raise for one of the server's or the system's."""
    reason = _reason(error).strip(" ,.:") or type(error).__name__
    return DriverUnavailable(f"{where}: {reason}")


def _reason(error: Exception) -> str:
    if isinstance(error, ServerError):
        # What stands in quotes is what was sent.
        return _REFUSALS.get(error.code) or re.split("[`']", str(error).removeprefix("ERR "))[0]
    if isinstance(error, TimeoutError):
        return "no answer within the timeout"
    if isinstance(error, ProtocolError):
        return "what answers there does not speak the Redis protocol"
    if isinstance(error, UnicodeError):
        return "no host can have this name"
    if isinstance(error, ConnectionError) and error.errno:
        return os.strerror(error.errno)
    return (isinstance(error, OSError) and error.strerror) or str(error)
