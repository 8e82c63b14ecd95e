"""The extension that switches an application of Flask over, and what it shares with that of Quart."""

from __future__ import annotations

from contextlib import suppress
from functools import partial
from typing import Any, Unpack, cast

import flask
from flask import Flask, Request, Response, got_request_exception
from flask.sessions import SessionInterface
from werkzeug.exceptions import HTTPException, ServiceUnavailable

from session_kit.errors import STORE_DOWN, ConfigError, DriverUnavailable
from session_kit.headers import Headers, join_vary
from session_kit.integrations.command_line import make_group
from session_kit.integrations.flask.sessions import FlaskSession, TemplateSession
from session_kit.integrations.flask.settings import Settings
from session_kit.manager import ManagerOptions, Secrets, SessionManager
from session_kit.state import Phase
from session_kit.store import SessionStore, UnstorageSessionStore
from session_kit.wsgi import FinishingBody


class SessionKit:
    """The Flask extension: makes `flask.session` a server-side session.

    app: the application, or None and `init_app` later, for any number of applications.
    store: a URL or a store. Default: the setting `SESSION_KIT_STORE`. A URL without `ttl` takes it from
        `PERMANENT_SESSION_LIFETIME` (Flask's default: 31 days), which may change while the application runs.
    secret: default: `SECRET_KEY`, followed by `SECRET_KEY_FALLBACKS`.
    manager: a ready `SessionManager` in place of these, to share one among several applications.
    options: as for `SessionManager`. `name`, and what `cookie` leaves at its default, come from the settings
        `SESSION_COOKIE_*`, but the cookie is `Secure` and `SameSite=Lax` although Flask's defaults are not: for plain
        http say `cookie=CookieOptions(secure=False)`. While `app.testing` is set, it goes without `Secure` over plain
        http.

    Values are stored as Flask's own sessions store them, `codec="json-tagged"`: tuples, bytes, UUIDs, datetimes and
    `Markup` come back, and what else Flask converts is converted. Where another framework is to read such a value, give
    it the same codec: one that knows no tags sees `{" t": [1, 2]}` for a tuple, and leaves it in the record as it is.

    The cookie ends with the browser's session until `session.permanent` is set, whatever `CookieOptions.persistent`
    says; its lifetime is then renewed by use, at most every `touch_after` seconds, or, without
    `SESSION_REFRESH_EACH_REQUEST`, by changes alone.

    `flask session list`, `show`, `revoke`, `prune`, `copy` and `doctor` are there for operators.

    The manager is `app.extensions["session_kit"]`. A view that raises has changed nothing; what an error handler
    changes counts by the status that it answers with: 5xx keeps nothing. A store that does not answer is a 503, for
    which the application may have an error handler. What is changed while a response is streamed is saved at its end,
    before the client sees it, if the client already has the id; otherwise `SessionError` is raised. Templates see the
    keys of the session alone, so that `{{ session.id }}` shows what the application keeps under `id`, never the id.
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
        self._settings = partial(Settings, store=store, secret=secret, options=options)
        if app is not None:
            self.init_app(app)

    def init_app(self, app: Any) -> None:
        """Switch the sessions of `app` over. Its settings are read now; the lifetime again at each request."""
        if "session_kit" in app.extensions:
            raise ConfigError("SessionKit is installed twice on this application; keep one")
        settings = None if self._given is not None else self._settings(app)
        manager = app.extensions["session_kit"] = self._given or cast(Settings, settings).manager
        app.session_interface = self._interface(app, manager, settings)
        app.cli.add_command(make_group(lambda: manager))

    def _interface(self, app: Any, manager: SessionManager, settings: Settings | None) -> Any:
        return FlaskSessions(app, manager, settings)


class FlaskSessions(SessionInterface):
    """What Flask asks for sessions. settings: None if none is read."""

    def __init__(self, app: Any, manager: SessionManager, settings: Settings | None = None) -> None:
        def unavailable(error: Exception) -> Any:
            return app.handle_http_exception(ServiceUnavailable(STORE_DOWN))

        handle = app.handle_user_exception

        def handle_reverted(error: Exception) -> Any:
            if not isinstance(error, HTTPException):
                self._revert(app)
            return handle(error)

        self._manager, self._settings = manager, settings
        app.register_error_handler(DriverUnavailable, unavailable)
        app.handle_user_exception = handle_reverted
        got_request_exception.connect(self._revert, app)
        show_in_templates(app, flask.session)

    def open_session(self, app: Flask, request: Request) -> FlaskSession:  # type: ignore[override]  # no dict
        self._manager.check_outer(request.environ)
        read_again(self._settings)
        return self._manager.open(self._manager.credentials(request.environ), session_class=FlaskSession)

    def save_session(self, app: Flask, session: Any, response: Response) -> None:
        if session.lifecycle.phase is Phase.REPLACED:
            return  # what the error handlers make of an outage
        asked = plain_host, app, flask.request
        unrenewed = apply_config(app, session, self._settings)
        try:
            headers = self._manager.commit(session, response.status_code, *asked)
        except DriverUnavailable as error:
            headers = self._manager.refuse(session, *asked)
            refused = app.process_response(app.make_response(app.handle_user_exception(error)))
            replace(response, refused, refused.get_data())
            add_headers(response, headers)
            return
        add_headers(response, renewed(headers, session, unrenewed))
        # A file may be sent by the server itself: no code of the application runs after it.
        if response.is_streamed and not response.direct_passthrough:
            response.response = FinishingBody(cast(Any, response.response), self._manager, session)
        else:
            self._manager.finish(session)

    def _revert(self, sender: object, **_: object) -> None:
        """A view has raised."""
        with suppress(AssertionError):  # Flask's: it was the opening of the session that raised
            self._manager.revert(cast(Any, flask.session)._get_current_object())


def show_in_templates(app: Any, session: Any) -> None:
    """Let the templates of an application see the keys of the session, and nothing else of it."""
    shown = {"session": TemplateSession(session)}
    make = app.create_jinja_environment

    def create() -> Any:
        environment = make()
        environment.globals.update(shown)  # for macros, which are imported without a context
        return environment

    app.create_jinja_environment = create
    if "jinja_env" in vars(app):
        app.jinja_env.globals.update(shown)
    app.context_processor(lambda: shown)


def plain_host(app: Any, request: Any) -> str | None:
    """The host that a request asked for over plain http, else None. An application in testing is asked by tests."""
    if request.scheme != "http":
        return None
    return "testserver" if app.testing else request.headers.get("Host", "")


def read_again(settings: Settings | None) -> None:
    """When a session is opened: see what the settings say by now."""
    if settings is not None:
        settings.check()
        settings.follow_lifetime()


def apply_config(app: Any, session: FlaskSession, settings: Settings | None) -> str | None:
    """Before a session is committed, do what Flask's settings say.

    Returns the id whose cookie is not to be renewed: without `SESSION_REFRESH_EACH_REQUEST`, a permanent session's
    cookie counts from the last change.
    """
    if settings is not None:
        settings.follow_lifetime()  # a `before_request` may have set it
    session.leave_out()
    lifecycle = session.lifecycle
    if app.config["SESSION_REFRESH_EACH_REQUEST"] or lifecycle.draft is None or not session.permanent:
        return None
    if session.modified and lifecycle.counts:
        lifecycle.client_id = None  # the cookie is sent again
    return lifecycle.client_id


def renewed(headers: Headers, session: FlaskSession, unrenewed: str | None) -> Headers:
    """The session's headers without a renewal that is not wanted. unrenewed: what `apply_config` has returned."""
    if unrenewed is None or session.lifecycle.id != unrenewed:
        return headers
    return [header for header in headers if header[0] == "Vary"]


def add_headers(response: Any, headers: Headers) -> None:
    """Add the session's headers to a response of werkzeug's kind."""
    for name, value in headers:
        if name == "Vary" and (theirs := response.headers.getlist(name)):
            response.headers[name] = join_vary(theirs, value)
        else:
            response.headers.add(name, value)


def replace(response: Any, other: Any, body: bytes) -> None:
    """Make one response of werkzeug's kind say what another says."""
    response.status, response.headers = other.status, other.headers
    response.set_data(body)
