"""Two type checkers know the type of the session's data in a handler, and find a wrong attribute."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

pytestmark = pytest.mark.links

ROOT = Path(__file__).parents[2]

# A line says what both checkers are to reveal in it, or that it is an error.
PROGRAM = """
from dataclasses import dataclass, field
from typing import Annotated

from fastapi import Depends, FastAPI, WebSocket
from litestar import Litestar, Router, get
from litestar.di import NamedDependency, Provide
from litestar.middleware import DefineMiddleware
from litestar.stores.registry import StoreRegistry
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from session_kit import CookieOptions, SessionManager, open_store
from session_kit.integrations import fastapi, litestar, starlette
from session_kit.integrations.fastapi import Session

SECRET = "Kx7-not-for-production-but-long-enough-0123"


@dataclass
class Cart:
    items: list[str] = field(default_factory=list[str])
    owner: str = ""


CartSession = Annotated[Session[Cart], Depends(fastapi.use_session)]
app = FastAPI()
app.add_middleware(fastapi.SessionMiddleware, store="memory://", secret=SECRET, data_type=Cart)
app.add_middleware(fastapi.SessionMiddleware, store="memory://", secrte=SECRET)  # error


@app.get("/cart")
async def in_fastapi(session: CartSession) -> Cart:
    reveal_type(session.data)  # Cart
    reveal_type(session.data.items)  # list[str]
    session.update(lambda cart: {"owner": cart.owner.upper()})
    session.update(lambda cart: {"owner": cart.ownr})  # error
    print(session.data.ownr)  # error
    session.data.items.append(5)  # error
    return session.data


@app.post("/cart")
def in_a_thread(session: CartSession) -> None:
    session.save()
    session.sav()  # error


@app.websocket("/cart")
async def in_a_websocket(websocket: WebSocket, session: CartSession) -> None:
    reveal_type(session.data.owner)  # str
    await session.asave()


async def in_starlette(request: Request) -> Response:
    session: Session[Cart] = await starlette.use_session(request)
    reveal_type(session.data)  # Cart
    print(session.data.ownr)  # error
    return JSONResponse({"owner": session.data.owner})


Starlette().add_middleware(starlette.SessionMiddleware, store="memory://", secret=SECRET, on_error="anonymous")


@get("/cart", dependencies={"session": Provide(litestar.use_session)})
async def in_litestar(session: NamedDependency[Session[Cart]]) -> str:
    reveal_type(session.data)  # Cart
    print(session.data.ownr)  # error
    return session.data.owner


sessions = litestar.SessionKit(store="memory://", secret=SECRET, cookie=CookieOptions(secure=False))
litestar.SessionKit(store="memory://", secret=SECRET, cookie=5)  # error
root = litestar.KeyValueStore("memory://", namespace="shop")
Litestar([in_litestar], plugins=[sessions], stores=StoreRegistry({"root": root}, default_factory=root.with_namespace))
Router("/", route_handlers=[in_litestar], middleware=[sessions.middleware])
DefineMiddleware(litestar.SessionMiddleware, store=open_store("memory://"), secret=SECRET)
DefineMiddleware(litestar.SessionMiddleware, manager=SessionManager("memory://", SECRET))
litestar.KeyValueStore(b"memory://")  # error
"""

REVEALED = {
    number: line.partition("  # ")[2] for number, line in enumerate(PROGRAM.splitlines(), 1) if "reveal_type" in line
}
WRONG = {number for number, line in enumerate(PROGRAM.splitlines(), 1) if line.endswith("  # error")}


Report = list[tuple[int, str, str]]


def ask_mypy(folder: Path, command: list[str]) -> Report:
    result = run([*command, "program.py"], folder, {"MYPYPATH": str(ROOT)})
    found = re.findall(r"^program\.py:(\d+): (error|note): (.*)$", result.stdout, re.MULTILINE)
    assert found, result.stdout + result.stderr
    return [(int(line), kind, text) for line, kind, text in found]


def ask_pyright(folder: Path) -> Report:
    settings = {"include": ["program.py"], "extraPaths": [str(ROOT)], "typeCheckingMode": "strict"}
    (folder / "pyrightconfig.json").write_text(json.dumps(settings))
    command = [sys.executable, "-m", "pyright", "--outputjson", "--pythonpath", sys.executable]
    result = run(command, folder, {"PYRIGHT_PYTHON_IGNORE_WARNINGS": "1"})
    found = json.loads(result.stdout)["generalDiagnostics"]
    return [
        (each["range"]["start"]["line"] + 1, "note" if each["severity"] == "information" else "error", each["message"])
        for each in found
    ]


def run(command: list[str], folder: Path, settings: dict[str, str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command,
        cwd=folder,
        env={**os.environ, **settings},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture(scope="module")
def reports(tmp_path_factory: pytest.TempPathFactory, mypy: list[str]) -> dict[str, Report]:
    """The line, the kind and the text of all that each checker has to say; both run at once."""
    folder = tmp_path_factory.mktemp("program")
    (folder / "program.py").write_text(PROGRAM)
    with ThreadPoolExecutor() as pool:
        running = {"mypy": pool.submit(ask_mypy, folder, mypy), "pyright": pool.submit(ask_pyright, folder)}
        return {name: future.result() for name, future in running.items()}


@pytest.mark.parametrize("checker", ["mypy", "pyright"])
def test_the_checker_knows_the_type_of_the_data_and_finds_each_mistake(
    reports: dict[str, Report], checker: str
) -> None:
    found = reports[checker]
    revealed = {line: text for line, kind, text in found if kind == "note" and line in REVEALED}
    assert revealed.keys() == REVEALED.keys()
    for line, name in REVEALED.items():
        # 'Revealed type is "program.Cart"', 'Type of "session.data" is "Cart"'
        (shown,) = re.findall(r'is "([^"]+)"$', revealed[line])
        assert shown.replace("program.", "").replace("builtins.", "") == name
    errors = {line: text for line, kind, text in found if kind == "error"}
    assert {line: text for line, text in errors.items() if line not in WRONG} == {}
    assert errors.keys() == WRONG
