"""The applications of the tests: bare, with sessions of our peers, and with ours.

A bare application has a dict that it forgets, so that what a request takes longer with sessions is theirs alone. Each
peer is set up as its documentation tells to; what differs from its defaults says why. Nothing of a framework is
imported before its application is made.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple
from urllib.parse import parse_qsl, urlsplit

from redis.asyncio import Redis

from session_kit.benchmarks.maintainers.results import url_in
from tests.harness.sessions import SECRET

NONE, OURS = "none", "session_kit"
TWO_WEEKS = 14 * 24 * 60 * 60  # seconds


class Backends(NamedTuple):
    """Where stores are: a folder for files, and the URLs of a Redis or Valkey server and of a PostgreSQL database."""

    folder: Path
    redis: str
    postgres: str

    def options(self, store: str) -> dict[str, Any]:
        """What our integrations are told."""
        servers = {"Valkey": self.redis, "PostgreSQL": self.postgres}
        return {"store": servers.get(store) or url_in(self.folder, store), "secret": SECRET}


@contextmanager
def open_backends(redis: str | None = None, postgres: str | None = None) -> Iterator[Backends]:
    """A folder, and the servers at these URLs, or some that run meanwhile."""
    from tests.harness.postgres import start_postgres
    from tests.harness.servers import start_valkey

    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        redis = redis or stack.enter_context(start_valkey(folder)).url
        yield Backends(folder, redis, postgres or stack.enter_context(start_postgres(folder)).url)


class Peer(NamedTuple):
    """One application: a framework, the sessions that it has, and their store."""

    framework: str
    sessions: str
    store: str
    interface: str  # asgi, wsgi or aiohttp
    make: Callable[[str, str, Backends], Any]

    @property
    def name(self) -> str:
        return ":".join(part.replace(" ", "-") for part in (self.framework, self.sessions, self.store) if part)

    @property
    def ours(self) -> bool:
        return self.sessions.startswith(OURS)

    @property
    def cells(self) -> list[str]:
        """What stands in front of its figures in a table."""
        return [self.framework, f"**{self.sessions}**" if self.ours else self.sessions, self.store or "-"]

    @property
    def logout(self) -> str:
        """The path of the tests' application that ends these sessions: `/logout` calls what not all of them have."""
        with_logout = self.framework == "Django" and self.sessions != NONE
        return "/logout" if self.ours or with_logout else "/clear"

    def app(self, backends: Backends) -> Any:
        if self.sessions == OURS and self.framework not in ("Django", "WSGI"):
            module = import_module(f"tests.harness.apps.{self.framework.lower()}_app")
            return module.make_app(**backends.options(self.store))
        return self.make(self.sessions, self.store, backends)


def forgetful(app: Any) -> Any:
    """A middleware that gives each ASGI request a dict for a session."""

    async def respond(scope: Any, receive: Any, send: Any) -> None:
        scope["session"] = {}
        await app(scope, receive, send)

    return respond


def starlette(sessions: str, store: str, backends: Backends) -> Any:
    from starlette.middleware import Middleware
    from starlette.middleware.sessions import SessionMiddleware as CookieSessions
    from starsessions import InMemoryStore, SessionAutoloadMiddleware, SessionMiddleware
    from starsessions.stores.redis import RedisStore

    from tests.harness.apps.starlette_app import bare_app

    if sessions != "starsessions":
        one = Middleware(forgetful) if sessions == NONE else Middleware(CookieSessions, secret_key=SECRET)
        return bare_app(middleware=[one])
    client = Redis.from_url(backends.redis)

    @asynccontextmanager
    async def lifespan(app: Any) -> AsyncIterator[None]:
        yield
        await client.aclose()

    kept = RedisStore(connection=client) if store == "Valkey" else InMemoryStore()
    # The lifetime of its examples. Without the second, each handler has to load the session by itself.
    both = [Middleware(SessionMiddleware, store=kept, lifetime=TWO_WEEKS), Middleware(SessionAutoloadMiddleware)]
    return bare_app(middleware=both, lifespan=lifespan)


def litestar(sessions: str, store: str, backends: Backends) -> Any:
    from litestar.middleware.session.server_side import ServerSideSessionConfig
    from litestar.stores.file import FileStore
    from litestar.stores.memory import MemoryStore
    from litestar.stores.redis import RedisStore

    from tests.harness.apps.litestar_app import bare_app

    if sessions == NONE:
        return bare_app(middleware=[forgetful])
    kept: Any = MemoryStore()
    if store == "files":
        kept = FileStore(backends.folder / "litestar", create_directories=True)
    elif store == "Valkey":
        kept = RedisStore.with_client(backends.redis)
    return bare_app(middleware=[ServerSideSessionConfig().middleware], stores={"sessions": kept})


def flask(sessions: str, store: str, backends: Backends) -> Any:
    from flask.sessions import SecureCookieSession

    from tests.harness.apps.flask_app import bare_app

    app: Any = bare_app()
    app.secret_key = SECRET
    if sessions == NONE:
        nothing = {"open_session": lambda *_: SecureCookieSession(), "is_null_session": lambda _: True}
        app.session_interface = SimpleNamespace(**nothing)
    elif sessions == "Flask-Session":
        import redis
        from cachelib import FileSystemCache, SimpleCache
        from flask_session import Session
        from flask_sqlalchemy import SQLAlchemy

        if store == "Valkey":
            app.config.update(SESSION_TYPE="redis", SESSION_REDIS=redis.Redis.from_url(backends.redis))
        elif store == "PostgreSQL":
            app.config["SQLALCHEMY_DATABASE_URI"] = backends.postgres.replace("://", "+psycopg://", 1)
            app.config.update(SESSION_TYPE="sqlalchemy", SESSION_SQLALCHEMY=SQLAlchemy(app))
        else:
            kept = SimpleCache() if store == "memory" else FileSystemCache(str(backends.folder / "flask"))
            app.config.update(SESSION_TYPE="cachelib", SESSION_CACHELIB=kept)
        Session(app)
    return app


def django_without_sessions(get_response: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """A middleware of Django that gives each request a dict for a session."""

    def respond(request: Any) -> Any:
        request.session = {}
        return get_response(request)

    return respond


def django(sessions: str, store: str, backends: Backends) -> Any:
    """Its settings belong to the process: make one application with sessions there, and then the bare one."""
    from django import setup
    from django.conf import settings
    from django.core.handlers.wsgi import WSGIHandler
    from django.core.management import call_command

    middleware, engines = "django.contrib.sessions.middleware.SessionMiddleware", "django.contrib.sessions.backends"
    options: dict[str, Any] = {"SESSION_ENGINE": f"{engines}.cache"}
    if sessions == NONE:
        middleware = f"{__name__}.django_without_sessions"
    elif sessions.startswith(OURS):
        options = {"SESSION_ENGINE": "session_kit.integrations.django", "SESSION_KIT": backends.options(store)}
        if sessions == f"{OURS} middleware":
            middleware = "session_kit.integrations.django.SessionMiddleware"
    elif store == "files":
        options = {"SESSION_ENGINE": f"{engines}.file", "SESSION_FILE_PATH": backends.folder}
    elif store == "Valkey":
        cache = {"BACKEND": "django.core.cache.backends.redis.RedisCache", "LOCATION": backends.redis}
        options["CACHES"] = {"default": cache}
    elif store in ("SQLite", "PostgreSQL"):
        options = {"SESSION_ENGINE": f"{engines}.db", "DATABASES": {"default": django_database(store, backends)}}
    if sessions != NONE or not settings.configured:
        own = {"ROOT_URLCONF": "tests.harness.apps.django_app", "INSTALLED_APPS": ["django.contrib.sessions"]}
        settings.configure(ALLOWED_HOSTS=["*"], SECRET_KEY=SECRET, **own, **options)
        setup()
        if "DATABASES" in options:
            call_command("migrate", verbosity=0)
    settings.MIDDLEWARE = [middleware]
    return WSGIHandler()


def django_database(store: str, backends: Backends) -> dict[str, Any]:
    """A database with connections that stay open: by default each request opens a new one."""
    if store == "SQLite":
        # As durable as session_kit's sqlite and disk; by default each write waits for the disk.
        options = {"init_command": "PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL"}
        database = {"ENGINE": "django.db.backends.sqlite3", "NAME": backends.folder / "django.db", "OPTIONS": options}
    else:
        url = urlsplit(backends.postgres)
        database = {"ENGINE": "django.db.backends.postgresql", "HOST": url.hostname, "PORT": url.port}
        database |= {"NAME": url.path[1:], "USER": url.username}
    return database | {"CONN_MAX_AGE": None}


def wsgi(sessions: str, store: str, backends: Backends) -> Any:
    from beaker.middleware import SessionMiddleware as Beaker

    from session_kit.wsgi import SessionMiddleware

    key = {NONE: "", "Beaker": "beaker.session", OURS: "session_kit.session"}[sessions]

    def app(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        path: str = environ["PATH_INFO"]
        session: Any = environ[key] if key else {}
        query = dict(parse_qsl(environ["QUERY_STRING"]))
        if path == "/write":
            session[query["key"]] = query["value"]
            if sessions == "Beaker":
                session.save()  # as its documentation does; with session.auto it would write at each read too
        elif path == "/logout":
            session.destroy()
        elif path == "/clear" and sessions == "Beaker":
            session.delete()
        body = json.dumps({"value": session.get(query["key"])} if path == "/read" else {"ok": True}).encode()
        start_response("200 OK", [("Content-Type", "application/json"), ("Content-Length", str(len(body)))])
        return [body]

    if sessions == OURS:
        return SessionMiddleware(app, **backends.options(store))
    if sessions == "Beaker":
        kind = "memory" if store == "memory" else "file"
        options = {"session.type": kind, "session.data_dir": str(backends.folder / "beaker"), "session.secret": SECRET}
        return Beaker(app, options)
    return app


def aiohttp(sessions: str, store: str, backends: Backends) -> Any:
    from aiohttp_session import get_session, setup
    from aiohttp_session.cookie_storage import EncryptedCookieStorage
    from aiohttp_session.redis_storage import RedisStorage

    from tests.harness.apps.aiohttp_app import bare_app

    async def nothing(request: Any) -> Any:
        return {}

    app = bare_app(nothing if sessions == NONE else get_session)
    if store == "Valkey":
        setup(app, RedisStorage(Redis.from_url(backends.redis)))
    elif store == "cookie":
        # Its plain cookie is neither signed nor encrypted, and meant for tests alone.
        setup(app, EncryptedCookieStorage(SECRET[:32].encode()))
    return app


OF_OTHERS = ["memory", "files", "Valkey"]
OF_OURS = ["memory", "sqlite", "disk", "Valkey"]
ALL = [*OF_OURS, "PostgreSQL"]
OF_DJANGO = ["memory", "files", "SQLite", "Valkey", "PostgreSQL"]
# Interface, what makes the applications of others, and the stores of each kind of sessions.
FRAMEWORKS: dict[str, tuple[str, Callable[[str, str, Backends], Any], dict[str, list[str]]]] = {
    "Starlette": ("asgi", starlette, {"its own": ["cookie"], "starsessions": ["memory", "Valkey"], OURS: ALL}),
    "Litestar": ("asgi", litestar, {"its own": OF_OTHERS, OURS: OF_OURS}),
    "Flask": ("wsgi", flask, {"its own": ["cookie"], "Flask-Session": [*OF_OTHERS, "PostgreSQL"], OURS: ALL}),
    "Django": ("wsgi", django, {"its own": OF_DJANGO, OURS: ALL, f"{OURS} middleware": ALL}),
    "WSGI": ("wsgi", wsgi, {"Beaker": ["memory", "files"], OURS: OF_OURS}),
    "aiohttp": ("aiohttp", aiohttp, {"aiohttp-session": ["cookie", "Valkey"], OURS: OF_OURS}),
}
PEERS = [
    Peer(framework, sessions, store, interface, make)
    for framework, (interface, make, kinds) in FRAMEWORKS.items()
    for sessions, stores in {NONE: [""], **kinds}.items()
    for store in stores
]


def named(name: str) -> Peer:
    """The peer of this name; `KeyError` if there is none."""
    return {peer.name: peer for peer in PEERS}[name]


def create() -> Any:
    """Make the application that the environment names: a factory for web servers."""
    backends = Backends(Path(os.environ["FOLDER"]), os.environ["REDIS"], os.environ["POSTGRES"])
    return named(os.environ["PEER"]).app(backends)
