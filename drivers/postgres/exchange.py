"""One statement and its answer, on a connection of PostgreSQL's client library; who waits is left to the caller.

All parameters and answers travel in PostgreSQL's binary form. No statement is prepared under a name, so that each may
run on another connection of the server: that is what PgBouncer does in transaction mode.
"""

from __future__ import annotations

import struct
from collections.abc import Generator, Sequence
from typing import Final, NamedTuple

import psycopg
from psycopg.pq import DiagnosticField, ExecStatus, Format
from psycopg.pq.abc import PGconn, PGresult

from session_kit.drivers.postgres.errors import Failure, Lost, Refused, plain

Parameter = bytes | int | float | list[bytes] | list[int] | None

BYTEA: Final = 17
INT8: Final = 20
FLOAT8: Final = 701
BYTEA_ARRAY: Final = 1001
INT8_ARRAY: Final = 1016

INTEGER: Final = struct.Struct("!q")
FLOAT: Final = struct.Struct("!d")
LENGTH: Final = struct.Struct("!i")
ARRAY_HEAD: Final = struct.Struct("!iiIii")

_ENDINGS: Final = frozenset({b"FATAL", b"PANIC"})


class Statement(NamedTuple):
    """What to send. Without parameters it may be several statements, which the server runs as one transaction."""

    sql: bytes
    parameters: tuple[Parameter, ...] = ()


def exchange(connection: PGconn, statement: Statement) -> Generator[bool, None, PGresult]:
    """Send `statement` and return its answer.

    Yields each time that it has to wait: True to write or read, False to read. Raises `Refused` and `Lost`.
    """
    try:
        if statement.parameters:
            types, values = map(list, zip(*map(_binary, statement.parameters), strict=True))
            formats = [Format.BINARY] * len(values)
            connection.send_query_params(statement.sql, values, types, formats, Format.BINARY)
        else:
            connection.send_query(statement.sql)
        while connection.flush():
            yield True
            connection.consume_input()  # else two that both wait until they can write would wait for ever
        answer = None
        while True:
            while connection.is_busy():
                yield False
                connection.consume_input()
            result = connection.get_result()
            if result is None:
                break
            if answer is None or answer.status != ExecStatus.FATAL_ERROR:
                answer = result
    except psycopg.Error as error:
        lost = plain(str(error))
    else:
        if answer is None:
            raise Lost("the server has closed the connection")
        if answer.status == ExecStatus.FATAL_ERROR:
            raise _refusal(answer)
        return answer
    raise Lost(lost)  # outside, because the error knows the connection, and that its password


def rows(answer: PGresult) -> list[list[bytes | None]]:
    """The rows of an answer."""
    columns = range(answer.nfields)
    return [[answer.get_value(row, column) for column in columns] for row in range(answer.ntuples)]


def _refusal(answer: PGresult) -> Failure:
    code = (answer.error_field(DiagnosticField.SQLSTATE) or b"").decode()
    text = (answer.error_field(DiagnosticField.MESSAGE_PRIMARY) or answer.error_message).decode(errors="replace")
    # The server ends the connection: whether it has done what was asked is not known.
    if not code or answer.error_field(DiagnosticField.SEVERITY_NONLOCALIZED) in _ENDINGS:
        return Lost(plain(text))
    return Refused(code, text)


def _binary(value: Parameter) -> tuple[int, bytes | None]:
    """The type of a parameter, and its value in binary form."""
    if value is None:
        return 0, None
    if isinstance(value, bytes):
        return BYTEA, value
    if isinstance(value, float):
        return FLOAT8, FLOAT.pack(value)
    if isinstance(value, int):
        return INT8, INTEGER.pack(value)
    if value and isinstance(value[0], int):
        return INT8_ARRAY, _array(INT8, [INTEGER.pack(item) for item in value])
    return BYTEA_ARRAY, _array(BYTEA, value)  # type: ignore[arg-type]  # what is left is a list of bytes


def _array(type_of_items: int, items: Sequence[bytes]) -> bytes:
    head = ARRAY_HEAD.pack(1, 0, type_of_items, len(items), 1)
    return head + b"".join([part for item in items for part in (LENGTH.pack(len(item)), item)])
