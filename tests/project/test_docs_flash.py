"""What docs/flash.md shows runs as printed."""

from __future__ import annotations

import re
from pathlib import Path
from types import SimpleNamespace

import jinja2
import pytest

from session_kit import SessionManager
from tests.harness.scripts import run_code
from tests.harness.sessions import SECRET

PAGE = Path(__file__).parents[2] / "docs" / "flash.md"
VISIT = """
from fastapi.testclient import TestClient

client = TestClient(app, "https://testserver")
assert client.post("/cart/apple").json() == ["info: apple is in your cart"]
assert client.get("/").json() == []
"""


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("code", blocks("python"), ids=["an application", "a typed session"])
def test_each_example_runs(code: str) -> None:
    run_code(code + (VISIT if "FastAPI" in code else ""))


def test_the_template_shows_messages_and_escapes_them() -> None:
    session = SessionManager("memory://", SECRET).open()
    session.flash("<b>saved</b>", "info")
    (template,) = blocks("jinja")
    shown = jinja2.Environment(autoescape=True).from_string(template).render(request=SimpleNamespace(session=session))
    assert shown.strip() == '<p class="info">&lt;b&gt;saved&lt;/b&gt;</p>'
    assert session.flashes() == []
