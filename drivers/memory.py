"""Entries in a dict of this process: for tests, for development, and for one process that may forget on restart."""

from __future__ import annotations

import heapq
import itertools
import math
import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING
from urllib.parse import SplitResult

from session_kit.drivers.base import (
    ABSENT,
    ANY,
    LIST_BATCH,
    Capabilities,
    Driver,
    Entry,
    check_expected,
    check_key,
    check_ttl,
    check_value,
)
from session_kit.drivers.errors import ConfigError
from session_kit.drivers.registry import redact
from session_kit.drivers.support.twins import pause

if TYPE_CHECKING:
    from typing import Self

# What an Entry is made of, as a plain tuple: the garbage collector stops looking at those that hold no containers, but
# never at a NamedTuple. A full collection among a million sessions takes 35 ms instead of 160, and is much rarer.
Stored = tuple[bytes, object, float | None]

# Each write frees at most this many expired entries, so that none pays for a backlog; since a write adds one
# at most, the backlog shrinks.
FREED_PER_WRITE = 4

# So many names are copied at a time to walk a dict that others change meanwhile. Each page steps over all names before
# it, so that small ones would take long.
PAGE = 20_000


class MemoryDriver(Driver):
    """A dict with expiry. Nothing is shared with other processes and nothing survives a restart.

    max_entries: if given, at most so many entries are kept and the least recently used goes first. Off by default,
        because a limit logs people out.
    clock: Unix time in seconds.

    In a URL `memory://name` is one store for everybody in this process who uses that name, `memory://` a new one.

    >>> driver = MemoryDriver(max_entries=1)
    >>> _ = driver.set("a", b"1"), driver.set("b", b"2")
    >>> list(driver.keys())
    ['b']
    """

    capabilities = Capabilities(renew=True, create=True, swap=True, never_blocks=True)

    def __init__(self, *, max_entries: int | None = None, clock: Callable[[], float] = time.time) -> None:
        if max_entries is not None and max_entries < 1:
            raise ConfigError(f"max_entries must be at least 1, not {max_entries}")
        self.max_entries = max_entries
        self._entries: dict[str, Stored] = {} if max_entries is None else OrderedDict()
        # The key of each entry with an expiry is filed under the second by which it was due then, and a heap says which
        # second is next. A key that comes up early, because its entry was renewed since, is filed again: no renewal
        # ever searches.
        self._due: dict[int, list[str]] = {}
        self._seconds: list[int] = []
        self._filed = 0  # keys in all of `_due`
        self._removed = 0  # entries, so far
        self._versions = itertools.count(1)
        self._lock = threading.Lock()
        super().__init__(clock=clock)

    @classmethod
    def from_url(cls, url: SplitResult, **options: object) -> Self:
        if url.path not in ("", "/"):
            raise ConfigError(f"{redact(url)}: a name, like memory://shop, has no slash in it")
        if not url.netloc:
            return super().from_url(url, **options)
        with _shared_lock:
            driver = _shared.get(url.netloc)
            if driver is None:
                driver = _shared[url.netloc] = super().from_url(url, **options)
        wanted = options.get("max_entries", driver.max_entries)
        if not isinstance(driver, cls) or wanted != driver.max_entries:
            raise ConfigError(f"{redact(url)} is already open with max_entries={driver.max_entries}")
        return driver

    def read(self, key: str) -> Entry | None:
        check_key(key)
        if self.max_entries is None:
            stored = self._live(key, self.clock())
        else:
            with self._lock:
                if (stored := self._live(key, self.clock())) is not None:
                    self._entries[key] = self._entries.pop(key)
        return None if stored is None else tuple.__new__(Entry, stored)

    def renew(self, key: str, ttl: float) -> Entry | None:
        check_key(key)
        check_ttl(ttl)
        now = self.clock()
        with self._lock:
            old = self._live(key, now)
            if old is None:
                return None
            renewed = (old[0], old[1], now + ttl)
            self._put(key, renewed, old)
        return tuple.__new__(Entry, renewed)

    def touch(self, key: str, ttl: float | None) -> bool:
        check_key(key)
        check_ttl(ttl)
        now = self.clock()
        with self._lock:
            stored = self._live(key, now)
            if stored is None:
                return False
            value, version, _ = stored
            self._put(key, (value, version, None if ttl is None else now + ttl), stored)
            return True

    def set(self, key: str, value: bytes, *, ttl: float | None = None, expect: object = ANY) -> object:
        check_key(key)
        check_value(value)
        check_ttl(ttl)
        now = self.clock()
        with self._lock:
            if self._seconds and self._seconds[0] <= now:
                self._free(FREED_PER_WRITE, now, now)
            old = self._live(key, now)
            seen = ABSENT if old is None else old[1]
            if expect is not ANY and expect != seen:
                check_expected(old is not None, seen, expect)
            version = next(self._versions)
            self._put(key, (value, version, None if ttl is None else now + ttl), old)
            if self.max_entries is not None and len(self._entries) > self.max_entries:
                self._entries.pop(next(iter(self._entries)))
            return version

    def delete(self, key: str, *, expect: object = ANY) -> bool:
        check_key(key)
        now = self.clock()
        with self._lock:
            stored = self._live(key, now)
            if expect is not ANY:
                check_expected(stored is not None, None if stored is None else stored[1], expect)
            if self._entries.pop(key, None) is not None:
                self._removed += 1
            return stored is not None

    def keys(self, prefix: str = "") -> Iterator[str]:
        for page in self._pages():
            for key in page:
                if key.startswith(prefix) and self._live(key, self.clock()) is not None:
                    yield key

    def prune(self) -> int:
        count = 0
        for freed in self._freed():
            count += freed
            time.sleep(0)  # or a thread that waits for the lock would seldom get it before the next batch does
        return count

    async def aprune(self) -> int:
        """Async twin of `prune`; lets other tasks run between batches."""
        count = 0
        for freed in self._freed():
            count += freed
            await pause()
        return count

    async def aclear(self, prefix: str = "") -> int:
        """Async twin of `clear`; lets other tasks run between batches."""
        count = 0
        async for key in self.akeys(prefix):
            count += self.delete(key)
        return count

    def after_fork(self) -> None:
        super().after_fork()
        self._lock = threading.Lock()

    def _live(self, key: str, now: float) -> Stored | None:
        stored = self._entries.get(key)
        if stored is None or ((expires_at := stored[2]) is not None and expires_at <= now):
            return None
        return stored

    def _put(self, key: str, stored: Stored, old: Stored | None) -> None:
        if self.max_entries is not None:
            self._entries.pop(key, None)  # it is the last that goes now
        self._entries[key] = stored
        expires_at = stored[2]
        # A key that comes up too early is filed again by _free; only one that would come up too late has to be now.
        if expires_at is not None and (old is None or old[2] is None or expires_at < old[2]):
            self._file(key, expires_at)
            if self._filed > 2 * len(self._entries) + 64:
                self._due, self._seconds, self._filed = {}, [], 0
                for each, (_, _, due) in self._entries.items():
                    if due is not None:
                        self._file(each, due)

    def _file(self, key: str, expires_at: float) -> None:
        second = math.ceil(expires_at)
        keys = self._due.get(second)
        if keys is None:
            self._due[second] = [key]
            heapq.heappush(self._seconds, second)
        else:
            keys.append(key)
        self._filed += 1

    def _pages(self) -> Iterator[list[str]]:
        """All names, a page at a time. What others remove between two pages hides no other name.

        A dict keeps its order: what is new comes last, and behind what is removed the rest moves up. So the next page
        begins as many names earlier as were removed meanwhile, and leaves out those that were just walked.
        """
        if self.max_entries is not None:  # then a name moves when it is used, but there are only so many
            with self._lock:
                found = list(self._entries)
            yield found
            return
        at, removed, walked = 0, self._removed, deque[str](maxlen=PAGE)
        while True:
            with self._lock:
                gone, removed = self._removed - removed, self._removed
                at = max(0, at - gone)
                found = list(itertools.islice(self._entries, at, at + PAGE))
            if not found:
                return
            at += len(found)
            if gone:
                known = set(walked)
                found = [key for key in found if key not in known]
            walked.extend(found)
            yield found

    def _freed(self) -> Iterator[int]:
        """Free what has expired by now, and yield how many entries each batch was; nobody waits for more than one."""
        now = self.clock()
        last, early = math.ceil(now), list[str]()
        try:
            while True:
                with self._lock:
                    if not self._seconds or self._seconds[0] > last:
                        return
                    freed = self._free(LIST_BATCH, now, last, early)
                yield freed
        finally:
            with self._lock:
                for key in early:
                    self._file_again(key)

    def _free(self, most: int, now: float, last: float, early: list[str] | None = None) -> int:
        """Drop expired entries, looking at no more than so many keys, and only at those due by the second `last`.

        early: takes those that are not due yet, for a caller who would otherwise meet them again.
        """
        freed = 0
        for _ in range(most):
            if not self._seconds or self._seconds[0] > last:
                break
            keys = self._due[self._seconds[0]]
            key = keys.pop()
            self._filed -= 1
            if not keys:
                del self._due[heapq.heappop(self._seconds)]
            if key in self._entries and self._live(key, now) is None:
                del self._entries[key]
                self._removed += 1
                freed += 1
            elif early is None:
                self._file_again(key)
            else:
                early.append(key)
        return freed

    def _file_again(self, key: str) -> None:
        stored = self._entries.get(key)
        if stored is not None and stored[2] is not None:
            self._file(key, stored[2])


_shared: dict[str, MemoryDriver] = {}
_shared_lock = threading.Lock()
