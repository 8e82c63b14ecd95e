"""Each program of docs/frameworks.md starts by the command that stands above it, without root and on a bare install."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.harness.programs import STORE, started, three_visits
from tests.harness.sessions import SECRET

PAGE = (Path(__file__).parents[2] / "docs" / "frameworks.md").read_text(encoding="utf-8")
PROGRAMS = re.findall(
    r"^## ([\w, ]+)\n\n`pip install session-kit-web [^`]+`, start it with `([^`]+)`.*?^```python\n(.*?)^```",
    PAGE,
    re.MULTILINE | re.DOTALL,
)


def test_all_frameworks_but_django_have_a_command() -> None:
    """Django's settings belong to a project; docs/start.md has a whole program."""
    headings = re.findall(r"^## ([\w, ]+)$", PAGE, re.MULTILINE)
    others = ("Django", "Two session middlewares", "One suite for all")
    assert [name for name, *_ in PROGRAMS] == [name for name in headings if name not in others]


@pytest.mark.parametrize(("framework", "command", "code"), PROGRAMS, ids=[name for name, *_ in PROGRAMS])
def test_a_program_starts_as_printed(framework: str, command: str, code: str, tmp_path: Path) -> None:
    assert STORE in code
    with started(command, code, tmp_path, secret=SECRET) as url:
        assert three_visits(url) == [{"visits": 1}, {"visits": 2}, {"visits": 3}]
    assert (tmp_path / "shop" / "sessions.db").exists()
