"""The application that every framework has, in Quart."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

from quart import Quart, Response, flash, get_flashed_messages, request, stream_with_context

from session_kit.integrations.quart import SessionKit, session
from tests.harness.gate import Gate


async def untouched() -> Any:
    return {"ok": True}


async def read() -> Any:
    return {"value": session.get(request.args["key"])}


async def write() -> Any:
    session[request.args["key"]] = request.args["value"]
    return {"ok": True}


async def count() -> Any:
    session.update(lambda data: {"count": data.get("count", 0) + 1})
    return {"count": session["count"]}


async def cart() -> Any:
    session.setdefault("cart", []).append(request.args["item"])
    return {"cart": session["cart"]}


async def rotate() -> Any:
    await session.aregenerate()
    return {"ok": True}


async def logout() -> Any:
    await session.adestroy()
    return {"ok": True}


async def flash_message() -> Any:
    await flash(request.args["message"])
    return {"messages": [message for _, message in session["_flashes"]]}


async def flashed() -> Any:
    return {"messages": get_flashed_messages()}


async def slow() -> Any:
    key = request.args["key"]
    session.get(key)
    await Gate(request.args["gate"]).ahold()
    session[key] = request.args["value"]
    return {"ok": True}


async def clear() -> Any:
    session.clear()
    return {"ok": True}


async def sorry() -> Any:
    session[request.args["key"]] = request.args["value"]
    return {"ok": False}, 503


async def fail() -> Any:
    session[request.args["key"]] = request.args["value"]
    raise RuntimeError("this view fails")


async def stream() -> Any:
    key, value = request.args["key"], request.args["value"]
    session.get(key)

    @stream_with_context
    async def body() -> AsyncIterator[bytes]:
        yield b"one"
        session[key] = value
        yield b"two"

    return Response(body())


async def unavailable() -> Any:
    session.get("x")
    return {"unavailable": session.unavailable}


def make_app(**options: Any) -> Quart:
    app = Quart(__name__)
    for view in (untouched, read, flashed, stream, unavailable):
        app.get(f"/{view.__name__}")(view)
    for view in (write, count, cart, rotate, logout, clear, slow, fail, sorry):
        app.post(f"/{view.__name__}")(view)
    app.post("/flash")(flash_message)
    SessionKit(app, **options)
    return app
