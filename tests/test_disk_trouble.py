"""Trouble with the disk raises and destroys nothing; what somebody planted there is neither executed nor an error."""

from __future__ import annotations

import contextlib
import pickle
import sqlite3
from pathlib import Path

import pytest

from session_kit import ConfigError, SessionManager, open_store
from session_kit.drivers import DriverUnavailable
from session_kit.drivers.disk import DiskDriver


def test_a_full_disk_raises_and_loses_nothing(tmp_path: Path) -> None:
    driver = DiskDriver(tmp_path / "store")
    driver.set("before", b"kept")
    # SQLite answers a database that may not grow with the same error as a disk without room.
    ((pages,),) = driver._cache._sql("PRAGMA page_count").fetchall()
    driver._cache._sql(f"PRAGMA max_page_count = {pages + 4}").fetchall()
    with pytest.raises(DriverUnavailable, match="full"):
        driver.set("big", b"x" * 1_000_000)
    with pytest.raises(DriverUnavailable, match="full"):
        driver.set("before", b"y" * 1_000_000)
    assert driver.get("before") == b"kept"
    assert driver.get("big") is None
    driver._cache._sql("PRAGMA max_page_count = 1000000").fetchall()
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


def test_a_folder_that_was_taken_away_raises_instead_of_looking_empty(tmp_path: Path) -> None:
    driver = DiskDriver(tmp_path / "store")
    driver.set("a", b"1")
    driver._cache.close()
    (tmp_path / "store").rename(tmp_path / "elsewhere")
    with pytest.raises(DriverUnavailable):
        driver.get("a")


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
