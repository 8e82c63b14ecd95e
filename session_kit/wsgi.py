"""Sessions for any WSGI application: Falcon, Bottle, or a bare one."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Any, Unpack

from session_kit.errors import STORE_DOWN, ConfigError, DriverUnavailable, SessionError
from session_kit.headers import TEXT, join_headers
from session_kit.manager import (
    PLACE,
    ManagerOptions,
    Secrets,
    SessionManager,
    choose_manager,
    plain_host_of,
)
from session_kit.session import Session
from session_kit.state import ENDED
from session_kit.store import SessionStore, UnstorageSessionStore

Environ = dict[str, Any]
StartResponse = Callable[..., Callable[[bytes], object]]
App = Callable[[Environ, StartResponse], Iterable[bytes]]

KEY = PLACE
HOW_TO_ADD = "add the middleware: app = SessionMiddleware(app, store=..., secret=...)"


class SessionMiddleware:
    """Puts the visitor's `Session` into `environ["session_kit.session"]` and saves it before the first byte leaves.

    app: the application.
    store, secret, options: as for `SessionManager`.
    manager: a ready `SessionManager` in place of these, to share one among several applications.

    The session loads when it is first touched; a request that does not touch it costs no I/O. A handler that raises, or
    answers with 5xx, has changed nothing, unless it saved explicitly. What is changed while the response is streamed is
    saved at its end, if the client already has the id; otherwise `SessionError` is raised. A store that does not answer
    is a plain 503, unless `on_error="anonymous"`.

    >>> def app(environ, start_response):
    ...     environ["session_kit.session"]["user"] = "ada"
    ...     start_response("200 OK", [])
    ...     return [b"hello"]
    >>> app = SessionMiddleware(app, store="memory://", secret="N3w-secret-of-at-least-32-characters!")
    """

    def __init__(
        self,
        app: App,
        store: str | UnstorageSessionStore | SessionStore | None = None,
        secret: Secrets = (),
        *,
        manager: SessionManager | None = None,
        **options: Unpack[ManagerOptions],
    ) -> None:
        self.app = app
        self.manager = choose_manager("SessionMiddleware", manager, store, secret, **options)

    def __call__(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        self.manager.check_outer(environ)
        if KEY in environ and environ[KEY].lifecycle.phase is not ENDED:
            raise ConfigError("SessionMiddleware is installed twice; keep the outer one")
        session = self.manager.open(self.manager.credentials(environ))
        environ[KEY] = session
        response = _Response(self.manager, session, start_response, environ)
        try:
            body = self.app(environ, response.start)
        except DriverUnavailable:
            if response.begun:
                raise
            return response.refuse()
        except BaseException:
            session.lifecycle.phase = ENDED  # whatever answers it lies outside: a change there would be lost
            raise
        # A whole body leaves at once, and no code of the application runs after it.
        whole = type(body) in (list, tuple) or type(body) is environ.get("wsgi.file_wrapper")
        if response.pending is not None:
            try:
                response.begin()
            except DriverUnavailable:
                close(body)
                return response.refuse()
            if whole:
                session.lifecycle.phase = ENDED
                return body
        elif whole and response.begun:  # by `write`: there may be changes since
            self.manager.finish(session)
            return body
        return _Body(body, response)


def close(body: Iterable[bytes]) -> None:
    """Tell a body that it is not asked for any more (PEP 3333)."""
    if hasattr(body, "close"):
        body.close()


class _Response:
    """Holds the status and headers back until the first byte is about to leave, and commits the session then."""

    _write: Callable[[bytes], object] | None = None

    def __init__(
        self, manager: SessionManager, session: Session[Any], start_response: StartResponse, environ: Environ
    ) -> None:
        self.manager = manager
        self.session = session
        self.start_response = start_response
        self.environ = environ
        self.pending: tuple[str, list[tuple[str, str]], Any] | None = None
        self.begun = False

    def start(self, status: str, headers: list[tuple[str, str]], exc_info: Any = None) -> Callable[[bytes], object]:
        if self.begun:
            # The server raises what the application could not turn into another answer any more (PEP 3333).
            return self.start_response(status, headers, exc_info)
        self.pending = (status, headers, exc_info)
        return self.write

    def begin(self) -> None:
        assert self.pending is not None  # noqa: S101  # tells mypy
        status, headers, exc_info = self.pending
        said = self.manager.commit(self.session, int(status[:3]), plain_host_of, self.environ)
        headers = join_headers(headers, said)
        self._write = self.start_response(status, headers, *([exc_info] if exc_info else []))
        self.pending, self.begun = None, True

    def write(self, data: bytes) -> object:
        if self.pending is not None:
            self.begin()
        assert self._write is not None  # noqa: S101  # tells mypy
        return self._write(data)

    def refuse(self) -> list[bytes]:
        headers = [TEXT, *self.manager.refuse(self.session, plain_host_of, self.environ)]
        self.start_response("503 Service Unavailable", headers)
        self.pending, self.begun = None, True
        return [STORE_DOWN.encode()]


class FinishingBody:
    """A body that is still being made: late changes are saved after its last part, or when it is closed."""

    def __init__(self, body: Iterable[bytes], manager: SessionManager, session: Session[Any]) -> None:
        self._body = body
        self._finish = partial(manager.finish, session)
        self._revert = partial(manager.revert, session)

    def __iter__(self) -> Iterator[bytes]:
        try:
            yield from self._body
        except Exception:
            self._revert()
            raise
        self._finish()  # now, before the client sees that the response is complete

    def close(self) -> None:
        try:
            close(self._body)
        finally:
            self._finish()


class _Body(FinishingBody):
    """The same for a response that may not have begun: it begins with the first part."""

    def __init__(self, body: Iterable[bytes], response: _Response) -> None:
        super().__init__(body, response.manager, response.session)
        self._response = response

    def __iter__(self) -> Iterator[bytes]:
        response = self._response
        try:
            for part in super().__iter__():
                if response.pending is not None:
                    response.begin()
                yield part
            if response.pending is not None:
                response.begin()
        except DriverUnavailable:
            if response.begun:
                raise
            yield from response.refuse()


def get_session(environ: Environ) -> Session[Any]:
    """Return the session of a request. `SessionError` if the middleware is missing."""
    session = environ.get(KEY)
    if not isinstance(session, Session):
        raise SessionError(f"this request has no session; {HOW_TO_ADD}")
    return session
