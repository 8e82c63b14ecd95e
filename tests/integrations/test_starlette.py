"""Starlette: what its users import is there, and an outage or a missing middleware is told in one line."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Mount, Route, WebSocketRoute
from starlette.templating import Jinja2Templates
from starlette.testclient import TestClient
from starlette.websockets import WebSocket, WebSocketDisconnect

from session_kit import SessionError, UnstorageSessionStore, asgi
from session_kit.drivers.memory import MemoryDriver
from session_kit.integrations.starlette import Session, SessionMiddleware, use_session
from session_kit.testing import FaultyDriver
from tests.harness.sessions import PLAIN_HTTP, SECRET, SlowDriver, take_down


@dataclass
class Cart:
    items: int = 0


async def read(request: Request) -> Response:
    return JSONResponse(dict(request.session))


async def show(request: Request) -> Response:
    return JSONResponse(dict(await use_session(request)))


async def write(request: Request) -> Response:
    session = await use_session(request)
    session["user"] = request.query_params["user"]
    return Response()


def write_in_a_thread(request: Request) -> Response:
    request.session["user"] = request.query_params["user"]
    request.session.save()  # type: ignore[attr-defined]
    return Response()


async def save(request: Request) -> Response:
    session = await use_session(request)
    session["user"] = "eve"
    await session.asave()
    return Response()


async def untouched(request: Request) -> Response:
    return Response("ok")


async def later(request: Request) -> Response:
    session = await use_session(request)
    return Response(background=BackgroundTask(session.update, job="done"))


async def stream(request: Request) -> Response:
    async def body() -> AsyncIterator[bytes]:
        yield b"one"
        request.session["late"] = True
        yield b"two"

    request.session.get("user")
    return StreamingResponse(body())


async def chat(websocket: WebSocket) -> None:
    session = await use_session(websocket)
    await websocket.accept()
    session["user"] = await websocket.receive_text()
    await websocket.close()


ROUTES = [
    Route("/read", read),
    Route("/show", show),
    Route("/write", write),
    Route("/thread", write_in_a_thread),
    Route("/save", save),
    Route("/untouched", untouched),
    Route("/later", later),
    Route("/stream", stream),
    WebSocketRoute("/chat", chat),
]


def make_app(store: Any = "memory://", routes: list[Any] = ROUTES, **options: Any) -> Starlette:
    settings: dict[str, Any] = {"store": store, "secret": SECRET, "cookie": PLAIN_HTTP} | options
    return Starlette(routes=routes, middleware=[Middleware(SessionMiddleware, **settings)])


def test_it_is_the_middleware_of_any_asgi_application() -> None:
    assert SessionMiddleware is asgi.SessionMiddleware
    assert use_session is asgi.use_session


@pytest.mark.parametrize("waits", [False, True])
def test_late_writes_are_kept(waits: bool) -> None:
    driver = SlowDriver(MemoryDriver()) if waits else MemoryDriver()
    with TestClient(make_app(UnstorageSessionStore(driver))) as client:
        client.get("/write?user=ada")
        client.get("/later")
        assert client.get("/stream").text == "onetwo"
        with client.websocket_connect("/chat") as websocket:
            websocket.send_text("bob")
        assert client.get("/read").json() == {"user": "bob", "job": "done", "late": True}


def test_a_blocking_handler_uses_the_blocking_methods() -> None:
    with TestClient(make_app(UnstorageSessionStore(SlowDriver(MemoryDriver())))) as client:
        client.get("/thread?user=ada")
        assert client.get("/read").json() == {"user": "ada"}


def test_a_late_write_that_the_client_cannot_get_is_no_silence() -> None:
    with TestClient(make_app()) as client, pytest.raises(SessionError, match="the response has begun"):
        client.get("/later")


def test_the_data_may_have_a_type() -> None:
    async def show(request: Request) -> Response:
        session: Session[Cart] = await use_session(request)
        session.data.items += 1
        return JSONResponse({"items": session.data.items})

    with TestClient(make_app(routes=[Route("/cart", show)], data_type=Cart)) as client:
        assert [client.get("/cart").json() for _ in range(2)] == [{"items": 1}, {"items": 2}]


def test_a_part_of_an_application_may_have_sessions_alone() -> None:
    with_sessions = Middleware(SessionMiddleware, store="memory://", secret=SECRET, cookie=PLAIN_HTTP)
    app = Starlette(routes=[Mount("/shop", routes=ROUTES, middleware=[with_sessions]), Route("/untouched", untouched)])
    with TestClient(app) as client:
        client.get("/shop/write?user=ada")
        assert client.get("/shop/read").json() == {"user": "ada"}
        assert client.get("/untouched").status_code == 200


def test_a_template_shows_what_was_stored_as_id_and_never_the_secret_one(tmp_path: Path) -> None:
    (tmp_path / "page.html").write_text("{{ session.id }}|{{ session.data }}|{{ session['created'] }}")
    templates = Jinja2Templates(tmp_path, context_processors=[lambda request: {"session": dict(request.session)}])

    async def page(request: Request) -> Response:
        return templates.TemplateResponse(request, "page.html")

    async def keep(request: Request) -> Response:
        request.session["id"] = 7
        return Response()

    with TestClient(make_app(routes=[Route("/page", page), Route("/keep", keep)])) as client:
        assert client.get("/page").text == "||"
        client.get("/keep")
        assert client.get("/page").text == "7||"


def test_a_missing_middleware_is_named_with_the_line_to_add() -> None:
    app = Starlette(routes=[Route("/save", save), Route("/read", read)])
    with TestClient(app) as client:
        with pytest.raises(
            SessionError, match=r"app\.add_middleware\(SessionMiddleware, store=\.\.\., secret=\.\.\.\)"
        ):
            client.get("/save")
        with pytest.raises(AssertionError, match="SessionMiddleware must be installed"):  # Starlette's own words
            client.get("/read")


# --- an outage ---

Down = Callable[..., tuple[TestClient, FaultyDriver]]


@pytest.fixture
def down() -> Down:
    """Makes a client that is logged in, and then the store goes down."""

    def make(**options: Any) -> tuple[TestClient, FaultyDriver]:
        driver = FaultyDriver(SlowDriver(MemoryDriver()))
        client = TestClient(make_app(UnstorageSessionStore(driver), **options), raise_server_exceptions=False)
        assert client.get("/write?user=ada").status_code == 200
        take_down(driver)
        return client, driver

    return make


@pytest.mark.parametrize("load", ["auto", "explicit"])
@pytest.mark.parametrize("path", ["/save", "/later"])
def test_an_outage_is_a_503(down: Down, path: str, load: str) -> None:
    client, driver = down(load=load)
    answer = client.get(path)
    assert answer.status_code == 503
    assert answer.headers["cache-control"] == "no-store"
    assert "set-cookie" not in answer.headers
    driver.heal()
    assert client.get("/show").json() == {"user": "ada"}


def test_an_outage_of_a_session_that_loads_by_itself_is_a_503(down: Down) -> None:
    client, _ = down()
    assert client.get("/read").status_code == 503
    assert client.get("/write?user=eve").status_code == 503
    assert client.get("/untouched").status_code == 200


def test_an_outage_when_a_first_session_is_saved_is_a_503_without_a_cookie(down: Down) -> None:
    client, _ = down()
    client.cookies.clear()
    for path in ("/write?user=eve", "/save"):
        answer = client.get(path)
        assert answer.status_code == 503
        assert "set-cookie" not in answer.headers


def test_a_websocket_is_told_to_come_back_later(down: Down) -> None:
    client, _ = down()
    with pytest.raises(WebSocketDisconnect) as caught, client.websocket_connect("/chat"):
        raise AssertionError("the handshake must not succeed")
    assert caught.value.code == 1013


def test_an_anonymous_session_stands_in(down: Down) -> None:
    client, driver = down(on_error="anonymous")
    assert client.get("/read").json() == {}
    assert client.get("/write?user=eve").status_code == 200
    driver.heal()
    assert client.get("/read").json() == {"user": "ada"}


def test_one_application_serves_several_event_loops() -> None:
    app = make_app()
    for _ in range(2):
        with TestClient(app) as client:
            client.get("/write?user=ada")
            assert client.get("/read").json() == {"user": "ada"}
