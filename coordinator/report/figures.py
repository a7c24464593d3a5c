"""Figures of a model: predicted and measured, errors by size, importance, tile, time and energy.

Each function draws one result of analysis, importance, partial_dependence or tradeoffs. Nothing is
computed here but axis limits.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from coordinator.report.analysis import ErrorsBySize, HeldOutRows, families_of
from coordinator.report.drawing import (
    DARK_TEXT,
    FAMILY_COLOURS,
    FAMILY_MARKERS,
    GREY,
    SERIES_COLOURS,
    TARGET_NAMES,
    TARGET_UNITS,
    Floating,
    decade_ticks,
    new_axes,
    new_panels,
    power_ticks,
    scatter_by_family,
    set_log_ticks,
)
from coordinator.report.importance import PartImportance
from coordinator.report.partial_dependence import FamilyByTile, TileDependence
from coordinator.report.tradeoffs import Tradeoff

ERROR_TICKS = (0.5, 1, 2, 3, 5, 7, 10, 15, 20, 30, 50, 100, 200, 500, 1000)
RISE_TICKS = (0, 1, 10, 100, 1000, 10_000, 100_000)
TILE_TICKS = (0.1, 0.2, 0.3, 0.5, 0.7, 0.8, 0.9, 1, 1.1, 1.2, 1.5, 2, 3, 5, 10)
TRADEOFF_DIGITS = (1, 1.5, 2, 3, 4, 5, 7)
LONG_NAME = 5
"""Names of tiles with more characters are rotated."""
LOG_SPAN = 2.5
"""An axis of the time-energy figure is logarithmic if its values differ by more."""


def predicted_and_measured(held: HeldOutRows) -> Figure:
    """One panel for each target that was measured, at most three in a line."""
    targets = [target for target in held.targets if held.has(target).any()]
    columns = min(len(targets), 3)
    lines = -(-len(targets) // columns)
    figure = Figure(figsize=(4.9 * columns, 4.7 * lines), layout="constrained")
    panels = figure.subplots(lines, columns, squeeze=False)
    for axes in panels.flat[len(targets) :]:
        axes.set_axis_off()
    for axes, target in zip(panels.flat, targets, strict=False):
        _plot_predicted(axes, held, target)
    panels[0][0].legend(frameon=False)
    return figure


def _plot_predicted(axes: Axes, held: HeldOutRows, target: str) -> None:
    known = held.has(target)
    measured = held.data.measured[target][known]
    predicted = held.predictions[target][known]
    families = held.data.column("family")[known]
    scatter_by_family(axes, measured, predicted, families, size=20, alpha=0.6)
    low = 0.8 * min(measured.min(), predicted.min())
    high = 1.25 * max(measured.max(), predicted.max())
    ends = np.array([low, high])
    axes.plot(ends, ends, color=GREY, linewidth=1)
    axes.fill_between(
        ends,
        0.9 * ends,
        1.1 * ends,
        color=GREY,
        alpha=0.15,
        linewidth=0,
        label="within 10 %",
    )
    axes.set(xscale="log", yscale="log", xlim=(low, high), ylim=(low, high), aspect="equal")
    axes.set(xlabel="measured", ylabel="predicted")
    axes.set_title(f"{TARGET_NAMES[target]}, {TARGET_UNITS[target]}")
    set_log_ticks(axes.xaxis, decade_ticks(low, high))
    set_log_ticks(axes.yaxis, decade_ticks(low, high))


def error_by_size(held: HeldOutRows, errors: ErrorsBySize) -> Figure:
    """Left: the error of every row's runtime. Right: median and 90th percentile by decade."""
    figure, (left, right) = new_panels(2, 14, 4.6)
    _plot_errors(left, held)
    for family in families_of(errors):
        _plot_family_errors(right, errors, family)
    labels = [_decade_label(decade) for decade in errors]
    right.set_xticks(list(errors), labels)
    right.set(yscale="log", xlabel="size of the GEMM, GFLOP")
    right.set_ylabel("absolute error of runtime, %")
    set_log_ticks(right.yaxis, ERROR_TICKS)
    left.legend(frameon=False)
    right.set_title("lines: median, dots: 90th percentile")
    right.legend(frameon=False, ncols=2)
    return figure


def _plot_errors(axes: Axes, held: HeldOutRows) -> None:
    measured = held.data.measured
    gflop = 1e-3 * measured["tflops"] * measured["runtime_us"]
    errors = held.errors("runtime_us")
    families = held.data.column("family")
    scatter_by_family(axes, gflop, errors, families, size=20, alpha=0.6)
    sizes = np.abs(errors)
    limit = float(np.clip(1.1 * np.percentile(sizes, 98), 10, 150))
    hidden = int(np.sum(sizes > limit))
    axes.axhline(0, color=GREY, linewidth=1)
    axes.set(xscale="log", xlabel="size of the GEMM, GFLOP", ylim=(-limit, limit))
    axes.set_ylabel("error of predicted runtime, %")
    note = f" ({hidden} outside of the picture)" if hidden else ""
    axes.set_title(f"each GEMM{note}")
    set_log_ticks(axes.xaxis, decade_ticks(*axes.get_xlim()))


def _plot_family_errors(axes: Axes, errors: ErrorsBySize, family: str) -> None:
    decades = []
    medians = []
    p90s = []
    for decade, by_family in errors.items():
        if family in by_family:
            decades.append(decade)
            medians.append(by_family[family].median)
            p90s.append(by_family[family].p90)
    colour, marker = FAMILY_COLOURS[family], FAMILY_MARKERS[family]
    axes.plot(decades, medians, "-", color=colour, marker=marker, label=family)
    axes.plot(decades, p90s, ":", color=colour, marker=marker)


def decade_name(decade: int) -> str:
    """9 is "1 to 10 GFLOP"."""
    low = decade - 9
    return f"{_power_of_ten(low)} to {_power_of_ten(low + 1)} GFLOP"


def _decade_label(decade: int) -> str:
    """The name on two lines, without the unit."""
    return decade_name(decade).removesuffix(" GFLOP").replace(" to ", "\nto ")


def _power_of_ten(power: int) -> str:
    return f"{10.0**power:.{max(-power, 0)}f}"


def importance(importances: Sequence[PartImportance], targets: Sequence[str]) -> Figure:
    """Bars in percentage points, the largest on top, one panel a target."""
    count = len(importances)
    width = 6.5 + 4.3 * (len(targets) - 1)
    height = 1.0 + 0.36 * count
    figure, panels = new_panels(len(targets), width, height, sharey=True)
    for axes, target in zip(panels, targets, strict=True):
        _plot_rises(axes, [one.rises[target] for one in importances])
        axes.set(title=TARGET_NAMES[target], xlabel="rise of the mean error, points")
    panels[0].set_yticks(range(count), [one.name for one in importances])
    panels[0].invert_yaxis()
    return figure


def _plot_rises(axes: Axes, rises: Sequence[float]) -> None:
    axes.barh(range(len(rises)), rises, color=SERIES_COLOURS[0], height=0.6)
    for place, rise in enumerate(rises):
        text = f"{rise:+.1f}" if abs(rise) < 10 else f"{rise:+,.0f}"
        axes.annotate(
            text,
            (max(rise, 0), place),
            (4, 0),
            textcoords="offset points",
            va="center",
        )
    axes.set_xscale("symlog", linthresh=1)
    smallest = min([*rises, 0.0])
    largest = max([*rises, 1.0])

    # room for the numbers beside the bars
    right = 1.5 * largest * (1 + largest) ** 0.4
    axes.set_xlim(1.5 * smallest, right)
    axes.set_xticks([tick for tick in RISE_TICKS if tick <= 1.5 * largest])
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axes.set_xticks([], minor=True)


def by_tile(family: FamilyByTile) -> Figure:
    """Relative to the mean of all tiles: predicted as a line with its span, measured as rings."""
    count = len(family.dependences)
    names, axis_name = _tile_names(family)
    figure, panels = new_panels(count, 6.5 * count, 4.6)
    for axes, dependence in zip(panels, family.dependences, strict=True):
        _plot_dependence(axes, dependence)
        rotation = 45 if max(map(len, names)) > LONG_NAME else 0
        axes.set_xticks(range(len(names)), names, rotation=rotation)
        axes.set_xlabel(axis_name)
        set_log_ticks(axes.yaxis, TILE_TICKS)
    panels[0].legend(frameon=False)
    return figure


def _tile_names(family: FamilyByTile) -> tuple[list[str], str]:
    """Names of the tiles, as short as they can be, and the label of their axis."""
    if all(m == n == k for m, n, k in family.tiles):
        return [str(m) for m, _, _ in family.tiles], "tile"
    faces = [f"{m}x{n}" for m, n, _ in family.tiles]
    if len(set(faces)) == len(faces):
        return faces, "tile, m x n"
    return [f"{m}x{n}x{k}" for m, n, k in family.tiles], "tile, m x n x k"


def _plot_dependence(axes: Axes, dependence: TileDependence) -> None:
    at = np.arange(len(dependence.predicted))
    axes.fill_between(
        at,
        dependence.low,
        dependence.high,
        color=SERIES_COLOURS[0],
        alpha=0.15,
        linewidth=0,
        label="predicted, 8 of 10 problems",
    )
    axes.plot(
        at,
        dependence.predicted,
        "-o",
        color=SERIES_COLOURS[0],
        markersize=5,
        label="predicted, mean",
    )
    if dependence.measured is not None:
        axes.plot(
            at,
            dependence.measured,
            "o",
            color=SERIES_COLOURS[1],
            markersize=10,
            fillstyle="none",
            markeredgewidth=2,
            label="measured, mean",
        )
    axes.axhline(1, color=GREY, linewidth=1)
    name = TARGET_NAMES[dependence.target]
    which = "held-out problems" if dependence.held_out else "problems, held out or not"
    axes.set(yscale="log", ylabel=f"{name} over the mean of all tiles")
    axes.set_title(f"{name}, {dependence.problems} {which}")


def time_and_energy(tradeoff: Tradeoff) -> Figure:
    """Configurations of one problem: the measured front is a line, the model's is rings.

    The numbers on the front are those of the table in the report.
    """
    figure, axes = new_axes(9, 5.6)
    time, energy = tradeoff.time_us, tradeoff.energy_mj
    front = tradeoff.front
    axes.plot(
        time[front], energy[front], color=GREY, linewidth=1.2, label="measured front", zorder=1
    )
    families = np.array(tradeoff.families)
    scatter_by_family(axes, time, energy, families, size=40, alpha=0.9)
    axes.scatter(
        time[tradeoff.predicted_front],
        energy[tradeoff.predicted_front],
        s=150,
        facecolors="none",
        edgecolors=DARK_TEXT,
        linewidths=1.6,
        label="model's front",
    )
    _number_front(axes, tradeoff)
    axes.set(xlabel="sustained runtime, µs", ylabel="energy of one launch, mJ")
    axes.set_title(tradeoff.problem)
    _scale(axes, "x", time)
    _scale(axes, "y", energy)
    axes.legend(frameon=False)
    return figure


def _number_front(axes: Axes, tradeoff: Tradeoff) -> None:
    """Below each point, where the front leaves room."""
    front = tradeoff.front.tolist()
    for number, at in enumerate(front, 1):
        words = [str(number)]
        if at == front[0]:
            words.append("fastest")
        if at == front[-1]:
            words.append("least energy")
        axes.annotate(
            _joined(words),
            (tradeoff.time_us[at], tradeoff.energy_mj[at]),
            (0, -10),
            textcoords="offset points",
            ha="center",
            va="top",
        )


def _joined(words: Sequence[str]) -> str:
    """["1", "fastest", "least energy"] is "1 fastest, least energy"."""
    return f"{words[0]} {', '.join(words[1:])}".strip()


def _scale(axes: Axes, name: str, values: Floating) -> None:
    """A logarithmic axis if the values differ much."""
    if values.max() <= LOG_SPAN * values.min():
        return
    if name == "x":
        axes.set_xscale("log")
    else:
        axes.set_yscale("log")
    axes.margins(0.18)
    axis = axes.xaxis if name == "x" else axes.yaxis
    set_log_ticks(axis, power_ticks(TRADEOFF_DIGITS, range(-6, 10)))
