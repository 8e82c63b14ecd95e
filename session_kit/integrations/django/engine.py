"""The session engine: Django's `SessionStore` over our `Session`, under either middleware."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from django.contrib.sessions.backends.base import CreateError, UpdateError

from session_kit.drivers.support.twins import run
from session_kit.errors import CorruptEntry
from session_kit.integrations.django.session import DjangoSession, open_session, read_key
from session_kit.integrations.django.settings import store
from session_kit.integrations.django.state import SessionState
from session_kit.owners import UserId
from session_kit.state import AHEAD


class SessionStore(SessionState):
    """Django's session on any store of ours: `SESSION_ENGINE = "session_kit.integrations.django"`.

    session_key: an id (`name~token`), or the signed cookie in which any framework of ours keeps one.

    The session itself is in `.session`. Beyond Django's own: requests that change different keys at the same time keep
    both, `update` takes a function that runs again when another request was faster, and changes inside values are found
    without `modified = True`. `cycle_key` takes effect with the save, in the same write.
    Raises `DriverUnavailable` when the store does not answer.
    """

    # --- data ---

    def update(self, dict_: Any) -> None:
        self._update(self._session, dict_)

    async def aupdate(self, dict_: Any) -> None:
        self._update(await self._aget_session(), dict_)

    def _update(self, session: DjangoSession, changes: Any) -> None:
        session.update(changes if callable(changes) or isinstance(changes, Mapping) else dict(changes))
        self.modified = True

    def setdefault(self, key: str, value: Any) -> Any:
        return self._session.setdefault(key, value)

    async def asetdefault(self, key: str, value: Any) -> Any:
        return (await self._aget_session()).setdefault(key, value)

    def clear(self) -> None:
        """Drop the data. The key stays, as Django has it; a logout is `flush`."""
        lifecycle = self.session.lifecycle
        self._clears = True  # Django's `clear` does no I/O and has no twin: on an event loop it waits for the next load
        if lifecycle.draft is not None or not self.would_block(loading=True):
            self._get_session()
        self.accessed = self.modified = True

    # --- loading ---

    def load(self) -> dict[str, Any]:
        """The data as they are in the store."""
        if self.session.lifecycle.draft is None:
            return dict(self._get_session())
        sid = self._stored_id()
        return {} if sid is None else store().get(sid) or {}

    async def aload(self) -> dict[str, Any]:
        if self.session.lifecycle.draft is None:
            return dict(await self._aget_session())
        sid = self._stored_id()
        return {} if sid is None else await store().aget(sid) or {}

    def _stored_id(self) -> str | None:
        stored = self.session.lifecycle.stored
        return None if stored is None else stored.id

    def exists(self, session_key: str | None) -> bool:
        sid = self._live(session_key)
        try:
            return sid is not None and store().get(sid) is not None
        except CorruptEntry:
            return False

    async def aexists(self, session_key: str | None) -> bool:
        sid = self._live(session_key)
        try:
            return sid is not None and await store().aget(sid) is not None
        except CorruptEntry:
            return False

    def _live(self, key: str | None) -> str | None:
        sid, lifecycle = read_key(key), self.session.lifecycle
        # `cycle_key` was called: the old id ends with the save.
        return None if lifecycle.next_id is not None and sid == lifecycle.id else sid

    # --- saving ---

    def save(self, must_create: bool = False) -> None:
        """Write the session, changed or not. `UpdateError` if another request has ended it, or changed its id."""
        self.refuse_to_block()
        self._get_session()
        lifecycle = self.session.lifecycle
        if self._is_writable(must_create):
            run(lifecycle.save(lifecycle.policy.store.blocking))
        self._written()

    async def asave(self, must_create: bool = False) -> None:
        await self._aget_session()
        lifecycle = self.session.lifecycle
        if lifecycle.due(ending=False):
            self._is_writable(must_create)
            await lifecycle.save_in_turn(ending=False)
        elif self._is_writable(must_create):
            await lifecycle.in_turn(lifecycle.save)
        self._written()

    def _is_writable(self, must_create: bool) -> bool:
        lifecycle = self.session.lifecycle
        if lifecycle.unanswered:
            raise lifecycle.no_answer()
        if must_create and lifecycle.stored is not None:
            raise CreateError
        if lifecycle.due(ending=False) or lifecycle.stored is not None:
            return True
        return lifecycle.displaced is None and lifecycle.phase is AHEAD

    def _written(self) -> None:
        lifecycle = self.session.lifecycle
        self._saved, self._seen = True, 0
        stored = lifecycle.stored
        lost = lifecycle.displaced is not None if stored is None else stored.id != lifecycle.id
        if lost and not self.quiet:
            raise UpdateError

    def create(self) -> None:
        """Begin another session, with a new key and the data that were loaded, and store it."""
        self._anew()
        self.save(must_create=True)
        self.modified = True

    async def acreate(self) -> None:
        self._anew()
        await self.asave(must_create=True)
        self.modified = True

    def _anew(self) -> None:
        old, self.session = self.session, open_session()
        self.session.loaded()
        if old.lifecycle.draft is not None:
            self.session.set(dict(old))

    def cycle_key(self) -> None:
        """Give the session a new key; it keeps its data. The old key ends when the session is saved."""
        self._rotate(self._get_session())

    async def acycle_key(self) -> None:
        self._rotate(await self._aget_session())

    def bind(self, user_id: UserId, *, label: str = "") -> None:
        """Say whose session it is, for lists of a user's sessions and "log out everywhere" (`Session.bind`).

        In a receiver of `user_logged_in`: `request.session.bind(user.pk)`.
        """
        self._get_session().bind(user_id, label=label)
        self.modified = True

    async def abind(self, user_id: UserId, *, label: str = "") -> None:
        await (await self._aget_session()).abind(user_id, label=label)
        self.modified = True

    def _rotate(self, session: DjangoSession) -> None:
        session.loaded()
        session.lifecycle.rotate()
        self.modified = True

    # --- deleting ---

    def flush(self) -> None:
        self.refuse_to_block()
        self.session.destroy()
        self._asked_key, self._clears = None, False
        self.accessed = self.modified = True

    async def aflush(self) -> None:
        await self.session.adestroy()
        self._asked_key, self._clears = None, False
        self.accessed = self.modified = True

    def delete(self, session_key: str | None = None) -> None:
        """Delete the session of that key, by default this one."""
        if session_key is None or session_key == self.session_key:
            self.flush()
        elif (sid := read_key(session_key)) is not None:
            store().destroy(sid)

    async def adelete(self, session_key: str | None = None) -> None:
        if session_key is None or session_key == self.session_key:
            await self.aflush()
        elif (sid := read_key(session_key)) is not None:
            await store().adestroy(sid)

    @classmethod
    def clear_expired(cls) -> None:
        store().driver.prune()

    @classmethod
    async def aclear_expired(cls) -> None:
        await store().driver.aprune()

    def __deepcopy__(self, memo: dict[int, Any]) -> SessionStore:
        """Another session of the same key, with the same data and changes."""
        copied = type(self)(self.session_key)
        lifecycle = self.session.lifecycle
        draft = lifecycle.draft
        if draft is not None:
            draft.detect_changes()
            twin, made = copied.session.lifecycle, lifecycle.policy.draft(draft.stored)
            made.log = list(draft.log)
            made.rebase(draft.stored)
            twin.draft, twin.stored, twin.id = made, lifecycle.stored, lifecycle.id
            twin.next_id, twin.client_id = lifecycle.next_id, lifecycle.client_id
        return copied
