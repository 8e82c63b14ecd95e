"""Installs the packages in environments of their own and runs the tests of each; `make test-ecosystem`.

    python tests/ecosystem/run.py [--write-table] [pytest's arguments]

--write-table writes what each package has passed to docs/ecosystem.md.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
TABLE = ROOT / "docs" / "ecosystem.md"
MARKS = "<!-- packages -->\n", "<!-- end -->\n"
ENVIRONMENTS = {
    "django": ["test_django.py"],
    "flask": ["test_flask.py", "test_quart.py"],
    "others": ["test_starlette.py", "test_litestar.py", "test_aiohttp.py", "test_pyramid.py"],
}
"""By the name of the file of requirements. Together they would not install."""


def main(arguments: list[str]) -> int:
    """Run all tests; return the exit code."""
    more = [argument for argument in arguments if argument != "--write-table"]
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(2) as pool:
        runs = []
        for name, files in ENVIRONMENTS.items():
            python = install(name, Path(folder))  # one installs while another tests
            runs += [pool.submit(test, python, file, Path(folder), more) for file in files]
        codes = [run.result() for run in runs]
        rows = [row for path in sorted(Path(folder).glob("*.json")) for row in json.loads(path.read_text())]
    failed = any(codes)
    if "--write-table" in arguments and not failed:
        before, _, rest = TABLE.read_text().partition(MARKS[0])
        TABLE.write_text(before + MARKS[0] + table(rows) + MARKS[1] + rest.partition(MARKS[1])[2])
    return int(failed)


def install(name: str, folder: Path) -> Path:
    """Make an environment and return its interpreter."""
    python = folder / name / "bin" / "python"
    subprocess.run([sys.executable, "-m", "venv", str(folder / name)], check=True)
    options = ["--quiet", "--disable-pip-version-check", "-r", str(HERE / f"{name}.txt")]
    subprocess.run([python, "-m", "pip", "install", *options], check=True, cwd=ROOT)
    return python


def test(python: Path, file: str, folder: Path, more: list[str]) -> int:
    """Run the tests of one file, print what they say, and return the exit code."""
    outcomes = folder / f"{file}.json"
    options = ["-c", str(HERE / "pytest.ini"), "-q", f"--outcomes={outcomes}", *more]
    result = subprocess.run(
        [python, "-m", "pytest", *options, str(HERE / file)],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    print(f"{file}\n{result.stdout}", flush=True)
    return result.returncode


def table(rows: list[dict[str, Any]]) -> str:
    """What each package passed, in Markdown."""
    lines = ["| package | version | framework | its own sessions | ours |", "| --- | --- | --- | --- | --- |"]
    for row in sorted(rows, key=lambda row: (row["framework"].lower(), row["package"].lower())):
        cells = (f"all {row[kind]}" if row.get(kind) else "" for kind in ("own passed", "ours passed"))
        lines.append(f"| {row['package']} | {row['version']} | {row['framework']} | {' | '.join(cells)} |")
    return "".join(f"{line}\n" for line in lines)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
