"""Quart: its own habits on a server-side session."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
import quart
from markupsafe import Markup
from quart import (
    Quart,
    Response,
    copy_current_request_context,
    copy_current_websocket_context,
    flash,
    get_flashed_messages,
    redirect,
    render_template_string,
    stream_with_context,
    websocket,
)
from quart.testing import connections

from session_kit import ConfigError, CookieOptions, SessionError, UnstorageSessionStore
from session_kit.drivers import registry
from session_kit.drivers.memory import MemoryDriver
from session_kit.integrations.quart import SessionKit, session
from session_kit.testing import CountingDriver, FaultyDriver
from tests.harness.sessions import SECRET, SlowDriver, take_down

# The test client of Quart 0.23 says nothing when the socket is closed.
Disconnected = getattr(connections, "WebsocketDisconnectError", TimeoutError)


def make_app(driver: Any, **options: Any) -> Quart:
    app = Quart("test")
    app.secret_key = SECRET
    SessionKit(app, UnstorageSessionStore(driver), cookie=CookieOptions(secure=False), **options)

    @app.get("/untouched")
    async def untouched() -> str:
        return "ok"

    @app.get("/read")
    async def read() -> dict[str, Any]:
        return {"value": session.get("user")}

    @app.get("/write/<value>")
    async def write(value: str) -> str:
        session["user"] = value
        return "ok"

    @app.get("/fail")
    async def fail() -> str:
        session["user"] = "eve"
        raise RuntimeError("broken")

    @app.get("/logout")
    async def logout() -> str:
        await session.adestroy()
        return "ok"

    @app.get("/flash")
    async def flash_one() -> str:
        await flash("careful", "warning")
        return "ok"

    @app.get("/flashed")
    async def flashed() -> list[Any]:
        return [list(message) for message in get_flashed_messages(with_categories=True)]

    @app.get("/stream")
    async def stream() -> Response:
        session.get("user")

        @stream_with_context
        async def body() -> AsyncIterator[bytes]:
            yield b"one"
            session["user"] = "late"
            yield b"two"

        return Response(body())

    @app.get("/clear")
    async def clear() -> str:
        session.clear()
        return "ok"

    @app.get("/events")
    async def events() -> Response:
        session.get("user")

        @stream_with_context
        async def body() -> AsyncIterator[bytes]:
            session["user"] = "seen"
            yield b"event"
            await asyncio.Event().wait()

        return Response(body())

    @app.get("/broken-stream")
    async def broken_stream() -> Response:
        session.get("user")

        @stream_with_context
        async def body() -> AsyncIterator[bytes]:
            session["user"] = "eve"
            yield b"one"
            raise RuntimeError("broken")

        return Response(body())

    @app.websocket("/chat")
    async def chat() -> None:
        while True:
            word = await websocket.receive()
            if word == "fail":
                raise RuntimeError("broken")
            session["user"] = word
            await websocket.send("ok")

    @app.websocket("/ws")
    async def ws() -> None:
        await websocket.send(str(session.get("user")))
        session["user"] = await websocket.receive()

    return app


@pytest.fixture(params=["on the loop", "waits"])
def driver(request: pytest.FixtureRequest) -> CountingDriver:
    return CountingDriver(SlowDriver(MemoryDriver()) if request.param == "waits" else MemoryDriver())


def fails(kind: type[Exception], match: str) -> Any:
    """What a stream, a socket or the opening of a session raises; Quart 0.23 puts it into a group."""
    expected = pytest.RaisesExc(kind, match=match)
    return pytest.RaisesGroup(expected, allow_unwrapped=True, flatten_subgroups=True)


def play(steps: Callable[[], Coroutine[Any, Any, None]]) -> None:
    asyncio.run(steps())


@pytest.mark.parametrize("debug", [False, True])
def test_a_forgotten_session_kit_raises_and_nothing_goes_into_a_cookie_that_can_be_read(
    debug: bool, caplog: pytest.LogCaptureFixture
) -> None:
    app = Quart("forgetful")
    app.secret_key = SECRET
    app.debug = debug
    app.config["PROPAGATE_EXCEPTIONS"] = False

    @app.get("/")
    async def put() -> str:
        return str(session.update(user="ada"))

    answer = asyncio.run(app.test_client().get("/"))
    assert (answer.status_code, "Set-Cookie" in answer.headers) == (500, False)
    assert "SessionKit(app, ...) is missing" in caplog.text


def test_each_kind_of_request_costs_what_the_budget_says(driver: CountingDriver) -> None:
    async def steps() -> None:
        client = make_app(driver).test_client()
        untouched = 0 if driver.capabilities.never_blocks else 1
        for path, calls in (
            ("/read", 0),
            ("/write/ada", 1),
            ("/untouched", untouched),
            ("/read", 1),
            ("/write/eve", 2),
            ("/logout", 2),
        ):
            driver.reset()
            response = await client.get(path)
            assert response.status_code == 200
            assert len(driver.calls) == calls, path
            assert ("Vary" in response.headers) == (path != "/untouched")

    play(steps)


def test_flashed_messages_are_shown_once(driver: CountingDriver) -> None:
    async def steps() -> None:
        client = make_app(driver).test_client()
        await client.get("/flash")
        assert await (await client.get("/flashed")).json == [["warning", "careful"]]
        assert await (await client.get("/flashed")).json == []

    play(steps)


def test_a_view_that_raises_has_changed_nothing(driver: CountingDriver) -> None:
    async def steps() -> None:
        client = make_app(driver).test_client()
        await client.get("/write/ada")
        assert (await client.get("/fail")).status_code == 500
        assert await (await client.get("/read")).json == {"value": "ada"}

    play(steps)


def test_a_change_in_a_stream_is_stored(driver: CountingDriver) -> None:
    async def steps() -> None:
        app = make_app(driver)
        client = app.test_client()
        await client.get("/write/ada")
        assert await (await client.get("/stream")).get_data() == b"onetwo"
        assert await (await client.get("/read")).json == {"value": "late"}
        with fails(SessionError, "response has begun"):
            await app.test_client().get("/stream")

    play(steps)


def test_a_websocket_reads_and_changes_the_session(driver: CountingDriver) -> None:
    async def steps() -> None:
        app = make_app(driver)
        client = app.test_client()
        await client.get("/write/ada")
        async with client.websocket("/ws") as socket:
            assert await socket.receive() == "ada"
            await socket.send("from the socket")
            with pytest.raises(Disconnected):
                await asyncio.wait_for(socket.receive(), 0.2)
        assert await (await client.get("/read")).json == {"value": "from the socket"}

    play(steps)


@pytest.mark.parametrize("on_error", ["raise", "anonymous"])
@pytest.mark.parametrize("waits", [False, True])
def test_an_outage(on_error: Any, waits: bool) -> None:
    async def steps() -> None:
        faulty = FaultyDriver(MemoryDriver())
        app = make_app(SlowDriver(faulty) if waits else faulty, on_error=on_error)
        client = app.test_client()
        await client.get("/write/ada")
        take_down(faulty)
        assert (await client.get("/untouched")).status_code == 200
        first = await app.test_client().get("/write/eve")
        answers = [await client.get("/read"), await client.get("/write/eve"), first]
        assert [r.status_code for r in answers] == ([503] * 3 if on_error == "raise" else [200] * 3)
        assert "Set-Cookie" not in first.headers
        faulty.heal()
        assert await (await client.get("/read")).json == {"value": "ada"}

    play(steps)


def test_impossible_settings_are_refused_at_start() -> None:
    app = Quart("test")
    with pytest.raises(ConfigError, match="no secret given"):
        SessionKit(app, "memory://")
    SessionKit(app, "memory://", SECRET)
    with pytest.raises(ConfigError, match="installed twice"):
        SessionKit(app, "memory://", SECRET)


# --- Quart's habits ---


def test_a_websocket_that_its_client_leaves_has_its_changes_saved(driver: CountingDriver) -> None:
    async def steps() -> None:
        app = make_app(driver)
        client = app.test_client()
        await client.get("/write/ada")
        async with client.websocket("/chat") as socket:
            await socket.send("from the socket")
            assert await socket.receive() == "ok"
        assert await (await client.get("/read")).json == {"value": "from the socket"}

    play(steps)


def test_a_websocket_that_fails_has_changed_nothing(driver: CountingDriver) -> None:
    async def steps() -> None:
        app = make_app(driver)
        client = app.test_client()
        await client.get("/write/ada")
        with pytest.raises(Disconnected):
            async with client.websocket("/chat") as socket:
                await socket.send("eve")
                assert await socket.receive() == "ok"
                await socket.send("fail")
                await asyncio.wait_for(socket.receive(), 0.2)
        assert await (await client.get("/read")).json == {"value": "ada"}

    play(steps)


def test_a_task_with_a_copy_of_the_context_does_not_end_the_request(driver: CountingDriver) -> None:
    async def steps() -> None:
        app = make_app(driver)

        @app.get("/tasks")
        async def tasks() -> str:
            @copy_current_request_context
            async def task(fails: bool) -> None:
                session["task"] = True
                if fails:
                    raise RuntimeError("broken")

            session["user"] = "early"
            await asyncio.gather(task(False), task(True), return_exceptions=True)
            session["late"] = True
            return "ok"

        @app.websocket("/tasks-of-a-socket")
        async def tasks_of_a_socket() -> None:
            @copy_current_websocket_context
            async def task() -> None:
                session["user"] = await websocket.receive()

            await asyncio.create_task(task())
            session["late"] = "socket"
            await websocket.send("ok")

        @app.get("/all")
        async def everything() -> dict[str, Any]:
            return dict(session)

        client = app.test_client()
        await client.get("/tasks")
        assert await (await client.get("/all")).json == {"user": "early", "task": True, "late": True}
        async with client.websocket("/tasks-of-a-socket") as socket:
            await socket.send("ada")
            assert await socket.receive() == "ok"
        assert await (await client.get("/all")).json == {"user": "ada", "task": True, "late": "socket"}

    play(steps)


def test_a_websocket_cannot_begin_a_session_and_says_so(driver: CountingDriver) -> None:
    async def steps() -> None:
        with fails(SessionError, "the response has begun"):
            async with make_app(driver).test_client().websocket("/chat") as socket:
                await socket.send("nobody")
                assert await socket.receive() == "ok"

    play(steps)


def test_session_transaction_prepares_and_looks_at_a_session(driver: CountingDriver) -> None:
    async def steps() -> None:
        client = make_app(driver).test_client()
        async with client.session_transaction() as prepared:
            prepared["user"] = "ada"
        assert await (await client.get("/read")).json == {"value": "ada"}
        async with client.session_transaction() as found:
            assert found["user"] == "ada"

    play(steps)


def test_clear_logs_out_as_it_does_with_quarts_own_cookie(driver: CountingDriver) -> None:
    async def steps() -> None:
        app = make_app(driver)
        client = app.test_client()
        cookie = (await client.get("/write/ada")).headers["Set-Cookie"].split(";")[0]
        assert "Max-Age=0" in (await client.get("/clear")).headers["Set-Cookie"]
        again = await app.test_client(use_cookies=False).get("/read", headers={"Cookie": cookie})
        assert await again.json == {"value": None}

    play(steps)


def test_a_flashed_piece_of_html_stays_one(driver: CountingDriver) -> None:
    async def steps() -> None:
        app = make_app(driver)

        @app.get("/safe")
        async def safe() -> str:
            await flash(Markup("<b>bold</b>"))
            return "ok"

        @app.get("/page")
        async def page() -> str:
            return await render_template_string("{{ get_flashed_messages()[0] }}")

        client = app.test_client()
        await client.get("/safe")
        assert await (await client.get("/page")).get_data(as_text=True) == "<b>bold</b>"

    play(steps)


def test_a_stream_that_its_client_leaves_has_its_changes_saved(driver: CountingDriver) -> None:
    async def steps() -> None:
        app = make_app(driver)
        client = app.test_client()
        await client.get("/write/ada")
        async with client.request("/events") as connection:
            await connection.send_complete()
            assert await connection.receive() == b"event"
            await connection.disconnect()
        assert await (await client.get("/read")).json == {"value": "seen"}

    play(steps)


def test_a_stream_that_fails_has_changed_nothing(driver: CountingDriver) -> None:
    async def steps() -> None:
        client = make_app(driver).test_client()
        await client.get("/write/ada")
        with fails(RuntimeError, "broken"):
            await client.get("/broken-stream")
        assert await (await client.get("/read")).json == {"value": "ada"}

    play(steps)


@pytest.mark.parametrize("waits", [False, True])
@pytest.mark.parametrize("testing", [False, True])
def test_in_an_outage_the_applications_own_page_is_shown(waits: bool, testing: bool) -> None:
    async def steps() -> None:
        faulty = FaultyDriver(MemoryDriver())
        app = make_app(SlowDriver(faulty) if waits else faulty)
        app.testing = testing

        @app.errorhandler(503)
        async def down(error: Exception) -> tuple[str, int, dict[str, str]]:
            shown = await render_template_string("back soon{{ session.user }}")  # as a page's layout would
            return shown, 503, {"Retry-After": "5"}

        @app.after_request
        async def allow(response: Response) -> Response:
            session.get("user")
            response.headers["Access-Control-Allow-Origin"] = "*"
            return response

        client = app.test_client()
        await client.get("/write/ada")
        for method in ("read", "renew", "set"):
            faulty.fail(method)
        first = app.test_client()
        for response in (await client.get("/read"), await client.get("/write/eve"), await first.get("/write/eve")):
            assert (response.status_code, await response.get_data(as_text=True)) == (503, "back soon")
            assert response.headers.getlist("Access-Control-Allow-Origin") == ["*"]
            assert response.headers["Retry-After"] == "5"
            assert "Set-Cookie" not in response.headers

    play(steps)


def test_the_store_is_closed_with_the_application(monkeypatch: pytest.MonkeyPatch) -> None:
    closed = []

    class ClosingDriver(MemoryDriver):
        async def aclose(self) -> None:
            closed.append(self)

    monkeypatch.setitem(registry._registered, "closing", ClosingDriver)

    async def steps() -> None:
        app = Quart("test")
        SessionKit(app, "closing://", SECRET)
        async with app.test_app():
            assert closed == []
        assert closed == [app.extensions["session_kit"].store.driver]

    play(steps)


# --- Flask's habits, which are Quart's ---


def test_a_login_ends_with_the_browser_unless_it_is_permanent(driver: CountingDriver) -> None:
    async def steps() -> None:
        app = make_app(driver)

        @app.get("/permanent")
        async def permanent() -> str:
            session.permanent = True
            return "ok"

        client = app.test_client()
        assert "Max-Age" not in (await client.get("/write/ada")).headers["Set-Cookie"]
        assert "Max-Age" in (await client.get("/permanent")).headers["Set-Cookie"]

    play(steps)


def test_modified_false_saves_nothing_of_what_came_before(driver: CountingDriver) -> None:
    async def steps() -> None:
        app = make_app(driver)

        @app.get("/unsaved")
        async def unsaved() -> str:
            session["user"] = "eve"
            session.modified = False
            return str(session["user"])

        client = app.test_client()
        await client.get("/write/ada")
        assert await (await client.get("/unsaved")).get_data(as_text=True) == "eve"
        assert await (await client.get("/read")).json == {"value": "ada"}

    play(steps)


def test_an_error_handler_may_flash_and_what_the_failed_view_changed_is_dropped(driver: CountingDriver) -> None:
    async def steps() -> None:
        app = make_app(driver)

        @app.errorhandler(RuntimeError)
        async def explain(error: Exception) -> Any:
            await flash("that did not work")
            return redirect("/read")

        client = app.test_client()
        await client.get("/write/ada")
        assert (await client.get("/fail")).status_code == 302
        assert await (await client.get("/read")).json == {"value": "ada"}
        assert await (await client.get("/flashed")).json == [["message", "that did not work"]]

    play(steps)


@pytest.mark.parametrize("status", [200, 500])
def test_what_the_page_of_a_500_changes_counts_by_its_status(driver: CountingDriver, status: int) -> None:
    async def steps() -> None:
        app = make_app(driver)

        @app.errorhandler(500)
        async def explain(error: Exception) -> Any:
            await flash("that did not work")
            return "sorry", status

        client = app.test_client()
        await client.get("/write/ada")
        assert (await client.get("/fail")).status_code == status
        assert await (await client.get("/read")).json == {"value": "ada"}
        assert len(await (await client.get("/flashed")).json) == (1 if status == 200 else 0)

    play(steps)


def test_a_template_never_shows_the_secret_id(driver: CountingDriver) -> None:
    async def steps() -> None:
        app = make_app(driver)

        @app.get("/page")
        async def page() -> str:
            return await render_template_string(
                "{{ session.id }}{{ session.data }}{{ session.created }}{{ session.user }}"
            )

        client = app.test_client()
        await client.get("/write/ada")
        assert await (await client.get("/page")).get_data(as_text=True) == "ada"

    play(steps)


def test_the_first_test_with_a_test_client_keeps_its_session(driver: CountingDriver) -> None:
    async def steps() -> None:
        app = Quart("test")
        app.secret_key, app.testing = SECRET, True
        SessionKit(app, UnstorageSessionStore(driver))

        @app.get("/")
        async def visits() -> str:
            session.update(lambda data: {"visits": data.get("visits", 0) + 1})
            return str(session["visits"])

        client = app.test_client()
        assert [await (await client.get("/")).get_data(as_text=True) for _ in range(2)] == ["1", "2"]
        app.testing = False
        assert "Secure" in (await app.test_client().get("/")).headers["Set-Cookie"]

    play(steps)


@pytest.mark.parametrize(
    "value", [(1, (2, "x")), b"\x00\xff", UUID(int=5), datetime(2026, 1, 31, 12, 30, tzinfo=UTC), Markup("<b>")]
)
def test_a_value_comes_back_as_it_does_from_quarts_own_sessions(driver: CountingDriver, value: Any) -> None:
    own = Quart("own")
    own.secret_key = SECRET

    async def keep(app: Quart) -> Any:
        found = []

        @app.get("/put")
        async def put() -> str:
            quart.session["kept"] = {"deep": [value]}
            return "ok"

        @app.get("/find")
        async def find() -> str:
            found.append(quart.session["kept"]["deep"][0])
            return "ok"

        client = app.test_client()
        for path in ("/put", "/find"):
            assert (await client.get(path)).status_code == 200
        return found[0]

    found = asyncio.run(keep(make_app(driver)))
    assert found == value == asyncio.run(keep(own))
    assert type(found) is type(value)


def test_a_short_lifetime_that_is_set_late_is_not_a_month() -> None:
    async def visit() -> Any:
        app = Quart("test")
        app.secret_key = SECRET
        SessionKit(app, "memory://")

        @app.before_request
        async def limit() -> None:
            session.permanent = True
            app.permanent_session_lifetime = timedelta(minutes=5)

        @app.get("/login")
        async def login() -> str:
            session["user"] = "ada"
            return "ok"

        return (await app.test_client().get("/login")).headers["Set-Cookie"]

    assert "Max-Age=330;" in asyncio.run(visit())


def test_a_setting_that_comes_too_late_is_not_ignored_in_silence() -> None:
    async def visit() -> None:
        app = Quart("test")
        app.secret_key = SECRET
        SessionKit(app, "memory://")
        app.config["SESSION_COOKIE_SAMESITE"] = "Strict"
        app.add_url_rule("/", "home", lambda: "ok")
        await app.test_client().get("/")

    with fails(ConfigError, "before SessionKit is installed"):
        asyncio.run(visit())
