"""A PostgreSQL that is killed, restarted, replaced, paused, or shared by a fork: nothing acknowledged is lost."""

from __future__ import annotations

import asyncio
import gc
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from session_kit import DriverUnavailable
from session_kit.drivers.postgres import PostgresDriver
from session_kit.testing.conformance import in_threads
from tests.harness.drivers import both, call
from tests.harness.postgres import Postgres, Tap, start_postgres
from tests.harness.servers import HOST, silent_server, wait_until, wrong_server


@pytest.fixture
def own(tmp_path: Path) -> Iterator[Postgres]:
    """A server that a test may kill; it has each change on the disk before it answers."""
    with start_postgres(tmp_path) as server:
        yield server


class Writer:
    """Writes one key after the other until it is told to stop, and notes which were acknowledged."""

    def __init__(self, driver: PostgresDriver, mode: str) -> None:
        self.acknowledged: list[str] = []
        self.refused = 0
        self._driver, self._mode = driver, mode
        self._stop = threading.Event()
        self._failures: list[BaseException] = []
        self._thread = threading.Thread(target=self._work)

    def __enter__(self) -> Writer:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(20)
        assert not self._failures

    def _work(self) -> None:
        try:
            if self._mode == "blocking":
                in_threads([lambda number=number: self._write(str(number)) for number in range(4)])  # type: ignore[misc]
            else:
                asyncio.run(self._awrite_all())
        except BaseException as failure:
            self._failures.append(failure)

    def _write(self, name: str) -> None:
        number = 0
        while not self._stop.is_set():
            number += 1
            try:
                self._driver.set(f"{name}-{number}", b"value", ttl=1000)
            except DriverUnavailable:
                self.refused += 1
                time.sleep(0.01)
            else:
                self.acknowledged.append(f"{name}-{number}")

    async def _awrite_all(self) -> None:
        await asyncio.gather(*[self._awrite(str(number)) for number in range(8)])
        await self._driver.aclose()

    async def _awrite(self, name: str) -> None:
        number = 0
        while not self._stop.is_set():
            number += 1
            try:
                await self._driver.aset(f"{name}-{number}", b"value", ttl=1000)
            except DriverUnavailable:
                self.refused += 1
                await asyncio.sleep(0.01)
            else:
                self.acknowledged.append(f"{name}-{number}")

    def wait_for(self, more: int) -> None:
        goal = len(self.acknowledged) + more
        wait_until(lambda: len(self.acknowledged) >= goal, "the writer")


def is_lost(driver: PostgresDriver, names: list[str]) -> set[str]:
    return set(names) - driver.get_many(names).keys()


# Each takes seconds.
both_in_time = pytest.mark.parametrize("mode", ["async", pytest.param("blocking", marks=pytest.mark.slow)])


@both_in_time
def test_a_server_that_is_killed_in_the_middle_of_writes_loses_none_that_was_acknowledged(
    own: Postgres, mode: str
) -> None:
    driver = PostgresDriver(own.url, timeout=2)
    with Writer(driver, mode) as writer:
        for _ in range(2):
            writer.wait_for(200)
            own.kill()
            wait_until(lambda: writer.refused, "the outage")
            own.start()
            writer.wait_for(100)
            writer.refused = 0
    assert len(writer.acknowledged) > 500
    assert is_lost(driver, writer.acknowledged) == set()
    driver.close()


@both
def test_after_a_restart_no_call_fails_by_a_connection_of_before(own: Postgres, mode: str) -> None:
    driver = PostgresDriver(own.url)

    async def main() -> None:
        for number in range(3):
            if mode == "async":
                await asyncio.gather(*[driver.aset(f"{number}-{each}", b"value") for each in range(8)])
            else:
                in_threads([lambda each=each: driver.set(f"{number}-{each}", b"v") for each in range(8)])  # type: ignore[misc]  # noqa: B023
            await asyncio.to_thread(own.restart)
        await driver.aclose()

    asyncio.run(main())
    assert sum(1 for _ in driver.keys()) == 24
    driver.close()


@both
def test_a_read_that_is_cut_off_is_tried_once_more_and_a_write_is_not(own: Postgres, mode: str) -> None:
    driver = PostgresDriver(own.url)
    driver.set("key", b"value")

    async def main() -> None:
        async def use(method: str, *args: object) -> object:
            if mode == "async":
                return await getattr(driver, f"a{method}")(*args)
            return await asyncio.to_thread(getattr(driver, method), *args)

        for method, args in (("get", ("key",)), ("set", ("key", b"other"))):
            with own.connect(autocommit=False) as other:
                other.execute("LOCK TABLE session_kit")
                task = asyncio.create_task(use(method, *args))
                waiting = "FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
                await asyncio.to_thread(wait_until, lambda: own.ask(f"SELECT 1 {waiting}"), "the call")  # noqa: B023
                own.ask(f"SELECT pg_terminate_backend(pid) {waiting}")
                other.rollback()
            if method == "get":
                assert await task == b"value"
            else:
                with pytest.raises(DriverUnavailable, match="terminating connection due to administrator command"):
                    await task
        assert await use("get", "key") == b"value"
        await driver.aclose()

    asyncio.run(main())
    driver.close()


@both
def test_a_paused_server_is_an_outage_and_then_answers_again(own: Postgres, mode: str) -> None:
    driver = PostgresDriver(own.url, timeout=0.3)

    async def main() -> None:
        async def get() -> bytes | None:
            return await driver.aget("key") if mode == "async" else await asyncio.to_thread(driver.get, "key")

        await driver.aset("key", b"value")
        assert await get() == b"value"
        own.pause()
        begin = time.monotonic()
        with pytest.raises(DriverUnavailable, match="no answer within the timeout"):
            await get()
        assert time.monotonic() - begin < 2
        own.resume()
        assert await get() == b"value"
        await driver.aclose()

    asyncio.run(main())
    driver.close()


@both
def test_a_server_that_never_answers_is_an_outage_within_the_timeout(mode: str) -> None:
    with silent_server() as port:
        driver = PostgresDriver(f"postgresql://user:hunter2@{HOST}:{port}/db", timeout=0.3)
        begin = time.monotonic()
        with pytest.raises(DriverUnavailable, match=rf"^postgresql://{HOST}:{port}/db: .*timeout") as caught:
            call(driver, mode, "get", "key")
        assert time.monotonic() - begin < 4
        assert "hunter2" not in str(caught.value)


@both
def test_nobody_there_or_another_kind_of_server_is_an_outage_at_once(mode: str) -> None:
    with socket.socket() as listener, wrong_server() as wrong:
        listener.bind((HOST, 0))
        for port, reason in (listener.getsockname()[1], "Connection refused"), (wrong, "received invalid response"):
            driver = PostgresDriver(f"postgresql://{HOST}:{port}/db")
            begin = time.monotonic()
            with pytest.raises(DriverUnavailable, match=rf"^postgresql://{HOST}:{port}/db: {reason}"):
                call(driver, mode, "set", "key", b"value")
            assert time.monotonic() - begin < 4  # and so not by the timeout


@both
def test_a_primary_that_becomes_read_only_is_an_outage_until_there_is_another(postgres: Postgres, mode: str) -> None:
    postgres.empty()
    driver = PostgresDriver(postgres.url)
    call(driver, mode, "set", "key", b"value")
    postgres.configure("default_transaction_read_only", "on")
    try:
        with pytest.raises(DriverUnavailable, match="read-only replica"):
            call(driver, mode, "set", "key", b"other")
        assert call(driver, mode, "get", "key") == b"value"
    finally:
        postgres.configure("default_transaction_read_only", "off")
    call(driver, mode, "set", "key", b"other")
    driver.close()


@both
def test_behind_one_address_the_new_primary_is_found_by_the_next_call(
    own: Postgres, postgres: Postgres, mode: str
) -> None:
    postgres.empty()
    with Tap(own) as address:
        driver = PostgresDriver(address.url)

        async def main() -> None:
            if mode == "async":
                await asyncio.gather(*[driver.aset(f"key-{number}", b"old") for number in range(8)])
            else:
                in_threads([lambda number=number: driver.set(f"key-{number}", b"old") for number in range(8)])  # type: ignore[misc]
            own.configure("default_transaction_read_only", "on")
            address.server = postgres
            # Of the connections that are open, all lead to the server of before.
            for number in range(8):
                if mode == "async":
                    await driver.aset(f"key-{number}", b"new")
                else:
                    driver.set(f"key-{number}", b"new")
            await driver.aclose()

        asyncio.run(main())
        assert postgres.ask("SELECT value FROM session_kit") == [(b"new",)] * 8
        driver.close()


@both_in_time
def test_a_failover_to_the_standby_loses_no_acknowledged_write(tmp_path: Path, mode: str) -> None:
    with (
        start_postgres(tmp_path) as primary,
        Postgres(tmp_path, primary=primary) as standby,
    ):
        url = f"postgresql://postgres@{HOST}:{standby.port},{HOST}:{primary.port}/postgres"
        driver = PostgresDriver(url, timeout=2)
        driver.has("key")
        # From now on each write is at the standby before it is acknowledged.
        primary.configure("synchronous_standby_names", "*")
        wait_until(lambda: primary.ask("SELECT 1 FROM pg_stat_replication WHERE sync_state = 'sync'"), "the standby")
        with Writer(driver, mode) as writer:
            writer.wait_for(200)
            primary.kill()
            standby.promote()
            writer.wait_for(100)
        assert is_lost(driver, writer.acknowledged) == set()
        driver.close()


forks = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")


@forks
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_child_leaves_the_connections_of_its_parent_alone(postgres: Postgres) -> None:
    driver = PostgresDriver(postgres.url)
    ours = "SELECT pid FROM pg_stat_activity WHERE application_name = 'session-kit' ORDER BY pid"

    async def main() -> None:
        await driver.aget("key")
        driver.get("key")
        before = postgres.ask(ours)
        child = os.fork()
        if child == 0:
            try:
                driver.close()
                del driver._pools
                gc.collect()
            finally:
                os._exit(0)
        os.waitpid(child, 0)
        await driver.aget("key")
        driver.get("key")
        assert postgres.ask(ours) == before
        await driver.aclose()

    asyncio.run(main())
    driver.close()


@forks
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_forks_while_threads_write_disturb_neither_side(postgres: Postgres) -> None:
    postgres.empty()
    driver = PostgresDriver(postgres.url)
    with Writer(driver, "blocking") as blocking, Writer(driver, "async") as native:
        for number in range(8):
            blocking.wait_for(20)
            child = os.fork()
            if child == 0:
                status = 1
                try:
                    driver.set(f"child-{number}", b"value")
                    asyncio.run(driver.aset(f"child-{number}-async", b"value"))
                    driver.close()
                    status = 0
                finally:
                    os._exit(status)
            _, result = os.waitpid(child, 0)
            assert os.waitstatus_to_exitcode(result) == 0
            native.wait_for(20)
    assert (blocking.refused, native.refused) == (0, 0)
    assert is_lost(driver, blocking.acknowledged + native.acknowledged) == set()
    assert sum(1 for _ in driver.keys("child-")) == 16
    driver.close()


GREENLETS = """
import sys, time
from session_kit import open_driver
driver = open_driver(sys.argv[1] + "?max_connections=2")  # before, as by gunicorn's --preload
import gevent.monkey
gevent.monkey.patch_all()
import gevent, psycopg
with psycopg.connect(sys.argv[1]) as other:
    other.execute("LOCK TABLE session_kit")
    waiting = [gevent.spawn(driver.get, "key") for _ in range(20)]
    gevent.sleep(0.3)
    assert not any(one.ready() for one in waiting)
    other.rollback()
    begin = time.monotonic()
    assert [one.get() for one in waiting] == [b"value"] * 20
    assert time.monotonic() - begin < 4  # and so not by the timeout
"""


def test_greenlets_that_wait_for_a_connection_let_the_others_run(postgres: Postgres) -> None:
    postgres.empty()
    driver = PostgresDriver(postgres.url)
    driver.set("key", b"value")
    driver.close()
    command = [sys.executable, "-c", GREENLETS, postgres.url]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 0, done.stderr
