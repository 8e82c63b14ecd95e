"""Rotation is safe: a new id, nothing lost, nobody logged out by a failure, and the old id soon dead."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from session_kit import Session, SessionError, SessionManager, UnstorageSessionStore
from session_kit.drivers import DriverUnavailable
from session_kit.testing import CountingDriver, FaultyDriver, ManualClock, Visitor
from tests.harness.sessions import SECRET, cookie_of, log_in


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


@pytest.mark.needs("swap")
def test_a_late_request_with_the_old_id_sees_nothing_and_leaves_the_cookie_alone(
    ada: Visitor, events: list[str]
) -> None:
    old = rotate(ada)
    with ada.request(old) as session:
        assert session.is_new
        assert dict(session) == {}
        session["late"] = True
    assert ada.headers == [("Vary", "Cookie")]
    assert "displaced" in events
    with ada.request() as session:
        assert dict(session) == {"user": "ada"}


@pytest.mark.needs("swap")
def test_a_late_request_that_has_another_good_cookie_too_leaves_the_new_cookie_alone(
    ada: Visitor, clock: ManualClock
) -> None:
    """One of another path or domain, whose renewal would take the place of what a login has sent."""
    other = log_in(Visitor(ada.manager, ada.runner), page=1)
    clock.advance(400)
    old = rotate(ada)
    with ada.request(f"{old}; {other.cookie}") as session:
        assert session["page"] == 1
        session["page"] = 2
    assert ada.headers == [("Vary", "Cookie")]
    with other.request() as session:
        assert session["page"] == 2


def test_the_old_id_is_unknown_after_the_grace(ada: Visitor, clock: ManualClock, events: list[str]) -> None:
    old = rotate(ada)
    clock.advance(10)
    with ada.request(old) as session:
        assert session.is_new
        session["mine"] = True
    assert "unknown_id" in events
    with ada.request() as session:
        assert dict(session) == {"mine": True}


@pytest.mark.needs("swap")
def test_every_older_id_is_displaced_not_only_the_last(ada: Visitor) -> None:
    oldest = rotate(ada)
    rotate(ada)
    with ada.request(oldest) as session:
        assert dict(session) == {}
        session["late"] = True
    assert ada.headers == [("Vary", "Cookie")]


def test_a_rotation_leaves_one_record(ada: Visitor, store: UnstorageSessionStore) -> None:
    rotate(ada)
    rotate(ada)
    assert store.length() == 1


@pytest.mark.needs("swap")
def test_an_id_is_a_name_that_stays_and_a_token_that_changes(ada: Visitor) -> None:
    with ada.request() as session:
        name, token = session.id.split("~")
        assert (len(name), len(token)) == (16, 22)
        ada.do(session, "regenerate")
    with ada.request() as session:
        assert session.id.split("~")[0] == name
        assert session.id.split("~")[1] != token


def test_without_grace_the_old_id_is_unknown_at_once(
    make_manager: Callable[..., SessionManager], visitor: Visitor, store: UnstorageSessionStore
) -> None:
    ada = log_in(Visitor(make_manager(rotation_grace=0), visitor.runner))
    old = rotate(ada)
    with ada.request(old) as session:
        assert session.is_new
    assert store.length() == 1


def test_a_logout_ends_the_session_however_many_rotations_came_before(
    ada: Visitor, make_manager: Callable[..., SessionManager], clock: ManualClock
) -> None:
    planted = ada.cookie
    rotate(ada)
    victim = ada.cookie
    with ada.request(planted) as thief:
        ada.do(thief, "regenerate")
        thief["mine"] = 1
    own = ada.cookie
    clock.advance(900)
    with ada.request(victim) as session:
        ada.do(session, "destroy")
    with ada.request(own) as session:
        assert "user" not in session


@pytest.mark.needs("swap")
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


@pytest.mark.needs("swap")
def test_two_rotations_at_once_are_one(ada: Visitor) -> None:
    with ada.request() as slow:
        ada.do(slow, "regenerate")
        slow["by"] = "slow"
        rotate(ada)
        fast = ada.cookie
    assert ada.headers == [("Vary", "Cookie")]
    with ada.request(fast) as session:
        assert dict(session) == {"user": "ada", "by": "slow"}


@pytest.mark.needs("swap")
def test_two_logins_at_once_are_two_sessions(visitor: Visitor) -> None:
    with visitor.request() as session:
        session["cart"] = [1]
    with visitor.request() as slow:
        slow["user"] = "ada"
        with visitor.request() as fast:
            fast["user"] = "bob"
        bob = visitor.cookie
    with visitor.request(bob) as session:
        assert dict(session) == {"cart": [1], "user": "bob"}
    with visitor.request() as session:
        assert dict(session) == {"cart": [1], "user": "ada"}
    assert visitor.cookie != bob


@pytest.mark.needs("swap")
def test_a_login_that_a_logout_overlaps_is_a_login_and_brings_nothing_else_back(ada: Visitor) -> None:
    with ada.request() as session:
        session["secret"] = "of ada"
    with ada.request() as slow:
        slow["user"] = "bob"
        with ada.request() as fast:
            ada.do(fast, "destroy")
    with ada.request() as session:
        assert dict(session) == {"user": "bob"}


@pytest.mark.needs("swap")
def test_a_login_leaves_out_what_a_logout_ends_meanwhile(
    visitor: Visitor, backend: FaultyDriver, make_manager: Callable[..., SessionManager]
) -> None:
    class LogsOut(CountingDriver):
        """Between the first write of the login, which fails, and its second, the session is destroyed."""

        first: str | None = None

        def after(self, name: str) -> None:
            super().after(name)
            if name == "set" and self.first is not None and self.driver.has(self.first):
                self.driver.delete(self.first)

    driver = LogsOut(backend)
    ada = Visitor(make_manager(store=UnstorageSessionStore(driver)), visitor.runner)
    with ada.request() as session:
        session["cart"] = ["of the session that ends"]
    (key,) = driver.keys()
    with ada.request() as slow:
        slow["user"] = "ada"
        with ada.request() as fast:
            fast["user"] = "bob"
        driver.first = key
    with ada.request() as session:
        assert dict(session) == {"user": "ada"}


@pytest.mark.needs("swap")
def test_who_planted_an_id_sees_nothing_of_the_login(ada: Visitor, clock: ManualClock) -> None:
    with ada.request("other=1") as session:
        session["cart"] = [1]
    planted = ada.cookie
    with ada.request(planted) as thief:
        assert dict(thief) == {"cart": [1]}
        with ada.request(planted) as victim:
            victim["user"] = "bob"
        mine = ada.cookie
        thief["seen"] = True
        ada.do(thief, "save")
        assert "user" not in thief
        ada.do(thief, "reload")
        assert dict(thief) == {}
    assert ada.headers == [("Vary", "Cookie")]
    for _ in range(2):
        with ada.request(planted) as thief:
            assert dict(thief) == {}
        clock.advance(60)
    with ada.request(mine) as session:
        assert dict(session) == {"cart": [1], "user": "bob", "seen": True}


@pytest.mark.needs("swap")
def test_the_id_changes_by_itself_when_somebody_logs_in(visitor: Visitor) -> None:
    with visitor.request() as session:
        session["cart"] = [1]
    before = visitor.cookie
    with visitor.request() as session:
        session["_user_id"] = "7"
    assert visitor.cookie != before
    after = visitor.cookie
    with visitor.request() as session:
        session["_user_id"] = "7"
        session["cart"] = [2]
    assert visitor.cookie == after
    with visitor.request() as session:
        del session["_user_id"]
    assert visitor.cookie == after
    with visitor.request() as session:
        session.update(lambda data: {"_user_id": "8"})
    assert visitor.cookie != after


def test_the_keys_that_rotate_can_be_chosen(make_manager: Callable[..., SessionManager], visitor: Visitor) -> None:
    for keys, changes in ((["account"], True), ([], False)):
        member = log_in(Visitor(make_manager(rotate_on=keys), visitor.runner))
        before = member.cookie
        with member.request() as session:
            session["user"] = "bob"
            session["account"] = 1
        assert (member.cookie != before) is changes
    with pytest.raises(ValueError, match="rotate_on must be a list of keys"):
        make_manager(rotate_on="user")


def test_a_login_after_the_response_has_begun_is_stored_with_a_warning(
    visitor: Visitor, caplog: pytest.LogCaptureFixture
) -> None:
    with visitor.request() as session:
        session["cart"] = [1]
    with visitor.request() as session:
        pass
    session["user"] = "ada"
    visitor.do(session, "save")
    assert "after the response had begun" in caplog.text
    with visitor.request() as session:
        assert session["user"] == "ada"
    with pytest.raises(SessionError, match="the response has begun"):
        visitor.do(session, "regenerate")


@pytest.mark.needs("swap")
def test_a_logout_with_the_old_id_in_the_grace_logs_out(ada: Visitor, store: UnstorageSessionStore) -> None:
    old = rotate(ada)
    with ada.request(old) as session:
        ada.do(session, "destroy")
        session["flash"] = "good bye"
    assert ada.headers == [("Vary", "Cookie")]
    assert store.length() == 0
    with ada.request() as session:
        assert session.is_new


def test_a_logout_with_the_old_id_after_the_grace_proves_nothing(ada: Visitor, clock: ManualClock) -> None:
    old = rotate(ada)
    clock.advance(10)
    with ada.request(old) as session:
        ada.do(session, "destroy")
    assert ada.headers == [("Vary", "Cookie")]
    with ada.request() as session:
        assert session["user"] == "ada"


@pytest.mark.needs("swap")
@pytest.mark.parametrize("loaded", [True, False])
def test_a_logout_that_a_rotation_overlaps_ends_the_session(ada: Visitor, loaded: bool) -> None:
    slow = ada.manager.open(ada.cookie or "", asynchronous=ada.runner is not None)
    if loaded:
        ada.do(slow, "load")
    rotate(ada)
    ada.do(slow, "destroy")
    with ada.request() as session:
        assert session.is_new


@pytest.mark.needs("swap")
def test_a_slow_request_long_after_the_rotation_leaves_the_new_cookie_alone(ada: Visitor, clock: ManualClock) -> None:
    with ada.request() as slow:
        rotate(ada)
        clock.advance(11)
        slow["x"] = 1
    assert ada.headers == [("Vary", "Cookie")]
    with ada.request() as session:
        assert dict(session) == {"user": "ada", "x": 1}


def test_a_session_that_was_rotated_and_ended_elsewhere_is_not_valid(ada: Visitor) -> None:
    async def valid(session: Session) -> bool:
        return await session.still_valid()

    ask = ada.runner.run if ada.runner else asyncio.run
    session = ada.manager.open(ada.cookie or "", asynchronous=True)
    assert ask(valid(session)) is True
    rotate(ada)
    with ada.request() as other:
        ada.do(other, "destroy")
    assert ask(valid(session)) is False


def test_clear_is_a_fresh_start(ada: Visitor, store: UnstorageSessionStore, clock: ManualClock) -> None:
    old = ada.cookie
    with ada.request() as session:
        session.clear()
        session["flash"] = "hello"
    assert ada.cookie != old
    with ada.request() as session:
        assert dict(session) == {"flash": "hello"}
    clock.advance(60)
    with ada.request(old) as session:
        assert dict(session) == {}
    assert store.length() == 1


def test_clear_alone_is_a_logout(ada: Visitor, store: UnstorageSessionStore) -> None:
    with ada.request() as session:
        session.clear()
    assert ada.cookie is None
    assert store.length() == 0


def test_a_clear_that_is_followed_by_a_failure_logs_nobody_out(ada: Visitor) -> None:
    session = ada.manager.open(ada.cookie or "")
    session.clear()
    assert ada.manager.commit(session, status=500) == [("Vary", "Cookie")]
    with ada.request() as again:
        assert dict(again) == {"user": "ada"}


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
    ada = log_in(Visitor(make_manager(max_lifetime=100), visitor.runner))
    for _ in range(3):
        clock.advance(30)
        rotate(ada)
    clock.advance(10)
    with ada.request() as session:
        assert session.is_new


@pytest.mark.needs("swap")
def test_an_answer_that_is_lost_in_a_rotation_is_read_back(
    backend: FaultyDriver, make_manager: Callable[..., SessionManager], visitor: Visitor
) -> None:
    faulty = FaultyDriver(backend)
    ada = log_in(Visitor(make_manager(store=UnstorageSessionStore(faulty)), visitor.runner))
    old = ada.cookie
    faulty.fail("set", times=1, after=True)
    rotate(ada)
    assert ada.cookie != old
    with ada.request() as session:
        assert session["user"] == "ada"


@pytest.mark.needs("swap")
@pytest.mark.parametrize("taken", [True, False])
def test_a_save_that_failed_can_be_repeated(
    backend: FaultyDriver, make_manager: Callable[..., SessionManager], visitor: Visitor, taken: bool
) -> None:
    faulty = FaultyDriver(backend)
    ada = log_in(Visitor(make_manager(store=UnstorageSessionStore(faulty)), visitor.runner))
    with ada.request() as session:
        ada.do(session, "regenerate")
        session["a"] = 1
        faulty.fail("set", times=1, after=taken)
        faulty.fail("read", times=1)
        with pytest.raises(DriverUnavailable):
            ada.do(session, "save")
        faulty.heal()
        session["b"] = 2
        ada.do(session, "save")
    with ada.request() as session:
        assert dict(session) == {"user": "ada", "a": 1, "b": 2}


def test_a_session_that_expires_during_its_rotation_is_gone(ada: Visitor, clock: ManualClock) -> None:
    with ada.request() as session:
        ada.do(session, "regenerate")
        clock.advance(5000)
    with ada.request() as session:
        assert session.is_new


def test_an_outage_in_the_middle_of_a_rotation_logs_nobody_out(
    backend: FaultyDriver, make_manager: Callable[..., SessionManager], visitor: Visitor
) -> None:
    faulty = FaultyDriver(backend)
    ada = log_in(Visitor(make_manager(store=UnstorageSessionStore(faulty)), visitor.runner))
    faulty.fail("set", DriverUnavailable("down"), times=1)
    with pytest.raises(DriverUnavailable), ada.request() as session:
        ada.do(session, "regenerate")
    with ada.request() as session:
        assert session["user"] == "ada"


# --- what an attacker's reading of the code found ---


@pytest.mark.needs("swap")
@pytest.mark.parametrize("nobody", [None, "", False])
def test_an_empty_user_is_a_logout_and_no_login(visitor: Visitor, nobody: object) -> None:
    with visitor.request() as session:
        session["cart"] = [1]
    old = rotate(visitor)
    with visitor.request(old) as late:
        late.setdefault("user_id", nobody)
    assert visitor.headers == [("Vary", "Cookie")]


@pytest.mark.needs("swap")
def test_the_slower_of_two_logouts_leaves_the_cookie_of_a_login_in_between_alone(ada: Visitor) -> None:
    with ada.request() as slow:
        with ada.request() as fast:
            ada.do(fast, "destroy")
        with ada.request("other=1") as login:
            login["user"] = "bob"
        ada.do(slow, "destroy")
    assert "Set-Cookie" not in dict(ada.headers)
    with ada.request() as session:
        assert session["user"] == "bob"


@pytest.mark.needs("swap")
def test_a_cookie_that_is_signed_anew_does_not_replace_that_of_a_login(
    make_manager: Callable[..., SessionManager], ada: Visitor
) -> None:
    ada.manager = make_manager(secret=[f"Newer-{SECRET}", SECRET])
    with ada.request() as slow:
        assert slow["user"] == "ada"
        with ada.request() as fast:
            fast["user"] = "bob"
    assert "Set-Cookie" not in dict(ada.headers)
    with ada.request() as session:
        assert session["user"] == "bob"


@pytest.mark.needs("swap")
def test_an_anonymous_outage_in_a_rotation_sends_no_id_that_leads_nowhere(
    backend: FaultyDriver, make_manager: Callable[..., SessionManager], visitor: Visitor
) -> None:
    faulty = FaultyDriver(backend)
    store = UnstorageSessionStore(faulty)
    ada = Visitor(make_manager(store=store), visitor.runner)
    with ada.request() as session:
        session["cart"] = [1]
    ada.manager = make_manager(store=store, on_error="anonymous", secret=[f"Newer-{SECRET}", SECRET])
    faulty.fail("set")
    with ada.request() as session:
        session["user"] = "ada"
    faulty.heal()
    with ada.request() as session:
        assert dict(session) == {"cart": [1]}


@pytest.mark.needs("swap")
def test_a_save_that_ran_out_of_time_can_be_repeated_at_the_end(
    make_manager: Callable[..., SessionManager], backend: FaultyDriver
) -> None:
    class Slow(CountingDriver):
        seconds = 0.0

        async def acall(self, name: str, *args: object, **kwargs: object) -> object:
            await asyncio.sleep(self.seconds)
            return await super().acall(name, *args, **kwargs)

    async def main() -> None:
        driver = Slow(backend)
        manager = make_manager(store=UnstorageSessionStore(driver))
        session = await manager.open(asynchronous=True).aload()
        session["cart"] = [1]
        cookie = cookie_of(await manager.acommit(session))
        session = await manager.open(cookie, asynchronous=True).aload()
        session["user"] = "ada"
        driver.seconds = 0.05
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(session.asave(), 0.01)
        driver.seconds = 0.0
        cookie = dict(await manager.acommit(session)).get("Set-Cookie", cookie).split(";")[0]
        found = await manager.open(cookie, asynchronous=True).aload()
        assert dict(found) == {"cart": [1], "user": "ada"}

    asyncio.run(main())


def test_an_updater_that_raises_in_a_merge_leaves_nothing_half_done(ada: Visitor) -> None:
    with ada.request() as session:
        session["n"] = 1
    with pytest.raises(KeyError), ada.request() as slow:
        slow["x"] = 1
        slow.update(lambda data: {"n": data["n"] + 1})
        slow["y"] = 1
        with ada.request() as fast:
            del fast["n"]
    with ada.request() as session:
        assert dict(session) == {"user": "ada"}
