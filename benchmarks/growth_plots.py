"""The pictures of how cost grows: a line for each driver, with the same colours and marks as in other pictures."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from textwrap import fill
from typing import NamedTuple

from matplotlib.axes import Axes
from matplotlib.figure import Figure as Picture
from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, NullLocator

from session_kit.benchmarks.growth import DRIVERS, PARTS, Row
from session_kit.benchmarks.measure import brief_bytes, brief_count, brief_seconds
from session_kit.benchmarks.plot import LOOKS


class Lines(NamedTuple):
    """What the panels of one row show.

    names: of the calls, a panel each. title: begins with the name. value: what is shown of a row.
    brief: how it is written at the axis. shadow: a second figure, as a thin line.
    """

    names: tuple[str, ...]
    title: str
    value: Callable[[Row], float | None]
    brief: Callable[[float], str]
    shadow: Callable[[Row], float | None] | None = None


def cost(row: Row) -> float | None:
    return row.cost


def aside(row: Row) -> float | None:
    return row.aside


WALKS = ("length", "keys", "all", "clear", "prune")
PICTURES: dict[str, tuple[str, list[Lines]]] = {
    "entries": (
        "One call on a store that holds more and more  (line: median, thin: 99th percentile; lower is better)",
        [Lines(("get", "set", "renew", "delete"), "{}", cost, brief_seconds, aside)],
    ),
    "walks": (
        "The whole store once: time grows with it, added memory is a page",
        [Lines(WALKS, "{}: time", cost, brief_seconds), Lines(WALKS, "{}: added memory", aside, brief_bytes)],
    ),
    "threads": (
        "Threads that share one driver, nine reads to a write",
        [
            Lines(("mixed",), "operations a second  (higher is better)", cost, brief_count),
            Lines(("mixed",), "99th percentile of one operation  (lower is better)", aside, brief_seconds),
        ],
    ),
    "processes": (
        "Processes that share one folder: nine reads to a write, then all count on one number",
        [
            Lines(("mixed",), "operations a second  (higher is better)", cost, brief_count),
            Lines(("mixed",), "99th percentile of one operation  (lower is better)", aside, brief_seconds),
            Lines(("counting",), "steps a second, one counter  (higher is better)", cost, brief_count),
        ],
    ),
}


def draw(name: str, rows: list[Row], measured: str, file: Path) -> None:
    """Write the picture of one part to `file`, as PNG."""
    title, lines = PICTURES[name]
    # Rows of one panel each stand side by side instead.
    beside = all(len(row.names) == 1 for row in lines)
    height, width = (1, len(lines)) if beside else (len(lines), len(lines[0].names))
    picture = Picture(
        figsize=((4.6 if beside else 3.1) * width + 0.6, 3.3 * height + 1.1), dpi=110, layout="constrained"
    )
    grid = picture.subplots(height, width, squeeze=False, sharey="none" if beside else "row")
    panels = iter(grid.flat)
    for row in lines:
        for what in row.names:
            _draw_panel(next(panels), [one for one in rows if one.what == what], row, row.title.format(what))
    for axes in grid[-1]:
        axes.set_xlabel(PARTS[name].over, fontsize=9)
    known = dict(zip(*reversed(grid[0][0].get_legend_handles_labels()), strict=True))
    picture.legend(
        list(known.values()),
        list(known),
        title=title,
        loc="outside upper center",
        ncols=len(known),
        frameon=False,
        fontsize=11,
        title_fontproperties={"size": 12, "weight": "bold"},
    )
    picture.supxlabel(fill(measured, round(picture.get_figwidth() * 16)), fontsize=7.5, color="0.4")
    picture.savefig(file, format="png")


def _draw_panel(axes: Axes, rows: list[Row], lines: Lines, title: str) -> None:
    for driver, (colour, marker) in zip(DRIVERS, LOOKS, strict=False):
        mine = [row for row in rows if row.driver == driver]
        counts, values = _points(mine, lines.value)
        if not counts:
            continue
        axes.plot(counts, values, marker=marker, color=colour, markersize=5.5, linewidth=1.8, label=f"{driver}://")
        if lines.shadow is not None:
            axes.plot(*_points(mine, lines.shadow), color=colour, linewidth=0.8, linestyle="--")
        axes.annotate(
            lines.brief(values[-1]),
            (counts[-1], values[-1]),
            xytext=(0, -13),
            textcoords="offset points",
            ha="center",
            fontsize=7.5,
            color=colour,
        )
    axes.set_title(title, fontsize=10, fontweight="bold", loc="left")
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.margins(x=0.14, y=0.14)
    axes.xaxis.set_major_locator(FixedLocator(sorted({row.size for row in rows})))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: brief_count(value)))
    low, high = axes.get_ylim()
    decades = math.log10(high / low)
    axes.yaxis.set_major_locator(LogLocator(10, subs=(1.0,) if decades > 1.5 else (1.0, 2.0, 5.0)))
    axes.yaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: lines.brief(value)))
    axes.tick_params(labelsize=8)
    axes.grid(color="0.88", linewidth=0.8)
    axes.spines[["top", "right"]].set_visible(False)


def _points(rows: list[Row], value: Callable[[Row], float | None]) -> tuple[list[int], list[float]]:
    """Counts and values of the rows that have one."""
    points = [(row.size, found) for row in rows if (found := value(row)) is not None]
    return [count for count, _ in points], [found for _, found in points]
