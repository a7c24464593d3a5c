"""The findings of benchmarks/paper.py as figures: docs/paper/*.png. Those that reports of workspaces have too are drawn by coordinator/report/figures.py."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import pyplot as plt
from matplotlib.figure import Figure

from benchmarks.paper.findings import (
    BASE_BLOCK,
    BASE_LAYOUT,
    BASE_SCALARS,
    QUANTITIES,
    SHAPE,
    Data,
    Forest,
    block_of,
    correlations,
    scalars_of,
    tuned,
)
from coordinator.report.figures import GREY, balance_by_size, best_over_baseline, occupancy_by_tile, plain, tiles_by_size
from coordinator.report.tile_study import POWER, TIME, Row, groups, ratios


def draw(folder: Path, data: Data, forests: Sequence[Forest]) -> None:
    """Writes every figure into the folder, which is made where it is missing."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, figure in _figures(data, forests).items():
        figure.savefig(folder / f"{name}.png", dpi=100)
        plt.close(figure)


def _figures(data: Data, forests: Sequence[Forest]) -> dict[str, Figure]:
    return {
        "tiles": _ticked(tiles_by_size(data.tiled)),
        "best": _ticked(best_over_baseline(tuned(data))),
        "occupancy": occupancy_by_tile(data.tiled),
        "balance": _ticked(balance_by_size(data.tiled)),
        "depends": _plot_depends(data),
        "cutlass": _plot_cutlass(data),
        "forest": _plot_forest(forests),
    }


def _ticked(figure: Figure) -> Figure:
    """Tile 1 takes 200 times as long as the best: ticks over all of a long axis of ratios, none that touch."""
    for axes in figure.axes:
        for axis in (axes.xaxis, axes.yaxis):
            low, high = axis.get_view_interval()
            if axis.get_scale() == "log" and 50 < high / low < 1e5:
                plain(axis, [digit * 10.0**power for power in range(-2, 3) for digit in (1, 2, 5)])
    return figure


def _plot_depends(data: Data) -> Figure:
    titles, found = correlations(data)
    figure, axes = plt.subplots(figsize=(10, 5.5), layout="constrained")
    axes.imshow(found, cmap="RdBu_r", vmin=-1, vmax=1, aspect="auto")
    for (i, j), value in np.ndenumerate(found):
        text = "–" if np.isnan(value) else f"{value:+.2f}"
        axes.text(j, i, text, ha="center", va="center", fontsize=8, color="white" if abs(value) > 0.6 else "black")
    axes.set_xticks(range(len(titles)), [re.sub(r": |, | (?=\()", "\n", title) for title in titles], fontsize=8)
    axes.set_yticks(range(len(QUANTITIES)), list(QUANTITIES))
    return figure


def _plot_cutlass(data: Data) -> Figure:
    figure, panels = plt.subplots(1, 3, figsize=(12, 4), layout="constrained", width_ratios=(3, 2, 2))
    axis: list[tuple[tuple[str, ...], Callable[[Row], Any], str, str]] = [
        (("layout", "alpha", "beta"), block_of, BASE_BLOCK, "block"),
        (("tile_m", "tile_n", "alpha", "beta"), lambda row: row["layout"], BASE_LAYOUT, "layout"),
        (("tile_m", "tile_n", "layout"), scalars_of, BASE_SCALARS, "alpha, beta"),
    ]
    for axes, (same, of, base, word) in zip(panels, axis, strict=True):
        found = groups(data.grid, (*SHAPE, *same), of)
        over = {value: ratios(found, TIME, value, base) for value in sorted({value for group in found for value in group} - {base})}
        labels = [f"{value}\n({len(values)})" for value, values in over.items()]
        axes.boxplot(list(over.values()), tick_labels=labels, flierprops={"markersize": 2}, whis=(5, 95))
        axes.axhline(1, color=GREY, linewidth=0.8)
        axes.set(xlabel=f"{word} (groups)", title=f"time over that of {base}")
        axes.tick_params(axis="x", labelsize=8)
    return figure


def _plot_forest(forests: Sequence[Forest]) -> Figure:
    figure, panels = plt.subplots(1, 2, figsize=(11, 4.6), layout="constrained", sharey=True)
    names = list(dict.fromkeys(one.name for one in forests))
    for axes, target, word in zip(panels, (TIME, POWER), ("runtime", "power"), strict=True):
        for one in forests:
            if one.target == target:
                errors = np.sort(100 * np.abs(one.predicted / one.measured - 1))
                style = "-" if one.how.startswith("grouped") else ":"
                axes.plot(errors, np.linspace(0, 100, len(errors)), style, color=f"C{names.index(one.name)}", label=f"{one.name} ({one.how})")
        axes.set(xscale="log", xlim=(0.3, 1000), xlabel=f"error of predicted {word} below, %")
        axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    panels[0].set_ylabel("share of the rows, %")
    figure.legend(*panels[0].get_legend_handles_labels(), frameon=False, fontsize=8, loc="outside lower center", ncols=2)
    return figure
