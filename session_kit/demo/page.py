"""What a visitor of the demo sees: page.html, filled in."""

from __future__ import annotations

import hashlib
import html
import json
import re
from base64 import b64encode
from collections.abc import Mapping
from importlib.resources import files
from string import Template

from starlette.requests import Request

from session_kit import CookieOptions, Session, UnstorageSessionStore

MAX_PAUSE = 3000
"""Milliseconds that "Add slowly" takes."""
IN_USE = 300.0
"""Seconds: use is written down at most so often (`touch_after`)."""
NOTICES = ("logged_out", "ended")


class Markup(str):
    """Text that is HTML already. All other text is escaped when it goes into the page."""

    __slots__ = ()


def fill(part: str, **values: object) -> Markup:
    """Put values into a part of page.html, escaped."""
    safe = {name: value if isinstance(value, Markup) else html.escape(str(value)) for name, value in values.items()}
    return Markup(Template(PARTS[part]).substitute(safe))


NOTHING = Markup("")


def joined(parts: list[Markup]) -> Markup:
    return Markup("".join(parts))


def hash_of(tag: str) -> str:
    """What lets the browser accept what stands between the tags in the page, and nothing else."""
    text = PARTS["page"].partition(f"<{tag}>")[2].partition(f"</{tag}>")[0]
    return f"'sha256-{b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


SOURCE = files("session_kit.demo").joinpath("page.html").read_text(encoding="utf-8")
PARTS = dict(re.findall(r"<!-- part: (\w+) -->\n(.*?)(?=<!-- part: |\Z)", SOURCE, re.DOTALL))
PAGE_HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; img-src data:; form-action 'self'; frame-ancestors 'none'; base-uri 'none';"
        f" style-src {hash_of('style')}; script-src {hash_of('script')}"
    ),
    # So that the browser's back button does not show, after the logout, what was there before.
    "Cache-Control": "no-store",
    "Referrer-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
}


async def render(request: Request, session: Session, notice: str = "") -> Markup:
    """The whole page. notice: what has just happened, if anything has."""
    store: UnstorageSessionStore = request.app.state.store
    name = session.get("name")
    return fill(
        "page",
        who=name or "stranger",
        notice=fill(notice) if notice in NOTICES else NOTHING,
        account=fill("account") if name else NOTHING,
        first=await devices(session, store) if name else fill("login"),
        visits=session.get("visits", 0),
        pause=MAX_PAUSE,
        cart=cart_list(session.get("cart", {})),
        stored=await stored(request, session, store),
        tries=things_to_try(store, request.app.state.grace),
    )


async def devices(session: Session, store: UnstorageSessionStore) -> Markup:
    found = await store.asessions_of(session.owner, current=session) if session.owner else []
    rows = [
        fill(
            "this_device" if device.current else "device",
            label=device.label,
            handle=device.handle,
            used=used(store.clock() - device.last_used),
        )
        for device in sorted(found, key=lambda device: not device.current)
    ]
    several = len(rows) > 1
    return fill(
        "devices",
        rows=joined(rows),
        end=fill("end_others") if several else NOTHING,
        hint=NOTHING if several else fill("only_one"),
    )


def used(ago: float) -> str:
    return "in use" if ago < IN_USE else f"used {in_words(ago)} ago"


def cart_list(cart: Mapping[str, int]) -> Markup:
    if not cart:
        return fill("empty_cart")
    rows = [fill("cart_row", item=item, count=count) for item, count in cart.items()]
    return fill("cart", rows=joined(rows))


async def stored(request: Request, session: Session, store: UnstorageSessionStore) -> Markup:
    """What the store holds about this visitor, read through the store."""
    cookie: CookieOptions = request.app.state.cookie
    record = None if session.is_new else await store.aread(session.id)
    if record is None:
        refusable = cookie.secure and request.url.scheme == "http"
        return fill("nothing_stored", driver=repr(store.driver), hint=fill("secure_hint") if refusable else NOTHING)
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
    tries = [
        fill("try_two_tabs", seconds=MAX_PAUSE // 1000),
        fill("try_two_browsers"),
        fill("try_restart" if store.capabilities.shared else "try_restart_forgets"),
        fill("try_rotate", seconds=f"{grace:g}") if grace else fill("try_rotate_at_once"),
    ]
    if path is not None:
        tries.append(fill("try_folder", path=path))
    return joined(tries)
