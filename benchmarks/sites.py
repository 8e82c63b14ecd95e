"""Calls an application in this process, ASGI, WSGI or aiohttp, as a browser would that has no network to wait for."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import MutableMapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, NamedTuple, Protocol

from session_kit.benchmarks.harness import wsgi_environ

DEADLINE = 10.0  # seconds
HOST, PORT = "127.0.0.1", 8000
# What browsers send with every request, and a cookie of somebody else.
HEADERS = {"host": HOST, "accept": "text/html,*/*;q=0.8", "accept-language": "en", "user-agent": "Mozilla/5.0"}
OTHER_COOKIE = "theme=dark"


class Answer(NamedTuple):
    """The body of an answer, its `Set-Cookie` headers, and the seconds that the application took to give it."""

    body: str
    cookies: list[str]
    seconds: float


class Site(Protocol):
    """An application that can be asked. The time of an answer begins and ends at the application's own edge."""

    def get(self, path: str, cookie: str) -> Answer: ...
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

    def get(self, path: str) -> Answer:
        answer = self._site.get(path, self.cookie)
        for header in answer.cookies:
            self._keep(header)
        return answer

    def _keep(self, header: str) -> None:
        pair, *attributes = header.split(";")
        name, _, value = pair.strip().partition("=")
        said = {key.strip().lower(): text.strip() for key, _, text in (part.partition("=") for part in attributes)}
        # Max-Age counts more than Expires (RFC 6265, section 5.3).
        if "max-age" in said:
            gone = int(said["max-age"]) <= 0
        else:
            gone = bool(said.get("expires")) and _date(said["expires"]) <= datetime.now(UTC)
        if gone:
            self._cookies.pop(name, None)
        else:
            self._cookies[name] = value


def _date(text: str) -> datetime:
    date = parsedate_to_datetime(text)
    return date if date.tzinfo else date.replace(tzinfo=UTC)


# --- ASGI ---

Message = MutableMapping[str, Any]


class AsgiSite:
    """An ASGI application on an event loop of its own, started and shut down by the lifespan protocol."""

    def __init__(self, app: Any) -> None:
        self._app = app
        self._loop = asyncio.new_event_loop()
        self._headers = [(name.encode(), value.encode()) for name, value in HEADERS.items()]
        self._orders: asyncio.Queue[Message] = asyncio.Queue()
        self._replies: asyncio.Queue[Message] = asyncio.Queue()
        scope = {"type": "lifespan", "asgi": {"version": "3.0", "spec_version": "2.0"}, "state": {}}
        self._life = self._loop.create_task(app(scope, self._orders.get, self._replies.put))
        self._tell("startup")

    def get(self, path: str, cookie: str) -> Answer:
        return self._loop.run_until_complete(self._get(path, cookie))

    async def _get(self, path: str, cookie: str) -> Answer:
        scope = {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.3"},
            "http_version": "1.1",
            "method": "GET",
            "scheme": "http",
            "path": path,
            "raw_path": path.encode(),
            "query_string": b"",
            "root_path": "",
            "headers": [*self._headers, (b"cookie", cookie.encode())],
            "client": (HOST, 50_000),
            "server": (HOST, PORT),
            "state": {},
        }
        messages: list[Message] = []

        async def receive() -> Message:
            return {"type": "http.request", "body": b"", "more_body": False}

        async def send(message: Message) -> None:
            messages.append(message)

        begin = time.perf_counter()
        await self._app(scope, receive, send)
        seconds = time.perf_counter() - begin
        start, *parts = messages
        body = b"".join(part.get("body", b"") for part in parts).decode()
        _check(path, start["status"], body)
        return Answer(body, [value.decode() for name, value in start["headers"] if name == b"set-cookie"], seconds)

    def close(self) -> None:
        self._tell("shutdown")
        self._loop.run_until_complete(self._life)
        self._loop.run_until_complete(self._loop.shutdown_default_executor())
        self._loop.close()

    def _tell(self, what: str) -> None:
        async def tell() -> Message:
            await self._orders.put({"type": f"lifespan.{what}"})
            return await asyncio.wait_for(self._replies.get(), DEADLINE)

        reply = self._loop.run_until_complete(tell())
        if reply["type"] != f"lifespan.{what}.complete":
            raise RuntimeError(f"{what} of the application failed: {reply.get('message', '')}")


# --- WSGI ---


class WsgiSite:
    """A WSGI application, called in this thread."""

    def __init__(self, app: Any) -> None:
        self._app = app
        self._headers = {f"HTTP_{name.upper().replace('-', '_')}": value for name, value in HEADERS.items()}

    def get(self, path: str, cookie: str) -> Answer:
        environ = {**wsgi_environ(path, cookie), **self._headers}
        started: list[Any] = []

        def start_response(status: str, headers: list[tuple[str, str]], exc_info: Any = None) -> None:
            started[:] = status, headers

        begin = time.perf_counter()
        body = self._app(environ, start_response)
        parts = b"".join(body)
        if hasattr(body, "close"):
            body.close()
        seconds = time.perf_counter() - begin
        status, headers = started
        _check(path, int(status.split()[0]), parts.decode())
        return Answer(parts.decode(), [value for name, value in headers if name.lower() == "set-cookie"], seconds)

    def close(self) -> None:
        pass


# --- aiohttp ---


class AiohttpSite:
    """An aiohttp application behind aiohttp's own server, with memory where the socket would be."""

    def __init__(self, app: Any) -> None:
        from aiohttp import web

        self._loop = asyncio.new_event_loop()
        self._runner = web.AppRunner(app, access_log=None)
        self._loop.run_until_complete(self._runner.setup())
        self._wire = _Wire()
        self._head = "".join(f"{name}: {value}\r\n" for name, value in HEADERS.items())
        assert self._runner.server is not None
        self._connection = self._loop.run_until_complete(self._connect(self._runner.server))

    async def _connect(self, server: Any) -> Any:
        connection = server()
        connection.connection_made(self._wire)
        return connection

    def get(self, path: str, cookie: str) -> Answer:
        return self._loop.run_until_complete(self._get(path, cookie))

    async def _get(self, path: str, cookie: str) -> Answer:
        request = f"GET {path} HTTP/1.1\r\n{self._head}cookie: {cookie}\r\n\r\n".encode()
        arrival = self._wire.next_answer(self._loop)
        begin = time.perf_counter()
        self._connection.data_received(request)
        raw = await asyncio.wait_for(arrival, DEADLINE)
        seconds = time.perf_counter() - begin
        head, _, body = raw.decode().partition("\r\n\r\n")
        status, *lines = head.split("\r\n")
        _check(path, int(status.split()[1]), body)
        headers = [line.partition(": ") for line in lines]
        return Answer(body, [value for name, _, value in headers if name.lower() == "set-cookie"], seconds)

    def close(self) -> None:
        self._connection.connection_lost(None)
        self._loop.run_until_complete(self._runner.cleanup())
        self._loop.run_until_complete(self._loop.shutdown_default_executor())
        self._loop.close()


class _Wire(asyncio.Transport):
    """Collects what the server writes, until it is a whole answer."""

    _LENGTH = re.compile(rb"content-length: (\d+)", re.IGNORECASE)

    def next_answer(self, loop: asyncio.AbstractEventLoop) -> asyncio.Future[bytes]:
        self._received = b""
        self._arrival: asyncio.Future[bytes] = loop.create_future()
        return self._arrival

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self._received += bytes(data)
        head, found, body = self._received.partition(b"\r\n\r\n")
        length = self._LENGTH.search(head)
        if found and length is not None and len(body) >= int(length[1]) and not self._arrival.done():
            self._arrival.set_result(self._received)

    def is_closing(self) -> bool:
        return False

    def close(self) -> None:
        pass


SITES: dict[str, type[AsgiSite] | type[WsgiSite] | type[AiohttpSite]] = {
    "asgi": AsgiSite,
    "wsgi": WsgiSite,
    "aiohttp": AiohttpSite,
}


def _check(path: str, status: int, body: str) -> None:
    if status != 200:
        raise RuntimeError(f"{path} was answered with status {status}: {body[:200]}")
