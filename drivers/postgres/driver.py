"""Entries in a table of PostgreSQL, for those who have a database and no Redis."""

from __future__ import annotations

import contextlib
import functools
import itertools
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, Concatenate, Final, ParamSpec, TypeVar
from urllib.parse import SplitResult

from session_kit.drivers.base import ANY, WRITES_PER_PRUNE, Capabilities, Driver
from session_kit.drivers.errors import DriverUnavailable
from session_kit.drivers.postgres.errors import (
    CONTENDED,
    READ_ONLY,
    Failure,
    Lost,
    unavailable,
)
from session_kit.drivers.postgres.pool import Pool, Pools
from session_kit.drivers.postgres.settings import Settings, Table, client_options
from session_kit.drivers.postgres.statements import Request, Statements, bounds, checked
from session_kit.drivers.registry import split_url
from session_kit.drivers.support.options import Duration, Parser
from session_kit.drivers.support.twins import iterate, run

if TYPE_CHECKING:
    from typing import Self

P = ParamSpec("P")
R = TypeVar("R")

MOST_TRIES: Final = 20  # of a statement that others get in the way of


def _twins(
    work: Callable[Concatenate[PostgresDriver, Pool, P], Coroutine[Any, Any, R]],
) -> tuple[
    Callable[Concatenate[PostgresDriver, P], R], Callable[Concatenate[PostgresDriver, P], Coroutine[Any, Any, R]]
]:
    """Make the blocking method and its async twin from one coroutine, which never suspends on the blocking pool."""

    @functools.wraps(work)
    def method(self: PostgresDriver, /, *args: P.args, **kwargs: P.kwargs) -> R:
        return run(work(self, self._pools.blocking(), *args, **kwargs))

    @functools.wraps(work)
    async def twin(self: PostgresDriver, /, *args: P.args, **kwargs: P.kwargs) -> R:
        return await work(self, self._pools.of_this_loop(), *args, **kwargs)

    return method, twin


def _asking(
    request: Callable[Concatenate[Statements, P], Request[R]],
) -> Callable[Concatenate[PostgresDriver, Pool, P], Coroutine[Any, Any, R]]:
    """The work of a method that is one statement."""

    @functools.wraps(request)
    async def work(self: PostgresDriver, pool: Pool, /, *args: P.args, **kwargs: P.kwargs) -> R:
        return await self._ask(pool, request(self._statements, *args, **kwargs))

    return work


class PostgresDriver(Driver):
    """One table in PostgreSQL, from version 10 on, shared by all who use the database.

    url: `postgresql://user:password@host:5432/database`; several hosts (`host1,host2`) are a primary and its standbys:
        the one that takes writes is found, after a failover too. What is not said comes from libpq's environment
        variables and password file.
    table: its name; made at first use where it is not there. Default `session_kit`.
    schema: where it is; also made. Default: the first of the role's search path.
    unlogged: make the table without a write-ahead log: faster, and emptied by a crash of the server. Default no.
    timeout: seconds, for connecting (2 at least, and for each address), for a free connection and for each answer.
        Default 5.
    max_connections: of blocking code at a time, and of each event loop. Default 10.
    options: those of libpq, as `sslmode`, `sslrootcert`, `host` (the folder of a Unix socket), `application_name`.
    clock: Unix time in seconds; the server's own is not asked.
    Raises `ConfigError` for settings that cannot work; the server is asked at first use.

    Each call is one statement and one round trip, in a transaction of its own, and works behind PgBouncer in
    transaction mode. A write that has returned survives a crash of the server, as far as its `synchronous_commit` says
    so. After a lost connection reads are tried once more; a write is not, since it may have landed, and raises
    `DriverUnavailable`.
    """

    # A renewal is a write, and a write waits for the disk.
    capabilities = Capabilities(create=True, swap=True, shared=True)

    def __init__(
        self,
        url: str = "postgresql://",
        *,
        table: str = "session_kit",
        schema: str | None = None,
        unlogged: bool = False,
        timeout: Duration = Duration(5.0),
        max_connections: int = 10,
        clock: Callable[[], float] = time.time,
        **options: Any,
    ) -> None:
        self._table = Table.named(table, schema, unlogged=unlogged)
        self._settings = Settings.parse(
            split_url(url)[0], timeout=timeout, max_connections=max_connections, options=options
        )
        self._statements = Statements(self._table, clock)
        self._pools = Pools(self._settings)
        self._writes = itertools.count()
        super().__init__(clock=clock)

    @classmethod
    def url_options(cls, url: SplitResult) -> Mapping[str, Parser]:
        return {**dict.fromkeys(client_options(), str), **super().url_options(url)}

    @classmethod
    def from_url(cls, url: SplitResult, **options: Any) -> Self:
        return cls(f"{url.scheme}://{url.netloc}{url.path}", **options)

    def __repr__(self) -> str:
        return f"PostgresDriver({self._settings}, table={self._table})"

    read, aread = _twins(_asking(Statements.read))
    get, aget = _twins(_asking(Statements.get))
    has, ahas = _twins(_asking(Statements.has))
    renew, arenew = _twins(_asking(Statements.renew))
    touch, atouch = _twins(_asking(Statements.touch))
    delete, adelete = _twins(_asking(Statements.delete))

    async def _set(
        self, pool: Pool, key: str, value: bytes, *, ttl: float | None = None, expect: object = ANY
    ) -> object:
        version = await self._ask(pool, self._statements.set(key, value, ttl=ttl, expect=expect))
        # The first too: a process that lives for a few requests alone would never come to the others.
        if next(self._writes) % WRITES_PER_PRUNE == 0:
            with contextlib.suppress(DriverUnavailable):  # what was asked for has been done
                await self._ask(pool, self._statements.prune())
        return version

    async def _get_many(self, pool: Pool, keys: Iterable[str]) -> dict[str, bytes]:
        names = checked(keys)
        return await self._ask(pool, self._statements.get_many(names)) if names else {}

    async def _set_many(self, pool: Pool, items: Mapping[str, bytes], *, ttl: float | None = None) -> None:
        for request in self._statements.set_many(items, ttl):
            await self._ask(pool, request)

    async def _delete_many(self, pool: Pool, keys: Iterable[str]) -> int:
        names = checked(keys)
        return await self._ask(pool, self._statements.delete_many(names)) if names else 0

    async def _clear(self, pool: Pool, prefix: str = "") -> int:
        count = 0
        async for page in self._pages(pool, prefix):
            count += await self._ask(pool, self._statements.delete_many(page))
        return count

    async def _prune(self, pool: Pool) -> int:
        count = 0
        while removed := await self._ask(pool, self._statements.prune()):
            count += removed
        return count

    set, aset = _twins(_set)
    get_many, aget_many = _twins(_get_many)
    set_many, aset_many = _twins(_set_many)
    delete_many, adelete_many = _twins(_delete_many)
    clear, aclear = _twins(_clear)
    prune, aprune = _twins(_prune)

    def keys(self, prefix: str = "") -> Iterator[str]:
        for page in iterate(self._pages(self._pools.blocking(), prefix)):
            for key in page:
                yield key.decode()

    async def akeys(self, prefix: str = "") -> AsyncIterator[str]:
        async for page in self._pages(self._pools.of_this_loop(), prefix):
            for key in page:
                yield key.decode()

    def close(self) -> None:
        super().close()
        self._pools.close()

    async def aclose(self) -> None:
        super().close()
        self._pools.close_of_this_loop()

    def after_fork(self) -> None:
        super().after_fork()
        self._pools.after_fork()
        self._writes = itertools.count()

    # --- statements and their failures ---

    async def _pages(self, pool: Pool, prefix: str) -> AsyncIterator[list[bytes]]:
        # A cursor would hold a connection and a transaction for as long as the caller takes, which keeps the server
        # from removing dead rows, and is lost when the server restarts.
        start, end = bounds(prefix)
        while page := await self._ask(pool, self._statements.page(start, end)):
            yield page
            start = page[-1] + b"\0"  # the least that is greater than this key

    async def _ask(self, pool: Pool, request: Request[R]) -> R:
        """Send a request, once more for each reason for which that does no harm, and read the answer."""
        reasons: set[str] = set()
        for _ in range(MOST_TRIES):
            try:
                return request.parse(await pool.run(request.statement))
            except Failure as caught:
                failure = caught
            if failure.code in CONTENDED:
                continue
            remedy = self._statements.remedies.get(failure.code)
            # Nothing was done, or doing it twice does no harm.
            safe = remedy is not None or failure.code == READ_ONLY or (request.repeatable and isinstance(failure, Lost))
            if not safe or failure.code in reasons:
                break
            reasons.add(failure.code)
            if remedy is not None:
                await self._ask(pool, remedy)
        raise unavailable(str(self._settings), str(self._table), failure)
