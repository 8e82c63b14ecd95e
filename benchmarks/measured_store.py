"""A store that is measured. All that is written to it is noted by name beforehand, so that it can be deleted again."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from inspect import signature
from itertools import islice
from typing import Any

from session_kit.drivers import Conflict, Driver, Entry
from session_kit.drivers.errors import SessionKitError
from session_kit.drivers.registry import redact, split_url
from session_kit.store import UnstorageSessionStore
from session_kit.testing import CountingDriver

# Between so many entries it is looked whether to stop.
BATCH = 20


def labels(urls: Sequence[str]) -> list[str]:
    """Name each store by its URL without what may be secret; the second of one name is `name #2`.

    >>> labels(["memory://", "redis://:password@localhost", "memory://"])
    ['memory://', 'redis://localhost', 'memory:// #2']
    """
    names = [redact(split_url(url)[0]) for url in urls]
    return [
        f"{name} #{number}" if (number := names[: at + 1].count(name)) > 1 else name for at, name in enumerate(names)
    ]


def like(store: UnstorageSessionStore, **changes: Any) -> UnstorageSessionStore:
    """The same store but for these settings.

    Each setting is an attribute, so that none is forgotten: with another codec another store would be measured.
    """
    settings = {name: getattr(store, name) for name in signature(UnstorageSessionStore).parameters}
    return UnstorageSessionStore(**settings | changes)


@dataclass(eq=False)
class MeasuredStore:
    """A store with a random prefix of our own, and the names of what we wrote.

    store: on the driver that is measured. label: its name in the report.
    check: called now and then while much is written; it raises to stop.
    failures: what went wrong, a line each; failed: whether something did here.
    keys, ids: keys of the driver, and ids of sessions, that are about to be written; note them here.
    """

    store: UnstorageSessionStore
    label: str
    check: Callable[[], None]
    failures: list[str]
    failed: bool = False
    keys: list[str] = field(default_factory=list)
    ids: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        assert isinstance(self.store.ttl, float)  # tells mypy: a URL gives no other
        self.driver, self.ttl = self.store.driver, self.store.ttl

    def behind(self, driver: Driver) -> MeasuredStore:
        """The same store by way of `driver`, which passes on to ours; what is written is noted here too."""
        return replace(self, store=like(self.store, driver=driver))

    def write(self, items: Mapping[str, bytes]) -> None:
        """Store them, a batch at a time."""
        left = iter(items.items())
        while batch := dict(islice(left, BATCH)):
            self.check()
            self.driver.set_many(batch, ttl=self.ttl)

    def clean_up(self) -> None:
        """Delete what was written."""
        if names := [*self.keys, *map(self.store.key, self.ids)]:
            self.driver.delete_many(names)
        self.keys.clear()
        self.ids.clear()

    @contextmanager
    def failing(self, what: str) -> Iterator[None]:
        """Whatever is raised is a failure of this store: the others are still to be measured, and reported."""
        try:
            yield
        except Exception as error:
            said = str(error) if isinstance(error, SessionKitError) else f"{type(error).__name__}: {error}"
            if isinstance(error, (KeyError, Conflict)):
                said = f"an entry that was written is gone, or another's ({said})"
            self.failures.append(f"{self.label}: {what}: {said.removeprefix(f'{self.label}: ')}")
            self.failed = True


class Meter(CountingDriver):
    """Counts calls, and the bytes of the values, or listed keys, that go in and come out."""

    read_bytes = written_bytes = 0

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
