"""What an application of Flask or Quart says of its sessions in its configuration."""

from __future__ import annotations

from typing import Any

from session_kit.cookie import CookieOptions, fill_options
from session_kit.errors import ConfigError
from session_kit.manager import ManagerOptions, Secrets, SessionManager, make_manager
from session_kit.store import with_ttl

READ_ONCE = (
    "SESSION_COOKIE_NAME",
    "SESSION_COOKIE_PATH",
    "APPLICATION_ROOT",
    "SESSION_COOKIE_DOMAIN",
    "SESSION_COOKIE_HTTPONLY",
    "SESSION_COOKIE_SAMESITE",
    "SESSION_COOKIE_PARTITIONED",
)
"""What the manager is made of. Flask itself reads them at each request."""
SECRETS = ("SECRET_KEY", "SECRET_KEY_FALLBACKS")


class Settings:
    """The settings of one application, and the manager that is made of them.

    store, secret, options: as `SessionKit` was given them; they win over the settings.

    As in Flask, the lifetime may change while the application runs: many set it in a `before_request`. The cookie and
    the secret may not: the first request is refused if they were set too late.
    """

    def __init__(self, app: Any, store: Any, secret: Secrets, options: ManagerOptions) -> None:
        config = app.config
        store = store if store is not None else config.get("SESSION_KIT_STORE")
        if store is None:
            raise ConfigError('SessionKit needs a store: SessionKit(app, store="redis://...") or SESSION_KIT_STORE')
        self._app = app
        self._read = {
            name: _meant(config, name) for name in READ_ONCE if name != "SESSION_COOKIE_NAME" or "name" not in options
        }
        if not secret:
            self._read |= {name: _meant(config, name) for name in SECRETS}
            secret = [key for key in (app.secret_key, *(config.get("SECRET_KEY_FALLBACKS") or ())) if key]
        if not secret:
            raise ConfigError("no secret given: set SECRET_KEY before SessionKit is installed, or say secret=...")
        self._checked = False
        self._lifetime = config["PERMANENT_SESSION_LIFETIME"]
        self._follows = False  # the store says itself how long
        if isinstance(store, str) and (url := with_ttl(store, self._seconds())) != store:
            store, self._follows = url, True
        named: ManagerOptions = {"name": config["SESSION_COOKIE_NAME"], **options}
        named["cookie"] = fill_options(options.get("cookie", CookieOptions()), _cookie_options(config))
        self.manager: SessionManager = make_manager(store, secret, "app", "manager", usual_codec="json-tagged", **named)

    def check(self) -> None:
        """At a request: raise `ConfigError` if what was read once was set too late. Tests may set what they like."""
        if self._checked:
            return
        late = [name for name, value in self._read.items() if _meant(self._app.config, name) != value]
        if late and not self._app.testing:
            raise ConfigError(
                f"set before SessionKit is installed, not after it, or it does not count: {', '.join(late)}"
            )
        self._checked = True

    def follow_lifetime(self) -> None:
        """Let sessions live for as long as `PERMANENT_SESSION_LIFETIME` says by now."""
        given = self._app.config["PERMANENT_SESSION_LIFETIME"]
        if given is self._lifetime or not self._follows:  # the same object: this is asked twice in each request
            return
        if (seconds := self._seconds()) <= 0:
            raise ConfigError("PERMANENT_SESSION_LIFETIME must be more than 0 seconds")
        self.manager.policy.use_ttl(seconds)
        self._lifetime = given

    def _seconds(self) -> float:
        seconds: float = self._app.permanent_session_lifetime.total_seconds()
        return seconds


def _meant(config: Any, name: str) -> object:
    """The value of a setting; what means the same is the same, since extensions such as Flask-Talisman set `Lax`."""
    value = config.get(name)
    return (value or "lax").lower() if name == "SESSION_COOKIE_SAMESITE" else value or None


def _cookie_options(config: Any) -> CookieOptions:
    """What the settings `SESSION_COOKIE_*` say. That `SECURE` is False says nothing: it is so until it is set."""
    samesite: Any = _meant(config, "SESSION_COOKIE_SAMESITE")
    return CookieOptions(
        httponly=config["SESSION_COOKIE_HTTPONLY"],
        samesite=samesite,
        path=config["SESSION_COOKIE_PATH"] or config["APPLICATION_ROOT"] or "/",
        domain=config["SESSION_COOKIE_DOMAIN"] or None,
        partitioned=config.get("SESSION_COOKIE_PARTITIONED", False),
    )
