"""What Litestar's `SessionAuth`, its test client and `request.get_session_id()` ask of a session backend."""

from __future__ import annotations

from typing import Any

from litestar import Request, WebSocket, types
from litestar.connection import ASGIConnection
from litestar.datastructures import MutableScopeHeaders
from litestar.middleware import DefineMiddleware
from litestar.middleware.session.base import BaseBackendConfig, BaseSessionBackend
from litestar.utils.scope.state import ScopeState

from session_kit.asgi import KEY, OURS
from session_kit.manager import SessionManager
from session_kit.session import Session

OURS_HAS_ONE = ""
"""Stands for the id where Litestar keeps that of its own sessions, which may be text or None."""
TEST_HOST = "testserver.local"
"""What Litestar's test client calls itself: its cookie goes without `Secure`."""


class SessionBackend(BaseSessionBackend["SessionConfig"]):
    """Sets and gets the session of a test client. In an application the plugin does all of this."""

    def get_session_id(self, connection: ASGIConnection[Any, Any, Any, Any]) -> str | None:
        return None

    async def load_from_connection(self, connection: ASGIConnection[Any, Any, Any, Any]) -> dict[str, Any]:
        return dict(await self._open(connection).aload())

    async def store_in_message(
        self, scope_session: Any, message: types.Message, connection: ASGIConnection[Any, Any, Any, Any]
    ) -> None:
        session = await self._open(connection).aload()
        session.set(scope_session)
        headers = MutableScopeHeaders.from_message(message)
        for name, value in await self.config.manager.acommit(session, plain_host=lambda: TEST_HOST):
            headers.add(name, value)

    def _open(self, connection: ASGIConnection[Any, Any, Any, Any]) -> Session[Any]:
        cookie = f"{self.config.key}={connection.cookies.get(self.config.key, '')}"
        return self.config.manager.open(cookie, asynchronous=True)


class SessionConfig(BaseBackendConfig[SessionBackend]):
    """The sessions of a plugin, for what takes a configuration: `SessionKit(...).config`."""

    _backend_class = SessionBackend
    exclude = None
    exclude_opt_key = "skip_session"

    def __init__(self, manager: SessionManager) -> None:
        self.manager = manager
        self.key = manager.policy.cookie.name

    @property
    def middleware(self) -> DefineMiddleware:
        """No sessions: the plugin brings them, and stands outside."""
        return DefineMiddleware(_AroundAuth)


class _AroundAuth:
    """Stands around `SessionAuth`, which looks at the session of each request, without waiting for it."""

    def __init__(self, app: types.ASGIApp, backend: SessionBackend) -> None:
        self._app, self._manager = app, backend.config.manager

    async def __call__(self, scope: types.Scope, receive: types.Receive, send: types.Send) -> None:
        session: Any = scope.get(OURS)
        if session is not None:
            await self._manager.apreload(session)
            ScopeState.from_scope(scope).session_id = OURS_HAS_ONE
        await self._app(scope, receive, send)


def begin_inside(scope: Any) -> None:
    """Forget what a session middleware of Litestar itself has noted that lies outside."""
    ScopeState.from_scope(scope).session_id = types.Empty


def was_refused(scope: Any) -> bool:
    """Whether `SessionAuth` has dropped the session, and not `request.clear_session()`, which drops the id here too."""
    return ScopeState.from_scope(scope).session_id == OURS_HAS_ONE


def is_anothers(scope: Any) -> bool:
    """Whether a session middleware of Litestar itself lies inside, so that `request.session` is the one of that."""
    return ScopeState.from_scope(scope).session_id not in (types.Empty, OURS_HAS_ONE)


class _WithId:
    """A connection that knows the id of its session, and looks at it only when it is asked for."""

    scope: Any

    def get_session_id(self) -> str | None:
        left = self.scope.get(KEY)
        return None if left is None or left is types.Empty else str(self.scope[OURS].id)


class SessionRequest(_WithId, Request[Any, Any, Any]):
    """The request class of an application with the plugin, unless it has one of its own."""


class SessionWebSocket(_WithId, WebSocket[Any, Any, Any]):
    """The same for WebSockets."""
