"""The application that every framework has, in Litestar."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

from litestar import Litestar, Request, get, post
from litestar.di import NamedDependency, Provide
from litestar.params import FromQuery
from litestar.plugins.flash import flash as flash_message
from litestar.response import Stream

from session_kit.integrations.litestar import Session, SessionKit, use_session
from tests.harness.gate import Gate

AnyRequest = Request[Any, Any, Any]
AnySession = NamedDependency[Session[Any]]
Text = FromQuery[str]


@get("/untouched")
async def untouched() -> dict[str, bool]:
    return {"ok": True}


@get("/read")
async def read(request: AnyRequest, key: Text) -> dict[str, Any]:
    return {"value": request.session.get(key)}


@post("/write", status_code=200)
async def write(request: AnyRequest, key: Text, value: Text) -> dict[str, bool]:
    request.session[key] = value
    return {"ok": True}


@post("/count", status_code=200)
async def count(session: AnySession) -> dict[str, int]:
    session.update(lambda data: {"count": data.get("count", 0) + 1})
    return {"count": session["count"]}


@post("/cart", status_code=200)
async def cart(session: AnySession, item: Text) -> dict[str, list[str]]:
    session.setdefault("cart", []).append(item)
    return {"cart": session["cart"]}


@post("/rotate", status_code=200)
async def rotate(session: AnySession) -> dict[str, bool]:
    await session.aregenerate()
    return {"ok": True}


@post("/logout", status_code=200)
async def logout(session: AnySession) -> dict[str, bool]:
    await session.adestroy()
    return {"ok": True}


@post("/flash", status_code=200)
async def flash(request: AnyRequest, message: Text) -> dict[str, list[str]]:
    flash_message(request, message, "info")
    return {"messages": [each["message"] for each in request.session["_messages"]]}


@get("/flashed")
async def flashed(request: AnyRequest) -> dict[str, list[str]]:
    return {"messages": [each["message"] for each in request.session.pop("_messages", [])]}


@post("/slow", status_code=200)
async def slow(request: AnyRequest, key: Text, value: Text, gate: Text) -> dict[str, bool]:
    request.session.get(key)
    await Gate(gate).ahold()
    request.session[key] = value
    return {"ok": True}


@post("/clear", status_code=200)
async def clear(request: AnyRequest) -> dict[str, bool]:
    request.session.clear()
    return {"ok": True}


@post("/sorry", status_code=503)
async def sorry(request: AnyRequest, key: Text, value: Text) -> dict[str, bool]:
    request.session[key] = value
    return {"ok": False}


@post("/fail", status_code=200)
async def fail(request: AnyRequest, key: Text, value: Text) -> None:
    request.session[key] = value
    raise RuntimeError("this handler fails")


@get("/stream")
async def stream(request: AnyRequest, key: Text, value: Text) -> Stream:
    request.session.get(key)

    async def body() -> AsyncIterator[bytes]:
        yield b"one"
        request.session[key] = value
        yield b"two"

    return Stream(body())


@get("/unavailable")
async def unavailable(session: AnySession) -> dict[str, bool]:
    return {"unavailable": session.unavailable}


def make_app(**options: Any) -> Litestar:
    return bare_app(plugins=[SessionKit(**options)])


def bare_app(**settings: Any) -> Litestar:
    """Without sessions, unless these settings bring some."""
    return Litestar(
        [
            *(untouched, read, flashed, stream, unavailable),
            *(write, count, cart, rotate, logout, clear, flash, slow, fail, sorry),
        ],
        dependencies={"session": Provide(use_session)},
        logging_config=None,
        **settings,
    )
