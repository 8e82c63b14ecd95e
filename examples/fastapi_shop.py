"""A shop in FastAPI, with typed sessions: `uvicorn fastapi_shop:app --port 8001`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Annotated, Any
from urllib.parse import parse_qsl

from fastapi import Depends, FastAPI, HTTPException, Request, Response
from fastapi.responses import HTMLResponse, RedirectResponse
from fastapi.templating import Jinja2Templates

from session_kit.integrations.fastapi import Session, SessionMiddleware, use_session
from shared import COOKIE, FOLDER, PRODUCTS, SECRET, STORE, device, page


@dataclass
class Visit:
    """What a session holds. What the other shops keep beside it (Flask's and Django's messages) stays as it is."""

    user: str | None = None
    cart: dict[str, int] = field(default_factory=dict[str, int])


app = FastAPI(title="FastAPI shop")
app.add_middleware(SessionMiddleware, store=STORE, secret=SECRET, cookie=COOKIE, data_type=Visit)
templates = Jinja2Templates(FOLDER)


async def read_form(request: Request) -> dict[str, str]:
    """The fields of a form. (FastAPI's own `Form()` needs the package python-multipart.)"""
    return dict(parse_qsl((await request.body()).decode(errors="replace")))


# A type checker knows that `session.data` is a Visit.
VisitSession = Annotated[Session[Visit], Depends(use_session)]
Fields = Annotated[dict[str, str], Depends(read_form)]


# --- pages ---


@app.get("/", response_class=HTMLResponse)
async def show(request: Request, session: VisitSession) -> Response:
    visit = session.data
    return templates.TemplateResponse(
        request, "shop.html", page("FastAPI", request.url.hostname, visit.user, visit.cart)
    )


@app.post("/login")
async def login(request: Request, session: VisitSession, form: Fields) -> Response:
    name = form.get("name", "").strip()[:40]
    if name:  # a real shop asks for a password
        session.update(user=name)
        await session.abind(name, label=device(request.headers.get("User-Agent"), "FastAPI"))
    return RedirectResponse("/", 303)


@app.post("/logout")
async def logout(session: VisitSession) -> Response:
    await session.adestroy()
    return RedirectResponse("/", 303)


@app.post("/cart")
async def add(session: VisitSession, form: Fields) -> Response:
    put(session, form.get("item", ""))
    return RedirectResponse("/", 303)


# --- the same for programs: see /docs ---


@app.get("/api/cart")
async def read_cart(session: VisitSession) -> dict[str, int]:
    return session.data.cart


@app.post("/api/cart/{item}")
async def add_to_cart(item: str, session: VisitSession) -> dict[str, int]:
    put(session, item)
    return session.data.cart


def put(session: Session[Visit], item: str) -> None:
    if item not in PRODUCTS:
        raise HTTPException(404, f"we do not sell {item}")
    session.update(one_more(item))


def one_more(item: str) -> Callable[[Visit], dict[str, Any]]:
    """Like that of the other shops, but typed: it is given a Visit."""

    def change(visit: Visit) -> dict[str, Any]:
        return {"cart": {**visit.cart, item: visit.cart.get(item, 0) + 1}}

    return change
