"""The store: prefix, ttl, hashed ids, versions, and the four methods that others may implement."""

from __future__ import annotations

import asyncio
import logging
import tracemalloc
from collections.abc import Callable, Iterator
from datetime import timedelta
from hashlib import sha256
from typing import Any

import pytest

from session_kit import (
    ABSENT,
    ConfigError,
    SessionError,
    SessionManager,
    SessionStore,
    UnstorageSessionStore,
    open_store,
)
from session_kit.drivers import Conflict, CorruptEntry, Driver
from session_kit.drivers.memory import MemoryDriver
from session_kit.drivers.support.twins import Blocking, Native, run
from session_kit.record import RESERVED, Notes, hash_id
from session_kit.testing import Caller, CountingDriver, ManualClock, Visitor
from session_kit.testing.faults import WrappedDriver
from tests.harness.sessions import SECRET, PlainStore


@pytest.fixture
def caller(store: UnstorageSessionStore, runner: asyncio.Runner | None) -> Any:
    return Caller(store, runner)


def test_set_get_touch_destroy(caller: Any) -> None:
    assert caller.get("sid") is None
    caller.set("sid", {"user": "ada"})
    assert caller.get("sid") == {"user": "ada"}
    assert caller.touch("sid") is True
    assert caller.destroy("sid") is True
    assert caller.destroy("sid") is False
    assert caller.touch("sid") is False
    assert caller.get("sid") is None


def test_all_length_and_clear_see_this_prefix_alone(caller: Any, driver: Driver, runner: asyncio.Runner | None) -> None:
    sibling = Caller(UnstorageSessionStore(driver, prefix="sess2"), runner)
    for number in range(5):
        caller.set(f"sid-{number}", {"n": number})
    sibling.set("other", {"n": 99})
    assert sorted(data["n"] for _, data in caller.all()) == [0, 1, 2, 3, 4]
    assert caller.length() == 5
    assert caller.clear() == 5
    assert caller.length() == 0
    assert sibling.length() == 1


PREFIXES = ["shop", "shop:admin", "shop:", "shop:admin:eu", "shop%3Aadmin"]
NAMES = ["a", "admin:a", ":", "a%3Ab", "%", "%25", "eu:a", "a:b", "", "\n", "*[a]?", "a" * 64]


@pytest.mark.parametrize("hash_ids", [True, False])
def test_prefixes_that_begin_alike_are_apart(driver: Driver, runner: asyncio.Runner | None, hash_ids: bool) -> None:
    callers = {
        prefix: Caller(UnstorageSessionStore(driver, prefix=prefix, hash_ids=hash_ids), runner) for prefix in PREFIXES
    }
    for prefix, caller in callers.items():
        for name in NAMES:
            caller.set(name, {"at": [prefix, name]})
    for prefix, caller in callers.items():
        for name in NAMES:
            assert caller.get(name) == {"at": [prefix, name]}
        listed = dict(caller.all())
        assert sorted(data["at"] for data in listed.values()) == sorted([prefix, name] for name in NAMES)
        assert set(listed) == {hash_id(name) if hash_ids else name for name in NAMES}
        assert caller.length() == len(NAMES)
    assert callers["shop"].clear() == len(NAMES)
    for prefix, caller in callers.items():
        assert caller.length() == (0 if prefix == "shop" else len(NAMES))


def test_a_key_is_what_people_look_for_with_redis_cli() -> None:
    store = UnstorageSessionStore("memory://")
    assert store.key("name~token") == store.key("name") == f"sess:{sha256(b'name').hexdigest()}"
    assert UnstorageSessionStore("memory://", hash_ids=False).key("name~token") == "sess:name"


@pytest.mark.parametrize("hash_ids", [True, False])
def test_clear_by_pages_leaves_what_is_not_ours(hash_ids: bool, runner: asyncio.Runner | None) -> None:
    driver = MemoryDriver()
    caller = Caller(UnstorageSessionStore(driver, hash_ids=hash_ids), runner)
    others = [f"sess:other:{number}" for number in range(1500)]
    for number in range(2500):
        caller.set(str(number), {})
    driver.set_many(dict.fromkeys(others, b""))
    assert caller.clear() == 2500
    assert sorted(driver.keys()) == sorted(others)


@pytest.mark.parametrize("hash_ids", [True, False])
def test_a_listing_goes_on_behind_a_record_that_cannot_be_read(
    driver: Driver, runner: asyncio.Runner | None, caplog: pytest.LogCaptureFixture, hash_ids: bool
) -> None:
    store = UnstorageSessionStore(driver, hash_ids=hash_ids)
    caller = Caller(store, runner)
    for name in "abcdef":
        caller.set(name, {"n": name})
    driver.set(store.key("b"), b"\x80\x04pickle of a secret")
    driver.set(store.key("c"), b'{"a":' + b"[" * 1_000_000)  # deeper than any Python goes
    with caplog.at_level(logging.WARNING, "session_kit"):
        assert sorted(data["n"] for _, data in caller.all()) == ["a", "d", "e", "f"]
    lines = sorted(record.getMessage() for record in caplog.records)
    assert lines == sorted(
        f"session {hash_id(name)} is left out, it cannot be read: {error}"
        for name, error in (("b", "CorruptEntry"), ("c", "RecursionError"))
    )


# --- ids of two halves ---


@pytest.fixture
def timed(driver: Driver, clock: ManualClock, runner: asyncio.Runner | None) -> Any:
    return Caller(UnstorageSessionStore(driver, ttl=1000, clock=clock), runner)


def notes_of(caller: Any, name: str) -> Notes:
    notes = caller.read(name).notes
    assert notes is not None
    return notes


def test_a_token_opens_only_the_record_that_it_stands_in(timed: Any) -> None:
    timed.set("name~new", {"user": "ada"})
    assert timed.get("name~new") == timed.get("name") == {"user": "ada"}
    assert timed.read("name~new", renew=True).data == {"user": "ada"}
    assert timed.touch("name~new") is True
    for sid in ("name~old", "name~new2", "name~new~"):
        assert timed.get(sid) is None
        assert timed.read(sid) is None
        assert timed.read(sid, renew=True) is None
        assert timed.touch(sid) is False
        assert timed.touch(sid, {"user": "ada"}) is False
        assert timed.destroy(sid) is False
    assert timed.get("name") == {"user": "ada"}
    assert timed.destroy("name~new") is True
    assert timed.destroy("name~new") is False
    assert timed.get("name") is None


def test_a_record_of_another_program_is_found_by_its_name_and_by_no_token(timed: Any) -> None:
    timed.set("name", {"user": "ada"})
    assert timed.get("name~token") is None
    assert timed.destroy("name~token") is False
    with pytest.raises(Conflict, match="the id was replaced by a rotation"):
        timed.set("name~token", {"user": "eve"})
    assert timed.get("name") == {"user": "ada"}


def test_a_new_record_gets_notes_and_a_later_write_keeps_them(timed: Any, clock: ManualClock) -> None:
    timed.set("name~token", {"n": 1})
    made = notes_of(timed, "name")
    assert made == Notes(created=clock(), token="token")
    clock.advance(100)
    timed.set("name~token", {"n": 2})
    assert notes_of(timed, "name") == made
    assert timed.get("name~token") == {"n": 2}


def test_a_write_by_an_id_that_a_rotation_replaced_is_a_conflict_and_writes_nothing(timed: Any) -> None:
    timed.set("name~new", {"user": "ada"})
    for options in ({}, {"ttl": 5}):
        with pytest.raises(Conflict, match="the id was replaced by a rotation"):
            timed.set("name~old", {"user": "eve"}, **options)
    assert timed.get("name~new") == {"user": "ada"}
    timed.set("name~old", {"user": "eve"}, ttl=0)
    assert timed.get("name~new") == {"user": "ada"}
    timed.set("name~new", {"user": "ada"}, ttl=0)
    assert timed.get("name~new") is None


@pytest.mark.needs("swap")
def test_expect_counts_beside_the_token(timed: Any, clock: ManualClock) -> None:
    version = timed.set("name~token", {"n": 1}, expect=ABSENT)
    with pytest.raises(Conflict):
        timed.set("name~token", {"n": 2}, expect=ABSENT)
    newer = timed.set("name~token", {"n": 3}, expect=version)
    with pytest.raises(Conflict):
        timed.set("name~token", {"n": 4}, expect=version)
    with pytest.raises(Conflict):
        timed.destroy("name~token", expect=version)
    assert timed.get("name~token") == {"n": 3}
    assert timed.destroy("name~token", expect=newer) is True
    with pytest.raises(Conflict):
        timed.set("name~token", {"n": 5}, expect=newer)
    assert timed.get("name") is None


@pytest.mark.parametrize("key", ["$", "\ud800", 5])
def test_a_key_that_is_not_the_applications_is_refused(timed: Any, key: Any) -> None:
    with pytest.raises(SessionError, match="session key"):
        timed.set("name~token", {key: {"token": "mine"}})
    assert timed.get("name") is None


class Overtaken(WrappedDriver):
    """Does something else before a write, as often as it is told."""

    def __init__(self, driver: Driver, meddle: Callable[[], object], times: int) -> None:
        super().__init__(driver)
        self.meddle, self.times = meddle, times

    def before(self, name: str) -> None:
        if name == "set" and self.times:
            self.times -= 1
            self.meddle()


class Impatient(UnstorageSessionStore):
    def __init__(self, driver: Driver) -> None:
        super().__init__(driver)
        self.pauses: list[float] = []
        for caller in (self.blocking, self.native):
            caller.pause = self.pause  # type: ignore[method-assign]

    async def pause(self, seconds: float) -> None:
        self.pauses.append(seconds)


def test_a_write_that_is_overtaken_keeps_the_newest_notes_and_loses_to_a_rotation(
    runner: asyncio.Runner | None,
) -> None:
    driver = MemoryDriver()
    other = UnstorageSessionStore(driver)

    def note(renewed: float, half: str = "token") -> None:
        fields = {RESERVED: other.codec.encode(Notes(1.0, renewed, half))}
        other.put("name", fields, ttl=None)

    note(1.0)
    store = Impatient(Overtaken(driver, lambda: note(2.0), 2))
    Caller(store, runner).set("name~token", {"n": 1})
    assert notes_of(other, "name") == Notes(1.0, 2.0, "token")
    assert other.get("name~token") == {"n": 1}
    assert len(store.pauses) == 2

    with pytest.raises(Conflict, match="replaced by a rotation"):
        Caller(Impatient(Overtaken(driver, lambda: note(3.0, "newer"), 1)), runner).set("name~token", {"n": 2})
    assert notes_of(other, "name") == Notes(1.0, 3.0, "newer")

    other.clear()
    with pytest.raises(Conflict, match="replaced by a rotation"):
        Caller(Impatient(Overtaken(driver, lambda: note(4.0, "theirs"), 1)), runner).set("name~token", {"n": 3})

    version = Caller(other, runner).read("name").version
    for expect in (version, ABSENT):
        store = Impatient(Overtaken(driver, lambda: note(4.0, "theirs"), 1))
        with pytest.raises(Conflict):
            Caller(store, runner).set("name~theirs", {"n": 3}, expect=expect)
        assert store.pauses == []

    note(5.0)
    store = Impatient(Overtaken(driver, lambda: note(6.0), 10**6))
    with pytest.raises(Conflict, match="20 writes in a row were overtaken"):
        Caller(store, runner).set("name~token", {"n": 4})
    assert len(store.pauses) <= 20
    assert sum(store.pauses) < 1


def test_reading_by_a_name_takes_one_call_and_so_does_reading_by_an_id(driver: CountingDriver, timed: Any) -> None:
    timed.set("name~token", {"n": 1})
    for sid in ("name", "name~token", "name~old"):
        driver.reset()
        timed.read(sid)
        assert driver.calls == ["read"]


@pytest.mark.needs("create")
def test_a_new_session_takes_one_call_if_it_is_said_to_be_new(driver: CountingDriver, timed: Any) -> None:
    driver.reset()
    timed.set("name~token", {"n": 1}, expect=ABSENT)
    assert driver.calls == ["set"]


def test_listing_streams(driver: Driver) -> None:
    store = UnstorageSessionStore(driver)
    for number in range(50):
        store.set(f"sid-{number}", {"n": number})
    driver.calls.clear()  # type: ignore[attr-defined]
    items = store.all()
    next(items)
    assert driver.calls.count("read") == 1  # type: ignore[attr-defined]


def test_a_touch_slides_the_expiry(caller: Any, clock: ManualClock) -> None:
    caller.set("sid", {"user": "ada"})
    clock.advance(900)
    caller.touch("sid")
    clock.advance(900)
    assert caller.get("sid") == {"user": "ada"}
    clock.advance(100)
    assert caller.get("sid") is None


def test_a_read_can_renew(caller: Any, clock: ManualClock) -> None:
    caller.set("sid", {"user": "ada"})
    clock.advance(900)
    assert caller.read("sid", renew=True).data == {"user": "ada"}
    clock.advance(900)
    assert caller.read("sid").data == {"user": "ada"}


@pytest.mark.needs("swap")
def test_expect_protects_against_overwriting(caller: Any) -> None:
    version = caller.set("sid", {"n": 1}, expect=ABSENT)
    with pytest.raises(Conflict):
        caller.set("sid", {"n": 2}, expect=ABSENT)
    record = caller.read("sid")
    assert record.version == version
    caller.set("sid", {"n": 3}, expect=record.version)
    with pytest.raises(Conflict):
        caller.set("sid", {"n": 4}, expect=record.version)
    with pytest.raises(Conflict):
        caller.destroy("sid", expect=record.version)
    assert caller.get("sid") == {"n": 3}


def test_a_ttl_function_is_asked_with_the_data(
    driver: Driver, runner: asyncio.Runner | None, clock: ManualClock
) -> None:
    caller = Caller(UnstorageSessionStore(driver, ttl=lambda data: data["ttl"]), runner)
    caller.set("short", {"ttl": 10})
    caller.set("long", {"ttl": 100})
    caller.set("over", {"ttl": 0})
    assert caller.get("over") is None
    clock.advance(9)
    assert caller.touch("short") is True
    assert caller.touch("long", {"ttl": 0}) is False
    clock.advance(9)
    assert caller.get("short") == {"ttl": 10}
    assert caller.get("long") is None


@pytest.mark.parametrize("ttl", [604800, 604800.0, "7d", "168h", timedelta(days=7)])
def test_a_ttl_can_be_written_in_many_ways(ttl: Any) -> None:
    assert UnstorageSessionStore("memory://", ttl=ttl).ttl == 604800


def test_corrupt_data_raises_in_the_store_itself(caller: Any, store: UnstorageSessionStore, driver: Driver) -> None:
    driver.set(store.key("sid"), b"\x80\x04pickle")
    with pytest.raises(CorruptEntry):
        caller.get("sid")


def test_a_url_splits_into_store_and_driver_options() -> None:
    store = open_store("memory://?prefix=shop&ttl=7d&max_entries=5")
    assert (store.prefix, store.ttl) == ("shop", 604800)
    assert isinstance(store.driver, MemoryDriver)
    assert store.driver.max_entries == 5


def test_a_driver_that_was_handed_in_is_not_closed() -> None:
    closed = []

    class Watched(MemoryDriver):
        def close(self) -> None:
            closed.append(True)

    UnstorageSessionStore(Watched()).close()
    assert closed == []


@pytest.mark.parametrize("prefix", ["", None, 5])
def test_a_prefix_that_keeps_nobody_apart_is_refused(prefix: Any) -> None:
    with pytest.raises(ConfigError, match="prefix"):
        UnstorageSessionStore("memory://", prefix=prefix)


@pytest.fixture
def plain(clock: ManualClock, runner: asyncio.Runner | None) -> Visitor:
    return Visitor(SessionManager(PlainStore(), SECRET, clock=clock), runner)


def test_any_object_with_the_four_methods_is_a_store(plain: Visitor) -> None:
    assert isinstance(plain.manager.store, SessionStore)
    with plain.request() as session:
        session["user"] = "ada"
    with plain.request() as session:
        session["cart"] = [1]
        plain.do(session, "regenerate")
    with plain.request() as session:
        assert dict(session) == {"user": "ada", "cart": [1]}
        plain.do(session, "destroy")
    assert plain.cookie is None


def test_on_a_plain_store_two_requests_still_keep_two_keys(plain: Visitor) -> None:
    with plain.request() as session:
        session["user"] = "ada"
    with plain.request() as slow:
        slow["a"] = 1
        with plain.request() as fast:
            fast["b"] = 2
    with plain.request() as session:
        assert dict(session) == {"user": "ada", "a": 1, "b": 2}


def test_on_a_plain_store_a_logout_still_wins(plain: Visitor) -> None:
    for overlap in ("nothing", "regenerate"):
        with plain.request() as session:
            session["user"] = "ada"
        with plain.request() as slow:
            slow["a"] = overlap
            if overlap == "regenerate":
                plain.do(slow, "regenerate")
            with plain.request() as fast:
                plain.do(fast, "destroy")
        assert plain.manager.store.sessions == {}


def test_an_object_without_the_methods_is_refused_at_start() -> None:
    with pytest.raises(ConfigError, match="no method touch, destroy"):
        SessionManager(type("Half", (), {"get": print, "set": print})(), SECRET)


class Endless(Driver):
    """Names keys without holding any."""

    def keys(self, prefix: str = "") -> Iterator[str]:
        return (f"{prefix}{number:064x}" for number in range(100_000))


def test_counting_sessions_holds_nothing_for_each_of_them() -> None:
    store = UnstorageSessionStore(Endless())
    for count in (store.length, lambda: asyncio.run(store.alength())):
        tracemalloc.start()
        try:
            assert count() == 100_000
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
        assert peak < 600_000  # a number for each would take 800,000


def test_a_pause_of_the_blocking_face_never_suspends_and_that_of_the_native_one_lets_others_run() -> None:
    assert run(Blocking(MemoryDriver()).pause(0)) is None  # type: ignore[func-returns-value]
    order: list[str] = []

    async def other() -> None:
        order.append("other")

    async def waits() -> None:
        task = asyncio.ensure_future(other())
        await Native(MemoryDriver()).pause(0)
        order.append("waited")
        await task

    asyncio.run(waits())
    assert order == ["other", "waited"]


def test_a_store_of_coroutines_is_refused_at_start_and_not_with_the_first_session() -> None:
    class Coroutines(PlainStore):
        async def get(self, sid: str) -> dict[str, Any] | None:  # type: ignore[override]  # the mistake
            return None

    with pytest.raises(
        ConfigError, match=r"Coroutines\.get is a coroutine function: name it aget, beside a blocking get"
    ):
        SessionManager(Coroutines(), SECRET)
