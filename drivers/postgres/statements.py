"""What the driver asks the server: each call as one statement, and how to read the answer."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Final, Generic, NamedTuple, TypeVar

from psycopg.pq.abc import PGresult

from session_kit.drivers.base import (
    ABSENT,
    ANY,
    CHANGED,
    LIST_BATCH,
    PRUNE_BATCH,
    Entry,
    check_key,
    check_ttl,
    check_value,
)
from session_kit.drivers.errors import Conflict
from session_kit.drivers.postgres.errors import NO_SCHEMA, NO_TABLE
from session_kit.drivers.postgres.exchange import FLOAT, INTEGER, Statement, rows
from session_kit.drivers.postgres.settings import Table

R = TypeVar("R")

BATCH_BYTES: Final = 16 * 1024 * 1024
NO_KEY: Final = b"\xff"  # greater than any key: UTF-8 has no such byte
LOCK: Final = 0x73657373696F6E  # of all that make a table of ours


class Request(NamedTuple, Generic[R]):
    """A statement and what its answer means. repeatable: doing it twice does no harm."""

    statement: Statement
    parse: Callable[[PGresult], R]
    repeatable: bool = False


class Statements:
    """The statements on one table. Names are all that is put together into SQL.

    clock: Unix time in seconds; the server's own clock is never asked.
    """

    def __init__(self, table: Table, clock: Callable[[], float]) -> None:
        self._clock = clock
        live = "(t.expires_at IS NULL OR t.expires_at > {})".format
        name = f"{table} AS t"
        insert = (
            f"INSERT INTO {name} (key, value, version, expires_at) {{}} ON CONFLICT (key) DO UPDATE"
            " SET value = excluded.value, version = excluded.version, expires_at = excluded.expires_at"
        )
        upsert = insert.format("VALUES ($1, $2, $3, $4)")

        def sql(text: str) -> bytes:
            return text.encode()

        self._read = sql(f"SELECT value, version, expires_at FROM {name} WHERE key = $1 AND {live('$2')}")  # noqa: S608  # the table's name is quoted
        self._has = sql(f"SELECT FROM {name} WHERE key = $1 AND {live('$2')}")
        self._touch = sql(f"UPDATE {name} SET expires_at = $3 WHERE key = $1 AND {live('$2')}")  # noqa: S608  # the table's name is quoted
        self._renew = self._touch + b" RETURNING value, version, expires_at"
        self._upsert = sql(upsert)
        self._create = sql(f"{upsert} WHERE NOT {live('$5')}")
        self._swap = sql(
            f"UPDATE {name} SET value = $2, version = $3, expires_at = $4 WHERE key = $1 AND {live('$5')}"  # noqa: S608  # the table's name is quoted
            " AND version = $6"
        )
        self._delete = sql(f"DELETE FROM {name} WHERE key = $1 AND {live('$2')}")  # noqa: S608  # the table's name is quoted
        self._delete_version = self._delete + b" AND version = $3"
        self._get_many = sql(f"SELECT key, value FROM {name} WHERE key = ANY($1) AND {live('$2')}")  # noqa: S608  # the table's name is quoted
        self._set_many = sql(insert.format("SELECT k, v, n, $4 FROM unnest($1, $2, $3) AS given (k, v, n)"))
        # Locked in one order, so that two do not wait for each other.
        self._delete_many = sql(
            f"DELETE FROM {name} WHERE key = ANY(ARRAY(SELECT key FROM {name} WHERE key = ANY($1) AND {live('$2')}"  # noqa: S608  # the table's name is quoted
            " ORDER BY key FOR UPDATE))"
        )
        self._page = sql(
            f"SELECT key FROM {name} WHERE key >= $1 AND key < $2 AND {live('$3')} ORDER BY key LIMIT {LIST_BATCH}"  # noqa: S608  # the table's name is quoted
        )
        # Those that another process is about to remove are left to it.
        self._prune = sql(
            f"DELETE FROM {name} WHERE key = ANY(ARRAY(SELECT key FROM {table} WHERE expires_at <= $1"  # noqa: S608  # the table's name is quoted
            f" ORDER BY expires_at LIMIT {PRUNE_BATCH} FOR UPDATE SKIP LOCKED))"
        )
        self.remedies = {NO_TABLE: self._making(table)}
        """What to ask before the same again, by the reason of a refusal."""
        if table.schema:
            make = Statement(sql(f"CREATE SCHEMA IF NOT EXISTS {table.schema}"))
            self.remedies[NO_SCHEMA] = Request(make, _nothing, repeatable=True)

    def read(self, key: str) -> Request[Entry | None]:
        return Request(Statement(self._read, (_key(key), self._now())), _entry, repeatable=True)

    def get(self, key: str) -> Request[bytes | None]:
        return Request(Statement(self._read, (_key(key), self._now())), _value, repeatable=True)

    def has(self, key: str) -> Request[bool]:
        return Request(Statement(self._has, (_key(key), self._now())), _any, repeatable=True)

    def renew(self, key: str, ttl: float) -> Request[Entry | None]:
        check_ttl(ttl)
        return Request(Statement(self._renew, self._touching(key, ttl)), _entry, repeatable=True)

    def touch(self, key: str, ttl: float | None) -> Request[bool]:
        return Request(Statement(self._touch, self._touching(key, ttl)), _changed_any, repeatable=True)

    def set(self, key: str, value: bytes, *, ttl: float | None = None, expect: object = ANY) -> Request[object]:
        stored, now, version = _key(key), self._now(), _version()
        check_value(value)
        row = (stored, value, version, _end(now, ttl))
        if expect is ANY:
            return Request(Statement(self._upsert, row), lambda _: version)
        if expect is ABSENT:
            statement = Statement(self._create, (*row, now))
        else:
            statement = Statement(self._swap, (*row, now, _asked(expect)))

        def parse(answer: PGresult) -> object:
            if not answer.command_tuples:
                raise Conflict(CHANGED)
            return version

        return Request(statement, parse)

    def delete(self, key: str, *, expect: object = ANY) -> Request[bool]:
        parameters = (_key(key), self._now())
        if expect is ANY:
            return Request(Statement(self._delete, parameters), _changed_any)
        if expect is ABSENT:
            return Request(Statement(self._has, parameters), _absent, repeatable=True)
        return Request(Statement(self._delete_version, (*parameters, _asked(expect))), _deleted)

    def get_many(self, keys: list[bytes]) -> Request[dict[str, bytes]]:
        return Request(Statement(self._get_many, (keys, self._now())), _values, repeatable=True)

    def set_many(self, items: Mapping[str, bytes], ttl: float | None) -> Iterator[Request[None]]:
        """The statements that store `items`, so many in each that none is too long for the server."""
        check_ttl(ttl)
        for key, value in items.items():
            check_key(key)
            check_value(value)
        batch: dict[bytes, bytes] = {}
        size = 0
        for key in sorted(items):  # in one order, so that two do not wait for each other
            batch[key.encode()] = items[key]
            size += len(items[key])
            if len(batch) == LIST_BATCH or size >= BATCH_BYTES:
                yield self._set_batch(batch, ttl)
                batch, size = {}, 0
        if batch:
            yield self._set_batch(batch, ttl)

    def delete_many(self, keys: list[bytes]) -> Request[int]:
        return Request(Statement(self._delete_many, (keys, self._now())), _changed)

    def page(self, start: bytes, end: bytes) -> Request[list[bytes]]:
        """Live keys from `start` on and before `end`, in the order of their bytes; none if there are no more."""
        return Request(Statement(self._page, (start, end, self._now())), _keys, repeatable=True)

    def prune(self) -> Request[int]:
        """Remove some of what has expired."""
        return Request(Statement(self._prune, (self._now(),)), _changed)

    def _making(self, table: Table) -> Request[None]:
        # IF NOT EXISTS alone fails for one of two that begin at the same time, so they take turns.
        parts = [
            f"SELECT pg_advisory_xact_lock({LOCK})",
            f"CREATE {'UNLOGGED ' if table.unlogged else ''}TABLE IF NOT EXISTS {table} (key bytea PRIMARY KEY,"
            " value bytea NOT NULL, version bigint NOT NULL, expires_at double precision)",
            f"CREATE INDEX IF NOT EXISTS {table.index} ON {table} (expires_at) WHERE expires_at IS NOT NULL",
        ]
        return Request(Statement(";".join(parts).encode()), _nothing, repeatable=True)

    def _now(self) -> float:
        return float(self._clock())

    def _touching(self, key: str, ttl: float | None) -> tuple[bytes, float, float | None]:
        stored, now = _key(key), self._now()
        return stored, now, _end(now, ttl)

    def _set_batch(self, batch: Mapping[bytes, bytes], ttl: float | None) -> Request[None]:
        versions = [_version() for _ in batch]
        end = _end(self._now(), ttl)
        return Request(Statement(self._set_many, (list(batch), list(batch.values()), versions, end)), _nothing)


def checked(keys: Iterable[str]) -> list[bytes]:
    """Keys as they are stored, each once."""
    return [_key(key) for key in dict.fromkeys(keys)]


def bounds(prefix: str) -> tuple[bytes, bytes]:
    """The least key that begins with `prefix`, and what is greater than all of them and no key between."""
    start = prefix.encode()
    return start, start[:-1] + bytes([start[-1] + 1]) if start else NO_KEY


def _key(key: str) -> bytes:
    check_key(key)
    return key.encode()


def _version() -> int:
    return secrets.randbits(63)


def _asked(expect: object) -> int:
    """The version as it is stored; none is negative, so that what is no version of ours equals none."""
    return expect if type(expect) is int and 0 <= expect < 2**63 else -1


def _end(now: float, ttl: float | None) -> float | None:
    check_ttl(ttl)
    return None if ttl is None else now + ttl


# --- answers ---


def _nothing(answer: PGresult) -> None:
    pass


def _entry(answer: PGresult) -> Entry | None:
    for value, version, end in rows(answer):
        return Entry(value or b"", INTEGER.unpack(version or b"")[0], None if end is None else FLOAT.unpack(end)[0])
    return None


def _value(answer: PGresult) -> bytes | None:
    return answer.get_value(0, 0) if answer.ntuples else None


def _values(answer: PGresult) -> dict[str, bytes]:
    found: Any = rows(answer)
    return {key.decode(): value for key, value in found}


def _keys(answer: PGresult) -> list[bytes]:
    found: Any = rows(answer)
    return [key for (key,) in found]


def _any(answer: PGresult) -> bool:
    return answer.ntuples > 0


def _absent(answer: PGresult) -> bool:
    if answer.ntuples:
        raise Conflict(CHANGED)
    return False


def _changed(answer: PGresult) -> int:
    return answer.command_tuples or 0


def _changed_any(answer: PGresult) -> bool:
    return bool(answer.command_tuples)


def _deleted(answer: PGresult) -> bool:
    if not answer.command_tuples:
        raise Conflict(CHANGED)
    return True
