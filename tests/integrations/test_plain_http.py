"""The cookie is `Secure`, but a test client that asks a test host over plain http still gets its session back."""

from __future__ import annotations

import logging
from typing import Any

import httpx
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route
from starlette.testclient import TestClient

from session_kit import CookieOptions, SessionManager
from session_kit.asgi import SessionMiddleware
from session_kit.cookie import is_test_host
from session_kit.manager import plain_host_of
from tests.harness.sessions import SECRET


def visits(request: Request) -> JSONResponse:
    request.session.update(lambda data: {"visits": data.get("visits", 0) + 1})
    return JSONResponse(request.session["visits"])


def make_app(**options: Any) -> Starlette:
    app = Starlette(routes=[Route("/", visits)])
    app.add_middleware(SessionMiddleware, store="memory://", secret=SECRET, **options)
    return app


def test_the_first_test_with_a_test_client_keeps_its_session() -> None:
    client = TestClient(make_app())
    first = client.get("/")
    assert "Secure" not in first.headers["set-cookie"]
    assert "HttpOnly" in first.headers["set-cookie"]
    assert client.get("/").json() == 2


@pytest.mark.parametrize("host", ["testserver", "test", "shop.test:8000", "testserver.local", "TESTSERVER"])
def test_hosts_that_can_only_be_a_test(host: str) -> None:
    assert is_test_host(host)


@pytest.mark.parametrize(
    "host",
    ["", "localhost", "127.0.0.1:8000", "[::1]:80", "example.com", "test.example.com", "testserver.com", "attest"],
)
def test_hosts_that_may_be_real(host: str) -> None:
    assert not is_test_host(host)


@pytest.mark.parametrize(
    ("name", "cookie"),
    [
        ("__Host-session", CookieOptions()),
        ("__Secure-session", CookieOptions()),
        ("session", CookieOptions(samesite="none")),
        ("session", CookieOptions(partitioned=True)),
    ],
)
def test_a_developers_host_behind_a_proxy_with_tls_gets_a_cookie_that_browsers_keep(
    name: str, cookie: CookieOptions
) -> None:
    def first(host: str) -> str:
        client = TestClient(make_app(name=name, cookie=cookie), base_url=f"http://{host}")
        return str(client.get("/").headers["set-cookie"])

    assert "; Secure" in first("shop.test")
    assert "SameSite=None" in first("shop.test") or cookie.samesite == "lax"
    assert "Partitioned" in first("shop.test") or not cookie.partitioned
    assert "; Secure" not in first("testserver")


def test_over_https_the_cookie_is_secure_whatever_the_host() -> None:
    client = TestClient(make_app(), base_url="https://testserver")
    assert "Secure" in client.get("/").headers["set-cookie"]


def test_elsewhere_the_cookie_is_secure_and_a_warning_says_so_once(caplog: pytest.LogCaptureFixture) -> None:
    app = make_app()
    with caplog.at_level(logging.WARNING, "session_kit"):
        for _ in range(3):
            client = TestClient(app, base_url="http://shop.example.com")
            assert "Secure" in client.get("/").headers["set-cookie"]
    assert len([record for record in caplog.records if "plain http" in record.message]) == 1
    assert "shop.example.com" not in caplog.text


def test_no_warning_where_the_options_are_for_plain_http(caplog: pytest.LogCaptureFixture) -> None:
    client = TestClient(make_app(cookie=CookieOptions(secure=False)), base_url="http://localhost:8000")
    client.get("/")
    assert client.get("/").json() == 2
    assert [record for record in caplog.records if record.name == "session_kit"] == []


def test_a_logout_deletes_the_cookie_of_a_test_client() -> None:
    manager = SessionManager("memory://", SECRET)
    session = manager.open()
    session["a"] = 1
    created = dict(manager.commit(session, plain_host=lambda: "testserver"))["Set-Cookie"]
    session = manager.open(created.split(";")[0])
    session.destroy()
    deleted = dict(manager.commit(session, plain_host=lambda: "testserver"))["Set-Cookie"]
    assert "Secure" not in created + deleted
    assert "Max-Age=0" in deleted


def test_attributes_that_need_secure_go_with_it() -> None:
    options = CookieOptions(samesite="none", partitioned=True)
    manager = SessionManager("memory://", SECRET, cookie=options)
    session = manager.open()
    session["a"] = 1
    cookie = dict(manager.commit(session, plain_host=lambda: "testserver"))["Set-Cookie"]
    assert "SameSite=Lax" in cookie
    assert not {"Secure", "Partitioned", "SameSite=None"} & set(cookie.split("; "))


async def ask(client: httpx.AsyncClient) -> int:
    await client.get("/")
    return int((await client.get("/")).text)


def test_httpx_against_the_host_that_its_documentation_shows() -> None:
    import asyncio

    async def main() -> int:
        transport = httpx.ASGITransport(app=make_app())
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            return await ask(client)

    assert asyncio.run(main()) == 2


def test_webtest_keeps_its_session_in_any_wsgi_application() -> None:
    asked = {"wsgi.url_scheme": "http", "HTTP_HOST": "localhost:80"}
    assert plain_host_of(asked) == "localhost:80"
    assert plain_host_of({**asked, "paste.testing": True}) == "testserver"
    assert plain_host_of({**asked, "paste.testing": True, "wsgi.url_scheme": "https"}) is None
