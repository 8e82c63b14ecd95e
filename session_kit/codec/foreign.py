"""What the first bytes of a record say of the codec that wrote it, and how one that needs no key is read by another.

A JSON object begins with `{`, a map of MessagePack with one of 18 other bytes. What was compressed or encrypted begins
with `MARK`, which begins neither, and a letter that says what it is.
"""

from __future__ import annotations

import functools
import importlib
import json
import zlib
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any, Final

import msgspec
from msgspec import Raw

from session_kit.drivers.errors import how_to_install
from session_kit.errors import ConfigError, CorruptEntry, OtherCodec, SessionError

MARK = b"\xc1"
"""Never used in MessagePack, and begins nothing in UTF-8."""
ZLIB, ZSTD, ENCRYPTED = MARK + b"z", MARK + b"s", MARK + b"e"

MAX_SIZE = 8 * 1024 * 1024
"""So many bytes may a compressed record become, and no more: a few could otherwise fill the memory."""
ZSTD_WINDOW = 23
"""Its logarithm: what may be set aside before the first byte is known."""

_MAPS: Final = frozenset(bytes([byte]) for byte in (*range(0x80, 0x90), 0xDE, 0xDF))


def is_foreign(data: bytes) -> bool:
    """Whether a record was written by another codec than JSON, as far as its first byte tells."""
    return data[:1] == MARK or data[:1] in _MAPS


def recode(data: bytes, dump: Callable[[object, str], Raw]) -> dict[str, Raw]:
    """The fields of a record that another codec wrote, encoded by `dump`.

    `OtherCodec` if that cannot be, `CorruptEntry` if no codec could read it.
    """
    values = _read(inflate(data) if data[:1] == MARK else data)
    try:
        return {key: dump(value, key) for key, value in values.items()}
    except SessionError:  # which names a place in the data
        raise OtherCodec(
            "the record was written by another codec, and this one has no form for a value in it"
        ) from None


def inflate(data: bytes) -> bytes:
    """What is in a compressed record. `OtherCodec` if it is encrypted, or what is needed is not installed."""
    kind = data[:2]
    stream: Any
    failure: type[Exception]
    if kind == ZLIB:
        stream, failure = zlib.decompressobj(), zlib.error
    elif kind == ZSTD:
        try:
            zstd = find_zstd()
        except ConfigError as error:
            raise OtherCodec(f"the record is compressed: {error}") from None
        stream = zstd.ZstdDecompressor(options={zstd.DecompressionParameter.window_log_max: ZSTD_WINDOW})
        failure = zstd.ZstdError
    elif kind == ENCRYPTED:
        raise OtherCodec("the record is encrypted, and the store has no keys; give it codec=Encrypted(keys)")
    else:
        raise OtherCodec("the record was written by a codec that is not known here, perhaps by a newer version")
    try:
        inflated: bytes = stream.decompress(data[2:], MAX_SIZE + 1)
    except failure:
        raise CorruptEntry("a compressed record cannot be read") from None
    if len(inflated) > MAX_SIZE:
        raise CorruptEntry(f"a compressed record becomes more than {MAX_SIZE} bytes; it was not read")
    if not stream.eof or stream.unused_data:
        raise CorruptEntry("a compressed record is cut off, or something was added to it")
    return inflated


@functools.cache
def find_zstd() -> Any:
    """The module for Zstandard: of the standard library since Python 3.14, else the wheel that has the same interface.

    `ConfigError` if there is none.
    """
    for name in ("compression.zstd", "backports.zstd"):
        with suppress(ModuleNotFoundError):
            return importlib.import_module(name)
    raise ConfigError(f"zstd needs the package backports.zstd, which is not installed: {how_to_install('zstd')}")


def _read(data: bytes) -> Mapping[str, object]:
    """The values in a record of JSON or MessagePack."""
    decode: Any = msgspec.msgpack.decode if data[:1] in _MAPS else msgspec.json.decode
    try:
        values: dict[str, object] = decode(data, type=dict[str, Any])
        return values
    except (ValueError, msgspec.MsgspecError) as error:
        with suppress(ValueError):  # msgspec minds a number like 1e999
            found = json.loads(data)
            if isinstance(found, dict):
                return found
        raise CorruptEntry(f"the stored record is neither JSON nor MessagePack: {type(error).__name__}") from None
