"""A header in place of the cookie, where frameworks differ: WebSockets, OpenAPI, Django's parts, other middleware."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import pytest
from aiohttp import CookieJar, web
from aiohttp.test_utils import TestClient as AiohttpClient
from aiohttp.test_utils import TestServer
from fastapi import Depends, FastAPI, WebSocket
from fastapi.testclient import TestClient
from litestar import Litestar, get
from litestar.openapi import OpenAPIConfig
from litestar.openapi.spec import Components, SecurityScheme
from quart import Quart, websocket
from starlette.applications import Starlette
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Mount, Route

from session_kit import ConfigError, DriverUnavailable, SessionManager, use_session
from session_kit.asgi import SessionMiddleware
from session_kit.integrations import aiohttp, litestar, quart
from session_kit.integrations.fastapi import Session, SessionHeader
from session_kit.testing import session_headers
from tests.harness.scripts import run_code
from tests.harness.sessions import SECRET
from tests.harness.visitors import ApiClient
from tests.harness.web_servers import FRAMEWORKS, SiteInProcess, WebServer

OWN = {"STORE": "memory://", "TRANSPORT": "both", "HEADER": "X-Session"}
SITES = [(name, "in process" in FRAMEWORKS[name].ways) for name in FRAMEWORKS]


@pytest.fixture
def manager() -> Iterator[SessionManager]:
    manager = SessionManager("memory://", SECRET, transport="header")
    yield manager
    manager.close()


# --- every framework reads the header by its name, also if it is empty ---


@pytest.mark.parametrize(("name", "in_process"), SITES, ids=FRAMEWORKS)
def test_a_header_of_ones_own_is_read_and_answered(name: str, in_process: bool, tmp_path: Path) -> None:
    with (SiteInProcess if in_process else WebServer)(FRAMEWORKS[name], OWN, tmp_path) as site:
        client = ApiClient(site, header="x-session")
        client.do("/write", key="user", value="ada")
        assert client.token != ""
        assert client.read("user") == "ada"
        assert client.request("GET", "/read", {"x-session": f"{client.token},{client.token}"}, key="user").json() == {
            "value": None
        }
        response = client.do("/logout")
        assert (client.token, response.headers["x-session"]) == ("", "")
        assert client.cookies == []


# --- WebSockets ---


def make_fastapi(manager: SessionManager) -> FastAPI:
    app = FastAPI()
    app.add_middleware(SessionMiddleware, manager=manager)

    @app.websocket("/socket")
    async def socket(socket: WebSocket, session: Annotated[Session[Any], Depends(SessionHeader())]) -> None:
        before = session.get("user")
        session["user"] = "ada"
        await socket.accept()
        await socket.send_json(before)
        await socket.close()

    @app.get("/me")
    async def me(session: Annotated[Session[Any], Depends(SessionHeader("X-Token", scheme_name="mine"))]) -> str:
        return str(session.get("user"))

    return app


def test_a_new_session_is_told_when_a_websocket_is_accepted(manager: SessionManager) -> None:
    client = TestClient(make_fastapi(manager))
    with client.websocket_connect("/socket") as socket:
        assert socket.receive_json() is None
        told = {name.decode(): value.decode() for name, value in socket.extra_headers}
    assert told.keys() == {"vary", "session", "cache-control"}
    with client.websocket_connect("/socket", headers={"Authorization": f"Session {told['session']}"}) as socket:
        assert socket.receive_json() == "ada"
        assert {name for name, _ in socket.extra_headers} == {b"vary"}
    assert client.cookies == {}


def test_aiohttp_reads_the_header_of_a_websocket_and_answers_it(manager: SessionManager) -> None:
    async def socket(request: web.Request) -> web.WebSocketResponse:
        session = await aiohttp.get_session(request)
        before, session["user"] = session.get("user"), "ada"
        response = web.WebSocketResponse()
        await response.prepare(request)
        await response.send_json(before)
        await response.close()
        return response

    async def main() -> None:
        app = web.Application()
        app.router.add_get("/socket", socket)
        aiohttp.setup(app, manager=manager)
        async with AiohttpClient(TestServer(app), cookie_jar=CookieJar(unsafe=True)) as client:
            async with client.ws_connect("/socket") as connection:
                assert await connection.receive_json() is None
                token = connection._response.headers["Session"]
            async with client.ws_connect("/socket", headers={"Authorization": f"Session {token}"}) as connection:
                assert await connection.receive_json() == "ada"
                assert "Session" not in connection._response.headers
            assert not list(client.session.cookie_jar)

    asyncio.run(main())


def test_quart_reads_the_header_of_a_websocket(manager: SessionManager) -> None:
    app = Quart("test")
    quart.SessionKit(app, manager=manager)

    @app.websocket("/socket")
    async def socket() -> None:
        await websocket.send(str(quart.session.get("user")))

    async def main() -> None:
        headers = session_headers(manager, user="ada")
        async with app.test_client().websocket("/socket", headers=headers) as connection:
            assert await connection.receive() == "ada"

    asyncio.run(main())


# --- OpenAPI ---


def test_fastapi_shows_a_lock(manager: SessionManager) -> None:
    client = TestClient(make_fastapi(manager))
    schema = client.get("/openapi.json").json()
    [name] = schema["components"]["securitySchemes"]
    scheme = schema["components"]["securitySchemes"][name]
    assert (name, scheme["type"], scheme["in"], scheme["name"]) == ("mine", "apiKey", "header", "X-Token")
    assert "X-Token" in scheme["description"]
    operation = schema["paths"]["/me"]["get"]
    assert operation["security"] == [{"mine": []}]
    assert "parameters" not in operation
    assert client.get("/me", headers=session_headers(manager, user="ada")).json() == "ada"


def test_litestar_knows_the_scheme_and_leaves_the_configuration_that_it_was_given(manager: SessionManager) -> None:
    @get("/me", security=[{"session": []}])
    async def me() -> str:
        return "ada"

    other = Components(security_schemes={"other": SecurityScheme(type="http", scheme="basic")})
    given = OpenAPIConfig("Shop", "1", components=other)
    for _ in range(2):
        app = Litestar([me], plugins=[litestar.SessionKit(manager=manager)], openapi_config=given)
        schema = app.openapi_schema.to_schema()
        schemes = schema["components"]["securitySchemes"]
        assert schemes.keys() == {"other", "session"}
        scheme = schemes["session"]
        assert (scheme["type"], scheme["in"], scheme["name"]) == ("apiKey", "header", "Authorization")
        assert "Session <token>" in scheme["description"]
        assert schema["paths"]["/me"]["get"]["security"] == [{"session": []}]
    assert given.components is other
    for config in (None, OpenAPIConfig("Shop", "1")):
        cookies = Litestar([me], plugins=[litestar.SessionKit("memory://", SECRET)], openapi_config=config)
        if config is not None:
            assert "securitySchemes" not in cookies.openapi_schema.to_schema()["components"]


# --- between other middleware ---


async def whoami(request: Request) -> PlainTextResponse:
    return PlainTextResponse(str((await use_session(request)).get("user")))


async def login(request: Request) -> PlainTextResponse:
    (await use_session(request))["user"] = "ada"
    return PlainTextResponse("ok")


def test_a_page_of_another_origin_can_send_and_read_the_header_as_documented(manager: SessionManager) -> None:
    app = Starlette(routes=[Route("/login", login, methods=["POST"])])
    app.add_middleware(SessionMiddleware, manager=manager)
    app.add_middleware(
        CORSMiddleware,
        allow_origins=["https://app.example"],
        allow_methods=["POST"],
        allow_headers=["Authorization"],
        expose_headers=["Session"],
    )
    client, origin = TestClient(app), {"Origin": "https://app.example"}
    asked = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "authorization"}
    preflight = client.options("/login", headers={**origin, **asked})
    assert preflight.status_code == 200
    assert "authorization" in preflight.headers["access-control-allow-headers"].lower()
    answer = client.post("/login", headers={**origin, "Authorization": "Session"})
    assert answer.headers["access-control-expose-headers"] == "Session"
    assert answer.headers["session"]
    vary = answer.headers["vary"].lower()
    assert "authorization" in vary
    assert "origin" in vary


def test_two_middlewares_do_not_read_the_same_header(manager: SessionManager) -> None:
    def nested(**options: Any) -> TestClient:
        inner = Starlette(routes=[Route("/", whoami)])
        inner.add_middleware(SessionMiddleware, store="memory://", secret=SECRET, name="other", **options)
        outer = Starlette(routes=[Mount("/inner", inner)])
        outer.add_middleware(SessionMiddleware, manager=manager)
        return TestClient(outer)

    with pytest.raises(ConfigError, match=r"two session middlewares read the header 'Authorization'"):
        nested(transport="both").get("/inner/")
    assert nested(transport="both", header="X-Session").get("/inner/").text == "None"
    assert nested().get("/inner/").text == "None"


def test_a_logout_before_an_outage_is_told(manager: SessionManager) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        session = await use_session(scope)
        await session.adestroy()
        raise DriverUnavailable("down")

    client = TestClient(SessionMiddleware(app, manager=manager))
    answer = client.get("/", headers=session_headers(manager, user="ada"))
    assert (answer.status_code, answer.headers["session"]) == (503, "")
    assert answer.headers["cache-control"] == "no-store"


# --- Django, whose settings belong to a process ---

DJANGO = """
import django
from django import conf
from django.http import HttpResponse
from django.urls import path


def write(request):
    request.session["user"] = "ada"
    return HttpResponse(request.session.session.transport)


def read(request):
    return HttpResponse(request.session.get("user", "nobody"))


urlpatterns = [path("write", write), path("read", read)]
conf.settings.configure(
    ALLOWED_HOSTS=["*"],
    ROOT_URLCONF=__name__,
    SECRET_KEY="Kx7-not-for-production-but-long-enough-0123",
    INSTALLED_APPS=["session_kit.integrations.django"],
    SESSION_ENGINE="session_kit.integrations.django",
    SESSION_KIT={"store": "memory://", "transport": "header"},
    MIDDLEWARE=[MIDDLEWARE],
)
django.setup()

from django.core.checks import run_checks
from django.test import Client
from django.test.utils import setup_test_environment
from session_kit.integrations.django.settings import manager
from session_kit.testing import session_headers

setup_test_environment()
client = Client()
"""
OURS = """
assert [found.id for found in run_checks()] == []
answer = client.get("/write")
assert (answer.content, answer.cookies) == (b"header", {})
assert answer["Vary"] == "Authorization"
token = {"Authorization": f"Session {answer['Session']}"}
assert client.get("/read", headers=token).content == b"ada"
assert client.get("/read", headers=session_headers(manager(), user="eve")).content == b"eve"
assert client.get("/read").content == b"nobody"
"""
THEIRS = """
assert [found.id for found in run_checks()] == ["session_kit.W005"]
answer = client.get("/write")
assert answer.content == b"cookie"  # no header has carried it: forged requests are to be looked for
assert client.get("/read").content == b"ada"
"""


@pytest.mark.parametrize(
    ("middleware", "play"),
    [
        ("session_kit.integrations.django.SessionMiddleware", OURS),
        ("django.contrib.sessions.middleware.SessionMiddleware", THEIRS),
    ],
    ids=["ours", "theirs"],
)
def test_django_reads_the_header_by_our_middleware_alone(middleware: str, play: str) -> None:
    code = DJANGO.replace("MIDDLEWARE=[MIDDLEWARE]", f"MIDDLEWARE=[{middleware!r}]") + play
    run_code(code)
