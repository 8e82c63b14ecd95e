"""Entries as files in a folder: one file each, replaced atomically, for one machine and several processes."""

from __future__ import annotations

import contextlib
import os
import secrets
import time
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import SplitResult

from session_kit.drivers.base import ABSENT, ANY, Capabilities, Driver, Entry, check_key, check_value
from session_kit.drivers.envelope import HEADER, seal, unseal, unseal_header
from session_kit.drivers.errors import ConfigError, Conflict, CorruptEntry, DriverUnavailable
from session_kit.drivers.findings import Finding, path_findings
from session_kit.drivers.folder import expanded, make_private, named_in
from session_kit.drivers.names import FOLDER_END, key_of, parts_of
from session_kit.drivers.options import Duration

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]  # a module or nothing: mypy knows the module

if TYPE_CHECKING:
    from typing import Self

CHANGED: Final = "the entry is not what was expected: it was changed, created or deleted meanwhile"
# Folders of our own, whose names no key can have.
LOCKS: Final = ".locks"
UNFINISHED: Final = ".unfinished"
# Writers of different keys seldom wait for each other.
LOCK_COUNT: Final = 64
# A file that was begun so many seconds ago belongs to nobody who still lives.
ABANDONED: Final = 3600.0
# Without it a planted symbolic link would be followed; not every system has it.
NOFOLLOW: Final = getattr(os, "O_NOFOLLOW", 0)


class FileDriver(Driver):
    """A folder with one file for each entry, shared by all processes of this machine.

    path: the folder. It is made with mode 0700; one that exists must be private too, or empty, or ours.
    fsync: wait until a write is on the disk itself, so that no power cut takes it or leaves half of it. Default yes.
    timeout: how long a write waits for another writer of the same key, in seconds. Default 5.
    clock: Unix time in seconds.

    A write goes to a file of its own that then takes the place of the old one, so that a reader sees the old value or
    the new one. Nothing removes what has expired but `prune`. For many writes `disk://` is several times faster.

    In a URL: `file:///var/lib/app?fsync=no`.
    """

    capabilities = Capabilities(create=fcntl is not None, swap=fcntl is not None, shared=True, quick_reads=True)

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        fsync: bool = True,
        timeout: Duration = Duration(5.0),
        clock: Callable[[], float] = time.time,
    ) -> None:
        super().__init__(clock=clock)
        self.path = expanded(path)
        self.timeout = timeout
        self._fsync = fsync
        make_private(self.path, "file", LOCKS)
        with self._translated():
            for name in (LOCKS, UNFINISHED):
                (self.path / name).mkdir(mode=0o700, exist_ok=True)

    @classmethod
    def from_url(cls, url: SplitResult, **options: Any) -> Self:
        if url.netloc or not url.path.strip("/"):
            raise ConfigError("file:// needs an absolute path, with three slashes in all: file:///var/lib/app")
        return cls(named_in(url.path), **options)

    def __repr__(self) -> str:
        return f"FileDriver({str(self.path)!r})"

    def read(self, key: str) -> Entry | None:
        path = self._path(key)
        with self._translated():
            data = self._load(path)
        return None if data is None else self._live(unseal(data))

    def set(self, key: str, value: bytes, *, ttl: float | None = None, expect: object = ANY) -> object:
        path = self._path(key)
        check_value(value)
        data, version = seal(value, self.expires_at(ttl))
        if expect is not ANY and not self.capabilities.swap:
            raise self.unsupported("conditional writes on this system")
        with self._translated(), self._locked(path):
            if expect is not ANY:
                self._check(key, expect)
            self._replace(path, data)
        return version

    def delete(self, key: str, *, expect: object = ANY) -> bool:
        path = self._path(key)
        if expect is not ANY and not self.capabilities.swap:
            raise self.unsupported("conditional deletes on this system")
        with self._translated(), self._locked(path):
            if expect is not ANY:
                self._check(key, expect)
            try:
                live = self.read(key) is not None
            except CorruptEntry:  # what cannot be read can still be deleted
                live = True
            path.unlink(missing_ok=True)
        return live

    def touch(self, key: str, ttl: float | None) -> bool:
        path = self._path(key)
        expires_at = self.expires_at(ttl)
        with self._translated(), self._locked(path):
            entry = self.read(key)
            if entry is None:
                return False
            self._replace(path, seal(entry.value, expires_at)[0])
        return True

    def keys(self, prefix: str = "") -> Iterator[str]:
        for path, name in self._files(self.path, ""):
            key = key_of(name)
            if key is not None and key.startswith(prefix) and self._expires_at(path) > self.clock():
                yield key

    def prune(self) -> int:
        """Drop what has expired, and files that a process which died has not finished."""
        count = 0
        for path, name in self._files(self.path, ""):
            if key_of(name) is None or self._expires_at(path) > self.clock():
                continue
            with self._translated(), self._locked(path):
                if self._expires_at(path) <= self.clock():
                    path.unlink(missing_ok=True)
                    count += 1
        with self._translated():
            for path in (self.path / UNFINISHED).iterdir():
                if path.stat().st_mtime < time.time() - ABANDONED:
                    path.unlink(missing_ok=True)
        return count

    def examine(self) -> Iterator[Finding]:
        return path_findings(self.path)

    def _path(self, key: str) -> Path:
        check_key(key)
        return self.path.joinpath(*parts_of(key))

    def _live(self, entry: Entry) -> Entry | None:
        return None if entry.expires_at is not None and entry.expires_at <= self.clock() else entry

    def _check(self, key: str, expect: object) -> None:
        try:
            entry = self.read(key)
        except CorruptEntry as error:
            if error.version is None or error.version != expect:
                raise
            return
        if (expect is not ABSENT) if entry is None else (entry.version != expect):
            raise Conflict(CHANGED)

    def _load(self, path: Path, size: int = -1) -> bytes | None:
        try:
            inside = path.parent.relative_to(self.path)
            if inside.parts and path.parent.resolve() != self.path.resolve() / inside:
                raise CorruptEntry(f"{self!r} holds a link that leads elsewhere; it was not followed")
            with open(path, "rb", opener=_open_no_link) as file:
                return file.read(size)
        except FileNotFoundError:
            if not (self.path / LOCKS).is_dir():
                raise DriverUnavailable(f"{self!r}: the folder is gone; is its disk mounted?") from None
            return None

    def _expires_at(self, path: Path) -> float:
        """When the file expires: infinity for never, and 0 if it is not there or not one of ours."""
        with self._translated():
            try:
                data = self._load(path, HEADER.size)
                expires_at = 0.0 if data is None else unseal_header(data).expires_at
            except CorruptEntry:
                return 0.0
        return float("inf") if expires_at is None else expires_at

    def _replace(self, path: Path, data: bytes) -> None:
        unfinished = self.path / UNFINISHED / secrets.token_hex(16)
        try:
            with open(unfinished, "xb", opener=_open_private) as file:
                file.write(data)
                file.flush()
                if self._fsync:
                    os.fsync(file.fileno())
            try:
                unfinished.replace(path)
            except FileNotFoundError:
                path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
                unfinished.replace(path)
        except BaseException:
            unfinished.unlink(missing_ok=True)
            raise

    @contextlib.contextmanager
    def _locked(self, path: Path) -> Iterator[None]:
        """Keep other writers of this file out, of this process and of others."""
        if fcntl is None:
            yield
            return
        name = f"{zlib.crc32(os.fsencode(path.name)) % LOCK_COUNT:02}"
        descriptor = os.open(self.path / LOCKS / name, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | NOFOLLOW, 0o600)
        try:
            deadline = time.monotonic() + self.timeout
            while True:
                try:
                    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    if time.monotonic() > deadline:
                        raise DriverUnavailable(
                            f"{self!r} stayed locked by another writer for longer than timeout={self.timeout:g} s"
                        ) from None
                    time.sleep(0.001)
            yield
        finally:
            os.close(descriptor)

    def _files(self, folder: Path, name: str) -> Iterator[tuple[Path, str]]:
        """Each file with the name that its path spells."""
        with self._translated(), os.scandir(folder) as entries:
            for entry in entries:
                if entry.is_file(follow_symlinks=False):
                    yield Path(entry.path), name + entry.name
                elif entry.name.endswith(FOLDER_END) and entry.is_dir(follow_symlinks=False):
                    yield from self._files(Path(entry.path), name + entry.name.removesuffix(FOLDER_END))

    @contextlib.contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise DriverUnavailable(f"{self!r} cannot be used: {error.strerror}") from error


def _open_private(path: str, flags: int) -> int:
    return os.open(path, flags | NOFOLLOW, 0o600)


def _open_no_link(path: str, flags: int) -> int:
    return os.open(path, flags | NOFOLLOW)
