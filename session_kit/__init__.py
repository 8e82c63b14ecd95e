"""Server-side web sessions for every Python web framework, on any key-value store, chosen by one URL."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from session_kit.asgi import use_session
    from session_kit.cookie import CookieOptions
    from session_kit.drivers import ABSENT, Driver, Entry, open_driver, register_driver
    from session_kit.errors import (
        ConfigError,
        Conflict,
        CorruptEntry,
        DriverError,
        DriverUnavailable,
        OtherCodec,
        SessionError,
        SessionKitError,
        TooManySessions,
        UnreadableList,
        Unsupported,
    )
    from session_kit.manager import SessionManager
    from session_kit.policy import Event
    from session_kit.redis_store import RedisSessionStore
    from session_kit.session import Session
    from session_kit.store import SessionStore, UnstorageSessionStore, open_store

__version__ = "0.1.0"

__all__ = [
    "ABSENT",
    "ConfigError",
    "Conflict",
    "CookieOptions",
    "CorruptEntry",
    "Driver",
    "DriverError",
    "DriverUnavailable",
    "Entry",
    "Event",
    "OtherCodec",
    "RedisSessionStore",
    "Session",
    "SessionError",
    "SessionKitError",
    "SessionManager",
    "SessionStore",
    "TooManySessions",
    "UnreadableList",
    "UnstorageSessionStore",
    "Unsupported",
    "open_driver",
    "open_store",
    "register_driver",
    "use_session",
]

_HOME = {
    "use_session": "asgi",
    "CookieOptions": "cookie",
    "ABSENT": "drivers",
    "Driver": "drivers",
    "Entry": "drivers",
    "open_driver": "drivers",
    "register_driver": "drivers",
    "SessionManager": "manager",
    "Event": "policy",
    "RedisSessionStore": "redis_store",
    "Session": "session",
    "SessionStore": "store",
    "UnstorageSessionStore": "store",
    "open_store": "store",
}


def __getattr__(name: str) -> object:
    """Import on first use, so that `import session_kit` alone costs next to nothing."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.{_HOME.get(name, 'errors')}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
