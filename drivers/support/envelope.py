"""What is stored where a backend keeps nothing but bytes: a short header with version and expiry, then the value."""

from __future__ import annotations

import math
import secrets
import struct
import zlib
from typing import NamedTuple

from session_kit.drivers.base import Entry
from session_kit.drivers.errors import CorruptEntry

# A magic number, a random version, Unix time of the expiry (infinity for never), length and CRC-32 of the value.
HEADER = struct.Struct("!8s8sdII")
MAGIC = b"\x89seskit2"


class TornEntry(CorruptEntry):
    """Not all of the stored entry is there, or parts of two: it is being written, or its writer has died."""


def seal(value: bytes, expires_at: float | None) -> tuple[bytes, bytes]:
    """Return the bytes to store, and their version.

    >>> data, version = seal(b"value", None)
    >>> unseal(data) == Entry(b"value", version, None)
    True
    """
    version = secrets.token_bytes(8)
    end = math.inf if expires_at is None else expires_at
    return HEADER.pack(MAGIC, version, end, len(value), zlib.crc32(value)) + value, version


def unseal(data: bytes) -> Entry:
    """Return the stored entry; `CorruptEntry` if `seal` has not made it, `TornEntry` if it seems to be a part of it."""
    header = unseal_header(data)
    value = data[HEADER.size :]
    if len(value) != header.length:
        raise TornEntry("the stored entry is torn: it is cut off, or something was added to it", header.version)
    if zlib.crc32(value) != header.checksum:
        raise TornEntry("the stored entry is torn or damaged: its checksum does not fit", header.version)
    return Entry(value, header.version, header.expires_at)


class Header(NamedTuple):
    """The beginning of a stored entry."""

    version: bytes
    expires_at: float | None
    length: int
    checksum: int


def unseal_header(data: bytes) -> Header:
    """Return the header of an entry of which at least `HEADER.size` bytes were read; `CorruptEntry` if it is none."""
    if len(data) < HEADER.size:
        raise TornEntry("the stored entry is torn, or not one of ours: it is too short; it was not read")
    magic, version, expires_at, length, checksum = HEADER.unpack_from(data)
    if magic != MAGIC or math.isnan(expires_at):
        raise CorruptEntry("the stored entry was not written by this library; it was not read")
    return Header(version, None if expires_at == math.inf else expires_at, length, checksum)
