"""The pictures of how cost grows: a line for each driver, with the same colours and marks as in other pictures."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from textwrap import fill
from typing import Any, NamedTuple

from matplotlib.axes import Axes
from matplotlib.figure import Figure as Picture
from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, NullLocator

from session_kit.benchmarks.maintainers.growth import DRIVERS, PARTS, WALKS, Row
from session_kit.benchmarks.maintainers.results import brief_bytes
from session_kit.benchmarks.measure import brief_count, brief_seconds
from session_kit.benchmarks.plot import LOOKS, WARNING


class Panel(NamedTuple):
    """What one panel shows: of which call, whether its cost or what belongs to it, and how that is written."""

    what: str
    title: str
    brief: Callable[[float], str]
    aside: bool = False

    def points(self, rows: list[Row]) -> tuple[list[int], list[float]]:
        found = [(row.size, row.aside if self.aside else row.cost) for row in rows if row.what == self.what]
        known = [(size, value) for size, value in found if value is not None]
        return [size for size, _ in known], [value for _, value in known]


LOWER, HIGHER = "(lower is better)", "(higher is better)"
MIXED = [
    Panel("mixed", f"operations a second  {HIGHER}", brief_count),
    Panel("mixed", f"99th percentile of one operation  {LOWER}", brief_seconds, aside=True),
]
CALLS = ("get", "set", "renew", "delete")
PICTURES: dict[str, tuple[str, list[list[Panel]]]] = {
    "entries": (
        f"One call on a store that holds more and more  {LOWER}",
        [
            [Panel(what, f"{what}: median", brief_seconds) for what in CALLS],
            [Panel(what, f"{what}: 99th percentile", brief_seconds, aside=True) for what in CALLS],
        ],
    ),
    "walks": (
        "The whole store once: time grows with it, added memory is a page",
        [
            [Panel(what, f"{what}: time", brief_seconds) for what in WALKS],
            [Panel(what, f"{what}: added memory", brief_bytes, aside=True) for what in WALKS],
        ],
    ),
    "threads": ("Threads that share one driver, nine reads to a write", [MIXED]),
    "processes": (
        "Processes that share one folder: nine reads to a write, then all count on one number",
        [[*MIXED, Panel("counting", f"steps a second, one counter  {HIGHER}", brief_count)]],
    ),
}


def draw(name: str, rows: list[Row], measured: str, file: Path, warning: str = "") -> None:
    """Write the picture of one part to `file`, as PNG. `measured` stands below it, a warning in its title."""
    title, panels = PICTURES[name]
    width, height = (3.1 if len(panels) > 1 else 4.6) * len(panels[0]) + 0.6, 3.3 * len(panels) + 1.1
    picture = Picture(figsize=(width, height), dpi=110, layout="constrained")
    grid = picture.subplots(len(panels), len(panels[0]), squeeze=False, sharey="row" if len(panels) > 1 else "none")
    for axes, panel in zip(grid.flat, [panel for row in panels for panel in row], strict=True):
        _draw_panel(axes, rows, panel)
    for axes in grid[-1]:
        axes.set_xlabel(PARTS[name].over, fontsize=9)
    handles, labels = grid[0][0].get_legend_handles_labels()
    legend = picture.legend(
        handles,
        labels,
        title=title + warning,
        loc="outside upper center",
        ncols=len(labels),
        frameon=False,
        fontsize=11,
        title_fontproperties={"size": 12, "weight": "bold"},
    )
    legend.get_title().set(ha="center", color=WARNING if warning else "black")
    picture.supxlabel(fill(measured, round(width * 16)), fontsize=7.5, color="0.4")
    picture.savefig(file, format="png")


def _draw_panel(axes: Axes, rows: list[Row], panel: Panel) -> None:
    for driver, (colour, marker) in zip(DRIVERS, LOOKS, strict=False):
        counts, values = panel.points([row for row in rows if row.driver == driver])
        if counts:
            axes.plot(counts, values, marker=marker, color=colour, markersize=5.5, linewidth=1.8, label=f"{driver}://")
            last, place = panel.brief(values[-1]), (counts[-1], values[-1])
            look: dict[str, Any] = {"textcoords": "offset points", "ha": "center", "fontsize": 7.5, "color": colour}
            axes.annotate(last, place, (0, -13), **look)
    axes.set_title(panel.title, fontsize=10, fontweight="bold", loc="left")
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.margins(x=0.14, y=0.14)
    axes.xaxis.set_major_locator(FixedLocator(sorted({row.size for row in rows if row.what == panel.what})))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: brief_count(value)))
    low, high = axes.get_ylim()
    axes.yaxis.set_major_locator(LogLocator(10, subs=(1.0,) if math.log10(high / low) > 1.5 else (1.0, 2.0, 5.0)))
    axes.yaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: panel.brief(value)))
    axes.tick_params(labelsize=8)
    axes.grid(color="0.88", linewidth=0.8)
    axes.spines[["top", "right"]].set_visible(False)
