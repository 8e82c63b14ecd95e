"""What a lifecycle works with: what stands in the store, a write that is prepared, how far the response is."""

from __future__ import annotations

from enum import Enum
from typing import NamedTuple

import msgspec
from msgspec import Raw

from session_kit.draft import Change
from session_kit.policy import EventName
from session_kit.record import Notes


class Phase(Enum):
    """How far the response is."""

    AHEAD = "no byte has left, a cookie can still be sent"
    BEGUN = "no cookie can be sent any more"
    FAILED = "the answer is a 5xx: nothing more is saved"
    REPLACED = "the client was told that the store is down, in place of the application's answer"
    ENDED = "the request is over, nothing is saved any more"


AHEAD = Phase.AHEAD
BEGUN = Phase.BEGUN
FAILED = Phase.FAILED
REPLACED = Phase.REPLACED
ENDED = Phase.ENDED


class Stored(msgspec.Struct, frozen=True, gc=False):
    """What stands in the store, as far as this request knows.

    name: finds the record. id: name and token.
    raw: the notes as they are encoded; None in a record that another program wrote.
    """

    name: str
    id: str
    version: object
    expires_at: float | None
    notes: Notes
    raw: Raw | None

    def __repr__(self) -> str:
        return "<Stored>"  # no id, no token


class Attempt(msgspec.Struct, frozen=True, gc=False):
    """A write that is prepared.

    name, id: the session's afterwards.
    record: what is written, the notes included.
    fields: the data of this request as it is now; in a merge for another holder of the session not what is written.
    mark: how many entries of the draft's log it holds.
    event: `"created"`, `"rotated"` or `"saved"`.
    """

    name: str
    id: str
    record: dict[str, Raw]
    notes: Notes
    ttl: float | None
    expires_at: float | None
    expect: object
    fields: dict[str, Raw]
    mark: int
    event: EventName

    def __repr__(self) -> str:
        return f"<Attempt {self.event}>"


class Found(NamedTuple):
    """A record that has been read and can be used."""

    stored: Stored
    fields: dict[str, Raw]


class Written(NamedTuple):
    """How a session stood before a write.

    fields, log: what stood in the store, and the changes since. next_id: the id that the write has given it.
    """

    stored: Stored | None
    fields: dict[str, Raw]
    log: list[Change]
    id: str | None
    next_id: str
    displaced: str | None
