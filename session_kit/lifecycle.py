"""What happens to a session between the request and the response: load, save, merge, rotate, destroy.

A step that does I/O is written once, as a coroutine that calls the store through `io`: the blocking or the native face
of its driver (`twins.py`). The first call of a load and of a save is made without a coroutine where that is possible;
the coroutine then goes on from its answer. `Session` puts the public methods in front.

A write is prepared as an `Attempt` and changes nothing here before it has succeeded, so nothing is undone when another
request was faster.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any, TypeVar

import msgspec
from msgspec import Raw

from session_kit.cookie import Claim, CookieHeaders
from session_kit.draft import Draft
from session_kit.drivers import ABSENT, ANY, Conflict, CorruptEntry, DriverUnavailable
from session_kit.drivers.support.twins import on_event_loop, run, run_to_end
from session_kit.errors import SessionError
from session_kit.policy import EventName, Policy
from session_kit.record import RESERVED, SEPARATOR, Notes, Record, join_id, name_of, random_token
from session_kit.state import AHEAD, Attempt, Found, Stored, Written

T = TypeVar("T")
log = logging.getLogger("session_kit")

MAX_ATTEMPTS = 100
"""How often a write that others keep overtaking is tried. Each conflict means that another request got through."""
PATIENT_ATTEMPTS = 3
"""How many of them follow at once; before the others there is a pause, of random length so that racers part."""
LONGEST_PAUSE = 0.016
"""Seconds."""
LONG_AGO = 1.0
"""Unix time."""
MAX_TAKEN = 2
"""How often a new session whose id is taken gets another one."""

Failed = tuple[Attempt, Conflict | DriverUnavailable]
Answer = Record | DriverUnavailable | None
"""What the store said when it was asked for a session."""


class Lifecycle:
    """One session's state during one request, and the steps that change it."""

    # What most requests leave as it is stands here, once for all: every request pays for what `__init__` does, also
    # those that never touch their session.
    claims: list[Claim]  # the ids that came with a good signature and have not been looked up, or were displaced
    draft: Draft | None = None  # the data, once loaded
    id: str | None = None  # the id that this request holds or has made
    stored: Stored | None = None  # what stands in the store; None: a new session
    next_id: str | None = None  # a rotation that is due
    client_id: str | None = None  # the id whose cookie may stay as it is
    outdated = False  # its cookie was signed with an old secret
    displaced: str | None = None  # the name of a session that is not this client's any more
    fresh = False  # `clear` was called
    destroyed = False  # the client's cookie is to be deleted
    unanswered = False  # the store did not answer when the session was to be loaded
    outage: DriverUnavailable | None = None  # that the application was told of
    phase = AHEAD
    rotates = True  # by itself, when a key of `rotate_on` changes; False where nobody can send the new id
    touched = False  # the application has looked at it
    turn: asyncio.Lock | None = None  # the tasks of one request take turns

    def __init__(self, policy: Policy, cookies: CookieHeaders, asynchronous: bool) -> None:
        self.policy = policy
        self.cookies: CookieHeaders | None = cookies  # until they are looked at
        self.asynchronous = asynchronous

    # --- loading ---

    def loaded(self) -> Draft:
        """The draft; loads it first where that takes no waiting."""
        draft = self.draft
        if draft is not None:
            return draft
        if self.asynchronous and not self.unanswered and not self.policy.capabilities.quick_reads and on_event_loop():
            raise SessionError(
                "this session is not loaded: use `session = await use_session(request)` before touching it"
            )
        return self._load_at_once()

    def current_id(self) -> str:
        """The id that the session has, or will have once it is saved."""
        self.loaded()
        if self.next_id is not None:
            return self.next_id
        if self.id is None:
            self.id = self.policy.make_id()
        return self.id

    def claim(self, sid: str) -> None:
        """Look for the session of this id, in place of those of cookies; for ids that need no signature."""
        self.cookies, self.claims = None, [(sid, False)]

    def claimed_id(self) -> str | None:
        """The id that a cookie with a good signature claims, or None. Nobody has looked it up yet."""
        claims = self._find()
        return claims[0][0] if claims else None

    def _find(self) -> list[Claim]:
        """The ids of all cookies with our name that verify; a domain cookie may hide behind a host cookie."""
        if self.cookies is not None:
            policy = self.policy
            values, self.claims = policy.cookie.find(self.cookies), []
            self.cookies = None
            for value in values:
                claim = policy.signer.verify(value)
                if claim is not None:
                    self.claims.append(claim)
            if values and not self.claims:
                policy.emit("bad_signature", None)
        return self.claims

    def _load_at_once(self) -> Draft:
        """`load` by blocking calls. The usual cases, no cookie or one with a record, take none of its steps."""
        policy = self.policy
        claims = self._find()
        if self.unanswered:
            return run(self.load(policy.store.blocking))
        if not claims:
            draft = self.draft = policy.draft(policy.first())
            return draft
        claim = claims[0]
        name = name_of(claim[0])
        answers: list[Answer] = []
        try:
            answer = policy.store.read(name, renew=policy.renews)
            if answer is not None:
                stored = self._stored(name, answer)
                if stored.id == claim[0] and (policy.max_lifetime is None or not self._over(stored.notes)):
                    return self._open(claim, stored, answer.fields)
            answers = [answer]
        except DriverUnavailable as error:
            answers = [error]
        except (CorruptEntry, RecursionError):
            pass  # it is read again
        return run(self.load(policy.store.blocking, answers))

    async def load(self, io: Any, answers: list[Answer] | None = None) -> Draft:
        """Load the session, unless it is loaded. answers: what the store has said already of the first cookie."""
        if self.draft is not None:
            return self.draft
        if self.unanswered:
            raise self.no_answer()
        policy = self.policy
        displaced = None
        for claim in list(self._find()):
            name = name_of(claim[0])
            try:
                found = await self._fetch(io, name, answers, loading=True)
            except DriverUnavailable as error:
                self.unanswered = True
                policy.emit("store_error", name)
                if not policy.anonymous:
                    self.outage = error
                    raise
                return self._begin()
            if found is not None and found.stored.id == claim[0]:
                return self._open(claim, found.stored, found.fields)
            if found is not None and self._within_grace(found.stored):
                displaced = displaced or name
                continue
            self.claims.remove(claim)
            if found is not None:
                policy.emit("unknown_id", name)
        if displaced is not None:
            policy.emit("displaced", displaced)
        return self._begin(displaced)

    def _open(self, claim: Claim, stored: Stored, fields: dict[str, Raw]) -> Draft:
        """Be the session of a record that this claim opens."""
        policy = self.policy
        fields.pop(RESERVED, None)
        try:
            draft = self.draft = policy.draft(fields)
        except CorruptEntry:
            # Left alone: an application that was rolled back, or another one, may be able to read it.
            policy.emit("misfit", stored.name)
            return self._begin()
        self.claims.remove(claim)
        self.id, outdated = claim
        self.stored, self.client_id = stored, self.id
        if outdated:
            self.outdated = True
        if policy.on_event is not None:
            policy.emit("loaded", stored.name)
        return draft

    async def _fetch(
        self, io: Any, name: str, answers: list[Answer] | None = None, *, loading: bool = False
    ) -> Found | None:
        """Read the record of that name; None if it is gone, over, or cannot be decoded.

        answers: what the store has said already. loading: it counts as use, and that there is none is news.
        """
        policy = self.policy
        store = policy.store
        version: object = None
        for reads_left in (1, 0):
            before, version = version, None
            try:
                if answers:
                    record = _given(answers.pop())
                else:
                    entry: Any = await store.entry_by(io, name, renew=loading and policy.renews)
                    version = getattr(entry, "version", None)
                    record = store.record(entry)
                if record is None:
                    if loading:
                        policy.emit("unknown_id", name)
                    return None
                stored = self._stored(name, record)
            except CorruptEntry as error:
                version = error.version if version is None else version
                # A file system that does not write atomically may have shown half of a write.
                if reads_left:
                    continue
                policy.emit("undecodable", name)
                if version is not None:
                    await self._delete_undecodable(io, name, version, unchanged=version == before)
                return None
            except RecursionError:  # it says how deep the caller is, and nothing of the record
                policy.emit("undecodable", name)
                return None
            if self._over(stored.notes):
                policy.emit("expired", name)
                await store.destroy_by(io, name)
                return None
            record.fields.pop(RESERVED, None)
            return Found(stored, record.fields)
        return None

    async def _delete_undecodable(self, io: Any, name: str, version: object, *, unchanged: bool) -> None:
        """Delete what cannot be decoded, as the version that was read: another request may have replaced it since."""
        store = self.policy.store
        if self.policy.capabilities.swap:
            with suppress(Conflict, CorruptEntry):
                await store.destroy_by(io, name, expect=version)
        elif unchanged:
            await store.destroy_by(io, name)

    def _stored(self, name: str, record: Record) -> Stored:
        raw = record.fields.get(RESERVED)
        # A record that another program wrote has no notes; its life begins when we first see it.
        notes = Notes(self.policy.clock(), LONG_AGO) if raw is None else self.policy.codec.load(raw, Notes)
        sid = f"{name}{SEPARATOR}{notes.token}" if notes.token else name
        return Stored(name, sid, record.version, record.expires_at, notes, raw)

    def _over(self, notes: Notes) -> bool:
        limit = self.policy.max_lifetime
        return limit is not None and notes.created + limit <= self.policy.clock()

    def _within_grace(self, stored: Stored) -> bool:
        return self.policy.clock() < stored.notes.rotated + self.policy.rotation_grace

    def _begin(self, displaced: str | None = None) -> Draft:
        """Become a new session, with what `generate` puts into one.

        displaced: the name of the session that this one is in place of; it is never stored then, unless by a login.
        """
        draft = self.draft = self.policy.draft(self.policy.first())
        self.id = self.stored = self.next_id = None
        self.displaced = displaced
        self.fresh = False
        return draft

    async def reload(self, io: Any) -> None:
        """Drop what was not saved, and read again."""
        self.unanswered, self.outage = False, None
        stored, next_id = self.stored, self.next_id
        if self.draft is None or stored is None:
            displaced, self.draft = self.displaced, None
            await self.load(io)
            if self.stored is None:
                self.displaced = self.displaced or displaced
            return
        name = stored.name
        found = await self._ask_again(io, name)
        self.next_id, self.fresh = None, False
        if found is None:
            self._block()
        elif found.stored.id in (self.id, next_id):
            self.draft = self.policy.draft(found.fields)
            self.id, self.stored = found.stored.id, found.stored
        else:
            self.policy.emit("displaced", name)
            self._begin(name)

    async def _ask_again(self, io: Any, name: str) -> Found | None:
        try:
            return await self._fetch(io, name)
        except DriverUnavailable as error:
            self.outage = error
            raise

    async def still_valid(self, io: Any) -> bool:
        """Whether the id that this request holds would open the session now."""
        await self.load(io)
        if self.stored is None:
            return False
        found = await self._ask_again(io, self.stored.name)
        return found is not None and (found.stored.id == self.id or self._within_grace(found.stored))

    # --- what is due ---

    def due(self, *, ending: bool) -> bool:
        """Whether something has to be done in the store. ending: also what is due for renewal, or ends empty."""
        draft, policy = self.draft, self.policy
        if draft is None or self.unanswered:
            return False
        draft.settle()
        changed = draft.changed
        if ending:
            if self.fresh and self.ends_empty:
                return True
            ending = self.phase is AHEAD
        if self.stored is None:
            if self.displaced is None:
                due = changed or (ending and policy.save_uninitialized)
            else:
                due = changed and (self.next_id is not None or draft.gained(policy.rotate_on))
            if due:
                self._need_cookie("a new session cannot be given to the client")
            return due
        if self.next_id is not None:
            self._need_cookie("a new id cannot be given to the client")
            return True
        return changed or (ending and self._renewal_is_due(draft, policy.clock()))

    @property
    def ends_empty(self) -> bool:
        """Whether `clear` was called and nothing came after it, or nothing that a displaced request may keep."""
        draft, policy = self.draft, self.policy
        if not self.fresh or draft is None:
            return False
        if self.displaced is not None:
            return not draft.gained(policy.rotate_on)
        return not draft.fields or (policy.schema is not None and draft.fields == policy.first())

    def _renewal_is_due(self, draft: Draft, now: float) -> bool:
        """Whether the cookie was last sent so long ago that it is time to send it, and to store that it was."""
        stored, policy = self.stored, self.policy
        if stored is None or stored.id != self.id or self.phase is not AHEAD:
            return False
        if self.outdated:
            return True  # it is signed anew, but only with a write that shows that nobody has rotated the id
        slack = policy.steady_slack
        if slack is None:
            ttl = policy.ttl_of(draft)
            if draft.changed and ttl != policy.ttl_of(policy.draft(draft.stored)):
                return True  # the cookie says how long the session lives
            slack = policy.slack(ttl)
        # Not "at least so long ago": a clock that was set back must not keep the cookie from being renewed.
        return not 0 <= now - (stored.notes.renewed or stored.notes.created) < slack

    def _logs_in(self, draft: Draft) -> bool:
        """Whether this request raises what the session may do, so that it must not depend on what others do to it."""
        rotate_on = self.policy.rotate_on
        if self.phase is not AHEAD:
            return False  # no cookie can be sent any more
        return draft.gained(rotate_on) or (self.next_id is not None and not draft.knew(rotate_on))

    def _rotates_by_itself(self, draft: Draft) -> bool:
        """Whether somebody has logged in without asking for a new id."""
        return self.rotates and self.next_id is None and draft.gained(self.policy.rotate_on)

    def rotate(self, *, clear: bool = False) -> None:
        """Let the session get a new id when it is saved."""
        draft = self.loaded()
        if clear:
            self._wipe(draft)
        if self.stored is None:
            self.id = self.policy.make_id()
            self.next_id = None if self.displaced is None else self.id
        elif self.next_id is None:
            self._need_cookie("a new id cannot be given to the client")
            name = self.stored.name
            swaps = self.policy.capabilities.swap
            self.next_id = join_id(name, random_token()) if swaps else self.policy.make_id()

    def _rename(self) -> None:
        """Make the id of a rotation anew if it was made before anybody knew that the backend cannot swap."""
        stored, swaps = self.stored, self.policy.capabilities.swap
        if self.next_id is not None and stored is not None and not swaps and name_of(self.next_id) == stored.name:
            self.next_id = self.policy.make_id()

    def clear(self) -> None:
        """Drop the data and the id; if the session is still empty at the end of the request, it is destroyed."""
        self._wipe(self.loaded())
        self.fresh = True
        if self.phase is AHEAD and self.displaced is None:
            self.rotate()

    def _wipe(self, draft: Draft) -> None:
        schema = self.policy.schema
        draft.replace({} if schema is None else schema.decode(self.policy.first()))

    # --- writing ---

    def _prepare(self, draft: Draft, seen: Draft) -> Attempt:
        """A write of `draft`, which is `seen`, the data of this request, or a merge for another holder."""
        policy, stored = self.policy, self.stored
        capabilities, now = policy.capabilities, policy.clock()
        if stored is not None and stored.id == self.id and self._rotates_by_itself(seen):
            if self.phase is AHEAD:
                self.rotate()
            else:
                log.warning("somebody logged in after the response had begun: the session keeps its id, do it earlier")
        expect: object
        event: EventName
        if stored is None:
            sid = self.current_id()
            name, _, token = sid.partition(SEPARATOR)
            notes, raw = Notes(now, token=token), None
            expect, event = ABSENT if capabilities.create else ANY, "created"
        else:
            name, sid, notes, raw, event = stored.name, stored.id, stored.notes, stored.raw, "saved"
            expect = stored.version if capabilities.swap else ANY
            if self.next_id is not None:
                sid, event = self.next_id, "rotated"
                name, _, token = sid.partition(SEPARATOR)
                notes, raw = Notes(notes.created, now, token, now), None
                if not capabilities.swap and capabilities.create:
                    expect = ABSENT
            elif self._renewal_is_due(seen, now):
                notes, raw = Notes(notes.created, now, notes.token, notes.rotated), None
        if raw is None:
            raw = policy.codec.encode(notes)
        record = {RESERVED: raw, **draft.fields}
        ttl = policy.lifetime(draft, notes.created, stored=True)
        expires_at = None if ttl is None else now + ttl
        return Attempt(name, sid, record, notes, ttl, expires_at, expect, seen.freeze(), len(seen.log), event)

    def _succeed(self, draft: Draft, attempt: Attempt, version: object) -> None:
        """Take over what has been written."""
        policy, before = self.policy, self.stored
        raw = attempt.record[RESERVED]
        self.stored = Stored(attempt.name, attempt.id, version, attempt.expires_at, attempt.notes, raw)
        if before is None or before.id == self.id:
            self.id = attempt.id
            if before is not None and before.notes is not attempt.notes:
                self.client_id, self.outdated = None, False
        if attempt.event != "saved":
            self.next_id = self.displaced = None
        if self.outage is not None:
            self.outage = None
        draft.saved(attempt.mark, attempt.fields)
        if policy.on_event is not None:
            policy.emit(attempt.event, attempt.id)

    def end_at_once(self) -> None:
        """`end` by blocking calls. The usual case, a write that no other is in the way of, takes none of its steps."""
        policy, draft = self.policy, self.loaded()
        answer: Failed | None = None
        # Before the first write of all nobody knows what the backend can do.
        if policy.prepared and not self.fresh and not self._reads_first(self.stored):
            attempt = self._prepare(draft, draft)
            if attempt.ttl is None or attempt.ttl > 0:
                try:
                    version = policy.store.put(attempt.name, attempt.record, expect=attempt.expect, ttl=attempt.ttl)
                except (Conflict, DriverUnavailable) as error:
                    answer = attempt, error
                else:
                    self._succeed(draft, attempt, version)
                    return
        run(self.end(policy.store.blocking, answer))

    async def end(self, io: Any, answer: Failed | None = None) -> Written | None:
        """Write at the end of a request. In an outage the changes are dropped if the policy says so.

        answer: an attempt that was made already, and how it failed.
        """
        if self.ends_empty:
            await self.destroy(io)
            return None
        try:
            return await self.save(io, answer)
        except DriverUnavailable:
            self.policy.emit("store_error", self.id)
            if not self.policy.anonymous:
                raise
            self.unanswered, self.outage, self.next_id = True, None, None
            return None

    async def save(self, io: Any, answer: Failed | None = None) -> Written | None:
        """Write what is due; returns what a rotation has replaced."""
        try:
            if not self.policy.prepared:
                await self.policy.prepare(io)
                self._rename()
            return await self._write(io, answer)
        except DriverUnavailable as error:
            self.outage = error
            raise

    def _reads_first(self, stored: Stored | None) -> bool:
        """Whether a write cannot go by what was loaded: others cannot be noticed, or have rotated the id."""
        return stored is not None and (stored.id != self.id or not self.policy.capabilities.swap)

    async def _write(self, io: Any, answer: Failed | None = None) -> Written | None:
        """Create, write or rotate; if others were faster, replay the changes on what they wrote, and try again."""
        store, seen = self.policy.store, self.loaded()
        draft: Draft | None = seen
        if answer is None and (stored := self.stored) is not None and self._reads_first(stored):
            draft = await self._merge(io, await self._fetch(io, stored.name))
        replaced: Written | None = None
        for number in range(MAX_ATTEMPTS):
            if draft is None:
                return replaced
            failure: Conflict | DriverUnavailable
            if answer is not None:
                (attempt, failure), answer = answer, None
            else:
                attempt = self._prepare(draft, seen)
                before = Written(self.stored, seen.stored, seen.log[:], self.id, attempt.id, self.displaced)
                if attempt.ttl is not None and attempt.ttl <= 0:
                    await self._expire(io)
                    return None
                try:
                    version = await store.set_by(
                        io, attempt.name, attempt.record, expect=attempt.expect, ttl=attempt.ttl
                    )
                except (Conflict, DriverUnavailable) as error:
                    failure = error
                else:
                    if not await self._drop_renamed(io, attempt):
                        return None
                    self._succeed(seen, attempt, version)
                    return replaced if attempt.event == "saved" else before
            if number >= PATIENT_ATTEMPTS:
                longest = min(LONGEST_PAUSE, 0.0005 * 2 ** (number - PATIENT_ATTEMPTS))
                await io.pause(random.random() * longest)  # noqa: S311  # no secret
            before = Written(self.stored, seen.stored, seen.log[:], self.id, attempt.id, self.displaced)
            draft = await self._after(io, attempt, failure, number)
            if attempt.event != "saved" and self.id == attempt.id and self.stored is not before.stored:
                replaced = before  # it has landed
        raise Conflict(f"others changed the session {MAX_ATTEMPTS} times in a row; the changes were not saved")

    async def _after(self, io: Any, attempt: Attempt, failure: Exception, number: int) -> Draft | None:
        """What is to be written after an attempt that seemed to fail; None if nothing is, any more."""
        down = isinstance(failure, DriverUnavailable)
        if attempt.event == "saved":
            if down:
                raise failure
            if not self.loaded().changed:
                return None  # there was only the renewal to write, and the faster request has seen to it
        try:
            found = await self._fetch(io, attempt.name)
        except DriverUnavailable:
            if down:
                raise failure from None
            raise
        if attempt.event != "saved" and found is not None and found.stored.id == attempt.id:
            # Its token tells that it took effect: only the answer was lost.
            return self._take_over(attempt, found) if await self._drop_renamed(io, attempt) else None
        if down:
            raise failure
        if self.stored is None:
            return self._create_again(number)
        name = self.stored.name
        if name != attempt.name:
            found = await self._fetch(io, name)
        return await self._merge(io, found)

    async def _merge(self, io: Any, found: Found | None) -> Draft | None:
        """Replay the changes on the newest record. Returns what is to be written; None if nothing is, any more."""
        draft, before, policy = self.loaded(), self.stored, self.policy
        assert before is not None  # noqa: S101
        name = before.name
        draft.settle()  # what another task has changed in place meanwhile
        if found is None:
            if self._logs_in(draft):
                await self._part(io, None)
            else:
                self._block()
            return None
        if found.stored.id != self.id:
            if self._logs_in(draft):
                await self._part(io, None if draft.knew(policy.rotate_on) else name)
                return None
            if draft.gained(policy.rotate_on):  # a login that can send no cookie any more: not into another's session
                policy.emit("displaced", name)
                self._begin(name)
                return None
            self.next_id = None  # the other request has done it
        try:
            newest = policy.draft(found.fields)
        except CorruptEntry:  # left alone, as when a session is loaded
            policy.emit("misfit", name)
            self._begin(name)
            return None
        if found.stored.id == self.id:
            draft.rebase(newest.fields)
            draft.stored = newest.stored
            merged = draft
        else:
            # Another holder's session by now: the changes belong there, but what it holds is not for this one to see.
            newest.log = list(draft.log)
            newest.rebase(newest.fields)
            merged = newest
        self.stored = found.stored
        if found.stored.version != before.version:
            policy.emit("merged", name)
        return merged

    def _create_again(self, number: int) -> Draft:
        """The new id is taken by another session, with which it is never shared."""
        if number >= MAX_TAKEN:
            raise SessionError("generate_id returned ids that exist already, three times in a row; it must be random")
        self.id = self.policy.make_id()
        if self.next_id is not None:
            self.next_id = self.id
        return self.loaded()

    def _take_over(self, attempt: Attempt, landed: Found) -> Draft | None:
        """Go on from an attempt that has landed. Returns what it did not hold and is still to be written."""
        draft = self.loaded()
        # After an outage it may have been an earlier one, of which nobody knows how much it held.
        mark = attempt.mark if self.outage is None else 0
        self._succeed(draft, msgspec.structs.replace(attempt, mark=mark), landed.stored.version)
        self.stored = landed.stored
        draft.rebase(landed.fields)
        return draft if draft.changed else None

    async def _drop_renamed(self, io: Any, attempt: Attempt) -> bool:
        """Where the store cannot swap, a rotation makes a record under a new name, and the old one goes.

        False if it was gone already: a logout was faster.
        """
        if self.stored is None or attempt.event != "rotated":
            return True
        old, new = self.stored.name, attempt.name
        if old == new or await self.policy.store.destroy_by(io, old):
            return True
        await self.policy.store.destroy_by(io, new)
        if self._logs_in(self.loaded()):
            await self._part(io, None)
        else:
            self._block()
        return False

    async def _part(self, io: Any, name: str | None) -> None:
        """A login that others overtook gets a session of its own: its changes, and what it had loaded under `name`.

        What it had loaded is left out if the old record is gone, also if it goes now: a logout may be ending it.
        """
        draft, policy = self.loaded(), self.policy
        log = list(draft.log)
        self.id = self.stored = self.next_id = None
        if name is None:
            draft.rebase(policy.first())
        await self._write(io)
        if name is None:
            return
        try:
            gone = await self._fetch(io, name) is None
        except DriverUnavailable:
            gone = True
        if gone:
            draft.log = log + draft.log
            draft.rebase(policy.first())
            await self._write(io)

    async def _expire(self, io: Any) -> None:
        """The session is over: the ttl of its data says so, or it has reached the absolute limit meanwhile."""
        displaced = None
        if self.stored is not None:
            name = self.stored.name
            was_there = await self.policy.store.destroy_by(io, name)
            self.policy.emit("expired", name)
            if self._over(self.stored.notes) or not was_there:
                displaced = name  # the browser may hold a newer cookie by now
            else:
                self.destroyed = True
        self._begin(displaced)

    async def destroy(self, io: Any) -> None:
        """Delete the session, and those of all other cookies that came with the request: a logout is one from all."""
        names, own = [], self.stored is not None
        if self.stored is not None:
            names.append(self.stored.name)
        elif self.displaced is not None:
            names.append(self.displaced)
        try:
            for claim in self._find():
                name = name_of(claim[0])
                if name in names:
                    continue
                found = await self._fetch(io, name)
                if found is None or not (found.stored.id == claim[0] or self._within_grace(found.stored)):
                    continue
                names.append(name)
                own = own or found.stored.id == claim[0]
            was_there = False
            for name in names:
                was_there = await self.policy.store.destroy_by(io, name) or was_there
                self.policy.emit("destroyed", name)
        except DriverUnavailable as error:
            self.outage = error
            raise
        self.claims, self.unanswered = [], False
        # A displaced request sends no cookie, nor one that came after another logout: the browser may hold a newer one.
        own = own and was_there
        self.destroyed = self.destroyed or own
        self._begin(None if own or not names else names[0])

    def _block(self) -> None:
        """Another request destroyed the session while this one ran: it stays destroyed, and no cookie is sent."""
        assert self.stored is not None  # noqa: S101
        name = self.stored.name
        self.policy.emit("revival_blocked", name)
        self._begin(name)

    # --- the tasks of one request ---

    async def in_turn(self, step: Callable[[Any], Awaitable[T]]) -> T:
        """Take a step by the native face, after those that other tasks of this request have begun."""
        io = self.policy.store.native
        if self.policy.capabilities.never_blocks:
            return await step(io)
        if self.turn is None:
            self.turn = asyncio.Lock()
        async with self.turn:
            return await step(io)

    @property
    def busy(self) -> bool:
        """Whether a task of this request is in the middle of a step."""
        return self.turn is not None and self.turn.locked()

    async def save_in_turn(self, *, ending: bool) -> None:
        """Write what is due. What makes a new id runs to its end, and is taken back if nobody waits for it any more."""
        waits = self.busy
        if not waits and not self.due(ending=ending):
            return

        async def step(io: Any) -> None:
            if waits and not self.due(ending=ending):
                return
            writing = self.end(io) if ending else self.save(io)
            policy = self.policy
            plain = self.stored is not None and self.next_id is None and not self._rotates_by_itself(self.loaded())
            if plain or policy.capabilities.never_blocks:
                await writing
                return
            before, cancelled = await run_to_end(writing)
            if cancelled is not None:
                if before is not None:
                    try:
                        await run_to_end(self._take_back(io, before))
                    except DriverUnavailable:
                        policy.emit("store_error", self.id)
                raise cancelled

        await self.in_turn(step)

    async def _take_back(self, io: Any, before: Written) -> None:
        """Undo a write whose new id nobody waits for any more, with its changes, as well as the store allows.

        Then all is as it was before the write, and can be saved again.
        """
        if not await self._undo(io, before):
            return
        draft = self.loaded()
        self.stored, self.id, self.displaced = before.stored, before.id, before.displaced
        self.next_id = before.next_id if before.stored is not None else None
        draft.stored, draft.log = before.fields, before.log + draft.log

    async def _undo(self, io: Any, before: Written) -> bool:
        """Put back what stood in the store. False if that cannot be: the new id stays then."""
        new, old, policy = self.stored, before.stored, self.policy
        if new is None or new == old:
            return False
        store, name = policy.store, new.name
        if old is None or old.name != name:
            if old is not None:
                record = {RESERVED: old.raw or policy.codec.encode(old.notes), **before.fields}
                await store.set_by(io, old.name, record, ttl=self._ttl_left(old))
            await store.destroy_by(io, name)
            return True
        written = self.loaded().stored
        changed = {key for key in {**written, **before.fields} if written.get(key) != before.fields.get(key)}
        newest, version = written, new.version
        for _ in range(PATIENT_ATTEMPTS):
            kept = {key: raw for key, raw in newest.items() if key not in changed}
            restored = {key: raw for key, raw in before.fields.items() if key in changed}
            record = {RESERVED: old.raw or policy.codec.encode(old.notes), **kept, **restored}
            try:
                await store.set_by(io, name, record, expect=version, ttl=self._ttl_left(old))
                return True
            except Conflict:
                found = await self._fetch(io, name)
                if found is None or found.stored.id != new.id:
                    return False
                newest, version = found.fields, found.stored.version
        return False

    def _ttl_left(self, stored: Stored) -> float | None:
        return None if stored.expires_at is None else max(1.0, stored.expires_at - self.policy.clock())

    # --- for the manager ---

    def revert(self) -> None:
        """Forget what was changed and not saved. Where the store did not answer, an empty session stands in."""
        if self.draft is not None:
            self.draft.revert()
        elif self.unanswered:
            self._begin()
        self.next_id, self.fresh = None, False

    def cookie_is_due(self) -> bool:
        """Whether the client is to be sent the id: it is new to the client, or its cookie is to be renewed."""
        return self.id != self.client_id and self.stored is not None and self.stored.id == self.id

    def cookie_lifetime(self) -> float | None:
        """Seconds that the cookie lives; None for ever."""
        assert self.stored is not None  # noqa: S101
        return self.policy.lifetime(self.loaded(), self.stored.notes.created, stored=False)

    def no_answer(self) -> DriverUnavailable:
        """What is raised when the session is asked for again in an outage."""
        return DriverUnavailable("the store did not answer when the session was loaded; `reload` tries again")

    def _need_cookie(self, what: str) -> None:
        if self.phase is not AHEAD:
            raise SessionError(f"{what}: the response has begun, and no cookie can be sent any more; do it earlier")


def _given(answer: Answer) -> Record | None:
    if isinstance(answer, Exception):
        raise answer
    return answer
