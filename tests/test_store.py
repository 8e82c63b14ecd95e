"""The store: prefix, ttl, hashed ids, versions, and the four methods that others may implement."""

from __future__ import annotations

import asyncio
import tracemalloc
from collections.abc import Iterator, Mapping
from datetime import timedelta
from typing import Any

import pytest

from session_kit import ABSENT, ConfigError, SessionManager, SessionStore, UnstorageSessionStore, open_store
from session_kit.drivers import Conflict, CorruptEntry, Driver
from session_kit.drivers.memory import MemoryDriver
from session_kit.testing import Face, ManualClock, Visitor

SECRET = "Kx7-not-for-production-but-long-enough-0123"


@pytest.fixture
def face(store: UnstorageSessionStore, runner: asyncio.Runner | None) -> Any:
    return Face(store, runner)


def test_set_get_touch_destroy(face: Any) -> None:
    assert face.get("sid") is None
    face.set("sid", {"user": "ada"})
    assert face.get("sid") == {"user": "ada"}
    assert face.touch("sid") is True
    assert face.destroy("sid") is True
    assert face.destroy("sid") is False
    assert face.touch("sid") is False
    assert face.get("sid") is None


def test_all_length_and_clear_see_this_prefix_alone(face: Any, driver: Driver, runner: asyncio.Runner | None) -> None:
    sibling = Face(UnstorageSessionStore(driver, prefix="sess2"), runner)
    for number in range(5):
        face.set(f"sid-{number}", {"n": number})
    sibling.set("other", {"n": 99})
    assert sorted(data["n"] for _, data in face.all()) == [0, 1, 2, 3, 4]
    assert face.length() == 5
    assert face.clear() == 5
    assert face.length() == 0
    assert sibling.length() == 1


def test_listing_streams(driver: Driver) -> None:
    store = UnstorageSessionStore(driver)
    for number in range(50):
        store.set(f"sid-{number}", {"n": number})
    driver.calls.clear()  # type: ignore[attr-defined]
    items = store.all()
    next(items)
    assert driver.calls.count("read") == 1  # type: ignore[attr-defined]


def test_a_touch_slides_the_expiry(face: Any, clock: ManualClock) -> None:
    face.set("sid", {"user": "ada"})
    clock.advance(900)
    face.touch("sid")
    clock.advance(900)
    assert face.get("sid") == {"user": "ada"}
    clock.advance(100)
    assert face.get("sid") is None


def test_a_read_can_renew(face: Any, clock: ManualClock) -> None:
    face.set("sid", {"user": "ada"})
    clock.advance(900)
    assert face.read("sid", renew=True).data == {"user": "ada"}
    clock.advance(900)
    assert face.read("sid").data == {"user": "ada"}


@pytest.mark.needs("swap")
def test_expect_protects_against_overwriting(face: Any) -> None:
    version = face.set("sid", {"n": 1}, expect=ABSENT)
    with pytest.raises(Conflict):
        face.set("sid", {"n": 2}, expect=ABSENT)
    record = face.read("sid")
    assert record.version == version
    face.set("sid", {"n": 3}, expect=record.version)
    with pytest.raises(Conflict):
        face.set("sid", {"n": 4}, expect=record.version)
    with pytest.raises(Conflict):
        face.destroy("sid", expect=record.version)
    assert face.get("sid") == {"n": 3}


def test_a_ttl_function_is_asked_with_the_data(
    driver: Driver, runner: asyncio.Runner | None, clock: ManualClock
) -> None:
    face = Face(UnstorageSessionStore(driver, ttl=lambda data: data["ttl"]), runner)
    face.set("short", {"ttl": 10})
    face.set("long", {"ttl": 100})
    face.set("over", {"ttl": 0})
    assert face.get("over") is None
    clock.advance(9)
    assert face.touch("short") is True
    assert face.touch("long", {"ttl": 0}) is False
    clock.advance(9)
    assert face.get("short") == {"ttl": 10}
    assert face.get("long") is None


@pytest.mark.parametrize("ttl", [604800, 604800.0, "7d", "168h", timedelta(days=7)])
def test_a_ttl_can_be_written_in_many_ways(ttl: Any) -> None:
    assert UnstorageSessionStore("memory://", ttl=ttl).ttl == 604800


def test_corrupt_data_raises_in_the_store_itself(face: Any, store: UnstorageSessionStore, driver: Driver) -> None:
    driver.set(store.key("sid"), b"\x80\x04pickle")
    with pytest.raises(CorruptEntry):
        face.get("sid")


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


class DictStore:
    """The least that a user may write: four blocking methods."""

    def __init__(self) -> None:
        self.sessions: dict[str, Any] = {}

    def get(self, sid: str) -> dict[str, Any] | None:
        return self.sessions.get(sid)

    def set(self, sid: str, data: Mapping[str, Any]) -> None:
        self.sessions[sid] = dict(data)

    def touch(self, sid: str, data: Mapping[str, Any] | None = None) -> None: ...

    def destroy(self, sid: str) -> None:
        self.sessions.pop(sid, None)


@pytest.fixture
def plain(clock: ManualClock, runner: asyncio.Runner | None) -> Visitor:
    return Visitor(SessionManager(DictStore(), SECRET, clock=clock), runner)


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
        return (f"{prefix}{number}" for number in range(100_000))


def test_counting_sessions_holds_nothing_for_each_of_them() -> None:
    store = UnstorageSessionStore(Endless())
    for count in (store.length, lambda: asyncio.run(store.alength())):
        tracemalloc.start()
        try:
            assert count() == 100_000
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
        assert peak < 400_000  # a number for each would take 800,000
