"""What docs/codecs.md shows runs as printed, and a strict type checker accepts it."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

PAGE = Path(__file__).parents[2] / "docs" / "codecs.md"
EXAMPLES = re.findall(r"^```python\n(.*?)^```", PAGE.read_text(), re.MULTILINE | re.DOTALL)
KEYS = f"{bytes(range(1, 33)).hex()},{bytes(range(101, 133)).hex()}"


def run(*arguments: str | Path) -> None:
    result = subprocess.run(
        [sys.executable, *arguments],
        env={
            **os.environ,
            "PYTHONPATH": ".",
            "SESSION_KEYS": KEYS,
            "SESSION_SECRET": "Kx7-not-for-production-but-long-enough-0123",
        },
        cwd=PAGE.parents[1],
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stdout + result.stderr


@pytest.mark.parametrize("number", range(len(EXAMPLES)))
def test_each_example_runs(number: int) -> None:
    run("-c", EXAMPLES[number])


def test_a_strict_type_checker_accepts_each_example_as_printed(tmp_path: Path) -> None:
    for number, code in enumerate(EXAMPLES):
        (tmp_path / f"example{number}.py").write_text(code)
    run("-m", "mypy", "--strict", "--config-file=", f"--cache-dir={tmp_path / 'cache'}", *sorted(tmp_path.glob("*.py")))
