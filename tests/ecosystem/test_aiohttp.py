"""Packages for aiohttp, which is called by its own server alone."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import aiohttp_flashbag
import aiohttp_security
import aiohttp_session
import pytest
from aiohttp import web
from harness.sessions import SECRET
from harness.sites import UnderAiohttp
from visitor import Visit, visits

from session_kit.integrations import aiohttp as integration

pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture
def visit() -> Iterator[Visit]:
    """By HTTP: it cannot be called in this process."""
    with visits(UnderAiohttp) as visit:
        yield visit


@pytest.fixture
def app(store: str | None, monkeypatch: pytest.MonkeyPatch) -> web.Application:
    app = web.Application()
    if store is None:
        aiohttp_session.setup(app, aiohttp_session.SimpleCookieStorage())
    else:
        integration.setup(app, store, SECRET)
        # The one line that our sessions need under these packages.
        for package in (aiohttp_security.session_identity, aiohttp_flashbag):
            monkeypatch.setattr(package, "get_session", integration.get_session)
    return app


def text(answer: Callable[[web.Request], Awaitable[Any]]) -> Callable[[web.Request], Awaitable[web.Response]]:
    async def handler(request: web.Request) -> web.Response:
        return web.Response(text=str(await answer(request)))

    return handler


@pytest.mark.package("aiohttp-security", "aiohttp")
def test_aiohttp_security(app: web.Application, visit: Visit) -> None:
    class Everybody(aiohttp_security.AbstractAuthorizationPolicy):  # type: ignore[misc]
        async def authorized_userid(self, identity: str) -> str:
            return identity

        async def permits(self, identity: str | None, permission: Any, context: Any = None) -> bool:
            return identity == "ada"

    async def login(request: web.Request) -> Any:
        response = web.HTTPFound("/me")
        await aiohttp_security.remember(request, response, "ada")
        raise response

    async def logout(request: web.Request) -> Any:
        response = web.Response()
        await aiohttp_security.forget(request, response)
        return response

    async def me(request: web.Request) -> Any:
        return await aiohttp_security.authorized_userid(request) or "nobody"

    async def secret(request: web.Request) -> Any:
        await aiohttp_security.check_permission(request, "read")
        return "secret"

    routes = [("/login", login), ("/logout", logout), ("/me", text(me)), ("/secret", text(secret))]
    app.add_routes([web.get(path, handler) for path, handler in routes])
    aiohttp_security.setup(app, aiohttp_security.SessionIdentityPolicy(), Everybody())
    ada = visit(app)
    assert ada.text("/me") == "nobody"
    assert ada.get("/secret").status_code == 401
    assert ada.get("/login").status_code == 302
    assert (ada.text("/me"), ada.text("/secret")) == ("ada", "secret")
    ada.text("/logout")
    assert ada.text("/me") == "nobody"


@pytest.mark.package("aiohttp-flashbag", "aiohttp")
def test_aiohttp_flashbag(app: web.Application, visit: Visit) -> None:
    async def say(request: web.Request) -> str:
        aiohttp_flashbag.flashbag_append(request, "notes", "hello")
        return "ok"

    async def said(request: web.Request) -> Any:
        return aiohttp_flashbag.flashbag_get(request, "notes", [])

    app.middlewares.append(aiohttp_flashbag.flashbag_middleware)
    app.add_routes([web.get("/say", text(say)), web.get("/said", text(said))])
    ada = visit(app)
    ada.text("/say")
    assert ada.text("/said") == "['hello']"
    assert ada.text("/said") == "[]"
