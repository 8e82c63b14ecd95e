"""How session data becomes bytes: JSON that any language can read, decoded one top-level value at a time."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any, Protocol, TypeVar, cast

import msgspec
from msgspec import Raw

from session_kit.errors import CorruptEntry, SessionError

T = TypeVar("T")

MAX_DEPTH = 100
"""So deep may a value be nested; a reader whose stack is nearly full already must be able to read it too."""

SHALLOW = 2 * MAX_DEPTH
"""What has no more bytes is not nested deeper."""

_ONE_KIND = bytes.maketrans(b"{}", b"[]")
_NO_MARKS = bytes(byte for byte in range(256) if byte not in b'{}[]"')


class Codec(Protocol):
    """What a store needs of an encoding. A record is a mapping whose values stay encoded (`Raw`) until asked for."""

    def pack(self, fields: Mapping[str, Raw]) -> bytes:
        """Make a record of encoded values."""

    def unpack(self, data: bytes) -> dict[str, Raw]:
        """Split a record into its encoded values. `CorruptEntry` if it is not one.

        A `RecursionError` passes: it tells of how deep the caller's stack is, and nothing certain of the record.
        """

    def dump(self, value: object, where: str) -> Raw:
        """Encode one value.

        `SessionError`, naming `where`, if decoding it would not give back an equal value, or it is nested too deep.
        """

    def same(self, value: object, raw: Raw) -> bool:
        """Whether `raw` is exactly what `value` is encoded as; quicker than `dump`, and never an error."""

    def encode(self, value: msgspec.Struct) -> Raw:
        """Encode a value of the library's own, which `load` gives back by its type."""

    def load(self, raw: Raw, type: type[T]) -> T:
        """Decode one value. `CorruptEntry` if it does not fit `type`."""


class JSONCodec:
    """JSON by msgspec.

    A value that JSON would turn into something else (a datetime into text, a tuple into a list, 1 as a key into "1") is
    refused when it is put in, not discovered when it is read.

    >>> codec = JSONCodec()
    >>> codec.pack({"cart": codec.dump([1, 2], "cart")})
    b'{"cart":[1,2]}'
    >>> codec.dump({"at": {1}}, "cart")
    Traceback (most recent call last):
    session_kit.errors.SessionError: cart.at: a set cannot be stored as JSON without changing it; convert it first
    """

    def __init__(self) -> None:
        self._encode = msgspec.json.Encoder().encode
        self._decode = msgspec.json.Decoder().decode
        self._decoders: dict[object, Callable[[Raw], Any]] = {object: self._decode}
        self._split = msgspec.json.Decoder(dict[str, Raw]).decode

    def pack(self, fields: Mapping[str, Raw]) -> bytes:
        return self._encode(fields)

    def unpack(self, data: bytes) -> dict[str, Raw]:
        try:
            # msgspec looks into a text only when it decodes it; bytes that are no UTF-8 must be found here.
            if not data.isascii():
                data.decode()
            return self._split(data)
        except (ValueError, msgspec.MsgspecError) as error:
            raise CorruptEntry(f"the stored record is not a JSON object: {type(error).__name__}") from None

    def dump(self, value: object, where: str) -> Raw:
        try:
            data = self._encode(value)
            if type(value) in SCALARS:
                return Raw(data)
            if self._decode(data) == value:
                if len(data) > SHALLOW and is_deep(data):
                    raise SessionError(too_deep(where))
                return Raw(data)
        except (TypeError, ValueError, RecursionError, msgspec.MsgspecError):
            pass
        raise SessionError(_explain(value, where))

    def same(self, value: object, raw: Raw) -> bool:
        try:
            return self._encode(value) == bytes(raw)
        except (TypeError, ValueError, RecursionError, msgspec.MsgspecError):
            return False

    def encode(self, value: msgspec.Struct) -> Raw:
        return Raw(self._encode(value))

    def load(self, raw: Raw, type: type[T]) -> T:
        decode = self._decoders.get(type)
        if decode is None:
            decode = self._decoders[type] = msgspec.json.Decoder(type).decode
        try:
            value: T = decode(raw)
            return value
        except (ValueError, msgspec.MsgspecError) as error:
            if type is object:
                # All that `unpack` lets through is well-formed; msgspec only minds a number like 1e999.
                return cast(T, json.loads(bytes(raw)))
            raise CorruptEntry(f"a stored value does not fit: {error.__class__.__name__}") from None


SCALARS = frozenset({str, int, bool, type(None)})
"""Types whose values JSON always keeps. (A float may be NaN, for which it has no form.)"""

IMMUTABLE = SCALARS | {float}
"""Types whose values nobody can change in place."""


def is_deep(data: bytes) -> bool:
    """Whether JSON is nested deeper than `MAX_DEPTH`.

    >>> is_deep(b"[" * 100 + b"]" * 100), is_deep(b"[" * 101 + b"]" * 101)
    (False, True)
    """
    if len(data) <= SHALLOW:
        return False
    if data.find(b"\\") >= 0:
        data = data.replace(b"\\\\", b"").replace(b'\\"', b"")
    # Of texts their quotes are left, and brackets that stand between them; texts without brackets go first.
    marks = data.translate(_ONE_KIND, _NO_MARKS).replace(b'""', b"")
    marks = b"".join(marks.split(b'"')[::2])
    for _ in range(MAX_DEPTH):  # each time the innermost pairs go
        marks = marks.replace(b"[]", b"")
        if not marks:
            return False
    return True


def too_deep(where: str) -> str:
    """What is said of a value that is nested too deep."""
    return f"{where}: the value is nested deeper than {MAX_DEPTH} levels; store it in a flatter form"


def _explain(value: object, where: str) -> str:
    """Say where in `value` the first thing lies that JSON cannot keep, and what it is."""
    path, seen = where, set[int]()
    for _ in range(MAX_DEPTH):
        if id(value) in seen:
            return f"{path}: the value contains itself and cannot be stored as JSON"
        seen.add(id(value))
        if isinstance(value, list):
            children = {f"{path}[{index}]": item for index, item in enumerate(value)}
        elif isinstance(value, dict):
            for key in value:
                if not isinstance(key, str):
                    kind = type(key).__name__
                    return f"{path}: JSON keys are text, this dict has a key of type {kind}; convert it first"
                if not _keeps(str.__str__(key)):
                    return f"{path}: a key holds a lone surrogate, which has no form in UTF-8"
            children = {f"{path}.{key}": item for key, item in value.items()}
        else:
            break
        for child, item in children.items():
            if not _keeps(item):
                path, value = child, item
                break
        else:
            break
    else:
        return too_deep(where)
    if type(value) is float:
        return f"{path}: {value} has no form in JSON"
    if type(value) is str:
        return f"{path}: the text holds a lone surrogate, which has no form in UTF-8"
    return f"{path}: a {type(value).__name__} cannot be stored as JSON without changing it; convert it first"


def _keeps(value: object) -> bool:
    try:
        return bool(msgspec.json.decode(msgspec.json.encode(value)) == value)
    except (TypeError, ValueError, RecursionError, msgspec.MsgspecError):
        return False
