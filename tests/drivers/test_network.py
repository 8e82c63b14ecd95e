"""What lies between us and a server cuts, stalls, trickles and forgets: no answer goes to another, nothing hangs.

S3 has such tests of its own in `test_s3.py`.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any, Literal, NamedTuple

import pytest

from session_kit.drivers import Driver, DriverUnavailable, open_driver
from session_kit.testing.caller import Caller
from session_kit.testing.conformance import in_threads
from tests.harness.drivers import both
from tests.harness.network import Fault, Network, Way
from tests.harness.servers import wait_until

TIMEOUT = 0.3  # seconds
MOST = 4  # connections
OLD, NEW, OTHERS = b"old", b"new", b"another's"


class Line(NamedTuple):
    """A driver whose calls go through a network, and one that is beside it."""

    network: Network
    driver: Driver
    direct: Driver
    mode: str
    runner: asyncio.Runner

    def do(self, method: str, *args: Any, **options: Any) -> Any:
        caller = Caller(self.driver, self.runner if self.mode == "async" else None)
        return getattr(caller, method)(*args, **options)

    def begin(self) -> object:
        """Make both keys what they were, have a connection, and return the version of the first."""
        self.network.set()
        self.direct.set("key", OLD, ttl=100)
        assert self.do("get", "others") == OTHERS
        entry = self.direct.read("key")
        assert entry is not None
        return entry.version

    def many(self) -> None:
        """Let blocking code have as many connections as it may."""
        self.network.set()
        self.network.delay = 0.05
        in_threads([lambda: self.driver.get("others")] * MOST)
        self.network.delay = 0.0
        assert len(self.network.wires) == MOST


@pytest.fixture(params=["valkey", "postgres"])
def line(request: pytest.FixtureRequest, mode: str) -> Iterator[Line]:
    server = request.getfixturevalue(request.param)
    with Network(server.port) as network, asyncio.Runner() as runner:
        url = server.url.replace(str(server.port), str(network.port))
        direct, driver = open_driver(server.url), open_driver(f"{url}?timeout={TIMEOUT}&max_connections={MOST}")
        direct.set("others", OTHERS)
        yield Line(network, driver, direct, mode, runner)
        runner.run(driver.aclose())
        driver.close()
        wait_until(lambda: not network.wires, "the end of all connections")
        direct.delete_many(["key", "others"])
        direct.close()


blocking = pytest.mark.parametrize("mode", ["blocking"])
asynchronous = pytest.mark.parametrize("mode", ["async"])


@both
@pytest.mark.parametrize("kind", ["fin", "rst"])
@pytest.mark.parametrize("places", [8, pytest.param(50, marks=pytest.mark.slow)])
def test_wherever_a_connection_is_cut_no_answer_goes_to_another_and_the_next_call_succeeds(
    line: Line, kind: Literal["fin", "rst"], places: int
) -> None:
    calls: dict[str, tuple[Callable[[object], Any], Any, set[bytes | None]]] = {
        "get": (lambda _: line.do("get", "key"), OLD, {OLD}),
        "swap": (lambda version: line.do("set", "key", NEW, ttl=100, expect=version), None, {NEW}),
        "delete": (lambda version: line.do("delete", "key", expect=version), True, {None}),
    }
    for name, (act, answer, acknowledged) in calls.items():
        act(line.begin())
        sizes = line.network.sent
        ways: tuple[Way, Way] = ("request", "reply")
        for way in ways:
            for after in range(0, sizes[way], max(1, sizes[way] // places)):
                version = line.begin()
                line.network.set(Fault(kind, way, after))
                try:
                    got = act(version)
                except DriverUnavailable:
                    allowed = {OLD, *acknowledged}
                else:
                    assert answer is None or got == answer, (name, way, after)
                    allowed = acknowledged
                assert line.do("get", "others") == OTHERS, (name, way, after)
                assert line.direct.get("key") in allowed, (name, way, after)


@both
def test_a_server_that_trickles_keeps_no_call_longer_than_the_timeout(line: Line) -> None:
    line.direct.set("key", b"long" * 100)
    line.do("get", "others")
    line.network.set(Fault("trickle", "reply", 0, pace=0.01))
    begin = time.monotonic()
    with pytest.raises(DriverUnavailable, match="no answer within the timeout"):
        line.do("get", "key")
    assert time.monotonic() - begin < TIMEOUT + 1
    line.network.set()
    assert line.do("get", "others") == OTHERS


@both
def test_a_call_that_is_out_of_time_leaves_its_answer_to_nobody(line: Line) -> None:
    line.begin()
    line.network.set(Fault("stall", "reply", 5))
    with pytest.raises(DriverUnavailable, match="no answer within the timeout"):
        line.do("get", "key")
    assert line.do("get", "others") == OTHERS


@both
def test_a_connection_that_was_idle_for_long_is_not_used_again(line: Line, monkeypatch: pytest.MonkeyPatch) -> None:
    line.begin()
    line.network.forget()
    for module in ("redis.pool", "redis.pipeline", "postgres.pool"):
        monkeypatch.setattr(f"session_kit.drivers.{module}.LONGEST_IDLE", 0)
    line.do("set", "key", NEW)
    assert line.direct.get("key") == NEW


@blocking
@pytest.mark.parametrize("reset", [True, False])
def test_connections_that_were_cut_off_together_do_not_fail_one_call_each(line: Line, reset: bool) -> None:
    line.many()
    line.network.forget(reset=reset)
    failures = 0
    for _ in range(MOST):
        try:
            line.do("set", "key", NEW)
        except DriverUnavailable:
            failures += 1
    assert failures == 1
    line.many()
    line.network.forget(reset=True)
    assert line.do("get", "others") == OTHERS, "a read is tried once more, and not on another that was cut off"


@asynchronous
def test_an_end_that_a_busy_loop_has_not_seen_yet_fails_no_write(line: Line) -> None:
    async def main() -> None:
        await line.driver.aset("key", OLD)
        line.network.end_all()  # which holds up the loop
        time.sleep(0.01)  # and so does this
        await line.driver.aset("key", NEW)

    line.runner.run(main())
    assert line.direct.get("key") == NEW


@asynchronous
@pytest.mark.parametrize("line", ["valkey"], indirect=True)
@pytest.mark.parametrize("way", ["close", "aclose"])
def test_a_driver_that_is_closed_while_it_connects_leaves_no_connection_and_no_call_behind(
    line: Line, way: str
) -> None:
    async def main() -> None:
        for turns in range(25):
            first = asyncio.create_task(line.driver.aget("others"))
            second = asyncio.create_task(line.driver.aset("key", NEW))
            for _ in range(turns):
                await asyncio.sleep(0)
            first.cancel()
            if way == "close":
                line.driver.close()
                await asyncio.sleep(0)
            else:
                await line.driver.aclose()
            answers = await asyncio.wait_for(asyncio.gather(first, second, return_exceptions=True), 10 * TIMEOUT)
            assert all(isinstance(one, (asyncio.CancelledError, DriverUnavailable, bytes)) for one in answers), answers
            assert await asyncio.wait_for(line.driver.aget("others"), 10 * TIMEOUT) == OTHERS, turns
            await line.driver.aclose()
            await asyncio.to_thread(wait_until, lambda: not line.network.wires, "the end of all connections", 2)

    line.runner.run(main())


@blocking
def test_a_thread_that_is_interrupted_while_it_waits_takes_no_connection_with_it(line: Line) -> None:
    class Interrupt(BaseException):
        """As a signal, or a limit that another thread watches, raises one."""

    def ask() -> None:
        with contextlib.suppress(Interrupt):
            line.driver.get("others")

    line.many()
    line.network.delay = 0.1
    holding, waiting = ([threading.Thread(target=ask) for _ in range(MOST)] for _ in range(2))
    for thread in holding:
        thread.start()
    wait_until(lambda: line.network.sent["request"] > 0, "the calls")
    for thread in waiting:
        thread.start()
    time.sleep(0.02)  # now they wait
    for thread in waiting:
        assert thread.ident is not None
        ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread.ident), ctypes.py_object(Interrupt))
    for thread in (*holding, *waiting):
        thread.join()
    line.network.delay = 0.0
    line.many()
