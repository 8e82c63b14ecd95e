"""Files keep the contract: atomic, exclusive, never torn, and nothing outside the folder is read."""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from session_kit import ConfigError, open_driver
from session_kit.drivers import CorruptEntry, Driver, DriverUnavailable
from session_kit.drivers.file import ABANDONED, LOCKS, UNFINISHED, FileDriver
from session_kit.testing import DriverConformance, ManualClock


class TestFile(DriverConformance):
    title = "`file://`"

    def open_driver(self, clock: ManualClock, tmp_path: Path) -> Driver:
        return FileDriver(tmp_path / "store", fsync=False, clock=clock)

    def url(self, tmp_path: Path) -> str:
        return f"file://{tmp_path}/store?fsync=no"


@pytest.fixture
def driver(tmp_path: Path) -> FileDriver:
    return FileDriver(tmp_path / "store")


def test_of_thirty_two_racers_in_eight_processes_one_creates(tmp_path: Path) -> None:
    script = """
import sys, threading
from session_kit.drivers import ABSENT, Conflict, open_driver
driver = open_driver(sys.argv[1])
won = []
def race(name):
    for number in range(20):
        try:
            driver.set(f"key-{number}", name.encode(), expect=ABSENT)
            won.append(number)
        except Conflict:
            pass
print("ready", flush=True)
sys.stdin.readline()
threads = [threading.Thread(target=race, args=(f"{sys.argv[2]}-{thread}",)) for thread in range(4)]
[thread.start() for thread in threads]
[thread.join() for thread in threads]
print(*won)
"""
    url = f"file://{tmp_path}/store?fsync=no"
    racers = [
        subprocess.Popen(
            [sys.executable, "-c", script, url, str(number)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        for number in range(8)
    ]
    for racer in racers:
        assert racer.stdout is not None
        assert racer.stdout.readline() == "ready\n"
    won = []
    for racer in racers:
        assert racer.stdin is not None
        racer.stdin.write("go\n")
        racer.stdin.flush()
    for racer in racers:
        won += racer.communicate(timeout=60)[0].split()
    assert sorted(won, key=int) == [str(number) for number in range(20)]


def test_no_reader_ever_sees_a_torn_value(driver: FileDriver) -> None:
    values = [bytes([letter]) * (1024 * 1024) for letter in (65, 66)]
    driver.set("key", values[0])
    stop = threading.Event()
    seen: list[bool] = []

    def read() -> None:
        while not stop.is_set():
            seen.append(driver.get("key") in values)

    threads = [threading.Thread(target=read) for _ in range(2)]
    for thread in threads:
        thread.start()
    deadline = time.monotonic() + 1
    while time.monotonic() < deadline:
        for value in values:
            driver.set("key", value)
    stop.set()
    for thread in threads:
        thread.join()
    assert len(seen) > 50
    assert all(seen)


def test_a_folder_that_is_reached_by_a_link_keeps_long_keys(tmp_path: Path) -> None:
    """The folders of temporary files are reached so on macOS, and by short names on Windows."""
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    driver = FileDriver(tmp_path / "link" / "store")
    driver.set("k" * 512, b"value")
    assert driver.get("k" * 512) == b"value"


def test_a_planted_link_is_not_followed(driver: FileDriver, tmp_path: Path) -> None:
    driver.set("key", b"value")
    outside = FileDriver(tmp_path / "outside")
    outside.set("key", b"planted")
    (driver.path / "key").unlink()
    (driver.path / "key").symlink_to(outside.path / "key")
    with pytest.raises(DriverUnavailable):
        driver.get("key")
    assert list(driver.keys()) == []
    long_key = "k" * 300
    outside.set(long_key, b"planted")
    (folder,) = outside.path.glob("k*.d")
    (driver.path / folder.name).symlink_to(folder)
    with pytest.raises(CorruptEntry, match="leads elsewhere"):
        driver.get(long_key)
    assert list(driver.keys()) == []


@pytest.mark.parametrize("garbage", [b"", b"x", b"\x80\x04\x95pickle", b"\x89sesskit" + b"\xff" * 24, os.urandom(500)])
def test_a_file_that_is_not_ours_is_corrupt_can_be_deleted_and_overwritten(driver: FileDriver, garbage: bytes) -> None:
    for _ in range(2):
        (driver.path / "key").write_bytes(garbage)
        with pytest.raises(CorruptEntry):
            driver.get("key")
        assert driver.delete("key") is True
        assert driver.get("key") is None
    (driver.path / "key").write_bytes(garbage)
    driver.set("key", b"value")
    assert driver.get("key") == b"value"


def test_a_file_cut_off_by_hand_is_corrupt(driver: FileDriver) -> None:
    driver.set("key", b"a long value")
    os.truncate(driver.path / "key", 40)
    with pytest.raises(CorruptEntry, match="cut off"):
        driver.get("key")


def test_what_a_dead_process_left_unfinished_is_unseen_and_pruned(driver: FileDriver) -> None:
    left = driver.path / UNFINISHED / "f00"
    left.write_bytes(b"half a val")
    assert list(driver.keys()) == []
    driver.prune()
    assert left.exists()
    os.utime(left, (0, time.time() - ABANDONED - 1))
    driver.prune()
    assert not left.exists()


def test_names_of_other_files_are_left_alone(driver: FileDriver) -> None:
    stranger = driver.path / "README.txt"
    stranger.write_text("not a session")
    driver.set("key", b"value", ttl=1)
    assert driver.clear() == 1
    driver.prune()
    assert stranger.exists()


def test_folder_and_files_are_private(driver: FileDriver) -> None:
    driver.set("k" * 300, b"value")
    for path in [driver.path, *driver.path.rglob("*")]:
        assert path.stat().st_mode & 0o077 == 0


def test_a_folder_that_is_open_to_others_is_refused(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    (tmp_path / "letter.txt").write_text("hello")
    with pytest.raises(ConfigError, match="open to other users"):
        FileDriver(tmp_path)


@pytest.mark.parametrize("first", ["get", "set", "delete", "keys", "prune"])
@pytest.mark.parametrize("what", [".", LOCKS, UNFINISHED])
def test_a_folder_that_was_removed_under_a_running_process_is_made_anew_and_said_in_the_log(
    driver: FileDriver, caplog: pytest.LogCaptureFixture, first: str, what: str
) -> None:
    driver.set("key", b"old")
    shutil.rmtree(driver.path / what)
    with caplog.at_level(logging.WARNING, "session_kit.drivers"):
        if first == "get":
            assert driver.get("key") == (None if what == "." else b"old")
        elif first == "delete":
            assert driver.delete("key") is (what != ".")
        elif first == "keys":
            assert list(driver.keys()) == ([] if what == "." else ["key"])
        elif first == "prune":
            driver.prune()
        driver.set("key", b"new")
    assert driver.get("key") == b"new"
    assert caplog.text.count("was removed while it was in use") == 1
    assert driver.path.stat().st_mode & 0o777 == 0o700
    with contextlib.closing(FileDriver(driver.path)) as other:
        assert other.get("key") == b"new"


def test_a_folder_that_cannot_be_made_anew_is_not_said_to_be(
    driver: FileDriver, caplog: pytest.LogCaptureFixture
) -> None:
    driver.set("key", b"value")
    shutil.rmtree(driver.path)
    driver.path.write_text("a file stands in its place")
    with caplog.at_level(logging.WARNING, "session_kit.drivers"):
        for _ in range(3):
            with pytest.raises(DriverUnavailable):
                driver.set("key", b"other")
    assert "made anew" not in caplog.text


def test_a_disk_that_is_gone_is_an_outage_not_a_missing_key(driver: FileDriver) -> None:
    driver.set("key", b"value")
    driver.path.rename(driver.path.with_name("moved"))
    driver._device += 1  # as if the folder had been on a disk of its own
    with pytest.raises(DriverUnavailable, match="is its disk mounted"):
        driver.get("key")
    with pytest.raises(DriverUnavailable):
        driver.set("key", b"other")
    with pytest.raises(DriverUnavailable):
        list(driver.keys())
    assert not driver.path.exists()


def test_a_lock_that_is_held_is_an_outage_after_the_timeout(tmp_path: Path) -> None:
    driver = FileDriver(tmp_path / "store", timeout=0.1)  # type: ignore[arg-type]
    driver.set("key", b"old")
    (lock,) = (driver.path / LOCKS).iterdir()
    with lock.open() as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        with pytest.raises(DriverUnavailable, match="stayed locked"):
            driver.set("key", b"new")
        assert driver.get("key") == b"old"
    driver.set("key", b"new")


def test_a_full_disk_is_an_outage_and_the_old_value_stands(tmp_path: Path) -> None:
    script = """
import resource, signal, sys
from session_kit.drivers import DriverUnavailable, open_driver

driver = open_driver(sys.argv[1])
driver.set("key", b"old")
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
try:
    driver.set("key", b"x" * 5000)
except DriverUnavailable as error:
    print("refused:", error)
print(driver.get("key"))
"""
    run = subprocess.run(
        [sys.executable, "-c", script, f"file://{tmp_path}/store"], capture_output=True, text=True, check=True
    )
    assert "refused: FileDriver(" in run.stdout
    assert "File too large" in run.stdout
    assert "b'old'" in run.stdout
    assert list((tmp_path / "store" / UNFINISHED).iterdir()) == []


@pytest.mark.parametrize(
    "url", ["file://", "file:///", "file://host/path", "file:///x?fsync=maybe", "file:///x?sync=no"]
)
def test_a_url_that_cannot_be_meant_is_refused(url: str) -> None:
    with pytest.raises(ConfigError):
        open_driver(url)
