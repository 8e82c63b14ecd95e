"""Where a Redis or Valkey server is, and how to get in: what a URL says, as redis-py's connections and clients."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import functools
import re
import socket
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import SplitResult, unquote

import redis
import redis.asyncio
import redis.sentinel
from redis.backoff import NoBackoff
from redis.retry import Retry

from session_kit.drivers.errors import ConfigError
from session_kit.drivers.registry import ESCAPE, redact

SCHEME = re.compile(r"(?:redis|valkey)(?P<tls>s?)(?:\+(?P<kind>cluster|sentinel))?|(?P<unix>unix)")
HOST = re.compile(r"(?:\[(?P<v6>[0-9a-fA-F:.]+)\]|(?P<name>[^\[\]:]+))(?::(?P<port>[0-9]{1,5}))?")


@dataclass(frozen=True)
class Endpoint:
    """One server, a Sentinel-watched one, or a cluster.

    where: for messages; holds no user and no password.
    kind: `"server"`, `"sentinel"` or `"cluster"`.
    hosts: of the server, of the Sentinels, or of some nodes of the cluster.
    socket: the path of a Unix socket, in place of a host.
    service: the name that the Sentinels know.
    timeout: seconds for a connection, and for an answer. max_connections: for blocking calls under way at a time.
    settings, sentinel_settings: keyword arguments of redis-py's connections.
    """

    where: str
    kind: str
    hosts: tuple[tuple[str, int], ...]
    socket: str
    service: str
    timeout: float
    max_connections: int
    settings: dict[str, Any] = field(repr=False)
    sentinel_settings: dict[str, Any] = field(repr=False)

    def __str__(self) -> str:
        return self.where

    @classmethod
    def parse(
        cls,
        url: SplitResult,
        *,
        db: int | None = None,
        timeout: float,
        max_connections: int,
        tls: dict[str, Any],
        sentinel_username: str | None = None,
        sentinel_password: str | None = None,
    ) -> Endpoint:
        """Read a URL; `ConfigError` if it cannot be meant."""
        where = redact(url)
        match = SCHEME.fullmatch(url.scheme)
        if match is None:
            raise ConfigError(f"{where}: not a Redis URL; its scheme is redis, rediss, valkey, valkeys or unix")
        if url.query:
            raise ConfigError(f"{where}: options in a URL are read by open_driver; here they are keyword arguments")
        user, _, address = url.netloc.rpartition("@")
        name, _, password = user.partition(":")
        settings: dict[str, Any] = {
            "username": unquote(name) or None,
            "password": unquote(password) or None,
            "socket_timeout": timeout,
            "socket_connect_timeout": timeout,
            # RESP2 has all we ask for, and no push message can come between two answers.
            "protocol": 2,
            "driver_info": None,
            # What may be sent again is decided by the call, not by the connection.
            "retry": Retry(NoBackoff(), 0),
        }
        kind = "server" if match["unix"] else match["kind"] or "server"
        path = unquote(url.path)
        hosts: tuple[tuple[str, int], ...] = ()
        if match["unix"]:
            if not path.strip("/") or address:
                raise ConfigError(f"{where}: a Unix socket needs an absolute path: unix:///run/valkey.sock")
            if not hasattr(socket, "AF_UNIX"):
                raise ConfigError(f"{where}: Python knows no Unix sockets on this system; use redis://127.0.0.1:6379")
        else:
            hosts = _hosts(address, 26379 if kind == "sentinel" else 6379, where)
        if kind == "server" and len(hosts) > 1:
            raise ConfigError(
                f"{where}: several hosts are a cluster or its Sentinels: redis+cluster:// or redis+sentinel://"
            )
        service = path.strip("/") if kind == "sentinel" else ""
        if kind == "sentinel" and (not service or "/" in service):
            raise ConfigError(
                f"{where}: name the service that the Sentinels watch: redis+sentinel://host1,host2/service"
            )
        number = "" if match["unix"] or kind == "sentinel" else path.strip("/")
        if number and (db is not None or not number.isdecimal()):
            raise ConfigError(f"{where}: the path is the number of the database, given once: redis://host:6379/0")
        settings["db"] = int(number) if number else db or 0
        if settings["db"] < 0:
            raise ConfigError(f"{where}: db must be 0 or above, not {settings['db']}")
        if kind == "cluster" and settings["db"]:
            raise ConfigError(f"{where}: a cluster has only database 0")
        if max_connections < 1:
            raise ConfigError(f"{where}: max_connections must be at least 1, not {max_connections}")
        if tls.get("ssl_cert_reqs", "none") not in ("none", "optional", "required"):
            raise ConfigError(f"{where}: ssl_cert_reqs must be required, optional or none")
        if tls and not match["tls"]:
            raise ConfigError(f"{where}: {next(iter(tls))} needs TLS: rediss:// or valkeys://")
        # redis-py spells TLS as `ssl`.
        security = {"ssl": True, **tls} if match["tls"] else {}
        sentinel_settings = {
            "username": sentinel_username,
            "password": sentinel_password,
            "socket_timeout": timeout,
            "socket_connect_timeout": timeout,
            **security,
        }
        return cls(
            where,
            kind,
            hosts,
            path if match["unix"] else "",
            service,
            timeout,
            max_connections,
            {**settings, **security},
            sentinel_settings,
        )

    def connection(self) -> Any:
        """Make a blocking connection, not yet connected. That of a Sentinel asks for the primary when it connects."""
        return _unconnected(self._client)

    @contextlib.asynccontextmanager
    async def async_connection(self) -> AsyncIterator[Any]:
        """Connect a connection of the running event loop; it is closed on the way out."""
        sentinels, client = None, None
        if self.kind == "sentinel":
            sentinels = redis.asyncio.Sentinel(self.hosts, sentinel_kwargs=self.sentinel_settings, **self.settings)
            client = sentinels.master_for(self.service)
        else:
            client = redis.asyncio.Redis(**self._address, **self.settings)
        connection = _unconnected(client)
        try:
            async with asyncio.timeout(self.timeout):
                await connection.connect()
            yield connection
        finally:
            await connection.disconnect(nowait=True)
            if sentinels is not None:
                await sentinels.aclose()

    def node(self, host: str, port: int) -> Endpoint:
        """The endpoint of one node of this cluster."""
        where = f"{self.where} (node {host}:{port})"
        return dataclasses.replace(self, where=where, kind="server", hosts=((host, port),))

    @functools.cached_property
    def _client(self) -> Any:
        if self.kind == "sentinel":
            sentinels = redis.sentinel.Sentinel(self.hosts, sentinel_kwargs=self.sentinel_settings, **self.settings)
            return sentinels.master_for(self.service)
        return redis.Redis(**self._address, **self.settings)

    @property
    def _address(self) -> dict[str, Any]:
        if self.socket:
            return {"unix_socket_path": self.socket}
        host, port = self.hosts[0]
        return {"host": host, "port": port}


def _unconnected(client: Any) -> Any:
    # Only redis-py knows which of its connection classes all these settings ask for.
    pool = client.connection_pool
    return pool.connection_class(**pool.connection_kwargs)


def _hosts(address: str, port: int, where: str) -> tuple[tuple[str, int], ...]:
    hosts = []
    for item in address.split(","):
        match = HOST.fullmatch(item)
        if match is None or int(match["port"] or port) not in range(1, 65536):
            # Behind a URL that is not shown whole, this may be user and password.
            shown = "that" if where.endswith("...") else repr(item)
            raise ConfigError(f"{where}: {shown} is not a host with a port, like redis.example.com:6379; {ESCAPE}")
        hosts.append((match["v6"] or unquote(match["name"]), int(match["port"] or port)))
    return tuple(hosts)
