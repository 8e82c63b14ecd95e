"""The sessions of a store, by their handles: what is there, and the end of one."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any, NamedTuple

from session_kit.errors import ConfigError, CorruptEntry, SessionError, UnreadableList
from session_kit.operate.at_once import at_once
from session_kit.record import RESERVED, Notes, Record
from session_kit.store import UnstorageSessionStore

HANDLE_LENGTH = 64


class NoSuchSession(SessionError):
    """No session has this handle, or several handles begin so."""


class Summary(NamedTuple):
    """A session as `summaries` lists it.

    handle: what names it: the SHA-256 of the name in its id. It opens nothing.
    created: Unix time at which it was first stored; None if another program did, or the record cannot be read.
    last_used: Unix time, as well as its record tells: to within `touch_after` where the driver does not renew on read.
    expires: Unix time; None if it never does.
    size: of its record, in bytes; None if what is stored there is not ours.
    """

    handle: str
    created: float | None
    last_used: float | None
    expires: float | None
    size: int | None


class Field(NamedTuple):
    """One key of a session's data.

    key: its name. type: of its value, in Python's words. size: of the value as it is stored, in bytes.
    """

    key: str
    type: str
    size: int
    value: Any

    def __repr__(self) -> str:
        return f"<Field of type {self.type}>"


def summaries(store: UnstorageSessionStore, owner: str | None = None) -> Iterator[Summary]:
    """Yield the sessions of a store, as they come; none is collected, so that a million are no matter.

    owner: only those of this user, who is asked for by the index of owners. Default: all.
    """
    keys: Iterable[str] = store.session_keys()
    if owner is not None:
        handles = {info.handle for info in store.sessions_of(owner)}
        # Of names in plain, the handle does not tell the key.
        keys = map(store.key_of, handles) if store.hash_ids else (k for k in keys if store.handle_of(k) in handles)
    found = at_once(lambda key: _look(store, key)[0], keys)
    return (summary for summary in found if summary is not None)


def details(store: UnstorageSessionStore, handle: str) -> tuple[Summary, list[Field]]:
    """One session, and the keys of its data.

    handle: the whole of it, or a beginning that no other has.
    Raises `NoSuchSession`; `CorruptEntry` if the record cannot be decoded.
    """
    summary, record = _look(store, find(store, handle))
    if summary is None:
        raise NoSuchSession("the session has just ended")
    if record is None:
        raise CorruptEntry(f"the record of session {summary.handle} cannot be read")
    return summary, [
        Field(key, type(value).__name__, len(bytes(raw)), value)
        for key, raw in record.fields.items()
        if key != RESERVED
        for value in [record.codec.load(raw, object)]
    ]


def revoke(store: UnstorageSessionStore, handle: str) -> str:
    """End a session, and return its whole handle. It is gone at its next request.

    handle: the whole of it, or a beginning that no other has.
    Raises `NoSuchSession`.
    """
    key = find(store, handle)
    summary, record = _look(store, key)
    found, notes = store.handle_of(key), None if record is None else record.notes
    owner = "" if notes is None else notes.owner
    try:
        ended = summary is not None and (store.revoke_one(found, owner=owner) if owner else store.driver.delete(key))
    except UnreadableList:  # what is gone is left out by whoever can read it
        ended = store.driver.delete(key)
    if not ended:
        raise NoSuchSession("the session has just ended")
    return found


def find(store: UnstorageSessionStore, handle: str) -> str:
    """The driver's key of the session whose handle begins so. Raises `NoSuchSession`; `ConfigError` for no handle."""
    beginning = handle.lower()
    # What was given may be an id, a secret: it is not repeated.
    if not re.fullmatch(f"[0-9a-f]{{1,{HANDLE_LENGTH}}}", beginning):
        raise ConfigError("that is no handle: a handle is made of the digits 0-9 and a-f, as `list` shows it")
    keys = store.session_keys(beginning if store.hash_ids else "")
    found = list(islice((key for key in keys if store.handle_of(key).startswith(beginning)), 2))
    if not found:
        raise NoSuchSession(f"no session has a handle that begins with {beginning}")
    if len(found) > 1:
        raise NoSuchSession(f"several sessions have handles that begin with {beginning}; give more of it")
    return found[0]


def _look(store: UnstorageSessionStore, key: str) -> tuple[Summary | None, Record | None]:
    """A session and its record: no session if it is gone, no record if it cannot be read."""
    handle = store.handle_of(key)
    try:
        entry = store.driver.read(key)
    except CorruptEntry:
        return Summary(handle, None, None, None, None), None
    if entry is None:
        return None, None
    try:
        record = store.record_at(entry, key)
        notes = None if record is None else record.notes
    except (CorruptEntry, RecursionError):
        record = notes = None
    used = _last_used(store, notes, entry.expires_at)
    created = None if notes is None else notes.created
    return Summary(handle, created, used, entry.expires_at, len(entry.value)), record


def _last_used(store: UnstorageSessionStore, notes: Notes | None, expires: float | None) -> float | None:
    times = [] if notes is None else [notes.created, notes.renewed, notes.rotated]
    if expires is not None and isinstance(store.ttl, (int, float)):
        slid = expires - store.ttl
        if slid <= store.clock():  # else the application goes by another ttl than this store
            times.append(slid)
    return max(times, default=None)
