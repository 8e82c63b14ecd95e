"""`session-kit bench`: what is to be measured takes turns, and what was written is deleted, however it ends."""

from __future__ import annotations

import asyncio
import gc
import signal
from array import array
from collections.abc import Callable, Coroutine, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import islice, product
from types import FrameType
from typing import Any, NamedTuple

from session_kit.benchmarks.measure import Noise, Summary, summarize
from session_kit.benchmarks.measured_store import MeasuredStore, Meter, labels, opened
from session_kit.benchmarks.shift import Shift
from session_kit.benchmarks.workloads import WORKLOADS, Workload
from session_kit.drivers import ConfigError
from session_kit.drivers.support.options import parse_size

MODES = ("sync", "async")
FULL_SIZES = ("200", "4KB", "64KB")
MOST_WORKERS = 500
# So many operations are counted: enough for the share of hits, and soon done on a slow store.
COUNTED = 20

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


def read_sizes(texts: Sequence[str], *, full: bool) -> list[int]:
    """Sizes as people write them, in bytes; `full` adds what is typical. `ConfigError` for what is no size."""
    try:
        return [parse_size(text) for text in (*texts, *(FULL_SIZES if full else ()))]
    except ValueError as error:
        raise ConfigError(f"size: {error}") from None


class Counted(NamedTuple):
    """What one operation asks of the driver.

    round_trips: calls to the driver.
    bytes: of the values that went in and came out; in a listing, of the keys.
    """

    round_trips: float
    bytes: float


class Figure(NamedTuple):
    """What was found of one workload on one driver.

    spread: how far the rounds lie apart: the rates of all are those in the middle, plus or minus this share.
    """

    layer: str
    workload: str
    size: int
    mode: str
    concurrency: int
    driver: str
    summary: Summary
    spread: float
    counted: Counted


class Missing(NamedTuple):
    """A workload that does not apply to a driver, which does not promise the capability that it needs."""

    workload: str
    driver: str
    needs: str | None


@dataclass(frozen=True)
class Report:
    """All that was found."""

    settings: Settings
    drivers: list[str]
    figures: list[Figure]
    missing: list[Missing]
    noise: Noise

    @property
    def left_out(self) -> list[str]:
        """What does not apply, in words."""
        return [
            f"{what}: not for {driver}, which does not promise it ({needs})" for what, driver, needs in self.missing
        ]


def run(settings: Settings, tell: Tell, say: Say) -> Report:
    """Measure, and delete what was written.

    tell: hears of the progress. say: hears what stays behind.
    Raises `SessionKitError` if a store cannot be used. After a signal that asks to stop, exits with its number + 128.
    """
    bench = Bench(settings, tell)
    try:
        with bench.stoppable(), ExitStack() as stack:
            bench.runner = stack.enter_context(asyncio.Runner())
            named = zip(settings.urls, labels(settings.urls), strict=True)
            return bench.measure([stack.enter_context(opened(*one, bench.runner, say)) for one in named])
    except Stopped:
        say("stopped, and deleted what was written")
        raise SystemExit(128 + bench.signal) from None


class Stopped(Exception):
    """A signal has asked to stop."""


class Case:
    """One row of the table, while it is being measured."""

    def __init__(self, workload: Workload, mode: str, workers: int, counted: Counted) -> None:
        self.workload, self.mode, self.workers, self.counted = workload, mode, workers, counted
        self.durations = array("d")
        self.elapsed = 0.0
        self.rates: list[float] = []

    def __str__(self) -> str:
        return f"{self.workload.name}, {self.mode} {self.workers}, {self.workload.measured.label}"

    def take(self, shift: Shift) -> None:
        self.durations.extend(shift.durations)
        self.elapsed += shift.elapsed
        self.rates.append(len(shift.durations) / shift.elapsed)

    def figure(self) -> Figure:
        work = self.workload
        return Figure(
            work.layer,
            work.name,
            work.size,
            self.mode,
            self.workers,
            work.measured.label,
            summarize(self.durations, self.elapsed),
            (max(self.rates) - min(self.rates)) / (max(self.rates) + min(self.rates)),
            self.counted,
        )


class Bench:
    runner: asyncio.Runner

    def __init__(self, settings: Settings, tell: Tell) -> None:
        self.settings = settings
        self.signal = 0
        self._tell = tell
        self._done = self._steps = 0
        self._shift = Shift(0)

    @contextmanager
    def stoppable(self) -> Iterator[None]:
        """Let a signal stop the run between two operations: one that it cuts in two might write after the clean-up."""
        before = {}
        for name in ("SIGINT", "SIGTERM", "SIGHUP"):
            number = getattr(signal, name, None)
            # What is ignored, as by nohup, stays so.
            if number is not None and signal.getsignal(number) is not signal.SIG_IGN:
                before[number] = signal.signal(number, self._stop)
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def measure(self, stores: Sequence[MeasuredStore]) -> Report:
        settings, noise = self.settings, Noise()
        for measured in stores:
            self._tell(0, 1, measured.label)
            measured.driver.prepare()
            measured.driver.has(measured.store.prefix)  # one that is down is found before anything is written
        names = [name for name in WORKLOADS if name in settings.workloads]
        fit = {name: [measured for measured in stores if _promises(measured, WORKLOADS[name].needs)] for name in names}
        sides = list(product(settings.modes, settings.concurrency))
        self._steps = len(settings.sizes) * sum(map(len, fit.values())) * (1 + len(sides) * (1 + settings.rounds))
        cases: list[Case] = []
        for name, size in product(names, settings.sizes):
            ready = [self._prepare(WORKLOADS[name], size, measured) for measured in fit[name]]
            cases += (
                Case(workload, mode, workers, counted[mode])
                for (mode, workers), (workload, counted) in product(sides, ready)
            )
        # What there is by now will stay: the collections between the measurements need not look through it.
        gc.collect()
        gc.freeze()
        try:
            for case in cases:
                self._measure(case, settings.seconds / 5)
            for _, case in product(range(settings.rounds), cases):
                noise.probe()
                case.take(self._measure(case, settings.seconds))
        finally:
            gc.unfreeze()
        missing = [
            Missing(name, measured.label, WORKLOADS[name].needs)
            for name, measured in product(names, stores)
            if measured not in fit[name]
        ]
        return Report(
            settings, [measured.label for measured in stores], [case.figure() for case in cases], missing, noise
        )

    def _prepare(self, kind: type[Workload], size: int, measured: MeasuredStore) -> tuple[Workload, dict[str, Counted]]:
        """Make a workload, and count what it asks of the driver in each mode, apart from the measuring."""
        self._step(f"{kind.name}, {measured.label}")
        meter = Meter(measured.driver)
        metered = kind(measured.behind(meter), size, self.settings.hits, COUNTED)
        metered.prepare()
        counted = {}
        for mode in self.settings.modes:
            arguments = islice(metered.arguments(1)[0], COUNTED)
            meter.reset()
            if mode == "sync":
                for argument in arguments:
                    metered.do(argument)
            else:
                self.runner.run(_each(metered.ado, arguments))
            counted[mode] = Counted(len(meter.calls) / COUNTED, meter.bytes / COUNTED)
            metered.tidy()
        workload = kind(measured, size, self.settings.hits, max(self.settings.concurrency))
        workload.prepare()
        return workload, counted

    def _measure(self, case: Case, seconds: float) -> Shift:
        self._step(str(case))
        arguments = case.workload.arguments(case.workers)
        gc.collect()
        shift = self._shift = Shift(seconds)
        self._check()
        if case.mode == "sync":
            shift.run(case.workload.do, arguments)
        else:
            self.runner.run(shift.arun(case.workload.ado, arguments))
        case.workload.tidy()
        return shift

    def _step(self, what: str) -> None:
        self._check()
        self._tell(self._done, self._steps, what)
        self._done += 1

    def _check(self) -> None:
        if self.signal:
            raise Stopped

    def _stop(self, number: int, frame: FrameType | None) -> None:
        self.signal = number
        self._shift.stop()


def _promises(measured: MeasuredStore, capability: str | None) -> bool:
    return capability is None or getattr(measured.driver.capabilities, capability) is True


async def _each(do: Callable[[Any], Coroutine[Any, Any, object]], arguments: Iterator[Any]) -> None:
    for argument in arguments:
        await do(argument)
