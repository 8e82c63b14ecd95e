"""Where a Redis or Valkey server is, and how to get in: what a URL and its options say."""

from __future__ import annotations

import dataclasses
import re
import ssl
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import SplitResult, unquote

from session_kit.drivers.errors import ConfigError
from session_kit.drivers.redis.protocol import Command
from session_kit.drivers.registry import ESCAPE, redact

SCHEME = re.compile(r"(?:redis|valkey)(?P<tls>s?)(?:\+(?P<kind>cluster|sentinel))?|(?P<unix>unix)")
HOST = re.compile(r"(?:\[(?P<v6>[0-9a-fA-F:.]+)\]|(?P<name>[^\[\]:]+))(?::(?P<port>[0-9]{1,5}))?")
CERT_REQS = {"none": ssl.CERT_NONE, "optional": ssl.CERT_OPTIONAL, "required": ssl.CERT_REQUIRED}


@dataclass(frozen=True, kw_only=True)
class Login:
    """User and password; None where there is none."""

    username: str | None = None
    password: str | None = field(default=None, repr=False)

    def commands(self) -> list[Command]:
        if not (self.username or self.password):
            return []
        return [("AUTH", *([self.username] if self.username else []), self.password or "")]


@dataclass(frozen=True, kw_only=True)
class Settings:
    """One server, a Sentinel-watched one, or a cluster.

    where: for messages; holds no user and no password.
    kind: `"server"`, `"sentinel"` or `"cluster"`.
    hosts: of the server, of the Sentinels, or of some nodes of the cluster.
    socket: the path of a Unix socket, in place of a host.
    service: the name that the Sentinels know.
    timeout: seconds for a connection, and for an answer. max_connections: for blocking calls under way at a time.
    tls: the `ssl_...` options that were given; None without TLS.
    """

    where: str
    kind: str
    hosts: tuple[tuple[str, int], ...]
    socket: str
    service: str
    timeout: float
    max_connections: int
    db: int
    tls: dict[str, Any] | None
    login: Login
    sentinel_login: Login

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
        sentinel_login: Login,
    ) -> Settings:
        """Read a URL; `ConfigError` if it cannot be meant."""
        where = redact(url)
        match = SCHEME.fullmatch(url.scheme)
        if match is None:
            raise ConfigError(f"{where}: not a Redis URL; its scheme is redis, rediss, valkey, valkeys or unix")
        if url.query:
            raise ConfigError(f"{where}: options in a URL are read by open_driver; here they are keyword arguments")
        user, _, address = url.netloc.rpartition("@")
        name, _, password = user.partition(":")
        kind = "server" if match["unix"] else match["kind"] or "server"
        path = unquote(url.path)
        hosts: tuple[tuple[str, int], ...] = ()
        if match["unix"]:
            if not path.strip("/") or address:
                raise ConfigError(f"{where}: a Unix socket needs an absolute path: unix:///run/valkey.sock")
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
        db = int(number) if number else db or 0
        if db < 0:
            raise ConfigError(f"{where}: db must be 0 or above, not {db}")
        if kind == "cluster" and db:
            raise ConfigError(f"{where}: a cluster has only database 0")
        if max_connections < 1:
            raise ConfigError(f"{where}: max_connections must be at least 1, not {max_connections}")
        if tls.get("ssl_cert_reqs", "none") not in CERT_REQS:
            raise ConfigError(f"{where}: ssl_cert_reqs must be required, optional or none")
        if tls and not match["tls"]:
            raise ConfigError(f"{where}: {next(iter(tls))} needs TLS: rediss:// or valkeys://")
        return cls(
            where=where,
            kind=kind,
            hosts=hosts,
            socket=path if match["unix"] else "",
            service=service,
            timeout=timeout,
            max_connections=max_connections,
            db=db,
            tls=tls if match["tls"] else None,
            login=Login(username=unquote(name) or None, password=unquote(password) or None),
            sentinel_login=sentinel_login,
        )

    def server(self, host: str, port: int) -> Settings:
        """The settings of one server: a node of this cluster, or what the Sentinels watch."""
        where = f"{self.where} (node {host}:{port})"
        return dataclasses.replace(self, where=where, kind="server", hosts=((host, port),))

    def sentinel(self, host: str, port: int) -> Settings:
        """The settings of one of the Sentinels."""
        return dataclasses.replace(self.server(host, port), db=0, login=self.sentinel_login)

    def greeting(self) -> list[Command]:
        """What a new connection has to say first."""
        return [*self.login.commands(), *([("SELECT", self.db)] if self.db else [])]

    def ssl_context(self) -> ssl.SSLContext | None:
        """Made for each connection: certificates in files are renewed. Raises `OSError` if one cannot be read."""
        if self.tls is None:
            return None
        context = ssl.create_default_context(cafile=self.tls.get("ssl_ca_certs"))
        if certificate := self.tls.get("ssl_certfile"):
            context.load_cert_chain(certificate, self.tls.get("ssl_keyfile"))
        mode = CERT_REQS[self.tls.get("ssl_cert_reqs", "required")]
        context.check_hostname = mode != ssl.CERT_NONE and self.tls.get("ssl_check_hostname", True)
        context.verify_mode = mode
        return context


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
