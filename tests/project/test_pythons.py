"""Each Python that is claimed is tested, and what is left open there fails the tests."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
LEAKS = [
    "import socket\ndef test(): socket.socket()",
    "def test():\n    cycle = [open(__file__)]\n    cycle.append(cycle)",
    "import threading\ndef test():\n    (t := threading.Thread(target=lambda: 1 / 0)).start()\n    t.join()",
]
if sys.version_info >= (3, 13):  # older ones do not mind
    LEAKS.append("import sqlite3\ndef test(): sqlite3.connect(':memory:')")


@pytest.mark.parametrize("leak", LEAKS)
def test_what_is_left_open_fails_the_run(leak: str, tmp_path: Path) -> None:
    file = tmp_path / "test_leak.py"
    file.write_text(leak)
    settings = ["-c", str(ROOT / "pyproject.toml"), "--rootdir", str(tmp_path), "-p", "no:cacheprovider"]
    run = subprocess.run(
        [sys.executable, "-m", "pytest", *settings, str(file)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 1
    assert re.search(r"ResourceWarning: unclosed|ZeroDivisionError", run.stdout + run.stderr)


def test_ci_looks_for_each_python_that_is_claimed() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    claimed = re.findall(r"Python :: (3\.\d+)", "\n".join(project["classifiers"]))
    (looked_for,) = re.findall(r"for version in (.*); do", (ROOT / ".ci" / "run").read_text())
    assert claimed
    assert project["requires-python"] == f">={claimed[0]}"
    assert set(claimed) <= set(looked_for.split())
