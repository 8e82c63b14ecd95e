"""What is known of a session during one request, and what follows from it. No I/O."""

from __future__ import annotations

import asyncio
import logging
from enum import Enum
from typing import NamedTuple

import msgspec
from msgspec import Raw

from session_kit.cookie import Candidate, CookieHeaders
from session_kit.draft import Change, Draft
from session_kit.drivers import ANY, CorruptEntry, DriverUnavailable
from session_kit.errors import SessionError
from session_kit.policy import EventName, Policy
from session_kit.record import (
    NEVER,
    RESERVED,
    SEPARATOR,
    Notes,
    Record,
    Turn,
    join_id,
    name_of,
    next_token,
    random_token,
)

log = logging.getLogger("session_kit")

LONG_AGO = 1.0
"""Unix time."""
MAX_TAKEN = 2
"""How often a new session whose id is taken gets another one."""


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


class Pending(msgspec.Struct, frozen=True, gc=False):
    """What the next write changes beside the data. None: nothing.

    owner: whose session it becomes; empty: nobody's any more. label: for the list of the owner's sessions.
    remember: as in `Notes`.
    """

    owner: str | None = None
    label: str | None = None
    remember: float | None = None


class Stored(msgspec.Struct, gc=False):
    """What stands in the store, as far as this request knows.

    name: finds the record. id: name and token.
    version: None in a write that is prepared.
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

    stored: what will stand in the store.
    record: what is written, the notes included.
    fields: the data of this request as it is now; in a merge for another holder of the session not what is written.
    mark: how many entries of the draft's log it holds.
    pending: what it changes beside the data.
    event: `"created"`, `"rotated"` or `"saved"`.
    files: whether the index of its owner is to hear of it.
    """

    stored: Stored
    record: dict[str, Raw]
    ttl: float | None
    expect: object
    fields: dict[str, Raw]
    mark: int
    pending: Pending | None
    event: EventName
    files: bool

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
    pending: Pending | None
    displaced: str | None


class State(msgspec.Struct, eq=False):
    """One session's state during one request, and the decisions that depend on it alone."""

    # A `Struct`, because every request makes one, also those that never touch their session.
    policy: Policy
    cookies: CookieHeaders
    asynchronous: bool
    candidates: list[Candidate] | None = None  # signed ids that may open a session; None: no cookie was looked at yet
    draft: Draft | None = None  # the data, once loaded
    id: str | None = None  # the id that this request holds or has made
    stored: Stored | None = None  # what stands in the store; None: a new session
    next_id: str | None = None  # a rotation that is due
    pending: Pending | None = None  # what the next write changes beside the data
    client_id: str | None = None  # the id that the client has sent; None: it is to be sent that of the session
    outdated: bool = False  # its cookie was signed with an old secret
    displaced: str | None = None  # the name of a session that is not this client's any more
    fresh: dict[str, Raw] | None = None  # what `clear` has put in place of the data
    destroyed: bool = False  # the client's cookie is to be deleted
    unanswered: bool = False  # the store did not answer when the session was to be loaded
    outage: DriverUnavailable | None = None  # that was raised to the application
    phase: Phase = AHEAD
    rotates: bool = True  # by itself, at a login and by time; False where nobody can send the new id
    counts: bool = True  # as use
    explicit: bool = False  # nothing is loaded before the handler says so
    touched: bool = False  # the application has looked at it
    left: bool = False  # the client of a WebSocket has gone
    header_token: bytes | None = None  # what came in a header; None: the client's session is in a cookie
    filed: float = NEVER  # when this request has said to the index of the owner that the session is in use
    lock: asyncio.Lock | None = None  # the tasks of one request take turns

    def __repr__(self) -> str:
        return f"<Lifecycle {self.phase.name}>"  # no id, no data

    @property
    def data(self) -> Draft:
        """The draft of a session that is loaded."""
        draft = self.draft
        assert draft is not None  # noqa: S101  # tells mypy
        return draft

    # --- what the request and the store say ---

    def look_for(self, sid: str) -> None:
        """Look for the session of this id, in place of those of cookies; for ids that need no signature."""
        self.candidates = [(sid, False)]

    def candidate_id(self) -> str | None:
        """The id in a cookie with a good signature, or None. The store has not been asked for it."""
        candidates = self.find_candidates()
        return candidates[0][0] if candidates else None

    def find_candidates(self) -> list[Candidate]:
        """The ids of all cookies with our name that verify; a domain cookie may hide behind a host cookie."""
        found = self.candidates
        if found is None:
            policy = self.policy
            values = policy.cookie.find(self.cookies)
            found = self.candidates = []
            for value in values:
                candidate = policy.signer.verify(value)
                if candidate is not None:
                    found.append(candidate)
            if values and not found:
                policy.emit("bad_signature", None)
        return found

    def open_record(self, candidate: Candidate, stored: Stored, fields: dict[str, Raw]) -> Draft:
        """Be the session of a record that this candidate opens."""
        policy = self.policy
        fields.pop(RESERVED, None)
        try:
            draft = self.draft = policy.draft(fields)
        except CorruptEntry as error:
            # Left alone: an application that was rolled back, or another one, may be able to read it.
            policy.emit("misfit", stored.name, error)
            return self.begin()
        if self.candidates:
            self.candidates.remove(candidate)
        self.client_id, outdated = candidate
        self.stored, self.id = stored, stored.id
        if outdated:
            self.outdated = True
        if policy.on_event is not None:
            policy.emit("loaded", stored.name)
        return draft

    def stored_as(self, name: str, record: Record) -> Stored:
        """What the notes in a record say of its session."""
        raw = record.fields.get(RESERVED)
        # A record that another program wrote has no notes; its life begins when we first see it.
        notes = Notes(self.policy.clock(), LONG_AGO) if raw is None else self.policy.codec.load(raw, Notes)
        sid = f"{name}{SEPARATOR}{notes.token}" if notes.token else name
        return Stored(name, sid, record.version, record.expires_at, notes, raw)

    def is_over(self, notes: Notes) -> bool:
        """Whether the session has reached its absolute limit."""
        limit = self.policy.max_lifetime
        return limit is not None and notes.created + limit <= self.policy.clock()

    def opens(self, stored: Stored, sid: str) -> bool:
        """Whether that id opens the session: it is its own, or time has replaced it and the client may not know yet."""
        if stored.id == sid:
            return True
        turn = stored.notes.turn
        if turn is None or sid != join_id(stored.name, turn.before):
            return False
        return not turn.seen or self.policy.clock() < turn.seen + self.policy.rotation_grace

    def accepts(self, stored: Stored, sid: str) -> bool:
        """Whether that id opens the session, or did until a moment ago."""
        return self.opens(stored, sid) or self.within_grace(stored)

    def goes_on(self, newer: Stored) -> bool:
        """Whether a newer record is still the session of this request: nothing but time has rotated its id."""
        if newer.id == self.id:
            return True
        before = self.stored
        if before is None or before.id != self.id or newer.notes.turn is None:
            return False
        return newer.notes.first_token == before.notes.first_token

    def within_grace(self, stored: Stored) -> bool:
        """Whether the last rotation is so recent that an older id may be that of a late request."""
        return self.policy.clock() < stored.notes.rotated + self.policy.rotation_grace

    def begin(self, displaced: str | None = None) -> Draft:
        """Become a new session, with what `generate` puts into one.

        displaced: the name of the session that this one is in place of; it is never stored then, unless by a login.
        """
        draft = self.draft = self.policy.draft(self.policy.first())
        self.id = self.stored = self.next_id = self.pending = None
        self.displaced = displaced
        self.fresh = None
        return draft

    def block(self) -> None:
        """Another request destroyed the session while this one ran: it stays destroyed, and no cookie is sent."""
        assert self.stored is not None  # noqa: S101  # tells mypy
        name = self.stored.name
        self.policy.emit("revival_blocked", name)
        self.begin(name)

    def spare(self) -> None:
        """Let this request not count as use of the session."""
        if self.stored is not None and self.counts and self.policy.renews:
            raise SessionError(
                "touch=False comes too late: the session is loaded, which has renewed it; say so at its first use"
            )
        self.counts = False

    # --- what is due ---

    def due(self, *, ending: bool) -> bool:
        """Whether something has to be done in the store. ending: also what is due for renewal, or ends empty."""
        draft = self.draft
        if draft is None or self.unanswered:
            return False
        changed = draft.detect_changes()
        if ending:
            if self.fresh is not None and self.ends_empty:
                return True
            ending = self.phase is AHEAD
        stored = self.stored
        if stored is None:
            policy = self.policy
            changed = changed or (self.pending is not None and bool(self.pending.owner))
            if self.displaced is None:
                due = changed or (ending and policy.save_uninitialized)
            else:
                due = changed and (self.next_id is not None or draft.gained(policy.rotate_on))
            if due and self.phase is not AHEAD:
                raise _too_late("a new session")
            return due
        if self.next_id is not None:
            if self.phase is not AHEAD:
                raise _too_late("a new id")
            return True
        if changed or self.pending is not None:
            return True
        return ending and self.renewal_is_due(stored, draft, self.policy.clock())

    def save_is_due(self, *, ending: bool = False) -> bool:
        """Whether a save has something to write. If not, changes that have come to nothing are saved by that."""
        due = self.due(ending=ending)
        if not (due or ending) and self.draft is not None:
            self.draft.forget_undone()
        return due

    @property
    def ends_empty(self) -> bool:
        """Whether `clear` was called and nothing came after it, or nothing that a displaced request may keep."""
        draft, fresh = self.draft, self.fresh
        if fresh is None or draft is None:
            return False
        if self.displaced is not None:
            return not draft.gained(self.policy.rotate_on)
        return draft.fields == fresh

    def renewal_is_due(self, stored: Stored, draft: Draft, now: float) -> bool:
        """Whether it is time to send the cookie again, and to store that it was sent."""
        if self.phase is not AHEAD or stored.id != self.id or not self.counts:
            return False
        if self.outdated:
            return True  # it is signed anew, but only with a write that shows that nobody has rotated the id
        policy = self.policy
        interval = policy.steady_interval
        if interval is None:
            if self._ttl_changes(draft, stored.notes):
                return True  # the cookie says how long the session lives
            interval = policy.renewal_interval(policy.ttl_of(draft, stored.notes))
        notes = stored.notes
        if notes.remember > 0 and policy.renews and self.client_id is not None:
            return True  # by another application: here the read has cut its life short
        if (notes.turn is not None or policy.rotate_every is not None) and (
            self._turn_is_due(notes, now) or self._turn_is_seen(stored) or self._is_behind(stored, now)
        ):
            return True
        # Not "at least so long ago": a clock that was set back must not keep the cookie from being renewed.
        return not 0 <= now - (notes.renewed or notes.created) < interval

    def _ttl_changes(self, draft: Draft, notes: Notes) -> bool:
        """Whether the session lives for another time with the data as they are now."""
        policy = self.policy
        if not callable(policy.store.ttl) or not draft.changed:
            return False
        return policy.ttl_of(draft, notes) != policy.ttl_of(policy.draft(draft.stored), notes)

    def reading_files(self, notes: Notes) -> bool:
        """Whether a read that lets a session live on is to be filed: a renewal may not follow it."""
        interval = self.policy.steady_interval
        if not notes.owner or not self.policy.renews or not self.counts or interval is None:
            return False
        return self._is_news(notes, interval)

    def _writing_files(self, draft: Draft, notes: Notes) -> bool:
        """Whether a write that changes no more than the data, or renews the cookie, is to be filed."""
        policy = self.policy
        return self._is_news(notes, policy.renewal_interval(policy.ttl_of(draft, notes))) or self._ttl_changes(
            draft, notes
        )

    def _is_news(self, notes: Notes, interval: float) -> bool:
        """Whether the index of the owner has not heard for some time that the session is in use."""
        return not 0 <= self.policy.clock() - (self.filed or notes.renewed or notes.created) < interval

    def _turn_is_due(self, notes: Notes, now: float) -> bool:
        """Whether time is to rotate the id. Not again before the client has come back with the last one."""
        policy, turn = self.policy, notes.turn
        every = policy.rotate_every
        if every is None or not self.rotates or not policy.swaps:
            return False
        # Clocks differ a little, so what lies a little ahead is no reason; one that was set back far must not end this.
        if turn is None:
            return abs(now - (notes.rotated or notes.created)) >= every
        # Nor while the id before the last one opens the session: that would be one too old all at once.
        return turn.seen != 0 and abs(now - turn.seen) >= policy.rotation_grace and abs(now - turn.at) >= every

    def _turn_is_seen(self, stored: Stored) -> bool:
        """Whether this is the first request with the id of the last rotation by time."""
        turn = stored.notes.turn
        return turn is not None and not turn.seen and self.client_id == stored.id

    def _is_behind(self, stored: Stored, now: float) -> bool:
        """Whether the client has come with the id before the last rotation by time, and is to be sent the new one.

        Not by each of the requests that a page makes at once, nor all the time if it takes no cookie: its id is good.
        """
        behind = self.client_id not in (None, stored.id)
        return behind and abs(now - stored.notes.renewed) >= self.policy.rotation_grace

    def _renew(self, stored: Stored, now: float) -> Notes:
        """The notes of a session whose cookie is sent again; time rotates its id if it is due."""
        notes, turn, token = stored.notes, stored.notes.turn, stored.notes.token
        if self._turn_is_due(notes, now):
            token, turn = next_token(token), Turn(now, token, notes.first_token)
        elif turn is not None and self._turn_is_seen(stored):
            turn = Turn(turn.at, turn.before, turn.first, now)
        return Notes(notes.created, now, token, notes.rotated, notes.owner, self._remembered(notes.remember), turn)

    @property
    def remembered(self) -> float:
        """How long the session lives, as `Notes.remember`, once it is saved."""
        return self._remembered(0.0 if self.stored is None else self.stored.notes.remember)

    def _remembered(self, before: float) -> float:
        """How long the session lives, as `Notes.remember`, after the next write."""
        pending = self.pending
        return before if pending is None or pending.remember is None else pending.remember

    def _owned_by(self, before: str) -> str:
        """Whose session it is after the next write that rotates its id."""
        pending = self.pending
        return before if pending is None or pending.owner is None else pending.owner

    def logs_in(self, draft: Draft) -> bool:
        """Whether this request raises what the session may do, so that it must not depend on what others do to it."""
        rotate_on = self.policy.rotate_on
        if self.phase is not AHEAD:
            return False  # no cookie can be sent any more
        if draft.gained(rotate_on) or self._owned_by(""):
            return True
        return self.next_id is not None and not self.knows_the_user(draft)

    def knows_the_user(self, draft: Draft) -> bool:
        """Whether somebody was logged in when the session was loaded."""
        return draft.knew(self.policy.rotate_on) or (self.stored is not None and self.stored.notes.owner != "")

    def rotates_by_itself(self, draft: Draft) -> bool:
        """Whether somebody has logged in without asking for a new id."""
        return self.rotates and draft.gained(self.policy.rotate_on)

    def rotate(self) -> None:
        """Let the session, which is loaded, get a new id when it is saved."""
        if self.stored is None:
            self.id = self.policy.make_id()
            self.next_id = None if self.displaced is None else self.id
        elif self.next_id is None:
            if self.phase is not AHEAD:
                raise _too_late("a new id")
            name = self.stored.name
            self.next_id = join_id(name, random_token()) if self.policy.swaps else self.policy.make_id()

    def rename(self) -> None:
        """Make the id of a rotation anew if it was made before anybody knew that the backend cannot swap."""
        stored, swaps = self.stored, self.policy.swaps
        if self.next_id is not None and stored is not None and not swaps and name_of(self.next_id) == stored.name:
            self.next_id = self.policy.make_id()

    def bind(self, owner: str, label: str | None) -> None:
        """Let the session, which is loaded, belong to somebody when it is saved, under a new id; "" for nobody."""
        self.rotate()
        self.pending = msgspec.structs.replace(self.pending or Pending(), owner=owner, label=label)

    def remember(self, seconds: float) -> None:
        """Let the session, which is loaded, live so long from the next write on; see `Notes.remember`."""
        self.pending = msgspec.structs.replace(self.pending or Pending(), remember=seconds)

    def clear(self) -> None:
        """Drop the data and the id; if the session is still empty at the end of the request, it is destroyed."""
        self.fresh = self.wipe()
        notes = None if self.stored is None else self.stored.notes
        self.pending = (
            Pending(owner="", remember=NEVER) if notes is not None and (notes.owner or notes.remember) else None
        )
        if self.phase is AHEAD and self.displaced is None:
            self.rotate()

    def wipe(self) -> dict[str, Raw]:
        """Drop the data, and return what is there instead: what a new value of their type says, if they have one."""
        first = {} if self.policy.schema is None else self.policy.first()
        self.data.take_over(dict(first))
        return first

    # --- a write ---

    def reads_first(self, stored: Stored) -> bool:
        """Whether a write cannot go by what was loaded: others cannot be noticed, or have rotated the id."""
        return stored.id != self.id or not self.policy.swaps

    def prepare(self, draft: Draft, seen: Draft) -> Attempt:
        """A write of `draft`, which is `seen`, the data of this request, or a merge for another holder."""
        policy, before = self.policy, self.stored
        now = policy.clock()
        raw: Raw | None = None
        event: EventName
        if before is None:
            sid = self.id = self.id or policy.make_id()
            name, _, token = sid.partition(SEPARATOR)
            notes = Notes(now, NEVER, token)
            if self.pending is not None:
                notes = Notes(now, NEVER, token, NEVER, self._owned_by(""), self._remembered(NEVER))
            expect, event, files = policy.absent, "created", bool(notes.owner)
        else:
            notes, expect = before.notes, before.version if policy.swaps else ANY
            if self.next_id is None and before.id == self.id and self.rotates and seen.gained(policy.rotate_on):
                self._rotate_late()
            if self.next_id is not None:
                sid, event = self.next_id, "rotated"
                name, _, token = sid.partition(SEPARATOR)
                owner, remember = self._owned_by(notes.owner), self._remembered(notes.remember)
                notes = Notes(notes.created, now, token, now, owner, remember)
                if not policy.swaps:
                    expect = policy.absent
            else:
                name, sid, event = before.name, before.id, "saved"
                if self.renewal_is_due(before, seen, now) or (self.pending is not None and before.id == self.id):
                    notes = self._renew(before, now)
                    if notes.token != before.notes.token:
                        sid, event = join_id(name, notes.token), "rotated"
                else:
                    raw = before.raw
            files = False
            if notes.owner or before.notes.owner:
                files = (
                    event != "saved"
                    or self.pending is not None
                    or ((self.counts or raw is None) and self._writing_files(draft, before.notes))
                )
        if raw is None:
            raw = policy.codec.encode(notes)
        if before is None or self.counts or notes is not before.notes:  # with new notes it is sent a new cookie too
            ttl = policy.lifetime(draft, notes, stored=True)
        else:
            ttl = self.ttl_left(before)
        stored = Stored(name, sid, None, None if ttl is None else now + ttl, notes, raw)
        record, fields = {RESERVED: raw, **draft.fields}, seen.freeze()
        return Attempt(stored, record, ttl, expect, fields, len(seen.log), self.pending, event, files)

    def _rotate_late(self) -> None:
        """Rotate because somebody has logged in, unless the new id cannot be sent any more."""
        if self.phase is AHEAD:
            self.rotate()
        else:
            log.warning("somebody logged in after the response had begun: the session keeps its id, do it earlier")

    def standing(self, attempt: Attempt) -> Written:
        """How the session stands before a write."""
        draft = self.data
        return Written(
            self.stored, draft.stored, draft.log[:], self.id, attempt.stored.id, self.pending, self.displaced
        )

    def succeed(self, draft: Draft, attempt: Attempt, version: object) -> None:
        """Take over what has been written."""
        before, stored = self.stored, attempt.stored
        stored.version = version
        self.stored = stored
        # What is right already mostly is not set: to set an attribute takes ten times as long as to look at it.
        if before is None:
            if self.id != stored.id or self.client_id is not None:  # another task has asked for a new id meanwhile
                self.id, self.client_id = stored.id, None
        elif before.notes is not stored.notes and before.id == self.id:  # rotated, or renewed
            self.id = stored.id
            self.client_id, self.outdated = None, False
        if attempt.event != "saved" and (self.next_id is not None or self.displaced is not None):
            self.next_id = self.displaced = None
        if attempt.pending is not None and self.pending is attempt.pending:
            self.pending = None
        if self.outage is not None:
            self.outage = None
        draft.saved(attempt.mark, attempt.fields)
        if self.policy.on_event is not None:
            self.policy.emit(attempt.event, stored.name)

    def create_again(self, number: int) -> Draft:
        """The new id is taken by another session, with which it is never shared."""
        if number >= MAX_TAKEN:
            raise SessionError("generate_id returned ids that exist already, three times in a row; it must be random")
        self.id = self.policy.make_id()
        if self.next_id is not None:
            self.next_id = self.id
        return self.data

    def ttl_left(self, stored: Stored) -> float | None:
        """The seconds that a record has to live; where the driver cannot tell, as many as after a use."""
        ends = stored.expires_at
        left = (
            self.policy.lifetime(self.data, stored.notes, stored=True) if ends is None else ends - self.policy.clock()
        )
        return None if left is None else max(1.0, left)

    # --- at the end ---

    def revert(self) -> None:
        """Forget what was changed and not saved. Where the store did not answer, an empty session stands in."""
        if self.draft is not None:
            self.draft.revert()
        elif self.unanswered:
            self.begin()
        self.next_id = self.pending = self.fresh = None

    def cookie_is_due(self) -> bool:
        """Whether the client is to be sent the id: this request has written it, as new or to renew its cookie.

        Not one that it has only read: another may have rotated it since, and the response be slower than the other's.
        """
        return self.client_id is None and self.stored is not None and self.stored.id == self.id

    def cookie_lifetime(self) -> float | None:
        """Seconds that the cookie lives; None for ever."""
        draft, stored = self.draft, self.stored
        assert draft is not None  # noqa: S101  # tells mypy
        assert stored is not None  # noqa: S101  # tells mypy
        return self.policy.lifetime(draft, stored.notes, stored=False)

    def forget_steps(self) -> None:
        """The outage has been told of: drop its traceback, whose steps hold the session, which holds the outage.

        Else each request in an outage leaves both, and the data, to the garbage collector.
        """
        if self.outage is not None:
            self.outage.with_traceback(None)

    def no_answer(self) -> DriverUnavailable:
        """What is raised when the session is asked for again in an outage."""
        return DriverUnavailable("the store did not answer when the session was loaded; `reload` tries again")


def _too_late(what: str) -> SessionError:
    return SessionError(
        f"{what} cannot be given to the client: the response has begun, and no cookie can be sent any more; "
        "do it earlier"
    )
