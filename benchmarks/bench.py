"""`session-kit bench`: what is to be measured takes turns, and what was written is deleted, however it ends."""

from __future__ import annotations

import asyncio
import gc
import secrets
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from itertools import islice, product, repeat
from math import inf
from types import FrameType
from typing import Any
from urllib.parse import unquote

from session_kit.benchmarks.measure import Noise, brief, percentiles
from session_kit.benchmarks.measured_store import MeasuredStore, Meter, labels, like
from session_kit.benchmarks.shift import Shift
from session_kit.benchmarks.workloads import LEAST_DATA, WORKLOADS, Workload, most_entries, turns_of, weight
from session_kit.drivers import ConfigError
from session_kit.drivers.registry import split_url
from session_kit.drivers.support.folder import expanded
from session_kit.drivers.support.options import parse_size
from session_kit.store import open_store

MODES = ("sync", "async")
FULL_SIZES = ("200", "4KB", "64KB")
MOST_WORKERS = 500
# So many operations are counted: soon done on a slow store.
COUNTED = 20
# About so many durations are kept of a row.
KEPT = 20_000
# What is used up is written anew: more at a time only if that took less than so many seconds, so that Ctrl-C is soon
# heard on a slow store, and no longer in all than so many times what is measured.
SOON = 0.25
PATIENCE = 10
# Seconds: what is written must outlive the run.
SHORTEST_TTL = 3600.0

Say = Callable[[str], None]
Tell = Callable[[int, int, str], None]
"""Hears how many steps are done, of how many, and what comes next."""


@dataclass(frozen=True)
class Settings:
    """What to measure. Raises `ConfigError` for what cannot be.

    urls: stores, as `open_store` takes them.
    workloads, sizes (bytes), modes, concurrency (workers side by side): all combinations are measured.
    hits: share of the reads that find something, 0 to 1.
    seconds: for which a combination is measured in each round. rounds: how often it gets its turn.
    """

    urls: Sequence[str]
    workloads: Sequence[str] = tuple(WORKLOADS)
    sizes: Sequence[int] = (200,)
    modes: Sequence[str] = MODES
    concurrency: Sequence[int] = (1, 50)
    hits: float = 1.0
    seconds: float = 0.05
    rounds: int = 5

    def __post_init__(self) -> None:
        for what, names, valid in (("workload", self.workloads, WORKLOADS), ("mode", self.modes, MODES)):
            for name in names:
                if name not in valid:
                    raise ConfigError(f"there is no {what} {name!r}; there are {', '.join(valid)}")
        if not all(1 <= workers <= MOST_WORKERS for workers in self.concurrency):
            raise ConfigError(f"concurrency is a number of workers from 1 to {MOST_WORKERS}")
        if not 0 <= self.hits <= 1:
            raise ConfigError(f"hits is a share between 0 and 1, not {self.hits:g}")
        if not 0 < self.seconds < float("inf") or self.rounds < 1:
            raise ConfigError("seconds must be above 0, and rounds at least 1")
        workers, size = max(self.concurrency), max(self.sizes)
        if workers > most_entries(size):
            held = brief(workers * weight(size), "B")
            raise ConfigError(f"{workers} entries of {size} B, one a worker, are {held}: too much for a store in use")
        if min(self.sizes) < LEAST_DATA and any(WORKLOADS[name].layer == "session" for name in self.workloads):
            raise ConfigError(f"a session has {LEAST_DATA} B at least; smaller sizes are for workloads of the driver")


def read_sizes(texts: Sequence[str], *, full: bool) -> list[int]:
    """Sizes as people write them, in bytes; `full` adds what is typical. `ConfigError` for what is no size."""
    try:
        return [parse_size(text) for text in (*texts, *(FULL_SIZES if full else ()))]
    except ValueError as error:
        raise ConfigError(f"size: {error}") from None


@dataclass(frozen=True)
class Figure:
    """What was found of one workload on one driver.

    median, p95, p99: seconds that one operation took. rate: operations a second, all workers together.
    spread: how far the rounds lie apart: the rates of all are those in the middle, plus or minus this share. One has
        none.
    round_trips, bytes: what one operation asks of the driver: calls, and bytes of the values that went in and came
        out; in a listing, of the keys.
    found: share of the operations that found what was written, None where that cannot be seen. wrong: it is another
        share than it had to be.
    """

    layer: str
    workload: str
    size: int
    mode: str
    concurrency: int
    driver: str
    operations: int
    median: float
    p95: float
    p99: float
    rate: float
    spread: float | None
    round_trips: float
    bytes: float
    found: float | None
    wrong: bool


@dataclass(frozen=True)
class Report:
    """All that was found.

    missing: the drivers, by workload, that do not promise the capability which it needs.
    failures: what was not found, a line each.
    """

    settings: Settings
    drivers: list[str]
    figures: list[Figure]
    missing: dict[str, list[str]]
    noise: Noise
    failures: list[str]

    @property
    def left_out(self) -> list[str]:
        """What does not apply, in words."""
        return [
            f"{what}: not for {driver}, which does not promise it ({WORKLOADS[what].needs})"
            for what, drivers in self.missing.items()
            for driver in drivers
        ]

    @property
    def found(self) -> float | None:
        """The percentage of all reads that found something; None if nothing was read."""
        rows = [figure for figure in self.figures if figure.found is not None and WORKLOADS[figure.workload].reads]
        reads = sum(figure.operations for figure in rows)
        return 100 * sum((figure.found or 0) * figure.operations for figure in rows) / reads if reads else None

    @property
    def warnings(self) -> list[str]:
        """What has to stand in front of the figures."""
        forgetful = ", ".join(dict.fromkeys(figure.driver for figure in self.figures if figure.wrong))
        lost = f"Written entries were lost, evicted or mixed up in {forgetful}: its figures are worth nothing."
        return [*filter(None, [self.noise.warning, forgetful and lost]), *self.failures]


def run(settings: Settings, tell: Tell, say: Say) -> Report:
    """Measure, and delete what was written.

    tell: hears of the progress. say: hears what stays behind.
    Raises `SessionKitError` if a store cannot be used; one that fails later is left out from then on. After a signal
    that asks to stop, exits with its number + 128.
    """
    bench = Bench(settings, tell, say)
    try:
        with ExitStack() as stack:
            bench.heed_signals(stack)
            stack.enter_context(bench.runner)
            opened = map(bench.opened, settings.urls, labels(settings.urls))
            return bench.measure([stack.enter_context(store) for store in opened])
    except Stopped:
        for line in bench.failures or ["stopped, and deleted what was written"]:
            say(line)
        raise SystemExit(128 + bench.signal) from None


class Stopped(BaseException):
    """A signal has asked to stop. No failure of a store."""


@dataclass
class Case:
    """One row of the table, while it is being measured.

    round_trips, bytes: of one operation. hits: share of the operations that are to find something.
    """

    workload: Workload
    mode: str
    workers: int
    round_trips: float
    bytes: float
    hits: float

    def __post_init__(self) -> None:
        self.store = self.workload.measured
        # For all rounds: if each began anew, a slow store would see the first turns alone.
        self.turns = turns_of(self.hits)
        self.rounds: list[Shift] = []

    def __str__(self) -> str:
        return f"{self.workload}, {self.mode} {self.workers}"

    def figure(self) -> Figure:
        work, rounds = self.workload, self.rounds
        operations, found = sum(each.operations for each in rounds), sum(each.found for each in rounds)
        rates = [each.operations / each.elapsed for each in rounds]
        low, high = min(rates), max(rates)
        median, p95, p99 = percentiles([took for each in rounds for took in each.durations], 0.5, 0.95, 0.99)
        # In each round the turns have the right share but for one.
        tolerance = len(rounds) if 0 < self.hits < 1 else 0
        return Figure(
            layer=work.layer,
            workload=work.name,
            size=work.size,
            mode=self.mode,
            concurrency=self.workers,
            driver=self.store.label,
            operations=operations,
            median=median,
            p95=p95,
            p99=p99,
            rate=operations / sum(each.elapsed for each in rounds),
            spread=(high - low) / (high + low) if len(rates) > 1 else None,
            round_trips=self.round_trips,
            bytes=self.bytes,
            found=found / operations if work.check else None,
            wrong=work.check is not None and abs(found - self.hits * operations) > tolerance,
        )


class Bench:
    def __init__(self, settings: Settings, tell: Tell, say: Say) -> None:
        self.settings = settings
        self.runner = asyncio.Runner()
        self.failures: list[str] = []
        self.signal = 0
        self._tell, self._say = tell, say
        self._done = self._steps = 0
        self._shift = Shift(0)
        self._noise = Noise()
        self._sides = list(product(settings.modes, settings.concurrency))

    def heed_signals(self, stack: ExitStack) -> None:
        """Let a signal stop the run between two operations: one that it cuts in two might write after the clean-up."""
        for name in ("SIGINT", "SIGTERM", "SIGHUP"):
            number = getattr(signal, name, None)
            # What is ignored, as by nohup, stays so.
            if number is not None and signal.getsignal(number) is not signal.SIG_IGN:
                stack.callback(signal.signal, number, signal.signal(number, self._stop))

    @contextmanager
    def opened(self, url: str, label: str) -> Iterator[MeasuredStore]:
        """Open the store at `url`, and delete what was written to it and close it at the end.

        Our own prefix begins with the one that it names, and a short ttl is lengthened.
        """
        parts, _ = split_url(url)
        folder = expanded(unquote(parts.path))
        fresh = parts.scheme in ("disk", "file") and not (folder.is_dir() and any(folder.iterdir()))
        fresh = fresh or (parts.scheme == "sqlite" and not folder.exists())
        with closing(open_store(url)) as store:
            empty = parts.scheme.startswith("postgres") and next(store.driver.keys(), None) is None
            prefix = f"{store.prefix}-bench-{secrets.token_hex(4)}"
            assert isinstance(store.ttl, float)  # tells mypy: a URL gives no other
            ttl = max(store.ttl, SHORTEST_TTL)
            measured = MeasuredStore(like(store, prefix=prefix, ttl=ttl), label, self.check, self.failures)
            try:
                yield measured
            finally:
                with measured.failing(
                    f"entries that begin with {prefix}: may be left there, and expire after {ttl:g} s"
                ):
                    measured.clean_up()
                self.runner.run(store.aclose())
                if fresh:
                    self._say(f"{label}: an empty store stays in the folder")
        if empty:
            self._say(f"{label}: an empty table stays in the database")

    def measure(self, stores: Sequence[MeasuredStore]) -> Report:
        settings = self.settings
        for measured in stores:
            self._tell(0, 1, measured.label)
            measured.driver.prepare()
            measured.driver.has(measured.store.prefix)  # one that is down is found before anything is written
        names = [name for name in WORKLOADS if name in settings.workloads]
        fit = {name: [measured for measured in stores if _promises(measured, WORKLOADS[name].needs)] for name in names}
        if not any(fit.values()):
            raise ConfigError(f"none of the stores promises what this needs: {', '.join(names)}")
        # What there is by now will stay: the collections between the measurements need not look through it.
        gc.collect()
        gc.freeze()
        self._steps = len(settings.sizes) * sum(map(len, fit.values())) * (1 + len(self._sides) * (1 + settings.rounds))
        figures: list[Figure] = []
        for name, size in product(names, settings.sizes):
            figures += self._compare(WORKLOADS[name], size, fit[name])
        missing = {name: [measured.label for measured in stores if measured not in fit[name]] for name in names}
        return Report(settings, [measured.label for measured in stores], figures, missing, self._noise, self.failures)

    def _compare(self, kind: type[Workload], size: int, stores: Sequence[MeasuredStore]) -> list[Figure]:
        """Measure a workload in all stores by turns, and delete its entries, so that few are there at a time."""
        settings, row = self.settings, f"{kind.layer} {kind.name}, {size} B"
        hits = settings.hits if kind.reads else 1.0
        cases: list[Case] = []
        for measured in stores:
            if not measured.failed:
                with measured.failing(row):
                    self._step(f"{kind.name}, {measured.label}")
                    counted = {mode: self._count(kind, size, measured, mode, hits) for mode in settings.modes}
                    workload = kind(measured, size, max(settings.concurrency))
                    workload.prepare()
                    cases += [Case(workload, mode, workers, *counted[mode], hits) for mode, workers in self._sides]
        cases.sort(key=lambda case: self._sides.index((case.mode, case.workers)))
        for number, case in product(range(1 + settings.rounds), cases):
            if not case.store.failed:
                with case.store.failing(str(case)):
                    self._take_turn(case, number)
        for measured in dict.fromkeys(case.store for case in cases):
            with measured.failing(f"{row}, clean-up"):
                measured.clean_up()
        return [case.figure() for case in cases if not case.store.failed]

    def _count(
        self, kind: type[Workload], size: int, measured: MeasuredStore, mode: str, hits: float
    ) -> tuple[float, float]:
        """Round trips and bytes of an operation, apart from the measuring: if it finds something, and if not."""
        meter, times = Meter(measured.driver), min(COUNTED, most_entries(size))
        trips = weighed = 0.0
        for share, find in ((hits, True), (1 - hits, False)):
            if share:
                workload = kind(measured.behind(meter), size, times)
                workload.prepare()
                (arguments,) = workload.arguments(1, repeat(find))
                meter.reset()
                self._work(Shift(inf), workload, mode, [islice(arguments, times)])
                trips += share * len(meter.calls) / times
                weighed += share * (meter.read_bytes + meter.written_bytes) / times
                measured.clean_up()
        return trips, weighed

    def _take_turn(self, case: Case, number: int) -> None:
        """The first is to warm up."""
        self._step(f"{case}, {case.store.label}")
        self._noise.probe()
        gc.collect()
        work, clock, outside = case.workload, time.perf_counter, 0.0
        seconds = self.settings.seconds if number else self.settings.seconds / 5
        shift = Shift(seconds, work.check)
        while not shift.over and outside < PATIENCE * seconds:
            began, measured = clock(), shift.elapsed
            self._work(shift, work, case.mode, work.arguments(case.workers, case.turns))
            work.tidy()
            spent = clock() - began - (shift.elapsed - measured)
            outside += spent
            if not shift.over and spent < SOON:
                work.make_room()
        if number:
            shift.thin(max(1, KEPT // self.settings.rounds))
            case.rounds.append(shift)

    def _work(self, shift: Shift, workload: Workload, mode: str, arguments: list[Iterator[Any]]) -> None:
        self._shift = shift
        self.check()
        if mode == "sync":
            shift.run(workload.do, arguments)
        else:
            self.runner.run(shift.arun(workload.ado, arguments))

    def check(self) -> None:
        """Stop if a signal has asked for it."""
        if self.signal:
            raise Stopped

    def _step(self, what: str) -> None:
        self.check()
        self._tell(self._done, self._steps, what)
        self._done += 1

    def _stop(self, number: int, frame: FrameType | None) -> None:
        self.signal = number
        self._shift.stop()


def _promises(measured: MeasuredStore, capability: str | None) -> bool:
    return capability is None or getattr(measured.driver.capabilities, capability) is True
