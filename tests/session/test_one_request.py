"""The tasks of one request, and what comes after it: one load, saves queue up, no change is lost in silence."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import anyio
import pytest

from session_kit import DriverUnavailable, Session, SessionError, SessionManager, UnstorageSessionStore
from session_kit.drivers.memory import MemoryDriver
from session_kit.testing import CountingDriver, FaultyDriver
from tests.harness.sessions import SECRET, SlowDriver, cookie_of


@pytest.fixture
def driver() -> CountingDriver:
    return CountingDriver(SlowDriver(MemoryDriver()))


@pytest.fixture
def manager(driver: CountingDriver) -> SessionManager:
    return SessionManager(UnstorageSessionStore(driver), SECRET)


def count(data: Mapping[str, Any]) -> dict[str, int]:
    return {"n": data.get("n", 0) + 1}


async def begin(manager: SessionManager, **data: Any) -> str:
    """Store a session and return its cookie."""
    session = await manager.open(asynchronous=True).aload()
    session.update(data)
    return cookie_of(await manager.acommit(session))


async def read(manager: SessionManager, cookie: str) -> dict[str, Any]:
    return dict(await manager.open(cookie, asynchronous=True).aload())


def test_loads_that_overlap_are_one(manager: SessionManager, driver: CountingDriver) -> None:
    async def main() -> None:
        cookie = await begin(manager, a=1)
        driver.reset()
        session = manager.open(cookie, asynchronous=True)
        loaded = await asyncio.gather(*(session.aload() for _ in range(5)))
        assert all(one is session for one in loaded)
        assert driver.calls == ["renew"]
        assert dict(session) == {"a": 1}

    asyncio.run(main())


def test_what_comes_while_a_save_is_under_way_is_not_taken_for_saved(manager: SessionManager) -> None:
    async def main() -> None:
        cookie = await begin(manager, start=1)
        session = await manager.open(cookie, asynchronous=True).aload()
        session["a"] = 1
        saving = asyncio.ensure_future(session.asave())
        await asyncio.sleep(0)
        session["b"] = 2
        await saving
        await manager.acommit(session)
        assert await read(manager, cookie) == {"start": 1, "a": 1, "b": 2}

    asyncio.run(main())


def test_saves_of_a_new_session_that_overlap_make_one(manager: SessionManager, driver: CountingDriver) -> None:
    async def main() -> None:
        session = await manager.open(asynchronous=True).aload()
        session["a"] = 1
        await asyncio.gather(session.asave(), session.asave())
        cookie = cookie_of(await manager.acommit(session))
        assert driver.calls == ["set"]
        assert await read(manager, cookie) == {"a": 1}

    asyncio.run(main())


def test_the_end_of_a_request_waits_for_a_save_that_nobody_awaited(manager: SessionManager) -> None:
    async def main() -> None:
        session = await manager.open(asynchronous=True).aload()
        session["a"] = 1
        saving = asyncio.ensure_future(session.asave())
        await asyncio.sleep(0)
        headers = dict(await manager.acommit(session))
        await saving
        assert await read(manager, headers["Set-Cookie"].split(";")[0]) == {"a": 1}

    asyncio.run(main())


def test_tasks_that_count_all_count(manager: SessionManager) -> None:
    async def main() -> None:
        cookie = await begin(manager, n=0)

        async def add(session: Session) -> None:
            session.update(count)
            await session.asave()

        async def request() -> None:
            session = await manager.open(cookie, asynchronous=True).aload()
            await asyncio.gather(*(add(session) for _ in range(10)))
            await manager.acommit(session)

        await asyncio.gather(request(), request())
        assert await read(manager, cookie) == {"n": 20}

    asyncio.run(main())


def change(session: Session) -> None:
    session["late"] = 1


@pytest.mark.parametrize(
    "late",
    [
        change,
        lambda session: session.update(late=1),
        lambda session: session.set({}),
        lambda session: session.setdefault("late", 1),
        lambda session: session.pop("a"),
        lambda session: session.clear(),
        lambda session: session.regenerate(),
        lambda session: session.destroy(),
    ],
)
def test_a_change_after_the_end_of_the_request_raises(late: Callable[[Session], object]) -> None:
    manager = SessionManager("memory://", SECRET)
    session = manager.open()
    session["a"] = 1
    manager.commit(session)
    manager.finish(session)
    with pytest.raises(SessionError, match="has ended"):
        late(session)
    assert session["a"] == 1


def test_a_task_that_outlives_its_request_is_told(manager: SessionManager) -> None:
    async def main() -> None:
        cookie = await begin(manager, a=1)
        session = await manager.open(cookie, asynchronous=True).aload()
        await manager.acommit(session)
        await manager.afinish(session)
        with pytest.raises(SessionError, match="has ended"):
            session["late"] = 1
        with pytest.raises(SessionError, match="has ended"):
            await session.aregenerate()
        with pytest.raises(SessionError, match="has ended"):
            await session.adestroy()

    asyncio.run(main())


def test_a_handler_that_fails_beside_a_save_does_not_bring_the_old_value_back(manager: SessionManager) -> None:
    async def main() -> None:
        cookie = await begin(manager, n=1)
        session = await manager.open(cookie, asynchronous=True).aload()
        session["n"] = 2
        saving = asyncio.ensure_future(session.asave())
        await asyncio.sleep(0)
        session["late"] = True
        manager.revert(session)
        await saving
        assert dict(session) == {"n": 2}
        session["by"] = "an error handler"
        await manager.acommit(session)
        assert await read(manager, cookie) == {"n": 2, "by": "an error handler"}

    asyncio.run(main())


def test_a_handler_that_fails_after_a_save_that_failed_keeps_nothing() -> None:
    faulty = FaultyDriver(MemoryDriver())
    manager = SessionManager(UnstorageSessionStore(faulty), SECRET)
    session = manager.open()
    session["n"] = 1
    session.save()
    session["n"] = 2
    faulty.fail("set")
    with pytest.raises(DriverUnavailable):
        session.save()
    faulty.heal()
    manager.revert(session)
    assert dict(session) == {"n": 1}


@pytest.mark.parametrize("step", ["areload", "adestroy"])
def test_a_save_that_waited_for_another_task_brings_back_no_session_that_is_gone(
    manager: SessionManager, step: str
) -> None:
    async def main() -> None:
        cookie = await begin(manager, a=1)
        slow = await manager.open(cookie, asynchronous=True).aload()
        login = await manager.open(cookie, asynchronous=True).aload()
        login["user"] = "ada"
        logged_in = cookie_of(await manager.acommit(login))

        async def report() -> None:
            for number in range(2):  # the second comes while the other task waits for the first to end
                slow["progress"] = number
                await slow.asave()

        await asyncio.gather(report(), getattr(slow, step)())
        headers = dict(await manager.acommit(slow))
        if step == "areload":
            assert "Set-Cookie" not in headers  # it would take the place of the login's
            assert (await read(manager, logged_in))["user"] == "ada"
        else:
            assert "Max-Age=0" in headers.get("Set-Cookie", "Max-Age=0")
            assert await read(manager, cookie) == {}
            assert [key async for key in manager.store.driver.akeys()] == []

    asyncio.run(main())


def test_a_change_while_the_last_save_is_under_way_raises(manager: SessionManager) -> None:
    told: list[str] = []

    async def main() -> None:
        cookie = await begin(manager, a=1)
        session = await manager.open(cookie, asynchronous=True).aload()
        await manager.acommit(session)
        session["last"] = 0

        async def tick() -> None:
            number = 0
            while True:
                await asyncio.sleep(0)
                session["last"] = number = number + 1
                told.append(str(number))

        ticking = asyncio.ensure_future(tick())
        await asyncio.sleep(0)
        await manager.afinish(session)
        with pytest.raises(SessionError, match="has ended"):
            await ticking
        assert (await read(manager, cookie))["last"] == len(told)

    asyncio.run(main())


class GatedDriver(SlowDriver):
    """Its writes wait until they are let through."""

    def __init__(self) -> None:
        super().__init__(MemoryDriver())
        self.gate = asyncio.Event()

    async def acall(self, name: str, *args: Any, **kwargs: Any) -> Any:
        if name == "set":
            await self.gate.wait()
        return await super().acall(name, *args, **kwargs)


def test_a_login_that_a_scope_of_anyio_cancels_waits_without_spinning_and_is_taken_back(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    waits: list[object] = []
    wait = asyncio.wait

    def counted(tasks: Any) -> Any:
        waits.append(tasks)
        return wait(tasks)

    async def main() -> None:
        driver = GatedDriver()
        driver.gate.set()
        manager = SessionManager(UnstorageSessionStore(driver), SECRET)
        cookie = await begin(manager, a=1)
        driver.gate.clear()
        session = await manager.open(cookie, asynchronous=True).aload()
        session["user"] = "ada"
        monkeypatch.setattr(asyncio, "wait", counted)
        scope = anyio.CancelScope()

        async def log_in() -> None:
            with scope:
                await manager.acommit(session)

        logging_in = asyncio.ensure_future(log_in())
        await asyncio.sleep(0)
        scope.cancel()
        for _ in range(100):
            await asyncio.sleep(0)
        assert len(waits) == 1
        driver.gate.set()
        await logging_in
        assert scope.cancelled_caught
        assert await read(manager, cookie) == {"a": 1}  # the new id went to nobody

    asyncio.run(main())


@pytest.mark.parametrize("key", ["a", "user"])
@pytest.mark.parametrize("behind", [False, True], ids=["alone", "behind a save"])
def test_a_client_that_leaves_during_the_last_save_takes_no_change_with_it(key: str, behind: bool) -> None:
    async def main() -> None:
        driver = GatedDriver()
        driver.gate.set()
        manager = SessionManager(UnstorageSessionStore(driver), SECRET)
        cookie = await begin(manager, a="nobody")
        session = await manager.open(cookie, asynchronous=True).aload()
        await manager.acommit(session)
        driver.gate.clear()
        saving = None
        if behind:
            session["b"] = 1
            saving = asyncio.ensure_future(session.asave())
            await asyncio.sleep(0)
        session[key] = "ada"
        ending = asyncio.ensure_future(manager.afinish(session))
        for _ in range(3):
            await asyncio.sleep(0)
        ending.cancel()
        for _ in range(3):
            await asyncio.sleep(0)
        driver.gate.set()
        with pytest.raises(asyncio.CancelledError):
            await ending
        if saving is not None:
            await saving
        assert (await read(manager, cookie))[key] == "ada"

    asyncio.run(main())


class MeetingDriver(SlowDriver):
    """Its reads return together."""

    def __init__(self, driver: MemoryDriver, readers: int) -> None:
        super().__init__(driver)
        self._barrier = threading.Barrier(readers)

    def call(self, name: str, *args: Any, **kwargs: Any) -> Any:
        found = super().call(name, *args, **kwargs)
        if name == "renew":
            self._barrier.wait(10)
        return found


def test_threads_that_load_at_once_lose_no_change_of_each_other() -> None:
    memory, names = MemoryDriver(), "abc"
    first = SessionManager(UnstorageSessionStore(memory), SECRET)
    session = first.open()
    session["start"] = 1
    cookie = cookie_of(first.commit(session))
    manager = SessionManager(UnstorageSessionStore(MeetingDriver(memory, len(names))), SECRET)
    session = manager.open(cookie)
    with ThreadPoolExecutor(len(names)) as pool:
        list(pool.map(lambda name: session.update({name: 1}), names))
    manager.commit(session)
    assert dict(first.open(cookie)) == {"start": 1, "a": 1, "b": 1, "c": 1}
