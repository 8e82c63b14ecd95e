"""JSON that any language can read, decoded one top-level value at a time."""

from __future__ import annotations

import json
from base64 import b64decode, b64encode
from collections.abc import Callable
from contextlib import suppress
from dataclasses import fields, is_dataclass
from datetime import UTC, date, datetime, time
from decimal import Decimal
from email.utils import parsedate_to_datetime
from typing import Any, Final, TypeVar, cast
from uuid import UUID

import msgspec
from msgspec import Raw

from session_kit.codec.base import IMMUTABLE, NO_FORM, SCALARS, FormatCodec, goes_by_items
from session_kit.codec.foreign import is_foreign, recode
from session_kit.codec.format import JSON, MAX_DEPTH, too_deep
from session_kit.errors import CorruptEntry, SessionError

T = TypeVar("T")


class JSONCodec(FormatCodec):
    """`"json"`: JSON by msgspec.

    A value that JSON would turn into something else (a datetime into text, a tuple into a list, 1 as a key into "1") is
    refused when it is put in, not discovered when it is read.

    >>> codec = JSONCodec()
    >>> codec.pack({"cart": codec.dump([1, 2], "cart")})
    b'{"cart":[1,2]}'
    >>> codec.dump({"at": {1}}, "cart")
    Traceback (most recent call last):
    session_kit.errors.SessionError: cart.at: a set cannot be stored as JSON without changing it; convert it first
    """

    format = JSON

    def unpack(self, data: bytes, key: str = "") -> dict[str, Raw]:
        try:
            # msgspec looks into a text only when it decodes it; bytes that are no UTF-8 must be found here.
            if not data.isascii():
                data.decode()
            return self._split(data)
        except (ValueError, msgspec.MsgspecError) as error:
            if not is_foreign(data):
                raise CorruptEntry(f"the stored record is not a JSON object: {type(error).__name__}") from None
        return recode(data, self.dump)

    def _misfit(self, raw: Raw, type: type[T], error: Exception) -> T:
        # All that `unpack` lets through is well-formed; msgspec only minds a number like 1e999.
        return cast(T, json.loads(bytes(raw))) if type is object else super()._misfit(raw, type, error)


class LenientJSONCodec(JSONCodec):
    """`"json-lenient"`: converts what has no form in JSON, as the serializers of Flask and Django do.

    Tuples and sets become lists, dates and times ISO 8601, decimals and UUIDs text, bytes base64, dataclasses objects,
    subclasses of `str`, `int` and `float` plain ones, numbers as keys text, and a form with several values of a name
    what its `items` say: one value of each. It happens when the data are written:
    another request sees what JSON made of a value, this one what it put in. What has no usual form is refused as by
    `JSONCodec`, and so are keys of which two would become one.

    >>> codec = LenientJSONCodec()
    >>> bytes(codec.dump({"at": date(2026, 1, 31), 1: (Decimal("9.90"),)}, "cart"))
    b'{"at":"2026-01-31","1":["9.90"]}'
    """

    def dump(self, value: object, where: str) -> Raw:
        error = None
        try:
            raw = super().dump(value, where)
            if not goes_by_items(value):
                return raw
        except SessionError as refused:
            error = refused
        try:
            converted = self._convert(value)
        except RecursionError:
            raise error or SessionError(too_deep(where)) from None
        return super().dump(converted, where)

    def _convert(self, value: Any, depth: int = 0) -> Any:
        """The value in JSON's own types, as far as there is a form for it."""
        if type(value) in IMMUTABLE:
            return value
        if depth > MAX_DEPTH:
            raise RecursionError
        if isinstance(value, dict):
            converted = {_text_of(key): self._convert(item, depth + 1) for key, item in value.items()}
            return converted if len(converted) == len(value) else value  # refused: two keys would become one
        if is_dataclass(value) and not isinstance(value, type):
            return self._convert({field.name: getattr(value, field.name) for field in fields(value)}, depth)
        if isinstance(value, (list, tuple, set, frozenset)):
            return [self._convert(item, depth + 1) for item in value]
        for kind, write in _WRITERS.items():
            if isinstance(value, kind):
                return write(value)
        return value


class TaggedJSONCodec(LenientJSONCodec):
    """`"json-tagged"`: Flask's tagged JSON, from which tuples, bytes, UUIDs, datetimes and `Markup` come back.

    They are stored as objects with one key, a tag of Flask's: `{" t": [1, 2]}` for a tuple. Like Flask's, a datetime
    comes back in UTC, and one without a time zone is taken for UTC; unlike Flask's it keeps its microseconds, as
    ISO 8601. All else is converted as by `LenientJSONCodec`.

    >>> codec = TaggedJSONCodec()
    >>> raw = codec.dump({"size": (3, 4)}, "cart")
    >>> bytes(raw), codec.load(raw, object)
    (b'{"size":{" t":[3,4]}}', {'size': (3, 4)})
    """

    def dump(self, value: object, where: str) -> Raw:
        try:
            raw = JSONCodec.dump(self, value, where)
            if type(value) in SCALARS or not (_may_be_tagged(raw) or goes_by_items(value)):
                return raw
        except SessionError:
            pass
        try:
            return JSONCodec.dump(self, self._convert(value), where)
        except (SessionError, RecursionError):
            LenientJSONCodec().dump(value, where)  # says where it lies without the tags
            raise SessionError(too_deep(where)) from None

    def same(self, value: object, raw: Raw) -> bool:
        if not _may_be_tagged(raw):
            try:
                data = self._encode(value)
                if self._decode(data) == value:
                    return data == bytes(raw)  # nothing in it has a tag or had one: the quick way
            except NO_FORM:
                pass
        try:
            return super().same(self._convert(value), raw)
        except RecursionError:
            return False

    def load(self, raw: Raw, type: type[T]) -> T:
        value = super().load(raw, type)
        return _restore(value) if type is object and _may_be_tagged(raw) else value

    def _convert(self, value: Any, depth: int = 0) -> Any:
        if isinstance(value, tuple):
            return {" t": super()._convert(value, depth + 1)}
        if isinstance(value, dict) and len(value) == 1:
            (key,) = value
            if key in _TAGS:  # the application's own: Flask marks it so
                return {" di": {f"{key}__": self._convert(value[key], depth + 2)}}
        for kind, (tag, write) in _TAGGED.items():
            if isinstance(value, kind):
                return {tag: write(value)}
        if type(value) not in IMMUTABLE and callable(getattr(value, "__html__", None)):
            return {" m": str(value.__html__())}
        return super()._convert(value, depth)


def _text_of(key: Any) -> Any:
    """A key as `json.dumps` writes it."""
    if isinstance(key, str):
        return str.__str__(key)
    if key is None or isinstance(key, (bool, int, float)):
        with suppress(ValueError):  # of more digits than Python writes
            return json.dumps(key)
    return key


def _in_utc(at: datetime) -> str:
    return (at if at.tzinfo else at.replace(tzinfo=UTC)).astimezone(UTC).isoformat()


_TAGGED: Final[dict[type, tuple[str, Callable[[Any], str]]]] = {
    bytes: (" b", lambda value: b64encode(value).decode()),
    UUID: (" u", lambda value: value.hex),
    datetime: (" d", _in_utc),
}
"""What has a tag besides tuples, dicts that look like one, and `Markup`."""

# The first that fits counts.
_WRITERS: Final[dict[type, Callable[[Any], object]]] = {
    str: str.__str__,
    bool: bool,
    int: int,
    float: float,
    bytes: lambda value: b64encode(value).decode(),
    date: lambda value: value.isoformat(),
    time: lambda value: value.isoformat(),
    Decimal: str,
    UUID: str,
}


def _list_of(value: Any) -> list[Any]:
    if not isinstance(value, list):
        raise TypeError
    return value


def _read_datetime(text: str) -> datetime:
    try:
        return datetime.fromisoformat(text)
    except ValueError:
        return parsedate_to_datetime(text)  # as Flask writes it


def read_markup(text: Any) -> Any:
    """Safe HTML that was stored: `Markup` where markupsafe is installed, else text."""
    try:
        from markupsafe import Markup
    except ImportError:
        return text
    return Markup(text)  # noqa: S704  # it was, when it was stored


def _read_own(value: Any) -> Any:
    ((key, item),) = value.items()
    return {key.removesuffix("__"): item}


_TAGS: Final[dict[str, Callable[[Any], Any]]] = {
    " di": _read_own,
    " t": lambda value: tuple(_list_of(value)),
    " b": b64decode,
    " m": read_markup,
    " u": UUID,
    " d": _read_datetime,
}
"""What a value under a tag is read by."""


def _may_be_tagged(raw: Raw) -> bool:
    return b'" ' in bytes(raw)


def _restore(value: Any) -> Any:
    """What the tags in a value stand for; what is no tag's is left as it is."""
    if isinstance(value, list):
        return [_restore(item) for item in value]
    if not isinstance(value, dict):
        return value
    value = {key: _restore(item) for key, item in value.items()}
    if len(value) == 1:
        ((key, item),) = value.items()
        if key in _TAGS:
            with suppress(TypeError, ValueError, AttributeError):
                return _TAGS[key](item)
    return value
