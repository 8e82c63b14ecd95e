"""Session middlewares one inside the other: each application has its own session, or one line says why it cannot."""

from __future__ import annotations

from typing import Any
from wsgiref.util import setup_testing_defaults

import flask
import pytest
import quart
from pyramid.config import Configurator
from pyramid.response import Response as PyramidResponse
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.sessions import SessionMiddleware as StarlettesMiddleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Mount, Route
from starlette.testclient import TestClient

from session_kit import ConfigError, SessionManager, use_session, wsgi
from session_kit.asgi import SessionMiddleware
from session_kit.integrations import flask as for_flask
from session_kit.integrations import pyramid as for_pyramid
from session_kit.integrations import quart as for_quart
from session_kit.wsgi import get_session
from tests.harness import django_site
from tests.harness.sessions import SECRET


def ours(name: str = "session") -> Middleware:
    return Middleware(SessionMiddleware, store="memory://", secret=SECRET, name=name)


def starlettes(name: str = "session") -> Middleware:
    return Middleware(StarlettesMiddleware, secret_key="of-starlette", session_cookie=name)


async def read(request: Request) -> Response:
    return JSONResponse(dict(request.session))


async def write(request: Request) -> Response:
    request.session["user"] = request.query_params["user"]
    return Response()


async def read_ours(request: Request) -> Response:
    return JSONResponse(dict(await use_session(request)))


ROUTES: list[Any] = [Route("/read", read), Route("/write", write), Route("/ours", read_ours)]


def mounted(parent: list[Middleware], child: list[Middleware]) -> Starlette:
    return Starlette(routes=[*ROUTES, Mount("/child", Starlette(routes=ROUTES, middleware=child))], middleware=parent)


@pytest.mark.parametrize(
    ("parent", "child"),
    [
        (ours("parent"), ours("child")),
        (ours(), ours("child")),
        (ours("parent"), starlettes()),
        (ours(), starlettes("child")),
        (starlettes(), ours("child")),
    ],
)
def test_a_parent_and_its_child_do_not_see_each_others_session(parent: Middleware, child: Middleware) -> None:
    with TestClient(mounted([parent], [child])) as client:
        for _ in range(2):
            client.get("/write?user=ada")
            client.get("/child/write?user=bob")
            assert client.get("/read").json() == {"user": "ada"}
            assert client.get("/child/read").json() == {"user": "bob"}


def test_a_child_without_sessions_of_its_own_shares_its_parents() -> None:
    with TestClient(mounted([ours()], [])) as client:
        client.get("/child/write?user=ada")
        assert client.get("/read").json() == {"user": "ada"}


@pytest.mark.parametrize("layers", [[starlettes("other"), ours()], [ours(), starlettes("other")]])
def test_both_may_stand_in_one_application(layers: list[Middleware]) -> None:
    with TestClient(Starlette(routes=ROUTES, middleware=layers)) as client:
        client.get("/write?user=ada")
        assert client.get("/read").json() == {"user": "ada"}
        assert len(client.cookies) == 1


@pytest.mark.parametrize("wrapped", [False, True])
def test_starlettes_around_ours_with_the_same_cookie_is_one_clear_error(wrapped: bool) -> None:
    app: Any = Starlette(routes=ROUTES, middleware=[ours()] if wrapped else [starlettes(), ours()])
    if wrapped:
        app = StarlettesMiddleware(app, secret_key="of-starlette")
    with TestClient(app) as client, pytest.raises(ConfigError, match=r"around this one uses the same cookie 'session'"):
        client.get("/read")


def test_a_mounted_admin_that_would_overwrite_our_cookie_is_one_clear_error() -> None:
    with TestClient(mounted([ours()], [starlettes()])) as client:
        client.get("/write?user=ada")
        with pytest.raises(ConfigError, match=r"inside this one sets the same cookie 'session'; give this one another"):
            client.get("/child/write?user=bob")
        assert client.get("/read").json() == {"user": "ada"}


def test_use_session_finds_ours_where_a_mounted_application_has_put_another() -> None:
    with TestClient(mounted([ours("parent")], [starlettes()])) as client:
        client.get("/write?user=ada")
        client.get("/child/write?user=bob")
        assert client.get("/child/ours").json() == {"user": "ada"}


def test_ours_twice_for_one_cookie_is_one_clear_error() -> None:
    with TestClient(mounted([ours()], [ours()])) as client:
        assert client.get("/read").status_code == 200
        with pytest.raises(ConfigError, match="installed twice for the cookie 'session'"):
            client.get("/child/read")


# --- trio ---


@pytest.mark.parametrize("load", ["auto", "explicit"])
def test_the_memory_driver_works_under_trio(load: str) -> None:
    async def leave(request: Request) -> Response:
        session = await use_session(request)
        await session.aregenerate()
        await session.asave()
        await session.areload()
        assert await session.still_valid()
        store = session.lifecycle.policy.store
        seen = [data async for _, data in store.aall()]
        await store.driver.aprune()
        await session.adestroy()
        return JSONResponse(seen)

    app = Starlette(routes=[*ROUTES, Route("/leave", leave)])
    app.add_middleware(SessionMiddleware, store="memory://", secret=SECRET, load=load)
    with TestClient(app, backend="trio") as client:
        client.get("/write?user=ada")
        assert client.get("/read").json() == {"user": "ada"}
        assert client.get("/leave").json() == [{"user": "ada"}]
        assert client.get("/read").json() == {}


def test_any_other_store_under_trio_is_one_clear_error(tmp_path: Any) -> None:
    app = Starlette(routes=ROUTES)
    app.add_middleware(SessionMiddleware, store=f"disk://{tmp_path}/store", secret=SECRET)
    with TestClient(app, backend="trio") as client, pytest.raises(ConfigError, match="under trio only memory:// works"):
        client.get("/read")


# --- an application of a framework inside our middleware for bare ones ---


def flask_inside(name: str) -> Any:
    app = flask.Flask(__name__)
    app.testing = True
    for_flask.SessionKit(app, "memory://", SECRET, name=name)
    app.add_url_rule("/", view_func=lambda: flask.session.get("user", "nobody"))
    return app


def pyramid_inside(name: str) -> Any:
    with Configurator() as config:
        config.set_session_factory(for_pyramid.session_factory("memory://", SECRET, name=name))
        config.add_route("home", "/")
        config.add_view(lambda request: PyramidResponse(request.session.get("user", "nobody")), route_name="home")
        return config.make_wsgi_app()


def bare_inside(name: str) -> Any:
    def app(environ: Any, start_response: Any) -> Any:
        start_response("200 OK", [])
        return [get_session(environ).get("user", "nobody").encode()]

    return wsgi.SessionMiddleware(app, "memory://", SECRET, name=name)


WSGI_APPS = [flask_inside, pyramid_inside, bare_inside]


def ask_in_scope(app: Any, name: str) -> bytes:
    """Mount a WSGI application in one of ASGI with sessions, as a2wsgi does."""
    outer: Any = SessionManager("memory://", SECRET, name=name).open()
    environ: dict[str, Any] = {"asgi.scope": {"session_kit.session": outer}}
    setup_testing_defaults(environ)
    return b"".join(app(environ, lambda *_: None))


@pytest.mark.parametrize("make", WSGI_APPS)
def test_two_cookies_of_one_name_are_refused_across_asgi_and_wsgi(make: Any) -> None:
    with pytest.raises(ConfigError, match="installed twice for the cookie 'session'"):
        ask_in_scope(make("session"), "session")
    assert ask_in_scope(make("other"), "session") == b"nobody"


@pytest.mark.parametrize("make", [flask_inside, pyramid_inside])
def test_two_cookies_of_one_name_are_refused_within_wsgi(make: Any) -> None:
    for name in ("session", "other"):
        environ: dict[str, Any] = {}
        setup_testing_defaults(environ)
        app = wsgi.SessionMiddleware(make(name), "memory://", SECRET)
        if name == "other":
            assert b"".join(app(environ, lambda *_: None)) == b"nobody"
        else:
            with pytest.raises(ConfigError, match="installed twice for the cookie 'session'"):
                app(environ, lambda *_: None)


def test_two_cookies_of_one_name_are_refused_around_quart() -> None:
    app = quart.Quart(__name__)
    app.testing = True
    for_quart.SessionKit(app, "memory://", SECRET)

    @app.get("/")
    async def home() -> str:
        return str(quart.session.get("user", "nobody"))

    def answer(name: str) -> str:
        client = TestClient(SessionMiddleware(app, "memory://", SECRET, name=name))
        try:
            return client.get("/").text
        except ConfigError as error:  # Quart 0.22 makes a page of it
            return str(error)

    assert answer("other") == "nobody"
    assert "installed twice for the cookie" in answer("session")


def test_two_cookies_of_one_name_are_refused_around_django() -> None:
    outer: Any = SessionManager("memory://", SECRET, name="session").open()
    with django_site.override_settings(SESSION_COOKIE_NAME="session"):
        client = django_site.Client()
        assert client.get("/read").json() == {"value": None}
        with pytest.raises(ConfigError, match="installed twice for the cookie 'session'"):
            client.get("/read", **{"session_kit.session": outer})
