"""Boards of one type: how evenly they share the cells, and how far their readings of a cell differ.

    effective number = 1 / sum (share of the cells)^2      thirteen boards with equal shares are 13
    difference       = 100 |later / earlier - 1|           in per cent

Repeats of a cell on one board are one reading, their median. No model that does not know the single
board can be expected to predict better than these differences.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from itertools import combinations
from typing import NamedTuple, TypedDict

import numpy as np

from coordinator.samples.columns import Codes, Columns, Mask, Numbers
from costmodel.dataset import READINGS
from costmodel.evaluate.overlap import BOARD, CELL, SHAPE


class BoardCounts(TypedDict):
    """How cells are spread over boards."""

    boards: int
    effective_boards: float
    """Inverse Simpson over cells: a cell on two boards counts for both."""
    effective_boards_with_power: float
    """The same over cells with power; 0 where there are none."""
    cells_on_two_boards: int
    """Measured on two boards of one type, or more."""
    cells_on_two_boards_with_power: int
    """With power on both."""


class Difference(TypedDict):
    """How far one reading of a cell differs between boards."""

    median: float
    p90: float
    p99: float
    pairs: int
    """Pairs of boards that measured one cell, over all cells."""
    shapes: int
    board_pairs: int
    """Different pairs of boards."""


class Pair(NamedTuple):
    """Rows of one cell on two boards, those of the earlier board first."""

    earlier: list[int]
    later: list[int]


def board_counts(measured: Columns) -> BoardCounts:
    """Of the rows that are ok."""
    has_power = ~np.isnan(measured.numbers("power_w"))
    cells = measured.codes(*CELL)
    boards = measured.codes(*BOARD)
    everywhere = np.ones(len(measured), dtype=bool)
    return BoardCounts(
        boards=len(set(boards.tolist())),
        effective_boards=_effective_number(cells, boards, everywhere),
        effective_boards_with_power=_effective_number(cells, boards, has_power),
        cells_on_two_boards=_on_two(cells, boards, everywhere),
        cells_on_two_boards_with_power=_on_two(cells, boards, has_power),
    )


def board_differences(measured: Columns) -> dict[str, Difference]:
    """Reading -> how far it differs between boards of one type; only readings taken on two."""
    pairs = list(_pairs(measured))
    boards = measured.codes(*BOARD)
    shapes = measured.codes(*SHAPE)
    differences: dict[str, Difference] = {}
    for name in READINGS:
        readings = measured.numbers(name)
        percents: list[float] = []
        compared: list[tuple[int, int, int]] = []
        for earlier, later in pairs:
            first, second = _median(readings[earlier]), _median(readings[later])
            if not first or not second:
                continue
            percents.append(100 * abs(second / first - 1))
            compared.append((shapes[earlier[0]], *sorted((boards[earlier[0]], boards[later[0]]))))
        if percents:
            differences[name] = _difference(percents, compared)
    return differences


def _difference(percents: list[float], compared: list[tuple[int, int, int]]) -> Difference:
    """Of pairs.

    Args:
        percents: [n_pairs].
        compared: [n_pairs] shape and the two boards of each.
    """
    median, p90, p99 = np.percentile(percents, [50, 90, 99])
    return Difference(
        median=float(median),
        p90=float(p90),
        p99=float(p99),
        pairs=len(percents),
        shapes=len({shape for shape, _, _ in compared}),
        board_pairs=len({(one, other) for _, one, other in compared}),
    )


def _pairs(measured: Columns) -> Iterator[Pair]:
    """Every two boards of every cell that more than one measured."""
    cells = measured.codes(*CELL)
    boards = measured.codes(*BOARD)
    in_time = np.argsort(measured.words("measured_at").astype(str), kind="stable")
    rows_of_cell: dict[int, dict[int, list[int]]] = defaultdict(lambda: defaultdict(list))
    for row in in_time.tolist():
        rows_of_cell[cells[row]][boards[row]].append(row)
    for rows_of_board in rows_of_cell.values():
        for earlier, later in combinations(rows_of_board.values(), 2):
            yield Pair(earlier, later)


def _median(readings: Numbers) -> float | None:
    """Of those that were taken."""
    taken = readings[~np.isnan(readings)]
    return float(np.median(taken)) if len(taken) else None


def _effective_number(cells: Codes, boards: Codes, rows: Mask) -> float:
    """Of boards, by their shares of the different cells among these rows."""
    if not rows.any():
        return 0.0
    different = np.unique(np.stack([cells[rows], boards[rows]]), axis=1)
    counts = np.bincount(different[1])
    shares = counts / counts.sum()
    return float(1 / np.sum(shares**2))


def _on_two(cells: Codes, boards: Codes, rows: Mask) -> int:
    """Cells that two boards or more have among these rows."""
    different = np.unique(np.stack([cells[rows], boards[rows]]), axis=1)
    return int((np.bincount(different[0]) > 1).sum())
