"""How cost grows with the number of entries: one call, and what goes through a whole store.

    python -m session_kit.benchmarks.maintainers.growth [DRIVER ...] [--most ENTRIES] [--write]

With --write, the table and its picture go to benchmarks/results/. `session-kit bench --concurrency` says how cost grows
with workers side by side.
"""

from __future__ import annotations

import gc
import math
import random
import shutil
import sys
import tempfile
import time
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from functools import partial
from pathlib import Path
from typing import NamedTuple

from session_kit.benchmarks.maintainers import results
from session_kit.benchmarks.maintainers.results import Figures, url_in
from session_kit.benchmarks.measure import Noise, brief, conditions, percentiles
from session_kit.benchmarks.shift import Shift
from session_kit.drivers import Driver, open_driver
from session_kit.drivers.errors import DISTRIBUTION
from session_kit.store import UnstorageSessionStore
from session_kit.testing import ManualClock

DRIVERS = ("memory", "sqlite", "disk", "file")
SIZES = (1_000, 10_000, 100_000, 1_000_000)
MOST_FILES = 30_000  # a million take minutes to make
# The peak of a removal is measured apart from its time, and a million rows on disk take more than a minute to remove.
MOST_REMOVED_TWICE = 100_000
ROUNDS = 3
# Calls of one kind in a round: enough for a 99th percentile, and never more than half of what is there.
SAMPLE = 1_000
PACKAGES = (DISTRIBUTION, "msgspec", "diskcache")
TTL = 86_400.0
VALUE = b'{"user":"ada","cart":[1,2,3],"seen":"' + b"x" * 161 + b'"}'
key_of = UnstorageSessionStore("memory://").key  # as long and as scattered as any


class Row(NamedTuple):
    """What was measured with so many entries.

    seconds: that it took; of many calls: the median. aside: their 99th percentile, or the peak of memory in bytes.
    """

    driver: str
    what: str
    entries: int
    seconds: float
    aside: float | None

    def __str__(self) -> str:
        seconds = brief(self.seconds, "s")
        if self.aside is None:
            return seconds
        return f"{seconds} / {brief(self.aside, 's') if self.what in CALLS else brief(self.aside, 'B').upper()}"


def sizes(driver: str, most: int) -> list[int]:
    """How many entries a driver has, from few to many."""
    limit = min(most, MOST_FILES) if driver == "file" else most
    return sorted(size for size in {*SIZES, limit} if size <= limit)


@contextmanager
def full_store(
    folder: Path, driver: str, entries: int, clock: Callable[[], float] = time.time
) -> Iterator[UnstorageSessionStore]:
    """A store with so many sessions that live for a day. One that lies in a folder is filled once, then copied."""
    original, in_memory = folder / f"{driver}-{entries}", driver == "memory"
    if not in_memory and not original.exists():
        # What is copied need not survive a power cut.
        with closing(open_driver(url_in(original, driver) + ("?fsync=no" if driver == "file" else ""))) as opened:
            fill(opened, entries)
    with tempfile.TemporaryDirectory(dir=folder) as copy:
        if not in_memory:
            shutil.copytree(original, copy, dirs_exist_ok=True)
        with closing(open_driver(url_in(Path(copy), driver), clock=clock)) as opened:
            if in_memory:
                fill(opened, entries)
            yield UnstorageSessionStore(opened, ttl=TTL)


def fill(driver: Driver, entries: int) -> None:
    """Put sessions there, each with a value of its own."""
    for start in range(0, entries, 10_000):
        numbers = range(start, min(entries, start + 10_000))
        driver.set_many({key_of(str(number)): VALUE[:-2] + b'"}' for number in numbers}, ttl=TTL)


# --- one call ---

CALLS: dict[str, Callable[[Driver, str], object]] = {
    "get": lambda driver, key: driver.get(key),
    "set": lambda driver, key: driver.set(key, VALUE, ttl=TTL),
    "renew": lambda driver, key: driver.renew(key, TTL),
    "delete": lambda driver, key: driver.delete(key),
}


def calls(folder: Path, driver: str, entries: int, noise: Noise) -> Iterator[Row]:
    """Calls of each kind, one after another."""
    with full_store(folder, driver, entries) as store:
        best = time_calls(store.driver, entries, noise)
    for what in CALLS:
        yield Row(driver, what, entries, best[what], best[f"{what}, p99"])


def time_calls(driver: Driver, entries: int, noise: Noise) -> Figures:
    """The best median of each call, and the best 99th percentile."""
    dice = random.Random(entries)

    def make_all() -> Figures:
        keys = [key_of(str(number)) for number in dice.sample(range(entries), min(SAMPLE, entries // 2))]
        found: Figures = {}
        for what, call in CALLS.items():
            shift = Shift(seconds=math.inf)
            shift.run(partial(call, driver), [iter(keys)])
            found[what], found[f"{what}, p99"] = percentiles(shift.durations, 0.5, 0.99)
        driver.set_many(dict.fromkeys(keys, VALUE), ttl=TTL)
        return found

    return results.best_of({"": make_all}, ROUNDS, noise)[""]


def weight(entries: int) -> float:
    """The bytes that a session takes in memory, key and expiry and all, beyond those of its value."""
    with closing(open_driver("memory://")) as driver, traced():
        fill(driver, entries)
        return tracemalloc.get_traced_memory()[0] / entries - len(VALUE)


# --- a whole store ---

WALKS: dict[str, Callable[[UnstorageSessionStore], int]] = {
    "length": lambda store: store.length(),
    "keys": lambda store: sum(1 for _ in store.driver.keys(store.prefix + ":")),
    "all": lambda store: sum(1 for _ in store.all()),
    "clear": lambda store: store.clear(),
    "prune": lambda store: store.driver.prune(),
}
"""What goes through a whole store; each says how many entries it found. `prune` finds those that have expired."""


def walks(folder: Path, driver: str, entries: int, noise: Noise) -> Iterator[Row]:
    """How long each takes, and, in a run of its own, the peak of what it adds to memory.

    The peak is that of Python's own memory; what SQLite takes for its cache has a limit of its own. On files it may be
    that of Python's table of interned strings, which moves now and then: `pathlib` interns the parts of each path.
    """
    noise.probe()
    for what in WALKS:
        (seconds, _), peak = walk(folder, driver, entries, what), None
        if driver == "memory" or entries <= MOST_REMOVED_TWICE or what not in ("clear", "prune"):
            with traced():
                _, peak = walk(folder, driver, entries, what)
        yield Row(driver, what, entries, seconds, peak)


def walk(folder: Path, driver: str, entries: int, what: str) -> tuple[float, int]:
    """The seconds of one walk that finds everything, and, if traced, the most that it had in memory at once."""
    clock = ManualClock()
    with full_store(folder, driver, entries, clock) as store:
        clock.advance(2 * TTL if what == "prune" else 0)
        gc.collect()
        before, _ = tracemalloc.get_traced_memory()
        tracemalloc.reset_peak()
        begin = time.perf_counter()
        found = WALKS[what](store)
        seconds, (_, peak) = time.perf_counter() - begin, tracemalloc.get_traced_memory()
    if found != entries:
        raise RuntimeError(f"growth: {what} on {driver}:// found {found} of {entries} entries")
    return seconds, peak - before


@contextmanager
def traced() -> Iterator[None]:
    """Memory is traced meanwhile. To begin before a store is filled: a list that shrinks would seem new otherwise."""
    tracemalloc.start()
    try:
        yield
    finally:
        tracemalloc.stop()


# --- the report ---

NOTE = f"""\
get to delete: one call, the median / the 99th percentile, in the best of {ROUNDS} rounds.
length to prune: once through the whole store, the time / the peak of Python's memory that this adds, in a run apart,
and not above {MOST_REMOVED_TWICE:,} entries for clear and prune on disk. prune: all entries have expired.
file:// has at most {MOST_FILES:,} entries here, and each write waits for the disk (fsync).
"""


def table(rows: list[Row]) -> str:
    """The rows as Markdown: a line for each driver and call, a column for each number of entries."""
    columns = sorted({row.entries for row in rows})
    lines: dict[tuple[str, str], dict[int, str]] = {}
    for row in rows:
        lines.setdefault((row.driver, row.what), dict.fromkeys(columns, "not measured"))[row.entries] = str(row)
    head = ["driver", "", *(f"{entries:,} entries" for entries in columns)]
    return results.markdown(head, [[f"{driver}://", what, *line.values()] for (driver, what), line in lines.items()], 2)


def draw(rows: list[Row], noise: Noise, file: Path) -> None:
    """Write a picture: a panel for each call and walk, a line for each driver, with the colours of other pictures."""
    from matplotlib.figure import Figure as Picture

    from session_kit.benchmarks.plot import LOOKS, finish

    picture = Picture(figsize=(16, 8), dpi=110, layout="constrained")
    grid = picture.subplots(2, len(WALKS), squeeze=False, sharey="row")
    grid[0, -1].set_axis_off()  # there is one call fewer
    for axes, what in [*zip(grid[0], CALLS, strict=False), *zip(grid[1], WALKS, strict=True)]:
        for driver, (colour, marker) in zip(DRIVERS, LOOKS, strict=False):
            points = [(row.entries, row.seconds) for row in rows if (row.driver, row.what) == (driver, what)]
            if points:
                axes.plot(*zip(*points, strict=True), marker=marker, color=colour, label=f"{driver}://")
        axes.loglog()
        axes.minorticks_off()
        axes.set_title(what, fontsize=11, fontweight="bold", loc="left")
        axes.xaxis.set_major_formatter(lambda value, _: brief(value))
        axes.yaxis.set_major_formatter(lambda value, _: brief(value, "s"))
        axes.tick_params(labelsize=8)
        axes.grid(color="0.88", linewidth=0.8)
    title = "Median of one call (above), and once through the whole store (below), by the number of entries"
    finish(picture, grid[0][0], title, [noise.warning], f"{conditions(PACKAGES)}; {noise}", file)


def main(arguments: list[str], folder: Path = results.RESULTS) -> None:
    """Measure, print the table, and with --write put it and its picture into the folder of results."""
    parser = results.make_parser("growth", DRIVERS)
    parser.add_argument("--most", type=int, default=SIZES[-1], help="entries at most (default: %(default)s)")
    options = parser.parse_args(arguments)
    if options.most < 2:
        parser.error("--most must be at least 2")
    noise, rows = Noise(), []
    for driver in options.parts or DRIVERS:
        for entries in sizes(driver, options.most):
            with tempfile.TemporaryDirectory() as stores:
                for measure in (calls, walks):
                    for row in measure(Path(stores), driver, entries, noise):
                        rows.append(row)
                        print(f"{driver}:// {row.what}, {entries:,}: {row}", file=sys.stderr)
    text = f"# How cost grows\n\n    {' '.join([parser.prog, *arguments])}\n\n{NOTE}\n{table(rows)}\n"
    text += f"A session in memory takes {brief(weight(options.most), 'B').upper()} beyond its value.\n"
    text = results.report(text, PACKAGES, noise)
    print(text)
    if options.write:
        (folder / "growth.txt").write_text(text, encoding="utf-8")
        draw(rows, noise, folder / "growth.png")


if __name__ == "__main__":
    main(sys.argv[1:])
