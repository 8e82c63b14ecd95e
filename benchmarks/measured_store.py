"""A store that is measured. All that is written to it is noted by name beforehand, so that it can be deleted again."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import chain
from typing import Any
from urllib.parse import unquote

from session_kit.drivers import ConfigError, Driver, DriverError, DriverUnavailable, Entry
from session_kit.drivers.registry import redact, split_url
from session_kit.drivers.support.folder import expanded
from session_kit.drivers.support.options import parse_duration
from session_kit.store import UnstorageSessionStore, open_store
from session_kit.testing import CountingDriver

# What is written must outlive the run.
SHORTEST_TTL = 3600.0


def labels(urls: Sequence[str]) -> list[str]:
    """Name each store by its URL without what may be secret; the second of one name is `name #2`.

    >>> labels(["memory://", "redis://:password@localhost", "memory://"])
    ['memory://', 'redis://localhost', 'memory:// #2']
    """
    names = [redact(split_url(url)[0]) for url in urls]
    return [
        f"{name} #{number}" if (number := names[: at + 1].count(name)) > 1 else name for at, name in enumerate(names)
    ]


@contextmanager
def opened(url: str, label: str, runner: asyncio.Runner, say: Callable[[str], None]) -> Iterator[MeasuredStore]:
    """Open the store at `url`, and delete what was written to it and close it at the end.

    url: as `open_store` takes it; our own prefix begins with the one that it names.
    label: its name in the report.
    runner: the event loop of async calls.
    say: hears what stays behind.
    """
    parts, query = split_url(url)
    folder = expanded(unquote(parts.path))
    fresh = parts.scheme in ("disk", "file") and not (folder.is_dir() and any(folder.iterdir()))
    fresh = fresh or (parts.scheme == "sqlite" and not folder.exists())
    ttl = dict(query).get("ttl")
    if ttl is not None and _seconds(ttl, label) < SHORTEST_TTL:
        raise ConfigError(
            f"{label}: ttl={ttl} may end before the benchmark does; give an hour or more, or leave it out"
        )
    store = open_store(url)
    try:
        prefix = f"{store.prefix}-bench-{secrets.token_hex(4)}"
        measured = MeasuredStore(UnstorageSessionStore(store.driver, prefix=prefix, ttl=store.ttl), label)
        try:
            yield measured
        finally:
            measured.clean_up()
    finally:
        runner.run(store.aclose())
        store.close()
        if fresh:
            say(f"{label}: an empty store stays in the folder")


def _seconds(ttl: str, label: str) -> float:
    try:
        return parse_duration(ttl)
    except ValueError as error:
        raise ConfigError(f"{label}: ttl: {error}") from None


class MeasuredStore:
    """A store with a random prefix of our own, and the names of what we wrote.

    store: on the driver that is measured.
    label: its name in the report.
    """

    def __init__(self, store: UnstorageSessionStore, label: str) -> None:
        self.store, self.label = store, label
        self._keys: list[list[str]] = []
        self._ids: list[list[str]] = []

    @property
    def driver(self) -> Driver:
        return self.store.driver

    @property
    def ttl(self) -> Any:
        return self.store.ttl

    def new_keys(self) -> list[str]:
        """A list for the keys that its holder is going to write."""
        self._keys.append([])
        return self._keys[-1]

    def new_ids(self) -> list[str]:
        """A list for the ids of the sessions that its holder is going to make."""
        self._ids.append([])
        return self._ids[-1]

    def behind(self, driver: Driver) -> MeasuredStore:
        """The same store by way of `driver`, which passes on to ours; what is written is noted here too."""
        store = UnstorageSessionStore(driver, prefix=self.store.prefix, ttl=self.ttl)
        measured = MeasuredStore(store, self.label)
        measured._keys, measured._ids = self._keys, self._ids
        return measured

    def clean_up(self) -> None:
        """Delete what was written. If the store does not let us, raise `DriverUnavailable`, which says what is left."""
        names = [*chain(*self._keys), *map(self.store.key, chain(*self._ids))]
        if not names:
            return
        try:
            self.driver.delete_many(names)
        except DriverError as error:
            raise DriverUnavailable(
                f"{error}; entries that begin with {self.store.prefix}: may be left there, and expire after"
                f" {self.ttl:g} s"
            ) from error


class Meter(CountingDriver):
    """Counts calls, and the bytes of the values, or listed keys, that go in and come out."""

    read_bytes = written_bytes = 0

    @property
    def bytes(self) -> int:
        return self.read_bytes + self.written_bytes

    def call(self, name: str, *args: Any, **kwargs: Any) -> Any:
        return self._weighed(name, args, kwargs, super().call(name, *args, **kwargs))

    async def acall(self, name: str, *args: Any, **kwargs: Any) -> Any:
        return self._weighed(name, args, kwargs, await super().acall(name, *args, **kwargs))

    def keys(self, prefix: str = "") -> Iterator[str]:
        for key in super().keys(prefix):
            self.read_bytes += len(key.encode())
            yield key

    async def akeys(self, prefix: str = "") -> AsyncIterator[str]:
        async for key in super().akeys(prefix):
            self.read_bytes += len(key.encode())
            yield key

    def _weighed(self, name: str, args: tuple[Any, ...], kwargs: dict[str, Any], result: Any) -> Any:
        if name == "set":  # what it returns is a version
            self.written_bytes += len(kwargs["value"] if "value" in kwargs else args[1])
            return result
        for answer in result.values() if isinstance(result, dict) else [result]:
            value = answer.value if isinstance(answer, Entry) else answer
            if isinstance(value, bytes):
                self.read_bytes += len(value)
        return result

    def reset(self) -> None:
        super().reset()
        self.read_bytes = self.written_bytes = 0
