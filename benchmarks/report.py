"""What `session-kit bench` found: a table for people and JSON for programs, with the same figures."""

from __future__ import annotations

import json
import os
import platform
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from importlib.util import find_spec
from itertools import groupby
from pathlib import Path
from typing import IO, Any

from rich import box
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from session_kit.benchmarks.bench import Figure, Report, Tell
from session_kit.benchmarks.measure import conditions, machine, microseconds, versions, warning
from session_kit.drivers import ConfigError
from session_kit.drivers.errors import DISTRIBUTION, how_to_install

PACKAGES = (DISTRIBUTION, "msgspec", "diskcache", "redis", "hiredis", "boto3", "fsspec")
# Where there is no terminal whose edge counts.
WIDE = 200


@contextmanager
def progress_bar() -> Iterator[Tell]:
    """Show on stderr how far the run is, if that is a terminal."""
    console = Console(stderr=True)
    columns = (
        BarColumn(),
        TextColumn("{task.percentage:3.0f}%"),
        TimeRemainingColumn(),
        TextColumn("{task.description}"),
    )
    # Drawn between two measurements: a thread that draws would be measured too.
    with Progress(
        *columns, console=console, disable=not console.is_terminal, auto_refresh=False, transient=True
    ) as bar:
        task = bar.add_task("", total=None)

        def tell(done: int, steps: int, what: str) -> None:
            bar.update(task, completed=done, total=steps, description=what, refresh=True)

        yield tell


def say(line: str) -> None:
    """Tell what the user should know besides."""
    print(f"session-kit: {line}", file=sys.stderr)


class Outputs:
    """Where a report goes: the table to the terminal, JSON and a picture to files. Refused before the run, not after.

    json: a file, `-` for stdout (then the table goes to stderr), or None. picture: a file, or None.
    """

    def __init__(self, json: str | None, picture: str | None) -> None:
        self.json, self.picture = json, picture
        for name in (json, picture):
            if name is not None and name != "-":
                _check_writable(Path(name))
        if picture is not None and find_spec("matplotlib") is None:
            raise ConfigError(f"--plot needs the package matplotlib: {how_to_install('bench')}")

    def publish(self, report: Report) -> None:
        show(report, sys.stderr if self.json == "-" else sys.stdout)
        if self.json == "-":
            print(as_json(report))
        elif self.json is not None:
            Path(self.json).write_text(as_json(report) + "\n", encoding="utf-8")
        if self.picture is not None:
            from session_kit.benchmarks.plot import draw

            draw(report, self.picture)


def _check_writable(path: Path) -> None:
    if path.is_dir() or not os.access(path if path.exists() else path.absolute().parent, os.W_OK):
        raise ConfigError(f"{path} cannot be written")


def show(report: Report, file: IO[str]) -> None:
    """Print the table, and below it what one has to know to read it."""
    settings = report.settings
    console = Console(file=file, highlight=False, width=None if file.isatty() else WIDE)
    if loud := warning(report.noise.spread):
        console.print(Text(loud, style="bold"), soft_wrap=True)
    console.print(make_table(report))
    for line in (
        "median, p95, p99: microseconds that one operation takes. ops/s: of all workers together.",
        "sync 50: fifty threads; async 50: fifty tasks of one event loop.",
        f"±: how far the ops/s of {settings.rounds} rounds lie apart; {report.noise}.",
        "trips: calls to the driver in one operation. bytes: of the values that go in and come out.",
        f"{settings.hits:.0%} of the reads found something.",
        *report.left_out,
        conditions(PACKAGES),
    ):
        console.print(Text(line, style="dim"), soft_wrap=True)


def make_table(report: Report) -> Table:
    """One row a driver, in groups of one workload each; the fastest of those side by side is bold."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("", no_wrap=True)
    table.add_column("driver", overflow="fold")
    for name in ("median", "p95", "p99", "ops/s", "±", "trips", "bytes"):
        table.add_column(name, justify="right", no_wrap=True)
    for (layer, workload, size), group in groupby(report.figures, lambda f: (f.layer, f.workload, f.size)):
        table.add_section()
        table.add_row(f"{layer} {workload}, {readable(size)}", style="bold")
        for (mode, workers), rows in groupby(group, lambda f: (f.mode, f.concurrency)):
            side, rivals = f"  {mode} {workers}", list(rows)
            fastest = min(rivals, key=lambda f: f.summary.median)
            for figure in rivals:
                best = figure is fastest and len(rivals) > 1
                table.add_row(side, figure.driver, *cells(figure), style="bold" if best else "")
                side = ""
            for name, driver, _ in report.missing:
                if name == workload:
                    table.add_row("", driver, "n/a")
    return table


def cells(figure: Figure) -> list[str]:
    """The figures of a row as text."""
    summary, counted = figure.summary, figure.counted
    times = [microseconds(seconds) for seconds in (summary.median, summary.p95, summary.p99)]
    return [*times, f"{summary.rate:.0f}", f"{figure.spread:.0%}", f"{counted.round_trips:g}", f"{counted.bytes:.0f}"]


def as_json(report: Report) -> str:
    """All that was found."""
    settings = report.settings
    content = {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": machine(),
        "versions": {"Python": platform.python_version(), **versions(PACKAGES)},
        "noise": report.noise.spread,
        "hits": settings.hits,
        "seconds": settings.seconds,
        "rounds": settings.rounds,
        "drivers": report.drivers,
        "left_out": report.left_out,
        "figures": [_fields(figure) for figure in report.figures],
    }
    return json.dumps(content, indent=1, ensure_ascii=False)


def _fields(figure: Figure) -> dict[str, Any]:
    summary = figure.summary
    return {
        "layer": figure.layer,
        "workload": figure.workload,
        "size": figure.size,
        "mode": figure.mode,
        "concurrency": figure.concurrency,
        "driver": figure.driver,
        "operations": summary.operations,
        "median_us": summary.median * 1e6,
        "p95_us": summary.p95 * 1e6,
        "p99_us": summary.p99 * 1e6,
        "ops_per_second": summary.rate,
        "spread": figure.spread,
        "round_trips": figure.counted.round_trips,
        "bytes": figure.counted.bytes,
    }


def readable(size: int) -> str:
    """Render a number of bytes as people write it.

    >>> readable(200), readable(4000), readable(65536)
    ('200 B', '4 KB', '64 KiB')
    """
    for step, names in ((1000, ("B", "KB", "MB")), (1024, ("B", "KiB", "MiB"))):
        if size % step == 0:
            power = 2 if size % step**2 == 0 else 1
            return f"{size // step**power} {names[power]}"
    return f"{size} B"
