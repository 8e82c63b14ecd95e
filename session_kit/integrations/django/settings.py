"""What the settings say, `SESSION_KIT` and Django's own `SESSION_COOKIE_*`: which store, and which manager."""

from __future__ import annotations

import functools
import hashlib
import sys
import time
from collections.abc import Callable
from typing import Any, TypeVar, cast

from django import conf
from django.core.signals import setting_changed

from session_kit.cookie import CookieOptions, check_secrets, fill_options
from session_kit.drivers.support.options import parse_duration
from session_kit.errors import ConfigError
from session_kit.integrations.django.codec import LenientCodec
from session_kit.integrations.django.expiry import Lifetime
from session_kit.manager import SessionManager, make_manager
from session_kit.store import UnstorageSessionStore, open_store, with_ttl

T = TypeVar("T")


def in_tests() -> bool:
    """Whether Django's test environment is set up: its test runner does it, and pytest-django."""
    utils = sys.modules.get("django.test.utils")
    return utils is not None and hasattr(utils._TestState, "saved_data")


def once(*settings: str, key: Callable[[], object] = lambda: None) -> Callable[[Callable[[], T]], Callable[[], T]]:
    """Make something once a process, and anew when settings that begin so change, which they do in tests alone.

    key: what it also depends on.
    """

    def decorate(make: Callable[[], T]) -> Callable[[], T]:
        made: dict[object, T] = {}

        @functools.wraps(make)
        def get() -> T:
            wanted = key()
            found = made.get(wanted)
            # Of threads that come first, several may make one, but all get the same: two would be two stores.
            return made.setdefault(wanted, make()) if found is None else found

        def forget(*, setting: str, **_: object) -> None:
            if setting.startswith(settings):
                made.clear()

        setting_changed.connect(forget, weak=False)
        return get

    return decorate


@once("SESSION_KIT")
def given_store() -> tuple[UnstorageSessionStore, bool]:
    """The store of `SESSION_KIT`, and whether it says itself how long sessions live."""
    found = options().get("store")
    if found is None:
        raise ConfigError('SESSION_KIT needs a store: SESSION_KIT = {"store": "redis://..."}')
    if isinstance(found, str):
        opened = open_store(found, clock=options().get("clock", time.time))
        return opened, with_ttl(found, 1) == found
    if not isinstance(found, UnstorageSessionStore):
        raise ConfigError(
            f"SESSION_KIT: the engine needs a URL or an UnstorageSessionStore, not {type(found).__name__}"
        )
    return found, True


@once("SESSION_", "SECRET_KEY", "DEBUG", key=in_tests)
def manager() -> SessionManager:
    """The manager of `SESSION_KIT`, for both ways: its store keeps to `set_expiry`, and takes what Django takes."""
    given = dict(options())
    under, has_ttl = given_store()
    made = UnstorageSessionStore(
        under.driver,
        prefix=under.prefix,
        ttl=Lifetime(under.ttl if has_ttl else conf.settings.SESSION_COOKIE_AGE, _touch_after(given)),
        hash_ids=under.hash_ids,
        codec=LenientCodec(under.codec),
        clock=under.clock,
    )
    usual = {"name": cookie_name()}
    chosen = given.get("cookie")
    given["cookie"] = _cookie(not conf.settings.DEBUG) if chosen is None else fill_options(chosen, _cookie(True))
    secret = given.pop("secret", None) or secrets()
    return make_manager(secret=secret, **{**usual, **given, "store": made})


def store() -> UnstorageSessionStore:
    """The store of the manager."""
    return cast(UnstorageSessionStore, manager().store)


def options() -> dict[str, Any]:
    """The setting `SESSION_KIT`."""
    found = getattr(conf.settings, "SESSION_KIT", None)
    if not isinstance(found, dict):
        raise ConfigError('the setting SESSION_KIT is missing: SESSION_KIT = {"store": "redis://..."}')
    return found


def cookie_name() -> str:
    """The name of the shared cookie: what `SESSION_COOKIE_NAME` was set to, else what all other frameworks call it.

    While Django's test environment is set up it is Django's default: its test client goes by that.
    """
    chosen = is_set("SESSION_COOKIE_NAME") or in_tests()
    return str(conf.settings.SESSION_COOKIE_NAME) if chosen else "session"


def is_set(setting: str) -> bool:
    """Whether somebody has set it, as against Django's default."""
    return bool(conf.settings.is_overridden(setting))


def secrets() -> list[str | bytes]:
    """What signs the cookie if `SESSION_KIT` has no secret: `SECRET_KEY` and its fallbacks.

    One that other frameworks would refuse, such as that of a new project, is hashed first. It signs, but cannot be
    shared; a system check says so.
    """
    keys = [conf.settings.SECRET_KEY, *conf.settings.SECRET_KEY_FALLBACKS]
    return [hashlib.sha256(_bytes(key)).hexdigest() if weakness(key) else key for key in keys]


def weakness(key: str | bytes) -> str | None:
    """What is wrong with a secret, or None."""
    try:
        check_secrets(key)
    except ConfigError as error:
        return str(error)
    return None


def _bytes(key: str | bytes) -> bytes:
    return key.encode() if isinstance(key, str) else key


def _cookie(secure: bool) -> CookieOptions:
    """What the settings `SESSION_COOKIE_*` say. secure: where nobody has set whether it is."""
    settings = conf.settings
    samesite: Any = (settings.SESSION_COOKIE_SAMESITE or "lax").lower()
    return CookieOptions(
        httponly=settings.SESSION_COOKIE_HTTPONLY,
        secure=settings.SESSION_COOKIE_SECURE if is_set("SESSION_COOKIE_SECURE") else secure,
        samesite=samesite,
        path=settings.SESSION_COOKIE_PATH,
        domain=settings.SESSION_COOKIE_DOMAIN or None,
        persistent=not settings.SESSION_EXPIRE_AT_BROWSER_CLOSE,
    )


def _touch_after(given: dict[str, Any]) -> float:
    value = given.get("touch_after", 300)
    try:
        return 0.0 if value == 0 else parse_duration(value)
    except (TypeError, ValueError):
        return 300.0  # the manager refuses it
