"""Pyramid: `request.session` with the whole of `ISession`, flash messages and CSRF tokens included.

>>> from pyramid.config import Configurator
>>> from pyramid.response import Response
>>> def visits(request):
...     request.session.update(lambda data: {"visits": data.get("visits", 0) + 1})
...     return Response(str(request.session["visits"]))
>>> with Configurator() as config:
...     config.set_session_factory(session_factory("memory://", "N3w-secret-of-at-least-32-characters!"))
...     config.add_route("visits", "/")
...     config.add_view(visits, route_name="visits")
...     app = config.make_wsgi_app()
"""

from __future__ import annotations

import secrets
import sys
from collections.abc import Callable
from dataclasses import fields
from functools import wraps
from typing import Any, TypeVar, Unpack

from pyramid.httpexceptions import HTTPServiceUnavailable
from pyramid.interfaces import IResponse, ISession
from pyramid.settings import asbool, aslist
from zope.interface import implementer

from session_kit.cookie import CookieOptions
from session_kit.draft import Draft
from session_kit.errors import STORE_DOWN, ConfigError, DriverUnavailable
from session_kit.headers import TEXT, join_headers
from session_kit.manager import ManagerOptions, Secrets, SessionManager, choose_manager, plain_host_of
from session_kit.session import Session
from session_kit.state import Phase
from session_kit.store import SessionStore, UnstorageSessionStore
from session_kit.wsgi import FinishingBody

CSRF = "_csrft_"
FLASH = "_f_"
SETTINGS = "session_kit."
ANSWER_ERROR = "invoke_exception_view"
"""The method of a request with which Pyramid looks for an exception view."""
T = TypeVar("T")


def _answered(method: Callable[[Any], T]) -> Callable[[Any], T]:
    """Pyramid answers what a view raises if it is one of its own exceptions."""

    @wraps(method)
    def call(self: Any) -> T:
        try:
            return method(self)
        except DriverUnavailable as error:
            raise HTTPServiceUnavailable(STORE_DOWN) from error

    return call


@implementer(ISession)
class PyramidSession(Session[Any]):
    """A `Session` that is an `ISession`."""

    __slots__ = ()

    @_answered
    def loaded(self) -> Draft:
        return super().loaded()

    @_answered
    def save(self) -> None:
        super().save()

    @_answered
    def destroy(self) -> None:
        super().destroy()

    @property
    def created(self) -> int:  # ISession wants whole seconds
        """Unix time in seconds at which the session began."""
        return int(super().created)

    @property
    def new(self) -> bool:
        """Pyramid's name for `is_new`."""
        return self.is_new

    def invalidate(self) -> None:
        """Pyramid's name for `destroy`."""
        self.destroy()

    def changed(self) -> None:
        """Harmless and not needed: changes inside values are found."""

    def flash(self, msg: Any, queue: str = "", allow_duplicate: bool = True) -> None:
        """Put a message at the end of a queue."""
        if allow_duplicate or msg not in self.peek_flash(queue):
            self._changing().extend(FLASH + queue, msg)

    def pop_flash(self, queue: str = "") -> list[Any]:
        """Take all messages out of a queue."""
        return self._changing().take(FLASH + queue, lambda message: True) if FLASH + queue in self else []

    def __json__(self, request: Any) -> dict[str, Any]:
        """For Pyramid's renderer of JSON."""
        return dict(self)

    def peek_flash(self, queue: str = "") -> list[Any]:
        """Look at the messages of a queue."""
        messages: list[Any] = self.get(FLASH + queue, [])
        return messages

    def new_csrf_token(self) -> str:
        """Make a new CSRF token and return it."""
        token = self[CSRF] = secrets.token_hex(32)
        return token

    def get_csrf_token(self) -> str:
        """Return the CSRF token; make one if there is none."""
        return self.get(CSRF) or self.new_csrf_token()


def session_factory(
    store: str | UnstorageSessionStore | SessionStore | None = None,
    secret: Secrets = (),
    *,
    manager: SessionManager | None = None,
    **options: Unpack[ManagerOptions],
) -> Callable[[Any], PyramidSession]:
    """Return what `config.set_session_factory` wants.

    store, secret, options: as for `SessionManager`.
    manager: a ready one in place of these.
    Raises `ConfigError` for anything that cannot work.

    A view that raises has changed nothing; what an exception view changes counts by the status that it answers with:
    5xx keeps nothing. An HTTP exception such as a redirect is an answer like any other. A store that does not answer is
    `HTTPServiceUnavailable`. WebTest's `TestApp` gets the cookie without `Secure` over plain http.
    """
    chosen = choose_manager("session_factory", manager, store, secret, **options)

    def factory(request: Any) -> PyramidSession:
        chosen.check_outer(request.environ)
        session = chosen.open(chosen.credentials(request.environ, _cookies(request)), session_class=PyramidSession)
        asked = plain_host_of, request.environ

        def commit_last(request: Any, response: Any) -> None:
            # Other response callbacks of the application may change the session, or fail.
            request.add_response_callback(commit)

        def commit(request: Any, response: Any) -> None:
            vars(request).pop(ANSWER_ERROR, None)
            try:
                response.headerlist = join_headers(
                    response.headerlist, chosen.commit(session, response.status_code, *asked)
                )
            except DriverUnavailable:
                response.status_code = 503
                response.headerlist = [TEXT, *chosen.refuse(session, *asked)]
                response.text = STORE_DOWN
            if not isinstance(response.app_iter, (list, tuple)):
                response.app_iter = FinishingBody(response.app_iter, chosen, session)
            else:
                chosen.finish(session)

        def end(request: Any) -> None:
            if session.lifecycle.phase is Phase.AHEAD:  # nothing was answered
                chosen.finish(session)

        answer_error: Any = getattr(request, ANSWER_ERROR, None)

        def answer_reverted(exc_info: Any = None, *args: Any, **kwargs: Any) -> Any:
            exc_info = exc_info or sys.exc_info()
            if not IResponse.providedBy(exc_info[1]):
                chosen.revert(session)
            return answer_error(exc_info, *args, **kwargs)

        if answer_error is not None:
            setattr(request, ANSWER_ERROR, answer_reverted)
        request.add_response_callback(commit_last)
        request.add_finished_callback(end)
        return session

    return factory


def _cookies(request: Any) -> str | None:
    """Of a `DummyRequest`, which has no `Cookie` header, one made of its cookies."""
    if {"HTTP_COOKIE", "REQUEST_METHOD"} & request.environ.keys():
        return None
    return "; ".join(f"{name}={value}" for name, value in request.cookies.items())


def includeme(config: Any) -> None:
    """`config.include("session_kit.integrations.pyramid")`: sessions by settings.

    `session_kit.store` (a URL) and `session_kit.secret` (newest first, separated by white space) are required; the
    options of `SessionManager` and `session_kit.cookie.<option>` may follow: `save_uninitialized = true`,
    `rotation_grace = 0`, `rotate_on` as names separated by white space, functions and types as dotted names.
    """
    texts = {
        name.removeprefix(SETTINGS): value for name, value in config.get_settings().items() if name.startswith(SETTINGS)
    }
    options: dict[str, Any] = {
        name: READERS[name](value) if name in READERS else value
        for name, value in texts.items()
        if not name.startswith("cookie.")
    }
    for name in DOTTED & options.keys():
        options[name] = config.maybe_dotted(options[name])
    cookie = {name.removeprefix("cookie."): value for name, value in texts.items() if name.startswith("cookie.")}
    known = {field.name: field.type for field in fields(CookieOptions)}
    for name in cookie:
        if name not in known:
            raise ConfigError(f"unknown setting session_kit.cookie.{name}. Valid options: {', '.join(known)}.")
    if cookie:
        flags = {name: asbool(value) if known[name] == "bool" else value for name, value in cookie.items()}
        options["cookie"] = CookieOptions(**flags)
    secret = options.pop("secret", [])
    config.set_session_factory(session_factory(options.pop("store", None), secret, **options))


def _time(value: Any) -> Any:
    """Seconds may come as text; `12h` and the like are read later."""
    try:
        return float(value) if isinstance(value, str) else value
    except ValueError:
        return value.strip()


READERS: dict[str, Callable[[Any], Any]] = {
    "secret": aslist,
    "rotate_on": aslist,
    "save_uninitialized": asbool,
    "touch_after": _time,
    "max_lifetime": _time,
    "rotation_grace": _time,
    "max_sessions": lambda value: int(value) if str(value).strip().isdecimal() else value,
}
"""How the options that are no text are read from a settings file."""
DOTTED = {"generate", "generate_id", "on_event", "data_type", "upgrade", "clock"}
