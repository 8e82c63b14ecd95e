"""Flask: `flask.session` as a server-side session, with Flask's own settings, `flash` and test client.

>>> from flask import Flask, session
>>> app = Flask("shop")
>>> app.secret_key = "N3w-secret-of-at-least-32-characters!"
>>> kit = SessionKit(app, store="memory://")
>>> @app.get("/")
... def visits():
...     session.update(lambda data: {"visits": data.get("visits", 0) + 1})
...     return {"visits": session["visits"]}
>>> client = app.test_client()
>>> [client.get("/").json["visits"] for _ in range(2)]
[1, 2]
"""

from __future__ import annotations

from functools import partial
from typing import Any, Unpack

from flask import Flask, Request, Response, got_request_exception
from flask.sessions import SessionInterface
from werkzeug.exceptions import ServiceUnavailable

from session_kit.cookie import CookieOptions
from session_kit.drivers.registry import split_url
from session_kit.errors import ConfigError, DriverUnavailable
from session_kit.manager import Headers, ManagerOptions, Secrets, SessionManager, make_manager
from session_kit.session import Session
from session_kit.store import SessionStore, UnstorageSessionStore, open_store

FLASHES = "_flashes"
PERMANENT = "_permanent"
DOWN = "The session store does not answer; try again later."


class FlaskSession(Session[Any]):
    """A `Session` with what Flask's users know of theirs: `permanent`, `modified`, `new` and `accessed`."""

    __slots__ = ()

    @property
    def permanent(self) -> bool:
        """Whether the cookie outlives the browser's session. Set it to override `CookieOptions.persistent`."""
        return bool(self.get(PERMANENT, True))

    @permanent.setter
    def permanent(self, value: bool) -> None:
        if self.get(PERMANENT) != value:
            self[PERMANENT] = bool(value)
            self._resend = True

    def _persistent(self) -> bool | None:
        chosen: bool | None = self.get(PERMANENT)
        return chosen

    @property
    def modified(self) -> bool:
        """Whether something changed. Changes inside values are found without setting it."""
        draft = self._loaded()
        draft.settle()
        return draft.changed

    @modified.setter
    def modified(self, value: bool) -> None: ...

    @property
    def new(self) -> bool:
        """Flask's name for `is_new`."""
        return self.is_new

    @property
    def accessed(self) -> bool:
        """Whether the request has looked into the session."""
        return self._used

    @accessed.setter
    def accessed(self, value: bool) -> None: ...  # Flask sets it whenever the proxy is touched, before it is asked

    # Flask keeps flashed messages as tuples, which JSON does not know.

    def __setitem__(self, key: str, value: Any) -> None:
        super().__setitem__(key, [list(item) for item in value] if key == FLASHES else value)

    def __getitem__(self, key: str) -> Any:
        value = super().__getitem__(key)
        return [tuple(item) for item in value] if key == FLASHES else value


class Extension:
    """What the extensions of Flask and Quart share: how a manager is made of arguments and settings.

    app: the application, or None and `init_app` later.
    store: a URL or a store. Default: the setting `SESSION_KIT_STORE`. A URL without `ttl` takes it from
        `PERMANENT_SESSION_LIFETIME` (Flask's default: 31 days).
    secret: default: `SECRET_KEY`, followed by `SECRET_KEY_FALLBACKS`.
    options: as for `SessionManager`. `name` and `cookie` default to the settings `SESSION_COOKIE_*`, but the cookie is
        `Secure` and `SameSite=Lax` even though Flask's defaults are not: for plain http say
        `cookie=CookieOptions(secure=False)`.
    Raises `ConfigError` for anything that cannot work.

    """

    def __init__(
        self,
        app: Any = None,
        store: str | UnstorageSessionStore | SessionStore | None = None,
        secret: Secrets = (),
        *,
        manager: SessionManager | None = None,
        **options: Unpack[ManagerOptions],
    ) -> None:
        self.manager = manager
        self._make = partial(self._make_manager, store, secret, options)
        if app is not None:
            self.init_app(app)

    def init_app(self, app: Any) -> None:
        """Switch the sessions of `app` over."""
        if isinstance(app.session_interface, Extension):
            raise ConfigError("SessionKit is installed twice on this application; keep one")
        if self.manager is None:
            self.manager = self._make(app)
        app.session_interface = self
        app.register_error_handler(DriverUnavailable, lambda error: ServiceUnavailable(DOWN))

    def _make_manager(self, store: Any, secret: Secrets, options: ManagerOptions, app: Any) -> SessionManager:
        config = app.config
        store = store if store is not None else config.get("SESSION_KIT_STORE")
        if store is None:
            raise ConfigError('SessionKit needs a store: SessionKit(app, store="redis://...") or SESSION_KIT_STORE')
        secret = secret or [key for key in (app.secret_key, *(config.get("SECRET_KEY_FALLBACKS") or ())) if key]
        settings: ManagerOptions = {"name": config["SESSION_COOKIE_NAME"], "cookie": cookie_options(config), **options}
        if isinstance(store, str) and "ttl" not in dict(split_url(store)[1]):
            store = open_store(store)
            store.ttl = app.permanent_session_lifetime.total_seconds()
        return make_manager(store, secret, "app", "manager", **settings)

    def _refuse(self, session: Any, response: Any) -> None:
        """Turn a response whose session could not be saved into a 503."""
        self._manager.abandon(session)
        response.status_code = 503
        response.headers.clear()
        response.content_type = "text/plain; charset=utf-8"
        response.set_data(DOWN)

    @property
    def _manager(self) -> SessionManager:
        if self.manager is None:
            raise ConfigError("SessionKit is not installed; call init_app(app)")
        return self.manager


class SessionKit(Extension, SessionInterface):
    """The Flask extension: makes `flask.session` a server-side session. Parameters: `Extension`.

    A view that raises has changed nothing. A store that does not answer is a 503; an error handler of your own for
    `DriverUnavailable` shapes it.
    """

    def init_app(self, app: Flask) -> None:
        """Switch the sessions of `app` over."""
        super().init_app(app)
        got_request_exception.connect(self._abandon, app)

    def open_session(self, app: Flask, request: Request) -> FlaskSession:  # type: ignore[override]  # no dict
        cookies = request.environ.get("HTTP_COOKIE", "").encode("latin-1")
        return self._manager.open(cookies, session_class=FlaskSession)

    def save_session(self, app: Flask, session: Any, response: Response) -> None:
        if session._sealed:
            return  # abandoned
        try:
            headers = self._manager.commit(session)
        except DriverUnavailable:
            self._refuse(session, response)
            return
        add_headers(response, headers)
        if response.is_streamed:
            response.call_on_close(partial(self._manager.finish, session))

    def _abandon(self, sender: object, **_: object) -> None:
        """A view has raised, and the answer is Flask's 500."""
        from flask import session

        self._manager.abandon(session._get_current_object())  # type: ignore[attr-defined]


def cookie_options(config: Any) -> CookieOptions:
    """Return what the settings `SESSION_COOKIE_*` say, of Flask or of Quart."""
    samesite: Any = (config["SESSION_COOKIE_SAMESITE"] or "lax").lower()
    return CookieOptions(
        httponly=config["SESSION_COOKIE_HTTPONLY"],
        samesite=samesite,
        path=config["SESSION_COOKIE_PATH"] or config["APPLICATION_ROOT"] or "/",
        domain=config["SESSION_COOKIE_DOMAIN"] or None,
        partitioned=config.get("SESSION_COOKIE_PARTITIONED", False),
    )


def add_headers(response: Any, headers: Headers) -> None:
    """Add the session's headers to a response of werkzeug's kind."""
    for name, value in headers:
        if name == "Vary":
            response.vary.add(value)
        else:
            response.headers.add(name, value)
