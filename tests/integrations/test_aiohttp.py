"""aiohttp: sessions in its handlers, streams and WebSockets."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import aiohttp_session
import pytest
from aiohttp import CookieJar, web
from aiohttp.test_utils import TestClient, TestServer

from session_kit import ConfigError, CookieOptions, SessionError, UnstorageSessionStore
from session_kit.drivers.memory import MemoryDriver
from session_kit.errors import STORE_DOWN
from session_kit.integrations.aiohttp import get_session, setup
from session_kit.testing import CountingDriver, FaultyDriver, ManualClock
from tests.harness.sessions import SECRET, take_down


async def untouched(request: web.Request) -> web.Response:
    return web.Response(text="ok")


async def read(request: web.Request) -> web.Response:
    return web.json_response((await get_session(request)).get("user"))


async def poll(request: web.Request) -> web.Response:
    return web.json_response((await get_session(request, touch=False)).get("user"))


async def write(request: web.Request) -> web.Response:
    (await get_session(request))["user"] = request.query.get("value", "ada")
    return web.Response(text="ok")


async def redirect(request: web.Request) -> web.Response:
    (await get_session(request))["user"] = "redirected"
    raise web.HTTPFound("/read")


async def fail(request: web.Request) -> web.Response:
    (await get_session(request))["user"] = "eve"
    raise RuntimeError("broken")


async def logout(request: web.Request) -> web.Response:
    await (await get_session(request)).adestroy()
    return web.Response(text="ok")


async def stream(request: web.Request) -> web.StreamResponse:
    session = await get_session(request)
    response = web.StreamResponse()
    await response.prepare(request)
    await response.write(b"one")
    session["user"] = "late"
    await response.write(b"two")
    return response


async def socket(request: web.Request) -> web.WebSocketResponse:
    session = await get_session(request)
    response = web.WebSocketResponse()
    await response.prepare(request)
    session["user"] = await response.receive_str()
    await response.send_str("ok")
    await response.close()
    return response


HANDLERS = (untouched, read, poll, write, redirect, fail, logout, stream, socket)


def play(steps: Callable[[TestClient[Any, Any]], Awaitable[None]], driver: Any, **options: Any) -> None:
    async def main() -> None:
        app, inner = web.Application(), web.Application()
        for handler in HANDLERS:
            app.router.add_get(f"/{handler.__name__}", handler)
        inner.router.add_get("/read", read)
        app.add_subapp("/inner", inner)
        setup(app, UnstorageSessionStore(driver), SECRET, cookie=CookieOptions(secure=False), **options)
        async with TestClient(TestServer(app), cookie_jar=CookieJar(unsafe=True)) as client:
            await steps(client)

    asyncio.run(main())


@pytest.fixture
def driver() -> CountingDriver:
    return CountingDriver(MemoryDriver())


def test_each_kind_of_request_costs_what_the_budget_says(driver: CountingDriver) -> None:
    async def steps(client: TestClient[Any, Any]) -> None:
        for path, calls in (
            ("/read", 0),
            ("/write", 1),
            ("/untouched", 0),
            ("/read", 1),
            ("/write?value=eve", 2),
            ("/logout", 1),
        ):
            driver.reset()
            response = await client.get(path)
            assert response.status == 200
            # aiohttp's get_session loads; a session that is then destroyed was read once.
            assert len(driver.calls) == calls + (path == "/logout"), path
            assert ("Vary" in response.headers) == (path != "/untouched")

    play(steps, driver)


def test_polling_keeps_no_session_alive() -> None:
    clock = ManualClock()

    async def steps(client: TestClient[Any, Any]) -> None:
        await client.get("/write")
        for _ in range(2):
            assert await (await client.get("/poll")).json() == "ada"
            clock.advance(80_000)
        assert await (await client.get("/poll")).json() is None

    play(steps, MemoryDriver(clock=clock), clock=clock)


def test_a_sub_application_shares_the_session(driver: CountingDriver) -> None:
    async def steps(client: TestClient[Any, Any]) -> None:
        await client.get("/write")
        assert await (await client.get("/inner/read")).json() == "ada"

    play(steps, driver)


def test_a_second_setup_on_what_is_mounted_is_refused_and_confuses_no_two_sessions(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def steps() -> None:
        app, inner = web.Application(), web.Application()
        inner.router.add_get("/write", write)
        setup(inner, "memory://", SECRET, name="inner")
        app.add_subapp("/inner", inner)
        setup(app, "memory://", SECRET)
        async with TestClient(TestServer(app)) as client:
            answer = await client.get("/inner/write")
            assert (answer.status, "Set-Cookie" in answer.headers) == (500, False)

    asyncio.run(steps())
    assert "mounted in it; keep the outer one" in caplog.text


@pytest.mark.filterwarnings("ignore:It is recommended to use web")  # of aiohttp-session's own keys
@pytest.mark.parametrize("raised", [False, True])
def test_aiohttp_session_left_in_under_the_same_cookie_name_is_one_clear_error(
    raised: bool, caplog: pytest.LogCaptureFixture
) -> None:
    async def login(request: web.Request) -> web.Response:
        (await aiohttp_session.new_session(request))["AIOHTTP_SECURITY"] = "ada"
        if raised:
            raise web.HTTPFound("/")
        return web.Response()

    async def forget(request: web.Request) -> web.Response:
        await (await get_session(request)).adestroy()
        response = web.Response()
        response.del_cookie("sid")  # of an application that has always done so
        return response

    async def steps() -> None:
        app = web.Application()
        app.add_routes([web.get("/login", login), web.get("/write", write), web.get("/forget", forget)])
        setup(app, "memory://", SECRET, name="sid", cookie=CookieOptions(secure=False))
        aiohttp_session.setup(app, aiohttp_session.SimpleCookieStorage(cookie_name="sid"))
        async with TestClient(TestServer(app)) as client:
            answers = [await client.get(path) for path in ("/write", "/login", "/forget")]
            assert [answer.status for answer in answers] == [200, 500, 200]
            assert "Set-Cookie" not in answers[1].headers

    asyncio.run(steps())
    assert "other sessions set the same cookie 'sid'" in caplog.text


def test_a_redirect_is_an_answer_and_an_error_is_none(driver: CountingDriver) -> None:
    async def steps(client: TestClient[Any, Any]) -> None:
        await client.get("/redirect")
        assert await (await client.get("/read")).json() == "redirected"
        assert (await client.get("/fail")).status == 500
        assert await (await client.get("/read")).json() == "redirected"

    play(steps, driver)


@pytest.mark.parametrize("known", [True, False])
def test_a_change_in_a_stream_is_stored_if_the_client_has_the_id(driver: CountingDriver, known: bool) -> None:
    async def steps(client: TestClient[Any, Any]) -> None:
        if known:
            await client.get("/write")
        response = await client.get("/stream")
        if known:
            assert await response.read() == b"onetwo"
            assert await (await client.get("/read")).json() == "late"
        assert "Set-Cookie" not in response.headers

    play(steps, driver)


def test_a_websocket_changes_the_session(driver: CountingDriver) -> None:
    async def steps(client: TestClient[Any, Any]) -> None:
        await client.get("/write")
        async with client.ws_connect("/socket") as connection:
            await connection.send_str("from the socket")
            assert await connection.receive_str() == "ok"
        assert await (await client.get("/read")).json() == "from the socket"

    play(steps, driver)


@pytest.mark.parametrize("on_error", ["raise", "anonymous"])
def test_an_outage(on_error: Any) -> None:
    faulty = FaultyDriver(MemoryDriver())

    async def steps(client: TestClient[Any, Any]) -> None:
        await client.get("/write")
        take_down(faulty)
        assert (await client.get("/untouched")).status == 200
        answers = [await client.get("/read"), await client.get("/write?value=eve")]
        jar = client.session.cookie_jar
        kept = list(jar)
        jar.clear()
        answers.append(await client.get("/write?value=eve"))
        assert [r.status for r in answers] == ([503] * 3 if on_error == "raise" else [200] * 3)
        assert list(jar) == []
        faulty.heal()
        cookie = f"{kept[0].key}={kept[0].value}"
        assert await (await client.get("/read", headers={"Cookie": cookie})).json() == "ada"

    play(steps, faulty, on_error=on_error)


def test_a_missing_or_doubled_setup_says_what_to_do() -> None:
    async def steps() -> None:
        app = web.Application()
        app.router.add_get("/read", read)
        async with TestClient(TestServer(app)) as client:
            assert (await client.get("/read")).status == 500
        with pytest.raises(SessionError, match=r"setup\(app, store"):
            await get_session({})  # type: ignore[arg-type]
        setup(app2 := web.Application(), "memory://", SECRET)
        with pytest.raises(ConfigError, match="twice"):
            setup(app2, "memory://", SECRET)
        with pytest.raises(ConfigError, match="needs store"):
            setup(web.Application())

    asyncio.run(steps())


# --- failures ---


async def prepare_changed(request: web.Request) -> web.StreamResponse:
    (await get_session(request))["user"] = "streamed"
    response = web.StreamResponse()
    await response.prepare(request)
    await response.write(b"one")
    return response


async def forget(request: web.Request) -> None:
    (await get_session(request))["user"] = "eve"


async def swallow(request: web.Request) -> web.Response:
    try:
        await (await get_session(request)).asave()
    except Exception as error:
        raise RuntimeError("something else") from error
    return web.Response(text="ok")


async def sorry(request: web.Request) -> web.Response:
    (await get_session(request))["user"] = "eve"
    return web.Response(status=502)


async def sorry_raised(request: web.Request) -> web.Response:
    (await get_session(request))["user"] = "eve"
    raise web.HTTPBadGateway


async def clear(request: web.Request) -> web.Response:
    (await get_session(request)).clear()
    return web.Response(text="ok")


HANDLERS += (prepare_changed, forget, swallow, sorry, sorry_raised, clear)  # type: ignore[assignment]


async def get_twice(client: TestClient[Any, Any], path: str) -> list[tuple[int, str]]:
    """What comes over one connection that is kept open."""
    answers = []
    reader, writer = await asyncio.open_connection("127.0.0.1", client.port)
    for target in (path, "/untouched"):
        writer.write(f"GET {target} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
        head = (await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 2)).decode().lower()
        length = int(head.partition("content-length: ")[2].split("\r\n")[0])
        answers.append((int(head.split()[1]), (await reader.readexactly(length)).decode()))
    writer.close()
    return answers


@pytest.mark.parametrize("path", ["/redirect", "/prepare_changed", "/swallow", "/write"])
def test_in_an_outage_every_kind_of_answer_is_a_clean_503(path: str) -> None:
    faulty = FaultyDriver(MemoryDriver())

    async def steps(client: TestClient[Any, Any]) -> None:
        await client.get("/write")
        faulty.fail("set")
        faulty.fail("read")
        faulty.fail("renew")
        if path == "/swallow":
            response = await client.get(path)
            assert (response.status, await response.text()) == (503, STORE_DOWN)
        else:
            client.session.cookie_jar.clear()
            assert await get_twice(client, path) == [(503, STORE_DOWN), (200, "ok")]

    play(steps, faulty)


def test_a_handler_that_forgets_its_return_gets_aiohttps_own_message(
    driver: CountingDriver, caplog: pytest.LogCaptureFixture
) -> None:
    async def steps(client: TestClient[Any, Any]) -> None:
        await client.get("/write")
        response = await client.get("/forget")
        assert response.status == 500
        assert await (await client.get("/read")).json() == "ada"

    play(steps, driver)
    assert "Missing return statement" in caplog.text
    assert "has no attribute 'status'" not in caplog.text


@pytest.mark.parametrize("path", ["/sorry", "/sorry_raised"])
def test_an_answer_of_5xx_keeps_nothing(driver: CountingDriver, path: str) -> None:
    async def steps(client: TestClient[Any, Any]) -> None:
        await client.get("/write")
        assert (await client.get(path)).status == 502
        assert await (await client.get("/read")).json() == "ada"

    play(steps, driver)


def test_clear_is_a_logout(driver: CountingDriver) -> None:
    async def steps(client: TestClient[Any, Any]) -> None:
        await client.get("/write")
        assert "Max-Age=0" in (await client.get("/clear")).headers["Set-Cookie"]
        assert await (await client.get("/read")).json() is None

    play(steps, driver)
