"""The session of one request: its data, and how it is loaded, saved, rotated and destroyed."""

from __future__ import annotations

import asyncio
import hashlib
import logging
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Callable, Iterator, Mapping, MutableMapping
from typing import TYPE_CHECKING, Any, Generic, Literal, NamedTuple, cast, overload

import msgspec
from msgspec import Raw

from session_kit.codec import Codec
from session_kit.cookie import Claim
from session_kit.draft import RESERVED, Draft, DraftView, Updater, check_name
from session_kit.drivers import ABSENT, ANY, Capabilities, Conflict, CorruptEntry
from session_kit.errors import SessionError
from session_kit.store import Record, hash_id
from session_kit.twins import Blocking, Native, run

if TYPE_CHECKING:
    from typing_extensions import Self, TypeVar

    T = TypeVar("T", default=Mapping[str, Any])
else:
    from typing import TypeVar

    T = TypeVar("T")

log = logging.getLogger("session_kit")

# How often a write that others keep overtaking is tried again. Each conflict means that somebody else got through.
MAX_ATTEMPTS = 100
# A rotation inside a rotation's grace is followed this far.
MAX_POINTERS = 8

EventName = Literal[
    "created",
    "loaded",
    "saved",
    "merged",
    "rotated",
    "destroyed",
    "expired",
    "revival_blocked",
    "unknown_id",
    "bad_signature",
    "undecodable",
]


class Event(NamedTuple):
    """Something that happened to a session.

    name: one of `EventName`.
    session: the SHA-256 of the session's id, or None if there is none. Never the id itself.
    """

    name: EventName
    session: str | None


class Notes(msgspec.Struct, omit_defaults=True):
    """What the library keeps about a session, inside its record, under the key `"$"`.

    created: Unix time at which the session was first stored; it survives rotation.
    renewed: Unix time at which the cookie was last sent.
    moved: in place of data after a rotation: the new id, sealed with the old one.
    until: Unix time until which `moved` is followed.
    """

    created: float
    renewed: float = 0.0
    moved: str | None = None
    until: float = 0.0


class Policy:
    """The rules that all sessions of one manager share. `SessionManager` documents them."""

    def __init__(
        self,
        store: Any,
        *,
        clock: Callable[[], float],
        generate: Callable[[], Mapping[str, Any]] | None,
        generate_id: Callable[[], str],
        save_uninitialized: bool,
        touch_after: float,
        max_lifetime: float | None,
        rotation_grace: float,
        on_event: Callable[[Event], None] | None,
    ) -> None:
        self.store = store
        self.blocking, self.native = Blocking(store), Native(store)
        self.codec: Codec = store.codec
        self.capabilities: Capabilities = store.capabilities
        self.clock = clock
        self.generate = generate
        self.generate_id = generate_id
        self.save_uninitialized = save_uninitialized
        self.touch_after = touch_after
        self.max_lifetime = max_lifetime
        self.rotation_grace = rotation_grace
        self.on_event = on_event

    def emit(self, name: EventName, sid: str | None) -> None:
        """Tell the application. A callback that fails must not take the request with it."""
        if self.on_event is None:
            return
        try:
            self.on_event(Event(name, None if sid is None else hash_id(sid)))
        except Exception:
            log.exception("the on_event callback failed at %r", name)

    def slack(self, ttl: float | None) -> float:
        """The seconds between two renewals; what is stored and sent lives longer by as much, so that idle means idle."""
        return self.touch_after if ttl is None else min(self.touch_after, ttl / 10)

    def lifetime(self, data: Mapping[str, Any], created: float, *, stored: bool) -> float | None:
        """The seconds that the record (`stored`) or its cookie lives from now; None for ever; 0 or less if it is over."""
        ttl: float | None = self.store.ttl_of(data)
        if ttl is not None and ttl > 0 and not (stored and self.store.renews):
            ttl += self.slack(ttl)
        if self.max_lifetime is not None:
            left = created + self.max_lifetime - self.clock()
            ttl = left if ttl is None else min(ttl, left)
        return ttl


class Session(MutableMapping[str, Any], Generic[T]):
    """The session of one visitor during one request. Middleware makes it; `SessionManager.open` does without one.

    It behaves like a dict whose changes are kept as changes: saving writes only what changed, and if another request
    saved first, the changes are replayed on what that request wrote, so that neither loses anything. Nothing is loaded
    before it is asked for, and an empty new session is neither stored nor given a cookie.

    >>> from session_kit import SessionManager
    >>> manager = SessionManager("memory://", secret="N3w-secret-of-at-least-32-characters!")
    >>> session = manager.open()
    >>> session["user"] = "ada"
    >>> session.update(lambda data: {"visits": data.get("visits", 0) + 1})
    <Session new, 2 keys>
    >>> session.save()
    >>> dict(session)
    {'user': 'ada', 'visits': 1}
    """

    __slots__ = (
        "__weakref__",
        "_asynchronous",
        "_cleared",
        "_created",
        "_draft_or_none",
        "_expires_at",
        "_find",
        "_followed",
        "_id",
        "_known",
        "_outdated",
        "_policy",
        "_renewed",
        "_resend",
        "_retired",
        "_sealed",
        "_used",
        "_version",
    )

    def __init__(self, policy: Policy, find: Callable[[], Claim | None], *, asynchronous: bool = False) -> None:
        self._policy = policy
        self._find = find
        self._asynchronous = asynchronous
        self._draft_or_none: Draft | None = None
        self._id: str | None = None
        self._known: str | None = None  # the id that the client holds, if it is good
        self._version: object = ABSENT  # of the record in the store; ABSENT for a new session
        self._expires_at: float | None = None
        self._created = self._renewed = 0.0
        self._retired: str | None = None  # the id that a rotation leaves behind, until it is saved
        self._followed = False  # reached by an old id, whose holder must not learn the new one
        self._outdated = False  # the cookie was signed with an old secret
        self._resend = False  # the cookie's lifetime is to be renewed
        self._cleared = False  # the client's cookie is to be deleted
        self._sealed = False  # the response has begun; no cookie can be sent any more
        self._used = False  # the application has looked at it

    # --- what it is ---

    @property
    def id(self) -> str:
        """The session's id. That of a new session is only made up when somebody asks, and useless until it is saved."""
        self._loaded()
        if self._id is None:
            self._id = self._policy.generate_id()
        return self._id

    @property
    def is_new(self) -> bool:
        """Whether the session is not in the store yet."""
        self._loaded()
        return self._version is ABSENT

    @property
    def data(self) -> T:
        """The data, read-only: change it through the session, with `update`, `set` or like a dict."""
        return cast(T, DraftView(self._loaded()))

    @property
    def created(self) -> float:
        """Unix time in seconds at which the session began; it survives rotation."""
        self._loaded()
        return self._created

    @property
    def expires_in(self) -> float | None:
        """Seconds until the session ends if it is not used again; None if it never does."""
        draft = self._loaded()
        now = self._policy.clock()
        if self._expires_at is None or self.is_new:
            return self._policy.lifetime(DraftView(draft), self._created, stored=True)
        ends = self._expires_at
        if self._policy.max_lifetime is not None:
            ends = min(ends, self._created + self._policy.max_lifetime)
        return max(0.0, ends - now)

    def __repr__(self) -> str:
        draft = self._draft_or_none
        if draft is None:
            return "<Session not loaded>"
        return f"<Session {'new' if self._version is ABSENT else 'stored'}, {len(draft.fields)} keys>"

    # --- changing the data ---

    @overload  # type: ignore[override]  # unlike a dict's it takes an updater too, and returns the session
    def update(self, changes: Mapping[str, Any], /, **values: Any) -> Self: ...
    @overload
    def update(self, changes: Callable[[T], Mapping[str, Any]], /, **values: Any) -> Self: ...
    @overload
    def update(self, **values: Any) -> Self: ...
    def update(self, changes: Any = None, /, **values: Any) -> Self:
        """Merge changes into the data and return the session.

        changes: a mapping, or a function that is given the data (read-only) and returns what to merge. If another
            request saves first, the function runs again on what that request wrote: let it depend on its argument alone.
        values: keys to set.
        Raises `SessionError` for a value that cannot be stored without changing it.
        """
        draft = self._loaded()
        if callable(changes):
            draft.apply(cast(Updater, changes))
        elif changes is not None:
            for key, value in dict(changes).items():
                draft.put(key, value)
        for key, value in values.items():
            draft.put(key, value)
        return self

    def set(self, data: Mapping[str, Any]) -> Self:
        """Replace all data and return the session. `SessionError` for a value that cannot be stored."""
        self._loaded().replace(data)
        return self

    def __getitem__(self, key: str) -> Any:
        return self._loaded()[key]

    def __setitem__(self, key: str, value: Any) -> None:
        self._loaded().put(key, value)

    def __delitem__(self, key: str) -> None:
        self._loaded().drop(key)

    def __contains__(self, key: object) -> bool:
        return key in self._loaded().fields

    def __iter__(self) -> Iterator[str]:
        return iter(list(self._loaded().fields))

    def __len__(self) -> int:
        return len(self._loaded().fields)

    def __ior__(self, other: Mapping[str, Any]) -> Self:
        return self.update(other)

    def clear(self) -> None:
        """Delete all keys. The session stays; `destroy` ends it."""
        self._loaded().replace({})

    # --- I/O, and its async twins ---

    def load(self) -> Self:
        """Load the session now if it is not loaded yet, and return it. One round trip if a cookie verifies, else none."""
        self._check_colour("load")
        self._used = True
        run(self._load(self._policy.blocking))
        return self

    async def aload(self) -> Self:
        """Async twin of `load`."""
        self._used = True
        await self._load(self._policy.native)
        return self

    def save(self) -> None:
        """Write what changed, if anything did. Middleware calls it at the end of a request.

        One conditional write. If another request saved meanwhile: read again, replay the changes, write again. If another
        request destroyed the session, the changes are dropped and it stays destroyed.
        Raises `DriverUnavailable`; `SessionError` for a value that was changed in place into one that cannot be stored.
        """
        self._check_colour("save")
        run(self._save(self._policy.blocking))

    async def asave(self) -> None:
        """Async twin of `save`."""
        await self._save(self._policy.native)

    def reload(self) -> Self:
        """Drop what was not saved, read the session again and return it."""
        self._check_colour("reload")
        run(self._reload(self._policy.blocking))
        return self

    async def areload(self) -> Self:
        """Async twin of `reload`."""
        await self._reload(self._policy.native)
        return self

    def destroy(self) -> None:
        """Delete the session from the store, at once, and its cookie with the response.

        What is set afterwards goes into a new session with a new id, so that a farewell message is possible.
        """
        self._check_colour("destroy")
        run(self._destroy(self._policy.blocking))

    async def adestroy(self) -> None:
        """Async twin of `destroy`."""
        await self._destroy(self._policy.native)

    def regenerate(self, *, clear: bool = False) -> Self:
        """Give the session a new id, and return it. Do so at each change of rights, such as a login (OWASP).

        It happens with the save: the new record is written before the old one goes, so that a request that fails has
        logged nobody out. For `rotation_grace` seconds requests that are on their way with the old id still find the
        session; then the old id is dead.

        clear: drop the data too. Default False.
        """
        self._check_colour("regenerate")
        self._loaded()
        return self._regenerate(clear)

    async def aregenerate(self, *, clear: bool = False) -> Self:
        """Async twin of `regenerate`."""
        await self.aload()
        return self._regenerate(clear)

    # --- loading ---

    def _loaded(self) -> Draft:
        """The draft; loads it first where that takes no waiting."""
        self._used = True
        if self._draft_or_none is None:
            if self._asynchronous and not self._policy.capabilities.quick_reads and _on_event_loop():
                raise SessionError(
                    "this session is not loaded: use `session = await use_session(request)` before touching it"
                )
            run(self._load(self._policy.blocking))
        return cast(Draft, self._draft_or_none)

    async def _load(self, io: Any) -> None:
        if self._draft_or_none is not None:
            return
        claim = self._find()
        record = None if claim is None else await self._fetch(io, claim.id, renew=True)
        if claim is None or record is None:
            self._begin()
            return
        self._adopt(record)
        self._draft_or_none = Draft(self._policy.codec, record.fields)
        if not self._followed:
            self._known = claim.id
            self._outdated = claim.outdated
        self._policy.emit("loaded", self._id)

    async def _fetch(self, io: Any, sid: str, *, renew: bool = False) -> Record | None:
        """Read the record of `sid`, or the one it was moved to; None if it is gone, over, or cannot be decoded."""
        policy = self._policy
        for _ in range(MAX_POINTERS):
            try:
                record: Record | None = await io.read(sid, renew=renew and policy.store.renews)
                notes = None if record is None else self._take_notes(record)
            except CorruptEntry:
                policy.emit("undecodable", sid)
                await io.destroy(sid)
                return None
            if record is None or notes is None:
                policy.emit("unknown_id", sid)
                return None
            if notes.moved is None:
                if policy.max_lifetime is not None and notes.created + policy.max_lifetime <= policy.clock():
                    policy.emit("expired", sid)
                    await io.destroy(sid)
                    return None
                self._id = sid
                self._created, self._renewed = notes.created, notes.renewed
                return record
            if notes.until <= policy.clock():
                break
            sid = unseal(notes.moved, sid)
            self._followed = True
        policy.emit("unknown_id", sid)
        return None

    def _take_notes(self, record: Record) -> Notes:
        raw = record.fields.pop(RESERVED, None)
        # A record that another program wrote has no notes; its life begins when we first see it.
        return Notes(self._policy.clock()) if raw is None else self._policy.codec.load(raw, Notes)

    def _adopt(self, record: Record) -> None:
        self._version, self._expires_at = record.version, record.expires_at

    def _begin(self) -> None:
        """Become a new session, with what `generate` puts into one."""
        policy = self._policy
        initial = policy.generate() if policy.generate is not None else {}
        fields = {key: policy.codec.dump(value, check_name(key)) for key, value in initial.items()}
        self._draft_or_none = Draft(policy.codec, fields)
        self._id = self._retired = None
        self._version = ABSENT
        self._expires_at = None
        self._created = self._renewed = policy.clock()
        self._followed = self._outdated = self._resend = False

    async def _reload(self, io: Any) -> None:
        if self._draft_or_none is None or self._version is ABSENT:
            self._draft_or_none = None
            await self._load(io)
            return
        record = await self._fetch(io, self._retired or self.id)
        self._retired = None
        if record is None:
            self._block()
        else:
            self._adopt(record)
            self._draft_or_none = Draft(self._policy.codec, record.fields)

    # --- saving ---

    async def _save(self, io: Any, *, ending: bool = False) -> None:
        """Write what is to be written. `ending`: also renew what is due."""
        draft = self._draft_or_none
        if draft is None:
            return
        draft.settle()
        if self._version is ABSENT:
            if draft.changed or (ending and self._policy.save_uninitialized):
                self._need_cookie("a new session cannot be given to the client")
                await self._create(io)
        elif self._retired is not None:
            self._need_cookie("a new id cannot be given to the client")
            await self._rotate(io, self._retired)
        elif draft.changed:
            await self._write(io)
        elif ending and self._renewal_is_due():
            await self._write(io)

    def _renewal_is_due(self) -> bool:
        """Whether the cookie was last sent so long ago that it is time to send it, and to store that it was."""
        if self._sealed or self._followed:
            return False
        ttl = self._policy.store.ttl_of(self.data)
        # Not "at least so long ago": a clock that was set back must not keep the cookie from being renewed.
        return not 0 <= self._policy.clock() - self._renewed < self._policy.slack(ttl)

    def _payload(self) -> dict[str, Raw]:
        draft = self._loaded()
        notes = Notes(round(self._created, 3), round(self._renewed, 3))
        return {RESERVED: self._policy.codec.dump(msgspec.to_builtins(notes), RESERVED), **draft.fields}

    async def _put(self, io: Any, sid: str, expect: object) -> bool:
        """Write the record under `sid`. False if its ttl says that it is over; then it was destroyed instead."""
        policy, draft = self._policy, self._loaded()
        ttl = policy.lifetime(DraftView(draft), self._created, stored=True)
        if ttl is not None and ttl <= 0:
            await io.destroy(sid, expect=ANY)
            policy.emit("expired", sid)
            self._clear()
            return False
        self._version = await io.set(sid, self._payload(), expect=expect, ttl=ttl)
        self._expires_at = None if ttl is None else policy.clock() + ttl
        return True

    async def _create(self, io: Any) -> None:
        policy = self._policy
        expect = ABSENT if policy.capabilities.create else ANY
        self._created = self._renewed = policy.clock()
        for _ in range(3):
            try:
                if await self._put(io, self.id, expect):
                    self._loaded().saved()
                    policy.emit("created", self._id)
                return
            except Conflict:
                self._id = None  # taken: an id is never shared, another is made
        raise SessionError("generate_id returned ids that exist already, three times in a row; it must be random")

    async def _write(self, io: Any) -> None:
        """Write over the version that was read; if others were faster, replay the changes on what they wrote."""
        policy, draft = self._policy, self._loaded()
        changed, before = draft.changed, self._renewed
        swap = policy.capabilities.swap
        if not swap and not await self._catch_up(io, self.id):
            return
        if self._renewal_is_due():
            self._renewed = policy.clock()
        for _ in range(MAX_ATTEMPTS):
            try:
                if await self._put(io, self.id, self._version if swap else ANY):
                    draft.saved()
                    self._resend = self._resend or self._renewed != before
                    policy.emit("saved", self._id)
                return
            except Conflict:
                if not changed:
                    return  # there was only the renewal to write, and whoever was faster has seen to it
                if not await self._catch_up(io, self.id):
                    return
                policy.emit("merged", self._id)
        raise self._overtaken()

    async def _catch_up(self, io: Any, sid: str) -> bool:
        """Replay the changes on the newest record. False if that is gone: delete wins, quietly."""
        record = await self._fetch(io, sid)
        if record is None:
            self._block()
            return False
        self._adopt(record)
        self._loaded().rebase(record.fields)
        return True

    async def _rotate(self, io: Any, old: str) -> None:
        """Write the record under a new id, then retire the old one."""
        policy, draft, new = self._policy, self._loaded(), self.id
        swap, old_version = policy.capabilities.swap, self._version
        if not swap and not await self._catch_up(io, old):
            return
        self._id, self._renewed = new, policy.clock()
        done = await self._put(io, new, ABSENT if policy.capabilities.create else ANY)
        # Who came by an old id leaves the record that it led to alone: another request has just made that one.
        if not self._followed:
            for _ in range(MAX_ATTEMPTS):
                try:
                    await self._retire(io, old, new if done else None, old_version if swap else ANY)
                    break
                except Conflict:
                    new_version = self._version
                    if not await self._catch_up(io, old):
                        await io.destroy(new)
                        return
                    policy.emit("merged", old)
                    self._id, old_version = new, self._version
                    done = await self._put(io, new, new_version)
                    if self._followed:  # another request has rotated it too: both new ids are good
                        break
            else:
                raise self._overtaken()
        if done:
            draft.saved()
            self._retired = None
            self._followed = False
            policy.emit("rotated", new)

    async def _retire(self, io: Any, old: str, new: str | None, expect: object) -> None:
        """Turn the record of the old id into a pointer that lives for a few seconds; without a new id, delete it."""
        policy = self._policy
        if new is None or policy.rotation_grace <= 0:
            await io.destroy(old, expect=expect)
            return
        notes = Notes(self._created, moved=seal(new, old), until=policy.clock() + policy.rotation_grace)
        pointer = {RESERVED: policy.codec.dump(msgspec.to_builtins(notes), RESERVED)}
        await io.set(old, pointer, expect=expect, ttl=policy.rotation_grace)

    def _regenerate(self, clear: bool) -> Self:
        draft = self._loaded()
        if clear:
            draft.replace({})
        if self._version is not ABSENT and self._retired is None:
            self._need_cookie("a new id cannot be given to the client")
            self._retired = self._id
        if self._retired is None or self._id == self._retired:
            self._id = self._policy.generate_id()
        return self

    async def _destroy(self, io: Any) -> None:
        if self._draft_or_none is None:
            claim = self._find()
            sids = [] if claim is None else [claim.id]
        else:
            sids = [sid for sid in (self._retired or self._id,) if sid is not None and self._version is not ABSENT]
        self._used = True
        for sid in sids:
            await io.destroy(sid)
            self._policy.emit("destroyed", sid)
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

    def _overtaken(self) -> Conflict:
        return Conflict(f"others changed the session {MAX_ATTEMPTS} times in a row; the changes were not saved")

    def _need_cookie(self, what: str) -> None:
        if self._sealed:
            raise SessionError(f"{what}: the response has begun, and no cookie can be sent any more; do it earlier")

    # --- for the manager ---

    def _wants_cookie(self) -> bool:
        """Whether the client is to be sent the id: it is new to the client, or its cookie is to be renewed."""
        if self._version is ABSENT or self._followed:
            return False
        return self._id != self._known or self._outdated or self._resend

    def _cookie_lifetime(self) -> float | None:
        return self._policy.lifetime(DraftView(self._loaded()), self._created, stored=False)

    # --- guards ---

    def _check_colour(self, name: str) -> None:
        if self._asynchronous and _on_event_loop():
            raise SessionError(f"this session belongs to an async request: use `await session.a{name}()`")


def _on_event_loop() -> bool:
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
