"""`rotate_every`: an id that was in use for long is replaced, nobody is logged out by that, and a stolen one shows."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from session_kit import ConfigError, SessionManager, UnstorageSessionStore
from session_kit.drivers import DriverUnavailable, open_driver
from session_kit.testing import CountingDriver, FaultyDriver, ManualClock, Visitor
from tests.conftest import SECRET

EVERY = 900.0
Make = Callable[..., SessionManager]


@pytest.fixture
def ada(make_manager: Make, runner: asyncio.Runner | None) -> Visitor:
    visitor = Visitor(make_manager(rotate_every="15m"), runner)
    with visitor.request() as session:
        session["user"] = "ada"
    return visitor


def read(visitor: Visitor, cookie: str | None = None) -> dict[str, object]:
    with visitor.request(cookie) as session:
        return dict(session)


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
    ada = Visitor(make_manager(rotate_every="15m"))
    with ada.request() as session:
        session["user"] = "ada"
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


def test_a_failure_while_it_is_due_changes_nothing(clock: ManualClock) -> None:
    faulty = FaultyDriver(open_driver("memory://", clock=clock))
    ada = Visitor(SessionManager(UnstorageSessionStore(faulty, ttl=5000), SECRET, rotate_every=EVERY, clock=clock))
    with ada.request() as session:
        session["user"] = "ada"
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
    ada = Visitor(SessionManager(UnstorageSessionStore(driver, ttl=5000), SECRET, rotate_every=EVERY, clock=clock))
    with ada.request() as session:
        session["user"] = "ada"
    costs = []
    for seconds in (1, EVERY, 1, 1):
        driver.reset()
        clock.advance(seconds)
        read(ada)
        costs.append(len(driver.calls))
    # The rotation is a write, and so is the note that the client has come with the new id.
    assert costs == [1, 2, 2, 1]


def test_it_is_refused_where_it_cannot_be_kept() -> None:
    with pytest.raises(ConfigError, match="rotate_every needs a store that can write on a condition"):
        SessionManager("fsspec+memory://sessions", SECRET, rotate_every="15m")
    for bad in (0, -1, "soon"):
        with pytest.raises(ConfigError, match="rotate_every"):
            SessionManager("memory://", SECRET, rotate_every=bad)
    with pytest.raises(ConfigError, match="on_reuse must be"):
        SessionManager("memory://", SECRET, on_reuse="explode")  # type: ignore[arg-type]
