"""What happens to a session between the request and the response: load, save, merge, rotate, destroy.

Every step is written once, as a coroutine that does its I/O through `io`: the blocking or the native face of the driver
(`twins.py`). `Session` puts the public methods in front.
"""

from __future__ import annotations

import asyncio
import hashlib
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

from msgspec import Raw

from session_kit.cookie import Claim, CookieHeaders
from session_kit.draft import RESERVED, Draft
from session_kit.drivers import ABSENT, ANY, Conflict, CorruptEntry, DriverUnavailable
from session_kit.drivers.twins import run
from session_kit.errors import SessionError
from session_kit.policy import Notes, Policy
from session_kit.store import Record

# How often a write that others keep overtaking is tried again. Each conflict means that somebody else got through.
MAX_ATTEMPTS = 100
# A rotation inside a rotation's grace is followed this far.
MAX_POINTERS = 8


Write = Callable[[Any], Awaitable[None]]
"""A step that writes, given the face to do it by."""

Answer = Record | Exception | None
"""What the store has said of an id."""


class Lifecycle:
    """One session's state during one request, and the steps that change it."""

    # What most requests leave as it is stands here, once for all: every request pays for what `__init__` does, also
    # those that never touch their session.
    _claims: list[Claim]  # what the cookies held; once a session is loaded, those that led to no session or to others
    _draft_or_none: Draft | None = None  # the data, once loaded
    _id: str | None = None
    _known: str | None = None  # the id that the client holds, if it is good
    _version: object = ABSENT  # of the record in the store; ABSENT for a new session
    _expires_at: float | None = None
    _created = 0.0
    _renewed = 0.0
    _notes: Raw | None = None  # these two, encoded, as long as they are as loaded
    _retired: str | None = None  # the id that a rotation leaves behind, until it is saved
    _followed = False  # reached by an old id, whose holder must not learn the new one
    _outdated = False  # the cookie was signed with an old secret
    _resend = False  # the cookie's lifetime is to be renewed
    _cleared = False  # the client's cookie is to be deleted
    _sealed = False  # the response has begun; no cookie can be sent any more
    _used = False  # the application has looked at it
    _failed = False  # the store did not answer when it was to be loaded
    _refused = False  # the store did not answer, and the application was told so by an exception
    _turned_away = False  # the store did not answer, and the client was told so in place of the application's answer

    def __init__(self, policy: Policy, cookies: CookieHeaders, *, asynchronous: bool = False) -> None:
        self._policy = policy
        self._cookies: CookieHeaders | None = cookies  # until they are looked at
        self._asynchronous = asynchronous

    # --- loading ---

    def _loaded(self) -> Draft:
        """The draft; loads it first where that takes no waiting."""
        self._used = True
        draft = self._draft_or_none
        if draft is not None:
            return draft
        if self._asynchronous and not self._failed and not self._policy.capabilities.quick_reads and on_event_loop():
            raise SessionError(
                "this session is not loaded: use `session = await use_session(request)` before touching it"
            )
        return self._load_at_once()

    def _current_id(self) -> str:
        self._loaded()
        if self._id is None:
            self._id = self._policy.generate_id()
        return self._id

    def _find(self) -> list[Claim]:
        """The ids of all cookies with our name that verify; a domain cookie may hide behind a host cookie."""
        if self._cookies is not None:
            policy = self._policy
            values, self._claims = policy.cookie.find(self._cookies), []
            self._cookies = None
            for value in values:
                claim = policy.signer.verify(value)
                if claim is not None:
                    self._claims.append(claim)
            if values and not self._claims:
                policy.emit("bad_signature", None)
        return self._claims

    def _load_at_once(self) -> Draft:
        """`_load` by blocking calls. The usual cases, no cookie or one with a record, take none of its steps."""
        policy = self._policy
        claims = self._find()
        first: list[Answer] = []
        if not self._failed:
            if not claims:
                return self._begin()
            claim = claims[0]
            try:
                record = policy.store.read(claim[0], renew=policy.renews)
                if record is not None and self._accept(claim[0], record) is None:
                    return self._open(claim, record)
                first.append(record)
            except (CorruptEntry, DriverUnavailable) as error:
                first.append(error)
        return run(self._load(policy.store.blocking, first))

    async def _load(self, io: Any, first: list[Answer] | None = None) -> Draft:
        """Load the session, unless it is loaded. first: what the store has said already of the first cookie."""
        draft = self._draft_or_none
        if draft is not None:
            return draft
        if self._failed:
            raise self._unanswered()
        policy = self._policy
        for claim in self._find():
            try:
                record = await self._fetch(io, claim[0], first, loading=True)
            except DriverUnavailable:
                self._failed = True
                policy.emit("store_error", claim[0])
                if not policy.anonymous:
                    self._refused = True
                    raise
                return self._begin()
            if record is not None:
                return self._open(claim, record)
            self._followed = False
        return self._begin()

    def _open(self, claim: Claim, record: Record) -> Draft:
        """Be the session of a record that has been accepted."""
        policy = self._policy
        self._claims.remove(claim)
        try:
            draft = self._draft_or_none = policy.draft(record.fields)
        except CorruptEntry:
            # Left alone: an application that was rolled back, or another one, may be able to read it.
            policy.emit("misfit", self._id)
            return self._begin()
        if not self._followed:
            self._known, self._outdated = claim
        if policy.on_event is not None:
            policy.emit("loaded", self._id)
        return draft

    async def _fetch(
        self, io: Any, sid: str, first: list[Answer] | None = None, *, loading: bool = False
    ) -> Record | None:
        """Read the record of `sid`, or the one it was moved to; None if it is gone, over, or cannot be decoded.

        loading: it counts as use, and that there is none is news.
        """
        policy = self._policy
        store = policy.store
        for _ in range(MAX_POINTERS):
            try:
                if first:
                    record = _given(first.pop())
                else:
                    entry: Any = await store.entry_by(io, sid, renew=loading and policy.renews)
                    record = store.record(entry)
                if record is None:
                    break
                notes = self._accept(sid, record)
                if notes is None:
                    return record
                if notes.moved is None:
                    policy.emit("expired", sid)
                    await store.destroy_by(io, sid)
                    return None
                if notes.until <= policy.clock():
                    break
                sid = unseal(notes.moved, sid)
                self._followed = True
            except CorruptEntry:
                policy.emit("undecodable", sid)
                await store.destroy_by(io, sid)
                return None
        if loading:
            policy.emit("unknown_id", sid)
        return None

    def _accept(self, sid: str, record: Record) -> Notes | None:
        """Take over what a record says of itself. If it was moved or is over, nothing: its notes are returned then."""
        policy = self._policy
        raw = record.fields.get(RESERVED)
        notes = self._notes_in(raw)
        limit = policy.max_lifetime
        if notes.moved is not None or (limit is not None and notes.created + limit <= policy.clock()):
            return notes
        if raw is not None:
            del record.fields[RESERVED]
        self._id, self._version, self._expires_at = sid, record.version, record.expires_at
        self._created, self._renewed, self._notes = notes.created, notes.renewed, raw
        return None

    def _notes_in(self, raw: Raw | None) -> Notes:
        # A record that another program wrote has no notes; its life begins when we first see it.
        return Notes(self._policy.clock()) if raw is None else self._policy.codec.load(raw, Notes)

    def _note(self, created: float, renewed: float) -> None:
        self._created, self._renewed = created, renewed
        self._notes = None

    def _begin(self) -> Draft:
        """Become a new session, with what `generate` puts into one."""
        policy = self._policy
        draft = self._draft_or_none = policy.draft(policy.first())
        self._id = self._retired = self._expires_at = None
        self._version = ABSENT
        now = policy.clock()
        self._note(now, now)
        self._followed = self._outdated = self._resend = False
        return draft

    async def _reload(self, io: Any) -> None:
        self._failed = self._refused = False
        if self._draft_or_none is None or self._version is ABSENT:
            self._draft_or_none = None
            await self._load(io)
            return
        record = await self._fetch(io, self._retired or self._current_id())
        self._retired = None
        if record is None:
            self._block()
        else:
            self._draft_or_none = self._policy.draft(record.fields)

    async def _still_valid(self, io: Any) -> bool:
        await self._load(io)
        if self._version is ABSENT:
            return False
        policy = self._policy
        try:
            entry: Any = await policy.store.entry_by(io, self._retired or self._current_id())
            record = policy.store.record(entry)
            notes = None if record is None else self._notes_in(record.fields.get(RESERVED))
        except CorruptEntry:
            return False
        if notes is None:
            return False
        if notes.moved is not None:
            return notes.until > policy.clock()
        return policy.max_lifetime is None or policy.clock() < notes.created + policy.max_lifetime

    # --- saving ---

    def _end_at_once(self, write: Write) -> None:
        """`_end` by blocking calls. The usual case, a write that nobody is in the way of, takes none of its steps."""
        policy = self._policy
        draft, new = self._loaded(), self._version is ABSENT
        # A rotation takes two writes, without swaps the record is read again first, and before the first write of all
        # nobody knows what the backend can do.
        if self._retired is None and policy.prepared and (new or policy.capabilities.swap):
            sid, expect = self._place(draft)
            fields, ttl = self._content(draft)
            if ttl is None or ttl > 0:
                try:
                    self._written(policy.store.put(sid, fields, expect=expect, ttl=ttl), ttl)
                    draft.saved()
                    policy.emit("created" if new else "saved", sid)
                    return
                except (Conflict, DriverUnavailable) as error:
                    write = partial(self._create if new else self._write, first=[error])
        run(self._end(policy.store.blocking, write))

    async def _end(self, io: Any, write: Write) -> None:
        """Take a step for the manager. In an outage the changes are dropped if the policy says so."""
        try:
            if not self._policy.prepared:
                await self._policy.prepare(io)
            await write(io)
        except DriverUnavailable:
            self._policy.emit("store_error", self._id)
            if not self._policy.anonymous:
                raise
            self._failed = True

    async def _save(self, io: Any) -> None:
        if self._failed:
            raise self._unanswered()
        write = self._due(ending=False)
        if write is not None:
            try:
                if not self._policy.prepared:
                    await self._policy.prepare(io)
                await write(io)
            except DriverUnavailable:
                self._refused = True
                raise

    def _due(self, *, ending: bool) -> Write | None:
        """What has to be written, if anything, as the step that does it. `ending`: also what is due for renewal."""
        draft = self._draft_or_none
        if draft is None or self._failed:
            return None
        draft.settle()
        changed = draft.changed
        if self._version is ABSENT:
            if changed or (ending and self._policy.save_uninitialized):
                self._need_cookie("a new session cannot be given to the client")
                return self._create
        elif self._retired is not None:
            self._need_cookie("a new id cannot be given to the client")
            return self._rotate
        elif changed or (ending and self._renewal_is_due(draft)):
            return self._write
        return None

    def _renewal_is_due(self, draft: Draft) -> bool:
        """Whether the cookie was last sent so long ago that it is time to send it, and to store that it was."""
        if self._sealed or self._followed:
            return False
        policy = self._policy
        slack = policy.steady_slack
        if slack is None:
            slack = policy.slack(policy.ttl_of(draft))
        # Not "at least so long ago": a clock that was set back must not keep the cookie from being renewed.
        return not 0 <= policy.clock() - self._renewed < slack

    def _place(self, draft: Draft) -> tuple[str, object]:
        """The id under which the session is to be written, and what is expected to stand there; notes the time."""
        policy = self._policy
        if self._id is None:
            self._id = policy.generate_id()
        if self._version is ABSENT:
            now = policy.clock()
            self._note(now, now)
            return self._id, ABSENT if policy.capabilities.create else ANY
        if self._renewal_is_due(draft):
            self._note(self._created, policy.clock())
            self._resend = True
        return self._id, self._version if policy.capabilities.swap else ANY

    def _content(self, draft: Draft) -> tuple[dict[str, Raw], float | None]:
        """The record as it is to be written, and the seconds that it lives."""
        policy = self._policy
        if self._notes is None:
            self._notes = policy.codec.encode(Notes(self._created, self._renewed))
        return {RESERVED: self._notes, **draft.fields}, policy.lifetime(draft, self._created, stored=True)

    def _written(self, version: object, ttl: float | None) -> None:
        self._version = version
        self._expires_at = None if ttl is None else self._policy.clock() + ttl

    async def _put(self, io: Any, sid: str, draft: Draft, expect: object, first: list[Exception] | None = None) -> bool:
        """Write the record under `sid`. False if its ttl says that it is over; then it was destroyed instead.

        first: what the store has said already of this attempt.
        """
        policy = self._policy
        fields, ttl = self._content(draft)
        if ttl is not None and ttl <= 0:
            for gone in filter(None, {sid, self._retired}):
                await policy.store.destroy_by(io, gone)
            policy.emit("expired", sid)
            self._clear()
            return False
        if first:
            raise first.pop()
        self._written(await policy.store.set_by(io, sid, fields, expect=expect, ttl=ttl), ttl)
        return True

    async def _create(self, io: Any, first: list[Exception] | None = None) -> None:
        draft = self._loaded()
        for _ in range(3):
            sid, expect = self._place(draft)
            try:
                if await self._put(io, sid, draft, expect, first):
                    draft.saved()
                    self._policy.emit("created", sid)
                return
            except Conflict:
                self._id = None  # taken: an id is never shared, another is made
        raise SessionError("generate_id returned ids that exist already, three times in a row; it must be random")

    async def _write(self, io: Any, first: list[Exception] | None = None) -> None:
        """Write over the version that was read; if others were faster, replay the changes on what they wrote."""
        policy, draft = self._policy, self._loaded()
        if not policy.capabilities.swap and not await self._catch_up(io, self._current_id()):
            return
        for _ in range(MAX_ATTEMPTS):
            sid, expect = self._place(draft)  # may be another id each time: who catches up may follow a rotation
            try:
                if await self._put(io, sid, draft, expect, first):
                    draft.saved()
                    policy.emit("saved", sid)
                return
            except Conflict:
                self._resend = False  # until it is due again, by what the others wrote
                if not draft.changed:
                    return  # there was only the renewal to write, and whoever was faster has seen to it
                if not await self._catch_up(io, sid):
                    return
                policy.emit("merged", self._id)
        raise self._overtaken()

    async def _catch_up(self, io: Any, sid: str) -> bool:
        """Replay the changes on the newest record. False if that is gone: delete wins, quietly."""
        record = await self._fetch(io, sid)
        if record is None:
            self._block()
            return False
        draft, newest = self._loaded(), self._policy.draft(record.fields)
        draft.rebase(newest.fields)
        draft.stored = newest.stored
        return True

    async def _rotate(self, io: Any) -> None:
        """Write the record under a new id, then retire the old one."""
        policy, old, new = self._policy, str(self._retired), self._current_id()
        if (self._followed or not policy.capabilities.swap) and not await self._catch_up(io, old):
            return
        old_version = self._version
        self._id = new
        self._note(self._created, policy.clock())
        if not await self._put(io, new, self._loaded(), ABSENT if policy.capabilities.create else ANY):
            return
        # Who came by an old id leaves the record that it led to alone: another request has just made that one.
        if self._followed or await self._retire(io, old, new, old_version):
            self._loaded().saved()
            self._retired = None
            self._followed = False
            policy.emit("rotated", new)

    async def _retire(self, io: Any, old: str, new: str, version: object) -> bool:
        """Let the old id lead to the new one for a few seconds. False if the session was destroyed meanwhile."""
        for _ in range(MAX_ATTEMPTS):
            try:
                await self._point(io, old, new, version if self._policy.capabilities.swap else ANY)
                return True
            except Conflict:
                new_version = self._version
                if not await self._catch_up(io, old):
                    await self._policy.store.destroy_by(io, new)
                    return False
                self._policy.emit("merged", old)
                self._id, version = new, self._version
                if not await self._put(io, new, self._loaded(), new_version):
                    return False
                if self._followed:  # another request has rotated it too: both new ids are good
                    return True
        raise self._overtaken()

    async def _point(self, io: Any, old: str, new: str, expect: object) -> None:
        policy = self._policy
        if policy.rotation_grace <= 0:
            if not await policy.store.destroy_by(io, old, expect=expect):
                raise Conflict("the session was destroyed")
            return
        notes = Notes(self._created, moved=seal(new, old), until=policy.clock() + policy.rotation_grace)
        pointer = {RESERVED: policy.codec.encode(notes)}
        await policy.store.set_by(io, old, pointer, expect=expect, ttl=policy.rotation_grace)

    def _regenerate(self, clear: bool) -> None:
        draft = self._loaded()
        if clear:
            draft.replace({})
        if self._version is not ABSENT and self._retired is None:
            self._need_cookie("a new id cannot be given to the client")
            self._retired = self._id
        if self._retired is None or self._id == self._retired:
            self._id = self._policy.generate_id()

    async def _destroy(self, io: Any) -> None:
        if self._draft_or_none is None or self._failed:
            sids = []
        else:
            sids = [sid for sid in (self._retired or self._id,) if sid is not None and self._version is not ABSENT]
        # A browser may hold two good cookies, of two paths or domains: a logout is one from both.
        sids += [sid for sid, _ in self._find()]
        self._used = True
        for sid in sids:
            try:
                await self._policy.store.destroy_by(io, sid)
            except DriverUnavailable:
                self._refused = True
                raise
            self._failed = False
            self._policy.emit("destroyed", sid)
        self._claims = []
        if sids:
            self._clear()
        else:
            self._begin()

    def _block(self) -> None:
        """Another request destroyed the session while this one ran: it stays destroyed."""
        self._policy.emit("revival_blocked", self._retired or self._id)
        self._clear()

    def _clear(self) -> None:
        self._begin()
        self._known = None
        self._cleared = True

    def _unanswered(self) -> DriverUnavailable:
        return DriverUnavailable("the store did not answer when the session was loaded; `reload` tries again")

    def _overtaken(self) -> Conflict:
        return Conflict(f"others changed the session {MAX_ATTEMPTS} times in a row; the changes were not saved")

    def _need_cookie(self, what: str) -> None:
        if self._sealed:
            raise SessionError(f"{what}: the response has begun, and no cookie can be sent any more; do it earlier")

    # --- for the manager ---

    def _drop(self) -> None:
        """Forget what was changed and not saved."""
        if self._draft_or_none is not None:
            self._draft_or_none.revert()
        if self._retired is not None:
            self._id, self._retired = self._retired, None

    def _wants_cookie(self) -> bool:
        """Whether the client is to be sent the id: it is new to the client, or its cookie is to be renewed."""
        if self._version is ABSENT or self._followed or self._failed:
            return False
        return self._id != self._known or self._outdated or self._resend

    def _persistent(self) -> bool | None:
        """Whether this visitor's cookie outlives the browser's session; None: as the cookie's options say."""
        return None

    def _cookie_lifetime(self) -> float | None:
        return self._policy.lifetime(self._loaded(), self._created, stored=False)


def _given(answer: Answer) -> Record | None:
    if isinstance(answer, Exception):
        raise answer
    return answer


def on_event_loop() -> bool:
    """Whether the calling thread is running an event loop, which a blocking call would hold up."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


def seal(new: str, old: str) -> str:
    """Hide the new id in the record of the old one: only who holds the old id can read it, the store itself cannot."""
    text = new.encode()
    return urlsafe_b64encode(_xor(text, old)).decode()


def unseal(sealed: str, old: str) -> str:
    """Return the id that `seal` hid; `CorruptEntry` if there is none."""
    try:
        return _xor(urlsafe_b64decode(sealed), old).decode()
    except ValueError:
        raise CorruptEntry("the pointer of a rotated session cannot be read") from None


def _xor(text: bytes, key: str) -> bytes:
    # The key is a random id that is used once, so that this is a one-time pad.
    pad = hashlib.shake_256(b"session_kit.rotation" + key.encode()).digest(len(text))
    return bytes(a ^ b for a, b in zip(text, pad, strict=True))
