"""Nothing is lost between concurrent requests."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Mapping
from typing import Any

import pytest

from session_kit import SessionManager, UnstorageSessionStore
from session_kit.drivers import Conflict, Driver
from session_kit.drivers.memory import MemoryDriver
from session_kit.drivers.s3 import S3Driver
from session_kit.drivers.support.twins import Blocking
from session_kit.testing import FaultyDriver, ManualClock, Visitor
from tests.harness.sessions import SECRET, log_in, read
from tests.harness.steps import Scene, at_every_step


def count(data: Mapping[str, Any]) -> dict[str, int]:
    return {"visits": data.get("visits", 0) + 1}


@pytest.fixture
def ada(visitor: Visitor) -> Visitor:
    return log_in(visitor, visits=0, cart=[1], seen={"home": 1})


@pytest.mark.needs("swap")
def test_two_requests_that_set_two_keys_keep_both(ada: Visitor, events: list[str]) -> None:
    with ada.request() as slow:
        slow["theme"] = "dark"
        with ada.request() as fast:
            fast["language"] = "en"
    data = read(ada)
    assert (data["theme"], data["language"]) == ("dark", "en")
    assert events.count("merged") == 1


def test_two_requests_that_run_the_same_counter_count_two(ada: Visitor) -> None:
    with ada.request() as slow:
        slow.update(count)
        with ada.request() as fast:
            fast.update(count)
    assert read(ada)["visits"] == 2


@pytest.mark.slow
@pytest.mark.parametrize("options", [{}, {"rotate_every": 100}, {"max_sessions": 2}], ids=["plain", "rotates", "owned"])
def test_of_two_threads_that_serve_a_visitor_neither_loses_what_comes_at_any_step_of_it(
    clock: ManualClock, options: dict[str, Any]
) -> None:
    store = UnstorageSessionStore(MemoryDriver(clock=clock), ttl=1000)
    ada = Visitor(SessionManager(store, SECRET, clock=clock))

    def scene() -> Scene:
        with log_in(ada, visits=0, cart=[1]).request() as session:
            if "max_sessions" in options:
                session.bind("ada")
        clock.advance(150)
        manager = SessionManager(store, SECRET, clock=clock, **options)  # anew: for both it is the first request

        def serve() -> None:
            with Visitor(manager).request(ada.cookie) as session:
                session.update(count)
                session["cart"].append(2)

        return serve, serve

    def check() -> None:
        data = read(ada)
        assert (data["visits"], data["cart"]) == (2, [1, 2, 2])

    at_every_step(scene, check=check)


def test_the_slow_request_sees_the_merged_data_after_its_save(ada: Visitor) -> None:
    with ada.request() as slow:
        slow.update(count)
        with ada.request() as fast:
            fast.update(count)
        ada.do(slow, "save")
        assert slow["visits"] == 2
        slow.update(count)
    assert read(ada)["visits"] == 3


def test_an_item_appended_in_place_survives(ada: Visitor) -> None:
    with ada.request() as session:
        session["cart"].append(2)
    assert read(ada)["cart"] == [1, 2]


def test_items_appended_in_place_by_two_requests_both_survive(ada: Visitor) -> None:
    with ada.request() as slow:
        slow["cart"].append(2)
        with ada.request() as fast:
            fast["cart"].append(3)
    assert sorted(read(ada)["cart"]) == [1, 2, 3]


def test_nested_keys_set_in_place_by_two_requests_both_survive(ada: Visitor) -> None:
    with ada.request() as slow:
        slow["seen"]["news"] = 1
        with ada.request() as fast:
            del fast["seen"]["home"]
            fast["seen"]["help"] = 1
    assert read(ada)["seen"] == {"news": 1, "help": 1}


def test_a_value_changed_in_place_after_a_save_in_the_middle_survives(ada: Visitor) -> None:
    with ada.request() as session:
        cart = session["cart"]
        cart.append(2)
        ada.do(session, "save")
        cart.append(3)
    assert read(ada)["cart"] == [1, 2, 3]


def test_a_key_deleted_by_one_request_is_not_brought_back_by_another(ada: Visitor) -> None:
    with ada.request() as slow:
        slow["theme"] = "dark"
        assert slow["cart"] == [1]
        with ada.request() as fast:
            del fast["cart"]
    assert "cart" not in read(ada)


def test_replacing_all_is_replayed_as_replacing_all(ada: Visitor) -> None:
    with ada.request() as slow:
        slow.set({"only": 1})
        with ada.request() as fast:
            fast["theme"] = "dark"
    assert read(ada) == {"only": 1}


def test_an_updater_that_spreads_all_data_does_not_overwrite_others(ada: Visitor) -> None:
    with ada.request() as slow:
        slow.update(lambda data: {**data, "visits": data["visits"] + 1})
        with ada.request() as fast:
            fast["theme"] = "dark"
    data = read(ada)
    assert (data["theme"], data["visits"]) == ("dark", 1)


def test_changes_run_again_in_the_order_in_which_they_were_made(ada: Visitor) -> None:
    with ada.request() as slow:
        slow["visits"] = 10
        slow.update(count)
        slow["cart"].append(2)
        slow.update(lambda data: {"size": len(data["cart"])})
        with ada.request() as fast:
            fast.update(count)
            fast["cart"].append(3)
    data = read(ada)
    assert data["visits"] == 11
    assert (sorted(data["cart"]), data["size"]) == ([1, 2, 3], 3)


def test_a_reload_drops_what_was_not_saved_and_sees_what_others_did(ada: Visitor) -> None:
    with ada.request() as slow:
        slow["theme"] = "dark"
        with ada.request() as fast:
            fast["language"] = "en"
        ada.do(slow, "reload")
        assert slow["language"] == "en"
        assert "theme" not in slow
    assert "theme" not in read(ada)


def test_a_request_that_raises_changes_nothing(ada: Visitor) -> None:
    with pytest.raises(ZeroDivisionError), ada.request() as session:
        session["theme"] = "dark"
        raise ZeroDivisionError
    assert "theme" not in read(ada)


@pytest.fixture
def visits(backend: Driver) -> int:
    """How many race: each has to read and write again for every one that was faster, so fewer where that is slow."""
    return 12 if isinstance(backend, S3Driver) else 32


@pytest.mark.needs("swap")
def test_many_threads_that_count_all_count(visits: int, make_manager: Callable[..., SessionManager]) -> None:
    manager = make_manager()
    visitor = Visitor(manager)
    with visitor.request() as session:
        session["visits"] = 0

    def visit() -> None:
        session = manager.open(visitor.cookie or "")
        session.update(count)
        manager.commit(session)

    threads = [threading.Thread(target=visit) for _ in range(visits)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert read(visitor)["visits"] == visits


@pytest.mark.needs("swap")
def test_many_tasks_that_count_all_count(visits: int, make_manager: Callable[..., SessionManager]) -> None:
    manager = make_manager()
    visitor = Visitor(manager)
    with visitor.request() as session:
        session["visits"] = 0

    async def visit() -> None:
        session = await manager.open(visitor.cookie or "", asynchronous=True).aload()
        await asyncio.sleep(0)
        session.update(count)
        await manager.acommit(session)

    async def main() -> None:
        await asyncio.gather(*(visit() for _ in range(visits)))

    asyncio.run(main())
    assert read(visitor)["visits"] == visits


def test_a_write_that_is_overtaken_for_ever_raises_instead_of_losing(
    backend: Driver, make_manager: Callable[..., SessionManager], runner: asyncio.Runner | None
) -> None:
    faulty = FaultyDriver(backend)
    visitor = Visitor(make_manager(store=UnstorageSessionStore(faulty)), runner)
    with visitor.request() as session:
        session["a"] = 1
    faulty.fail("set", Conflict("always somebody else"))
    with pytest.raises(Conflict, match="100 times"), visitor.request() as session:
        session["a"] = 2
    faulty.heal()
    assert read(visitor) == {"a": 1}


def test_racers_part_by_pauses_of_random_length(
    make_manager: Callable[..., SessionManager], backend: Driver, monkeypatch: pytest.MonkeyPatch
) -> None:
    pauses: list[float] = []

    async def pause(self: object, seconds: float) -> None:
        pauses.append(seconds)

    monkeypatch.setattr(Blocking, "pause", pause)
    faulty = FaultyDriver(backend)
    visitor = Visitor(make_manager(store=UnstorageSessionStore(faulty)))
    with visitor.request() as session:
        session["a"] = 1
    faulty.fail("set", Conflict("others"), times=12)
    with visitor.request() as session:
        session["a"] = 2
    assert len(pauses) == 9, "the first attempts follow at once"
    assert len(set(pauses)) == 9
    assert all(0 <= pause <= 0.016 for pause in pauses)
    assert read(visitor)["a"] == 2
