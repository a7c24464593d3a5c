"""What the figures share: colours, words, panels, scatter plots and the ticks of logarithmic axes.

Figures are made without pyplot: nothing is global, no figure has to be closed, and importing this
file selects no backend. A tile and a kernel family have one colour and one shape in all figures.
Knows nothing of models or samples.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.axis import Axis, XAxis
from matplotlib.figure import Figure

from costmodel.dataset import Column
from gemmcast.config import FAMILIES

Floating = npt.NDArray[np.floating]

GREY = "#5b6b7b"
DARK_TEXT = "#1c2733"
SERIES_COLOURS = (
    "#0072b2",
    "#d55e00",
    "#009e73",
    "#b5609a",
    "#7c5cd6",
    "#94711f",
    "#d1495b",
)
"""People who are colour-blind tell them apart (after Okabe & Ito); 3:1 on white and on dark."""
SERIES_MARKERS = ("o", "s", "^", "D", "v", "P", "X")
SERIES_DASHES = ("-", "--", "-.", ":")
TILES = (1, 2, 4, 8, 16, 32)
TILE_COLOURS = dict(zip(TILES, SERIES_COLOURS, strict=False))
TILE_MARKERS = dict(zip(TILES, SERIES_MARKERS, strict=False))
FAMILY_COLOURS = dict(zip(FAMILIES, SERIES_COLOURS, strict=True))
FAMILY_MARKERS = dict(zip(FAMILIES, SERIES_MARKERS, strict=True))
MAX_POINTS = 900
"""Points of one panel: of more rows some are drawn, the same ones at every call."""
TARGET_NAMES = {
    "runtime_us": "runtime",
    "sustained_runtime_us": "sustained runtime",
    "power_w": "power",
    "energy_mj": "energy",
    "tflops": "throughput",
}
TARGET_UNITS = {
    "runtime_us": "µs",
    "sustained_runtime_us": "µs",
    "power_w": "W",
    "energy_mj": "mJ",
    "tflops": "TFLOP/s",
}
MIN_X_GAP = 0.1
"""Least distance of two ticks, as a share of the axis."""
MIN_Y_GAP = 0.06
"""The same on a vertical axis, where numbers take less room."""
LONG_AXIS = 300
"""Above this ratio of its ends, a logarithmic axis has ticks at the powers of ten only."""


def new_axes(width: float, height: float) -> tuple[Figure, Axes]:
    """A figure with one panel; its size in inches."""
    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, figure.subplots()


def new_panels(
    columns: int, width: float, height: float, *, sharex: bool = False, sharey: bool = False
) -> tuple[Figure, Sequence[Axes]]:
    """A figure with panels side by side; the size of the whole in inches."""
    figure = Figure(figsize=(width, height), layout="constrained")
    panels = figure.subplots(1, columns, squeeze=False, sharex=sharex, sharey=sharey)
    return figure, list(panels[0])


def scatter_by_family(
    axes: Axes, x: Floating, y: Floating, families: Column, *, size: int, alpha: float
) -> None:
    """One point a row, in the colour and shape of its family; of many rows MAX_POINTS in all."""
    names = sorted(set(families.tolist()))
    for family in names:
        members = np.flatnonzero(families == family)
        shown = thinned(members, MAX_POINTS // len(names))
        axes.scatter(
            x[shown],
            y[shown],
            s=size,
            alpha=alpha,
            label=family,
            edgecolors="none",
            color=FAMILY_COLOURS[family],
            marker=FAMILY_MARKERS[family],
        )


def thinned(members: npt.NDArray[np.int64], most: int) -> npt.NDArray[np.int64]:
    """At most so many of them, drawn with a fixed seed, in order."""
    if len(members) <= most:
        return members
    return np.sort(np.random.default_rng(0).choice(members, most, replace=False))


def set_log_ticks(axis: Axis, ticks: Iterable[float]) -> None:
    """Show only these ticks on a logarithmic axis, and fewer where they would touch."""
    low, high = axis.get_view_interval()
    share = MIN_X_GAP if isinstance(axis, XAxis) else MIN_Y_GAP
    min_gap = share * np.log(high / low)
    shown: list[float] = []
    for tick in ticks:
        if not low <= tick <= high:
            continue
        if not shown or np.log(tick / shown[-1]) > min_gap:
            shown.append(tick)
    axis.set_ticks(shown)
    axis.set_ticks([], minor=True)
    axis.set_major_formatter(lambda value, _: f"{value:g}")


def decade_ticks(low: float, high: float) -> list[float]:
    """Powers of ten, with 2 and 5 between them on a short axis."""
    digits = (1, 2, 5) if high / low < LONG_AXIS else (1,)
    return power_ticks(digits, range(-9, 13))


def power_ticks(digits: Sequence[float], powers: Iterable[int]) -> list[float]:
    """Each digit times each power of ten, ascending."""
    ticks = []
    for power in powers:
        ticks += [digit * 10.0**power for digit in digits]
    return ticks
