"""How what is compared takes turns, and where results are kept: in files, and as tables in a page."""

from __future__ import annotations

import gc
import re
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

from session_kit.benchmarks.measure import Noise, brief_count

ROOT = Path(__file__).resolve().parents[2]
# Where `--write` puts the tables of peers and targets.
PERFORMANCE = ROOT / "docs" / "performance.md"
RESULTS = ROOT / "benchmarks" / "results"


Case = Callable[[int], object]
"""Does an operation so many times."""


def compare(cases: Mapping[str, Case], number: int, rounds: int = 7, noise: Noise | None = None) -> dict[str, float]:
    """Return the seconds that one operation of each case takes: the best of several interleaved rounds.

    What else the machine does can only make an operation slower, so the best round is the nearest to what it costs.
    number: operations in a round, after as many again, at most a tenth, to warm up.
    """
    best = dict.fromkeys(cases, float("inf"))
    for case in cases.values():
        case(max(1, number // 10))
    for _ in range(rounds):
        for name, case in cases.items():
            if noise is not None:
                noise.probe()
            gc.collect()
            begin = time.perf_counter()
            case(number)
            best[name] = min(best[name], (time.perf_counter() - begin) / number)
    return best


def markdown(head: Sequence[str], rows: Iterable[Sequence[str]], names: int) -> str:
    """A table whose first columns are names, and the others numbers."""
    lines = [head, ["---"] * names + ["---:"] * (len(head) - names), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


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


def brief_bytes(value: float) -> str:
    """Render a size to three digits.

    >>> brief_bytes(8_012_345), brief_bytes(96)
    ('8.01 MB', '96 B')
    """
    text = brief_count(value).upper()
    return text + ("B" if text[-1].isalpha() else " B")
