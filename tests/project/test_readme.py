"""The README is short, its programs start by the commands that it prints, and its links and figures are right."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.harness.programs import STORE, started, three_visits

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
MKDOCS = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
PROGRAMS = re.findall(
    r"^\*\*(\w+)\*\*: `pip install [^`]+`, save this as `([\w.]+)`, start it with `([^`]+)`.*?^```python\n(.*?)^```",
    README,
    re.MULTILINE | re.DOTALL,
)


def test_it_is_short() -> None:
    assert len(README.splitlines()) < 165


def test_the_two_commands_are_there() -> None:
    makefile = (ROOT / "Makefile").read_text()
    for target in ("demo", "test"):
        assert f"make {target}" in README
        assert re.search(rf"^{target}:", makefile, re.MULTILINE)


def test_there_is_a_program_for_each_of_three_frameworks() -> None:
    assert [framework for framework, *_ in PROGRAMS] == ["FastAPI", "Flask", "Django"]


@pytest.mark.parametrize(("framework", "file", "command", "code"), PROGRAMS, ids=[name for name, *_ in PROGRAMS])
def test_a_program_starts_as_printed_without_root_and_without_a_secret(
    framework: str, file: str, command: str, code: str, tmp_path: Path
) -> None:
    assert STORE in code
    assert file == "shop.py"
    with started(command, code, tmp_path) as url:
        assert three_visits(url) == [{"visits": 1}, {"visits": 2}, {"visits": 3}]
    assert (tmp_path / "shop" / "sessions.db").exists()


def test_each_link_works_on_a_package_index_and_leads_to_a_file_here() -> None:
    match = re.search(r"repository: (\S+)", MKDOCS)
    assert match is not None
    targets = re.findall(r"\]\(([^)]+)\)", README)
    assert len(targets) > 10
    for url in targets:
        path = re.sub(rf"^{re.escape(match[1])}/(blob|raw)/main/", "", url)
        assert path != url
        assert (ROOT / path).is_file(), path
    assert not re.findall(r"\]\[", README)


def test_its_figures_are_those_of_the_comparison_with_peers() -> None:
    table = (ROOT / "docs" / "performance.md").read_text(encoding="utf-8").partition("<!-- peers -->")[2]
    measured = {}
    for line in table.partition("<!-- end -->")[0].splitlines():
        cells = [cell.strip(" *") for cell in line.strip("|").split("|")]
        if len(cells) == 10:
            measured[cells[0], cells[1], cells[2]] = cells[-1]
    section = README.partition("## Beside its peers")[2].partition("##")[0]
    rows = re.findall(r"^\| (\w+) \| ([\w -]+) \| ([\w, ]+) \| (\d+) \| (\d+) \|$", section, re.MULTILINE)
    assert len(rows) == 5
    for framework, peer, stores, theirs, ours in rows:
        store, _, our_store = stores.partition(", ")
        name = "session_kit middleware" if framework == "Django" else "session_kit"
        assert measured[framework, peer, store] == theirs
        assert measured[framework, name, our_store or store] == ours
