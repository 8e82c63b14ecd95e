"""What docs/operate.md shows runs as printed."""

from __future__ import annotations

import re
import sys
from contextlib import closing
from pathlib import Path

from session_kit import open_store
from session_kit.integrations.command_line import make_group
from session_kit.record import hash_id
from tests.harness.scripts import run, run_code
from tests.harness.servers import Valkey

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "operate.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)


def test_each_command_runs(tmp_path: Path, valkey: Valkey) -> None:
    handles = {}
    for prefix in ("sess", "shop"):
        with closing(open_store(f"sqlite://{tmp_path}/sessions.db?prefix={prefix}")) as store:
            store.set("some-id", {"user": "ada"})
            handles[prefix] = hash_id("some-id")
    commands = [line for block in blocks("sh") for line in block.splitlines()]
    assert {command.split()[1] for command in commands} >= {"secret", "doctor", "list", "show", "revoke", "copy"}
    for command in commands:
        for written, meant in (
            ("session-kit", f"{sys.executable} -m session_kit"),
            ("/var/lib/shop", str(tmp_path)),
            ("redis://localhost:6379/0", valkey.url),
            ("HANDLE", handles["sess"][:16]),
        ):
            command = command.replace(written, meant)
        run("sh", "-c", command)


def test_each_example_runs(tmp_path: Path) -> None:
    for code in blocks("python"):
        run_code(code.replace("/var/lib/shop", str(tmp_path)))


def test_each_command_of_a_framework_is_told() -> None:
    section = PAGE.partition("## In the command line of a framework")[2].partition("##")[0]
    for name in make_group(lambda: None).commands:  # type: ignore[arg-type, return-value]  # never called
        assert re.search(rf"\b{name}\b", section), name
