"""A request leaves no session, and so nobody's data, in memory until the garbage collector comes by."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from session_kit import DriverUnavailable, SessionManager, UnstorageSessionStore
from session_kit.asgi import SessionMiddleware
from session_kit.drivers import Capabilities
from session_kit.drivers.memory import MemoryDriver
from session_kit.lifecycle import Lifecycle
from session_kit.policy import OnError
from session_kit.testing import Visitor, WrappedDriver
from tests.harness.bare_asgi import bare, call
from tests.harness.sessions import SECRET


@contextmanager
def nothing_left() -> Iterator[None]:
    gc.collect()
    before = _sessions()
    gc.disable()
    try:
        yield
        assert _sessions() == before
    finally:
        gc.enable()


def _sessions() -> int:
    return sum(type(thing) is Lifecycle for thing in gc.get_objects())


class Outage(WrappedDriver):
    """Waited for, and down on demand. Each call raises an error of its own: one that is kept keeps its traceback."""

    capabilities = Capabilities(renew=True, create=True, swap=True)  # type: ignore[assignment]  # not those of memory
    down = False

    def call(self, name: str, *args: Any, **kwargs: Any) -> Any:
        if self.down:
            raise DriverUnavailable("down for a test")
        return super().call(name, *args, **kwargs)

    async def acall(self, name: str, *args: Any, **kwargs: Any) -> Any:
        await asyncio.sleep(0)
        return self.call(name, *args, **kwargs)


@pytest.fixture
def driver() -> Outage:
    return Outage(MemoryDriver())


@pytest.fixture
def on_error() -> OnError:
    return "raise"


@pytest.fixture(params=["sync", "async"])
def visitor(request: pytest.FixtureRequest, driver: Outage, on_error: OnError) -> Iterator[Visitor]:
    with asyncio.Runner() as runner:
        manager = SessionManager(UnstorageSessionStore(driver), SECRET, on_error=on_error)
        visitor = Visitor(manager, None if request.param == "sync" else runner)
        with visitor.request() as session:
            session["cart"] = []
        yield visitor


def overtaken(visitor: Visitor, method: str) -> None:
    with visitor.request() as slow:
        slow["cart"].append("apple")
        with visitor.request() as fast:
            fast["page"] = 1
            visitor.do(fast, method)


@pytest.mark.parametrize("method", ["save", "destroy"])
def test_a_write_that_another_request_has_overtaken_leaves_nothing(visitor: Visitor, method: str) -> None:
    with nothing_left():
        overtaken(visitor, method)


def read(session: Any) -> None:
    session.get("cart")


def write(session: Any) -> None:
    session["page"] = 1


def log_in(session: Any) -> None:
    session["user"] = "ada"


@pytest.mark.parametrize("on_error", ["raise", "anonymous"])
@pytest.mark.parametrize("work", [read, write, log_in])
def test_an_outage_leaves_nothing(visitor: Visitor, driver: Outage, work: Callable[[Any], None]) -> None:
    def visit() -> None:
        driver.down = work is read
        session = visitor.manager.open(visitor.cookie or "", asynchronous=visitor.runner is not None)
        try:
            visitor.do(session, "load")
            driver.down = True
            work(session)
            if visitor.runner is None:
                visitor.manager.commit(session)
            else:
                visitor.runner.run(visitor.manager.acommit(session))
        except DriverUnavailable:
            visitor.manager.refuse(session)
        driver.down = False

    with nothing_left():
        visit()


@pytest.mark.parametrize("load", ["auto", "explicit"])
@pytest.mark.parametrize("work", [read, write, log_in, None])
def test_an_outage_that_middleware_answers_leaves_nothing(
    visitor: Visitor, driver: Outage, work: Callable[[Any], None] | None, load: Any
) -> None:
    async def handler(session: Any) -> None:
        if work is not None:
            await session.aload()
            driver.down = True
            work(session)

    driver.down = work in (read, None)
    app, cookie = SessionMiddleware(bare(handler), manager=visitor.manager, load=load), visitor.cookie or ""
    with asyncio.Runner() as runner, nothing_left():
        status = runner.run(call(app, cookie))[0]["status"]
    assert status == (503 if work is not None else 200)
