"""The contract of `drivers/base.py` as tests that any driver author can run, with pytest and hypothesis."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from session_kit.drivers import ABSENT, Conflict, Driver, Unsupported
from session_kit.testing.caller import Caller
from session_kit.testing.clock import ManualClock

MIB = 1024 * 1024

HOSTILE_KEYS = [
    "../up",
    "/etc/passwd",
    "..",
    ".",
    "a/../../b",
    "a//b",
    "trailing/",
    "c:\\windows",
    "a:b",
    "*",
    "?",
    "[a]",
    "a%",
    "a_",
    "%2e%2e%2f",
    "nul\0inside",
    "new\nline",
    " spaces around ",
    "tab\t",
    "'; DROP TABLE Cache; --",
    "$HOME",
    "~",
    "-rf",
    "#fragment",
    "name",
    "NAME",
    "Name",
    "caf\u00e9",
    "cafe\u0301",
    "\U0001f36a",
    "\uffff",
    "con",
    "\x7f",
    "k" * 512,
    "\u20ac" * 170 + "xx",
]

WRONG_TTLS: list[Any] = [0, -1, 0.0, True, False, float("nan"), float("inf"), float("-inf"), "60"]
WRONG_KEYS: list[tuple[Any, type[Exception]]] = [
    ("", ValueError),
    ("k" * 513, ValueError),
    ("\u20ac" * 171, ValueError),
    ("lone\ud800", ValueError),
    (b"bytes", TypeError),
    (None, TypeError),
    (5, TypeError),
]

KEYS = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=60).filter(
    lambda key: len(key.encode()) <= 500
)

check = settings(
    max_examples=25,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.differing_executors],
)

OTHER_PROCESS = """
import sys
from session_kit.drivers import Conflict, open_driver

driver = open_driver(sys.argv[1])
for _ in range(int(sys.argv[2])):
    for _ in range(10_000):
        entry = driver.read("counter")
        try:
            driver.set("counter", b"%d" % (int(entry.value) + 1), expect=entry.version)
            break
        except Conflict:
            pass
    else:
        sys.exit("all swaps met a conflict")
print(driver.get("counter") is not None)
"""


class Suite:
    """What the parts of the suite share: a driver on an empty store, and what calls it, blocking and async."""

    title = ""
    """What the driver is called in a report."""
    racers = 16
    """How many compete in a race; fewer where the backend is slow."""
    many = 2500
    """How many entries a long listing has; fewer where the backend is slow, but more than one page of it."""
    clock: ManualClock

    def open_driver(self, clock: ManualClock, tmp_path: Path) -> Driver:
        """Return a new driver on an empty store."""
        raise NotImplementedError("say how to open the driver")

    def url(self, tmp_path: Path) -> str | None:
        """Return a URL by which another process opens the same store; needed where `capabilities.shared`."""
        return None

    def pass_time(self, seconds: float) -> None:
        """Let `seconds` go by. Override where the backend has a clock of its own."""
        self.clock.advance(seconds)

    # --- fixtures ---

    @pytest.fixture
    def driver(self, tmp_path: Path) -> Iterator[Driver]:
        self.clock = ManualClock()
        driver = self.open_driver(self.clock, tmp_path)
        yield driver
        driver.close()

    @pytest.fixture(params=["blocking", "async"])
    def caller(self, request: pytest.FixtureRequest, driver: Driver) -> Iterator[Any]:
        if request.param == "blocking":
            yield Caller(driver, None)
        else:
            with asyncio.Runner() as runner:
                yield Caller(driver, runner)
                runner.run(driver.aclose())

    @pytest.fixture
    def creates(self, driver: Driver) -> None:
        if not driver.capabilities.create:
            pytest.skip("capabilities.create is False")  # not claimed, so not asked for

    @pytest.fixture
    def swaps(self, driver: Driver) -> None:
        if not driver.capabilities.swap:
            pytest.skip("capabilities.swap is False")  # not claimed, so not asked for


class Expiry(Suite):
    """What is missing and what has expired are the same, and are seen nowhere; the rules for a time to live."""

    def test_a_missing_key_is_missing_everywhere(self, caller: Any) -> None:
        assert caller.read("key") is None
        assert caller.get("key") is None
        assert caller.has("key") is False
        assert caller.renew("key", 60) is None
        assert caller.touch("key", 60) is False
        assert caller.delete("key") is False
        assert caller.get_many(["key"]) == {}
        assert list(caller.keys()) == []

    def test_an_expired_key_is_seen_nowhere(self, caller: Any) -> None:
        def expired() -> None:
            caller.set("key", b"value", ttl=10)
            self.pass_time(10)

        expired()
        assert caller.read("key") is None
        assert caller.get("key") is None
        assert caller.has("key") is False
        assert caller.get_many(["key"]) == {}
        assert list(caller.keys()) == []
        assert caller.renew("key", 60) is None
        assert caller.touch("key", None) is False
        assert caller.read("key") is None
        assert caller.delete("key") is False
        expired()
        assert caller.clear() == 0

    def test_an_expired_key_can_be_created_again(self, caller: Any, creates: None) -> None:
        caller.set("key", b"old", ttl=10)
        self.pass_time(10)
        caller.set("key", b"new", expect=ABSENT)
        assert caller.get("key") == b"new"

    def test_the_version_of_an_expired_key_conflicts(self, caller: Any, swaps: None) -> None:
        version = caller.set("key", b"old", ttl=10)
        self.pass_time(10)
        with pytest.raises(Conflict):
            caller.set("key", b"new", expect=version)
        assert caller.read("key") is None

    @pytest.mark.parametrize("ttl", WRONG_TTLS)
    def test_a_wrong_ttl_is_refused_before_anything_is_written(self, caller: Any, ttl: Any) -> None:
        with pytest.raises(ValueError, match="ttl"):
            caller.set("new", b"value", ttl=ttl)
        with pytest.raises(ValueError, match="ttl"):
            caller.set_many({"new": b"value"}, ttl=ttl)
        caller.set("key", b"value", ttl=100)
        with pytest.raises(ValueError, match="ttl"):
            caller.set("key", b"other", ttl=ttl)
        with pytest.raises(ValueError, match="ttl"):
            caller.touch("key", ttl)
        with pytest.raises(ValueError, match="ttl"):
            caller.renew("key", ttl)
        assert caller.get("key") == b"value"
        assert caller.has("new") is False

    def test_fractions_of_a_second_count(self, caller: Any) -> None:
        caller.set("key", b"value", ttl=2.5)
        self.pass_time(2.25)
        assert caller.has("key")
        self.pass_time(0.25)
        assert not caller.has("key")

    def test_without_a_ttl_a_key_is_kept_for_ever(self, caller: Any) -> None:
        caller.set("key", b"value")
        self.pass_time(10**9)
        assert caller.get("key") == b"value"

    def test_a_set_without_a_ttl_drops_an_old_one(self, caller: Any) -> None:
        caller.set("key", b"value", ttl=10)
        caller.set("key", b"other")
        self.pass_time(1000)
        assert caller.get("key") == b"other"

    def test_a_touch_gives_a_new_ttl_and_keeps_the_value(self, caller: Any) -> None:
        caller.set("key", b"value", ttl=10)
        self.pass_time(8)
        assert caller.touch("key", 10) is True
        self.pass_time(8)
        assert caller.get("key") == b"value"
        assert caller.touch("key", 1) is True
        self.pass_time(1)
        assert caller.get("key") is None

    def test_a_touch_without_a_ttl_keeps_for_ever(self, caller: Any) -> None:
        caller.set("key", b"value", ttl=10)
        assert caller.touch("key", None) is True
        self.pass_time(1000)
        assert caller.get("key") == b"value"
        assert caller.touch("key", None) is True

    def test_a_renewal_reads_and_slides_the_expiry(self, caller: Any) -> None:
        version = caller.set("key", b"value", ttl=10)
        for _ in range(5):
            self.pass_time(8)
            entry = caller.renew("key", 10)
            assert entry.value == b"value"
        if caller.target.capabilities.renew:
            assert entry.version == version
        if entry.expires_at is not None:
            assert entry.expires_at == pytest.approx(self.clock() + 10, abs=1)
        self.pass_time(10)
        assert caller.read("key") is None

    def test_the_expiry_is_told_where_it_is_known(self, caller: Any) -> None:
        caller.set("key", b"value", ttl=100)
        caller.set("forever", b"value")
        expires_at = caller.read("key").expires_at
        assert expires_at is None or expires_at == pytest.approx(self.clock() + 100, abs=2)
        assert caller.read("forever").expires_at is None

    def test_a_set_can_shorten_what_is_left(self, caller: Any) -> None:
        caller.set("key", b"1", ttl=100)
        caller.set("key", b"2", ttl=10)
        self.pass_time(10)
        assert caller.has("key") is False

    @pytest.mark.parametrize("days", [31, 400, 4000])
    def test_a_long_ttl_is_no_short_one(self, caller: Any, days: int) -> None:
        ttl = days * 86_400
        caller.set("set", b"1", ttl=ttl)
        for name in ("touch", "renew"):
            caller.set(name, b"1", ttl=5)
            getattr(caller, name)(name, ttl)
        self.pass_time(6)
        for name in ("set", "touch", "renew"):
            entry = caller.read(name)
            assert entry is not None, name
            assert entry.expires_at in (None, pytest.approx(self.clock() + ttl - 6, abs=30)), name

    def test_pruning_removes_what_has_expired_and_nothing_else(self, caller: Any) -> None:
        for number in range(20):
            caller.set(f"old-{number}", b"value", ttl=10)
        caller.set("young", b"value", ttl=100)
        caller.set("forever", b"value")
        self.pass_time(10)
        assert 0 <= caller.prune() <= 20
        assert caller.prune() == 0
        assert sorted(caller.keys()) == ["forever", "young"]


class Conditions(Suite):
    """Writes that expect an absence or a version: of all who race, one wins."""

    def test_creating_only_creates(self, caller: Any, creates: None) -> None:
        caller.set("key", b"first", expect=ABSENT)
        with pytest.raises(Conflict):
            caller.set("key", b"second", expect=ABSENT, ttl=1)
        self.pass_time(5)
        assert caller.get("key") == b"first"

    def test_a_version_only_replaces_what_was_read(self, caller: Any, swaps: None) -> None:
        first = caller.set("key", b"1")
        assert caller.read("key").version == first
        second = caller.set("key", b"2", expect=first)
        assert caller.read("key").version == second
        with pytest.raises(Conflict):
            caller.set("key", b"3", expect=first)
        assert caller.get("key") == b"2"
        caller.set("key", b"4")
        with pytest.raises(Conflict):
            caller.set("key", b"5", expect=second)
        assert caller.get("key") == b"4"

    def test_a_creation_sets_the_ttl_and_tells_the_version(self, caller: Any, creates: None) -> None:
        version = caller.set("key", b"1", ttl=10, expect=ABSENT)
        if caller.target.capabilities.swap:
            assert caller.read("key").version == version
        self.pass_time(10)
        assert caller.has("key") is False

    def test_a_refused_swap_leaves_the_ttl(self, caller: Any, swaps: None) -> None:
        old = caller.set("key", b"1", ttl=100)
        caller.set("key", b"2", ttl=10)
        with pytest.raises(Conflict):
            caller.set("key", b"3", ttl=1000, expect=old)
        self.pass_time(10)
        assert caller.has("key") is False

    def test_the_version_of_a_deleted_key_conflicts(self, caller: Any, swaps: None) -> None:
        version = caller.set("key", b"1")
        caller.delete("key")
        with pytest.raises(Conflict):
            caller.set("key", b"2", expect=version)
        assert caller.has("key") is False
        caller.set("key", b"again")
        with pytest.raises(Conflict):
            caller.set("key", b"2", expect=version)
        assert caller.get("key") == b"again"

    def test_a_delete_can_expect_a_version(self, caller: Any, swaps: None) -> None:
        old = caller.set("key", b"1")
        new = caller.set("key", b"2")
        with pytest.raises(Conflict):
            caller.delete("key", expect=old)
        assert caller.has("key")
        assert caller.delete("key", expect=new) is True
        with pytest.raises(Conflict):
            caller.delete("key", expect=new)

    def test_a_swap_sets_the_ttl(self, caller: Any, swaps: None) -> None:
        version = caller.set("key", b"1", ttl=10)
        version = caller.set("key", b"2", ttl=100, expect=version)
        self.pass_time(50)
        assert caller.get("key") == b"2"
        version = caller.set("key", b"3", expect=version)
        self.pass_time(10**6)
        assert caller.get("key") == b"3"
        caller.set("key", b"4", ttl=10, expect=version)
        self.pass_time(10)
        assert caller.has("key") is False

    def test_a_touch_or_renewal_does_not_make_a_concurrent_write_fail(self, caller: Any, swaps: None) -> None:
        if not caller.target.capabilities.renew:
            pytest.skip("capabilities.renew is False")  # not claimed, so not asked for
        version = caller.set("key", b"1", ttl=10)
        caller.renew("key", 20)
        caller.touch("key", 30)
        caller.set("key", b"2", expect=version)
        assert caller.get("key") == b"2"

    def test_what_is_not_supported_is_refused_before_any_write(self, caller: Any) -> None:
        capabilities = caller.target.capabilities
        if not capabilities.create:
            with pytest.raises(Unsupported):
                caller.set("key", b"value", expect=ABSENT)
        if not capabilities.swap:
            with pytest.raises(Unsupported):
                caller.set("key", b"value", expect="version")
            with pytest.raises(Unsupported):
                caller.delete("key", expect="version")
        assert caller.has("key") is False

    def test_of_many_racers_one_creates(self, caller: Any, creates: None) -> None:
        outcomes = race(caller, self.racers, lambda number: ("set", ("key", b"%d" % number), {"expect": ABSENT}))
        assert sorted(outcomes) == [False] * (self.racers - 1) + [True]
        assert caller.get("key") == b"%d" % outcomes.index(True)

    def test_of_many_racers_one_replaces_a_version(self, caller: Any, swaps: None) -> None:
        version = caller.set("key", b"start")
        outcomes = race(caller, self.racers, lambda number: ("set", ("key", b"%d" % number), {"expect": version}))
        assert sorted(outcomes) == [False] * (self.racers - 1) + [True]
        assert caller.get("key") == b"%d" % outcomes.index(True)

    def test_of_many_racers_one_deletes_a_version(self, caller: Any, swaps: None) -> None:
        version = caller.set("key", b"start")
        outcomes = race(caller, self.racers, lambda number: ("delete", ("key",), {"expect": version}))
        assert outcomes.count(True) == 1
        assert caller.has("key") is False

    def test_counting_by_swaps_loses_nothing(self, driver: Driver, swaps: None) -> None:
        driver.set("counter", b"0")

        def count() -> None:
            for _ in range(5):
                for _ in range(10_000):
                    entry = driver.read("counter")
                    assert entry is not None
                    with suppress(Conflict):
                        driver.set("counter", b"%d" % (int(entry.value) + 1), expect=entry.version)
                        break
                else:
                    pytest.fail("all swaps met a conflict")

        in_threads([count] * 8)
        assert driver.get("counter") == b"40"


class Keys(Suite):
    """Any key comes back unchanged, and a prefix is taken literally."""

    def test_hostile_keys_come_back_unchanged_and_stay_apart(self, caller: Any) -> None:
        for number, key in enumerate(HOSTILE_KEYS):
            caller.set(key, b"%d" % number)
        assert sorted(caller.keys()) == sorted(HOSTILE_KEYS)
        for number, key in enumerate(HOSTILE_KEYS):
            assert caller.get(key) == b"%d" % number
            assert key in list(caller.keys(key))
        for key in HOSTILE_KEYS:
            assert caller.delete(key) is True
        assert list(caller.keys()) == []

    @check
    @given(items=st.dictionaries(KEYS, st.binary(max_size=50), max_size=8))
    def test_any_keys_and_values_come_back_unchanged(self, caller: Any, items: dict[str, bytes]) -> None:
        caller.clear()
        for key, value in items.items():
            caller.set(key, value, ttl=100)
        assert sorted(caller.keys()) == sorted(items)
        assert caller.get_many(items) == items
        assert {key: caller.read(key).value for key in items} == items

    @pytest.mark.parametrize(("key", "error"), WRONG_KEYS)
    def test_a_wrong_key_is_refused_by_every_method(self, caller: Any, key: Any, error: type[Exception]) -> None:
        calls: list[Callable[[], object]] = [
            lambda: caller.read(key),
            lambda: caller.get(key),
            lambda: caller.has(key),
            lambda: caller.set(key, b"value"),
            lambda: caller.delete(key),
            lambda: caller.touch(key, 10),
            lambda: caller.renew(key, 10),
            lambda: caller.get_many([key]),
            lambda: caller.set_many({key: b"value"}),
            lambda: caller.delete_many([key]),
        ]
        for call in calls:
            with pytest.raises(error):
                call()
        assert list(caller.keys()) == []

    @pytest.mark.parametrize("prefix", ["a:", "a*", "a?", "a[b]", "a%", "a_", "a\\", "a/", "a.", "A", "\u00e9"])
    def test_a_prefix_is_taken_literally(self, caller: Any, prefix: str) -> None:
        siblings = ["ab:1", "axx", "a", "ab", "b", "a;1", "a\u00e9", "a]"]
        mine = [prefix + "1", prefix + "2", prefix]
        for key in siblings + mine:
            caller.set(key, b"value")
        assert sorted(caller.keys(prefix)) == sorted(mine)
        assert caller.clear(prefix) == 3
        assert sorted(caller.keys()) == sorted(siblings)
        assert caller.clear() == len(siblings)
        assert list(caller.keys()) == []

    def test_listing_streams_and_bears_deletions(self, driver: Driver) -> None:
        driver.set_many({f"key-{number}": b"value" for number in range(self.many)})
        names = driver.keys("key-")
        assert iter(names) is names
        seen = []
        for key in names:
            seen.append(key)
            assert driver.delete(key) is True
        assert sorted(seen) == sorted(f"key-{number}" for number in range(self.many))
        assert list(driver.keys()) == []

    def test_a_long_listing_is_whole_and_clear_leaves_nothing(self, caller: Any) -> None:
        names = [f"key-{number}" for number in range(self.many)]
        caller.target.set_many(dict.fromkeys(names, b"value"))
        assert sorted(caller.keys("key-")) == sorted(names)
        assert caller.clear("key-") == self.many
        assert list(caller.keys()) == []


class Values(Suite):
    """Any bytes are kept."""

    @pytest.mark.parametrize(
        "value",
        [b"", bytes(range(256)), b"\0", b"\x80\x04.", b"x" * (8 * MIB)],
        ids=["empty", "all", "nul", "pickle", "8MiB"],
    )
    def test_any_bytes_are_kept(self, caller: Any, value: bytes) -> None:
        caller.set("key", value, ttl=100)
        entry = caller.read("key")
        assert type(entry.value) is bytes
        assert entry.value == value
        assert caller.get("key") == value
        assert caller.has("key") is True

    @pytest.mark.parametrize("value", ["text", bytearray(b"x"), memoryview(b"x"), None, 5])
    def test_a_value_that_is_not_bytes_is_refused(self, caller: Any, value: Any) -> None:
        with pytest.raises(TypeError):
            caller.set("key", value)
        assert caller.has("key") is False

    def test_many_at_once(self, caller: Any) -> None:
        items = {f"key-{number}": b"%d" % number for number in range(self.many // 8)}
        caller.set_many(items, ttl=50)
        assert caller.get_many([*items, "missing"]) == items
        assert caller.delete_many([*items, "missing"]) == len(items)
        caller.set_many({})
        assert caller.get_many([]) == {}
        assert caller.delete_many([]) == 0
        caller.set_many(items, ttl=50)
        self.pass_time(50)
        assert caller.get_many(items) == {}


class Sharing(Suite):
    """One driver serves threads, event loops, a fork; and other processes, where it says so."""

    def test_the_twins_agree_with_the_blocking_methods(self, driver: Driver) -> None:
        async def main() -> None:
            await driver.aset("key", b"1", ttl=100)
            assert driver.get("key") == await driver.aget("key") == b"1"
            one, other = driver.read("key"), await driver.aread("key")
            assert one is not None
            assert other is not None
            assert one[:2] == other[:2]
            assert one.expires_at == pytest.approx(other.expires_at, abs=1)
            driver.set("key", b"2", ttl=100)
            assert await driver.aget("key") == b"2"
            assert [key async for key in driver.akeys()] == list(driver.keys()) == ["key"]
            assert await driver.adelete("key") is True
            assert driver.has("key") is await driver.ahas("key") is False

        asyncio.run(main())

    def test_many_threads_share_one_driver(self, driver: Driver) -> None:
        def work(name: str) -> None:
            for number in range(20):
                driver.set(f"{name}-{number}", name.encode(), ttl=100)
                assert driver.get(f"{name}-{number}") == name.encode()
                assert driver.touch(f"{name}-{number}", 200)

        in_threads([lambda name=f"thread{number}": work(name) for number in range(12)])  # type: ignore[misc]
        assert sum(1 for _ in driver.keys()) == 240

    def test_many_event_loops_share_one_driver(self, driver: Driver) -> None:
        async def work(name: str) -> None:
            await asyncio.gather(*(driver.aset(f"{name}-{number}", b"value", ttl=100) for number in range(10)))
            assert len(await driver.aget_many(f"{name}-{number}" for number in range(10))) == 10

        in_threads([lambda name=f"loop{number}": asyncio.run(work(name)) for number in range(4)])  # type: ignore[misc]
        asyncio.run(work("last"))
        assert sum(1 for _ in driver.keys()) == 50

    def test_a_call_that_is_cancelled_gives_its_answer_to_no_other(self, driver: Driver) -> None:
        async def main() -> None:
            for name in ("a", "b"):
                await driver.aset(name, name.encode())
            for turns in range(1, 12):
                reading = asyncio.ensure_future(driver.aread("a"))
                for _ in range(turns):
                    await asyncio.sleep(0)
                reading.cancel()
                with suppress(asyncio.CancelledError):
                    await reading
                assert await driver.aget("b") == b"b"
            await driver.aclose()

        asyncio.run(main())

    def test_calls_that_never_block_run_on_the_callers_thread(self, driver: Driver) -> None:
        if not driver.capabilities.never_blocks:
            pytest.skip("capabilities.never_blocks is False")
        before = threading.active_count()

        async def main() -> None:
            await driver.aset("key", b"value")
            assert await driver.aget("key") == b"value"
            assert await driver.adelete("key")

        asyncio.run(main())
        assert threading.active_count() == before

    @pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
    @pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
    def test_a_driver_survives_a_fork(self, driver: Driver) -> None:
        driver.set("before", b"parent")
        asyncio.run(driver.aset("twin", b"parent"))  # a thread pool of the parent is of no use to the child
        child = os.fork()
        if child == 0:
            status = 1
            # A child that waits for ever is ended. `faulthandler` would wait for a lock that the fork has copied.
            signal.alarm(60)
            try:
                driver.set("after", b"child")
                asyncio.run(driver.aset("twin-after", b"child"))
                status = 0 if driver.get("before") == b"parent" and driver.get("after") == b"child" else 2
            finally:
                os._exit(status)
        _, result = os.waitpid(child, 0)
        assert os.waitstatus_to_exitcode(result) == 0
        assert driver.get("before") == b"parent"
        if driver.capabilities.shared:
            assert driver.get("after") == driver.get("twin-after") == b"child"

    def test_several_processes_share_the_store(self, driver: Driver, tmp_path: Path) -> None:
        if not driver.capabilities.shared:
            pytest.skip("capabilities.shared is False")
        url = self.url(tmp_path)
        assert url is not None, "a driver that claims `shared` must say its URL"
        driver.set("counter", b"0")
        rounds = 10 if driver.capabilities.swap else 0
        command = [sys.executable, "-c", OTHER_PROCESS, url, str(rounds)]
        processes = [subprocess.Popen(command, stdout=subprocess.PIPE) for _ in range(3)]  # noqa: S603
        assert [process.communicate(timeout=60)[0].strip() for process in processes] == [b"True"] * 3
        assert driver.get("counter") == b"%d" % (3 * rounds)

    def test_closing_twice_is_no_error(self, driver: Driver) -> None:
        driver.set("key", b"value")
        driver.close()
        driver.close()
        asyncio.run(driver.aclose())

    def test_repr_shows_no_value(self, driver: Driver) -> None:
        driver.set("key", b"s3cret-value")
        assert "s3cret-value" not in repr(driver)


class DriverConformance(Expiry, Conditions, Keys, Values, Sharing):
    """Subclass it in a test file, say how to open your driver, and pytest does the rest.

    Most tests run twice: by the blocking methods and by the async twins. What a driver cannot do is read from its
    `capabilities`; a driver that claims `create`, `swap` or `shared` and does not honour it fails.

        class TestMine(DriverConformance):
            def open_driver(self, clock, tmp_path):
                return MyDriver(tmp_path, clock=clock)
    """


def race(caller: Any, racers: int, make: Callable[[int], tuple[str, tuple[Any, ...], dict[str, Any]]]) -> list[bool]:
    """Let `racers` call at once; True for each that got through, False for each `Conflict`."""
    outcomes = [False] * racers

    if caller.runner is None:
        barrier = threading.Barrier(racers)

        def run(number: int) -> None:
            name, args, kwargs = make(number)
            barrier.wait()
            with suppress(Conflict):
                getattr(caller.target, name)(*args, **kwargs)
                outcomes[number] = True

        in_threads([lambda number=number: run(number) for number in range(racers)])  # type: ignore[misc]
    else:

        async def arun(number: int) -> None:
            name, args, kwargs = make(number)
            with suppress(Conflict):
                await getattr(caller.target, f"a{name}")(*args, **kwargs)
                outcomes[number] = True

        async def main() -> None:
            await asyncio.gather(*(arun(number) for number in range(racers)))

        caller.runner.run(main())
    return outcomes


def in_threads(jobs: list[Callable[[], object]]) -> None:
    """Run all jobs at once, each in a thread, and raise what any of them raised."""
    errors: list[BaseException] = []

    def guarded(job: Callable[[], object]) -> None:
        try:
            job()
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=guarded, args=(job,)) for job in jobs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]
