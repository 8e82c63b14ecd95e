"""A type checker in its strict mode accepts what the public API offers, and finds what it does not."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest

pytestmark = pytest.mark.links

ROOT = Path(__file__).parents[2]

RIGHT = """
from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from session_kit import (
    ABSENT, ConfigError, CookieOptions, Driver, Entry, Event, Session, SessionError, SessionKitError, SessionManager,
    SessionStore, UnstorageSessionStore, open_driver, open_store, register_driver, use_session,
)
from session_kit.asgi import SessionMiddleware
from session_kit.drivers.memory import MemoryDriver
from session_kit.testing import ManualClock, Visitor

SECRET = "Kx7-not-for-production-but-long-enough-0123"


def count(data: Mapping[str, Any]) -> dict[str, int]:
    return {"visits": data.get("visits", 0) + 1}


def watch(event: Event) -> None:
    print(event.name, event.session)


async def home(request: Request) -> Response:
    session = await use_session(request)
    session.update(count).update(theme="dark").update({"user": "ada"})
    session["cart"] = [1]
    cart: list[int] = session.setdefault("cart", [])
    del session["theme"]
    message: str | None = session.pop("message", None)
    if "user" in session and session.is_new:
        await session.aregenerate(clear=True)
    session.set({"only": 1})
    await session.asave()
    await session.areload()
    await session.adestroy()
    left: float | None = session.expires_in
    name: str = session.id
    data: Mapping[str, Any] = session.data
    return JSONResponse({**data, "left": left, "name": name, "cart": cart, "message": message})


app = Starlette()
app.add_middleware(SessionMiddleware, store="memory://", secret=SECRET)
app.add_middleware(
    SessionMiddleware,
    store=open_store("memory://?ttl=7d"),
    secret=[SECRET, SECRET.encode()],
    name="__Host-session",
    cookie=CookieOptions(secure=True),
    max_lifetime="30d",
    touch_after=timedelta(minutes=5),
    on_event=watch,
    load="explicit",
)


def blocking(driver: Driver, store: UnstorageSessionStore) -> None:
    entry: Entry | None = driver.read("key")
    driver.set("key", b"value", ttl=60, expect=ABSENT if entry is None else entry.version)
    data: dict[str, Any] | None = store.get("sid")
    store.set("sid", data or {}, ttl=1.5)
    for sid, each in store.all():
        print(sid.upper(), each.keys())
    manager = SessionManager(store, SECRET, clock=ManualClock())
    session: Session = manager.open("session=cookie")
    session.load().update(count).save()
    headers: list[tuple[str, str]] = manager.commit(session)
    with Visitor(manager).request() as again:
        again |= {"headers": len(headers)}


class Plain:
    def get(self, sid: str) -> dict[str, Any] | None: ...
    def set(self, sid: str, data: Mapping[str, Any]) -> None: ...
    def touch(self, sid: str, data: Mapping[str, Any] | None = None) -> None: ...
    def destroy(self, sid: str) -> None: ...


store: SessionStore = Plain()
try:
    register_driver("scratch", MemoryDriver)
    blocking(open_driver("scratch://"), UnstorageSessionStore(MemoryDriver(max_entries=5), ttl="7d", prefix="shop"))
except (ConfigError, SessionError) as error:
    problem: SessionKitError = error
"""

WRONG = [
    ('app.add_middleware(SessionMiddleware, store="memory://", secrte=SECRET)', '"secrte"'),
    ('app.add_middleware(SessionMiddleware, store="memory://", secret=SECRET, max_lifetme=5)', '"max_lifetme"'),
    ('app.add_middleware(SessionMiddleware, store="memory://", secret=SECRET, load="lazy")', '"load"'),
    ('SessionManager("memory://", SECRET, touch_aftr=5)', '"touch_aftr"'),
    ('SessionManager("memory://")', '"secret"'),
    ("CookieOptions(secur=True)", '"secur"'),
    ('CookieOptions(samesite="laxx")', '"samesite"'),
    ("MemoryDriver(max_entrys=5)", '"max_entrys"'),
    ('UnstorageSessionStore("memory://", ttl=b"7d")', '"ttl"'),
    ('open_driver("memory://").set("key", "text")', "bytes"),
    ("SessionManager(object(), SECRET)", '"object"'),
    ('SessionManager("memory://", SECRET).open().update(5)', '"update"'),
    ('SessionManager("memory://", SECRET).open().data["user"] = "eve"', "Mapping[str, Any]"),
    ('SessionManager("memory://", SECRET).open().sav()', '"sav"'),
    ("use_session(None).sav()", "Session[Any]"),
]


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory, mypy: list[str]) -> list[tuple[int, str]]:
    """The line and the text of each error, from one run for all."""
    folder = tmp_path_factory.mktemp("typing")
    program = folder / "program.py"
    program.write_text(RIGHT + "\n".join(line for line, _ in WRONG))
    environment = {**os.environ, "MYPYPATH": str(ROOT)}
    result = subprocess.run([*mypy, program], env=environment, cwd=folder, capture_output=True, text=True, check=False)
    pattern = re.compile(r"program\.py:(\d+): error: (.*)")
    errors = [pattern.fullmatch(line) for line in result.stdout.splitlines() if ": error: " in line]
    assert all(errors), result.stdout + result.stderr
    assert result.returncode == 1, result.stdout + result.stderr
    return [(int(match[1]), match[2]) for match in errors if match]


BEFORE = RIGHT.count("\n")


def test_a_program_that_uses_the_public_api_is_accepted(found: list[tuple[int, str]]) -> None:
    assert [error for error in found if error[0] <= BEFORE] == []


@pytest.mark.parametrize("number", range(len(WRONG)), ids=[line for line, _ in WRONG])
def test_each_mistake_is_found(found: list[tuple[int, str]], number: int) -> None:
    messages = [message for line, message in found if line == BEFORE + 1 + number]
    assert messages
    assert WRONG[number][1] in messages[0]
