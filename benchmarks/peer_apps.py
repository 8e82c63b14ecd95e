"""The same small application in each framework: bare, with sessions of its peers, and with session_kit's.

Every route does the same to its session everywhere. A bare application does it to a dict that it forgets, so that what
a request takes longer with sessions is theirs alone. Each peer is set up as its documentation tells to; what differs
from its defaults says why. Nothing of a framework is imported before its application is made.
"""

from __future__ import annotations

import base64
import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from session_kit.benchmarks.harness import PROFILE, SECRET

TWO_WEEKS = 14 * 24 * 60 * 60  # seconds

NONE, OURS = "none", "session_kit"


class Place(NamedTuple):
    """Where stores are: a folder for files, and the URLs of a Redis or Valkey server and of a PostgreSQL database."""

    folder: Path
    redis: str
    postgres: str

    def url(self, store: str) -> str:
        """The URL by which session_kit opens a store."""
        return {
            "memory": "memory://",
            "sqlite": f"sqlite://{self.folder / 'sessions.db'}",
            "disk": f"disk://{self.folder / 'disk'}",
            "Valkey": self.redis,
            "PostgreSQL": self.postgres,
        }[store]


class Peer(NamedTuple):
    """One application: a framework, the sessions that it has, and their store."""

    framework: str
    sessions: str
    store: str
    interface: str  # as in sites.SITES
    make: Callable[[str, str, Place], Any]

    @property
    def name(self) -> str:
        return ":".join(part.replace(" ", "-") for part in (self.framework, self.sessions, self.store) if part)

    def app(self, place: Place) -> Any:
        return self.make(self.sessions, self.store, place)


# --- what the routes do to a session ---


def login(session: Any) -> str:
    session.update(PROFILE)
    return "welcome"


def read(session: Any) -> str:
    return str(session.get("user", "nobody"))


def write(session: Any) -> str:
    session["visits"] = visits = session.get("visits", 0) + 1
    return str(visits)


ROUTES: dict[str, Callable[[Any], str]] = {"/login": login, "/read": read, "/write": write}
# And /untouched, and /logout, which is not the same everywhere.


# --- Starlette ---


def starlette(sessions: str, store: str, place: Place) -> Any:
    from starlette.applications import Starlette
    from starlette.middleware import Middleware
    from starlette.requests import Request
    from starlette.responses import PlainTextResponse, Response
    from starlette.routing import Route

    middleware: list[Middleware] = []
    client: Any = None
    if sessions == "its own":
        from starlette.middleware.sessions import SessionMiddleware as CookieSessions

        middleware = [Middleware(CookieSessions, secret_key=SECRET)]
    elif sessions == "starsessions":
        from redis.asyncio import Redis
        from starsessions import InMemoryStore, SessionAutoloadMiddleware, SessionMiddleware
        from starsessions.stores.redis import RedisStore

        client = Redis.from_url(place.redis) if store == "Valkey" else None
        kept = RedisStore(connection=client) if client else InMemoryStore()
        # The lifetime of its examples. Without the second, each handler has to load the session by itself.
        middleware = [
            Middleware(SessionMiddleware, store=kept, lifetime=TWO_WEEKS),
            Middleware(SessionAutoloadMiddleware),
        ]
    elif sessions == OURS:
        from session_kit.integrations.starlette import SessionMiddleware as Ours

        middleware = [Middleware(Ours, store=place.url(store), secret=SECRET)]

    def session_of(request: Request) -> Any:
        return {} if sessions == NONE else request.session

    def route(path: str, action: Callable[[Any], str]) -> Route:
        async def handle(request: Request) -> Response:
            return PlainTextResponse(action(session_of(request)))

        return Route(path, handle)

    async def untouched(request: Request) -> Response:
        return PlainTextResponse("")

    async def logout(request: Request) -> Response:
        session = session_of(request)
        if sessions == OURS:
            await session.adestroy()
        else:
            session.clear()
        return PlainTextResponse("bye")

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        yield
        if client is not None:
            await client.aclose()

    routes = [route(path, action) for path, action in ROUTES.items()]
    routes += [Route("/untouched", untouched), Route("/logout", logout)]
    return Starlette(routes=routes, middleware=middleware, lifespan=lifespan)


# --- Litestar ---


def litestar(sessions: str, store: str, place: Place) -> Any:
    from litestar import Litestar, Request, get
    from litestar.enums import MediaType

    settings: dict[str, Any] = {}
    if sessions == "its own":
        from litestar.middleware.session.server_side import ServerSideSessionConfig
        from litestar.stores.file import FileStore
        from litestar.stores.memory import MemoryStore
        from litestar.stores.redis import RedisStore

        stores: dict[str, Callable[[], Any]] = {
            "memory": MemoryStore,
            "files": lambda: FileStore(place.folder / "litestar", create_directories=True),
            "Valkey": lambda: RedisStore.with_client(place.redis),
        }
        settings = {"middleware": [ServerSideSessionConfig().middleware], "stores": {"sessions": stores[store]()}}
    elif sessions == OURS:
        from session_kit.integrations.litestar import SessionKit

        settings = {"plugins": [SessionKit(store=place.url(store), secret=SECRET)]}

    def session_of(request: Request[Any, Any, Any]) -> Any:
        return {} if sessions == NONE else request.session

    def route(path: str, action: Callable[[Any], str]) -> Any:
        @get(path, media_type=MediaType.TEXT)
        async def handle(request: Request[Any, Any, Any]) -> str:
            return action(session_of(request))

        return handle

    @get("/untouched", media_type=MediaType.TEXT)
    async def untouched() -> str:
        return ""

    @get("/logout", media_type=MediaType.TEXT)
    async def logout(request: Request[Any, Any, Any]) -> str:
        if sessions != NONE:
            request.clear_session()
        return "bye"

    routes = [*(route(path, action) for path, action in ROUTES.items()), untouched, logout]
    return Litestar(routes, openapi_config=None, signature_namespace={"Request": Request}, **settings)


# --- Flask ---


def flask(sessions: str, store: str, place: Place) -> Any:
    from flask import Flask, session

    app = Flask("peer")
    if sessions != NONE:
        app.secret_key = SECRET
    if sessions == "Flask-Session":
        from cachelib import FileSystemCache, SimpleCache
        from flask_session import Session
        from redis import Redis

        if store == "Valkey":
            app.config.update(SESSION_TYPE="redis", SESSION_REDIS=Redis.from_url(place.redis))
        elif store == "PostgreSQL":
            from flask_sqlalchemy import SQLAlchemy

            app.config["SQLALCHEMY_DATABASE_URI"] = place.postgres.replace("://", "+psycopg://", 1)
            app.config.update(SESSION_TYPE="sqlalchemy", SESSION_SQLALCHEMY=SQLAlchemy(app))
        else:
            kept = SimpleCache() if store == "memory" else FileSystemCache(str(place.folder / "flask"))
            app.config.update(SESSION_TYPE="cachelib", SESSION_CACHELIB=kept)
        Session(app)
    elif sessions == OURS:
        from session_kit.integrations.flask import SessionKit

        SessionKit(app, store=place.url(store))

    def route(path: str, action: Callable[[Any], str]) -> None:
        app.get(path, endpoint=path[1:])(lambda: action({} if sessions == NONE else session))

    def logout(data: Any) -> str:
        if sessions == OURS:
            data.destroy()
        else:
            data.clear()
        return "bye"

    for path, action in {**ROUTES, "/logout": logout}.items():
        route(path, action)
    app.get("/untouched", endpoint="untouched")(lambda: "")
    return app


# --- Django ---


def django(sessions: str, store: str, place: Place) -> Any:
    """Its settings belong to the process: make there the bare application and one other, in this order."""
    from django import setup
    from django.conf import settings
    from django.core.handlers.wsgi import WSGIHandler
    from django.core.management import call_command
    from django.http import HttpRequest, HttpResponse
    from django.urls import path as url

    def route(path: str, action: Callable[[Any], str]) -> Any:
        def view(request: HttpRequest) -> HttpResponse:
            return HttpResponse(action(request.session if hasattr(request, "session") else {}))

        return url(path[1:], view)

    def logout(session: Any) -> str:
        if session:  # no dict
            session.flush()
        return "bye"

    urls = [route(path, action) for path, action in {**ROUTES, "/logout": logout}.items()]
    urls.append(url("untouched", lambda request: HttpResponse("")))
    database = urlsplit(place.postgres)

    class Router:
        """Sends Django's sessions to the database that the application is to have."""

        def db_for_read(self, *_: Any, **__: Any) -> str:
            return str(settings.SESSION_DATABASE)

        db_for_write = db_for_read

    if not settings.configured:
        settings.configure(
            ALLOWED_HOSTS=["*"],
            SECRET_KEY=SECRET,
            ROOT_URLCONF=tuple(urls),
            INSTALLED_APPS=["django.contrib.sessions"],
            CACHES={
                "default": {"BACKEND": "django.core.cache.backends.locmem.LocMemCache"},
                "redis": {"BACKEND": "django.core.cache.backends.redis.RedisCache", "LOCATION": place.redis},
            },
            # As durable as session_kit's sqlite and disk, and a connection that stays open; by default each write waits
            # for the disk, and each request opens the file anew.
            DATABASES={
                "default": {
                    "ENGINE": "django.db.backends.sqlite3",
                    "NAME": place.folder / "django.sqlite3",
                    "CONN_MAX_AGE": None,
                    "OPTIONS": {"init_command": "PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL"},
                },
                "PostgreSQL": {
                    "ENGINE": "django.db.backends.postgresql",
                    "NAME": database.path[1:],
                    "USER": database.username,
                    "HOST": database.hostname,
                    "PORT": database.port,
                    "CONN_MAX_AGE": None,
                },
            },
            DATABASE_ROUTERS=[Router()],
            SESSION_FILE_PATH=place.folder,
        )
        setup()
    own, engine = "django.contrib.sessions.middleware.SessionMiddleware", "django.contrib.sessions.backends"
    settings.MIDDLEWARE = [] if sessions == NONE else [own]
    if sessions == "its own":
        settings.SESSION_ENGINE = (
            f"{engine}.{ {'SQLite': 'db', 'PostgreSQL': 'db', 'files': 'file'}.get(store, 'cache') }"
        )
        settings.SESSION_CACHE_ALIAS = "redis" if store == "Valkey" else "default"
        if store in ("SQLite", "PostgreSQL"):
            settings.SESSION_DATABASE = "PostgreSQL" if store == "PostgreSQL" else "default"
            call_command("migrate", verbosity=0, database=settings.SESSION_DATABASE)
    elif sessions != NONE:
        settings.SESSION_KIT = {"store": place.url(store)}
        settings.SESSION_ENGINE = "session_kit.integrations.django"
        if sessions == f"{OURS} middleware":
            settings.MIDDLEWARE = ["session_kit.integrations.django.SessionMiddleware"]
    return WSGIHandler()


# --- WSGI without a framework ---


def wsgi(sessions: str, store: str, place: Place) -> Any:
    key = {NONE: "", "Beaker": "beaker.session", OURS: "session_kit.session"}[sessions]

    def login_and_save(session: Any) -> str:
        answer = login(session)
        session.save()
        return answer

    def write_and_save(session: Any) -> str:
        answer = write(session)
        session.save()
        return answer

    def logout(session: Any) -> str:
        if sessions == "Beaker":
            session.delete()
        elif sessions == OURS:
            session.destroy()
        return "bye"

    routes = {**ROUTES, "/logout": logout}
    if sessions == "Beaker":
        # Its documentation saves in the handler; with session.auto it would write everything at each read too.
        routes |= {"/login": login_and_save, "/write": write_and_save}

    def app(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        action = routes.get(environ["PATH_INFO"])
        body = b"" if action is None else action(environ[key] if key else {}).encode()
        start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(len(body)))])
        return [body]

    if sessions == "Beaker":
        from beaker.middleware import SessionMiddleware

        kind = "memory" if store == "memory" else "file"
        options = {"session.type": kind, "session.data_dir": str(place.folder / "beaker"), "session.secret": SECRET}
        return SessionMiddleware(app, options)
    if sessions == OURS:
        from session_kit.wsgi import SessionMiddleware as Ours

        return Ours(app, store=place.url(store), secret=SECRET)
    return app


# --- aiohttp ---


def aiohttp(sessions: str, store: str, place: Place) -> Any:
    from aiohttp import web

    app = web.Application()
    session_of: Callable[[web.Request], Any]
    if sessions == "aiohttp-session":
        from aiohttp_session import get_session, setup
        from aiohttp_session.cookie_storage import EncryptedCookieStorage
        from aiohttp_session.redis_storage import RedisStorage
        from redis.asyncio import Redis

        session_of = get_session
        if store == "Valkey":
            client = Redis.from_url(place.redis)
            setup(app, RedisStorage(client))

            async def close(app: web.Application) -> None:
                await client.aclose()

            app.on_cleanup.append(close)
        else:
            # Its plain cookie is neither signed nor encrypted, and meant for tests alone.
            setup(app, EncryptedCookieStorage(base64.urlsafe_b64encode(SECRET[:32].encode()).decode()))
    elif sessions == OURS:
        from session_kit.integrations.aiohttp import get_session as get_ours
        from session_kit.integrations.aiohttp import setup as set_up_ours

        session_of = get_ours
        set_up_ours(app, store=place.url(store), secret=SECRET)
    else:

        async def session_of(request: web.Request) -> Any:
            return {}

    def route(path: str, action: Callable[[Any], str]) -> None:
        async def handle(request: web.Request) -> web.Response:
            return web.Response(text=action(await session_of(request)))

        app.router.add_get(path, handle)

    async def untouched(request: web.Request) -> web.Response:
        return web.Response(text="")

    async def logout(request: web.Request) -> web.Response:
        session: Any = await session_of(request)
        if sessions == OURS:
            await session.adestroy()
        elif sessions != NONE:
            session.invalidate()
        return web.Response(text="bye")

    for path, action in ROUTES.items():
        route(path, action)
    app.router.add_get("/untouched", untouched)
    app.router.add_get("/logout", logout)
    return app


# --- all of them ---


STORES = ["memory", "sqlite", "disk", "Valkey"]
_KINDS: dict[str, tuple[str, Callable[[str, str, Place], Any], dict[str, list[str]]]] = {
    "Starlette": (
        "asgi",
        starlette,
        {"its own": ["cookie"], "starsessions": ["memory", "Valkey"], OURS: [*STORES, "PostgreSQL"]},
    ),
    "Litestar": (
        "asgi",
        litestar,
        {"its own": ["memory", "files", "Valkey"], OURS: STORES},
    ),
    "Flask": (
        "wsgi",
        flask,
        {
            "its own": ["cookie"],
            "Flask-Session": ["memory", "files", "Valkey", "PostgreSQL"],
            OURS: [*STORES, "PostgreSQL"],
        },
    ),
    "Django": (
        "wsgi",
        django,
        {
            "its own": ["memory", "files", "SQLite", "Valkey", "PostgreSQL"],
            OURS: [*STORES, "PostgreSQL"],
            f"{OURS} middleware": [*STORES, "PostgreSQL"],
        },
    ),
    "WSGI": ("wsgi", wsgi, {"Beaker": ["memory", "files"], OURS: STORES}),
    "aiohttp": ("aiohttp", aiohttp, {"aiohttp-session": ["cookie", "Valkey"], OURS: STORES}),
}

PEERS = [
    Peer(framework, sessions, store, interface, make)
    for framework, (interface, make, kinds) in _KINDS.items()
    for sessions, stores in {NONE: [""], **kinds}.items()
    for store in stores
]


def named(name: str) -> Peer:
    """The peer of this name; `KeyError` if there is none."""
    return {peer.name: peer for peer in PEERS}[name]


def create() -> Any:
    """Make the application that the environment names: a factory for web servers."""
    place = Place(Path(os.environ["FOLDER"]), os.environ["REDIS"], os.environ["POSTGRES"])
    return named(os.environ["PEER"]).app(place)
