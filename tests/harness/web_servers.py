"""The test applications, in this process or under a real web server, and the browsers that visit them.

The server that a framework brings is run by
`python -m tests.harness.web_servers aiohttp tests.harness.apps.aiohttp_app:create_app 8000`.
"""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import importlib
import logging
import secrets
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from http.cookiejar import CookieJar
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal, Self, TypeVar

import httpx

from session_kit import SessionManager
from session_kit.drivers.errors import DISTRIBUTION
from tests.harness.apps.settings import options_from
from tests.harness.servers import HOST, Server, Stoppable, wait_until

ROOT = Path(__file__).parents[2]
COOKIE = "session"
T = TypeVar("T")


@dataclass(frozen=True)
class Framework:
    """A framework, its test application, and the real server to run it under."""

    label: str
    app: str  # module:function, under tests.harness.apps; the module has make_app too
    kind: Literal["asgi", "wsgi", "own"]  # "own": not to be called in this process
    server: str
    distribution: str  # that the version is told of
    integration: str  # the module in session_kit that connects the framework

    @property
    def version(self) -> str:
        return version(self.distribution)

    @property
    def server_version(self) -> str:
        return version(self.server)

    @property
    def ways(self) -> list[str]:
        return [self.server] if self.kind == "own" else ["in process", self.server]


FRAMEWORKS = {
    "asgi": Framework("bare ASGI", "asgi_app:create_app", "asgi", "granian", DISTRIBUTION, "asgi"),
    "starlette": Framework(
        "Starlette", "starlette_app:create_app", "asgi", "uvicorn", "starlette", "integrations.starlette"
    ),
    "fastapi": Framework("FastAPI", "fastapi_app:create_app", "asgi", "uvicorn", "fastapi", "integrations.fastapi"),
    "litestar": Framework(
        "Litestar", "litestar_app:create_app", "asgi", "hypercorn", "litestar", "integrations.litestar"
    ),
    "flask": Framework("Flask", "flask_app:create_app", "wsgi", "gunicorn", "flask", "integrations.flask"),
    "quart": Framework("Quart", "quart_app:create_app", "asgi", "hypercorn", "quart", "integrations.quart"),
    # Its settings belong to the process: one application in each.
    "django": Framework("Django", "django_app:create_app", "own", "gunicorn", "django", "integrations.django"),
    "aiohttp": Framework("aiohttp", "aiohttp_app:create_app", "own", "aiohttp", "aiohttp", "integrations.aiohttp"),
    "pyramid": Framework("Pyramid", "pyramid_app:create_app", "wsgi", "gunicorn", "pyramid", "integrations.pyramid"),
    "falcon": Framework("Falcon", "falcon_app:create_app", "wsgi", "gunicorn", "falcon", "wsgi"),
    "bottle": Framework("Bottle", "bottle_app:create_app", "wsgi", "gunicorn", "bottle", "wsgi"),
    "tornado": Framework("Tornado", "tornado_app:create_app", "own", "tornado", "tornado", "manager"),
}

COMMANDS = {
    "uvicorn": "-m uvicorn --factory {app} --host {host} --port {port} --no-access-log",
    "granian": "-m granian --factory {app} --interface asgi --host {host} --port {port} --no-ws",
    "hypercorn": "-m hypercorn {app}() --workers 0 --bind {host}:{port}",
    "gunicorn": "-m gunicorn {app}() --bind {host}:{port} --worker-class gthread --threads 16 --no-control-socket",
    "aiohttp": "-m tests.harness.web_servers aiohttp {app} {port}",
    "tornado": "-m tests.harness.web_servers tornado {app} {port}",
}


# --- sites ---


class Site(Stoppable):
    """A running test application with a store of its own, and a clock that can be put forward."""

    url = f"http://{HOST}"
    transport: httpx.BaseTransport

    def __init__(self, framework: Framework, environment: Mapping[str, str], folder: Path) -> None:
        self.framework = framework
        self._clock = folder / "clock"
        self._clock.write_text("0")
        self._environment_of_app = {**environment, "CLOCK": str(self._clock)}

    def advance(self, seconds: float) -> None:
        """Put the clock of the application forward."""
        ahead = float(self._clock.read_text()) + seconds
        replacement = self._clock.with_suffix(".new")
        replacement.write_text(str(ahead))
        replacement.replace(self._clock)

    def log(self) -> str:
        """What the application and its server have logged."""
        raise NotImplementedError


class WebServer(Server, Site):
    """A test application under its real server, in a process of its own on a free port."""

    def __init__(self, framework: Framework, environment: Mapping[str, str], folder: Path) -> None:
        Site.__init__(self, framework, environment, folder)
        Server.__init__(self, folder, framework.server)
        self.url = f"http://{HOST}:{self.port}"
        self.transport = httpx.HTTPTransport(limits=httpx.Limits(max_connections=50))

    def _command(self) -> list[str]:
        app = f"tests.harness.apps.{self.framework.app}"
        words = COMMANDS[self.framework.server].split()
        return [sys.executable, *(word.format(app=app, host=HOST, port=self.port) for word in words)]

    def _environment(self) -> dict[str, str]:
        return {**self._environment_of_app, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"}

    def _ready(self) -> bool:
        connection = http.client.HTTPConnection(HOST, self.port, timeout=5)
        with contextlib.closing(connection):
            connection.request("GET", "/untouched")
            return connection.getresponse().status == 200

    def stop(self) -> None:
        self.transport.close()
        super().stop()


class SiteInProcess(Site):
    """A test application in this process, called as a server would call it; what it raises is a 500 and is logged."""

    def __init__(self, framework: Framework, environment: Mapping[str, str], folder: Path) -> None:
        super().__init__(framework, environment, folder)
        self._lines: list[str] = []
        self._handler = _Recorder(self._lines)
        logging.getLogger().addHandler(self._handler)
        self._manager = SessionManager(**options_from(self._environment_of_app))
        module = importlib.import_module(f"tests.harness.apps.{framework.app.partition(':')[0]}")
        app = module.make_app(manager=self._manager)
        if framework.kind == "asgi":
            self.transport = _InLoop(self._logged_asgi(app))
        else:
            self.transport = _InThread(self._logged_wsgi(app), raise_app_exceptions=False)

    def _logged_asgi(self, app: Any) -> Any:
        async def logged(scope: Any, receive: Any, send: Any) -> None:
            try:
                await app(scope, receive, send)
            except Exception:
                self._lines.append(traceback.format_exc())
                raise

        return logged

    def _logged_wsgi(self, app: Any) -> Any:
        def logged(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
            if RAW_COOKIE in environ:
                environ["HTTP_COOKIE"] = bytes.fromhex(environ.pop(RAW_COOKIE)).decode("latin-1")
            body: Any = ()
            chunks: list[bytes] = []
            try:
                body = app(environ, start_response)
                chunks += body
            except Exception:
                self._lines.append(traceback.format_exc())
                start_response("500 Internal Server Error", [], sys.exc_info())
            try:
                if hasattr(body, "close"):
                    body.close()
            except Exception:
                self._lines.append(traceback.format_exc())  # too late for another answer
            return chunks

        return logged

    def log(self) -> str:
        return "\n".join(self._lines)

    def stop(self) -> None:
        logging.getLogger().removeHandler(self._handler)
        if isinstance(self.transport, _InLoop):
            self.transport.run(self._manager.aclose())
        else:
            self._manager.close()
        self.transport.close()


class _Recorder(logging.Handler):
    def __init__(self, lines: list[str]) -> None:
        super().__init__()
        self._lines = lines

    def emit(self, record: logging.LogRecord) -> None:
        self._lines.append(self.format(record))


RAW_COOKIE = "HTTP_X_RAW_COOKIE"


class _InThread(httpx.WSGITransport):
    """Hands cookies over as a server would, decoded by latin-1 (PEP 3333); httpx takes ASCII alone."""

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        cookie = b"; ".join(value for name, value in request.headers.raw if name.lower() == b"cookie")
        if cookie:
            del request.headers["cookie"]
            request.headers["x-raw-cookie"] = cookie.hex()
        return super().handle_request(request)


class _InLoop(httpx.BaseTransport):
    """Calls an ASGI application on an event loop in a thread of its own, so that requests can overlap."""

    def __init__(self, app: Any) -> None:
        self._inner = httpx.ASGITransport(app, raise_app_exceptions=False)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()

    def run(self, work: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(30)

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        return self.run(self._handle(request))  # type: ignore[no-any-return]

    async def _handle(self, request: httpx.Request) -> httpx.Response:
        response = await self._inner.handle_async_request(request)
        return httpx.Response(response.status_code, headers=response.headers, content=await response.aread())

    def close(self) -> None:
        self.run(self._loop.shutdown_asyncgens())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


# --- visitors ---


class Browser:
    """A visitor with a cookie jar. It serves all sites on 127.0.0.1 alike, because cookies know no ports."""

    def __init__(self, site: Site, cookie: str | None = None) -> None:
        self._jar = CookieJar()
        self.visit(site)
        if cookie is not None:
            self._client.cookies.set(COOKIE, cookie, HOST)

    def visit(self, site: Site) -> Self:
        """Go to another site, with the same jar."""
        # Never closed: the connections belong to the site.
        self._client = httpx.Client(transport=site.transport, base_url=site.url, cookies=self._jar, timeout=20)
        return self

    @property
    def cookie(self) -> str | None:
        """The session cookie in the jar."""
        return next((cookie.value for cookie in self._jar if cookie.name == COOKIE), None)

    def get(self, path: str, **query: str) -> httpx.Response:
        return self._client.get(path, params=query)

    def post(self, path: str, **query: str) -> httpx.Response:
        return self._client.post(path, params=query)

    def provoke(self, method: str, path: str, **query: str) -> httpx.Response:
        """A request at which the application fails. Some servers close its connection then: no other is to use it."""
        return self._client.request(method, path, params=query, headers={"connection": "close"})

    def send(self, path: str, *cookies: bytes) -> httpx.Response:
        """GET with these `Cookie` headers, whatever is in the jar."""
        return self._client.send(
            httpx.Request("GET", self._client.base_url.join(path), headers=[(b"cookie", value) for value in cookies])
        )

    def do(self, path: str, **query: str) -> Any:
        """POST, which must succeed; returns the answer."""
        return _answer(self.post(path, **query))

    def write(self, key: str, value: str) -> httpx.Response:
        response = self.post("/write", key=key, value=value)
        _answer(response)
        return response

    def read(self, key: str) -> Any:
        """The value of `key` in the session, or None."""
        return _answer(self.get("/read", key=key))["value"]


class ApiClient:
    """A client without cookies: it sends what the last response said in the header `Session`, at first nothing.

    It keeps no cookie, but notes each that it is sent.

    Parameters:
        header: that the application reads in place of `Authorization`.
    """

    def __init__(self, site: Site, token: str = "", header: str | None = None) -> None:
        self.token = token
        self._header = header
        self.cookies: list[str] = []
        # Never closed: the connections belong to the site.
        self._client = httpx.Client(transport=site.transport, base_url=site.url, timeout=20)

    def request(self, method: str, path: str, headers: Mapping[str, str] | None = None, **query: str) -> httpx.Response:
        own = {self._header: self.token} if self._header else {"authorization": f"Session {self.token}".strip()}
        sent = {**own, **(headers or {})}
        response = self._client.request(method, path, params=query, headers=sent)
        self._client.cookies.clear()
        self.cookies += response.headers.get_list("set-cookie")
        self.token = response.headers.get(self._header or "session", self.token)
        return response

    def do(self, path: str, **query: str) -> httpx.Response:
        """POST, which must succeed; returns the response."""
        response = self.request("POST", path, **query)
        _answer(response)
        return response

    def read(self, key: str) -> Any:
        """The value of `key` in the session, or None."""
        return _answer(self.request("GET", "/read", key=key))["value"]


def _answer(response: httpx.Response) -> Any:
    assert response.status_code == 200, f"{response.request.url.path}: {response.status_code} {response.text[:500]}"
    return response.json()


def together(*calls: Callable[[], T]) -> list[T]:
    """Make all calls at the same time."""
    with ThreadPoolExecutor(len(calls)) as pool:
        return [future.result() for future in [pool.submit(call) for call in calls]]


@contextlib.contextmanager
def slow_write(browser: Browser, folder: Path, key: str, value: str) -> Iterator[Future[httpx.Response]]:
    """Inside, a request is under way that has read the session and will write. Gives its response to come."""
    gate = folder / f"gate-{secrets.token_hex(4)}"
    with ThreadPoolExecutor(1) as pool:
        response = pool.submit(browser.post, "/slow", key=key, value=value, gate=str(gate))
        try:
            wait_until(lambda: gate.with_suffix(".in").exists() or response.done(), "the slow request")
            yield response
        finally:
            gate.with_suffix(".out").touch()
    response.result()


# --- the servers that frameworks bring ---


def _main(server: str, app: str, port: int) -> None:
    module, _, function = app.partition(":")
    application = getattr(importlib.import_module(module), function)()
    if server == "aiohttp":
        from aiohttp import web

        web.run_app(application, host=HOST, port=port)
    else:
        asyncio.run(_serve_tornado(application, port))


async def _serve_tornado(application: Any, port: int) -> None:
    application.listen(port, HOST)
    stopped = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopped.set)
    await stopped.wait()


if __name__ == "__main__":
    _main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
