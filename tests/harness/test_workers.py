"""Workers of pytest-xdist find what one process finds: what was left open, and the tables of the README."""

from __future__ import annotations

import itertools
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


def test_what_is_found_open_at_the_end_fails_the_run(tmp_path: Path) -> None:
    (tmp_path / "conftest.py").write_text("from tests.harness.garbage import leaks\n")
    (tmp_path / "test_leak.py").write_text(LEAK)
    options = ["-c", str(ROOT / "pyproject.toml"), "--rootdir", str(tmp_path), "-p", "no:cacheprovider"]
    run = subprocess.run(
        [sys.executable, "-m", "pytest", *options, "-n1", str(tmp_path)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
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
