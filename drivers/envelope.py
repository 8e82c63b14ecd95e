"""What is stored where a backend keeps nothing but bytes: a short header with version and expiry, then the value."""

from __future__ import annotations

import math
import secrets
import struct

from session_kit.drivers.base import Entry
from session_kit.drivers.errors import CorruptEntry

# A magic number, a random version, Unix time of the expiry (infinity for never), the length of the value.
HEADER = struct.Struct("!8s8sdQ")
MAGIC = b"\x89sesskit"


def seal(value: bytes, expires_at: float | None) -> tuple[bytes, bytes]:
    """Return the bytes to store, and their version.

    >>> data, version = seal(b"value", None)
    >>> unseal(data) == Entry(b"value", version, None)
    True
    """
    version = secrets.token_bytes(8)
    return HEADER.pack(MAGIC, version, math.inf if expires_at is None else expires_at, len(value)) + value, version


def unseal(data: bytes) -> Entry:
    """Return the stored entry; `CorruptEntry` if `seal` has not made it, or not all of it is there."""
    header = unseal_header(data)
    value = data[HEADER.size :]
    if len(value) != header.length:
        raise CorruptEntry("the stored entry is cut off, or something was added to it", header.version)
    return Entry(value, header.version, header.expires_at)


class Header:
    """The beginning of a stored entry."""

    __slots__ = ("expires_at", "length", "version")

    def __init__(self, version: bytes, expires_at: float | None, length: int) -> None:
        self.version, self.expires_at, self.length = version, expires_at, length


def unseal_header(data: bytes) -> Header:
    """Return the header of an entry of which at least `HEADER.size` bytes were read; `CorruptEntry` if it is none."""
    if len(data) < HEADER.size:
        raise CorruptEntry("the stored entry is too short to be one of ours; it was not read")
    magic, version, expires_at, length = HEADER.unpack_from(data)
    if magic != MAGIC or math.isnan(expires_at):
        raise CorruptEntry("the stored entry was not written by this library; it was not read")
    return Header(version, None if expires_at == math.inf else expires_at, length)
