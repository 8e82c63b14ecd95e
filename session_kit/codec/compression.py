"""Records made smaller, for stores where bytes cost more than time."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Mapping
from typing import Final, Literal

from msgspec import Raw

from session_kit.codec.base import Codec, Wrapper
from session_kit.codec.foreign import MAX_SIZE, ZLIB, ZSTD, find_zstd, inflate
from session_kit.codec.names import make_codec
from session_kit.errors import ConfigError

Method = Literal["zlib", "zstd"]
MARKS: Final[Mapping[str, bytes]] = {"zlib": ZLIB, "zstd": ZSTD}
LEVELS: Final = {"zlib": 1, "zstd": 3}


class Compressed(Wrapper):
    """Compresses records above a size; `"json+zlib"` and `"msgpack+zstd"` by name.

    inner: what encodes the values, by name or a `Codec`. Default `"json"`.
    method: `"zlib"`, which every Python has, or `"zstd"`, which is quicker for large records, from tens of KB: it is in
        Python 3.14, and before that in the extra `zstd`. All processes that share a store need what one of
        them writes with. Default zlib.
    above: bytes that a record must have more of to be compressed. Default 1,024.

    A record says what it was compressed by, so that each codec reads it, and this one reads those of the others. None
    is read that becomes more than 8 MiB, and none above that is compressed.

    How well a record compresses depends on what is in it. Who can put text of their own into a session beside a secret,
    and see the size of what is stored, can guess the secret piece by piece (as the attack CRIME does), encrypted or
    not: then do not compress.

    Raises `ConfigError` for a method or a size that cannot be.
    """

    def __init__(self, inner: Codec | str = "json", method: Method = "zlib", *, above: int = 1024) -> None:
        if method not in MARKS:
            raise ConfigError(f"codec: compression is by {' or '.join(MARKS)}, not {method!r}")
        if type(above) is not int or above < 0:
            raise ConfigError(f"codec: above= is a number of bytes from 0, not {above!r}")
        codec = make_codec(inner)
        if isinstance(codec, Wrapper):
            raise ConfigError("codec: compression comes once, and before encryption: Encrypted(keys, 'json+zlib')")
        super().__init__(codec)
        self.method, self.above = method, above
        self._mark, level = MARKS[method], LEVELS[method]
        compress = zlib.compress if method == "zlib" else find_zstd().compress
        self._compress: Callable[[bytes], bytes] = lambda data: compress(data, level)

    def __repr__(self) -> str:
        return f"Compressed({self.inner!r}, {self.method!r})"

    def pack(self, fields: Mapping[str, Raw], key: str = "") -> bytes:
        data = self._pack(fields, key)
        if not self.above < len(data) <= MAX_SIZE:
            return data
        compressed = self._mark + self._compress(data)
        return compressed if len(compressed) < len(data) else data

    def unpack(self, data: bytes, key: str = "") -> dict[str, Raw]:
        return self._unpack(inflate(data) if data[:2] in (ZLIB, ZSTD) else data, key)
