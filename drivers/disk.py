"""Entries in a SQLite file by way of diskcache, in a folder that programs on diskcache may have filled.

diskcache pickles what it does not know and reads back whatever lies in its folder (CVE-2025-69872), so that whoever can
write there can run code. Here only `str` keys and `bytes` values go in, all of them inside the database, and every row
that is anything else is refused on the way out: no pickle is loaded and no file is opened or removed.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, Final, NoReturn
from urllib.parse import SplitResult

import diskcache

from session_kit.drivers.base import ANY, check_expected, check_ttl
from session_kit.drivers.errors import CorruptEntry, DriverUnavailable
from session_kit.drivers.support.folder import make_file, make_private, path_in
from session_kit.drivers.support.options import Duration, Size
from session_kit.drivers.support.sqlite_file import SQLiteFileDriver, Table, has_table, transaction

if TYPE_CHECKING:
    from typing import Self

DATABASE: Final = "cache.db"
MODE_RAW: Final = 1
NO_LIMIT: Final = 2**62


class BytesDisk(diskcache.Disk):  # type: ignore[misc]  # diskcache has no type hints
    """The rows that we accept: text keys, and bytes that lie in the row itself."""

    def __init__(self, directory: str, **_: object) -> None:
        super().__init__(directory, min_file_size=NO_LIMIT)

    def put(self, key: str) -> tuple[str, bool]:
        return key, True

    def get(self, key: object, raw: object) -> NoReturn:
        _refuse("a key")

    def store(self, value: bytes, read: bool, key: object = None) -> tuple[int, int, None, bytes]:
        return 0, MODE_RAW, None, value

    def fetch(self, mode: int, filename: str | None, value: object, read: bool) -> NoReturn:
        _refuse("a value")

    def filename(self, key: object = None, value: object = None) -> NoReturn:
        _refuse("a file")

    def remove(self, file_path: str) -> None:
        """Leave it: no file is ours, and a planted name may point anywhere."""


class Cache(diskcache.Cache):  # type: ignore[misc]  # diskcache has no type hints
    """Writes on the connection that its thread was lent, where diskcache keeps one of its own for each thread."""

    def __init__(self, directory: str, lent: threading.local, **settings: Any) -> None:
        self._lent = lent
        super().__init__(directory, disk=BytesDisk, **settings)

    @property
    def _con(self) -> Any:
        return self._lent.connection

    def close(self) -> None:
        """Leave the connection to its owner."""


class Deadline(float):
    """A point in time where diskcache asks for a duration: what it adds it to becomes the deadline itself.

    So an expiry follows the driver's clock exactly, however late diskcache looks at its own.
    """

    def __radd__(self, now: float) -> float:
        return float(self)


def _refuse(what: str) -> NoReturn:
    raise CorruptEntry(f"the disk store holds {what} that was not written by this driver; it was not read")


class DiskDriver(SQLiteFileDriver):
    """A folder with a SQLite database, shared by all processes of this machine. Not for network file systems.

    path: the folder. It is made with mode 0700; one that exists must be private too, or empty, or ours.
    size_limit: in bytes. If given, the least recently stored entries go when the database grows beyond it. Off by
        default, because eviction logs people out.
    timeout: how long a write waits for other writers, in seconds, before it raises `DriverUnavailable`. Default 5.
    clock: Unix time in seconds.

    A write is in the operating system's hands when it returns: it survives a crash of the process, while a power cut
    may take the last ones (SQLite's write-ahead log with `synchronous=NORMAL`). It never leaves a damaged database. A
    folder that is removed while it is in use is noticed within a second and made anew. On a full disk sessions can
    still end: 4 MiB in the folder are kept for that.

    In a URL: `disk:///var/lib/app?size_limit=2GiB`.
    """

    table = Table(
        "Cache",
        version="tag",
        expires_at="expire_time",
        value="CASE WHEN mode = 1 AND filename IS NULL THEN value END",
        ours="raw = 1 AND typeof(key) = 'text'",
    )
    version_type = str

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        size_limit: Size | None = None,
        timeout: Duration = Duration(5.0),
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._cache: Cache | None = None
        self._lent = threading.local()
        self._settings = {
            "statistics": 0,
            "tag_index": 0,
            "eviction_policy": "none" if size_limit is None else "least-recently-stored",
            "cull_limit": 0 if size_limit is None else 10,
            "size_limit": NO_LIMIT if size_limit is None else size_limit,
            "sqlite_journal_mode": "wal",
            "sqlite_synchronous": 1,
        }
        super().__init__(path, DATABASE, timeout, clock)

    @classmethod
    def from_url(cls, url: SplitResult, **options: Any) -> Self:
        return cls(path_in(url), **options)

    def touch(self, key: str, ttl: float | None) -> bool:
        check_ttl(ttl)
        # What was planted is refused here as well.
        return self.read(key) is not None and super().touch(key, ttl)

    def after_fork(self) -> None:
        super().after_fork()
        self._cache, self._lent = None, threading.local()

    def _make(self) -> None:
        make_private(self.path, "disk", DATABASE)
        make_file(self.path / DATABASE, "disk")
        try:
            has_table(self.path / DATABASE, "Cache")
        except sqlite3.OperationalError:
            pass  # somebody is at work on it
        except sqlite3.DatabaseError as error:
            raise DriverUnavailable(f"{self!r} cannot be used: {error}") from error

    def _create(self, database: sqlite3.Connection) -> None:
        if not database.execute("SELECT 1 FROM sqlite_master WHERE name = 'Cache'").fetchone():
            database.execute("PRAGMA auto_vacuum = FULL")
            database.execute("PRAGMA journal_mode = WAL")
            self._cache = None
            self._diskcache(database)

    def _diskcache(self, database: sqlite3.Connection) -> Cache:
        """diskcache, at work on this connection."""
        self._lent.connection = database
        cache = self._cache
        if cache is None:
            with transaction(database):  # in steps, each would wait for others
                cache = self._cache = Cache(str(self.path), self._lent, **self._settings)
        return cache

    @contextlib.contextmanager
    def _transaction(self, database: sqlite3.Connection) -> Iterator[None]:
        try:
            with self._diskcache(database).transact():
                yield
        except diskcache.Timeout:
            raise self.connections.locked() from None

    def _put(
        self, database: sqlite3.Connection, key: str, value: bytes, expires_at: float | None, expect: object
    ) -> object:
        if expect is not ANY:
            with self._transaction(database):
                row = database.execute(self.table.select, (key, self.clock())).fetchone()
                check_expected(row is not None, None if row is None else row[1], expect)
                return self._put(database, key, value, expires_at, ANY)
        version = secrets.token_hex(8)
        deadline = None if expires_at is None else Deadline(expires_at)
        try:
            self._diskcache(database).set(key, value, expire=deadline, tag=version)
        except diskcache.Timeout:
            raise self.connections.locked() from None
        return version
