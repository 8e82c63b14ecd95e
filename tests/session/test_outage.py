"""The store does not answer: no session is lost or overwritten, and who does not need it does not notice."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from session_kit import ConfigError, DriverUnavailable, SessionManager, UnstorageSessionStore
from session_kit.asgi import SessionMiddleware, use_session
from session_kit.drivers import Driver
from session_kit.drivers.memory import MemoryDriver
from session_kit.drivers.sqlite import SQLiteDriver
from session_kit.drivers.support.twins import Native
from session_kit.testing import FaultyDriver, Visitor
from tests.harness.bare_asgi import bare, call, cookie_of, put
from tests.harness.sessions import SECRET, PlainStore, SlowDriver, log_in, take_down


@pytest.fixture
def faulty(backend: Driver) -> FaultyDriver:
    return FaultyDriver(backend)


@pytest.fixture
def visit(
    faulty: FaultyDriver, make_manager: Callable[..., SessionManager], runner: asyncio.Runner | None
) -> Callable[[str], Visitor]:
    """Makes a visitor who has put `user` into a session, under a policy; then the store goes down."""

    def make(on_error: str) -> Visitor:
        store = UnstorageSessionStore(faulty, ttl=1000)
        visitor = log_in(Visitor(make_manager(store=store, on_error=on_error), runner))
        take_down(faulty)
        return visitor

    return make


def test_an_outage_is_raised_and_the_session_is_there_afterwards(
    visit: Callable[[str], Visitor], faulty: FaultyDriver, events: list[str]
) -> None:
    visitor = visit("raise")
    with pytest.raises(DriverUnavailable), visitor.request():
        raise AssertionError("the request must not begin")
    assert "store_error" in events
    faulty.heal()
    with visitor.request() as session:
        assert session["user"] == "ada"
        assert not session.unavailable


def test_an_anonymous_session_never_takes_the_place_of_the_real_one(
    visit: Callable[[str], Visitor], faulty: FaultyDriver, events: list[str]
) -> None:
    visitor = visit("anonymous")
    cookie = visitor.cookie
    with visitor.request() as session:
        assert session.unavailable
        assert dict(session) == {}
        session["user"] = "eve"
        faulty.heal()  # even though the store is back when the request ends
    assert visitor.headers == [("Vary", "Cookie")]
    assert visitor.cookie == cookie
    assert events[-1] == "store_error"
    with visitor.request() as session:
        assert dict(session) == {"user": "ada"}


def test_changes_that_cannot_be_saved_are_dropped_with_an_event(
    visit: Callable[[str], Visitor], faulty: FaultyDriver, events: list[str]
) -> None:
    visitor = visit("anonymous")
    faulty.heal()
    with visitor.request() as session:
        session["user"] = "eve"
        take_down(faulty)
    assert events[-1] == "store_error"
    faulty.heal()
    with visitor.request() as session:
        assert dict(session) == {"user": "ada"}


def test_a_new_visitor_gets_no_cookie_that_leads_nowhere(visit: Callable[[str], Visitor]) -> None:
    visitor = visit("anonymous")
    visitor.cookie = None
    with visitor.request() as session:
        session["user"] = "eve"
    assert visitor.headers == [("Vary", "Cookie")]


@pytest.mark.parametrize("method", ["save", "destroy", "reload"])
def test_what_is_asked_for_by_name_is_never_dropped_in_silence(visit: Callable[[str], Visitor], method: str) -> None:
    visitor = visit("anonymous")
    with visitor.request() as session:
        session["x"] = 1
        if method == "reload":  # an anonymous session again, which says so
            visitor.do(session, "reload")
            assert session.unavailable
        else:
            with pytest.raises(DriverUnavailable):
                visitor.do(session, method)


def test_a_fresh_start_that_cannot_be_made_is_no_silent_logout(visit: Callable[[str], Visitor]) -> None:
    visitor = visit("anonymous")
    with visitor.request() as session, pytest.raises(DriverUnavailable):
        session.clear()


def test_a_logout_works_as_soon_as_the_store_does(visit: Callable[[str], Visitor], faulty: FaultyDriver) -> None:
    visitor = visit("anonymous")
    cookie = visitor.cookie
    with visitor.request() as session:
        assert session.unavailable
        faulty.heal()
        visitor.do(session, "destroy")
    assert visitor.cookie is None
    with visitor.request(cookie) as session:
        assert session.is_new


@pytest.mark.parametrize("loaded", [True, False])
def test_a_logout_that_failed_can_be_tried_again_in_the_same_request(
    faulty: FaultyDriver, make_manager: Callable[..., SessionManager], runner: asyncio.Runner | None, loaded: bool
) -> None:
    visitor = log_in(Visitor(make_manager(store=UnstorageSessionStore(faulty, ttl=1000)), runner))
    cookie = visitor.cookie
    session = visitor.manager.open(cookie or "", asynchronous=runner is not None)
    if loaded:
        visitor.do(session, "load")
    faulty.fail("delete", times=1)
    with pytest.raises(DriverUnavailable):
        visitor.do(session, "destroy")
    visitor.do(session, "destroy")
    with visitor.request(cookie) as again:
        assert again.is_new


def test_reload_brings_the_session_back(visit: Callable[[str], Visitor], faulty: FaultyDriver) -> None:
    visitor = visit("anonymous")
    with visitor.request() as session:
        assert session.unavailable
        faulty.heal()
        visitor.do(session, "reload")
        assert session["user"] == "ada"
        session["page"] = 2
    with visitor.request() as session:
        assert dict(session) == {"user": "ada", "page": 2}


def test_a_wrong_policy_is_refused() -> None:
    with pytest.raises(ConfigError, match="on_error must be"):
        SessionManager("memory://", SECRET, on_error="ignore")  # type: ignore[arg-type]


# --- ASGI: the middleware answers ---


def down_app(handler: Callable[[Any], Any], *, catch: bool = False, **options: Any) -> tuple[Any, str]:
    """An application behind a store that waits, logged in and then cut off."""
    faulty = FaultyDriver(MemoryDriver())
    manager = SessionManager(UnstorageSessionStore(SlowDriver(faulty)), SECRET)
    login = SessionMiddleware(bare(put), manager=manager)
    cookie = cookie_of(asyncio.run(call(login)))
    take_down(faulty)
    app = bare(handler)

    async def with_error_page(scope: Any, receive: Any, send: Any) -> None:
        try:
            await app(scope, receive, send)
        except DriverUnavailable:
            await send({"type": "http.response.start", "status": 500, "headers": []})
            await send({"type": "http.response.body", "body": b"internal error"})

    return SessionMiddleware(with_error_page if catch else app, manager=manager, **options), cookie


@pytest.mark.parametrize("catch", [False, True], ids=["error passes", "framework makes it a 500"])
@pytest.mark.parametrize("load", ["auto", "explicit"])
@pytest.mark.parametrize("write", [False, True])
def test_the_middleware_answers_503(catch: bool, load: str, write: bool) -> None:
    async def handler(session: Any) -> None:
        loaded = await use_session({"session": session})
        loaded.get("user")
        if write:
            loaded["user"] = "eve"

    app, cookie = down_app(handler, catch=catch, load=load)
    sent = asyncio.run(call(app, cookie))
    assert [message["type"] for message in sent] == ["http.response.start", "http.response.body"]
    assert sent[0]["status"] == 503
    if write:  # a first visit reads nothing, and fails at the end
        assert asyncio.run(call(app))[0]["status"] == 503


def test_a_websocket_is_refused() -> None:
    async def handler(session: Any) -> None:
        await session.aload()

    app, cookie = down_app(handler)
    sent = asyncio.run(call(app, cookie, kind="websocket"))
    assert [(message["type"], message["code"]) for message in sent] == [("websocket.close", 1013)]


@pytest.mark.parametrize("load", ["auto", "explicit"])
def test_a_handler_that_does_not_touch_the_session_does_not_notice(load: str) -> None:
    app, cookie = down_app(lambda session: None, load=load)
    assert asyncio.run(call(app, cookie))[0]["status"] == 200


@pytest.mark.parametrize("kind", ["sqlite", "plain"])
def test_a_write_for_which_no_thread_can_be_started_is_an_outage_and_is_not_done_later(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Python's pools keep it, for the next thread that they start."""

    def refuse(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    target: Any = SQLiteDriver(tmp_path / "store.db") if kind == "sqlite" else PlainStore()
    value: Any
    new: Any
    value, new = (b"old", b"new") if kind == "sqlite" else ({"n": "old"}, {"n": "new"})
    io = Native(target)

    async def main() -> None:
        with monkeypatch.context() as patch:
            patch.setattr(threading.Thread, "start", refuse)
            with pytest.raises(DriverUnavailable, match="thread"):
                await io.set("key", new)
        await io.set("other", new)
        assert await io.get("other") == new
        assert await io.get("key") == value

    target.set("key", value)
    asyncio.run(main())
    if isinstance(target, SQLiteDriver):
        target.close()
