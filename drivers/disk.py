"""Entries in a SQLite file by way of diskcache: the embedded default, for one machine and several processes.

diskcache pickles what it does not know and reads back whatever lies in its folder (CVE-2025-69872), so that whoever can
write there can run code. Here only `str` keys and `bytes` values go in, all of them inside the database, and every row
that is anything else is refused on the way out: no pickle is loaded and no file is opened or removed.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
import os
import secrets
import sqlite3
import threading
import time
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, Concatenate, Final, NoReturn, ParamSpec, TypeVar
from urllib.parse import SplitResult

import diskcache

from session_kit.drivers.base import ABSENT, ANY, LIST_BATCH, Capabilities, Driver, Entry, check_key, check_value
from session_kit.drivers.errors import ConfigError, Conflict, CorruptEntry, DriverUnavailable
from session_kit.drivers.findings import Finding, path_findings
from session_kit.drivers.folder import expanded, make_private, named_in
from session_kit.drivers.options import Duration, Size

if TYPE_CHECKING:
    from typing import Self

P = ParamSpec("P")
R = TypeVar("R")

DATABASE: Final = "cache.db"
MODE_RAW: Final = 1
NO_LIMIT: Final = 2**62
MISSING: Final = object()

# The rows that `keys` tells of; the parameter is the time. A constant, so that it is safe within SQL.
LIVE: Final = "raw = 1 AND typeof(key) = 'text' AND (expire_time IS NULL OR expire_time > ?)"

# Expired rows are hidden at once and removed a batch at a time, once in so many writes: always faster than they arrive.
WRITES_PER_PRUNE: Final = 256
PRUNE_BATCH: Final = 1024
# Neighbours among the keys lie all over the file, so that large steps rewrite each of its pages less often: four times
# faster than a thousand at a time, while other writers wait for a quarter of a second at most.
CLEAR_BATCH: Final = 10_000


class BytesDisk(diskcache.Disk):  # type: ignore[misc]  # diskcache has no type hints
    """The rows that we accept: text keys, and bytes that lie in the row itself."""

    def __init__(self, directory: str, **_: object) -> None:
        super().__init__(directory, min_file_size=NO_LIMIT)

    def put(self, key: str) -> tuple[str, bool]:
        return key, True

    def get(self, key: object, raw: object) -> str:
        if not raw or not isinstance(key, str):
            _refuse("a key")
        return key

    def store(self, value: bytes, read: bool, key: object = None) -> tuple[int, int, None, bytes]:
        return 0, MODE_RAW, None, value

    def fetch(self, mode: int, filename: str | None, value: object, read: bool) -> bytes:
        if mode != MODE_RAW or filename is not None or type(value) is not bytes:
            _refuse("a value")
        return value

    def filename(self, key: object = None, value: object = None) -> NoReturn:
        _refuse("a file")

    def remove(self, file_path: str) -> None:
        """Leave it: no file is ours, and a planted name may point anywhere."""


class Connection(sqlite3.Connection):
    """Ends with its thread without a warning."""

    def __del__(self) -> None:
        with contextlib.suppress(sqlite3.ProgrammingError):  # it could not be opened
            self.close()


class Cache(diskcache.Cache):  # type: ignore[misc]  # diskcache has no type hints
    """Closes the connections of all threads; diskcache keeps one for each, and closes that of the caller alone."""

    def __init__(self, directory: str, **settings: Any) -> None:
        self.connections: weakref.WeakSet[Connection] = weakref.WeakSet()
        super().__init__(directory, **settings)

    @property
    def _con(self) -> Any:
        con = getattr(self._local, "con", None)
        return self._connect() if con is None else con

    def _connect(self) -> Connection:
        con = self._local.con = sqlite3.connect(
            os.path.join(self._directory, DATABASE),
            timeout=self._timeout,
            isolation_level=None,
            check_same_thread=False,
            factory=Connection,
        )
        self.connections.add(con)
        # Each connection has to be told of the pragmas; a new database has no settings yet.
        with contextlib.suppress(sqlite3.OperationalError):
            for key, value in con.execute("SELECT key, value FROM Settings").fetchall():
                if key.startswith("sqlite_"):
                    self.reset(key, value, update=False)
        return con

    def close(self) -> None:
        self._local = threading.local()
        with contextlib.suppress(KeyError):  # there is none left
            while True:
                self.connections.pop().close()

    def after_fork(self) -> None:
        """Leave the parent's connections alone."""
        self._local = threading.local()
        self.connections = weakref.WeakSet()


class Deadline(float):
    """A point in time where diskcache asks for a duration: what it adds it to becomes the deadline itself.

    So an expiry follows the driver's clock exactly, however late diskcache looks at its own.
    """

    def __radd__(self, now: float) -> float:
        return float(self)


def _refuse(what: str, version: object = None) -> NoReturn:
    raise CorruptEntry(f"the disk store holds {what} that was not written by this driver; it was not read", version)


def _translated(method: Callable[Concatenate[DiskDriver, P], R]) -> Callable[Concatenate[DiskDriver, P], R]:
    """Turn what diskcache, SQLite and the file system raise into this library's errors."""

    def call(self: DiskDriver, /, *args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return method(self, *args, **kwargs)
        except diskcache.Timeout:
            raise DriverUnavailable(
                f"{self!r} stayed locked by another writer for longer than timeout={self.timeout:g} s"
            ) from None
        except (sqlite3.Error, OSError) as error:
            raise DriverUnavailable(f"{self!r} cannot be used: {error}") from error

    functools.update_wrapper(call, method)
    return call


def _in_turn(method: Callable[Concatenate[DiskDriver, P], R]) -> Callable[Concatenate[DiskDriver, P], R]:
    """Let the threads of this process write one after the other, as SQLite does with processes.

    SQLite itself would let each sleep and try again: fifty threads get done a twentieth of what one does.
    """

    def call(self: DiskDriver, /, *args: P.args, **kwargs: P.kwargs) -> R:
        if not self._turn.acquire(timeout=self.timeout):
            raise diskcache.Timeout
        try:
            return method(self, *args, **kwargs)
        finally:
            self._turn.release()

    functools.update_wrapper(call, method)
    return call


class DiskDriver(Driver):
    """A folder with a SQLite database, shared by all processes of this machine. Not for network file systems.

    path: the folder. It is made with mode 0700; one that exists must be private too, or empty, or ours.
    size_limit: in bytes. If given, the least recently stored entries go when the database grows beyond it. Off by
        default, because eviction logs people out.
    timeout: how long a write waits for other writers, in seconds, before it raises `DriverUnavailable`. Default 5.
    clock: Unix time in seconds.

    A write is in the operating system's hands when it returns: it survives a crash of the process, while a power cut
    may take the last ones (SQLite's write-ahead log with `synchronous=NORMAL`). It never leaves a damaged database.

    In a URL: `disk:///var/lib/app?size_limit=2GiB`.
    """

    capabilities = Capabilities(create=True, swap=True, shared=True, quick_reads=True)
    threads = 4

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        size_limit: Size | None = None,
        timeout: Duration = Duration(5.0),
        clock: Callable[[], float] = time.time,
    ) -> None:
        super().__init__(clock=clock)
        # diskcache expands names too: done first, so that the folder that is checked is the one that is used.
        self.path = expanded(path)
        self.timeout = timeout
        self._writes = itertools.count(1)
        self._turn = threading.RLock()
        self._cache = self._open(size_limit)

    @classmethod
    def from_url(cls, url: SplitResult, **options: Any) -> Self:
        if url.netloc or not url.path.strip("/"):
            raise ConfigError("disk:// needs an absolute path, with three slashes in all: disk:///var/lib/app")
        return cls(named_in(url.path), **options)

    def __repr__(self) -> str:
        return f"DiskDriver({str(self.path)!r})"

    @_translated
    def _open(self, size_limit: int | None) -> Any:
        make_private(self.path, "disk", DATABASE)
        return Cache(
            str(self.path),
            timeout=self.timeout,
            disk=BytesDisk,
            statistics=0,
            tag_index=0,
            eviction_policy="none" if size_limit is None else "least-recently-stored",
            cull_limit=0 if size_limit is None else 10,
            size_limit=NO_LIMIT if size_limit is None else size_limit,
            sqlite_journal_mode="wal",
            sqlite_synchronous=1,
        )

    @_translated
    def read(self, key: str) -> Entry | None:
        check_key(key)
        return self._live(key)

    @_translated
    @_in_turn
    def set(self, key: str, value: bytes, *, ttl: float | None = None, expect: object = ANY) -> object:
        check_key(key)
        check_value(value)
        deadline = self._deadline(ttl)
        version = secrets.token_hex(8)
        with contextlib.nullcontext() if expect is ANY else self._cache.transact():
            self._check(key, expect)
            self._cache.set(key, value, expire=deadline, tag=version)
        if next(self._writes) % WRITES_PER_PRUNE == 0:
            self._prune_batch()
        return version

    @_translated
    @_in_turn
    def delete(self, key: str, *, expect: object = ANY) -> bool:
        check_key(key)
        with self._cache.transact():
            self._check(key, expect)
            try:
                live = self._live(key) is not None
            except CorruptEntry:  # what cannot be read can still be deleted
                live = True
            self._cache.delete(key)
            return live

    @_translated
    @_in_turn
    def touch(self, key: str, ttl: float | None) -> bool:
        check_key(key)
        deadline = self._deadline(ttl)
        with self._cache.transact():
            return self._live(key) is not None and self._cache.touch(key, expire=deadline)

    def keys(self, prefix: str = "") -> Iterator[str]:
        page = self._page(prefix)
        while page:
            for key in page:
                if not key.startswith(prefix):
                    return
                yield key
            # The least text that is greater than a key is that key with a NUL behind it.
            page = self._page(page[-1] + "\0")

    @_translated
    @_in_turn
    def set_many(self, items: Mapping[str, bytes], *, ttl: float | None = None) -> None:
        with self._cache.transact():
            super().set_many(items, ttl=ttl)

    @_translated
    @_in_turn
    def delete_many(self, keys: Iterable[str]) -> int:
        listed, count = list(dict.fromkeys(keys)), 0
        for key in listed:
            check_key(key)
        with self._cache.transact():
            for start in range(0, len(listed), CLEAR_BATCH):
                batch = listed[start : start + CLEAR_BATCH]
                marks = ",".join("?" * len(batch))
                rows = self._cache._sql(
                    f"DELETE FROM Cache WHERE key IN ({marks}) AND {LIVE}",  # noqa: S608  # question marks and a constant
                    (*batch, self.clock()),
                )
                count += rows.rowcount
        return count

    def clear(self, prefix: str = "") -> int:
        count, start = 0, prefix
        while page := self._clear_page(prefix, start):
            count += len(page)
            start = page[-1] + "\0"
        return count

    def prune(self) -> int:
        count = 0
        while removed := self._prune_batch():
            count += removed
        return count

    def examine(self) -> Iterator[Finding]:
        return path_findings(self.path)

    @_translated
    def close(self) -> None:
        super().close()
        self._cache.close()

    def after_fork(self) -> None:
        super().after_fork()
        self._turn = threading.RLock()
        self._cache.after_fork()

    def _deadline(self, ttl: float | None) -> Deadline | None:
        expires_at = self.expires_at(ttl)
        return None if expires_at is None else Deadline(expires_at)

    def _live(self, key: str) -> Entry | None:
        try:
            value, expires_at, version = self._cache.get(key, default=MISSING, expire_time=True, tag=True)
        except CorruptEntry as error:
            rows = self._cache._sql("SELECT tag FROM Cache WHERE key = ?", (key,)).fetchall()
            error.version = rows[0][0] if rows else None
            raise
        if value is MISSING:
            return None
        if expires_at is not None:
            if type(expires_at) is not float:
                _refuse("an expiry", version)
            if expires_at <= self.clock():
                return None
        return Entry(value, version, expires_at)

    def _check(self, key: str, expect: object) -> None:
        if expect is ANY:
            return
        try:
            entry = self._live(key)
        except CorruptEntry as error:
            if error.version is None or error.version != expect:
                raise
            return
        if (expect is not ABSENT) if entry is None else (entry.version != expect):
            raise Conflict("the entry is not what was expected: it was changed, created or deleted meanwhile")

    @_translated
    def _page(self, start: str, size: int = LIST_BATCH) -> list[str]:
        """Up to `size` live keys from `start` on, in the order of their bytes: those of one prefix lie together."""
        # diskcache lists keys without their expiry, so this one question is put to its database directly.
        rows = self._cache._sql(
            f"SELECT key FROM Cache WHERE key >= ? AND {LIVE} ORDER BY key LIMIT ?",  # noqa: S608  # a constant
            (start, self.clock(), size),
        )
        return [key for (key,) in rows.fetchall()]

    @_translated
    @_in_turn
    def _clear_page(self, prefix: str, start: str) -> list[str]:
        """Delete the live keys of one page that begin with `prefix`, and return them."""
        with self._cache.transact():
            page = [key for key in self._page(start, CLEAR_BATCH) if key.startswith(prefix)]
            if page:  # whatever lies between two keys of one prefix has it too
                self._cache._sql(
                    f"DELETE FROM Cache WHERE key BETWEEN ? AND ? AND {LIVE}",  # noqa: S608  # a constant
                    (page[0], page[-1], self.clock()),
                )
            return page

    @_translated
    @_in_turn
    def _prune_batch(self) -> int:
        with self._cache.transact():
            rows = self._cache._sql(
                "DELETE FROM Cache WHERE rowid IN (SELECT rowid FROM Cache WHERE expire_time <= ? LIMIT ?)",
                (self.clock(), PRUNE_BATCH),
            )
            return int(rows.rowcount)
