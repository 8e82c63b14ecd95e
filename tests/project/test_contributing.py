"""What CONTRIBUTING.md tells is there, and its driver is tested as it says."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
DRIVER = """
from session_kit.drivers.memory import MemoryDriver


class MyDriver(MemoryDriver):
    def __init__(self, folder, *, clock):
        super().__init__(clock=clock)
"""


def test_every_folder_of_the_tests_has_a_line() -> None:
    folders = {path.name for path in (ROOT / "tests").iterdir() if path.is_dir() and not path.name.startswith("_")}
    assert set(re.findall(r"^\| `tests/(\w+)`", PAGE, re.MULTILINE)) == folders


@pytest.mark.links
def test_every_file_and_command_that_it_names_exists() -> None:
    for name in re.findall(r"`((?:drivers|session_kit|benchmarks|tests)/[\w./]*)`", PAGE):
        assert (ROOT / name).exists(), name
    targets = re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    assert set(re.findall(r"make ([a-z][\w-]+)(?:`| {2,})", PAGE)) <= set(targets)


def test_the_driver_passes_the_suite_as_shown(tmp_path: Path) -> None:
    (example,) = re.findall(r"^```python\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    (tmp_path / "my_driver.py").write_text(DRIVER)
    (tmp_path / "test_mine.py").write_text(example)
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-c", os.devnull, "--rootdir", "."]
    run = subprocess.run(
        [*command, "test_mine.py", "-k", "ttl or prefix"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(tmp_path)])},
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stdout + run.stderr
    assert re.search(r"\d\d passed", run.stdout), run.stdout
