"""Who owns which sessions: one index record for each owner, beside the sessions and kept by conditional writes.

A session is filed before its own record says whose it is, and taken out after that record is gone. So a process that
dies in between leaves an entry too many, never one too few, and what is listed is checked against the records. A record
that only another codec can read is taken for what the index says: it opens a session where that codec is in use.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Iterable, Mapping
from contextlib import suppress
from typing import Any, NamedTuple, Protocol
from uuid import UUID

import msgspec
from msgspec import Raw

from session_kit.codec import Codec
from session_kit.drivers import ABSENT, ANY, Capabilities, Driver
from session_kit.drivers.support.twins import let_racers_part
from session_kit.errors import Conflict, CorruptEntry, OtherCodec, SessionError, TooManySessions, UnreadableList
from session_kit.record import RESERVED, Notes, hash_id

MAX_ATTEMPTS = 100
"""How often a write of an index that others keep overtaking is tried. Each conflict means that another got through."""
UNDER_WAY = 60.0
"""Seconds in which an entry without a session may be that of a login that is being written."""
MAX_TEXT = 500
"""So many characters may an owner or a label have."""

_HANDLE = re.compile("[0-9a-f]{64}")

UserId = str | int | UUID
"""What names a user; it is kept as text."""


class SessionInfo(NamedTuple):
    """A session in the list of its owner.

    handle: what names it for other people: the SHA-256 of the name in its id. It opens nothing, and stays the same when
        the id changes.
    created: Unix time at which the session was first stored; if its record is of another codec, the last that is known.
    last_used: Unix time at which its cookie was last renewed: use that is later by less than `touch_after` is not seen.
    expires: Unix time at which it ends at the latest if it is not used again; None if it never does.
    label: what `bind` was given, such as the name of the device.
    current: whether it is the session that was given as `current`.
    """

    handle: str
    created: float
    last_used: float
    expires: float | None
    label: str
    current: bool


class Entry(msgspec.Struct, omit_defaults=True, frozen=True, gc=False):
    """One session in an index.

    filed: Unix time at which it was filed, or last found to be in use.
    until: Unix time after which the session is over for certain; None if it never is.
    """

    filed: float
    until: float | None = None
    label: str = ""


class IndexedStore(Protocol):
    """What an index needs of the store that the sessions are in."""

    codec: Codec
    driver: Driver
    hash_ids: bool

    @property
    def capabilities(self) -> Capabilities: ...
    def index_key(self, owner: str) -> str: ...
    def key_of(self, filed_as: str) -> str: ...


Index = dict[str, Entry]
"""The name of a session, hashed if the store hashes names, to what is known of it."""


class Owners:
    """The indexes of one store, written once for blocking and async code: `io` has the calls of a driver.

    limit: how many sessions an owner may have. refuse: raise `TooManySessions` in place of ending the oldest.
    """

    def __init__(self, store: IndexedStore, limit: int | None = None, *, refuse: bool = False) -> None:
        self._store, self._limit, self._refuse = store, limit, refuse

    async def file(
        self,
        io: Any,
        owner: str,
        name: str,
        *,
        before: str,
        lives: float | None,
        interval: float,
        label: str | None,
        login: bool,
    ) -> float:
        """File a session under its owner, or say that it is still in use. Ends the oldest if there are too many.

        before: the name that the session has until it is written.
        lives: the seconds that it lives after a use; None for ever.
        interval: the seconds of use that the index need not hear of. An entry that covers them is left as it is.
        label: None keeps the one that is there.
        login: whether it is new there; only then others may have to make room.
        Returns the Unix time from which these seconds count.
        """
        mine, old = self._filed_as(name), self._filed_as(before)
        since, unwritten = self._now(), list[str]()

        async def change(index: Index) -> None:
            nonlocal since, unwritten
            now = since = self._now()
            unwritten = []
            known = {each: index.pop(each) for each in (mine, old) if each in index}
            for each, entry in list(index.items()):
                if entry.until is not None and entry.until <= now:
                    del index[each]
            if login and self._limit is not None and len(index) >= self._limit:
                unwritten = await self._make_room(io, owner, index, self._limit, refuse=self._refuse and not known)
            last = known.get(mine, known.get(old))
            text = label if label is not None else "" if last is None else last.label
            index.update(known)
            until = None if lives is None else now + lives + interval
            if not login and until is not None and mine in known:
                there = known[mine].until
                if there is not None and until - interval <= there <= until:
                    since = now - (until - there)
                    return
            index[mine] = Entry(now, until, text)

        await self._change(io, owner, change)
        if unwritten:  # what was written before it was out of the index; `is_ended` finds what comes later
            await io.delete_many(unwritten)
        return since

    async def is_ended(self, io: Any, owner: str, name: str) -> bool:
        """Whether another login has ended a session, which was filed, before it was written."""
        if self._limit is None or self._refuse:
            return False
        index, _ = await self._read(io, owner)
        return self._filed_as(name) not in index

    async def _make_room(self, io: Any, owner: str, index: Index, limit: int, *, refuse: bool) -> list[str]:
        """Take out entries until there is room for one more: of what is gone, then the oldest sessions, with them.

        Returns the keys of those that were ended before they were written.
        """
        live = await self._check(io, owner, index)
        if len(index) < limit:
            return []
        if refuse:
            raise TooManySessions(f"this user has {limit} sessions already, the most that max_sessions allows")
        by_age = sorted(index, key=lambda each: live[each].created if each in live else index[each].filed)
        oldest = by_age[: len(index) - limit + 1]
        # First the sessions: one that is out of the index and alive would be in nobody's list.
        await io.delete_many([self._store.key_of(each) for each in oldest])
        for each in oldest:
            del index[each]
        return [self._store.key_of(each) for each in oldest if each not in live]

    async def entry_of(self, io: Any, owner: str, handle: str) -> Entry | None:
        """What the index of an owner says of the session with that handle."""
        index, _ = await self._read(io, owner)
        return next((entry for filed_as, entry in index.items() if self.handle(filed_as) == handle), None)

    async def take_in(self, io: Any, owner: str, filed_as: str, entry: Entry | None, lives: float | None) -> None:
        """File a session that comes from another store, whose index says `entry` of it; `lives` as for `file`."""

        async def change(index: Index) -> None:
            now = self._now()
            come = entry or Entry(now, None if lives is None else now + lives)
            there = index.get(filed_as, come)  # it may be in use here already
            index[filed_as] = Entry(now, _last([come.until, there.until]), come.label)

        await self._change(io, owner, change)

    async def remove(self, io: Any, owner: str, names: Iterable[str]) -> None:
        """Take sessions that are gone, or another's now, out of the index of an owner."""
        await self._change(io, owner, _taking_out([self._filed_as(name) for name in names]))

    async def sessions_of(self, io: Any, owner: str, current: frozenset[str]) -> list[SessionInfo]:
        """The live sessions of an owner, the one that was used last first. current: the handles of one."""
        index, _ = await self._read(io, owner)
        before = dict(index)
        live = await self._check(io, owner, index)
        if stale := {each: entry for each, entry in before.items() if each not in index}:

            async def change(newer: Index) -> None:
                for each, entry in stale.items():
                    if newer.get(each) == entry:
                        del newer[each]

            with suppress(Conflict):  # others are at it
                await self._change(io, owner, change)
        found = []
        for each, notes in live.items():
            handle, used = self.handle(each), notes.renewed or notes.created
            entry = index[each]
            found.append(SessionInfo(handle, notes.created, used, entry.until, entry.label, handle in current))
        return sorted(found, key=lambda info: info.last_used, reverse=True)

    async def revoke(self, io: Any, owner: str, keep: frozenset[str]) -> int:
        """Delete all sessions of an owner but those with these handles, and return how many."""
        index, _ = await self._read(io, owner)
        live = await self._check(io, owner, index)
        ended = [each for each in live if self.handle(each) not in keep]
        if not ended:
            return 0
        count: int = await io.delete_many([self._store.key_of(each) for each in ended])
        await self._change(io, owner, _taking_out(ended))
        return count

    async def revoke_one(self, io: Any, handle: str, owner: str | None) -> bool:
        """Delete the session with that handle; False if there is none. owner: only if it is one of theirs."""
        if owner is not None:
            index, _ = await self._read(io, owner)
            filed_as = next((each for each in index if self.handle(each) == handle), None)
        elif self._store.hash_ids:
            filed_as = handle if _HANDLE.fullmatch(handle) else None
        else:
            raise SessionError("a store with hash_ids=False finds a handle only if it knows whose it is: owner=...")
        if filed_as is None:
            return False
        key = self._store.key_of(filed_as)
        value = await io.get(key)
        notes = None if value is None else self._notes_in(value, key, Notes(0.0, owner=owner or ""))
        if owner is not None and (notes is None or notes.owner != owner):
            return False
        gone: bool = await io.delete(key)
        if notes is not None and notes.owner:
            with suppress(UnreadableList):  # it is gone, which a list that is read finds out by itself
                await self._change(io, notes.owner, _taking_out([filed_as]))
        return gone

    async def _check(self, io: Any, owner: str, index: Index) -> dict[str, Notes]:
        """The notes of the sessions in an index that live and are this owner's; takes out those that are not."""
        keys = {self._store.key_of(each): each for each in index}
        live: dict[str, Notes] = {}
        for key, value in (await _get_many(io, list(keys))).items():
            notes = self._notes_in(value, key, Notes(index[keys[key]].filed, owner=owner))
            if notes is not None and notes.owner == owner:
                live[keys[key]] = notes
        now = self._now()
        for each in set(index) - set(live):
            if not 0 <= now - index[each].filed < UNDER_WAY:
                del index[each]
        return live

    async def _change(self, io: Any, owner: str, change: Callable[[Index], Awaitable[None]]) -> None:
        """Read the index, change it, and write it back unless somebody else was faster; then once more."""
        for attempt in range(MAX_ATTEMPTS):
            index, version = await self._read(io, owner)
            before = dict(index)
            await change(index)
            if index == before:
                return
            try:
                await self._write(
                    io, owner, index, version if self._store.capabilities.swap or version is ABSENT else ANY
                )
            except Conflict:
                await let_racers_part(io, attempt)
            else:
                return
        raise Conflict(f"others changed the list of a user's sessions {MAX_ATTEMPTS} times in a row")

    async def _read(self, io: Any, owner: str) -> tuple[Index, object]:
        """The index of an owner and its version. One that cannot be decoded begins anew; sessions in use come back.

        `UnreadableList` if another codec can read it.
        """
        key, codec = self._store.index_key(owner), self._store.codec
        try:
            entry = await io.read(key)
        except CorruptEntry as error:
            return {}, ANY if error.version is None else error.version
        if entry is None:
            return {}, ABSENT
        try:
            fields = codec.unpack(entry.value, key)
            return {name: codec.load(raw, Entry) for name, raw in fields.items()}, entry.version
        except OtherCodec as error:
            raise UnreadableList(
                f"the list of this user's sessions cannot be read, and is left alone: {error}"
            ) from None
        except CorruptEntry:
            return {}, entry.version

    async def _write(self, io: Any, owner: str, index: Index, version: object) -> None:
        key, codec, now = self._store.index_key(owner), self._store.codec, self._now()
        if version is ABSENT and not self._store.capabilities.create:
            version = ANY
        if not index:
            if version is not ABSENT:
                await io.delete(key, expect=version)
            return
        last = _last(entry.until for entry in index.values())
        ttl = None if last is None else max(1.0, last - now)
        fields: Mapping[str, Raw] = {name: codec.encode(entry) for name, entry in index.items()}
        await io.set(key, codec.pack(fields, key), ttl=ttl, expect=version)

    def _now(self) -> float:
        return self._store.driver.clock()

    def _filed_as(self, name: str) -> str:
        return hash_id(name) if self._store.hash_ids else name

    def handle(self, filed_as: str) -> str:
        """The handle of a session in an index."""
        return filed_as if self._store.hash_ids else hash_id(filed_as)

    def _notes_in(self, value: bytes, key: str, believed: Notes) -> Notes | None:
        """The notes in a record; None if it has none, or opens no session because no codec can read it.

        believed: what they are taken for if another codec can, or the stack is nearly full.
        """
        codec = self._store.codec
        try:
            raw = codec.unpack(value, key).get(RESERVED)
            return None if raw is None else codec.load(raw, Notes)
        except (OtherCodec, RecursionError):
            return believed
        except CorruptEntry:
            return None


async def _get_many(io: Any, keys: list[str]) -> dict[str, bytes]:
    """The values of the keys, without those that the driver cannot read: one of them shall hide no other."""
    with suppress(CorruptEntry):
        found: dict[str, bytes] = await io.get_many(keys)
        return found
    found = {}
    for key in keys:
        with suppress(CorruptEntry):
            value = await io.get(key)
            if value is not None:
                found[key] = value
    return found


def _last(ends: Iterable[float | None]) -> float | None:
    """The last of some times, of which None is never."""
    last = 0.0
    for end in ends:
        if end is None:
            return None
        last = max(last, end)
    return last


def _taking_out(filed_as: Iterable[str]) -> Callable[[Index], Awaitable[None]]:
    async def change(index: Index) -> None:
        for each in filed_as:
            index.pop(each, None)

    return change


def owner_text(user_id: object) -> str:
    """A user's id as the text under which sessions are filed: text, a whole number or a UUID. Else `SessionError`.

    >>> owner_text(42)
    '42'
    """
    if not isinstance(user_id, (str, int, UUID)) or isinstance(user_id, bool):
        raise SessionError(f"a user's id must be text, a whole number or a UUID, not {type(user_id).__name__}")
    if user_id == "":
        raise SessionError("a user's id must not be empty")
    return _short(str(user_id), "a user's id")


def label_text(label: object) -> str:
    """A label as plain text, or `SessionError`."""
    if not isinstance(label, str):
        raise SessionError(f"a label must be text, not {type(label).__name__}")
    return _short(str(label), "a label")


def _short(text: str, what: str) -> str:
    if len(text) > MAX_TEXT:
        raise SessionError(f"{what} may have {MAX_TEXT} characters, this one has {len(text)}; cut it first")
    try:
        text.encode()
    except UnicodeEncodeError:
        raise SessionError(f"{what} holds a lone surrogate, which has no form in UTF-8") from None
    return text
