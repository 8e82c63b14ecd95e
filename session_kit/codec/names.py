"""Codecs by name, as in a URL: `json`, `msgpack+zlib`, `json+encrypt:SESSION_KEYS`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from session_kit.codec.base import Codec
from session_kit.codec.json import JSONCodec, LenientJSONCodec, TaggedJSONCodec
from session_kit.codec.msgpack import MessagePackCodec
from session_kit.drivers.support.options import guess
from session_kit.errors import ConfigError

CodecName = str
"""What encodes the values, then what is done to the record's bytes, with a `+` between them."""

CODECS: Final[Mapping[str, Callable[[], Codec]]] = {
    "json": JSONCodec,
    "json-lenient": LenientJSONCodec,
    "json-tagged": TaggedJSONCodec,
    "msgpack": MessagePackCodec,
}
ENCRYPT = "encrypt:"
_THERE_ARE = f"There are {', '.join(CODECS)}, each also with +zlib or +zstd, and with +encrypt:NAME"


def make_codec(codec: Codec | CodecName) -> Codec:
    """Return the codec of that name, or the codec that is given. `ConfigError` for anything else.

    >>> make_codec("json+zlib")
    Compressed(JSONCodec(), 'zlib')
    >>> make_codec("json-tagd")  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    session_kit.drivers.errors.ConfigError: codec: there is no 'json-tagd'; did you mean 'json-tagged'? ...
    """
    if isinstance(codec, str):
        return _by_name(codec)
    if isinstance(codec, type) or not all(callable(getattr(codec, name, None)) for name in ("pack", "unpack", "dump")):
        raise ConfigError(f"codec must be one of {', '.join(CODECS)}, or an object with the methods of Codec")
    return codec


def _by_name(text: str) -> Codec:
    name, *rest = text.split("+")
    if name not in CODECS:
        raise ConfigError(f"codec: there is no {name!r}{guess(name, CODECS)} {_THERE_ARE}")
    codec = CODECS[name]()
    if rest:
        # Here, because both import this module.
        from session_kit.codec.compression import MARKS, Compressed
        from session_kit.codec.encryption import Encrypted, keys_in_environment
    for part in rest:
        if part.startswith(ENCRYPT):
            codec = Encrypted(keys_in_environment(part.removeprefix(ENCRYPT)), codec)
        elif part in MARKS:
            method: Any = part
            codec = Compressed(codec, method)
        else:
            # Not what: it may be half of a key that was written into the name.
            known = [*MARKS, f"{ENCRYPT}NAME"]
            raise ConfigError(f"codec: after a + comes {', '.join(known)}, and not what is there{guess(part, known)}")
    return codec
