"""How long one session lives: `remember`, requests that do not count as use, and its age."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route
from starlette.testclient import TestClient

from session_kit import ConfigError, CookieOptions, SessionError, SessionManager, UnstorageSessionStore
from session_kit.asgi import SessionMiddleware, use_session
from session_kit.drivers import Entry, open_driver
from session_kit.testing import CountingDriver, ManualClock, Visitor, WrappedDriver
from tests.harness.sessions import SECRET, PlainStore, log_in

DAY = 86400
Make = Callable[..., SessionManager]


class Blind(WrappedDriver):
    """Cannot tell when an entry expires."""

    def call(self, name: str, *args: Any, **kwargs: Any) -> Any:
        result = super().call(name, *args, **kwargs)
        return result._replace(expires_at=None) if isinstance(result, Entry) else result


def see(visitor: Visitor, **load: bool) -> dict[str, object]:
    """What a request sees; with `touch=False` one that does not count as use."""
    session = visitor.manager.open(visitor.cookie or "", asynchronous=visitor.runner is not None)
    visitor.do(session, "load", **load)
    visitor.headers = visitor.manager.commit(session)
    return dict(session)


def set_cookie(visitor: Visitor) -> str:
    return dict(visitor.headers).get("Set-Cookie", "")


@pytest.fixture
def visitor(make_manager: Make, runner: asyncio.Runner | None) -> Visitor:
    """On a store whose sessions live for 1000 seconds."""
    return Visitor(make_manager(remember="30d"), runner)


# --- remember ---


def test_a_session_that_is_remembered_outlives_the_others(ada: Visitor, clock: ManualClock) -> None:
    with ada.request() as session:
        ada.do(session, "remember")
    assert f"Max-Age={30 * DAY + 300}" in set_cookie(ada)
    for _ in range(3):
        clock.advance(20 * DAY)
        with ada.request() as session:
            assert session["user"] == "ada"
            assert session.expires_in is not None
            assert session.expires_in > 9 * DAY


def test_reading_it_does_not_cut_its_life_short(ada: Visitor, clock: ManualClock) -> None:
    with ada.request() as session:
        ada.do(session, "remember", days=10)
    clock.advance(10)
    with ada.request() as session:
        assert session["user"] == "ada"
    clock.advance(9 * DAY)
    with ada.request() as session:
        assert session["user"] == "ada"


def test_it_stays_remembered_through_a_login_and_ends_with_a_fresh_start(ada: Visitor, clock: ManualClock) -> None:
    with ada.request() as session:
        ada.do(session, "remember")
        session["user"] = "eve"
    clock.advance(2 * DAY)
    with ada.request() as session:
        assert session["user"] == "eve"
        session.clear()
        session["theme"] = "dark"
    assert "Max-Age=1100" in set_cookie(ada)
    clock.advance(2 * DAY)
    with ada.request() as session:
        assert dict(session) == {}


def test_on_a_shared_computer_the_cookie_ends_with_the_browser(ada: Visitor, clock: ManualClock) -> None:
    with ada.request() as session:
        ada.do(session, "remember", days=0)
    assert set_cookie(ada)
    assert "Max-Age" not in set_cookie(ada)
    clock.advance(400)
    with ada.request() as session:
        assert session["user"] == "ada"
    assert set_cookie(ada)  # it is renewed
    assert "Max-Age" not in set_cookie(ada)


def test_a_cookie_that_ends_with_the_browser_by_default_can_be_kept(clock: ManualClock) -> None:
    ada = Visitor(
        SessionManager("memory://", SECRET, cookie=CookieOptions(persistent=False), remember="7d", clock=clock)
    )
    with ada.request() as session:
        session["user"] = "ada"
    assert "Max-Age" not in set_cookie(ada)
    with ada.request() as session:
        session.remember()
    assert "Max-Age=" in set_cookie(ada)


def test_what_it_takes_is_said() -> None:
    session = SessionManager("memory://", SECRET).open()
    with pytest.raises(SessionError, match='remember="30d"'):
        session.remember(days=30)
    session.remember(days=0)  # that it can do
    session = SessionManager("memory://", SECRET, remember="30d").open()
    for bad in (-1, float("nan"), float("inf"), 1e305, 10**400, 36_501, True, "30"):
        with pytest.raises(SessionError, match="days must be"):
            session.remember(days=bad)  # type: ignore[arg-type]


def test_an_empty_session_is_not_stored_to_be_remembered(clock: ManualClock) -> None:
    driver = CountingDriver(open_driver("memory://", clock=clock))
    ada = Visitor(SessionManager(UnstorageSessionStore(driver), SECRET, remember="30d", clock=clock))
    with ada.request() as session:
        session.remember()
        session.save()
        assert (driver.calls, ada.cookie) == ([], None)
        session["user"] = "ada"
    assert f"Max-Age={30 * DAY + 300}" in set_cookie(ada)


def test_a_limit_of_all_sessions_limits_it_too(clock: ManualClock) -> None:
    ada = Visitor(SessionManager("memory://", SECRET, remember="30d", max_lifetime="2d", clock=clock))
    with ada.request() as session:
        session["user"] = "ada"
        session.remember()
    assert f"Max-Age={2 * DAY}" in set_cookie(ada)


@pytest.mark.parametrize("writes", [False, True])
def test_an_application_that_remembers_none_does_not_cut_its_life_short(
    ada: Visitor, make_manager: Make, clock: ManualClock, writes: bool
) -> None:
    with ada.request() as session:
        ada.do(session, "remember")
    ada.manager = make_manager()
    for _ in range(2):
        clock.advance(9 * DAY)
        with ada.request() as session:
            assert session["user"] == "ada"
            if writes:
                session.update(lambda data: {"n": data.get("n", 0) + 1})
    assert f"Max-Age={30 * DAY + 300}" in set_cookie(ada)
    clock.advance(29 * DAY)
    with ada.request() as session:
        assert session["user"] == "ada"


def test_a_function_of_the_data_can_still_end_it(clock: ManualClock) -> None:
    driver = open_driver("memory://", clock=clock)
    store = UnstorageSessionStore(driver, ttl=lambda data: 0 if data.get("banned") else 1000)
    ada = Visitor(SessionManager(store, SECRET, remember="30d", clock=clock))
    with ada.request() as session:
        session["user"] = "ada"
        session.remember()
    clock.advance(10 * DAY)
    with ada.request() as session:
        assert session["user"] == "ada"
        session["banned"] = True
    assert ada.cookie is None
    assert list(driver.keys()) == []


def test_a_store_that_decides_alone_how_long_sessions_live_is_refused() -> None:
    with pytest.raises(ConfigError, match="remember needs a store that knows how long a session lives, which <Plain"):
        SessionManager(PlainStore(), SECRET, remember="30d")


# --- requests that do not count as use ---


def test_polling_keeps_no_session_alive(ada: Visitor, make_manager: Make, clock: ManualClock) -> None:
    ada.manager = make_manager()
    for _ in range(12):
        clock.advance(100)
        see(ada, touch=False)
        assert not set_cookie(ada)
    assert see(ada) == {}


def test_what_polling_writes_ends_when_the_session_would_have(
    ada: Visitor, make_manager: Make, clock: ManualClock
) -> None:
    ada.manager = make_manager()
    for _ in range(12):
        clock.advance(100)
        session = ada.manager.open(ada.cookie or "", asynchronous=ada.runner is not None)
        ada.do(session, "load", touch=False)
        session.update(lambda data: {"polls": data.get("polls", 0) + 1})
        ada.manager.commit(session)
    clock.advance(100)
    assert "user" not in see(ada)


@pytest.mark.parametrize("change", [{"user": "eve"}, {}], ids=["login", "remember"])
def test_a_login_is_a_use_whatever_was_said_before(ada: Visitor, clock: ManualClock, change: dict[str, str]) -> None:
    clock.advance(990)
    session = ada.manager.open(ada.cookie or "", asynchronous=ada.runner is not None)
    ada.do(session, "load", touch=False)
    session.update(change)
    if not change:
        ada.do(session, "remember")
    [ada.cookie] = [value.partition(";")[0] for name, value in ada.manager.commit(session) if name == "Set-Cookie"]
    clock.advance(900)
    assert "user" in see(ada)


@pytest.mark.needs("swap")
def test_a_renewal_is_not_left_to_polling(ada: Visitor, clock: ManualClock) -> None:
    clock.advance(990)
    with ada.request():
        session = ada.manager.open(ada.cookie or "", asynchronous=ada.runner is not None)
        ada.do(session, "load", touch=False)
        session["polls"] = 1
        ada.manager.commit(session)
    clock.advance(900)
    assert see(ada) == {"user": "ada", "polls": 1}


def test_too_late_is_said(clock: ManualClock) -> None:
    ada = log_in(Visitor(SessionManager("memory://", SECRET, clock=clock)))
    with ada.request() as session, pytest.raises(SessionError, match="touch=False comes too late"):
        session.load(touch=False)


def test_polling_over_asgi_needs_that_nothing_is_loaded_before() -> None:
    """On every store: what works in memory must not fail on Redis."""

    async def poll(request: Request) -> JSONResponse:
        return JSONResponse(dict(await use_session(request, touch=False)))

    async def login(request: Request) -> JSONResponse:
        (await use_session(request))["user"] = "ada"
        return JSONResponse({})

    def client(**options: Any) -> TestClient:
        app = Starlette(routes=[Route("/poll", poll), Route("/login", login)])
        return TestClient(SessionMiddleware(app, "memory://", SECRET, **options), "https://testserver")

    with client(load="explicit") as browser:
        browser.get("/login")
        assert browser.get("/poll").json() == {"user": "ada"}
    with client() as browser, pytest.raises(SessionError, match=r'touch=False needs .*load="explicit"'):
        browser.get("/poll")


def test_polling_costs_a_read(clock: ManualClock) -> None:
    driver = CountingDriver(open_driver("memory://", clock=clock))
    ada = log_in(Visitor(SessionManager(UnstorageSessionStore(driver, ttl=5000), SECRET, clock=clock)))
    clock.advance(1000)
    driver.reset()
    see(ada, touch=False)
    assert len(driver.calls) == 1


def test_what_polling_writes_ends_also_if_the_driver_cannot_tell_when(clock: ManualClock) -> None:
    memory = open_driver("memory://", clock=clock)
    ada = log_in(Visitor(SessionManager(UnstorageSessionStore(Blind(memory), ttl=1000), SECRET, clock=clock)))
    session = ada.manager.open(ada.cookie or "").load(touch=False)
    session["polls"] = 1
    ada.manager.commit(session)
    clock.advance(1101)
    assert list(memory.keys()) == []


# --- age ---


@pytest.mark.needs("swap")
def test_the_age_survives_a_login_and_the_age_of_the_login_does_not(make_manager: Make, clock: ManualClock) -> None:
    ada = Visitor(make_manager(rotate_every=600, max_lifetime="1d"))
    with ada.request() as session:
        assert (session.age, session.auth_age) == (0, 0)
        session["theme"] = "dark"
    clock.advance(100)
    with ada.request() as session:
        assert (session.age, session.auth_age) == (100, 100)
        session["user"] = "ada"
    for _ in range(2):
        clock.advance(700)  # time rotates the id, which is no login
        with ada.request():
            pass
    with ada.request() as session:
        assert (session.age, session.auth_age) == (1500, 1400)


def test_what_was_not_asked_for_takes_no_room_in_a_record(clock: ManualClock) -> None:
    driver = open_driver("memory://", clock=clock)
    ada = Visitor(SessionManager(UnstorageSessionStore(driver), SECRET, remember="30d", rotate_every=600, clock=clock))

    def notes() -> set[str]:
        value = driver.get(next(iter(driver.keys())))
        assert value is not None
        return set(msgspec.json.decode(value)["$"])

    with ada.request() as session:
        session["theme"] = "dark"
    assert notes() == {"created", "token"}
    with ada.request() as session:
        session.remember()
    assert notes() == {"created", "renewed", "token", "remember"}
    with ada.request() as session:
        session.clear()
        session["theme"] = "light"
    assert notes() == {"created", "renewed", "token", "rotated"}
