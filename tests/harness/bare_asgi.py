"""Bare ASGI: an application that hands its session to a function, and requests to it without a server."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

Scope = dict[str, Any]
Handler = Callable[[Scope, Any, Any], Awaitable[None]]


async def call(app: Handler, cookie: str = "", kind: str = "http", calls: list[str] | None = None) -> list[Any]:
    """Send one request to a bare ASGI application and return what it sent; calls: notes when each message left."""
    sent: list[Any] = []

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)
        if calls is not None:
            calls.append(message["type"])

    await app({"type": kind, "headers": [(b"cookie", cookie.encode())], "path": "/", "method": "GET"}, receive, send)
    return sent


def headers_of(sent: list[Any]) -> dict[str, str]:
    return {name.decode(): value.decode() for name, value in sent[0].get("headers", [])}


def cookie_of(sent: list[Any]) -> str:
    return headers_of(sent)["set-cookie"].split(";")[0]


def bare(handler: Callable[[Any], Awaitable[None] | None], *, after: Callable[[Any], Any] | None = None) -> Handler:
    async def app(scope: Scope, receive: Any, send: Any) -> None:
        result = handler(scope["session"])
        if result is not None:
            await result
        await send({"type": "http.response.start", "status": 200, "headers": [(b"x-app", b"1")]})
        if after is not None:
            after(scope["session"])
        await send({"type": "http.response.body", "body": b"ok"})

    return app


def put(session: Any) -> None:
    session["user"] = "ada"
