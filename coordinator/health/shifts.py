"""How far the readings of a board are from what they should be: three yardsticks.

    sisters    other boards' readings of the same cells
    alike      other boards' readings of cells of the same kind, family and dtype, each over what
               the model says for its very shape: for sweeps, in which boards divide the cells
    model      what the model says for that shape on a healthy board of this type

The shift of a board is the median over its cells; one broken cell, or one broken sister of several,
does not move it. Its standard uncertainty has what a median of so many cells leaves, and how much
healthy boards differ:

    u^2 = (MEDIAN s)^2 (1/n + 1/n_others) + between^2 (1 + 1/sisters)

s is the scatter of the cells, 1.48 times their median absolute deviation. Every yardstick leaves
the judged board out of what it is held against. Does not know what a shift means.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import hypot, sqrt
from statistics import median
from typing import Final, Literal

import numpy as np

from coordinator.health.readings import Codes, Mask, Numbers, Words

Yardstick = Literal["sisters", "alike", "model"]
MEDIAN: Final = 1.2533
"""Standard error of a median over that of a mean."""
SCATTER: Final = 1.4826
"""Standard deviation over the median absolute deviation, of a normal distribution."""
FEWEST_CELLS: Final = 4
"""Cells with sisters that a shift is taken over at least."""
FEWEST_ALIKE: Final = 30
"""The same without sisters, and the readings of other boards that they are held against."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Spread:
    """What healthy boards of one type differ by, in natural logarithms."""

    boards: float
    """Standard deviation of a board's shift."""
    cells: float
    """The scatter of the cells of two boards, at least."""
    mixes: float
    """What a shift against cells that are alike is off, besides."""
    model: float
    """What the model is off over all cells of a kind, for a type that it was trained on."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Shift:
    """How far one board is off."""

    shift: float
    """Natural logarithm: 0.03 is 3 % above."""
    sigmas: float
    """The shift over its standard uncertainty."""
    cells: int
    """Cells that it is the median of."""
    sisters: int
    """Boards that it was held against; 0: the model alone."""
    against: Yardstick

    @property
    def percent(self) -> float:
        """How much the reading is above what it should be. [%]"""
        return 100 * float(np.expm1(self.shift))


def against_sisters(
    values: Numbers, boards: Words, cells: Codes, board: str, spread: Spread
) -> Shift | None:
    """The shift of a board from the median of its sisters at the same cells.

    Args:
        values: [n] logarithms; NaN: not read.
        boards: [n] UUIDs.
        cells: [n] equal numbers for equal cells.

    Returns:
        None: too few cells have a sister.
    """
    differences: list[float] = []
    counts: list[int] = []
    own = boards == board
    wanted = np.isin(cells, cells[own]) & ~np.isnan(values)
    for group in _groups(cells, wanted):
        is_own = own[group]
        if is_own.all() or not is_own.any():
            continue
        others = values[group][~is_own].tolist()
        differences.append(float(values[group][is_own][0]) - median(others))
        counts.append(len(others))
    if len(differences) < FEWEST_CELLS:
        return None
    sisters = round(median(counts))
    shift, scatter = _median_and_scatter(np.array(differences), spread.cells)
    sampling = MEDIAN * scatter / sqrt(len(differences))
    u = hypot(sampling, spread.boards * sqrt(1 + 1 / sisters))
    return Shift(
        shift=shift,
        sigmas=shift / u,
        cells=len(differences),
        sisters=sisters,
        against="sisters",
    )


def against_alike(
    over_model: Numbers, boards: Words, alike: Codes, board: str, spread: Spread
) -> Shift | None:
    """The shift of a board from other boards at cells that are alike.

    Args:
        over_model: [n] logarithms of reading over prediction; NaN: there is none.
        alike: [n] equal numbers for cells that are alike.

    Returns:
        None: too few cells, of this board or of others.
    """
    own = boards == board
    differences: list[Numbers] = []
    others_of: list[Numbers] = []
    sisters = set[str]()
    for group in _groups(alike, ~np.isnan(over_model)):
        mine, others = group[own[group]], group[~own[group]]
        if not len(mine) or len(others) < FEWEST_ALIKE:
            continue
        usual = np.median(over_model[others])
        differences.append(over_model[mine] - usual)
        others_of.append(over_model[others] - usual)
        sisters |= set(boards[others].tolist())
    if sum(map(len, differences)) < FEWEST_ALIKE:
        return None
    both = np.concatenate(differences), np.concatenate(others_of)
    shift, scatter = _median_and_scatter(both[0], spread.cells)
    sampling = MEDIAN * scatter * sqrt(1 / len(both[0]) + 1 / len(both[1]))
    u = hypot(sampling, spread.mixes, spread.boards * sqrt(1 + 1 / len(sisters)))
    return Shift(
        shift=shift,
        sigmas=shift / u,
        cells=len(both[0]),
        sisters=len(sisters),
        against="alike",
    )


def against_model(over_model: Numbers, spread: Spread) -> Shift | None:
    """The shift of a board from what the model says.

    Args:
        over_model: [n] of this board, as for `against_alike`.

    Returns:
        None: too few cells.
    """
    known = over_model[~np.isnan(over_model)]
    if len(known) < FEWEST_CELLS:
        return None
    shift, scatter = _median_and_scatter(known, spread.cells)
    u = hypot(MEDIAN * scatter / sqrt(len(known)), spread.model, spread.boards)
    return Shift(shift=shift, sigmas=shift / u, cells=len(known), sisters=0, against="model")


def _median_and_scatter(differences: Numbers, least: float) -> tuple[float, float]:
    shift = float(np.median(differences))
    scatter = SCATTER * float(np.median(np.abs(differences - shift)))
    return shift, max(scatter, least)


def _groups(numbers: Codes, wanted: Mask) -> Iterator[Codes]:
    """The places of each number, among those that are wanted."""
    places = np.flatnonzero(wanted)
    order = places[np.argsort(numbers[places], kind="stable")]
    ends = np.flatnonzero(np.diff(numbers[order])) + 1
    yield from (part for part in np.split(order, ends) if len(part))
