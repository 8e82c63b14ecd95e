"""Entries in a SQLite file, by Python's own `sqlite3`: the store of a bare install, on one machine."""

from __future__ import annotations

import contextlib
import itertools
import logging
import os
import secrets
import sqlite3
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import SplitResult

from session_kit.drivers.base import (
    ABSENT,
    ANY,
    LIST_BATCH,
    Capabilities,
    Driver,
    Entry,
    check_key,
    check_ttl,
    check_value,
)
from session_kit.drivers.errors import ConfigError, Conflict, CorruptEntry, DriverUnavailable
from session_kit.drivers.findings import Finding, path_findings
from session_kit.drivers.folder import expanded, named_in
from session_kit.drivers.options import Duration

if TYPE_CHECKING:
    from typing import Self

log = logging.getLogger("session_kit")

OLDEST: Final = (3, 37)  # which has STRICT tables
SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS entries (
    key TEXT NOT NULL PRIMARY KEY, value BLOB NOT NULL, version INTEGER NOT NULL, expires_at REAL
) STRICT;
CREATE INDEX IF NOT EXISTS entries_expiry ON entries (expires_at) WHERE expires_at IS NOT NULL;
"""
# Constants and question marks are all that is put together into SQL here, so S608 is silenced. Its parameter: the time.
LIVE: Final = "(expires_at IS NULL OR expires_at > ?)"
UPSERT: Final = """
INSERT INTO entries (key, value, version, expires_at) VALUES (?, ?, ?, ?) ON CONFLICT (key) DO UPDATE
SET value = excluded.value, version = excluded.version, expires_at = excluded.expires_at
"""
SWAP: Final = f"UPDATE entries SET value = ?, version = ?, expires_at = ? WHERE key = ? AND version = ? AND {LIVE}"  # noqa: S608

# Expired rows are hidden at once and removed a batch at a time, once in so many writes: always faster than they arrive.
WRITES_PER_PRUNE: Final = 256
PRUNE_BATCH: Final = 1024
# Keys lie in random order all over the file: in large steps each of its pages is rewritten less often.
CLEAR_BATCH: Final = 10_000
MOST_PARAMETERS: Final = 500
LOOK_AGAIN: Final = 1.0  # seconds after which a file that was removed is noticed


class SQLiteDriver(Driver):
    """A SQLite file, shared by all processes of this machine. Not for network file systems.

    path: the file. It is made with mode 0600, missing folders with 0700.
    timeout: how long a write waits for other writers, in seconds, before it raises `DriverUnavailable`. Default 5.
    clock: Unix time in seconds.

    A write is in the operating system's hands when it returns: it survives a crash of the process, while a power cut
    may take the last ones (the write-ahead log with `synchronous=NORMAL`, https://www.sqlite.org/wal.html). It never
    leaves a damaged file. A file that is removed while it is in use is noticed within a second and made anew.
    Raises `ConfigError` for a file that cannot be made or belongs to another program.

    In a URL: `sqlite:///var/lib/app/sessions.db`.
    """

    capabilities = Capabilities(create=True, swap=True, shared=True, quick_reads=True)
    threads = 4

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        timeout: Duration = Duration(5.0),
        clock: Callable[[], float] = time.time,
    ) -> None:
        super().__init__(clock=clock)
        if sqlite3.sqlite_version_info < OLDEST:
            raise ConfigError(f"sqlite:// needs SQLite 3.37 or later; this Python has {sqlite3.sqlite_version}")
        self.path = expanded(path)
        self.timeout = timeout
        self._writes = itertools.count(1)
        self._idle: list[sqlite3.Connection] = []
        self._opened: list[sqlite3.Connection] = []
        self._begin()
        self._make_file()

    @classmethod
    def from_url(cls, url: SplitResult, **options: Any) -> Self:
        if url.netloc or not url.path.strip("/"):
            raise ConfigError("sqlite:// needs an absolute path, with three slashes in all: sqlite:///var/lib/app/s.db")
        return cls(named_in(url.path), **options)

    def __repr__(self) -> str:
        return f"SQLiteDriver({str(self.path)!r})"

    # --- the contract ---

    def read(self, key: str) -> Entry | None:
        check_key(key)
        with self._reading() as database:
            row = database.execute(
                f"SELECT value, version, expires_at FROM entries WHERE key = ? AND {LIVE}",  # noqa: S608
                (key, self.clock()),
            ).fetchone()
        return _entry(row)

    def renew(self, key: str, ttl: float) -> Entry | None:
        check_key(key)
        check_ttl(ttl)
        now = self.clock()
        with self._writing() as database:
            rows = database.execute(
                f"UPDATE entries SET expires_at = ? WHERE key = ? AND {LIVE} RETURNING value, version, expires_at",  # noqa: S608
                (now + ttl, key, now),
            ).fetchall()
        return _entry(rows[0]) if rows else None

    def set(self, key: str, value: bytes, *, ttl: float | None = None, expect: object = ANY) -> object:
        check_key(key)
        check_value(value)
        expires_at, version = self.expires_at(ttl), _version()
        row = (key, value, version, expires_at)
        with self._writing() as database:
            if expect is ANY:
                database.execute(UPSERT, row)
            elif expect is ABSENT:
                written = database.execute(f"{UPSERT} WHERE NOT {_qualified(LIVE)}", (*row, self.clock()))
                _expect_one(written)
            else:
                written = database.execute(
                    SWAP,
                    (value, version, expires_at, key, _asked(expect), self.clock()),
                )
                _expect_one(written)
        if next(self._writes) % WRITES_PER_PRUNE == 0:
            self._prune_batch()
        return version

    def delete(self, key: str, *, expect: object = ANY) -> bool:
        check_key(key)
        condition, parameters = f"key = ? AND {LIVE}", [key, self.clock()]
        if expect is ABSENT:
            if self.has(key):
                raise Conflict(CHANGED)
            return False
        if expect is not ANY:
            condition, parameters = f"{condition} AND version = ?", [*parameters, _asked(expect)]
        with self._writing() as database:
            deleted = database.execute(f"DELETE FROM entries WHERE {condition}", parameters)  # noqa: S608
            if expect is not ANY:
                _expect_one(deleted)
            return deleted.rowcount > 0

    def touch(self, key: str, ttl: float | None) -> bool:
        check_key(key)
        expires_at = self.expires_at(ttl)
        with self._writing() as database:
            touched = database.execute(
                f"UPDATE entries SET expires_at = ? WHERE key = ? AND {LIVE}",  # noqa: S608
                (expires_at, key, self.clock()),
            )
            return touched.rowcount > 0

    def keys(self, prefix: str = "") -> Iterator[str]:
        page = self._page(prefix, LIST_BATCH)
        while page:
            for key in page:
                if not key.startswith(prefix):
                    return
                yield key
            # The least text that is greater than a key is that key with a NUL behind it.
            page = self._page(page[-1] + "\0", LIST_BATCH)

    def set_many(self, items: Mapping[str, bytes], *, ttl: float | None = None) -> None:
        expires_at, rows = self.expires_at(ttl), []
        for key, value in items.items():
            check_key(key)
            check_value(value)
            rows.append((key, value, _version(), expires_at))
        with self._writing() as database, database:
            database.execute("BEGIN IMMEDIATE")
            database.executemany(UPSERT, rows)

    def delete_many(self, keys: Iterable[str]) -> int:
        listed, count = list(dict.fromkeys(keys)), 0
        for key in listed:
            check_key(key)
        with self._writing() as database, database:
            database.execute("BEGIN IMMEDIATE")
            for start in range(0, len(listed), MOST_PARAMETERS):
                batch = listed[start : start + MOST_PARAMETERS]
                marks = ",".join("?" * len(batch))
                deleted = database.execute(
                    f"DELETE FROM entries WHERE key IN ({marks}) AND {LIVE}",  # noqa: S608
                    (*batch, self.clock()),
                )
                count += deleted.rowcount
        return count

    def clear(self, prefix: str = "") -> int:
        count, start = 0, prefix
        while True:
            page = [key for key in self._page(start, CLEAR_BATCH) if key.startswith(prefix)]
            if not page:
                return count
            with self._writing() as database:  # whatever lies between two keys of one prefix has it too
                deleted = database.execute(
                    f"DELETE FROM entries WHERE key BETWEEN ? AND ? AND {LIVE}",  # noqa: S608
                    (page[0], page[-1], self.clock()),
                )
                count += deleted.rowcount
            start = page[-1] + "\0"

    def prune(self) -> int:
        count = 0
        while removed := self._prune_batch():
            count += removed
        return count

    def examine(self) -> Iterator[Finding]:
        return path_findings(self.path)

    def close(self) -> None:
        super().close()
        with self._lock:
            opened = self._opened
            self._opened, self._idle = [], []
        for database in opened:
            database.close()

    def before_fork(self) -> None:
        # SQLite has locks of its own: a child that inherits one from a thread of the parent waits for it for ever.
        self._turn.acquire(timeout=self.timeout)
        self._forking = True
        patience = time.monotonic() + 1.0
        while len(self._idle) < len(self._opened) and time.monotonic() < patience:
            time.sleep(0.0001)

    def after_fork_in_parent(self) -> None:
        self._forking = False
        with contextlib.suppress(RuntimeError):  # it was not to be had
            self._turn.release()

    def after_fork(self) -> None:
        super().after_fork()
        # The parent's connections are not the child's: to use or to close them here would break the parent's locks.
        _inherited.extend(self._opened)
        self._begin()

    # --- connections ---

    def _begin(self) -> None:
        self._lock = threading.Lock()
        self._turn = threading.RLock()
        self._idle, self._opened = [], []
        self._forking = False
        self._file: tuple[int, int] | None = None  # which the connections have open
        self._looked = 0.0

    def _make_file(self) -> None:
        try:
            self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            # SQLite gives the files beside it, the log and the index, the same mode.
            os.close(os.open(self.path, os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0), 0o600))
        except OSError as error:
            raise ConfigError(f"sqlite://{self.path}: the file cannot be made: {error.strerror}") from None
        except ValueError:
            raise ConfigError(f"{str(self.path)!r} cannot be a file's name: it holds a NUL or a surrogate") from None
        if os.name == "posix" and self.path.stat().st_mode & 0o077:
            if not _is_ours(self.path):
                raise ConfigError(f"sqlite://{self.path}: the file is open to other users and not ours; name another")
            self.path.chmod(0o600)

    @contextlib.contextmanager
    def _reading(self) -> Iterator[sqlite3.Connection]:
        """A connection of this thread alone, while it is used."""
        try:
            database = self._take()
            try:
                yield database
            finally:
                self._idle.append(database)
        except (sqlite3.Error, OSError) as error:
            raise DriverUnavailable(f"{self!r} cannot be used: {error}") from error

    @contextlib.contextmanager
    def _writing(self) -> Iterator[sqlite3.Connection]:
        """The same, but the threads of this process take turns: SQLite would let each sleep and try again."""
        if not self._turn.acquire(timeout=self.timeout):
            raise DriverUnavailable(f"{self!r} was busy with other writers for longer than timeout={self.timeout:g} s")
        try:
            with self._reading() as database:
                yield database
        finally:
            self._turn.release()

    def _take(self) -> sqlite3.Connection:
        if self._forking:
            with self._turn:
                pass
        now = time.monotonic()
        if now - self._looked >= LOOK_AGAIN:
            self._look(now)
        try:
            return self._idle.pop()
        except IndexError:
            return self._connect()

    def _look(self, now: float) -> None:
        """If the file has been removed or replaced, let go of it, as if it were opened for the first time."""
        with self._lock:
            self._looked = now
            try:
                found = _identity(self.path)
            except FileNotFoundError:
                found = None
            if self._file is not None and found != self._file:
                log.warning("%r: the file was removed or replaced while it was in use; it is opened anew", self)
                self._idle, self._file = [], None
        if found is None:
            with contextlib.suppress(ConfigError):
                self._make_file()

    def _connect(self) -> sqlite3.Connection:
        database = sqlite3.connect(self.path, timeout=self.timeout, isolation_level=None, check_same_thread=False)
        try:
            database.execute("PRAGMA synchronous = NORMAL")
            if not database.execute("SELECT 1 FROM sqlite_master WHERE name = 'entries'").fetchone():
                # Only once: it takes the lock for writing, and reads run on the event loop.
                database.execute("PRAGMA journal_mode = WAL")
                database.executescript(SCHEMA)
        except sqlite3.Error:
            database.close()
            raise
        with self._lock:
            self._opened.append(database)
            self._file = _identity(self.path)
        return database

    def _page(self, start: str, size: int) -> list[str]:
        """Up to `size` live keys from `start` on, in the order of their bytes: those of one prefix lie together."""
        with self._reading() as database:
            rows = database.execute(
                f"SELECT key FROM entries WHERE key >= ? AND {LIVE} ORDER BY key LIMIT ?",  # noqa: S608
                (start, self.clock(), size),
            ).fetchall()
        return [key for (key,) in rows]

    def _prune_batch(self) -> int:
        with self._writing() as database:
            removed = database.execute(
                "DELETE FROM entries WHERE rowid IN (SELECT rowid FROM entries WHERE expires_at <= ? LIMIT ?)",
                (self.clock(), PRUNE_BATCH),
            )
            return removed.rowcount


_inherited: list[sqlite3.Connection] = []
"""Connections of a parent process, kept so that nobody closes them."""

CHANGED: Final = "the entry is not what was expected: it was changed, created or deleted meanwhile"


def _expect_one(cursor: sqlite3.Cursor) -> None:
    if cursor.rowcount < 1:
        raise Conflict(CHANGED)


def _asked(expect: object) -> object:
    """The version as SQLite knows it: what is no version of ours equals none."""
    return expect if type(expect) is int else None


def _version() -> int:
    return secrets.randbits(63)


def _qualified(condition: str) -> str:
    """In an upsert, the row that is there is meant, and not the one that would be put in its place."""
    return condition.replace("expires_at", "entries.expires_at")


def _entry(row: Any) -> Entry | None:
    if row is None:
        return None
    value, version, expires_at = row
    if type(value) is not bytes:
        raise CorruptEntry("the file holds a value that was not written by this driver; it was not read", version)
    return Entry(value, version, expires_at)


def _identity(path: Path) -> tuple[int, int]:
    found = path.stat()
    return found.st_dev, found.st_ino


def _is_ours(path: Path) -> bool:
    """Whether the file is empty or a database with our table."""
    if path.stat().st_size == 0:
        return True
    with contextlib.closing(sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True)) as database:
        try:
            found = database.execute("SELECT 1 FROM sqlite_master WHERE name = 'entries_expiry'").fetchone()
        except sqlite3.Error:
            return False
    return found is not None
