"""Sites of the tests with a clock at the edge of the application: what clients and networks take is not counted."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from tests.harness.sites import InProcess, Site, UnderAiohttp


class TimedSite(Site):
    """An application in this process; aiohttp's behind the server that it brings.

    seconds: that the last request took.
    """

    seconds = 0.0

    def __init__(self, app: Any, interface: str) -> None:
        timed = {"asgi": self._asgi, "wsgi": self._wsgi, "aiohttp": self._aiohttp}[interface](app)
        self.inner = UnderAiohttp(timed) if interface == "aiohttp" else InProcess(timed)
        self.url, self.transport = self.inner.url, self.inner.transport

    def stop(self) -> None:
        self.inner.stop()

    def _asgi(self, app: Any) -> Any:
        async def timed(scope: Any, receive: Any, send: Any) -> None:
            begin = time.perf_counter()
            await app(scope, receive, send)
            self.seconds = time.perf_counter() - begin

        return timed

    def _wsgi(self, app: Any) -> Any:
        def timed(environ: Any, start_response: Callable[..., Any]) -> list[bytes]:
            begin = time.perf_counter()
            parts = app(environ, start_response)
            body = list(parts)
            if hasattr(parts, "close"):
                parts.close()
            self.seconds = time.perf_counter() - begin
            return body

        return timed

    def _aiohttp(self, app: Any) -> Any:
        from aiohttp import web

        @web.middleware
        async def begin(request: Any, handler: Any) -> Any:
            request["begin"] = time.perf_counter()
            return await handler(request)

        async def end(request: Any, response: Any) -> None:
            self.seconds = time.perf_counter() - request["begin"]

        app.middlewares.insert(0, begin)
        app.on_response_prepare.append(end)
        return app
