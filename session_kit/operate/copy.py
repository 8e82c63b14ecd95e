"""The sessions of one store into another, while both are in use.

For each session that was copied, NEW keeps a *mark* for as long as the session lives: what was copied, and when it
would expire. When the copy is repeated, the mark tells which of the two was changed since, as the common ancestor does
in a merge. So what was written in OLD meanwhile is carried over, what was written in NEW stays, and a session that was
ended in one of them ends.

A copy may be broken off at any call. So each write has its mark before it, as *pending*, and once more after it. Where
a mark has stayed pending, the record in NEW tells whether the write took effect.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from hashlib import sha256
from itertools import islice
from typing import Final, NamedTuple

import msgspec
from msgspec import Raw

from session_kit.codec import Codec, JSONCodec
from session_kit.drivers import ABSENT, ANY, Entry
from session_kit.drivers.support.twins import run
from session_kit.errors import ConfigError, Conflict, CorruptEntry, DriverError, SessionError
from session_kit.operate.at_once import at_once
from session_kit.record import RESERVED, Notes
from session_kit.store import DAY, UnstorageSessionStore

TOLERANCE: Final = 5.0
"""Seconds by which clocks and expiries may differ and still count as equal."""
ATTEMPTS: Final = 5
PAGE: Final = 500
LEAST: Final = 0.001
"""Seconds that a session is given in NEW which has ended while it was brought there."""
MOST_NAMED: Final = 10
"""So many of the sessions that differ are named."""


class Mark(msgspec.Struct, omit_defaults=True, frozen=True):
    """What was copied.

    old, new: the SHA-256 of the record, as it was in OLD and in NEW. expires: Unix time, None for never.
    source: tells OLD from other stores that were copied into NEW.
    pending: the write was about to begin. before: the mark until then, which holds if the write did not take effect.
    """

    old: str
    new: str
    source: str
    expires: float | None = None
    pending: bool = False
    before: Mark | None = None


class OldSession(NamedTuple):
    """A session of OLD: its key there, its name in NEW, what stands in OLD."""

    key: str
    name: str
    entry: Entry


@dataclass
class Counts:
    """What became of the sessions of OLD.

    copied: they were not in NEW. updated: they were changed in OLD since they were copied.
    same: there was nothing to do. newer: they were changed in NEW since they were copied, and stay so. both: they were
        changed in OLD as well, which is not carried over.
    ended_in_new: they were, since they were copied, and stay gone. ended_in_old: they were, and now are in NEW too.
    differs: NEW holds something else that was not copied from OLD; it stays. unreadable: not copied.
    left: they are gone from OLD, but so is every session, as if OLD had been emptied: they stay in NEW.
    differing: the handles of the first that differ or cannot be read.
    """

    copied: int = 0
    updated: int = 0
    same: int = 0
    newer: int = 0
    both: int = 0
    ended_in_new: int = 0
    ended_in_old: int = 0
    differs: int = 0
    unreadable: int = 0
    left: int = 0
    differing: list[str] = field(default_factory=list)

    @property
    def done(self) -> int:
        """How many sessions of OLD were dealt with."""
        there = self.copied + self.updated + self.same + self.newer + self.both
        return there + self.ended_in_new + self.left_out

    @property
    def left_out(self) -> int:
        """How many sessions are not in NEW although they should be."""
        return self.differs + self.unreadable


def copy(
    old: UnstorageSessionStore,
    new: UnstorageSessionStore,
    counts: Counts,
    tell: Callable[[Counts], object] = lambda counts: None,
) -> None:
    """Copy the sessions of `old` into `new`, or what has changed since that was last done.

    counts: is counted up, so that it tells how far it came when an error is raised.
    tell: called with the counts after each session.

    A session keeps its id, its data, and the time that it has left. Records are copied as they are if both stores write
    JSON, else they are decoded and encoded again. Nothing that was written in `new` is overwritten (where its driver
    has no conditional writes: nothing but a write at the same moment).
    Raises `ConfigError` if both are the same store, or `old` hashes names and `new` does not; `DriverError` if one of
    them does not answer: the same call goes on from there.
    """
    if old.hash_ids and not new.hash_ids:
        raise ConfigError("the old store keeps names hashed and the new one in plain: the names are not known")
    old.driver.prepare()
    new.driver.prepare()
    if old.prefix == new.prefix and _share_a_place(old, new):
        raise ConfigError("both are the same store: there is nothing to copy")
    move = _Move(old, new)
    for outcome, handle in at_once(move.carry, move.with_marks(old.session_keys())):
        move.count(counts, outcome, handle)
        tell(counts)
    emptied = counts.done == 0
    for outcome in at_once(lambda key: move.end(key, not emptied), new.driver.keys(move.marks)):
        move.count(counts, outcome)


def _share_a_place(old: UnstorageSessionStore, new: UnstorageSessionStore) -> bool:
    """Whether what is written into one can be read in the other."""
    probe = f"{new.prefix}:~probe:{secrets.token_hex(16)}"
    new.driver.set(probe, b"probe", ttl=60.0)
    try:
        return old.driver.has(probe)
    finally:
        new.driver.delete(probe)


def _source_of(old: UnstorageSessionStore) -> str:
    """What tells OLD from other stores, however its URL is written: a random name that is kept there."""
    driver, key = old.driver, f"{old.prefix}:~source"
    try:
        if (found := driver.get(key)) is None:
            found = secrets.token_hex(16).encode()
            driver.set(key, found, expect=ABSENT if old.capabilities.create else ANY)
        return found.decode()
    except Conflict:  # another copy has begun at the same time
        return _source_of(old)
    except DriverError:  # it can only be read: the address has to do
        return _digest(repr(old).encode())


class _Move:
    def __init__(self, old: UnstorageSessionStore, new: UnstorageSessionStore) -> None:
        self._old, self._new = old, new
        self._source = _source_of(old)
        self._as_it_is = isinstance(old.codec, JSONCodec) and isinstance(new.codec, JSONCodec)
        self._creates: object = ABSENT if new.capabilities.create else ANY
        self.marks = f"{new.prefix}:~copied:"
        self._hashes = new.hash_ids and not old.hash_ids
        # Of names in plain, the hash does not tell the key in OLD.
        self._seen: set[str] = set()

    def count(self, counts: Counts, outcome: str, handle: str = "") -> None:
        """Count what `carry` or `end` has returned."""
        if not outcome:
            return
        setattr(counts, outcome, getattr(counts, outcome) + 1)
        if outcome in ("differs", "unreadable") and len(counts.differing) < MOST_NAMED:
            counts.differing.append(handle)
        if self._hashes and handle:
            self._seen.add(handle)

    def with_marks(self, keys: Iterator[str]) -> Iterator[tuple[str, Mark | None]]:
        """Each key with its mark, which are asked for a page at a time."""
        while page := list(islice(keys, PAGE)):
            names = [self._name(key) for key in page]
            try:
                found = self._new.driver.get_many([self.marks + name for name in names])
            except (CorruptEntry, ValueError):  # one of them: it is not ours, or its key is too long
                yield from ((key, self._mark(name)) for key, name in zip(page, names, strict=True))
                continue
            yield from ((key, _read(found.get(self.marks + name))) for key, name in zip(page, names, strict=True))

    def carry(self, marked: tuple[str, Mark | None]) -> tuple[str, str]:
        """Bring one session up to date in NEW. Returns the name of the count, or nothing if it is gone; its handle.

        marked: its key in OLD, and its mark.
        """
        key, mark = marked
        handle, name = self._old.handle_of(key), self._name(key)
        for attempt in range(ATTEMPTS):
            try:
                # Without a mark it is not there, as a rule; a creation is refused if it is.
                hopes = mark is None and attempt == 0 and self._creates is ABSENT
                return self._carry(key, name, mark, hopes), handle
            except Conflict:  # it was there, or somebody wrote it in NEW at this moment
                mark = self._mark(name)
            # ValueError: with this prefix the key is too long.
            except (CorruptEntry, SessionError, RecursionError, ValueError):
                return "unreadable", handle
        return "differs", handle

    def _carry(self, key: str, name: str, mark: Mark | None, hopes: bool) -> str:
        driver, target = self._new.driver, self._target(name)
        entry = self._old.driver.read(key)
        if entry is None or (entry.expires_at is not None and entry.expires_at <= self._old.clock()):
            return ""
        session = OldSession(key, name, entry)
        there = None if hopes else driver.read(target)
        known = _in_force(mark, there)
        if there is None:
            if known is not None and not self._is_over(known.expires):
                return "ended_in_new"
            self._write(session, known, self._creates)
            return "copied"
        if known is None:
            if not self._is_the_same(session, there):
                return "differs"
            with self._marking(session, there.value, None):  # that is all that was missing
                return "same"
        changed = _digest(entry.value) != known.old
        if _digest(there.value) != known.new:
            return "both" if changed else "newer"
        if changed:
            self._write(session, known, there.version if self._new.capabilities.swap else ANY)
            return "updated"
        longer = _is_later(entry.expires_at, there.expires_at)  # it was used in OLD
        if longer or known.pending:
            with self._marking(session, there.value, known):
                if longer:
                    driver.touch(target, self._left(entry))
        return "same"

    def _write(self, session: OldSession, known: Mark | None, expect: object) -> None:
        value = self._translated(session)
        with self._marking(session, value, known):
            target, left = self._target(session.name), self._left(session.entry)
            self._new.driver.set(target, value, ttl=left, expect=expect)

    @contextmanager
    def _marking(self, session: OldSession, value: bytes, known: Mark | None) -> Iterator[None]:
        """Inside, a session is brought up to date in NEW. First all that has to be there if it is broken off then.

        value: what is in NEW afterwards. known: the mark that is in force.
        """
        self._file(session)
        entry = session.entry
        mark = Mark(_digest(entry.value), _digest(value), self._source, entry.expires_at)
        before = None if known is None else msgspec.structs.replace(known, pending=False, before=None)
        self._set_mark(session.name, msgspec.structs.replace(mark, pending=True, before=before))
        yield
        self._set_mark(session.name, mark)

    def end(self, key: str, delete: bool) -> str:
        """If a session was ended in OLD since it was copied, end it in NEW. Returns the name of the count, or nothing.

        key: of its mark. delete: False only tells.
        """
        name = key.removeprefix(self.marks)
        mark = self._mark(name)
        # What would have expired by now in OLD may just have done so, and expires in NEW as well.
        if mark is None or mark.source != self._source or self._is_over(mark.expires) or self._is_in_old(name):
            return ""
        target = self._target(name)
        with suppress(CorruptEntry, Conflict):
            there = self._new.driver.read(target)
            known = _in_force(mark, there)
            if there is None or known is None:
                return ""
            if _is_later(there.expires_at, known.expires) or _digest(there.value) != known.new:
                return ""  # it is in use
            if not delete:
                return "left"
            self._new.driver.delete(target, expect=there.version if self._new.capabilities.swap else ANY)
            return "ended_in_old"
        return ""

    def _is_in_old(self, name: str) -> bool:
        return name in self._seen if self._hashes else self._old.driver.has(f"{self._old.prefix}:{name}")

    def _left(self, entry: Entry) -> float | None:
        return None if entry.expires_at is None else max(LEAST, entry.expires_at - self._old.clock())

    def _is_over(self, expires: float | None) -> bool:
        return expires is not None and expires - TOLERANCE <= self._old.clock()

    def _name(self, key: str) -> str:
        """What stands behind the prefix in NEW."""
        return self._old.handle_of(key) if self._hashes else key[len(self._old.prefix) + 1 :]

    def _mark(self, name: str) -> Mark | None:
        try:
            return _read(self._new.driver.get(self.marks + name))
        except (CorruptEntry, ValueError):
            return None

    def _set_mark(self, name: str, mark: Mark) -> None:
        # Longer than the session, which may be used in OLD for some time.
        ttl = None if mark.expires is None else max(mark.expires - self._old.clock(), 0.0) + DAY
        self._new.driver.set(self.marks + name, msgspec.json.encode(mark), ttl=ttl)

    def _target(self, name: str) -> str:
        return f"{self._new.prefix}:{name}"

    def _translated(self, session: OldSession) -> bytes:
        """What is to be stored in NEW. Raises what tells that it could not be read there."""
        old, new, value, target = self._old.codec, self._new.codec, session.entry.value, self._target(session.name)
        if not self._as_it_is:
            return new.pack(translate(old.unpack(value, session.key), old, new), target)
        new.unpack(value, target)
        return value

    def _is_the_same(self, session: OldSession, there: Entry) -> bool:
        """Whether NEW holds what is in OLD. Where it is encrypted, no two records with the same fields are alike."""
        codec, target = self._new.codec, self._target(session.name)
        wanted = codec.unpack(self._translated(session), target)
        with suppress(CorruptEntry):
            return codec.unpack(there.value, target) == wanted
        return False

    def _file(self, session: OldSession) -> None:
        """File a session under its owner, as it is in OLD, before it is there: it must not be in nobody's list."""
        codec, entry = self._old.codec, session.entry
        raw = codec.unpack(entry.value, session.key).get(RESERVED)
        owner = "" if raw is None else codec.load(raw, Notes).owner
        if owner:
            filed = run(self._old.owners.entry_of(self._old.blocking, owner, self._old.handle_of(session.key)))
            run(self._new.owners.take_in(self._new.blocking, owner, session.name, filed, self._left(entry)))


def translate(fields: Mapping[str, Raw], old: Codec, new: Codec) -> dict[str, Raw]:
    """The fields of a record in another encoding. `SessionError` if it has no form for a value."""
    return {
        key: new.encode(old.load(raw, Notes)) if key == RESERVED else new.dump(old.load(raw, object), key)
        for key, raw in fields.items()
    }


def _read(mark: bytes | None) -> Mark | None:
    with suppress(msgspec.MsgspecError):
        return None if mark is None else msgspec.json.decode(mark, type=Mark)
    return None  # not ours


def _in_force(mark: Mark | None, there: Entry | None) -> Mark | None:
    """The mark that holds: of one whose write was about to begin, the record in NEW tells whether it took effect."""
    if mark is None or not mark.pending or (there is not None and _digest(there.value) == mark.new):
        return mark
    return mark.before


def _digest(value: bytes) -> str:
    return sha256(value).hexdigest()[:32]


def _is_later(one: float | None, other: float | None) -> bool:
    """Whether an expiry is later than another, by more than clocks may differ."""
    if one is None or other is None:
        return one is None and other is not None
    return one > other + TOLERANCE
