"""Django's API over a `Session`, so that Django shares its sessions with other frameworks."""

from __future__ import annotations

from typing import Any

from django.contrib.sessions.backends.base import SessionBase

from session_kit.integrations.django.engine import EXPIRY
from session_kit.session import Session


class SharedSession(SessionBase):  # type: ignore[misc]  # Django has no types
    """Django's API over the `Session` of one request, which is in `.session`."""

    def __init__(self, session: Session[Any]) -> None:
        self.session = session
        self.accessed = False
        self.modified = False

    @property
    def _session_cache(self) -> Session[Any]:
        return self.session

    @_session_cache.setter
    def _session_cache(self, data: Any) -> None:
        self.session.set(data)

    async def _aget_session(self, no_load: bool = False) -> Session[Any]:
        return await self.session.aload()

    @property
    def session_key(self) -> str | None:
        """The session's id, or None if it is not stored yet."""
        return None if self.session.is_new else self.session.id

    @property
    def _session_key(self) -> str | None:
        return self.session_key

    def is_empty(self) -> bool:
        return self.session.is_new and not len(self.session)

    def save(self, must_create: bool = False) -> None:
        self.session.save()

    async def asave(self, must_create: bool = False) -> None:
        await self.session.asave()

    def create(self) -> None:
        self.session.regenerate()
        self.session.save()

    async def acreate(self) -> None:
        await self.session.aregenerate()
        await self.session.asave()

    def cycle_key(self) -> None:
        self.session.regenerate()

    async def acycle_key(self) -> None:
        await self.session.aregenerate()

    def flush(self) -> None:
        self.session.destroy()

    async def aflush(self) -> None:
        await self.session.adestroy()

    def delete(self, session_key: str | None = None) -> None:
        if session_key in (None, self.session_key):
            self.session.destroy()

    async def adelete(self, session_key: str | None = None) -> None:
        if session_key in (None, self.session_key):
            await self.session.adestroy()

    def exists(self, session_key: str) -> bool:
        return session_key is not None and session_key == self.session_key

    async def aexists(self, session_key: str) -> bool:
        return self.exists(session_key)

    def load(self) -> Session[Any]:
        return self.session.load()

    async def aload(self) -> Session[Any]:
        return await self.session.aload()


class BrowserSession(Session[Any]):
    """A session whose cookie ends with the browser if Django's `set_expiry(0)` says so."""

    __slots__ = ()

    @property
    def persistent(self) -> bool | None:
        expiry = self.get(EXPIRY)
        return None if expiry is None else expiry != 0
