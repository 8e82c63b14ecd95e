"""Quart: `quart.session` as a server-side session, with Quart's own settings and `flash`.

>>> from quart import Quart, session
>>> app = Quart("shop")
>>> app.secret_key = "N3w-secret-of-at-least-32-characters!"
>>> kit = SessionKit(app, store="memory://")
>>> @app.get("/")
... async def visits():
...     session.update(lambda data: {"visits": data.get("visits", 0) + 1})
...     return {"visits": session["visits"]}
"""

from __future__ import annotations

from collections.abc import AsyncIterable
from contextlib import suppress
from typing import Any

from quart import Quart, Response, Websocket
from quart.sessions import SessionInterface
from quart.signals import got_request_exception, got_websocket_exception
from quart.wrappers.response import IterableBody, ResponseBody

from session_kit.errors import DriverUnavailable
from session_kit.integrations.flask import Extension, FlaskSession, add_headers
from session_kit.manager import SessionManager
from session_kit.session import Session


class SessionKit(Extension, SessionInterface):
    """The Quart extension: makes `quart.session` a server-side session. Parameters: `session_kit.integrations.flask`.

    The session is loaded before the view where the store waits for a network, if a cookie verifies. A view that raises
    has changed nothing. A store that does not answer is a 503.
    """

    def init_app(self, app: Quart) -> None:
        """Switch the sessions of `app` over."""
        super().init_app(app)
        got_request_exception.connect(self._abandon, app)
        got_websocket_exception.connect(self._abandon, app)
        app.after_serving(self._manager.aclose)

    async def open_session(self, app: Quart, request: Any) -> FlaskSession:  # type: ignore[override]  # no dict
        cookies = [value.encode("latin-1") for value in request.headers.getlist("Cookie")]
        session = self._manager.open(cookies, asynchronous=True, session_class=FlaskSession)
        # The handshake of a WebSocket is answered by Quart itself: it carries no cookie of ours.
        session._sealed = isinstance(request, Websocket)
        if not self._manager.loads_lazily:
            with suppress(DriverUnavailable):  # a view that never touches the session shall not notice an outage
                await session._load(session._policy.store.native)
        return session

    async def save_session(self, app: Quart, session: Any, response: Response | None) -> None:  # type: ignore[override]
        if session._sealed or response is None:
            await self._manager.afinish(session)
            return
        try:
            headers = await self._manager.acommit(session)
        except DriverUnavailable:
            self._refuse(session, response)
            return
        add_headers(response, headers)
        if isinstance(response.response, IterableBody):
            response.response = _Finishing(response.response, self._manager, session)

    async def _abandon(self, sender: object, **_: object) -> None:
        """A view has raised, and the answer is Quart's 500."""
        from quart.globals import request_ctx, websocket_ctx

        context: Any = request_ctx or websocket_ctx
        self._manager.abandon(context.session)


class _Finishing(ResponseBody):
    """A streamed body, at whose end the late changes are saved."""

    def __init__(self, body: ResponseBody, manager: SessionManager, session: Session[Any]) -> None:
        self._body, self._manager, self._session = body, manager, session

    async def __aenter__(self) -> AsyncIterable[Any]:
        return await self._body.__aenter__()

    async def __aexit__(self, *error: Any) -> None:
        await self._body.__aexit__(*error)
        await self._manager.afinish(self._session)
