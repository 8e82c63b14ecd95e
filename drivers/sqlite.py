"""Entries in a SQLite file, by Python's own `sqlite3`: the store of a bare install, on one machine."""

from __future__ import annotations

import os
import secrets
import sqlite3
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import SplitResult

from session_kit.drivers.base import ABSENT, ANY, CHANGED, Entry, check_key, check_ttl
from session_kit.drivers.errors import ConfigError, Conflict
from session_kit.drivers.support.folder import check_owner, make_file, path_in
from session_kit.drivers.support.options import Duration
from session_kit.drivers.support.sqlite_file import SQLiteFileDriver, Table, entry_of, has_table

if TYPE_CHECKING:
    from typing import Self

OLDEST: Final = (3, 37)  # which has STRICT tables
SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS entries (
    key TEXT NOT NULL PRIMARY KEY, value BLOB NOT NULL, version INTEGER NOT NULL, expires_at REAL
) STRICT;
CREATE INDEX IF NOT EXISTS entries_expiry ON entries (expires_at) WHERE expires_at IS NOT NULL;
"""
UPSERT: Final = """
INSERT INTO entries (key, value, version, expires_at) VALUES (?, ?, ?, ?) ON CONFLICT (key) DO UPDATE
SET value = excluded.value, version = excluded.version, expires_at = excluded.expires_at
"""
# Beside the row that is there stands the one that would be put in its place.
CREATE: Final = f"{UPSERT} WHERE entries.expires_at <= ?"
SWAP: Final = (
    "UPDATE entries SET value = ?, version = ?, expires_at = ?"
    " WHERE key = ? AND version = ? AND (expires_at IS NULL OR expires_at > ?)"
)


class SQLiteDriver(SQLiteFileDriver):
    """A SQLite file, shared by all processes of this machine. Not for network file systems.

    path: the file. It is made with mode 0600, missing folders with 0700.
    timeout: how long a write waits for other writers, in seconds, before it raises `DriverUnavailable`. Default 5.
    clock: Unix time in seconds.

    A write is in the operating system's hands when it returns: it survives a crash of the process, while a power cut
    may take the last ones (the write-ahead log with `synchronous=NORMAL`, https://www.sqlite.org/wal.html). It never
    leaves a damaged file. A file that is removed while it is in use is noticed within a second and made anew. On a full
    disk sessions can still end: 4 MiB beside the file are kept for that.
    Raises `ConfigError` for a file that cannot be made or belongs to another program.

    In a URL: `sqlite:///var/lib/app/sessions.db`.
    """

    table = Table("entries", ours="TRUE")
    version_type = int

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        timeout: Duration = Duration(5.0),
        clock: Callable[[], float] = time.time,
    ) -> None:
        if sqlite3.sqlite_version_info < OLDEST:
            raise ConfigError(f"sqlite:// needs SQLite 3.37 or later; this Python has {sqlite3.sqlite_version}")
        super().__init__(path, "", timeout, clock)

    @classmethod
    def from_url(cls, url: SplitResult, **options: Any) -> Self:
        path = path_in(url, "/var/lib/app/s.db")
        if path.endswith(":memory:"):
            raise ConfigError("sqlite:// needs a file; sessions that lie in memory alone are memory://")
        return cls(path, **options)

    def renew(self, key: str, ttl: float) -> Entry | None:
        check_key(key)
        check_ttl(ttl)
        now = self.clock()
        with self.connections.writing() as database:
            rows = database.execute(RENEW, (now + ttl, key, now)).fetchall()
        return entry_of(rows[0]) if rows else None

    def _put(
        self, database: sqlite3.Connection, key: str, value: bytes, expires_at: float | None, expect: object
    ) -> object:
        version = secrets.randbits(63)
        if expect is ANY:
            database.execute(UPSERT, (key, value, version, expires_at))
            return version
        if expect is ABSENT:
            written = database.execute(CREATE, (key, value, version, expires_at, self.clock()))
        else:
            asked = expect if type(expect) is int else None
            written = database.execute(SWAP, (value, version, expires_at, key, asked, self.clock()))
        if written.rowcount < 1:
            raise Conflict(CHANGED)
        return version

    def _make(self) -> None:
        if self.path.is_dir():
            raise ConfigError(f"sqlite://{self.path} is a folder; name a file in it, like {self.path}/sessions.db")
        # SQLite gives the files beside it, the log and the index, the same mode.
        make_file(self.path, "sqlite")
        check_owner(self.path, "sqlite")
        if os.name == "posix" and self.path.stat().st_mode & 0o077:
            if not _is_ours(self.path):
                raise ConfigError(f"sqlite://{self.path}: the file is open to other users and not ours; name another")
            self.path.chmod(0o600)

    def _create(self, database: sqlite3.Connection) -> None:
        # Only once: it takes the lock for writing.
        if not database.execute("SELECT 1 FROM sqlite_master WHERE name = 'entries'").fetchone():
            database.execute("PRAGMA journal_mode = WAL")
            database.executescript(SCHEMA)


RENEW: Final = f"{SQLiteDriver.table.touch} RETURNING {SQLiteDriver.table.columns}"


def _is_ours(path: Path) -> bool:
    """Whether the file is empty or a database with our table."""
    if path.stat().st_size == 0:
        return True
    try:
        return has_table(path, "entries_expiry")
    except sqlite3.Error:
        return False
