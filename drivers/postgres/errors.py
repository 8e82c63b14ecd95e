"""What keeps a server from answering, said in one line that shows no password, no key and no value."""

from __future__ import annotations

import re
from typing import Final

from session_kit.drivers.errors import DriverUnavailable
from session_kit.drivers.support.unanswered import is_unanswered, tells_of_nobody


class Failure(Exception):
    """No answer, or a refusal. code: the SQLSTATE of a refusal. unanswered: nobody was found at the address."""

    code = ""
    unanswered = False


class NotConnected(Failure):
    """There is no connection: nothing was sent."""

    def __init__(self, text: str, *, unanswered: bool = False) -> None:
        super().__init__(text)
        self.unanswered = unanswered


class Lost(Failure):
    """The connection ended while an answer was awaited: what was sent may have been done."""


class NoAnswer(Failure):
    """The answer did not come in time: what was sent may have been done."""

    def __init__(self) -> None:
        super().__init__("no answer within the timeout")


class Refused(Failure):
    """The server has refused the statement and done nothing."""

    def __init__(self, code: str, text: str) -> None:
        super().__init__(text)
        self.code = code


# What the standard and PostgreSQL call these: https://www.postgresql.org/docs/current/errcodes-appendix.html
# Others were in the way: serialization failure, deadlock, or another has made the same table a moment before.
CONTENDED: Final = frozenset({"40001", "40P01", "23505", "42P06", "42P07"})
NO_TABLE: Final = "42P01"
NO_SCHEMA: Final = "3F000"
NO_RIGHT: Final = "42501"
READ_ONLY: Final = "25006"
TIMED_OUT: Final = "57014"
_NO_AUTHORITY: Final = re.compile("certificate verify failed|root certificate file")
# Not found by name, and no answer: in the words of psycopg, and of its first 3.2.
_NOBODY: Final = re.compile("failed to resolve host|connection timeout expired|^\\[Errno -")
_OTHER_TABLE: Final = frozenset({"42703", "42804", "42883", "42P10", "42809", "23502"})


def unavailable(where: str, table: str, failure: Failure) -> DriverUnavailable:
    """The error to raise. where: names the server, and table: the table, in the message."""
    return DriverUnavailable(f"{where}: {_reason(table, failure)}", unanswered=failure.unanswered)


def not_connected(error: Exception) -> NotConnected:
    """What psycopg says when it could not connect; of several hosts, of the last one."""
    text = str(error)
    first = text.partition("\n")[0]
    nobody = bool(_NOBODY.search(first)) or tells_of_nobody(first) or is_unanswered(error)
    return NotConnected(plain(text), unanswered=nobody)


def plain(text: str) -> str:
    """What the server or its client library says, in one line: what stands in quotes could be anything."""
    first = text.strip().split("\n")[0].rpartition("failed: ")[2].rpartition("FATAL: ")[2]
    return re.sub(r"""\s*("[^"]*"|'[^']*'|«[^»]*»|„[^“]*“)""", "", first).strip(" .:,") or "no reason given"


def _reason(table: str, failure: Failure) -> str:
    code, text = failure.code, plain(str(failure))
    if code == NO_RIGHT:
        return f"{text}; sessions need SELECT, INSERT, UPDATE and DELETE on {table}, and CREATE if it is not there"
    if code == READ_ONLY:
        return "the server is a read-only replica"
    if code == TIMED_OUT:
        return str(NoAnswer())
    if _NO_AUTHORITY.search(text):
        return f"{text}; sslrootcert= is the file of the authority that has signed the certificate, or has it expired?"
    if code in _OTHER_TABLE:
        return f"the table {table} was made by another program: name another by table="
    return text
