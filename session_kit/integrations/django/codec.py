"""Values that Django's own serializer converts are converted here too: tuples, numbers as keys, lazy strings, forms."""

from __future__ import annotations

import json
from contextlib import suppress
from typing import Any

from django.utils.functional import Promise
from msgspec import Raw

from session_kit.codec import Codec, format_of
from session_kit.codec.base import goes_by_items
from session_kit.errors import SessionError


class LenientCodec:
    """The store's codec, which converts what the codec refuses and Django's JSON serializer would take."""

    def __init__(self, codec: Codec) -> None:
        self.codec = codec
        self.format = format_of(codec)
        self.load = codec.load
        self.pack = codec.pack
        self.unpack = codec.unpack
        self.same = codec.same
        self.encode = codec.encode

    def dump(self, value: object, where: str) -> Raw:
        with suppress(SessionError):
            raw = self.codec.dump(value, where)
            if not goes_by_items(value):
                return raw
        try:
            converted = json.loads(json.dumps(value, allow_nan=False, default=_text))
        except (TypeError, ValueError, RecursionError):
            converted = value
        return self.codec.dump(converted, where)


def _text(value: Any) -> str:
    if isinstance(value, Promise):
        return str(value)
    raise TypeError(type(value).__name__)
