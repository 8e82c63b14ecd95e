"""A connection that outlives a request can ask whether its session still lives."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator

import pytest

from session_kit import DriverUnavailable, SessionManager, UnstorageSessionStore
from session_kit.drivers import Driver
from session_kit.drivers.memory import MemoryDriver
from session_kit.testing import CountingDriver, FaultyDriver, ManualClock, Visitor
from tests.harness.sessions import log_in, take_down


@pytest.fixture
def runner() -> Iterator[asyncio.Runner]:
    with asyncio.Runner() as runner:
        yield runner


def valid(visitor: Visitor, session: object) -> bool:
    assert visitor.runner is not None
    return bool(visitor.runner.run(session.still_valid()))  # type: ignore[attr-defined]


def test_a_logout_elsewhere_is_noticed_at_once(visitor: Visitor) -> None:
    with visitor.request() as session:
        session["user"] = "ada"
    with visitor.request() as socket:
        assert valid(visitor, socket)
        with visitor.request() as other:
            visitor.do(other, "destroy")
        assert not valid(visitor, socket)


@pytest.mark.needs("swap")
def test_a_rotation_elsewhere_leaves_the_connection_its_grace(visitor: Visitor, clock: ManualClock) -> None:
    with visitor.request() as session:
        session["user"] = "ada"
    with visitor.request() as socket:
        with visitor.request() as other:
            visitor.do(other, "regenerate")
        assert valid(visitor, socket)
        clock.advance(11)
        assert not valid(visitor, socket)


def test_the_limits_of_time_are_noticed(
    make_manager: Callable[..., SessionManager], runner: asyncio.Runner, clock: ManualClock
) -> None:
    visitor = Visitor(make_manager(max_lifetime=500), runner)
    with visitor.request() as session:
        session["user"] = "ada"
        assert not valid(visitor, session), "it is not stored yet"
    with visitor.request() as socket:
        clock.advance(499)
        assert valid(visitor, socket)
        clock.advance(2)
        assert not valid(visitor, socket)


def test_asking_is_one_read_and_no_use(visitor: Visitor, driver: CountingDriver) -> None:
    with visitor.request() as session:
        session["user"] = "ada"
    with visitor.request() as socket:
        socket["page"] = 1
        driver.reset()
        assert valid(visitor, socket)
        assert [call[0] if isinstance(call, tuple) else call for call in driver.calls] == ["read"]
        assert socket["page"] == 1


def test_an_outage_is_no_logout(make_manager: Callable[..., SessionManager], runner: asyncio.Runner) -> None:
    driver: Driver = FaultyDriver(MemoryDriver())
    visitor = log_in(Visitor(make_manager(store=UnstorageSessionStore(driver)), runner))
    with visitor.request() as socket:
        driver.fail("read", times=1)  # type: ignore[attr-defined]
        with pytest.raises(DriverUnavailable):
            valid(visitor, socket)
        assert valid(visitor, socket)


def test_an_outage_when_the_connection_begins_is_no_logout_either(
    make_manager: Callable[..., SessionManager], runner: asyncio.Runner
) -> None:
    driver: Driver = FaultyDriver(MemoryDriver())
    visitor = log_in(Visitor(make_manager(store=UnstorageSessionStore(driver), on_error="anonymous"), runner))
    take_down(driver)
    with visitor.request() as socket:
        assert socket.unavailable
        with pytest.raises(DriverUnavailable):
            valid(visitor, socket)
        driver.heal()  # type: ignore[attr-defined]
        visitor.do(socket, "reload")
        assert valid(visitor, socket)


def test_changes_that_come_to_nothing_are_not_kept_for_as_long_as_the_connection_lasts(
    visitor: Visitor,
) -> None:
    with visitor.request() as session:
        session["page"] = 1
    with visitor.request() as socket:
        for number in range(5):
            socket.flash(f"message {number}")
            assert [each.message for each in socket.flashes()] == [f"message {number}"]
            socket["typing"] = True
            del socket["typing"]
            visitor.do(socket, "save")
        assert len(socket.lifecycle.data.log) == 0
        with visitor.request() as other:
            other["page"] = 2
        socket["seen"] = True
    with visitor.request() as session:
        assert dict(session) == {"page": 2, "seen": True}, "what comes afterwards is still merged"
