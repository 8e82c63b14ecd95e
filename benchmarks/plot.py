"""What `session-kit bench` found, as a picture: how long an operation takes alone, how much gets done side by side."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import cycle, islice
from pathlib import Path
from textwrap import fill, wrap
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure as Picture

from session_kit.benchmarks.bench import Report
from session_kit.benchmarks.measure import brief, conditions
from session_kit.benchmarks.report import PACKAGES

# Colours that colour-blind people tell apart too (Okabe and Ito), and shapes: so many that no pair of them comes twice.
COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#D55E00", "#56B4E9", "#000000")
SHAPES = "osD^vPX*<"
LOOKS = tuple(islice(zip(cycle(COLOURS), cycle(SHAPES)), len(COLOURS) * len(SHAPES)))
WARNING = "#D55E00"
# Inches from one driver to the next.
LINE = 0.14

Group = tuple[str, str, int]
"""Layer, workload and size: what the drivers are compared in."""


def draw(report: Report, file: str) -> None:
    """Write the picture to `file`, as PNG, or as SVG or PDF if its name ends so.

    A column of panels for each mode, a row for each number of workers. One worker: the time that an operation takes,
    from a mark at the median to the end of a line at the 99th percentile. Several: operations a second.
    """
    settings = report.settings
    groups = list(dict.fromkeys((figure.layer, figure.workload, figure.size) for figure in report.figures))
    rows, columns = len(settings.concurrency), len(settings.modes)
    height = max(1.5, LINE * len(groups) * (len(report.drivers) + 1))
    picture = Picture(figsize=(5.2 * columns + 1.5, (height + 0.8) * rows + 1.2), dpi=130, layout="constrained")
    grid = picture.subplots(rows, columns, squeeze=False, sharex="row", sharey=True)
    for panels, workers in zip(grid, settings.concurrency, strict=True):
        for axes, mode in zip(panels, settings.modes, strict=True):
            _draw_panel(axes, report, groups, mode, workers)
    title = f"session-kit bench, {' and '.join(f'{size:,} B' for size in settings.sizes)}"
    finish(picture, grid[0][0], title, report.warnings, f"{conditions(PACKAGES[:1])}; {report.noise}", file)


def finish(
    picture: Picture,
    panel: Axes,
    title: str,
    loud: Sequence[str],
    below: str,
    file: str | Path,
) -> None:
    """Say above what the picture shows, what has to be said loud, and what the lines of a panel are; write the file."""
    width = picture.get_figwidth()
    # An inch takes about eight letters of the title, and ten of a name, which has a mark of half an inch before it.
    handles, names = panel.get_legend_handles_labels()
    names = [fill(name, round(width * 10) - 5) for name in names]
    longest = max(len(line) for name in names for line in name.splitlines())
    legend = picture.legend(
        handles,
        names,
        title="\n".join([title, *(part for line in loud for part in wrap(line, round(width * 8)))]),
        loc="outside upper center",
        ncols=max(1, min(4, len(names), round(width * 10) // (longest + 8))),
        frameon=False,
        fontsize=11,
        title_fontproperties={"size": 14, "weight": "bold"},
    )
    legend.get_title().set(ha="center", color=WARNING if any(loud) else "black")
    picture.supxlabel(fill(below, round(width * 16)), fontsize=8, color="0.4")
    kind = Path(file).suffix.lower().removeprefix(".")
    picture.savefig(file, format=kind if kind in ("svg", "pdf") else "png")


def _draw_panel(axes: Axes, report: Report, groups: list[Group], mode: str, workers: int) -> None:
    alone, lines = workers == 1, len(report.drivers)
    unit = "s" if alone else ""
    for number, driver in enumerate(report.drivers):
        colour, marker = LOOKS[number % len(LOOKS)]
        # The drivers of a group share the room from one group to the next.
        places = {group: at + (number - (lines - 1) / 2) / (lines + 1) for at, group in enumerate(groups)}
        mine = [f for f in report.figures if (f.driver, f.mode, f.concurrency) == (driver, mode, workers)]
        heights = [places[f.layer, f.workload, f.size] for f in mine]
        values = [f.median if alone else f.rate for f in mine]
        axes.plot(values, heights, marker, color=colour, markersize=5.5, label=driver)
        if alone:
            axes.hlines(heights, values, [f.p99 for f in mine], colors=colour, linewidth=1.4)
        label: dict[str, Any] = {"xytext": (-6, 0), "textcoords": "offset points", "ha": "right", "va": "center"}
        for point in zip(values, heights, strict=True):
            axes.annotate(brief(point[0], unit), point, **label, fontsize=7, color="0.25")
        edge = axes.get_yaxis_transform()
        for height in (height for (_, name, _), height in places.items() if driver in report.missing[name]):
            axes.text(0.01, height, "does not apply", transform=edge, va="center", fontsize=7, color=colour)
    for number in range(1, len(groups), 2):
        axes.axhspan(number - 0.5, number + 0.5, color="0.95", zorder=0)
    several = len({size for _, _, size in groups}) > 1
    names = [f"{layer} {name}" + (f"\n{size:,} B" if several else "") for layer, name, size in groups]
    axes.set_yticks(range(len(groups)), names, fontsize=9)
    axes.set(ylim=(len(groups) - 0.5, -0.5), xscale="log")
    axes.margins(x=0.12)
    axes.minorticks_off()
    axes.xaxis.set_major_formatter(lambda value, _: brief(value, unit))
    side_by_side = "one at a time" if alone else f"{workers} {'threads' if mode == 'sync' else 'tasks'}"
    axes.set_title(f"{mode}, {side_by_side}", fontsize=11, fontweight="bold", loc="left")
    axes.set_xlabel(
        "time of one operation, mark: median, line: to the 99th percentile  (left is better)"
        if alone
        else "operations a second, all workers together  (right is better)",
        fontsize=9,
    )
    axes.grid(axis="x", color="0.88", linewidth=0.8)
    axes.tick_params(axis="y", length=0)
    axes.spines[["top", "right", "left"]].set_visible(False)
