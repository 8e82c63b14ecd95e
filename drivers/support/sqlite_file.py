"""What the drivers on a SQLite file share: everything that a table with a key, a version and an expiry decides."""

from __future__ import annotations

import contextlib
import itertools
import os
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar, Final

from session_kit.drivers.base import (
    ABSENT,
    ANY,
    CHANGED,
    LIST_BATCH,
    PRUNE_BATCH,
    WRITES_PER_PRUNE,
    Capabilities,
    Driver,
    Entry,
    check_key,
    check_value,
)
from session_kit.drivers.errors import Conflict, CorruptEntry, DriverUnavailable
from session_kit.drivers.support.findings import Finding, path_findings
from session_kit.drivers.support.folder import expanded
from session_kit.drivers.support.options import Duration
from session_kit.drivers.support.sqlite_pool import SQLitePool, is_full

# Keys lie in random order all over the file: in large steps each of its pages is rewritten less often. It is four times
# faster than a thousand at a time, while other writers wait for a quarter of a second at most.
CLEAR_BATCH: Final = 10_000
MOST_PARAMETERS: Final = 500


class Table:
    """Statements on a table. Only constants and question marks are put together here, so S608 is silenced.

    version, expires_at: its columns of that meaning.
    value: an expression that gives the value, and what is no blob for one that is not ours.
    ours: a condition for the rows that are.
    """

    def __init__(
        self, name: str, *, version: str = "version", expires_at: str = "expires_at", value: str = "value", ours: str
    ) -> None:
        self.live = live = f"{ours} AND ({expires_at} IS NULL OR {expires_at} > ?)"
        self.columns = f"{value}, {version}, {expires_at}"
        self.select = f"SELECT {self.columns} FROM {name} WHERE key = ? AND {live}"  # noqa: S608  # constants alone
        self.touch = f"UPDATE {name} SET {expires_at} = ? WHERE key = ? AND {live}"  # noqa: S608  # constants alone
        self.delete = f"DELETE FROM {name} WHERE key = ? AND {live}"  # noqa: S608  # constants alone
        self.delete_version = f"{self.delete} AND {version} = ?"
        self.delete_these = f"DELETE FROM {name} WHERE key IN ({{}}) AND {live}"  # noqa: S608  # constants alone
        self.delete_between = f"DELETE FROM {name} WHERE key BETWEEN ? AND ? AND {live}"  # noqa: S608  # constants alone
        self.keys = f"SELECT key FROM {name} WHERE key >= ? AND {live} ORDER BY key LIMIT ?"  # noqa: S608  # constants alone
        self.prune = f"DELETE FROM {name} WHERE rowid IN (SELECT rowid FROM {name} WHERE {expires_at} <= ? LIMIT ?)"  # noqa: S608  # constants alone


class SQLiteFileDriver(Driver):
    """A SQLite file, shared by all processes of this machine. Not for network file systems.

    A driver says what its table is called, makes the file and the table, and stores; the rest is here.
    """

    capabilities = Capabilities(create=True, swap=True, shared=True, quick_reads=True)
    threads = 4
    table: ClassVar[Table]
    version_type: ClassVar[type]

    def __init__(self, path: str | os.PathLike[str], file: str, timeout: Duration, clock: Callable[[], float]) -> None:
        self.path = expanded(path)
        self.timeout = timeout
        self._writes = itertools.count()
        self.connections = SQLitePool(self.path / file, timeout, owner=self, make=self._make, create=self._create)
        super().__init__(clock=clock)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({str(self.path)!r})"

    # --- what a driver says ---

    def _make(self) -> None:
        """Make the file, if there is none, and check whose it is. Raises `ConfigError`."""
        raise NotImplementedError

    def _create(self, database: sqlite3.Connection) -> None:
        """Make the table, if there is none; without writing anything where there is one."""
        raise NotImplementedError

    def _put(
        self, database: sqlite3.Connection, key: str, value: bytes, expires_at: float | None, expect: object
    ) -> object:
        """Store a row if what is there is as expected, else `Conflict`; return its version."""
        raise NotImplementedError

    # --- the contract ---

    def read(self, key: str) -> Entry | None:
        check_key(key)
        with self.connections.reading() as database:
            row = database.execute(self.table.select, (key, self.clock())).fetchone()
        return entry_of(row)

    def set(self, key: str, value: bytes, *, ttl: float | None = None, expect: object = ANY) -> object:
        check_key(key)
        check_value(value)
        expires_at = self.expires_at(ttl)
        with self.connections.writing() as database:
            version = self._put(database, key, value, expires_at, expect)
        self._tidy()
        return version

    def delete(self, key: str, *, expect: object = ANY) -> bool:
        check_key(key)
        if expect is ABSENT:
            if self.has(key):
                raise Conflict(CHANGED)
            return False
        if expect is ANY:
            return self._delete(self.table.delete, key, self.clock()) > 0
        # What is no version of ours equals none.
        version = expect if type(expect) is self.version_type else None
        if not self._delete(self.table.delete_version, key, self.clock(), version):
            raise Conflict(CHANGED)
        return True

    def touch(self, key: str, ttl: float | None) -> bool:
        check_key(key)
        expires_at = self.expires_at(ttl)
        with self.connections.writing() as database:
            return database.execute(self.table.touch, (expires_at, key, self.clock())).rowcount > 0

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
        expires_at = self.expires_at(ttl)
        for key, value in items.items():
            check_key(key)
            check_value(value)
        with self.connections.writing() as database, self._transaction(database):
            for key, value in items.items():
                self._put(database, key, value, expires_at, ANY)
        self._tidy()

    def delete_many(self, keys: Iterable[str]) -> int:
        listed = list(dict.fromkeys(keys))
        for key in listed:
            check_key(key)

        def delete(database: sqlite3.Connection) -> int:
            count = 0
            with transaction(database):
                for start in range(0, len(listed), MOST_PARAMETERS):
                    batch = listed[start : start + MOST_PARAMETERS]
                    statement = self.table.delete_these.format(",".join("?" * len(batch)))
                    count += database.execute(statement, (*batch, self.clock())).rowcount
            return count

        return self.connections.freeing(delete)

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

    def prepare(self) -> None:
        """Make the file and its table, where they are not there yet."""
        with self.connections.reading():
            pass

    def close(self) -> None:
        super().close()
        self.connections.close()

    # --- on an event loop, and across a fork ---

    def reads_at_once(self) -> bool:
        # To open the file, others who make it or write to it may have to be waited for; afterwards nobody.
        return self.connections.is_ready()

    def before_fork(self) -> None:
        self.connections.before_fork()

    def after_fork_in_parent(self) -> None:
        self.connections.after_fork_in_parent()

    def after_fork(self) -> None:
        super().after_fork()
        self.connections.after_fork()
        self._writes = itertools.count()

    # --- statements ---

    def _transaction(self, database: sqlite3.Connection) -> contextlib.AbstractContextManager[None]:
        """Inside which several rows can be put."""
        return transaction(database)

    def _delete(self, statement: str, *parameters: object) -> int:
        return self.connections.freeing(lambda database: database.execute(statement, parameters).rowcount)

    def _page(self, start: str, size: int) -> list[str]:
        """Up to `size` live keys from `start` on, in the order of their bytes: those of one prefix lie together."""
        with self.connections.reading() as database:
            rows = database.execute(self.table.keys, (start, self.clock(), size)).fetchall()
        return [key for (key,) in rows]

    def _clear_page(self, prefix: str, start: str) -> list[str]:
        """Delete the live keys of one page that begin with `prefix`, and return them."""
        page = [key for key in self._page(start, CLEAR_BATCH) if key.startswith(prefix)]
        while page:
            try:  # whatever lies between two keys of one prefix has it too
                self._delete(self.table.delete_between, page[0], page[-1], self.clock())
                break
            except DriverUnavailable as error:
                if len(page) == 1 or not is_full(error):
                    raise
                page = page[: len(page) // 2]  # a large step may need more room than there is in reserve
        return page

    def _tidy(self) -> None:
        """After the first write of a process, which may live for a few requests alone, and once in so many."""
        if next(self._writes) % WRITES_PER_PRUNE == 0:
            with contextlib.suppress(DriverUnavailable):  # the write itself has succeeded; this comes again
                self._prune_batch()
            self.connections.reserve.keep()

    def _prune_batch(self) -> int:
        return self._delete(self.table.prune, self.clock(), PRUNE_BATCH)


def has_table(path: Path, name: str) -> bool:
    """Whether the file has such a table or index, without waiting for anybody; raises `sqlite3.Error`."""
    # Opened and closed in any other way, it would lose the locks that this process has on it.
    with contextlib.closing(sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True, timeout=0)) as database:
        return database.execute("SELECT 1 FROM sqlite_master WHERE name = ?", (name,)).fetchone() is not None


@contextlib.contextmanager
def transaction(database: sqlite3.Connection) -> Iterator[None]:
    """All or nothing of what is written inside, with the lock for writing from the beginning."""
    database.execute("BEGIN IMMEDIATE")
    with database:
        yield


def entry_of(row: Any) -> Entry | None:
    """The entry of a row that was selected, or None if there was none; `CorruptEntry` for what is not ours."""
    if row is None:
        return None
    value, version, expires_at = row
    if type(value) is not bytes or (expires_at is not None and type(expires_at) is not float):
        raise CorruptEntry("the file holds an entry that was not written by this driver; it was not read", version)
    return Entry(value, version, expires_at)
