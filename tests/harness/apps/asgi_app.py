"""The application that every framework has, without a framework."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from typing import Any
from urllib.parse import parse_qsl

from session_kit import use_session
from session_kit.asgi import App, Receive, Scope, Send, SessionMiddleware
from tests.harness.gate import Gate

Query = dict[str, str]
View = Callable[[Any, Query], Awaitable[Any]]


async def untouched(scope: Scope, query: Query) -> Any:
    return {"ok": True}


async def read(scope: Scope, query: Query) -> Any:
    session = await use_session(scope)
    return {"value": session.get(query["key"])}


async def write(scope: Scope, query: Query) -> Any:
    session = await use_session(scope)
    session[query["key"]] = query["value"]
    return {"ok": True}


async def count(scope: Scope, query: Query) -> Any:
    session = await use_session(scope)
    session.update(lambda data: {"count": data.get("count", 0) + 1})
    return {"count": session["count"]}


async def cart(scope: Scope, query: Query) -> Any:
    session = await use_session(scope)
    session.setdefault("cart", []).append(query["item"])
    return {"cart": session["cart"]}


async def rotate(scope: Scope, query: Query) -> Any:
    session = await use_session(scope)
    await session.aregenerate()
    return {"ok": True}


async def logout(scope: Scope, query: Query) -> Any:
    session = await use_session(scope)
    await session.adestroy()
    return {"ok": True}


async def flash(scope: Scope, query: Query) -> Any:
    session = await use_session(scope)
    session.flash(query["message"])
    return {"ok": True}


async def flashed(scope: Scope, query: Query) -> Any:
    session = await use_session(scope)
    return {"messages": [each.message for each in session.flashes()]}


async def slow(scope: Scope, query: Query) -> Any:
    session = await use_session(scope)
    session.get(query["key"])
    await Gate(query["gate"]).ahold()
    session[query["key"]] = query["value"]
    return {"ok": True}


async def clear(scope: Scope, query: Query) -> Any:
    (await use_session(scope)).clear()
    return {"ok": True}


async def sorry(scope: Scope, query: Query) -> Any:
    session = await use_session(scope)
    session[query["key"]] = query["value"]
    return {"ok": False}


async def fail(scope: Scope, query: Query) -> Any:
    session = await use_session(scope)
    session[query["key"]] = query["value"]
    raise RuntimeError("this handler fails")


async def unavailable(scope: Scope, query: Query) -> Any:
    session = await use_session(scope)
    return {"unavailable": session.unavailable}


async def stream(scope: Scope, query: Query, send: Send) -> None:
    session = await use_session(scope)
    session.get(query["key"])
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"one", "more_body": True})
    session[query["key"]] = query["value"]
    await send({"type": "http.response.body", "body": b"two"})


VIEWS: dict[tuple[str, str], View] = {
    **{("GET", f"/{view.__name__}"): view for view in (untouched, read, flashed, unavailable)},
    **{
        ("POST", f"/{view.__name__}"): view
        for view in (write, count, cart, rotate, logout, clear, flash, slow, fail, sorry)
    },
}


async def application(scope: Scope, receive: Receive, send: Send) -> None:
    if scope["type"] == "lifespan":
        await lifespan(receive, send)
        return
    query = dict(parse_qsl(scope["query_string"].decode()))
    if scope["path"] == "/stream":
        await stream(scope, query, send)
        return
    view = VIEWS.get((scope["method"], scope["path"]))
    status, answer = (404, {"ok": False}) if view is None else (503 if view is sorry else 200, await view(scope, query))
    headers = [(b"content-type", b"application/json")]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": json.dumps(answer).encode()})


async def lifespan(receive: Receive, send: Send) -> None:
    while True:
        message = await receive()
        await send({"type": f"{message['type']}.complete"})
        if message["type"] == "lifespan.shutdown":
            return


def make_app(**options: Any) -> App:
    return SessionMiddleware(application, **options)
