"""What happens to a session between the request and the response: load, save, merge, rotate, destroy.

A step that does I/O is written once, as a coroutine that calls the store through `io`, the blocking or the native calls
of its driver (`twins.py`). The first call of a load and of a save is made without a coroutine where that is possible;
the coroutine then goes on from its answer. `Session` puts the public methods in front.

A write is prepared as an `Attempt` and changes nothing here before it has succeeded, so nothing is undone when another
request was faster.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import partial
from typing import Any, TypeVar

import msgspec

from session_kit.draft import Draft
from session_kit.drivers import Conflict, CorruptEntry, DriverUnavailable
from session_kit.drivers.support.twins import let_racers_part, on_event_loop, run, run_to_end
from session_kit.errors import OtherCodec, SessionError
from session_kit.record import RESERVED, Record, is_same_login, name_of, token_of
from session_kit.state import ENDED, Attempt, Found, State, Stored, Written

T = TypeVar("T")
E = TypeVar("E", bound=Exception)

MAX_ATTEMPTS = 100
"""How often a write that others keep overtaking is tried. Each conflict means that another request got through."""
PATIENT_ATTEMPTS = 3
"""How many of them follow at once; before the others there is a pause, of random length so that racers part."""
Failed = tuple[Attempt, Conflict | DriverUnavailable]
Answer = Record | DriverUnavailable | None
"""What the store said when it was asked for a session."""


class Lifecycle(State, eq=False):
    """The steps that load a session and write what is due."""

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
        found = self.open_at_once()
        return run(self.load(self.policy.store.blocking, found)) if isinstance(found, list) else found

    def current_id(self) -> str:
        """The id that the session has, or will have once it is saved."""
        self.loaded()
        sid = self.id = self.id or self.policy.make_id()
        return self.next_id or sid

    def open_at_once(self) -> Draft | list[Answer]:
        """The usual cases of `load`, no cookie or one with a record, by a blocking read and without its steps.

        In others what the store has said of the first cookie, for `load`.
        """
        policy = self.policy
        candidates = self.find_candidates()
        if self.unanswered:
            return []
        if not candidates:
            draft = self.draft = policy.draft(policy.first())
            return draft
        candidate = candidates[0]
        sid = candidate[0]
        name = name_of(sid)
        try:
            answer = policy.store.read(name, renew=policy.renews and self.counts)
            if self.draft is not None:
                return self.draft  # another thread was faster, and may have changed it
            if answer is not None:
                stored = self.stored_as(name, answer)
                notes = stored.notes
                over = policy.max_lifetime is not None and self.is_over(notes)
                if stored.id == sid and not over and not (notes.owner and self.reading_files(notes)):
                    return self.open_record(candidate, stored, answer.fields)
            return [answer]
        except DriverUnavailable as error:
            return [error]
        except (CorruptEntry, RecursionError):
            return []  # it is read again

    async def load(self, io: Any, answers: list[Answer] | None = None) -> Draft:
        """Load the session, unless it is loaded. answers: what the store has said already of the first cookie."""
        if self.draft is not None:
            return self.draft
        if self.unanswered:
            raise self.no_answer()
        policy = self.policy
        displaced = unread = None
        for candidate in list(self.find_candidates()):
            name = name_of(candidate[0])
            try:
                found = await self._look_up(io, name, answers, loading=True)
            except OtherCodec:
                unread = unread or name
                continue
            except DriverUnavailable as error:
                self.unanswered = True
                policy.emit("store_error", name, error)
                if not policy.anonymous:
                    self.outage = error
                    raise
                _bare(error)
                return self.begin()
            if found is not None and self.opens(found.stored, candidate[0]):
                if displaced or unread:  # that session lives: a renewal of this one would take its cookie's place
                    self.counts = False
                return self.open_record(candidate, found.stored, found.fields)
            if found is not None and self.within_grace(found.stored):
                displaced = displaced or name
                continue
            self.find_candidates().remove(candidate)
            if found is not None:
                policy.emit("unknown_id", name)
                if found.stored.notes.token:
                    await self._reused(io, found.stored, candidate[0])
        if displaced is not None:
            policy.emit("displaced", displaced)
        return self.begin(displaced or unread)

    async def _reused(self, io: Any, stored: Stored, sid: str) -> None:
        """An id that we have signed, and replaced long ago, came back: the sign of a stolen cookie.

        One from before the last login ends nothing: whoever planted it could log out who has logged in.
        """
        if any(self.opens(stored, sid) for sid, _ in self.find_candidates()):
            return  # a second cookie has the id that counts: the older one lies in another place of the same browser
        policy = self.policy
        policy.emit("reuse", stored.name)
        if not policy.ends_on_reuse or not is_same_login(token_of(sid), stored.notes.token):
            return
        if await policy.store.destroy_by(io, stored.name):
            policy.emit("destroyed", stored.name)
            await self._take_out(io, stored, None)

    async def _fetch(self, io: Any, name: str) -> Found | None:
        """`_look_up`, where a record of another codec is as good as none: it is not ours to change."""
        try:
            return await self._look_up(io, name)
        except OtherCodec:
            return None

    async def _look_up(
        self, io: Any, name: str, answers: list[Answer] | None = None, *, loading: bool = False
    ) -> Found | None:
        """Read the record of that name; None if it is gone, over, or cannot be decoded.

        answers: what the store has said already. loading: it counts as use, and that there is none is news.
        `OtherCodec` if it is whole, and its codec another one: it is left alone.
        """
        policy = self.policy
        store = policy.store
        version: object = None
        for reads_left in (1, 0):
            before, record = version, None
            try:
                if answers:
                    record = _given(answers.pop())
                else:
                    record = await store.read_by(io, name, renew=loading and policy.renews and self.counts)
                if record is None:
                    if loading:
                        policy.emit("unknown_id", name)
                    return None
                stored = self.stored_as(name, record)
            except OtherCodec as error:
                policy.emit("other_codec", name, error)
                raise
            except CorruptEntry as error:
                version = record.version if record is not None else error.version
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
            if self.is_over(stored.notes):
                policy.emit("expired", name)
                await store.destroy_by(io, name)
                return None
            if loading and self.reading_files(stored.notes):
                await self._file_again(io, stored)
            record.fields.pop(RESERVED, None)
            return Found(stored, record.fields)
        return None

    async def _delete_undecodable(self, io: Any, name: str, version: object, *, unchanged: bool) -> None:
        """Delete what cannot be decoded, as the version that was read: another request may have replaced it since."""
        store = self.policy.store
        if self.policy.swaps:
            with suppress(Conflict, CorruptEntry):
                await store.destroy_by(io, name, expect=version)
        elif unchanged:
            await store.destroy_by(io, name)

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
        self.next_id = self.pending = self.fresh = None
        if found is None:
            self.block()
        elif found.stored.id == next_id or self.goes_on(found.stored):
            self.draft = self.policy.draft(found.fields)
            self.id, self.stored = found.stored.id, found.stored
            if self.id == next_id:  # it has landed
                self.client_id = None
        else:
            self.policy.emit("displaced", name)
            self.begin(name)

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
            if self.unanswered:
                raise self.no_answer()
            return False
        found = await self._ask_again(io, self.stored.name)
        return found is not None and (self.goes_on(found.stored) or self.accepts(found.stored, self.id or ""))

    # --- writing ---

    def end_at_once(self) -> None:
        """`end` by blocking calls. The usual case, a write that no other is in the way of, takes none of its steps."""
        policy, draft, stored = self.policy, self.draft, self.stored
        answer: Failed | None = None
        # Before the first write of all nobody knows what the backend can do.
        if (
            draft is not None
            and policy.prepared
            and self.fresh is None
            and (stored is None or not self.reads_first(stored))
        ):
            attempt = self.prepare(draft, draft)
            ttl = attempt.ttl
            if not attempt.files and (ttl is None or ttl > 0):
                try:
                    version = policy.store.put(attempt.stored.name, attempt.record, expect=attempt.expect, ttl=ttl)
                except Conflict as error:
                    answer = attempt, _bare(error)
                except DriverUnavailable as error:
                    answer = attempt, error
                else:
                    self.succeed(draft, attempt, version)
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
        except DriverUnavailable as error:
            self.policy.emit("store_error", self.id, error)
            if not self.policy.anonymous:
                raise
            _bare(error)
            self.unanswered, self.outage, self.next_id, self.pending = True, None, None, None
            return None

    async def save(self, io: Any, answer: Failed | None = None) -> Written | None:
        """Write what is due; returns what a rotation has replaced."""
        draft = self.loaded()
        try:
            if not self.policy.prepared:
                await self.policy.prepare(io)
                self.rename()
            return await self._write(io, answer)
        except DriverUnavailable as error:
            self.outage = error
            raise
        finally:
            draft.thaw()

    async def _write(self, io: Any, answer: Failed | None = None) -> Written | None:
        """Create, write or rotate; if others were faster, replay the changes on what they wrote, and try again."""
        store, seen = self.policy.store, self.loaded()
        draft: Draft | None = seen
        if answer is None and (stored := self.stored) is not None and self.reads_first(stored):
            draft = await self._merge(io, await self._fetch(io, stored.name))
        replaced: Written | None = None
        for number in range(MAX_ATTEMPTS):
            if draft is None:
                return replaced
            failure: Conflict | DriverUnavailable
            if answer is not None:
                (attempt, failure), answer = answer, None
            else:
                attempt = self.prepare(draft, seen)
                before = self.standing(attempt)
                if attempt.ttl is not None and attempt.ttl <= 0:
                    await self._expire(io)
                    return None
                try:
                    if attempt.files:
                        await self._file(io, attempt.stored, attempt.ttl)
                    version = await store.set_by(
                        io, attempt.stored.name, attempt.record, expect=attempt.expect, ttl=attempt.ttl
                    )
                except Conflict as error:
                    failure = _bare(error)
                except DriverUnavailable as error:
                    failure = error
                else:
                    if not await self._drop_renamed(io, attempt):
                        return None
                    self.succeed(seen, attempt, version)
                    if attempt.files:
                        await self._make_way(io, attempt)
                        if before.stored is not None:
                            await self._take_out(io, before.stored, self.stored)
                    return replaced if attempt.event == "saved" else before
            if number >= PATIENT_ATTEMPTS:
                await let_racers_part(io, number)
            before = self.standing(attempt)
            draft = await self._after(io, attempt, failure, number)
            if attempt.event != "saved" and self.id == attempt.stored.id and self.stored is not before.stored:
                replaced = before  # it has landed
        raise Conflict(f"others changed the session {MAX_ATTEMPTS} times in a row; the changes were not saved")

    async def _after(self, io: Any, attempt: Attempt, failure: Exception, number: int) -> Draft | None:
        """What is to be written after an attempt that seemed to fail; None if nothing is, any more."""
        down = isinstance(failure, DriverUnavailable)
        if down and attempt.event == "saved":
            raise failure
        found, known = None, True
        try:
            found = await self._fetch(io, attempt.stored.name)
        except DriverUnavailable:
            if not down:
                raise
            known = False
        if attempt.event != "saved" and found is not None and found.stored.id == attempt.stored.id:
            # Its token tells that it took effect: only the answer was lost.
            if attempt.files:
                await self._make_way(io, attempt)
            return self._take_over(attempt, found) if await self._drop_renamed(io, attempt) else None
        # If it is tried again with the session that is there, it is filed again.
        again = not down and self.stored is not None and found is not None and self.goes_on(found.stored)
        if attempt.files and known and not again:
            await self._take_out(io, attempt.stored, None if found is None else found.stored)
        if down:
            raise failure
        if self.stored is None:
            return self.create_again(number)
        if self._leaves_it(found):
            return None
        name = self.stored.name
        if name != attempt.stored.name:
            found = await self._fetch(io, name)
        return await self._merge(io, found)

    def _leaves_it(self, found: Found | None) -> bool:
        """Whether there was only the renewal of the cookie to write, and the request that was faster has done that."""
        draft = self.loaded()
        if draft.changed or self.next_id is not None or self.pending is not None:
            return False
        if found is not None and self.renewal_is_due(found.stored, draft, self.policy.clock()):
            draft.log.clear()  # it comes to nothing, and is not said again
            return False  # the other did not count as use
        if self.client_id is not None:  # else the client has no id at all, or not the one that was saved before
            self.client_id = self.id
        return True

    async def _merge(self, io: Any, found: Found | None) -> Draft | None:
        """Replay the changes on the newest record. Returns what is to be written; None if nothing is, any more."""
        draft, before, policy = self.loaded(), self.stored, self.policy
        assert before is not None  # noqa: S101  # tells mypy
        name = before.name
        draft.detect_changes()  # what another task has changed in place meanwhile
        if found is None:
            if self.logs_in(draft):
                await self._part(io, None)
            else:
                self.block()
            return None
        if self.goes_on(found.stored):
            self.id = found.stored.id
        else:
            if self.logs_in(draft):
                await self._part(io, None if self.knows_the_user(draft) else name)
                return None
            if draft.gained(policy.rotate_on):  # a login that can send no cookie any more: not into another's session
                policy.emit("displaced", name)
                self.begin(name)
                return None
            self.next_id = None  # the other request has done it
        try:
            newest = policy.draft(found.fields)
        except CorruptEntry as error:  # left alone, as when a session is loaded
            policy.emit("misfit", name, error)
            self.begin(name)
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

    def _take_over(self, attempt: Attempt, landed: Found) -> Draft | None:
        """Go on from an attempt that has landed. Returns what it did not hold and is still to be written."""
        draft = self.loaded()
        # After an outage it may have been an earlier one, of which nobody knows how much it held.
        mark = attempt.mark if self.outage is None else 0
        self.succeed(draft, msgspec.structs.replace(attempt, mark=mark), landed.stored.version)
        self.stored = landed.stored
        draft.rebase(landed.fields)
        return draft if draft.changed else None

    async def _drop_renamed(self, io: Any, attempt: Attempt) -> bool:
        """Where the store cannot swap, a rotation makes a record under a new name, and the old one goes.

        False if it was gone already: a logout was faster.
        """
        if self.stored is None or attempt.event != "rotated":
            return True
        old, new = self.stored.name, attempt.stored.name
        if old == new or await self.policy.store.destroy_by(io, old):
            return True
        await self.policy.store.destroy_by(io, new)
        await self._take_out(io, attempt.stored, None)
        if self.logs_in(self.loaded()):
            await self._part(io, None)
        else:
            self.block()
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
        gone, displaced = self.stored, None
        if gone is not None:
            was_there = await self.policy.store.destroy_by(io, gone.name)
            self.policy.emit("expired", gone.name)
            over = self.is_over(gone.notes)
            if over and self.logs_in(self.loaded()):
                await self._take_out(io, gone, None)
                await self._part(io, None)
                return
            if over or not was_there:
                displaced = gone.name  # the browser may hold a newer cookie by now
            else:
                self.destroyed = True
        self.begin(displaced)
        if gone is not None:
            await self._take_out(io, gone, None)

    async def destroy(self, io: Any) -> None:
        """Delete the session, and those of all other cookies that came with the request: a logout is one from all."""
        names, own, gone = list[str](), self.stored is not None, list[Stored]()
        if self.stored is not None:
            names.append(self.stored.name)
            gone.append(self.stored)
        try:
            if self.stored is None and self.displaced is not None:
                names.append(self.displaced)
                if (found := await self._fetch(io, self.displaced)) is not None:
                    gone.append(found.stored)
            for candidate in self.find_candidates():
                name = name_of(candidate[0])
                if name in names:
                    continue
                try:
                    found = await self._look_up(io, name)
                except OtherCodec:  # its token cannot be compared, but a logout must not wait for that
                    names.append(name)
                    continue
                if found is None or not self.accepts(found.stored, candidate[0]):
                    continue
                names.append(name)
                gone.append(found.stored)
                own = own or self.opens(found.stored, candidate[0])
            was_there = False
            for name in names:
                was_there = await self.policy.store.destroy_by(io, name) or was_there
                self.policy.emit("destroyed", name)
        except DriverUnavailable as error:
            self.outage = error
            raise
        self.candidates, self.unanswered = [], False
        # A displaced request sends no cookie, nor one that came after another logout: the browser may hold a newer one.
        own = own and was_there
        self.destroyed = self.destroyed or own
        self.begin(None if own or not names else names[0])
        for each in gone:
            await self._take_out(io, each, None)

    # --- the index of the owner ---

    async def _file(self, io: Any, stored: Stored, lives: float | None) -> None:
        """Before a record says whose it is, or lives on for so many seconds, say so in the index."""
        policy, notes = self.policy, stored.notes
        if notes.owner and policy.owners is not None:
            binding = self.pending if self.pending is not None and self.pending.owner else None
            self.filed = await policy.owners.file(
                io,
                notes.owner,
                stored.name,
                before=stored.name if self.stored is None else self.stored.name,
                lives=lives,
                interval=policy.renewal_interval(lives),
                label=None if binding is None else binding.label,
                # A renewal, perhaps of a session that was revoked meanwhile or that the index has lost, ends no other.
                login=binding is not None,
            )

    async def _make_way(self, io: Any, attempt: Attempt) -> None:
        """End a new session that is written after a later login has ended it, for want of room."""
        stored, owners = attempt.stored, self.policy.owners
        if owners is None or attempt.event != "created":
            return
        try:
            if await owners.is_ended(io, stored.notes.owner, stored.name):
                await self.policy.store.destroy_by(io, stored.name)
        except DriverUnavailable as error:
            self.policy.emit("store_error", stored.name, error)

    async def _file_again(self, io: Any, stored: Stored) -> None:
        """Say in the index that a session lives on, by a read or because a write is undone."""
        ttl, remember = self.policy.store.ttl, stored.notes.remember
        lives = None if ttl is None or callable(ttl) else max(ttl, remember)
        try:
            await self._file(io, stored, lives)
        except (Conflict, DriverUnavailable) as error:
            self.policy.emit("store_error", stored.name, error)

    async def _take_out(self, io: Any, before: Stored, now: Stored | None) -> None:
        """Take a session out of the index of its owner after its record has gone, or is another's, or has another name.

        now: what it is now. If that fails the entry stays, and is left out of lists, which look at the records.
        """
        owner, owners = before.notes.owner, self.policy.owners
        if owner and owners is not None and (now is None or (now.name, now.notes.owner) != (before.name, owner)):
            try:
                await owners.remove(io, owner, [before.name])
            except (Conflict, DriverUnavailable) as error:
                self.policy.emit("store_error", before.name, error)

    # --- the tasks of one request ---

    async def load_in_turn(self) -> None:
        """Load the session; a read that waits for nothing, as of memory or SQLite, is made without a coroutine."""
        answers: list[Answer] = []
        if not self.busy and self.policy.store.reads_at_once():
            found = self.open_at_once()
            if not isinstance(found, list):
                return
            answers = found
        await self.in_turn(partial(self.load, answers=answers))

    async def in_turn(self, step: Callable[[Any], Awaitable[T]]) -> T:
        """Take a step by native calls, after those that other tasks of this request have begun."""
        io = self.policy.store.native
        if self.policy.capabilities.never_blocks:
            return await step(io)
        if self.lock is None:
            self.lock = asyncio.Lock()
        async with self.lock:
            return await step(io)

    @property
    def busy(self) -> bool:
        """Whether a task of this request is in the middle of a step."""
        return self.lock is not None and self.lock.locked()

    async def save_in_turn(self, *, ending: bool) -> None:
        """Write what is due. What makes a new id runs to its end, and is taken back if nobody waits for it any more.

        So does the last save, which is kept: the client of a WebSocket or a stream may leave meanwhile.
        """
        if not self.busy and not self.save_is_due(ending=ending):
            return
        policy, last = self.policy, self.phase is ENDED

        async def step(io: Any) -> None:
            # A task that was in front may have left nothing to do: the session may be gone, or be another one.
            if not self.save_is_due(ending=ending):
                return
            writing = self.end(io) if ending else self.save(io)
            plain = self.stored is not None and self.next_id is None and not self.rotates_by_itself(self.data)
            if plain or last or policy.capabilities.never_blocks:
                await writing
                return
            before, cancelled = await run_to_end(writing)
            if cancelled is not None:
                if before is not None:
                    try:
                        await run_to_end(self._take_back(io, before))
                    except DriverUnavailable as error:
                        policy.emit("store_error", self.id, error)
                raise cancelled

        if not last or policy.capabilities.never_blocks:
            await self.in_turn(step)
            return
        _, cancelled = await run_to_end(self.in_turn(step))
        if cancelled is not None:
            raise cancelled

    async def _take_back(self, io: Any, before: Written) -> None:
        """Undo a write whose new id nobody waits for any more, with its changes, as well as the store allows.

        Then all is as it was before the write, and can be saved again.
        """
        new, old = self.stored, before.stored
        if new is None:
            return
        if old is not None and (new.name, new.notes.owner) != (old.name, old.notes.owner):
            await self._file_again(io, old)
        if not await self._undo(io, before):
            return
        await self._take_out(io, new, old)
        draft = self.loaded()
        self.stored, self.id, self.displaced = before.stored, before.id, before.displaced
        self.pending = before.pending
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
                await store.set_by(io, old.name, record, ttl=self.ttl_left(old))
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
                await store.set_by(io, name, record, expect=version, ttl=self.ttl_left(old))
                return True
            except Conflict:
                found = await self._fetch(io, name)
                if found is None or found.stored.id != new.id:
                    return False
                newest, version = found.fields, found.stored.version
        return False


def _bare(error: E) -> E:
    """An error that goes no further, without its traceback: steps in there hold it, and the session, as garbage."""
    return error.with_traceback(None)


def _given(answer: Answer) -> Record | None:
    if isinstance(answer, Exception):
        raise answer
    return answer
