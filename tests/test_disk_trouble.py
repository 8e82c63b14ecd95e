"""Trouble with the disk raises and destroys nothing; what somebody planted there is neither executed nor an error."""

from __future__ import annotations

import contextlib
import logging
import pickle
import shutil
import sqlite3
import time
from pathlib import Path

import pytest

from session_kit import ConfigError, SessionManager, open_driver, open_store
from session_kit.drivers import DriverUnavailable, sqlite_pool
from session_kit.drivers.disk import DiskDriver


def test_a_full_disk_raises_and_loses_nothing(tmp_path: Path) -> None:
    driver = DiskDriver(tmp_path / "store")
    driver.set("before", b"kept")
    # SQLite answers a database that may not grow with the same error as a disk without room.
    with driver.connections.reading() as database:
        ((pages,),) = database.execute("PRAGMA page_count").fetchall()
        database.execute(f"PRAGMA max_page_count = {pages + 4}").fetchall()
    with pytest.raises(DriverUnavailable, match="full"):
        driver.set("big", b"x" * 1_000_000)
    with pytest.raises(DriverUnavailable, match="full"):
        driver.set("before", b"y" * 1_000_000)
    assert driver.get("before") == b"kept"
    assert driver.get("big") is None
    with driver.connections.reading() as database:
        database.execute("PRAGMA max_page_count = 1000000").fetchall()
    driver.set("big", b"x" * 1_000_000)
    assert driver.has("big")


def test_a_folder_that_cannot_be_made_is_refused_at_start_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(ConfigError, match="cannot be made") as caught:
        open_store(f"disk://{tmp_path}/file/store")
    assert "\n" not in str(caught.value)
    assert (tmp_path / "file").read_text() == "not a folder"


def test_a_folder_that_others_use_is_refused_and_left_alone(tmp_path: Path) -> None:
    shared = tmp_path / "shared"
    shared.mkdir(mode=0o755)
    (shared / "letter").write_text("mine")
    with pytest.raises(ConfigError, match="folder of its own"):
        DiskDriver(shared)
    assert shared.stat().st_mode & 0o777 == 0o755
    assert [path.name for path in shared.iterdir()] == ["letter"]


def test_a_database_that_is_damaged_raises_and_is_left_alone(tmp_path: Path) -> None:
    folder = tmp_path / "store"
    folder.mkdir(mode=0o700)
    (folder / "cache.db").write_bytes(b"this is no database" * 100)
    with pytest.raises(DriverUnavailable, match="not a database"):
        DiskDriver(folder)
    assert (folder / "cache.db").read_bytes() == b"this is no database" * 100


def test_a_folder_that_was_removed_under_a_running_process_is_made_anew_for_all_and_said_in_the_log(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(sqlite_pool, "LOOK_AGAIN", 0.0)
    folder = tmp_path / "store"
    with contextlib.closing(DiskDriver(folder)) as one, contextlib.closing(DiskDriver(folder)) as other:
        one.set("key", b"old")
        assert other.get("key") == b"old"
        shutil.rmtree(folder)
        with caplog.at_level(logging.WARNING, "session_kit.drivers"):
            one.set("key", b"new")
            assert other.get("key") == b"new"
        assert caplog.text.count("removed or replaced") == 2
        other.set("key", b"newer", expect=one.read("key").version)  # type: ignore[union-attr]
        assert one.get("key") == b"newer"
        assert folder.stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize("scheme", ["disk", "sqlite"])
def test_a_loss_is_noticed_within_a_second(tmp_path: Path, scheme: str) -> None:
    with contextlib.closing(open_driver(f"{scheme}://{tmp_path}/folder/store")) as driver:
        driver.set("key", b"old")
        shutil.rmtree(tmp_path / "folder")
        end = time.monotonic() + sqlite_pool.LOOK_AGAIN + 0.1
        while time.monotonic() < end:
            driver.set("key", b"new")
        with contextlib.closing(open_driver(f"{scheme}://{tmp_path}/folder/store")) as another_process:
            assert another_process.get("key") == b"new"


def test_a_disk_that_was_taken_away_raises_instead_of_looking_empty(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    driver = DiskDriver(tmp_path / "store")
    driver.set("a", b"1")
    driver.close()
    (tmp_path / "store").rename(tmp_path / "elsewhere")
    driver.connections._device += 1  # as if the folder had been on a disk of its own
    monkeypatch.setattr(sqlite_pool, "LOOK_AGAIN", 0.0)
    for _ in range(2):
        with pytest.raises(DriverUnavailable, match="is its disk mounted"):
            driver.get("a")
    assert not (tmp_path / "store").exists()
    (tmp_path / "elsewhere").rename(tmp_path / "store")
    assert driver.get("a") == b"1"
    driver.close()


@pytest.mark.parametrize("scheme", ["disk", "sqlite"])
@pytest.mark.parametrize("lost", ["-wal", "-shm"])
def test_a_cleaner_that_takes_one_of_the_files_does_not_split_the_store(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, scheme: str, lost: str
) -> None:
    monkeypatch.setattr(sqlite_pool, "LOOK_AGAIN", 0.0)
    url = f"{scheme}://{tmp_path}/folder/store"
    with contextlib.closing(open_driver(url)) as one, contextlib.closing(open_driver(url)) as other:
        one.set("key", b"old")
        (file,) = (tmp_path / "folder").rglob(f"*{lost}")
        file.unlink()
        one.set("key", b"new")
        assert other.get("key") == b"new"
        other.set("key", b"newer")
        assert one.get("key") == b"newer"


def test_a_planted_pickle_is_a_fresh_session_and_is_deleted(tmp_path: Path) -> None:
    manager = SessionManager(f"disk://{tmp_path}/store", "Kx7-not-for-production-but-long-enough-0123")
    session = manager.open()
    session["user"] = "ada"
    cookie = dict(manager.commit(session))["Set-Cookie"].split(";")[0]
    with contextlib.closing(sqlite3.connect(tmp_path / "store" / "cache.db")) as database, database:
        database.execute("UPDATE Cache SET mode = 4, value = ?", (pickle.dumps({"user": "eve"}),))
    for _ in range(2):
        assert dict(manager.open(cookie)) == {}
    assert manager.store.length() == 0
