"""Connections that redis-py opens: it finds the server, secures the connection and logs in."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import redis
import redis.asyncio
import redis.asyncio.retry
import redis.sentinel
from redis.backoff import NoBackoff
from redis.retry import Retry
from redis.sentinel import MasterNotFoundError

from session_kit.drivers.redis.errors import FAILURES, reason, uvloop_says_the_same
from session_kit.drivers.redis.protocol import BlockingParser
from session_kit.drivers.redis.settings import Settings
from session_kit.drivers.support.threads import in_thread
from session_kit.drivers.support.twins import Blocking, run


class SecureConnection(redis.asyncio.SSLConnection):
    """Ends at once. An orderly end of TLS waits for the other side's, which keeps the socket for half a minute."""

    async def disconnect(self, *args: Any, **options: Any) -> None:
        if self._writer is not None:
            self._writer.transport.abort()
        await super().disconnect(*args, **options)


def connect(settings: Settings) -> redis.Connection:
    """Connect from blocking code. Sentinels are asked each time where their primary is."""
    if settings.kind == "sentinel":
        settings = _primary(settings)
    connection: redis.Connection = _connection(redis, settings, parser_class=BlockingParser)
    connection.connect()
    return connection


async def connect_stream(settings: Settings) -> asyncio.StreamWriter:
    """Connect in the running event loop, and return the stream, which is the caller's to close."""
    if settings.kind == "sentinel":
        settings = await _aprimary(settings)
    connection = _connection(redis.asyncio, settings)
    try:
        if isinstance(connection, SecureConnection):
            # To read all authorities that the system trusts takes a tenth of a second, in which the loop would stand.
            await in_thread(connection.ssl_context.get)
        with uvloop_says_the_same():
            await connection.connect()
        # Before Python 3.12, `asyncio.wait_for` can lose a cancellation, and redis-py calls it for each command.
        if (task := asyncio.current_task()) is not None and task.cancelling():
            raise asyncio.CancelledError
    except BaseException:
        await connection.disconnect(nowait=True)
        raise
    # The one thing of redis-py without a public name. Its own reading takes a task for each answer, and one caller at
    # a time; without the stream it takes its connection for closed, and leaves the stream alone.
    stream: asyncio.StreamWriter = connection._writer
    connection._writer = None
    return stream


def _connection(library: Any, settings: Settings, **more: Any) -> Any:
    """A connection of `redis` or `redis.asyncio`, which have the same classes."""
    if settings.socket:
        return library.UnixDomainSocketConnection(path=settings.socket, **settings.options, **more)
    host, port = settings.hosts[0]
    kind = library.Connection
    if settings.secure:
        kind = SecureConnection if library is redis.asyncio else library.SSLConnection
    return kind(host=host, port=port, **settings.options, **more)


def _primary(settings: Settings) -> Settings:
    options = {**settings.sentinel_options, "retry": Retry(NoBackoff(), 0)}
    sentinels = redis.sentinel.Sentinel(settings.hosts, sentinel_kwargs=options)
    try:
        return run(_named(settings, sentinels, Blocking))
    finally:
        for client in sentinels.sentinels:
            client.close()


async def _aprimary(settings: Settings) -> Settings:
    options = {**settings.sentinel_options, "retry": redis.asyncio.retry.Retry(NoBackoff(), 0)}
    sentinels = redis.asyncio.Sentinel(settings.hosts, sentinel_kwargs=options)
    try:
        return await _named(settings, sentinels, lambda client: client)
    finally:
        for client in sentinels.sentinels:
            await client.aclose()


async def _named(settings: Settings, sentinels: Any, native: Callable[[Any], Any]) -> Settings:
    """The primary that the first Sentinel names which knows one. native: makes the calls of a client coroutines.

    In place of redis-py's `discover_master`, whose error shows how its clients were made, and hardly what they met.
    """
    said = []
    for (host, port), client in zip(settings.hosts, sentinels.sentinels, strict=True):
        try:
            with uvloop_says_the_same():
                state = (await native(client).sentinel_masters()).get(settings.service)
        except FAILURES as error:
            answer = reason(error)
        else:
            if state and sentinels.check_master_state(state, settings.service):
                return settings.server(state["ip"], state["port"])
            answer = "takes the primary for down" if state else "knows no such service"
        said.append(f"{host}:{port} ({answer})")
    raise MasterNotFoundError(f"no Sentinel names a primary for {settings.service!r}, asked: {', '.join(said)}")
