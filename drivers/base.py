"""What a driver promises: bytes in, bytes out, under string keys, with a time to live.

A driver author writes four blocking methods (`read`, `set`, `delete`, `keys`) and gets the rest, the async twins
included. `session_kit.testing.DriverConformance` proves that a driver keeps what this file says.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, NamedTuple, ParamSpec, TypeVar
from urllib.parse import SplitResult

from session_kit.drivers.errors import Conflict, Unsupported
from session_kit.drivers.support.checks import (
    ABSENT,
    ANY,
    CHANGED,
    MAX_KEY_BYTES,
    check_expected,
    check_key,
    check_ttl,
    check_value,
)
from session_kit.drivers.support.findings import Finding
from session_kit.drivers.support.forks import tell_of_forks
from session_kit.drivers.support.options import Parser, options_of
from session_kit.drivers.support.threads import Threads, in_thread
from session_kit.drivers.support.twins import pause

if TYPE_CHECKING:
    from typing import Self

__all__ = [
    "ABSENT",
    "ANY",
    "CHANGED",
    "LIST_BATCH",
    "MAX_KEY_BYTES",
    "PRUNE_BATCH",
    "WRITES_PER_PRUNE",
    "Capabilities",
    "Driver",
    "Entry",
    "check_expected",
    "check_key",
    "check_ttl",
    "check_value",
]

P = ParamSpec("P")
R = TypeVar("R")

LIST_BATCH: Final = 1000
# Expired rows are hidden at once and removed a batch at a time, once in so many writes: always faster than they arrive.
WRITES_PER_PRUNE: Final = 256
PRUNE_BATCH: Final = 1024


class Entry(NamedTuple):
    """One stored value, as `read` returns it.

    value: the bytes that were set.
    version: opaque; hand it back as `expect=` to write only if nobody else has.
    expires_at: Unix time in seconds; None if the entry never expires, or the backend cannot tell.
    """

    value: bytes
    version: object
    expires_at: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Capabilities:
    """What a driver can do beyond the minimum.

    The conformance suite fails a driver that claims `create`, `swap` or `shared` and does not keep it. What a call
    costs, and who drops what has expired, it cannot see.

    native_ttl: the backend itself drops what has expired.
    renew: `renew` costs no more than `read`, so that a session may slide its expiry on each use.
    create: `expect=ABSENT` is honoured; of many racers one wins.
    swap: `expect=version` is honoured, for `set` and for `delete`.
    shared: other processes see the same entries.
    never_blocks: every call returns at once; the async twins then run on the event loop itself, without a thread.
    quick_reads: `read`, `get` and `has` wait for no network and no lock, so they too may run on the event loop.
    """

    native_ttl: bool = False
    renew: bool = False
    create: bool = False
    swap: bool = False
    shared: bool = False
    never_blocks: bool = False
    quick_reads: bool = False

    def __post_init__(self) -> None:
        if self.never_blocks and not self.quick_reads:
            object.__setattr__(self, "quick_reads", True)


class Driver:
    """A key-value store: the contract, and what follows from its four required methods.

    Required: `read`, `set`, `delete`, `keys`. All else is derived here; override what the backend does better.
    Every method that does I/O, but `examine`, has an async twin with the prefix `a`. A twin runs the blocking method in
    a worker thread of the driver's own pool, or on the event loop itself where `capabilities` says that it never waits.

    Rules for every driver:

    - Missing and expired are the same: `None` or `False`. What has expired is seen by no method.
    - `ttl` is in seconds, fractions allowed; `None` keeps for ever. A `set` without a ttl drops an earlier one.
    - `expect=ABSENT` creates only, `expect=version` writes only what has not changed since that read; otherwise
      `Conflict` is raised and nothing is written. A driver that can't do it raises `Unsupported` before any I/O.
    - Any key that `check_key` accepts comes back from `keys` unchanged, and a prefix is taken literally.
    - An outage raises `DriverUnavailable`; it never looks like a missing key.
    - One driver object serves many threads, many event loops, and survives a fork.

    Parameters of every driver:
        clock: returns Unix time in seconds; tests inject their own. Default `time.time`.

    An author's `__init__` calls this one last: from then on the driver hears of forks, and has to be complete.
    """

    capabilities: Capabilities = Capabilities()
    threads = 16
    """Size of the thread pool behind the async twins."""

    def __init__(self, *, clock: Callable[[], float] = time.time) -> None:
        self.clock = clock
        # Of its own: behind the application's slow jobs in asyncio's default pool, sessions would wait.
        self._threads = Threads(self.threads, type(self).__name__)
        tell_of_forks(self)

    @classmethod
    def url_options(cls, url: SplitResult) -> Mapping[str, Parser]:
        """The options that a URL may name, each with what turns its text into a value.

        By default the keyword-only parameters of `__init__` of a type that text can give.
        """
        return options_of(cls)

    @classmethod
    def from_url(cls, url: SplitResult, **options: object) -> Self:
        """Make a driver from a URL; `options` are its query parameters, already converted to their types."""
        return cls(**options)  # type: ignore[arg-type]  # the registry has checked them against the signature

    # --- required of an author ---

    def read(self, key: str) -> Entry | None:
        """Return the entry under `key`, or None if there is none or it has expired."""
        raise NotImplementedError

    def set(self, key: str, value: bytes, *, ttl: float | None = None, expect: object = ANY) -> object:
        """Store `value` and return its version.

        ttl: seconds until it expires; None keeps it for ever.
        expect: `ANY` overwrites, `ABSENT` only creates, a version only replaces what was read.
        Raises `Conflict`, `Unsupported`, `DriverUnavailable`; `ValueError` for a bad key or ttl.
        """
        raise NotImplementedError

    def delete(self, key: str, *, expect: object = ANY) -> bool:
        """Delete `key`; False if it was not there. With `expect=version`, `Conflict` if it is not that version."""
        raise NotImplementedError

    def keys(self, prefix: str = "") -> Iterator[str]:
        """Yield the live keys that begin with `prefix`, in no particular order, without collecting them first.

        A key that lives through the whole iteration is seen exactly once; one that comes or goes meanwhile may be.
        """
        raise NotImplementedError

    # --- derived ---

    def get(self, key: str) -> bytes | None:
        """Return the value under `key`, or None."""
        entry = self.read(key)
        return None if entry is None else entry.value

    def has(self, key: str) -> bool:
        """Tell whether `key` is there and has not expired."""
        return self.read(key) is not None

    def renew(self, key: str, ttl: float) -> Entry | None:
        """Read `key` and let it live for another `ttl` seconds from now. Where the backend can, in one round trip."""
        return self.read(key) if self.touch(key, ttl) else None

    def touch(self, key: str, ttl: float | None) -> bool:
        """Give `key` a new time to live without changing its value; False if it is not there."""
        check_ttl(ttl)
        entry = self.read(key)
        if entry is None:
            return False
        try:
            self.set(key, entry.value, ttl=ttl, expect=entry.version if self.capabilities.swap else ANY)
        except Conflict:  # somebody wrote it, with a fresh ttl, or deleted it
            return self.has(key)
        return True

    def get_many(self, keys: Iterable[str]) -> dict[str, bytes]:
        """Return the values of those `keys` that are there."""
        return {key: value for key in keys if (value := self.get(key)) is not None}

    def set_many(self, items: Mapping[str, bytes], *, ttl: float | None = None) -> None:
        """Store all `items` with one ttl. Not atomic: an outage may leave some written."""
        for key, value in items.items():
            self.set(key, value, ttl=ttl)

    def delete_many(self, keys: Iterable[str]) -> int:
        """Delete `keys` and return how many were there."""
        return sum(self.delete(key) for key in keys)

    def clear(self, prefix: str = "") -> int:
        """Delete every key that begins with `prefix` and return how many there were. Never flushes a database."""
        keys, count = self.keys(prefix), 0
        while batch := list(itertools.islice(keys, LIST_BATCH)):
            count += self.delete_many(batch)
        return count

    def prune(self) -> int:
        """Drop what has expired but still takes room, and return how many entries; 0 where nothing lingers."""
        return 0

    def prepare(self) -> None:
        """Find out what the backend can do, where it has to be asked; from then on `capabilities` is final."""

    def examine(self) -> Iterator[Finding]:
        """Yield what an operator should know of the backend beyond this contract: clock, permissions, settings."""
        return iter(())

    def close(self) -> None:
        """Release connections and threads. Idempotent; never closes a client that the caller handed in."""
        self._threads.close()

    # --- the async twins ---

    async def aread(self, key: str) -> Entry | None:
        """Async twin of `read`."""
        return self.read(key) if self.reads_at_once() else await self._in_thread(self.read, key)

    async def aset(self, key: str, value: bytes, *, ttl: float | None = None, expect: object = ANY) -> object:
        """Async twin of `set`."""
        if self.capabilities.never_blocks:
            return self.set(key, value, ttl=ttl, expect=expect)
        return await self._in_thread(self.set, key, value, ttl=ttl, expect=expect)

    async def adelete(self, key: str, *, expect: object = ANY) -> bool:
        """Async twin of `delete`."""
        if self.capabilities.never_blocks:
            return self.delete(key, expect=expect)
        return await self._in_thread(self.delete, key, expect=expect)

    async def akeys(self, prefix: str = "") -> AsyncIterator[str]:
        """Async twin of `keys`; lets other tasks run between batches."""
        keys = self.keys(prefix)
        while batch := await self._call(_take, keys):
            for key in batch:
                yield key
            await pause()

    async def aget(self, key: str) -> bytes | None:
        """Async twin of `get`."""
        return self.get(key) if self.reads_at_once() else await self._in_thread(self.get, key)

    async def ahas(self, key: str) -> bool:
        """Async twin of `has`."""
        return self.has(key) if self.reads_at_once() else await self._in_thread(self.has, key)

    async def arenew(self, key: str, ttl: float) -> Entry | None:
        """Async twin of `renew`."""
        return await self._call(self.renew, key, ttl)

    async def atouch(self, key: str, ttl: float | None) -> bool:
        """Async twin of `touch`."""
        return await self._call(self.touch, key, ttl)

    async def aget_many(self, keys: Iterable[str]) -> dict[str, bytes]:
        """Async twin of `get_many`."""
        return await self._call(self.get_many, keys)

    async def aset_many(self, items: Mapping[str, bytes], *, ttl: float | None = None) -> None:
        """Async twin of `set_many`."""
        await self._call(self.set_many, items, ttl=ttl)

    async def adelete_many(self, keys: Iterable[str]) -> int:
        """Async twin of `delete_many`."""
        return await self._call(self.delete_many, keys)

    async def aclear(self, prefix: str = "") -> int:
        """Async twin of `clear`."""
        return await self._call(self.clear, prefix)

    async def aprune(self) -> int:
        """Async twin of `prune`."""
        return await self._call(self.prune)

    async def aprepare(self) -> None:
        """Async twin of `prepare`."""
        if type(self).prepare is not Driver.prepare:
            await self._call(self.prepare)

    async def aclose(self) -> None:
        """Async twin of `close`."""
        self.close()

    # --- for authors ---

    def reads_at_once(self) -> bool:
        """Whether a read waits for nothing, so that its async twin runs on the event loop itself.

        Override it where `quick_reads` is true only once the backend has been opened.
        """
        return self.capabilities.quick_reads

    def is_over(self, expires_at: float | None) -> bool:
        """Whether an entry that ends then, in Unix time, has ended by this driver's clock."""
        return expires_at is not None and expires_at <= self.clock()

    def expires_at(self, ttl: float | None) -> float | None:
        """Turn a ttl into a Unix time by this driver's clock, or raise `ValueError`."""
        check_ttl(ttl)
        return None if ttl is None else self.clock() + ttl

    def unsupported(self, what: str) -> Unsupported:
        """The error to raise where `capabilities` says no."""
        return Unsupported(f"{type(self).__name__} cannot do {what}; see its capabilities")

    def before_fork(self) -> None:
        """Called in the thread that is about to fork: leave nothing half done that the child would inherit."""

    def after_fork_in_parent(self) -> None:
        """Called when the fork is done: go on."""

    def after_fork(self) -> None:
        """Called in the child after a fork: locks and threads of the parent are of no use there."""
        self._threads.after_fork()

    async def _call(self, method: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        if self.capabilities.never_blocks:
            return method(*args, **kwargs)
        return await self._in_thread(method, *args, **kwargs)

    async def _in_thread(self, method: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        return await in_thread(lambda: method(*args, **kwargs), self._threads.pool())


def _take(keys: Iterator[str]) -> list[str]:
    return list(itertools.islice(keys, LIST_BATCH))
