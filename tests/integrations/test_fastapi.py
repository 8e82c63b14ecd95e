"""FastAPI: the session is a typed dependency, in every kind of handler, and the OpenAPI schema knows nothing of it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from typing import Annotated, Any

import pytest
from fastapi import APIRouter, BackgroundTasks, Depends, FastAPI, HTTPException, WebSocket, WebSocketDisconnect
from fastapi.responses import JSONResponse, StreamingResponse
from fastapi.testclient import TestClient
from starlette.requests import HTTPConnection, Request

from session_kit import DriverUnavailable, SessionError, UnstorageSessionStore
from session_kit.drivers.memory import MemoryDriver
from session_kit.integrations.fastapi import Session, SessionMiddleware, use_session
from session_kit.testing import FaultyDriver
from tests.harness.sessions import PLAIN_HTTP, SECRET, SlowDriver, take_down


@dataclass
class Cart:
    items: list[str] = field(default_factory=list)
    owner: str = ""


CartSession = Annotated[Session[Cart], Depends(use_session)]


async def cart_of(session: CartSession) -> Cart:
    return session.data


async def visit(session: CartSession) -> AsyncIterator[Session[Cart]]:
    """A dependency with an exit, which runs when the response has been sent."""
    session.data.items.append("entered")
    yield session
    session.data.items.append("left")


def blocking_visit(session: CartSession) -> Iterator[Session[Cart]]:
    session.update(owner="in a thread")
    yield session
    session["owner"] = "left the thread"


router = APIRouter()


@router.get("/cart")
async def show(cart: Annotated[Cart, Depends(cart_of)]) -> Cart:
    return cart


@router.post("/cart")
async def add(item: str, session: CartSession) -> Cart:
    session.data.items.append(item)
    return session.data


@router.post("/blocking")
def add_in_a_thread(item: str, session: CartSession) -> Cart:
    session.data.items.append(item)
    session.save()
    session.reload()
    session.data.items.append(f"{item} again")
    return session.data


@router.post("/blocking-logout")
def logout_in_a_thread(session: CartSession) -> None:
    session.destroy()


@router.post("/blocking-call")
async def blocking_call(session: CartSession) -> None:
    session.save()


@router.post("/visit")
async def enter(session: Annotated[Session[Cart], Depends(visit)]) -> Cart:
    return session.data


@router.post("/blocking-visit")
def enter_in_a_thread(session: Annotated[Session[Cart], Depends(blocking_visit)]) -> Cart:
    return session.data


@router.post("/refused")
async def refused(session: CartSession) -> None:
    session.data.owner = "refused"
    raise HTTPException(403)


@router.post("/failed")
async def failed(session: CartSession) -> None:
    session.data.owner = "eve"
    raise RuntimeError("this handler fails")


@router.post("/background")
async def background(session: CartSession, tasks: BackgroundTasks) -> None:
    async def later() -> None:
        session.data.items.append("in the background")

    def later_in_a_thread() -> None:
        session.data.items.append("in a thread")
        session.save()

    tasks.add_task(later)
    tasks.add_task(later_in_a_thread)


@router.get("/stream")
async def stream(session: CartSession) -> StreamingResponse:
    async def body() -> AsyncIterator[bytes]:
        yield b"one"
        session.data.items.append("streamed")
        yield b"two"

    return StreamingResponse(body())


@router.get("/request")
async def by_request(request: Request) -> dict[str, Any]:
    session = await use_session(request)
    return {"same": session is request.session, "items": request.session["items"]}


@router.get("/untouched")
async def untouched() -> None: ...


@router.websocket("/chat")
async def chat(websocket: WebSocket, session: CartSession) -> None:
    await websocket.accept()
    session.data.items.append(await websocket.receive_text())
    await session.asave()
    await websocket.send_json(session.data.items)
    await websocket.close()


def make_app(store: Any = "memory://", **options: Any) -> FastAPI:
    app = FastAPI()
    app.include_router(router)
    settings: dict[str, Any] = {"cookie": PLAIN_HTTP, "data_type": Cart} | options
    app.add_middleware(SessionMiddleware, store=store, secret=SECRET, **settings)
    return app


@pytest.fixture(params=["memory", "waiting"])
def client(request: pytest.FixtureRequest) -> Iterator[TestClient]:
    """A client with an item in its cart: of an application whose store reads at once, and of one whose store waits."""
    driver = MemoryDriver() if request.param == "memory" else SlowDriver(MemoryDriver())
    with TestClient(make_app(UnstorageSessionStore(driver)), raise_server_exceptions=False) as client:
        assert client.post("/cart?item=book").json() == {"items": ["book"], "owner": ""}
        yield client


def items(client: TestClient) -> Any:
    return client.get("/cart").json()["items"]


def test_a_handler_and_a_dependency_share_the_typed_session(client: TestClient) -> None:
    client.post("/cart?item=pen")
    assert client.get("/cart").json() == {"items": ["book", "pen"], "owner": ""}
    assert client.get("/request").json() == {"same": True, "items": ["book", "pen"]}


def test_a_blocking_handler_uses_the_blocking_methods(client: TestClient) -> None:
    assert client.post("/blocking?item=pen").json()["items"] == ["book", "pen", "pen again"]
    assert items(client) == ["book", "pen", "pen again"]
    client.post("/blocking-logout")
    assert "session" not in client.cookies
    assert items(client) == []


def test_the_blocking_methods_in_async_code_name_the_right_one() -> None:
    with TestClient(make_app()) as client, pytest.raises(SessionError, match=r"await session\.asave"):
        client.post("/blocking-call")


def test_a_dependency_with_an_exit_writes_before_and_after(client: TestClient) -> None:
    assert client.post("/visit").json()["items"] == ["book", "entered"]
    assert items(client) == ["book", "entered", "left"]


def test_a_blocking_dependency_with_an_exit_does_too(client: TestClient) -> None:
    assert client.post("/blocking-visit").json()["owner"] == "in a thread"
    assert client.get("/cart").json()["owner"] == "left the thread"


def test_a_refusal_is_saved_and_a_failure_is_not(client: TestClient) -> None:
    assert client.post("/refused").status_code == 403
    assert client.get("/cart").json()["owner"] == "refused"
    assert client.post("/failed").status_code == 500
    assert client.get("/cart").json()["owner"] == "refused"


def test_background_tasks_write_late(client: TestClient) -> None:
    assert client.post("/background").status_code == 200
    assert items(client) == ["book", "in the background", "in a thread"]


def test_a_stream_writes_late(client: TestClient) -> None:
    assert client.get("/stream").text == "onetwo"
    assert items(client) == ["book", "streamed"]


def test_a_late_write_that_the_client_cannot_get_is_no_silence() -> None:
    with TestClient(make_app()) as client, pytest.raises(SessionError, match="the response has begun"):
        client.get("/stream")


def test_a_websocket_reads_and_writes(client: TestClient) -> None:
    with client.websocket_connect("/chat") as websocket:
        websocket.send_text("pen")
        assert websocket.receive_json() == ["book", "pen"]
    assert items(client) == ["book", "pen"]


def test_a_route_that_does_not_ask_has_no_header_of_ours(client: TestClient) -> None:
    assert {"set-cookie", "vary"}.isdisjoint(client.get("/untouched").headers)


def test_the_openapi_schema_does_not_know_of_the_session() -> None:
    def make(*, sessions: bool) -> Any:
        app = FastAPI()
        if sessions:

            @app.post("/items/{number}")
            async def with_session(number: int, q: str, body: Cart, session: CartSession) -> Cart: ...

            app.add_middleware(SessionMiddleware, store="memory://", secret=SECRET)
        else:

            @app.post("/items/{number}")
            async def without(number: int, q: str, body: Cart) -> Cart: ...

        for route in app.routes:
            if route.path == "/items/{number}":
                route.summary = route.operation_id = "add"
        return TestClient(app).get("/openapi.json").json()

    assert make(sessions=True) == make(sessions=False)
    schema = TestClient(make_app()).get("/openapi.json").json()
    assert schema["paths"]["/cart"]["get"].keys() == {"summary", "operationId", "responses"}
    assert [each["name"] for each in schema["paths"]["/cart"]["post"]["parameters"]] == ["item"]


def test_a_missing_middleware_is_named_with_the_line_to_add() -> None:
    app = FastAPI()
    app.include_router(router)
    with TestClient(app) as client, pytest.raises(SessionError, match=r"app\.add_middleware\(SessionMiddleware"):
        client.get("/cart")


def test_a_session_can_be_put_in_the_place_of_the_dependency_in_tests_of_an_application() -> None:
    from session_kit import SessionManager

    session: Session[Any] = SessionManager("memory://", SECRET, data_type=Cart).open()
    session.update(owner="ada")

    async def instead(connection: HTTPConnection) -> Session[Any]:
        return session

    app = make_app()
    app.dependency_overrides[use_session] = instead
    with TestClient(app) as client:
        assert client.get("/cart").json()["owner"] == "ada"


# --- an outage ---


@pytest.fixture
def down() -> Any:
    """Makes a client with an item in its cart, and then the store goes down."""
    driver = FaultyDriver(SlowDriver(MemoryDriver()))

    def make(**options: Any) -> tuple[TestClient, FaultyDriver]:
        app = make_app(UnstorageSessionStore(driver), **options)
        client = TestClient(app, raise_server_exceptions=False)
        client.post("/cart?item=book")
        take_down(driver)
        return client, driver

    return make


@pytest.mark.parametrize("load", ["auto", "explicit"])
@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/cart"),
        ("POST", "/cart?item=pen"),
        ("POST", "/blocking?item=pen"),
        ("POST", "/visit"),
        ("POST", "/blocking-logout"),
        ("POST", "/background"),
        ("GET", "/stream"),
        ("GET", "/request"),
    ],
)
def test_an_outage_is_a_503(down: Any, method: str, path: str, load: str) -> None:
    client, driver = down(load=load)
    answer = client.request(method, path)
    assert answer.status_code == 503
    assert "set-cookie" not in answer.headers
    assert client.get("/untouched").status_code == 200
    driver.heal()
    assert items(client) == ["book"]


def test_an_outage_at_the_end_is_a_503_too(down: Any) -> None:
    client, driver = down()
    driver.heal()
    for method in ("set", "delete"):
        driver.fail(method)
    for path in ("/cart?item=pen", "/blocking?item=pen", "/blocking-logout", "/visit"):
        assert client.post(path).status_code == 503
    driver.heal()
    assert items(client) == ["book"]


def test_an_application_may_have_its_own_answer_to_an_outage(down: Any) -> None:
    client, _ = down()

    async def sorry(request: Request, error: Exception) -> JSONResponse:
        return JSONResponse({"detail": "come back later"}, status_code=503)

    client.app.add_exception_handler(DriverUnavailable, sorry)
    client.app.middleware_stack = None
    answer = client.get("/cart")
    assert (answer.status_code, answer.json()) == (503, {"detail": "come back later"})


def test_a_websocket_is_told_to_come_back_later(down: Any) -> None:
    client, _ = down()
    with pytest.raises(WebSocketDisconnect) as caught, client.websocket_connect("/chat"):
        raise AssertionError("the handshake must not succeed")
    assert caught.value.code == 1013


def test_an_anonymous_session_stands_in(down: Any) -> None:
    client, driver = down(on_error="anonymous")
    assert items(client) == []
    assert client.post("/cart?item=pen").status_code == 200
    driver.heal()
    assert items(client) == ["book"]
