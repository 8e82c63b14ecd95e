"""Sessions for Litestar: the plugin `SessionKit`, and `KeyValueStore` for the stores that Litestar itself uses."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, Unpack

from litestar import Request, Response, types
from litestar.config.app import AppConfig
from litestar.exceptions import ServiceUnavailableException
from litestar.exceptions.responses import create_exception_response
from litestar.middleware import AbstractMiddleware, DefineMiddleware
from litestar.middleware.session import SessionMiddleware as LitestarSessionMiddleware
from litestar.plugins import InitPlugin

from session_kit import asgi
from session_kit.asgi import KEY, RESPONSE_STARTS, App, Message, Receive, Scope, Send
from session_kit.errors import ConfigError, DriverUnavailable, SessionError
from session_kit.integrations.litestar_store import KeyValueStore
from session_kit.manager import ManagerOptions, Secrets, SessionManager, make_manager
from session_kit.session import Session
from session_kit.store import SessionStore, UnstorageSessionStore

__all__ = ["KeyValueStore", "Session", "SessionKit", "SessionMiddleware", "use_session"]

STARTS_AND_CLOSES = RESPONSE_STARTS | {"websocket.close"}
FAILED = {500, 4500}
"""What Litestar makes of an exception that nobody handles: the status, or the code that closes a WebSocket."""


class SessionKit(InitPlugin):
    """Gives a Litestar application its sessions, as `request.session`.

    store, secret, options: as for `session_kit.SessionManager`.
    manager: a ready `SessionManager` in place of these.
    load: as for `session_kit.asgi.SessionMiddleware`.

    `request.set_session(...)` replaces the data, `request.clear_session()` destroys the session, both when the response
    begins. An answer with status 500 stores nothing. A store that does not answer is a 503, for which an application
    may have its own handler of `DriverUnavailable`.

    >>> from litestar import Litestar, Request, get
    >>> @get("/")
    ... async def home(request: Request) -> str:
    ...     return f"Hello {request.session.get('user', 'stranger')}"
    >>> app = Litestar(
    ...     [home], plugins=[SessionKit(store="memory://", secret="N3w-secret-of-at-least-32-characters!")]
    ... )
    """

    def __init__(
        self,
        store: str | UnstorageSessionStore | SessionStore | None = None,
        secret: Secrets = (),
        *,
        manager: SessionManager | None = None,
        load: Literal["auto", "explicit"] = "auto",
        **options: Unpack[ManagerOptions],
    ) -> None:
        if (manager is None) == (store is None):
            raise ConfigError("SessionKit needs store=... and secret=..., or a manager=... in their place")
        self.manager = manager or make_manager(store, secret, "manager", "load", **options)
        self.load = load

    def on_app_init(self, app_config: AppConfig) -> AppConfig:
        """Add the middleware as the outermost, and close the store with the application."""
        middleware = DefineMiddleware(SessionMiddleware, manager=self.manager, load=self.load)
        app_config.middleware.insert(0, middleware)
        app_config.exception_handlers.setdefault(DriverUnavailable, _say_unavailable)
        app_config.on_shutdown.append(self.manager.aclose)
        return app_config


# Litestar's own as the second base, because its FlashPlugin and its options ask for one of that kind.
class SessionMiddleware(asgi.SessionMiddleware, LitestarSessionMiddleware[Any]):  # type: ignore[misc]  # other types of ASGI
    """The middleware by itself, for a part of an application: `DefineMiddleware(SessionMiddleware, manager=manager)`.

    Litestar makes one for each route, so it takes a manager or an open store, but no URL.

    exclude, exclude_opt_key: paths and routes without a session, as for any middleware of Litestar.
    """

    def __init__(
        self,
        app: Any,
        store: UnstorageSessionStore | SessionStore | None = None,
        secret: Secrets = (),
        *,
        exclude: str | list[str] | None = None,
        exclude_opt_key: str | None = None,
        **options: Any,
    ) -> None:
        if isinstance(store, str):
            raise ConfigError(
                "Litestar makes this middleware once for each route, and each would open a store of its own; use"
                " plugins=[SessionKit(store=..., secret=...)], or give an open store: store=open_store(...)"
            )
        AbstractMiddleware.__init__(self, app, exclude, exclude_opt_key)
        asgi.SessionMiddleware.__init__(self, _in_litestars_way(app), store, secret, **options)

    async def __call__(self, scope: types.Scope, receive: types.Receive, send: types.Send) -> None:
        """One request, in the types of Litestar."""
        handle: Any = asgi.SessionMiddleware.__call__
        await handle(self, scope, receive, send)


async def use_session(scope: Any) -> Session[Any]:
    """Return the session, loaded. As a dependency it gives the session a type, in handlers of requests and WebSockets.

    scope: Litestar gives it; or a request, a WebSocket.
    Raises `SessionError` if the middleware is missing, `DriverUnavailable` if the store does not answer.

    >>> from dataclasses import dataclass
    >>> from litestar import get
    >>> from litestar.di import Provide
    >>> @dataclass
    ... class Cart:
    ...     items: int = 0
    >>> @get("/cart", dependencies={"session": Provide(use_session)})
    ... async def show(session: Session[Cart]) -> int:
    ...     return session.data.items
    """
    return await asgi.use_session(scope)


def _in_litestars_way(app: App) -> App:
    """Stands between Litestar and the middleware, which learns from it what Litestar did to the session."""

    async def call(scope: Scope, receive: Receive, send: Send) -> None:
        session = scope.get(KEY)
        if not isinstance(session, Session):  # this route is excluded
            await app(scope, receive, send)
            return
        refused = False

        async def send_settled(message: Message) -> None:
            nonlocal refused
            if message["type"] in STARTS_AND_CLOSES and not refused:
                try:
                    await _settle(scope, session, failed=message.get("status", message.get("code")) in FAILED)
                except DriverUnavailable:
                    # Litestar would turn it into another error here.
                    refused = True
                    await asgi._say_unavailable(scope["type"], send)
            if not refused:
                # A copy, because Litestar's response cache keeps its own for everybody, which must not get our cookie.
                await send({**message})

        await app(scope, receive, send_settled)
        if not refused:
            await _settle(scope, session)

    return call


async def _settle(scope: Scope, session: Session[Any], *, failed: bool = False) -> None:
    """Do to the session what the handler asked for by Litestar's own methods, or nothing if it failed."""
    left, scope[KEY] = scope[KEY], session
    if failed:
        if session._failed and not session._policy.anonymous:
            raise DriverUnavailable("the session's store does not answer")
        if session._used and not session._failed:
            await session.areload()
    elif left is types.Empty:
        await session.adestroy()
    elif left is not session:
        if not isinstance(left, Mapping) and session._policy.schema is None:
            raise SessionError(f"request.set_session() needs a mapping, not {type(left).__name__}, without data_type=")
        session.set(left)


def _say_unavailable(request: Request[Any, Any, Any], error: DriverUnavailable) -> Response[Any]:
    unavailable = ServiceUnavailableException(
        "the session store does not answer", headers={"cache-control": "no-store"}
    )
    return create_exception_response(request, unavailable)
