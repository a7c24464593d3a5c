"""The cost model: an analytical floor, corrected by networks and trees, with intervals.

    correction = exp((1 - tree_weight) x network + tree_weight x trees)    for each target
    outputs    = floor and corrections, composed                          costmodel/outputs.py
    low, high  = outputs x exp(-/+ margin)                                costmodel/intervals.py
    none of them beyond what the device can do                            costmodel/bounds.py

The parts are terms.py (floor and quantities), categories.py, ensemble.py (networks), trees.py,
intervals.py and training_range.py. `CostModel.evaluate` puts them together, in NumPy or while a
graph is traced. The weight of the trees and the intervals come from a held-out fifth of the layers,
each an (n, k) at any m; trees that bring little are left out.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, NamedTuple, Self

import numpy as np
import numpy.typing as npt
from sklearn.base import BaseEstimator, RegressorMixin
from sklearn.ensemble import HistGradientBoostingRegressor

from costmodel import graph_ops
from costmodel.bounds import Bounds, Limits
from costmodel.categories import Categories, kernel_group
from costmodel.dataset import THROUGHPUT, TrainingSet, with_unresolved_copies
from costmodel.ensemble import Ensemble, Size
from costmodel.graph_ops import Array
from costmodel.intervals import Folds, calibrated
from costmodel.outputs import (
    OUTPUT_OF_TARGET,
    TARGETS_OF_OUTPUT,
    KnownLimits,
    Measured,
    Values,
    compose,
    log_targets,
    outputs_of,
    shortest_us,
    targets_of,
)
from costmodel.parts import FOLDS, parts
from costmodel.progress import Step, no_step, on_trial
from costmodel.seen import Seen, middle_of
from costmodel.terms import Terms, Typical, terms, tree_inputs
from costmodel.training_range import TrainingRange
from costmodel.trees import TreeSettings, fit_trees, predict_trees
from gemmcast.query import AT, Rows

Predicted = dict[str, npt.NDArray[np.float32]]
"""Output -> [n_rows]; low and high [n_rows, n_outputs]; extrapolating [n_rows]."""
Mask = npt.NDArray[np.bool_]
"""[n_rows] which rows."""

WIDTHS: Final = {"runtime": 128, "sustained": 24, "power": 48}
"""Of the networks of each target."""
TREE_WEIGHTS: Final = (0.0, 0.25, 0.5, 0.75, 1.0)
WORTH: Final = 0.97
"""Error with trees over the error without, from which on they are worth their time."""


class Composed(NamedTuple):
    """What the parts predict together, before the intervals."""

    outputs: dict[str, Array]
    """Output -> [n, 1]."""
    limits: Limits
    """What the intervals are not beyond either."""
    spread: Array
    """[n, n_targets] of the networks."""
    terms: Terms
    """Of the queries."""
    one_hot: Array
    """[n, n_categories]."""
    inputs: Array
    """[n, n_inputs] the quantities as networks see them (costmodel/seen.py)."""


class CostModel(RegressorMixin, BaseEstimator):  # type: ignore[misc]
    """A scikit-learn regressor from queries to every output, with its interval.

    Args:
        members: networks of runtime; half as many of the other targets, which fewer rows have.
        steps: of gradient descent, at most, in the fit of a network.
        iterations, leaves, learning_rate, min_leaf: of the trees, see `TreeSettings`.
        tree_weight: of every target; None to choose it on held-out layers.
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

    def fit(self, queries: Rows, measured: Measured, step: Step = no_step) -> Self:
        """Fit every part.

        A first fit without a fifth of the layers says whether trees help, and how wide the
        intervals are.

        Args:
            queries: [n_rows, n_fields].
            measured: runtime_us, and the other outputs with NaN where they were not measured.
            step: called after each network and each target's trees.
        """
        part_of_row = parts(queries)
        is_held_out = part_of_row < FOLDS
        training = _of_rows(measured, ~is_held_out)
        held_out = _of_rows(measured, is_held_out)
        weights = self.tree_weight or dict.fromkeys(OUTPUT_OF_TARGET, 0.5)
        # the same for both fits: the intervals, which come from the first, are those of the second
        self.middle_ = middle_of(terms(queries).quantities)
        self._fit_parts(queries[~is_held_out], training, weights, on_trial(step))
        if self.tree_weight is None:
            weights = self._best_tree_weights(queries[is_held_out], held_out)
        self.tree_weight_ = dict(weights)
        step("intervals", 0, 1)
        self._calibrate(queries[is_held_out], held_out, part_of_row[is_held_out])
        self._fit_parts(queries, measured, weights, step)
        return self

    def fit_dataset(self, data: TrainingSet, step: Step = no_step) -> Self:
        """`fit`, with library defaults once more as queries without knobs."""
        rows = with_unresolved_copies(data)
        return self.fit(rows.queries, rows.measured, step)

    def _fit_parts(
        self, queries: Rows, measured: Measured, tree_weight: Mapping[str, float], step: Step
    ) -> None:
        """Everything but the intervals."""
        self.typical_ = Typical.of(queries)
        known = self._terms(queries)
        quantities = known.quantities
        targets = targets_of(known.floor_us[:, 0], queries, measured)
        self.targets_ = tuple(targets)
        if "power" in targets:
            has_power = ~np.isnan(targets["power"])
            self.limits_ = KnownLimits.of(known.power_limit_w[has_power, 0])
        self.outputs_ = outputs_of(self.targets_)
        self.tree_weight_ = dict(tree_weight)
        self.categories_ = Categories.of(queries)
        one_hot = self.categories_.one_hot(queries)
        self.bounds_ = Bounds.of(known.least_us, self.categories_, one_hot, shortest_us(measured))
        self.range_ = TrainingRange.of(known)
        self.seen_ = Seen.of(quantities, self.middle_)
        inputs = self._network_inputs(quantities, one_hot)
        ensemble = Ensemble(self._network_sizes(), self.steps)
        self.networks_ = ensemble.fit(inputs, targets, step=step)
        self.trees_ = self._fit_trees(quantities, targets, step)

    def _fit_trees(
        self, quantities: Rows, targets: Mapping[str, Values], step: Step
    ) -> dict[str, HistGradientBoostingRegressor]:
        """Target -> its trees, of the targets whose trees have a weight."""
        seen = tree_inputs(quantities)
        settings = self._tree_settings()
        trees: dict[str, HistGradientBoostingRegressor] = {}
        with_trees = [name for name in targets if self.tree_weight_[name] > 0]
        for i, name in enumerate(with_trees):
            step("trees", i, len(with_trees))
            trees[name] = fit_trees(settings, seen, targets[name])
        return trees

    def _network_sizes(self) -> dict[str, Size]:
        few = max(1, self.members // 2)
        sizes: dict[str, Size] = {}
        for name in self.targets_:
            members = self.members if name == "runtime" else few
            sizes[name] = Size(WIDTHS[name], members)
        return sizes

    def _tree_settings(self) -> TreeSettings:
        return TreeSettings(
            iterations=self.iterations,
            leaves=self.leaves,
            learning_rate=self.learning_rate,
            min_leaf_rows=self.min_leaf,
        )

    def _best_tree_weights(self, queries: Rows, measured: Measured) -> dict[str, float]:
        """Target -> the weight with the smallest error; 0 if trees do not clearly help."""
        known = self._terms(queries)
        quantities = known.quantities
        logs = log_targets(known.floor_us[:, 0], queries, measured)
        inputs = self._network_inputs(quantities, self.categories_.one_hot(queries))
        by_networks = self.networks_.predict(inputs).mean
        seen_by_trees = tree_inputs(quantities)
        weights = dict.fromkeys(OUTPUT_OF_TARGET, 0.5)
        for i, name in enumerate(self.targets_):
            if np.isnan(logs[name]).all():
                continue
            by_trees = predict_trees(self.trees_[name], seen_by_trees)[:, 0]
            weights[name] = _best_weight(by_networks[:, i], by_trees, logs[name])
        return weights

    def _calibrate(self, queries: Rows, measured: Measured, folds: Folds) -> None:
        """Set the intervals from the errors on these rows, of layers in these folds."""
        composed = self._composed(queries)
        spread = self._spread_of_outputs(composed)
        errors: dict[str, Values] = {}
        spreads: dict[str, Values] = {}
        for i, name in enumerate(self.outputs_):
            if name not in measured or name == THROUGHPUT:
                continue
            positive = np.where(measured[name] > 0, measured[name], np.nan)
            predicted = composed.outputs[name][:, 0]
            errors[name] = np.abs(np.log(positive / predicted))
            spreads[name] = spread[:, i]
        families = queries[:, AT["family"]]
        algorithms = queries[:, AT["algorithm"]]
        groups = kernel_group(families, algorithms)
        self.intervals_ = calibrated(errors, spreads, composed.inputs, groups, folds)

    # prediction

    def predict(self, queries: Rows) -> Predicted:
        """Every output, low and high, and extrapolating, of queries[n_rows, n_fields]."""
        return {name: np.asarray(values) for name, values in self.evaluate(queries).items()}

    def evaluate(self, query: Array) -> dict[str, Array]:
        """`predict` as array-API code, traced into the graph."""
        xp = query.__array_namespace__()
        composed = self._composed(query)
        margins = self.intervals_.margins(
            self.outputs_,
            self.categories_,
            composed.one_hot,
            composed.inputs,
            self._spread_of_outputs(composed),
        )
        factor = xp.exp(margins)
        values = xp.concat([composed.outputs[name] for name in self.outputs_], axis=1)
        low, high = composed.limits.interval(self.outputs_, values / factor, values * factor)
        named = {name: graph_ops.squeeze(composed.outputs[name]) for name in self.outputs_}
        return {
            **named,
            "low": low,
            "high": high,
            "extrapolating": self.range_.is_outside(composed.terms),
        }

    def prefilter(self, query: Array) -> Array:
        """[n] runtime_us by one small network: which configurations are worth a full prediction.

        Without bounds: those of one problem have the same, and would be ties there.
        """
        xp = query.__array_namespace__()
        known = self._terms(query)
        inputs = self._network_inputs(known.quantities, self.categories_.one_hot(query))
        correction = self.networks_.prefilter(inputs)
        return graph_ops.squeeze(known.floor_us * xp.exp(correction))

    def _composed(self, query: Array) -> Composed:
        """The outputs of floor, networks and trees."""
        xp = query.__array_namespace__()
        known = self._terms(query)
        quantities = known.quantities
        limit_w = known.power_limit_w
        if "power" in self.targets_:
            limit_w = self.limits_.known(limit_w)
        one_hot = self.categories_.one_hot(query)
        limits = self.bounds_.limits(known, limit_w, one_hot)
        inputs = self.seen_(quantities)
        by_networks = self.networks_.predict(xp.concat([inputs, one_hot], axis=1))
        logs = self._with_trees(by_networks.mean, quantities)
        factors = graph_ops.split(xp.exp(logs), [1] * len(self.targets_))
        corrections = dict(zip(self.targets_, factors, strict=True))
        return Composed(
            outputs=compose(known.floor_us, limit_w, limits, corrections),
            limits=limits,
            spread=by_networks.spread,
            terms=known,
            one_hot=one_hot,
            inputs=inputs,
        )

    def _terms(self, query: Array) -> Terms:
        """The terms, with the typical value of what the query does not know of the device."""
        raw = terms(query)
        return raw._replace(quantities=self.typical_.filled(raw.quantities))

    def _network_inputs(self, quantities: Array, one_hot: Array) -> Array:
        xp = quantities.__array_namespace__()
        return xp.concat([self.seen_(quantities), one_hot], axis=1)

    def _with_trees(self, by_networks: Array, quantities: Array) -> Array:
        """[n, n_targets] corrections of the networks, mixed with those of the trees."""
        if not self.trees_:
            return by_networks
        xp = quantities.__array_namespace__()
        inputs = tree_inputs(quantities)
        by_trees = [predict_trees(trees, inputs) for trees in self.trees_.values()]
        weights = np.array([self.tree_weight_[name] for name in self.targets_], dtype=np.float32)
        # Targets without trees have weight 0 and no row
        rows = [self.targets_.index(name) for name in self.trees_]
        to_targets = np.diag(weights)[rows]
        rest = by_networks * xp.asarray(1 - weights)
        return graph_ops.gemm(xp.concat(by_trees, axis=1), xp.asarray(to_targets), rest)

    def _spread_of_outputs(self, composed: Composed) -> Array:
        """[n, n_outputs] the sum over the targets that an output is made of."""
        xp = composed.spread.__array_namespace__()
        belongs = np.zeros((len(self.targets_), len(self.outputs_)), dtype=np.float32)
        for column, output in enumerate(self.outputs_):
            for target in TARGETS_OF_OUTPUT[output]:
                belongs[self.targets_.index(target), column] = 1
        return graph_ops.matmul(composed.spread, xp.asarray(belongs))


def _best_weight(by_networks: Values, by_trees: Values, target: Values) -> float:
    """Of TREE_WEIGHTS; all arguments [n_rows], in logarithms."""
    errors: dict[float, float] = {}
    for weight in TREE_WEIGHTS:
        predicted = (1 - weight) * by_networks + weight * by_trees
        errors[weight] = float(np.nanmean(np.abs(predicted - target)))
    best = min(TREE_WEIGHTS, key=errors.__getitem__)
    return best if errors[best] < WORTH * errors[0.0] else 0.0


def _of_rows(measured: Measured, mask: Mask) -> Measured:
    return {name: values[mask] for name, values in measured.items()}
