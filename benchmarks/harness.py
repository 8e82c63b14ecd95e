"""Calling web applications in this process, as a server would: what a network costs would drown the differences.

Every application here has the same handlers; only the middleware around them differs.
"""

from __future__ import annotations

import asyncio
import io
import sys
from collections.abc import Awaitable, Callable
from typing import Any

from session_kit.benchmarks.measure import Case

SECRET = "benchmark-S3cret-of-more-than-32-characters"
PROFILE = {"user": "ada", "roles": ["admin", "editor"], "theme": "dark", "name": "Ada Lovelace", "note": "x" * 90}
"""About 200 bytes as JSON."""
LARGE = {**PROFILE, "cart": [{"item": f"article-{number:04}", "count": 1, "price": 9.99} for number in range(78)]}
"""About 4 KB as JSON."""

Handler = Callable[[Any], object]
Scope = dict[str, Any]


def read(session: Any) -> None:
    session.get("user")


def write(session: Any) -> None:
    session["visits"] = session.get("visits", 0) + 1


def untouched(session: Any) -> None:
    pass


def login(session: Any) -> None:
    session.update(PROFILE)


def login_large(session: Any) -> None:
    session.update(LARGE)


HANDLERS: dict[str, Handler] = {"read": read, "write": write, "untouched": untouched, "first visit": login}


# --- ASGI ---


def asgi_app(handle: Handler) -> Any:
    """A bare ASGI application that lets `handle` have the session, if there is one."""
    nothing: dict[str, Any] = {}

    async def app(scope: Scope, receive: Any, send: Any) -> None:
        handle(scope.get("session", nothing))
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    return app


class Responses(list[Any]):
    """Takes what an application sends."""

    async def send(self, message: Any) -> None:
        self.append(message)

    def cookie(self) -> bytes:
        """The name and value of the cookie that was set."""
        return bytes(dict(self[0]["headers"])[b"set-cookie"].split(b";")[0])


async def ask(app: Any, cookie: bytes) -> Responses:
    """Make one request."""
    headers = [(b"host", b"localhost"), (b"accept", b"*/*"), (b"user-agent", b"benchmark")]
    if cookie:
        headers.append((b"cookie", b"theme=dark; lang=en; " + cookie))
    responses = Responses()
    await app({"type": "http", "method": "GET", "path": "/", "headers": headers}, None, responses.send)
    return responses


def asgi_case(runner: asyncio.Runner, app: Any, cookie: bytes, at_once: int = 1) -> Case:
    """So many requests to an application, some of them at a time."""

    async def one_by_one(number: int) -> None:
        for _ in range(number):
            await ask(app, cookie)

    async def together(number: int) -> None:
        for _ in range(number // at_once):
            await asyncio.gather(*[ask(app, cookie) for _ in range(at_once)])

    ask_all = one_by_one if at_once == 1 else together
    return lambda number: runner.run(ask_all(number))


def coroutines_case(runner: asyncio.Runner, call: Callable[[], Awaitable[object]], at_once: int = 1) -> Case:
    """So many awaited calls, some of them at a time."""

    async def call_all(number: int) -> None:
        if at_once == 1:
            for _ in range(number):
                await call()
        else:
            for _ in range(number // at_once):
                await asyncio.gather(*[call() for _ in range(at_once)])

    return lambda number: runner.run(call_all(number))


# --- WSGI ---


def wsgi_app(handle: Handler, key: str) -> Any:
    """A bare WSGI application that lets `handle` have the session under `key`, if there is one."""
    nothing: dict[str, Any] = {}

    def app(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        handle(environ.get(key, nothing))
        start_response("200 OK", [])
        return [b""]

    return app


def wsgi_environ(path: str, cookie: str) -> dict[str, Any]:
    """What a WSGI server says of a request (PEP 3333)."""
    return {
        "REQUEST_METHOD": "GET",
        "SCRIPT_NAME": "",
        "PATH_INFO": path,
        "QUERY_STRING": "",
        "SERVER_NAME": "localhost",
        "SERVER_PORT": "80",
        "SERVER_PROTOCOL": "HTTP/1.1",
        "REMOTE_ADDR": "127.0.0.1",
        "HTTP_HOST": "localhost",
        "HTTP_COOKIE": cookie,
        "wsgi.version": (1, 0),
        "wsgi.url_scheme": "http",
        "wsgi.input": io.BytesIO(),
        "wsgi.errors": sys.stderr,
        "wsgi.multithread": True,
        "wsgi.multiprocess": False,
        "wsgi.run_once": False,
    }


def ask_wsgi(app: Any, cookie: str, path: str = "/") -> list[tuple[str, str]]:
    """Make one request and return the headers of the response."""
    environ = wsgi_environ(path, f"theme=dark; lang=en; {cookie}" if cookie else "theme=dark; lang=en")
    answers: list[list[tuple[str, str]]] = []

    def start_response(status: str, headers: list[tuple[str, str]], exc_info: object = None) -> None:
        if not status.startswith("200"):
            raise RuntimeError(f"the application answered {status}")
        answers.append(headers)

    body = app(environ, start_response)
    for _ in body:
        pass
    if hasattr(body, "close"):
        body.close()
    return answers[-1]


def wsgi_cookie(headers: list[tuple[str, str]]) -> str:
    """The name and value of the cookie that was set."""
    return next(value for name, value in headers if name.lower() == "set-cookie").split(";")[0]


def wsgi_case(app: Any, cookie: str) -> Case:
    """So many requests to an application."""

    def ask_all(number: int) -> None:
        for _ in range(number):
            ask_wsgi(app, cookie)

    return ask_all
