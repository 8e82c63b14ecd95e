"""What the three shops share: one store, one secret, one cookie, and the page that they show (shop.html)."""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from session_kit import CookieOptions

# run.py and compose.yaml set these two for all shops. A shop that is started alone makes up its own.
STORE = os.environ.get("SESSION_STORE", "memory://")
SECRET = os.environ.get("SESSION_SECRET") or secrets.token_urlsafe(32)
COOKIE = CookieOptions(secure=False)  # for http on this machine alone: leave it out behind https

FOLDER = Path(__file__).parent
FIRST_PORT = int(os.environ.get("FIRST_PORT", "8001"))
PRODUCTS = {"Apples": 3, "Bread": 4, "Coffee": 9}
BROWSERS = {"Edg": "Edge", "Firefox": "Firefox", "Chrome": "Chrome", "Safari": "Safari"}


def one_more(item: str) -> Callable[[Mapping[str, Any]], dict[str, Any]]:
    """Puts an item into the cart of an untyped session, as `session.update(one_more("Apples"))`.

    If another request saves first, it runs again on what that one wrote: two clicks at the same time count two.
    """

    def change(data: Mapping[str, Any]) -> dict[str, Any]:
        cart = data.get("cart", {})
        return {"cart": {**cart, item: cart.get(item, 0) + 1}}

    return change


def device(user_agent: str | None, shop: str) -> str:
    """What a session is called in the list of a user's devices."""
    browser = next((name for word, name in BROWSERS.items() if word in (user_agent or "")), "Another program")
    return f"{browser}, logged in at the {shop} shop"


def page(
    shop: str,
    host: str | None,
    user: str | None,
    cart: Mapping[str, int],
    messages: Iterable[object] = (),
    devices: Iterable[object] = (),
) -> dict[str, Any]:
    """What shop.html is filled with. host: by which the browser called this shop; its cookie goes to no other."""
    shops = [
        {"name": name, "url": f"http://{host}:{FIRST_PORT + number}/"}
        for number, name in enumerate(["FastAPI", "Flask", "Django"])
    ]
    return {
        "shop": shop,
        "shops": shops,
        "user": user,
        "cart": cart,
        "total": sum(PRODUCTS.get(item, 0) * count for item, count in cart.items()),
        "products": PRODUCTS,
        "messages": messages,
        "devices": devices,
    }
