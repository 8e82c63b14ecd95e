"""The applications of the tests: bare, with sessions of our peers, and with ours.

A bare application has a dict that it forgets, so that what a request takes longer with sessions is theirs alone. Each
peer is set up as its documentation tells to; what differs from its defaults says why. Where an application of the tests
knows our sessions alone (aiohttp, WSGI), a small one here does the same. Nothing of a framework is imported before its
application is made.
"""

from __future__ import annotations

import base64
import json
import os
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple
from urllib.parse import parse_qs, urlsplit

from redis.asyncio import Redis

from tests.harness.sessions import SECRET

NONE, OURS = "none", "session_kit"
TWO_WEEKS = 14 * 24 * 60 * 60  # seconds


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

    def options(self, store: str) -> dict[str, Any]:
        """What our integrations are told."""
        return {"store": self.url(store), "secret": SECRET}


class Peer(NamedTuple):
    """One application: a framework, the sessions that it has, and their store."""

    framework: str
    sessions: str
    store: str
    interface: str  # as in calls.SITES
    make: Callable[[str, str, Place], Any]

    @property
    def name(self) -> str:
        return ":".join(part.replace(" ", "-") for part in (self.framework, self.sessions, self.store) if part)

    @property
    def ours(self) -> bool:
        return self.sessions.startswith(OURS)

    @property
    def logout(self) -> str:
        """The path of the tests' application that ends these sessions: `/logout` calls what not all of them have."""
        with_logout = self.framework == "Django" and self.sessions != NONE
        return "/logout" if self.ours or with_logout else "/clear"

    def app(self, place: Place) -> Any:
        return self.make(self.sessions, self.store, place)


class Forgetful:
    """A middleware that gives each ASGI request a dict for a session."""

    def __init__(self, app: Any) -> None:
        self._app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        scope["session"] = {}
        await self._app(scope, receive, send)


def starlette(sessions: str, store: str, place: Place) -> Any:
    from tests.harness.apps import starlette_app

    if sessions == OURS:
        return starlette_app.make_app(**place.options(store))
    from starlette.middleware import Middleware
    from starlette.middleware.sessions import SessionMiddleware as CookieSessions
    from starsessions import InMemoryStore, SessionAutoloadMiddleware, SessionMiddleware
    from starsessions.stores.redis import RedisStore

    if sessions != "starsessions":
        one = Middleware(Forgetful) if sessions == NONE else Middleware(CookieSessions, secret_key=SECRET)
        return starlette_app.bare_app(middleware=[one])
    client = Redis.from_url(place.redis) if store == "Valkey" else None

    @asynccontextmanager
    async def lifespan(app: Any) -> AsyncIterator[None]:
        yield
        if client is not None:
            await client.aclose()

    kept = RedisStore(connection=client) if client else InMemoryStore()
    # The lifetime of its examples. Without the second, each handler has to load the session by itself.
    both = [Middleware(SessionMiddleware, store=kept, lifetime=TWO_WEEKS), Middleware(SessionAutoloadMiddleware)]
    return starlette_app.bare_app(middleware=both, lifespan=lifespan)


def litestar(sessions: str, store: str, place: Place) -> Any:
    from tests.harness.apps import litestar_app

    if sessions == OURS:
        return litestar_app.make_app(**place.options(store))
    if sessions == NONE:
        return litestar_app.bare_app(middleware=[Forgetful])
    from litestar.middleware.session.server_side import ServerSideSessionConfig
    from litestar.stores.file import FileStore
    from litestar.stores.memory import MemoryStore
    from litestar.stores.redis import RedisStore

    stores: dict[str, Callable[[], Any]] = {
        "memory": MemoryStore,
        "files": lambda: FileStore(place.folder / "litestar", create_directories=True),
        "Valkey": lambda: RedisStore.with_client(place.redis),
    }
    own = ServerSideSessionConfig().middleware
    return litestar_app.bare_app(middleware=[own], stores={"sessions": stores[store]()})


def flask(sessions: str, store: str, place: Place) -> Any:
    from tests.harness.apps import flask_app

    if sessions == OURS:
        return flask_app.make_app(**place.options(store))
    app = flask_app.bare_app()
    if sessions == NONE:
        from flask.sessions import SecureCookieSession, SessionInterface

        class Nothing(SessionInterface):
            open_session = staticmethod(lambda app, request: SecureCookieSession())
            save_session = staticmethod(lambda app, session, response: None)

        app.session_interface = Nothing()
        return app
    app.secret_key = SECRET
    if sessions == "Flask-Session":
        import redis
        from cachelib import FileSystemCache, SimpleCache
        from flask_session import Session

        if store == "Valkey":
            app.config.update(SESSION_TYPE="redis", SESSION_REDIS=redis.Redis.from_url(place.redis))
        elif store == "PostgreSQL":
            from flask_sqlalchemy import SQLAlchemy

            app.config["SQLALCHEMY_DATABASE_URI"] = place.postgres.replace("://", "+psycopg://", 1)
            app.config.update(SESSION_TYPE="sqlalchemy", SESSION_SQLALCHEMY=SQLAlchemy(app))
        else:
            kept = SimpleCache() if store == "memory" else FileSystemCache(str(place.folder / "flask"))
            app.config.update(SESSION_TYPE="cachelib", SESSION_CACHELIB=kept)
        Session(app)
    return app


def django_without_sessions(get_response: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """A middleware of Django that gives each request a dict for a session."""

    def respond(request: Any) -> Any:
        request.session = {}
        return get_response(request)

    return respond


def django(sessions: str, store: str, place: Place) -> Any:
    """Its settings belong to the process: make there the bare application and one other, in this order."""
    from django import setup
    from django.conf import settings
    from django.core.handlers.wsgi import WSGIHandler
    from django.core.management import call_command

    if not settings.configured:
        # A connection that stays open, and as durable as session_kit's sqlite and disk; by default each request opens
        # the file anew, and each write waits for the disk.
        options = {"init_command": "PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL"}
        sqlite = {"ENGINE": "django.db.backends.sqlite3", "OPTIONS": options, "CONN_MAX_AGE": None}
        url = urlsplit(place.postgres)
        postgres = {"ENGINE": "django.db.backends.postgresql", "HOST": url.hostname, "PORT": url.port}
        postgres |= {"NAME": url.path[1:], "USER": url.username, "CONN_MAX_AGE": None}

        def database(model: Any, **_: Any) -> str:
            return str(settings.SESSION_DATABASE)

        settings.configure(
            ALLOWED_HOSTS=["*"],
            SECRET_KEY=SECRET,
            ROOT_URLCONF="tests.harness.apps.django_app",
            INSTALLED_APPS=["django.contrib.sessions"],
            DATABASES={"default": {**sqlite, "NAME": place.folder / "django.sqlite3"}, "PostgreSQL": postgres},
            DATABASE_ROUTERS=[SimpleNamespace(db_for_read=database, db_for_write=database)],
            SESSION_FILE_PATH=place.folder,
        )
        setup()
    middleware = "django.contrib.sessions.middleware.SessionMiddleware"
    if sessions == NONE:
        middleware = f"{__name__}.django_without_sessions"
    elif sessions == "its own":
        kind = {"SQLite": "db", "PostgreSQL": "db", "files": "file"}.get(store, "cache")
        settings.SESSION_ENGINE = f"django.contrib.sessions.backends.{kind}"
        cache = "redis.RedisCache" if store == "Valkey" else "locmem.LocMemCache"
        settings.CACHES = {"default": {"BACKEND": f"django.core.cache.backends.{cache}", "LOCATION": place.redis}}
        if kind == "db":
            settings.SESSION_DATABASE = "PostgreSQL" if store == "PostgreSQL" else "default"
            call_command("migrate", verbosity=0, database=settings.SESSION_DATABASE)
    else:
        settings.SESSION_KIT = {"store": place.url(store)}
        settings.SESSION_ENGINE = "session_kit.integrations.django"
        if sessions == f"{OURS} middleware":
            middleware = "session_kit.integrations.django.SessionMiddleware"
    settings.MIDDLEWARE = [middleware]
    return WSGIHandler()


def answer(path: str, query: Mapping[str, str], session: Any) -> str:
    """What the applications of the tests answer, but for a logout."""
    if path == "/write":
        session[query["key"]] = query["value"]
    return json.dumps({"value": session.get(query["key"])} if path == "/read" else {"ok": True})


def wsgi(sessions: str, store: str, place: Place) -> Any:
    key = {NONE: "", "Beaker": "beaker.session", OURS: "session_kit.session"}[sessions]

    def app(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        path: str = environ["PATH_INFO"]
        session: Any = environ[key] if key else {}
        query = {name: values[0] for name, values in parse_qs(environ["QUERY_STRING"]).items()}
        body = answer(path, query, session).encode()
        if path == "/logout":
            session.destroy()
        elif path == "/clear" and sessions == "Beaker":
            session.delete()
        elif path == "/write" and sessions == "Beaker":
            session.save()  # as its documentation does; with session.auto it would write at each read too
        start_response("200 OK", [("Content-Type", "application/json"), ("Content-Length", str(len(body)))])
        return [body]

    if sessions == "Beaker":
        from beaker.middleware import SessionMiddleware

        kind = "memory" if store == "memory" else "file"
        options = {"session.type": kind, "session.data_dir": str(place.folder / "beaker"), "session.secret": SECRET}
        return SessionMiddleware(app, options)
    if sessions == OURS:
        from session_kit.wsgi import SessionMiddleware as Ours

        return Ours(app, **place.options(store))
    return app


def aiohttp(sessions: str, store: str, place: Place) -> Any:
    from aiohttp import web

    if sessions == OURS:
        from tests.harness.apps import aiohttp_app

        return aiohttp_app.make_app(**place.options(store))
    session_of: Any = None
    if sessions != NONE:
        from aiohttp_session import get_session as session_of

    async def handle(request: web.Request) -> web.Response:
        session: Any = await session_of(request) if session_of else {}
        if request.path == "/clear" and session_of:
            session.invalidate()
        return web.Response(text=answer(request.path, request.query, session), content_type="application/json")

    app = web.Application()
    app.router.add_routes([web.get("/untouched", handle), web.get("/read", handle)])
    app.router.add_routes([web.post("/write", handle), web.post("/clear", handle)])
    if sessions != NONE:
        from aiohttp_session import setup
        from aiohttp_session.cookie_storage import EncryptedCookieStorage
        from aiohttp_session.redis_storage import RedisStorage

        if store == "Valkey":
            client = Redis.from_url(place.redis)
            setup(app, RedisStorage(client))

            async def close(app: web.Application) -> None:
                await client.aclose()

            app.on_cleanup.append(close)
        else:
            # Its plain cookie is neither signed nor encrypted, and meant for tests alone.
            setup(app, EncryptedCookieStorage(base64.urlsafe_b64encode(SECRET[:32].encode()).decode()))
    return app


STORES = ["memory", "sqlite", "disk", "Valkey"]
WITH_DATABASE = [*STORES, "PostgreSQL"]
_KINDS: dict[str, tuple[str, Callable[[str, str, Place], Any], dict[str, list[str]]]] = {
    "Starlette": (
        "asgi",
        starlette,
        {"its own": ["cookie"], "starsessions": ["memory", "Valkey"], OURS: WITH_DATABASE},
    ),
    "Litestar": ("asgi", litestar, {"its own": ["memory", "files", "Valkey"], OURS: STORES}),
    "Flask": (
        "wsgi",
        flask,
        {"its own": ["cookie"], "Flask-Session": ["memory", "files", "Valkey", "PostgreSQL"], OURS: WITH_DATABASE},
    ),
    "Django": (
        "wsgi",
        django,
        {
            "its own": ["memory", "files", "SQLite", "Valkey", "PostgreSQL"],
            OURS: WITH_DATABASE,
            f"{OURS} middleware": WITH_DATABASE,
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
