"""Connections that are kept open: of blocking code, and of each event loop; each serves one call at a time.

What differs between the two is how to connect and how to wait; the rest is one coroutine, which never suspends for
blocking code.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import queue
import re
import threading
import time
from collections import deque
from collections.abc import Generator, Mapping
from typing import Any, Final, TypeAlias

import psycopg
from psycopg.pq.abc import PGresult

from session_kit.drivers.postgres.errors import READ_ONLY, Lost, NoAnswer, NotConnected, Refused, not_connected
from session_kit.drivers.postgres.exchange import Statement, exchange
from session_kit.drivers.postgres.settings import Settings
from session_kit.drivers.support.connections import LONGEST_IDLE, Place, Places, is_ready

Connection: TypeAlias = psycopg.Connection[Any] | psycopg.AsyncConnection[Any]

# The server's own word comes first, where it keeps the time: it says that nothing was done.
PATIENCE: Final = 0.5  # seconds
# What PgBouncer and Amazon's proxy say, whose connections are not ours alone to set a timeout for.
NO_OPTIONS: Final = re.compile("unsupported startup parameter|command-line options")


class Pool:
    """Up to `max_connections` connections. A call that finds all in use waits for one, no longer than the timeout."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._idle: deque[tuple[Connection, float]] = deque()  # with when it was used last
        self._process = os.getpid()
        self._parameters = settings.timed()

    def __del__(self) -> None:
        self.close()

    async def run(self, statement: Statement) -> PGresult:
        """The server's answer to `statement`. Raises a `Failure`."""
        place = await self._enter()
        try:
            connection = self._quiet() or await self._opened()
            try:
                answer = await self._steer(exchange(connection.pgconn, statement), connection.pgconn.socket)
            except Refused as refused:
                if refused.code == READ_ONLY:  # another server takes the writes now
                    self._finish(connection)
                    self.close()
                else:
                    self._keep(connection)
                raise
            except BaseException as error:
                self._finish(connection)
                if isinstance(error, (Lost, NoAnswer)):
                    self.close()  # what has cut this one off has others too, and each would fail a call of its own
                raise
            self._keep(connection)
            return answer
        finally:
            self._leave(place)

    def close(self) -> None:
        """Close the connections that nobody uses."""
        with contextlib.suppress(IndexError):
            while True:
                self._finish(self._idle.pop()[0])

    def _keep(self, connection: Connection) -> None:
        self._idle.append((connection, time.monotonic()))

    def _finish(self, connection: Connection) -> None:
        if os.getpid() == self._process:
            # As `close` does, which waits for nothing either, but is a coroutine for one of the two.
            connection.pgconn.finish()
        else:  # the parent's: to close it would end its session at the server
            _inherited.append(connection)

    def _quiet(self) -> Connection | None:
        """The connection that was used last, not long ago, if nothing has come on it since: that would be its end."""
        with contextlib.suppress(IndexError):
            while True:
                connection, used = self._idle.pop()
                if time.monotonic() - used < LONGEST_IDLE and not is_ready(connection.pgconn.socket):
                    return connection
                self._finish(connection)
        return None

    async def _opened(self) -> Connection:
        parameters = self._parameters
        try:
            return await self._connect(parameters)
        except (psycopg.Error, OSError, UnicodeError) as error:
            text, failure = str(error), not_connected(error)
        # Outside, because the error knows the password.
        if NO_OPTIONS.search(text) and parameters is not self._settings.parameters:
            self._parameters = self._settings.parameters
            return await self._opened()
        raise failure

    async def _steer(self, steps: Generator[bool, None, PGresult], socket: int) -> PGresult:
        deadline = time.monotonic() + self._settings.timeout + PATIENCE
        try:
            writing = next(steps)
            while True:
                if not await self._wait(socket, writing, deadline - time.monotonic()):
                    raise NoAnswer
                writing = next(steps)
        except StopIteration as done:
            answer: PGresult = done.value
            return answer

    def _all_in_use(self) -> NotConnected:
        return NotConnected(f"all {self._settings.max_connections} connections are in use (max_connections=)")

    # --- what differs ---

    async def _enter(self) -> Any:
        """Wait for a place, which is given back to `_leave`."""
        raise NotImplementedError

    def _leave(self, place: Any) -> None:
        raise NotImplementedError

    async def _connect(self, parameters: Mapping[str, Any]) -> Connection:
        raise NotImplementedError

    async def _wait(self, socket: int, writing: bool, seconds: float) -> bool:
        """Wait until the socket can be read, or written to; False if it cannot for so many seconds."""
        raise NotImplementedError


class BlockingPool(Pool):
    """For threads, and for greenlets."""

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        self._places = Places(settings.max_connections)

    async def _enter(self) -> Place:
        try:
            return self._places.enter(self._settings.timeout)
        except queue.Empty:
            raise self._all_in_use() from None

    def _leave(self, place: Place) -> None:
        self._places.leave(place)

    async def _connect(self, parameters: Mapping[str, Any]) -> Connection:
        return psycopg.Connection.connect(autocommit=True, **parameters)

    async def _wait(self, socket: int, writing: bool, seconds: float) -> bool:
        return is_ready(socket, writing=writing, seconds=seconds)


class LoopPool(Pool):
    """For the tasks of one event loop; it holds no reference to the loop, and ends with it."""

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        self._free = asyncio.Semaphore(settings.max_connections)

    async def _enter(self) -> None:
        if not self._free.locked():
            await self._free.acquire()
            return
        try:
            async with asyncio.timeout(self._settings.timeout):
                await self._free.acquire()
        except TimeoutError:
            raise self._all_in_use() from None

    def _leave(self, place: None) -> None:
        self._free.release()

    async def _connect(self, parameters: Mapping[str, Any]) -> Connection:
        return await psycopg.AsyncConnection.connect(autocommit=True, **parameters)

    async def _wait(self, socket: int, writing: bool, seconds: float) -> bool:
        loop = asyncio.get_running_loop()
        future: asyncio.Future[bool] = loop.create_future()
        timer = loop.call_later(max(seconds, 0), _settle, future, False)
        loop.add_reader(socket, _settle, future, True)
        if writing:
            loop.add_writer(socket, _settle, future, True)
        try:
            return await future
        finally:
            timer.cancel()
            loop.remove_reader(socket)
            if writing:
                loop.remove_writer(socket)


class Pools:
    """The pool of blocking code, and that of each event loop, each made by its first call."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._begin()

    def _begin(self) -> None:
        # Not before: a queue that was made before gevent took over would stop all greenlets.
        self._blocking: BlockingPool | None = None
        self._lock = threading.Lock()
        self._loops: dict[asyncio.AbstractEventLoop, LoopPool] = {}

    def blocking(self) -> Pool:
        """The pool of blocking code."""
        pool = self._blocking
        if pool is None:
            with self._lock:
                pool = self._blocking = self._blocking or BlockingPool(self._settings)
        return pool

    def of_this_loop(self) -> Pool:
        """The pool of the running event loop."""
        loop = asyncio.get_running_loop()
        pool = self._loops.get(loop)
        if pool is None:
            self._close_of_closed_loops()
            pool = self._loops[loop] = LoopPool(self._settings)
        return pool

    def close(self) -> None:
        """Close the connections that nobody uses; those that are in use end with their calls."""
        # What is idle is in nobody's hands, so that another thread than its loop's may close it.
        blocking, loops = self._blocking, self._loops
        self._begin()
        for pool in (blocking, *loops.values()):
            if pool is not None:
                pool.close()

    after_fork = close  # begins anew, and leaves the parent's connections alone

    def close_of_this_loop(self) -> None:
        """Close what is this event loop's, and what is nobody's: other loops and threads may go on."""
        for pool in (self._loops.pop(asyncio.get_running_loop(), None), self._blocking):
            if pool is not None:
                pool.close()

    def _close_of_closed_loops(self) -> None:
        for loop in list(self._loops):
            if loop.is_closed() and (pool := self._loops.pop(loop, None)) is not None:
                pool.close()


_inherited: list[Connection] = []
"""Connections of a parent process, kept so that nobody closes them."""


def _settle(future: asyncio.Future[bool], value: bool) -> None:
    if not future.done():
        future.set_result(value)
