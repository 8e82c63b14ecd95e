"""Django: a session engine with the whole of Django's API, and a middleware whose cookie other frameworks share.

As an engine, with Django's own middleware and cookie:

    SESSION_ENGINE = "session_kit.integrations.django"
    SESSION_KIT = {"store": "redis://localhost:6379/0"}

For the signed cookie that all other integrations use, put `session_kit.integrations.django.SessionMiddleware` in the
place of Django's in `MIDDLEWARE`. `SESSION_KIT` then also takes the options of `SessionManager`; `secret` defaults to
`SECRET_KEY` and `SECRET_KEY_FALLBACKS`, name and attributes of the cookie to the settings `SESSION_COOKIE_*`.
"""

from __future__ import annotations

import functools
import json
import logging
import time
from collections.abc import Callable, Iterator, MutableMapping
from contextlib import suppress
from http.cookies import Morsel
from inspect import iscoroutinefunction
from typing import Any, cast

from asgiref.sync import markcoroutinefunction
from django import conf
from django.contrib.sessions.backends.base import VALID_KEY_CHARS, CreateError, SessionBase, UpdateError
from django.core.signals import setting_changed
from django.http import HttpRequest, HttpResponse
from django.utils.cache import patch_cache_control, patch_vary_headers
from django.utils.crypto import get_random_string
from msgspec import Raw

from session_kit.cookie import CookieOptions
from session_kit.draft import RESERVED, Draft, DraftView, Updater
from session_kit.drivers import ABSENT, ANY, Conflict, CorruptEntry
from session_kit.drivers.twins import run
from session_kit.errors import ConfigError, DriverUnavailable, SessionError
from session_kit.manager import SessionManager, make_manager
from session_kit.policy import Notes
from session_kit.session import Session
from session_kit.store import UnstorageSessionStore, open_store

EXPIRY = "_session_expiry"
UNAVAILABLE = "Service Unavailable: the session store does not answer"

# Attributes of a cookie that Python's parser learns of later.
cast(Any, Morsel)._reserved.setdefault("partitioned", "Partitioned")
cast(Any, Morsel)._reserved.setdefault("priority", "Priority")
cast(Any, Morsel)._flags.add("partitioned")

log = logging.getLogger("django.request")


class Data(MutableMapping[str, Any]):
    """The data of a session whose changes are kept as changes."""

    def __init__(self, draft: Draft) -> None:
        self.draft = draft

    def __getitem__(self, key: str) -> Any:
        return self.draft[key]

    def __setitem__(self, key: str, value: Any) -> None:
        self.draft.put(key, value)

    def __delitem__(self, key: str) -> None:
        self.draft.drop(key)

    def __contains__(self, key: object) -> bool:
        return key in self.draft.fields

    def __iter__(self) -> Iterator[str]:
        return iter(list(self.draft.fields))

    def __len__(self) -> int:
        return len(self.draft.fields)

    def __repr__(self) -> str:
        return repr(DraftView(self.draft))

    def update(self, changes: Any = (), /, **values: Any) -> None:
        if callable(changes):
            self.draft.apply(cast(Updater, changes))
        else:
            super().update(changes, **values)


class SessionStore(SessionBase):  # type: ignore[misc]  # Django has no types
    """Django's session on any store of ours: `SESSION_ENGINE = "session_kit.integrations.django"`.

    Beyond Django's own: requests that change different keys at the same time keep both, `update` takes a function that
    runs again when another request was faster, and changes inside values are found without `modified = True`.
    Raises `DriverUnavailable` when the store does not answer.
    """

    def __init__(self, session_key: str | None = None) -> None:
        self._version: object = None  # of the record in the store; None if nobody has looked
        self._created = 0.0
        self._data: Data
        self._changed, self._seen = False, 0
        super().__init__(session_key)

    @property
    def _session_cache(self) -> Data:
        return self._data

    @_session_cache.setter
    def _session_cache(self, data: Any) -> None:
        if not isinstance(data, Data):
            draft = self._data.draft if hasattr(self, "_data") else Draft(LenientCodec(_store().codec), {})
            if data or draft.fields:
                draft.replace(data)
            data = Data(draft)
        self._data = data

    @property
    def modified(self) -> bool:
        """Whether something changed, inside values too."""
        if not self._changed and hasattr(self, "_data"):
            draft = self._session_cache.draft
            draft.settle()
            return len(draft.log) > self._seen
        return self._changed

    @modified.setter
    def modified(self, value: bool) -> None:
        self._changed = value
        self._seen = len(self._session_cache.draft.log) if hasattr(self, "_data") else 0

    # --- Django's eight methods and their twins ---

    def exists(self, session_key: str) -> bool:
        return bool(run(_has(_store().blocking, session_key)))

    async def aexists(self, session_key: str) -> bool:
        return bool(await _has(_store().native, session_key))

    def create(self) -> None:
        run(self._create(_store().blocking))

    async def acreate(self) -> None:
        await self._create(_store().native)

    def save(self, must_create: bool = False) -> None:
        if self.session_key is None:
            self.create()
        else:
            self._get_session(no_load=must_create)
            run(self._save(_store().blocking, must_create))

    async def asave(self, must_create: bool = False) -> None:
        if self.session_key is None:
            await self.acreate()
        else:
            await self._aget_session(no_load=must_create)
            await self._save(_store().native, must_create)

    def delete(self, session_key: str | None = None) -> None:
        key = session_key or self.session_key
        if key is not None:
            _store().destroy(key)

    async def adelete(self, session_key: str | None = None) -> None:
        key = session_key or self.session_key
        if key is not None:
            await _store().adestroy(key)

    def load(self) -> Data:
        return run(self._load(_store().blocking))

    async def aload(self) -> Data:
        return await self._load(_store().native)

    @classmethod
    def clear_expired(cls) -> None:
        _store().driver.prune()

    @classmethod
    async def aclear_expired(cls) -> None:
        await _store().driver.aprune()

    # --- written once for both colours ---

    async def _load(self, io: Any) -> Data:
        fields = await self._read(io)
        if fields is None:
            self._session_key = None
        return Data(Draft(LenientCodec(_store().codec), fields or {}))

    async def _read(self, io: Any) -> dict[str, Raw] | None:
        """Read the record and remember its version; None if it is gone, or nobody can read it."""
        store = _store()
        try:
            record = store.record(await store.entry_by(io, self.session_key))
            if record is None:
                return None
            notes = record.fields.pop(RESERVED, None)
            self._created = time.time() if notes is None else store.codec.load(notes, Notes).created
        except CorruptEntry:
            await store.destroy_by(io, self.session_key)
            return None
        self._version = record.version
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
        store, draft = _store(), self._session_cache.draft
        draft.settle()
        if must_create:
            self._created = time.time()
            expect: object = ABSENT if store.capabilities.create else ANY
        else:
            if self._version is None or not store.capabilities.swap:
                await self._catch_up(io, draft)
            expect = self._version if store.capabilities.swap else ANY
        while True:
            ttl = self.get_expiry_age(expiry=draft[EXPIRY] if EXPIRY in draft.fields else None)
            fields = {RESERVED: store.codec.encode(Notes(self._created)), **draft.fields}
            try:
                if ttl > 0:
                    self._version = await store.set_by(io, self.session_key, fields, expect=expect, ttl=ttl)
                else:
                    await store.destroy_by(io, self.session_key)
            except Conflict:
                if must_create:
                    raise CreateError from None
                await self._catch_up(io, draft)
                expect = self._version
                continue
            draft.saved()
            self._seen = 0
            return

    async def _catch_up(self, io: Any, draft: Draft) -> None:
        """Replay the changes on what another request has stored meanwhile."""
        fields = await self._read(io)
        if fields is None:
            raise UpdateError
        draft.rebase(fields)


class LenientCodec:
    """The store's codec, that converts what Django's own JSON serializer would (a tuple, a number as a key)."""

    def __init__(self, codec: Any) -> None:
        self.codec = codec
        self.load = codec.load

    def dump(self, value: object, where: str) -> Raw:
        try:
            return cast(Raw, self.codec.dump(value, where))
        except SessionError:
            try:
                converted = json.loads(json.dumps(value, allow_nan=False))
            except (TypeError, ValueError):
                converted = value
            return cast(Raw, self.codec.dump(converted, where))

    def __getattr__(self, name: str) -> Any:
        return getattr(self.codec, name)


async def _has(io: Any, session_key: str) -> bool:
    return bool(session_key) and bool(await io.has(_store().key(session_key)))


# --- the cookie that all frameworks share ---


class SharedSession(SessionBase):  # type: ignore[misc]
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


class _BrowserSession(Session[Any]):
    """A session whose cookie ends with the browser if Django's `set_expiry(0)` says so."""

    __slots__ = ()

    def _persistent(self) -> bool | None:
        expiry = self.get(EXPIRY)
        return None if expiry is None else expiry != 0


class SessionMiddleware:
    """In the place of Django's: `request.session` with Django's API over the record and cookie that others share.

    A view that raises, or answers with a 5xx, has changed nothing. A store that does not answer is a 503, unless
    `on_error="anonymous"`. How long a session lives is the store's `ttl`, by default `SESSION_COOKIE_AGE`;
    `set_expiry(0)` still makes a cookie that ends with the browser.
    """

    sync_capable = True
    async_capable = True

    def __init__(self, get_response: Callable[[HttpRequest], Any]) -> None:
        self.get_response = get_response
        self.manager = _manager()
        self._asynchronous = iscoroutinefunction(get_response)
        if self._asynchronous:
            markcoroutinefunction(self)

    def __call__(self, request: HttpRequest) -> Any:
        if self._asynchronous:
            return self.__acall__(request)
        self._open(request)
        response = self.get_response(request)
        try:
            return self._answer(request, response, lambda session: self.manager.commit(session))
        except DriverUnavailable:
            return _unavailable()

    async def __acall__(self, request: HttpRequest) -> HttpResponse:
        session = self._open(request)
        if not self.manager.loads_lazily:
            with suppress(DriverUnavailable):  # a view that never touches the session shall not notice
                await session._load(session._policy.store.native)
        response = await self.get_response(request)
        try:
            if response.status_code < 500:
                headers = await self.manager.acommit(session)
            return self._answer(request, response, lambda session: headers)
        except DriverUnavailable:
            return _unavailable()

    def process_exception(self, request: HttpRequest, error: Exception) -> HttpResponse | None:
        """What a view that needed the session answers in an outage."""
        return _unavailable() if isinstance(error, DriverUnavailable) else None

    def _open(self, request: HttpRequest) -> Session[Any]:
        if isinstance(getattr(request, "session", None), SessionBase):
            raise ConfigError("two session middlewares are installed; keep session_kit's and remove Django's")
        cookies = request.META.get("HTTP_COOKIE", "").encode("latin-1")
        session = self.manager.open(cookies, asynchronous=self._asynchronous, session_class=_BrowserSession)
        request.session = SharedSession(session)
        return session

    def _answer(self, request: HttpRequest, response: Any, commit: Callable[[Session[Any]], Any]) -> Any:
        session = request.session.session
        if response.status_code >= 500:
            self.manager.abandon(session)
            return response
        for name, value in commit(session):
            if name == "Vary":
                patch_vary_headers(response, (value,))
            elif name == "Cache-Control":
                patch_cache_control(response, no_cache='"Set-Cookie"')
            else:
                _set_cookie(response, value)
        if response.streaming:
            response._resource_closers.append(functools.partial(self._finish, session))
        return response

    def _finish(self, session: Session[Any]) -> None:
        try:
            self.manager.finish(session)
        except Exception:
            # Django says nothing of what is raised when a response is closed.
            log.exception("what was changed while the response was streamed could not be saved")


def _set_cookie(response: HttpResponse, header: str) -> None:
    """Put a whole `Set-Cookie` header where Django and its test client look for cookies."""
    pair, *attributes = header.split("; ")
    name, _, value = pair.partition("=")
    response.cookies[name] = value
    for attribute in attributes:
        key, _, text = attribute.partition("=")
        response.cookies[name][key.lower()] = text or True


def _unavailable() -> HttpResponse:
    return HttpResponse(UNAVAILABLE, status=503, content_type="text/plain", headers={"Cache-Control": "no-store"})


# --- settings ---


@functools.cache
def _store() -> UnstorageSessionStore:
    """The store of `SESSION_KIT`, opened once a process."""
    store = _settings().get("store")
    if store is None:
        raise ConfigError('SESSION_KIT needs a store: SESSION_KIT = {"store": "redis://..."}')
    if isinstance(store, str):
        store = open_store(store)
        if "ttl=" not in _settings()["store"]:
            store.ttl = float(conf.settings.SESSION_COOKIE_AGE)
    if not isinstance(store, UnstorageSessionStore):
        raise ConfigError(
            f"SESSION_KIT: the engine needs a URL or an UnstorageSessionStore, not {type(store).__name__}"
        )
    return store


@functools.cache
def _manager() -> SessionManager:
    """The manager of `SESSION_KIT`, for the shared cookie."""
    options = _settings()
    samesite: Any = (conf.settings.SESSION_COOKIE_SAMESITE or "lax").lower()
    cookie = CookieOptions(
        httponly=conf.settings.SESSION_COOKIE_HTTPONLY,
        samesite=samesite,
        path=conf.settings.SESSION_COOKIE_PATH,
        domain=conf.settings.SESSION_COOKIE_DOMAIN or None,
        persistent=not conf.settings.SESSION_EXPIRE_AT_BROWSER_CLOSE,
    )
    name = "session" if conf.settings.SESSION_COOKIE_NAME == "sessionid" else conf.settings.SESSION_COOKIE_NAME
    secret = options.pop("secret", None) or [conf.settings.SECRET_KEY, *conf.settings.SECRET_KEY_FALLBACKS]
    options["store"] = _store()
    return make_manager(secret=secret, **{"name": name, "cookie": cookie, **options})


def _settings() -> dict[str, Any]:
    options = getattr(conf.settings, "SESSION_KIT", None)
    if not isinstance(options, dict):
        raise ConfigError('the setting SESSION_KIT is missing: SESSION_KIT = {"store": "redis://..."}')
    return dict(options)


def _forget(*, setting: str, **_: object) -> None:
    """Settings change in tests alone; what was made of them is made anew."""
    if setting.startswith(("SESSION_", "SECRET_KEY")):
        _store.cache_clear()
        _manager.cache_clear()


setting_changed.connect(_forget)
