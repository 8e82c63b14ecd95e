"""What the driver asks a server, and how the answers are to be read: the same for blocking code and event loops."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final, Generic, NamedTuple, TypeVar

from redis.exceptions import NoScriptError, ResponseError

from session_kit.drivers.base import ABSENT, ANY, CHANGED, Entry, check_key, check_ttl, check_value
from session_kit.drivers.errors import Conflict
from session_kit.drivers.redis.protocol import Command

R = TypeVar("R")


class Request(NamedTuple, Generic[R]):
    """The commands of one call and what their answers mean. repeatable: doing them twice does no harm."""

    commands: list[Command]
    parse: Callable[[list[Any]], R]
    repeatable: bool = False


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


class Commands:
    """The request of each method of a driver. It learns what the server does not know.

    clock: Unix time in seconds; only used to tell when an entry expires.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._has_ifeq = True  # until a server says that it has not

    def read(self, key: str) -> Request[Entry | None]:
        check_key(key)

        def parse(answers: list[Any]) -> Entry | None:
            value, left = answers
            if value is None or left == -2:
                return None
            return Entry(value, value, None if left == -1 else self._clock() + left / 1000)

        return Request([("GET", key), ("PTTL", key)], parse, repeatable=True)

    def get(self, key: str) -> Request[bytes | None]:
        check_key(key)
        return Request([("GET", key)], _first, repeatable=True)

    def has(self, key: str) -> Request[bool]:
        check_key(key)
        return Request([("EXISTS", key)], _first_is_true, repeatable=True)

    def renew(self, key: str, ttl: float) -> Request[Entry | None]:
        check_key(key)
        check_ttl(ttl)
        expires_at = self._clock() + ttl

        def parse(answers: list[Any]) -> Entry | None:
            (value,) = answers
            return None if value is None else Entry(value, value, expires_at)

        return Request([("GETEX", key, "PX", _milliseconds(ttl))], parse, repeatable=True)

    def touch(self, key: str, ttl: float | None) -> Request[bool]:
        check_key(key)
        check_ttl(ttl)
        if ttl is not None:
            return Request([("PEXPIRE", key, _milliseconds(ttl))], _first_is_true, repeatable=True)
        # PERSIST alone does not tell a key without expiry from no key.
        return Request([("EXISTS", key), ("PERSIST", key)], _first_is_true, repeatable=True)

    def set(self, key: str, value: bytes, *, ttl: float | None = None, expect: object = ANY) -> Request[object]:
        command = _set(key, value, ttl)
        if expect is ABSENT:
            command = (*command, "NX")
        elif expect is not ANY:
            version = _version(expect)
            command = (*command, "IFEQ", version) if self._has_ifeq else _scripted(command, version)

        def parse(answers: list[Any]) -> object:
            if not answers[0]:
                raise Conflict(CHANGED)
            return value

        return Request([command], parse)

    def delete(self, key: str, *, expect: object = ANY) -> Request[bool]:
        check_key(key)
        if expect is ANY:
            return Request([("UNLINK", key)], _first_is_true)

        def parse(answers: list[Any]) -> bool:
            if bool(answers[0]) == (expect is ABSENT):
                raise Conflict(CHANGED)
            return expect is not ABSENT

        command: Command = ("EXISTS", key) if expect is ABSENT else ("EVALSHA", DROP_SHA, 1, key, _version(expect))
        return Request([command], parse)

    def get_many(self, keys: Iterable[str]) -> Request[dict[str, bytes]]:
        names = list(keys)

        def parse(answers: list[Any]) -> dict[str, bytes]:
            return {key: value for key, value in zip(names, answers, strict=True) if value is not None}

        return Request([self.get(key).commands[0] for key in names], parse, repeatable=True)

    def set_many(self, items: Mapping[str, bytes], *, ttl: float | None = None) -> Request[None]:
        check_ttl(ttl)
        return Request([_set(key, value, ttl) for key, value in items.items()], lambda answers: None)

    def delete_many(self, keys: Iterable[str]) -> Request[int]:
        return Request([self.delete(key).commands[0] for key in keys], sum)

    def in_other_words(self, command: Command, error: ResponseError) -> Command | None:
        """The same for a server that did not understand it; None if that is not what is wrong."""
        if isinstance(error, NoScriptError):
            _, sha, *rest = command
            return ("EVAL", SCRIPTS[sha], *rest)
        # The type first: in this place may be a value, and `python -bb` raises where bytes are compared with text.
        if isinstance(command[-2], str) and command[-2] == "IFEQ" and "syntax" in str(error):
            self._has_ifeq = False
            return _scripted(command[:-2], command[-1])
        return None


def _set(key: str, value: bytes, ttl: float | None) -> Command:
    check_key(key)
    check_value(value)
    check_ttl(ttl)
    return ("SET", key, value) if ttl is None else ("SET", key, value, "PX", _milliseconds(ttl))


def _scripted(command: Command, version: bytes) -> Command:
    """A `SET` that only replaces what has this version, as a script."""
    _, key, value, *expiry = command
    return ("EVALSHA", SWAP_SHA, 1, key, version, value, *expiry[1:2])


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
