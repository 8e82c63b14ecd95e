"""aiohttp.web: `session = await get_session(request)` in any handler.

>>> from aiohttp import web
>>> async def visits(request):
...     session = await get_session(request)
...     session.update(lambda data: {"visits": data.get("visits", 0) + 1})
...     return web.json_response({"visits": session["visits"]})
>>> app = web.Application()
>>> app.router.add_get("/", visits)
<ResourceRoute [GET] ...
>>> setup(app, store="memory://", secret="N3w-secret-of-at-least-32-characters!")
"""

from __future__ import annotations

from typing import Any, Unpack

from aiohttp import web
from aiohttp.typedefs import Handler

from session_kit.errors import STORE_DOWN, ConfigError, DriverUnavailable, SessionError
from session_kit.headers import join_vary
from session_kit.manager import Cookies, ManagerOptions, Secrets, SessionManager, choose_manager
from session_kit.session import Session
from session_kit.state import Phase
from session_kit.store import SessionStore, UnstorageSessionStore

MANAGER = web.AppKey("session_kit.manager", SessionManager)
# aiohttp warns of plain text as a key since it has keys of its own, 3.14.
KEY: Any = web.RequestKey("session_kit.session", Session) if hasattr(web, "RequestKey") else "session_kit.session"
FAILED: Any = web.RequestKey("session_kit.failed", bool) if hasattr(web, "RequestKey") else "session_kit.failed"
"""Of a request whose handler has raised."""


def setup(
    app: web.Application,
    store: str | UnstorageSessionStore | SessionStore | None = None,
    secret: Secrets = (),
    *,
    manager: SessionManager | None = None,
    **options: Unpack[ManagerOptions],
) -> None:
    """Give the handlers of an application, and of its sub-applications, sessions.

    store, secret, options: as for `SessionManager`.
    manager: a ready one in place of these; it is not closed when the application is cleaned up.
    Raises `ConfigError` for anything that cannot work.

    A handler that raises has changed nothing; an `HTTPException` such as a redirect is an answer like any other; an
    answer of 5xx keeps nothing. What is changed after a streamed response or a WebSocket was prepared is saved at the
    end of the handler. A store that does not answer is a 503.

    After one line the `SessionIdentityPolicy` of aiohttp-security works on these sessions, as does what else imports
    `get_session` from aiohttp-session:
    `aiohttp_security.session_identity.get_session = session_kit.integrations.aiohttp.get_session`.

    aiohttp's test client asks 127.0.0.1 over plain http and needs `cookie=CookieOptions(secure=False)` here, and
    `cookie_jar=CookieJar(unsafe=True)` there.
    """
    if MANAGER in app:
        raise ConfigError("setup was called twice on this application; keep one")
    chosen = app[MANAGER] = choose_manager("setup", manager, store, secret, "app", **options)
    if manager is None:
        app.on_cleanup.append(_close)
    sessions = _Sessions(chosen)
    app.middlewares.insert(0, sessions.serve)
    app.on_response_prepare.append(sessions.commit)


async def get_session(request: web.BaseRequest, *, touch: bool = True) -> Session[Any]:
    """Return the session of a request, loaded.

    touch: False if this request shall not count as use of the session (`Session.load`). Default True.
    Raises `SessionError` if `setup` was not called, `DriverUnavailable` if the store does not answer.
    """
    session = request.get(KEY)
    if not isinstance(session, Session):
        raise SessionError("this request has no session; add: setup(app, store=..., secret=...)")
    return await session.aload(touch=touch)


class _Sessions:
    """What happens to the sessions of one application."""

    def __init__(self, manager: SessionManager) -> None:
        self._manager = manager

    @web.middleware
    async def serve(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        if KEY in request:
            raise ConfigError("setup was called on an application and on one that is mounted in it; keep the outer one")
        manager = self._manager
        session = request[KEY] = manager.open(_credentials(request, manager), asynchronous=True)
        lifecycle = session.lifecycle
        try:
            try:
                response = await handler(request)
            except web.HTTPException as answer:
                await self._end(request, session, answer)
                raise
            except Exception:
                if lifecycle.outage is not None:
                    raise lifecycle.outage from None  # whatever became of it on its way here
                raise
            if isinstance(response, web.StreamResponse):
                await self._end(request, session, response)
            else:
                manager.revert(session)  # aiohttp says what is wrong with it
            return response
        except DriverUnavailable:
            if lifecycle.phase is not Phase.AHEAD:
                raise
            headers = manager.refuse(session, _plain_host, request)
            raise web.HTTPServiceUnavailable(text=STORE_DOWN, headers=headers) from None
        except web.HTTPException:
            raise
        except BaseException as error:
            has_left = request.transport is None or request.transport.is_closing()
            if has_left and lifecycle.phase is Phase.BEGUN:  # the client: that is no failure
                await manager.afinish(session)
                raise
            manager.revert(session)
            if has_left or lifecycle.phase is not Phase.AHEAD or not isinstance(error, Exception):
                manager.finish(session)
            else:
                request[FAILED] = True  # aiohttp's 500 is still to be committed
            raise

    async def _end(self, request: web.Request, session: Session[Any], response: web.StreamResponse) -> None:
        """The handler has answered."""
        self._check_inner(response)
        if session.lifecycle.phase is Phase.AHEAD:
            # Here and not when it is prepared, so that an outage can still become another answer.
            await self._add_headers(request, session, response)
        await self._manager.afinish(session)

    def _check_inner(self, response: web.StreamResponse) -> None:
        """Refuse an answer in which other sessions have set a cookie of our name: each would undo the other."""
        name = self._manager.policy.cookie.name
        other = response.cookies.get(name)
        if other is not None and other.value:  # an empty one deletes the cookie
            raise ConfigError(
                f"other sessions set the same cookie {name!r}; take them away, or give these another name"
            )

    async def commit(self, request: web.Request, response: web.StreamResponse) -> None:
        """Before the first byte of a streamed response leaves, of a WebSocket, or of aiohttp's 500."""
        session = request.get(KEY)
        if session is not None and session.lifecycle.phase is Phase.AHEAD:
            try:
                await self._add_headers(request, session, response)
                if FAILED in request:
                    self._manager.finish(session)
            except DriverUnavailable:
                # Another answer will be written in its place, whole.
                writer: Any = request.writer
                writer.chunked, writer.length = False, None
                raise

    async def _add_headers(self, request: web.Request, session: Session[Any], response: web.StreamResponse) -> None:
        for name, value in await self._manager.acommit(session, response.status, _plain_host, request):
            if name == "Vary":
                response.headers[name] = join_vary(response.headers.getall(name, ()), value)
            else:
                response.headers.add(name, value)


def _credentials(request: web.Request, manager: SessionManager) -> Cookies:
    headers, header = request.headers, manager.policy.header
    cookies = [value.encode("utf-8", "surrogateescape") for value in headers.getall("Cookie", ())]
    return cookies if header is None else [*cookies, *header.pairs(headers.getall(header.name, ()))]


def _plain_host(request: web.Request) -> str | None:
    """The host that was asked for if the request came over plain http, else None."""
    return request.host if request.scheme == "http" else None


async def _close(app: web.Application) -> None:
    await app[MANAGER].aclose()
