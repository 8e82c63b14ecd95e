"""The session engine: Django's sessions, under its own middleware and cookie, on any store of ours."""

from __future__ import annotations

import time
from typing import Any

from django.contrib.sessions.backends.base import VALID_KEY_CHARS, CreateError, SessionBase, UpdateError
from django.utils.crypto import get_random_string
from msgspec import Raw

from session_kit.draft import Draft
from session_kit.drivers import ABSENT, ANY, Conflict, CorruptEntry
from session_kit.drivers.twins import run
from session_kit.errors import SessionError
from session_kit.integrations.django.data import Data
from session_kit.integrations.django.settings import store
from session_kit.record import RESERVED, Notes

EXPIRY = "_session_expiry"
"""The key under which Django keeps what `set_expiry` was given."""


class SessionStore(SessionBase):  # type: ignore[misc]  # Django has no types
    """Django's session on any store of ours: `SESSION_ENGINE = "session_kit.integrations.django"`.

    Beyond Django's own: requests that change different keys at the same time keep both, `update` takes a function that
    runs again when another request was faster, and changes inside values are found without `modified = True`.
    Raises `DriverUnavailable` when the store does not answer.
    """

    _data: Data  # once they are loaded
    _version: object = None  # of the record in the store; None if nobody has looked
    _notes: Raw | None = None  # what the record says of itself
    _changed = False  # what `modified` was set to
    _seen = 0  # so many changes had been made by then

    @property
    def _session_cache(self) -> Data:
        return self._data  # or AttributeError, by which Django knows that they are to be loaded

    @_session_cache.setter
    def _session_cache(self, data: Any) -> None:
        if isinstance(data, Data):
            self._data = data
            return
        if not hasattr(self, "_data"):
            self._data = Data({})
        # A new session begins with {}, which is no change; the data of a stored one are replaced, read or not.
        if data or self._data or self.session_key is not None:
            self._data.draft.replace(data)

    @property
    def modified(self) -> bool:
        """Whether something changed, inside values too."""
        if self._changed or not hasattr(self, "_data"):
            return self._changed
        draft = self._data.draft
        draft.settle()
        return len(draft.log) > self._seen

    @modified.setter
    def modified(self, value: bool) -> None:
        self._changed = value
        self._seen = len(self._data.draft.log) if hasattr(self, "_data") else 0

    # --- Django's eight methods and their twins ---

    def exists(self, session_key: str) -> bool:
        return bool(session_key) and store().driver.has(store().key(session_key))

    async def aexists(self, session_key: str) -> bool:
        return bool(session_key) and await store().driver.ahas(store().key(session_key))

    def create(self) -> None:
        run(self._create(store().blocking))

    async def acreate(self) -> None:
        await self._create(store().native)

    def save(self, must_create: bool = False) -> None:
        if self.session_key is None:
            self.create()
        else:
            self._get_session(no_load=must_create)
            run(self._save(store().blocking, must_create))

    async def asave(self, must_create: bool = False) -> None:
        if self.session_key is None:
            await self.acreate()
        else:
            await self._aget_session(no_load=must_create)
            await self._save(store().native, must_create)

    def delete(self, session_key: str | None = None) -> None:
        key = session_key or self.session_key
        if key is not None:
            store().destroy(key)

    async def adelete(self, session_key: str | None = None) -> None:
        key = session_key or self.session_key
        if key is not None:
            await store().adestroy(key)

    def load(self) -> Data:
        return run(self._load(store().blocking))

    async def aload(self) -> Data:
        return await self._load(store().native)

    @classmethod
    def clear_expired(cls) -> None:
        store().driver.prune()

    @classmethod
    async def aclear_expired(cls) -> None:
        await store().driver.aprune()

    # --- written once for both colours ---

    async def _load(self, io: Any) -> Data:
        fields = await self._read(io)
        if fields is None:
            self._session_key = None
        return Data(fields or {})

    async def _read(self, io: Any) -> dict[str, Raw] | None:
        """Read the record and remember its version; None if it is gone, or nobody can read it."""
        try:
            record = store().record(await store().entry_by(io, self.session_key))
        except CorruptEntry:
            await store().destroy_by(io, self.session_key)
            return None
        if record is None:
            return None
        self._version = record.version
        self._notes = record.fields.pop(RESERVED, None)
        return record.fields

    async def _create(self, io: Any) -> None:
        self._get_session(no_load=True)
        for _ in range(3):
            self._session_key = get_random_string(32, VALID_KEY_CHARS)
            try:
                await self._save(io, must_create=True)
            except CreateError:
                continue
            self.modified = True
            return
        raise SessionError("random session keys exist already, three times in a row; is the random source broken?")

    async def _save(self, io: Any, must_create: bool) -> None:
        draft, can = self._data.draft, store().capabilities
        draft.settle()
        if must_create:
            self._notes = None
            expect: object = ABSENT if can.create else ANY
        else:
            if self._version is None or not can.swap:
                await self._catch_up(io)
            expect = self._version if can.swap else ANY
        while True:
            try:
                await self._put(io, draft, expect)
            except Conflict:
                if must_create:
                    raise CreateError from None
                await self._catch_up(io)
                expect = self._version
                continue
            draft.saved()
            self._seen = 0
            return

    async def _put(self, io: Any, draft: Draft, expect: object) -> None:
        expiry = draft[EXPIRY] if EXPIRY in draft.fields else None
        ttl = self.get_expiry_age(expiry=expiry) if expiry else self.get_session_cookie_age()
        if ttl <= 0:
            await store().destroy_by(io, self.session_key)
            return
        if self._notes is None:
            self._notes = store().codec.encode(Notes(time.time()))
        fields = {RESERVED: self._notes, **draft.fields}
        self._version = await store().set_by(io, self.session_key, fields, expect=expect, ttl=ttl)

    async def _catch_up(self, io: Any) -> None:
        """Replay the changes on what another request has stored meanwhile."""
        fields = await self._read(io)
        if fields is None:
            raise UpdateError
        self._data.draft.rebase(fields)
