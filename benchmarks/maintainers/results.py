"""Where what was measured is kept: files in `results/`, and tables in a page, each between two comments."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
README = ROOT / "README.md"
# Where `--write` puts the tables of peers and targets.
PERFORMANCE = README
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


def write(marker: str, made: str) -> None:
    """Put a table into the page on performance, and into a file of results."""
    PERFORMANCE.write_text(put_into(PERFORMANCE.read_text(encoding="utf-8"), marker, made), encoding="utf-8")
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / f"{marker}.txt").write_text(made, encoding="utf-8")
