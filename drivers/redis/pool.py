"""Connections of blocking code: one for each call under way, kept open for the next."""

from __future__ import annotations

import contextlib
import math
import queue
import time
from collections import deque
from collections.abc import Sequence
from typing import Any

from redis.exceptions import ConnectionError, ReadOnlyError

from session_kit.drivers.redis.connect import connect
from session_kit.drivers.redis.errors import FAILURES
from session_kit.drivers.redis.protocol import Command, Parser, pack
from session_kit.drivers.redis.settings import Settings
from session_kit.drivers.support.connections import LONGEST_IDLE, Places


class ConnectionPool:
    """Up to `max_connections` to one server; a call that finds all in use waits for one, no longer than the timeout."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._idle: deque[Link] = deque()
        self._places = Places(settings.max_connections)

    def run(self, commands: Sequence[Command]) -> list[Any]:
        """Send `commands` and return the answers."""
        try:
            place = self._places.enter(self._settings.timeout)
        except queue.Empty:
            raise OSError(f"all {self._settings.max_connections} connections are in use") from None
        try:
            link = self._take()
            try:
                answers = link.exchange(pack(commands), len(commands))
            except BaseException as error:
                link.close()
                if isinstance(error, FAILURES):
                    self.close()  # what has cut this one off has others too, and each would fail a call of its own
                raise
            if ReadOnlyError in map(type, answers):
                link.close()  # the primary has to be found again
            else:
                self._idle.append(link)
            return answers
        finally:
            self._places.leave(place)

    def close(self) -> None:
        """Close the connections that nobody uses. In a child of a fork this leaves the parent's alone."""
        with contextlib.suppress(IndexError):
            while True:
                self._idle.pop().close()

    def _take(self) -> Link:
        """The connection that was used last, or a new one."""
        while self._idle:
            try:
                link = self._idle.pop()
            except IndexError:  # another thread was faster
                break
            if link.is_good():
                return link
            link.close()
        return Link(self._settings)


class Link:
    """One connection."""

    def __init__(self, settings: Settings) -> None:
        self._timeout = settings.timeout
        self._connection = connect(settings)
        self._parser = Parser()
        self._used = time.monotonic()

    def exchange(self, packed: bytes, count: int) -> list[Any]:
        """Send commands and return so many answers, all within the timeout.

        redis-py's own reading has the limit for each piece: who sends a byte a second would keep us for ever.
        """
        try:
            return self._exchange(packed, count)
        except TimeoutError:
            raise
        except OSError as error:
            raise ConnectionError(str(error)) from error  # redis-py's: the connection is lost

    def _exchange(self, packed: bytes, count: int) -> list[Any]:
        socket: Any = self._connection._sock  # as in `connect_stream`
        answers: list[Any] = []
        deadline = time.monotonic() + self._timeout
        socket.sendall(packed)
        while True:
            size = socket.recv_into(self._parser.buffer)
            if not size:
                raise ConnectionError("the server has closed the connection")
            answers.extend(self._parser.parse(size))
            self._used = time.monotonic()
            if len(answers) >= count:
                break
            if self._used >= deadline:
                raise TimeoutError
            socket.settimeout(deadline - self._used)
        if len(answers) > count or not self._parser.is_empty():
            self._used = -math.inf  # else the next caller would be given what is another's
        if socket.gettimeout() != self._timeout:
            socket.settimeout(self._timeout)
        return answers[:count]

    def is_good(self) -> bool:
        """Whether nothing has come since the last answer, no end and no answer too many, and that is not long ago."""
        try:
            return time.monotonic() - self._used < LONGEST_IDLE and not self._connection.can_read(0)
        except FAILURES:
            return False

    def close(self) -> None:
        self._connection.disconnect()
