"""Commands through a client of redis-py that the application made, and closes."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Sequence
from typing import Any

import redis
import redis.asyncio
from redis.exceptions import ResponseError

from session_kit.drivers.base import LIST_BATCH
from session_kit.drivers.errors import ConfigError, Unsupported
from session_kit.drivers.redis.errors import FAILURES, unavailable, uvloop_says_the_same
from session_kit.drivers.redis.protocol import Command


class GivenClient:
    """A transport over a client; a blocking one cannot serve `arun`, an asyncio one `run`."""

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
        self._check_blocking()
        try:
            given = self._send(commands)
        except FAILURES as error:
            given = self._refused(commands, error)
        return [given] if len(commands) == 1 else list(given)

    async def arun(self, commands: Sequence[Command], repeatable: bool = False) -> list[Any]:
        try:
            with uvloop_says_the_same():
                given = await self._send(commands)
        except FAILURES as error:
            given = self._refused(commands, error)
        return [given] if len(commands) == 1 else list(given)

    def scan(self, pattern: bytes) -> Iterator[bytes]:
        self._check_blocking()
        try:
            yield from self._client.scan_iter(match=pattern, count=LIST_BATCH)
        except FAILURES as error:
            raise unavailable(str(self), error) from None

    async def ascan(self, pattern: bytes) -> AsyncIterator[bytes]:
        try:
            with uvloop_says_the_same():
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

    def _send(self, commands: Sequence[Command]) -> Any:
        """What redis-py gives for `commands`; of an asyncio client it is to be awaited."""
        if len(commands) == 1:
            return self._client.execute_command(*commands[0])
        pipeline = self._client.pipeline(transaction=False)
        for command in commands:
            pipeline.execute_command(*command)
        return pipeline.execute(raise_on_error=False)

    def _refused(self, commands: Sequence[Command], error: Exception) -> Exception:
        """The answer to a single command that is an error; what else is raised is an outage."""
        if len(commands) == 1 and isinstance(error, ResponseError):
            return error
        raise unavailable(str(self), error) from None

    def _check_blocking(self) -> None:
        if self.asynchronous:
            raise Unsupported(f"{self} is an asyncio client: use the async methods, or give a URL")
