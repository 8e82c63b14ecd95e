"""The memory driver keeps the contract, frees what has expired, and never searches for it."""

from __future__ import annotations

import asyncio
import itertools
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from session_kit import ConfigError
from session_kit.drivers import Driver, memory, open_driver
from session_kit.drivers.base import LIST_BATCH
from session_kit.drivers.memory import MemoryDriver
from session_kit.testing import DriverConformance, ManualClock


class TestMemory(DriverConformance):
    title = "`memory://`"

    def open_driver(self, clock: ManualClock, tmp_path: Path) -> Driver:
        return MemoryDriver(clock=clock)


class TestBoundedMemory(DriverConformance):
    def open_driver(self, clock: ManualClock, tmp_path: Path) -> Driver:
        return MemoryDriver(max_entries=100_000, clock=clock)


def test_expired_entries_are_freed_by_later_writes() -> None:
    clock = ManualClock()
    driver = MemoryDriver(clock=clock)
    for number in range(1000):
        driver.set(f"old-{number}", b"value", ttl=10)
    clock.advance(11)  # a write frees what was due in seconds that are over
    for number in range(400):
        driver.set(f"new-{number}", b"value", ttl=10)
    assert len(driver._entries) == 400


def test_renewals_do_not_pile_up() -> None:
    clock = ManualClock()
    driver = MemoryDriver(clock=clock)
    driver.set("key", b"value", ttl=10)
    for _ in range(10_000):
        clock.advance(1)
        assert driver.renew("key", 10) is not None
    assert driver._filed == sum(map(len, driver._due.values())) == len(driver._seconds) == 1


def test_entries_made_and_deleted_do_not_pile_up() -> None:
    driver = MemoryDriver()
    for _ in range(10_000):
        driver.set("key", b"value", ttl=86400)
        driver.delete("key")
    assert driver._filed == sum(map(len, driver._due.values())) < 100


def test_one_write_never_pays_for_the_whole_backlog() -> None:
    clock = ManualClock()
    driver = MemoryDriver(clock=clock)
    for number in range(1000):
        driver.set(f"old-{number}", b"value", ttl=10)
    clock.advance(10)
    driver.set("new", b"value")
    assert len(driver._entries) > 990
    assert driver.prune() > 990
    assert list(driver._entries) == ["new"]


def test_prune_does_not_wait_for_the_second_to_be_over() -> None:
    clock = ManualClock()
    driver = MemoryDriver(clock=clock)
    driver.set("a", b"value", ttl=10.25)
    driver.set("b", b"value", ttl=10.75)
    clock.advance(10.5)
    assert driver.prune() == 1
    assert list(driver._entries) == ["b"]
    clock.advance(0.5)
    assert driver.prune() == 1
    driver.set("c", b"value", ttl=1)
    assert driver._filed == 1


def test_the_least_recently_used_goes_first() -> None:
    driver = MemoryDriver(max_entries=3)
    for key in "abc":
        driver.set(key, b"value")
    driver.get("a")
    driver.renew("b", 60)
    driver.set("d", b"value")
    assert sorted(driver.keys()) == ["a", "b", "d"]


def test_a_name_is_shared_and_no_name_is_not() -> None:
    open_driver("memory://conformance-shared").set("key", b"value")
    assert open_driver("memory://conformance-shared").get("key") == b"value"
    assert open_driver("memory://conformance-other").get("key") is None
    open_driver("memory://").set("key", b"value")
    assert open_driver("memory://").get("key") is None


def test_one_name_with_two_bounds_is_refused() -> None:
    open_driver("memory://conformance-bound?max_entries=5")
    with pytest.raises(ConfigError, match="already open with max_entries=5"):
        open_driver("memory://conformance-bound?max_entries=6")


@pytest.mark.parametrize("url", ["memory://?max_entries=0", "memory://a/b", "memory://?max_entries=many"])
def test_a_url_that_cannot_work_is_refused(url: str) -> None:
    with pytest.raises(ConfigError):
        open_driver(url)


def pruned_in_batches() -> tuple[MemoryDriver, int]:
    """A driver with expired entries for several batches, and how many of them."""
    clock, batches = ManualClock(), 5
    driver = MemoryDriver(clock=clock)
    for number in range(batches * LIST_BATCH):
        driver.set(f"old-{number}", b"value", ttl=10)
    clock.advance(10)
    return driver, batches


def test_prune_lets_other_threads_write_between_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    driver, batches = pruned_in_batches()
    pauses: list[int] = []

    def pause(seconds: float) -> None:
        assert seconds == 0
        assert not driver._lock.locked()
        pauses.append(len(driver._entries))

    monkeypatch.setattr("session_kit.drivers.memory.time.sleep", pause)
    assert driver.prune() == batches * LIST_BATCH
    assert pauses == [left * LIST_BATCH for left in reversed(range(batches))]


@pytest.mark.parametrize("method", ["aprune", "aclear"])
def test_aprune_and_aclear_let_other_tasks_run_between_batches(method: str) -> None:
    driver, batches = pruned_in_batches()
    if method == "aclear":
        driver.prune()
        driver.set_many({f"live-{number}": b"value" for number in range(batches * LIST_BATCH)})
    left: list[int] = []

    async def look() -> None:
        while driver._entries:
            left.append(len(driver._entries))
            await asyncio.sleep(0)

    async def main() -> int:
        _, count = await asyncio.gather(look(), getattr(driver, method)())
        return int(count)

    assert asyncio.run(main()) == batches * LIST_BATCH
    steps = [before - after for before, after in itertools.pairwise(left)]
    assert len(steps) >= batches - 2
    assert max(steps) <= LIST_BATCH


NAMES = st.integers(0, 30).map(str)


@given(
    st.lists(NAMES, unique=True, min_size=10),
    st.lists(st.lists(st.tuples(st.sampled_from(["set", "delete"]), NAMES), max_size=3), max_size=30),
)
def test_a_walk_misses_nobody_while_others_come_and_go(
    names: list[str], meanwhile: list[list[tuple[str, str]]]
) -> None:
    driver = MemoryDriver()
    for name in names:
        driver.set(name, b"value")
    steady, walked = set(names), list[str]()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(memory, "PAGE", 7)
        for page in driver._pages():
            walked += page
            for what, name in meanwhile.pop() if meanwhile else ():
                steady.discard(name) if what == "delete" else None
                driver.set(name, b"value") if what == "set" else driver.delete(name)
    assert steady <= set(walked)
    assert all(walked.count(name) == 1 for name in steady)


def test_a_walk_copies_one_page_of_the_names() -> None:
    driver = MemoryDriver()
    for number in range(2 * memory.PAGE + 1):
        driver.set(f"{number}", b"value")
    assert [len(page) for page in driver._pages()] == [memory.PAGE, memory.PAGE, 1]
    assert driver.clear() == 2 * memory.PAGE + 1
    assert list(driver.keys()) == []
