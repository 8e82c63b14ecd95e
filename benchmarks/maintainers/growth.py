"""How cost grows: with the number of entries, of threads and of processes, on the stores of one machine.

    python -m session_kit.benchmarks.maintainers.growth [PART ...] [--most ENTRIES] [--write]

The parts are entries, walks, threads and processes. With --write, tables and pictures go to benchmarks/results/.
"""

from __future__ import annotations

import gc
import itertools
import multiprocessing
import random
import shutil
import sys
import tempfile
import time
import tracemalloc
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import closing, contextmanager, suppress
from functools import partial
from pathlib import Path
from threading import Barrier
from typing import NamedTuple
from urllib.parse import quote

from session_kit.benchmarks.maintainers.results import (
    RESULTS,
    Figures,
    best_of,
    brief_bytes,
    make_parser,
    markdown,
    report,
)
from session_kit.benchmarks.measure import Noise, brief_count, brief_seconds, summarize
from session_kit.benchmarks.shift import Shift
from session_kit.drivers import Conflict, Driver, open_driver
from session_kit.drivers.errors import DISTRIBUTION
from session_kit.store import UnstorageSessionStore
from session_kit.testing import ManualClock

DRIVERS = ("memory", "sqlite", "disk", "file")
SIZES = (1_000, 10_000, 100_000, 1_000_000)
MOST_FILES = 30_000  # a million take minutes to make
# The peak of a removal is measured apart from its time, and a million rows on disk take more than a minute to remove.
MOST_REMOVED_TWICE = 100_000
ROUNDS = 3
# Operations of one kind in a round: enough for a 99th percentile, and never more than half of what is there.
SAMPLE = 1_000
WRITES_IN = 10
MOST_OPERATIONS = 2_000_000  # more than workers do in their time
PATIENCE = 60.0  # seconds for which a process waits for the others, before it gives up
PACKAGES = (DISTRIBUTION, "msgspec", "diskcache")
TTL = 86_400.0
VALUE = b'{"user":"ada","cart":[1,2,3],"seen":"' + b"x" * 161 + b'"}'
NAMES = UnstorageSessionStore("memory://")


class Scale(NamedTuple):
    """How large a run is.

    most: entries at most. seconds: how long each measurement of operations lasts at most.
    threads, processes: how many there are, one after another. shared: the entries that they share.
    counts: what each process adds to the number that all count on.
    """

    most: int = SIZES[-1]
    seconds: float = 0.5
    threads: Sequence[int] = (1, 2, 4, 8, 16, 32, 64)
    processes: Sequence[int] = (1, 2, 4, 8)
    shared: int = 1_000
    counts: int = 100

    def stores(self) -> list[tuple[str, int]]:
        """Each driver with few to many entries."""
        most = dict.fromkeys(DRIVERS, self.most) | {"file": min(self.most, MOST_FILES)}
        return [(driver, size) for driver in DRIVERS for size in sorted({*SIZES, most[driver]}) if size <= most[driver]]


class Row(NamedTuple):
    """What was measured with so many entries, threads or processes.

    cost: seconds that a call takes (of many: the median), operations a second, or bytes; see the part.
    aside: what belongs to it: the 99th percentile in seconds, or the peak of memory in bytes.
    """

    driver: str
    what: str
    size: int
    cost: float
    aside: float | None = None


class Stock:
    """Full stores. Those in folders are filled once, and copied for each use.

    copy: where the store that is in use lies, if it has a folder.
    """

    def __init__(self, folder: Path) -> None:
        self._folder, self.copy = folder, folder / "copy"

    @contextmanager
    def store(
        self, driver: str, entries: int, clock: Callable[[], float] = time.time
    ) -> Iterator[UnstorageSessionStore]:
        """A store with so many sessions that live for a day, for as long as this."""
        original = self._folder / f"{driver}-{entries}"
        if driver != "memory":
            if not original.exists():
                # What is copied need not survive a power cut.
                fast = "?fsync=no" if driver == "file" else ""
                with closing(open_driver(url_in(driver, original) + fast)) as opened:
                    fill(opened, entries)
            shutil.copytree(original, self.copy)
        try:
            with closing(open_driver(url_in(driver, self.copy), clock=clock)) as opened:
                if driver == "memory":
                    fill(opened, entries)
                yield UnstorageSessionStore(opened, ttl=TTL)
        finally:
            shutil.rmtree(self.copy, ignore_errors=True)


def url_in(driver: str, folder: Path) -> str:
    """The URL of a store in a folder, if it needs one."""
    if driver == "memory":
        return "memory://"
    return f"{driver}://{quote(str(folder))}{'/store.db' if driver == 'sqlite' else ''}"


def key_of(number: int) -> str:
    """The key of a session: as long and as scattered as any."""
    return NAMES.key(str(number))


def fill(driver: Driver, entries: int) -> None:
    """Put sessions there, each with a value of its own."""
    for start in range(0, entries, 10_000):
        numbers = range(start, min(entries, start + 10_000))
        driver.set_many({key_of(number): VALUE[:-2] + b'"}' for number in numbers}, ttl=TTL)


# --- entries ---


def entries(stock: Stock, scale: Scale, noise: Noise) -> Iterator[Row]:
    """One call after another on stores that hold more and more: the best median and 99th percentile of some rounds."""
    for driver, size in scale.stores():
        with stock.store(driver, size) as store:
            best = operations(store.driver, size, scale, noise)
        for what in CALLS:
            yield Row(driver, what, size, best[what], best[f"{what}, p99"])
    for driver, size in scale.stores():
        if driver == "memory":
            yield Row(driver, "bytes a session", size, weight(size))


CALLS: dict[str, Callable[[Driver, str], object]] = {
    "get": lambda driver, key: driver.get(key),
    "set": lambda driver, key: driver.set(key, VALUE, ttl=TTL),
    "renew": lambda driver, key: driver.renew(key, TTL),
    "delete": lambda driver, key: driver.delete(key),
}


def operations(driver: Driver, size: int, scale: Scale, noise: Noise) -> Figures:
    """The best median of each call, and the best 99th percentile."""
    picked = random.Random(size)

    def make_all() -> Figures:
        keys = [key_of(number) for number in picked.sample(range(size), min(SAMPLE, size // 2))]
        found: Figures = {}
        for what, call in CALLS.items():
            shift = Shift(scale.seconds)
            shift.run(partial(call, driver), [iter(keys)])
            summary = summarize(shift.durations, shift.elapsed)
            found |= {what: summary.median, f"{what}, p99": summary.p99}
        driver.set_many(dict.fromkeys(keys, VALUE), ttl=TTL)
        return found

    return best_of({"": make_all}, ROUNDS, noise)[""]


def weight(size: int) -> float:
    """The bytes that a session takes in memory, key and expiry and all, beyond those of its value."""
    with closing(open_driver("memory://")) as driver, traced():
        fill(driver, size)
        return tracemalloc.get_traced_memory()[0] / size - len(VALUE)


# --- walks ---


WALKS: dict[str, Callable[[UnstorageSessionStore], int]] = {
    "length": lambda store: store.length(),
    "keys": lambda store: sum(1 for _ in store.driver.keys(store.prefix + ":")),
    "all": lambda store: sum(1 for _ in store.all()),
    "clear": lambda store: store.clear(),
    "prune": lambda store: store.driver.prune(),
}
"""What goes through a whole store; each says how many entries it found. `prune` finds those that have expired."""


def walks(stock: Stock, scale: Scale, noise: Noise) -> Iterator[Row]:
    """What goes through a whole store: how long it takes, and, in a run of its own, the peak of what it adds to memory.

    The peak is that of Python's own memory; what SQLite takes for its cache has a limit of its own. On files it may be
    that of Python's table of interned strings, which moves now and then: `pathlib` interns the parts of each path.
    """
    for driver, size in scale.stores():
        noise.probe()
        for what in WALKS:
            (seconds, _), peak = walk(stock, driver, size, what), None
            if driver == "memory" or size <= MOST_REMOVED_TWICE or what not in ("clear", "prune"):
                with traced():
                    _, peak = walk(stock, driver, size, what)
            yield Row(driver, what, size, seconds, peak)


def walk(stock: Stock, driver: str, size: int, what: str) -> tuple[float, int]:
    """The seconds of one walk that finds everything, and, if traced, the most that it had in memory at once."""
    clock = ManualClock()
    with stock.store(driver, size, clock) as store:
        clock.advance(2 * TTL if what == "prune" else 0)
        gc.collect()
        before, _ = tracemalloc.get_traced_memory()
        tracemalloc.reset_peak()
        begin = time.perf_counter()
        found = WALKS[what](store)
        seconds, (_, peak) = time.perf_counter() - begin, tracemalloc.get_traced_memory()
    if found != size:
        raise RuntimeError(f"growth: {what} on {driver}:// found {found} of {size} entries")
    return seconds, peak - before


@contextmanager
def traced() -> Iterator[None]:
    """Memory is traced meanwhile. To begin before a store is filled: a list that shrinks would seem new otherwise."""
    tracemalloc.start()
    try:
        yield
    finally:
        tracemalloc.stop()


# --- threads and processes ---


def threads(stock: Stock, scale: Scale, noise: Noise) -> Iterator[Row]:
    """Threads that share a store, one write in ten operations: operations a second, all together, and p99."""
    for driver in DRIVERS:
        with stock.store(driver, scale.shared) as store:
            for count in scale.threads:
                noise.probe()
                gc.collect()
                shift = mix(store.driver, scale, range(count))
                found = summarize(shift.durations, shift.elapsed)
                yield Row(driver, "mixed", count, found.rate, found.p99)


def mix(driver: Driver, scale: Scale, seeds: Sequence[int]) -> Shift:
    """A thread for each seed, which reads, and writes once in ten times."""
    keys = [key_of(number) for number in range(scale.shared)]

    def do(number: int) -> object:
        key = keys[number // WRITES_IN]
        return driver.get(key) if number % WRITES_IN else driver.set(key, VALUE, ttl=TTL)

    shift = Shift(scale.seconds, MOST_OPERATIONS)
    # Picked beforehand, so that to pick costs next to nothing.
    many = range(scale.shared * WRITES_IN)
    shift.run(do, [itertools.cycle(random.Random(seed).choices(many, k=10_000)) for seed in seeds])
    return shift


def processes(stock: Stock, scale: Scale, noise: Noise) -> Iterator[Row]:
    """Processes that do the same on one folder, then all count on one number by swaps: none of their steps is lost."""
    context = multiprocessing.get_context("spawn")
    for driver, count in itertools.product(DRIVERS[1:], scale.processes):
        with stock.store(driver, scale.shared) as store:
            noise.probe()
            store.driver.set("count", b"0")
            with context.Manager() as manager, ProcessPoolExecutor(count, context) as pool:
                work = partial(work_on, url_in(driver, stock.copy), scale, manager.Barrier(count))
                found = list(pool.map(work, range(count)))
            durations, elapsed, counting = zip(*found, strict=True)
            rate = sum(len(own) / seconds for own, seconds in zip(durations, elapsed, strict=True))
            yield Row(driver, "mixed", count, rate, summarize(list(itertools.chain(*durations)), 1.0).p99)
            counted = int(store.driver.get("count") or 0)
            yield Row(driver, "lost", count, scale.counts * count - counted)
            yield Row(driver, "counting", count, counted / max(counting))


def work_on(address: str, scale: Scale, barrier: Barrier, seed: int) -> tuple[Sequence[float], float, float]:
    """What one process does, which waits for the others at the barrier.

    Returns the seconds that each operation took, and all together; and the seconds for which it counted.
    """
    with closing(open_driver(address)) as driver:
        barrier.wait(PATIENCE)
        shift = mix(driver, scale, [seed])
        barrier.wait(PATIENCE)
        begin = time.perf_counter()
        for _ in range(scale.counts):
            count_on(driver)
        return shift.durations, shift.elapsed, time.perf_counter() - begin


def count_on(driver: Driver) -> None:
    """Add one, as a session that was changed meanwhile is saved: read it again, and try again."""
    while True:
        entry = driver.read("count")
        if entry is None:
            raise RuntimeError("growth: the number that all count on is gone")
        with suppress(Conflict):
            driver.set("count", b"%d" % (int(entry.value) + 1), expect=entry.version)
            return


# --- the report ---


class Part(NamedTuple):
    """One subject.

    over: what there is more and more of. title: of the picture. note: what one has to know of the table.
    figures: what `Row.cost` and `Row.aside` are, and how they are written.
    """

    measure: Callable[[Stock, Scale, Noise], Iterator[Row]]
    over: str
    title: str
    note: str
    figures: Mapping[str, Callable[[float], str]]

    def cell(self, row: Row) -> str:
        if row.what == "bytes a session":
            return brief_bytes(row.cost)
        found = zip(self.figures.values(), (row.cost, row.aside), strict=True)
        return " / ".join(brief(value) for brief, value in found if value is not None)

    def table(self, rows: list[Row]) -> str:
        """The rows as Markdown: a line for each driver and call, a column for each count."""
        counts = sorted({row.size for row in rows})
        lines: dict[tuple[str, str], dict[int, str]] = {}
        for row in rows:
            lines.setdefault((row.driver, row.what), dict.fromkeys(counts, "not measured"))[row.size] = self.cell(row)
        head = ["driver", "", *(f"{count:,} {self.over}" for count in counts)]
        table = markdown(head, [[f"{driver}://", what, *line.values()] for (driver, what), line in lines.items()], 2)
        return f"{self.title}: {' / '.join(self.figures)}. {self.note}\n\n{table}"


WORK = {"operations a second": brief_count, "99th percentile of one": brief_seconds}
PARTS = {
    "entries": Part(
        entries,
        "entries",
        "One call on a store that holds more and more",
        f"The best of {ROUNDS} rounds. bytes a session: what it takes in memory beyond its value. file:// has at most"
        f" {MOST_FILES:,} entries here, each write waits for the disk (fsync).",
        {"median": brief_seconds, "99th percentile": brief_seconds},
    ),
    "walks": Part(
        walks,
        "entries",
        "The whole store once: time grows with it, added memory is a page",
        "Memory is the peak of Python's own, in a run apart, and not above"
        f" {MOST_REMOVED_TWICE:,} entries for clear and prune on disk. prune: all entries have expired.",
        {"time": brief_seconds, "added memory": brief_bytes},
    ),
    "threads": Part(
        threads,
        "threads",
        "Threads that share one driver, nine reads to a write",
        "The operations are those of all threads together.",
        WORK,
    ),
    "processes": Part(
        processes,
        "processes",
        "Processes that share one folder: nine reads to a write, then all count on one number",
        "mixed: as with threads. counting: steps a second, by swaps. lost: how many steps are missing in the sum.",
        WORK,
    ),
}


def main(arguments: list[str]) -> None:
    parser = make_parser("growth", PARTS)
    parser.add_argument("--most", type=int, default=SIZES[-1], help="entries at most (default: %(default)s)")
    parser.add_argument("--seconds", type=float, default=Scale().seconds, help="for each measurement of operations")
    options = parser.parse_args(arguments)
    if options.most < 2:
        parser.error("--most must be at least 2")
    scale, command = Scale(options.most, options.seconds), " ".join([parser.prog, *arguments])
    run(options.parts or list(PARTS), scale, command, RESULTS if options.write else None)


def run(names: Sequence[str], scale: Scale, command: str, folder: Path | None) -> None:
    """Measure these parts, print their tables, and write them to `folder`, with pictures, if one is given."""
    noise = Noise()
    found: dict[str, list[Row]] = {name: [] for name in names}
    with tempfile.TemporaryDirectory() as full:
        for name, rows in found.items():
            part = PARTS[name]
            for row in part.measure(Stock(Path(full)), scale, noise):
                rows.append(row)
                print(f"{row.driver}:// {row.what}, {row.size:,} {part.over}: {part.cell(row)}", file=sys.stderr)
    tables = [f"## {name}\n\n{PARTS[name].table(rows)}" for name, rows in found.items()]
    text = report("\n".join([f"# How cost grows\n\n    {command}\n", *tables]), PACKAGES, noise)
    print(text)
    if folder is not None:
        from session_kit.benchmarks.maintainers.growth_plots import draw

        (folder / "growth.txt").write_text(text, encoding="utf-8")
        for name, rows in found.items():
            draw(PARTS[name], rows, noise, folder / f"growth-{name}.png")


if __name__ == "__main__":
    main(sys.argv[1:])
