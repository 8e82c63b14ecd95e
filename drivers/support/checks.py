"""What every driver checks of what it is given, and what it raises if somebody else was faster."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from enum import Enum
from typing import Final

from session_kit.drivers.errors import ConfigError, Conflict

MAX_KEY_BYTES: Final = 512
MOST_CONNECTIONS: Final = 10_000  # each takes memory, and a descriptor of the 1,024 that a process usually has
LONGEST_TTL: Final = float("inf")
CHANGED: Final = "the entry is not what was expected: it was changed, created or deleted meanwhile"


class Expect(Enum):
    """The two special values of `expect=`; any other value is a version that a read returned."""

    ANY = "any"
    ABSENT = "absent"


ANY: Final = Expect.ANY
ABSENT: Final = Expect.ABSENT


def check_key(key: str) -> None:
    """Raise `ValueError` unless `key` is a non-empty string of at most 512 UTF-8 bytes.

    >>> check_key("sess:42")
    """
    if type(key) is str and key and len(key) <= MAX_KEY_BYTES and key.isascii():
        return
    if not isinstance(key, str):
        raise TypeError(f"a key must be a str, not {type(key).__name__}")
    size = len(key)
    if not key.isascii():
        try:
            size = len(key.encode())
        except UnicodeEncodeError:
            raise ValueError("a key must be valid Unicode; this one holds a lone surrogate") from None
    if not 0 < size <= MAX_KEY_BYTES:
        raise ValueError(f"a key must have 1 to {MAX_KEY_BYTES} UTF-8 bytes; this one has {size}")


def check_value(value: bytes) -> None:
    """Raise `TypeError` unless `value` is `bytes`."""
    if type(value) is not bytes:
        raise TypeError(f"a value must be bytes, not {type(value).__name__}")


def check_ttl(ttl: float | None) -> None:
    """Raise `ValueError` unless `ttl` is None or a number of seconds above zero.

    >>> check_ttl(0.5)
    >>> check_ttl(0)
    Traceback (most recent call last):
    ValueError: a ttl must be None or a finite number of seconds above 0, not 0
    """
    if ttl is None or (type(ttl) is float and 0.0 < ttl < LONGEST_TTL):
        return
    # `not ttl > 0` is also true of NaN; a bool is an int to Python, but never meant as a number of seconds.
    if type(ttl) is bool or not isinstance(ttl, (int, float)) or not ttl > 0 or ttl == LONGEST_TTL:
        raise ValueError(f"a ttl must be None or a finite number of seconds above 0, not {ttl!r}")


def check_expected(found: bool, version: object, expect: object) -> None:
    """Raise `Conflict` unless what is there is what `expect` asks for.

    found: whether there is a live entry; version: of which version.

    >>> check_expected(False, None, ABSENT)
    >>> check_expected(True, 7, 7)
    >>> check_expected(True, 8, 7)  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    session_kit.drivers.errors.Conflict: the entry is not what was expected...
    """
    if expect is ANY:
        return
    if found if expect is ABSENT else not found or version != expect:
        raise Conflict(CHANGED)


def check_client_alone(driver: type, options: Mapping[str, object]) -> None:
    """Raise `ConfigError` if an option is given beside a client of the application's own, to which it means nothing."""
    parameters = inspect.signature(driver).parameters
    for name, value in options.items():
        if value != parameters[name].default:
            raise ConfigError(
                f"{driver.__name__} takes a client or {name}, not both: a client that is given is used as it is"
            )


def check_connections(number: int, where: str) -> None:
    """Raise `ConfigError` unless 1 to 10,000 connections may be opened. where: begins the message."""
    if number < 1:
        raise ConfigError(f"{where}: max_connections must be at least 1, not {number}")
    if number > MOST_CONNECTIONS:
        raise ConfigError(f"{where}: max_connections must be at most {MOST_CONNECTIONS}, not {number}")
