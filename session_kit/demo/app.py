"""A small Starlette application that shows what a session does: log in, count, fill a cart, rotate, log out."""

from __future__ import annotations

import asyncio
import hashlib
import html
import json
import re
from base64 import b64encode
from collections.abc import Callable, Mapping
from pathlib import Path
from string import Template
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from starlette.applications import Starlette
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import HTMLResponse, PlainTextResponse, RedirectResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from session_kit import CookieOptions, Event, Session, SessionManager, UnstorageSessionStore, use_session
from session_kit.asgi import SessionMiddleware
from session_kit.manager import Secrets

MAX_TEXT = 40
MAX_ITEMS = 20
MAX_FORM = 4096
MAX_PAUSE = 3000

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


# --- what a visitor can do ---


async def login(request: Request) -> Response:
    name = (await read_form(request)).get("name", "").strip()[:MAX_TEXT]
    if name:
        session = await use_session(request)
        # Whoever knew the id before the login, or planted it, must not know it afterwards (OWASP: session fixation).
        await session.aregenerate()
        session["name"] = name
    return back()


async def logout(request: Request) -> Response:
    session = await use_session(request)
    await session.adestroy()
    return back()


async def visit(request: Request) -> Response:
    session = await use_session(request)
    session.update(count_visit)
    return back()


async def cart_add(request: Request) -> Response:
    form = await read_form(request)
    session = await use_session(request)
    # Holding the request after it has read the session lets a visitor, and the check, see two requests overlap.
    await asyncio.sleep(pause_in(form) / 1000)
    item = form.get("item", "").strip()[:MAX_TEXT]
    if item:
        session.update(put_into_cart(item))
    return back()


async def cart_remove(request: Request) -> Response:
    item = (await read_form(request)).get("item", "")
    session = await use_session(request)
    session.update(take_from_cart(item))
    return back()


async def rotate(request: Request) -> Response:
    session = await use_session(request)
    await session.aregenerate()
    return back()


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


def back() -> Response:
    # 303 makes the browser ask with GET, so that reloading the page does not send the form again.
    return RedirectResponse("/", status_code=303)


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


class SameOriginOnly:
    """Refuses requests that change something and that another site's page has sent (CSRF).

    The cookie's `SameSite=Lax` keeps it from going along with other sites' forms, but to a browser everything on
    localhost is one site, whatever its port. So the browser's own word on where a request comes from is asked too:
    `Sec-Fetch-Site`, or `Origin` from older ones. A page can forge neither. A client that sends neither is no browser,
    and nobody can make it send a visitor's cookie. All this needs no token in the forms, nor a session to keep it in.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        changes = scope["type"] == "http" and scope["method"] not in ("GET", "HEAD")
        if changes and not is_same_origin(Headers(scope=scope)):
            refusal = PlainTextResponse("Refused: this form was sent by a page of another origin.", 403)
            await refusal(scope, receive, send)
            return
        await self.app(scope, receive, send)


def is_same_origin(headers: Headers) -> bool:
    site = headers.get("sec-fetch-site")
    if site is not None:
        return site in ("same-origin", "none")  # none: typed in or bookmarked, sent by no page
    origin = headers.get("origin")
    return origin is None or urlsplit(origin).netloc == headers.get("host")


# --- what a visitor sees ---


class Markup(str):
    """Text that is HTML already. All other text is escaped when it goes into the page."""

    __slots__ = ()


def fill(part: str, **values: object) -> Markup:
    """Put values into a part of page.html, escaped."""
    safe = {name: value if isinstance(value, Markup) else html.escape(str(value)) for name, value in values.items()}
    return Markup(Template(PARTS[part]).substitute(safe))


SOURCE = Path(__file__).with_name("page.html").read_text(encoding="utf-8")
PARTS = dict(re.findall(r"<!-- part: (\w+) -->\n(.*?)(?=<!-- part: |\Z)", SOURCE, re.DOTALL))
STYLE = PARTS["page"].partition("<style>")[2].partition("</style>")[0]

PAGE_HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; img-src data:; form-action 'self'; frame-ancestors 'none'; base-uri 'none';"
        f" style-src 'sha256-{b64encode(hashlib.sha256(STYLE.encode()).digest()).decode()}'"
    ),
    # So that the browser's back button does not show, after the logout, what was there before.
    "Cache-Control": "no-store",
    "Referrer-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
}


async def show(request: Request) -> Response:
    session = await use_session(request)
    store: UnstorageSessionStore = request.app.state.store
    name = session.get("name")
    page = fill(
        "page",
        who=name or "stranger",
        account=fill("account") if name else fill("login"),
        visits=session.get("visits", 0),
        cart=cart_list(session.get("cart", {})),
        stored=await stored(request, session, store),
        tries=things_to_try(store, request.app.state.grace),
    )
    return HTMLResponse(page, headers=PAGE_HEADERS)


def cart_list(cart: Mapping[str, int]) -> Markup:
    if not cart:
        return fill("empty_cart")
    rows = [fill("cart_row", item=item, count=count) for item, count in cart.items()]
    return fill("cart", rows=Markup("".join(rows)))


async def stored(request: Request, session: Session, store: UnstorageSessionStore) -> Markup:
    """What the store holds about this visitor, read through the store."""
    cookie: CookieOptions = request.app.state.cookie
    record = None if session.is_new else await store.aread(session.id)
    if record is None:
        refusable = cookie.secure and request.url.scheme == "http"
        return fill("nothing_stored", driver=repr(store.driver), hint=fill("secure_hint") if refusable else Markup(""))
    fields = {key: store.codec.load(raw, object) for key, raw in record.fields.items()}
    return fill(
        "record",
        record=json.dumps(fields, indent=2, ensure_ascii=False),
        id=session.id[:6],
        hashed="stored under its SHA-256 only" if store.hash_ids else "stored as it is",
        key=store.key(session.id)[: len(store.prefix) + 7],
        driver=repr(store.driver),
        size=len(store.codec.pack(record.fields)),
        left=in_words(session.expires_in),
        cookie=", ".join(cookie_flags(cookie)),
    )


def cookie_flags(cookie: CookieOptions) -> list[str]:
    flags = [name for name, on in (("HttpOnly", cookie.httponly), ("Secure", cookie.secure)) if on]
    return [*flags, f"SameSite={cookie.samesite.capitalize()}"]


def in_words(seconds: float | None) -> str:
    if seconds is None:
        return "no limit"
    minutes, hours = int(seconds // 60), int(seconds // 3600)
    if hours >= 48:
        return f"{hours // 24} days"
    if hours:
        return f"{hours} h {minutes % 60} min"
    return f"{minutes} min" if minutes else f"{int(seconds)} s"


def things_to_try(store: UnstorageSessionStore, grace: float) -> Markup:
    path = getattr(store.driver, "path", None)
    return Markup(
        fill("try_two_tabs", seconds=MAX_PAUSE // 1000)
        + (fill("try_restart") if store.capabilities.shared else fill("try_restart_forgets"))
        + (fill("try_rotate", seconds=f"{grace:g}") if grace else fill("try_rotate_at_once"))
        + (Markup("") if path is None else fill("try_folder", path=path))
    )
