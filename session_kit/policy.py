"""The rules that the sessions of one application share, the events they report, and the notes in their records."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Literal, NamedTuple

from msgspec import Raw

from session_kit.codec import Codec
from session_kit.cookie import Cookie, Signer
from session_kit.draft import Draft, DraftView, check_name
from session_kit.drivers import ABSENT, ANY, Capabilities
from session_kit.errors import SessionError
from session_kit.journal import Journal
from session_kit.owners import Owners
from session_kit.plain_store import PlainStore
from session_kit.record import Notes, hash_id, join_id, random_id, random_name, random_token
from session_kit.schema import Schema, TypedDraft
from session_kit.store import UnstorageSessionStore
from session_kit.transport import TokenHeader

log = logging.getLogger("session_kit")

EventName = Literal[
    "created",
    "loaded",
    "saved",
    "merged",
    "rotated",
    "reuse",
    "displaced",
    "destroyed",
    "expired",
    "revival_blocked",
    "unknown_id",
    "bad_signature",
    "undecodable",
    "other_codec",
    "misfit",
    "store_error",
]
OnError = Literal["raise", "anonymous"]
OnReuse = Literal["ignore", "destroy"]
WhenFull = Literal["end_oldest", "refuse"]


class Event(NamedTuple):
    """Something that happened to a session.

    name: one of `EventName`.
    session: the SHA-256 of the name in the session's id, which rotations leave as it is; None if there is none.
    """

    name: EventName
    session: str | None


USER_KEYS = frozenset(
    {
        "user",
        "user_id",
        "userid",
        "uid",
        "username",
        "account_id",
        "_user_id",  # Flask-Login, Flask-Security
        "_auth_user_id",  # Django
        "auth.userid",  # Pyramid
        "identity.id",  # Flask-Principal
        "AIOHTTP_SECURITY",  # aiohttp-security
    }
)
"""The keys under which applications and their packages usually keep who is logged in."""


class Policy:
    """The rules that all sessions of one manager share. `SessionManager` documents them."""

    def __init__(
        self,
        store: UnstorageSessionStore | PlainStore,
        *,
        cookie: Cookie,
        signer: Signer,
        header: TokenHeader | None,
        clock: Callable[[], float],
        generate: Callable[[], Any] | None,
        generate_id: Callable[[], str],
        save_uninitialized: bool,
        touch_after: float,
        max_lifetime: float | None,
        rotation_grace: float,
        rotate_every: float | None,
        on_reuse: OnReuse,
        remember: float | None,
        rotate_on: frozenset[str],
        on_error: OnError,
        on_event: Callable[[Event], None] | None,
        schema: Schema | None,
        max_sessions: int | None,
        when_full: WhenFull,
    ) -> None:
        self.touch_after = touch_after
        self.store = store
        self.codec: Codec = store.codec
        self._learn()
        # The driver slides the expiry by the store's ttl alone, which a session that is remembered outlives.
        self.renews = store.renews and remember is None
        self.prepared = False
        self.cookie = cookie
        self.signer = signer
        self.header = header
        self.clock = clock
        self.generate = generate
        self.make_id: Callable[[], str] = (
            random_id if generate_id is random_name else lambda: join_id(generate_id(), random_token())
        )
        """Makes a new id of two halves."""
        self.save_uninitialized = save_uninitialized
        self.max_lifetime = max_lifetime
        self.rotation_grace = rotation_grace
        self.rotate_every = rotate_every
        self.ends_on_reuse = on_reuse == "destroy"
        self.remember = remember
        self.rotate_on = rotate_on
        self.anonymous = on_error == "anonymous"
        self.journal = Journal(clock)
        self._listeners = [] if on_event is None else [on_event]
        self.on_event: object = None
        """What listens to the events of every request; None if nothing does, and they need not be made."""
        self._look_round()
        self.schema = schema
        self.owners = (
            Owners(store, max_sessions, refuse=when_full == "refuse")
            if isinstance(store, UnstorageSessionStore)
            else None
        )
        self.draft: Callable[[dict[str, Raw]], Draft] = (
            partial(Draft, self.codec) if schema is None else partial(_typed_draft, schema)
        )
        """Makes of the fields of a record what is edited; `CorruptEntry` if it does not fit the type of the data."""
        self._work_out()

    def _work_out(self) -> None:
        """What a ttl that depends neither on the data nor on the notes comes to, once for all sessions."""
        ttl = self.store.ttl
        self.steady_interval = None if callable(ttl) or self.remember is not None else self.renewal_interval(ttl)
        steady: dict[bool, float | None] | None = None
        if not callable(ttl) and self.max_lifetime is None and self.remember is None:
            steady = {stored: self._usual_lifetime(ttl, stored) for stored in (True, False)}
        self._steady = steady  # at once: requests in other threads go by it

    def use_ttl(self, ttl: float) -> None:
        """From now on let sessions live for another time: that of a framework whose setting may change."""
        self.store.ttl = ttl
        self._work_out()

    def first(self) -> dict[str, Raw]:
        """The fields of a new session: what `generate` puts into one."""
        if self.generate is None and self.schema is None:
            return {}
        initial = {} if self.generate is None else self.generate()
        if self.schema is not None:
            return self.schema.encode(initial)
        if not isinstance(initial, Mapping):
            raise SessionError(f"generate must return a mapping of the first data, not {type(initial).__name__}")
        return {check_name(key): self.codec.dump(value, check_name(key)) for key, value in initial.items()}

    async def prepare(self, io: Any) -> None:
        """Before the first write, let the driver find out what its backend can do."""
        await self.store.prepare_by(io)
        self._learn()
        self.prepared = True

    def _learn(self) -> None:
        """Take over what the store says that it can do."""
        self.capabilities: Capabilities = self.store.capabilities
        self.swaps = self.capabilities.swap
        self.absent: object = ABSENT if self.capabilities.create else ANY
        """What a write expects that makes a new record."""

    def listen(self, callback: Callable[[Event], None]) -> None:
        """Call this too with each event, beside `on_event`."""
        self._listeners.append(callback)
        self._look_round()

    def emit(self, name: EventName, sid: str | None, reason: Exception | None = None) -> None:
        """Tell the log and the application. A callback that fails must not take the request with it.

        reason: for the log alone.
        """
        event = Event(name, None if sid is None else hash_id(sid))
        self.journal.note(name, event.session, reason)
        for callback in self._listeners:
            try:
                callback(event)
            except Exception:
                log.exception("the on_event callback failed at %r", name)
        self._look_round()

    def refused(self, reason: Exception) -> None:
        """A client gets a 503 because of this: the log is to say so too."""
        self.journal.refused(reason)
        self._look_round()

    def _look_round(self) -> None:
        self.on_event = self._listeners or (self.journal if self.journal.listens else None)

    def renewal_interval(self, ttl: float | None) -> float:
        """The seconds between two renewals. What is stored and sent lives longer by as much: idle means idle."""
        return self.touch_after if ttl is None else min(self.touch_after, ttl / 10)

    def ttl_of(self, draft: Draft, notes: Notes) -> float | None:
        """How long a session with these data and notes lives unused."""
        ttl = self.store.ttl
        usual = self.store.ttl_of(DraftView(draft)) if callable(ttl) else ttl
        over = usual is not None and usual <= 0
        return notes.remember if notes.remember > 0 and not over else usual

    def lifetime(self, draft: Draft, notes: Notes, *, stored: bool) -> float | None:
        """The seconds that the record (`stored`) or its cookie lives from now; None for ever; 0 or less: it is over."""
        if self._steady is not None and notes.remember <= 0:
            return self._steady[stored]
        ttl = self._usual_lifetime(self.ttl_of(draft, notes), stored)
        if self.max_lifetime is not None:
            left = notes.created + self.max_lifetime - self.clock()
            ttl = left if ttl is None else min(ttl, left)
        return ttl

    def _usual_lifetime(self, ttl: float | None, stored: bool) -> float | None:
        if ttl is None or ttl <= 0 or (stored and self.renews):
            return ttl
        return ttl + self.renewal_interval(ttl)


def _typed_draft(schema: Schema, fields: dict[str, Raw]) -> Draft:
    draft = TypedDraft(schema, schema.fit(fields))
    draft.stored = fields  # an upgraded record is a changed one
    return draft
