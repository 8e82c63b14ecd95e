"""`rotate_every`: an id that was in use for long is replaced, nobody is logged out by that, and a stolen one shows."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from session_kit import ConfigError, SessionManager, UnstorageSessionStore
from session_kit.drivers import Driver, DriverUnavailable, open_driver
from session_kit.testing import CountingDriver, FaultyDriver, ManualClock, Visitor
from tests.harness.sessions import SECRET, log_in, read

EVERY = 900.0
Make = Callable[..., SessionManager]


@pytest.fixture
def visitor(make_manager: Make, runner: asyncio.Runner | None) -> Visitor:
    return Visitor(make_manager(rotate_every="15m"), runner)


def ada_on(driver: Driver, clock: ManualClock) -> Visitor:
    """Ada, on a driver that counts or fails."""
    store = UnstorageSessionStore(driver, ttl=5000)
    return log_in(Visitor(SessionManager(store, SECRET, rotate_every=EVERY, clock=clock)))


def turn(visitor: Visitor, clock: ManualClock) -> str:
    """Let time rotate the id, and return the cookie from before."""
    old = visitor.cookie
    assert old is not None
    clock.advance(EVERY)
    read(visitor)
    assert visitor.cookie != old
    return old


pytestmark = pytest.mark.needs("swap")


def test_the_id_of_a_session_in_use_changes_and_its_name_stays(
    ada: Visitor, clock: ManualClock, events: list[str]
) -> None:
    clock.advance(EVERY - 1)
    before = ada.cookie
    read(ada)
    assert ada.cookie is not None
    assert ada.cookie == before
    old = turn(ada, clock)
    assert ada.cookie.partition("~")[0] == old.partition("~")[0]
    assert read(ada) == {"user": "ada"}
    assert "rotated" in events


def test_a_response_that_was_lost_logs_nobody_out_however_often(ada: Visitor, clock: ManualClock) -> None:
    old = ada.cookie
    for _ in range(5):
        clock.advance(EVERY)
        assert read(ada, old) == {"user": "ada"}
    assert ada.cookie != old  # each time it was sent the one that counts
    assert read(ada) == {"user": "ada"}


def test_a_late_request_with_the_id_before_is_not_displaced(
    ada: Visitor, clock: ManualClock, events: list[str]
) -> None:
    old = turn(ada, clock)
    read(ada)  # the new one was seen
    clock.advance(9)
    with ada.request(old) as session:
        session["late"] = True
    assert "displaced" not in events
    assert read(ada) == {"user": "ada", "late": True}


@pytest.mark.parametrize("status", [200, 500])
def test_a_late_answer_to_the_id_before_takes_no_login_away(ada: Visitor, clock: ManualClock, status: int) -> None:
    old = turn(ada, clock)
    late = ada.manager.open(old, asynchronous=ada.runner is not None)
    ada.do(late, "load", touch=status == 500)
    with ada.request() as session:
        session["user"] = "eve"
    assert "Set-Cookie" not in dict(ada.manager.commit(late, status))


def test_the_grace_is_whole_when_the_next_rotation_is_due_already(
    ada: Visitor, clock: ManualClock, events: list[str]
) -> None:
    old = turn(ada, clock)
    clock.advance(EVERY)
    read(ada)  # after a long pause the new one was seen
    clock.advance(1)
    read(ada)
    assert read(ada, old) == {"user": "ada"}
    assert "reuse" not in events
    clock.advance(10)
    last = ada.cookie
    read(ada)
    assert ada.cookie != last


@pytest.mark.parametrize("on_reuse", ["ignore", "destroy"])
def test_an_id_that_was_retired_long_ago_is_reuse(
    ada: Visitor, make_manager: Make, clock: ManualClock, events: list[str], on_reuse: str
) -> None:
    ada.manager = make_manager(rotate_every="15m", on_reuse=on_reuse)
    old = turn(ada, clock)
    read(ada)
    clock.advance(10)
    thief = Visitor(ada.manager, ada.runner)
    assert "reuse" not in events
    assert read(thief, old) == {}
    assert "reuse" in events
    assert thief.headers == [("Vary", "Cookie")]
    assert read(ada) == ({} if on_reuse == "destroy" else {"user": "ada"})


def test_an_id_from_before_a_login_is_worth_nothing_however_young_the_last_rotation_by_time(
    ada: Visitor, clock: ManualClock
) -> None:
    old = turn(ada, clock)
    current = ada.cookie
    with ada.request() as session:
        session["user"] = "eve"
    assert read(ada, old) == read(ada, current) == {}
    clock.advance(11)
    assert read(ada) == {"user": "eve"}


def test_an_id_from_before_a_login_ends_no_session(
    ada: Visitor, make_manager: Make, clock: ManualClock, events: list[str]
) -> None:
    ada.manager = make_manager(rotate_every="15m", on_reuse="destroy")
    planted = ada.cookie
    with ada.request() as session:
        session["user"] = "eve"
    for _ in range(2):
        turn(ada, clock)
        read(ada)
        clock.advance(11)
        assert read(Visitor(ada.manager, ada.runner), planted) == {}
    assert "reuse" in events
    assert read(ada) == {"user": "eve"}


def test_a_request_that_was_under_way_stays_in_its_session(ada: Visitor, clock: ManualClock) -> None:
    clock.advance(EVERY)
    with ada.request() as slow:
        slow["slow"] = 1
        with ada.request() as fast:
            fast["fast"] = 1
        ada.do(slow, "reload")
        slow["slow"] = 1
        name = slow.handle
    assert slow.handle == name
    assert read(ada) == {"user": "ada", "fast": 1, "slow": 1}


def test_a_logout_with_the_id_before_is_one(ada: Visitor, clock: ManualClock) -> None:
    old = turn(ada, clock)
    with ada.request(old) as session:
        ada.do(session, "destroy")
    assert ada.cookie is None
    assert read(ada) == {}


def test_a_long_connection_is_valid_through_rotations_by_time_and_not_through_a_login(
    make_manager: Make, clock: ManualClock
) -> None:
    ada = log_in(Visitor(make_manager(rotate_every="15m")))
    with ada.request() as connection:
        for _ in range(3):
            turn(ada, clock)
            read(ada)
            clock.advance(11)
            assert asyncio.run(connection.still_valid())
        with ada.request() as session:
            session["user"] = "eve"
        clock.advance(11)
        assert not asyncio.run(connection.still_valid())


def test_an_old_id_in_a_second_cookie_of_the_same_browser_is_no_reuse(
    ada: Visitor, make_manager: Make, clock: ManualClock, events: list[str]
) -> None:
    ada.manager = make_manager(rotate_every="15m", on_reuse="destroy")
    old = turn(ada, clock)  # as it stays behind when the cookie gets another domain, path or partition
    read(ada)
    clock.advance(10)
    assert read(ada, f"{old}; {ada.cookie}") == read(ada, f"{ada.cookie}; {old}") == read(ada) == {"user": "ada"}
    assert "reuse" not in events


@pytest.mark.parametrize("ahead", [-5, 5])
def test_servers_whose_clocks_differ_a_little_rotate_it_once(ahead: float, clock: ManualClock) -> None:
    store = UnstorageSessionStore(open_driver("memory://", clock=clock), ttl=5000)
    other = SessionManager(store, SECRET, rotate_every=EVERY, on_reuse="destroy", clock=lambda: clock() + ahead)
    ada = log_in(Visitor(SessionManager(store, SECRET, rotate_every=EVERY, on_reuse="destroy", clock=clock)))
    old = turn(ada, clock)
    read(ada)  # the new one was seen
    current, ada.manager = ada.cookie, other
    read(ada)
    assert ada.cookie == current
    assert read(ada, old) == {"user": "ada"}  # a request that was sent before, and is not the sign of a theft


def test_a_clock_that_was_set_back_does_not_rotate_it_all_the_time(clock: ManualClock) -> None:
    store = UnstorageSessionStore(open_driver("memory://", clock=clock), ttl=5000)
    ada = log_in(Visitor(SessionManager(store, SECRET, rotate_every=EVERY, clock=clock)))
    back = ManualClock(clock() - 100_000)
    ada.manager = SessionManager(store, SECRET, rotate_every=EVERY, clock=back)
    held = set()
    for _ in range(30):
        back.advance(60)
        assert read(ada) == {"user": "ada"}
        held.add(ada.cookie)
    assert len(held) == 2  # once at first, and once after the quarter of an hour that it takes


def test_an_id_is_good_for_the_grace_however_often_ids_change(clock: ManualClock) -> None:
    ada = log_in(Visitor(SessionManager("memory://", SECRET, rotate_every=3, on_reuse="destroy", clock=clock)))
    held: dict[str, float] = {}
    for _ in range(60):
        clock.advance(1)
        read(ada)
        assert ada.cookie is not None
        held[ada.cookie] = clock()
        for cookie, last in held.items():
            if clock() < last + 10:
                assert read(ada, cookie) == {"user": "ada"}
                ada.cookie = max(held, key=lambda each: held[each])
    assert len(held) > 3


@pytest.mark.parametrize("rotates", [True, False], ids=["a_poll", "an_application_that_rotates_none"])
def test_an_id_that_was_only_read_is_told_nobody(rotates: bool, clock: ManualClock) -> None:
    """A login may have replaced it by the time that the response is there."""
    store = UnstorageSessionStore(open_driver("memory://", clock=clock), ttl=5000)
    ada = log_in(Visitor(SessionManager(store, SECRET, rotate_every=EVERY, clock=clock)))
    old = turn(ada, clock)
    manager = ada.manager if rotates else SessionManager(store, SECRET, clock=clock)
    clock.advance(10)
    slow = manager.open(old)
    slow.load(touch=not rotates)
    with ada.request(old) as session:
        session["user"] = "eve"
    assert manager.commit(slow) == [("Vary", "Cookie")]
    assert read(ada) == {"user": "eve"}


def test_an_application_that_rotates_none_passes_the_new_id_on(
    ada: Visitor, make_manager: Make, clock: ManualClock
) -> None:
    old = turn(ada, clock)
    new = ada.cookie
    ada.manager = make_manager()
    clock.advance(10)
    read(ada, old)
    assert ada.cookie == new
    read(ada)
    clock.advance(11)
    assert read(Visitor(ada.manager, ada.runner), old) == {}  # it was seen


def test_a_failure_while_it_is_due_changes_nothing(clock: ManualClock) -> None:
    faulty = FaultyDriver(open_driver("memory://", clock=clock))
    ada = ada_on(faulty, clock)
    clock.advance(EVERY)
    old = ada.cookie
    faulty.fail("set", times=1)
    with pytest.raises(DriverUnavailable):
        read(ada)
    assert ada.cookie == old
    faulty.fail("set", times=1, after=True)
    assert read(ada) == {"user": "ada"}  # the answer was lost, and is read back
    assert ada.cookie != old
    assert read(ada) == {"user": "ada"}


def test_what_it_costs(clock: ManualClock) -> None:
    driver = CountingDriver(open_driver("memory://", clock=clock))
    ada = ada_on(driver, clock)
    costs = []
    for seconds in (1, EVERY, 1, 1):
        driver.reset()
        clock.advance(seconds)
        read(ada)
        costs.append(len(driver.calls))
    # The rotation is a write, and so is the note that the client has come with the new id.
    assert costs == [1, 2, 2, 1]


def test_what_a_client_costs_that_takes_no_cookie(clock: ManualClock) -> None:
    driver = CountingDriver(open_driver("memory://", clock=clock))
    ada = ada_on(driver, clock)
    old = turn(ada, clock)
    driver.reset()
    sent = 0
    for _ in range(60):
        clock.advance(1)
        assert read(ada, old) == {"user": "ada"}
        sent += len(ada.headers) > 1
    assert sent == 6
    assert len(driver.calls) == 60 + sent


def test_it_is_refused_where_it_cannot_be_kept() -> None:
    with pytest.raises(ConfigError, match="rotate_every needs a store that can write on a condition"):
        SessionManager("fsspec+memory://sessions", SECRET, rotate_every="15m")
    for bad in (0, -1, "soon"):
        with pytest.raises(ConfigError, match="rotate_every"):
            SessionManager("memory://", SECRET, rotate_every=bad)
    with pytest.raises(ConfigError, match="on_reuse must be"):
        SessionManager("memory://", SECRET, on_reuse="explode")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="needs a rotation_grace"):
        SessionManager("memory://", SECRET, on_reuse="destroy", rotation_grace=0)
