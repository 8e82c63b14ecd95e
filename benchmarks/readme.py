"""Where what was measured is kept: files in `results/`, and tables in the documentation, each between two comments."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PERFORMANCE = ROOT / "docs" / "performance.md"
RESULTS = ROOT / "benchmarks" / "results"


def put_into(text: str, marker: str, made: str) -> str:
    """Return `text` with `made` between the comments `<!-- marker -->` and `<!-- end -->`. `ValueError` without them.

    >>> put_into("# How fast\\n<!-- table -->\\nold\\n<!-- end -->\\n", "table", "new\\n")
    '# How fast\\n<!-- table -->\\nnew\\n<!-- end -->\\n'
    """
    begin, end = f"<!-- {marker} -->\n", "<!-- end -->"
    result, places = re.subn(f"{begin}.*?{end}", lambda _: begin + made + end, text, flags=re.DOTALL)
    if places != 1:
        raise ValueError(f"one place is needed, not {places}: <!-- {marker} --> and {end}, each on its line")
    return result


def keep(name: str, text: str) -> None:
    """Write a file of results."""
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / name).write_text(text)
