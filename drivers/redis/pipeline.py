"""The connection of one event loop, shared by all its tasks."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections import deque
from collections.abc import AsyncGenerator, Sequence
from typing import Any

from redis.exceptions import ConnectionError, InvalidResponse, ReadOnlyError, RedisError

from session_kit.drivers.redis.connect import connect_stream
from session_kit.drivers.redis.errors import CLOSED, HUNG_UP
from session_kit.drivers.redis.protocol import Command, Parser, pack
from session_kit.drivers.redis.settings import Settings
from session_kit.drivers.support.connections import LONGEST_IDLE, is_ready


class Call:
    """The commands of one caller on their way, and the answers that have come."""

    __slots__ = ("answers", "count", "deadline", "future", "packed")

    def __init__(self, commands: Sequence[Command], future: asyncio.Future[list[Any]], deadline: float) -> None:
        self.packed = pack(commands)
        self.count = len(commands)
        self.future = future
        self.deadline = deadline
        self.answers: list[Any] = []

    def fail(self, error: BaseException) -> None:
        if not self.future.done():  # done: its caller has been cancelled
            self.future.set_exception(error)


class Pipeline:
    """Calls that are made in the same turn of the loop leave together, in one write.

    Answers come back in the order in which the calls left. One timer watches the oldest call. If the connection is
    lost, the calls that have left fail, since they may have landed; those that have not leave on the next connection.
    """

    def __init__(self, settings: Settings, loop: asyncio.AbstractEventLoop) -> None:
        self._settings = settings
        self._loop = loop
        self._waiting: list[Call] = []
        self._connection: Connection | None = None
        self._connecting: asyncio.Task[None] | None = None
        self._end_of_loop: AsyncGenerator[None, None] | None = None

    def call(self, commands: Sequence[Command]) -> asyncio.Future[list[Any]]:
        """Let `commands` leave at the end of this turn of the loop; the result is the list of their answers."""
        future: asyncio.Future[list[Any]] = self._loop.create_future()
        if not self._waiting:
            self._loop.call_soon(self._leave)
        self._waiting.append(Call(commands, future, self._loop.time() + self._settings.timeout))
        return future

    def stop(self) -> None:
        """Drop the connection; what is under way fails. The next call makes a new one."""
        if self._connecting is not None:
            self._connecting.cancel()
        if self._connection is not None:
            self._connection.end(ConnectionError(CLOSED))

    async def aclose(self) -> None:
        """Drop the connection, and wait until it is gone."""
        connecting = self._connecting
        self.stop()
        self._fail_waiting(ConnectionError(CLOSED))  # or they would connect again, and nobody would end that
        if self._end_of_loop is not None:
            await self._end_of_loop.aclose()
        if connecting is not None:
            await asyncio.wait([connecting])
        await asyncio.sleep(0)  # asyncio closes a socket in the next turn

    def abandon(self) -> None:
        """Drop the connection of a loop that was closed, and can close nothing any more."""
        if self._connection is not None:
            self._connection.abandon()

    def _leave(self) -> None:
        if not self._waiting:
            return
        connection = self._connection
        if connection is None or not connection.is_good(self._waiting[0].deadline):
            self._waiting = [call for call in self._waiting if not call.future.done()]  # done: cancelled
            if self._connecting is None and self._waiting:
                self._connecting = self._loop.create_task(self._connect())
                self._connecting.add_done_callback(self._connected)
            return  # they leave once the connection is there
        self._send(connection)

    def _send(self, connection: Connection) -> None:
        calls = [call for call in self._waiting if not call.future.done()]  # done: its caller has been cancelled
        self._waiting.clear()
        if calls:
            connection.send(calls)

    async def _connect(self) -> None:
        if self._end_of_loop is None:
            self._end_of_loop = self._stop_with_the_loop()
            await anext(self._end_of_loop)
        async with asyncio.timeout(self._settings.timeout):
            self._connection = Connection(await connect_stream(self._settings), self._loop)

    def _connected(self, connecting: asyncio.Task[None]) -> None:
        # Not in the task itself: if it is cancelled before its first step it runs no `finally` either.
        self._connecting = None
        error = None if connecting.cancelled() else connecting.exception()
        if error is None and self._connection is not None and not self._connection.is_closing:
            self._send(self._connection)
            return
        self._fail_waiting(error or ConnectionError(CLOSED))

    def _fail_waiting(self, error: BaseException) -> None:
        calls, self._waiting = self._waiting, []
        for call in calls:
            call.fail(error)

    async def _stop_with_the_loop(self) -> AsyncGenerator[None, None]:
        # asyncio.run ends the generators that are left, when all tasks have ended. A task of ours would be ended while
        # others may still need the connection, and would complain in a loop that is closed without asyncio.run.
        try:
            yield
        finally:
            self.stop()


class Connection(asyncio.BufferedProtocol):
    """Sends calls, and hands out answers in the callback of the socket: a task that reads would come a turn later."""

    def __init__(self, stream: asyncio.StreamWriter, loop: asyncio.AbstractEventLoop) -> None:
        self.is_closing = False
        self._stream = stream  # kept: it closes its transport when it is dropped
        self._transport = stream.transport
        self._loop = loop
        self._parser = Parser()
        # asyncio's TLS reads on into `buffer[offset:]`, which of a bytearray is a copy: all but the first record would
        # be lost, and what was there before taken for it.
        self._buffer = memoryview(self._parser.buffer)
        self._in_flight: deque[Call] = deque()
        self._timer: asyncio.TimerHandle | None = None
        self._last_deadline = loop.time()
        self._transport.set_protocol(self)
        if self._transport.is_closing():  # whose end was told to the protocol before, and will not be told again
            raise ConnectionError(HUNG_UP)
        self._socket: int = self._transport.get_extra_info("socket").fileno()

    def is_good(self, deadline: float) -> bool:
        """Whether calls may leave on it, of which the first has this deadline. It is closed if not.

        Where nothing is awaited, what has come is its end, of which the loop has not heard yet, or an answer too many.
        """
        if not self.is_closing and not self._in_flight:
            is_old = deadline - self._last_deadline > LONGEST_IDLE
            if is_old or not self._parser.is_empty() or is_ready(self._socket):
                self.end(ConnectionError(CLOSED))
        return not self.is_closing

    def send(self, calls: Sequence[Call]) -> None:
        self._last_deadline = calls[-1].deadline
        self._in_flight.extend(calls)
        self._transport.write(b"".join([call.packed for call in calls]))
        if self._timer is None:
            self._timer = self._loop.call_at(calls[0].deadline, self._watch)

    def end(self, error: Exception) -> None:
        """Close it; what is in flight fails with `error`."""
        if self.is_closing:
            return
        self.is_closing = True
        if self._timer is not None:
            self._timer.cancel()
        calls, self._in_flight = self._in_flight, deque()
        for call in calls:
            call.fail(error)
        self._transport.abort()

    def abandon(self) -> None:
        """End the connection under the transport, which cannot do it without its loop; its memory goes with it."""
        # uvloop has closed it together with the loop: then it is None, or its methods raise TypeError.
        with contextlib.suppress(OSError, TypeError, AttributeError):
            self._transport.get_extra_info("socket").shutdown(socket.SHUT_RDWR)
        with contextlib.suppress(RuntimeError):  # the loop is closed, but now the stream does not try it again
            self._transport.abort()

    def get_buffer(self, sizehint: int) -> memoryview:
        return self._buffer

    def buffer_updated(self, nbytes: int) -> None:
        try:
            for answer in self._parser.parse(nbytes):
                self._hand_out(answer)
        except RedisError as error:
            self.end(error)

    def connection_lost(self, exc: Exception | None) -> None:
        self.end(ConnectionError(str(exc) if exc else HUNG_UP))

    def _hand_out(self, answer: Any) -> None:
        if not self._in_flight:  # were it kept, the next caller would be given what is another's
            raise InvalidResponse("an answer that nobody has asked for")
        call = self._in_flight[0]
        call.answers.append(answer)
        if len(call.answers) == call.count:
            self._in_flight.popleft()
            if not call.future.done():
                call.future.set_result(call.answers)
        if type(answer) is ReadOnlyError:
            self.end(ConnectionError("the primary has moved"))

    def _watch(self) -> None:
        self._timer = None
        if not self._in_flight:
            return
        if (deadline := self._in_flight[0].deadline) > self._loop.time():
            self._timer = self._loop.call_at(deadline, self._watch)
        else:
            self.end(TimeoutError())
