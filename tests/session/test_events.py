"""Events tell what happens to sessions, and nothing that opens one; a callback that fails takes no request with it."""

from __future__ import annotations

import asyncio
import logging

import pytest

from session_kit import Event, SessionManager, UnstorageSessionStore
from session_kit.drivers import DriverUnavailable
from session_kit.drivers.memory import MemoryDriver
from session_kit.record import hash_id
from session_kit.testing import FaultyDriver, ManualClock, Visitor
from tests.harness.sessions import SECRET


def test_no_event_holds_an_id_a_token_or_data() -> None:
    seen: list[Event] = []
    clock = ManualClock()
    driver = FaultyDriver(MemoryDriver(clock=clock))
    store = UnstorageSessionStore(driver, ttl=1000)
    ada = Visitor(SessionManager(store, SECRET, on_event=seen.append, clock=clock))
    secrets: set[str] = set()

    def use(cookie: str | None = None, **data: object) -> None:
        with ada.request(cookie) as session:
            session.update(data)
            secrets.update(session.id.split("~"))
        if ada.cookie:
            secrets.add(ada.cookie.partition(".")[2])

    use(note="the data")
    planted = ada.cookie
    with ada.request() as slow:
        slow["a"] = 1
        use(b=2)
    use(user="ada")
    use(planted, late=1)
    use(f"{planted}x")
    with ada.request() as slow:
        slow["c"] = 3
        with ada.request() as fast:
            fast.destroy()
    use(planted)
    use(x=1)
    (key,) = driver.keys()
    driver.set(key, b"{")
    use()
    use(x=1)
    driver.fail("renew", times=1)
    with pytest.raises(DriverUnavailable):
        use()
    use(y=1)
    clock.advance(100)
    ada.manager = SessionManager(store, SECRET, on_event=seen.append, clock=clock, max_lifetime=50)
    use()
    happened = {event.name for event in seen}
    assert happened == {
        "created",
        "loaded",
        "saved",
        "merged",
        "rotated",
        "displaced",
        "destroyed",
        "revival_blocked",
        "unknown_id",
        "bad_signature",
        "undecodable",
        "store_error",
        "expired",
    }
    assert secrets
    assert not any(secret and secret in repr(seen) for secret in secrets | {"the data"})


def test_what_names_a_session_in_events_stays_through_rotations() -> None:
    seen: list[Event] = []
    ada = Visitor(SessionManager("memory://", SECRET, on_event=seen.append))
    with ada.request() as session:
        session["a"] = 1
        named = hash_id(session.id)
    for _ in range(2):
        with ada.request() as session:
            session.regenerate()
    with ada.request() as session:
        session.destroy()
    assert {event.session for event in seen} == {named}


def test_a_callback_that_fails_takes_no_request_with_it(caplog: pytest.LogCaptureFixture) -> None:
    def fail(event: Event) -> None:
        raise ZeroDivisionError

    with asyncio.Runner() as runner, caplog.at_level(logging.ERROR, "session_kit"):
        for visitor in (Visitor(SessionManager("memory://", SECRET, on_event=fail), way) for way in (None, runner)):
            with visitor.request() as session:
                session["a"] = 1
            with visitor.request() as session:
                assert session["a"] == 1
                visitor.do(session, "destroy")
    assert "the on_event callback failed" in caplog.text
