"""One driver that many threads use: one comes in between two steps of another, at each of them."""

from __future__ import annotations

import _weakrefset
import asyncio
import inspect
import threading
import weakref
from collections.abc import Callable
from contextlib import closing, suppress
from itertools import product
from pathlib import Path
from typing import Any

import pytest
from fsspec.implementations.memory import MemoryFileSystem
from redis.exceptions import MovedError

from session_kit.drivers import ABSENT, Conflict, Driver, DriverUnavailable, Entry, open_driver
from session_kit.drivers.disk import DiskDriver
from session_kit.drivers.memory import MemoryDriver
from session_kit.drivers.redis import RedisDriver, cluster
from session_kit.drivers.s3 import S3Driver
from session_kit.drivers.sqlite import SQLiteDriver
from session_kit.drivers.support import forks
from session_kit.drivers.support.s3_client import S3Client
from session_kit.drivers.support.threads import Threads
from session_kit.testing import FaultyDriver, ManualClock
from tests.harness.steps import Scene, at_every_step

KEY, VALUE = "key", b"value"
ACTS: dict[str, Callable[[Driver], object]] = {
    "read": lambda driver: driver.read(KEY) or pytest.fail("not found"),
    "set": lambda driver: driver.set(KEY, VALUE, ttl=60),
    "get_many": lambda driver: driver.get_many([KEY])[KEY],
    "keys": lambda driver: KEY in driver.keys() or pytest.fail("not listed"),
    "aread": lambda driver: asyncio.run(driver.aread(KEY)) or pytest.fail("not found"),
    "aset": lambda driver: asyncio.run(driver.aset(KEY, VALUE, ttl=60)),
    "close": lambda driver: driver.close(),
}


PAIRS = [*((act, "close") for act in ACTS), *(("close", act) for act in ACTS if act != "close")]


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [pytest.param(*pair, marks=[] if pair == ("close", "close") else pytest.mark.slow) for pair in PAIRS],
)
def test_a_driver_that_is_closed_at_any_moment_fails_no_call(backend: Driver, ours: str, theirs: str) -> None:
    if isinstance(backend, S3Driver):
        pytest.skip("it has a client that was given, and closes nothing")
    if isinstance(backend, RedisDriver) and "a" in (ours[0], theirs[0]):
        pytest.skip("to close it ends the connection of an event loop, and what is under way there says so")

    def scene() -> Scene:
        backend.set(KEY, VALUE)
        return (lambda: ACTS[ours](backend)), (lambda: ACTS[theirs](backend))

    at_every_step(scene)


CALLS: dict[str, Callable[[Driver, object], object]] = {
    "read": lambda driver, version: driver.read(KEY),
    "set": lambda driver, version: driver.set(KEY, b"set", ttl=60),
    "swap": lambda driver, version: driver.set(KEY, b"swapped", expect=version),
    "create": lambda driver, version: driver.set(KEY, b"created", expect=ABSENT),
    "delete": lambda driver, version: driver.delete(KEY),
}
TWO = list(product(CALLS, CALLS))


@pytest.mark.parametrize("backend", ["memory", "sqlite", "disk", "file", "valkey", "postgres"], indirect=True)
@pytest.mark.parametrize("age", [0, 2])
@pytest.mark.parametrize(
    ("ours", "theirs"), [pytest.param(*two, marks=[] if two == ("swap", "swap") else pytest.mark.slow) for two in TWO]
)
def test_of_two_calls_one_comes_after_the_other(
    backend: Driver, clock: ManualClock, age: int, ours: str, theirs: str
) -> None:
    """On an entry that lives for one second."""
    version: object = None
    said: dict[str, object] = {}

    def begin() -> None:
        nonlocal version
        said.clear()
        backend.delete(KEY)
        version = backend.set(KEY, VALUE, ttl=1)
        clock.advance(age)

    def call(who: str, name: str) -> None:
        try:
            said[who] = shown(CALLS[name](backend, version))
        except Conflict:
            said[who] = "a conflict"

    def shown(answer: object) -> object:
        if isinstance(answer, Entry):
            return answer.value, answer.expires_at and round(answer.expires_at - clock(), 1)
        return answer if answer is None or isinstance(answer, bool) else "a version"

    def outcome() -> dict[str, object]:
        return {**said, "left": shown(backend.read(KEY))}

    def scene() -> Scene:
        begin()
        return (lambda: call("we", ours)), (lambda: call("they", theirs))

    possible = list[dict[str, object]]()
    for one, other in (scene(), scene()[::-1]):
        begin()
        one()
        other()
        possible.append(outcome())

    def check() -> None:
        assert outcome() in possible

    at_every_step(scene, check=check)


class Client:
    """What the driver asks of one of boto3's, where the bucket is empty."""

    def list_objects_v2(self, **_: object) -> dict[str, object]:
        return {"IsTruncated": False}

    def close(self) -> None:
        pass


@pytest.mark.parametrize(("ours", "theirs"), [("keys", "close"), ("close", "close")])
def test_an_s3_client_that_is_closed_at_any_moment_fails_no_call(
    monkeypatch: pytest.MonkeyPatch, ours: str, theirs: str
) -> None:
    monkeypatch.setattr(S3Client, "_open", lambda self: Client())
    driver = open_driver("s3://bucket")

    def scene() -> Scene:
        acts = {"keys": lambda: list(driver.keys()), "close": driver.close}
        acts["keys"]()
        return acts[ours], acts[theirs]

    at_every_step(scene)


def test_a_pool_that_was_closed_does_what_it_is_given_by_who_holds_it_and_then_ends() -> None:
    threads = Threads(2, "for a test")
    pool = threads.pool()
    threads.close()
    assert pool.submit(lambda: threading.current_thread().name).result(10).startswith("for a test")


class Noted:
    """Hears of forks."""

    def __init__(self) -> None:
        self.heard: list[str] = []
        forks.tell_of_forks(self)

    def before_fork(self) -> None:
        self.heard.append("before")

    def after_fork_in_parent(self) -> None:
        pass

    def after_fork(self) -> None:
        pass


def test_a_driver_hears_of_a_fork_while_others_are_made(monkeypatch: pytest.MonkeyPatch) -> None:
    # Not the drivers of other tests, which would wait for the end of a fork that there is not.
    monkeypatch.setattr(forks, "_told", weakref.WeakValueDictionary())

    def scene() -> Scene:
        one, others = Noted(), list[Noted]()

        def fork() -> None:
            forks._tell("before_fork")
            assert one.heard == ["before"]

        return fork, lambda: others.append(Noted())

    at_every_step(scene, forks.__file__, weakref.__file__, _weakrefset.__file__)


class Node:
    """Of a cluster: it sends the first who asks for a key to another node, and is down for who asks for `down`."""

    def __init__(self) -> None:
        self.moved = False

    def run(self, commands: list[tuple[str, ...]], repeatable: bool) -> list[object]:
        (command,) = commands
        if command[0] == "CLUSTER":
            return [[[0, 3, [b"localhost", 1]]]]
        if command[1] == "down":
            raise DriverUnavailable("down for a test")
        if not self.moved:
            self.moved = True
            return [MovedError("3 localhost:2")]
        return [VALUE]


def test_a_cluster_that_another_thread_finds_changed_at_any_moment_fails_no_call(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # Fewer slots than clusters have: each is several steps.
    monkeypatch.setattr(cluster, "SLOTS", 4)
    monkeypatch.setattr(cluster, "key_slot", lambda key: 3)

    def scene() -> Scene:
        node = Node()
        monkeypatch.setattr(cluster.Cluster, "_node", lambda self, address: node)
        driver = RedisDriver("redis+cluster://localhost")

        def meet_an_outage() -> None:
            with suppress(DriverUnavailable):
                driver.get("down")

        return (lambda: driver.get(KEY)), meet_an_outage

    at_every_step(scene)


def test_a_disk_that_another_thread_makes_anew_at_any_moment_fails_no_write(tmp_path: Path) -> None:
    with closing(DiskDriver(tmp_path)) as driver:
        driver.set(KEY, VALUE)
        at_every_step(lambda: ((lambda: driver.set(KEY, VALUE)), (lambda: setattr(driver, "_cache", None))))


def test_a_listing_of_fsspecs_memory_does_not_fail_of_what_another_thread_deletes() -> None:
    driver = open_driver("fsspec+memory://listed-by-steps")

    def scene() -> Scene:
        for key in ("stays", "goes"):
            driver.set(key, VALUE)

        def walk() -> None:
            assert "stays" in driver.keys()

        return walk, lambda: driver.delete("goes")

    at_every_step(scene, inspect.getfile(MemoryFileSystem))


class Emptied(list[Any]):
    """A list whose items another thread takes, as soon as somebody has looked whether there are any."""

    def __len__(self) -> int:
        count = super().__len__()
        self.clear()
        return count


def test_connections_that_are_taken_while_all_are_closed_are_no_error(tmp_path: Path) -> None:
    driver = SQLiteDriver(tmp_path / "store.db")
    driver.set(KEY, VALUE)
    driver.connections._idle = Emptied(driver.connections._idle)
    driver.close()


def test_a_fault_that_comes_once_meets_one_of_two_threads() -> None:
    errors = list[DriverUnavailable]()

    def scene() -> Scene:
        driver = FaultyDriver(MemoryDriver())
        driver.fail("read", times=1)
        errors.clear()

        def read() -> None:
            try:
                driver.read(KEY)
            except DriverUnavailable as error:
                errors.append(error)

        return read, read

    def check() -> None:
        assert len(errors) == 1

    at_every_step(scene, check=check)
