"""The connections of this process to one SQLite file: lent to one thread at a time, and closed all together."""

from __future__ import annotations

import contextlib
import logging
import os
import sqlite3
import threading
import time
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Final, TypeVar

from session_kit.drivers.errors import ConfigError, DriverUnavailable
from session_kit.drivers.support.folder import check_mounted, device_of
from session_kit.drivers.support.reserve import Reserve

R = TypeVar("R")

log = logging.getLogger("session_kit.drivers")

LOOK_AGAIN: Final = 1.0  # seconds after which a file that was removed is noticed

Identity = tuple[tuple[int, int] | None, ...]
BESIDE: Final = ("", "-wal", "-shm")  # the file, its log, and the index of that

# A log that grew to the size at which SQLite writes it back (a thousand pages) needs this much room in the file.
RESERVE: Final = 4 * 1024 * 1024
FAILURES: Final = (sqlite3.Error, OSError)
# How SQLite says that there is no room: on the disk, within a quota, for the log's index.
NO_ROOM: Final = (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR_WRITE, sqlite3.SQLITE_IOERR_SHMSIZE)


class SQLitePool:
    """Connections to a file, made when they are needed.

    path: the file. timeout: seconds to wait for a lock. owner: the driver, for messages.
    make: makes the file and the folders above it, and checks that they are nobody else's.
    create: makes the tables, if they are not there.

    What SQLite and the file system raise inside `reading` and `writing` becomes `DriverUnavailable`.
    """

    def __init__(
        self,
        path: Path,
        timeout: float,
        *,
        owner: object,
        make: Callable[[], None],
        create: Callable[[sqlite3.Connection], None],
    ) -> None:
        self.path = path
        self.timeout = timeout
        self._owner = owner
        self._make = make
        self._create = create
        self.reserve = Reserve(path.with_name(f"{path.name}-reserve"), RESERVE, owner)
        self._begin()
        make()
        self._device = device_of(path)

    def _begin(self) -> None:
        self._lock = threading.Lock()
        self._turn = threading.RLock()
        self._opening = threading.RLock()
        self._idle: list[sqlite3.Connection] = []
        self._opened: list[sqlite3.Connection] = []
        # Those of a driver that nobody closes, too. Not at the end of the process: it may be a child of a fork.
        self._last_resort = weakref.finalize(self, _close_all, self._opened)
        self._last_resort.atexit = False
        self.gate = threading.Event()  # cleared while the process forks
        self.gate.set()
        self._file: Identity | None = None  # what the connections have open
        self._looked = 0.0

    def is_ready(self) -> bool:
        """Whether a read would wait for nothing now: the tables are there, and the file was seen a moment ago.

        From then on readers wait for nobody, by the rules of SQLite's write-ahead log.
        """
        now = time.monotonic()
        if now - self._looked >= LOOK_AGAIN and self._file is not None:
            with contextlib.suppress(OSError):  # the folder cannot be entered: a read says so
                if self._identity() == self._file:
                    self._looked = now
        return self._file is not None and now - self._looked < LOOK_AGAIN

    def reading(self) -> Loan:
        """A connection of this thread alone, while it is used."""
        return Loan(self, False)

    def writing(self) -> Loan:
        """The same, but the threads of this process take turns.

        SQLite itself would let each sleep and try again: fifty threads get done a twentieth of what one does.
        """
        return Loan(self, True)

    def freeing(self, work: Callable[[sqlite3.Connection], R]) -> R:
        """Write what frees room: where the disk has none left, with what is kept in reserve for it.

        SQLite writes every change to its log before anything is freed, so that on a full disk nothing could go.
        """
        try:
            with self.writing() as database:
                return work(database)
        except DriverUnavailable as error:
            if not is_full(error):
                raise
        self.reserve.use()
        with self.writing() as database:
            with contextlib.suppress(sqlite3.OperationalError):
                # Once the log has been written back, the next change begins it again and needs no further room.
                database.execute("PRAGMA wal_checkpoint").fetchall()
            return work(database)

    def close(self) -> None:
        """Close all connections; one that is in use is closed by the thread that gives it back."""
        with self._lock:
            self._let_go()

    def before_fork(self) -> None:
        """SQLite has locks of its own: a child that inherits one from a thread of the parent waits for it for ever."""
        self.gate.clear()  # or threads that write without a pause would seldom leave the turn to this one
        for lock in (self._turn, self._opening):
            lock.acquire(timeout=self.timeout)
        patience = time.monotonic() + 1.0
        while len(self._idle) < len(self._opened) and time.monotonic() < patience:
            time.sleep(0.0001)

    def after_fork_in_parent(self) -> None:
        """Let the threads go on."""
        for lock in (self._turn, self._opening):
            with contextlib.suppress(RuntimeError):  # it was not to be had
                lock.release()
        self.gate.set()

    def after_fork(self) -> None:
        """Begin anew in the child: to use or to close the parent's connections there would break the parent's locks."""
        self._last_resort.detach()
        _inherited.extend(self._opened)
        self._begin()

    def begin_turn(self) -> None:
        """Wait until no other thread writes."""
        if not self._turn.acquire(timeout=self.timeout):
            raise self.locked()

    def end_turn(self) -> None:
        """Let the next thread write."""
        self._turn.release()

    def unavailable(self, error: Exception) -> DriverUnavailable:
        """The error to raise for one of SQLite or the file system."""
        if isinstance(error, sqlite3.Error) and _is_busy(error):
            return self.locked()
        return DriverUnavailable(f"{self._owner!r} cannot be used: {error}")

    def locked(self) -> DriverUnavailable:
        """The error of who has waited too long."""
        return DriverUnavailable(
            f"{self._owner!r} stayed locked by another writer for longer than timeout={self.timeout:g} s"
        )

    def take(self) -> tuple[list[sqlite3.Connection], sqlite3.Connection]:
        """A connection, and the list that it came from."""
        now = time.monotonic()
        if now - self._looked >= LOOK_AGAIN:
            self._look(now)
        idle = self._idle
        try:
            return idle, idle.pop()
        except IndexError:
            with self._opening:
                try:  # once more: were each thread of a crowd to open one, all would be kept
                    return idle, idle.pop()
                except IndexError:
                    return idle, self._connect()

    def give_back(self, idle: list[sqlite3.Connection], database: sqlite3.Connection) -> None:
        """Take back a connection that came from this list."""
        with self._lock:
            if idle is self._idle:
                idle.append(database)
            else:  # the pool was closed, or the file is another by now
                self._discard(database)

    def _let_go(self) -> None:
        idle, self._idle, self._file = self._idle, [], None
        with contextlib.suppress(IndexError):  # other threads take from it without the lock
            while True:
                self._discard(idle.pop())

    def _discard(self, database: sqlite3.Connection) -> None:
        self._opened.remove(database)
        database.close()

    def _look(self, now: float) -> None:
        """If the file has been removed or replaced, let go of it, as if it were opened for the first time."""
        with self._lock:
            if now - self._looked < LOOK_AGAIN:  # another thread was faster
                return
            found = self._identity()
            if found[0] is None:
                check_mounted(self.path, self._device, self._owner)
            if self._file is not None and found != self._file:
                self._check_beside(found, self._file)
                log.warning("%r: the file was removed or replaced while it was in use; it is opened anew", self._owner)
                self._let_go()
            if found[0] is None:
                try:
                    self._make()
                except ConfigError as error:
                    raise DriverUnavailable(str(error)) from None
            self._looked = now

    def _check_beside(self, found: Identity, before: Identity) -> None:
        """Refuse a file that was put in the place of another: SQLite would write what is in the old `-wal` into it."""
        if found[0] not in (None, before[0]) and found[1] is not None and found[1] == before[1]:
            raise DriverUnavailable(
                f"{self._owner!r}: the file was replaced while it was in use, and its -wal is still that of the file"
                f" before; remove {self.path}-wal and {self.path}-shm, or the new file would be damaged"
            )

    def _identity(self) -> Identity:
        found: list[tuple[int, int] | None] = []
        for end in BESIDE:
            try:
                status = os.stat(f"{self.path}{end}")
                found.append((status.st_dev, status.st_ino))
            except FileNotFoundError:
                found.append(None)
        return tuple(found)

    def _connect(self) -> sqlite3.Connection:
        try:
            database = self._open()
        except sqlite3.OperationalError as error:
            if _code(error) not in NO_ROOM or not self.reserve.use():
                raise
            database = self._open()
        with self._lock:
            self._opened.append(database)
            if self._file is None:
                self._file = self._identity()
        return database

    def _open(self) -> sqlite3.Connection:
        database = sqlite3.connect(self.path, timeout=self.timeout, isolation_level=None, check_same_thread=False)
        try:
            database.execute("PRAGMA synchronous = NORMAL")
            deadline = time.monotonic() + self.timeout
            while True:
                try:
                    self._create(database)
                    return database
                except sqlite3.OperationalError as error:
                    # Others who make the tables at this moment are not always waited for by SQLite itself.
                    if not _is_busy(error) or time.monotonic() > deadline:
                        raise
                    time.sleep(0.001)
        except BaseException:
            database.close()
            raise


def _close_all(connections: list[sqlite3.Connection]) -> None:
    while connections:
        connections.pop().close()


class Loan:
    """A connection that is lent for the length of a `with`. Not a generator, which would take as long as a read."""

    __slots__ = ("_database", "_idle", "_pool", "_writes")

    def __init__(self, pool: SQLitePool, writes: bool) -> None:
        self._pool = pool
        self._writes = writes

    def __enter__(self) -> sqlite3.Connection:
        pool = self._pool
        if not pool.gate.is_set():
            pool.gate.wait(pool.timeout)
        if self._writes:
            pool.begin_turn()
        try:
            self._idle, self._database = pool.take()
        except BaseException as error:
            if self._writes:
                pool.end_turn()
            if isinstance(error, FAILURES):
                raise pool.unavailable(error) from error
            raise
        if not (self._writes or pool.gate.is_set()):  # it was closed behind this thread, which has no turn
            pool.give_back(self._idle, self._database)
            return self.__enter__()
        return self._database

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        pool = self._pool
        pool.give_back(self._idle, self._database)
        if self._writes:
            pool.end_turn()
        if isinstance(error, FAILURES):
            raise pool.unavailable(error) from error


_inherited: list[sqlite3.Connection] = []
"""Connections of a parent process, kept so that nobody closes them."""


def is_full(error: DriverUnavailable) -> bool:
    """Whether it was raised for want of room."""
    return _code(error.__cause__) in NO_ROOM


def _is_busy(error: sqlite3.Error) -> bool:
    code = _code(error)
    return code is not None and code & 0xFF == sqlite3.SQLITE_BUSY  # with a reason above it


def _code(error: BaseException | None) -> int | None:
    """What SQLite itself calls the error."""
    return getattr(error, "sqlite_errorcode", None)
