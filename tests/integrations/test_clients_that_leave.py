"""A client that leaves is no failure: what was changed until then is kept. What comes after the end raises."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
import websockets
from aiohttp import CookieJar, web
from aiohttp.test_utils import TestClient, TestServer
from litestar import Litestar
from litestar import WebSocket as LitestarWebSocket
from litestar import websocket as litestar_websocket
from quart import Quart
from quart import session as quart_session
from starlette.applications import Starlette
from starlette.routing import WebSocketRoute

from session_kit import CookieOptions, Session, SessionError, SessionManager, UnstorageSessionStore
from session_kit.asgi import SessionMiddleware, use_session
from session_kit.drivers.memory import MemoryDriver
from session_kit.integrations import aiohttp, litestar, quart
from tests.harness.sessions import SECRET, SlowDriver, cookie_of
from tests.harness.sites import UnderUvicorn

Talk = Callable[[Any, Session[Any]], Any]
"""What a WebSocket does once it is accepted."""


@pytest.fixture(params=[False, True], ids=["memory", "waits"])
def store(request: pytest.FixtureRequest) -> UnstorageSessionStore:
    return UnstorageSessionStore(SlowDriver(MemoryDriver()) if request.param else MemoryDriver())


def begin(store: UnstorageSessionStore) -> str:
    """Store a session and return its cookie."""
    with_store = SessionManager(store, SECRET)
    session = with_store.open()
    session["user"] = "ada"
    return cookie_of(with_store.commit(session))


def stored(store: UnstorageSessionStore) -> dict[str, Any]:
    ((_, data),) = store.all()
    return data


# --- WebSockets ---


async def echo(socket: Any, session: Session[Any]) -> None:
    while True:
        session["word"] = await socket.receive_text()
        await socket.send_text("heard")


async def push(socket: Any, session: Session[Any]) -> None:
    for number in range(1_000):
        session["word"] = f"tick {number}"
        await socket.send_text("tick")
        await asyncio.sleep(0.01)


def starlette_app(store: UnstorageSessionStore, talk: Talk) -> Any:
    async def endpoint(socket: Any) -> None:
        session = await use_session(socket)
        await socket.accept()
        await talk(socket, session)

    app = Starlette(routes=[WebSocketRoute("/", endpoint)])
    app.add_middleware(SessionMiddleware, store=store, secret=SECRET)
    return app


def litestar_app(store: UnstorageSessionStore, talk: Talk) -> Any:
    @litestar_websocket("/")
    async def endpoint(socket: LitestarWebSocket[Any, Any, Any]) -> None:
        session = await use_session(socket)
        await socket.accept()
        await talk(socket, session)

    plugin = litestar.SessionKit(store=store, secret=SECRET)
    return Litestar([endpoint], plugins=[plugin], logging_config=None)


@pytest.mark.parametrize("make_app", [starlette_app, litestar_app])
@pytest.mark.parametrize("talk", [echo, push])
@pytest.mark.parametrize("politely", [True, False])
def test_a_websocket_keeps_what_it_has_changed_when_its_client_leaves(
    store: UnstorageSessionStore, make_app: Any, talk: Talk, politely: bool
) -> None:
    cookie = begin(store)

    async def visit(url: str) -> None:
        address, headers = url.replace("http", "ws"), {"Cookie": cookie}
        socket = await websockets.connect(address, additional_headers=headers, close_timeout=0.5)
        await socket.send("hello")
        await socket.recv()
        if politely:
            await socket.close()
        else:
            socket.transport.abort()

    with UnderUvicorn(make_app(store, talk), log_level="critical") as site:
        asyncio.run(visit(site.url))
    assert stored(store)["word"] == "hello" if talk is echo else stored(store)["word"].startswith("tick")


@pytest.mark.parametrize("make_app", [starlette_app, litestar_app])
def test_a_websocket_that_fails_while_its_client_listens_has_changed_nothing(
    store: UnstorageSessionStore, make_app: Any
) -> None:
    cookie = begin(store)

    async def fail(socket: Any, session: Session[Any]) -> None:
        session["word"] = await socket.receive_text()
        raise OSError("a file of the application is missing")

    async def visit(url: str) -> None:
        socket = await websockets.connect(url.replace("http", "ws"), additional_headers={"Cookie": cookie})
        await socket.send("hello")
        with pytest.raises(websockets.ConnectionClosed):
            await socket.recv()

    with UnderUvicorn(make_app(store, fail), log_level="critical") as site:
        asyncio.run(visit(site.url))
    assert stored(store) == {"user": "ada"}


# --- aiohttp ---


def with_aiohttp(store: UnstorageSessionStore, handler: Any, visit: Callable[[Any], Any]) -> None:
    async def main() -> None:
        app = web.Application()
        app.router.add_get("/", handler)
        aiohttp.setup(app, store, SECRET, cookie=CookieOptions(secure=False))
        async with TestClient(TestServer(app), cookie_jar=CookieJar(unsafe=True)) as client:
            await visit(client)

    asyncio.run(main())


def test_a_stream_of_aiohttp_keeps_what_it_has_changed_when_its_client_leaves(store: UnstorageSessionStore) -> None:
    cookie, ended = begin(store), asyncio.Event()

    async def events(request: web.Request) -> web.StreamResponse:
        session = await aiohttp.get_session(request)
        response = web.StreamResponse()
        try:
            await response.prepare(request)
            for number in range(10_000):
                session["word"] = f"tick {number}"
                await response.write(b"tick")
                await asyncio.sleep(0.001)
        finally:
            ended.set()
        return response

    async def visit(client: Any) -> None:
        response = await client.get("/", headers={"Cookie": cookie})
        await response.content.readany()
        response.close()
        await ended.wait()
        for _ in range(1_000):  # the middleware saves behind the handler
            if "word" in stored(store):
                break
            await asyncio.sleep(0.01)

    with_aiohttp(store, events, visit)
    assert stored(store)["word"].startswith("tick")


def test_a_task_that_outlives_a_failed_request_of_aiohttp_is_told(store: UnstorageSessionStore) -> None:
    cookie, sessions = begin(store), list[Session[Any]]()

    async def fail(request: web.Request) -> web.Response:
        sessions.append(await aiohttp.get_session(request))
        sessions[0]["word"] = "lost"
        raise RuntimeError("broken")

    async def visit(client: Any) -> None:
        assert (await client.get("/", headers={"Cookie": cookie})).status == 500
        with pytest.raises(SessionError, match="has ended"):
            sessions[0]["late"] = 1

    with_aiohttp(store, fail, visit)
    assert stored(store) == {"user": "ada"}


# --- Quart ---


def test_a_task_that_outlives_a_view_of_quart_whose_client_left_is_told(store: UnstorageSessionStore) -> None:
    cookie, sessions, begun = begin(store), list[Session[Any]](), asyncio.Event()
    app = Quart(__name__)
    quart.SessionKit(app, store=store, secret=SECRET)

    @app.get("/")
    async def wait() -> str:
        session: Any = quart_session
        sessions.append(session._get_current_object())
        sessions[0]["word"] = "lost"
        begun.set()
        await asyncio.sleep(30)
        return "too late"

    async def main() -> None:
        messages = iter([{"type": "http.request", "body": b"", "more_body": False}])

        async def receive() -> Any:
            if (message := next(messages, None)) is not None:
                return message
            await begun.wait()
            return {"type": "http.disconnect"}

        async def send(message: Any) -> None: ...

        scope = {"type": "http", "method": "GET", "path": "/", "raw_path": b"/", "query_string": b"", "scheme": "https"}
        scope |= {"http_version": "1.1", "root_path": "", "asgi": {"version": "3.0"}, "extensions": {}}
        scope |= {"headers": [(b"host", b"localhost"), (b"cookie", cookie.encode())], "client": None, "server": None}
        await app(scope, receive, send)
        with pytest.raises(SessionError, match="has ended"):
            sessions[0]["late"] = 1

    asyncio.run(main())
    assert stored(store) == {"user": "ada"}
