"""Any file system of fsspec keeps what the driver claims, and says clearly what it cannot do."""

from __future__ import annotations

import asyncio
import gc
import subprocess
import sys
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar
from urllib.parse import quote, urlsplit

import fsspec
import pytest
from fsspec.asyn import AsyncFileSystem
from fsspec.implementations.memory import MemoryFileSystem
from fsspec.utils import infer_storage_options
from hypothesis import given
from hypothesis import strategies as st

from session_kit import ConfigError, SessionManager, UnstorageSessionStore, open_driver
from session_kit.drivers import Capabilities, CorruptEntry, Driver, DriverUnavailable, Unsupported
from session_kit.drivers.fsspec import FsspecDriver
from session_kit.testing import DriverConformance, ManualClock
from tests.harness.sessions import SECRET, cookie_of


class TestMemory(DriverConformance):
    title = "`fsspec+memory://`"

    def open_driver(self, clock: ManualClock, tmp_path: Path) -> Driver:
        return open_driver(f"fsspec+memory://{tmp_path.name}-{id(self)}", clock=clock)


class TestLocal(DriverConformance):
    title = "`fsspec+file://`"

    def open_driver(self, clock: ManualClock, tmp_path: Path) -> Driver:
        return open_driver(self.url(tmp_path), clock=clock)

    def url(self, tmp_path: Path) -> str:
        return f"fsspec+file://{tmp_path}/store"


class AsyncMemory(AsyncFileSystem):  # type: ignore[misc]  # fsspec has no type hints
    """A file system with native coroutines, as the object stores have; it notes the event loops it was called in."""

    protocol = "asyncmemory"
    cachable = False
    files: ClassVar[dict[str, bytes]] = {}
    loops: ClassVar[list[Any]] = []

    async def _cat_file(self, path: str, start: int | None = None, end: int | None = None, **kwargs: Any) -> bytes:
        self.loops.append(asyncio.get_running_loop())
        await asyncio.sleep(0)
        if path not in self.files:
            raise FileNotFoundError(path)
        return self.files[path][start:end]

    async def _pipe_file(self, path: str, value: bytes, mode: str = "overwrite", **kwargs: Any) -> None:
        await asyncio.sleep(0)
        self.files[path] = value

    async def _rm_file(self, path: str, **kwargs: Any) -> None:
        await asyncio.sleep(0)
        if self.files.pop(path, None) is None:
            raise FileNotFoundError(path)

    async def _ls(self, path: str, detail: bool = True, **kwargs: Any) -> list[Any]:
        inside = [name for name in self.files if name.startswith(path + "/")]
        entries: dict[str, Any] = {}
        for name in inside:
            child, more, _ = name[len(path) + 1 :].partition("/")
            entries[child] = {"name": f"{path}/{child}", "type": "directory" if more else "file", "size": 0}
        return list(entries.values())


class Broken(MemoryFileSystem):  # type: ignore[misc]
    """A file system whose server does not answer, and whose user may not write."""

    protocol = "broken"
    cachable = False

    def __init__(self, token: str | None = None, retries: int = 3, **kwargs: Any) -> None:
        super().__init__(**kwargs)

    def cat_file(self, *args: Any, **kwargs: Any) -> bytes:
        raise RuntimeError("token s3cr3t-t0ken was refused")

    def pipe_file(self, *args: Any, **kwargs: Any) -> None:
        raise PermissionError(13, "Permission denied")

    def ls(self, *args: Any, **kwargs: Any) -> list[Any]:
        raise ConnectionResetError(104, "Connection reset by peer")


class ReadOnly(fsspec.AbstractFileSystem):  # type: ignore[misc]
    """A file system without a method to write, like that of GitHub."""

    protocol = "readonly"
    cachable = False

    def cat_file(self, path: str, *args: Any, **kwargs: Any) -> bytes:
        raise FileNotFoundError(path)

    def _open(self, *args: Any, **kwargs: Any) -> Any:
        raise NotImplementedError


@pytest.fixture(autouse=True, scope="module")
def registered() -> None:
    for cls in (AsyncMemory, Broken, ReadOnly):
        fsspec.register_implementation(cls.protocol, cls, clobber=True)


class TestAsync(DriverConformance):
    title = "an asynchronous file system of fsspec"

    def open_driver(self, clock: ManualClock, tmp_path: Path) -> Driver:
        AsyncMemory.files.clear()
        driver = FsspecDriver("asyncmemory", "/root", clock=clock)
        driver.capabilities = Capabilities()  # it lives in this process alone
        return driver


def test_native_coroutines_run_in_the_callers_loop() -> None:
    driver = FsspecDriver("asyncmemory", "/loop")
    AsyncMemory.loops.clear()

    async def main() -> None:
        await driver.aset("key", b"value")
        assert await driver.aget("key") == b"value"
        assert await driver.adelete("key") is True
        assert set(AsyncMemory.loops) == {asyncio.get_running_loop()}

    asyncio.run(main())


def test_event_loops_that_have_ended_are_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    driver = FsspecDriver("asyncmemory", "/loops")
    monkeypatch.setattr(AsyncMemory, "loops", deque(maxlen=1))  # which it would keep itself
    ended: list[weakref.ref[asyncio.AbstractEventLoop]] = []

    async def main() -> None:
        ended.append(weakref.ref(asyncio.get_running_loop()))
        await driver.aset("key", b"value")
        assert await driver.aget("key") == b"value"

    for _ in range(5):
        asyncio.run(main())
    gc.collect()
    assert [loop() is None for loop in ended[:-1]] == [True] * 4


def test_what_it_cannot_promise_is_refused_and_the_session_layer_falls_back() -> None:
    driver = open_driver("fsspec+memory://fallback")
    assert not driver.capabilities.create
    assert not driver.capabilities.swap
    with pytest.raises(Unsupported):
        driver.set("key", b"value", expect="version")
    manager = SessionManager(UnstorageSessionStore(driver), secret=SECRET)
    session = manager.open()
    session["user"] = "ada"
    cookie = cookie_of(manager.commit(session))
    one, other = manager.open(cookie), manager.open(cookie)
    one["a"] = 1
    other["b"] = 2
    manager.commit(one)
    manager.commit(other)
    assert dict(manager.open(cookie)) == {"user": "ada", "a": 1, "b": 2}


def test_an_error_of_the_file_system_is_an_outage_and_shows_no_secret() -> None:
    driver = open_driver("fsspec+broken://host/root?token=s3cr3t-t0ken")
    with pytest.raises(DriverUnavailable, match="cannot be read: RuntimeError") as caught:
        driver.get("key")
    assert "s3cr3t" not in str(caught.value) + repr(driver)
    with pytest.raises(DriverUnavailable, match="cannot be written: Permission denied"):
        driver.set("key", b"value")
    with pytest.raises(DriverUnavailable, match="cannot be listed: Connection reset"):
        list(driver.keys())


def test_a_read_only_file_system_refuses_writes_clearly() -> None:
    driver = open_driver("fsspec+readonly://root")
    assert driver.get("key") is None
    with pytest.raises(DriverUnavailable, match="cannot be written: the file system does not offer it"):
        driver.set("key", b"value")


def test_nothing_is_cached_between_drivers(tmp_path: Path) -> None:
    one, other = (open_driver(f"fsspec+file://{tmp_path}/store") for _ in range(2))
    one.set("a", b"1")
    assert list(other.keys()) == ["a"]
    one.set("b", b"2")
    assert sorted(other.keys()) == ["a", "b"]
    one.delete("a")
    assert list(other.keys()) == ["b"]


def test_files_of_others_are_left_alone(tmp_path: Path) -> None:
    driver = open_driver(f"fsspec+file://{tmp_path}")
    (tmp_path / "README.txt").write_text("hello")
    (tmp_path / "planted").write_bytes(b"\x80\x04\x95pickle")
    assert list(driver.keys()) == []
    with pytest.raises(CorruptEntry):
        driver.get("planted")
    assert driver.clear() == 0
    assert (tmp_path / "README.txt").exists()


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("fsspec+memory://", "name a folder"),
        ("fsspec+nonsense://x", "knows no protocol nonsense"),
        ("fsspec+broken://x?retrys=5", "did you mean 'retries'"),
        ("fsspec+broken://x?retries=many", "retries: 'many' is not a whole number"),
        ("nonsense://x", "no driver for nonsense://"),
        ("fsspec+://x", "knows no protocol ://"),
        # Which folder it is would depend on where the program was started.
        *((f"{scheme}://data/s", "needs an absolute path") for scheme in ("fsspec+file", "local")),
        # Which show what they have copied, also after a logout.
        ("simplecache://x?target_protocol=file", "goes on showing what it has copied"),
        ("filecache://x?target_protocol=file", "say check_files=yes"),
        ("filecache://x?target_protocol=file&check_files=no", "say check_files=yes"),
    ],
)
def test_a_url_that_cannot_be_meant_is_refused(url: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        open_driver(url)


@pytest.mark.parametrize("scheme", ["fsspec+file", "local"])
def test_a_local_folder_is_named_as_in_other_urls(scheme: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATA_DIR", str(tmp_path))
    open_driver(f"{scheme}:///$DATA_DIR/a%20b").set("key", b"value")
    assert open_driver(f"{scheme}://{tmp_path}/a%20b").get("key") == b"value"
    assert (tmp_path / "a b").is_dir()


def test_a_logout_is_noticed_where_copies_are_checked(tmp_path: Path) -> None:
    folder = f"filecache://{tmp_path}?target_protocol=file&check_files=yes"
    ours, theirs = open_driver(folder), open_driver(folder)
    ours.set("key", b"value")
    assert theirs.get("key") == b"value"
    ours.delete("key")
    assert (ours.get("key"), theirs.get("key")) == (None, None)


class Annotated(fsspec.AbstractFileSystem):  # type: ignore[misc]  # fsspec has no type hints
    """A file system whose options say in every way that there is what they take."""

    def __init__(
        self,
        anon: bool | None = None,
        wait: int | None = None,
        safe: bool = False,
        size: float = 1,
        key=None,  # type: ignore[no-untyped-def]  # as s3fs has it
        **more: Any,
    ) -> None:
        super().__init__(**more)


def test_an_option_has_the_type_that_the_file_system_names_and_not_that_of_its_default() -> None:
    fsspec.register_implementation("annotated", Annotated, clobber=True)
    options = FsspecDriver.url_options(urlsplit("fsspec+annotated://x"))
    read = {name: options[name]("1") for name in ("anon", "wait", "safe", "size", "key")}
    assert read == {"anon": True, "wait": 1, "safe": True, "size": 1.0, "key": "1"}
    assert [type(value) for value in read.values()] == [bool, int, bool, float, str]


def test_a_protocol_whose_package_is_missing_names_it() -> None:
    script = """
import sys
sys.modules["gcsfs"] = None
from session_kit import ConfigError, open_driver
try:
    open_driver("gs://bucket/folder")
except ConfigError as error:
    print(error)
"""
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert "gcsfs" in run.stdout


def test_without_fsspec_the_extra_is_named() -> None:
    script = """
import sys
sys.modules["fsspec"] = None
from session_kit import ConfigError, open_driver
for url in ("fsspec+memory://x", "gs://bucket"):
    try:
        open_driver(url)
    except ConfigError as error:
        print(error)
"""
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    one, other = run.stdout.splitlines()
    assert "pip install 'session-kit-web[fsspec]'" in one
    assert "extra 'fsspec'" in other


@given(st.text(min_size=6).filter(str.isprintable))
def test_a_password_in_a_url_is_never_shown(password: str) -> None:
    driver = open_driver(f"ftp://user:{quote(password, safe='')}@ftp.example.com/folder")
    assert repr(driver) == "FsspecDriver(ftp://ftp.example.com/folder)"
    assert driver._options["password"] in (password, quote(password, safe=""))  # type: ignore[attr-defined]


class LoginFileSystem(MemoryFileSystem):  # type: ignore[misc]  # fsspec has no types
    """One that takes user and password from its URL, as those for FTP, SFTP and SMB do."""

    protocol = "login"
    cachable = False
    seen: ClassVar[list[Any]] = []

    def __init__(self, username: str = "", password: str = "", **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.seen.append((username, password))

    @staticmethod
    def _get_kwargs_from_urls(path: str) -> dict[str, Any]:
        found = infer_storage_options(path)
        return {name: found[name] for name in ("username", "password") if name in found}


def test_a_password_in_a_url_reaches_the_file_system_as_it_is() -> None:
    fsspec.register_implementation("login", LoginFileSystem, clobber=True)
    user, password = "ada@shop", "p@ss/w0rd?#%é"
    driver = open_driver(f"fsspec+login://{quote(user, safe='')}:{quote(password, safe='')}@host/folder")
    driver.set("key", b"value")
    assert set(LoginFileSystem.seen) == {(user, password)}


def test_a_read_that_meets_a_write_of_a_local_file_never_ends_a_session(tmp_path: Path) -> None:
    driver = open_driver(f"fsspec+file://{tmp_path}/store")
    values = [bytes([letter]) * 20_000 for letter in (65, 66)]
    driver.set("key", values[0])
    stop = threading.Event()
    seen: list[object] = []

    def twice() -> bytes | None:
        """As the session layer reads: a busy machine may keep the writer waiting in the middle of a write."""
        try:
            return driver.get("key")
        except CorruptEntry:
            return driver.get("key")

    def read() -> None:
        while not stop.is_set():
            try:
                seen.append(twice() in values)
            except Exception as error:
                seen.append(error)

    threads = [threading.Thread(target=read) for _ in range(3)]
    for thread in threads:
        thread.start()
    deadline = time.monotonic() + 2
    while time.monotonic() < deadline:
        for value in values:
            driver.set("key", value)
            time.sleep(0.0005)
    stop.set()
    for thread in threads:
        thread.join()
    assert len(seen) > 100
    # What goes on changing may be an outage, which a request can try again; it is never corrupt, missing or mixed.
    assert {answer if answer is True else type(answer) for answer in seen} <= {True, DriverUnavailable}
    assert seen.count(True) > 0.9 * len(seen)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda data: data[:-1], "torn"),
        (lambda data: data[:20], "torn"),
        (lambda data: data[:-5] + b"other", "torn or damaged"),
        (lambda data: b"x" * len(data), "not written by this library"),
    ],
)
def test_a_file_that_stays_torn_is_corrupt_and_can_be_deleted(
    tmp_path: Path, damage: Callable[[bytes], bytes], message: str
) -> None:
    driver = open_driver(f"fsspec+file://{tmp_path}/store")
    driver.set("key", b"a long value")
    file = tmp_path / "store" / "key"
    file.write_bytes(damage(file.read_bytes()))
    with pytest.raises(CorruptEntry, match=message):
        driver.get("key")
    assert driver.delete("key") is True
    assert driver.get("key") is None
