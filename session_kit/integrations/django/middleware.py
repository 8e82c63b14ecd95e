"""The middleware in the place of Django's, for the cookie that all frameworks share."""

from __future__ import annotations

import functools
import logging
from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterable, Iterator
from importlib import import_module
from typing import Any, cast

from django import conf
from django.contrib.sessions.middleware import SessionMiddleware as DjangoSessionMiddleware
from django.http import HttpRequest, HttpResponse
from django.utils.cache import patch_cache_control, patch_vary_headers
from django.utils.deprecation import MiddlewareMixin

from session_kit.drivers.support.twins import Blocking, Native, run
from session_kit.errors import ConfigError, DriverUnavailable
from session_kit.headers import Headers
from session_kit.integrations.django.cookies import put_cookie
from session_kit.integrations.django.engine import SessionStore
from session_kit.integrations.django.requests import bare_key, plain_host_of, unavailable
from session_kit.integrations.django.session import DjangoSession, open_session
from session_kit.integrations.django.settings import in_tests, is_set, manager

log = logging.getLogger("django.request")
THEIRS = "django.contrib.sessions.middleware.SessionMiddleware"


class SessionMiddleware(DjangoSessionMiddleware):  # type: ignore[misc]  # Django has no types
    """In the place of Django's: the cookie is the signed one that other frameworks share.

    A view that fails (5xx) has changed nothing. A request that overlaps a logout is answered as if nothing had
    happened, and what it changed is dropped. A store that does not answer is a 503, unless `on_error="anonymous"`.
    """

    def __init__(self, get_response: Callable[[HttpRequest], Any]) -> None:
        MiddlewareMixin.__init__(self, get_response)  # Django's own imports the engine, by default that of its database
        if THEIRS in conf.settings.MIDDLEWARE:
            raise ConfigError("MIDDLEWARE has two session middlewares: keep session_kit's and remove Django's")
        found = engine()
        self.SessionStore = found if issubclass(found, SessionStore) else SessionStore  # a system check warns
        self.manager = manager()
        if not in_tests():
            # Django hides the cookie of this name in its reports of errors.
            conf.settings.SESSION_COOKIE_NAME = self.manager.policy.cookie.name

    def __call__(self, request: HttpRequest) -> Any:
        if self.async_mode:
            return self.__acall__(request)
        self.process_request(request)
        return self.process_response(request, self.get_response(request))

    async def __acall__(self, request: HttpRequest) -> HttpResponse:
        self.process_request(request)
        await self.manager.apreload(request.session.session)
        try:
            response = await self.get_response(request)
        except BaseException:  # Django answers what a view raises: the client has left
            _fail(request.session)
            raise
        return await self._end(request, response, Native)

    def process_request(self, request: HttpRequest) -> None:
        store = self.SessionStore()
        store.session = self._open(request)
        store.quiet = store.session.lifecycle.rotates = True
        request.session = store

    def _open(self, request: HttpRequest) -> DjangoSession:
        self.manager.check_outer(getattr(request, "scope", request.META))
        cookies = request.META.get("HTTP_COOKIE", "")
        if not cookies and request.COOKIES:  # as tests put them there, without a header
            name = self.manager.policy.cookie.name
            cookies = f"{name}={request.COOKIES.get(name, '')}"
        bare = bare_key(request) if cookies else None
        return open_session(bare, None if bare else self.manager.credentials(request.META, cookies))

    def _is_another(self, request: HttpRequest, store: SessionStore) -> bool:
        """Whether the application has put another session in place of ours, whose key the client does not have.

        mozilla-django-oidc does so: it saves, and opens the session again by its key.
        """
        if store.quiet:
            return False
        store.quiet = True
        return store.session_key not in (None, self._open(request).lifecycle.candidate_id())

    def process_response(self, request: HttpRequest, response: HttpResponse) -> HttpResponse:
        return run(self._end(request, response, Blocking))

    async def _end(self, request: HttpRequest, response: HttpResponse, calls: Callable[[Any], Any]) -> HttpResponse:
        """Save the session and let the response say so. calls: `Blocking` or `Native`."""
        store = getattr(request, "session", None)
        if not isinstance(store, SessionStore):
            return response
        session = store.session
        try:
            if self._is_another(request, store):
                await calls(store).load()
                session.lifecycle.client_id = None
            if response.status_code < 500 and store.apply_settings():
                await calls(store).save()
                session.lifecycle.client_id = None
            headers = await calls(self.manager).commit(session, response.status_code, plain_host_of, request)
            return self._answer(response, store, headers)
        except DriverUnavailable:
            return self._answer(unavailable(), store, self.manager.refuse(session, plain_host_of, request))

    def process_exception(self, request: HttpRequest, error: Exception) -> HttpResponse | None:
        """What a view that needed the session answers in an outage."""
        return unavailable() if isinstance(error, DriverUnavailable) else None

    def _answer(self, response: Any, store: SessionStore, headers: Headers) -> HttpResponse:
        for name, value in headers:
            if name == "Vary":
                patch_vary_headers(response, value.split(", "))
            elif name == "Set-Cookie":
                put_cookie(response, value)
            elif name != "Cache-Control":
                response.headers[name] = value
            # `private` is what Django's own cache goes by: before 5.2.15 it keeps a cookie, and what says no-store.
            elif value == "no-store":
                patch_cache_control(response, no_store=True, private=True)
            else:
                patch_cache_control(response, no_cache='"Set-Cookie"', private=True)
        if response.streaming:
            if getattr(response, "file_to_stream", None) is None:  # else the server sends it by itself
                revert = _areverting if response.is_async else _reverting
                response.streaming_content = revert(response.streaming_content, store)
            response._resource_closers.append(functools.partial(self._finish, store))
        else:
            self.manager.finish(store.session)
        return cast(HttpResponse, response)

    def _finish(self, store: SessionStore) -> None:
        try:
            self.manager.finish(store.session)
        except Exception:
            # Django says nothing of what is raised when a response is closed.
            log.exception("what was changed while the response was streamed could not be saved")


def _reverting(parts: Iterable[bytes], store: SessionStore) -> Iterator[bytes]:
    """The parts of a body that has changed nothing if it raises."""
    try:
        yield from parts
    except Exception:
        _fail(store)
        raise


async def _areverting(parts: AsyncIterable[bytes], store: SessionStore) -> AsyncIterator[bytes]:
    try:
        async for part in parts:
            yield part
    except Exception:
        _fail(store)
        raise


def _fail(store: Any) -> None:
    """The request has ended without an answer, or in the middle of one: it has changed nothing, and does no more."""
    if isinstance(store, SessionStore):
        manager().revert(store.session)
        manager().finish(store.session)


def engine() -> type[Any]:
    """The class that `SESSION_ENGINE` names; ours if nobody has set it, as Django's default needs its database."""
    return (
        cast("type[Any]", import_module(conf.settings.SESSION_ENGINE).SessionStore)
        if is_set("SESSION_ENGINE")
        else SessionStore
    )
