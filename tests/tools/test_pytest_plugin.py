"""The plugin gives tests of applications what they need, and costs those that do not ask nothing."""

from __future__ import annotations

import importlib
import tomllib
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import flask
import litestar
import pytest
import quart
from aiohttp import web
from litestar.testing import TestClient as LitestarClient
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route
from starlette.testclient import TestClient

from session_kit import SessionManager, UnstorageSessionStore, asgi, wsgi
from session_kit.drivers.memory import MemoryDriver
from session_kit.integrations import aiohttp as aiohttp_sessions
from session_kit.integrations import flask as flask_sessions
from session_kit.integrations import litestar as litestar_sessions
from session_kit.integrations import quart as quart_sessions
from session_kit.testing import FaultyDriver, ManualClock, Visitor, explore, session_cookies
from session_kit.testing.cookies import manager_of
from tests.harness.sessions import SECRET

pytest_plugins = ["pytester"]

# A repository that is not installed has no entry points, and pytest takes no plugin twice.
PLUGIN = () if entry_points(group="pytest11", name="session_kit") else ("-p", "session_kit.pytest_plugin")
QUIET = ("-p", "no:cacheprovider", "-W", "error", *PLUGIN)


async def who(request: Request) -> JSONResponse:
    return JSONResponse(request.session.get("user"))


def starlette(**options: Any) -> Starlette:
    app = Starlette(routes=[Route("/", who)])
    app.add_middleware(asgi.SessionMiddleware, secret=SECRET, **options)
    return app


def test_its_fixtures_are_a_store_a_clock_and_a_visitor_who_is_logged_in(pytester: pytest.Pytester) -> None:
    pytester.makepyfile("""
        from session_kit import SessionManager

        def test_it(session_store, session_clock, session_cookies):
            manager = SessionManager(session_store, "Kx7-not-for-production-but-long-enough-0123", clock=session_clock)
            (pair,) = session_cookies(manager, user="ada").items()
            assert manager.open("=".join(pair))["user"] == "ada"
            assert session_store.length() == 1
            session_clock.advance(90_000)
            assert "user" not in manager.open("=".join(pair))

        def test_another_starts_anew(session_store):
            assert session_store.length() == 0
    """)
    pytester.runpytest_subprocess(*QUIET).assert_outcomes(passed=2)


def test_a_run_that_does_not_ask_for_it_imports_nothing_of_ours(pytester: pytest.Pytester) -> None:
    pytester.makepyfile("""
        import sys

        def test_it():
            ours = {name for name in sys.modules if name.startswith(("session_kit", "msgspec", "itsdangerous"))}
            assert ours == {"session_kit", "session_kit.pytest_plugin"}
    """)
    pytester.runpytest_subprocess(*QUIET).assert_outcomes(passed=1)


def test_a_fixture_of_the_same_name_in_a_project_comes_first(pytester: pytest.Pytester) -> None:
    pytester.makeconftest("import pytest\n\n@pytest.fixture\ndef session_store():\n    return 'mine'\n")
    pytester.makepyfile("def test_it(session_store):\n    assert session_store == 'mine'\n")
    pytester.runpytest_subprocess(*QUIET).assert_outcomes(passed=1)


@pytest.mark.parametrize("store", ["memory://", UnstorageSessionStore("memory://")])
def test_the_cookies_open_the_application_that_was_given(store: Any) -> None:
    app = starlette(store=store)
    assert TestClient(app, cookies=session_cookies(app, user="ada")).get("/").json() == "ada"
    wrapped = asgi.SessionMiddleware(Starlette(routes=[Route("/", who)]), store, SECRET)
    assert TestClient(wrapped, cookies=session_cookies(wrapped, {"user": "ada"})).get("/").json() == "ada"


def test_the_cookies_open_an_application_of_litestar_and_of_flask() -> None:
    @litestar.get("/")
    async def home(request: litestar.Request[Any, Any, Any]) -> str:
        return str(request.session["user"])

    app = litestar.Litestar([home], plugins=[litestar_sessions.SessionKit(store="memory://", secret=SECRET)])
    assert LitestarClient(app, cookies=session_cookies(app, user="ada")).get("/").text == "ada"

    shop = flask.Flask("shop")
    flask_sessions.SessionKit(shop, "memory://", SECRET)
    shop.add_url_rule("/", view_func=lambda: flask.session["user"])
    client = shop.test_client()
    for name, value in session_cookies(shop, user="ada").items():
        client.set_cookie(name, value)
    assert client.get("/").text == "ada"


def test_the_manager_is_found_wherever_an_integration_keeps_it() -> None:
    manager = SessionManager("memory://", SECRET)
    pages = web.Application()
    aiohttp_sessions.setup(pages, manager=manager)
    app = quart.Quart("shop")
    quart_sessions.SessionKit(app, manager=manager)
    for each in (manager, pages, app, wsgi.SessionMiddleware(lambda environ, start: [], manager=manager)):
        assert manager_of(each) is manager


def test_what_has_no_manager_and_what_has_no_data_is_said() -> None:
    with pytest.raises(LookupError, match="no SessionManager is found in this Starlette"):
        session_cookies(Starlette(), user="ada")
    with pytest.raises(ValueError, match="without data"):
        session_cookies(SessionManager("memory://", SECRET, clock=ManualClock()))


def test_the_entry_point_names_the_module() -> None:
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]
    (module,) = project["entry-points"]["pytest11"].values()
    assert callable(importlib.import_module(module).session_cookies)


def test_a_visitor_who_is_to_send_no_cookie_does_not_send_her_own() -> None:
    ada = Visitor(SessionManager("memory://", SECRET))
    with ada.request() as session:
        session["user"] = "ada"
    with ada.request(cookie="") as session:
        assert "user" not in session
    with ada.request() as session:
        assert session["user"] == "ada"


@pytest.mark.parametrize("name", ["raed", "aget", "prepare", ""])
def test_a_fault_that_could_never_happen_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="no call of a driver that can fail is named"):
        FaultyDriver(MemoryDriver()).fail(name)


def test_a_sample_of_no_orders_does_not_go_on_for_ever() -> None:
    async def play(schedule: object) -> None:
        """Nothing to put into an order."""

    with pytest.raises(ValueError, match="from 1, not 0"):
        explore(play, sample=0)
