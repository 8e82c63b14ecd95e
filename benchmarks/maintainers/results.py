"""What the commands share: their arguments, how cases take turns, how tables look, and where results are kept."""

from __future__ import annotations

import argparse
import gc
import re
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TypeVar
from urllib.parse import quote

from session_kit.benchmarks.measure import Noise, conditions

ROOT = Path(__file__).resolve().parents[2]
PERFORMANCE = ROOT / "docs" / "performance.md"
RESULTS = ROOT / "benchmarks" / "results"

K = TypeVar("K")
Case = Callable[[], object]
"""Does some operations."""
Figures = dict[str, float]
"""Seconds, by what took them."""


def make_parser(name: str, parts: Collection[str]) -> argparse.ArgumentParser:
    """The command line of a module here: which of its parts to measure, and `--write`."""
    names = ", ".join(parts)

    # Python 3.11 would look for no part at all among the `choices`.
    def known(part: str) -> str:
        if part not in parts:
            raise argparse.ArgumentTypeError(f"there is no part {part!r}; the parts are {names}")
        return part

    parser = argparse.ArgumentParser(prog=f"python -m session_kit.benchmarks.maintainers.{name}")
    parser.add_argument("parts", nargs="*", type=known, metavar="PART", help=f"of {names}; default: all")
    parser.add_argument("--write", action="store_true", help="to benchmarks/results/, tables also to docs/")
    return parser


def best_of(cases: Mapping[K, Callable[[], Figures]], rounds: int, noise: Noise) -> dict[K, Figures]:
    """Return the least of each figure in several rounds, in which the cases take turns.

    What else the machine does can only make an operation slower, so the best round is the nearest to what it costs; the
    first, which warms up, is seldom the best. Meanwhile no garbage is collected: most of it is of the clients.

    >>> found = iter([3.0, 1.0, 2.0])
    >>> best_of({"case": lambda: {"read": next(found)}}, 3, Noise())
    {'case': {'read': 1.0}}
    """
    best: dict[K, Figures] = {}
    for _ in range(rounds):
        for name, case in cases.items():
            noise.probe()
            gc.collect()
            gc.disable()
            best[name] = least(best.get(name, {}), case())
            gc.enable()
    return best


def least(before: Figures, now: Figures) -> Figures:
    """What was found now, or before if that was less."""
    return {what: min(value, before.get(what, value)) for what, value in now.items()}


def compare(cases: Mapping[K, Case], number: int, rounds: int, noise: Noise) -> dict[K, float]:
    """Return the seconds that one operation of each case takes, in the best round.

    number: how many operations a call of a case does.
    """

    def seconds(case: Case) -> Figures:
        begin = time.perf_counter()
        case()
        return {"": (time.perf_counter() - begin) / number}

    best = best_of({name: partial(seconds, case) for name, case in cases.items()}, rounds, noise)
    return {name: figures[""] for name, figures in best.items()}


def markdown(head: Sequence[str], rows: Iterable[Sequence[str]], names: int) -> str:
    """A table whose first columns are names, and the others numbers."""
    lines = [head, ["---"] * names + ["---:"] * (len(head) - names), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def report(text: str, packages: Iterable[str], noise: Noise) -> str:
    """A text with figures, under a warning if the machine was noisy, and above when and where it was measured."""
    loud = f"**{noise.warning}**\n\n" if noise.warning else ""
    return f"{loud}{text}\n{conditions(packages)}; {noise}.\n"


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


def publish(marker: str, text: str, packages: Iterable[str], noise: Noise, *, write: bool) -> None:
    """Print the report, and with `write` put it into the page on performance, and into a file of results."""
    made = report(text, packages, noise)
    print(made)
    if write:
        PERFORMANCE.write_text(put_into(PERFORMANCE.read_text(encoding="utf-8"), marker, made), encoding="utf-8")
        (RESULTS / f"{marker}.txt").write_text(made, encoding="utf-8")


def url_in(folder: Path, scheme: str) -> str:
    """The URL of a store in a folder, or in memory."""
    return f"{scheme}://" + ("" if scheme == "memory" else quote(str(folder / scheme)))
