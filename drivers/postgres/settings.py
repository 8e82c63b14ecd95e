"""Where a PostgreSQL server is, and how to get in: what a URL and its options say."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import SplitResult

import psycopg
from psycopg import conninfo, pq

from session_kit.drivers.errors import ConfigError
from session_kit.drivers.registry import ESCAPE, redact
from session_kit.drivers.support.checks import check_connections

SCHEMES: Final = ("postgresql", "postgres")
LONGEST_NAME: Final = 63  # bytes; PostgreSQL cuts what is longer
INDEX_ENDING: Final = "_expiry"
NO_SOCKET: Final = "/dev/null/none"
REFUSAL: Final = re.compile(r"^(?:invalid|could not match|definition of service) .*", re.MULTILINE)
# Which the client library reads only for TCP.
NUMBERS: Final = frozenset({"connect_timeout", "tcp_user_timeout"}) | {
    f"keepalives{ending}" for ending in ("", "_idle", "_interval", "_count")
}
LARGEST_NUMBER: Final = 2**31 - 1


def client_options() -> list[str]:
    """The options that PostgreSQL's own client library knows: `sslmode`, `host`, `application_name` and so on."""
    return [option.keyword.decode() for option in pq.Conninfo.get_defaults()]


@dataclass(frozen=True, kw_only=True)
class Settings:
    """One server, or several of which one takes writes.

    where: for messages; holds no user and no password.
    timeout: seconds for a connection, for a free one, and for an answer.
    max_connections: of blocking code, and of each event loop.
    parameters: for the client library.
    """

    where: str
    timeout: float
    max_connections: int
    parameters: Mapping[str, Any] = field(repr=False)

    def __str__(self) -> str:
        return self.where

    @classmethod
    def parse(cls, url: SplitResult, *, timeout: float, max_connections: int, options: Mapping[str, Any]) -> Settings:
        """Read a URL, and the options of the client library beside it; `ConfigError` if it cannot be meant."""
        where = redact(url)
        if url.scheme not in SCHEMES:
            raise ConfigError(f"{where}: not a PostgreSQL URL; its scheme is postgresql or postgres")
        if url.query:
            raise ConfigError(f"{where}: options in a URL are read by open_driver; here they are keyword arguments")
        check_connections(max_connections, where)
        given: dict[str, Any] | None = None
        # Else the client library would take a part of the password for the host, and show it.
        if url.netloc.count("@") < 2 and "@" not in url.path:
            try:
                given = conninfo.conninfo_to_dict(f"postgresql://{url.netloc}{url.path}", **options)
            except psycopg.Error:  # whose message shows what it could not read
                given = None
        if given is None or not all(port.isdecimal() for port in str(given.get("port", "0")).split(",") if port):
            raise ConfigError(f"{where}: not a URL or an option that PostgreSQL's client library takes; {ESCAPE}")
        for name in NUMBERS & given.keys():
            if not str(given[name]).isdecimal() or int(given[name]) > LARGEST_NUMBER:
                raise ConfigError(f"{where}: {name} must be a whole number from 0 to {LARGEST_NUMBER}")
        hosts = str(given.get("host") or os.environ.get("PGHOST", "")).count(",") + 1
        parameters = {
            # The client library counts whole seconds, at least 2, and for each host anew.
            "connect_timeout": max(2, math.ceil(timeout / hosts)),
            "keepalives_idle": 30,
            "keepalives_interval": 5,
            "keepalives_count": 3,
            "tcp_user_timeout": min(math.ceil(timeout * 1000), LARGEST_NUMBER),
            "fallback_application_name": "session-kit",
            "client_encoding": "UTF8",
            **({"target_session_attrs": "read-write"} if hosts > 1 else {}),
            **given,
        }
        if refusal := _refusal(parameters, hosts):
            raise ConfigError(f"{where}: PostgreSQL's client library says: {refusal}")
        return cls(where=where, timeout=timeout, max_connections=max_connections, parameters=parameters)

    def timed(self) -> Mapping[str, Any]:
        """The parameters that let the server itself give up a statement in time; what the user says comes later."""
        limit = f"-c statement_timeout={math.ceil(self.timeout * 1000)}"
        return {**self.parameters, "options": f"{limit} {self.parameters.get('options', '')}".strip()}


def _refusal(parameters: Mapping[str, Any], hosts: int) -> str:
    """What the client library says of values that it does not take, or nothing.

    It looks at them only when it connects: here to sockets that do not exist, which takes no network.
    """
    nowhere = {**parameters, "host": ",".join([NO_SOCKET] * hosts), "hostaddr": ""}
    connection = pq.PGconn.connect_start(conninfo.make_conninfo("", **nowhere).encode())
    said = REFUSAL.search(connection.error_message.decode(errors="replace"))
    connection.finish()
    return said[0] if said else ""


@dataclass(frozen=True)
class Table:
    """The table. sql: its name in SQL, index: that of the index on the expiry, schema: that of its schema, or empty.

    unlogged: make it without a write-ahead log.
    """

    sql: str
    index: str
    schema: str
    unlogged: bool

    def __str__(self) -> str:
        return self.sql

    @classmethod
    def named(cls, table: str, schema: str | None, *, unlogged: bool) -> Table:
        """The table of this name; `ConfigError` for what cannot be a name."""
        name = _identifier("table", table, LONGEST_NAME - len(INDEX_ENDING))
        index = _identifier("table", f"{table}{INDEX_ENDING}", LONGEST_NAME)
        if schema is None:
            return cls(name, index, "", unlogged)
        quoted = _identifier("schema", schema, LONGEST_NAME)
        return cls(f"{quoted}.{name}", index, quoted, unlogged)


def _identifier(what: str, name: str, longest: int) -> str:
    try:
        fits = 0 < len(name.encode()) <= longest and "\0" not in name
    except UnicodeEncodeError:
        fits = False
    if not fits:
        raise ConfigError(f"{what} must be a name of 1 to {longest} bytes without a NUL, not {name!r}")
    if what == "table" and "." in name:
        raise ConfigError(f"{name!r} is no table: write table=NAME&schema=SCHEMA")
    quoted = name.replace('"', '""')
    return f'"{quoted}"'
