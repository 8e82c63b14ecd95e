"""All errors in one place. The drivers define theirs, because a driver knows nothing of sessions."""

from session_kit.drivers.errors import (
    ConfigError,
    Conflict,
    CorruptEntry,
    DriverError,
    DriverUnavailable,
    SessionKitError,
    Unsupported,
)


class SessionError(SessionKitError):
    """A session was used in a way that cannot work, or holds a value that cannot be stored."""


class OtherCodec(CorruptEntry):
    """A record was written by a codec that this one cannot read: encrypted with another key, or not encrypted.

    It is whole and was left alone; what wrote it can read it.
    """


class UnreadableList(OtherCodec, DriverUnavailable):
    """The list of a user's sessions was written by a codec that this one cannot read; it is whole and was left alone.

    To a request that is an outage: a login that is in no list could not be ended by "log out everywhere".
    """


class TooManySessions(SessionError):
    """A user has as many sessions as `max_sessions` allows, and none of them is to end for a new one (`when_full`)."""


STORE_DOWN = "The session store does not answer; try again later."
"""The body of the 503."""

__all__ = [
    "ConfigError",
    "Conflict",
    "CorruptEntry",
    "DriverError",
    "DriverUnavailable",
    "OtherCodec",
    "SessionError",
    "SessionKitError",
    "TooManySessions",
    "UnreadableList",
    "Unsupported",
]
