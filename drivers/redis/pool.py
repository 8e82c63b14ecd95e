"""Connections of blocking code: one for each call under way, kept open for the next."""

from __future__ import annotations

import contextlib
import queue
from collections import deque
from collections.abc import Sequence
from typing import Any

from redis import Connection
from redis.exceptions import ReadOnlyError, ResponseError

from session_kit.drivers.redis.connect import connect
from session_kit.drivers.redis.errors import FAILURES
from session_kit.drivers.redis.protocol import Command, pack
from session_kit.drivers.redis.settings import Settings


class ConnectionPool:
    """Up to `max_connections` to one server; a call that finds all in use waits for one, no longer than the timeout."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._idle: deque[Connection] = deque()
        # One item for each connection that may be in use: a queue in C is several times faster than a semaphore.
        self._free: queue.SimpleQueue[None] = queue.SimpleQueue()
        for _ in range(settings.max_connections):
            self._free.put(None)

    def run(self, commands: Sequence[Command]) -> list[Any]:
        """Send `commands` and return the answers."""
        try:
            self._free.get(timeout=self._settings.timeout)
        except queue.Empty:
            raise OSError(f"all {self._settings.max_connections} connections are in use") from None
        try:
            connection = self._take()
            try:
                answers = _exchange(connection, commands)
            except BaseException:
                connection.disconnect()
                raise
            if ReadOnlyError in map(type, answers):
                connection.disconnect()  # the primary has to be found again
            else:
                self._idle.append(connection)
            return answers
        finally:
            self._free.put(None)

    def close(self) -> None:
        """Close the connections that nobody uses. In a child of a fork this leaves the parent's alone."""
        with contextlib.suppress(IndexError):
            while True:
                self._idle.pop().disconnect()

    def _take(self) -> Connection:
        """The connection that was used last, or a new one."""
        while self._idle:
            try:
                connection = self._idle.pop()
            except IndexError:  # another thread was faster
                break
            if _is_quiet(connection):
                return connection
            connection.disconnect()
        return connect(self._settings)


def _exchange(connection: Connection, commands: Sequence[Command]) -> list[Any]:
    connection.send_packed_command([pack(commands)], check_health=False)
    answers: list[Any] = []
    for _ in commands:
        try:
            answers.append(connection.read_response(disable_decoding=True))
        except ResponseError as error:
            answers.append(error)
    return answers


def _is_quiet(connection: Connection) -> bool:
    """Whether nothing has come since the last answer: no end, and no answer too many."""
    try:
        return not connection.can_read(0)
    except FAILURES:
        return False
