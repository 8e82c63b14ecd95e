"""What a store needs of a codec, and what those on msgspec share."""

from __future__ import annotations

import builtins
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Protocol, TypeVar

import msgspec
from msgspec import Raw

from session_kit.codec.format import JSON, MAX_DEPTH, Format, too_deep
from session_kit.errors import CorruptEntry, SessionError

T = TypeVar("T")

SCALARS = frozenset({str, int, bool, type(None)})
"""Types whose values are always kept, if they can be encoded at all. (A float may be NaN, which equals nothing.)"""

IMMUTABLE = SCALARS | {float}
"""Types whose values nobody can change in place."""

NO_FORM = (TypeError, ValueError, OverflowError, RecursionError, msgspec.MsgspecError, BytesWarning)
"""What it raises to encode a value, to decode it, and to compare the two, where they are not the same. (The last comes
with `python -bb`, of bytes that have become text.)"""


class Codec(Protocol):
    """What a store needs of an encoding. A record is a mapping whose values stay encoded (`Raw`) until asked for.

    The `key` is the one under which the store keeps the record, for a codec that binds the two; others ignore it.
    """

    def pack(self, fields: Mapping[str, Raw], key: str = "") -> bytes:
        """Make a record of encoded values."""

    def unpack(self, data: bytes, key: str = "") -> dict[str, Raw]:
        """Split a record into its encoded values. `CorruptEntry` if it is not one, `OtherCodec` if another can read it.

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


class FormatCodec:
    """What the codecs on msgspec share: all but how a record and a value are read."""

    format: Format

    def __init__(self) -> None:
        module, self._shallow = self.format.module, self.format.shallow
        self._encode: Callable[[object], bytes] = module.Encoder().encode
        self._decode: Callable[[bytes], Any] = module.Decoder().decode
        self._decoders: dict[object, Callable[[Raw], Any]] = {object: self._decode}
        self._split: Callable[[bytes], dict[str, Raw]] = module.Decoder(dict[str, Raw]).decode

    def __repr__(self) -> str:
        return f"{type(self).__name__}()"

    def pack(self, fields: Mapping[str, Raw], key: str = "") -> bytes:
        return self._encode(fields)

    def dump(self, value: object, where: str) -> Raw:
        try:
            data = self._encode(value)
            if type(value) in SCALARS:
                return Raw(data)
            if self._decode(data) == value:
                if len(data) > self._shallow and self.format.is_deep(data):
                    raise SessionError(too_deep(where))
                return Raw(data)
        except NO_FORM:
            pass
        raise SessionError(explain(value, where, self.format))

    def same(self, value: object, raw: Raw) -> bool:
        try:
            return self._encode(value) == bytes(raw)
        except NO_FORM:
            return False

    def encode(self, value: msgspec.Struct) -> Raw:
        return Raw(self._encode(value))

    def load(self, raw: Raw, type: type[T]) -> T:
        decode = self._decoders.get(type)
        if decode is None:
            decode = self._decoders[type] = self.format.module.Decoder(type).decode
        try:
            value: T = decode(raw)
            return value
        except (ValueError, msgspec.MsgspecError) as error:
            return self._misfit(raw, type, error)

    def _misfit(self, raw: Raw, type: type[T], error: Exception) -> T:
        """What `load` returns for what msgspec does not decode."""
        raise CorruptEntry(f"a stored value does not fit: {error.__class__.__name__}") from None


class Wrapper:
    """A codec around another, its `inner`: the values are encoded as by that one, the record's bytes are changed."""

    def __init__(self, inner: Codec) -> None:
        self.inner = inner
        self.format = format_of(inner)
        self.dump = inner.dump
        self.same = inner.same
        self.encode = inner.encode
        self.load = inner.load
        self._pack = inner.pack
        self._unpack = inner.unpack


def goes_by_items(value: object) -> bool:
    """Whether there is a dict in it whose `items` differ from what it holds: a form with several values of a name.

    `json.dumps` writes its items, and with it the serializers of Flask and Django; msgspec writes what it holds.
    value: one that could be encoded, so that it neither contains itself nor is nested too deep.
    """
    items: Iterable[object]
    if type(value) is list:
        items = value
    elif isinstance(value, dict):
        if type(value) is not dict and type(value).items not in (dict.items, OrderedDict.items):
            return True
        items = value.values()
    elif isinstance(value, (list, tuple)):
        items = value
    else:
        return False
    for item in items:  # noqa: SIM110  # all that is written is looked at, and a generator takes three times as long
        if type(item) not in IMMUTABLE and goes_by_items(item):
            return True
    return False


def format_of(codec: Codec) -> Format:
    """The format of a codec's values; JSON if it does not say."""
    found: Format = getattr(codec, "format", JSON)
    return found


def explain(value: object, where: str, format: Format) -> str:
    """Say where in `value` the first thing lies that the format cannot keep, and what it is."""
    path, seen = where, set[int]()
    for _ in range(MAX_DEPTH):
        if id(value) in seen:
            return f"{path}: the value contains itself and cannot be stored as {format.name}"
        seen.add(id(value))
        if isinstance(value, list):
            children = {f"{path}[{index}]": item for index, item in enumerate(value)}
        elif isinstance(value, dict):
            for key in value:
                if not isinstance(key, str):
                    kind = type(key).__name__
                    if format is JSON:
                        return f"{path}: JSON keys are text, this dict has a key of type {kind}; convert it first"
                    if not _keeps(key, format):
                        return f"{path}: a key of type {kind} cannot be stored as {format.name}; convert it first"
                    continue
                if not _keeps(str.__str__(key), format):
                    return f"{path}: a key holds a lone surrogate, which has no form in UTF-8"
            children = {f"{path}.{repr(key) if isinstance(key, bytes) else key}": item for key, item in value.items()}
        else:
            break
        for child, item in children.items():
            if not _keeps(item, format):
                path, value = child, item
                break
        else:
            break
    else:
        return too_deep(where)
    if type(value) is int:
        return f"{path}: an int of {value.bit_length()} bits has no form in {format.name}"
    if type(value) is float:
        return f"{path}: {value} has no form in {format.name}"
    if type(value) is str:
        return f"{path}: the text holds a lone surrogate, which has no form in UTF-8"
    kind = type(value).__name__
    if hasattr(builtins, kind):  # that of numpy is called `bool` too
        kind = f"{type(value).__module__}.{kind}".removeprefix("builtins.")
    return f"{path}: a {kind} cannot be stored as {format.name} without changing it; convert it first"


def _keeps(value: object, format: Format) -> bool:
    try:
        return bool(format.module.decode(format.module.encode(value)) == value)
    except NO_FORM:
        return False
