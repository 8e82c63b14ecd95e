"""MessagePack: smaller than JSON, and with more types, which any language can read too."""

from __future__ import annotations

import msgspec
from msgspec import Raw

from session_kit.codec.base import FormatCodec
from session_kit.codec.foreign import MARK, recode
from session_kit.codec.format import MESSAGE_PACK
from session_kit.errors import CorruptEntry

_FOREIGN = frozenset({MARK, b"{", b" ", b"\t", b"\r", b"\n"})


class MessagePackCodec(FormatCodec):
    """`"msgpack"`: MessagePack by msgspec, in which bytes, datetimes with a time zone, and numbers as keys stay.

    A datetime comes back in UTC. What would come back as something else (a tuple, a set, a datetime without a time
    zone, an integer of more than 64 bits, a UUID or a date as a key) is refused when it is put in.

    >>> codec = MessagePackCodec()
    >>> codec.pack({"icon": codec.dump(b"PNG", "icon")})
    b'\\x81\\xa4icon\\xc4\\x03PNG'
    """

    format = MESSAGE_PACK

    def unpack(self, data: bytes, key: str = "") -> dict[str, Raw]:
        try:
            fields = self._split(data)
            # Texts, keys and times inside are looked at only now; a bad one must not be found in mid-request.
            self._decode(data)
            return fields
        except (ValueError, msgspec.MsgspecError) as error:
            if data[:1] not in _FOREIGN:
                raise CorruptEntry(f"the stored record is no map of MessagePack: {type(error).__name__}") from None
        return recode(data, self.dump)
