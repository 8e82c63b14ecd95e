"""A visitor of an application: called in this process, or over HTTP under a real server on 127.0.0.1."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import socketserver
import threading
from collections.abc import Callable, Coroutine, Iterator
from html.parser import HTMLParser
from http.cookiejar import Cookie, CookieJar, DefaultCookiePolicy
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

import httpx
from servers import HOST

STORES = ["memory", "disk", "Valkey"]


class Visitor:
    """A browser with a cookie jar of its own, which does not follow redirects by itself."""

    def __init__(self, url: str, transport: httpx.BaseTransport) -> None:
        self.client = httpx.Client(base_url=url, transport=transport, cookies=CookieJar(OfThisMachine()), timeout=20)
        self.get, self.post = self.client.get, self.client.post

    def text(self, path: str) -> str:
        """What a page says that must be there."""
        response = self.get(path)
        assert response.status_code == 200, (path, response.status_code, response.text[:2000])
        return response.text

    def submit(self, path: str, **fields: str) -> httpx.Response:
        """Fill in the form of a page and send it, with what it hides."""
        form = Form(self.text(path))
        action = form.action or path
        return self.post(action, data=form.hidden | fields, headers={"Referer": str(self.client.base_url.join(path))})

    def log_in_at_provider(self, sent: httpx.Response) -> httpx.Response:
        """Go to another server, to which an answer sends the visitor, and come back with what that one says."""
        back = httpx.get(sent.headers["location"])
        assert back.status_code == 302, back.text[:2000]
        return self.get(back.headers["location"])

    def cookie(self, name: str) -> str | None:
        return next((cookie.value for cookie in self.client.cookies.jar if cookie.name == name), None)


Visit = Callable[[Any], Visitor]
"""Brings a new visitor to an application."""


class OfThisMachine(DefaultCookiePolicy):
    """As in a browser, `Secure` is no hindrance on this machine, so that the cookies are those of production."""

    def set_ok(self, cookie: Cookie, request: Any) -> bool:
        cookie.secure = False
        return super().set_ok(cookie, request)


class Form(HTMLParser):
    """The last form of a page that is sent by POST: where it goes, and its hidden fields."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.action = ""
        self.hidden: dict[str, str] = {}
        self.feed(html)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        given = dict(attributes)
        if tag == "form" and (given.get("method") or "").lower() == "post":
            self.action, self.hidden = given.get("action") or "", {}
        elif tag == "input" and given.get("type") == "hidden" and given.get("name"):
            self.hidden[str(given["name"])] = given.get("value") or ""


class Loop:
    """An event loop in a thread of its own."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self.loop.run_forever, daemon=True)
        self._thread.start()

    def run(self, work: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(30)

    def close(self) -> None:
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join()
        self.loop.close()


class ASGIInProcess(httpx.BaseTransport):
    """Calls an ASGI application on an event loop, between its startup and its shutdown."""

    def __init__(self, app: Any) -> None:
        self._loop, self._app = Loop(), app
        self._inner = httpx.ASGITransport(app)
        self._messages: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self._loop.run(self._start())

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        return self._loop.run(self._handle(request))

    async def _handle(self, request: httpx.Request) -> httpx.Response:
        response = await self._inner.handle_async_request(request)
        return httpx.Response(response.status_code, headers=response.headers, content=await response.aread())

    async def _start(self) -> None:
        self._answered = asyncio.Event()

        async def send(message: Any) -> None:
            self._answered.set()

        scope = {"type": "lifespan", "asgi": {"version": "3.0"}, "state": {}}
        self._lifespan = asyncio.ensure_future(self._app(scope, self._messages.get, send))
        self._lifespan.add_done_callback(lambda _: self._answered.set())  # one that knows of no lifespan
        await self._say("lifespan.startup")

    async def _say(self, kind: str) -> None:
        self._answered.clear()
        if not self._lifespan.done():
            self._messages.put_nowait({"type": kind})
            await self._answered.wait()

    def close(self) -> None:
        self._loop.run(self._say("lifespan.shutdown"))
        self._loop.close()


class _Threading(socketserver.ThreadingMixIn, WSGIServer):
    daemon_threads = True


class _Silent(WSGIRequestHandler):
    def log_message(self, *_: Any) -> None: ...


@contextlib.contextmanager
def wsgi_server(app: Any) -> Iterator[str]:
    """The URL of a WSGI application under the standard library's server."""
    with make_server(HOST, 0, app, _Threading, _Silent) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        thread.start()
        yield f"http://{HOST}:{server.server_port}"
        server.shutdown()
        thread.join()


@contextlib.contextmanager
def asgi_server(app: Any) -> Iterator[str]:
    """The URL of an ASGI application under uvicorn."""
    import uvicorn

    server = uvicorn.Server(uvicorn.Config(app, host=HOST, port=0, log_level="warning", lifespan="auto"))
    started = threading.Event()

    async def serve() -> None:
        task = asyncio.ensure_future(server.serve())
        while not server.started and not task.done():
            await asyncio.sleep(0.01)
        started.set()
        await task

    thread = threading.Thread(target=lambda: asyncio.run(serve()), daemon=True)
    thread.start()
    started.wait(20)
    (listener,) = server.servers[0].sockets
    yield f"http://{HOST}:{listener.getsockname()[1]}"
    server.should_exit = True
    thread.join()


@contextlib.contextmanager
def aiohttp_server(app: Any) -> Iterator[str]:
    """The URL of an application of aiohttp under its own server."""
    from aiohttp import web

    loop = Loop()

    async def start() -> web.AppRunner:
        runner = web.AppRunner(app)
        await runner.setup()
        await web.TCPSite(runner, HOST, 0).start()
        return runner

    runner = loop.run(start())
    yield f"http://{HOST}:{runner.addresses[0][1]}"
    loop.run(runner.cleanup())
    loop.close()


def is_asgi(app: Any) -> bool:
    """Whether an application is called as ASGI has it."""
    return inspect.iscoroutinefunction(app) or inspect.iscoroutinefunction(type(app).__call__)
