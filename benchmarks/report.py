"""What `session-kit bench` found: a table for people and JSON for programs, with the same figures."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from datetime import UTC, datetime
from importlib.util import find_spec
from itertools import groupby, product
from pathlib import Path
from typing import IO, Any

from rich.console import Console
from rich.progress import Progress, TextColumn
from rich.text import Text

from session_kit.benchmarks.bench import Figure, Report, Tell
from session_kit.benchmarks.measure import conditions, machine, microseconds, versions
from session_kit.drivers import ConfigError
from session_kit.drivers.errors import DISTRIBUTION, how_to_install

PACKAGES = (DISTRIBUTION, "msgspec", "diskcache", "redis", "hiredis", "boto3", "fsspec")
HEADS = ("median", "p95", "p99", "ops/s", "±", "trips", "bytes")
# Where there is no terminal whose edge counts.
WIDE = 10_000


@contextmanager
def progress_bar() -> Iterator[Tell]:
    """Show on stderr how far the run is, if that is a terminal."""
    console = Console(stderr=True)
    _, *columns = Progress.get_default_columns()
    columns.append(TextColumn("{task.description}", markup=False))
    # Drawn between two measurements: a thread that draws would be measured too.
    quiet = not console.is_terminal
    with Progress(*columns, console=console, disable=quiet, auto_refresh=False, transient=True) as bar:
        task = bar.add_task("", total=None)
        yield lambda done, steps, what: bar.update(task, completed=done, total=steps, description=what, refresh=True)


def say(line: str) -> None:
    """Tell what the user should know besides."""
    print(f"session-kit: {line}", file=sys.stderr)


class Outputs:
    """Where a report goes: the table to the terminal, JSON and a picture to files. Refused before the run, not after.

    json: a file, `-` for stdout (then the table goes to stderr), or None. picture: a file, or None.
    """

    def __init__(self, json: str | None, picture: str | None) -> None:
        self.json, self.picture = json, picture
        if picture == "-":
            raise ConfigError("--plot needs the name of a file; only --json can be - for stdout")
        for path in [Path(name) for name in (json, picture) if name is not None and name != "-"]:
            if path.is_dir() or not os.access(path if path.exists() else path.absolute().parent, os.W_OK):
                raise ConfigError(f"{path} cannot be written")
        if json is not None and picture is not None and Path(json).resolve() == Path(picture).resolve():
            raise ConfigError(f"--json and --plot are both {json}")
        if picture is not None and find_spec("matplotlib") is None:
            raise ConfigError(f"--plot needs the package matplotlib: {how_to_install('bench')}")

    def publish(self, report: Report) -> int:
        """Write and print all of it, and return the exit code: 1 if a store has failed, or an output."""
        failures = list(report.failures)
        # The files first: whoever reads the table may go away, as `head` does.
        if self.json is not None and self.json != "-":
            with _noting(self.json, failures):
                Path(self.json).write_text(as_json(report) + "\n", encoding="utf-8")
        if self.picture is not None and report.figures:
            from session_kit.benchmarks.plot import draw

            with _noting(self.picture, failures):
                draw(report, self.picture)
        with _noting("stdout", failures):
            if report.figures:
                show(report, sys.stderr if self.json == "-" else sys.stdout)
            if self.json == "-":
                print(as_json(report))
            sys.stdout.flush()
        for line in failures:
            say(line)
        return 1 if failures else 0


@contextmanager
def _noting(name: str, failures: list[str]) -> Iterator[None]:
    """What cannot be written must not keep the rest from it."""
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as error:
        failures.append(f"{name} cannot be written: {error.strerror or error}")


def show(report: Report, file: IO[str]) -> None:
    """Print the table, and below it what one has to know to read it."""
    console = Console(file=file, highlight=False, width=None if file.isatty() else WIDE)
    for line in report.warnings:
        console.print(Text(line, style="bold"))
    for text in table(report, console.width):
        console.print(text)
    for line in (
        "",
        "median, p95, p99: microseconds that one operation takes. ops/s: of all workers together.",
        "sync 50: fifty threads; async 50: fifty tasks of one event loop.",
        f"±: how far the ops/s of {report.settings.rounds} rounds lie apart; {report.noise}.",
        "trips: calls to the driver in one operation. bytes: of the values that go in and come out.",
        f"{report.found:.4g}% of the reads found something." if report.found is not None else "",
        *report.left_out,
        conditions(PACKAGES),
    ):
        console.print(Text(line, style="dim"))


def table(report: Report, width: int) -> Iterator[Text]:
    """One row a driver, in groups of one workload each; the fastest of those side by side is bold.

    Where a row is wider than that, its figures stand in a second line.
    """
    sides = product(report.settings.modes, report.settings.concurrency)
    side_width = max(len(f"  {mode} {workers}") for mode, workers in sides)
    name_width = max(map(len, report.drivers))
    widths = [max(map(len, column)) for column in zip(HEADS, *map(cells, report.figures), strict=True)]
    fits = side_width + name_width + sum(widths) + 2 * (len(widths) + 1) <= width

    def line(side: str, driver: str, figures: Sequence[str], style: str = "") -> Text:
        name = f"{driver:{name_width}}  " if fits else f"{driver}\n"
        return Text(f"{side:{side_width}}  {name}{'  '.join(map(str.rjust, figures, widths))}", style=style)

    yield line("", "driver", HEADS)
    for (layer, workload, size), group in groupby(report.figures, lambda f: (f.layer, f.workload, f.size)):
        yield Text(f"\n{layer} {workload}, {size:,} B", style="bold")
        for (mode, workers), rows in groupby(group, lambda f: (f.mode, f.concurrency)):
            side, rivals = f"  {mode} {workers}", list(rows)
            fastest = min(rivals, key=lambda f: f.median)
            for figure in rivals:
                best = figure is fastest and len(rivals) > 1
                yield line(side, figure.driver, cells(figure), "bold" if best else "")
                side = ""
            for driver in report.missing[workload]:
                yield line("", driver, ["n/a"])


def cells(figure: Figure) -> list[str]:
    """The figures of a row as text, below `HEADS`."""
    return [
        *(microseconds(seconds) for seconds in (figure.median, figure.p95, figure.p99)),
        f"{figure.rate:.0f}",
        "-" if figure.spread is None else f"{figure.spread:.0%}",
        f"{figure.round_trips:g}",
        f"{figure.bytes:.0f}",
    ]


def as_json(report: Report) -> str:
    """All that was found."""
    settings = report.settings
    content = {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": machine(),
        "versions": versions(PACKAGES),
        "noise": report.noise.spread,
        "hits": settings.hits,
        "seconds": settings.seconds,
        "rounds": settings.rounds,
        "drivers": report.drivers,
        "left_out": report.left_out,
        "failures": report.failures,
        "figures": [_fields(figure) for figure in report.figures],
    }
    return json.dumps(content, indent=1, ensure_ascii=False)


def _fields(figure: Figure) -> dict[str, Any]:
    fields = asdict(figure)
    fields |= {f"{name}_us": fields.pop(name) * 1e6 for name in ("median", "p95", "p99")}
    fields["ops_per_second"] = fields.pop("rate")
    return fields
