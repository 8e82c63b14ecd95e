"""How commands reach a server: what the driver asks of each way."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Sequence
from typing import Any, Protocol

from session_kit.drivers.redis.protocol import Command


class Transport(Protocol):
    """Brings the commands of one call to a server and the answers back, in order; errors of the server are among them.

    What keeps the answers from coming is raised as `DriverUnavailable`, within the timeout.
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
