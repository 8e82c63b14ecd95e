"""Options as people write them: `ttl=7d`, `size_limit=2GiB`, `tls=yes`, turned into the types that drivers ask for."""

from __future__ import annotations

import contextlib
import difflib
import inspect
import re
import types
import typing
from collections.abc import Callable, Iterable, Mapping
from datetime import timedelta
from typing import NewType

from session_kit.drivers.errors import ConfigError

Duration = NewType("Duration", float)
"""Seconds. In a URL also `500ms`, `30s`, `15m`, `12h`, `7d`, `2w`."""

Size = NewType("Size", int)
"""Bytes. In a URL also `64KB`, `1.5MiB`, `2GiB`."""

_SECONDS = {"ms": 0.001, "": 1, "s": 1, "m": 60, "h": 3600, "d": 86400, "w": 7 * 86400}
_BYTES = {"": 1, "b": 1} | {
    f"{letter}{suffix}": base**power
    for power, letter in enumerate("kmgt", start=1)
    for suffix, base in (("", 1024), ("ib", 1024), ("b", 1000))
}
_QUANTITY = re.compile(r"([0-9]+(?:\.[0-9]+)?)[\s+]*([a-z]*)", re.IGNORECASE)  # a form writes a blank as "+"


FROM_ELSEWHERE = {
    **dict.fromkeys(["max_age", "maxage", "lifetime", "expire", "expires", "expires_in", "expiry"], "ttl"),
    **dict.fromkeys(["key_prefix", "keyprefix", "namespace"], "prefix"),
    **dict.fromkeys(["serializer", "serialiser", "encoding"], "codec"),
}
"""What people who come from elsewhere call the options of a URL."""


def parse_duration(value: str | float | timedelta, *, zero: bool = False) -> Duration:
    """Return `value` in seconds: a number, a `timedelta`, or text such as `"90"`, `"500ms"`, `"15m"`, `"7d"`.

    Raises `ValueError` for anything else, and for durations that are not above zero. zero: 0 will do too.

    >>> parse_duration("7d")
    604800.0
    """
    if isinstance(value, timedelta):
        seconds = value.total_seconds()
    elif isinstance(value, str):
        seconds = _quantity(value, _SECONDS, "a duration like 30s, 15m, 12h or 7d")
    elif isinstance(value, bool) or not isinstance(value, (int, float)):
        raise ValueError(f"{value!r} is not a duration; give seconds, a timedelta, or text like 15m or 7d")
    else:
        seconds = float(value)
    if not (0 < seconds < float("inf") or (zero and seconds == 0)):
        raise ValueError(f"a duration must be above 0 and finite, not {value!r}")
    return Duration(seconds)


def parse_size(value: str) -> Size:
    """Return `value` in bytes: `"1024"`, `"64KB"` (thousands), `"2GiB"` or `"2G"` (powers of 1,024).

    Raises `ValueError` for anything else, and for sizes below one byte.

    >>> parse_size("1.5KiB")
    1536
    """
    size = _quantity(value, _BYTES, "a size like 64KB, 10MiB or 2GiB")
    if not 1 <= size < 2**63:
        raise ValueError(f"a size must be between 1 byte and 8 EiB, not {value!r}")
    return Size(int(size))


def _quantity(text: str, units: Mapping[str, float], what: str) -> float:
    match = _QUANTITY.fullmatch(text.strip())
    if match is None or match[2].lower() not in units:
        raise ValueError(f"{text!r} is not {what}")
    return float(match[1]) * units[match[2].lower()]


def _parse_bool(text: str) -> bool:
    try:
        return {
            "1": True,
            "true": True,
            "yes": True,
            "on": True,
            "0": False,
            "false": False,
            "no": False,
            "off": False,
        }[text.lower()]
    except KeyError:
        raise ValueError(f"{text!r} is neither yes nor no") from None


def _parse_int(text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise ValueError(f"{text!r} is not a whole number") from None


Parser = Callable[[str], object]

_PARSERS: dict[object, Parser] = {
    str: str,
    int: _parse_int,
    float: lambda text: _quantity(text, {"": 1}, "a number"),
    bool: _parse_bool,
    Duration: parse_duration,
    Size: parse_size,
}


def parser_for(hint: object) -> Parser | None:
    """Return what turns text into the type `hint`; None if text cannot give it."""
    return _PARSERS.get(_not_none(hint))


def options_of(cls: type) -> dict[str, Parser]:
    """Return the options that a URL may set for `cls`: its keyword-only parameters of a type that text can give."""
    init = cls.__init__  # type: ignore[misc]  # asked of the class, not of an instance
    names = getattr(init, "__globals__", {})
    found = {}
    for name, parameter in inspect.signature(init).parameters.items():
        if parameter.kind is not parameter.KEYWORD_ONLY:
            continue
        alone = types.SimpleNamespace(__annotations__={name: parameter.annotation})
        with contextlib.suppress(NameError):  # of what is imported for type checkers alone, text can give nothing
            if parser := parser_for(typing.get_type_hints(alone, names)[name]):
                found[name] = parser
    return found


def _not_none(hint: object) -> object:
    if typing.get_origin(hint) in (types.UnionType, typing.Union):
        members = [member for member in typing.get_args(hint) if member is not type(None)]
        return members[0] if len(members) == 1 else None
    return hint


def convert(
    texts: Iterable[tuple[str, str]], parsers: Mapping[str, Parser], *, where: str, also: Iterable[str] = ()
) -> dict[str, object]:
    """Check the query parameters `texts` against the options there are and return them typed, or raise `ConfigError`.

    where: begins each message. also: further names to list as valid ones.
    """
    options: dict[str, object] = {}
    for name, text in texts:
        if name not in parsers:
            raise unknown_option(name, [*parsers, *also], where)
        if name in options:
            raise ConfigError(f"{where}: the option {name!r} is given twice; keep one")
        try:
            options[name] = parsers[name](text)
        except ValueError as error:
            raise ConfigError(f"{where}: {name}: {error}") from None
    return options


def unknown_option(name: str, valid: Iterable[str], where: str = "", known: str | None = None) -> ConfigError:
    """The error for an option that does not exist, with the valid ones and the one probably meant.

    where: begins the message. known: what to write in its place, if the name is known from elsewhere.
    """
    names = sorted(valid)
    if known is None and FROM_ELSEWHERE.get(name) in names:
        known = repr(FROM_ELSEWHERE[name])
    meant = f"; did you mean {known}?" if known else guess(name, names)
    begin = f"{where}: " if where else ""
    return ConfigError(f"{begin}unknown option {name!r}{meant} Valid options: {', '.join(names) or 'none'}.")


def guess(name: str, names: Iterable[str], form: str = "{!r}") -> str:
    """How a message goes on that has named what does not exist: with the name that was probably meant, or a full stop.

    >>> guess("tll", ["prefix", "ttl"]), guess("zzz", ["prefix", "ttl"])
    ("; did you mean 'ttl'?", '.')
    """
    close = difflib.get_close_matches(name, list(names), n=1)
    return f"; did you mean {form.format(close[0])}?" if close else "."
