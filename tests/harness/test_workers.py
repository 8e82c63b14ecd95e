"""Tests that run in several processes find what one finds, and what they start hears SIGINT."""

from __future__ import annotations

import itertools
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from tests.harness.readme_tables import Found, Frameworks

ROOT = Path(__file__).parents[2]
LEAK = """
import socket

def test_that_leaves_a_cycle():
    cycle = [socket.socket()]
    cycle.append(cycle)
"""


CHILD = """
import subprocess, sys

def test_that_starts_a_program():
    subprocess.run([sys.executable, "-c", "import signal; signal.raise_signal(signal.SIGINT)"], check=True)
"""


def run_tests(folder: Path, fixture: str, code: str) -> subprocess.CompletedProcess[str]:
    """Run a test with a fixture of ours, in one worker."""
    module, _, name = fixture.rpartition(".")
    (folder / "conftest.py").write_text(f"from {module} import {name}\n")
    (folder / "test_it.py").write_text(code)
    options = ["-c", str(ROOT / "pyproject.toml"), "--rootdir", str(folder), "-p", "no:cacheprovider", "-n1"]
    command = [sys.executable, "-m", "pytest", *options, str(folder)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


@pytest.mark.slow
def test_what_a_test_starts_hears_sigint_where_the_tests_run_in_the_background(tmp_path: Path) -> None:
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)  # a child inherits that
    try:
        run = run_tests(tmp_path, "tests.conftest.sigint", CHILD)
    finally:
        signal.signal(signal.SIGINT, before)
    assert run.returncode == 1, run.stdout + run.stderr
    assert "KeyboardInterrupt" in run.stdout


@pytest.mark.slow
def test_what_is_found_open_at_the_end_fails_the_run(tmp_path: Path) -> None:
    run = run_tests(tmp_path, "tests.harness.garbage.leaks", LEAK)
    assert run.returncode == 1, run.stdout + run.stderr
    assert "ResourceWarning: unclosed" in run.stdout


def test_a_table_is_complete_when_the_workers_have_run_all_of_it_and_is_in_the_order_of_the_tests(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(Frameworks, "rows", lambda _: ["flask", "django"])

    def worker(*ran: tuple[str, str]) -> Found:
        table = Frameworks()
        for place in itertools.product(["flask", "django"], ["cookie", "outage of the store"]):
            table.outcomes[place] = Counter(passed=ran.count(place))
        return table.found()

    table = Frameworks()
    table.add(worker(("django", "cookie"), ("django", "cookie"), ("flask", "outage of the store")))
    table.add(worker(("flask", "cookie")))
    assert not table.is_complete()
    table.add(worker(("django", "outage of the store")))
    assert table.is_complete()
    assert (table.columns(), table.outcomes["django", "cookie"]["passed"]) == (["cookie", "outage of the store"], 2)
