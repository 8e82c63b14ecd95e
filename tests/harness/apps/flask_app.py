"""The application that every framework has, in Flask."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, cast

import flask
from flask import Flask, Response, flash, get_flashed_messages, request, stream_with_context

from session_kit.integrations.flask import FlaskSession, SessionKit
from tests.harness.gate import Gate

session = cast(FlaskSession, flask.session)  # or a peer's: the benchmarks install others too


def untouched() -> Any:
    return {"ok": True}


def read() -> Any:
    return {"value": session.get(request.args["key"])}


def write() -> Any:
    session[request.args["key"]] = request.args["value"]
    return {"ok": True}


def count() -> Any:
    session.update(lambda data: {"count": data.get("count", 0) + 1})
    return {"count": session["count"]}


def cart() -> Any:
    session.setdefault("cart", []).append(request.args["item"])
    return {"cart": session["cart"]}


def rotate() -> Any:
    session.regenerate()
    return {"ok": True}


def logout() -> Any:
    session.destroy()
    return {"ok": True}


def flash_message() -> Any:
    flash(request.args["message"])
    return {"messages": [message for _, message in session["_flashes"]]}


def flashed() -> Any:
    return {"messages": get_flashed_messages()}


def slow() -> Any:
    key = request.args["key"]
    session.get(key)
    Gate(request.args["gate"]).hold()
    session[key] = request.args["value"]
    return {"ok": True}


def clear() -> Any:
    session.clear()
    return {"ok": True}


def sorry() -> Any:
    session[request.args["key"]] = request.args["value"]
    return {"ok": False}, 503


def fail() -> Any:
    session[request.args["key"]] = request.args["value"]
    raise RuntimeError("this view fails")


def stream() -> Any:
    key, value = request.args["key"], request.args["value"]
    session.get(key)

    @stream_with_context
    def body() -> Iterator[bytes]:
        yield b"one"
        session[key] = value
        yield b"two"

    return Response(body())  # type: ignore[call-arg]  # Flask types its decorator as it is used without `@`


def unavailable() -> Any:
    session.get("x")
    return {"unavailable": session.unavailable}


def make_app(**options: Any) -> Flask:
    app = bare_app()
    SessionKit(app, **options)
    return app


def bare_app() -> Flask:
    """Without sessions."""
    app = Flask(__name__)
    for view in (untouched, read, flashed, stream, unavailable):
        app.get(f"/{view.__name__}")(view)
    for view in (write, count, cart, rotate, logout, clear, slow, fail, sorry):
        app.post(f"/{view.__name__}")(view)
    app.post("/flash")(flash_message)
    return app
