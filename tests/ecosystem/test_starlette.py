"""Packages for Starlette and FastAPI: each is logged into, used and logged out of."""

from __future__ import annotations

import sys
from collections.abc import Awaitable, Callable, Iterator
from contextlib import closing
from http.client import HTTPConnection
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from fastapi import FastAPI
from harness.servers import Server
from harness.sessions import SECRET
from harness.sites import InProcess, RunningSite
from provider import CLIENT_ID, CLIENT_SECRET, Provider
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.sessions import SessionMiddleware as StarlettesMiddleware
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, PlainTextResponse, Response
from starlette.routing import Route
from visitor import STORES, Form, Visit, Visitor

from session_kit import ConfigError
from session_kit.asgi import SessionMiddleware

pytestmark = pytest.mark.filterwarnings("ignore")


def sessions(store: str | None, name: str = "session") -> Middleware:
    """Starlette's own session middleware, or ours."""
    if store is None:
        return Middleware(StarlettesMiddleware, secret_key=SECRET, session_cookie=name)
    return Middleware(SessionMiddleware, store=store, secret=SECRET, name=name)


def text(answer: Callable[[Request], Awaitable[Any]]) -> Callable[[Request], Awaitable[Response]]:
    """A handler that answers with a text."""

    async def handler(request: Request) -> Response:
        return PlainTextResponse(str(await answer(request)))

    return handler


async def user_of(request: Request) -> str:
    return str(request.session.get("user", "nobody"))


async def log_out(request: Request) -> str:
    request.session.clear()
    return "ok"


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Any]:
    """A database of its own."""
    import sqlalchemy

    engine = sqlalchemy.create_engine(f"sqlite:///{tmp_path}/database")
    yield engine
    engine.dispose()


def make_apple(engine: Any) -> Any:
    """A model with its table."""
    import sqlalchemy
    from sqlalchemy.orm import declarative_base

    class Apple(declarative_base()):  # type: ignore[misc]
        __tablename__ = "apple"
        id = sqlalchemy.Column(sqlalchemy.Integer, primary_key=True)
        kind = sqlalchemy.Column(sqlalchemy.String(20))

    Apple.metadata.create_all(engine)
    return Apple


# --- sqladmin ---


def add_sqladmin(app: Any, engine: Any, middlewares: list[Middleware] | None) -> None:
    """middlewares: sqladmin's own for sessions if None."""
    from sqladmin import Admin, ModelView
    from sqladmin.authentication import AuthenticationBackend

    class Backend(AuthenticationBackend):
        async def login(self, request: Request) -> bool:
            form = await request.form()
            if form["password"] == "pw":
                request.session["user"] = form["username"]
            return form["password"] == "pw"

        async def logout(self, request: Request) -> bool:
            request.session.clear()
            return True

        async def authenticate(self, request: Request) -> bool:
            return "user" in request.session

    apple = make_apple(engine)

    class Apples(ModelView, model=apple):
        column_list = (apple.kind,)

    backend = Backend(SECRET)
    if middlewares is not None:
        backend.middlewares = middlewares
    Admin(app, engine, authentication_backend=backend).add_view(Apples)


@pytest.mark.package("sqladmin", "starlette")
@pytest.mark.parametrize("place", ["the admin's", "the application's"])
def test_sqladmin(store: str | None, visit: Visit, engine: Any, place: str) -> None:
    outside = place == "the application's"
    app = Starlette(routes=[Route("/me", text(user_of))], middleware=[sessions(store)] if outside else [])
    add_sqladmin(app, engine, [] if outside else [sessions(store)])
    ada = visit(app)
    assert ada.get("/admin/apple/list").status_code == 302
    assert ada.post("/admin/login", data={"username": "ada", "password": "wrong"}).status_code == 400
    assert ada.post("/admin/login", data={"username": "ada", "password": "pw"}).status_code == 302
    assert ada.post("/admin/apple/create", data={"kind": "boskoop"}).status_code == 302
    assert "boskoop" in ada.text("/admin/apple/list")
    if outside:
        assert ada.text("/me") == "ada"
    assert ada.get("/admin/logout").status_code == 302
    assert ada.get("/admin/apple/list").status_code == 302


@pytest.mark.package("sqladmin", "starlette")
@pytest.mark.parametrize("store", STORES, indirect=True)
def test_sqladmins_own_sessions_beside_ours(store: str, visit: Visit, engine: Any) -> None:
    app = Starlette(routes=[Route("/me", text(user_of))], middleware=[sessions(store, "sid")])
    add_sqladmin(app, engine, None)
    ada = visit(app)
    ada.post("/admin/login", data={"username": "ada", "password": "pw"})
    assert ada.get("/admin/apple/list").status_code == 200
    assert ada.text("/me") == "nobody"
    ada.get("/admin/logout")
    assert ada.get("/admin/apple/list").status_code == 302


def test_sqladmins_own_sessions_under_our_cookies_name_are_one_clear_error(engine: Any) -> None:
    app = Starlette(middleware=[sessions("memory://")])
    add_sqladmin(app, engine, None)
    match = r"inside this one sets the same cookie 'session'; give this one another"
    with InProcess(app) as site, pytest.raises(ConfigError, match=match):
        Visitor(site).post("/admin/login", data={"username": "ada", "password": "pw"})


# --- others ---


@pytest.mark.package("starlette-admin", "starlette")
def test_starlette_admin(store: str | None, visit: Visit, engine: Any) -> None:
    from starlette_admin.auth import AdminUser, AuthProvider
    from starlette_admin.contrib.sqla import Admin, ModelView
    from starlette_admin.exceptions import LoginFailed

    class Provider(AuthProvider):
        async def login(self, username: str, password: str, remember_me: bool, request: Request) -> None:
            if password != "pw":
                raise LoginFailed("no")
            request.session.update({"user": username})

        async def authenticate(self, request: Request) -> AdminUser | None:
            return AdminUser(username=request.session["user"]) if "user" in request.session else None

        async def logout(self, request: Request) -> None:
            request.session.clear()

    app = Starlette()
    admin = Admin(engine, auth_provider=Provider(), middlewares=[sessions(store)], secret_key=SECRET)
    admin.add_view(ModelView(make_apple(engine)))
    admin.mount_to(app)
    ada = visit(app)
    assert ada.get("/admin/apple/list").status_code in (302, 303, 307)
    assert ada.submit("/admin/login", username="ada", password="wrong").status_code in (400, 422)
    assert ada.submit("/admin/login", username="ada", password="pw").status_code == 303
    assert ada.submit("/admin/apple/create", kind="boskoop").status_code == 303
    assert ada.get("/admin/apple/list").status_code == 200
    token = Form(ada.text("/admin/apple/create")).hidden
    assert ada.post("/admin/logout", data=token).status_code == 303
    assert ada.get("/admin/apple/list").status_code in (302, 303, 307)


@pytest.mark.package("Authlib", "starlette")
def test_authlib(store: str | None, visit: Visit, provider: Provider) -> None:
    from authlib.integrations.base_client import OAuthError
    from authlib.integrations.starlette_client import OAuth

    client = OAuth().register(
        "provider",
        client_id=CLIENT_ID,
        client_secret=CLIENT_SECRET,
        server_metadata_url=f"{provider.url}/.well-known/openid-configuration",
        client_kwargs={"scope": "openid", "code_challenge_method": "S256"},
    )

    async def login(request: Request) -> Any:
        return await client.authorize_redirect(request, str(request.url_for("callback")))

    async def callback(request: Request) -> Response:
        try:
            token = await client.authorize_access_token(request)
        except OAuthError as error:
            return PlainTextResponse(str(error), 400)
        request.session["user"] = token["userinfo"]["name"]
        return PlainTextResponse("ok")

    routes = [
        Route("/login", login),
        Route("/callback", callback, name="callback"),
        Route("/me", text(user_of)),
        Route("/logout", text(log_out)),
    ]
    app = Starlette(routes=routes, middleware=[sessions(store)])
    ada, eve = visit(app), visit(app)
    back = ada.log_in_at_provider(ada.get("/login"))
    assert back.text == "ok"
    assert ada.text("/me") == "ada"
    stolen = eve.get(f"/callback?{urlsplit(str(back.url)).query}")
    assert stolen.status_code == 400
    assert "mismatching_state" in stolen.text
    ada.text("/logout")
    assert ada.text("/me") == "nobody"


@pytest.mark.package("starlette-wtf", "starlette")
def test_starlette_wtf(store: str | None, visit: Visit) -> None:
    from starlette_wtf import CSRFProtectMiddleware, csrf_protect, csrf_token

    @csrf_protect
    async def form(request: Request) -> Response:
        if request.method == "POST":
            return PlainTextResponse("sent")
        hidden = f'<input type="hidden" name="csrf_token" value="{csrf_token(request)}">'
        return HTMLResponse(f'<form method="post">{hidden}</form>')

    app = Starlette(
        routes=[Route("/form", form, methods=["GET", "POST"])],
        middleware=[sessions(store), Middleware(CSRFProtectMiddleware, csrf_secret=SECRET)],
    )
    ada, eve = visit(app), visit(app)
    assert ada.post("/form").status_code == 403
    assert ada.submit("/form").text == "sent"
    eve.text("/form")
    assert eve.post("/form", data=Form(ada.text("/form")).hidden).status_code == 403


@pytest.mark.package("imia", "starlette")
def test_imia(store: str | None, visit: Visit) -> None:
    from imia import AuthenticationMiddleware, InMemoryProvider, LoginManager, SessionAuthenticator

    class Person:
        def get_id(self) -> str:
            return "ada"

        def get_hashed_password(self) -> str:
            return "pw"

        def get_display_name(self) -> str:
            return "ada"

        def get_scopes(self) -> list[str]:
            return []

    class Verifier:
        def verify(self, plain: str, hashed: str) -> bool:
            return plain == hashed

    provider = InMemoryProvider({"ada": Person()})
    manager = LoginManager(provider, Verifier(), SECRET)

    async def login(request: Request) -> str:
        return str(bool(await manager.login(request, "ada", request.query_params["password"])))

    async def logout(request: Request) -> str:
        await manager.logout(request)
        return "ok"

    async def me(request: Request) -> str:
        return request.auth.display_name if request.auth else "nobody"

    app = Starlette(
        routes=[Route("/login", text(login)), Route("/logout", text(logout)), Route("/me", text(me))],
        middleware=[
            sessions(store),
            Middleware(AuthenticationMiddleware, authenticators=[SessionAuthenticator(provider)]),
        ],
    )
    ada = visit(app)
    assert (ada.text("/login?password=x"), ada.text("/me")) == ("False", "nobody")
    assert (ada.text("/login?password=pw"), ada.text("/me")) == ("True", "ada")
    ada.text("/logout")
    assert ada.text("/me") == "nobody"


@pytest.mark.package("starlette-flash", "starlette")
def test_starlette_flash(store: str | None, visit: Visit) -> None:
    from starlette_flash import flash

    async def say(request: Request) -> str:
        flash(request).add("hello", "note")
        return "ok"

    async def said(request: Request) -> str:
        return str([message["message"] for message in flash(request)])

    app = Starlette(routes=[Route("/flash", text(say)), Route("/flashed", text(said))], middleware=[sessions(store)])
    ada = visit(app)
    ada.text("/flash")
    assert ada.text("/flashed") == "['hello']"
    assert ada.text("/flashed") == "[]"


@pytest.mark.package("python-fasthtml", "starlette")
def test_fasthtml(store: str | None, visit: Visit) -> None:
    from fasthtml.common import FastHTML, P, add_toast, setup_toasts

    # Its messages are tuples, which Starlette's JSON turns into lists.
    lenient = None if store is None else f"{store}?codec=json-lenient"
    app = FastHTML(secret_key=SECRET) if store is None else FastHTML(sess_cls=None)
    if store is not None:
        app.user_middleware.append(sessions(lenient))
    setup_toasts(app)

    @app.get("/login")
    def login(session):
        session["user"] = "ada"
        return "ok"

    @app.get("/say")
    def say(session):
        add_toast(session, "saved", "info")
        return P("ok")

    @app.get("/me")
    def me(session):
        return P(session.get("user", "nobody"))

    @app.get("/logout")
    def logout(session):
        session.clear()
        return "ok"

    ada = visit(app)
    assert "nobody" in ada.text("/me")
    ada.text("/login")
    assert "ada" in ada.text("/me")
    assert "saved" in ada.text("/say") + ada.text("/me")
    ada.text("/logout")
    assert "nobody" in ada.text("/me")


@pytest.mark.package("fastapi-sso", "fastapi")
def test_fastapi_sso(store: str | None, visit: Visit, provider: Provider, monkeypatch: pytest.MonkeyPatch) -> None:
    from fastapi_sso import OpenID
    from fastapi_sso.sso.generic import create_provider

    monkeypatch.setenv("OAUTHLIB_INSECURE_TRANSPORT", "1")
    discovery = {
        "authorization_endpoint": f"{provider.url}/authorize",
        "token_endpoint": f"{provider.url}/token",
        "userinfo_endpoint": f"{provider.url}/user",
    }
    kind = create_provider(
        name="provider",
        discovery_document=discovery,
        response_convertor=lambda said, _: OpenID(id=said["sub"], display_name=said["name"]),
    )
    app = FastAPI(middleware=[sessions(store)])

    def sso(request: Request) -> Any:
        return kind(CLIENT_ID, CLIENT_SECRET, str(request.url_for("callback")), allow_insecure_http=True)

    @app.get("/login")
    async def login(request: Request) -> Any:
        async with sso(request) as client:
            return await client.get_login_redirect(state="state-of-ada")

    @app.get("/callback")
    async def callback(request: Request) -> str:
        async with sso(request) as client:
            request.session["user"] = (await client.verify_and_process(request)).display_name
        return "ok"

    @app.get("/logout")
    async def logout(request: Request) -> str:
        return await log_out(request)

    @app.get("/me")
    async def me(request: Request) -> Any:
        return JSONResponse(request.session.get("user"))

    ada = visit(app)
    assert ada.log_in_at_provider(ada.get("/login")).json() == "ok"
    assert ada.get("/me").json() == "ada"
    ada.text("/logout")
    assert ada.get("/me").json() is None


# --- NiceGUI, in a process of its own ---


class NiceGUI(Server):
    """`nicegui_app.py`, running."""

    def __init__(self, folder: Path, way: str, store: str) -> None:
        self.way, self.store = way, store
        super().__init__(folder, "nicegui")

    @property
    def url(self) -> str:
        return f"http://{self.host}:{self.port}"

    def _command(self) -> list[str]:
        script = str(Path(__file__).with_name("nicegui_app.py"))
        return [sys.executable, script, self.way, self.store, str(self.port)]

    def _environment(self) -> dict[str, str]:
        return {"NICEGUI_STORAGE_PATH": str(self.folder), "SECRET": SECRET}

    def _ready(self) -> bool:
        connection = HTTPConnection(self.host, self.port, timeout=5)
        with closing(connection):
            connection.request("GET", "/outside")
            return connection.getresponse().status == 200


@pytest.mark.package("nicegui", "fastapi")
@pytest.mark.parametrize("way", ["shared", "beside"])
def test_nicegui(store: str | None, way: str, tmp_path: Path) -> None:
    with NiceGUI(tmp_path, "own" if store is None else way, store or "") as server, RunningSite(server.url) as site:
        ada = Visitor(site)
        assert "user: nobody, nobody." in ada.text("/gui/me")
        ada.text("/gui/login")
        assert "user: ada, ada." in ada.text("/gui/me")
        assert ada.get("/outside").json() == ("ada" if store and way == "shared" else "nobody")
        ada.text("/gui/logout")
        assert "user: nobody, nobody." in ada.text("/gui/me")
