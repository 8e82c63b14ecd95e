"""Where a Redis or Valkey server is, and how to get in: what a URL and its options say."""

from __future__ import annotations

import dataclasses
import os
import re
import socket
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import SplitResult, unquote

from redis.connection import parse_url

from session_kit.drivers.errors import ConfigError
from session_kit.drivers.registry import ESCAPE, redact
from session_kit.drivers.support.checks import check_connections

SCHEME = re.compile(r"(?:redis|valkey)(?P<tls>s?)(?:\+(?P<kind>cluster|sentinel))?|(?P<unix>unix)")
HOST = re.compile(r"(?:\[(?P<v6>[0-9a-fA-F:.]+)\]|(?P<name>[^\[\]:\s]+))(?::(?P<port>[0-9]{1,5}))?")


@dataclass(frozen=True, kw_only=True)
class Settings:
    """One server, a Sentinel-watched one, or a cluster.

    where: for messages; holds no user and no password.
    kind: `"server"`, `"sentinel"` or `"cluster"`.
    hosts: of the server, of the Sentinels, or of some nodes of the cluster.
    socket: the path of a Unix socket, in place of a host.
    service: the name that the Sentinels know.
    timeout: seconds for a connection, and for an answer. max_connections: for blocking calls under way at a time.
    secure: with TLS.
    options: keyword arguments for redis-py's connections.
    sentinel_options: keyword arguments for redis-py's clients of the Sentinels.
    """

    where: str
    kind: str
    hosts: tuple[tuple[str, int], ...]
    socket: str
    service: str
    timeout: float
    max_connections: int
    secure: bool
    options: dict[str, Any] = field(repr=False)
    sentinel_options: dict[str, Any] = field(repr=False)

    def __str__(self) -> str:
        return self.where

    @classmethod
    def parse(
        cls,
        url: SplitResult,
        *,
        db: int | None,
        timeout: float,
        max_connections: int,
        tls: dict[str, Any],
        sentinel_username: str | None = None,
        sentinel_password: str | None = None,
    ) -> Settings:
        """Read a URL; `ConfigError` if it cannot be meant."""
        where = redact(url)
        match = SCHEME.fullmatch(url.scheme)
        if match is None:
            raise ConfigError(f"{where}: not a Redis URL; its scheme is redis, rediss, valkey, valkeys or unix")
        if url.query:
            raise ConfigError(f"{where}: options in a URL are read by open_driver; here they are keyword arguments")
        user, _, address = url.netloc.rpartition("@")
        kind = "server" if match["unix"] else match["kind"] or "server"
        if kind != "server" and "@" in user:  # or all hosts but the last would be taken for a part of the password
            raise ConfigError(f"{where}: user and password stand once, in front of all hosts; {ESCAPE}")
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
        # With an "@" it is a piece of the password, which a / has cut.
        if kind == "sentinel" and (not service or "/" in service or "@" in service):
            raise ConfigError(
                f"{where}: name the service that the Sentinels watch: redis+sentinel://host1,host2/service"
            )
        number = "" if match["unix"] or kind == "sentinel" else path.strip("/")
        if number and (db is not None or not number.isdecimal()):
            raise ConfigError(f"{where}: the path is the number of the database, given once: redis://host:6379/0")
        db = int(number) if number else db or 0
        if db < 0:
            raise ConfigError(f"{where}: db must be 0 or above, not {db}")
        if kind == "cluster" and db:
            raise ConfigError(f"{where}: a cluster has only database 0")
        check_connections(max_connections, where)
        if tls.get("ssl_cert_reqs", "none") not in ("none", "optional", "required"):
            raise ConfigError(f"{where}: ssl_cert_reqs must be required, optional or none")
        if tls and not match["tls"]:
            raise ConfigError(f"{where}: {next(iter(tls))} needs TLS: rediss:// or valkeys://")
        for name in ("ssl_ca_certs", "ssl_check_hostname"):
            if tls.get(name) and tls.get("ssl_cert_reqs") == "none":
                raise ConfigError(f"{where}: {name} does nothing with ssl_cert_reqs=none; leave out one of them")
        if "ssl_keyfile" in tls and "ssl_certfile" not in tls:
            raise ConfigError(f"{where}: ssl_keyfile needs ssl_certfile, the certificate that the key is for")
        for name in ("ssl_ca_certs", "ssl_certfile", "ssl_keyfile"):
            if name in tls and not os.access(tls[name], os.R_OK):
                raise ConfigError(f"{where}: {name}: the file {tls[name]!r} is not there, or cannot be read")
        sentinel = {"sentinel_username": sentinel_username, "sentinel_password": sentinel_password}
        if kind != "sentinel" and (of_sentinels := [name for name, value in sentinel.items() if value is not None]):
            raise ConfigError(f"{where}: {of_sentinels[0]} needs Sentinels: redis+sentinel://host1,host2/service")
        if secure := bool(match["tls"]):
            # Whether redis-py checks names unless asked to differs between its versions.
            checks = tls.get("ssl_cert_reqs") != "none"
            tls = {**tls, "ssl_check_hostname": checks and tls.get("ssl_check_hostname", True)}
        # Of the rest, redis-py's parser knows less: one host, no service, no other scheme.
        login = parse_url(f"redis://{user}@localhost")
        # Sentinels are asked one after the other: one that is silent leaves time for the others, and for the primary.
        share = timeout / (len(hosts) + 1)
        return cls(
            where=where,
            kind=kind,
            hosts=hosts,
            socket=path if match["unix"] else "",
            service=service,
            timeout=timeout,
            max_connections=max_connections,
            secure=secure,
            options={
                "username": login.get("username"),
                "password": login.get("password"),
                "db": db,
                **_waits(timeout),
                **tls,
            },
            sentinel_options={
                "username": sentinel_username,
                "password": sentinel_password,
                "ssl": secure,
                **_waits(share),
                **tls,
            },
        )

    def server(self, host: str, port: int) -> Settings:
        """The settings of one server: a node of this cluster, or what the Sentinels watch."""
        where = f"{self.where} (node {host}:{port})"
        return dataclasses.replace(self, where=where, kind="server", hosts=((host, port),))


def _waits(seconds: float) -> dict[str, Any]:
    return {"socket_timeout": seconds, "socket_connect_timeout": seconds, "protocol": 2}


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
