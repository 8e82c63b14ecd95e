"""Redis and Valkey keep the contract, in one round trip a call, and an outage is an outage."""

from __future__ import annotations

import asyncio
import gc
import os
import re
import socket
import socketserver
import ssl
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import quote, urlsplit

import pytest
import redis
import redis.asyncio
import redis.asyncio.retry
import redis.sentinel
from hypothesis import given
from hypothesis import strategies as st
from redis.backoff import NoBackoff
from redis.retry import Retry

from session_kit import ConfigError, RedisSessionStore, open_driver
from session_kit.drivers import ABSENT, Conflict, CorruptEntry, Driver, DriverUnavailable, Unsupported
from session_kit.drivers.redis import RedisDriver
from session_kit.drivers.redis.errors import reason
from session_kit.drivers.redis.settings import Settings
from session_kit.testing import DriverConformance, ManualClock
from tests.harness.drivers import both, call, cancel_every_third, numbered
from tests.harness.scripts import run
from tests.harness.servers import (
    Cluster,
    Sentinel,
    TlsServer,
    Valkey,
    free_ports,
    keep_time,
    silent_server,
    start_tls,
    start_valkey,
    wait_until,
    wrong_server,
)

T = TypeVar("T")


@pytest.fixture(scope="session")
def valkey_tls(valkey: Valkey, tmp_path_factory: pytest.TempPathFactory) -> Iterator[TlsServer]:
    with start_tls(valkey.port, tmp_path_factory.mktemp("tls")) as server:
        yield server


class RedisConformance(DriverConformance):
    """The suite against a server that keeps time by itself."""

    kind: str
    """The fixture that starts the server."""

    @pytest.fixture(autouse=True)
    def raw(self, request: pytest.FixtureRequest) -> Iterator[Any]:
        """A client to look at the server with."""
        self.server = request.getfixturevalue(self.kind)
        self.raw_client = self.client()
        yield self.raw_client
        self.raw_client.close()

    def open_driver(self, clock: ManualClock, tmp_path: Path) -> Driver:
        self.raw_client.flushall()
        keep_time(self.raw_client, clock)
        return self.connect(clock)

    def client(self) -> Any:
        return self.server.client()

    def connect(self, clock: ManualClock) -> Driver:
        return open_driver(self.server.url, clock=clock)

    def url(self, tmp_path: Path) -> str:
        return str(self.server.url)


class TestValkey(RedisConformance):
    title = "`valkey://` (Valkey 9.1)"
    kind = "valkey"


class TestRedis62(RedisConformance):
    title = "`redis://` (Redis 6.2)"
    kind = "redis62"


class TestCluster(RedisConformance):
    title = "`redis+cluster://` (3 primaries, 3 replicas)"
    kind = "valkey_cluster"

    def client(self) -> Any:
        return redis.RedisCluster(*self.server.nodes[0].address)


class TestSentinel(RedisConformance):
    title = "`redis+sentinel://`"
    kind = "valkey_sentinel"

    def client(self) -> Any:
        return self.server.primary.client()


@pytest.mark.slow
class TestTls(RedisConformance):
    """Answers come in records of TLS, which begin and end where no answer does."""

    title = "`rediss://` (TLS)"
    kind = "valkey_tls"

    def client(self) -> Any:
        return redis.Redis.from_url(self.url(Path()))

    def connect(self, clock: ManualClock) -> Driver:
        return open_driver(self.url(Path()), clock=clock)

    def url(self, tmp_path: Path) -> str:
        return f"rediss://127.0.0.1:{self.server.port}/0?ssl_ca_certs={self.server.ca_file}"


class TestGivenClient(RedisConformance):
    """A blocking client of the application: the async twins run in threads."""

    title = "a redis-py client of your own"
    kind = "valkey"

    def connect(self, clock: ManualClock) -> Driver:
        return RedisDriver(client=self.raw_client, clock=clock)


@pytest.fixture
def driver(valkey: Valkey) -> Iterator[RedisDriver]:
    with redis.Redis.from_url(valkey.url) as client:
        client.flushall()
    driver = RedisDriver(valkey.url)
    yield driver
    driver.close()


@pytest.fixture
def stats(valkey: Valkey) -> Iterator[Callable[[], dict[str, int]]]:
    """The server's own count of the commands it ran, and of its reads from sockets (`reads`)."""
    with redis.Redis.from_url(valkey.url) as client:

        def stats() -> dict[str, int]:
            commands: Any = client.info("commandstats")
            counted = {name.removeprefix("cmdstat_"): stat["calls"] for name, stat in commands.items()}
            general: Any = client.info("stats")
            return {**counted, "reads": general["total_reads_processed"]}

        yield stats


def difference(before: dict[str, int], after: dict[str, int]) -> dict[str, int]:
    changed = {name: after[name] - before.get(name, 0) for name in after}
    changed.pop("info", None)
    return {name: count for name, count in changed.items() if count}


# --- round trips, by the server's own count; each reading of the statistics is two reads of its own ---


def test_each_call_is_one_round_trip(driver: RedisDriver, stats: Callable[[], dict[str, int]]) -> None:
    driver.set("key", b"1", ttl=100)
    calls: list[tuple[Callable[[], object], dict[str, int]]] = [
        (lambda: driver.renew("key", 100), {"getex": 1}),
        (lambda: driver.read("key"), {"get": 1, "pttl": 1}),
        (lambda: driver.has("key"), {"exists": 1}),
        (lambda: driver.set("key", b"2", ttl=10), {"set": 1}),
        (lambda: driver.set("new", b"1", expect=ABSENT), {"set": 1}),
        (lambda: driver.set("key", b"3", ttl=10, expect=b"2"), {"set": 1}),
        (lambda: driver.touch("key", 50), {"pexpire": 1}),
        (lambda: driver.get_many(["key", "new"]), {"get": 2}),
        (lambda: driver.delete("new"), {"unlink": 1}),
    ]
    for use, commands in calls:
        before = stats()
        use()
        assert difference(before, stats()) == {**commands, "reads": 3}


def test_fifty_concurrent_reads_are_one_write_and_one_read(
    driver: RedisDriver, stats: Callable[[], dict[str, int]]
) -> None:
    async def main() -> None:
        await driver.aset("key", b"value")
        before = stats()
        await asyncio.gather(*[driver.arenew("key", 100) for _ in range(50)])
        assert difference(before, stats()) == {"getex": 50, "reads": 3}
        await driver.aclose()

    asyncio.run(main())


@both
def test_a_server_that_does_not_know_ifeq_or_has_forgotten_the_script_compares_nevertheless(
    redis62: Valkey, mode: str
) -> None:
    driver = RedisDriver(redis62.url)
    with redis.Redis.from_url(redis62.url) as client:

        def commands(run: Callable[[], object]) -> dict[str, int]:
            client.config_resetstat()
            run()
            stats: Any = client.info("commandstats")
            return {
                name: stats[f"cmdstat_{name}"]["calls"] for name in ("eval", "evalsha") if f"cmdstat_{name}" in stats
            }

        def swap(value: bytes, expect: bytes) -> Callable[[], object]:
            return lambda: call(driver, mode, "set", "key", value, ttl=100, expect=expect)

        driver.set("key", b"1")
        client.script_flush()
        assert commands(swap(b"2", b"1")) == {"eval": 1, "evalsha": 1}
        assert commands(swap(b"3", b"2")) == {"evalsha": 1}
        with pytest.raises(Conflict):
            swap(b"4", b"2")()
        client.script_flush()
        assert call(driver, mode, "delete", "key", expect=b"3")
    driver.close()


@both
def test_an_answer_too_many_is_never_taken_for_the_next_callers(mode: str) -> None:
    class Talkative(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            while self.request.recv(4096):
                self.request.sendall(b"$4\r\nmine\r\n$6\r\nothers\r\n")

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Talkative) as server:
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        driver = RedisDriver(f"redis://127.0.0.1:{server.server_address[1]}")

        async def ask() -> list[object]:
            answers = []
            for number in range(3):
                answers.append(await driver.aget(f"key{number}"))
                await asyncio.sleep(0.02)  # what comes too late has come
            await driver.aclose()
            return answers

        if mode == "async":
            answers: list[object] = asyncio.run(ask())
        else:
            answers = [driver.get(f"key{number}") for number in range(3)]
        assert answers == [b"mine"] * 3
        driver.close()
        server.shutdown()


# --- what other programs see and leave ---


def test_values_are_bare_strings_that_any_client_can_read(driver: RedisDriver, valkey: Valkey) -> None:
    driver.set("key", b'{"user":"ada"}', ttl=90)
    with redis.Redis.from_url(valkey.url) as client:
        assert client.get("key") == b'{"user":"ada"}'
        assert client.ttl("key") in (89, 90)


def test_a_key_of_another_type_is_corrupt_and_can_be_deleted(driver: RedisDriver, valkey: Valkey) -> None:
    with redis.Redis.from_url(valkey.url) as client:
        client.rpush("list", "item")
    with pytest.raises(CorruptEntry, match="no string"):
        driver.read("list")
    with pytest.raises(CorruptEntry, match="no string"):
        driver.set("list", b"x", expect=b"y")
    assert driver.delete("list") is True


def test_keys_that_are_no_text_are_left_alone(driver: RedisDriver, valkey: Valkey) -> None:
    with redis.Redis.from_url(valkey.url) as client:
        client.set(b"app:\xff\xfe", "binary")
        driver.set("app:1", b"x")
        assert list(driver.keys("app:")) == ["app:1"]
        assert driver.clear("app:") == 1
        assert client.exists(b"app:\xff\xfe")


def test_clearing_a_prefix_never_flushes_the_database(driver: RedisDriver, stats: Callable[[], dict[str, int]]) -> None:
    driver.set_many({f"a:{number}": b"x" for number in range(2500)} | {"ab": b"x", "a*": b"x"})
    before = stats()
    assert driver.clear("a:") == 2500
    assert not {"flushdb", "flushall", "keys"} & set(difference(before, stats()))
    assert sorted(driver.keys()) == ["a*", "ab"]


# --- batching in asyncio ---


def test_a_failing_call_does_not_disturb_its_neighbours(driver: RedisDriver, valkey: Valkey) -> None:
    with redis.Redis.from_url(valkey.url) as client:
        client.rpush("list", "item")

    async def main() -> None:
        await driver.aset("key", b"value")
        results = await asyncio.gather(
            driver.aget("key"), driver.aread("list"), driver.aget("key"), return_exceptions=True
        )
        assert results[0] == results[2] == b"value"
        assert isinstance(results[1], CorruptEntry)
        await driver.aclose()

    asyncio.run(main())


@pytest.mark.parametrize("turns", [0, 1, 2, 3])
def test_a_cancelled_call_does_not_disturb_its_neighbours(driver: RedisDriver, turns: int) -> None:
    async def main() -> None:
        await driver.aset_many(numbered(30))
        await cancel_every_third(driver, 30, turns)
        assert await driver.aget("key-7") == b"7"
        await driver.aclose()

    asyncio.run(main())


def test_a_call_that_is_cancelled_before_it_left_is_not_sent(driver: RedisDriver) -> None:
    async def main() -> None:
        await driver.aget("key")  # the connection is there
        task = asyncio.create_task(driver.aset("key", b"value"))
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        assert await driver.aget("key") is None
        await driver.aclose()

    asyncio.run(main())


def test_calls_keep_their_order(driver: RedisDriver) -> None:
    async def main() -> None:
        await asyncio.gather(*[driver.aset("key", b"%d" % number) for number in range(100)])
        assert await driver.aget("key") == b"99"
        await driver.aclose()

    asyncio.run(main())


def test_large_and_small_values_travel_together(driver: RedisDriver) -> None:
    big = os.urandom(4 * 1024 * 1024)

    async def main() -> None:
        await asyncio.gather(driver.aset("big", big), *[driver.aset(f"s{n}", b"%d" % n) for n in range(50)])
        results = await asyncio.gather(
            driver.aget("big"), *[driver.aget(f"s{n}") for n in range(50)], driver.aget("big")
        )
        assert results[0] == results[-1] == big
        assert results[1:-1] == [b"%d" % n for n in range(50)]
        await driver.aclose()

    asyncio.run(main())


def test_one_driver_serves_many_event_loops_at_once(driver: RedisDriver) -> None:
    counts: list[int] = []

    async def count() -> None:
        for _ in range(20):
            await asyncio.gather(*[swap() for _ in range(5)])
        counts.append(1)
        await driver.aclose()

    async def swap() -> None:
        while True:
            entry = await driver.aread("counter")
            assert entry is not None
            try:
                await driver.aset("counter", b"%d" % (int(entry.value) + 1), expect=entry.version)
                return
            except Conflict:
                pass

    driver.set("counter", b"0")
    threads = [threading.Thread(target=lambda: asyncio.run(count())) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(counts) == 4
    assert driver.get("counter") == b"400"


def test_a_loop_that_ends_without_closing_the_driver_leaves_nothing_behind(driver: RedisDriver) -> None:
    for _ in range(3):
        asyncio.run(driver.aset("key", b"value"))
    assert asyncio.run(driver.aget("key")) == b"value"


# That a transport and its socket were left open is told of the loop that was closed over them, not of the driver.
@pytest.mark.filterwarnings("ignore:unclosed (transport|<socket):ResourceWarning")
def test_loops_that_are_closed_with_nothing_told_leave_no_connection_and_no_task(
    driver: RedisDriver, valkey: Valkey, caplog: pytest.LogCaptureFixture
) -> None:
    def connections() -> int:
        return len(valkey.ask("CLIENT LIST")) - 1

    before, sockets = connections(), open_sockets()
    for number in range(50):
        loop = asyncio.new_event_loop()
        loop.run_until_complete(driver.aset("key", b"%d" % number))
        loop.close()
    assert [task for task in existing(asyncio.Task) if not task.done()] == []
    wait_until(lambda: connections() <= before + 1, "the end of the connections")
    assert open_sockets() <= sockets + 1
    driver.close()
    wait_until(lambda: connections() == before, "the end of the last")
    assert open_sockets() == sockets
    assert caplog.records == []
    assert asyncio.run(driver.aget("key")) == b"49"


def existing(kind: type[T]) -> list[T]:
    gc.collect()
    return [thing for thing in gc.get_objects() if issubclass(type(thing), kind)]  # isinstance would wake lazy objects


def test_a_driver_that_nobody_closes_closes_its_connections_without_a_word(driver: RedisDriver, valkey: Valkey) -> None:
    before = open_sockets()
    forgotten: Any = RedisDriver(valkey.url)
    forgotten.myself = forgotten  # so that it is for the garbage collector, which asks a socket before its owner
    assert forgotten.get("key") is None
    assert open_sockets() == before + 1
    del forgotten
    assert open_sockets() == before


def open_sockets() -> int:
    return sum(thing.fileno() >= 0 for thing in existing(socket.socket))


def test_a_loop_that_ends_keeps_the_connection_until_its_last_task_has_ended(
    driver: RedisDriver, valkey: Valkey
) -> None:
    async def say_goodbye() -> None:
        try:
            await asyncio.sleep(60)
        finally:
            await driver.aset("goodbye", b"said")

    async def main() -> None:
        await driver.aset("key", b"value")
        tasks.append(asyncio.create_task(say_goodbye()))
        await asyncio.sleep(0)

    tasks: list[object] = []
    with valkey.client() as client:
        before = client.info("stats")["total_connections_received"]
        asyncio.run(main())
        assert client.info("stats")["total_connections_received"] == before + 1
        assert client.get("goodbye") == b"said"


# --- outages ---


@pytest.fixture
def own(tmp_path: Path) -> Iterator[Valkey]:
    """A server that a test may kill; it writes each change to disk before it answers."""
    server = start_valkey(tmp_path / "own", config=["--appendonly", "yes", "--appendfsync", "always"])
    yield server
    server.stop()


@both
def test_a_restart_of_the_server_loses_no_acknowledged_write(own: Valkey, mode: str) -> None:
    driver = RedisDriver(own.url, timeout=2)
    written: list[int] = []
    errors: list[BaseException] = []
    stop = threading.Event()

    def note(number: int, error: BaseException | None) -> None:
        if error is None:
            written.append(number)
        elif isinstance(error, DriverUnavailable):
            errors.append(error)
        else:
            raise error

    def write() -> None:
        number = 0
        while not stop.is_set():
            try:
                driver.set(f"key-{number}", b"%d" % number)
            except DriverUnavailable as error:
                note(number, error)
                time.sleep(0.01)
            else:
                note(number, None)
            number += 1

    async def awrite() -> None:
        number = 0
        while not stop.is_set():
            numbers = range(number, number + 10)
            results = await asyncio.gather(
                *[driver.aset(f"key-{n}", b"%d" % n) for n in numbers], return_exceptions=True
            )
            for n, result in zip(numbers, results, strict=True):
                note(n, result if isinstance(result, BaseException) else None)
            number += 10
            await asyncio.sleep(0.001)
        await driver.aclose()

    failures: list[BaseException] = []

    def work() -> None:
        try:
            write() if mode == "blocking" else asyncio.run(awrite())
        except BaseException as failure:
            failures.append(failure)

    thread = threading.Thread(target=work)
    thread.start()
    wait_until(lambda: len(written) > 100, "the first writes")
    own.kill()
    wait_until(lambda: len(errors) > 5, "the errors")
    own.restart()
    before = len(written)
    wait_until(lambda: len(written) > before + 100, "the writes after the restart")
    stop.set()
    thread.join(10)
    assert not failures
    kept = driver.get_many([f"key-{number}" for number in written])
    assert len(kept) == len(written)
    driver.close()


def test_an_idle_connection_that_the_server_closed_fails_nobody(own: Valkey) -> None:
    driver = RedisDriver(own.url, timeout=2)

    async def main() -> None:
        await driver.aset("key", b"1")
        driver.set("key", b"2")
        own.kill()
        own.restart()
        await asyncio.sleep(0.05)
        driver.set("key", b"3")
        await driver.aset("key", b"4")
        assert driver.get("key") == b"4"
        await driver.aclose()

    asyncio.run(main())


@both
def test_a_server_that_falls_silent_is_an_outage_within_the_timeout(mode: str) -> None:
    with silent_server() as port:
        driver = RedisDriver(f"redis://127.0.0.1:{port}", timeout=0.3)
        begin = time.monotonic()
        with pytest.raises(DriverUnavailable, match="no answer within the timeout"):
            call(driver, mode, "get", "key")
        assert time.monotonic() - begin < 1.5
        driver.close()


@both
def test_a_paused_server_is_an_outage_and_then_answers_again(own: Valkey, mode: str) -> None:
    driver = RedisDriver(own.url, timeout=0.3)

    async def main() -> None:
        async def get() -> bytes | None:
            return await driver.aget("key") if mode == "async" else driver.get("key")

        await driver.aset("key", b"value")
        with redis.Redis.from_url(own.url) as client:
            client.client_pause(800)
        with pytest.raises(DriverUnavailable, match="no answer within the timeout"):
            await get()
        await asyncio.sleep(0.8)
        assert await get() == b"value"
        await driver.aclose()

    asyncio.run(main())


@both
def test_what_does_not_speak_redis_is_named(mode: str) -> None:
    with wrong_server() as port:
        driver = RedisDriver(f"redis://127.0.0.1:{port}", timeout=1)
        with pytest.raises(DriverUnavailable, match=rf"redis://127.0.0.1:{port}: .*(protocol|closed)"):
            call(driver, mode, "get", "key")
        driver.close()


@both
@pytest.mark.parametrize(
    ("user", "reason"), [("default:wr0ng-passw0rd", "user name or password"), ("reader:pa55word-r", "ACL")]
)
def test_a_refused_user_is_named_without_the_password(tmp_path: Path, mode: str, user: str, reason: str) -> None:
    server = start_valkey(tmp_path, password="r1ght-passw0rd", users=["reader on >pa55word-r ~* +@read +@connection"])
    try:
        driver = open_driver(f"redis://{user}@{server.host}:{server.port}")
        with pytest.raises(DriverUnavailable, match=reason) as caught:
            call(driver, mode, "set", "key", b"value")
        assert "passw0rd" not in str(caught.value) + repr(driver)
        assert "pa55" not in str(caught.value) + repr(driver)
        driver.close()
    finally:
        server.stop()


def test_a_full_server_refuses_and_keeps_what_was_there(tmp_path: Path) -> None:
    server = start_valkey(tmp_path, config=["--maxmemory", "4mb", "--maxmemory-policy", "noeviction"])
    driver = RedisDriver(server.url)
    try:
        driver.set("key", b"old")
        with pytest.raises(DriverUnavailable, match="maxmemory"):
            for number in range(1000):
                driver.set(f"filler-{number}", b"x" * 100_000)
        with pytest.raises(DriverUnavailable, match="maxmemory"):
            driver.set("key", b"new" * 1_000_000)
        assert driver.get("key") == b"old"
    finally:
        driver.close()
        server.stop()


def test_a_refused_write_is_an_outage_also_where_python_compares_no_bytes_with_text(tmp_path: Path) -> None:
    with start_valkey(tmp_path, config=["--maxmemory", "1"]) as server:
        code = f"""
from session_kit import DriverUnavailable, open_driver
from session_kit.drivers import ABSENT
driver = open_driver({server.url!r})
for expect in (ABSENT, b"old"):
    try:
        driver.set("key", b"new", expect=expect)
    except DriverUnavailable as error:
        assert "maxmemory" in str(error), error
"""
        run(sys.executable, "-bb", "-c", code)


def test_a_replica_is_left_that_refuses_what_a_script_does(redis62: Valkey) -> None:
    """Redis 6.2 wraps the refusal in what it says of the script."""
    driver = RedisDriver(redis62.url)
    try:
        driver.set("key", b"1")
        driver.set("key", b"2", expect=b"1")  # from now on by a script
        redis62.ask("REPLICAOF", "127.0.0.1", "1")
        with pytest.raises(DriverUnavailable, match="read-only replica"):
            driver.set("key", b"3", expect=b"2")
        before = redis62.ask("INFO", "stats")["total_connections_received"]
        assert driver.get("key") == b"2"
        # One is that of `ask`; the driver's was closed, so that the primary would be looked for again.
        assert redis62.ask("INFO", "stats")["total_connections_received"] == before + 2
    finally:
        redis62.ask("REPLICAOF", "NO", "ONE")
        driver.close()


def test_a_right_that_scripts_lack_is_told_in_a_whole_sentence() -> None:
    error = redis.ResponseError("The user executing the script can't run this command or subcommand script: 'secret'")
    assert reason(error) == "The user executing the script can't run this command or subcommand script"


@both
def test_nobody_listening_is_an_outage(mode: str) -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
    driver = RedisDriver(f"redis://127.0.0.1:{port}", timeout=1)
    with pytest.raises(DriverUnavailable, match=rf"redis://127.0.0.1:{port}: Connection refused"):
        call(driver, mode, "get", "key")
    driver.close()


# --- TLS, Unix sockets, clients of the application ---


# asyncio takes its time to close a connection whose TLS handshake failed, and complains if the loop ends before.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@both
@pytest.mark.parametrize("client_certificates", [False, True])
def test_tls_checks_the_server_and_shows_a_certificate(
    valkey: Valkey, tmp_path: Path, mode: str, client_certificates: bool
) -> None:
    tls = start_tls(valkey.port, tmp_path, client_certificates=client_certificates)
    try:
        url = f"rediss://127.0.0.1:{tls.port}/0?timeout=2s&ssl_ca_certs={tls.ca_file}"
        if client_certificates:
            url += f"&ssl_certfile={tls.cert_file}&ssl_keyfile={tls.key_file}"
        driver = open_driver(url)
        call(driver, mode, "set", "key", b"secret")
        assert call(driver, mode, "get", "key") == b"secret"
        stranger = open_driver(f"rediss://127.0.0.1:{tls.port}/0?timeout=2s")
        with pytest.raises(DriverUnavailable, match=r"(?i)certificate"):
            call(stranger, mode, "get", "key")
        plain = open_driver(f"redis://127.0.0.1:{tls.port}/0?timeout=0.3s")
        with pytest.raises(DriverUnavailable):
            call(plain, mode, "get", "key")
        wrong = open_driver(f"rediss://127.0.0.1:{valkey.port}/0?timeout=0.3s")
        with pytest.raises(DriverUnavailable):
            call(wrong, mode, "get", "key")
        for one in (driver, stranger, plain, wrong):
            one.close()
    finally:
        tls.stop()
        gc.collect()


def test_a_unix_socket(tmp_path: Path) -> None:
    path = tmp_path / "valkey.sock"
    server = start_valkey(tmp_path, config=["--unixsocket", str(path)])
    driver = open_driver(f"unix://{path}?db=3")
    try:
        for mode in ("blocking", "async"):
            call(driver, mode, "set", "key", b"value")
            assert call(driver, mode, "get", "key") == b"value"
        with redis.Redis(port=server.port, db=3) as client:
            assert client.get("key") == b"value"
    finally:
        driver.close()
        server.stop()


def test_a_given_client_is_not_closed(valkey: Valkey) -> None:
    with redis.Redis.from_url(valkey.url) as client:
        driver = RedisDriver(client=client)
        driver.set("key", b"value")
        driver.close()
        assert client.get("key") == b"value"


def test_a_given_asyncio_client_works_in_its_loop_alone(valkey: Valkey) -> None:
    async def main() -> None:
        async with redis.asyncio.Redis.from_url(valkey.url) as client:
            driver = RedisDriver(client=client)
            version = await driver.aset("key", b"1", ttl=10)
            await driver.aset("key", b"2", expect=version)
            with pytest.raises(Conflict):
                await driver.aset("key", b"3", expect=version)
            assert await driver.aget_many(["key", "none"]) == {"key": b"2"}
            assert "key" in [key async for key in driver.akeys("ke")]
            with pytest.raises(Unsupported, match="async methods"):
                driver.get("key")
            await driver.aclose()
            assert await client.get("key") == b"2"

    asyncio.run(main())


@pytest.mark.filterwarnings("ignore:Call to '__init__':DeprecationWarning:redis")  # redis-py 6.0 by itself
def test_given_cluster_clients_work_in_both_modes(valkey_cluster: Cluster) -> None:
    async def main() -> None:
        async with redis.asyncio.RedisCluster(*valkey_cluster.nodes[0].address) as client:
            driver = RedisDriver(client=client)
            assert await driver.aget_many(["a", "b", "c"]) == {"b": b"2", "c": b"3"}
            await driver.aset("a", b"1", expect=ABSENT)
            assert sorted([key async for key in driver.akeys()]) == ["a", "b", "c"]
            with pytest.raises(Conflict):
                await driver.adelete("a", expect=b"2")

    with redis.RedisCluster(*valkey_cluster.nodes[0].address) as client:
        client.flushall()
        driver = RedisDriver(client=client)
        driver.set_many({"a": b"0", "b": b"2", "c": b"3"})
        assert driver.delete("a", expect=b"0")
        asyncio.run(main())
        assert sorted(driver.keys()) == ["a", "b", "c"]


@both
def test_a_given_client_whose_server_refuses_or_is_gone_says_why_and_no_secret(own: Valkey, mode: str) -> None:
    def ask() -> Any:
        # redis-py by itself tries for seven seconds.
        options: dict[str, Any] = {"username": "ada", "password": "wr0ng-passw0rd"}
        if mode == "blocking":
            with own.client(**options, retry=Retry(NoBackoff(), 0)) as client:
                return RedisDriver(client=client).get("key")

        async def main() -> bytes | None:
            retry = redis.asyncio.retry.Retry(NoBackoff(), 0)
            async with redis.asyncio.Redis(port=own.port, **options, retry=retry) as client:
                return await RedisDriver(client=client).aget("key")

        return asyncio.run(main())

    with pytest.raises(DriverUnavailable, match="the given Redis client: the server refuses the user name or password"):
        ask()
    own.kill()
    with pytest.raises(DriverUnavailable, match=r"(?i)the given Redis client: .*connect") as caught:
        ask()
    assert "passw0rd" not in str(caught.value)


@pytest.mark.parametrize("client", [object(), "redis://localhost", redis.Redis(decode_responses=True)])
def test_a_given_client_that_cannot_work_is_refused(client: object) -> None:
    with pytest.raises(ConfigError, match="client must be"):
        RedisDriver(client=client)


# --- URLs ---


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("redis://h1,h2", "several hosts"),
        ("redis://host:0", "is not a host with a port"),
        ("redis://host:99999", "is not a host with a port"),
        ("redis://", "is not a host with a port"),
        ("redis://host/first", "number of the database"),
        ("redis://host/1?db=2", "number of the database"),
        ("redis+sentinel://h1,h2", "name the service"),
        ("redis+sentinel://h1/a/b", "name the service"),
        ("redis+sentinel://user:123/s3cret@h1", r"redis\+sentinel://\.\.\.: name the service"),
        ("redis+cluster://h1/3", "only database 0"),
        ("redis+cluster://h1?db=3", "only database 0"),
        ("unix://", "absolute path"),
        ("redis://host?ssl_ca_certs=/ca.pem", "needs TLS"),
        ("redis://host?timeout=0", "duration"),
        ("redis://host?tiemout=5", "did you mean 'timeout'"),
        ("redis://host?max_connections=0", "max_connections"),
        ("redis://host?db=-1", "db"),
        ("rediss://host?ssl_cert_reqs=maybe", "ssl_cert_reqs"),
        # What would do nothing.
        *(
            (f"{server}?sentinel_{option}=s3cret", f"sentinel_{option} needs Sentinels: redis\\+sentinel://")
            for server in ("redis://host", "rediss://host", "redis+cluster://host", "unix:///run/s.sock")
            for option in ("username", "password")
        ),
        *(
            (f"{server}?{option}", f"{option.partition('=')[0]} needs TLS")
            for server in (
                "redis://host",
                "redis+cluster://host",
                "redis+sentinel://host/service",
                "unix:///run/s.sock",
            )
            for option in ("ssl_certfile=/c.pem", "ssl_keyfile=/k.pem", "ssl_cert_reqs=none", "ssl_check_hostname=no")
        ),
        ("rediss://host?ssl_cert_reqs=none&ssl_check_hostname=yes", "ssl_check_hostname does nothing with"),
        ("rediss://host?ssl_cert_reqs=none&ssl_ca_certs=/ca.pem", "ssl_ca_certs does nothing with"),
        ("rediss://host?ssl_keyfile=/key.pem", "ssl_keyfile needs ssl_certfile"),
        *(
            (f"rediss://host?{option}", f"{option.partition('=')[0]}: the file '.*' is not there")
            for option in ("ssl_ca_certs=/no.pem", "ssl_ca_certs=", "ssl_certfile=/no.pem", "ssl_certfile=")
        ),
        # What would do without some of the hosts.
        ("redis+sentinel://h1, h2/service", "' h2' is not a host"),
        ("redis+cluster://h1, h2", "' h2' is not a host"),
        ("redis+cluster://u:s3cret@h1,u:s3cret@h2", "user and password stand once"),
        ("redis+sentinel://u:s3cret@h1,u:s3cret@h2/service", "user and password stand once"),
        ("redis://host?max_connections=10001", "at most 10000"),
    ],
)
def test_a_url_that_cannot_be_meant_is_refused_at_start(url: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        open_driver(url)
    assert "s3cret" not in str(caught.value)


@pytest.mark.parametrize(
    "option",
    [
        *({"url": "redis://s3cret@host"}, {"db": 0}, {"timeout": 2.0}, {"max_connections": 1}),
        *({"ssl_check_hostname": False}, {"sentinel_password": "s3cret"}),
    ],
)
def test_an_option_beside_a_given_client_is_refused_since_it_would_do_nothing(option: dict[str, Any]) -> None:
    (name,) = option
    with redis.Redis() as client, pytest.raises(ConfigError, match=f"takes a client or {name}, not both") as caught:
        RedisDriver(client=client, **option)
    assert "s3cret" not in str(caught.value)


@given(st.text(min_size=1).filter(lambda text: text.isprintable()), st.text(min_size=6).filter(str.isprintable))
def test_a_password_in_a_url_is_never_shown(user: str, password: str) -> None:
    url = f"redis://{quote(user, safe='')}:{quote(password, safe='')}@redis.example.com:6379/0"
    driver = RedisDriver(url)
    assert repr(driver) == "RedisDriver(redis://redis.example.com:6379/0)"
    store = RedisSessionStore(host="redis.example.com", username=user, password=password)
    assert repr(store) == "RedisSessionStore(RedisDriver(redis://redis.example.com:6379/0), prefix='sess')"
    assert store.driver._transport._settings.options["password"] == password  # type: ignore[attr-defined]


@both
def test_sentinels_and_what_they_watch_are_each_told_their_own_password(valkey_sentinel: Sentinel, mode: str) -> None:
    watcher, primary = valkey_sentinel.watcher, valkey_sentinel.primary
    primary.ask("ACL SETUSER", "app", "on", ">app-secret", "~mine", "+@all")
    watcher.ask("ACL SETUSER", "reader", "on", ">reader-secret", "+@all")
    url = f"redis+sentinel://app:app-secret@{watcher.host}:{watcher.port}/service?sentinel_username=reader"
    right = open_driver(f"{url}&sentinel_password=reader-secret")
    wrong = open_driver(f"{url}&sentinel_password=app-secret")
    try:
        call(right, mode, "set", "mine", b"value")
        assert call(right, mode, "get", "mine") == b"value"
        with pytest.raises(DriverUnavailable, match="the user may not do this"):
            call(right, mode, "get", "another's")
        with pytest.raises(DriverUnavailable, match="the server refuses the user name or password") as caught:
            call(wrong, mode, "get", "mine")
        assert "secret" not in str(caught.value)
    finally:
        right.close()
        primary.ask("ACL DELUSER", "app")
        watcher.ask("ACL DELUSER", "reader")


@both
def test_an_outage_of_sentinels_names_the_service_and_what_each_of_them_says(
    valkey_sentinel: Sentinel, valkey: Valkey, mode: str
) -> None:
    hosts = {
        f"127.0.0.1:{valkey_sentinel.watcher.port}": "knows no such service",
        f"127.0.0.1:{free_ports(1)[0]}": "Connection refused",
        f"127.0.0.1:{valkey.port}": "unknown command",  # no Sentinel
    }
    driver = RedisDriver(f"redis+sentinel://user:s3cret@{','.join(hosts)}/other")
    with pytest.raises(DriverUnavailable) as caught:
        call(driver, mode, "set", "key", b"value")
    driver.close()
    line = str(caught.value)
    assert "no Sentinel names a primary for 'other', asked: " in line
    for host, answer in hosts.items():
        assert re.search(rf"{host} \([^)]*{answer}\b", line), line
    assert line.endswith("; check the name of the service, and whether its Sentinels and its primary run")
    assert "s3cret" not in line


@both
def test_a_silent_sentinel_leaves_time_for_the_others(valkey_sentinel: Sentinel, mode: str) -> None:
    watcher = valkey_sentinel.watcher
    with silent_server() as port:
        driver = RedisDriver(f"redis+sentinel://127.0.0.1:{port},{watcher.host}:{watcher.port}/service", timeout=1)
        call(driver, mode, "set", "key", b"value")
        driver.close()


@both
def test_a_read_that_finds_no_primary_does_not_ask_all_sentinels_twice(mode: str) -> None:
    with silent_server() as port:
        driver = RedisDriver(f"redis+sentinel://127.0.0.1:{port}/service", timeout=1)
        begin = time.monotonic()
        with pytest.raises(DriverUnavailable, match="no Sentinel names a primary"):
            call(driver, mode, "get", "key")
        assert time.monotonic() - begin < 0.9
        driver.close()


def test_a_client_that_was_given_and_finds_no_sentinel_does_not_show_how_it_was_made() -> None:
    sentinels = redis.sentinel.Sentinel(
        [("127.0.0.1", port) for port in free_ports(2)],
        sentinel_kwargs={"password": "s3cret", "client_name": "canary", "retry": Retry(NoBackoff(), 0)},
    )
    with (
        sentinels.master_for("service", retry=Retry(NoBackoff(), 0)) as client,
        pytest.raises(DriverUnavailable) as caught,
    ):
        RedisDriver(client=client).get("key")
    assert str(caught.value).endswith(
        "No master found for 'service'; check the name of the service, and whether its Sentinels and its primary run"
    )


def test_a_store_by_host_and_port(valkey: Valkey) -> None:
    store = RedisSessionStore(host=valkey.host, port=valkey.port, db=2, prefix="shop", ttl="1h")
    store.set("sid", {"user": "ada"})
    assert store.get("sid") == {"user": "ada"}
    with redis.Redis(port=valkey.port, db=2) as client:
        (key,) = client.keys("shop:*")
        assert 3598 <= client.ttl(key) <= 3600
        client.flushdb()
    store.close()
    with pytest.raises(ConfigError, match="not both"):
        RedisSessionStore(valkey.url, host="elsewhere")


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_tls_settings_of_a_store_by_host_and_port_are_not_ignored(valkey: Valkey, tmp_path: Path) -> None:
    tls = start_tls(valkey.port, tmp_path, client_certificates=True)
    try:
        trusting: dict[str, Any] = {
            "ca_certs": str(tls.ca_file),
            "certfile": str(tls.cert_file),
            "keyfile": str(tls.key_file),
            "cert_reqs": "required",
            "check_hostname": True,
        }
        unchecked = {**trusting, "ca_certs": None, "cert_reqs": "none", "check_hostname": False}
        for right in (trusting, {**trusting, "check_hostname": False}, unchecked):
            store = RedisSessionStore(host="127.0.0.1", port=tls.port, tls=right, timeout="2s")
            store.set("sid", {"user": "ada"})
            assert store.get("sid") == {"user": "ada"}
            store.close()
        for wrong in (True, {**trusting, "ca_certs": None}, {**trusting, "certfile": None, "keyfile": None}):
            stranger = RedisSessionStore(host="127.0.0.1", port=tls.port, tls=wrong, timeout="2s")
            with pytest.raises(DriverUnavailable):
                stranger.get("sid")
            stranger.close()
    finally:
        tls.stop()
        gc.collect()


@pytest.mark.parametrize(
    ("tls", "mode", "checks_name"),
    [
        ({}, ssl.CERT_REQUIRED, True),
        ({"ssl_check_hostname": False}, ssl.CERT_REQUIRED, False),
        ({"ssl_cert_reqs": "optional"}, ssl.CERT_OPTIONAL, True),
        ({"ssl_cert_reqs": "none"}, ssl.CERT_NONE, False),
    ],
)
def test_certificates_and_their_names_are_checked_unless_it_is_said_otherwise(
    tls: dict[str, Any], mode: ssl.VerifyMode, checks_name: bool
) -> None:
    url = urlsplit("rediss://redis.example.com")
    settings = Settings.parse(url, db=None, timeout=1, max_connections=1, tls=tls)
    for kind in (redis.SSLConnection, redis.asyncio.SSLConnection):
        connection = kind(**settings.options)
        assert (connection.cert_reqs, connection.check_hostname) == (mode, checks_name)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"tls": {"ca_cert": "/ca.pem"}}, "unknown TLS setting 'ca_cert'; did you mean 'ca_certs'"),
        ({"tls": {"cert_reqs": "maybe"}}, "ssl_cert_reqs must be"),
        ({"tls": "yes"}, "tls must be True, False or a mapping of settings, not str"),
        ({"timeot": "2s"}, "unknown option 'timeot'; did you mean 'timeout'"),
        ({"url": "redis://localhost", "timeout": "2s"}, "put timeout into the url"),
        ({"url": "memory://"}, "takes a URL of Redis or Valkey"),
        *(({name: value}, "is not a host with a port") for name, value in (("port", 0), ("port", ""), ("host", ""))),
    ],
)
def test_settings_of_a_store_by_parts_that_cannot_work_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        RedisSessionStore(**settings)


def test_the_rights_that_the_readme_names_are_enough(tmp_path: Path) -> None:
    rules = "app on >pa55word ~sess:* +@read +@write +@connection +@scripting"
    server = start_valkey(tmp_path, users=[rules])
    store = RedisSessionStore(host=server.host, port=server.port, username="app", password="pa55word")
    try:
        version = store.set("sid", {"n": 1})
        store.set("sid", {"n": 2}, expect=version)
        assert store.touch("sid")
        record = store.read("sid", renew=True)
        assert record is not None
        assert [data for _, data in store.all()] == [{"n": 2}]
        assert store.clear() == 1
        with pytest.raises(DriverUnavailable, match="ACL"):
            store.driver.set("elsewhere", b"x")
    finally:
        store.close()
        server.stop()
