"""What the store keeps of one session: the record, the notes in it, and the id by which it is found and proved."""

from __future__ import annotations

import os
from binascii import b2a_base64
from hashlib import sha256
from typing import Any, Final, NamedTuple

import msgspec
from msgspec import Raw

from session_kit.codec import Codec

RESERVED = "$"
"""The key of the record under which the library keeps its own notes."""

SEPARATOR = "~"
"""Between the two halves of an id."""

_URL_SAFE = bytes.maketrans(b"+/", b"-_")


NEVER: Final = 0.0
"""The default of times in notes. What is this very object is left out of a record, what only equals it is not."""


class Turn(msgspec.Struct, omit_defaults=True, frozen=True, gc=False):
    """The last rotation by time.

    at: Unix time. before: the token that it replaced.
    first: the token that the last login, or other change of rights, gave. Only time lies between that and the present.
    seen: Unix time at which a client first came back with the new token; 0 as long as none did.
    """

    at: float
    before: str
    first: str
    seen: float = NEVER

    def __repr__(self) -> str:
        return "<Turn>"  # no token


class Notes(msgspec.Struct, omit_defaults=True, frozen=True, gc=False):
    """What the library keeps about a session, inside its record, under the key `"$"`.

    created: Unix time at which the session was first stored; it survives rotation.
    renewed: Unix time at which the cookie was last sent; 0 as long as that was when the session was created.
    token: the second half of the id that opens the session; each rotation changes it.
    rotated: Unix time of the last rotation, those by time apart; 0 if there was none.
    owner: the user whose session it is (`bind`); empty if nobody has said so.
    remember: the seconds that it lives unused (`remember`); 0: as the store says; below 0: and its cookie ends with
        the browser's session.
    turn: the last rotation by time since the last other one.
    """

    created: float
    renewed: float = NEVER
    token: str = ""
    rotated: float = NEVER
    owner: str = ""
    remember: float = NEVER
    turn: Turn | None = None

    @property
    def first_token(self) -> str:
        """The token that stays the same while only time rotates the id."""
        return self.token if self.turn is None else self.turn.first

    def __repr__(self) -> str:
        return "<Notes>"  # no token


class Record(NamedTuple):
    """One stored session, as `store.read` returns it.

    fields: key to encoded value, the library's own notes (key `"$"`) included.
    version: opaque; hand it back as `expect=` to write only if nobody else has.
    expires_at: Unix time in seconds, where the driver can tell.
    codec: decodes the values.
    """

    fields: dict[str, Raw]
    version: object
    expires_at: float | None
    codec: Codec

    @property
    def data(self) -> dict[str, Any]:
        """The session's data, decoded."""
        return {key: self.codec.load(raw, object) for key, raw in self.fields.items() if key != RESERVED}

    @property
    def notes(self) -> Notes | None:
        """The library's notes; None in a record that another program wrote. `CorruptEntry` if they are none."""
        raw = self.fields.get(RESERVED)
        return None if raw is None else self.codec.load(raw, Notes)

    def __repr__(self) -> str:
        return f"<Record of {len(self.fields)} fields>"


def random_id() -> str:
    """Return a new id: 96 random bits as a name, 128 as a token, 39 letters in all.

    >>> len(random_id())
    39
    """
    # The twelve bytes of the name are sixteen letters exactly.
    letters = write_bits(os.urandom(28)).decode()
    return f"{letters[:16]}{SEPARATOR}{letters[16:]}"


def random_name() -> str:
    """Return 96 random bits as 16 letters: the first half of an id."""
    return write_bits(os.urandom(12)).decode()


def random_token() -> str:
    """Return 128 random bits as 22 letters: the second half of an id."""
    return write_bits(os.urandom(16)).decode()


LINEAGE: Final = 4
"""So many letters of a token stay while only time rotates the id; 108 random bits are left."""


def next_token(token: str) -> str:
    """Return a new token of the same login, to be known as such when it comes back.

    >>> next_token("abcdefghijklmnopqrstuv")[:4]
    'abcd'
    """
    return token[:LINEAGE] + random_token()[LINEAGE:]


def is_same_login(token: str, other: str) -> bool:
    """Whether nothing but time lies between two tokens of a session that we have signed."""
    return token[:LINEAGE] == other[:LINEAGE]


def join_id(name: str, token: str) -> str:
    """The id of both halves. What another program stored has no token, and its id is the name alone.

    >>> join_id("name", "token")
    'name~token'
    """
    return f"{name}{SEPARATOR}{token}" if token else name


def split_id(sid: str) -> tuple[str, str]:
    """The name and the token in an id; the token of a text without a `~` is empty.

    >>> split_id("name~token"), split_id("name")
    (('name', 'token'), ('name', ''))
    """
    name, _, token = sid.partition(SEPARATOR)
    return name, token


def name_of(sid: str) -> str:
    """The first half of an id: what finds the record."""
    return sid.partition(SEPARATOR)[0]


def token_of(sid: str) -> str:
    """The second half of an id: what proves that its holder is the current one."""
    return sid.partition(SEPARATOR)[2]


def hash_id(sid: str) -> str:
    """What names a session in the store, in logs and in events: the SHA-256 of the name in its id, in hexadecimal.

    >>> hash_id("name~token") == hash_id("name")
    True
    """
    return sha256(name_of(sid).encode()).hexdigest()


def write_bits(bits: bytes) -> bytes:
    """Write bytes in base 64 for URLs, without padding, as itsdangerous does.

    >>> write_bits(bytes(3))
    b'AAAA'
    """
    return b2a_base64(bits, newline=False).translate(_URL_SAFE, b"=")
