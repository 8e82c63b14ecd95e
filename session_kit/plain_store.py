"""Sessions in a store that somebody else wrote, with the four methods of `SessionStore` alone."""

from __future__ import annotations

from collections.abc import Mapping
from inspect import iscoroutinefunction
from typing import Any

from msgspec import Raw

from session_kit.codec import Codec, JSONCodec, Wrapper
from session_kit.drivers import ANY, Capabilities
from session_kit.drivers.support.twins import Blocking, Native, run
from session_kit.errors import ConfigError
from session_kit.record import Record

METHODS = ("get", "set", "touch", "destroy")


class PlainStore:
    """A store with only the four methods of `SessionStore`, with the methods that the session layer calls.

    It has no versions: the session layer reads again before it writes, and the last write wins.
    """

    renews = False
    capabilities = Capabilities()

    def __init__(self, store: Any, codec: Codec | None = None) -> None:
        missing = [name for name in METHODS if not callable(getattr(store, name, None))]
        if missing:
            raise ConfigError(f"{type(store).__name__} is no session store: it has no method {', '.join(missing)}")
        if found := [name for name in METHODS if iscoroutinefunction(getattr(store, name))]:
            raise ConfigError(
                f"{type(store).__name__}.{found[0]} is a coroutine function: name it a{found[0]}, beside a blocking"
                f" {found[0]}"
            )
        if isinstance(codec, Wrapper):
            raise ConfigError(f"codec: {type(store).__name__} keeps no bytes that could be compressed or encrypted")
        self.codec: Codec = codec or JSONCodec()
        self._store = store
        self.blocking, self.native = Blocking(store), Native(store)
        ttl = getattr(store, "ttl", None)
        self.ttl = ttl if isinstance(ttl, (int, float)) else None

    async def prepare_by(self, io: Any) -> None:
        """There is nothing to find out."""

    def reads_at_once(self) -> bool:
        """Nobody knows what it waits for."""
        return False

    def ttl_of(self, data: Mapping[str, Any]) -> float | None:
        """What the store says of itself, if it does."""
        return self.ttl

    def read(self, sid: str, *, renew: bool = False) -> Record | None:
        """Get the data; `renew` is not to be had."""
        return run(self.read_by(self.blocking, sid))

    async def read_by(self, io: Any, sid: str, *, renew: bool = False) -> Record | None:
        """The record that the data would be."""
        data = await io.get(sid)
        if data is None:
            return None
        return Record({key: self.codec.dump(value, key) for key, value in data.items()}, None, None, self.codec)

    async def set_by(
        self, io: Any, sid: str, fields: Mapping[str, Raw], *, expect: object = ANY, ttl: float | None
    ) -> object:
        """Set the data; the store decides how long it lives, and there is no version."""
        await io.set(sid, {key: self.codec.load(raw, object) for key, raw in fields.items()})
        return None

    def put(self, sid: str, fields: Mapping[str, Raw], *, expect: object = ANY, ttl: float | None) -> object:
        """`set_by`, blocking."""
        return run(self.set_by(self.blocking, sid, fields, expect=expect, ttl=ttl))

    async def destroy_by(self, io: Any, sid: str, *, expect: object = ANY) -> bool:
        """Destroy the session; True, because the store does not say whether it was there."""
        await io.destroy(sid)
        return True
