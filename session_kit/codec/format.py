"""The formats in which values are encoded, and how deep a value of each is nested."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, NamedTuple

import msgspec

MAX_DEPTH = 100
"""So deep may a value be nested; a reader whose stack is nearly full already must be able to read it too."""

_ONE_KIND = bytes.maketrans(b"{}", b"[]")
_NO_MARKS = bytes(byte for byte in range(256) if byte not in b'{}[]"')

_BEGINNINGS = {*range(0x80, 0xA0), 0xDC, 0xDD, 0xDE, 0xDF}
_NO_BEGINNINGS = bytes(byte for byte in range(256) if byte not in _BEGINNINGS)


def is_deep(data: bytes) -> bool:
    """Whether JSON is nested deeper than `MAX_DEPTH`.

    >>> is_deep(b"[" * 100 + b"]" * 100), is_deep(b"[" * 101 + b"]" * 101)
    (False, True)
    """
    if len(data) <= JSON.shallow:
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


def is_deep_msgpack(data: bytes) -> bool:
    """Whether MessagePack is nested deeper than `MAX_DEPTH`.

    >>> is_deep_msgpack(bytes([0x91] * 99 + [0x90])), is_deep_msgpack(bytes([0x91] * 100 + [0x90]))
    (False, True)
    """
    # Each list and each map begins with a byte of these; texts and numbers may hold some too.
    if len(data.translate(None, _NO_BEGINNINGS)) <= MAX_DEPTH:
        return False
    level = [msgspec.msgpack.decode(data)]
    for _ in range(MAX_DEPTH):  # each time one layer goes
        level = [child for value in level for child in _children(value) if isinstance(child, (dict, list, tuple))]
        if not level:
            return False
    return True


def _children(value: Any) -> list[Any]:
    # A list in a key is a tuple.
    return [*value, *value.values()] if isinstance(value, dict) else list(value)


def too_deep(where: str) -> str:
    """What is said of a value that is nested too deep."""
    return f"{where}: the value is nested deeper than {MAX_DEPTH} levels; store it in a flatter form"


class Format(NamedTuple):
    """A format in which msgspec encodes values.

    module: `msgspec.json` or `msgspec.msgpack`.
    shallow: what has no more bytes is not nested too deep.
    is_deep: whether an encoded value is nested too deep.
    """

    name: str
    module: Any
    shallow: int
    is_deep: Callable[[bytes], bool]


JSON: Final = Format("JSON", msgspec.json, 2 * MAX_DEPTH, is_deep)
MESSAGE_PACK: Final = Format("MessagePack", msgspec.msgpack, MAX_DEPTH, is_deep_msgpack)
