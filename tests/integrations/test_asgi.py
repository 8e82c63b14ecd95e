"""ASGI: the save ends before the first byte leaves, and the same middleware serves any framework."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI, Request
from litestar import Litestar, get
from litestar import Request as LitestarRequest
from litestar.testing import TestClient as LitestarClient
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route, WebSocketRoute
from starlette.testclient import TestClient
from starlette.websockets import WebSocket, WebSocketDisconnect

from session_kit import ConfigError, SessionError, UnstorageSessionStore, use_session
from session_kit.asgi import SessionMiddleware
from session_kit.drivers import Driver
from session_kit.drivers.memory import MemoryDriver
from session_kit.testing import CountingDriver, FaultyDriver
from tests.harness.bare_asgi import Scope, bare, call, cookie_of, headers_of, put
from tests.harness.sessions import PLAIN_HTTP, SECRET, SlowDriver


def test_the_save_ends_before_the_first_byte_leaves() -> None:
    driver = CountingDriver(MemoryDriver())
    app = SessionMiddleware(bare(put), UnstorageSessionStore(driver), SECRET)
    sent = asyncio.run(call(app, calls=driver.calls))
    assert driver.calls == ["set", "http.response.start", "http.response.body"]
    headers = headers_of(sent)
    assert headers["x-app"] == "1"
    assert headers["vary"] == "Cookie"
    assert headers["cache-control"] == 'no-cache="Set-Cookie"'
    assert "HttpOnly; Secure; SameSite=Lax" in headers["set-cookie"]


@pytest.mark.parametrize("waits", [False, True])
def test_a_handler_that_does_not_look_gets_an_unchanged_response(waits: bool) -> None:
    driver = CountingDriver(SlowDriver(MemoryDriver()) if waits else MemoryDriver())
    store = UnstorageSessionStore(driver)
    sent = asyncio.run(call(SessionMiddleware(bare(put), store, SECRET)))
    driver.reset()
    untouched = SessionMiddleware(bare(lambda session: None), store, SECRET)
    assert headers_of(asyncio.run(call(untouched, cookie_of(sent)))) == {"x-app": "1"}
    # Behind a network "auto" must load before the handler, which cannot wait; the explicit mode costs nothing.
    assert len(driver.calls) == (1 if waits else 0)
    explicit = SessionMiddleware(bare(lambda session: None), store, SECRET, load="explicit")
    driver.reset()
    asyncio.run(call(explicit, cookie_of(sent)))
    assert driver.calls == []


def test_a_store_behind_a_network_is_asked_only_when_a_cookie_verifies() -> None:
    driver = CountingDriver(SlowDriver(MemoryDriver()))
    app = SessionMiddleware(bare(lambda session: None), UnstorageSessionStore(driver), SECRET)
    for cookie in ("", "other=1", "session=forged.signature"):
        asyncio.run(call(app, cookie))
    assert driver.calls == []


def test_explicit_loading_works_and_forgetting_it_names_the_call() -> None:
    driver = CountingDriver(SlowDriver(MemoryDriver()))
    store = UnstorageSessionStore(driver)
    cookie = cookie_of(asyncio.run(call(SessionMiddleware(bare(put), store, SECRET))))
    seen: list[Any] = []

    async def app(scope: Scope, receive: Any, send: Any) -> None:
        with pytest.raises(SessionError, match="await use_session"):
            scope["session"]["user"]
        seen.append(dict(await use_session(scope)))

    asyncio.run(call(SessionMiddleware(app, store, SECRET, load="explicit"), cookie))
    assert seen == [{"user": "ada"}]


def test_a_handler_that_raises_changes_nothing_and_logs_nobody_out() -> None:
    store = UnstorageSessionStore("memory://")
    cookie = cookie_of(asyncio.run(call(SessionMiddleware(bare(put), store, SECRET))))

    async def fail(session: Any) -> None:
        session["user"] = "eve"
        await session.aregenerate()
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        asyncio.run(call(SessionMiddleware(bare(fail), store, SECRET), cookie))
    seen: list[Any] = []
    asyncio.run(call(SessionMiddleware(bare(lambda session: seen.append(dict(session))), store, SECRET), cookie))
    assert seen == [{"user": "ada"}]


@pytest.mark.parametrize("error", [ZeroDivisionError, asyncio.CancelledError])
@pytest.mark.parametrize("change", [lambda session: session.clear(), lambda session: session.update(user="eve")])
def test_a_change_after_a_handler_has_raised_is_not_lost_in_silence(error: type[BaseException], change: Any) -> None:
    """Starlette's handler of `Exception` lies outside all middleware, and nothing is saved after it."""
    sessions: list[Any] = []

    async def fail(session: Any) -> None:
        sessions.append(session)
        session.get("user")
        raise error

    with pytest.raises(error):
        asyncio.run(call(SessionMiddleware(bare(fail), "memory://", SECRET)))
    with pytest.raises(SessionError, match="the request of this session has ended"):
        change(sessions[0])


@pytest.mark.parametrize("waits", [False, True])
def test_an_answer_that_failed_keeps_no_late_change_of_a_session_that_was_not_looked_at(waits: bool) -> None:
    store = UnstorageSessionStore(SlowDriver(MemoryDriver()) if waits else MemoryDriver())
    cookie = cookie_of(asyncio.run(call(SessionMiddleware(bare(put), store, SECRET))))

    async def app(scope: Scope, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 503, "headers": []})
        scope["session"]["user"] = "eve"
        await send({"type": "http.response.body", "body": b""})

    asyncio.run(call(SessionMiddleware(app, store, SECRET), cookie))
    ((_, data),) = store.all()
    assert data == {"user": "ada"}


def test_an_outage_while_a_websocket_is_refused_closes_it_with_try_again_later() -> None:
    driver = FaultyDriver(SlowDriver(MemoryDriver()))
    store = UnstorageSessionStore(driver)
    cookie = cookie_of(asyncio.run(call(SessionMiddleware(bare(put), store, SECRET))))

    async def app(scope: Scope, receive: Any, send: Any) -> None:
        scope["session"]["user"] = "eve"
        driver.fail("set")
        await send({"type": "websocket.close"})

    sent = asyncio.run(call(SessionMiddleware(app, store, SECRET), cookie, "websocket"))
    assert [(message["type"], message["code"]) for message in sent] == [("websocket.close", 1013)]


def test_a_middleware_outside_may_call_the_application_once_more_for_the_same_request() -> None:
    inner = SessionMiddleware(bare(put), "memory://", SECRET)

    async def retry(scope: Scope, receive: Any, send: Any) -> None:
        await inner(scope, receive, lambda message: asyncio.sleep(0))
        await inner(scope, receive, send)

    assert asyncio.run(call(retry))[0]["status"] == 200


def test_a_logout_stays_even_if_the_handler_fails_afterwards() -> None:
    store = UnstorageSessionStore("memory://")
    cookie = cookie_of(asyncio.run(call(SessionMiddleware(bare(put), store, SECRET))))

    async def fail(session: Any) -> None:
        await session.adestroy()
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        asyncio.run(call(SessionMiddleware(bare(fail), store, SECRET), cookie))
    assert store.length() == 0


def test_a_write_after_the_response_began_reaches_the_store_if_the_client_has_the_id() -> None:
    store = UnstorageSessionStore("memory://")
    cookie = cookie_of(asyncio.run(call(SessionMiddleware(bare(put), store, SECRET))))
    late = bare(lambda session: None, after=lambda session: session.update(late=True))
    asyncio.run(call(SessionMiddleware(late, store, SECRET), cookie))
    ((_, data),) = store.all()
    assert data == {"user": "ada", "late": True}


@pytest.mark.parametrize(
    "after", [lambda session: session.update(late=True), lambda session: session.regenerate()], ids=["new", "rotate"]
)
def test_a_write_after_the_response_began_raises_if_the_client_cannot_get_the_id(after: Any) -> None:
    store = UnstorageSessionStore("memory://")
    app = SessionMiddleware(bare(lambda session: None, after=after), store, SECRET)
    with pytest.raises(SessionError, match=r"the response has begun|await session\.aregenerate"):
        asyncio.run(call(app))


def test_the_middleware_twice_is_refused() -> None:
    store = UnstorageSessionStore("memory://")
    app = SessionMiddleware(SessionMiddleware(bare(put), store, SECRET), store, SECRET)
    with pytest.raises(ConfigError, match="installed twice for the cookie 'session'"):
        asyncio.run(call(app))


def test_a_missing_middleware_is_named_with_the_line_to_add() -> None:
    with pytest.raises(SessionError, match=r"app\.add_middleware\(SessionMiddleware"):
        asyncio.run(use_session({"type": "http"}))


@pytest.mark.parametrize(
    "options",
    [
        {"secret": SECRET},
        {"store": "memory://"},
        {"store": "memory://", "secret": "short"},
        {"store": "nonsense://", "secret": SECRET},
        {"store": "memory://", "secret": SECRET, "load": "sometimes"},
        {"store": "memory://", "secret": SECRET, "cookies": None},
        {"store": "memory://", "secret": SECRET, "name": "__Host-s", "cookie": PLAIN_HTTP},
    ],
)
def test_a_setting_that_cannot_work_is_refused_at_start_in_one_line(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigError) as caught:
        SessionMiddleware(bare(put), **options)
    assert "\n" not in str(caught.value)


def test_the_store_is_closed_with_the_application() -> None:
    closed: list[bool] = []

    class Watched(MemoryDriver):
        def close(self) -> None:
            closed.append(True)

    from session_kit.drivers import register_driver

    register_driver("watched", Watched)
    app = Starlette()
    app.add_middleware(SessionMiddleware, store="watched://", secret=SECRET)
    with TestClient(app):
        assert closed == []
    assert closed == [True]


# --- Starlette and FastAPI ---


async def visit(request: Any) -> JSONResponse:
    request.session.update(lambda data: {"visits": data.get("visits", 0) + 1})
    return JSONResponse(dict(request.session))


def sync_visit(request: Any) -> JSONResponse:
    request.session["sync"] = True
    request.session.save()
    return JSONResponse(dict(request.session))


async def leave(request: Any) -> Response:
    await request.session.adestroy()
    return Response()


async def refuse(request: Any) -> Response:
    request.session["tries"] = request.session.get("tries", 0) + 1
    raise HTTPException(403)


async def stream(request: Any) -> StreamingResponse:
    request.session["streamed"] = True

    async def body() -> Any:
        for number in range(3):
            request.session["number"] = number
            yield str(number)

    return StreamingResponse(body())


async def chat(websocket: WebSocket) -> None:
    session = await use_session(websocket)
    await websocket.accept()
    session.update(lambda data: {"chats": data.get("chats", 0) + 1})
    await session.asave()
    await websocket.send_json(dict(session))
    await websocket.close()


async def refuse_chat(websocket: WebSocket) -> None:
    session = await use_session(websocket)
    session.update(lambda data: {"refused": data.get("refused", 0) + 1})
    await websocket.close()


@pytest.fixture(params=["memory://", "disk"])
def client(request: pytest.FixtureRequest, tmp_path: Path) -> Any:
    url = f"disk://{tmp_path}/store" if request.param == "disk" else request.param
    app = Starlette(
        routes=[
            Route("/visit", visit),
            Route("/sync", sync_visit),
            Route("/leave", leave),
            Route("/refuse", refuse),
            Route("/stream", stream),
            Route("/untouched", lambda request: PlainTextResponse("ok")),
            WebSocketRoute("/chat", chat),
            WebSocketRoute("/refuse_chat", refuse_chat),
        ]
    )
    app.add_middleware(SessionMiddleware, store=url, secret=SECRET, cookie=PLAIN_HTTP)
    with TestClient(app) as client:
        yield client


def test_starlette_counts_visits(client: TestClient) -> None:
    assert [client.get("/visit").json()["visits"] for _ in range(3)] == [1, 2, 3]
    client.get("/leave")
    assert "session" not in client.cookies
    assert client.get("/visit").json() == {"visits": 1}


def test_a_blocking_handler_may_use_the_blocking_methods(client: TestClient) -> None:
    assert client.get("/sync").json() == {"sync": True}


def test_a_refusal_by_http_exception_still_saves(client: TestClient) -> None:
    client.get("/visit")
    assert client.get("/refuse").status_code == 403
    assert client.get("/visit").json() == {"visits": 2, "tries": 1}


def test_what_a_stream_writes_is_saved(client: TestClient) -> None:
    assert client.get("/stream").text == "012"
    assert client.get("/visit").json() == {"streamed": True, "number": 2, "visits": 1}


def test_a_websocket_reads_and_writes_the_session(client: TestClient) -> None:
    client.get("/visit")
    with client.websocket_connect("/chat") as websocket:
        assert websocket.receive_json() == {"visits": 1, "chats": 1}
    assert client.get("/visit").json() == {"visits": 2, "chats": 1}


def test_what_changed_before_a_websocket_was_refused_is_saved(client: TestClient) -> None:
    client.get("/visit")
    for _ in range(2):
        with pytest.raises(WebSocketDisconnect), client.websocket_connect("/refuse_chat"):
            pass
    assert client.get("/visit").json() == {"visits": 2, "refused": 2}


def test_a_new_visitor_whose_websocket_is_refused_loses_nothing_in_silence(client: TestClient) -> None:
    with pytest.raises(SessionError, match="cannot be given to the client"), client.websocket_connect("/refuse_chat"):
        pass


def test_an_untouched_route_sets_no_header(client: TestClient) -> None:
    client.get("/visit")
    response = client.get("/untouched")
    assert "set-cookie" not in response.headers
    assert "vary" not in response.headers


def test_fastapi_has_the_session() -> None:
    app = FastAPI()
    app.add_middleware(SessionMiddleware, store="memory://", secret=SECRET, cookie=PLAIN_HTTP)

    @app.get("/visits")
    async def visits(request: Request) -> dict[str, int]:
        request.session["visits"] = request.session.get("visits", 0) + 1
        return {"visits": request.session["visits"]}

    with TestClient(app) as client:
        assert [client.get("/visits").json() for _ in range(2)] == [{"visits": 1}, {"visits": 2}]


def test_litestar_has_the_session() -> None:
    @get("/visits")
    async def visits(request: LitestarRequest[Any, Any, Any]) -> dict[str, int]:
        request.session["visits"] = request.session.get("visits", 0) + 1
        return {"visits": request.session["visits"]}

    def sessions(app: Any) -> SessionMiddleware:
        return SessionMiddleware(app, store="memory://shared-by-litestar", secret=SECRET, cookie=PLAIN_HTTP)

    with LitestarClient(Litestar([visits], middleware=[sessions])) as client:
        assert [client.get("/visits").json() for _ in range(2)] == [{"visits": 1}, {"visits": 2}]


def test_one_driver_serves_several_event_loops() -> None:
    driver: Driver = MemoryDriver()
    app = SessionMiddleware(bare(put), UnstorageSessionStore(driver), SECRET)
    for _ in range(3):
        asyncio.run(call(app))
    assert len(list(driver.keys())) == 3


def test_a_cached_response_hands_the_cookie_to_nobody_else() -> None:
    """A cache inside the middleware keeps the message that it sends, and sends it again to others."""
    kept: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if not kept:
            kept.append({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"0")]})
            scope["session"]["user"] = "ada"
        await send(kept[0])
        await send({"type": "http.response.body", "body": b""})

    client = TestClient(SessionMiddleware(app, "memory://", SECRET, cookie=PLAIN_HTTP))
    assert "set-cookie" in client.get("/").headers
    client.cookies.clear()
    assert "set-cookie" not in client.get("/").headers


@pytest.mark.parametrize("status", [500, 503])
def test_a_failure_that_the_framework_has_turned_into_an_answer_changes_nothing(status: int) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        session = scope["session"]
        if scope["path"] == "/fail":
            session["user"] = "eve"
            await session.aregenerate()
        elif scope["path"] == "/write":
            session["user"] = "ada"
        body = str(session.get("user")).encode()
        await send(
            {"type": "http.response.start", "status": status if scope["path"] == "/fail" else 200, "headers": []}
        )
        await send({"type": "http.response.body", "body": body})

    client = TestClient(SessionMiddleware(app, "memory://", SECRET, cookie=PLAIN_HTTP))
    assert "set-cookie" not in client.get("/fail").headers
    client.get("/write")
    assert "set-cookie" not in client.get("/fail").headers
    assert client.get("/").text == "ada"


def test_what_was_saved_by_name_before_a_failure_keeps_its_cookie() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        session = scope["session"]
        if scope["path"] == "/fail":
            session["user"] = "ada"
            await session.aregenerate()
            await session.asave()
            session["user"] = "eve"
        body = str(session.get("user")).encode()
        await send({"type": "http.response.start", "status": 500 if scope["path"] == "/fail" else 200, "headers": []})
        await send({"type": "http.response.body", "body": body})

    client = TestClient(SessionMiddleware(app, "memory://", SECRET, cookie=PLAIN_HTTP))
    for _ in range(2):
        assert "set-cookie" in client.get("/fail").headers
        assert client.get("/").text == "ada"
