"""Rotation is safe: a new id, nothing lost, nobody logged out by a failure, and the old id soon dead."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from session_kit import SessionManager, UnstorageSessionStore
from session_kit.drivers import DriverUnavailable
from session_kit.testing import CountingDriver, FaultyDriver, ManualClock, Visitor


@pytest.fixture
def ada(visitor: Visitor) -> Visitor:
    with visitor.request() as session:
        session["user"] = "ada"
    return visitor


def rotate(visitor: Visitor, **options: bool) -> str:
    """Rotate the id and return the cookie from before."""
    old = visitor.cookie
    assert old is not None
    with visitor.request() as session:
        visitor.do(session, "regenerate", **options)
    return old


def test_a_rotation_keeps_the_data_under_a_new_id(ada: Visitor, events: list[str]) -> None:
    old = rotate(ada)
    assert ada.cookie != old
    with ada.request() as session:
        assert dict(session) == {"user": "ada"}
    assert "rotated" in events


def test_a_rotation_can_drop_the_data(ada: Visitor) -> None:
    rotate(ada, clear=True)
    with ada.request() as session:
        assert dict(session) == {}
        assert not session.is_new


def test_a_rotation_followed_by_a_failure_logs_nobody_out(ada: Visitor, store: UnstorageSessionStore) -> None:
    with pytest.raises(ZeroDivisionError), ada.request() as session:
        ada.do(session, "regenerate")
        session["page"] = 1
        raise ZeroDivisionError
    with ada.request() as session:
        assert dict(session) == {"user": "ada"}
    assert store.length() == 1


def test_parallel_requests_with_the_old_id_find_the_session_for_a_while(ada: Visitor) -> None:
    old = rotate(ada)
    with ada.request(old) as session:
        assert session["user"] == "ada"
        session["late"] = True
    assert ada.headers == [("Vary", "Cookie")]
    with ada.request() as session:
        assert session["late"] is True


def test_the_old_id_is_dead_after_the_grace(ada: Visitor, clock: ManualClock, events: list[str]) -> None:
    old = rotate(ada)
    clock.advance(10)
    with ada.request(old) as session:
        assert session.is_new
        assert dict(session) == {}
    assert "unknown_id" in events


def test_who_comes_by_the_old_id_never_learns_the_new_one(ada: Visitor) -> None:
    old = rotate(ada)
    with ada.request(old) as session:
        session["late"] = True
    assert "Set-Cookie" not in dict(ada.headers)


def test_the_old_record_does_not_hold_the_new_id(ada: Visitor, driver: CountingDriver) -> None:
    with ada.request() as session:
        ada.do(session, "regenerate")
        new = session.id
    values = [driver.get(key) or b"" for key in driver.keys()]
    assert len(values) == 2
    assert not any(new.encode() in value for value in values)


def test_without_grace_the_old_id_is_dead_at_once(
    make_manager: Callable[..., SessionManager], visitor: Visitor, store: UnstorageSessionStore
) -> None:
    ada = Visitor(make_manager(rotation_grace=0), visitor.runner)
    with ada.request() as session:
        session["user"] = "ada"
    old = rotate(ada)
    with ada.request(old) as session:
        assert session.is_new
    assert store.length() == 1


def test_a_change_by_a_slow_request_with_the_old_id_is_not_lost(ada: Visitor) -> None:
    with ada.request() as slow:
        slow["page"] = 1
        rotate(ada)
    with ada.request() as session:
        assert dict(session) == {"user": "ada", "page": 1}


def test_a_change_by_another_request_during_the_rotation_is_not_lost(ada: Visitor) -> None:
    with ada.request() as slow:
        ada.do(slow, "regenerate")
        slow["level"] = "admin"
        with ada.request() as fast:
            fast["page"] = 1
    with ada.request() as session:
        assert dict(session) == {"user": "ada", "level": "admin", "page": 1}


def test_two_rotations_at_once_leave_two_good_cookies(ada: Visitor, clock: ManualClock) -> None:
    with ada.request() as slow:
        ada.do(slow, "regenerate")
        slow["by"] = "slow"
        old = rotate(ada)
        fast = ada.cookie
    slow_cookie = ada.cookie
    assert len({old, fast, slow_cookie}) == 3
    clock.advance(60)
    for cookie in (fast, slow_cookie):
        with ada.request(cookie) as session:
            assert session["user"] == "ada"
    with ada.request(old) as session:
        assert session.is_new


def test_rights_gained_under_the_old_id_do_not_reach_who_rotated_first(ada: Visitor) -> None:
    # A thief who planted the id rotates it; in the grace, the victim logs in with the old one.
    planted = rotate(ada)
    thief = ada.cookie
    with ada.request(planted) as victim:
        ada.do(victim, "regenerate")
        victim["user"] = "bob"
    with ada.request(thief) as session:
        assert session["user"] == "ada"
    with ada.request() as session:
        assert session["user"] == "bob"


def test_a_logout_with_the_old_id_in_the_grace_logs_out(ada: Visitor, store: UnstorageSessionStore) -> None:
    old = rotate(ada)
    new = ada.cookie
    with ada.request(old) as session:
        assert session["user"] == "ada"
        ada.do(session, "destroy")
    with ada.request(new) as session:
        assert session.is_new


def test_a_new_session_is_rotated_without_a_trace(visitor: Visitor, store: UnstorageSessionStore) -> None:
    with visitor.request() as session:
        first = session.id
        visitor.do(session, "regenerate")
        assert session.id != first
        session["user"] = "ada"
    assert store.length() == 1


def test_the_age_survives_rotation(
    make_manager: Callable[..., SessionManager], visitor: Visitor, clock: ManualClock
) -> None:
    ada = Visitor(make_manager(max_lifetime=100), visitor.runner)
    with ada.request() as session:
        session["user"] = "ada"
    for _ in range(3):
        clock.advance(30)
        rotate(ada)
    clock.advance(10)
    with ada.request() as session:
        assert session.is_new


def test_an_outage_in_the_middle_of_a_rotation_logs_nobody_out(
    backend: FaultyDriver, make_manager: Callable[..., SessionManager], visitor: Visitor
) -> None:
    faulty = FaultyDriver(backend)
    ada = Visitor(make_manager(store=UnstorageSessionStore(faulty)), visitor.runner)
    with ada.request() as session:
        session["user"] = "ada"
    for after in (False, True):
        faulty.fail("set", DriverUnavailable("down"), times=1, after=after)
        with pytest.raises(DriverUnavailable), ada.request() as session:
            ada.do(session, "regenerate")
        with ada.request() as session:
            assert session["user"] == "ada"
