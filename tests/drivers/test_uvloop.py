"""Under uvloop, which uvicorn takes where it is installed, the native coroutines keep the contract as well."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import re
import socket
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis.asyncio
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from session_kit.drivers import Driver, DriverUnavailable
from session_kit.drivers.postgres import PostgresDriver
from session_kit.drivers.redis import RedisDriver
from session_kit.testing.caller import Caller
from tests.drivers import test_postgres, test_redis
from tests.harness.network import RESET
from tests.harness.postgres import Postgres
from tests.harness.servers import HOST, Valkey, start_valkey

if sys.platform == "win32":
    pytest.skip("there is no uvloop for Windows", allow_module_level=True)

import uvloop


@pytest.fixture(autouse=True)
def every_loop_is_uvloops(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (asyncio, asyncio.events):
        monkeypatch.setattr(module, "new_event_loop", uvloop.new_event_loop)

    async def kind() -> type:
        return type(asyncio.get_running_loop())

    assert issubclass(asyncio.run(kind()), uvloop.Loop)


class AsyncHalf:
    """Of the conformance suite: blocking calls know nothing of event loops."""

    @pytest.fixture
    def caller(self, driver: Driver) -> Iterator[Any]:
        with asyncio.Runner() as runner:
            yield Caller(driver, runner)
            runner.run(driver.aclose())


class TestValkey(AsyncHalf, test_redis.TestValkey):
    title = ""  # the table in the README says nothing of event loops


@pytest.mark.slow  # the loop meets a server in the same way
class TestCluster(AsyncHalf, test_redis.TestCluster):
    title = ""


class TestPostgres(AsyncHalf, test_postgres.TestPostgres):
    title = ""


@pytest.mark.parametrize("client_certificates", [False, True])
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # as in the test itself
def test_tls_checks_the_server_and_shows_a_certificate(
    valkey: Valkey, postgres: Postgres, tmp_path: Path, client_certificates: bool
) -> None:
    for module, server in (test_redis, valkey), (test_postgres, postgres):
        folder = tmp_path / module.__name__
        folder.mkdir()
        module.test_tls_checks_the_server_and_shows_a_certificate(server, folder, "async", client_certificates)


@pytest.mark.parametrize("turns", [0, 1, 2, 3, 5])
def test_cancelled_calls_disturb_no_neighbour(valkey: Valkey, postgres: Postgres, turns: int) -> None:
    test_redis.test_a_cancelled_call_does_not_disturb_its_neighbours(RedisDriver(valkey.url), turns)
    driver = PostgresDriver(postgres.url)
    test_postgres.test_cancelled_calls_disturb_no_neighbour_and_lose_no_connection(driver, turns)


@contextlib.contextmanager
def server_that_resets(after: int) -> Iterator[int]:
    """The port of a server that says yes to what it is told, so many times, and then resets the connection."""

    def serve() -> None:
        while True:
            try:
                client, _ = listener.accept()
            except OSError:
                return
            with client, contextlib.suppress(OSError):
                client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
                for _ in range(after):
                    client.sendall(b"+OK\r\n" * len(re.findall(rb"\*\d+\r\n", client.recv(65536))))

    with socket.create_server((HOST, 0)) as listener:
        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield listener.getsockname()[1]
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join()


@pytest.mark.parametrize("after", [0, 1, 2])
def test_a_server_that_hangs_up_during_the_login_is_an_outage_and_not_waited_for(after: int) -> None:
    async def call(port: int) -> None:
        for _ in range(100):  # the reset comes at another moment each time
            driver = RedisDriver(f"redis://:password@{HOST}:{port}", timeout=30)
            for _ in range(2):
                with pytest.raises(DriverUnavailable):
                    await asyncio.wait_for(driver.aread("key"), 5)
            await driver.aclose()

    with server_that_resets(after) as port, asyncio.Runner() as runner:
        runner.run(call(port))


def test_a_client_of_the_applications_own_meets_the_same_outage() -> None:
    async def call(port: int) -> None:
        for _ in range(600):
            async with redis.asyncio.Redis(
                host=HOST, port=port, password="password", retry=Retry(NoBackoff(), 0)
            ) as client:
                with pytest.raises(DriverUnavailable):
                    await RedisDriver(client=client).aread("key")

    with server_that_resets(0) as port, asyncio.Runner() as runner:
        runner.run(call(port))


def test_large_and_small_values_travel_together(valkey: Valkey) -> None:
    test_redis.test_large_and_small_values_travel_together(RedisDriver(valkey.url))


# uvloop and the stream each say so of a loop that is closed over an open connection.
@pytest.mark.filterwarnings("ignore:(unclosed resource|loop is closed):ResourceWarning")
def test_loops_that_are_closed_with_nothing_told_leave_no_connection(
    valkey: Valkey, caplog: pytest.LogCaptureFixture
) -> None:
    driver = RedisDriver(valkey.url)
    test_redis.test_loops_that_are_closed_with_nothing_told_leave_no_connection_and_no_task(driver, valkey, caplog)
    driver.close()


@pytest.mark.filterwarnings("ignore:(unclosed resource|loop is closed):ResourceWarning")
def test_a_loop_that_was_closed_over_a_unix_socket_fails_no_later_call(tmp_path: Path) -> None:
    with start_valkey(tmp_path, config=["--unixsocket", f"{tmp_path}/socket"]):
        driver = RedisDriver(f"unix://{tmp_path}/socket")
        for number in range(3):
            loop = asyncio.new_event_loop()
            loop.run_until_complete(driver.aset("key", b"%d" % number))
            loop.close()
        assert asyncio.run(driver.aget("key")) == b"2"
        driver.close()
    gc.collect()  # so that it is said here, and not in another test
