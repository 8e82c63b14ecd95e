"""Connections that redis-py opens: it finds the server, secures the connection and logs in."""

from __future__ import annotations

import asyncio
from typing import Any

import redis
import redis.asyncio
import redis.asyncio.retry
import redis.sentinel
from redis.backoff import NoBackoff
from redis.retry import Retry

from session_kit.drivers.redis.protocol import BlockingParser
from session_kit.drivers.redis.settings import Settings


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
        await connection.connect()
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
    kind = library.SSLConnection if settings.secure else library.Connection
    return kind(host=host, port=port, **settings.options, **more)


def _primary(settings: Settings) -> Settings:
    options = {**settings.sentinel_options, "retry": Retry(NoBackoff(), 0)}
    sentinels = redis.sentinel.Sentinel(settings.hosts, sentinel_kwargs=options)
    try:
        return settings.server(*sentinels.discover_master(settings.service))
    finally:
        for client in sentinels.sentinels:
            client.close()


async def _aprimary(settings: Settings) -> Settings:
    options = {**settings.sentinel_options, "retry": redis.asyncio.retry.Retry(NoBackoff(), 0)}
    sentinels = redis.asyncio.Sentinel(settings.hosts, sentinel_kwargs=options)
    try:
        return settings.server(*await sentinels.discover_master(settings.service))
    finally:
        for client in sentinels.sentinels:
            await client.aclose()
