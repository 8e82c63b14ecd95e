"""No shared cache mixes visitors up: an answer says what it depends on in one `Vary`, beside what the application says.

nginx before 1.23 goes by the last line alone, and middlewares of Starlette before 1.9 by the first.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import flask
import httpx
import pytest
import quart
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer
from litestar import Litestar, Request, Response, get
from litestar.config.cors import CORSConfig
from pyramid.config import Configurator
from pyramid.response import Response as PyramidResponse
from starlette.applications import Starlette
from starlette.responses import JSONResponse
from starlette.routing import Route

from session_kit.asgi import SessionMiddleware as Asgi
from session_kit.headers import join_headers, join_vary
from session_kit.integrations import aiohttp as for_aiohttp
from session_kit.integrations import flask as for_flask
from session_kit.integrations import litestar as for_litestar
from session_kit.integrations import pyramid as for_pyramid
from session_kit.integrations import quart as for_quart
from session_kit.wsgi import SessionMiddleware as Wsgi
from tests.harness.sessions import SECRET
from tests.harness.sites import InProcess

# As two of its own lines, where the framework lets it.
OWN = [("Vary", "Accept-Language"), ("Vary", "Origin")]
SENT = {"cookie": "Cookie", "header": "Authorization", "both": "Cookie, Authorization"}


def bare_asgi(**options: Any) -> Any:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        scope["session"].get("user")
        headers = [(name.lower().encode(), value.encode()) for name, value in OWN]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": b""})

    return Asgi(app, **options)


def starlette(**options: Any) -> Any:
    def view(request: Any) -> Any:
        request.session.get("user")
        response = JSONResponse(None)
        for header in OWN:
            response.headers.append(*header)
        return response

    app = Starlette(routes=[Route("/", view)])
    app.add_middleware(Asgi, **options)
    return app


def litestar(**options: Any) -> Any:
    @get("/", sync_to_thread=False)
    def view(request: Request[Any, Any, Any]) -> Response[None]:
        request.session.get("user")
        return Response(None, headers={"Vary": "Accept-Language, Origin"})

    return Litestar([view], plugins=[for_litestar.SessionKit(**options)])


def bare_wsgi(**options: Any) -> Any:
    def app(environ: Any, start_response: Any) -> Any:
        environ["session_kit.session"].get("user")
        start_response("200 OK", OWN)
        return []

    return Wsgi(app, **options)


def flask_app(**options: Any) -> Any:
    app = flask.Flask(__name__)
    for_flask.SessionKit(app, **options)

    @app.get("/")
    def view() -> Any:
        flask.session.get("user")
        return flask.Response(headers=OWN)

    return app


def quart_app(**options: Any) -> Any:
    app = quart.Quart(__name__)
    for_quart.SessionKit(app, **options)

    @app.get("/")
    async def view() -> Any:
        quart.session.get("user")
        response = quart.Response("")
        response.headers.extend(OWN)
        return response

    return app


def pyramid(**options: Any) -> Any:
    def view(request: Any) -> Any:
        request.session.get("user")
        return PyramidResponse(headerlist=[*OWN, ("Content-Type", "text/plain")])

    with Configurator() as config:
        config.set_session_factory(for_pyramid.session_factory(**options))
        config.add_route("home", "/")
        config.add_view(view, route_name="home")
        return config.make_wsgi_app()


APPS = [bare_asgi, starlette, litestar, bare_wsgi, flask_app, quart_app, pyramid]


@pytest.mark.parametrize("transport", SENT)
@pytest.mark.parametrize("make", APPS, ids=lambda make: make.__name__)
def test_a_cache_that_reads_one_line_is_told_all(make: Callable[..., Any], transport: str) -> None:
    with InProcess(make(store="memory://", secret=SECRET, transport=transport)) as site:
        headers = httpx.Client(transport=site.transport, base_url=site.url).get("/").headers
    assert headers.get_list("vary") == [f"Accept-Language, Origin, {SENT[transport]}"]


@pytest.mark.parametrize("transport", SENT)
def test_a_cache_in_front_of_aiohttp_that_reads_one_line_is_told_all(transport: Any) -> None:
    async def view(request: web.Request) -> web.Response:
        (await for_aiohttp.get_session(request)).get("user")
        response = web.Response()
        response.headers.extend(OWN)
        return response

    async def vary() -> list[str]:
        app = web.Application()
        app.router.add_get("/", view)
        for_aiohttp.setup(app, store="memory://", secret=SECRET, transport=transport)
        async with TestClient(TestServer(app)) as client, client.get("/") as response:
            return list(response.headers.getall("Vary"))

    assert asyncio.run(vary()) == [f"Accept-Language, Origin, {SENT[transport]}"]


@pytest.mark.parametrize("transport", SENT)
@pytest.mark.parametrize("origins", [["https://app.example"], ["*"]])
def test_litestars_cors_leaves_a_cache_no_page_of_somebody_else(transport: str, origins: list[str]) -> None:
    @get("/", sync_to_thread=False)
    def view(request: Request[Any, Any, Any]) -> str:
        return str(request.session.get("user", "nobody"))

    @get("/untouched", sync_to_thread=False)
    def untouched() -> str:
        return "all"

    sessions: Any = for_litestar.SessionKit("memory://", SECRET, transport=transport)
    cors = CORSConfig(allow_origins=origins, allow_credentials=True)
    with InProcess(Litestar([view, untouched], plugins=[sessions], cors_config=cors)) as site:
        client = httpx.Client(transport=site.transport, base_url=site.url)
        for sent in ({}, {"Origin": "https://app.example"}, {"Origin": "https://app.example", "Cookie": "a=1"}):
            said = client.get("/", headers=sent).headers.get("vary", "").split(", ")
            assert {*SENT[transport].split(", ")} <= {*said}
            assert "Cookie" not in client.get("/untouched", headers=sent).headers.get("vary", "")


def test_a_vary_is_said_once_however_it_is_written() -> None:
    assert join_vary(["accept-encoding,COOKIE ,", ""], "Cookie") == "accept-encoding, COOKIE"
    assert join_vary(["*"], "Cookie") == "*, Cookie"
    assert join_headers([("vary", "A"), ("X", "1"), ("VARY", "B")], [("Vary", "Cookie"), ("Set-Cookie", "a=1")]) == [
        *[("X", "1"), ("Vary", "A, B, Cookie"), ("Set-Cookie", "a=1")]
    ]
    assert join_headers([("Vary", "A"), ("Vary", "B")], []) == [("Vary", "A"), ("Vary", "B")]
