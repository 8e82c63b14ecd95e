"""Under uvloop, which uvicorn takes where it is installed, the native coroutines keep the contract as well."""

from __future__ import annotations

import asyncio
import gc
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from session_kit.drivers import Driver
from session_kit.drivers.postgres import PostgresDriver
from session_kit.drivers.redis import RedisDriver
from session_kit.testing.caller import Caller
from tests.drivers import test_postgres, test_redis
from tests.harness.postgres import Postgres
from tests.harness.servers import Valkey, start_valkey

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
