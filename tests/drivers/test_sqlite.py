"""The SQLite driver keeps the contract, needs no package, and closes what it opened."""

from __future__ import annotations

import contextlib
import gc
import logging
import os
import sqlite3
import stat
import subprocess
import sys
import threading
import time
import warnings
from pathlib import Path
from typing import Any

import pytest

from session_kit import ConfigError, SessionManager, open_driver
from session_kit.drivers import CorruptEntry, Driver, DriverUnavailable
from session_kit.drivers.sqlite import SQLiteDriver
from session_kit.drivers.support import sqlite_pool
from session_kit.drivers.support.sqlite_file import WRITES_PER_PRUNE
from session_kit.testing import DriverConformance, ManualClock
from session_kit.testing.conformance import in_threads
from tests.harness.sessions import SECRET, cookie_of


class TestSQLite(DriverConformance):
    title = "`sqlite://`"

    def open_driver(self, clock: ManualClock, tmp_path: Path) -> Driver:
        return SQLiteDriver(tmp_path / "store.db", clock=clock)

    def url(self, tmp_path: Path) -> str:
        return f"sqlite://{tmp_path}/store.db"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "folder" / "store.db"


def test_the_file_is_for_this_user_alone(path: Path) -> None:
    with contextlib.closing(SQLiteDriver(path)) as driver:
        driver.set("key", b"value")
        modes = {file.name: stat.S_IMODE(file.stat().st_mode) for file in path.parent.iterdir()}
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert modes
    assert set(modes.values()) == {0o600}


def test_a_file_that_others_can_read_is_closed_if_it_is_ours_and_refused_if_not(path: Path) -> None:
    with contextlib.closing(SQLiteDriver(path)) as driver:
        driver.set("key", b"value")
    path.chmod(0o644)
    with contextlib.closing(SQLiteDriver(path)) as driver:
        assert driver.get("key") == b"value"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    other = path.parent / "other.db"
    other.write_bytes(b"not a database")
    other.chmod(0o644)
    with pytest.raises(ConfigError, match="open to other users"):
        SQLiteDriver(other)
    assert other.read_bytes() == b"not a database"


def test_a_link_is_not_followed(path: Path) -> None:
    path.parent.mkdir()
    path.symlink_to(path.parent / "elsewhere.db")
    with pytest.raises(ConfigError, match="cannot be made"):
        SQLiteDriver(path)
    assert not (path.parent / "elsewhere.db").exists()


@pytest.mark.parametrize("url", ["sqlite://", "sqlite://relative.db", "sqlite:///"])
def test_a_url_without_an_absolute_path_is_refused(url: str) -> None:
    with pytest.raises(ConfigError, match="three slashes"):
        open_driver(url)


def test_a_database_of_another_program_is_an_outage_not_an_empty_store(path: Path) -> None:
    path.parent.mkdir()
    path.write_bytes(b"x" * 5000)
    path.chmod(0o600)
    with contextlib.closing(SQLiteDriver(path)) as driver, pytest.raises(DriverUnavailable, match="not a database"):
        driver.get("key")


def test_a_value_that_is_no_blob_is_corrupt_and_is_deleted_as_that_version(path: Path) -> None:
    manager = SessionManager(f"sqlite://{path}", SECRET)
    session = manager.open()
    session["user"] = "ada"
    cookie = cookie_of(manager.commit(session))
    with contextlib.closing(sqlite3.connect(path)) as database, database:
        database.execute("ALTER TABLE entries RENAME TO strict_entries")
        database.execute("CREATE TABLE entries (key TEXT PRIMARY KEY, value, version, expires_at)")
        database.execute("INSERT INTO entries SELECT key, 'text', version, expires_at FROM strict_entries")
    with pytest.raises(CorruptEntry):
        manager.store.driver.read(next(manager.store.driver.keys()))
    assert dict(manager.open(cookie)) == {}
    assert manager.store.length() == 0
    manager.close()


def test_close_closes_the_connections_of_all_threads(path: Path) -> None:
    driver = SQLiteDriver(path)
    barrier = threading.Barrier(8)

    def work(number: int) -> None:
        barrier.wait()
        for _ in range(20):
            driver.set(f"key-{number}", b"value")
            driver.get(f"key-{number}")

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert open_files(path)
    with warnings.catch_warnings():
        warnings.simplefilter("error", ResourceWarning)
        driver.close()
        gc.collect()
    assert open_files(path) == []


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_forked_process_that_writes_only_a_little_removes_what_has_expired_too(path: Path) -> None:
    clock = ManualClock()
    driver = SQLiteDriver(path, clock=clock)
    driver.set("old", b"value", ttl=10)
    clock.advance(10)
    if (child := os.fork()) == 0:
        try:
            driver.set("young", b"value")
        finally:
            os._exit(0)
    os.waitpid(child, 0)
    assert driver.prune() == 0, "there is nothing left"
    driver.close()


def test_a_crowd_of_threads_shares_a_few_connections(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    driver = SQLiteDriver(path)
    connect, opened, crowd = sqlite3.connect, list[object](), 20
    barrier = threading.Barrier(crowd)

    def slowly(*args: Any, **kwargs: Any) -> sqlite3.Connection:
        opened.append(args)
        time.sleep(0.01)  # the others are there by then
        return connect(*args, **kwargs)

    def read() -> None:
        barrier.wait()
        driver.get("key")

    monkeypatch.setattr(sqlite3, "connect", slowly)
    in_threads([read] * crowd)
    assert len(opened) < crowd / 2
    driver.close()


def open_files(path: Path) -> list[str]:
    links = [f"/proc/self/fd/{number}" for number in os.listdir("/proc/self/fd")]
    named = [os.readlink(link) for link in links if os.path.lexists(link)]
    return [name for name in named if name.startswith(str(path))]


def test_a_writer_that_is_killed_loses_nothing_that_was_acknowledged(path: Path) -> None:
    code = f"""
import itertools
from session_kit.drivers.sqlite import SQLiteDriver

driver = SQLiteDriver({str(path)!r})
for number in itertools.count():
    driver.set(str(number), b"value")
    print(number, flush=True)
"""
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    acknowledged = [process.stdout.readline().strip() for _ in range(300)]
    process.kill()
    acknowledged += process.stdout.read().split("\n")[:-1]
    process.wait()
    process.stdout.close()
    with contextlib.closing(SQLiteDriver(path)) as driver:
        assert set(filter(None, acknowledged)) <= set(driver.keys())


def test_a_file_that_is_removed_under_a_running_process_is_noticed(
    path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(sqlite_pool, "LOOK_AGAIN", 0.0)
    with contextlib.closing(SQLiteDriver(path)) as one, contextlib.closing(SQLiteDriver(path)) as other:
        one.set("key", b"old")
        assert other.get("key") == b"old"
        for file in path.parent.iterdir():
            file.unlink()
        path.parent.rmdir()
        with caplog.at_level(logging.WARNING, "session_kit"):
            one.set("key", b"new")
        assert "removed or replaced" in caplog.text
        assert other.get("key") == b"new"
        assert stat.S_IMODE(path.stat().st_mode) == 0o600


def copy(source: Path, target: Path) -> None:
    """What `.backup` and `.restore` do."""
    with contextlib.closing(sqlite3.connect(source)) as one, contextlib.closing(sqlite3.connect(target)) as other:
        one.backup(other)


@pytest.mark.parametrize("method", ["get", "set", "keys"])
def test_a_backup_that_is_moved_into_place_is_not_damaged_by_the_log_of_the_file_before(
    path: Path, method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite_pool, "LOOK_AGAIN", 0.0)
    with contextlib.closing(SQLiteDriver(path)) as driver:
        driver.set_many({f"old{number}": b"x" * 100 for number in range(100)})
        backup = path.with_name("copy.db")
        copy(path, backup)
        driver.set_many({f"new{number}": b"y" * 100 for number in range(300)})
        backup.replace(path)
        call = {"get": driver.get, "set": lambda key: driver.set(key, b"z"), "keys": lambda key: list(driver.keys(key))}
        for _ in range(2):
            with pytest.raises(DriverUnavailable, match="the file was replaced while it was in use, and its -wal is"):
                call[method]("old1")
        for end in ("-wal", "-shm"):
            path.with_name(path.name + end).unlink()
        assert sorted(driver.keys()) == sorted(f"old{number}" for number in range(100))
    with contextlib.closing(sqlite3.connect(path)) as database:
        assert database.execute("PRAGMA integrity_check").fetchone() == ("ok",)


def test_a_backup_is_restored_under_a_running_process(path: Path) -> None:
    with contextlib.closing(SQLiteDriver(path)) as driver:
        driver.set_many({f"old{number}": b"x" * 100 for number in range(100)})
        backup = path.with_name("copy.db")
        copy(path, backup)
        driver.set_many({f"new{number}": b"y" * 100 for number in range(300)})
        copy(backup, path)
        assert sorted(driver.keys()) == sorted(f"old{number}" for number in range(100))
        driver.set("later", b"z")
        assert driver.get("later") == b"z"


def test_a_writer_that_holds_the_lock_is_an_outage_after_the_timeout_and_no_read_waits(path: Path) -> None:
    with contextlib.closing(SQLiteDriver(path, timeout=0.05)) as driver:  # type: ignore[arg-type]
        driver.set("key", b"value")
        with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as blocker:
            blocker.execute("BEGIN IMMEDIATE")
            with pytest.raises(DriverUnavailable, match="locked"):
                driver.set("key", b"other")
            assert driver.get("key") == b"value"
            with contextlib.closing(SQLiteDriver(path, timeout=0.05)) as late:  # type: ignore[arg-type]
                assert late.get("key") == b"value"
            blocker.execute("ROLLBACK")
        driver.set("key", b"other")


def test_what_has_expired_is_removed_by_writes(path: Path) -> None:
    clock = ManualClock()
    with contextlib.closing(SQLiteDriver(path, clock=clock)) as driver:
        driver.set_many({f"old-{number}": b"value" for number in range(100)}, ttl=10)
        clock.advance(10)
        for _ in range(WRITES_PER_PRUNE):
            driver.set("young", b"value")
        with contextlib.closing(sqlite3.connect(path)) as database:
            assert database.execute("SELECT count(*) FROM entries").fetchone() == (1,)


def test_a_full_disk_refuses_writes_and_nobody_is_kept_from_logging_out(path: Path) -> None:
    with contextlib.closing(SQLiteDriver(path)) as driver:
        driver.set("before", b"kept")
        driver.set("session", b"y" * 100_000)
        (database,) = driver.connections._idle
        ((pages,),) = database.execute("PRAGMA page_count").fetchall()
        database.execute(f"PRAGMA max_page_count = {pages}").fetchall()
        with pytest.raises(DriverUnavailable, match="full"):
            driver.set("big", b"x" * 1_000_000)
        assert driver.get("before") == b"kept"
        assert driver.delete("session")


def test_it_needs_no_package(path: Path) -> None:
    code = f"import session_kit, sys; session_kit.open_driver('sqlite://{path}'); print('diskcache' in sys.modules)"
    result = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert result.stdout == "False\n"
