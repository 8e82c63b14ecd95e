"""A small Starlette application that shows what a session does: log in, count, fill a cart, rotate, log out.

What a visitor can do is here; what a visitor sees is in page.py and page.html.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import parse_qsl

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response
from starlette.routing import Route

from session_kit import CookieOptions, Event, Session, SessionManager, UnstorageSessionStore, use_session
from session_kit.asgi import SessionMiddleware
from session_kit.demo.device import device_name
from session_kit.demo.page import MAX_PAUSE, PAGE_HEADERS, render
from session_kit.demo.same_origin import SameOriginOnly
from session_kit.manager import Secrets

MAX_TEXT = 40
MAX_ITEMS = 20
MAX_FORM = 4096

Changes = dict[str, Any]
Data = Mapping[str, Any]


def make_app(
    store_url: str,
    secret: Secrets,
    cookie: CookieOptions = CookieOptions(),
    *,
    rotation_grace: float = 10,
    on_event: Callable[[Event], None] | None = None,
) -> Starlette:
    """Return the demo as an ASGI application. The parameters are those of `SessionManager`."""
    manager = SessionManager(store_url, secret, cookie=cookie, rotation_grace=rotation_grace, on_event=on_event)
    app = Starlette(
        routes=[
            Route("/", show),
            Route("/login", login, methods=["POST"]),
            Route("/logout", logout, methods=["POST"]),
            Route("/rotate", rotate, methods=["POST"]),
            Route("/devices/end", end_device, methods=["POST"]),
            Route("/devices/end-others", end_other_devices, methods=["POST"]),
            Route("/visit", visit, methods=["POST"]),
            Route("/cart/add", cart_add, methods=["POST"]),
            Route("/cart/remove", cart_remove, methods=["POST"]),
        ],
        middleware=[Middleware(SameOriginOnly), Middleware(SessionMiddleware, manager=manager)],
    )
    app.state.store = manager.store
    app.state.cookie = cookie
    app.state.grace = rotation_grace
    return app


async def show(request: Request) -> Response:
    session = await use_session(request)
    notice = request.query_params.get("notice") or what_happened(request, session)
    return HTMLResponse(await render(request, session, notice), headers=PAGE_HEADERS)


# --- log in and out ---


async def login(request: Request) -> Response:
    name = (await read_form(request)).get("name", "").strip()[:MAX_TEXT]
    if name:
        session = await use_session(request)
        session["name"] = name
        # It gives a new id too: one that was known, or planted, before the login opens nothing afterwards (OWASP:
        # session fixation).
        await session.abind(name, label=device_name(request.headers.get("User-Agent", "")))
    return back()


async def logout(request: Request) -> Response:
    session = await use_session(request)
    await session.adestroy()
    return back("logged_out")


async def rotate(request: Request) -> Response:
    session = await use_session(request)
    await session.aregenerate()
    return back(what_happened(request, session))


async def end_device(request: Request) -> Response:
    handle = (await read_form(request)).get("handle", "")
    session = await use_session(request)
    if session.owner is not None:
        # The handle comes from a browser: with the owner it ends nobody else's session.
        await store_of(request).arevoke_one(handle, owner=session.owner)
    return back(what_happened(request, session))


async def end_other_devices(request: Request) -> Response:
    session = await use_session(request)
    if session.owner is not None:
        await store_of(request).arevoke(session.owner, keep=session)
    return back(what_happened(request, session))


def store_of(request: Request) -> UnstorageSessionStore:
    store: UnstorageSessionStore = request.app.state.store
    return store


# --- count, and fill a cart ---


async def visit(request: Request) -> Response:
    session = await use_session(request)
    session.update(count_visit)
    return back(what_happened(request, session))


async def cart_add(request: Request) -> Response:
    form = await read_form(request)
    session = await use_session(request)
    # Holding the request after it has read the session lets a visitor, and the check, see two requests overlap.
    await asyncio.sleep(pause_in(form) / 1000)
    item = form.get("item", "").strip()[:MAX_TEXT]
    if item:
        session.update(put_into_cart(item))
    return back(what_happened(request, session))


async def cart_remove(request: Request) -> Response:
    item = (await read_form(request)).get("item", "")
    session = await use_session(request)
    session.update(take_from_cart(item))
    return back(what_happened(request, session))


# Updaters depend on their argument alone: they run again on what another request wrote, if that one was faster.


def count_visit(data: Data) -> Changes:
    return {"visits": data.get("visits", 0) + 1}


def put_into_cart(item: str) -> Callable[[Data], Changes]:
    def change(data: Data) -> Changes:
        cart = dict(data.get("cart", {}))
        if item in cart or len(cart) < MAX_ITEMS:
            cart[item] = cart.get(item, 0) + 1
        return {"cart": cart}

    return change


def take_from_cart(item: str) -> Callable[[Data], Changes]:
    def change(data: Data) -> Changes:
        cart = dict(data.get("cart", {}))
        if cart.pop(item, 0) > 1:
            cart[item] = data["cart"][item] - 1
        return {"cart": cart}

    return change


# --- forms, and what is answered ---


def what_happened(request: Request, session: Session) -> str:
    """What to tell a visitor whose cookie opens no session any more."""
    return "ended" if session.is_new and "session" in request.cookies else ""


def back(notice: str = "") -> Response:
    # 303 makes the browser ask with GET, so that reloading the page does not send the form again.
    return RedirectResponse(f"/?notice={notice}" if notice else "/", status_code=303)


async def read_form(request: Request) -> dict[str, str]:
    """The fields of a small form. Starlette's own parser needs one more package."""
    body = b""
    async for chunk in request.stream():
        body += chunk
        if len(body) > MAX_FORM:
            raise HTTPException(413)
    return dict(parse_qsl(body.decode(errors="replace")))


def pause_in(form: Mapping[str, str]) -> int:
    text = form.get("pause", "")
    return min(int(text), MAX_PAUSE) if text.isdecimal() else 0
