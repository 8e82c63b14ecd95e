"""Litestar: its own session habits work, nothing of a failed request is kept, and one driver carries its stores."""

from __future__ import annotations

import asyncio
import string
import traceback
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from litestar import Litestar, Request, Response, Router, WebSocket, asgi, get, post, websocket
from litestar.background_tasks import BackgroundTask
from litestar.di import NamedDependency, Provide
from litestar.exceptions import HTTPException, LitestarException, NotAuthorizedException
from litestar.exceptions import WebSocketDisconnect as Disconnect
from litestar.middleware import DefineMiddleware
from litestar.middleware.rate_limit import RateLimitConfig
from litestar.middleware.session.base import BaseBackendConfig
from litestar.middleware.session.client_side import CookieBackendConfig
from litestar.middleware.session.server_side import ServerSideSessionConfig
from litestar.params import FromQuery
from litestar.plugins.flash import FlashConfig, FlashPlugin, flash
from litestar.plugins.jinja import JinjaTemplateEngine
from litestar.response import Stream, Template
from litestar.security.session_auth import SessionAuth
from litestar.stores.base import NamespacedStore
from litestar.stores.registry import StoreRegistry
from litestar.template import TemplateConfig
from litestar.testing import TestClient
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.sessions import SessionMiddleware as StarlettesMiddleware
from starlette.requests import Request as StarletteRequest
from starlette.responses import JSONResponse
from starlette.routing import Route

from session_kit import ConfigError, CookieOptions, CorruptEntry, Driver, SessionManager, UnstorageSessionStore
from session_kit.drivers import register_driver
from session_kit.drivers.memory import MemoryDriver
from session_kit.integrations.litestar import KeyValueStore, Session, SessionKit, SessionMiddleware, use_session
from session_kit.testing import CountingDriver, FaultyDriver, ManualClock
from tests.harness.sessions import PLAIN_HTTP, SECRET, SlowDriver, take_down

AnyRequest = Request[Any, Any, Any]
Socket = WebSocket[Any, Any, Any]


@dataclass
class Cart:
    items: int = 0
    owner: str = ""


@get("/read")
async def read(request: AnyRequest) -> dict[str, Any]:
    return dict(request.session)


@post("/write", status_code=200)
async def write(request: AnyRequest, user: FromQuery[str]) -> None:
    request.session["user"] = user


@get("/untouched")
async def untouched() -> None: ...


@post("/replace", status_code=200)
async def replace(request: AnyRequest, user: FromQuery[str]) -> dict[str, Any]:
    request.set_session({"user": user})
    request.session["page"] = 1
    return request.session


@post("/clear", status_code=200)
async def clear(request: AnyRequest) -> None:
    request.clear_session()


@post("/replace-late", status_code=200)
async def replace_late(request: AnyRequest, user: FromQuery[str]) -> Response[None]:
    return Response(None, background=BackgroundTask(request.set_session, {"user": user}))


@post("/fail", status_code=200)
async def fail(request: AnyRequest, how: FromQuery[str]) -> None:
    if how == "write":
        request.session["user"] = "eve"
    elif how == "replace":
        request.set_session({"user": "eve"})
    elif how == "clear":
        request.clear_session()
    elif how == "rotate":
        await request.session.aregenerate()  # type: ignore[attr-defined]
    raise RuntimeError("this handler fails")


@post("/refuse", status_code=200)
async def refuse(request: AnyRequest) -> None:
    request.session["tries"] = request.session.get("tries", 0) + 1
    raise NotAuthorizedException


@post("/save", status_code=200)
async def save(session: NamedDependency[Session[Any]]) -> None:
    session["user"] = "eve"
    await session.asave()


@get("/blocking", sync_to_thread=True)
def blocking(session: NamedDependency[Session[Any]]) -> dict[str, Any]:
    session.update(lambda data: {"visits": data.get("visits", 0) + 1})
    session.save()
    return dict(session)


@get("/stream")
async def stream(request: AnyRequest) -> Stream:
    async def body() -> AsyncIterator[bytes]:
        yield b"one"
        request.session["late"] = True
        yield b"two"

    request.session.get("user")
    return Stream(body())


@get("/cached", cache=60)
async def cached(request: AnyRequest) -> None:
    request.session["seen"] = True


@websocket("/chat")
async def chat(socket: Socket, session: NamedDependency[Session[Any]]) -> None:
    await socket.accept()
    session["user"] = await socket.receive_text()
    if session["user"] == "eve":
        raise RuntimeError("this handler fails")
    await socket.send_json(dict(session))
    await socket.close()


HANDLERS: list[Any] = [
    read,
    write,
    untouched,
    replace,
    clear,
    replace_late,
    fail,
    refuse,
    save,
    blocking,
    stream,
    cached,
    chat,
]


def make_app(handlers: list[Any] = HANDLERS, **options: Any) -> Litestar:
    settings = {"store": "memory://", "secret": SECRET, "cookie": PLAIN_HTTP} | options
    return Litestar(
        handlers,
        plugins=[SessionKit(**settings)],
        dependencies={"session": Provide(use_session)},
        logging_config=None,
    )


@pytest.fixture(params=["memory", "waiting"])
def client(request: pytest.FixtureRequest) -> Iterator[TestClient[Any]]:
    """The client of an application whose store reads at once, and of one whose store waits."""
    driver = MemoryDriver() if request.param == "memory" else SlowDriver(MemoryDriver())
    with TestClient(make_app(store=UnstorageSessionStore(driver)), raise_server_exceptions=True) as client:
        yield client


def login(client: TestClient[Any]) -> None:
    assert client.post("/write?user=ada").status_code == 200


# --- sessions ---


def test_all_routes_share_one_store_though_litestar_makes_a_middleware_for_each(client: TestClient[Any]) -> None:
    login(client)
    assert client.get("/read").json() == {"user": "ada"}
    assert client.get("/blocking").json() == {"user": "ada", "visits": 1}
    assert "set-cookie" not in client.get("/untouched").headers


def test_set_session_replaces_the_data(client: TestClient[Any]) -> None:
    login(client)
    assert client.post("/replace?user=bob").json() == {"user": "bob", "page": 1}
    assert client.get("/read").json() == {"user": "bob", "page": 1}


def test_set_session_begins_a_session(client: TestClient[Any]) -> None:
    client.post("/replace?user=bob")
    assert client.get("/read").json() == {"user": "bob", "page": 1}


def test_set_session_after_the_response_began_is_kept(client: TestClient[Any]) -> None:
    login(client)
    client.post("/replace-late?user=bob")
    assert client.get("/read").json() == {"user": "bob"}


def test_clear_session_logs_out(client: TestClient[Any]) -> None:
    login(client)
    stolen = dict(client.cookies)
    client.post("/clear")
    assert "session" not in client.cookies
    client.cookies.update(stolen)
    assert client.get("/read").json() == {}


def test_set_session_takes_what_data_type_says_and_names_what_it_does_not_take() -> None:
    @post("/typed", status_code=200)
    async def typed(request: AnyRequest) -> None:
        request.set_session(Cart(items=2, owner="ada"))

    @get("/typed")
    async def show(session: NamedDependency[Session[Cart]]) -> dict[str, Any]:
        return {"items": session.data.items, "owner": session.data.owner}

    with TestClient(make_app([typed, show], data_type=Cart)) as client:
        client.post("/typed")
        assert client.get("/typed").json() == {"items": 2, "owner": "ada"}
    with TestClient(make_app([typed])) as client, pytest.raises(LitestarException) as caught:
        client.post("/typed")
    assert "request.set_session() needs a mapping, not Cart" in "".join(traceback.format_exception(caught.value))


@pytest.mark.parametrize("how", ["write", "replace", "clear", "rotate", "nothing"])
def test_a_handler_that_fails_has_changed_nothing(client: TestClient[Any], how: FromQuery[str]) -> None:
    assert client.post(f"/fail?how={how}").status_code == 500
    assert "session" not in client.cookies
    login(client)
    before = dict(client.cookies)
    assert client.post(f"/fail?how={how}").status_code == 500
    assert dict(client.cookies) == before
    assert client.get("/read").json() == {"user": "ada"}


def test_a_refusal_by_an_http_exception_still_saves(client: TestClient[Any]) -> None:
    login(client)
    assert client.post("/refuse").status_code == 401
    assert client.get("/read").json() == {"user": "ada", "tries": 1}


def test_what_a_stream_writes_is_saved(client: TestClient[Any]) -> None:
    login(client)
    assert client.get("/stream").text == "onetwo"
    assert client.get("/read").json() == {"user": "ada", "late": True}


def test_a_websocket_reads_and_writes_the_session(client: TestClient[Any]) -> None:
    login(client)
    with client.websocket_connect("/chat") as socket:
        socket.send_text("bob")
        assert socket.receive_json() == {"user": "bob"}
    assert client.get("/read").json() == {"user": "bob"}


def test_a_websocket_that_fails_has_changed_nothing(client: TestClient[Any]) -> None:
    login(client)
    with client.websocket_connect("/chat") as socket:
        socket.send_text("eve")
        with pytest.raises(Disconnect) as caught:
            socket.receive_json()
    assert caught.value.code == 4500
    assert client.get("/read").json() == {"user": "ada"}


def test_the_response_cache_hands_nobody_the_cookie_of_another(client: TestClient[Any]) -> None:
    assert "session" in client.get("/cached").cookies
    client.cookies.clear()
    answer = client.get("/cached")
    assert answer.status_code == 200
    assert "set-cookie" not in answer.headers


def test_the_session_is_no_parameter_in_the_openapi_schema() -> None:
    @get("/cart")
    async def cart(session: NamedDependency[Session[Cart]]) -> int:
        return session.data.items

    schema: Any = make_app([cart], data_type=Cart).openapi_schema.to_schema()
    assert "parameters" not in schema["paths"]["/cart"]["get"]
    assert "requestBody" not in schema["paths"]["/cart"]["get"]
    assert "schemas" not in schema["components"] or "Cart" not in schema["components"]["schemas"]


def test_flash_messages_of_litestar_itself_are_kept(tmp_path: Path) -> None:
    @post("/flash", status_code=200)
    async def say(request: AnyRequest) -> None:
        flash(request, "saved", "info")

    @get("/page")
    async def page() -> Template:
        return Template(template_str="{% for each in get_flashes() %}{{ each.message }}{% endfor %}")

    templates = TemplateConfig(directory=tmp_path, engine=JinjaTemplateEngine)
    sessions = SessionKit(store="memory://", secret=SECRET, cookie=PLAIN_HTTP)
    app = Litestar(
        [say, page],
        plugins=[sessions, FlashPlugin(FlashConfig(templates))],
        template_config=templates,
        logging_config=None,
    )
    with TestClient(app) as client:
        client.post("/flash")
        assert [client.get("/page").text for _ in range(2)] == ["saved", ""]


def test_a_part_of_an_application_may_have_sessions_alone() -> None:
    sessions = SessionKit(store="memory://", secret=SECRET, cookie=PLAIN_HTTP)
    shop = Router("/shop", route_handlers=[read, write], middleware=[sessions.middleware])
    app = Litestar([shop, read], on_shutdown=[sessions.manager.aclose], logging_config=None)
    with TestClient(app) as client:
        client.post("/shop/write?user=ada")
        assert client.get("/shop/read").json() == {"user": "ada"}
        assert client.get("/read").status_code == 500


def test_a_route_may_be_excluded() -> None:
    @get("/without", no_session=True)
    async def without(request: AnyRequest) -> bool:
        return "session" in request.scope

    manager = SessionManager("memory://", SECRET, cookie=PLAIN_HTTP)
    sessions = DefineMiddleware(SessionMiddleware, manager=manager, exclude_opt_key="no_session")
    with TestClient(Litestar([write, without], middleware=[sessions], logging_config=None)) as client:
        login(client)
        assert client.get("/without").json() is False


def test_the_middleware_takes_an_open_store_and_refuses_one_that_each_route_would_open_for_itself() -> None:
    store = UnstorageSessionStore("memory://")
    sessions = DefineMiddleware(SessionMiddleware, store=store, secret=SECRET, cookie=PLAIN_HTTP)
    with TestClient(Litestar([read, write], middleware=[sessions], logging_config=None)) as client:
        login(client)
        assert client.get("/read").json() == {"user": "ada"}
    with pytest.raises(ConfigError, match=r"once for each route.*SessionKit"):
        Litestar([read], middleware=[DefineMiddleware(SessionMiddleware, store="memory://", secret=SECRET)])


@pytest.mark.parametrize("options", [{}, {"manager": SessionManager("memory://", SECRET), "store": "memory://"}])
def test_a_plugin_without_a_store_or_with_two_is_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="SessionKit needs store="):
        SessionKit(**options)


def test_a_misspelt_option_is_refused_at_start() -> None:
    with pytest.raises(ConfigError, match=r"unknown option 'max_lifetme'; did you mean 'max_lifetime'.*load, manager"):
        SessionKit(store="memory://", secret=SECRET, max_lifetme=5)  # type: ignore[call-arg]


def test_a_missing_plugin_is_named() -> None:
    with TestClient(Litestar([read], debug=True, logging_config=None)) as client:
        assert "'session' is not defined in scope" in client.get("/read").text


def test_the_store_is_closed_with_the_application() -> None:
    closed: list[bool] = []

    class Watched(MemoryDriver):
        def close(self) -> None:
            closed.append(True)

    register_driver("watched-by-litestar", Watched)
    with TestClient(make_app(store="watched-by-litestar://")):
        assert closed == []
    assert closed == [True]


# --- what Litestar brings around sessions ---


@dataclass
class User:
    name: str


async def find_user(session: dict[str, Any], connection: Any) -> User | None:
    return User(session["user"]) if session.get("user") != "nobody" else None


def auth_app(sessions: SessionKit, **options: Any) -> Litestar:
    @get("/me")
    async def me(request: Request[User, dict[str, Any], Any]) -> str:
        return request.user.name

    @post("/login", exclude_from_auth=True, status_code=200)
    async def log_in(request: AnyRequest, user: FromQuery[str]) -> None:
        request.set_session({"user": user})

    auth = SessionAuth[User, Any](retrieve_user_handler=find_user, session_backend_config=sessions.config)
    settings: dict[str, Any] = {"plugins": [sessions], "on_app_init": [auth.on_app_init], "logging_config": None}
    return Litestar([me, log_in, clear], **(settings | options))


@pytest.mark.parametrize("waits", [False, True])
def test_session_auth_lets_in_who_is_logged_in_and_no_other(waits: bool) -> None:
    driver = SlowDriver(MemoryDriver()) if waits else MemoryDriver()
    sessions = SessionKit(store=UnstorageSessionStore(driver), secret=SECRET)
    with TestClient(auth_app(sessions)) as client:
        assert client.get("/me").status_code == 401
        client.post("/login?user=ada")
        assert client.get("/me").text == "ada"
        client.post("/clear")
        assert client.get("/me").status_code == 401
        client.post("/login?user=nobody")
        assert client.get("/me").status_code == 401
    assert list(driver.keys()) == []


def test_session_auth_in_an_outage_is_a_503_and_logs_nobody_out() -> None:
    driver = FaultyDriver(SlowDriver(MemoryDriver()))
    with TestClient(auth_app(SessionKit(store=UnstorageSessionStore(driver), secret=SECRET))) as client:
        client.post("/login?user=ada")
        take_down(driver)
        assert client.get("/me").status_code == 503
        driver.heal()
        assert client.get("/me").text == "ada"


@pytest.mark.parametrize("late", [True, False])
def test_who_is_refused_by_session_auth_does_not_end_the_login_that_overlaps_the_request(late: bool) -> None:
    sessions = SessionKit(store="memory://", secret=SECRET, cookie=PLAIN_HTTP)

    async def find(session: dict[str, Any], connection: Any) -> str | None:
        if not late and "user" not in session:
            connection.app.state.login()
        return session.get("user")

    @get("/me")
    async def me(request: AnyRequest) -> str:
        user: str = request.user
        return user

    @post("/fill", exclude_from_auth=True, status_code=200)
    async def fill(request: AnyRequest) -> None:
        request.session["cart"] = ["apple"]

    def log_in_elsewhere() -> None:
        session = sessions.manager.open(f"session={old}")
        session["user"] = "ada"
        headers = dict(sessions.manager.commit(session))
        logged_in.append(headers["Set-Cookie"].partition(";")[0].removeprefix("session="))

    logged_in: list[str] = []
    auth = SessionAuth[str, Any](retrieve_user_handler=find, session_backend_config=sessions.config)
    app = Litestar([me, fill, clear], plugins=[sessions], on_app_init=[auth.on_app_init], logging_config=None)
    app.state.login = log_in_elsewhere
    with TestClient(app) as client:
        client.post("/fill")
        old = client.cookies["session"]
        if late:
            log_in_elsewhere()
        refused = client.get("/me")
        assert refused.status_code == 401
        assert "set-cookie" not in refused.headers
        client.cookies.set("session", logged_in[0], "testserver.local")
        assert client.get("/me").text == "ada"
        client.post("/clear")
        assert client.get("/me").status_code == 401


def test_session_auth_and_set_session_work_where_the_session_is_loaded_only_if_asked_for() -> None:
    driver = SlowDriver(MemoryDriver())
    sessions = SessionKit(store=UnstorageSessionStore(driver), secret=SECRET, load="explicit")
    with TestClient(auth_app(sessions)) as client:
        client.post("/login?user=ada")
        assert client.get("/me").text == "ada"
        client.post("/clear")
        assert client.get("/me").status_code == 401
    assert list(driver.keys()) == []


def test_session_auth_names_our_cookie_in_the_openapi_schema() -> None:
    app = auth_app(SessionKit(store="memory://", secret=SECRET, name="sid"))
    schemes = app.openapi_schema.to_schema()["components"]["securitySchemes"]
    assert schemes["sessionCookie"]["name"] == "sid"


@pytest.mark.parametrize("cookie", [CookieOptions(), PLAIN_HTTP])
def test_the_test_client_sets_and_gets_the_session(cookie: CookieOptions) -> None:
    sessions = SessionKit(store="memory://", secret=SECRET, cookie=cookie)
    app = Litestar([read, write], plugins=[sessions], logging_config=None)
    with TestClient(app, session_config=sessions.config) as client:
        assert client.get_session_data() == {}
        for user in ("ada", "bob"):
            client.set_session_data({"user": user})
            assert client.get("/read").json() == {"user": user}
        client.post("/write?user=eve")
        assert client.get_session_data() == {"user": "eve"}


@pytest.mark.parametrize("status", [500, 502, 503])
@pytest.mark.parametrize("how", ["clear", "replace"])
def test_a_handler_that_answers_with_a_5xx_has_changed_nothing_in_litestars_own_way_either(
    status: int, how: str
) -> None:
    @post("/break", status_code=200)
    async def broken(request: AnyRequest) -> None:
        if how == "clear":
            request.clear_session()
        else:
            request.set_session({"user": "eve"})
        raise HTTPException(status_code=status)

    with TestClient(make_app([broken, read, write])) as client:
        login(client)
        answer = client.post("/break")
        assert answer.status_code == status
        assert "set-cookie" not in answer.headers
        assert client.get("/read").json() == {"user": "ada"}


def test_a_request_and_a_websocket_know_the_id_of_their_session() -> None:
    @get("/id")
    async def show(request: AnyRequest) -> list[Any]:
        before = request.get_session_id()
        request.clear_session()
        return [before, request.get_session_id()]

    @websocket("/id")
    async def show_there(socket: Socket) -> None:
        await socket.accept()
        await socket.send_json([socket.get_session_id(), socket.session.id])  # type: ignore[attr-defined]
        await socket.close()

    sessions = SessionKit(store="memory://", secret=SECRET, cookie=PLAIN_HTTP)
    app = Litestar([write, show, show_there, untouched], plugins=[sessions], logging_config=None)
    with TestClient(app) as client:
        login(client)
        with client.websocket_connect("/id") as socket:
            one, other = socket.receive_json()
        assert one == other == client.cookies["session"].partition(".")[0]
        assert client.get("/id").json() == [one, None]


def test_a_handler_that_returns_the_session_returns_its_data_and_never_its_id() -> None:
    @get("/session")
    async def show(request: AnyRequest) -> Session[Any]:
        return request.session  # type: ignore[return-value]

    @get("/dict")
    async def show_dict(request: AnyRequest) -> dict[str, Any]:
        return request.session

    @get("/within")
    async def within(request: AnyRequest) -> dict[str, Any]:
        return {"session": request.session}

    app = make_app([write, show, show_dict, within])
    with TestClient(app) as client:
        login(client)
        assert client.get("/session").json() == client.get("/dict").json() == {"user": "ada"}
        assert client.get("/within").json() == {"session": {"user": "ada"}}
    assert app.openapi_schema.to_schema()["paths"]["/session"]


@pytest.mark.parametrize("copy_scope", [True, False])
def test_a_mounted_application_of_another_framework_does_not_overwrite_the_session(copy_scope: bool) -> None:
    async def mark(request: StarletteRequest) -> JSONResponse:
        request.session["admin"] = True
        return JSONResponse(dict(request.session))

    admin = Starlette(
        routes=[Route("/{path:path}", mark)],
        middleware=[Middleware(StarlettesMiddleware, secret_key="of-starlette", session_cookie="admin")],
    )
    with TestClient(make_app([read, write, asgi("/admin", is_mount=True, copy_scope=copy_scope)(admin)])) as client:
        login(client)
        assert client.get("/admin/mark").json() == {"admin": True}
        assert client.get("/read").json() == {"user": "ada"}


def test_a_mounted_application_that_would_overwrite_our_cookie_is_one_clear_error() -> None:
    async def mark(request: StarletteRequest) -> JSONResponse:
        request.session["admin"] = True
        return JSONResponse({})

    admin = Starlette(
        routes=[Route("/{path:path}", mark)],
        middleware=[Middleware(StarlettesMiddleware, secret_key="of-starlette")],
    )
    app = make_app([write, asgi("/admin", is_mount=True, copy_scope=False)(admin)])
    with TestClient(app) as client, pytest.raises(LitestarException) as caught:
        client.get("/admin/mark")
    assert "inside this one sets the same cookie 'session'" in "".join(traceback.format_exception(caught.value))


def test_a_mounted_application_without_sessions_of_its_own_shares_ours() -> None:
    async def mark(request: StarletteRequest) -> JSONResponse:
        request.session["admin"] = True
        return JSONResponse(dict(request.session))

    admin = Starlette(routes=[Route("/{path:path}", mark)])
    with TestClient(make_app([read, write, asgi("/admin", is_mount=True, copy_scope=True)(admin)])) as client:
        login(client)
        client.get("/admin/mark")
        assert client.get("/read").json() == {"user": "ada", "admin": True}


@pytest.mark.parametrize("auth", [False, True])
@pytest.mark.parametrize(
    "theirs", [ServerSideSessionConfig(key="old"), CookieBackendConfig(secret=b"x" * 16, key="old")]
)
def test_a_part_of_an_application_on_litestars_own_sessions_leaves_ours_alone(
    theirs: BaseBackendConfig[Any], auth: bool
) -> None:
    async def nobody(session: dict[str, Any], connection: Any) -> None: ...

    with_auth = SessionAuth[None, Any](retrieve_user_handler=nobody, session_backend_config=theirs)
    middleware = [with_auth.middleware if auth else theirs.middleware]

    @get("/old/page", middleware=middleware)
    async def page(request: AnyRequest) -> dict[str, Any]:
        request.session["seen"] = request.session.get("seen", 0) + 1
        return dict(request.session)

    @get("/old/set", middleware=middleware)
    async def set_(request: AnyRequest) -> None:
        request.set_session({"user": "eve"})

    with TestClient(make_app([page, set_, read, write, clear])) as client:
        login(client)
        if auth:
            assert client.get("/old/page").status_code == 401
        else:
            assert client.get("/old/page").json() == {"seen": 1}
            assert client.get("/old/page").json() == {"seen": 2}
            client.get("/old/set")
        assert client.get("/read").json() == {"user": "ada"}
        client.post("/clear")
        assert client.get("/read").json() == {}


@pytest.mark.parametrize(
    "theirs", [ServerSideSessionConfig(key="old"), CookieBackendConfig(secret=b"x" * 16, key="old")]
)
def test_a_part_of_an_application_on_our_sessions_sets_and_clears_them_inside_litestars_own(
    theirs: BaseBackendConfig[Any],
) -> None:
    @get("/old")
    async def old(request: AnyRequest) -> dict[str, Any]:
        request.session["seen"] = request.session.get("seen", 0) + 1
        return dict(request.session)

    sessions = SessionKit(store="memory://", secret=SECRET, cookie=PLAIN_HTTP, name="sid")
    part = Router("/", route_handlers=[read, replace, clear], middleware=[sessions.middleware])
    app = Litestar([part, old], middleware=[theirs.middleware], logging_config=None)
    with TestClient(app) as client:
        assert client.get("/old").json() == {"seen": 1}
        client.post("/replace?user=ada")
        assert client.get("/read").json() == {"user": "ada", "page": 1}
        assert client.get("/old").json() == {"seen": 2}
        client.post("/clear")
        assert client.get("/read").json() == {}
        assert client.get("/old").json() == {"seen": 3}


def test_a_session_middleware_of_litestars_own_that_was_left_in_is_one_clear_error() -> None:
    app = make_app([Router("/", route_handlers=[read, write], middleware=[ServerSideSessionConfig().middleware])])
    with (
        TestClient(app, raise_server_exceptions=True) as client,
        pytest.raises(LitestarException) as raised,
    ):
        login(client)
    assert "inside this one sets the same cookie 'session'" in "".join(traceback.format_exception(raised.value))


def test_the_memory_driver_works_under_trio() -> None:
    with TestClient(make_app([read, write, clear]), backend="trio") as client:
        login(client)
        assert client.get("/read").json() == {"user": "ada"}
        client.post("/clear")
        assert client.get("/read").json() == {}


# --- an outage ---

Down = tuple[TestClient[Any], FaultyDriver]


@pytest.fixture
def down() -> Iterator[Down]:
    """A client that is logged in, and then the store goes down."""
    driver = FaultyDriver(SlowDriver(MemoryDriver()))
    with TestClient(make_app(store=UnstorageSessionStore(driver))) as client:
        login(client)
        take_down(driver)
        yield client, driver


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/read"),
        ("POST", "/write?user=eve"),
        ("POST", "/save"),
        ("POST", "/clear"),
        ("POST", "/replace?user=eve"),
        ("POST", "/refuse"),
        ("POST", "/fail?how=write"),
        ("GET", "/blocking"),
    ],
)
@pytest.mark.parametrize("logged_in", [True, False])
def test_an_outage_is_a_503(down: Down, method: str, path: str, logged_in: bool) -> None:
    client, driver = down
    cookie = dict(client.cookies)
    if not logged_in:
        client.cookies.clear()
    answer = client.request(method, path)
    if logged_in or path in ("/write?user=eve", "/save", "/replace?user=eve", "/refuse", "/blocking"):
        assert answer.status_code == 503
        assert answer.headers["cache-control"] == "no-store"
    assert "set-cookie" not in answer.headers
    driver.heal()
    client.cookies.update(cookie)
    assert client.get("/read").json() == {"user": "ada"}


def test_an_outage_at_the_end_is_a_503_too(down: Down) -> None:
    client, driver = down
    driver.heal()
    for method in ("set", "delete"):
        driver.fail(method)
    for path in ("/write?user=eve", "/save", "/clear", "/replace?user=eve"):
        assert client.post(path).status_code == 503
    driver.heal()
    assert client.get("/read").json() == {"user": "ada"}


def test_who_does_not_need_the_session_does_not_notice(down: Down) -> None:
    assert down[0].get("/untouched").status_code == 200


def test_a_websocket_is_told_to_come_back_later(down: Down) -> None:
    with pytest.raises(Disconnect) as caught, down[0].websocket_connect("/chat"):
        raise AssertionError("the handshake must not succeed")
    assert caught.value.code == 1013


def test_an_application_may_have_its_own_answer_to_an_outage() -> None:
    from session_kit import DriverUnavailable

    def sorry(request: AnyRequest, error: DriverUnavailable) -> Response[str]:
        return Response("come back later", status_code=503)

    driver = FaultyDriver(SlowDriver(MemoryDriver()))
    app = Litestar(
        [save],
        plugins=[SessionKit(store=UnstorageSessionStore(driver), secret=SECRET, cookie=PLAIN_HTTP)],
        dependencies={"session": Provide(use_session)},
        exception_handlers={DriverUnavailable: sorry},
        logging_config=None,
    )
    driver.fail("set", times=1)
    with TestClient(app) as client:
        answer = client.post("/save")
    assert (answer.status_code, answer.text) == (503, "come back later")


def test_an_anonymous_session_stands_in() -> None:
    driver = FaultyDriver(SlowDriver(MemoryDriver()))
    with TestClient(make_app(store=UnstorageSessionStore(driver), on_error="anonymous")) as client:
        login(client)
        take_down(driver)
        assert client.get("/read").json() == {}
        assert client.post("/write?user=eve").status_code == 200
        driver.heal()
        assert client.get("/read").json() == {"user": "ada"}


# --- the store for Litestar itself ---


@pytest.fixture
def driver(backend: Driver) -> CountingDriver:
    return CountingDriver(backend)


@pytest.fixture
def store(driver: CountingDriver, clock: ManualClock) -> KeyValueStore:
    return KeyValueStore(driver, clock=clock)


@pytest.fixture
def run() -> Iterator[Callable[..., Any]]:
    with asyncio.Runner() as runner:
        yield runner.run


Run = Callable[..., Any]


def test_the_store_is_one_of_litestars(store: KeyValueStore) -> None:
    assert isinstance(store, NamespacedStore)


def test_a_value_comes_back_as_bytes(store: KeyValueStore, run: Run) -> None:
    assert run(store.get("key")) is None
    for value in (b"bytes", b"", b"\x00\xff", "text", "\N{BICYCLE}"):
        run(store.set("key", value, 60))
        assert run(store.get("key")) == (value.encode() if isinstance(value, str) else value)


@pytest.mark.parametrize("key", [*string.punctuation, "..", "../../x", "f\xfc", "\N{BICYCLE}", "", "k" * 5000, "a\0b"])
def test_any_key_is_a_key(store: KeyValueStore, run: Run, key: FromQuery[str]) -> None:
    run(store.set(key, b"value"))
    run(store.set(f"{key}2", b"other"))
    assert run(store.get(key)) == b"value"
    run(store.delete(key))
    assert run(store.get(key)) is None
    assert run(store.get(f"{key}2")) == b"other"


def test_a_leaked_store_holds_no_usable_session_id(store: KeyValueStore, driver: CountingDriver, run: Run) -> None:
    run(store.set("a-session-id", b"value"))
    (key,) = driver.keys()
    assert key.startswith("litestar:")
    assert "a-session-id" not in key


@pytest.mark.parametrize("lifetime", [10, timedelta(seconds=10)])
def test_a_value_expires(store: KeyValueStore, clock: ManualClock, run: Run, lifetime: Any) -> None:
    run(store.set("key", b"value", expires_in=lifetime))
    clock.advance(9)
    assert run(store.get("key")) == b"value"
    clock.advance(2)
    assert run(store.get("key")) is None
    assert run(store.exists("key")) is False
    assert run(store.expires_in("key")) is None


@pytest.mark.parametrize("lifetime", [10, timedelta(days=1, seconds=10)])
def test_reading_renews_if_asked_to(store: KeyValueStore, clock: ManualClock, run: Run, lifetime: Any) -> None:
    run(store.set("key", b"value", expires_in=5))
    assert run(store.get("key", renew_for=lifetime)) == b"value"
    seconds = lifetime.total_seconds() if isinstance(lifetime, timedelta) else lifetime
    assert run(store.expires_in("key")) == seconds
    clock.advance(seconds - 1)
    assert run(store.get("key")) == b"value"
    clock.advance(2)
    assert run(store.get("key", renew_for=lifetime)) is None


def test_a_value_that_never_expires_does_not_begin_to_when_it_is_renewed(
    store: KeyValueStore, clock: ManualClock, run: Run
) -> None:
    run(store.set("key", b"value"))
    assert run(store.get("key", renew_for=10)) == b"value"
    clock.advance(1000)
    assert run(store.get("key")) == b"value"


@pytest.mark.parametrize("newer", [None, b"newer"], ids=["deleted", "set"])
def test_a_renewal_that_was_overtaken_undoes_nothing(
    store: KeyValueStore, driver: CountingDriver, run: Run, newer: bytes | None
) -> None:
    class Overtaken(CountingDriver):
        """Lets somebody else be faster, between the read and the write."""

        def after(self, name: str) -> None:
            if name == "read":
                if newer is None:
                    driver.delete(store._key("key"))
                else:
                    driver.set(store._key("key"), written, ttl=60)

    run(store.set("key", newer or b"", expires_in=60))
    written = driver.get(store._key("key")) or b""
    slow = KeyValueStore(Overtaken(driver), clock=store._clock)
    run(store.set("key", b"value", expires_in=5))
    assert run(slow.get("key", renew_for=10)) == b"value"
    # Where a driver cannot swap, the last write wins.
    assert run(store.get("key")) == (newer if driver.capabilities.swap else b"value")


def test_a_set_without_an_expiry_drops_an_old_one(store: KeyValueStore, clock: ManualClock, run: Run) -> None:
    run(store.set("key", b"value", expires_in=5))
    run(store.set("key", b"value"))
    clock.advance(10)
    assert run(store.get("key")) == b"value"


def test_the_time_left_is_told_as_litestar_does(store: KeyValueStore, clock: ManualClock, run: Run) -> None:
    assert run(store.expires_in("key")) is None
    run(store.set("key", b"value"))
    assert run(store.expires_in("key")) == -1
    run(store.set("key", b"value", expires_in=10))
    assert run(store.expires_in("key")) == 10
    clock.advance(3)
    assert run(store.expires_in("key")) == 7


@pytest.mark.parametrize("lifetime", [0, -1, timedelta(0)])
def test_a_lifetime_that_is_none_is_refused(store: KeyValueStore, run: Run, lifetime: Any) -> None:
    with pytest.raises(ValueError, match="ttl"):
        run(store.set("key", b"value", expires_in=lifetime))


def test_delete_and_exists(store: KeyValueStore, run: Run) -> None:
    assert run(store.exists("key")) is False
    run(store.delete("key"))
    run(store.set("key", b"value"))
    assert run(store.exists("key")) is True
    run(store.delete("key"))
    assert run(store.exists("key")) is False


def test_delete_all_spares_siblings_and_parents_and_takes_children(driver: CountingDriver, run: Run) -> None:
    parent = KeyValueStore(driver, namespace="app")
    child, sibling = parent.with_namespace("cache"), parent.with_namespace("cache2")
    grandchild = child.with_namespace("pages")
    stranger, sessions = KeyValueStore(driver, namespace="application"), UnstorageSessionStore(driver)
    sessions.set("sid", {"user": "ada"})
    everyone = [parent, child, sibling, grandchild, stranger]
    for number, each in enumerate(everyone):
        run(each.set("key", str(number), expires_in=60 if number % 2 else None))
    assert [run(each.get("key")) for each in everyone] == [b"0", b"1", b"2", b"3", b"4"]
    run(child.delete_all())
    assert [run(each.get("key")) for each in everyone] == [b"0", None, b"2", None, b"4"]
    run(parent.delete_all())
    assert [run(each.get("key")) for each in everyone] == [None, None, None, None, b"4"]
    assert sessions.get("sid") == {"user": "ada"}


def test_what_has_expired_can_be_dropped(store: KeyValueStore, clock: ManualClock, run: Run) -> None:
    run(store.set("short", b"value", expires_in=1))
    run(store.set("long", b"value"))
    clock.advance(2)
    run(store.delete_expired())
    assert run(store.get("long")) == b"value"


def test_an_entry_of_another_program_is_named(store: KeyValueStore, driver: CountingDriver, run: Run) -> None:
    driver.set(store._key("key"), b"x")
    with pytest.raises(CorruptEntry, match="'litestar'"):
        run(store.get("key"))


@pytest.mark.parametrize("namespace", ["", "n" * 500])
def test_a_namespace_that_cannot_work_is_refused(namespace: str) -> None:
    with pytest.raises(ValueError, match="namespace"):
        KeyValueStore("memory://", namespace=namespace)


def test_a_driver_that_was_handed_in_is_not_closed(driver: CountingDriver, run: Run) -> None:
    async def use() -> None:
        async with KeyValueStore(driver).with_namespace("child"):
            pass

    run(use())
    assert "close" not in driver.calls


def test_the_repr_holds_no_value(store: KeyValueStore, run: Run) -> None:
    run(store.set("key", b"confidential"))
    assert "confidential" not in repr(store)
    assert "namespace='litestar'" in repr(store)


# --- Litestar uses it ---


def own_app(driver: Driver | str, handlers: list[Any]) -> Litestar:
    root = KeyValueStore(driver)
    return Litestar(
        handlers,
        stores=StoreRegistry({"root": root}, default_factory=root.with_namespace),
        middleware=[
            ServerSideSessionConfig(renew_on_access=True).middleware,
            RateLimitConfig(("minute", 3)).middleware,
        ],
        logging_config=None,
    )


def test_litestars_own_sessions_live_in_it(driver: CountingDriver, clock: ManualClock) -> None:
    with TestClient(own_app(driver, [read, write, clear])) as client:
        login(client)
        assert client.get("/read").json() == {"user": "ada"}
        assert all(client.cookies["session"] not in key for key in driver.keys())
        client.post("/clear")
    assert list(driver.keys("litestar:sessions:")) == []


def test_litestars_rate_limit_counts_in_it(driver: CountingDriver) -> None:
    with TestClient(own_app(driver, [untouched])) as client:
        assert [client.get("/untouched").status_code for _ in range(4)] == [200, 200, 200, 429]
    assert len(list(driver.keys("litestar:rate_limit:"))) == 1


def test_litestars_response_cache_lives_in_it(driver: CountingDriver, clock: ManualClock) -> None:
    calls: list[int] = []

    @get("/slow", cache=60)
    async def slow(q: FromQuery[str] = "") -> int:
        calls.append(1)
        return len(calls)

    app = Litestar([slow], stores={"response_cache": KeyValueStore(driver, clock=clock)}, logging_config=None)
    with TestClient(app) as client:
        long = "x" * 2000
        assert [client.get(f"/slow?q={long}").json() for _ in range(2)] == [1, 1]
        clock.advance(61)
        assert client.get(f"/slow?q={long}").json() == 2


def test_litestar_closes_what_was_opened_for_it() -> None:
    closed: list[bool] = []

    class Watched(MemoryDriver):
        def close(self) -> None:
            closed.append(True)

    register_driver("watched-store", Watched)
    with TestClient(own_app("watched-store://", [untouched])) as client:
        client.get("/untouched")
        assert closed == []
    assert closed == [True]
