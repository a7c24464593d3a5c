"""Figures of a language model: time against energy, gain by shape, and the winning tile.

Each function draws one result of gemmcast/forward_pass.py or winning_tiles.py. Nothing is computed
here but axis limits and colours.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from coordinator.report.drawing import (
    GREY,
    SERIES_COLOURS,
    SERIES_DASHES,
    SERIES_MARKERS,
    new_panels,
    power_ticks,
    set_log_ticks,
)
from coordinator.report.winning_tiles import ShapeGains, TileMap
from gemmcast.forward_pass import Cost, PassCost, by_tokens, pareto

MAX_PANELS = 4
"""Panels of one figure; further numbers of tokens are in the table only."""
PANEL_INCHES = 4.9
GAIN_WIDTH = 6
GAIN_HEIGHT = 4.6
MAP_WIDTH = 10
MAP_HEIGHT = 5
GAIN_TICKS = (1, 1.1, 1.2, 1.5, 2, 3, 5, 10, 20)
LOG_SPAN = 2.5
"""The axis of time is logarithmic if the front spans more."""
TIME_DIGITS = (1, 1.5, 2, 3, 4, 5, 7)
TIME_POWERS = range(-4, 7)
SMALLEST_AREA = 6
"""log2 of the tile's area at the lower end of the colours."""
LARGEST_AREA = 20
"""At the upper end: beyond every tile, so that none is too dark for its text."""
TIME = "sustained_runtime_us"
ENERGY = "energy_mj"
CELL_TEXT = "#101418"
"""On the colours of the map, which a dark page does not change."""
UNIT = 1000
"""us in a ms, mJ in a J."""


@dataclass(frozen=True, slots=True)
class _Reading:
    """A value with its interval, in ms or J."""

    value: float
    below: float
    """Distance of the lower end."""
    above: float
    """Distance of the upper end."""

    @staticmethod
    def of(cost: Cost, name: str) -> _Reading:
        """One value of a cost that has it."""
        value = getattr(cost, name)
        below = value - cost.low[name]
        above = cost.high[name] - value
        return _Reading(value / UNIT, below / UNIT, above / UNIT)

    @property
    def bar(self) -> list[list[float]]:
        """As matplotlib takes an error bar."""
        return [[self.below], [self.above]]


def time_and_energy(passes: Sequence[PassCost]) -> Figure:
    """One panel a number of tokens; a line joins what no other beats in both."""
    metered = [one for one in passes if ENERGY in one.total.low]
    groups = by_tokens(metered)
    shown = list(groups)[:MAX_PANELS]
    colours = _colours(metered)
    width = PANEL_INCHES * len(shown)
    figure, panels = new_panels(len(shown), width, PANEL_INCHES)
    for axes, tokens in zip(panels, shown, strict=True):
        _plot_group(axes, groups[tokens], colours)
        axes.set_title(f"tokens: {tokens}")
    _add_legend(panels[0])
    return figure


def _colours(passes: Sequence[PassCost]) -> Mapping[str, str]:
    colours: dict[str, str] = {}
    for one in passes:
        colours.setdefault(one.device, SERIES_COLOURS[len(colours) % len(SERIES_COLOURS)])
    return colours


def _plot_group(axes: Axes, group: Sequence[PassCost], colours: Mapping[str, str]) -> None:
    for one in group:
        _plot_pass(axes, one, colours[one.device])
    times: list[float] = []
    energies: list[float] = []
    for one in pareto(group):
        times.append(_Reading.of(one.total, TIME).value)
        energies.append(_Reading.of(one.total, ENERGY).value)
    axes.plot(times, energies, color=GREY, linewidth=1, zorder=0)
    axes.set_xlabel("sustained time, ms")
    axes.set_ylabel("energy, J")
    if times and times[-1] > LOG_SPAN * times[0]:
        axes.set_xscale("log")
        set_log_ticks(axes.xaxis, power_ticks(TIME_DIGITS, TIME_POWERS))


def _plot_pass(axes: Axes, one: PassCost, colour: str) -> None:
    """A point with its interval, and how many GPUs it is; hollow where the weights don't fit."""
    time = _Reading.of(one.total, TIME)
    energy = _Reading.of(one.total, ENERGY)
    place = (time.value, energy.value)
    axes.errorbar(
        *place,
        xerr=time.bar,
        yerr=energy.bar,
        fmt="o",
        color=colour,
        markerfacecolor=colour if one.fits else "none",
        linewidth=0.8,
        label=one.device,
    )
    gpus = str(one.tp)
    axes.annotate(gpus, place, xytext=(4, 4), textcoords="offset points")


def _add_legend(axes: Axes) -> None:
    """Each device once."""
    handles, labels = axes.get_legend_handles_labels()
    by_label = dict(zip(labels, handles, strict=True))
    axes.legend(by_label.values(), by_label.keys(), frameon=False)


def gains_by_shape(gains: Sequence[ShapeGains]) -> Figure:
    """One panel a device, one line a GEMM."""
    width = GAIN_WIDTH * len(gains)
    figure, panels = new_panels(len(gains), width, GAIN_HEIGHT, sharey=True)
    for axes, one in zip(panels, gains, strict=True):
        _plot_gains(axes, one)
    panels[0].legend(frameon=False)
    return figure


def _plot_gains(axes: Axes, one: ShapeGains) -> None:
    places = range(len(one.tokens))
    for place, (name, values) in enumerate(one.gains.items()):
        # A gain that is not known is a gap in the line.
        gains = np.array(values, dtype=np.float64)
        marker = SERIES_MARKERS[place % len(SERIES_MARKERS)]
        dash = SERIES_DASHES[place % len(SERIES_DASHES)]
        axes.plot(places, gains, dash, marker=marker, markersize=5, label=name)
    axes.axhline(1, color=GREY, linewidth=1)
    axes.set_xticks(places, _texts(one.tokens))
    axes.set_xlabel("tokens")
    axes.set_yscale("log")
    axes.set_ylabel("default's time over the first's")
    axes.set_title(f"{one.family} on {one.device}")
    set_log_ticks(axes.yaxis, GAIN_TICKS)


def winning_tiles(maps: Sequence[TileMap]) -> Figure:
    """One panel a device; a colour and a text say the tile."""
    width = MAP_WIDTH * len(maps)
    figure, panels = new_panels(len(maps), width, MAP_HEIGHT)
    for axes, one in zip(panels, maps, strict=True):
        _plot_map(axes, one)
    return figure


def _plot_map(axes: Axes, one: TileMap) -> None:
    areas = np.full((len(one.rows), len(one.columns)), np.nan)
    for row, tiles in enumerate(one.tiles):
        for column, tile in enumerate(tiles):
            if tile is None:
                continue
            areas[row, column] = np.log2(tile.m * tile.n)
            text = f"{tile.m}x{tile.n}"
            axes.text(column, row, text, ha="center", va="center", color=CELL_TEXT)
    axes.imshow(
        areas,
        aspect="auto",
        cmap="YlGnBu",
        vmin=SMALLEST_AREA,
        vmax=LARGEST_AREA,
        origin="lower",
    )
    axes.set_xticks(range(len(one.columns)), _texts(one.columns))
    axes.set_yticks(range(len(one.rows)), _texts(one.rows))
    axes.set_xlabel("n")
    axes.set_ylabel("m")
    axes.set_title(f"{one.family} on {one.device}")


def _texts(numbers: Sequence[int]) -> list[str]:
    return list(map(str, numbers))
