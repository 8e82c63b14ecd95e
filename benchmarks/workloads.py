"""What is measured: the operations of a driver, and of the session layer on top of it, without any framework."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from functools import partial
from itertools import count, cycle
from math import floor
from typing import Any, ClassVar

from session_kit.benchmarks.measured_store import MeasuredStore
from session_kit.drivers import Entry
from session_kit.headers import Headers
from session_kit.manager import SessionManager
from session_kit.record import random_name
from session_kit.session import Session

SECRET = "benchmark-S3cret-of-more-than-32-characters"
# A listing asks some stores for each entry, so that more would take long.
LISTED = 20
# Bytes, since a store with a limit of size may evict what is not ours. Half of them are for the entries that workers
# have of their own, half for those that come and go.
MOST_HELD = 8_000_000
# What an entry takes beyond its value: the key, the notes of a session, and what the store adds.
OVERHEAD = 500
# At most so many come and go at a time.
MOST_ENTRIES = 5000
# Bytes of JSON in the smallest session.
LEAST_DATA = 134


def weight(size: int) -> int:
    """About how many bytes an entry takes."""
    return size + OVERHEAD


def most_entries(size: int) -> int:
    """How many entries of that size workers may have, and how many may come and go."""
    return min(MOST_ENTRIES, MOST_HELD // 2 // weight(size))


class Workload:
    """One kind of operation on one store, with the entries that it needs.

    measured: the store.
    size: bytes of a value, or of a session's data.
    crowd: the most workers that will ever work at a time; each has entries of its own.

    `do` and its async twin `ado` do the operation once, with an argument from `arguments`.
    """

    layer: ClassVar[str]
    name: ClassVar[str]
    needs: ClassVar[str | None] = None  # the capability that a driver must have
    reads: ClassVar[bool] = False  # the share of hits applies to it

    do: Callable[[Any], object]
    ado: Callable[[Any], Any]
    check: Callable[[Any, Any], bool] | None = None
    """Tells of an argument, and what the operation returned, whether that was the entry which was written."""
    missing: Any  # the argument of a read that is to find nothing

    def __init__(self, measured: MeasuredStore, size: int, crowd: int) -> None:
        self.measured, self.driver = measured, measured.driver
        self.size, self.crowd = size, crowd
        self.room = crowd  # for so many operations, if each makes an entry, or uses one up
        self.entries: list[Any] = []

    def __str__(self) -> str:
        return f"{self.layer} {self.name}, {self.size} B"

    def prepare(self) -> None:
        """Write what the operations need, once."""

    def arguments(self, workers: int, turns: Iterator[bool] | None) -> list[Iterator[Any]]:
        """For each of so many workers the arguments of its operations, before they begin.

        turns: whether the next read is to find something; None if all are.
        """
        return [mixed(self.entries[worker::workers], self.missing, turns) for worker in range(workers)]

    def tidy(self) -> None:
        """Make room again, when the arguments have come to an end or the time is up."""

    def make_room(self) -> None:
        """Let more be done until `tidy`."""
        self.room = min(4 * self.room, most_entries(self.size))


class DriverWorkload(Workload):
    layer = "driver"

    def __init__(self, measured: MeasuredStore, size: int, crowd: int) -> None:
        super().__init__(measured, size, crowd)
        self.value = b"x" * size
        self.values: dict[str, bytes] = {}
        self.stem = f"{measured.store.prefix}:{random_name()}:"
        self.missing = f"{self.stem}missing"
        self.name_keys(crowd)

    def name_keys(self, most: int) -> None:
        """Name so many keys in all. Each has a value of its own, so that an answer with another's is noticed."""
        for number in range(len(self.entries), most):
            key = f"{self.stem}{number}"
            self.measured.keys.append(key)
            self.entries.append(key)
            self.values[key] = (b"%d" % number).ljust(self.size, b"x")[: self.size]

    def prepare(self) -> None:
        self.measured.write(self.values)


class Call(DriverWorkload):
    """The driver's method of that name. takes: what it is called with, beside the key."""

    takes: ClassVar[Sequence[str]] = ()

    def __init__(self, measured: MeasuredStore, size: int, crowd: int) -> None:
        super().__init__(measured, size, crowd)
        known = {"value": self.value, "ttl": measured.ttl}
        options = {name: known[name] for name in self.takes}
        self.do, self.ado = (partial(getattr(self.driver, name), **options) for name in (self.name, f"a{self.name}"))


class Get(Call):
    name = "get"
    reads = True

    def check(self, key: str, value: bytes | None) -> bool:
        return value is not None and value == self.values.get(key)


class Set(Call):
    name = "set"
    takes = ("value", "ttl")


class Swap(DriverWorkload):
    """Writes that expect the version which the same worker wrote before, so that none meets a conflict."""

    name = "swap"
    needs = "swap"

    def prepare(self) -> None:
        self.versions: dict[str, object] = {}
        for key in self.entries:
            self.measured.check()
            self.versions[key] = self.driver.set(key, self.value, ttl=self.measured.ttl)

    def do(self, key: str) -> None:
        self.versions[key] = self.driver.set(key, self.value, ttl=self.measured.ttl, expect=self.versions[key])

    async def ado(self, key: str) -> None:
        self.versions[key] = await self.driver.aset(key, self.value, ttl=self.measured.ttl, expect=self.versions[key])


class Renew(Call):
    name = "renew"
    needs = "renew"
    reads = True
    takes = ("ttl",)

    def check(self, key: str, entry: Entry | None) -> bool:
        return entry is not None and entry.value == self.values.get(key)


class Delete(Call):
    """Deletes what is there: a stock, which is filled up again outside of the measured time."""

    name = "delete"

    def prepare(self) -> None:
        self.left: set[str] = set()

    def arguments(self, workers: int, turns: Iterator[bool] | None) -> list[Iterator[Any]]:
        self.name_keys(self.room)
        self.measured.write({key: value for key, value in self.values.items() if key not in self.left})
        self.stock = deque(self.entries)
        return [taken(self.stock) for _ in range(workers)]

    def tidy(self) -> None:
        self.left = set(self.stock)

    def check(self, key: str, deleted: bool) -> bool:
        return deleted


class List(DriverWorkload):
    """Lists so many entries that have a prefix of their own."""

    name = "list"

    def __init__(self, measured: MeasuredStore, size: int, crowd: int) -> None:
        super().__init__(measured, size, min(LISTED, most_entries(size)))

    def arguments(self, workers: int, turns: Iterator[bool] | None) -> list[Iterator[Any]]:
        return [cycle([self.stem]) for _ in range(workers)]

    def do(self, prefix: str) -> int:
        return len(list(self.driver.keys(prefix)))

    async def ado(self, prefix: str) -> int:
        return len([key async for key in self.driver.akeys(prefix)])

    def check(self, prefix: str, listed: int) -> bool:
        return listed == len(self.entries)


class Browser:
    """One visitor's cookie."""

    __slots__ = ("cookie",)

    def __init__(self, headers: Headers) -> None:
        self.cookie = b""
        self.receive(headers)

    def receive(self, headers: Headers) -> None:
        for name, value in headers:
            if name == "Set-Cookie":
                self.cookie = value.partition(";")[0].encode()


class SessionWorkload(Workload):
    """A request without a framework: open, use and commit a session."""

    layer = "session"

    def __init__(self, measured: MeasuredStore, size: int, crowd: int) -> None:
        super().__init__(measured, size, crowd)
        self.manager = SessionManager(measured.store, SECRET, generate_id=self._new_id)
        self.data = session_data(size)
        # Its cookie is well signed, but the store does not know it.
        self.missing = self._new_browser(SessionManager("memory://", SECRET))

    def prepare(self) -> None:
        for _ in range(self.crowd):
            self.measured.check()
            self.entries.append(self._new_browser(self.manager))

    def _new_id(self) -> str:
        name = random_name()
        self.measured.ids.append(name)
        return name

    def _new_browser(self, manager: SessionManager) -> Browser:
        session = manager.open()
        session.set(self.data)
        return Browser(manager.commit(session))

    def use(self, session: Session[Any]) -> object:
        """What a handler does with it."""
        raise NotImplementedError

    def do(self, browser: Browser) -> object:
        session = self.manager.open(browser.cookie)
        result = self.use(session)
        self.manager.commit(session)
        return result

    async def ado(self, browser: Browser) -> object:
        session = await self.manager.open(browser.cookie, asynchronous=True).aload()
        result = self.use(session)
        await self.manager.acommit(session)
        return result


class Read(SessionWorkload):
    name = "read"
    reads = True

    def use(self, session: Session[Any]) -> object:
        return session.get("user")

    def check(self, browser: Browser, user: object) -> bool:
        return user is not None


class Write(SessionWorkload):
    name = "write"

    def use(self, session: Session[Any]) -> None:
        session["visits"] += 1


class First(SessionWorkload):
    """The first write of a new visitor's session."""

    name = "first"

    def prepare(self) -> None:
        """There is nobody yet."""

    def arguments(self, workers: int, turns: Iterator[bool] | None) -> list[Iterator[Any]]:
        visitors = deque([Browser([])] * self.room)
        return [taken(visitors) for _ in range(workers)]

    def tidy(self) -> None:
        self.measured.clean_up()

    def use(self, session: Session[Any]) -> None:
        session.set(self.data)


class Login(SessionWorkload):
    """A new id for the same session."""

    name = "login"

    def do(self, browser: Browser) -> bool:
        session = self.manager.open(browser.cookie)
        known = not session.regenerate().is_new
        browser.receive(self.manager.commit(session))
        return known

    async def ado(self, browser: Browser) -> bool:
        session = self.manager.open(browser.cookie, asynchronous=True)
        known = not (await session.aregenerate()).is_new
        browser.receive(await self.manager.acommit(session))
        return known

    def check(self, browser: Browser, known: bool) -> bool:
        return known


WORKLOADS: dict[str, type[Workload]] = {
    workload.name: workload for workload in (Get, Set, Swap, Renew, Delete, List, Read, Write, First, Login)
}


def session_data(size: int) -> dict[str, Any]:
    """Data whose JSON has about `size` bytes: two short values, and eight texts that share the rest."""
    text = "x" * ((size - LEAST_DATA) // 8)
    return {"user": "ada", "visits": 0} | {f"text{number}": text for number in range(8)}


def turns_of(hits: float) -> Iterator[bool] | None:
    """Whether each read is to find something, without end: after any number it is as near to that share as can be.

    None if all are. Several threads may take from it.

    >>> from itertools import islice
    >>> list(islice(turns_of(0.75), 4)), turns_of(1)
    ([True, True, False, True], None)
    """

    def finds(turn: int) -> bool:
        return floor((turn + 1) * hits + 0.5) > floor(turn * hits + 0.5)

    return None if hits == 1 else map(finds, count())  # a generator would not stand several threads


def taken(stock: deque[Any]) -> Iterator[Any]:
    """Yield what is taken out of a stock until there is nothing left. Several threads may take from one.

    >>> list(taken(deque("ab")))
    ['a', 'b']
    """
    # Not the iterator of a list: without the GIL two threads would get the same item.
    with suppress(IndexError):
        while True:
            yield stock.popleft()


def mixed(found: Iterable[Any], missing: Any, turns: Iterator[bool] | None) -> Iterator[Any]:
    """Yield, without end, what is found in turn, and `missing` when it is its turn.

    >>> from itertools import islice
    >>> "".join(islice(mixed("ab", "-", turns_of(0.75)), 8))
    'ab-aba-b'
    """
    ours = cycle(found)
    return ours if turns is None else (next(ours) if hit else missing for hit in turns)
