"""Entries in Redis or Valkey: plain strings with native expiry, that any other client can read."""

from __future__ import annotations

import functools
import re
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, TypeVar
from urllib.parse import SplitResult

from redis.exceptions import ResponseError

from session_kit.drivers.base import Capabilities, Driver
from session_kit.drivers.errors import CorruptEntry
from session_kit.drivers.redis.cluster import Cluster
from session_kit.drivers.redis.commands import Commands, Request
from session_kit.drivers.redis.errors import text, unavailable
from session_kit.drivers.redis.findings import server_findings
from session_kit.drivers.redis.given import GivenClient
from session_kit.drivers.redis.protocol import Command
from session_kit.drivers.redis.server import Server
from session_kit.drivers.redis.settings import Settings
from session_kit.drivers.redis.transport import Transport
from session_kit.drivers.registry import split_url
from session_kit.drivers.support.checks import check_client_alone
from session_kit.drivers.support.findings import Finding
from session_kit.drivers.support.options import Duration

if TYPE_CHECKING:
    from typing import Self

P = ParamSpec("P")
R = TypeVar("R")


def _twins(
    request: Callable[Concatenate[Commands, P], Request[R]],
) -> tuple[Callable[Concatenate[RedisDriver, P], R], Callable[Concatenate[RedisDriver, P], Coroutine[Any, Any, R]]]:
    """Make the blocking method and its async twin from one request."""

    @functools.wraps(request)
    def method(self: RedisDriver, /, *args: P.args, **kwargs: P.kwargs) -> R:
        return self._do(request(self._commands, *args, **kwargs))

    @functools.wraps(request)
    def twin(self: RedisDriver, /, *args: P.args, **kwargs: P.kwargs) -> Coroutine[Any, Any, R]:
        return self._ado(request(self._commands, *args, **kwargs))

    return method, twin


class RedisDriver(Driver):
    """Redis from 6.2 on, and Valkey: one server, Sentinel or a cluster.

    url: `redis://user:password@host:6379/0`; `rediss://` with TLS; `valkey://`, `valkeys://`; `unix:///path?db=0`;
        `redis+cluster://host1,host2`; `redis+sentinel://host1,host2/service?db=0` (with TLS `rediss+cluster://` ...).
    client: a redis-py client that you made, in place of all else but `clock`; it is never closed here. With a blocking
        one, async calls run in threads; with an asyncio one, only async calls work, in the loop that it belongs to.
    db: number of the database, where the URL has none in its path. Default 0.
    timeout: seconds, for connecting (Sentinels share it), for a free connection and for the answer. Default 5.
    max_connections: blocking calls under way at a time; each event loop has one connection more. Default 64.
    ssl_ca_certs, ssl_certfile, ssl_keyfile: paths of PEM files: an authority to trust too, our certificate and its key.
    ssl_cert_reqs: `required` (default), `optional` or `none`. ssl_check_hostname: default yes.
    sentinel_username, sentinel_password: for the Sentinels themselves, where they ask for one.
    clock: Unix time in seconds; only used to tell when an entry expires.
    Raises `ConfigError` for what cannot work, or would do nothing; the server is asked at first use.

    Each call is one round trip. In asyncio, calls made in the same turn of the event loop leave together on one
    connection. After a lost connection reads are tried once more; a write is not, since it may have landed, and raises
    `DriverUnavailable`. Values are the bare bytes, and a version is the value itself: a write that expects a version
    succeeds if the value is the one that was read.
    """

    capabilities = Capabilities(native_ttl=True, renew=True, create=True, swap=True, shared=True)

    def __init__(
        self,
        url: str = "redis://localhost:6379/0",
        *,
        client: Any = None,
        db: int | None = None,
        timeout: Duration = Duration(5.0),
        max_connections: int = 64,
        ssl_ca_certs: str | None = None,
        ssl_certfile: str | None = None,
        ssl_keyfile: str | None = None,
        ssl_cert_reqs: str | None = None,
        ssl_check_hostname: bool | None = None,
        sentinel_username: str | None = None,
        sentinel_password: str | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._commands = Commands(clock)
        tls = {
            "ssl_ca_certs": ssl_ca_certs,
            "ssl_certfile": ssl_certfile,
            "ssl_keyfile": ssl_keyfile,
            "ssl_cert_reqs": ssl_cert_reqs,
            "ssl_check_hostname": ssl_check_hostname,
        }
        sentinel = {"sentinel_username": sentinel_username, "sentinel_password": sentinel_password}
        if client is not None:
            rest = {"url": url, "db": db, "timeout": timeout, "max_connections": max_connections}
            check_client_alone(RedisDriver, {**rest, **tls, **sentinel})
            self._transport: Transport = GivenClient(client)
            self._hosts, self._encrypted = list[str](), False
        else:
            settings = Settings.parse(
                split_url(url)[0],
                db=db,
                timeout=timeout,
                max_connections=max_connections,
                tls={name: value for name, value in tls.items() if value is not None},
                **sentinel,
            )
            self._hosts, self._encrypted = [host for host, _ in settings.hosts], settings.secure
            self._transport = Cluster(settings) if settings.kind == "cluster" else Server(settings)
        super().__init__(clock=clock)

    @classmethod
    def from_url(cls, url: SplitResult, **options: Any) -> Self:
        return cls(f"{url.scheme}://{url.netloc}{url.path}", **options)

    def __repr__(self) -> str:
        return f"RedisDriver({self._transport})"

    read, aread = _twins(Commands.read)
    get, aget = _twins(Commands.get)
    has, ahas = _twins(Commands.has)
    renew, arenew = _twins(Commands.renew)
    touch, atouch = _twins(Commands.touch)
    set, aset = _twins(Commands.set)
    delete, adelete = _twins(Commands.delete)
    get_many, aget_many = _twins(Commands.get_many)
    set_many, aset_many = _twins(Commands.set_many)
    delete_many, adelete_many = _twins(Commands.delete_many)

    def keys(self, prefix: str = "") -> Iterator[str]:
        new = _OnlyNew(prefix)
        for name in self._transport.scan(new.pattern):
            if (key := new.key(name)) is not None:
                yield key

    async def akeys(self, prefix: str = "") -> AsyncIterator[str]:
        if not self._transport.asynchronous:
            async for key in super().akeys(prefix):
                yield key
            return
        new = _OnlyNew(prefix)
        async for name in self._transport.ascan(new.pattern):
            if (found := new.key(name)) is not None:
                yield found

    def examine(self) -> Iterator[Finding]:
        alone = isinstance(self._transport, Server)
        return server_findings(self._transport.run, self._hosts, self._encrypted, alone)

    def close(self) -> None:
        super().close()
        self._transport.close()

    async def aclose(self) -> None:
        super().close()
        await self._transport.aclose()

    def after_fork(self) -> None:
        super().after_fork()
        self._transport.after_fork()

    def _do(self, request: Request[R]) -> R:
        commands, parse, repeatable = request
        answers = self._transport.run(commands, repeatable) if commands else []
        while (error := _refusal(answers)) is not None:
            commands = self._again(commands, error)
            answers = self._transport.run(commands)
        return parse(answers)

    async def _ado(self, request: Request[R]) -> R:
        transport = self._transport
        if not transport.asynchronous:
            return await self._in_thread(self._do, request)
        commands, parse, repeatable = request
        answers = await transport.arun(commands, repeatable) if commands else []
        while (error := _refusal(answers)) is not None:
            commands = self._again(commands, error)
            answers = await transport.arun(commands)
        return parse(answers)

    def _again(self, commands: list[Command], error: ResponseError) -> list[Command]:
        """What to send in place of what the server did not understand; raises if it has refused it."""
        others = self._commands.in_other_words(commands[0], error) if len(commands) == 1 else None
        if others is not None:
            return [others]
        if text(error).startswith("WRONGTYPE"):
            raise CorruptEntry(f"{self._transport}: the key holds no string; another program wrote it")
        raise unavailable(str(self._transport), error)


def _refusal(answers: list[Any]) -> ResponseError | None:
    for answer in answers:
        if isinstance(answer, ResponseError):
            return answer
    return None


class _OnlyNew:
    """The keys of a scan, each once: a server that resizes its table meanwhile may name one twice."""

    def __init__(self, prefix: str) -> None:
        self._prefix = prefix
        self._seen: set[bytes] = set()
        # Everything that means something in a pattern is to be taken literally.
        self.pattern = re.sub(rb"([*?\[\]\\^-])", rb"\\\1", prefix.encode()) + b"*"

    def key(self, name: bytes) -> str | None:
        if name in self._seen:
            return None
        self._seen.add(name)
        try:
            return name.decode()
        except UnicodeDecodeError:  # of another program
            return None
