"""The picture of how cost grows: a panel for each call, a line for each driver, with the colours of other pictures."""

from __future__ import annotations

from pathlib import Path
from textwrap import fill

from matplotlib.axes import Axes
from matplotlib.figure import Figure as Picture
from matplotlib.ticker import FuncFormatter

from session_kit.benchmarks.maintainers.growth import CALLS, DRIVERS, PACKAGES, WALKS, Row
from session_kit.benchmarks.measure import Noise, brief_count, brief_seconds, conditions, warning
from session_kit.benchmarks.plot import LOOKS, WARNING

TITLE = "Median of one call (above), and once through the whole store (below), by the number of entries"


def draw(rows: list[Row], noise: Noise, file: Path) -> None:
    """Write the picture to `file`, as PNG."""
    picture = Picture(figsize=(16, 8), dpi=110, layout="constrained")
    grid = picture.subplots(2, max(len(CALLS), len(WALKS)), squeeze=False, sharey="row")
    for panels, names in zip(grid, [list(CALLS), list(WALKS)], strict=True):
        for axes, what in zip(panels, names, strict=False):
            _draw_panel(axes, [row for row in rows if row.what == what], what)
        for axes in panels[len(names) :]:
            axes.set_axis_off()
    loud = warning(noise.spread, "{}")
    title = "\n".join(line for line in (TITLE, loud) if line)
    legend = picture.legend(*grid[0][0].get_legend_handles_labels(), title=title, loc="outside upper center", ncols=4)
    legend.get_title().set(ha="center", weight="bold", color=WARNING if loud else "black")
    picture.supxlabel(fill(f"{conditions(PACKAGES)}; {noise}", 200), fontsize=8, color="0.4")
    picture.savefig(file, format="png")


def _draw_panel(axes: Axes, rows: list[Row], title: str) -> None:
    for driver, (colour, marker) in zip(DRIVERS, LOOKS, strict=False):
        points = [(row.entries, row.seconds) for row in rows if row.driver == driver]
        if points:
            axes.plot(*zip(*points, strict=True), marker=marker, color=colour, label=f"{driver}://")
    axes.loglog()
    axes.minorticks_off()
    axes.set_title(title, fontsize=11, fontweight="bold", loc="left")
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: brief_count(value)))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: brief_seconds(value)))
    axes.tick_params(labelsize=8)
    axes.grid(color="0.88", linewidth=0.8)
