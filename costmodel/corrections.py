"""What corrects a base for one target, on one type of device: a Gaussian process, trees, or both.

Which of them is worth it is found out by trying (costmodel/adapted.py), so the same correction is
asked for several times: `Observed` fits each of them once. Does not know what a base is.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, NamedTuple

import numpy as np
from sklearn.ensemble import HistGradientBoostingRegressor

from costmodel.base import Answers
from costmodel.gaussian_process import Points, Process, fit_process
from costmodel.graph_ops import Array
from costmodel.outputs import Values
from costmodel.terms import Terms
from costmodel.trees import TreeSettings, fit_trees, predict_trees

TREES: Final = TreeSettings(iterations=150, leaves=31, learning_rate=0.05, min_leaf_rows=10)


@dataclass(frozen=True, slots=True, kw_only=True)
class Correction:
    """Of one target, on one type of device."""

    process: Process | None
    """None where too few rows say something, or where it does not help."""
    trees: HistGradientBoostingRegressor | None
    """None where they do not help."""

    def value(self, points: Points, quantities: Array) -> Array:
        """[n, 1] in logarithms; array-API code, traced into the graph."""
        xp = quantities.__array_namespace__()
        value = 0.0 * quantities[:, :1]
        if self.process is not None:
            value = value + xp.astype(self.process.value(points), xp.float32)
        if self.trees is not None:
            value = value + predict_trees(self.trees, quantities)
        return value


class Parts(NamedTuple):
    """What corrects a target."""

    process: bool
    """Whether a Gaussian process does."""
    trees: bool
    """Whether boosted trees correct what is left."""


NOTHING, PROCESS, TREES_ALONE, BOTH = (
    Parts(process=False, trees=False),
    Parts(process=True, trees=False),
    Parts(process=False, trees=True),
    Parts(process=True, trees=True),
)


TRIED: Final = (PROCESS, NOTHING, TREES_ALONE, BOTH)
"""One after another; nothing at all needs no proof that it is worth it."""


class Asked(NamedTuple):
    """What is computed of some queries before any correction."""

    terms: Terms
    """Floor, work and quantities."""
    answers: Answers
    """Of the base."""
    points: Points
    """Where the processes are asked."""
    shares: list[Array]
    """For each type of own device [n, 1] whether the query is about it."""


@dataclass(frozen=True, slots=True)
class Observed:
    """Own rows, as corrections are fitted on them."""

    asked: Asked
    """What the base and the floor say of them."""
    residuals: Mapping[str, Values]
    """Target -> [n] logarithm of what was measured over what the base says; NaN: not measured."""
    _fitted: dict[tuple[int, str, Parts], Correction] = field(default_factory=dict)

    def rows_with(self, target: str) -> int:
        """How many rows a target can be corrected on."""
        return int(np.sum(~np.isnan(self.residuals[target])))

    def correction(self, of_type: int, target: str, parts: Parts) -> Correction:
        """Of one target, on the type of device with this number. Fitted once."""
        key = of_type, target, parts
        if key not in self._fitted:
            self._fitted[key] = self._fit(of_type, target, parts)
        return self._fitted[key]

    def _fit(self, of_type: int, target: str, parts: Parts) -> Correction:
        rows = np.flatnonzero(self.asked.shares[of_type][:, 0] > 0)
        points = self.asked.points.take(rows)
        residuals = self.residuals[target][rows]
        if not parts.trees:
            process = fit_process(points, residuals) if parts.process else None
            return Correction(process=process, trees=None)
        process = self.correction(of_type, target, PROCESS).process if parts.process else None
        if process is not None:
            residuals = residuals - process.value(points)[:, 0]
        if np.isnan(residuals).all():
            return Correction(process=process, trees=None)
        quantities = self.asked.terms.quantities[rows]
        return Correction(process=process, trees=fit_trees(TREES, quantities, residuals))
