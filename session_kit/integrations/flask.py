"""Flask: `flask.session` as a server-side session, with Flask's own settings, `flash` and test client.

`session` of this module is `flask.session` itself; a type checker knows more of it by this name.

>>> from flask import Flask
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
from typing import Any, ClassVar, Unpack, cast

import flask
from flask import Flask, Request, Response, got_request_exception
from flask.sessions import SessionInterface
from markupsafe import Markup
from werkzeug.exceptions import ServiceUnavailable

from session_kit.cookie import CookieOptions
from session_kit.drivers.registry import split_url
from session_kit.errors import ConfigError, DriverUnavailable
from session_kit.manager import Headers, ManagerOptions, Secrets, SessionManager, make_manager
from session_kit.session import Session
from session_kit.store import SessionStore, UnstorageSessionStore

FLASHES = "_flashes"
PERMANENT = "_permanent"
DOWN = "The session store does not answer; try again later."


class FlaskSession(Session[Any]):
    """A `Session` with what Flask's users know of theirs: `permanent`, `modified`, `new`, `accessed`, and `flash`."""

    __slots__ = ()

    _kept: ClassVar[bool] = True

    @property
    def permanent(self) -> bool:
        """Whether the cookie outlives the browser's session. Until it is set, what `CookieOptions.persistent` says."""
        return bool(self.get(PERMANENT, self._kept))

    @permanent.setter
    def permanent(self, value: bool) -> None:
        # Many applications set it before every request; that alone shall not make a session for every visitor.
        if bool(value) != self.permanent:
            self[PERMANENT] = bool(value)
            self._resend = True

    def _persistent(self) -> bool | None:
        return self.permanent

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
    def accessed(self, value: bool) -> None: ...  # Flask sets it whenever the proxy is touched

    def clear(self) -> None:
        """Drop all data and the id with it. A session that stays empty is destroyed when it would be saved.

        Views that were written for Flask's own cookie log in and out with it, and count on a fresh start.
        """
        self._regenerate(clear=True)

    def _is_over(self) -> bool:
        return self._retired is not None and len(self) == 0

    def __setitem__(self, key: str, value: Any) -> None:
        super().__setitem__(key, [_pack(*item) for item in value] if key == FLASHES else value)

    def __getitem__(self, key: str) -> Any:
        value = super().__getitem__(key)
        return [_unpack(*item) for item in value] if key == FLASHES else value


class _BriefSession(FlaskSession):
    """What is made with `CookieOptions(persistent=False)`: it ends with the browser's, unless it is made permanent."""

    __slots__ = ()

    _kept = False


session = cast(FlaskSession, flask.session)


class SessionKit:
    """The Flask extension: makes `flask.session` a server-side session.

    app: the application, or None and `init_app` later, for any number of applications.
    store: a URL or a store. Default: the setting `SESSION_KIT_STORE`. A URL without `ttl` takes it from
        `PERMANENT_SESSION_LIFETIME` (Flask's default: 31 days).
    secret: default: `SECRET_KEY`, followed by `SECRET_KEY_FALLBACKS`.
    manager: a ready `SessionManager` in place of these, to share one among several applications.
    options: as for `SessionManager`. `name` and `cookie` default to the settings `SESSION_COOKIE_*`, but the cookie is
        `Secure` and `SameSite=Lax` although Flask's defaults are not: for plain http say
        `cookie=CookieOptions(secure=False)`.

    The manager is `app.extensions["session_kit"]`. A view that raises has changed nothing. A store that does not answer
    is a 503, for which the application may have an error handler. What is changed while a response is streamed is saved
    at its end, if the client already has the id; otherwise `SessionError` is raised.
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
        if manager is not None and (store is not None or secret or options):
            raise ConfigError("SessionKit needs a manager=..., or a store, a secret and options in its place, not both")
        self._given = manager
        self._make = partial(_make_manager, store, secret, options)
        if app is not None:
            self.init_app(app)

    def init_app(self, app: Any) -> None:
        """Switch the sessions of `app` over. Its settings are read now."""
        if "session_kit" in app.extensions:
            raise ConfigError("SessionKit is installed twice on this application; keep one")
        manager = app.extensions["session_kit"] = self._given or self._make(app)
        app.session_interface = self._interface(app, manager)

    def _interface(self, app: Any, manager: SessionManager) -> Any:
        return FlaskSessions(app, manager)


class FlaskSessions(SessionInterface):
    """What Flask asks for sessions."""

    def __init__(self, app: Flask, manager: SessionManager) -> None:
        def unavailable(error: Exception) -> Any:
            self._abandon(app)
            return app.handle_http_exception(ServiceUnavailable(DOWN))

        self._manager = manager
        self._class = session_class(manager)
        app.register_error_handler(DriverUnavailable, unavailable)
        got_request_exception.connect(self._abandon, app)

    def open_session(self, app: Flask, request: Request) -> FlaskSession:  # type: ignore[override]  # no dict
        cookies = request.environ.get("HTTP_COOKIE", "").encode("latin-1")
        return self._manager.open(cookies, session_class=self._class)

    def save_session(self, app: Flask, session: Any, response: Response) -> None:
        if session._sealed:
            return  # abandoned
        try:
            if session._is_over():
                session.destroy()
            headers = self._manager.commit(session)
        except DriverUnavailable as error:
            self._manager.abandon(session)
            refused = app.process_response(app.make_response(app.handle_user_exception(error)))
            replace(response, refused, refused.get_data())
            return
        add_headers(response, headers)
        if response.is_streamed:
            response.call_on_close(partial(self._manager.finish, session))

    def _abandon(self, sender: object, **_: object) -> None:
        """A view has raised, and the answer is an error page."""
        abandon(self._manager, cast(Any, flask.session)._get_current_object())


# --- shared with Quart ---


def session_class(manager: SessionManager) -> type[FlaskSession]:
    """Return the class of session whose `permanent` agrees with the cookie's options."""
    return FlaskSession if manager._cookie.options.persistent else _BriefSession


def abandon(manager: SessionManager, session: Session[Any]) -> None:
    """Drop what a view changed. The error page may show the session: an empty one, if the store did not answer."""
    manager.abandon(session)
    if session._failed and session._draft_or_none is None:
        session._begin()


def add_headers(response: Any, headers: Headers) -> None:
    """Add the session's headers to a response of werkzeug's kind."""
    for name, value in headers:
        if name == "Vary":
            response.vary.add(value)
        else:
            response.headers.add(name, value)


def replace(response: Any, other: Any, body: bytes) -> None:
    """Make one response of werkzeug's kind say what another says."""
    response.status, response.headers = other.status, other.headers
    response.set_data(body)


def _make_manager(store: Any, secret: Secrets, options: ManagerOptions, app: Any) -> SessionManager:
    """Make the manager of an application of Flask or Quart: what was given, then what the settings say."""
    config = app.config
    store = store if store is not None else config.get("SESSION_KIT_STORE")
    if store is None:
        raise ConfigError('SessionKit needs a store: SessionKit(app, store="redis://...") or SESSION_KIT_STORE')
    secret = secret or [key for key in (app.secret_key, *(config.get("SECRET_KEY_FALLBACKS") or ())) if key]
    if not secret:
        raise ConfigError("no secret given: set SECRET_KEY before SessionKit is installed, or say secret=...")
    if isinstance(store, str) and "ttl" not in dict(split_url(store)[1]):
        store += f"{'&' if '?' in store else '?'}ttl={app.permanent_session_lifetime.total_seconds()}"
    settings: ManagerOptions = {"name": config["SESSION_COOKIE_NAME"], "cookie": _cookie_options(config), **options}
    return make_manager(store, secret, "app", "manager", **settings)


def _cookie_options(config: Any) -> CookieOptions:
    """What the settings `SESSION_COOKIE_*` say. That `SECURE` is False says nothing: it is so until it is set."""
    samesite: Any = (config["SESSION_COOKIE_SAMESITE"] or "lax").lower()
    return CookieOptions(
        httponly=config["SESSION_COOKIE_HTTPONLY"],
        samesite=samesite,
        path=config["SESSION_COOKIE_PATH"] or config["APPLICATION_ROOT"] or "/",
        domain=config["SESSION_COOKIE_DOMAIN"] or None,
        partitioned=config.get("SESSION_COOKIE_PARTITIONED", False),
    )


# Flask keeps flashed messages as tuples of category and message, which may be safe HTML. JSON knows neither.


def _pack(category: str, message: Any) -> list[Any]:
    html = getattr(message, "__html__", None)
    return [category, message] if html is None else [category, str(html()), "html"]


def _unpack(category: str, message: Any, kind: str = "") -> tuple[str, Any]:
    return category, Markup(message) if kind == "html" else message  # noqa: S704
