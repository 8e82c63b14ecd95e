"""The data of a session of Django's: changes are kept as changes, and values are converted as Django converts them."""

from __future__ import annotations

import json
from collections.abc import Iterator, MutableMapping
from typing import Any, cast

from msgspec import Raw

from session_kit.codec import Codec
from session_kit.draft import Draft, DraftView, Updater
from session_kit.errors import SessionError
from session_kit.integrations.django.settings import once, store


class Data(DraftView, MutableMapping[str, Any]):
    """What a request makes of a record."""

    __slots__ = ()

    def __init__(self, fields: dict[str, Raw]) -> None:
        super().__init__(Draft(_codec(), fields))

    def __setitem__(self, key: str, value: Any) -> None:
        self.draft.put(key, value)

    def __delitem__(self, key: str) -> None:
        self.draft.drop(key)

    def __iter__(self) -> Iterator[str]:
        return iter(list(self.draft.fields))

    def update(self, changes: Any = (), /, **values: Any) -> None:
        if callable(changes):
            self.draft.apply(cast(Updater, changes))
        else:
            super().update(changes, **values)


class LenientCodec:
    """The store's codec, that converts what Django's own JSON serializer would (a tuple, a number as a key)."""

    def __init__(self, codec: Codec) -> None:
        self.codec = codec
        self.load = codec.load

    def dump(self, value: object, where: str) -> Raw:
        try:
            return self.codec.dump(value, where)
        except SessionError:
            try:
                converted = json.loads(json.dumps(value, allow_nan=False))
            except (TypeError, ValueError):
                converted = value
            return self.codec.dump(converted, where)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.codec, name)


@once
def _codec() -> LenientCodec:
    return LenientCodec(store().codec)
