"""The application that every framework has, in Starlette."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from session_kit.integrations.starlette import SessionMiddleware, use_session
from tests.harness.gate import Gate


async def untouched(request: Request) -> Response:
    return JSONResponse({"ok": True})


async def read(request: Request) -> Response:
    return JSONResponse({"value": request.session.get(request.query_params["key"])})


async def write(request: Request) -> Response:
    request.session[request.query_params["key"]] = request.query_params["value"]
    return JSONResponse({"ok": True})


async def count(request: Request) -> Response:
    session = await use_session(request)
    session.update(lambda data: {"count": data.get("count", 0) + 1})
    return JSONResponse({"count": session["count"]})


async def cart(request: Request) -> Response:
    request.session.setdefault("cart", []).append(request.query_params["item"])
    return JSONResponse({"cart": request.session["cart"]})


async def rotate(request: Request) -> Response:
    await (await use_session(request)).aregenerate()
    return JSONResponse({"ok": True})


async def logout(request: Request) -> Response:
    await (await use_session(request)).adestroy()
    return JSONResponse({"ok": True})


async def flash(request: Request) -> Response:
    (await use_session(request)).flash(request.query_params["message"])
    return JSONResponse({"ok": True})


async def flashed(request: Request) -> Response:
    session = await use_session(request)
    return JSONResponse({"messages": [each.message for each in session.flashes()]})


async def slow(request: Request) -> Response:
    key = request.query_params["key"]
    request.session.get(key)
    await Gate(request.query_params["gate"]).ahold()
    request.session[key] = request.query_params["value"]
    return JSONResponse({"ok": True})


async def clear(request: Request) -> Response:
    request.session.clear()
    return JSONResponse({"ok": True})


async def sorry(request: Request) -> Response:
    request.session[request.query_params["key"]] = request.query_params["value"]
    return JSONResponse({"ok": False}, status_code=503)


async def fail(request: Request) -> Response:
    request.session[request.query_params["key"]] = request.query_params["value"]
    raise RuntimeError("this handler fails")


async def stream(request: Request) -> Response:
    key = request.query_params["key"]
    request.session.get(key)

    async def body() -> AsyncIterator[bytes]:
        yield b"one"
        request.session[key] = request.query_params["value"]
        yield b"two"

    return StreamingResponse(body())


async def unavailable(request: Request) -> Response:
    session = await use_session(request)
    return JSONResponse({"unavailable": session.unavailable})


def make_app(**options: Any) -> Starlette:
    app = bare_app()
    app.add_middleware(SessionMiddleware, **options)
    return app


def bare_app(**settings: Any) -> Starlette:
    """Without sessions, unless these settings bring some."""
    return Starlette(
        routes=[
            *[Route(f"/{view.__name__}", view) for view in (untouched, read, flashed, stream, unavailable)],
            *[
                Route(f"/{view.__name__}", view, methods=["POST"])
                for view in (write, count, cart, rotate, logout, clear, flash, slow, fail, sorry)
            ],
        ],
        **settings,
    )
