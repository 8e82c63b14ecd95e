"""Entries as files in a folder: one file each, replaced atomically, for one machine and several processes."""

from __future__ import annotations

import contextlib
import logging
import os
import secrets
import time
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Final
from urllib.parse import SplitResult

from session_kit.drivers.base import ANY, Capabilities, Driver, Entry, check_expected, check_key, check_value
from session_kit.drivers.errors import ConfigError, CorruptEntry, DriverUnavailable
from session_kit.drivers.support.envelope import HEADER, Header, seal, unseal, unseal_header
from session_kit.drivers.support.file_locks import FileLocks
from session_kit.drivers.support.findings import Finding, path_findings
from session_kit.drivers.support.folder import NOFOLLOW, check_mounted, device_of, expanded, make_private, path_in
from session_kit.drivers.support.names import FOLDER_END, key_of, parts_of
from session_kit.drivers.support.options import Duration

if TYPE_CHECKING:
    from typing import Self

log = logging.getLogger("session_kit.drivers")

# Folders of our own, whose names no key can have.
LOCKS: Final = ".locks"
UNFINISHED: Final = ".unfinished"
# Writers of different keys seldom wait for each other.
LOCK_COUNT: Final = 64
# A file that was begun so many seconds ago belongs to nobody who still lives.
ABANDONED: Final = 3600.0


class FileDriver(Driver):
    """A folder with one file for each entry, shared by all processes of this machine.

    path: the folder. It is made with mode 0700; one that exists must be private too, or empty, or ours.
    fsync: wait until a write is on the disk itself, so that no power cut takes it or leaves half of it. Default yes.
    timeout: how long a write waits for another writer of the same key, in seconds. Default 5.
    clock: Unix time in seconds.

    A write goes to a file of its own that then takes the place of the old one, so that a reader sees the old value or
    the new one. A folder that is removed while it is in use is noticed at once and made anew. Nothing removes what has
    expired but `prune`. For many writes `sqlite://` is several times faster.

    In a URL: `file:///var/lib/app?fsync=no`.
    """

    capabilities = Capabilities(create=FileLocks.available, swap=FileLocks.available, shared=True, quick_reads=True)

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        fsync: bool = True,
        timeout: Duration = Duration(5.0),
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.path = expanded(path)
        self.timeout = timeout
        self._fsync = fsync
        self._locks = FileLocks(self.path / LOCKS, timeout, owner=self, restore=self._restore)
        with self._translated():
            self._make()
            self._device = device_of(self.path)
        super().__init__(clock=clock)

    def _make(self) -> None:
        make_private(self.path, "file", LOCKS)
        for name in (LOCKS, UNFINISHED):
            (self.path / name).mkdir(mode=0o700, exist_ok=True)

    @classmethod
    def from_url(cls, url: SplitResult, **options: Any) -> Self:
        return cls(path_in(url), **options)

    def __repr__(self) -> str:
        return f"FileDriver({str(self.path)!r})"

    def read(self, key: str) -> Entry | None:
        path = self._path(key)
        with self._translated():
            data = self._load(path)
        if data is None:
            return None
        entry = unseal(data)
        return None if self.is_over(entry.expires_at) else entry

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
            if key is None or not key.startswith(prefix):
                continue
            header = self._header(path)
            if header is not None and not self.is_over(header.expires_at):
                yield key

    def prune(self) -> int:
        """Drop what has expired, and files that a process which died has not finished."""
        count = 0
        for path, name in self._files(self.path, ""):
            if key_of(name) is None or not self._is_expired(path):
                continue
            with self._translated(), self._locked(path):
                if self._is_expired(path):
                    path.unlink(missing_ok=True)
                    count += 1
        for path, _ in self._files(self.path / UNFINISHED, ""):
            with self._translated(), contextlib.suppress(FileNotFoundError):  # whose process lives, and has finished it
                if path.stat().st_mtime < time.time() - ABANDONED:
                    path.unlink()
        return count

    def before_fork(self) -> None:
        self._locks.before_fork()

    def after_fork_in_parent(self) -> None:
        self._locks.after_fork_in_parent()

    def after_fork(self) -> None:
        super().after_fork()
        self._locks.after_fork()

    def examine(self) -> Iterator[Finding]:
        return path_findings(self.path)

    def _path(self, key: str) -> Path:
        check_key(key)
        return self.path.joinpath(*parts_of(key))

    def _check(self, key: str, expect: object) -> None:
        try:
            entry = self.read(key)
        except CorruptEntry as error:
            if error.version is None or error.version != expect:
                raise
            return
        check_expected(entry is not None, None if entry is None else entry.version, expect)

    def _load(self, path: Path, size: int = -1) -> bytes | None:
        try:
            inside = path.parent.relative_to(self.path)
            if inside.parts and path.parent.resolve() != self.path.resolve() / inside:
                raise CorruptEntry(f"{self!r} holds a link that leads elsewhere; it was not followed")
            with open(path, "rb", opener=_open_no_link) as file:
                return file.read(size)
        except FileNotFoundError:
            self._restore()
            return None

    def _restore(self) -> None:
        """Make what was removed while it was in use."""
        if all((self.path / name).is_dir() for name in (LOCKS, UNFINISHED)):
            return
        check_mounted(self.path, self._device, self)
        try:
            self._make()
        except ConfigError as error:
            raise DriverUnavailable(str(error)) from None
        log.warning("%r: the folder was removed while it was in use; it was made anew", self)

    def _header(self, path: Path) -> Header | None:
        """The header of a file; None if it is not there, or not one of ours."""
        with self._translated(), contextlib.suppress(CorruptEntry):
            data = self._load(path, HEADER.size)
            return None if data is None else unseal_header(data)
        return None

    def _is_expired(self, path: Path) -> bool:
        header = self._header(path)
        return header is not None and self.is_over(header.expires_at)

    def _replace(self, path: Path, data: bytes) -> None:
        unfinished = self.path / UNFINISHED / secrets.token_hex(16)
        try:
            with self._begin(unfinished) as file:
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

    def _begin(self, path: Path) -> BinaryIO:
        try:
            return open(path, "xb", opener=_open_private)
        except FileNotFoundError:
            self._restore()
            return open(path, "xb", opener=_open_private)

    def _locked(self, path: Path) -> contextlib.AbstractContextManager[None]:
        """Keep other writers of this file out, of this process and of others."""
        return self._locks.held(f"{zlib.crc32(os.fsencode(path.name)) % LOCK_COUNT:02}")

    def _files(self, folder: Path, name: str) -> Iterator[tuple[Path, str]]:
        """Each file with the name that its path spells."""
        with self._translated():
            try:
                found = os.scandir(folder)
            except FileNotFoundError:
                self._restore()
                return
            with found as entries:
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
