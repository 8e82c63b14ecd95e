"""Whether an outage means that nobody was found at an address, or that somebody was and refuses."""

from __future__ import annotations

import errno
import os
import socket
from typing import Final

_NOBODY: Final = (
    errno.ECONNREFUSED,
    errno.EHOSTUNREACH,
    errno.ENETUNREACH,
    errno.ETIMEDOUT,
    errno.EADDRNOTAVAIL,
)


def is_unanswered(error: BaseException | None) -> bool:
    """Whether the system says so.

    >>> is_unanswered(OSError(errno.ECONNREFUSED, "refused")), is_unanswered(OSError(errno.ENOSPC, "full"))
    (True, False)
    """
    # UnicodeError: no host can have that name.
    if isinstance(error, (TimeoutError, socket.gaierror, UnicodeError)):
        return True
    return isinstance(error, OSError) and error.errno in _NOBODY


def tells_of_nobody(text: str) -> bool:
    """Whether a library has put the system's words for it into its own."""
    return any(os.strerror(number) in text for number in _NOBODY)
