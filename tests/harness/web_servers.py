"""The application that every framework has, in this process or under the real server of the framework.

The server that a framework brings is run by
`APP=aiohttp_app python -m tests.harness.web_servers aiohttp 8000`.
"""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import importlib
import logging
import signal
import sys
import traceback
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

import httpx

from session_kit import SessionManager
from session_kit.drivers.errors import DISTRIBUTION
from tests.harness.apps.settings import create_app, options_from
from tests.harness.servers import HOST, Server
from tests.harness.sites import ASGIInProcess, Site

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Framework:
    """A framework, its test application, and the real server to run it under."""

    label: str
    app: str  # its module in tests.harness.apps
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
    "asgi": Framework("bare ASGI", "asgi_app", "asgi", "granian", DISTRIBUTION, "asgi"),
    "starlette": Framework("Starlette", "starlette_app", "asgi", "uvicorn", "starlette", "integrations.starlette"),
    "fastapi": Framework("FastAPI", "fastapi_app", "asgi", "uvicorn", "fastapi", "integrations.fastapi"),
    "litestar": Framework("Litestar", "litestar_app", "asgi", "hypercorn", "litestar", "integrations.litestar"),
    "flask": Framework("Flask", "flask_app", "wsgi", "gunicorn", "flask", "integrations.flask"),
    "quart": Framework("Quart", "quart_app", "asgi", "hypercorn", "quart", "integrations.quart"),
    # Its settings belong to the process: one application in each.
    "django": Framework("Django", "django_app", "own", "gunicorn", "django", "integrations.django"),
    "aiohttp": Framework("aiohttp", "aiohttp_app", "own", "aiohttp", "aiohttp", "integrations.aiohttp"),
    "pyramid": Framework("Pyramid", "pyramid_app", "wsgi", "gunicorn", "pyramid", "integrations.pyramid"),
    "falcon": Framework("Falcon", "falcon_app", "wsgi", "gunicorn", "falcon", "wsgi"),
    "bottle": Framework("Bottle", "bottle_app", "wsgi", "gunicorn", "bottle", "wsgi"),
    "tornado": Framework("Tornado", "tornado_app", "own", "tornado", "tornado", "manager"),
}

CREATE_APP = "tests.harness.apps.settings:create_app"
COMMANDS = {
    "uvicorn": "-m uvicorn --factory {app} --host {host} --port {port} --no-access-log",
    "granian": "-m granian --factory {app} --interface asgi --host {host} --port {port} --no-ws",
    "hypercorn": "-m hypercorn {app}() --workers 0 --bind {host}:{port}",
    "gunicorn": "-m gunicorn {app}() --bind {host}:{port} --worker-class gthread --threads 16 --no-control-socket",
    "aiohttp": "-m tests.harness.web_servers aiohttp {port}",
    "tornado": "-m tests.harness.web_servers tornado {port}",
}


class AppSite(Site):
    """A running test application with a store of its own, and a clock that can be put forward."""

    def __init__(self, framework: Framework, environment: Mapping[str, str], folder: Path) -> None:
        self.framework = framework
        self._clock = folder / "clock"
        self._clock.write_text("0")
        self._environment_of_app = {**environment, "APP": framework.app, "CLOCK": str(self._clock)}

    def advance(self, seconds: float) -> None:
        """Put the clock of the application forward."""
        ahead = float(self._clock.read_text()) + seconds
        replacement = self._clock.with_suffix(".new")
        replacement.write_text(str(ahead))
        replacement.replace(self._clock)

    def log(self) -> str:
        """What the application and its server have logged."""
        raise NotImplementedError


class HttpServer(Server, Site):
    """A web server in a process of its own, on a free port."""

    def __init__(self, folder: Path, name: str) -> None:
        super().__init__(folder, name)
        self.url = f"http://{HOST}:{self.port}"
        self.transport = httpx.HTTPTransport(limits=httpx.Limits(max_connections=50))

    def _ready(self) -> bool:
        connection = http.client.HTTPConnection(HOST, self.port, timeout=5)
        with contextlib.closing(connection):
            connection.request("GET", "/untouched")
            return connection.getresponse().status == 200

    def stop(self) -> None:
        self.transport.close()
        super().stop()


class WebServer(HttpServer, AppSite):
    """A test application under the real server of its framework."""

    def __init__(self, framework: Framework, environment: Mapping[str, str], folder: Path) -> None:
        AppSite.__init__(self, framework, environment, folder)
        HttpServer.__init__(self, folder, framework.server)

    def _command(self) -> list[str]:
        words = COMMANDS[self.framework.server].split()
        places = {"app": CREATE_APP, "host": HOST, "port": self.port}
        return [sys.executable, *(word.format_map(places) for word in words)]

    def _environment(self) -> dict[str, str]:
        return {**self._environment_of_app, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"}


class SiteInProcess(AppSite):
    """A test application in this process, called as a server would call it; what it raises is a 500 and is logged."""

    def __init__(self, framework: Framework, environment: Mapping[str, str], folder: Path) -> None:
        super().__init__(framework, environment, folder)
        self._lines: list[str] = []
        self._handler = _Recorder(self._lines)
        logging.getLogger().addHandler(self._handler)
        self._manager = SessionManager(**options_from(self._environment_of_app))
        module = importlib.import_module(f"tests.harness.apps.{framework.app}")
        app = module.make_app(manager=self._manager)
        if framework.kind == "asgi":
            self.transport = ASGIInProcess(self._logged_asgi(app), raises=False)
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
        if isinstance(self.transport, ASGIInProcess):
            self.transport.loop.run(self._manager.aclose())
        else:
            self._manager.close()
        super().stop()


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


# --- the servers that frameworks bring ---


def _main(server: str, port: int) -> None:
    application = create_app()
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
    _main(sys.argv[1], int(sys.argv[2]))
