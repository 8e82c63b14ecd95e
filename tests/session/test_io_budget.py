"""No I/O that is not needed: what each kind of request may ask of the driver, counted in calls."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import closing
from typing import Any

import pytest

from session_kit import Session, SessionManager, UnstorageSessionStore
from session_kit.drivers.redis import RedisDriver
from session_kit.testing import CountingDriver, ManualClock, Visitor
from tests.harness.servers import Valkey
from tests.harness.sessions import SECRET, log_in


@pytest.fixture
def ada(visitor: Visitor, driver: CountingDriver) -> Visitor:
    log_in(visitor, cart=[1])
    driver.reset()
    return visitor


def test_a_request_that_does_not_touch_the_session_costs_nothing(ada: Visitor, driver: CountingDriver) -> None:
    session = ada.manager.open(ada.cookie or "")
    assert ada.manager.commit(session) == []
    assert driver.calls == []


def test_a_request_without_a_cookie_costs_nothing(ada: Visitor, driver: CountingDriver) -> None:
    with ada.request("other=1") as session:
        assert session.get("user") is None
    assert driver.calls == []


def test_a_forged_cookie_costs_nothing(ada: Visitor, driver: CountingDriver) -> None:
    with ada.request(f"{ada.cookie}x") as session:
        assert session.is_new
    assert driver.calls == []


def test_reading_costs_one_round_trip_with_the_renewal(ada: Visitor, driver: CountingDriver) -> None:
    with ada.request() as session:
        assert session["user"] == "ada"
        assert session["cart"] == [1]
    assert driver.calls == ["renew" if driver.capabilities.renew else "read"]


@pytest.mark.needs("swap")
def test_changing_costs_one_read_and_one_conditional_write(ada: Visitor, driver: CountingDriver) -> None:
    with ada.request() as session:
        session["page"] = 1
        session["cart"].append(2)
        session.update(lambda data: {"visits": 1})
    assert driver.calls == ["renew" if driver.capabilities.renew else "read", "set"]


def test_setting_what_is_there_already_writes_nothing(ada: Visitor, driver: CountingDriver) -> None:
    with ada.request() as session:
        session["user"] = "ada"
        session["cart"].append(2)
        session["cart"].pop()
        session.update(lambda data: {"user": data["user"]})
    assert len(driver.calls) == 1


def test_the_first_write_of_a_new_session_costs_one_round_trip(visitor: Visitor, driver: CountingDriver) -> None:
    with visitor.request() as session:
        session["user"] = "ada"
    assert driver.calls == ["set"]


def test_destroying_costs_one_round_trip_once_loaded(ada: Visitor, driver: CountingDriver) -> None:
    with ada.request() as session:
        driver.reset()
        ada.do(session, "destroy")
    assert driver.calls == ["delete"]


def test_destroying_what_is_not_loaded_checks_the_token_first(ada: Visitor, driver: CountingDriver) -> None:
    session = ada.manager.open(ada.cookie or "", asynchronous=ada.runner is not None)
    ada.do(session, "destroy")
    assert driver.calls == ["read", "delete"]


def test_a_cookie_that_came_six_hundred_times_is_looked_up_once(ada: Visitor, driver: CountingDriver) -> None:
    cookie = ada.cookie
    with ada.request() as session:
        ada.do(session, "destroy")
    driver.reset()
    with ada.request("; ".join([cookie or ""] * 600)) as session:
        assert session.is_new
    assert len(driver.calls) == 1
    with ada.request("; ".join([cookie or ""] * 600)) as session:
        driver.reset()
        ada.do(session, "destroy")
    assert driver.calls == []


def test_an_explicit_save_is_not_written_again_at_the_end(ada: Visitor, driver: CountingDriver) -> None:
    with ada.request() as session:
        session["page"] = 1
        ada.do(session, "save")
    assert driver.calls.count("set") == 1


def test_an_empty_new_session_is_neither_stored_nor_announced(visitor: Visitor, driver: CountingDriver) -> None:
    with visitor.request() as session:
        assert session.get("user") is None
        session["user"] = "ada"
        del session["user"]
    assert driver.calls == []
    assert visitor.headers == [("Vary", "Cookie")]


def test_initial_data_alone_is_not_stored(make_manager: Callable[..., SessionManager], driver: CountingDriver) -> None:
    visitor = Visitor(make_manager(generate=lambda: {"theme": "light"}))
    with visitor.request() as session:
        assert session["theme"] == "light"
    assert driver.calls == []
    with visitor.request() as session:
        session["user"] = "ada"
    with visitor.request() as session:
        assert dict(session) == {"theme": "light", "user": "ada"}


def test_save_uninitialized_stores_and_announces_an_empty_session(
    make_manager: Callable[..., SessionManager], driver: CountingDriver
) -> None:
    visitor = Visitor(make_manager(save_uninitialized=True))
    with visitor.request() as session:
        assert session.is_new
    assert driver.calls == ["set"]
    assert visitor.cookie is not None


@pytest.mark.needs("swap")
def test_a_conflict_costs_one_more_read_and_write(ada: Visitor, driver: CountingDriver) -> None:
    with ada.request() as slow:
        slow["a"] = 1
        with ada.request() as fast:
            fast["b"] = 2
        driver.reset()
    assert driver.calls == ["set", "read", "set"]


@pytest.mark.needs("swap")
def test_a_login_costs_one_read_and_one_conditional_write(ada: Visitor, driver: CountingDriver) -> None:
    with ada.request() as session:
        session["user"] = "bob"
    assert driver.calls == ["renew" if driver.capabilities.renew else "read", "set"]


@pytest.mark.needs("swap")
def test_a_rotation_costs_one_read_and_one_conditional_write(ada: Visitor, driver: CountingDriver) -> None:
    with ada.request() as session:
        ada.do(session, "regenerate")
        session["level"] = "admin"
    assert driver.calls == ["renew" if driver.capabilities.renew else "read", "set"]


@pytest.mark.needs("swap")
def test_renewing_the_cookie_costs_one_write_and_only_when_it_is_due(
    ada: Visitor, driver: CountingDriver, clock: ManualClock
) -> None:
    def look() -> None:
        driver.reset()
        with ada.request() as session:
            assert session["user"] == "ada"

    clock.advance(99)
    look()
    assert len(driver.calls) == 1
    clock.advance(1)  # a tenth of the ttl of 1000 seconds
    look()
    assert driver.calls[1:] == ["set"]
    look()
    assert len(driver.calls) == 1


def test_a_blocking_call_on_the_event_loop_names_the_twin(make_manager: Callable[..., SessionManager]) -> None:
    manager = make_manager()

    async def main(session: Session) -> None:
        for name in ("load", "save", "reload", "destroy", "regenerate"):
            with pytest.raises(Exception, match=f"await session.a{name}\\(\\)"):
                getattr(session, name)()

    asyncio.run(main(manager.open(asynchronous=True)))


def test_valkey_itself_counts_what_the_budget_says(valkey: Valkey) -> None:
    with valkey.client() as client, closing(RedisDriver(valkey.url)) as redis:
        client.flushall()
        visitor = Visitor(SessionManager(UnstorageSessionStore(redis), SECRET))

        def cost(change: Callable[[Session], object]) -> int:
            before: Any = client.info("commandstats")
            with visitor.request() as session:
                change(session)
            after: Any = client.info("commandstats")
            ran = {name: stat["calls"] - before.get(name, {"calls": 0})["calls"] for name, stat in after.items()}
            return sum(
                count
                for name, count in ran.items()
                if name
                in (
                    "cmdstat_getex",
                    "cmdstat_get",
                    "cmdstat_set",
                    "cmdstat_del",
                    "cmdstat_unlink",
                    "cmdstat_eval",
                    "cmdstat_evalsha",
                    "cmdstat_delifeq",
                )
            )

        # The first write of all finds out what the server can do.
        for warm in ({"a": 1}, {"a": 2}):
            with visitor.request() as session:
                session.update(warm)
        assert cost(lambda session: session.get("a")) == 1
        assert cost(lambda session: session.update(a=3)) == 2
        assert cost(lambda session: session.update(user="ada")) == 2, "a login"
        assert cost(lambda session: session.regenerate()) == 2
        assert cost(lambda session: session.destroy()) == 2
        assert cost(lambda session: session.update(a=1)) == 1, "a first visit"
