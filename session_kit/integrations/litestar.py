"""Sessions for Litestar: the plugin `SessionKit`, and `KeyValueStore` for the stores that Litestar itself uses."""

from __future__ import annotations

from collections.abc import Mapping
from copy import copy
from typing import Any, Literal, Unpack

from click import Group
from litestar import Request, Response, types
from litestar.config.app import AppConfig
from litestar.datastructures import MutableScopeHeaders
from litestar.exceptions import ServiceUnavailableException
from litestar.exceptions.responses import create_exception_response
from litestar.middleware import AbstractMiddleware, DefineMiddleware
from litestar.middleware.session import SessionMiddleware as LitestarSessionMiddleware
from litestar.openapi.spec import Components, SecurityScheme
from litestar.plugins import CLIPlugin, InitPlugin

from session_kit import asgi
from session_kit.asgi import KEY, OURS, App, Message, Receive, Scope, Send
from session_kit.errors import STORE_DOWN, ConfigError, DriverUnavailable, SessionError
from session_kit.headers import join_vary
from session_kit.integrations.command_line import make_group
from session_kit.integrations.litestar_backend import (
    SessionConfig,
    SessionRequest,
    SessionWebSocket,
    begin_inside,
    is_anothers,
    was_refused,
)
from session_kit.integrations.litestar_store import KeyValueStore
from session_kit.manager import ManagerOptions, Secrets, SessionManager, choose_manager
from session_kit.session import Session
from session_kit.store import SessionStore, UnstorageSessionStore

__all__ = ["KeyValueStore", "Session", "SessionKit", "SessionMiddleware", "use_session"]

STARTS_AND_CLOSES = frozenset(
    {"http.response.start", "websocket.accept", "websocket.http.response.start", "websocket.close"}
)
CLOSED = 4000
"""A WebSocket is closed with this and the status that an answer would have had."""


class SessionKit(InitPlugin, CLIPlugin):
    """Gives a Litestar application its sessions, as `request.session`.

    store, secret, options: as for `session_kit.SessionManager`.
    manager: a ready `SessionManager` in place of these.
    load: as for `session_kit.asgi.SessionMiddleware`.

    `request.set_session(...)` replaces the data, `request.clear_session()` destroys the session, both when the response
    begins; `request.get_session_id()` is its id, unless the application has a `request_class` of its own. A handler
    that returns the session returns its data. An answer with status 500 stores nothing. A store that does not answer is
    a 503, for which an application may have its own handler of `DriverUnavailable`. Where a header carries the session,
    the OpenAPI schema has a security scheme `session`: `@get(..., security=[{"session": []}])` shows a lock.

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
        self.manager = choose_manager("SessionKit", manager, store, secret, "load", **options)
        self.load = load

    @property
    def config(self) -> SessionConfig:
        """What Litestar's `SessionAuth` (beside the plugin) and its test client take as a session configuration.

        `SessionAuth(session_backend_config=sessions.config, ...)`, `TestClient(app, session_config=sessions.config)`.
        """
        return SessionConfig(self.manager)

    @property
    def middleware(self) -> DefineMiddleware:
        """The middleware by itself, for a part of an application: `Router("/shop", middleware=[sessions.middleware])`.

        Without the plugin nothing closes the store but `manager.aclose`, an outage during `asave` is a 500, and
        Litestar's CORS takes `Vary: Cookie` away.
        """
        return _SharedMiddleware(SessionMiddleware, manager=self.manager, load=self.load)

    def on_cli_init(self, cli: Group) -> None:
        """Add `litestar session list`, `show`, `revoke`, `prune`, `copy` and `doctor`, for operators."""
        cli.add_command(make_group(lambda: self.manager))

    def on_app_init(self, app_config: AppConfig) -> AppConfig:
        """Add the middleware as the outermost, tell Litestar how to treat sessions, and close the store at the end."""
        app_config.middleware.insert(0, self.middleware)
        app_config.type_encoders = {dict: dict, **(app_config.type_encoders or {})}
        app_config.request_class = app_config.request_class or SessionRequest
        app_config.websocket_class = app_config.websocket_class or SessionWebSocket
        app_config.exception_handlers.setdefault(DriverUnavailable, _say_unavailable)
        app_config.before_send.append(self._keep_vary)
        app_config.on_shutdown.append(self.manager.aclose)
        self._describe(app_config)
        return app_config

    async def _keep_vary(self, message: types.Message, scope: types.Scope) -> None:
        """Litestar's CORS middleware lies outside all others, and puts a `Vary` in the place of theirs."""
        session: Any = scope.get(OURS)
        if message["type"] == "http.response.start" and session is not None and session.lifecycle.touched:
            headers = MutableScopeHeaders(message)
            headers["vary"] = join_vary(headers.getall("vary", []), self.manager.vary[1])

    def _describe(self, app_config: AppConfig) -> None:
        """Let handlers say `security=[{"session": []}]` where a header carries the session."""
        header = self.manager.policy.header
        if header is None or app_config.openapi_config is None:
            return
        scheme = SecurityScheme(
            type="apiKey", name=header.name, security_scheme_in="header", description=header.description
        )
        config = app_config.openapi_config = copy(app_config.openapi_config)
        given = config.components if isinstance(config.components, list) else [config.components]
        config.components = [Components(security_schemes={"session": scheme}), *given]


# A session middleware of Litestar's kind, because its FlashPlugin asks for one.
class SessionMiddleware(LitestarSessionMiddleware[Any]):
    """What `SessionKit` adds, for who prefers `DefineMiddleware(SessionMiddleware, store=open_store(...), secret=...)`.

    store, secret, options: as for `session_kit.asgi.SessionMiddleware`, but no URL: Litestar makes one middleware for
        each route, and each would open a store of its own.
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
        # Litestar describes ASGI by other types than we do.
        self._sessions: Any = asgi.SessionMiddleware(_in_litestars_way(app), store, secret, **options)

    async def __call__(self, scope: types.Scope, receive: types.Receive, send: types.Send) -> None:
        await self._sessions(scope, receive, send)


class _SharedMiddleware(DefineMiddleware):
    """Litestar copies what belongs to a router, and everything in it. The store must stay one."""

    def __deepcopy__(self, memo: object) -> DefineMiddleware:
        return self


async def use_session(scope: types.Scope) -> Session[Any]:
    """Return the session, loaded: a dependency that gives it a type, in handlers of requests and of WebSockets.

    scope: Litestar gives it.
    Raises `SessionError` if the middleware is missing, `DriverUnavailable` if the store does not answer.

    >>> from dataclasses import dataclass
    >>> from litestar import get
    >>> from litestar.di import NamedDependency, Provide
    >>> @dataclass
    ... class Cart:
    ...     items: int = 0
    >>> @get("/cart", dependencies={"session": Provide(use_session)})
    ... async def show(session: NamedDependency[Session[Cart]]) -> int:
    ...     return session.data.items
    """
    return await asgi.use_session(scope)


def _in_litestars_way(app: App) -> App:
    """Stands between Litestar and the middleware, which learns from it what Litestar did to the session."""

    async def call(scope: Scope, receive: Receive, send: Send) -> None:
        session: Session[Any] = scope[OURS]
        begin_inside(scope)
        refused = False

        async def send_settled(message: Message) -> None:
            nonlocal refused
            if message["type"] in STARTS_AND_CLOSES and not refused:
                try:
                    await _settle(scope, session, _status_of(message))
                except DriverUnavailable:
                    # Litestar would turn it into another error here.
                    refused = True
                    await asgi.say_unavailable(scope["type"], send)
            if not refused:
                # A copy, because Litestar's response cache keeps its own for everybody, which must not get our cookie.
                await send({**message})

        await app(scope, receive, send_settled)
        if not refused:
            await _settle(scope, session)

    return call


def _status_of(message: Message) -> int:
    """The status of an answer, or what a WebSocket that is closed would have been answered."""
    code: int = message.get("status", message.get("code", 200))
    return code - CLOSED if code >= CLOSED else code


async def _settle(scope: Scope, session: Session[Any], status: int = 200) -> None:
    """Do to the session what the handler asked for by Litestar's own methods, or nothing if it failed."""
    left = scope[KEY]
    if is_anothers(scope):
        left = session
    elif getattr(scope["route_handler"], "is_mount", False) and left is not types.Empty:
        left = session  # a mounted application may have put another middleware's session there
    else:
        scope[KEY] = session
    lifecycle = session.lifecycle
    if 500 <= status < 600 and not lifecycle.left:  # of a client that has left Litestar makes a failure
        if status == 500 and lifecycle.outage is not None:  # nobody has handled it
            raise lifecycle.outage
        lifecycle.revert()
    elif left is types.Empty:
        refused = was_refused(scope)
        if refused:
            await session.areload()
        # A refusal is no logout: if somebody has logged in with this session meanwhile, it stays.
        if not (refused and lifecycle.displaced is not None):
            await session.adestroy()
    elif left is not session:
        if not isinstance(left, Mapping) and lifecycle.policy.schema is None:
            raise SessionError(f"request.set_session() needs a mapping, not {type(left).__name__}, without data_type=")
        (await session.aload()).set(left)


def _say_unavailable(request: Request[Any, Any, Any], error: DriverUnavailable) -> Response[Any]:
    unavailable = ServiceUnavailableException(STORE_DOWN, headers={"cache-control": "no-store"})
    return create_exception_response(request, unavailable)
