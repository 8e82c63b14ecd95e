"""What the settings say, `SESSION_KIT` and Django's own `SESSION_COOKIE_*`: which store, and which manager."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable
from typing import Any, TypeVar

from django import conf
from django.core.signals import setting_changed

from session_kit.cookie import CookieOptions
from session_kit.errors import ConfigError
from session_kit.manager import SessionManager, make_manager
from session_kit.store import UnstorageSessionStore, open_store, with_ttl

T = TypeVar("T")


def once(make: Callable[[], T]) -> Callable[[], T]:
    """Make something of the settings once a process, and anew when they change, which they do in tests alone."""
    made = functools.cache(make)

    def forget(*, setting: str, **_: object) -> None:
        if setting.startswith(("SESSION_", "SECRET_KEY")):
            made.cache_clear()

    setting_changed.connect(forget, weak=False)
    return made


@once
def store() -> UnstorageSessionStore:
    """The store of `SESSION_KIT`."""
    store = options().get("store")
    if store is None:
        raise ConfigError('SESSION_KIT needs a store: SESSION_KIT = {"store": "redis://..."}')
    if isinstance(store, str):
        url = with_ttl(store, conf.settings.SESSION_COOKIE_AGE)
        store = open_store(url, clock=options().get("clock", time.time))
    if not isinstance(store, UnstorageSessionStore):
        raise ConfigError(
            f"SESSION_KIT: the engine needs a URL or an UnstorageSessionStore, not {type(store).__name__}"
        )
    return store


@once
def manager() -> SessionManager:
    """The manager of `SESSION_KIT`, for the shared cookie."""
    settings = conf.settings
    samesite: Any = (settings.SESSION_COOKIE_SAMESITE or "lax").lower()
    defaults = {
        "name": "session" if settings.SESSION_COOKIE_NAME == "sessionid" else settings.SESSION_COOKIE_NAME,
        "cookie": CookieOptions(
            httponly=settings.SESSION_COOKIE_HTTPONLY,
            samesite=samesite,
            path=settings.SESSION_COOKIE_PATH,
            domain=settings.SESSION_COOKIE_DOMAIN or None,
            persistent=not settings.SESSION_EXPIRE_AT_BROWSER_CLOSE,
        ),
    }
    given = {**defaults, **options(), "store": store()}
    secret = given.pop("secret", None) or [settings.SECRET_KEY, *settings.SECRET_KEY_FALLBACKS]
    return make_manager(secret=secret, **given)


def options() -> dict[str, Any]:
    """The setting `SESSION_KIT`."""
    found = getattr(conf.settings, "SESSION_KIT", None)
    if not isinstance(found, dict):
        raise ConfigError('the setting SESSION_KIT is missing: SESSION_KIT = {"store": "redis://..."}')
    return found
