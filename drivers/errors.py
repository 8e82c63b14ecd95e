"""The errors that every layer shares. Each message says what was wrong, where, and what to do."""

from __future__ import annotations

DISTRIBUTION = "session-kit-web"
"""What this library is called on package indexes."""


def how_to_install(extra: str) -> str:
    """The command that installs what an extra brings, for messages.

    >>> how_to_install("redis")
    "pip install 'session-kit-web[redis]'"
    """
    return f"pip install '{DISTRIBUTION}[{extra}]'"


class SessionKitError(Exception):
    """Everything that this library raises on purpose, apart from `ValueError` and `TypeError` for bad arguments."""


class ConfigError(SessionKitError, ValueError):
    """A URL, an option, a secret or a cookie setting that cannot work. Raised at start, never during a request."""


class DriverError(SessionKitError):
    """A key-value driver could not do what it was asked."""


class DriverUnavailable(DriverError):
    """The backend does not answer, refuses, or has no room. Nothing is known about the key: it is not "missing".

    unanswered: whether nobody was found where the backend should be, so that its address may be wrong; False where it
        has refused, or the driver cannot tell.
    """

    def __init__(self, *args: object, unanswered: bool = False) -> None:
        super().__init__(*args)
        self.unanswered = unanswered


class Conflict(DriverError):
    """`expect=` did not match: the key was changed, created or deleted in the meantime. Nothing was written."""


class Unsupported(DriverError):
    """This driver cannot do that (see its `capabilities`). Raised before any I/O."""


class CorruptEntry(DriverError):
    """What the backend holds under the key was not written by this driver. It was neither decoded nor executed.

    version: the version of what is there, where the driver can tell; `delete(key, expect=version)` deletes just that.
    """

    def __init__(self, message: str, version: object = None) -> None:
        super().__init__(message)
        self.version = version
