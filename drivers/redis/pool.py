"""Connections of blocking code: one for each call under way, kept open for the next."""

from __future__ import annotations

import contextlib
import queue
import socket
import ssl
from collections import deque
from collections.abc import Sequence
from typing import Any

from session_kit.drivers.redis.errors import FAILURES, ServerError
from session_kit.drivers.redis.protocol import Command, Parser, pack
from session_kit.drivers.redis.sentinel import find_primary
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
                answers = connection.exchange(commands)
            except BaseException:
                connection.close()
                raise
            if connection.usable:
                self._idle.append(connection)
            else:
                connection.close()
            return answers
        finally:
            self._free.put(None)

    def close(self) -> None:
        """Close the connections that nobody uses. In a child of a fork this leaves the parent's alone."""
        with contextlib.suppress(IndexError):
            while True:
                self._idle.pop().close()

    def _take(self) -> Connection:
        """The connection that was used last, or a new one."""
        while self._idle:
            try:
                connection = self._idle.pop()
            except IndexError:  # another thread was faster
                break
            if connection.is_quiet():
                return connection
            connection.close()
        return _connect(self._settings)


class Connection:
    """One connection, which has said who we are. usable: whether it can take another call."""

    def __init__(self, settings: Settings) -> None:
        self.usable = True
        self._timeout = settings.timeout
        self._parser = Parser()
        self._socket = _socket(settings)
        try:
            if greeting := settings.greeting():
                for answer in self.exchange(greeting):
                    if isinstance(answer, ServerError):
                        raise answer
        except BaseException:
            self.close()
            raise

    def exchange(self, commands: Sequence[Command]) -> list[Any]:
        """Send `commands` and return the answers; after an error the connection is of no use."""
        self._socket.sendall(pack(commands))
        answers: list[Any] = []
        while len(answers) < len(commands):
            size = self._socket.recv_into(self._parser.buffer)
            if not size:
                raise ConnectionError("the server has closed the connection")
            answers.extend(self._parser.parse(size))
        if len(answers) > len(commands) or self._parser.has_part:
            # Were it kept, the next caller would be given what is another's.
            self.usable = False
            del answers[len(commands) :]
        if ServerError in map(type, answers) and any(getattr(answer, "code", "") == "READONLY" for answer in answers):
            self.usable = False  # the primary has to be found again
        return answers

    def is_quiet(self) -> bool:
        """Whether nothing has come since the last answer: no end, and no answer too many."""
        self._socket.settimeout(0)
        try:
            self._socket.recv(1)
        except (BlockingIOError, ssl.SSLWantReadError):
            self._socket.settimeout(self._timeout)
            return True
        except OSError:
            pass
        return False

    def close(self) -> None:
        self._socket.close()


def _connect(settings: Settings) -> Connection:
    if settings.kind != "sentinel":
        return Connection(settings)
    search = find_primary(settings)
    try:
        sentinel, question = next(search)
        while True:
            answer: Any = None
            try:
                with contextlib.closing(Connection(sentinel)) as connection:
                    (answer,) = connection.exchange([question])
            except FAILURES as error:
                answer = error
            sentinel, question = search.send(answer)
    except StopIteration as found:
        return Connection(found.value)


def _socket(settings: Settings) -> socket.socket:
    if settings.socket:
        connected = socket.socket(socket.AF_UNIX)
        try:
            connected.settimeout(settings.timeout)
            connected.connect(settings.socket)
        except BaseException:
            connected.close()
            raise
        return connected
    context = settings.ssl_context()
    ((host, port),) = settings.hosts
    connected = socket.create_connection((host, port), settings.timeout)
    try:
        connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return context.wrap_socket(connected, server_hostname=host) if context else connected
    except BaseException:
        connected.close()
        raise
