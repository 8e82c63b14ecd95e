"""Entries in Redis or Valkey: plain strings with native expiry, that any other client can read."""

from __future__ import annotations

import functools
import hashlib
import re
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, Concatenate, Final, ParamSpec, TypeVar
from urllib.parse import SplitResult, urlsplit

from redis.exceptions import NoScriptError, ResponseError

from session_kit.drivers.base import (
    ABSENT,
    ANY,
    Capabilities,
    Driver,
    Entry,
    check_key,
    check_ttl,
    check_value,
)
from session_kit.drivers.errors import Conflict, CorruptEntry
from session_kit.drivers.redis_cluster import Cluster
from session_kit.drivers.redis_endpoint import Endpoint
from session_kit.drivers.redis_findings import server_findings
from session_kit.drivers.redis_links import Command, GivenClient, Link, Wire, unavailable
from session_kit.drivers.support.findings import Finding
from session_kit.drivers.support.options import Duration

if TYPE_CHECKING:
    from typing import Self

P = ParamSpec("P")
R = TypeVar("R")

CHANGED: Final = "the entry is not what was expected: it was changed, created or deleted meanwhile"

# The longest expiry, in milliseconds, that every server takes: some thirty thousand years.
LONGEST: Final = 10**15

# Compare and set, for servers whose SET has no IFEQ: Valkey has it from 8.1 on, Redis from 8.4. The version is the
# value itself, so that what is stored stays bare.
SWAP: Final = """
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
if ARGV[3] then redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[3]) else redis.call('SET', KEYS[1], ARGV[2]) end
return 1
"""
DROP: Final = """
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
return redis.call('DEL', KEYS[1])
"""
SCRIPTS: Final = {hashlib.sha1(text.encode()).hexdigest(): text for text in (SWAP, DROP)}  # noqa: S324  # Redis's name for a script
SWAP_SHA, DROP_SHA = SCRIPTS


Plan = tuple[list[Command], Callable[[list[Any]], R], bool]
"""What to ask the server, what its answers mean, and whether asking twice does no harm: the same for both colours."""


def _twins(
    plan: Callable[Concatenate[RedisDriver, P], Plan[R]],
) -> tuple[Callable[Concatenate[RedisDriver, P], R], Callable[Concatenate[RedisDriver, P], Coroutine[Any, Any, R]]]:
    """Make the blocking method and its async twin from one plan."""

    @functools.wraps(plan)
    def method(self: RedisDriver, /, *args: P.args, **kwargs: P.kwargs) -> R:
        return self._do(*plan(self, *args, **kwargs))

    @functools.wraps(plan)
    def twin(self: RedisDriver, /, *args: P.args, **kwargs: P.kwargs) -> Coroutine[Any, Any, R]:
        return self._ado(*plan(self, *args, **kwargs))

    return method, twin


def _read(self: RedisDriver, key: str) -> Plan[Entry | None]:
    check_key(key)

    def meaning(answers: list[Any]) -> Entry | None:
        value, left = answers
        if value is None or left == -2:
            return None
        return Entry(value, value, None if left == -1 else self.clock() + left / 1000)

    return [("GET", key), ("PTTL", key)], meaning, True


def _get(self: RedisDriver, key: str) -> Plan[bytes | None]:
    check_key(key)
    return [("GET", key)], _first, True


def _has(self: RedisDriver, key: str) -> Plan[bool]:
    check_key(key)
    return [("EXISTS", key)], _first_is_true, True


def _renew(self: RedisDriver, key: str, ttl: float) -> Plan[Entry | None]:
    check_key(key)
    expires_at = self.expires_at(ttl)

    def meaning(answers: list[Any]) -> Entry | None:
        (value,) = answers
        return None if value is None else Entry(value, value, expires_at)

    return [("GETEX", key, "PX", _milliseconds(ttl))], meaning, True


def _touch(self: RedisDriver, key: str, ttl: float | None) -> Plan[bool]:
    check_key(key)
    check_ttl(ttl)
    if ttl is not None:
        return [("PEXPIRE", key, _milliseconds(ttl))], _first_is_true, True
    # PERSIST alone does not tell a key without expiry from no key.
    return [("EXISTS", key), ("PERSIST", key)], _first_is_true, True


def _set(self: RedisDriver, key: str, value: bytes, *, ttl: float | None = None, expect: object = ANY) -> Plan[object]:
    command = _setting(key, value, ttl)
    if expect is ABSENT:
        command = (*command, "NX")
    elif expect is not ANY:
        version = _version(expect)
        command = (*command, "IFEQ", version) if self._has_ifeq else _scripted(command, version)

    def meaning(answers: list[Any]) -> object:
        if not answers[0]:
            raise Conflict(CHANGED)
        return value

    return [command], meaning, False


def _delete(self: RedisDriver, key: str, *, expect: object = ANY) -> Plan[bool]:
    check_key(key)
    if expect is ANY:
        return [("UNLINK", key)], _first_is_true, False

    def meaning(answers: list[Any]) -> bool:
        if bool(answers[0]) == (expect is ABSENT):
            raise Conflict(CHANGED)
        return expect is not ABSENT

    command: Command = ("EXISTS", key) if expect is ABSENT else ("EVALSHA", DROP_SHA, 1, key, _version(expect))
    return [command], meaning, False


def _get_many(self: RedisDriver, keys: Iterable[str]) -> Plan[dict[str, bytes]]:
    names = list(keys)

    def meaning(answers: list[Any]) -> dict[str, bytes]:
        return {key: value for key, value in zip(names, answers, strict=True) if value is not None}

    return [_get(self, key)[0][0] for key in names], meaning, True


def _set_many(self: RedisDriver, items: Mapping[str, bytes], *, ttl: float | None = None) -> Plan[None]:
    check_ttl(ttl)
    return [_setting(key, value, ttl) for key, value in items.items()], lambda answers: None, False


def _delete_many(self: RedisDriver, keys: Iterable[str]) -> Plan[int]:
    return [_delete(self, key)[0][0] for key in keys], sum, False


def _setting(key: str, value: bytes, ttl: float | None) -> Command:
    check_key(key)
    check_value(value)
    check_ttl(ttl)
    return ("SET", key, value) if ttl is None else ("SET", key, value, "PX", _milliseconds(ttl))


def _first(answers: list[Any]) -> Any:
    return answers[0]


def _first_is_true(answers: list[Any]) -> bool:
    return bool(answers[0])


def _milliseconds(ttl: float) -> int:
    milliseconds = round(ttl * 1000)
    if 0 < milliseconds < LONGEST:
        return milliseconds
    return LONGEST if milliseconds else 1


def _version(expect: object) -> bytes:
    if type(expect) is not bytes:
        raise Conflict(CHANGED)
    return expect


def _scripted(command: Command, version: bytes) -> Command:
    """A `SET` that only replaces what has this version, as a script."""
    _, key, value, *expiry = command
    return ("EVALSHA", SWAP_SHA, 1, key, version, value, *expiry[1:2])


class RedisDriver(Driver):
    """Redis from 6.2 on, and Valkey: one server, Sentinel or a cluster.

    url: `redis://user:password@host:6379/0`; `rediss://` with TLS; `valkey://`, `valkeys://`; `unix:///path?db=0`;
        `redis+cluster://host1,host2`; `redis+sentinel://host1,host2/service?db=0` (with TLS `rediss+cluster://` ...).
    client: a redis-py client that you made, in place of a URL; it is never closed here. With a blocking one, async
        calls run in threads; with an asyncio one, only async calls work, in the event loop that it belongs to.
    db: number of the database, where the URL has none in its path. Default 0.
    timeout: seconds, for connecting and for each answer. Default 5.
    max_connections: blocking calls under way at a time; each event loop has one connection more. Default 64.
    ssl_ca_certs, ssl_certfile, ssl_keyfile: paths of PEM files: the authority to trust, our certificate and its key.
    ssl_cert_reqs: `required` (default), `optional` or `none`. ssl_check_hostname: default yes.
    sentinel_username, sentinel_password: for the Sentinels themselves, where they ask for one.
    clock: Unix time in seconds; only used to tell when an entry expires.

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
        super().__init__(clock=clock)
        self._has_ifeq = True  # until a server says that it has not
        if client is not None:
            self._link: Link = GivenClient(client)
            self._hosts, self._encrypted = [], False
            return
        tls = {
            "ssl_ca_certs": ssl_ca_certs,
            "ssl_certfile": ssl_certfile,
            "ssl_keyfile": ssl_keyfile,
            "ssl_cert_reqs": ssl_cert_reqs,
            "ssl_check_hostname": ssl_check_hostname,
        }
        endpoint = Endpoint.parse(
            urlsplit(url),
            db=db,
            timeout=timeout,
            max_connections=max_connections,
            tls={name: value for name, value in tls.items() if value is not None},
            sentinel_username=sentinel_username,
            sentinel_password=sentinel_password,
        )
        self._hosts, self._encrypted = [host for host, _ in endpoint.hosts], "ssl" in endpoint.settings
        self._link = Cluster(endpoint) if endpoint.kind == "cluster" else Wire(endpoint)

    @classmethod
    def from_url(cls, url: SplitResult, **options: Any) -> Self:
        return cls(url._replace(query="").geturl(), **options)

    def __repr__(self) -> str:
        return f"RedisDriver({self._link})"

    read, aread = _twins(_read)
    get, aget = _twins(_get)
    has, ahas = _twins(_has)
    renew, arenew = _twins(_renew)
    touch, atouch = _twins(_touch)
    set, aset = _twins(_set)
    delete, adelete = _twins(_delete)
    get_many, aget_many = _twins(_get_many)
    set_many, aset_many = _twins(_set_many)
    delete_many, adelete_many = _twins(_delete_many)

    def keys(self, prefix: str = "") -> Iterator[str]:
        new = _OnlyNew(prefix)
        for name in self._link.scan(new.pattern):
            if (key := new.key(name)) is not None:
                yield key

    async def akeys(self, prefix: str = "") -> AsyncIterator[str]:
        if not self._link.asynchronous:
            async for key in super().akeys(prefix):
                yield key
            return
        new = _OnlyNew(prefix)
        async for name in self._link.ascan(new.pattern):
            if (found := new.key(name)) is not None:
                yield found

    def examine(self) -> Iterator[Finding]:
        return server_findings(self._link.run, self._hosts, self._encrypted)

    def close(self) -> None:
        super().close()
        self._link.close()

    async def aclose(self) -> None:
        super().close()
        await self._link.aclose()

    def after_fork(self) -> None:
        super().after_fork()
        self._link.after_fork()

    def _do(self, commands: list[Command], meaning: Callable[[list[Any]], R], repeatable: bool) -> R:
        if not commands:
            return meaning([])
        answers = self._link.run(commands, repeatable)
        while isinstance(answers[0], ResponseError) and (others := self._in_other_words(commands[0], answers[0])):
            answers, commands = self._link.run(others), others
        for answer in answers:
            if isinstance(answer, Exception):
                raise self._refusal(answer)
        return meaning(answers)

    async def _ado(self, commands: list[Command], meaning: Callable[[list[Any]], R], repeatable: bool) -> R:
        link = self._link
        if not link.asynchronous:
            return await self._in_thread(self._do, commands, meaning, repeatable)
        if not commands:
            return meaning([])
        answers = await link.arun(commands, repeatable)
        while isinstance(answers[0], ResponseError) and (others := self._in_other_words(commands[0], answers[0])):
            answers, commands = await link.arun(others), others
        for answer in answers:
            if isinstance(answer, Exception):
                raise self._refusal(answer)
        return meaning(answers)

    def _in_other_words(self, command: Command, error: ResponseError) -> list[Command]:
        """The same for a server that did not understand it; nothing if that is not what is wrong."""
        if isinstance(error, NoScriptError):
            _, sha, *rest = command
            return [("EVAL", SCRIPTS[sha], *rest)]
        if command[-2] == "IFEQ" and "syntax" in str(error):
            self._has_ifeq = False
            return [_scripted(command[:-2], command[-1])]
        return []

    def _refusal(self, answer: Exception) -> Exception:
        """What to raise for an answer that is an error."""
        if "WRONGTYPE" in str(answer):
            return CorruptEntry(f"{self._link}: the key holds no string; another program wrote it")
        return unavailable(str(self._link), answer)


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
