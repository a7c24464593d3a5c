"""Figures of the tile study: time, power and energy by tile, best against baseline, occupancy.

The HTML report draws them from a workspace's samples, benchmarks/paper from the recorded datasets.
What is compared comes from coordinator/report/tile_study.py; nothing is computed here that a table
does not show as well.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from coordinator.report.drawing import (
    GREY,
    MAX_POINTS,
    SERIES_COLOURS,
    SERIES_DASHES,
    SERIES_MARKERS,
    TILE_COLOURS,
    TILE_MARKERS,
    TILES,
    decade_ticks,
    new_axes,
    new_panels,
    set_log_ticks,
    thinned,
)
from coordinator.report.tile_study import (
    ALL_SIZES,
    BASE_TILE,
    ENERGY,
    POWER,
    TIME,
    Ratios,
    SizeClass,
    TileGroup,
    TileGroups,
    TunedGroups,
    excess_of_tile,
    geomean,
    gflop,
    metered_pairs,
    reading_ratios,
    size_classes,
)
from gemmcast.rows import Row

READING_NAMES = {TIME: "time", POWER: "power", ENERGY: "energy"}
RATIO_TICKS = (0.5, 0.6, 0.7, 0.8, 1, 1.5, 2, 3, 5, 10, 20)
POWER_RATIO_TICKS = (0.5, 0.6, 0.7, 0.8, 0.9, 1, 1.1, 1.2, 1.3, 1.5, 2, 3, 5, 10, 20)
GAIN_TICKS = (1, 1.5, 2, 3, 5, 10, 20, 50)
SPEED_TICKS = (0.1, 0.2, 0.3, 0.5, 0.7, 1, 1.5, 2, 3, 5, 10)
PAIR_POWER_TICKS = (0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1, 1.1, 1.2, 1.3, 1.5, 2, 3)
EXCESS_TICKS = (1, 1.1, 1.2, 1.5, 2, 3, 5, 10, 20)


def tiles_by_size(tile_groups: TileGroups) -> Figure:
    """Each tile's reading over BASE_TILE's on the same shape, one panel a reading.

    Power and energy have a panel where they were measured.
    """
    groups = list(_all_groups(tile_groups))
    readings = [reading for reading in READING_NAMES if _has_ratios(groups, reading)]
    columns = max(len(readings), 1)
    figure, panels = new_panels(columns, 4.9 * columns, 4.6)
    tiles = set().union(*groups) - {BASE_TILE}
    for axes, reading in zip(panels, readings, strict=False):
        for tile in sorted(tiles):
            _scatter_tile(axes, groups, reading, tile)
        _finish_ratio_panel(axes, reading)
    panels[0].legend(frameon=False)
    return figure


def _all_groups(tile_groups: TileGroups) -> Iterator[TileGroup]:
    for groups in tile_groups.values():
        yield from groups


def _has_ratios(groups: Sequence[TileGroup], reading: str) -> bool:
    """Whether a tile was read beside BASE_TILE on at least one shape."""
    for group in groups:
        for tile in group:
            if tile != BASE_TILE and len(reading_ratios([group], reading, tile, BASE_TILE)):
                return True
    return False


def _scatter_tile(axes: Axes, groups: Sequence[TileGroup], reading: str, tile: int) -> None:
    sizes = []
    ratios = []
    for group in groups:
        for ratio in reading_ratios([group], reading, tile, BASE_TILE):
            sizes.append(gflop(group))
            ratios.append(ratio)
    shown = thinned(np.arange(len(sizes)), MAX_POINTS // len(TILES))
    axes.scatter(
        np.array(sizes)[shown],
        np.array(ratios)[shown],
        s=20,
        alpha=0.7,
        color=TILE_COLOURS.get(tile, GREY),
        marker=TILE_MARKERS.get(tile, "*"),
        label=f"tile {tile}",
        edgecolors="none",
    )


def _finish_ratio_panel(axes: Axes, reading: str) -> None:
    axes.axhline(1, color=GREY, linewidth=1)
    axes.set(xscale="log", yscale="log", xlabel="size, GFLOP")
    axes.set_title(f"{READING_NAMES[reading]} over that of tile {BASE_TILE}")
    set_log_ticks(axes.xaxis, decade_ticks(*axes.get_xlim()))
    set_log_ticks(axes.yaxis, POWER_RATIO_TICKS if reading == POWER else RATIO_TICKS)


def best_over_baseline(tuned: Sequence[TunedGroups]) -> Figure:
    """How much tuning gains over each baseline; on the right its cost in power, where metered."""
    pairs = [metered_pairs(one) for one in tuned]
    metered = any(len(one) for one in pairs)
    columns = 2 if metered else 1
    figure, panels = new_panels(columns, 7 * columns, 5)
    left = panels[0]
    for i, one in enumerate(tuned):
        speedups = np.sort(one.speedups())
        shares = np.linspace(0, 100, len(speedups))
        dash = SERIES_DASHES[i % len(SERIES_DASHES)]
        colour = SERIES_COLOURS[i % len(SERIES_COLOURS)]
        left.plot(shares, speedups, dash, color=colour, label=f"{one.name}: {one.baseline}")
    left.set(yscale="log", xlabel="share of the groups, %")
    left.set_ylabel("baseline's time over the best's")
    if metered:
        _power_over_baseline(panels[1], pairs)

    # room for the legend
    left.set_ylim(top=2 * left.get_ylim()[1])
    set_log_ticks(left.yaxis, GAIN_TICKS)
    left.legend(frameon=False)
    return figure


def _power_over_baseline(axes: Axes, pairs: Sequence[Ratios]) -> None:
    for i, one in enumerate(pairs):
        shown = one[thinned(np.arange(len(one)), MAX_POINTS // len(pairs))]
        axes.scatter(
            shown[:, 0],
            shown[:, 1],
            s=20,
            alpha=0.6,
            color=SERIES_COLOURS[i % len(SERIES_COLOURS)],
            marker=SERIES_MARKERS[i % len(SERIES_MARKERS)],
            edgecolors="none",
        )
    axes.set(xscale="log", yscale="log", ylabel="its power over the baseline's")
    axes.set_xlabel("baseline's time over the configuration's (sustained)")
    axes.set_title("pairs with both metered, colours as before")
    axes.axhline(1, color=GREY, linewidth=1)
    axes.axvline(1, color=GREY, linewidth=1)
    set_log_ticks(axes.xaxis, SPEED_TICKS)
    set_log_ticks(axes.yaxis, PAIR_POWER_TICKS)


def occupancy_by_tile(tile_groups: TileGroups) -> Figure:
    """Occupancy as bars, shared memory of a block as a line."""
    rows: dict[int, Row] = {}
    for group in _all_groups(tile_groups):
        rows |= group
    tiles = sorted(rows)
    places = range(len(tiles))
    figure, axes = new_axes(6, 4.2)
    for place, tile in enumerate(tiles):
        occupancy = rows[tile]["occupancy"] or 0
        axes.bar(place, 100 * occupancy, color=TILE_COLOURS.get(tile, GREY), width=0.5)
    axes.set(ylabel="occupancy, % (bars)", ylim=(0, 110), xlabel="tile")
    axes.set_xticks(places, list(map(str, tiles)))
    memory_axes = axes.twinx()
    memory = [rows[tile]["smem_bytes"] for tile in tiles]
    memory_axes.plot(places, memory, color=GREY, marker="o")
    memory_axes.set(yscale="log", ylabel="shared memory of a block, bytes (line)")
    set_log_ticks(memory_axes.yaxis, decade_ticks(*memory_axes.get_ylim()))
    return figure


def balance_by_size(tile_groups: TileGroups) -> Figure:
    """How much slower each shape is if one tile is always taken, by size; one panel a dataset."""
    figure, panels = new_panels(len(tile_groups), 8 * len(tile_groups), 4.6)
    classes = size_classes(tile_groups)
    for axes, dataset in zip(panels, tile_groups, strict=True):
        sized = [one for one in classes if one.dataset == dataset and one.size != ALL_SIZES]
        tiles: set[int] = set()
        for one in sized:
            tiles = tiles.union(*one.complete)
        for tile in sorted(tiles):
            _plot_excess(axes, sized, tile)
        labels = [f"{one.size}\n({len(one.complete)})" for one in sized]
        axes.set_xticks(range(len(sized)), labels)
        axes.set(yscale="log", ylabel="time over the best tile's", title=dataset)
        axes.set_xlabel("size, GFLOP (shapes)")
        set_log_ticks(axes.yaxis, EXCESS_TICKS)
        axes.legend(frameon=False)
    return figure


def _plot_excess(axes: Axes, sized: Sequence[SizeClass], tile: int) -> None:
    places = []
    means = []
    for place, one in enumerate(sized):
        ratios = excess_of_tile(one.complete, tile)
        if len(ratios):
            places.append(place)
            means.append(geomean(ratios))
    colour = TILE_COLOURS.get(tile, GREY)
    marker = TILE_MARKERS.get(tile, "*")
    axes.plot(places, means, color=colour, marker=marker, label=f"tile {tile}")
