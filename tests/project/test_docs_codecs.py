"""What docs/codecs.md shows runs as printed, and a strict type checker accepts it."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.harness.sessions import SECRET

PAGE = Path(__file__).parents[2] / "docs" / "codecs.md"
EXAMPLES = re.findall(r"^```python\n(.*?)^```", PAGE.read_text(), re.MULTILINE | re.DOTALL)
KEYS = f"{bytes(range(1, 33)).hex()},{bytes(range(101, 133)).hex()}"


def run(*command: str | Path) -> None:
    result = subprocess.run(
        command,
        env={
            **os.environ,
            "PYTHONPATH": ".",
            "SESSION_KEYS": KEYS,
            "SESSION_SECRET": SECRET,
        },
        cwd=PAGE.parents[1],
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stdout + result.stderr


@pytest.mark.parametrize("number", range(len(EXAMPLES)))
def test_each_example_runs(number: int) -> None:
    run(sys.executable, "-c", EXAMPLES[number])


def test_a_strict_type_checker_accepts_each_example_as_printed(tmp_path: Path, mypy: list[str]) -> None:
    for number, code in enumerate(EXAMPLES):
        (tmp_path / f"example{number}.py").write_text(code)
    run(*mypy, *sorted(tmp_path.glob("*.py")))
