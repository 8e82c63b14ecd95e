"""What docs/flash.md shows runs as printed."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import jinja2
import pytest

from session_kit import SessionManager
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


def run(*arguments: str | Path) -> None:
    environment = {**os.environ, "PYTHONPATH": ".", "SESSION_SECRET": SECRET}
    command = [sys.executable, *arguments]
    result = subprocess.run(command, env=environment, cwd=PAGE.parents[1], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr


@pytest.mark.parametrize("code", blocks("python"), ids=["an application", "a typed session"])
def test_each_example_runs(code: str) -> None:
    run("-c", code + (VISIT if "FastAPI" in code else ""))


def test_the_template_shows_messages_and_escapes_them() -> None:
    session = SessionManager("memory://", SECRET).open()
    session.flash("<b>saved</b>", "info")
    (template,) = blocks("jinja")
    shown = jinja2.Environment(autoescape=True).from_string(template).render(request=SimpleNamespace(session=session))
    assert shown.strip() == '<p class="info">&lt;b&gt;saved&lt;/b&gt;</p>'
    assert session.flashes() == []
