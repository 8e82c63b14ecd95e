"""The pictures of how cost grows: a line for each driver, with the same colours and marks as in other pictures."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from pathlib import Path
from textwrap import fill
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure as Picture
from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, NullLocator

from session_kit.benchmarks.maintainers.growth import DRIVERS, PACKAGES, Part, Row
from session_kit.benchmarks.measure import Noise, brief_count, conditions, warning
from session_kit.benchmarks.plot import LOOKS, WARNING

LABEL: dict[str, Any] = {"textcoords": "offset points", "fontsize": 7.5}
LEFT_OUT = ("bytes a session", "lost")  # which have no line that grows
Point = tuple[str, int, float]
"""Driver, count, value."""


def draw(part: Part, rows: list[Row], noise: Noise, file: Path) -> None:
    """Write the picture of one part to `file`, as PNG: a column for each call, the cost above what belongs to it."""
    calls = [what for what in dict.fromkeys(row.what for row in rows) if what not in LEFT_OUT]
    width = max(8.0, 3.1 * len(calls)) + 0.6
    picture = Picture(figsize=(width, 7.7), dpi=110, layout="constrained")
    grid = picture.subplots(2, len(calls), squeeze=False, sharey="row")
    (cost, brief_cost), (aside, brief_aside) = part.figures.items()
    for column, what in enumerate(calls):
        costs = [(row.driver, row.size, row.cost) for row in rows if row.what == what]
        asides = [(row.driver, row.size, row.aside) for row in rows if row.what == what and row.aside is not None]
        _draw_panel(grid[0][column], costs, f"{what}: {cost}", brief_cost)
        _draw_panel(grid[1][column], asides, f"{what}: {aside}", brief_aside)
        grid[1][column].set_xlabel(part.over, fontsize=9)
    handles, labels = grid[0][0].get_legend_handles_labels()
    look: dict[str, Any] = {"ncols": len(labels), "frameon": False, "fontsize": 11, "title_fontsize": 12}
    loud = warning(noise.spread, "{}")
    title = "\n".join(fill(line, round(width * 9)) for line in (part.title, loud) if line)
    legend = picture.legend(handles, labels, loc="outside upper center", title=title, **look)
    legend.get_title().set(ha="center", weight="bold", color=WARNING if loud else "black")
    picture.supxlabel(fill(f"{conditions(PACKAGES)}; {noise}", round(width * 16)), fontsize=7.5, color="0.4")
    picture.savefig(file, format="png")


def _draw_panel(axes: Axes, points: Iterable[Point], title: str, brief: Callable[[float], str]) -> None:
    if not points:
        axes.set_axis_off()
        return
    for driver, (colour, marker) in zip(DRIVERS, LOOKS, strict=False):
        mine = [(count, value) for name, count, value in points if name == driver]
        if mine:
            axes.plot(*zip(*mine, strict=True), marker=marker, color=colour, markersize=5.5, label=f"{driver}://")
            axes.annotate(brief(mine[-1][1]), mine[-1], (0, -13), ha="center", color=colour, **LABEL)
    axes.set_title(title, fontsize=10, fontweight="bold", loc="left")
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.margins(x=0.14, y=0.14)
    axes.xaxis.set_major_locator(FixedLocator(sorted({count for _, count, _ in points})))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: brief_count(value)))
    low, high = axes.get_ylim()
    axes.yaxis.set_major_locator(LogLocator(10, subs=(1.0,) if math.log10(high / low) > 1.5 else (1.0, 2.0, 5.0)))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: brief(value)))
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_minor_locator(NullLocator())
    axes.tick_params(labelsize=8)
    axes.grid(color="0.88", linewidth=0.8)
    axes.spines[["top", "right"]].set_visible(False)
