"""Commands and code that run in a process of their own."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from tests.harness.sessions import SECRET

ROOT = Path(__file__).parents[2]


def run(*command: str | Path) -> None:
    """Run a command in the root of the repository, with session_kit and SESSION_SECRET. It must succeed."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "SESSION_SECRET": SECRET}
    result = subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr


@contextlib.contextmanager
def started(*arguments: str, **environment: str) -> Iterator[subprocess.Popen[str]]:
    """Start `session-kit` with these arguments; it hears Ctrl-C, and is killed in the end."""
    # What runs the tests may ignore SIGINT, as jobs in the background do; a child would inherit that.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        process = subprocess.Popen(
            [sys.executable, "-m", "session_kit", *arguments],
            cwd=ROOT,
            env={**os.environ, **environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
    finally:
        signal.signal(signal.SIGINT, before)
    with process:
        try:
            yield process
        finally:
            process.kill()  # a test that fails is not to wait until it ends by itself


def run_code(code: str) -> None:
    """Run Python."""
    run(sys.executable, "-c", code)
