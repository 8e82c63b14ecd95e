"""How session data becomes bytes: a format for the values, and what is done to the bytes of a whole record."""

from session_kit.codec.base import IMMUTABLE, Codec, Wrapper, format_of
from session_kit.codec.compression import Compressed
from session_kit.codec.encryption import Encrypted
from session_kit.codec.format import JSON, MAX_DEPTH, Format, is_deep, too_deep
from session_kit.codec.json import JSONCodec, LenientJSONCodec, TaggedJSONCodec
from session_kit.codec.msgpack import MessagePackCodec
from session_kit.codec.names import CodecName, make_codec

__all__ = [
    "IMMUTABLE",
    "JSON",
    "MAX_DEPTH",
    "Codec",
    "CodecName",
    "Compressed",
    "Encrypted",
    "Format",
    "JSONCodec",
    "LenientJSONCodec",
    "MessagePackCodec",
    "TaggedJSONCodec",
    "Wrapper",
    "format_of",
    "is_deep",
    "make_codec",
    "too_deep",
]
