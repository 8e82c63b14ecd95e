"""NiceGUI in an application of FastAPI; it keeps everything in its module, so that each needs a process of its own.

python nicegui_app.py own|beside|shared URL PORT

own: NiceGUI's own sessions. beside: they, and ours for the application around it. shared: ours for both.
The environment has the SECRET.
"""

from __future__ import annotations

import os
import sys
from typing import Any

import uvicorn
from fastapi import FastAPI, Request
from nicegui import app as gui
from nicegui import ui
from nicegui.storage import RequestTrackingMiddleware

from session_kit.asgi import SessionMiddleware

way, store, port = sys.argv[1:]
secret = os.environ["SECRET"]
app = FastAPI()


@ui.page("/login")
def login() -> None:
    gui.storage.browser["user"] = gui.storage.user["name"] = "ada"


@ui.page("/logout")
def logout() -> None:
    gui.storage.user.clear()
    gui.storage.browser.pop("user", None)


@ui.page("/me")
def me() -> None:
    ui.label(f"user: {gui.storage.browser.get('user', 'nobody')}, {gui.storage.user.get('name', 'nobody')}.")


@app.get("/outside")
async def outside(request: Request) -> Any:
    return request.session.get("user", "nobody") if way != "own" else "nobody"


if way == "shared":
    gui.add_middleware(RequestTrackingMiddleware)  # which its own sessions bring along
ui.run_with(app, mount_path="/gui", storage_secret=None if way == "shared" else secret)
if way != "own":
    app.add_middleware(SessionMiddleware, store=store, secret=secret, name="sid")
uvicorn.run(app, host="127.0.0.1", port=int(port), log_level="warning")
