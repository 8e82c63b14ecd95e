"""The application that every framework has, in aiohttp."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from aiohttp import web

from session_kit.integrations.aiohttp import get_session, setup
from tests.harness.gate import Gate

GetSession = Callable[[web.Request], Awaitable[Any]]
GET_SESSION = web.AppKey[GetSession]("get_session")


async def session_of(request: web.Request) -> Any:
    return await request.app[GET_SESSION](request)


async def untouched(request: web.Request) -> web.Response:
    return web.json_response({"ok": True})


async def read(request: web.Request) -> web.Response:
    session = await session_of(request)
    return web.json_response({"value": session.get(request.query["key"])})


async def write(request: web.Request) -> web.Response:
    session = await session_of(request)
    session[request.query["key"]] = request.query["value"]
    return web.json_response({"ok": True})


async def count(request: web.Request) -> web.Response:
    session = await session_of(request)
    session.update(lambda data: {"count": data.get("count", 0) + 1})
    return web.json_response({"count": session["count"]})


async def cart(request: web.Request) -> web.Response:
    session = await session_of(request)
    session.setdefault("cart", []).append(request.query["item"])
    return web.json_response({"cart": session["cart"]})


async def rotate(request: web.Request) -> web.Response:
    session = await session_of(request)
    await session.aregenerate()
    return web.json_response({"ok": True})


async def logout(request: web.Request) -> web.Response:
    session = await session_of(request)
    await session.adestroy()
    return web.json_response({"ok": True})


async def flash(request: web.Request) -> web.Response:
    session = await session_of(request)
    session.flash(request.query["message"])
    return web.json_response({"ok": True})


async def flashed(request: web.Request) -> web.Response:
    session = await session_of(request)
    return web.json_response({"messages": [each.message for each in session.flashes()]})


async def slow(request: web.Request) -> web.Response:
    session = await session_of(request)
    session.get(request.query["key"])
    await Gate(request.query["gate"]).ahold()
    session[request.query["key"]] = request.query["value"]
    return web.json_response({"ok": True})


async def clear(request: web.Request) -> web.Response:
    (await session_of(request)).clear()
    return web.json_response({"ok": True})


async def sorry(request: web.Request) -> web.Response:
    session = await session_of(request)
    session[request.query["key"]] = request.query["value"]
    return web.json_response({"ok": False}, status=503)


async def fail(request: web.Request) -> web.Response:
    session = await session_of(request)
    session[request.query["key"]] = request.query["value"]
    raise RuntimeError("this handler fails")


async def stream(request: web.Request) -> web.StreamResponse:
    session = await session_of(request)
    session.get(request.query["key"])
    response = web.StreamResponse()
    await response.prepare(request)
    await response.write(b"one")
    session[request.query["key"]] = request.query["value"]
    await response.write(b"two")
    return response


async def unavailable(request: web.Request) -> web.Response:
    session = await session_of(request)
    return web.json_response({"unavailable": session.unavailable})


def make_app(**options: Any) -> web.Application:
    app = bare_app(get_session)
    setup(app, **options)
    return app


def bare_app(get_session: GetSession) -> web.Application:
    """Without sessions, unless this function finds some."""
    app = web.Application()
    app[GET_SESSION] = get_session
    for view in (untouched, read, flashed, stream, unavailable):
        app.router.add_get(f"/{view.__name__}", view)
    for view in (write, count, cart, rotate, logout, clear, flash, slow, fail, sorry):
        app.router.add_post(f"/{view.__name__}", view)
    return app
