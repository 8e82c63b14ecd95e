"""Quart: `quart.session` as a server-side session, with Quart's own settings, `flash` and test client.

`session` of this module is `quart.session`; a type checker knows more of it by this name, and without `SessionKit` it
raises, where `quart.session` would keep what it is given in Quart's own cookie.

>>> from quart import Quart
>>> app = Quart("shop")
>>> app.secret_key = "N3w-secret-of-at-least-32-characters!"
>>> kit = SessionKit(app, store="memory://")
>>> @app.get("/")
... async def visits():
...     session.update(lambda data: {"visits": data.get("visits", 0) + 1})
...     return {"visits": session["visits"]}
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterable
from contextlib import suppress
from inspect import isawaitable, signature
from typing import Any, cast

import quart
from quart import Quart, Response, Websocket
from quart.sessions import SessionInterface
from quart.signals import got_request_exception, got_websocket_exception
from quart.wrappers.response import IterableBody, ResponseBody
from werkzeug.exceptions import HTTPException, ServiceUnavailable

from session_kit.errors import STORE_DOWN, DriverUnavailable
from session_kit.integrations import flask
from session_kit.integrations.flask.extension import (
    add_headers,
    apply_config,
    plain_host,
    read_again,
    renewed,
    replace,
    show_in_templates,
)
from session_kit.integrations.flask.sessions import FlaskSession, only_ours
from session_kit.integrations.flask.settings import Settings
from session_kit.manager import SessionManager
from session_kit.session import Session
from session_kit.state import Phase

session = only_ours(quart.session)
OPENED = "session_kit_opened"
"""On the context in which a session was opened. `copy_current_request_context` and the like make copies, which end
before the request does."""


class SessionKit(flask.SessionKit):
    """The Quart extension: makes `quart.session` a server-side session.

    Parameters, and what happens to errors and streams, as for `session_kit.integrations.flask.SessionKit`. Where the
    store waits for a network, the session is loaded before the view if a cookie verifies. What a WebSocket changes is
    saved when it ends, by its client too; `await session.asave()` saves earlier.
    """

    def _interface(self, app: Quart, manager: SessionManager, settings: Settings | None) -> Any:
        return QuartSessions(app, manager, settings)


class QuartSessions(SessionInterface):
    """What Quart asks for sessions. settings: None if none is read."""

    def __init__(self, app: Any, manager: SessionManager, settings: Settings | None = None) -> None:
        async def unavailable(error: Exception) -> Any:
            return await app.handle_http_exception(*self._context(), ServiceUnavailable(STORE_DOWN))

        handle = app.handle_user_exception

        async def handle_reverted(*context_and_error: Any) -> Any:
            if not isinstance(context_and_error[-1], HTTPException):
                await self._revert(app)
            return await handle(*context_and_error)

        self._manager, self._settings = manager, settings
        self._takes_context = "ctx" in signature(handle).parameters
        app.register_error_handler(DriverUnavailable, unavailable)
        app.handle_user_exception = handle_reverted
        app.teardown_request(self._end)
        app.teardown_websocket(self._finish)
        app.after_serving(manager.aclose)
        got_request_exception.connect(self._revert, app)
        got_websocket_exception.connect(self._revert, app)
        show_in_templates(app, quart.session)

    async def open_session(self, app: Quart, request: Any) -> FlaskSession:  # type: ignore[override]  # no dict
        self._manager.check_outer(request.scope)
        read_again(self._settings)
        header = self._manager.policy.header
        cookies: list[Any] = [value.encode("latin-1") for value in request.headers.getlist("Cookie")]
        if header is not None:
            cookies += header.pairs(request.headers.getlist(header.name))
        session = self._manager.open(cookies, asynchronous=True, session_class=FlaskSession)
        of_websocket = isinstance(request, Websocket)
        # The handshake of a WebSocket is answered by Quart itself: it carries no cookie of ours.
        if of_websocket:
            session.lifecycle.phase = Phase.BEGUN
        setattr(self._current_context(of_websocket=of_websocket), OPENED, True)
        await self._manager.apreload(session)
        return session

    async def save_session(self, app: Any, session: Any, response: Response | None) -> None:  # type: ignore[override]  # no dict
        if session.lifecycle.phase is not Phase.AHEAD or response is None:
            return  # a WebSocket's, or what the error handlers make of an outage
        asked = plain_host, app, quart.request
        unrenewed = apply_config(app, session, self._settings)
        try:
            headers = await self._manager.acommit(session, response.status_code, *asked)
        except DriverUnavailable as error:
            headers = self._manager.refuse(session, *asked)
            context = self._context()
            answer = await app.make_response(await app.handle_user_exception(*context, error))
            refused = await app.process_response(*context, answer)
            body: Any = refused.get_data()
            replace(response, refused, await body if isawaitable(body) else body)
            add_headers(response, headers)
            return
        add_headers(response, renewed(headers, session, unrenewed))
        if isinstance(response.response, IterableBody):
            response.response = _Finishing(response.response, self._manager, session)
        else:
            await self._manager.afinish(session)

    def _context(self) -> tuple[Any, ...]:
        """What the methods of the application take first, since Quart 0.23."""
        return (self._current_context(of_websocket=False),) if self._takes_context else ()

    async def _end(self, error: BaseException | None) -> None:
        """A request has ended; without an answer if the client has left, for Quart cancels the view then."""
        session = _current()
        if isinstance(session, Session) and session.lifecycle.phase is Phase.AHEAD and self._ends():
            self._manager.finish(session)

    async def _finish(self, error: BaseException | None) -> None:
        """A WebSocket has ended; Quart cancels its view when the client leaves."""
        if self._ends(of_websocket=True):
            # One that leaves only now cancels what is saved; Quart 0.23 would make an error of that.
            with suppress(asyncio.CancelledError):
                await self._manager.afinish(_current())

    def _ends(self, *, of_websocket: bool = False) -> bool:
        """Whether it is the request itself that ends, and no copy of its context."""
        return hasattr(self._current_context(of_websocket=of_websocket), OPENED)

    def _current_context(self, *, of_websocket: bool) -> Any:
        there: Any = quart.globals
        if self._takes_context:
            return there.app_ctx._get_current_object()
        return (there.websocket_ctx if of_websocket else there.request_ctx)._get_current_object()

    async def _revert(self, sender: object, **_: object) -> None:
        """A view has raised."""
        self._manager.revert(_current())


class _Finishing(ResponseBody):
    """A streamed body, at whose end the late changes are saved, unless it failed."""

    def __init__(self, body: ResponseBody, manager: SessionManager, session: Session[Any]) -> None:
        self._body, self._manager, self._session = body, manager, session

    async def __aenter__(self) -> AsyncIterable[Any]:
        return await self._body.__aenter__()

    async def __aexit__(self, kind: Any, *error: Any) -> None:
        await self._body.__aexit__(kind, *error)
        if kind is None or not issubclass(kind, Exception):  # a client that left has cancelled it; that is no failure
            await self._manager.afinish(self._session)
        else:
            self._manager.revert(self._session)
            self._manager.finish(self._session)


def _current() -> Session[Any]:
    current: Session[Any] = cast(Any, quart.session)._get_current_object()
    return current
