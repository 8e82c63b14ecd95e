"""Code that runs in a process of its own, to its end."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from tests.harness.sessions import SECRET

ROOT = Path(__file__).parents[2]


def run(*command: str | Path) -> None:
    """Run a command in the root of the repository, with session_kit and SESSION_SECRET. It must succeed."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "SESSION_SECRET": SECRET}
    result = subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr


def run_code(code: str) -> None:
    """Run Python."""
    run(sys.executable, "-c", code)
