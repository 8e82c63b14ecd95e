"""An application for tests to visit: called in this process, or under a real server in a thread of it.

The tests of packages import this module too, as `harness.sites`, in environments where others install a package
`tests`: so its imports of neighbours are relative.
"""

from __future__ import annotations

import asyncio
import inspect
import socket
import socketserver
import threading
from collections.abc import Iterable
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

import httpx

from .loops import LoopThread
from .servers import HOST, Stoppable, wait_until


class Site(Stoppable):
    """A web site. url: where it is; transport: by which a client of httpx reaches it."""

    url = f"http://{HOST}"
    transport: httpx.BaseTransport

    def stop(self) -> None:
        self.transport.close()


class RunningSite(Site):
    """One that somebody else runs."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.transport = httpx.HTTPTransport()


class InProcess(Site):
    """An ASGI or WSGI application that is called in this process."""

    url = "http://testserver"

    def __init__(self, app: Any) -> None:
        self.transport = ASGIInProcess(app) if is_asgi(app) else httpx.WSGITransport(app)


class ASGIInProcess(httpx.BaseTransport):
    """Calls an ASGI application on an event loop in a thread, so that requests can overlap.

    The application is told of its startup and, at the end, of its shutdown.

    Parameters:
        raises: what the application raises is raised here; otherwise it is a 500.
    """

    def __init__(self, app: Any, *, raises: bool = True) -> None:
        self.loop = LoopThread()
        self._inner = httpx.ASGITransport(app, raise_app_exceptions=raises)
        self._lifespan = self.loop.run(started(app))

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        return self.loop.run(self._handle(request))

    def handle_together(self, requests: Iterable[httpx.Request]) -> list[httpx.Response]:
        """Answer requests that come at the same time."""

        async def all_of_them() -> list[httpx.Response]:
            return await asyncio.gather(*map(self._handle, requests))

        return self.loop.run(all_of_them())

    async def _handle(self, request: httpx.Request) -> httpx.Response:
        response = await self._inner.handle_async_request(request)
        return httpx.Response(response.status_code, headers=response.headers, content=await response.aread())

    def close(self) -> None:
        self.loop.run(self._lifespan.tell("shutdown"))
        self.loop.close()


class Lifespan:
    """Tells an ASGI application of its startup and shutdown, as a server does; one that knows of neither is fine.

    `RuntimeError` if one of them fails.
    """

    def __init__(self, app: Any) -> None:
        self._messages: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self._answered = asyncio.Event()
        self._failure = ""
        scope = {"type": "lifespan", "asgi": {"version": "3.0"}, "state": {}}
        self._task = asyncio.ensure_future(app(scope, self._messages.get, self._send))
        self._task.add_done_callback(lambda _: self._answered.set())

    async def _send(self, message: Any) -> None:
        if message["type"].endswith(".failed"):
            self._failure = f"{message['type']}: {message.get('message', '')}"
        self._answered.set()

    async def tell(self, what: str) -> None:
        self._answered.clear()
        if not self._task.done():
            self._messages.put_nowait({"type": f"lifespan.{what}"})
            await self._answered.wait()
        if self._failure:
            raise RuntimeError(self._failure)


async def started(app: Any) -> Lifespan:
    """The lifespan of an ASGI application that has been told of its startup."""
    lifespan = Lifespan(app)
    await lifespan.tell("startup")
    return lifespan


def serve(app: Any) -> Site:
    """Start an ASGI or WSGI application under a real server, on a free port."""
    return UnderUvicorn(app) if is_asgi(app) else UnderWsgiref(app)


def is_asgi(app: Any) -> bool:
    """Whether an application is called as ASGI has it."""
    return inspect.iscoroutinefunction(app) or inspect.iscoroutinefunction(type(app).__call__)


class UnderUvicorn(Site):
    """An ASGI application. options: of uvicorn, beside the address."""

    def __init__(self, app: Any, **options: Any) -> None:
        import uvicorn

        settings = {"log_level": "warning", "timeout_graceful_shutdown": 1, **options}
        self._server = uvicorn.Server(uvicorn.Config(app, **settings))
        self._listener = socket.create_server((HOST, 0))
        self.port = self._listener.getsockname()[1]
        self.url = f"{'https' if 'ssl_certfile' in options else 'http'}://{HOST}:{self.port}"
        self.transport = httpx.HTTPTransport()
        self._thread = threading.Thread(target=asyncio.run, args=[self._serve()], daemon=True)
        self._thread.start()
        wait_until(lambda: self._server.started, "uvicorn")

    async def _serve(self) -> None:
        await self._server.serve([self._listener])
        await asyncio.sleep(0.01)  # the transports close in later turns of the loop

    def stop(self) -> None:
        super().stop()
        self._server.should_exit = True
        self._thread.join()
        self._listener.close()


class UnderWsgiref(Site):
    """A WSGI application under the server of the standard library, with a thread for each request."""

    def __init__(self, app: Any) -> None:
        self._server = make_server(HOST, 0, app, _ThreadingServer, _Silent)
        self.url = f"http://{HOST}:{self._server.server_port}"
        self.transport = httpx.HTTPTransport()
        self._thread = threading.Thread(target=self._server.serve_forever, args=[0.02], daemon=True)
        self._thread.start()

    def stop(self) -> None:
        super().stop()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


class _ThreadingServer(socketserver.ThreadingMixIn, WSGIServer):
    daemon_threads = True


class _Silent(WSGIRequestHandler):
    def log_message(self, *_: Any) -> None: ...


class UnderAiohttp(Site):
    """An application of aiohttp under the server that it brings."""

    def __init__(self, app: Any) -> None:
        self._loop = LoopThread()
        self._runner = self._loop.run(self._start(app))
        self.url = f"http://{HOST}:{self._runner.addresses[0][1]}"
        self.transport = httpx.HTTPTransport()

    async def _start(self, app: Any) -> Any:
        from aiohttp import web

        runner = web.AppRunner(app)
        await runner.setup()
        await web.TCPSite(runner, HOST, 0).start()
        return runner

    def stop(self) -> None:
        super().stop()
        self._loop.run(self._runner.cleanup())
        self._loop.close()
