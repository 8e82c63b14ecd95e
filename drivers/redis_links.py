"""How commands reach a Redis or Valkey server: over connections of our own, or through a client of redis-py.

A link takes the commands of one call and returns their answers in order, errors of the server among them. What keeps
the answers from coming is raised as `DriverUnavailable`, within the timeout.
"""

from __future__ import annotations

import asyncio
import contextlib
import queue
import re
import weakref
from collections import deque
from collections.abc import AsyncIterator, Iterator, Sequence
from typing import Any, Protocol

import hiredis
import redis
import redis.asyncio
from redis.exceptions import (
    AuthenticationError,
    ConnectionError,
    InvalidResponse,
    NoPermissionError,
    OutOfMemoryError,
    ReadOnlyError,
    RedisClusterException,
    RedisError,
    ResponseError,
    TimeoutError,
)

from session_kit.drivers.base import LIST_BATCH
from session_kit.drivers.errors import ConfigError, DriverUnavailable, Unsupported
from session_kit.drivers.redis_endpoint import Endpoint

Command = tuple[Any, ...]
"""The words of one command: str, bytes or int."""

FAILURES = (RedisError, RedisClusterException, OSError)
CLOSED = "the driver was closed"
NOT_YET = object()
"""What stands for an answer that has not come whole."""
PIECE = 16_384  # bytes; hiredis gets slow with much at a time
REASONS: dict[type[BaseException], str] = {
    AuthenticationError: "the server refuses the user name or password",
    TimeoutError: "no answer within the timeout",
    asyncio.TimeoutError: "no answer within the timeout",
    InvalidResponse: "what answers there does not speak the Redis protocol",
    NoPermissionError: "the user may not do this (ACL); sessions need read, write, scan and eval on their keys",
    OutOfMemoryError: "the server has no memory left for it (maxmemory)",
    ReadOnlyError: "the server is a read-only replica",
}


class Link(Protocol):
    """What a driver needs of a connection.

    repeatable: the commands may be sent again after a lost connection, because doing them twice does no harm.
    """

    asynchronous: bool
    """Whether `arun` and `ascan` work."""

    def run(self, commands: Sequence[Command], repeatable: bool = False) -> list[Any]: ...
    async def arun(self, commands: Sequence[Command], repeatable: bool = False) -> list[Any]: ...
    def scan(self, pattern: bytes) -> Iterator[bytes]: ...
    def ascan(self, pattern: bytes) -> AsyncIterator[bytes]: ...
    def close(self) -> None: ...
    async def aclose(self) -> None: ...
    def after_fork(self) -> None: ...


def unavailable(where: str, error: BaseException) -> DriverUnavailable:
    """The error to raise for one of redis-py's or the system's; it never shows a password, a key or a value."""
    # A server's error may quote what it was sent, and a pipeline puts the command in front.
    plain = str(error).rpartition("caused error: ")[2]
    if isinstance(error, ResponseError):
        plain = re.split("[`']", plain)[0]
    plain = plain.strip(" ,.:") or type(error).__name__
    reason = next((reason for kind, reason in REASONS.items() if isinstance(error, kind)), plain)
    return DriverUnavailable(f"{where}: {reason}")


def _is_lost(error: BaseException) -> bool:
    """Whether the connection is gone. Not after a timeout: a second attempt would only double the wait."""
    return isinstance(error, ConnectionError) and not isinstance(error, AuthenticationError)


class Wire:
    """Our own connections to one server, kept open: one for each blocking call at a time, one for each event loop."""

    asynchronous = True

    def __init__(self, endpoint: Endpoint) -> None:
        self._endpoint = endpoint
        self._reset()

    def __str__(self) -> str:
        return str(self._endpoint)

    def _reset(self) -> None:
        self._idle: deque[Any] = deque()
        # One item for each connection that may be in use: a queue in C is several times faster than a semaphore.
        self._free: queue.SimpleQueue[None] = queue.SimpleQueue()
        for _ in range(self._endpoint.max_connections):
            self._free.put(None)
        self._lanes: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, Lane] = weakref.WeakKeyDictionary()

    after_fork = _reset

    def run(self, commands: Sequence[Command], repeatable: bool = False) -> list[Any]:
        try:
            self._free.get(timeout=self._endpoint.timeout)
        except queue.Empty:
            raise DriverUnavailable(
                f"{self._endpoint}: all {self._endpoint.max_connections} connections are in use"
            ) from None
        try:
            return self._exchange(commands)
        except FAILURES as error:
            if not (repeatable and _is_lost(error)):
                raise unavailable(str(self._endpoint), error) from None
        finally:
            self._free.put(None)
        return self.run(commands)

    def _exchange(self, commands: Sequence[Command]) -> list[Any]:
        connection = self._take()
        replies: list[Any] = []
        moved = False
        try:
            connection.send_packed_command([_pack(commands)], check_health=False)
            for _ in commands:
                try:
                    replies.append(connection.read_response(disable_decoding=True))
                except ResponseError as error:
                    replies.append(error)
                    moved = moved or isinstance(error, ReadOnlyError)
        except BaseException:
            connection.disconnect()
            raise
        if moved:
            connection.disconnect()  # the primary has to be found again
        else:
            self._idle.append(connection)
        return replies

    def _take(self) -> Any:
        """The connection that was used last, or a new one."""
        while self._idle:
            try:
                connection = self._idle.pop()
            except IndexError:  # another thread was faster
                break
            try:
                # What is readable between two calls is the end, or an answer too many.
                quiet = not connection.can_read(0)
            except FAILURES:
                quiet = False
            if quiet:
                return connection
            connection.disconnect()
        connection = self._endpoint.connection()
        connection.connect()
        return connection

    async def arun(self, commands: Sequence[Command], repeatable: bool = False) -> list[Any]:
        loop = asyncio.get_running_loop()
        lane = self._lanes.get(loop)
        if lane is None:
            lane = self._lanes[loop] = Lane(self._endpoint)
        try:
            return await lane.call(loop, commands)
        except FAILURES as error:
            if not (repeatable and _is_lost(error)):
                raise unavailable(str(self._endpoint), error) from None
        return await self.arun(commands)

    def scan(self, pattern: bytes) -> Iterator[bytes]:
        cursor = b"0"
        while True:
            (reply,) = self.run([_scan(cursor, pattern)])
            cursor, keys = _scanned(self._endpoint, reply)
            yield from keys
            if cursor == b"0":
                return

    async def ascan(self, pattern: bytes) -> AsyncIterator[bytes]:
        cursor = b"0"
        while True:
            (reply,) = await self.arun([_scan(cursor, pattern)])
            cursor, keys = _scanned(self._endpoint, reply)
            for key in keys:
                yield key
            if cursor == b"0":
                return

    def close(self) -> None:
        self._close_idle()
        for loop, lane in list(self._lanes.items()):
            if not loop.is_closed():
                loop.call_soon_threadsafe(lane.stop, ConnectionError(CLOSED))

    async def aclose(self) -> None:
        # Other event loops may go on: only what is this one's, and what is nobody's.
        lane = self._lanes.pop(asyncio.get_running_loop(), None)
        if lane is not None:
            await lane.stopped()
        self._close_idle()

    def _close_idle(self) -> None:
        with contextlib.suppress(IndexError):
            while True:
                self._idle.pop().disconnect()


class _Call:
    """The commands of one caller on their way, and the answers that have come."""

    __slots__ = ("count", "deadline", "future", "packed", "replies")

    def __init__(self, commands: Sequence[Command], future: asyncio.Future[list[Any]], deadline: float) -> None:
        self.packed = _pack(commands)
        self.count = len(commands)
        self.future = future
        self.deadline = deadline
        self.replies: list[Any] = []


class Lane:
    """The connection of one event loop, shared by all its tasks.

    Calls that are made in the same turn of the loop leave together, in one write; answers come back in the order in
    which the calls left. One timer watches the oldest call. If the connection is lost, the calls that have left fail,
    since they may have landed; those that have not leave on the next connection.
    """

    def __init__(self, endpoint: Endpoint) -> None:
        self._endpoint = endpoint
        self._waiting: list[_Call] = []
        self._in_flight: deque[_Call] = deque()
        self._writer: asyncio.StreamWriter | None = None
        self._task: asyncio.Task[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._stopped_by: Exception | None = None

    def call(self, loop: asyncio.AbstractEventLoop, commands: Sequence[Command]) -> asyncio.Future[list[Any]]:
        """Let `commands` leave at the end of this turn of the loop; the result is the list of their answers."""
        future: asyncio.Future[list[Any]] = loop.create_future()
        if not self._waiting:
            loop.call_soon(self._leave, loop)
        self._waiting.append(_Call(commands, future, loop.time() + self._endpoint.timeout))
        return future

    def _leave(self, loop: asyncio.AbstractEventLoop) -> None:
        if self._task is None:
            self._task = loop.create_task(self._serve(loop))
        if self._writer is None or self._writer.is_closing():
            return  # they leave once the connection is there
        calls = [call for call in self._waiting if not call.future.done()]  # done: its caller has been cancelled
        self._waiting.clear()
        self._in_flight.extend(calls)
        self._writer.write(b"".join([call.packed for call in calls]))
        if self._timer is None and calls:
            self._timer = loop.call_at(calls[0].deadline, self._watch, loop)

    def _watch(self, loop: asyncio.AbstractEventLoop) -> None:
        self._timer = None
        if not self._in_flight:
            return
        if (deadline := self._in_flight[0].deadline) > loop.time():
            self._timer = loop.call_at(deadline, self._watch, loop)
        else:
            self.stop(TimeoutError())

    async def _serve(self, loop: asyncio.AbstractEventLoop) -> None:
        """Connect, then hand out answers until the connection is lost."""
        lost: list[_Call] = []
        error: Exception = ConnectionError("the event loop is closing")
        try:
            async with self._endpoint.async_connection() as connection:
                receiver = _Receiver(connection, self._in_flight, loop)
                self._writer = connection._writer
                self._leave(loop)
                await receiver.lost
        except FAILURES as failure:
            error = failure
        except asyncio.CancelledError:
            if self._stopped_by is None:
                raise
            error = self._stopped_by
        finally:
            if self._writer is None:
                lost, self._waiting = self._waiting, []
            elif self._waiting:
                loop.call_soon(self._leave, loop)
            lost.extend(self._in_flight)
            self._in_flight.clear()
            self._writer = self._task = self._stopped_by = None
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None
            for call in lost:
                if not call.future.done():
                    call.future.set_exception(error)

    def stop(self, error: Exception) -> None:
        """Drop the connection; what is in flight fails with `error`. The next call makes a new one."""
        if self._task is not None:
            self._stopped_by = error
            self._task.cancel()

    async def stopped(self) -> None:
        """Drop the connection, and wait until it is gone."""
        task = self._task
        if task is not None:
            self.stop(ConnectionError(CLOSED))
            await asyncio.wait([task])


class _Receiver(asyncio.Protocol):
    """Hands out the answers as they come, in the callback of the socket: a task that reads would cost a turn more.

    connection: of redis-py, connected; it reads no more from now on.
    lost: a future that ends, always by an error, when the connection does.
    """

    def __init__(self, connection: Any, in_flight: deque[_Call], loop: asyncio.AbstractEventLoop) -> None:
        self.lost: asyncio.Future[None] = loop.create_future()
        self._in_flight = in_flight
        self._reader = hiredis.Reader(
            protocolError=InvalidResponse, replyError=connection._parser.parse_error, notEnoughData=NOT_YET
        )
        transport = connection._writer.transport
        self._before = transport.get_protocol()
        transport.set_protocol(self)

    def data_received(self, data: bytes) -> None:
        try:
            for start in range(0, len(data), PIECE):
                self._reader.feed(data, start, min(PIECE, len(data) - start))
                while (reply := self._reader.gets()) is not NOT_YET:
                    self._hand_out(reply)
        except RedisError as error:
            self._end(error)

    def _hand_out(self, reply: Any) -> None:
        if isinstance(reply, ConnectionError):  # what it says is of the connection, not of one call
            raise reply
        if not self._in_flight:  # were it kept, the next caller would be given what is another's
            raise InvalidResponse("an answer that nobody has asked for")
        call = self._in_flight[0]
        call.replies.append(reply)
        if len(call.replies) == call.count:
            self._in_flight.popleft()
            if not call.future.done():
                call.future.set_result(call.replies)
        if isinstance(reply, ReadOnlyError):
            raise ConnectionError("the primary has moved")

    def connection_lost(self, exc: Exception | None) -> None:
        self._end(ConnectionError(str(exc) if exc else "the server has closed the connection"))
        self._before.connection_lost(exc)

    def _end(self, error: Exception) -> None:
        if not self.lost.done():
            self.lost.set_exception(error)


class GivenClient:
    """Commands through a client of redis-py that the application made, and closes."""

    def __init__(self, client: Any) -> None:
        self._client = client
        self.asynchronous = isinstance(client, (redis.asyncio.Redis, redis.asyncio.RedisCluster))
        if not self.asynchronous and not isinstance(client, (redis.Redis, redis.RedisCluster)):
            raise ConfigError(f"client must be a redis-py client, not {type(client).__name__}")
        if client.get_encoder().decode_responses:
            raise ConfigError("client must be made with decode_responses=False: values are bytes")

    def __str__(self) -> str:
        return f"the given {type(self._client).__name__} client"

    def run(self, commands: Sequence[Command], repeatable: bool = False) -> list[Any]:
        client = self._blocking()
        try:
            if len(commands) == 1:
                try:
                    return [client.execute_command(*commands[0])]
                except ResponseError as error:
                    return [error]
            pipeline = client.pipeline(transaction=False)
            for command in commands:
                pipeline.execute_command(*command)
            return list(pipeline.execute(raise_on_error=False))
        except FAILURES as error:
            raise unavailable(str(self), error) from None

    async def arun(self, commands: Sequence[Command], repeatable: bool = False) -> list[Any]:
        try:
            if len(commands) == 1:
                try:
                    return [await self._client.execute_command(*commands[0])]
                except ResponseError as error:
                    return [error]
            pipeline = self._client.pipeline(transaction=False)
            for command in commands:
                pipeline.execute_command(*command)
            return list(await pipeline.execute(raise_on_error=False))
        except FAILURES as error:
            raise unavailable(str(self), error) from None

    def scan(self, pattern: bytes) -> Iterator[bytes]:
        client = self._blocking()
        try:
            yield from client.scan_iter(match=pattern, count=LIST_BATCH)
        except FAILURES as error:
            raise unavailable(str(self), error) from None

    async def ascan(self, pattern: bytes) -> AsyncIterator[bytes]:
        try:
            async for key in self._client.scan_iter(match=pattern, count=LIST_BATCH):
                yield key
        except FAILURES as error:
            raise unavailable(str(self), error) from None

    def close(self) -> None:
        """Not ours to close."""

    async def aclose(self) -> None:
        """Not ours to close."""

    def after_fork(self) -> None:
        """redis-py sees to it."""

    def _blocking(self) -> Any:
        if self.asynchronous:
            raise Unsupported(f"{self} is an asyncio client: use the async methods, or give a URL")
        return self._client


def _pack(commands: Sequence[Command]) -> bytes:
    packed = [hiredis.pack_command(command) for command in commands]
    return packed[0] if len(packed) == 1 else b"".join(packed)


def _scan(cursor: bytes, pattern: bytes) -> Command:
    return "SCAN", cursor, "MATCH", pattern, "COUNT", LIST_BATCH


def _scanned(endpoint: Endpoint, reply: Any) -> tuple[bytes, list[bytes]]:
    if isinstance(reply, ResponseError):
        raise unavailable(str(endpoint), reply)
    cursor, keys = reply
    return cursor, keys
