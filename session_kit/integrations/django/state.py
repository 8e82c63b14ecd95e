"""What Django asks a `SessionStore` of its session: the key, whether it was looked at, whether it changed."""

from __future__ import annotations

from functools import cached_property
from typing import Any

from django import conf
from django.contrib.sessions.backends.base import SessionBase
from django.core.exceptions import SynchronousOnlyOperation
from django.utils.module_loading import import_string

from session_kit.drivers.support.twins import on_event_loop
from session_kit.integrations.django.expiry import EXPIRY
from session_kit.integrations.django.session import DjangoSession, open_session


class SessionState(SessionBase):  # type: ignore[misc]  # Django has no types
    """Django's session over a `Session` of ours, without its I/O.

    Attributes:
        quiet: whether a logout or a rotation in another request goes without an error. Our middleware sets it.
    """

    quiet = False
    _asked_key: str | None = None  # what the session was opened with
    _flag = False  # what `modified` was set to last
    _seen = 0  # so many changes had been made by then
    _saved = False  # by name, since `modified` was set
    _clears = False  # `clear` was called where nothing could be loaded

    def __init__(self, session_key: str | None = None) -> None:
        if session_key is not None:
            self._session_key = session_key

    @cached_property
    def session(self) -> DjangoSession:
        """Our session. Our middleware puts that of the request in its place."""
        return open_session(self._asked_key)

    @property
    def serializer(self) -> Any:
        """What `encode` and `decode` use."""
        return import_string(conf.settings.SESSION_SERIALIZER)

    # --- the key ---

    @property
    def session_key(self) -> str | None:
        """The session's id; None if it is new and neither saved nor given an id. No I/O."""
        lifecycle = self.session.lifecycle
        if lifecycle.draft is None:
            return lifecycle.candidate_id() or self._asked_key
        if lifecycle.stored is not None:
            return lifecycle.current_id()
        return lifecycle.id

    def _set_key(self, key: str | None) -> None:
        self._asked_key = key if self._validate_session_key(key) else None
        self.__dict__.pop("session", None)  # it is opened by the new key when somebody asks
        self._flag, self._seen, self._saved, self._clears = False, 0, False, False

    _session_key = property(lambda self: self.session_key, _set_key)

    def is_empty(self) -> bool:
        """Whether there is no session: nothing is stored and nothing to be stored."""
        lifecycle = self.session.lifecycle
        if lifecycle.draft is None:
            return self.session_key is None
        if lifecycle.displaced is not None or lifecycle.unanswered:
            return False  # Django would delete the cookie, and the browser may hold a better one
        return lifecycle.stored is None and not lifecycle.draft.fields

    # --- what happened to it ---

    @property
    def accessed(self) -> bool:
        """Whether somebody has looked at it."""
        return self.session.lifecycle.touched

    @accessed.setter
    def accessed(self, value: bool) -> None:
        self.session.lifecycle.touched = value

    @property
    def modified(self) -> bool:
        """Whether it is to be saved: something has changed, inside values too, or its id is new to the client."""
        lifecycle = self.session.lifecycle
        draft = lifecycle.draft
        if draft is None:
            return self._flag
        if lifecycle.unanswered:
            return False
        draft.detect_changes()
        if lifecycle.stored is None and lifecycle.displaced is not None:
            return lifecycle.due(ending=False)
        return self._flag or len(draft.log) > self._seen or lifecycle.next_id is not None or lifecycle.cookie_is_due()

    @modified.setter
    def modified(self, value: bool) -> None:
        draft = self.session.lifecycle.draft
        self._flag, self._saved = value, False
        self._seen = 0 if draft is None else len(draft.log)

    def apply_settings(self) -> bool:
        """At the end of a request, for our middleware: see to what Django's settings and flags ask for.

        Returns whether the session is to be written and its cookie sent, though nothing may have changed.
        """
        lifecycle = self.session.lifecycle
        every, draft = conf.settings.SESSION_SAVE_EVERY_REQUEST and lifecycle.counts, lifecycle.draft
        asked = self._flag and not self._saved and (draft is None or not draft.log)
        if draft is not None and draft.log:
            if 0 < self._seen >= len(draft.log) and not self.modified:
                lifecycle.revert()  # `modified` was set to False
            elif draft.fields.get(EXPIRY) != draft.stored.get(EXPIRY):
                lifecycle.client_id = None  # the cookie says how long it lives
        return bool((every or asked) and not self.is_empty() and not lifecycle.unanswered)

    # --- how long it lives: the last word counts, `remember` or this ---

    def set_expiry(self, value: Any) -> None:
        super().set_expiry(value)
        self._forget_how_long()

    async def aset_expiry(self, value: Any) -> None:
        await super().aset_expiry(value)
        self._forget_how_long()

    def _forget_how_long(self) -> None:
        lifecycle = self.session.lifecycle
        if lifecycle.remembered:
            lifecycle.remember(0.0)

    # --- the data ---

    @property
    def _session_cache(self) -> DjangoSession:
        if self.session.lifecycle.draft is None:
            raise AttributeError("the session is not loaded")
        return self.session

    @_session_cache.setter
    def _session_cache(self, data: Any) -> None:
        if data is not self.session:
            self.session.set(dict(data))

    def _get_session(self, no_load: bool = False) -> DjangoSession:
        lifecycle = self.session.lifecycle
        if lifecycle.draft is None:
            self.refuse_to_block(loading=True)
            self.session.loaded()
        lifecycle.touched = True
        return self._cleared()

    async def _aget_session(self, no_load: bool = False) -> DjangoSession:
        await self.session.aload()
        return self._cleared()

    _session = property(_get_session)

    def _cleared(self) -> DjangoSession:
        if self._clears:
            self._clears = False
            self.session.set({})
        return self.session

    def would_block(self, *, loading: bool = False) -> bool:
        """Whether a blocking call would keep an event loop waiting."""
        can = self.session.lifecycle.policy.capabilities
        return not (can.quick_reads if loading else can.never_blocks) and on_event_loop()

    def refuse_to_block(self, *, loading: bool = False) -> None:
        """Raise Django's own error for a call that would have to wait on an event loop."""
        if self.would_block(loading=loading):
            raise SynchronousOnlyOperation(
                "the session cannot be loaded or saved from an async context by this method: use its twin with the "
                "prefix `a`, such as `await request.session.aget(...)`, or sync_to_async"
            )
