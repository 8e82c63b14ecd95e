"""What keeps a server from answering, said in one line that shows no password, no key and no value."""

from __future__ import annotations

import contextlib
import os
import re
import ssl
from collections.abc import Iterator
from typing import Final

from redis import exceptions
from redis.asyncio import sentinel as asynchronous
from redis.sentinel import MasterNotFoundError

from session_kit.drivers.errors import DriverUnavailable
from session_kit.drivers.support.tls import tls_reason
from session_kit.drivers.support.unanswered import is_unanswered

FAILURES: Final = (exceptions.RedisError, exceptions.RedisClusterException, OSError, UnicodeError)
NO_PRIMARY: Final = (MasterNotFoundError, asynchronous.MasterNotFoundError)  # blocking, asyncio
CLOSED: Final = "the driver or its event loop was closed"
HUNG_UP: Final = "the server has closed the connection"
_TIMEOUT = "no answer within the timeout"
_REASONS: dict[type[Exception], str] = {
    exceptions.AuthenticationError: "the server refuses the user name or password",
    exceptions.NoPermissionError: (
        "the user may not do this (ACL); sessions need read, write, scan and eval on their keys"
    ),
    exceptions.OutOfMemoryError: "the server has no memory left for it (maxmemory)",
    exceptions.ReadOnlyError: "the server is a read-only replica",
    exceptions.AskError: "the server is a node of a cluster: the URL is to begin with redis+cluster://",
    exceptions.InvalidResponse: "what answers there does not speak the Redis protocol",
    exceptions.TimeoutError: _TIMEOUT,
    TimeoutError: _TIMEOUT,
    UnicodeError: "no host can have this name",
}


@contextlib.contextmanager
def uvloop_says_the_same() -> Iterator[None]:
    """uvloop raises `RuntimeError` for a write to a connection that has just been closed; make it the usual error."""
    try:
        yield
    except RuntimeError as error:
        if "the handler is closed" not in str(error):
            raise
        raise exceptions.ConnectionError(HUNG_UP) from error


def is_lost(error: Exception) -> bool:
    """Whether the connection is gone. Not after a timeout: a second attempt would only double the wait."""
    no_connection = (exceptions.AuthenticationError, *NO_PRIMARY)  # none that could be lost
    return isinstance(error, exceptions.ConnectionError) and not isinstance(error, no_connection)


def unavailable(where: str, error: BaseException) -> DriverUnavailable:
    """The error to raise for one of redis-py's or the system's."""
    return DriverUnavailable(f"{where}: {reason(error)}", unanswered=_is_unanswered(error))


def reason(error: BaseException) -> str:
    """What went wrong."""
    return _reason(error).strip(" ,.:") or type(error).__name__


def text(error: BaseException) -> str:
    """What the server or the system said; a pipeline of redis-py puts the command in front."""
    return str(error).rpartition("caused error: ")[2]


def _is_unanswered(error: BaseException) -> bool:
    cause = error.__context__ if isinstance(error, exceptions.ConnectionError) else error
    return isinstance(error, (exceptions.TimeoutError, exceptions.InvalidResponse)) or is_unanswered(cause)


def _reason(error: BaseException) -> str:
    if known := next((words for kind, words in _REASONS.items() if isinstance(error, kind)), ""):
        return known
    if isinstance(error, NO_PRIMARY):
        found = str(error).partition(" : ")[0]  # what follows is how each client of redis-py was made
        return f"{found}; check the name of the service, and whether its Sentinels and its primary run"
    if isinstance(error, exceptions.ResponseError):
        return re.split(r"`|\B'", text(error))[0]  # what stands in quotes is what was sent; that of "can't" is none
    if isinstance(error, exceptions.ConnectionError) and isinstance(error.__context__, (OSError, UnicodeError)):
        return _reason(error.__context__)  # redis-py's own text says less
    if isinstance(error, ssl.SSLError):
        return tls_reason(error, "ssl_ca_certs=")
    if isinstance(error, ConnectionError):  # asyncio's have no text when a handshake is cut off
        return os.strerror(error.errno) if error.errno else str(error) or HUNG_UP
    return (isinstance(error, OSError) and error.strerror) or text(error)
