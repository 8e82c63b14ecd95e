"""Packages that people run on Flask's sessions, first on Flask's own, then on ours. `tests/ecosystem/run-flask`."""

from __future__ import annotations

import asyncio
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from flask import Flask, redirect, render_template_string, session

from session_kit.integrations.flask import SessionKit

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]

SECRET = "Kx7-not-for-production-but-long-enough-0123"


@pytest.fixture(params=["Flask's own", "ours"])
def app(request: pytest.FixtureRequest) -> Flask:
    app = Flask("shop")
    app.secret_key, app.testing = SECRET, True
    if request.param == "ours":
        SessionKit(app, "memory://")
    return app


# --- Flask-Login ---


def add_login(app: Flask, protection: str) -> None:
    flask_login = pytest.importorskip("flask_login")
    manager = flask_login.LoginManager(app)
    manager.session_protection = protection

    class User(flask_login.UserMixin):
        def __init__(self, name: str) -> None:
            self.id = name

    manager.user_loader(User)
    app.add_url_rule("/login", "login", lambda: str(flask_login.login_user(User("ada"))))
    app.add_url_rule("/logout", "logout", lambda: str(flask_login.logout_user()))
    app.add_url_rule("/me", "me", lambda: flask_login.current_user.get_id() or "nobody")

    @app.get("/secret")
    @flask_login.fresh_login_required
    def secret() -> str:
        return "secret"


def test_flask_login_logs_in_and_out(app: Flask) -> None:
    add_login(app, "basic")
    client = app.test_client()
    assert client.get("/me").text == "nobody"
    assert client.get("/login").status_code == 200
    assert (client.get("/me").text, client.get("/secret").text) == ("ada", "secret")
    client.get("/logout")
    assert client.get("/me").text == "nobody"
    assert client.get("/secret").status_code == 401


def test_flask_logins_strong_protection_ends_a_session_that_changes_hands(app: Flask) -> None:
    add_login(app, "strong")
    client = app.test_client()
    client.get("/login", headers={"User-Agent": "hers"})
    assert client.get("/me", headers={"User-Agent": "hers"}).text == "ada"
    assert client.get("/me", headers={"User-Agent": "another"}).text == "nobody"
    assert client.get("/me", headers={"User-Agent": "hers"}).text == "nobody"


def test_a_login_of_flask_login_ends_with_the_browser(app: Flask) -> None:
    add_login(app, "basic")
    header = app.test_client().get("/login").headers["Set-Cookie"]
    assert "Max-Age" not in header
    assert "Expires" not in header


# --- Flask-WTF ---


def test_flask_wtf_knows_its_own_tokens(app: Flask) -> None:
    flask_wtf = pytest.importorskip("flask_wtf")
    flask_wtf.CSRFProtect(app)
    app.add_url_rule("/form", "form", lambda: render_template_string("{{ csrf_token() }}"))
    app.add_url_rule("/form", "send", lambda: "sent", methods=["POST"])
    client = app.test_client()
    token = client.get("/form").text
    assert client.post("/form").status_code == 400
    assert client.post("/form", data={"csrf_token": token}).text == "sent"
    other = app.test_client()
    other.get("/form")
    assert other.post("/form", data={"csrf_token": token}).status_code == 400


# --- Flask-Principal ---


def test_flask_principal_keeps_the_identity(app: Flask) -> None:
    principal = pytest.importorskip("flask_principal")
    principal.Principal(app)

    def change(name: str | None) -> str:
        identity = principal.Identity(name) if name else principal.AnonymousIdentity()
        principal.identity_changed.send(app, identity=identity)
        return "ok"

    app.add_url_rule("/login", "login", lambda: change("ada"))
    app.add_url_rule("/logout", "logout", lambda: change(None))
    app.add_url_rule("/me", "me", lambda: str(getattr(principal.g, "identity", None) and principal.g.identity.id))
    client = app.test_client()
    client.get("/login")
    assert client.get("/me").text == "ada"
    client.get("/logout")
    assert client.get("/me").text == "None"


# --- Flask-DebugToolbar ---


def test_flask_debugtoolbar_shows_and_intercepts(app: Flask) -> None:
    toolbar = pytest.importorskip("flask_debugtoolbar")
    app.debug = True
    app.config.update(DEBUG_TB_INTERCEPT_REDIRECTS=True, DEBUG_TB_ENABLED=True)
    toolbar.DebugToolbarExtension(app)

    def visit() -> str:
        session["user"] = "ada"
        return render_template_string("<html><body>{{ session.user }}</body></html>")

    app.add_url_rule("/page", "page", visit)
    app.add_url_rule("/away", "away", lambda: redirect("/page"))
    client = app.test_client()
    for _ in range(2):
        response = client.get("/page")
        assert response.status_code == 200
        assert "ada" in response.text
        assert "flDebug" in response.text
    assert client.get("/away").status_code == 200


# --- Authlib ---


def test_authlib_logs_in_by_a_provider(app: Flask, monkeypatch: pytest.MonkeyPatch) -> None:
    authlib = pytest.importorskip("authlib.integrations.flask_client")
    oauth = authlib.OAuth(app)
    provider = oauth.register(
        "provider",
        client_id="shop",
        client_secret=SECRET,
        access_token_url="https://id.test/token",
        authorize_url="https://id.test/authorize",
        client_kwargs={"code_challenge_method": "S256"},
    )
    asked: list[dict[str, Any]] = []

    def fetch(self: Any, url: str, **params: Any) -> dict[str, Any]:
        asked.append(params)
        return {"access_token": "token", "token_type": "bearer"}

    monkeypatch.setattr(provider.client_cls, "fetch_token", fetch)

    def callback() -> str:
        provider.authorize_access_token()
        session["user"] = "ada"
        return "ok"

    app.add_url_rule("/login", "login", lambda: provider.authorize_redirect("https://shop.test/callback"))
    app.add_url_rule("/callback", "callback", callback)
    app.add_url_rule("/me", "me", lambda: session.get("user", "nobody"))
    client = app.test_client()
    there = parse_qs(urlsplit(client.get("/login").headers["Location"]).query)
    back = {"code": "code", "state": there["state"][0]}
    client.get("/callback", query_string=back)
    assert asked[0]["code_verifier"]
    assert client.get("/me").text == "ada"
    with pytest.raises(Exception, match="mismatching_state"):
        app.test_client().get("/callback", query_string=back)


# --- aiohttp-security ---


@pytest.mark.parametrize("ours", [False, True])
def test_aiohttp_securitys_session_identity_policy(ours: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    security = pytest.importorskip("aiohttp_security")
    aiohttp_session = pytest.importorskip("aiohttp_session")
    from aiohttp import CookieJar, web
    from aiohttp.test_utils import TestClient, TestServer

    from session_kit import CookieOptions
    from session_kit.integrations import aiohttp as integration

    async def login(request: Any) -> Any:
        response = web.Response()
        await security.remember(request, response, "ada")
        return response

    async def logout(request: Any) -> Any:
        response = web.Response()
        await security.forget(request, response)
        return response

    async def me(request: Any) -> Any:
        return web.Response(text=await security.authorized_userid(request) or "nobody")

    class Everybody(security.AbstractAuthorizationPolicy):  # type: ignore[misc,name-defined]
        async def authorized_userid(self, identity: str) -> str:
            return identity

        async def permits(self, identity: str | None, permission: Any, context: Any = None) -> bool:
            return True

    async def main() -> None:
        app = web.Application()
        app.add_routes([web.get("/login", login), web.get("/logout", logout), web.get("/me", me)])
        if ours:
            integration.setup(app, "memory://", SECRET, cookie=CookieOptions(secure=False))
            monkeypatch.setattr(security.session_identity, "get_session", integration.get_session)
        else:
            aiohttp_session.setup(app, aiohttp_session.SimpleCookieStorage())
        security.setup(app, security.SessionIdentityPolicy(), Everybody())
        async with TestClient(TestServer(app), cookie_jar=CookieJar(unsafe=True)) as client:
            names = []
            for path in ("/me", "/login", "/me", "/logout", "/me"):
                response = await client.get(path)
                names.append(await response.text())
            assert names == ["nobody", "", "ada", "", "nobody"]

    asyncio.run(main())
