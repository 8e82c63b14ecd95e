"""The application that every framework has, in FastAPI; the session is a dependency."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Annotated, Any

from fastapi import APIRouter, Depends, FastAPI
from fastapi.responses import StreamingResponse

from session_kit.integrations.fastapi import Session, SessionMiddleware, use_session
from tests.harness.gate import Gate

AnySession = Annotated[Session[Any], Depends(use_session)]
router = APIRouter()


@router.get("/untouched")
async def untouched() -> dict[str, bool]:
    return {"ok": True}


@router.get("/read")
async def read(key: str, session: AnySession) -> dict[str, Any]:
    return {"value": session.get(key)}


@router.post("/write")
async def write(key: str, value: str, session: AnySession) -> dict[str, bool]:
    session[key] = value
    return {"ok": True}


@router.post("/count")
def count(session: AnySession) -> dict[str, int]:
    session.update(lambda data: {"count": data.get("count", 0) + 1})
    return {"count": session["count"]}


@router.post("/cart")
async def cart(item: str, session: AnySession) -> dict[str, list[str]]:
    session.setdefault("cart", []).append(item)
    return {"cart": session["cart"]}


@router.post("/rotate")
async def rotate(session: AnySession) -> dict[str, bool]:
    await session.aregenerate()
    return {"ok": True}


@router.post("/logout")
def logout(session: AnySession) -> dict[str, bool]:
    session.destroy()
    return {"ok": True}


@router.post("/flash")
async def flash(message: str, session: AnySession) -> dict[str, bool]:
    session.flash(message)
    return {"ok": True}


@router.get("/flashed")
async def flashed(session: AnySession) -> dict[str, list[str]]:
    return {"messages": [each.message for each in session.flashes()]}


@router.post("/slow")
async def slow(key: str, value: str, gate: str, session: AnySession) -> dict[str, bool]:
    session.get(key)
    await Gate(gate).ahold()
    session[key] = value
    return {"ok": True}


@router.post("/clear")
async def clear(session: AnySession) -> dict[str, bool]:
    session.clear()
    return {"ok": True}


@router.post("/sorry", status_code=503)
async def sorry(key: str, value: str, session: AnySession) -> dict[str, bool]:
    session[key] = value
    return {"ok": False}


@router.post("/fail")
async def fail(key: str, value: str, session: AnySession) -> None:
    session[key] = value
    raise RuntimeError("this handler fails")


@router.get("/stream")
async def stream(key: str, value: str, session: AnySession) -> StreamingResponse:
    session.get(key)

    async def body() -> AsyncIterator[bytes]:
        yield b"one"
        session[key] = value
        yield b"two"

    return StreamingResponse(body())


@router.get("/unavailable")
async def unavailable(session: AnySession) -> dict[str, bool]:
    return {"unavailable": session.unavailable}


def make_app(**options: Any) -> FastAPI:
    app = FastAPI()
    app.include_router(router)
    app.add_middleware(SessionMiddleware, **options)
    return app
