"""Intervals around predictions: a factor up and down that nine of ten measurements lie within.

    low, high = value x exp(-/+ margin),  margin = width + SPREAD_WEIGHT x spread

The spread shows where the networks disagree. The width is calibrated for each output and group of
kernels (a family, with and without a named algorithm) on rows that were not trained on: split
conformal prediction (Lei, G'Sell, Rinaldo, Tibshirani & Wasserman, JASA 2018). Outside the training
range the intervals are not reliable.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from costmodel import graph_ops
from costmodel.categories import Categories
from costmodel.graph_ops import Array
from gemmcast.query import COVERAGE

Values = npt.NDArray[np.float64]
Matrix = npt.NDArray[np.float32]
Outputs = tuple[str, ...]

SPREAD_WEIGHT: Final = np.float32(2.0)
MIN_GROUP_ROWS: Final = 50
"""A group with fewer rows has the width of all groups together."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Intervals:
    """Widths of one model, in logarithms."""

    pooled: Mapping[str, float]
    """Output -> width over all groups."""
    by_group: Mapping[tuple[str, float], float]
    """(output, group) -> width, of the groups with enough rows."""

    def width_table(self, outputs: Outputs, categories: Categories) -> tuple[Matrix, Matrix]:
        """pooled[n_outputs], and what to add for each category[n_categories, n_outputs]."""
        widest = max(self.pooled.values())
        # An output that was never measured is a product of measured ones
        pooled = np.array([self.pooled.get(name, widest) for name in outputs])
        added = np.zeros((len(categories), len(outputs)))
        for row, group in categories.kernel_groups():
            for column, name in enumerate(outputs):
                width = self.by_group.get((name, group), pooled[column])
                added[row, column] = width - pooled[column]
        return pooled.astype(np.float32), added.astype(np.float32)

    def margins(
        self,
        outputs: Outputs,
        categories: Categories,
        one_hot: Array,
        spread: Array,
        targets_of_outputs: Matrix,
    ) -> Array:
        """[n, n_outputs] half widths in logarithms; array-API code, traced into the graph.

        Args:
            outputs: their names, in the order of the columns.
            categories: what the columns of one_hot are.
            one_hot: [n, n_categories].
            spread: [n, n_targets] of the networks.
            targets_of_outputs: [n_targets, n_outputs] 1 where an output is made of a target.
        """
        xp = spread.__array_namespace__()
        pooled, added = self.width_table(outputs, categories)
        widths = graph_ops.gemm(one_hot, xp.asarray(added), xp.asarray(pooled))
        return graph_ops.gemm(spread, xp.asarray(SPREAD_WEIGHT * targets_of_outputs), widths)


def calibrated(
    errors: Mapping[str, Values], spreads: Mapping[str, Values], groups: Values
) -> Intervals:
    """Widths from rows that the model was not trained on.

    Args:
        errors: output -> [n_rows] |log(measured / predicted)|, NaN where it was not measured.
        spreads: output -> [n_rows] spread of the networks.
        groups: [n_rows] the group of each row.
    """
    pooled: dict[str, float] = {}
    by_group: dict[tuple[str, float], float] = {}
    for name, error in errors.items():
        measured = ~np.isnan(error)
        if not measured.any():
            continue
        excess = (error - SPREAD_WEIGHT * spreads[name])[measured]
        pooled[name] = _conformal_quantile(excess)
        for group in np.unique(groups[measured]).tolist():
            of_group = excess[groups[measured] == group]
            if len(of_group) >= MIN_GROUP_ROWS:
                by_group[name, group] = _conformal_quantile(of_group)
    return Intervals(pooled=pooled, by_group=by_group)


def _conformal_quantile(excess: Values) -> float:
    """The ceil((n + 1) COVERAGE)-th smallest of n, so that the next one is within as often."""
    rank = min(len(excess), int(np.ceil((len(excess) + 1) * COVERAGE)))
    return max(0.0, float(np.sort(excess)[rank - 1]))
