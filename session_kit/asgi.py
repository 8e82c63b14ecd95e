"""Sessions for any ASGI application: Starlette, FastAPI, Litestar, or a bare one."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, Literal, Unpack

from session_kit.errors import ConfigError, SessionError
from session_kit.manager import Headers, ManagerOptions, Secrets, SessionManager
from session_kit.session import Session
from session_kit.store import SessionStore, UnstorageSessionStore

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

KEY = "session"
RESPONSE_STARTS = frozenset({"http.response.start", "websocket.accept", "websocket.http.response.start"})
HOW_TO_ADD = "add the middleware: app.add_middleware(SessionMiddleware, store=..., secret=...)"


class SessionMiddleware:
    """Puts the visitor's `Session` into `scope["session"]` and saves it before the first byte of the response leaves.

    app: the application.
    store, secret, options: as for `SessionManager`.
    manager: a ready `SessionManager` in place of these, to share one among several applications.
    load: `"auto"` (default) loads when the handler first touches the session where the store reads without waiting
        (memory, disk), and before the handler otherwise, if a cookie verifies. `"explicit"` loads when the handler says
        `session = await use_session(request)`, so that a handler which does not ask costs no I/O on any store.

    A handler that raises has changed nothing, unless it saved explicitly. What is changed after the response has begun
    is saved when the handler ends, if the client already has the id; otherwise `SessionError` is raised.

    >>> async def app(scope, receive, send): ...
    >>> app = SessionMiddleware(app, store="memory://", secret="N3w-secret-of-at-least-32-characters!")
    """

    def __init__(
        self,
        app: App,
        store: str | UnstorageSessionStore | SessionStore | None = None,
        secret: Secrets = (),
        *,
        manager: SessionManager | None = None,
        load: Literal["auto", "explicit"] = "auto",
        **options: Unpack[ManagerOptions],
    ) -> None:
        if load not in ("auto", "explicit"):
            raise ConfigError(f"load must be 'auto' or 'explicit', not {load!r}")
        if (manager is None) == (store is None):
            raise ConfigError("SessionMiddleware needs store=... and secret=..., or a manager=... in their place")
        self.app = app
        self.manager = manager or make_manager(store, secret, **options)
        self._eager = load == "auto" and not self.manager.loads_lazily

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        kind = scope["type"]
        if kind == "lifespan":
            await self.app(scope, receive, self._closing(send))
            return
        if kind not in ("http", "websocket"):
            await self.app(scope, receive, send)
            return
        if isinstance(scope.get(KEY), Session):
            raise ConfigError("SessionMiddleware is installed twice; keep the outer one")

        manager = self.manager
        session = manager.open([value for name, value in scope["headers"] if name == b"cookie"], asynchronous=True)
        if self._eager:
            await session._load(session._policy.store.native)
        scope[KEY] = session

        async def send_with_session(message: Message) -> None:
            if message["type"] in RESPONSE_STARTS:
                headers = await manager.acommit(session)
                if headers:
                    message["headers"] = [*message.get("headers", ()), *_encode(headers)]
            await send(message)

        await self.app(scope, receive, send_with_session)
        if session._used and session._sealed:
            await session.asave()

    def _closing(self, send: Send) -> Send:
        async def send_after_closing(message: Message) -> None:
            if message["type"].startswith("lifespan.shutdown."):
                await self.manager.aclose()
            await send(message)

        return send_after_closing


async def use_session(request: Any) -> Session[Any]:
    """Return the session of a request, loaded.

    request: an ASGI scope, or an object with one in `.scope`, such as the requests and WebSockets of Starlette, FastAPI
        and Litestar.
    Raises `SessionError` if the middleware is missing, `DriverUnavailable` if the store does not answer.
    """
    session = getattr(request, "scope", request).get(KEY)
    if not isinstance(session, Session):
        raise SessionError(f"this request has no session; {HOW_TO_ADD}")
    return await session.aload()


def make_manager(store: Any, secret: Secrets, **options: Unpack[ManagerOptions]) -> SessionManager:
    """Make the manager of a middleware; a misspelt option gets one clear line."""
    unknown = sorted(set(options) - set(ManagerOptions.__annotations__))
    if unknown:
        valid = ", ".join(sorted(ManagerOptions.__annotations__))
        raise ConfigError(f"unknown option {unknown[0]!r}. Valid options: store, secret, manager, load, {valid}.")
    return SessionManager(store, secret, **options)


def _encode(headers: Headers) -> list[tuple[bytes, bytes]]:
    return [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in headers]
