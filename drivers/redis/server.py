"""One server, or what Sentinels say that it is now: a pool for blocking code, and a pipeline for each event loop."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import AsyncIterator, Iterator, Sequence
from typing import Any

from redis.exceptions import ResponseError

from session_kit.drivers.redis.errors import FAILURES, is_lost, unavailable
from session_kit.drivers.redis.pipeline import Pipeline
from session_kit.drivers.redis.pool import ConnectionPool
from session_kit.drivers.redis.protocol import Command, scan
from session_kit.drivers.redis.settings import Settings


class Server:
    """A transport over connections that are kept open."""

    asynchronous = True

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._reset()

    def __str__(self) -> str:
        return str(self._settings)

    def run(self, commands: Sequence[Command], repeatable: bool = False) -> list[Any]:
        pool = self._pool or self._new_pool()
        try:
            return pool.run(commands)
        except FAILURES as error:
            if not (repeatable and is_lost(error)):
                raise unavailable(str(self), error) from None
        return self.run(commands)

    async def arun(self, commands: Sequence[Command], repeatable: bool = False) -> list[Any]:
        loop = asyncio.get_running_loop()
        pipeline = self._pipelines.get(loop) or self._new_pipeline(loop)
        try:
            return await pipeline.call(commands)
        except FAILURES as error:
            if not (repeatable and is_lost(error)):
                raise unavailable(str(self), error) from None
        return await self.arun(commands)

    def scan(self, pattern: bytes) -> Iterator[bytes]:
        cursor = b"0"
        while True:
            cursor, keys = self._scanned(self.run([scan(cursor, pattern)]))
            yield from keys
            if cursor == b"0":
                return

    async def ascan(self, pattern: bytes) -> AsyncIterator[bytes]:
        cursor = b"0"
        while True:
            cursor, keys = self._scanned(await self.arun([scan(cursor, pattern)]))
            for key in keys:
                yield key
            if cursor == b"0":
                return

    def close(self) -> None:
        self._close_pool()
        self._abandon_closed_loops()
        for loop, pipeline in list(self._pipelines.items()):
            with contextlib.suppress(RuntimeError):  # the loop was closed meanwhile
                loop.call_soon_threadsafe(pipeline.stop)

    async def aclose(self) -> None:
        # Other event loops may go on: only what is this one's, and what is nobody's.
        pipeline = self._pipelines.pop(asyncio.get_running_loop(), None)
        if pipeline is not None:
            await pipeline.aclose()
        self._close_pool()

    def after_fork(self) -> None:
        self._close_pool()
        self._reset()

    def _reset(self) -> None:
        # Made by the first call, not before: a queue that was made before gevent took over would stop all greenlets.
        self._pool: ConnectionPool | None = None
        self._pool_lock = threading.Lock()
        self._pipelines: dict[asyncio.AbstractEventLoop, Pipeline] = {}

    def _new_pool(self) -> ConnectionPool:
        with self._pool_lock:
            if self._pool is None:
                self._pool = ConnectionPool(self._settings)
            return self._pool

    def _close_pool(self) -> None:
        if self._pool is not None:
            self._pool.close()

    def _new_pipeline(self, loop: asyncio.AbstractEventLoop) -> Pipeline:
        self._abandon_closed_loops()
        return self._pipelines.setdefault(loop, Pipeline(self._settings, loop))

    def _abandon_closed_loops(self) -> None:
        for loop in list(self._pipelines):
            if loop.is_closed() and (pipeline := self._pipelines.pop(loop, None)) is not None:
                pipeline.abandon()

    def _scanned(self, answers: list[Any]) -> tuple[bytes, list[bytes]]:
        (answer,) = answers
        if isinstance(answer, ResponseError):
            raise unavailable(str(self), answer)
        cursor, keys = answer
        return cursor, keys
