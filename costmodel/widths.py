"""Intervals of a model that starts from a base: the base's, wider or narrower.

    margin = width x margin of the base

The width of each output and group of kernels is calibrated on own rows that were not trained on:
split conformal prediction, as in costmodel/intervals.py, of errors over the base's margins. With
too few rows for a quantile the intervals are not narrower than the base's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Self

import numpy as np
import numpy.typing as npt

from costmodel import graph_ops
from costmodel.graph_ops import Array
from costmodel.intervals import conformal_rank

Values = npt.NDArray[np.float64]

MIN_GROUP_ROWS: Final = 50
"""A group with fewer rows has the width of all groups together."""
MIN_ROWS: Final = 20
"""With fewer rows a width is at least 1."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Widths:
    """Of one model."""

    pooled: Mapping[str, float]
    """Output -> width over all groups."""
    by_group: Mapping[tuple[str, float], float]
    """(output, group) -> width, of the groups with enough rows."""

    @classmethod
    def of(cls, excess: Mapping[str, Values], groups: Values) -> Self:
        """From rows that the model was not trained on.

        Args:
            excess: output -> [n_rows] error in logarithms over the base's margin, NaN where it was
                not measured.
            groups: [n_rows] the group of each row.
        """
        pooled: dict[str, float] = {}
        by_group: dict[tuple[str, float], float] = {}
        for name, values in excess.items():
            known = ~np.isnan(values)
            pooled[name] = _width(values[known])
            for group in np.unique(groups[known]).tolist():
                of_group = values[known & (groups == group)]
                if len(of_group) >= MIN_GROUP_ROWS:
                    by_group[name, group] = _width(of_group)
        return cls(pooled=pooled, by_group=by_group)

    def factors(self, outputs: Sequence[str], groups: Array) -> Array:
        """[n, n_outputs] for groups[n, 1]; array-API code, traced into the graph."""
        xp = groups.__array_namespace__()
        pooled = np.array([self.pooled[name] for name in outputs])
        names = sorted({group for _, group in self.by_group})
        added = np.zeros((len(names) + 1, len(outputs)))
        for row, group in enumerate(names):
            for column, name in enumerate(outputs):
                width = self.by_group.get((name, group), pooled[column])
                added[row, column] = width - pooled[column]
        # NaN is no group: there is always one column
        known = np.array([[*names, np.nan]], dtype=np.float32)
        is_group = xp.astype(groups == xp.asarray(known), xp.float32)
        of_groups = xp.asarray(added.astype(np.float32))
        of_all = xp.asarray(pooled.astype(np.float32))
        return graph_ops.gemm(is_group, of_groups, of_all)


def _width(excess: Values) -> float:
    """What the base's margins are multiplied by, so that they hold here."""
    if not len(excess):
        return 1.0
    in_order = np.sort(excess)
    rank = conformal_rank(len(excess))
    width = float(in_order[rank - 1])
    return width if len(excess) >= MIN_ROWS else max(1.0, width)
