"""Sessions for any ASGI application: Starlette, FastAPI, Litestar, or a bare one."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from typing import Any, Literal, Unpack

from session_kit.drivers.support.twins import on_event_loop
from session_kit.errors import STORE_DOWN, ConfigError, DriverUnavailable, SessionError
from session_kit.headers import NO_SHARED_COOKIE, NO_STORE, TEXT, VARY, Headers, join_headers
from session_kit.lifecycle import Lifecycle
from session_kit.manager import PLACE, ManagerOptions, Secrets, SessionManager, choose_manager
from session_kit.session import Session
from session_kit.state import AHEAD, BEGUN, ENDED, FAILED, REPLACED
from session_kit.store import SessionStore, UnstorageSessionStore

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

KEY = "session"
"""Where frameworks look for a session; another middleware may put its own there."""
OURS = PLACE
"""Where `use_session` looks."""
OTHER_NAME = "give this one another cookie name (name=...), or take the other away to share this session"
HOW_TO_ADD = "add the middleware: app.add_middleware(SessionMiddleware, store=..., secret=...)"


class SessionMiddleware:
    """Puts the visitor's `Session` into `scope["session"]` and saves it before the first byte of the response leaves.

    app: the application.
    store, secret, options: as for `SessionManager`.
    manager: a ready `SessionManager` in place of these, to share one among several applications.
    load: `"auto"` (default) loads when the handler first touches the session where the store reads without waiting
        (memory, disk), and before the handler otherwise, if a cookie verifies. `"explicit"` loads when the handler says
        `session = await use_session(request)`, so that a handler which does not ask costs no I/O on any store.

    A store that does not answer is a plain 503 (a closed handshake for a WebSocket), unless `on_error="anonymous"`.
    A handler that raises, or answers with 5xx, has changed nothing, unless it saved explicitly. What is changed after
    the response has begun is saved when the handler ends, if the client already has the id; otherwise `SessionError` is
    raised.

    Several session middlewares, ours or others', work one inside the other, as in mounted applications, if the names of
    their cookies differ: `request.session` is that of the innermost. With the same name, `ConfigError` is raised.

    Under trio `memory://` works; with any other store a request raises `ConfigError`.

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
        self.app = app
        self.manager = choose_manager("SessionMiddleware", manager, store, secret, "load", **options)
        self._policy = self.manager.policy
        self._explicit = load == "explicit"
        self._instant = self._policy.capabilities.never_blocks
        self._begin = self._begin_at_once if self._instant else self._abegin
        self._preloads = load == "auto" and not self._instant

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        kind = scope["type"]
        if kind != "http" and kind != "websocket":
            await self.app(scope, receive, self._closing(send) if kind == "lifespan" else send)
            return
        if KEY in scope:
            self._check_outer(scope)
            scope = dict(scope)  # what lies outside keeps its own

        lifecycle = self.manager.begin(scope["headers"], True)
        if self._explicit:
            lifecycle.explicit = True
        session: Session[Any] = Session(lifecycle)
        scope[KEY] = scope[OURS] = session
        if kind == "websocket":
            client = _Client(lifecycle, receive, send)
            receive, send = client.receive, client.send

        # Bound as defaults: what a closure shares is put into a cell, for each name and each request.
        def send_with_session(
            message: Message,
            middleware: SessionMiddleware = self,
            session: Session[Any] = session,
            scope: Scope = scope,
            send: Send = send,
        ) -> Awaitable[None]:
            lifecycle = session.lifecycle
            if lifecycle.phase is AHEAD:
                status = message.get("status")  # whatever begins an answer has one, but for a WebSocket's accept
                if status is not None or message["type"] == "websocket.accept":
                    if scope.get(KEY) is not session:
                        middleware._check_inner(message)
                    if lifecycle.touched:
                        return middleware._begin(session, message, scope, send)
                    lifecycle.phase = FAILED if status is not None and status >= 500 else BEGUN
                elif message["type"] == "websocket.close" and lifecycle.touched:
                    return middleware._save_and_close(session, message, scope, send)
            elif lifecycle.phase is REPLACED:  # by a 503: nothing of the application's answer is sent
                return _ignore()
            return send(message)

        try:
            if not self._instant:
                if not on_event_loop():
                    raise ConfigError(f"under trio only memory:// works: {self.manager.store!r} needs asyncio")
                if self._preloads:
                    await self.manager.apreload(session)
            await self.app(scope, receive, send_with_session)
        except DriverUnavailable:
            if lifecycle.phase is AHEAD:
                await self._refuse(session, scope, send)
            elif lifecycle.phase is not REPLACED:
                lifecycle.phase = ENDED
                raise
            return
        except BaseException:
            if lifecycle.left and lifecycle.phase is BEGUN:  # that is no failure
                await self.manager.afinish(session)
            elif lifecycle.phase is not REPLACED:
                lifecycle.phase = ENDED  # whatever answers it lies outside: a change there would be lost, and raises
            raise
        if not lifecycle.touched:
            lifecycle.phase = ENDED
            return
        if kind == "websocket" and lifecycle.phase is AHEAD:  # refused by saying nothing, and the server answers
            lifecycle.phase = BEGUN
        if self._instant:
            self.manager.finish(session)
        else:
            await self.manager.afinish(session)

    def _begin_at_once(self, session: Session[Any], message: Message, scope: Scope, send: Send) -> Awaitable[None]:
        """Commit the session, and let the response begin with what it says; or with a 503 in its place."""
        try:
            headers = self.manager.commit(session, message.get("status", 200), _plain_host, scope)
        except DriverUnavailable:
            return self._refuse(session, scope, send)
        return send(_with_headers(message, headers))

    async def _abegin(self, session: Session[Any], message: Message, scope: Scope, send: Send) -> None:
        """`_begin_at_once` with a store that is waited for."""
        try:
            headers = await self.manager.acommit(session, message.get("status", 200), _plain_host, scope)
        except DriverUnavailable:
            await self._refuse(session, scope, send)
        else:
            await send(_with_headers(message, headers))

    async def _save_and_close(self, session: Session[Any], message: Message, scope: Scope, send: Send) -> None:
        """Refuse a WebSocket, without a cookie. Whoever hears of it may go at once, so the session is saved before."""
        session.lifecycle.phase = BEGUN
        try:
            await session.lifecycle.save_in_turn(ending=True)
        except DriverUnavailable:
            await self._refuse(session, scope, send)
        else:
            await send(message)

    def _refuse(self, session: Session[Any], scope: Scope, send: Send) -> Awaitable[None]:
        """Answer that the store is down, in place of the application."""
        return say_unavailable(scope["type"], send, self.manager.refuse(session, _plain_host, scope))

    def _check_outer(self, scope: Scope) -> None:
        """Refuse to work inside a session middleware whose cookie has the same name."""
        name = self._policy.cookie.name
        outer = scope.get(OURS)
        if outer is not None and outer.lifecycle.phase in (ENDED, REPLACED):
            return  # it was ours, and this is the same request once more
        self.manager.check_outer(scope)
        if not isinstance(scope[KEY], Session) and self._outer_cookie(scope) == name:
            raise ConfigError(f"another session middleware around this one uses the same cookie {name!r}; {OTHER_NAME}")

    def _outer_cookie(self, scope: Scope) -> str:
        """The cookie of another's middleware around this one: what Starlette's shows, else the name that most have."""
        layer: Any = getattr(scope.get("app"), "middleware_stack", None)
        while layer is not None and layer is not self:
            if isinstance(shown := getattr(layer, "session_cookie", None), str):
                return shown
            layer = getattr(layer, "app", None)
        return "session"

    def _check_inner(self, message: Message) -> None:
        """Refuse an answer in which a session middleware inside this one has set a cookie of the same name."""
        name = self._policy.cookie.name
        ours = name.encode() + b"="
        if any(key.lower() == b"set-cookie" and value.startswith(ours) for key, value in message.get("headers", ())):
            raise ConfigError(f"another session middleware inside this one sets the same cookie {name!r}; {OTHER_NAME}")

    def _closing(self, send: Send) -> Send:
        async def send_after_closing(message: Message) -> None:
            if message["type"].startswith("lifespan.shutdown."):
                await self.manager.aclose()
            await send(message)

        return send_after_closing


class _Client:
    """The other end of a WebSocket. When it has left, a server lets `receive` say so, or `send` fail."""

    def __init__(self, lifecycle: Lifecycle, receive: Receive, send: Send) -> None:
        self._lifecycle, self._receive, self._send = lifecycle, receive, send

    async def receive(self) -> Message:
        message = await self._receive()
        if message["type"] == "websocket.disconnect":
            self._lifecycle.left = True
        return message

    async def send(self, message: Message) -> None:
        try:
            await self._send(message)
        except OSError:  # as ASGI has it since version 2.4 of its HTTP and WebSocket messages
            self._lifecycle.left = True
            raise


async def use_session(request: Any, *, touch: bool = True) -> Session[Any]:
    """Return the session of a request, loaded.

    request: an ASGI scope, or an object with one in `.scope`, such as the requests and WebSockets of Starlette, FastAPI
        and Litestar.
    touch: False if this request shall not count as use of the session (`Session.load`). That needs the middleware's
        `load="explicit"`: a store behind a network is asked before the handler runs otherwise. Default True.
    A dependency of FastAPI that gives the data a type is `session_kit.integrations.fastapi.use_session`.
    It is ours even where a mounted application has put another middleware's session in `request.session`.
    Raises `SessionError` if the middleware is missing, `DriverUnavailable` if the store does not answer.
    """
    scope = getattr(request, "scope", request)
    session = scope.get(OURS, scope.get(KEY))
    if not isinstance(session, Session):
        raise SessionError(f"this request has no session; {HOW_TO_ADD}")
    if not touch and not session.lifecycle.explicit:
        raise SessionError(
            'touch=False needs SessionMiddleware(..., load="explicit"), so that nothing is loaded before'
        )
    return await session.aload(touch=touch)


def _plain_host(scope: Scope) -> str | None:
    """The host that was asked for if the request came over plain http, else None."""
    if scope.get("scheme", "http") not in ("http", "ws"):
        return None
    for name, value in scope["headers"]:
        if name == b"host":
            return str(value, "latin-1")
    return ""


async def _ignore() -> None:
    pass


async def say_unavailable(kind: str, send: Send, session_headers: Iterable[tuple[str, str]] = (NO_STORE,)) -> None:
    """Answer that the store is down: a 503, or a closed handshake. session_headers: what `refuse` has returned."""
    if kind == "websocket":
        await send({"type": "websocket.close", "code": 1013, "reason": "try again later"})  # RFC 6455 registry
        return
    headers = [_encode(header) for header in [TEXT, *session_headers]]
    await send({"type": "http.response.start", "status": 503, "headers": headers})
    await send({"type": "http.response.body", "body": STORE_DOWN.encode()})


def _with_headers(message: Message, headers: Headers) -> Message:
    """A copy: whatever keeps the message itself, such as a cache of responses, must not keep this cookie."""
    encoded = [*message.get("headers", ())]
    for name, _ in encoded:
        if name == b"vary":
            theirs = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in encoded]
            return {**message, "headers": [_encode(header) for header in join_headers(theirs, headers)]}
    for header in headers:
        # By identity: almost every answer says the first, and to compare texts would take longer than to encode them.
        if header is VARY:
            encoded.append(_VARY)
        elif header is NO_SHARED_COOKIE:
            encoded.append(_NO_SHARED_COOKIE)
        else:
            encoded.append(_encode(header))
    return {**message, "headers": encoded}


def _encode(header: tuple[str, str]) -> tuple[bytes, bytes]:
    name, value = header
    return name.lower().encode("latin-1"), value.encode("latin-1")


_VARY, _NO_SHARED_COOKIE = _encode(VARY), _encode(NO_SHARED_COOKIE)
