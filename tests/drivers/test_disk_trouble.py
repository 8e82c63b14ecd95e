"""Trouble with the disk raises and destroys nothing; what somebody planted there is neither executed nor an error."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import os
import pickle
import shutil
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Coroutine, Iterator
from pathlib import Path
from typing import Any

import pytest

from session_kit import ConfigError, SessionManager, open_driver, open_store
from session_kit.asgi import SessionMiddleware
from session_kit.drivers import DriverUnavailable
from session_kit.drivers.disk import DiskDriver
from session_kit.drivers.support import sqlite_pool
from tests.harness.sessions import SECRET, cookie_of


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


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of its own, of 24 MB, in memory."""
    folder = tmp_path / "small"
    folder.mkdir()
    mount, umount = shutil.which("mount"), shutil.which("umount")
    if mount is None or umount is None or os.geteuid() != 0:
        pytest.skip("only root can mount a file system that may be filled")
    mounted = subprocess.run([mount, "-t", "tmpfs", "-o", "size=24m", "tmpfs", folder], capture_output=True)
    if mounted.returncode:
        pytest.skip("this machine lets nobody mount a file system that may be filled")
    yield folder
    subprocess.run([umount, "--lazy", folder], check=True)


@pytest.mark.parametrize("restarted", [False, True], ids=["running", "restarted"])
@pytest.mark.parametrize("scheme", ["disk", "sqlite", "file"])
def test_on_a_full_disk_nobody_new_comes_in_and_everybody_can_log_out(
    small_disk: Path, scheme: str, restarted: bool
) -> None:
    url = f"{scheme}://{small_disk}/folder/store"
    driver = open_driver(url)
    driver.set_many({f"session-{number}": os.urandom(4000) for number in range(2000)}, ttl=1000)
    with (small_disk / "log").open("wb", buffering=0) as log, contextlib.suppress(OSError):
        while True:
            log.write(bytes(4096))
    if restarted:
        driver.close()
        driver = open_driver(url)
    with pytest.raises(DriverUnavailable):
        for number in range(3000):
            driver.set(f"new-{number}", os.urandom(4000), ttl=1000)
    entry = driver.read("session-7")
    assert entry is not None
    if driver.capabilities.swap:
        assert driver.delete("session-7", expect=entry.version)
    assert all(driver.delete(f"session-{number}") for number in range(10, 500))
    assert driver.delete_many(f"session-{number}" for number in range(500, 600)) == 100
    assert driver.get("session-10") is None
    assert driver.get("session-600")
    driver.clear("session-")
    driver.clear()
    assert list(driver.keys()) == []
    driver.set("new", b"value")
    driver.close()


def test_a_clear_in_steps_too_large_for_the_reserve_is_made_in_smaller_ones(small_disk: Path) -> None:
    with contextlib.closing(open_driver(f"sqlite://{small_disk}/folder/store")) as driver:
        driver.set("first", b"value")
        with contextlib.suppress(DriverUnavailable):
            for number in range(100_000):
                driver.set(f"session-{number}", os.urandom(200), ttl=1000)
        assert number > 20_000
        assert driver.clear() >= number
        assert list(driver.keys()) == []


@pytest.mark.parametrize("scheme", ["disk", "sqlite"])
def test_a_quota_is_a_full_disk_and_everybody_can_log_out(tmp_path: Path, scheme: str) -> None:
    script = """
import os, resource, signal, sys
from session_kit.drivers import DriverUnavailable, open_driver

driver = open_driver(sys.argv[1])
driver.set_many({f"session-{number}": os.urandom(4000) for number in range(300)})
log = sum(os.path.getsize(os.path.join(folder, name)) for folder, _, names in os.walk(sys.argv[2]) for name in names
    if name.endswith("-wal"))
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (log, log))
try:
    for number in range(300):
        driver.set(f"new-{number}", os.urandom(4000))
except DriverUnavailable as error:
    print("refused")
print(sum(driver.delete(f"session-{number}") for number in range(200)), driver.clear("session-"))
"""
    url = f"{scheme}://{tmp_path}/folder/store"
    run = subprocess.run([sys.executable, "-c", script, url, str(tmp_path)], capture_output=True, text=True, check=True)
    assert run.stdout == "refused\n200 100\n"


async def longest_stop(work: Coroutine[Any, Any, None]) -> float:
    """How long the event loop stood still at most while `work` was done, in seconds."""
    longest, last = 0.0, time.monotonic()

    async def watch() -> None:
        nonlocal longest, last
        while True:
            await asyncio.sleep(0.005)
            longest, last = max(longest, time.monotonic() - last), time.monotonic()

    watching = asyncio.create_task(watch())
    await asyncio.sleep(0.01)
    await work
    watching.cancel()
    return max(longest, time.monotonic() - last)


@pytest.mark.parametrize("scheme", ["disk", "sqlite"])
@pytest.mark.parametrize("lock", ["BEGIN IMMEDIATE", "BEGIN EXCLUSIVE"])
@pytest.mark.parametrize("new", [True, False], ids=["new", "old"])
def test_while_another_process_holds_the_lock_the_event_loop_goes_on(
    tmp_path: Path, scheme: str, lock: str, new: bool
) -> None:
    url = f"{scheme}://{tmp_path}/folder/store"
    with contextlib.closing(open_driver(url)) as driver:
        if not new:
            driver.set("key", b"value")

    async def work() -> None:
        driver = open_driver(f"{url}?timeout=0.3")
        calls: list[Coroutine[Any, Any, object]] = [driver.aget("key"), driver.aread("key"), driver.ahas("key")]
        results = await asyncio.gather(*calls, return_exceptions=True)
        if new:
            assert all(result is None or isinstance(result, (bool, DriverUnavailable)) for result in results)
        else:
            assert results[0] == b"value"
        with pytest.raises(DriverUnavailable, match="locked"):
            await driver.aset("key", b"other")
        driver.close()

    with locked(tmp_path / "folder", lock):
        assert asyncio.run(longest_stop(work())) < 0.25


@contextlib.contextmanager
def locked(folder: Path, lock: str) -> Iterator[None]:
    """Hold the lock of the database in this folder."""
    file = next(path for path in folder.rglob("*") if path.is_file() and "-" not in path.name)
    with contextlib.closing(sqlite3.connect(file, isolation_level=None)) as blocker:
        blocker.execute(lock)
        yield


@pytest.mark.parametrize("scheme", ["disk", "sqlite"])
def test_a_session_that_is_touched_while_the_new_file_is_locked_does_not_stop_the_event_loop(
    tmp_path: Path, scheme: str
) -> None:
    url = f"{scheme}://{tmp_path}/folder/store"
    open_driver(url).close()
    before = SessionManager("memory://", SECRET)
    session = before.open()
    session["user"] = "ada"
    cookie = cookie_of(before.commit(session))
    statuses: list[int] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        status = 200 if scope["session"].get("user") is None else 500
        await send({"type": "http.response.start", "status": status, "headers": []})
        await send({"type": "http.response.body"})

    async def work() -> None:
        middleware = SessionMiddleware(app, f"{url}?timeout=0.5", SECRET)
        scope = {"type": "http", "headers": [(b"cookie", cookie.encode())]}

        async def receive() -> dict[str, Any]:
            raise AssertionError("the request has no body")

        async def send(message: Any) -> None:
            if message["type"] == "http.response.start":
                statuses.append(message["status"])

        await middleware(scope, receive, send)
        await middleware.manager.aclose()

    with locked(tmp_path / "folder", "BEGIN EXCLUSIVE"):
        assert asyncio.run(longest_stop(work())) < 0.25
    asyncio.run(work())
    assert statuses == [503, 200]


@pytest.mark.skipif(os.name != "posix", reason="owners of files are those of POSIX")
@pytest.mark.parametrize("scheme", ["disk", "sqlite", "file"])
def test_a_place_that_belongs_to_another_user_is_refused_and_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, scheme: str
) -> None:
    place = tmp_path / "store"
    if scheme == "sqlite":
        place.write_bytes(b"")
        place.chmod(0o600)
    else:
        place.mkdir(mode=0o700)
    if os.geteuid() == 0:
        os.chown(place, 12345, 12345)
    else:
        monkeypatch.setattr(os, "geteuid", lambda: 12345)
    with pytest.raises(ConfigError, match="belongs to another user") as caught:
        open_driver(f"{scheme}://{place}")
    assert "\n" not in str(caught.value)
    assert place.is_file() or list(place.iterdir()) == []


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
@pytest.mark.parametrize("anonymous", [False, True])
def test_a_folder_that_cannot_be_entered_is_an_outage_on_an_event_loop_too(
    tmp_path: Path, scheme: str, anonymous: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite_pool, "LOOK_AGAIN", 0.0)
    folder = tmp_path / "folder"

    async def ask(manager: SessionManager, cookie: str) -> Any:
        session = manager.open(cookie, asynchronous=True)
        await manager.apreload(session)
        await session.aload()
        return session.get("user")

    with contextlib.closing(
        SessionManager(f"{scheme}://{folder}/store", SECRET, on_error="anonymous" if anonymous else "raise")
    ) as manager:
        session = manager.open()
        session["user"] = "ada"
        cookie = cookie_of(manager.commit(session))
        folder.rename(tmp_path / "moved")
        folder.write_text("a file, so that nothing in it can be found")
        if anonymous:
            assert asyncio.run(ask(manager, cookie)) is None
        else:
            with pytest.raises(DriverUnavailable):
                asyncio.run(ask(manager, cookie))
        folder.unlink()
        (tmp_path / "moved").rename(folder)
        assert asyncio.run(ask(manager, cookie)) == "ada"


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


@pytest.mark.skipif(os.name != "posix", reason="locks that end with any descriptor are those of POSIX")
@pytest.mark.parametrize("scheme", ["disk", "sqlite"])
def test_a_second_driver_on_the_same_file_does_not_end_the_locks_of_the_first(tmp_path: Path, scheme: str) -> None:
    url = f"{scheme}://{tmp_path}/folder/store"
    with contextlib.closing(open_driver(url)) as driver:
        driver.set("key", b"value")
        (log,) = (tmp_path / "folder").rglob("*-wal")
        before = log.stat().st_ino
        open_driver(url).close()
        # Who closes a file that nobody else has locked writes the log back and removes it.
        code = "import sys, session_kit; d = session_kit.open_driver(sys.argv[1]); d.set('other', b'value'); d.close()"
        subprocess.run([sys.executable, "-c", code, url], check=True)
        assert log.stat().st_ino == before
        driver.set("key", b"new")
        assert driver.get("other") == b"value"


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
    manager = SessionManager(f"disk://{tmp_path}/store", SECRET)
    session = manager.open()
    session["user"] = "ada"
    cookie = cookie_of(manager.commit(session))
    with contextlib.closing(sqlite3.connect(tmp_path / "store" / "cache.db")) as database, database:
        database.execute("UPDATE Cache SET mode = 4, value = ?", (pickle.dumps({"user": "eve"}),))
    for _ in range(2):
        assert dict(manager.open(cookie)) == {}
    assert manager.store.length() == 0


FORKS = """
import os, signal, sys, threading
from session_kit.drivers import open_driver

driver = open_driver(sys.argv[1])
keys = [f"key-{number}" for number in range(200)]
stop = threading.Event()
failed = []

def work(write):
    while not stop.is_set():
        for key in keys:
            try:
                driver.set(key, b"value") if write else driver.get(key)
            except Exception as error:
                failed.append(error)
                return

threads = [threading.Thread(target=work, args=(number < 2,)) for number in range(4)]
for thread in threads:
    thread.start()
children = []
for number in range(15):
    child = os.fork()
    if not child:
        signal.alarm(50)  # whatever becomes of the parent
        status = 1
        try:
            driver.set(f"child-{number}", b"value")
            status = 0 if driver.get(f"child-{number}") == b"value" else 2
        finally:
            os.write(int(sys.argv[2]), bytes([status]))
            signal.pause()
    children.append(child)
results = b""
while len(results) < 15:
    results += os.read(int(sys.argv[3]), 15)
# While all children live, with whatever they have inherited:
for key in keys:
    driver.set(key, b"after")
stop.set()
for thread in threads:
    thread.join()
for child in children:
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
assert results == bytes(15), results
assert not failed, failed
assert len(list(driver.keys("child-"))) == 15
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
@pytest.mark.parametrize("url", ["disk://{}/store", "sqlite://{}/store.db", "file://{}/store?fsync=no&timeout=2"])
def test_children_that_were_forked_while_threads_write_can_write_and_so_can_the_parent(
    tmp_path: Path, url: str
) -> None:
    read, write = os.pipe()
    # What Python 3.12 and later say of each fork beside threads; since 3.15 as an error, if warnings are errors.
    warnings = ["-W", "error", "-W", "ignore:This process:DeprecationWarning"]
    command = [sys.executable, *warnings, "-c", FORKS, url.format(tmp_path), str(write), str(read)]
    run = subprocess.run(command, pass_fds=(read, write), capture_output=True, text=True, timeout=60)
    os.close(read)
    os.close(write)
    assert run.returncode == 0, run.stderr


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="open files are counted in /proc")
@pytest.mark.parametrize("scheme", ["disk", "sqlite", "file"])
def test_close_leaves_no_descriptor_of_ten_threads_open(tmp_path: Path, scheme: str) -> None:
    def opened() -> int:
        return sum(str(tmp_path) in os.path.realpath(link) for link in Path("/proc/self/fd").iterdir())

    driver = open_driver(f"{scheme}://{tmp_path}/folder/store")
    gate = threading.Barrier(11)

    def work(number: int) -> None:
        for _ in range(10):
            driver.set(f"key-{number}", b"value")
            driver.get(f"key-{number}")
        gate.wait()
        gate.wait()

    threads = [threading.Thread(target=work, args=(number,)) for number in range(10)]
    for thread in threads:
        thread.start()
    gate.wait()
    driver.close()
    assert opened() == 0
    gate.wait()
    for thread in threads:
        thread.join()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
@pytest.mark.parametrize("url", ["disk://{}", "sqlite://{}", "file://{}", "s3://a", "fsspec+memory://x?nothing=1"])
def test_a_driver_that_could_not_be_opened_does_not_disturb_a_fork(tmp_path: Path, url: str) -> None:
    script = """
import os, sys
from session_kit import ConfigError, open_driver
try:
    open_driver(sys.argv[1])
except ConfigError as error:
    kept = error  # and with it, by its traceback, the driver
child = os.fork()
if not child:
    os._exit(0)
os.waitpid(child, 0)
print(bool(kept))
"""
    (tmp_path / "file").write_text("no folder")
    command = [sys.executable, "-c", script, url.format(tmp_path / "file" / "store")]
    run = subprocess.run(command, capture_output=True, text=True, check=True)
    assert (run.stdout, run.stderr) == ("True\n", "")


@pytest.mark.parametrize("url", ["disk://{}/store", "sqlite://{}/store.db"])
def test_a_driver_that_nobody_closes_closes_its_connections_when_it_goes(tmp_path: Path, url: str) -> None:
    driver: Any = open_driver(url.format(tmp_path))
    driver.set("key", b"value")
    with driver.connections.reading() as database:
        pass
    del driver
    gc.collect()
    with pytest.raises(sqlite3.ProgrammingError, match="closed"):
        database.execute("SELECT 1")
