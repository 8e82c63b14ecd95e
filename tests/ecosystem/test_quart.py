"""Packages for Quart. (With Quart-Flask-Patch 0.3, Flask-Login finds nobody on Quart's own sessions either.)"""

from __future__ import annotations

import pytest
from harness.sessions import SECRET
from quart import Quart, flash, get_flashed_messages, render_template_string
from visitor import Visit

from session_kit.integrations.quart import SessionKit

pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture
def app(store: str | None) -> Quart:
    app = Quart("shop")
    app.secret_key = SECRET
    if store is not None:
        SessionKit(app, store)
    return app


@pytest.mark.package("quart-wtforms", "quart")
def test_quart_wtforms(app: Quart, visit: Visit) -> None:
    from quart_wtf import CSRFProtect

    CSRFProtect(app)

    @app.get("/form")
    async def form() -> str:
        token = '<input type="hidden" name="csrf_token" value="{{ csrf_token() }}">'
        return await render_template_string(f'<form method="post">{token}</form>')

    @app.post("/form")
    async def send() -> str:
        return "sent"

    ada = visit(app)
    assert ada.post("/form").status_code == 400
    assert ada.submit("/form").text == "sent"


@pytest.mark.package("Quart", "quart")
def test_quarts_own_flash(app: Quart, visit: Visit) -> None:
    @app.get("/flash")
    async def say() -> str:
        await flash("hello", "note")
        return "ok"

    @app.get("/flashed")
    async def said() -> str:
        return str(get_flashed_messages(with_categories=True))

    ada = visit(app)
    ada.text("/flash")
    assert ada.text("/flashed") == "[('note', 'hello')]"
    assert ada.text("/flashed") == "[]"
