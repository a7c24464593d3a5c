"""The figures of docs/paper.md: docs/paper/*.png.

Those of the tile study are drawn by coordinator/report/tile_figures.py, as in the HTML report.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure

from benchmarks.paper.findings import (
    BLOCKS,
    LAYOUTS,
    SCALARS,
    GridAxis,
    correlations,
    tuned_groups,
)
from benchmarks.paper.forest import BY_SHAPE, ForestResult
from benchmarks.paper.recordings import Recordings
from coordinator.report.drawing import GREY, new_axes, new_panels, power_ticks, set_log_ticks
from coordinator.report.tile_figures import (
    balance_by_size,
    best_over_baseline,
    occupancy_by_tile,
    tiles_by_size,
)
from coordinator.report.tile_study import POWER, TIME, reading_ratios
from gemmcast.rows import Row


def draw(folder: Path, recordings: Recordings, forests: Sequence[ForestResult]) -> None:
    """Write every figure into the folder, which is created if it is missing."""
    folder.mkdir(parents=True, exist_ok=True)
    tile_groups = recordings.tile_groups()
    figures = {
        "tiles": _with_wide_ticks(tiles_by_size(tile_groups)),
        "best": _with_wide_ticks(best_over_baseline(tuned_groups(recordings))),
        "occupancy": occupancy_by_tile(tile_groups),
        "balance": _with_wide_ticks(balance_by_size(tile_groups)),
        "depends": _correlation_figure(recordings),
        "cutlass": _cutlass_figure(recordings.grid),
        "forest": _forest_figure(forests),
    }
    for name, figure in figures.items():
        figure.savefig(folder / f"{name}.png", dpi=100)


def _with_wide_ticks(figure: Figure) -> Figure:
    """Tile 1 takes 200 times as long as the best: long axes of ratios get more ticks."""
    for axes in figure.axes:
        for axis in (axes.xaxis, axes.yaxis):
            if _is_long(axis):
                set_log_ticks(axis, power_ticks((1, 2, 5), range(-2, 3)))
    return figure


def _is_long(axis: Axis) -> bool:
    low, high = axis.get_view_interval()
    return axis.get_scale() == "log" and bool(50 < high / low < 1e5)


def _correlation_figure(recordings: Recordings) -> Figure:
    result = correlations(recordings)
    figure, axes = new_axes(10, 5.5)
    axes.imshow(result.values, cmap="RdBu_r", vmin=-1, vmax=1, aspect="auto")
    for (row, column), value in np.ndenumerate(result.values):
        text = "–" if np.isnan(value) else f"{value:+.2f}"
        is_dark = abs(value) > 0.6
        colour = "white" if is_dark else "black"
        axes.text(column, row, text, ha="center", va="center", fontsize=8, color=colour)
    labels = [re.sub(r": |, | (?=\()", "\n", title) for title in result.columns]
    axes.set_xticks(range(len(labels)), labels, fontsize=8)
    axes.set_yticks(range(len(result.quantities)), result.quantities)
    return figure


def _cutlass_figure(grid: Sequence[Row]) -> Figure:
    figure = Figure(figsize=(12, 4), layout="constrained")
    panels = figure.subplots(1, 3, width_ratios=(3, 2, 2))
    for axes, axis in zip(panels, (BLOCKS, LAYOUTS, SCALARS), strict=True):
        _box_plot(axes, grid, axis)
    return figure


def _box_plot(axes: Axes, grid: Sequence[Row], axis: GridAxis) -> None:
    groups = axis.groups(grid)
    values = set().union(*groups) - {axis.base}
    ratios = []
    labels = []
    for value in sorted(values):
        over_base = reading_ratios(groups, TIME, value, axis.base)
        ratios.append(over_base)
        labels.append(f"{value}\n({len(over_base)})")
    axes.boxplot(ratios, tick_labels=labels, flierprops={"markersize": 2}, whis=(5, 95))
    axes.axhline(1, color=GREY, linewidth=0.8)
    axes.set(xlabel=f"{axis.name} (groups)", title=f"time over that of {axis.base}")
    axes.tick_params(axis="x", labelsize=8)


def _forest_figure(forests: Sequence[ForestResult]) -> Figure:
    figure, panels = new_panels(2, 11, 4.6, sharey=True)
    names = list(dict.fromkeys(forest.name for forest in forests))
    colours = {name: f"C{i}" for i, name in enumerate(names)}
    for axes, target, word in zip(panels, (TIME, POWER), ("runtime", "power"), strict=True):
        for forest in forests:
            if forest.target == target:
                _plot_errors(axes, forest, colours[forest.name])
        axes.set(xscale="log", xlim=(0.3, 1000), xlabel=f"error of predicted {word} below, %")
        axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    panels[0].set_ylabel("share of the rows, %")
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, frameon=False, fontsize=8, loc="outside lower center", ncols=2)
    return figure


def _plot_errors(axes: Axes, forest: ForestResult, colour: str) -> None:
    """The distribution of the absolute errors."""
    ratios = forest.predicted / forest.measured
    errors = np.sort(100 * np.abs(ratios - 1))
    shares = np.linspace(0, 100, len(errors))
    style = "-" if forest.split == BY_SHAPE else ":"
    label = f"{forest.name} ({forest.split})"
    axes.plot(errors, shares, style, color=colour, label=label)
