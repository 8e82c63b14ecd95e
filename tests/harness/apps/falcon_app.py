"""The application that every framework has, in Falcon, for which the WSGI middleware is all it needs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import falcon

from session_kit.wsgi import SessionMiddleware, get_session
from tests.harness.gate import Gate


def untouched(req: falcon.Request, resp: falcon.Response) -> Any:
    return {"ok": True}


def read(req: falcon.Request, resp: falcon.Response) -> Any:
    return {"value": get_session(req.env).get(req.params["key"])}


def write(req: falcon.Request, resp: falcon.Response) -> Any:
    get_session(req.env)[req.params["key"]] = req.params["value"]
    return {"ok": True}


def count(req: falcon.Request, resp: falcon.Response) -> Any:
    session = get_session(req.env)
    session.update(lambda data: {"count": data.get("count", 0) + 1})
    return {"count": session["count"]}


def cart(req: falcon.Request, resp: falcon.Response) -> Any:
    session = get_session(req.env)
    session.setdefault("cart", []).append(req.params["item"])
    return {"cart": session["cart"]}


def rotate(req: falcon.Request, resp: falcon.Response) -> Any:
    get_session(req.env).regenerate()
    return {"ok": True}


def logout(req: falcon.Request, resp: falcon.Response) -> Any:
    get_session(req.env).destroy()
    return {"ok": True}


def flash(req: falcon.Request, resp: falcon.Response) -> Any:
    get_session(req.env).flash(req.params["message"])
    return {"ok": True}


def flashed(req: falcon.Request, resp: falcon.Response) -> Any:
    return {"messages": [each.message for each in get_session(req.env).flashes()]}


def slow(req: falcon.Request, resp: falcon.Response) -> Any:
    session = get_session(req.env)
    session.get(req.params["key"])
    Gate(req.params["gate"]).hold()
    session[req.params["key"]] = req.params["value"]
    return {"ok": True}


def clear(req: falcon.Request, resp: falcon.Response) -> Any:
    get_session(req.env).clear()
    return {"ok": True}


def sorry(req: falcon.Request, resp: falcon.Response) -> Any:
    get_session(req.env)[req.params["key"]] = req.params["value"]
    resp.status = falcon.HTTP_503
    return {"ok": False}


def fail(req: falcon.Request, resp: falcon.Response) -> Any:
    get_session(req.env)[req.params["key"]] = req.params["value"]
    raise RuntimeError("this responder fails")


def stream(req: falcon.Request, resp: falcon.Response) -> None:
    session, key, value = get_session(req.env), req.params["key"], req.params["value"]
    session.get(key)

    def body() -> Iterator[bytes]:
        yield b"one"
        session[key] = value
        yield b"two"

    resp.stream = body()


def unavailable(req: falcon.Request, resp: falcon.Response) -> Any:
    session = get_session(req.env)
    session.get("x")
    return {"unavailable": session.unavailable}


class View:
    """A resource that answers with what a function returns, as JSON."""

    def __init__(self, view: Callable[[falcon.Request, falcon.Response], Any]) -> None:
        self._view = view

    def on_get(self, req: falcon.Request, resp: falcon.Response) -> None:
        resp.media = self._view(req, resp)

    on_post = on_get


def make_app(**options: Any) -> Any:
    app = falcon.App()
    views = (
        *(untouched, read, flashed, stream, unavailable),
        *(write, count, cart, rotate, logout, clear, flash, slow, fail, sorry),
    )
    for view in views:
        app.add_route(f"/{view.__name__}", View(view))
    return SessionMiddleware(app, **options)
