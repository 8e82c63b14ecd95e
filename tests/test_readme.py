"""What the README shows runs as printed."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

README = Path(__file__).parents[1] / "README.md"
BLOCKS = re.findall(r"^```python\n(.*?)^```", README.read_text(), re.MULTILINE | re.DOTALL)

PLAY = """
from starlette.testclient import TestClient

with TestClient(app, base_url="https://testserver") as client:
    assert [client.get("/").json() for _ in range(3)] == [{"visits": 1}, {"visits": 2}, {"visits": 3}]
"""


@pytest.mark.parametrize("number", range(len(BLOCKS)))
def test_each_example_runs(number: int, tmp_path: Path) -> None:
    code = BLOCKS[number].replace("/var/lib/shop", str(tmp_path / "shop"))
    script = tmp_path / "example.py"
    script.write_text(code + (PLAY if "FastAPI" in code else ""))
    environment = {**os.environ, "SESSION_SECRET": "Kx7-not-for-production-but-long-enough-0123", "PYTHONPATH": "."}
    result = subprocess.run(
        [sys.executable, str(script)], env=environment, capture_output=True, text=True, cwd=README.parent, check=False
    )
    assert result.returncode == 0, result.stderr


def test_the_fastapi_example_is_under_ten_lines() -> None:
    (example,) = [block for block in BLOCKS if "FastAPI" in block]
    assert len([line for line in example.splitlines() if line.strip()]) < 10


def test_the_two_commands_are_there() -> None:
    makefile = (README.parent / "Makefile").read_text()
    for target in ("demo", "test"):
        assert f"make {target}" in README.read_text()
        assert re.search(rf"^{target}:", makefile, re.MULTILINE)
