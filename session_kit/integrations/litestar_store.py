"""A key-value store for Litestar itself, on any driver."""

from __future__ import annotations

import math
import struct
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import timedelta
from hashlib import sha256
from typing import TYPE_CHECKING

from litestar.stores.base import NamespacedStore

from session_kit.drivers import ANY, Driver, Entry, open_driver
from session_kit.drivers.base import MAX_KEY_BYTES
from session_kit.errors import ConfigError, Conflict, CorruptEntry

if TYPE_CHECKING:
    from typing import Self

EXPIRY = struct.Struct(">d")
MAX_NAMESPACE_BYTES = MAX_KEY_BYTES - len(":" + sha256().hexdigest())


class KeyValueStore(NamespacedStore):
    """A store for Litestar itself (its response cache, rate limit, own server-side sessions), on any driver.

    driver: a URL (`session_kit.open_driver`), which is then closed with the application, or a driver.
    namespace: begins every key, and keeps what shares a driver apart. A child's is `parent:child`.
    clock: Unix time in seconds, for tests.
    Raises `ConfigError` for a URL or a namespace that cannot work.

    Keys are stored as their SHA-256: of any length, and session ids are none that a leaked store would give away.

    >>> from litestar import Litestar
    >>> from litestar.stores.registry import StoreRegistry
    >>> store = KeyValueStore("memory://")
    >>> app = Litestar(stores=StoreRegistry({"root": store}, default_factory=store.with_namespace))
    """

    def __init__(
        self, driver: Driver | str, *, namespace: str = "litestar", clock: Callable[[], float] = time.time
    ) -> None:
        if not namespace or len(namespace.encode()) > MAX_NAMESPACE_BYTES:
            raise ConfigError(f"a namespace has 1 to {MAX_NAMESPACE_BYTES} UTF-8 bytes; it keeps applications apart")
        self.namespace = namespace
        self._clock = clock
        self._owns_driver = isinstance(driver, str)
        self.driver = open_driver(driver, clock=clock) if isinstance(driver, str) else driver

    def __repr__(self) -> str:
        return f"KeyValueStore({self.driver!r}, namespace={self.namespace!r})"

    def with_namespace(self, namespace: str) -> Self:
        """Return a store for a child namespace, on the same driver. What clears the parent clears its children."""
        return type(self)(self.driver, namespace=f"{self.namespace}:{namespace}", clock=self._clock)

    async def get(self, key: str, renew_for: int | timedelta | None = None) -> bytes | None:
        """Return the value, or None. `renew_for` gives a value that expires so many seconds more from now."""
        entry = await self._read(key)
        if entry is None:
            return None
        if renew_for and entry.expires_at is not None:
            with suppress(Conflict):  # somebody wrote it meanwhile, or deleted it
                await self._write(key, entry.value, renew_for, entry.version)
        return entry.value

    async def set(self, key: str, value: str | bytes, expires_in: int | timedelta | None = None) -> None:
        """Store a value, for `expires_in` seconds (above 0) or for ever."""
        await self._write(key, value.encode() if isinstance(value, str) else value, expires_in)

    async def delete(self, key: str) -> None:
        """Delete a value, if it is there."""
        await self.driver.adelete(self._key(key))

    async def delete_all(self) -> None:
        """Delete all in this namespace and its children, and nothing else."""
        await self.driver.aclear(f"{self.namespace}:")

    async def delete_expired(self) -> None:
        """Drop what has expired but still takes room, where the driver keeps it."""
        await self.driver.aprune()

    async def exists(self, key: str) -> bool:
        """Tell whether there is a value."""
        return await self.driver.ahas(self._key(key))

    async def expires_in(self, key: str) -> int | None:
        """Return the seconds, rounded, that a value has left; -1 if it never expires, None if there is none."""
        entry = await self._read(key)
        if entry is None:
            return None
        return -1 if entry.expires_at is None else max(0, round(entry.expires_at - self._clock()))

    async def aclose(self) -> None:
        """Close the driver, if it was opened here. Idempotent; `async with` and Litestar's lifespan do it too."""
        if self._owns_driver:
            await self.driver.aclose()

    async def __aexit__(self, *error: object) -> None:
        await self.aclose()

    def _key(self, key: str) -> str:
        return f"{self.namespace}:{sha256(key.encode()).hexdigest()}"

    async def _read(self, key: str) -> Entry | None:
        entry = await self.driver.aread(self._key(key))
        if entry is None:
            return None
        if len(entry.value) < EXPIRY.size:
            raise CorruptEntry(f"namespace {self.namespace!r} holds an entry that KeyValueStore did not write")
        (expires_at,) = EXPIRY.unpack_from(entry.value)
        return Entry(entry.value[EXPIRY.size :], entry.version, None if expires_at == math.inf else expires_at)

    async def _write(self, key: str, value: bytes, lifetime: int | timedelta | None, version: object = ANY) -> None:
        ttl = lifetime.total_seconds() if isinstance(lifetime, timedelta) else lifetime
        # With the value, because not every backend can tell when an entry expires.
        sealed = EXPIRY.pack(math.inf if ttl is None else self._clock() + ttl) + value
        expect = version if self.driver.capabilities.swap else ANY
        await self.driver.aset(self._key(key), sealed, ttl=ttl, expect=expect)
