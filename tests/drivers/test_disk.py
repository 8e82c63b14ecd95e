"""The disk driver keeps the contract, and neither executes nor opens what somebody planted in its folder."""

from __future__ import annotations

import contextlib
import gc
import os
import pickle
import sqlite3
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from session_kit.drivers import CorruptEntry, Driver, DriverUnavailable
from session_kit.drivers.disk import DiskDriver
from session_kit.drivers.support.sqlite_file import WRITES_PER_PRUNE
from session_kit.testing import DriverConformance, ManualClock


class TestDisk(DriverConformance):
    title = "`disk://`"

    def open_driver(self, clock: ManualClock, tmp_path: Path) -> Driver:
        return DiskDriver(tmp_path / "store", clock=clock)

    def url(self, tmp_path: Path) -> str:
        return f"disk://{tmp_path}/store"


class Bomb:
    """Makes a file when it is unpickled."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.marker),)


@pytest.fixture
def marker(tmp_path: Path) -> Path:
    return tmp_path / "exploded"


@pytest.fixture
def driver(tmp_path: Path) -> DiskDriver:
    driver = DiskDriver(tmp_path / "store")
    driver.prepare()
    return driver


@pytest.fixture
def plant(tmp_path: Path) -> Callable[..., None]:
    """Write a row straight into the database, as somebody with access to the folder would."""

    def plant(key: Any, raw: int, mode: int, filename: str | None, value: Any, expire: Any = None) -> None:
        with contextlib.closing(sqlite3.connect(tmp_path / "store" / "cache.db")) as database, database:
            database.execute(
                "INSERT INTO Cache(key, raw, store_time, expire_time, access_time, mode, filename, value)"
                " VALUES (?, ?, 0, ?, 0, ?, ?, ?)",
                (key, raw, expire, mode, filename, value),
            )

    return plant


def use_everything(driver: DiskDriver, key: str) -> None:
    """Call every method that comes near the row."""
    for call in (
        lambda: driver.read(key),
        lambda: driver.get(key),
        lambda: driver.has(key),
        lambda: driver.renew(key, 10),
        lambda: driver.touch(key, 10),
        lambda: driver.get_many([key]),
    ):
        with pytest.raises(CorruptEntry):
            call()
    list(driver.keys())
    driver.prune()
    assert driver.delete(key) is True
    assert driver.has(key) is False


def test_a_planted_pickle_is_not_executed(driver: DiskDriver, plant: Callable[..., None], marker: Path) -> None:
    plant("key", 1, 4, None, pickle.dumps(Bomb(marker)))
    use_everything(driver, "key")
    assert not marker.exists()


def test_a_planted_pickle_in_a_file_is_not_executed(
    driver: DiskDriver, plant: Callable[..., None], marker: Path, tmp_path: Path
) -> None:
    (tmp_path / "store" / "bomb.val").write_bytes(pickle.dumps(Bomb(marker)))
    plant("key", 1, 4, "bomb.val", None)
    use_everything(driver, "key")
    assert not marker.exists()


def test_a_planted_pickled_key_is_not_executed(driver: DiskDriver, plant: Callable[..., None], marker: Path) -> None:
    plant(pickle.dumps(Bomb(marker)), 0, 1, None, b"value")
    driver.set("mine", b"value")
    assert list(driver.keys()) == ["mine"]
    assert driver.clear() == 1
    driver.prune()
    assert not marker.exists()


@pytest.mark.parametrize("mode", [1, 2, 3])
@pytest.mark.parametrize("absolute", [False, True])
def test_a_planted_file_name_outside_the_folder_is_neither_read_nor_removed(
    driver: DiskDriver, plant: Callable[..., None], tmp_path: Path, mode: int, absolute: bool
) -> None:
    secret = tmp_path / "secret"
    secret.write_text("not yours")
    plant("key", 1, mode, str(secret) if absolute else "../secret", None)
    use_everything(driver, "key")
    plant("key", 1, mode, str(secret) if absolute else "../secret", None)
    driver.set("key", b"overwritten")
    assert driver.get("key") == b"overwritten"
    plant("old", 1, mode, "../secret", None, expire=1.0)
    assert driver.prune() == 1
    assert secret.read_text() == "not yours"


@pytest.mark.parametrize("value", ["text", 5, 1.5, None])
def test_a_planted_value_of_another_type_is_refused(
    driver: DiskDriver, plant: Callable[..., None], value: object
) -> None:
    plant("key", 1, 1, None, value)
    use_everything(driver, "key")


def test_a_planted_expiry_of_another_type_is_refused(driver: DiskDriver, plant: Callable[..., None]) -> None:
    plant("key", 1, 1, None, b"value", expire="never")
    with pytest.raises(CorruptEntry):
        driver.read("key")


def test_planted_settings_do_not_take_effect(driver: DiskDriver, tmp_path: Path) -> None:
    driver.set("key", b"value")
    with contextlib.closing(sqlite3.connect(tmp_path / "store" / "cache.db")) as database, database:
        for name, value in {"size_limit": 1, "cull_limit": 100, "eviction_policy": "least-recently-used"}.items():
            database.execute("UPDATE Settings SET value = ? WHERE key = ?", (value, name))
        database.execute("INSERT INTO Settings VALUES ('disk_anything', 'planted')")
    again = DiskDriver(tmp_path / "store")
    again.set("other", b"value")
    assert sorted(again.keys()) == ["key", "other"]


def test_the_folder_is_private(tmp_path: Path) -> None:
    os.umask(os.umask(0o022))
    DiskDriver(tmp_path / "new" / "store")
    assert (tmp_path / "new" / "store").stat().st_mode & 0o777 == 0o700
    (tmp_path / "empty").mkdir(mode=0o755)
    DiskDriver(tmp_path / "empty")
    assert (tmp_path / "empty").stat().st_mode & 0o777 == 0o700


def test_a_restart_finds_everything(tmp_path: Path) -> None:
    first = DiskDriver(tmp_path / "store")
    first.set("key", b"value", ttl=100)
    first.close()
    second = DiskDriver(tmp_path / "store")
    entry = second.read("key")
    assert entry is not None
    assert entry.value == b"value"
    assert entry.expires_at is not None


def test_expired_rows_leave_the_database_without_being_asked_for(tmp_path: Path) -> None:
    clock = ManualClock()
    driver = DiskDriver(tmp_path / "store", clock=clock)
    driver.set_many({f"old-{number}": b"value" for number in range(300)}, ttl=10)
    clock.advance(10)
    for _ in range(WRITES_PER_PRUNE):
        driver.set("key", b"value")
    assert driver.prune() == 0
    with driver.connections.reading() as database:
        ((rows,),) = database.execute("SELECT count(*) FROM Cache").fetchall()
    assert rows == 1


@pytest.mark.parametrize("page", [1, 2, 3, 1000])
@pytest.mark.parametrize("prefix", ["m", "m:", "é", "\U0001f36a", "m\0"])
def test_clear_by_pages_takes_what_has_the_prefix_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, page: int, prefix: str
) -> None:
    monkeypatch.setattr("session_kit.drivers.support.sqlite_file.CLEAR_BATCH", page)
    clock = ManualClock()
    driver = DiskDriver(tmp_path / "store", clock=clock)
    mine = [prefix, *(prefix + end for end in ("\0", "1", "2", "ab", "z", "é", "\uffff", "\U0001f36a", "\U0010ffff"))]
    others = ["a", "l\U0010ffff", "M:1", "n", "z", "à", "ê", "\uffff", "\U0001f369", "\U0001f36b", "\U0010ffff"]
    expired = [f"a{prefix}", f"{prefix}0", f"{prefix}aa", f"{prefix}\U0001f36aa", "zz"]
    driver.set_many(dict.fromkeys(expired, b"old"), ttl=10)
    driver.set_many(dict.fromkeys(others + mine, b"value"))
    clock.advance(10)
    assert driver.clear(prefix) == len(mine)
    assert sorted(driver.keys()) == sorted(others)
    assert driver.clear(prefix) == 0
    assert driver.prune() == len(expired)
    assert driver.clear() == len(others)


def test_clear_takes_a_page_at_a_time_and_lets_others_write_in_between(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("session_kit.drivers.support.sqlite_file.CLEAR_BATCH", 10)
    driver, other = DiskDriver(tmp_path / "store"), DiskDriver(tmp_path / "store", timeout=0.1)  # type: ignore[arg-type]
    driver.set_many({f"{number:03}": b"value" for number in range(100)})
    left: list[int] = []
    clear_page = driver._clear_page

    def clear_and_look(prefix: str, start: str) -> list[str]:
        page = clear_page(prefix, start)
        left.append(sum(1 for _ in other.keys()))
        other.set("000", b"behind")
        return page

    monkeypatch.setattr(driver, "_clear_page", clear_and_look)
    assert driver.clear() == 100
    assert left[:3] == [90, 81, 71]
    assert list(driver.keys()) == ["000"]


def test_nothing_is_evicted_unless_asked(tmp_path: Path) -> None:
    unlimited = DiskDriver(tmp_path / "unlimited")
    limited = DiskDriver(tmp_path / "limited", size_limit=2_000_000)  # type: ignore[arg-type]
    for number in range(100):
        unlimited.set(f"key-{number}", b"x" * 50_000)
        limited.set(f"key-{number}", b"x" * 50_000)
    assert sum(1 for _ in unlimited.keys()) == 100
    assert 10 < sum(1 for _ in limited.keys()) < 100
    assert limited.has("key-99")


def test_threads_that_wait_for_a_lock_of_another_process_wait_no_longer_than_one(tmp_path: Path) -> None:
    driver = DiskDriver(tmp_path / "store", timeout=0.2)  # type: ignore[arg-type]
    with contextlib.closing(sqlite3.connect(tmp_path / "store" / "cache.db")) as other, ThreadPoolExecutor(8) as pool:
        other.execute("BEGIN IMMEDIATE")
        begin = time.monotonic()
        waiting = [pool.submit(driver.set, f"key{number}", b"value") for number in range(8)]
        for future in waiting:
            with pytest.raises(DriverUnavailable, match=r"timeout=0\.2 s"):
                future.result()
        assert time.monotonic() - begin < 1
        other.rollback()
    driver.set("key", b"value")
    driver.close()


def test_a_lock_held_by_another_process_raises_within_the_timeout(tmp_path: Path) -> None:
    driver = DiskDriver(tmp_path / "store", timeout=0.1)  # type: ignore[arg-type]
    driver.set("key", b"value")
    with contextlib.closing(sqlite3.connect(tmp_path / "store" / "cache.db")) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(DriverUnavailable, match=r"timeout=0\.1 s"):
            driver.set("key", b"other")
        assert driver.get("key") == b"value"


needs_proc = pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="open files are counted in /proc")


@needs_proc
def test_close_leaves_no_connection_of_any_thread_open(tmp_path: Path) -> None:
    driver = DiskDriver(tmp_path / "store")
    with ThreadPoolExecutor(4) as pool:
        gate = threading.Barrier(5)
        jobs = [
            pool.submit(lambda number=number: (driver.set(f"key{number}", b""), gate.wait())) for number in range(4)
        ]
        gate.wait()
        assert open_files(tmp_path) > 0
        driver.close()
        assert open_files(tmp_path) == 0
        for job in jobs:
            job.result()
        # It opens again by itself for who goes on, in whatever thread.
        assert pool.submit(driver.get, "key1").result() == driver.get("key1") == b""
    driver.close()


@needs_proc
@pytest.mark.slow
def test_threads_that_end_do_not_pile_up_connections(tmp_path: Path) -> None:
    with contextlib.closing(DiskDriver(tmp_path / "store")) as driver:
        driver.prepare()
        before = open_files(tmp_path)
        for _ in range(10):
            thread = threading.Thread(target=driver.set, args=("key", b""))
            thread.start()
            thread.join()
            # From Python 3.13 on a connection that nobody closed warns here, and a warning is an error in these tests.
            gc.collect()
        assert open_files(tmp_path) <= 2 * before  # SQLite keeps the last file for the next connection


def open_files(folder: Path) -> int:
    """How many files in a folder this process has open, counted by their descriptors."""
    return sum(str(folder) in os.path.realpath(link) for link in Path("/proc/self/fd").iterdir())
