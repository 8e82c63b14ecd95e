"""What is measured: the operations of a driver, and of the session layer on top of it, without any framework."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import cycle
from typing import Any, ClassVar, TypeVar

from session_kit.benchmarks.measured_store import MeasuredStore
from session_kit.headers import Headers
from session_kit.manager import SessionManager
from session_kit.record import name_of, random_name

SECRET = "benchmark-S3cret-of-more-than-32-characters"
# A listing asks some stores for each entry, so that more would take long.
LISTED = 20
MOST_DELETED = 5000
T = TypeVar("T")


class Workload:
    """One kind of operation on one store, with the entries that it needs.

    measured: the store.
    size: bytes of a value, or of a session's data.
    hits: share of the reads that find something.
    crowd: the most workers that will ever work at a time; each has entries of its own.

    `do` and its async twin `ado` do the operation once, with an argument from `arguments`.
    """

    layer: ClassVar[str]
    name: ClassVar[str]
    needs: ClassVar[str | None] = None
    """The capability that a driver must have."""

    do: Callable[[Any], object]
    ado: Callable[[Any], Any]

    def __init__(self, measured: MeasuredStore, size: int, hits: float, crowd: int) -> None:
        self.measured, self.driver = measured, measured.driver
        self.size, self.hits, self.crowd = size, hits, crowd

    def prepare(self) -> None:
        """Write what the operations need, once."""

    def arguments(self, workers: int) -> list[Iterator[Any]]:
        """For each of so many workers the arguments of its operations, before they begin."""
        raise NotImplementedError

    def tidy(self) -> None:
        """Delete what the operations have left behind, after each time."""


class DriverWorkload(Workload):
    layer = "driver"

    def __init__(self, measured: MeasuredStore, size: int, hits: float, crowd: int) -> None:
        super().__init__(measured, size, hits, crowd)
        self.value = b"x" * size
        self.stem = f"{measured.store.prefix}:{random_name()}:"
        self.keys = measured.new_keys()
        self.keys += (f"{self.stem}{number}" for number in range(crowd))
        self.missing = f"{self.stem}missing"

    def prepare(self) -> None:
        self.driver.set_many(dict.fromkeys(self.keys, self.value), ttl=self.measured.ttl)

    def arguments(self, workers: int) -> list[Iterator[Any]]:
        return [mixed(self.keys[worker::workers], self.missing, self.hits) for worker in range(workers)]


class Get(DriverWorkload):
    name = "get"

    def prepare(self) -> None:
        super().prepare()
        self.do, self.ado = self.driver.get, self.driver.aget


class Set(DriverWorkload):
    name = "set"

    def prepare(self) -> None:
        self.do, self.ado = (
            partial(method, value=self.value, ttl=self.measured.ttl) for method in (self.driver.set, self.driver.aset)
        )

    def arguments(self, workers: int) -> list[Iterator[Any]]:
        return [cycle(self.keys[worker::workers]) for worker in range(workers)]


class Swap(DriverWorkload):
    """Writes that expect the version which the same worker wrote before, so that none meets a conflict."""

    name = "swap"
    needs = "swap"

    def prepare(self) -> None:
        self.versions = {key: self.driver.set(key, self.value, ttl=self.measured.ttl) for key in self.keys}

    def arguments(self, workers: int) -> list[Iterator[Any]]:
        return [cycle(self.keys[worker::workers]) for worker in range(workers)]

    def do(self, key: str) -> None:
        self.versions[key] = self.driver.set(key, self.value, ttl=self.measured.ttl, expect=self.versions[key])

    async def ado(self, key: str) -> None:
        self.versions[key] = await self.driver.aset(key, self.value, ttl=self.measured.ttl, expect=self.versions[key])


class Renew(DriverWorkload):
    name = "renew"
    needs = "renew"

    def prepare(self) -> None:
        super().prepare()
        self.do, self.ado = (
            partial(method, ttl=self.measured.ttl) for method in (self.driver.renew, self.driver.arenew)
        )


class Delete(DriverWorkload):
    """Deletes what is there: a stock that is written beforehand, larger each time that it was too small."""

    name = "delete"

    def __init__(self, measured: MeasuredStore, size: int, hits: float, crowd: int) -> None:
        super().__init__(measured, size, hits, crowd)
        self.do, self.ado = self.driver.delete, self.driver.adelete
        self.stock: list[Iterator[str]] = []

    def prepare(self) -> None:
        """The stock is written when it is known how many workers there are."""

    def arguments(self, workers: int) -> list[Iterator[Any]]:
        super().prepare()
        self.stock = [iter(self.keys[worker::workers]) for worker in range(workers)]
        return self.stock

    def tidy(self) -> None:
        left = [key for keys in self.stock for key in keys]
        self.driver.delete_many(left)
        if not left and len(self.keys) < MOST_DELETED:
            more = min(4 * len(self.keys), MOST_DELETED)
            self.keys += [f"{self.stem}{number}" for number in range(len(self.keys), more)]


class List(DriverWorkload):
    """Lists so many entries that have a prefix of their own."""

    name = "list"

    def prepare(self) -> None:
        self.keys[:] = [f"{self.stem}{number}" for number in range(LISTED)]
        super().prepare()

    def arguments(self, workers: int) -> list[Iterator[Any]]:
        return [cycle([self.stem]) for _ in range(workers)]

    def do(self, prefix: str) -> None:
        for _ in self.driver.keys(prefix):
            pass

    async def ado(self, prefix: str) -> None:
        async for _ in self.driver.akeys(prefix):
            pass


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

    @property
    def name(self) -> str:
        """The half of its session's id that finds the record."""
        return name_of(self.cookie.partition(b"=")[2].decode())


class SessionWorkload(Workload):
    """A request without a framework: open, use and commit a session."""

    layer = "session"

    def __init__(self, measured: MeasuredStore, size: int, hits: float, crowd: int) -> None:
        super().__init__(measured, size, hits, crowd)
        self.ids = measured.new_ids()
        self.manager = SessionManager(measured.store, SECRET, generate_id=self._new_id)
        self.data = session_data(size)
        self.browsers: list[Browser] = []

    def prepare(self) -> None:
        self.browsers = [Browser(self._first(self.manager)) for _ in range(self.crowd)]

    def arguments(self, workers: int) -> list[Iterator[Any]]:
        return [cycle(self.browsers[worker::workers]) for worker in range(workers)]

    def tidy(self) -> None:
        kept = {browser.name for browser in self.browsers}
        self.driver.delete_many([self.measured.store.key(name) for name in self.ids if name not in kept])
        self.ids[:] = kept

    def _new_id(self) -> str:
        name = random_name()
        self.ids.append(name)
        return name

    def _first(self, manager: SessionManager) -> Headers:
        session = manager.open()
        session.set(self.data)
        return manager.commit(session)


class Read(SessionWorkload):
    name = "read"

    def prepare(self) -> None:
        super().prepare()
        # Its cookie is well signed, but the store does not know it.
        self.stranger = Browser(self._first(SessionManager("memory://", SECRET)))

    def arguments(self, workers: int) -> list[Iterator[Any]]:
        return [mixed(self.browsers[worker::workers], self.stranger, self.hits) for worker in range(workers)]

    def do(self, browser: Browser) -> None:
        session = self.manager.open(browser.cookie)
        session.get("user")
        self.manager.commit(session)

    async def ado(self, browser: Browser) -> None:
        session = await self.manager.open(browser.cookie, asynchronous=True).aload()
        session.get("user")
        await self.manager.acommit(session)


class Write(SessionWorkload):
    name = "write"

    def do(self, browser: Browser) -> None:
        session = self.manager.open(browser.cookie)
        session["visits"] += 1
        self.manager.commit(session)

    async def ado(self, browser: Browser) -> None:
        session = await self.manager.open(browser.cookie, asynchronous=True).aload()
        session["visits"] += 1
        await self.manager.acommit(session)


class First(SessionWorkload):
    """The first write of a new visitor's session."""

    name = "first"

    def prepare(self) -> None:
        """There is nobody yet."""

    def arguments(self, workers: int) -> list[Iterator[Any]]:
        return [cycle([b""]) for _ in range(workers)]

    def do(self, cookie: bytes) -> None:
        self._first(self.manager)

    async def ado(self, cookie: bytes) -> None:
        session = self.manager.open(cookie, asynchronous=True)
        await session.aload()
        session.set(self.data)
        await self.manager.acommit(session)


class Login(SessionWorkload):
    """A new id for the same session."""

    name = "login"

    def do(self, browser: Browser) -> None:
        session = self.manager.open(browser.cookie)
        session.regenerate()
        browser.receive(self.manager.commit(session))

    async def ado(self, browser: Browser) -> None:
        session = self.manager.open(browser.cookie, asynchronous=True)
        await session.aregenerate()
        browser.receive(await self.manager.acommit(session))


WORKLOADS: dict[str, type[Workload]] = {
    workload.name: workload for workload in (Get, Set, Swap, Renew, Delete, List, Read, Write, First, Login)
}


def session_data(size: int) -> dict[str, Any]:
    """Data whose JSON has about `size` bytes: two short values, and eight texts that share the rest."""
    text = "x" * max(0, (size - 134) // 8)
    return {"user": "ada", "visits": 0} | {f"text{number}": text for number in range(8)}


def mixed(found: Sequence[T], missing: T, hits: float) -> Iterator[T]:
    """Yield, without end, what is found in turn, and `missing` in between, so that `hits` of all are found.

    >>> from itertools import islice
    >>> "".join(islice(mixed("ab", "-", 0.75), 8))
    '-aba-bab'
    """
    percent = round(hits * 100)
    if percent == 100:
        return cycle(found)
    pattern = [(turn + 1) * percent // 100 > turn * percent // 100 for turn in range(100)]
    turns = cycle(found)
    return (next(turns) if hit else missing for hit in cycle(pattern))
