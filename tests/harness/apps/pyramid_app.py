"""The application that every framework has, in Pyramid."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from pyramid.config import Configurator
from pyramid.response import Response

from session_kit.integrations.pyramid import session_factory
from tests.harness.gate import Gate


def untouched(request: Any) -> Any:
    return {"ok": True}


def read(request: Any) -> Any:
    return {"value": request.session.get(request.GET["key"])}


def write(request: Any) -> Any:
    request.session[request.GET["key"]] = request.GET["value"]
    return {"ok": True}


def count(request: Any) -> Any:
    request.session.update(lambda data: {"count": data.get("count", 0) + 1})
    return {"count": request.session["count"]}


def cart(request: Any) -> Any:
    request.session.setdefault("cart", []).append(request.GET["item"])
    return {"cart": request.session["cart"]}


def rotate(request: Any) -> Any:
    request.session.regenerate()
    return {"ok": True}


def logout(request: Any) -> Any:
    request.session.destroy()
    return {"ok": True}


def flash(request: Any) -> Any:
    request.session.flash(request.GET["message"])
    return {"messages": request.session.peek_flash()}


def flashed(request: Any) -> Any:
    return {"messages": request.session.pop_flash()}


def slow(request: Any) -> Any:
    key = request.GET["key"]
    request.session.get(key)
    Gate(request.GET["gate"]).hold()
    request.session[key] = request.GET["value"]
    return {"ok": True}


def clear(request: Any) -> Any:
    request.session.clear()
    return {"ok": True}


def sorry(request: Any) -> Any:
    request.session[request.GET["key"]] = request.GET["value"]
    request.response.status_int = 503
    return {"ok": False}


def fail(request: Any) -> Any:
    request.session[request.GET["key"]] = request.GET["value"]
    raise RuntimeError("this view fails")


def stream(request: Any) -> Any:
    session, key, value = request.session, request.GET["key"], request.GET["value"]
    session.get(key)

    def body() -> Iterator[bytes]:
        yield b"one"
        session[key] = value
        yield b"two"

    return Response(app_iter=body())


def unavailable(request: Any) -> Any:
    request.session.get("x")
    return {"unavailable": request.session.unavailable}


def make_app(**options: Any) -> Any:
    views = (
        *(untouched, read, flashed, stream, unavailable),
        *(write, count, cart, rotate, logout, clear, flash, slow, fail, sorry),
    )
    with Configurator() as config:
        config.set_session_factory(session_factory(**options))
        for view in views:
            config.add_route(view.__name__, f"/{view.__name__}")
            config.add_view(view, route_name=view.__name__, renderer="json")
        return config.make_wsgi_app()
