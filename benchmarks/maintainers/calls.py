"""Calls an application in this process, ASGI, WSGI or aiohttp, as a browser would that has no network to wait for."""

from __future__ import annotations

import asyncio
import json
import socket
import time
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from http.cookies import SimpleCookie
from typing import Any, NamedTuple, Protocol
from urllib.parse import urlencode
from wsgiref.util import setup_testing_defaults

from tests.harness.sites import started

HOST, PORT = "127.0.0.1", 8000
# What browsers send with every request, and a cookie of somebody else.
HEADERS = {"host": HOST, "accept": "text/html,*/*;q=0.8", "accept-language": "en", "user-agent": "Mozilla/5.0"}
OTHER_COOKIE = "theme=dark"


class Call(NamedTuple):
    """What is asked for."""

    path: str
    query: dict[str, str] = {}  # noqa: RUF012  # never changed

    @property
    def method(self) -> str:
        return "GET" if self.path in ("/untouched", "/read") else "POST"

    @property
    def text(self) -> str:
        """The query as it stands in a URL."""
        return urlencode(self.query)


class Answer(NamedTuple):
    """What an answer says in JSON, its `Set-Cookie` headers, and the seconds that the application took to give it."""

    content: Any
    cookies: list[str]
    seconds: float


def answer(call: Call, seconds: float, status: int, headers: Iterable[tuple[str, str]], body: bytes) -> Answer:
    """The answer to a call. `RuntimeError` if it failed."""
    if status != 200:
        raise RuntimeError(f"{call.path} was answered with status {status}: {body[:200]!r}")
    return Answer(json.loads(body), [value for name, value in headers if name.lower() == "set-cookie"], seconds)


class Site(Protocol):
    """An application that can be asked. The time of an answer begins and ends at the application's own edge."""

    def ask(self, call: Call, cookie: str) -> Answer: ...
    def close(self) -> None: ...


class Browser:
    """A visitor of one site, who keeps cookies as `Set-Cookie` says, deletes them too, and knows nothing else."""

    def __init__(self, site: Site) -> None:
        self._site = site
        self._cookies: dict[str, str] = {}

    @property
    def cookie(self) -> str:
        """The `Cookie` header of the next request."""
        return "; ".join([OTHER_COOKIE, *(f"{name}={value}" for name, value in self._cookies.items())])

    def ask(self, call: Call) -> Answer:
        found = self._site.ask(call, self.cookie)
        for header in found.cookies:
            for name, morsel in SimpleCookie(header).items():
                # Max-Age counts more than Expires (RFC 6265, section 5.3).
                expires = morsel["expires"] and parsedate_to_datetime(morsel["expires"]).replace(tzinfo=UTC)
                if int(morsel["max-age"]) <= 0 if morsel["max-age"] else expires and expires <= datetime.now(UTC):
                    self._cookies.pop(name, None)
                else:
                    self._cookies[name] = morsel.coded_value
        return found


class AsgiSite:
    """An ASGI application on an event loop of its own, started and shut down by the lifespan protocol."""

    def __init__(self, app: Any) -> None:
        self._app, self._runner = app, asyncio.Runner()
        self._headers = [(name.encode(), value.encode()) for name, value in HEADERS.items()]
        self._lifespan = self._runner.run(started(app))

    def ask(self, call: Call, cookie: str) -> Answer:
        return self._runner.run(self._ask(call, cookie))

    def together(self, calls: list[tuple[Call, str]]) -> None:
        """Make all calls at once, each with its cookie."""

        async def all_of_them() -> None:
            await asyncio.gather(*[self._ask(*one) for one in calls])

        self._runner.run(all_of_them())

    def close(self) -> None:
        self._runner.run(self._lifespan.tell("shutdown"))
        self._runner.close()

    async def _ask(self, call: Call, cookie: str) -> Answer:
        scope: Any = {"type": "http", "asgi": {"version": "3.0", "spec_version": "2.3"}, "http_version": "1.1"}
        scope |= {"scheme": "http", "root_path": "", "client": (HOST, 50_000), "server": (HOST, PORT), "state": {}}
        scope |= {"method": call.method, "path": call.path, "raw_path": call.path.encode()}
        scope |= {"query_string": call.text.encode(), "headers": [*self._headers, (b"cookie", cookie.encode())]}
        messages: list[Any] = []

        async def receive() -> Any:
            return {"type": "http.request", "body": b"", "more_body": False}

        async def send(message: Any) -> None:
            messages.append(message)

        begin = time.perf_counter()
        await self._app(scope, receive, send)
        seconds = time.perf_counter() - begin
        start, *parts = messages
        headers = [(name.decode(), value.decode()) for name, value in start["headers"]]
        return answer(call, seconds, start["status"], headers, b"".join(part.get("body", b"") for part in parts))


class WsgiSite:
    """A WSGI application, called in this thread."""

    def __init__(self, app: Any) -> None:
        self._app = app
        self._headers = {f"HTTP_{name.upper().replace('-', '_')}": value for name, value in HEADERS.items()}

    def ask(self, call: Call, cookie: str) -> Answer:
        environ = {**self._headers, "HTTP_COOKIE": cookie, "REQUEST_METHOD": call.method, "QUERY_STRING": call.text}
        environ |= {"SCRIPT_NAME": "", "PATH_INFO": call.path, "REMOTE_ADDR": HOST, "CONTENT_LENGTH": "0"}
        setup_testing_defaults(environ)
        started: list[Any] = []

        def start_response(status: str, headers: list[tuple[str, str]], exc_info: Any = None) -> None:
            started[:] = status, headers

        begin = time.perf_counter()
        parts = self._app(environ, start_response)
        body = b"".join(parts)
        if hasattr(parts, "close"):
            parts.close()
        seconds = time.perf_counter() - begin
        status, headers = started
        return answer(call, seconds, int(status.split()[0]), headers, body)

    def close(self) -> None:
        pass


class AiohttpSite:
    """An aiohttp application behind aiohttp's own server, at the other end of a pair of sockets."""

    def __init__(self, app: Any) -> None:
        from aiohttp import web

        self._runner, self._app = asyncio.Runner(), web.AppRunner(app, access_log=None)
        self._head = "".join(f"{name}: {value}\r\n" for name, value in HEADERS.items()) + "content-length: 0\r\n"
        self._reader, self._writer = self._runner.run(self._connect())

    async def _connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        await self._app.setup()
        ours, theirs = socket.socketpair()
        server: Any = self._app.server
        await asyncio.get_running_loop().connect_accepted_socket(server, theirs)
        return await asyncio.open_connection(sock=ours)

    def ask(self, call: Call, cookie: str) -> Answer:
        return self._runner.run(self._ask(call, cookie))

    def close(self) -> None:
        self._writer.close()
        self._runner.run(self._app.cleanup())
        self._runner.close()

    async def _ask(self, call: Call, cookie: str) -> Answer:
        first = f"{call.method} {call.path}?{call.text} HTTP/1.1\r\n"
        request = f"{first}{self._head}cookie: {cookie}\r\n\r\n".encode()
        begin = time.perf_counter()
        self._writer.write(request)
        head = await self._reader.readuntil(b"\r\n\r\n")
        status, *lines = head.decode().strip().split("\r\n")
        headers = [(name.lower(), value) for name, _, value in (line.partition(": ") for line in lines)]
        body = await self._reader.readexactly(int(dict(headers)["content-length"]))
        return answer(call, time.perf_counter() - begin, int(status.split()[1]), headers, body)


SITES: dict[str, Callable[[Any], Site]] = {"asgi": AsgiSite, "wsgi": WsgiSite, "aiohttp": AiohttpSite}
