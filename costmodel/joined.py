"""Two models in one file: one that starts from a base, and one for what the base does not contain.

A fleet of GPUs and CPUs has one model. The base of its GPUs says nothing of CPUs, so their rows are
fitted from nothing, as without a base; each query is answered by the part that its family belongs
to. Knows nothing of how either part is fitted.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, Self

import numpy as np

from costmodel import graph_ops
from costmodel.adapted import AdaptedModel
from costmodel.base import Base
from costmodel.dataset import Mask, TrainingSet
from costmodel.graph_ops import Array
from costmodel.model import CostModel, Predicted
from costmodel.progress import Step, no_step
from gemmcast.query import EXTRAPOLATING, INTERVALS, OUTPUTS, Rows

MEMBERS: Final = 2
"""Networks of the part without a base: with four a query would take too long for the gate."""


class JoinedModel:
    """It has what the trainer uses of a CostModel."""

    outputs_: tuple[str, ...]
    targets_: tuple[str, ...]

    def __init__(self, base: Base) -> None:
        self.base = base
        self.adapted = AdaptedModel(base)
        self.rest = CostModel(members=MEMBERS)

    def fit_dataset(self, data: TrainingSet, step: Step = no_step) -> Self:
        """Fit each part on its rows; both must have some."""
        is_covered = self._is_covered(data)
        self.adapted.fit_dataset(data.take(is_covered), step)
        self.rest.fit_dataset(data.take(~is_covered), step)
        both = {*self.adapted.outputs_, *self.rest.outputs_}
        self.outputs_ = tuple(name for name in OUTPUTS if name in both)
        self.targets_ = self.adapted.targets_
        self.tree_weight_ = self.adapted.tree_weight_
        return self

    def predict(self, queries: Rows) -> Predicted:
        """Every output, low and high, and extrapolating, of queries[n_rows, n_fields]."""
        return {name: np.asarray(values) for name, values in self.evaluate(queries).items()}

    def evaluate(self, query: Array) -> dict[str, Array]:
        """`predict` as array-API code, traced into the graph."""
        xp = query.__array_namespace__()
        is_covered = self.base.covers(query)
        covered_rows = graph_ops.squeeze(is_covered)
        adapted, rest = self.adapted.evaluate(query), self.rest.evaluate(query)
        missing = xp.asarray(np.float32(np.nan))
        named: dict[str, Array] = {}
        for name in self.outputs_:
            ours, theirs = adapted.get(name, missing), rest.get(name, missing)
            named[name] = xp.where(covered_rows, ours, theirs)
        for side in INTERVALS:
            ours = self._all_outputs(adapted[side], self.adapted.outputs_)
            theirs = self._all_outputs(rest[side], self.rest.outputs_)
            named[side] = xp.where(is_covered, ours, theirs)
        named[EXTRAPOLATING] = xp.where(covered_rows, adapted[EXTRAPOLATING], rest[EXTRAPOLATING])
        return named

    def prefilter(self, query: Array) -> Array:
        """[n] runtime_us by the smaller graph of each part."""
        xp = query.__array_namespace__()
        is_covered = graph_ops.squeeze(self.base.covers(query))
        return xp.where(is_covered, self.adapted.prefilter(query), self.rest.prefilter(query))

    def _all_outputs(self, ends: Array, outputs: Sequence[str]) -> Array:
        """[n, n_outputs] of ends[n, len(outputs)], NaN for what is not among them."""
        if tuple(outputs) == self.outputs_:
            return ends
        xp = ends.__array_namespace__()
        missing = 0.0 * ends[:, :1] + np.float32(np.nan)
        last = len(outputs)
        places = [outputs.index(name) if name in outputs else last for name in self.outputs_]
        columns = xp.concat([ends, missing], axis=1)
        return xp.take(columns, xp.asarray(np.array(places)), axis=1)

    def _is_covered(self, data: TrainingSet) -> Mask:
        """[n_rows] of the kinds of device that the base contains."""
        is_covered: Mask = self.base.covers(data.queries)[:, 0]
        return is_covered
