"""What people run on Django's sessions runs on ours: packages, in an environment of their own, as their users use them.

First with Django's own sessions, so that what fails there is not blamed on ours; then both ways.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
ECOSYSTEM = Path(__file__).parent / "ecosystem"


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The interpreter of a new environment with the packages in it."""
    folder = tmp_path_factory.mktemp("packages")
    subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
    python = folder / "bin" / "python"
    requirements = ECOSYSTEM / "django_requirements.txt"
    subprocess.run([python, "-m", "pip", "install", "-q", "-r", requirements], check=True, capture_output=True)
    return python


@pytest.mark.slow
@pytest.mark.parametrize(
    ("way", "store"),
    [("theirs", ""), ("engine", "memory"), ("shared", "memory"), ("engine", "disk"), ("shared", "disk")],
)
def test_packages_run_on_our_sessions(python: Path, way: str, store: str, tmp_path: Path) -> None:
    url = f"disk://{tmp_path}/store" if store == "disk" else "memory://"
    result = subprocess.run(
        [python, ECOSYSTEM / "django_packages.py", way, url],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    answers = dict(line.rsplit(": ", 1) for line in result.stdout.splitlines() if ": " in line)
    assert len(answers) == 9, result.stderr
    assert set(answers.values()) == {"ok"}, result.stdout + result.stderr
