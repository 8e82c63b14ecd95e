"""The middleware in the place of Django's, for the cookie that all frameworks share."""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable
from http.cookies import Morsel
from inspect import iscoroutinefunction
from typing import Any, cast

from asgiref.sync import markcoroutinefunction
from django.contrib.sessions.backends.base import SessionBase
from django.http import HttpRequest, HttpResponse
from django.utils.cache import patch_cache_control, patch_vary_headers

from session_kit.errors import STORE_DOWN, ConfigError, DriverUnavailable
from session_kit.integrations.django.settings import manager
from session_kit.integrations.django.shared import BrowserSession, SharedSession
from session_kit.manager import Headers
from session_kit.session import Session

# Attributes of a cookie that Python's parser learns of later.
cast(Any, Morsel)._reserved.setdefault("partitioned", "Partitioned")
cast(Any, Morsel)._reserved.setdefault("priority", "Priority")
cast(Any, Morsel)._flags.add("partitioned")

log = logging.getLogger("django.request")


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
        self.manager = manager()
        self._asynchronous = iscoroutinefunction(get_response)
        if self._asynchronous:
            markcoroutinefunction(self)

    def __call__(self, request: HttpRequest) -> Any:
        if self._asynchronous:
            return self.__acall__(request)
        session = self._open(request)
        response = self.get_response(request)
        try:
            return self._answer(response, session, self.manager.commit(session, response.status_code))
        except DriverUnavailable:
            return self._answer(_unavailable(), session, self.manager.refuse(session))

    async def __acall__(self, request: HttpRequest) -> HttpResponse:
        session = self._open(request)
        await self.manager.apreload(session)
        response = await self.get_response(request)
        try:
            return self._answer(response, session, await self.manager.acommit(session, response.status_code))
        except DriverUnavailable:
            return self._answer(_unavailable(), session, self.manager.refuse(session))

    def process_exception(self, request: HttpRequest, error: Exception) -> HttpResponse | None:
        """What a view that needed the session answers in an outage."""
        return _unavailable() if isinstance(error, DriverUnavailable) else None

    def _open(self, request: HttpRequest) -> Session[Any]:
        if isinstance(getattr(request, "session", None), SessionBase):
            raise ConfigError("two session middlewares are installed; keep session_kit's and remove Django's")
        cookies = request.META.get("HTTP_COOKIE", "").encode("latin-1")
        session = self.manager.open(cookies, asynchronous=self._asynchronous, session_class=BrowserSession)
        request.session = SharedSession(session)
        return session

    def _answer(self, response: Any, session: Session[Any], headers: Headers) -> HttpResponse:
        for name, value in headers:
            if name == "Vary":
                patch_vary_headers(response, (value,))
            elif name == "Cache-Control":
                patch_cache_control(response, no_cache='"Set-Cookie"')
            else:
                _set_cookie(response, value)
        if response.streaming:
            response._resource_closers.append(functools.partial(self._finish, session))
        else:
            self.manager.finish(session)
        return cast(HttpResponse, response)

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
    return HttpResponse(STORE_DOWN, status=503, content_type="text/plain", headers={"Cache-Control": "no-store"})
