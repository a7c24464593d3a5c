"""The report's figures, and those of docs/paper.md that a workspace has too. Draws what others reckoned; a tile has one colour in all of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib
import numpy as np

from coordinator.report.analysis import Error, Importance, Unseen
from coordinator.report.tile_study import BASE_TILE, ENERGY, POWER, TIME, Tiled, Tuned, geomean, gflop, least_us, metered_pairs, ratios, size_classes
from coordinator.report.tradeoffs import ByTile, Tradeoff
from gemmcast.config import FAMILIES

matplotlib.use("Agg")
from matplotlib import pyplot as plt
from matplotlib.figure import Figure

COLOURS = {1: "#440154", 2: "#414487", 4: "#2a788e", 8: "#22a884", 16: "#e3a008", 32: "#d1495b"}
GREY = "#5b6b7b"
OF_FAMILY = {family: f"C{i}" for i, family in enumerate(FAMILIES)}
UNITS = {"runtime_us": "µs", "sustained_runtime_us": "µs", "power_w": "W", "energy_mj": "mJ", "tflops": "TFLOP/s"}
WORDS = {"runtime_us": "runtime", "sustained_runtime_us": "sustained runtime", "power_w": "power", "energy_mj": "energy", "tflops": "throughput"}
READINGS = {TIME: "time", POWER: "power", ENERGY: "energy"}


# The model's


def predicted_and_measured(seen: Unseen) -> Figure:
    """One panel for each target that was read."""
    targets = [target for target in seen.targets if seen.known(target).any()]
    columns = min(len(targets), 3)
    lines = -(-len(targets) // columns)
    figure, panels = plt.subplots(lines, columns, figsize=(4.2 * columns, 4.0 * lines), layout="constrained", squeeze=False)
    for axes in panels.flat[len(targets) :]:
        axes.set_axis_off()
    for axes, target in zip(panels.flat, targets, strict=False):
        known = seen.known(target)
        measured, predicted = seen.data.measured[target][known], seen.answers[target][known]
        _scatter(axes, measured, predicted, seen.data.column("family")[known])
        low, high = min(measured.min(), predicted.min()) * 0.8, max(measured.max(), predicted.max()) * 1.25
        axes.plot([low, high], [low, high], color=GREY, linewidth=1)
        axes.fill_between([low, high], [0.9 * low, 0.9 * high], [1.1 * low, 1.1 * high], color=GREY, alpha=0.15, linewidth=0, label="within 10 %")
        axes.set(xscale="log", yscale="log", xlim=(low, high), ylim=(low, high), title=f"{WORDS[target]}, {UNITS[target]}", aspect="equal")
        axes.set(xlabel="measured", ylabel="predicted")
        for axis in (axes.xaxis, axes.yaxis):
            plain(axis, _decades(low, high))
    panels[0][0].legend(frameon=False, fontsize=8)
    return figure


def error_by_size(seen: Unseen, found: Mapping[int, Mapping[str, Error]]) -> Figure:
    """Every row's error of runtime, and beside it median and 90th percentile by decade of flops."""
    gflop = seen.data.measured["tflops"] * seen.data.measured["runtime_us"] * 1e-3
    figure, (left, right) = plt.subplots(1, 2, figsize=(12, 4.2), layout="constrained")
    errors = seen.errors("runtime_us")
    _scatter(left, gflop, errors, seen.data.column("family"))
    limit = float(np.clip(1.1 * np.percentile(np.abs(errors), 98), 10, 150))
    beyond = int(np.sum(np.abs(errors) > limit))
    left.axhline(0, color=GREY, linewidth=1)
    left.set(xscale="log", xlabel="size of the GEMM, GFLOP", ylabel="error of predicted runtime, %", ylim=(-limit, limit))
    left.set_title(f"each GEMM ({beyond} outside of the picture)" if beyond else "each GEMM", fontsize=10)
    plain(left.xaxis, _decades(*left.get_xlim()))
    for family in sorted({family for of in found.values() for family in of} - {"all"}):
        at = [decade for decade, of in found.items() if family in of]
        for style, word in (("-o", "median"), (":o", "p90")):
            values = [getattr(found[decade][family], word) for decade in at]
            right.plot(at, values, style, color=OF_FAMILY[family], markersize=4, label=f"{family}, {word}")
    right.set_xticks(list(found), [decade_name(decade).replace(" GFLOP", "").replace(" to ", "\nto ") for decade in found], fontsize=8)
    right.set(xlabel="size of the GEMM, GFLOP", ylabel="absolute error of runtime, %", yscale="log")
    plain(right.yaxis, (0.5, 1, 2, 3, 5, 7, 10, 15, 20, 30, 50, 100, 200, 500, 1000))
    left.legend(frameon=False, fontsize=8)
    right.legend(frameon=False, fontsize=8, ncols=2)
    return figure


def decade_name(decade: int) -> str:
    """9 is "1 to 10 GFLOP"."""
    low, high = (f"{10.0**power:.{max(-power, 0)}f}" for power in (decade - 9, decade - 8))
    return f"{low} to {high} GFLOP"


def importance(found: Sequence[Importance], targets: Sequence[str]) -> Figure:
    """Bars in percentage points, largest on top, one panel a target."""
    figure, panels = plt.subplots(
        1, len(targets), figsize=(4.2 + 3.2 * (len(targets) - 1), 1.0 + 0.36 * len(found)), layout="constrained", sharey=True, squeeze=False
    )
    names = [one.name for one in found]
    for axes, target in zip(panels[0], targets, strict=True):
        rises = [one.rises[target] for one in found]
        axes.barh(range(len(found)), rises, color="#2a788e", height=0.6)
        for i, rise in enumerate(rises):
            axes.annotate(
                f"{rise:+.1f}" if abs(rise) < 10 else f"{rise:+,.0f}", (max(rise, 0), i), (4, 0), textcoords="offset points", va="center", fontsize=8
            )
        axes.set_xscale("symlog", linthresh=1)
        right = max([*rises, 1.0])
        axes.set_xlim(min([*rises, 0.0]) * 1.5, right * (1 + right) ** 0.4 * 1.5)
        axes.set_xticks([tick for tick in (0, 1, 10, 100, 1000, 10_000, 100_000) if tick <= right * 1.5])
        axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
        axes.set_xticks([], minor=True)
        axes.set(title=WORDS[target], xlabel="rise of the mean error, points")
    panels[0][0].set_yticks(range(len(found)), names)
    panels[0][0].invert_yaxis()
    return figure


def by_tile(found: ByTile) -> Figure:
    """Predicted as a line with the span of the problems, measured as rings, over the mean of all tiles."""
    square = all(len(set(tile)) == 1 for tile in found.tiles)
    deep = len({tile[:2] for tile in found.tiles}) < len(found.tiles)
    names = [str(tile[0]) if square else "x".join(map(str, tile if deep else tile[:2])) for tile in found.tiles]
    count = len(found.dependences)
    figure, panels = plt.subplots(1, count, figsize=(5.8 * count, 4.0), layout="constrained", squeeze=False)
    for axes, one in zip(panels[0], found.dependences, strict=True):
        at = np.arange(len(names))
        axes.fill_between(at, one.low, one.high, color="C0", alpha=0.15, linewidth=0, label="predicted, 8 of 10 problems")
        axes.plot(at, one.predicted, "-o", color="C0", markersize=5, label="predicted, mean")
        if one.measured is not None:
            axes.plot(at, one.measured, "o", color="#d1495b", markersize=10, fillstyle="none", markeredgewidth=2, label="measured, mean")
        axes.axhline(1, color=GREY, linewidth=1)
        axes.set_xticks(at, names, rotation=45 if max(map(len, names)) > 5 else 0)
        axes.set(xlabel="tile" if square else "tile, m x n x k" if deep else "tile, m x n", yscale="log")
        axes.set(
            ylabel=f"{WORDS[one.target]} over the mean of all tiles",
            title=f"{WORDS[one.target]}, {one.problems} {'unseen' if one.unseen else 'seen and unseen'} problems",
        )
        plain(axes.yaxis, (0.1, 0.2, 0.3, 0.5, 0.7, 0.8, 0.9, 1, 1.1, 1.2, 1.5, 2, 3, 5, 10))
    panels[0][0].legend(frameon=False, fontsize=8)
    return figure


def time_and_energy(found: Tradeoff) -> Figure:
    """Configurations of one problem, the measured front as a line, the model's as rings; numbers are those of the front in the report's table."""
    figure, axes = plt.subplots(figsize=(8, 5), layout="constrained")
    front = found.front
    axes.plot(found.time_us[front], found.energy_mj[front], color=GREY, linewidth=1.2, label="measured front", zorder=1)
    _scatter(axes, found.time_us, found.energy_mj, np.array(found.families), s=40, alpha=0.9)
    ours = found.predicted_front
    axes.scatter(found.time_us[ours], found.energy_mj[ours], s=150, facecolors="none", edgecolors="#1c2733", linewidths=1.6, label="model's front")
    words = {int(front[0]): "fastest", int(front[-1]): "least energy"} if len(front) > 1 else {int(front[0]): "fastest, least energy"}
    for i, at in enumerate(front.tolist(), 1):  # below a point of the front there is nothing
        text = f"{i} {words[at]}" if at in words else str(i)
        axes.annotate(text, (found.time_us[at], found.energy_mj[at]), (0, -10), textcoords="offset points", ha="center", va="top", fontsize=9)
    axes.set(xlabel="sustained runtime, µs", ylabel="energy of one launch, mJ", title=found.problem)
    for axis, values in (("x", found.time_us), ("y", found.energy_mj)):
        if values.max() > 2.5 * values.min():
            axes.set(**{f"{axis}scale": "log"})
            axes.margins(0.18)
            plain(getattr(axes, f"{axis}axis"), [digit * 10.0**power for power in range(-6, 10) for digit in (1, 1.5, 2, 3, 4, 5, 7)])
    axes.legend(frameon=False, fontsize=9)
    return figure


def _scatter(axes: Any, x: Any, y: Any, families: Any, s: int = 14, alpha: float = 0.6) -> None:
    for family in sorted(set(families.tolist())):
        here = families == family
        axes.scatter(x[here], y[here], s=s, alpha=alpha, label=family, edgecolors="none", color=OF_FAMILY[family])


def _decades(low: float, high: float) -> list[float]:
    """Ticks of a logarithmic axis: powers of ten, with 2 and 5 between them where it is short."""
    digits = (1, 2, 5) if high / low < 300 else (1,)
    return [digit * 10.0**power for power in range(-9, 13) for digit in digits]


# The paper's


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
