"""The report's figures, and those of docs/paper.md that a workspace has too. Draws what others reckoned; a tile has one colour in all of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import matplotlib
import numpy as np

from coordinator.tiles import BASE_TILE, ENERGY, POWER, TIME, Tiled, Tuned, geomean, gflop, least_us, metered_pairs, ratios, size_classes

matplotlib.use("Agg")
from matplotlib import pyplot as plt
from matplotlib.figure import Figure

COLOURS = {1: "#440154", 2: "#414487", 4: "#2a788e", 8: "#22a884", 16: "#e3a008", 32: "#d1495b"}
GREY = "#5b6b7b"
READINGS = {TIME: "time", POWER: "power", ENERGY: "energy"}


def tiles_by_size(tiled: Tiled) -> Figure:
    """Time, and power and energy where they were read, of each tile over BASE_TILE's on the same shape."""
    every = [group for found in tiled.values() for group in found]
    tiles = sorted({tile for group in every for tile in group} - {BASE_TILE})
    over = {reading: {tile: [group for group in every if len(ratios([group], reading, tile, BASE_TILE))] for tile in tiles} for reading in READINGS}
    shown = [reading for reading, of in over.items() if any(of.values())]
    figure, panels = plt.subplots(1, max(len(shown), 1), figsize=(4 * max(len(shown), 1), 4), layout="constrained", sharex=True, squeeze=False)
    for axes, reading in zip(panels[0], shown, strict=False):
        for tile, here in over[reading].items():
            axes.scatter(
                [gflop(group) for group in here], ratios(here, reading, tile, BASE_TILE),
                s=14, alpha=0.7, color=COLOURS.get(tile, GREY), label=f"tile {tile}", edgecolors="none",
            )  # fmt: skip
        axes.axhline(1, color=GREY, linewidth=1)
        axes.set(xscale="log", yscale="log", xlabel="size, GFLOP", title=f"{READINGS[reading]} over that of tile {BASE_TILE}")
        fine = (0.9, 1.1, 1.2, 1.3) if reading == POWER else ()
        plain(axes.yaxis, sorted([*fine, 0.5, 0.6, 0.7, 0.8, 1, 1.5, 2, 3, 5, 10, 20]))
    panels[0][0].legend(frameon=False)
    return figure


def best_over_baseline(found: Sequence[Tuned]) -> Figure:
    """What tuning gains over each baseline; on the right, where both were metered, what it costs in power."""
    pairs = [metered_pairs(one) for one in found]
    metered = any(len(of) for of in pairs)
    figure, panels = plt.subplots(1, 1 + metered, figsize=(5.5 + 5.5 * metered, 4.2), layout="constrained", squeeze=False)
    left = panels[0][0]
    for i, one in enumerate(found):
        over = np.sort([base[TIME] / least_us(group) for group in one.found if (base := one.base(group))])
        left.plot(np.linspace(0, 100, len(over)), over, color=f"C{i}", label=f"{one.name}: {one.baseline}")
    left.set(yscale="log", xlabel="share of the groups, %", ylabel="baseline's time over the best's")
    if metered:
        _power_over_baseline(panels[0][1], pairs)
    left.set_ylim(top=2 * left.get_ylim()[1])
    plain(left.yaxis, (1, 1.5, 2, 3, 5, 10, 20, 50))
    left.legend(frameon=False, fontsize=8)
    return figure


def _power_over_baseline(axes: Any, pairs: Sequence[Any]) -> None:
    for i, of in enumerate(pairs):
        axes.scatter(of[:, 0], of[:, 1], s=14, alpha=0.6, color=f"C{i}", edgecolors="none")
    axes.set(xscale="log", yscale="log", xlabel="baseline's time over the configuration's (sustained)", ylabel="its power over the baseline's")
    axes.set_title("pairs with both metered, colours as on the left", fontsize=10)
    axes.axhline(1, color=GREY, linewidth=1)
    axes.axvline(1, color=GREY, linewidth=1)
    plain(axes.xaxis, (0.1, 0.2, 0.3, 0.5, 0.7, 1, 1.5, 2, 3, 5, 10))
    plain(axes.yaxis, (0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1, 1.1, 1.2, 1.3, 1.5, 2, 3))


def occupancy_by_tile(tiled: Tiled) -> Figure:
    """Bars of occupancy, a line of shared memory."""
    rows = {tile: row for found in tiled.values() for group in found for tile, row in sorted(group.items())}
    tiles = sorted(rows)
    figure, axes = plt.subplots(figsize=(6, 3.4), layout="constrained")
    axes.bar(range(len(tiles)), [100 * (rows[tile]["occupancy"] or 0) for tile in tiles], color=[COLOURS.get(t, GREY) for t in tiles], width=0.5)
    axes.set(ylabel="occupancy, % (bars)", ylim=(0, 110), xlabel="tile")
    axes.set_xticks(range(len(tiles)), [str(tile) for tile in tiles])
    other = axes.twinx()
    other.plot(range(len(tiles)), [rows[tile]["smem_bytes"] for tile in tiles], color=GREY, marker="o")
    other.set(yscale="log", ylabel="shared memory of a block, bytes (line)")
    return figure


def balance_by_size(tiled: Tiled) -> Figure:
    """What always taking one tile costs over the best of each shape, by size."""
    figure, panels = plt.subplots(1, len(tiled), figsize=(6.5 * len(tiled), 4), layout="constrained", squeeze=False)
    for axes, source in zip(panels[0], tiled, strict=True):
        found = [one for one in size_classes(tiled) if one.dataset == source and one.size != "all"]
        for tile in sorted({tile for one in found for group in one.complete for tile in group}):
            costs = [[group[tile][TIME] / least_us(group) for group in one.complete if tile in group] for one in found]
            at = [i for i, cost in enumerate(costs) if cost]
            axes.plot(at, [geomean(np.array(costs[i])) for i in at], color=COLOURS.get(tile, GREY), marker="o", label=f"tile {tile}")
        axes.set_xticks(range(len(found)), [f"{one.size}\n({len(one.complete)})" for one in found], fontsize=8)
        axes.set(yscale="log", xlabel="size, GFLOP (shapes)", ylabel="time over the best tile's", title=source)
        plain(axes.yaxis, (1, 1.1, 1.2, 1.5, 2, 3, 5, 10, 20))
        axes.legend(frameon=False)
    return figure


def plain(axis: Any, ticks: Sequence[float]) -> None:
    """A logarithmic axis with these ticks alone, fewer where they would touch."""
    low, high = axis.get_view_interval()
    shown: list[float] = []
    for tick in ticks:
        if low <= tick <= high and (not shown or np.log(tick / shown[-1]) > 0.04 * np.log(high / low)):
            shown.append(tick)
    axis.set_ticks(shown)
    axis.set_ticks([], minor=True)
    axis.set_major_formatter(lambda value, _: f"{value:g}")
