"""The findings of benchmarks/paper.py as figures: docs/paper/*.png. A tile has one colour in all of them."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np

from benchmarks.paper_findings import (
    BASE_BLOCK,
    BASE_LAYOUT,
    BASE_SCALARS,
    BASE_TILE,
    ENERGY,
    POWER,
    QUANTITIES,
    SHAPE,
    TIME,
    Data,
    Forest,
    Row,
    block_of,
    correlations,
    geomean,
    gflop,
    groups,
    least_us,
    metered_pairs,
    ratios,
    scalars_of,
    size_classes,
    tuned,
)

matplotlib.use("Agg")
from matplotlib import pyplot as plt
from matplotlib.figure import Figure

COLOURS = {1: "#440154", 2: "#414487", 4: "#2a788e", 8: "#22a884", 16: "#e3a008", 32: "#d1495b"}
GREY = "#5b6b7b"


def draw(folder: Path, data: Data, forests: Sequence[Forest]) -> None:
    """Writes every figure into the folder, which is made where it is missing."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, figure in _figures(data, forests).items():
        figure.savefig(folder / f"{name}.png", dpi=100)
        plt.close(figure)


def _figures(data: Data, forests: Sequence[Forest]) -> dict[str, Figure]:
    return {
        "tiles": _plot_tiles(data),
        "best": _plot_best(data),
        "occupancy": _plot_occupancy(data),
        "balance": _plot_balance(data),
        "depends": _plot_depends(data),
        "cutlass": _plot_cutlass(data),
        "forest": _plot_forest(forests),
    }


def _plot_tiles(data: Data) -> Figure:
    figure, panels = plt.subplots(1, 3, figsize=(12, 4), layout="constrained", sharex=True)
    every = [group for found in data.tiled.values() for group in found]
    for axes, reading, word in zip(panels, (TIME, POWER, ENERGY), ("time", "power", "energy"), strict=True):
        for tile in sorted({tile for group in every for tile in group} - {BASE_TILE}):
            here = [group for group in every if len(ratios([group], reading, tile, BASE_TILE))]
            axes.scatter(
                [gflop(group) for group in here], ratios(here, reading, tile, BASE_TILE),
                s=14, alpha=0.7, color=COLOURS[tile], label=f"tile {tile}", edgecolors="none",
            )  # fmt: skip
        axes.axhline(1, color=GREY, linewidth=1)
        axes.set(xscale="log", yscale="log", xlabel="size, GFLOP", title=f"{word} over that of tile {BASE_TILE}")
        fine = (0.9, 1.1, 1.2, 1.3) if reading == POWER else ()
        _plain(axes.yaxis, sorted([*fine, 0.5, 0.6, 0.7, 0.8, 1, 1.5, 2, 3, 5, 10, 20]))
    panels[0].legend(frameon=False)
    return figure


def _plot_best(data: Data) -> Figure:
    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4.2), layout="constrained")
    for i, one in enumerate(tuned(data)):
        label = f"{one.name}: {one.baseline}"
        over = np.sort([base[TIME] / least_us(group) for group in one.found if (base := one.base(group))])
        left.plot(np.linspace(0, 100, len(over)), over, color=f"C{i}", label=label)
        pairs = metered_pairs(one)
        right.scatter(pairs[:, 0], pairs[:, 1], s=14, alpha=0.6, color=f"C{i}", edgecolors="none")
    left.set(yscale="log", xlabel="share of the groups, %", ylabel="baseline's time over the best's")
    right.set(xscale="log", yscale="log", xlabel="baseline's time over the configuration's (sustained)", ylabel="its power over the baseline's")
    right.set_title("pairs with both metered, colours as on the left", fontsize=10)
    right.axhline(1, color=GREY, linewidth=1)
    right.axvline(1, color=GREY, linewidth=1)
    left.set_ylim(top=2 * left.get_ylim()[1])
    _plain(left.yaxis, (1, 1.5, 2, 3, 5, 10, 20, 50))
    _plain(right.xaxis, (0.1, 0.2, 0.3, 0.5, 0.7, 1, 1.5, 2, 3, 5, 10))
    _plain(right.yaxis, (0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1, 1.1, 1.2, 1.3, 1.5, 2, 3))
    left.legend(frameon=False, fontsize=8)
    return figure


def _plot_occupancy(data: Data) -> Figure:
    rows = {tile: row for found in data.tiled.values() for group in found for tile, row in sorted(group.items())}
    tiles = sorted(rows)
    figure, axes = plt.subplots(figsize=(6, 3.4), layout="constrained")
    axes.bar(range(len(tiles)), [100 * (rows[tile]["occupancy"] or 0) for tile in tiles], color=[COLOURS[tile] for tile in tiles], width=0.5)
    axes.set(ylabel="occupancy, % (bars)", ylim=(0, 110), xlabel="tile")
    axes.set_xticks(range(len(tiles)), [str(tile) for tile in tiles])
    other = axes.twinx()
    other.plot(range(len(tiles)), [rows[tile]["smem_bytes"] for tile in tiles], color=GREY, marker="o")
    other.set(yscale="log", ylabel="shared memory of a block, bytes (line)")
    return figure


def _plot_balance(data: Data) -> Figure:
    sources = list(data.tiled)
    figure, panels = plt.subplots(1, len(sources), figsize=(6.5 * len(sources), 4), layout="constrained", squeeze=False)
    for axes, source in zip(panels[0], sources, strict=True):
        found = [one for one in size_classes(data) if one.dataset == source and one.size != "all"]
        for tile in sorted({tile for one in found for group in one.complete for tile in group}):
            costs = [[group[tile][TIME] / least_us(group) for group in one.complete if tile in group] for one in found]
            at = [i for i, cost in enumerate(costs) if cost]
            axes.plot(at, [geomean(np.array(costs[i])) for i in at], color=COLOURS[tile], marker="o", label=f"tile {tile}")
        axes.set_xticks(range(len(found)), [f"{one.size}\n({len(one.complete)})" for one in found], fontsize=8)
        axes.set(yscale="log", xlabel="size, GFLOP (shapes)", ylabel="time over the best tile's", title=source)
        _plain(axes.yaxis, (1, 1.1, 1.2, 1.5, 2, 3, 5, 10, 20))
        axes.legend(frameon=False)
    return figure


def _plot_depends(data: Data) -> Figure:
    titles, found = correlations(data)
    figure, axes = plt.subplots(figsize=(8.5, 5.5), layout="constrained")
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
    figure.legend(*panels[0].get_legend_handles_labels(), frameon=False, fontsize=8, loc="outside lower center", ncols=3)
    return figure


def _plain(axis: Any, ticks: Sequence[float]) -> None:
    """A logarithmic axis with these ticks alone, fewer where they would touch."""
    low, high = axis.get_view_interval()
    shown: list[float] = []
    for tick in ticks:
        if low <= tick <= high and (not shown or np.log(tick / shown[-1]) > 0.04 * np.log(high / low)):
            shown.append(tick)
    axis.set_ticks(shown)
    axis.set_ticks([], minor=True)
    axis.set_major_formatter(lambda value, _: f"{value:g}")
