"""The cost model: an analytical floor, corrected by networks and trees, with intervals.

    correction = exp((1 - tree_weight) x network + tree_weight x trees)    for each target
    outputs    = floor and corrections, composed                          costmodel/outputs.py
    low, high  = outputs x exp(-/+ margin)                                costmodel/intervals.py

The parts are terms.py (floor and quantities), categories.py, ensemble.py (networks), trees.py,
intervals.py and training_range.py; `CostModel.evaluate` composes them, in NumPy or while a graph is
traced. The weight of the trees is chosen on a held-out fifth of the shapes; trees that bring little
are left out.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, NamedTuple, Self

import numpy as np
import numpy.typing as npt
from sklearn.base import BaseEstimator, RegressorMixin

from costmodel import graph_ops, intervals
from costmodel.categories import Categories, kernel_group
from costmodel.dataset import Dataset, with_unresolved_copies
from costmodel.ensemble import Ensemble, Size
from costmodel.graph_ops import Array
from costmodel.outputs import (
    OUTPUT_OF_TARGET,
    TARGETS_OF_OUTPUT,
    Measured,
    Values,
    compose,
    outputs_of,
    targets_of,
)
from costmodel.terms import log_inputs, terms
from costmodel.training_range import TrainingRange
from costmodel.trees import TreeSettings, fit_trees, predict_trees
from gemmcast.query import AT, Rows

Predicted = dict[str, npt.NDArray[np.float32]]
"""Output -> [n_rows]; low and high [n_rows, n_outputs]; extrapolating [n_rows]."""
Mask = npt.NDArray[np.bool_]

WIDTHS: Final = {"runtime": 128, "sustained": 24, "power": 48}
"""Of the networks of each target."""
TREE_WEIGHTS: Final = (0.0, 0.25, 0.5, 0.75, 1.0)
WORTH: Final = 0.97
"""Error with trees over the error without, from which on they are worth their time."""
HELD_OUT: Final = 0.2
"""Of the shapes, to choose the weights of the trees."""


class Corrections(NamedTuple):
    """In logarithms, by target in the order of `targets_`, each [n, n_targets]."""

    mean: Array
    spread: Array


class CostModel(RegressorMixin, BaseEstimator):  # type: ignore[misc]
    """A scikit-learn regressor from queries to every output, with its interval.

    Args:
        members: networks of runtime; half as many of the other targets, which fewer rows have.
        steps: of gradient descent, at most, in the fit of a network.
        iterations, leaves, learning_rate, min_leaf: of the trees, see `TreeSettings`.
        tree_weight: of every target; None to choose it on held-out shapes.
    """

    def __init__(
        self,
        members: int = 4,
        steps: int = 15_000,
        iterations: int = 150,
        leaves: int = 31,
        learning_rate: float = 0.1,
        min_leaf: int = 5,
        tree_weight: Mapping[str, float] | None = None,
    ) -> None:
        self.members = members
        self.steps = steps
        self.iterations = iterations
        self.leaves = leaves
        self.learning_rate = learning_rate
        self.min_leaf = min_leaf
        self.tree_weight = tree_weight

    # fitting

    def fit(self, queries: Rows, measured: Measured) -> Self:
        """Fit every part.

        The intervals are those of the shapes that were held out to choose the tree weights. With
        given weights nothing is held out: the intervals are those of the training rows, which are
        too narrow, until `calibrate`.

        Args:
            queries: [n_rows, n_fields].
            measured: runtime_us, and the other outputs with NaN where they were not measured.
        """
        if self.tree_weight is not None:
            self._fit_parts(queries, measured, self.tree_weight)
            self._calibrate(queries, measured)
            return self
        held_out = _held_out_rows(queries)
        training, rest = _rows(measured, ~held_out), _rows(measured, held_out)
        self._fit_parts(queries[~held_out], training, dict.fromkeys(OUTPUT_OF_TARGET, 0.5))
        weights = self._best_tree_weights(queries[held_out], rest)
        self.tree_weight_ = weights
        self._calibrate(queries[held_out], rest)
        self._fit_parts(queries, measured, weights)
        return self

    def fit_dataset(self, data: Dataset) -> Self:
        """`fit`, with library defaults once more as queries without knobs."""
        rows = with_unresolved_copies(data)
        return self.fit(rows.queries, rows.measured)

    def calibrate(self, data: Dataset) -> Self:
        """Replace the intervals by those of shapes that the model was not trained on."""
        rows = with_unresolved_copies(data)
        self._calibrate(rows.queries, rows.measured)
        return self

    def _fit_parts(
        self, queries: Rows, measured: Measured, tree_weight: Mapping[str, float]
    ) -> None:
        analytical_us, _, _, quantities = terms(queries)
        targets = targets_of(analytical_us[:, 0].astype(np.float64), queries, measured)
        self.targets_ = tuple(targets)
        self.outputs_ = outputs_of(self.targets_)
        self.tree_weight_ = dict(tree_weight)
        self.categories_ = Categories.of(queries)
        self.range_ = TrainingRange.of(quantities)
        inputs = self._network_inputs(quantities, self.categories_.one_hot(queries))
        self.networks_ = Ensemble(self._sizes(), self.steps).fit(inputs, targets)
        settings = TreeSettings(
            iterations=self.iterations,
            leaves=self.leaves,
            learning_rate=self.learning_rate,
            min_leaf_rows=self.min_leaf,
        )
        self.trees_ = {
            name: fit_trees(settings, quantities, values)
            for name, values in targets.items()
            if self.tree_weight_[name] > 0
        }

    def _sizes(self) -> dict[str, Size]:
        few = max(1, self.members // 2)
        return {
            name: Size(WIDTHS[name], self.members if name == "runtime" else few)
            for name in self.targets_
        }

    def _best_tree_weights(self, queries: Rows, measured: Measured) -> dict[str, float]:
        """Target -> the weight with the smallest error; 0 if trees do not clearly help."""
        analytical_us, _, _, quantities = terms(queries)
        targets = targets_of(analytical_us[:, 0].astype(np.float64), queries, measured)
        inputs = self._network_inputs(quantities, self.categories_.one_hot(queries))
        by_networks = self.networks_.predict(inputs).mean
        weights = dict.fromkeys(OUTPUT_OF_TARGET, 0.5)
        for i, name in enumerate(self.targets_):
            if name not in targets:
                continue
            by_trees = predict_trees(self.trees_[name], quantities)[:, 0]
            errors = {}
            for weight in TREE_WEIGHTS:
                mixed = (1 - weight) * by_networks[:, i] + weight * by_trees
                errors[weight] = float(np.nanmean(np.abs(mixed - targets[name])))
            best = min(errors, key=errors.__getitem__)
            weights[name] = best if errors[best] < WORTH * errors[0.0] else 0.0
        return weights

    def _calibrate(self, queries: Rows, measured: Measured) -> None:
        predicted, spread = self._outputs_and_spread(queries)
        errors: dict[str, Values] = {}
        spreads: dict[str, Values] = {}
        for i, name in enumerate(self.outputs_):
            # throughput is as uncertain as the runtime that it is computed from
            source = "runtime_us" if name == "tflops" else name
            if source not in measured:
                continue
            ratio = measured[source] / predicted[source][:, 0]
            errors[name] = np.abs(np.log(np.where(ratio > 0, ratio, np.nan)))
            spreads[name] = spread[:, i]
        groups = kernel_group(queries[:, AT["family"]], queries[:, AT["algorithm"]])
        self.intervals_ = intervals.calibrated(errors, spreads, groups)

    # prediction

    def predict(self, queries: Rows) -> Predicted:
        """Every output, low and high, and extrapolating, of queries[n_rows, n_fields]."""
        return {name: np.asarray(values) for name, values in self.evaluate(queries).items()}

    def evaluate(self, query: Array) -> dict[str, Array]:
        """`predict` as array-API code, traced into the graph."""
        xp = query.__array_namespace__()
        analytical_us, flops, limit_w, quantities = terms(query)
        one_hot = self.categories_.one_hot(query)
        mean, spread = self._corrections(quantities, one_hot)
        factors = graph_ops.split(xp.exp(mean), [1] * len(self.targets_))
        outputs = compose(analytical_us, limit_w, flops, dict(zip(self.targets_, factors, strict=True)))
        margins = self.intervals_.margins(self.outputs_, self.categories_, one_hot, self._of_outputs(spread))
        values = xp.concat([outputs[name] for name in self.outputs_], axis=1)
        factor = xp.exp(margins)
        return {
            **{name: graph_ops.squeeze(outputs[name]) for name in self.outputs_},
            "low": values / factor,
            "high": values * factor,
            "extrapolating": self.range_.is_outside(quantities, one_hot),
        }

    def prefilter(self, query: Array) -> Array:
        """[n] runtime_us by one small network, to find the configurations worth a full prediction."""
        xp = query.__array_namespace__()
        analytical_us, _, _, quantities = terms(query)
        inputs = self._network_inputs(quantities, self.categories_.one_hot(query))
        return graph_ops.squeeze(analytical_us * xp.exp(self.networks_.prefilter(inputs)))

    def _network_inputs(self, quantities: Array, one_hot: Array) -> Array:
        xp = quantities.__array_namespace__()
        return xp.concat([log_inputs(quantities), one_hot], axis=1)

    def _corrections(self, quantities: Array, one_hot: Array) -> Corrections:
        """What the networks and the trees predict, mixed by the weights of the trees."""
        xp = quantities.__array_namespace__()
        mean, spread = self.networks_.predict(self._network_inputs(quantities, one_hot))
        if not self.trees_:
            return Corrections(mean, spread)
        columns = graph_ops.split(mean, [1] * len(self.targets_))
        for i, name in enumerate(self.targets_):
            if name in self.trees_:
                weight = self.tree_weight_[name]
                by_trees = predict_trees(self.trees_[name], quantities)
                columns[i] = columns[i] * (1 - weight) + by_trees * weight
        return Corrections(xp.concat(columns, axis=1), spread)

    def _of_outputs(self, spread: Array) -> Array:
        """[n, n_outputs] of spread[n, n_targets]: the sum over the targets of each output."""
        xp = spread.__array_namespace__()
        belongs = [[t in TARGETS_OF_OUTPUT[name] for name in self.outputs_] for t in self.targets_]
        return graph_ops.matmul(spread, xp.asarray(np.array(belongs, dtype=np.float32)))

    def _outputs_and_spread(self, queries: Rows) -> tuple[dict[str, Array], Values]:
        analytical_us, flops, limit_w, quantities = terms(queries)
        mean, spread = self._corrections(quantities, self.categories_.one_hot(queries))
        factors = graph_ops.split(np.exp(mean), [1] * len(self.targets_))
        outputs = compose(analytical_us, limit_w, flops, dict(zip(self.targets_, factors, strict=True)))
        return outputs, self._of_outputs(spread)


def _held_out_rows(queries: Rows) -> Mask:
    """[n_rows] a random HELD_OUT of the shapes; of a single shape every other row."""
    shape_of = np.unique(queries[:, :3], axis=0, return_inverse=True)[1].reshape(-1)
    shapes = np.random.default_rng(0).permutation(shape_of.max() + 1)
    held_out = np.isin(shape_of, shapes[: max(1, round(HELD_OUT * len(shapes)))])
    if held_out.all():
        return np.arange(len(queries)) % 2 == 0
    return held_out


def _rows(measured: Measured, mask: Mask) -> Measured:
    return {name: values[mask] for name, values in measured.items()}
