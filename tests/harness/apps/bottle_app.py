"""The application that every framework has, in Bottle, for which the WSGI middleware is all it needs."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from bottle import Bottle, request, response

from session_kit import Session
from session_kit.wsgi import SessionMiddleware, get_session
from tests.harness.gate import Gate


def the_session() -> Session[Any]:
    return get_session(request.environ)


def untouched() -> Any:
    return {"ok": True}


def read() -> Any:
    return {"value": the_session().get(request.query.getunicode("key"))}


def write() -> Any:
    the_session()[request.query.getunicode("key")] = request.query.getunicode("value")
    return {"ok": True}


def count() -> Any:
    session = the_session()
    session.update(lambda data: {"count": data.get("count", 0) + 1})
    return {"count": session["count"]}


def cart() -> Any:
    session = the_session()
    session.setdefault("cart", []).append(request.query.item)
    return {"cart": session["cart"]}


def rotate() -> Any:
    the_session().regenerate()
    return {"ok": True}


def logout() -> Any:
    the_session().destroy()
    return {"ok": True}


def flash() -> Any:
    the_session().flash(request.query.message)
    return {"ok": True}


def flashed() -> Any:
    return {"messages": [each.message for each in the_session().flashes()]}


def slow() -> Any:
    session = the_session()
    session.get(request.query.key)
    Gate(request.query.gate).hold()
    session[request.query.key] = request.query.value
    return {"ok": True}


def clear() -> Any:
    the_session().clear()
    return {"ok": True}


def sorry() -> Any:
    the_session()[request.query.key] = request.query.value
    response.status = 503
    return {"ok": False}


def fail() -> Any:
    the_session()[request.query.key] = request.query.value
    raise RuntimeError("this view fails")


def stream() -> Iterator[bytes]:
    session, key, value = the_session(), request.query.key, request.query.value
    session.get(key)
    yield b"one"
    session[key] = value
    yield b"two"


def unavailable() -> Any:
    session = the_session()
    session.get("x")
    return {"unavailable": session.unavailable}


def make_app(**options: Any) -> Any:
    app = Bottle()
    for view in (untouched, read, flashed, stream, unavailable):
        app.get(f"/{view.__name__}", callback=view)
    for view in (write, count, cart, rotate, logout, clear, flash, slow, fail, sorry):
        app.post(f"/{view.__name__}", callback=view)
    return SessionMiddleware(app, **options)
