"""The README is short, its programs start by the commands that it prints, and its links and figures are right."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from tests.harness.servers import HOST, free_ports

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
MKDOCS = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
PROGRAMS = re.findall(
    r"^\*\*(\w+)\*\*: `pip install [^`]+`, save this as `([\w.]+)`, start it with `([^`]+)`.*?^```python\n(.*?)^```",
    README,
    re.MULTILINE | re.DOTALL,
)
STORE = "/tmp/shop/"  # noqa: S108  # what the README says
PORT = {"uvicorn": "--port {port}", "flask": "--port {port}", "python": "{port} --noreload"}


def test_it_is_short() -> None:
    assert len(README.splitlines()) < 165


def test_the_two_commands_are_there() -> None:
    makefile = (ROOT / "Makefile").read_text()
    for target in ("demo", "test"):
        assert f"make {target}" in README
        assert re.search(rf"^{target}:", makefile, re.MULTILINE)


@contextmanager
def started(command: str, folder: Path) -> Iterator[str]:
    """Run a command of the README on a free port, and yield where it answers."""
    (port,) = free_ports(1)
    program, *words = shlex.split(f"{command} {PORT[command.split()[0]]}".format(port=port))
    path = [sys.executable] if program == "python" else [sys.executable, "-m", program]
    environment = {name: value for name, value in os.environ.items() if name != "SESSION_SECRET"}
    with (
        (folder / "log").open("w") as log,
        subprocess.Popen(
            [*path, *words], cwd=folder, env={**environment, "PYTHONPATH": str(ROOT)}, stdout=log, stderr=log
        ) as process,
    ):
        try:
            url = f"http://{HOST}:{port}"
            for _ in range(300):
                try:
                    httpx.get(f"{url}/nowhere")
                    break
                except httpx.TransportError:
                    assert process.poll() is None, (folder / "log").read_text()
                    time.sleep(0.1)
            yield url
        finally:
            process.terminate()


def test_there_is_a_program_for_each_of_three_frameworks() -> None:
    assert [framework for framework, *_ in PROGRAMS] == ["FastAPI", "Flask", "Django"]


@pytest.mark.parametrize(("framework", "file", "command", "code"), PROGRAMS, ids=[name for name, *_ in PROGRAMS])
def test_a_program_starts_as_printed_without_root_and_without_a_secret(
    framework: str, file: str, command: str, code: str, tmp_path: Path
) -> None:
    assert STORE in code
    (tmp_path / file).write_text(code.replace(STORE, f"{tmp_path}/shop/"))
    with started(command, tmp_path) as url:
        answers, cookie = [], ""
        for _ in range(3):
            answer = httpx.get(url, headers={"cookie": cookie})
            cookie = answer.headers.get("set-cookie", cookie).partition(";")[0]
            answers.append(answer.json())
    assert answers == [{"visits": 1}, {"visits": 2}, {"visits": 3}]
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
