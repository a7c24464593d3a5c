"""Intervals around predictions: a factor up and down that nine of ten measurements lie within.

    low, high  = value x exp(-/+ margin)
    margin     = factor x difficulty
    difficulty = (spread of the networks + LEAST_SPREAD) x exp(correction)

The correction says where errors are larger than the spread says: a small network for each output,
fitted to their 90th percentile, as in conformalized quantile regression (Romano, Patterson &
Candes, NeurIPS 2019). The factor makes the share right for each output and group of kernels (a
family, with and without a named algorithm), whatever the network is worth: split conformal
prediction (Lei, G'Sell, Rinaldo, Tibshirani & Wasserman, JASA 2018). Both come from rows of layers
that the model was not trained on. Outside the training range the intervals are not reliable.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Self

import numpy as np
import numpy.typing as npt

from costmodel import graph_ops
from costmodel.categories import Categories
from costmodel.graph_ops import Array
from costmodel.network import Network, fit_network
from gemmcast.query import COVERAGE

Values = npt.NDArray[np.float64]
Matrix = npt.NDArray[np.float32]
Folds = npt.NDArray[np.int64]
"""[n_rows] the number of each row's part."""
Outputs = tuple[str, ...]

RUNTIME: Final = "runtime_us"
"""The output that every row has."""
LEAST_SPREAD: Final = 0.02
"""Added to the spread: networks may agree and all be wrong."""
LEAST_ERROR: Final = 0.003
"""Added to an error before its logarithm: repeated measurements differ by about that."""
LEAST_FACTOR: Final = 1e-6
"""A logarithm needs more than 0, which the factor is where every prediction is exact."""
MIN_GROUP_ROWS: Final = 50
"""A group with fewer rows has the factor of all groups together."""
MIN_NETWORK_ROWS: Final = 1000
"""An output with fewer rows has no correction: a network would learn their noise."""
WIDTH: Final = 16
"""Of both hidden layers; wider networks learn the noise too."""
STEPS: Final = 1500
"""Of gradient descent at most."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reach:
    """The inputs of some rows: networks see none beyond."""

    lowest: Matrix
    """[n_inputs]"""
    highest: Matrix
    """[n_inputs]"""

    @classmethod
    def of(cls, inputs: Matrix) -> Self:
        """Of inputs[n_rows, n_inputs]."""
        return cls(lowest=inputs.min(axis=0), highest=inputs.max(axis=0))

    def __call__(self, inputs: Array) -> Array:
        """[n, n_inputs] within the range; array-API code."""
        xp = inputs.__array_namespace__()
        return xp.maximum(xp.minimum(inputs, xp.asarray(self.highest)), xp.asarray(self.lowest))


@dataclass(frozen=True, slots=True, kw_only=True)
class Intervals:
    """What makes the margins of one model."""

    pooled: Mapping[str, float]
    """Output -> factor over all groups."""
    by_group: Mapping[tuple[str, float], float]
    """(output, group) -> factor, of the groups with enough rows."""
    networks: Mapping[str, Network]
    """Output -> network of its correction, of the outputs with enough rows."""
    reach: Reach
    """The inputs that the networks were fitted on."""

    def margins(
        self,
        outputs: Outputs,
        categories: Categories,
        one_hot: Array,
        inputs: Array,
        spread: Array,
    ) -> Array:
        """[n, n_outputs] half widths in logarithms; array-API code, traced into the graph.

        Args:
            outputs: their names, in the order of the columns.
            categories: what the columns of one_hot are.
            one_hot: [n, n_categories].
            inputs: [n, n_inputs] the quantities as networks see them (costmodel/seen.py).
            spread: [n, n_outputs] of the model's networks.
        """
        xp = spread.__array_namespace__()
        pooled, added = self.factor_table(outputs, categories)
        exponent = graph_ops.gemm(one_hot, xp.asarray(added), xp.asarray(pooled))
        if self.networks:
            first, second, last = self._layers(outputs)
            hidden = graph_ops.silu(graph_ops.gemm(self.reach(inputs), *map(xp.asarray, first)))
            hidden = graph_ops.silu(graph_ops.gemm(hidden, *map(xp.asarray, second)))
            exponent = graph_ops.gemm(hidden, xp.asarray(last), exponent)
        return (spread + np.float32(LEAST_SPREAD)) * xp.exp(exponent)

    def factor_table(self, outputs: Outputs, categories: Categories) -> tuple[Matrix, Matrix]:
        """log factor[n_outputs] of all groups, and what each category[n_categories] adds to it.

        The biases of the networks' last layers are part of the first.
        """
        sources = [self._source(name) for name in outputs]
        pooled = np.log([self.pooled[name] for name in sources])
        added = np.zeros((len(categories), len(outputs)))
        for row, group in categories.kernel_groups():
            for column, name in enumerate(sources):
                factor = self.by_group.get((name, group), self.pooled[name])
                added[row, column] = np.log(factor) - pooled[column]
        for column, name in enumerate(sources):
            if name in self.networks:
                pooled[column] += self.networks[name].biases[2][0]
        return pooled.astype(np.float32), added.astype(np.float32)

    def _source(self, output: str) -> str:
        """The output whose errors count: the runtime's for one that was never measured.

        So throughput, which is computed from the runtime, is as uncertain.
        """
        return output if output in self.pooled else RUNTIME

    def _layers(
        self, outputs: Outputs
    ) -> tuple[tuple[Matrix, Matrix], tuple[Matrix, Matrix], Matrix]:
        """The networks side by side: weights and biases of two layers, weights of the last."""
        networks = list(self.networks.values())
        units = WIDTH * len(networks)
        first = np.concatenate([network.weights[0] for network in networks], axis=1)
        first_biases = np.concatenate([network.biases[0] for network in networks])
        second = np.zeros((units, units), dtype=np.float32)
        second_biases = np.concatenate([network.biases[1] for network in networks])
        last = np.zeros((units, len(outputs)), dtype=np.float32)
        sources = [self._source(output) for output in outputs]
        for i, (name, network) in enumerate(self.networks.items()):
            own = slice(WIDTH * i, WIDTH * (i + 1))
            _, to_second, to_last = network.weights
            second[own, own] = to_second
            for column, source in enumerate(sources):
                if source == name:
                    last[own, column] = to_last[:, 0]
        return (first, first_biases), (second, second_biases), last


def calibrated(
    errors: Mapping[str, Values],
    spreads: Mapping[str, Values],
    inputs: Matrix,
    groups: Values,
    folds: Folds,
) -> Intervals:
    """The intervals that hold for rows like these, which the model was not trained on.

    Args:
        errors: output -> [n_rows] |log(measured / predicted)|, NaN where it was not measured.
        spreads: output -> [n_rows] spread of the model's networks.
        inputs: [n_rows, n_inputs] the quantities as networks see them (costmodel/seen.py).
        groups: [n_rows] the group of each row.
        folds: layers are in one fold as a whole. A factor is that of errors over difficulties
            which networks of the other folds give.
    """
    reach = Reach.of(inputs)
    pooled: dict[str, float] = {}
    by_group: dict[tuple[str, float], float] = {}
    networks: dict[str, Network] = {}
    for name, error in errors.items():
        rows = np.flatnonzero(~np.isnan(error))
        if not len(rows):
            continue
        known_error, known_inputs, known_folds = error[rows], inputs[rows], folds[rows]
        difficulty = spreads[name][rows] + LEAST_SPREAD
        if len(rows) >= MIN_NETWORK_ROWS and len(np.unique(known_folds)) > 1:
            ratio = np.log((known_error + LEAST_ERROR) / difficulty)
            networks[name] = _fit(known_inputs, ratio)
            correction = _cross_fitted(known_inputs, ratio, known_folds)
            difficulty = difficulty * np.exp(correction)
        scores = known_error / difficulty
        pooled[name] = _conformal_quantile(scores)
        for group in np.unique(groups[rows]).tolist():
            of_group = scores[groups[rows] == group]
            if len(of_group) >= MIN_GROUP_ROWS:
                by_group[name, group] = _conformal_quantile(of_group)
    return Intervals(pooled=pooled, by_group=by_group, networks=networks, reach=reach)


def _fit(inputs: Matrix, ratio: Values) -> Network:
    """A network of the logarithm that nine of ten errors over spread stay below."""
    return fit_network(inputs, ratio, WIDTH, STEPS, seed=0, quantile=COVERAGE)


def _cross_fitted(inputs: Matrix, ratio: Values, folds: Folds) -> Values:
    """[n_rows] the correction of each row, by a network of the other folds."""
    corrections = np.zeros(len(ratio))
    for fold in np.unique(folds).tolist():
        is_tested = folds == fold
        network = _fit(inputs[~is_tested], ratio[~is_tested])
        corrections[is_tested] = network(inputs[is_tested])[:, 0]
    return corrections


def _conformal_quantile(scores: Values) -> float:
    in_order = np.sort(scores)
    rank = conformal_rank(len(scores))
    return max(LEAST_FACTOR, float(in_order[rank - 1]))


def conformal_rank(count: int) -> int:
    """The ceil((n + 1) COVERAGE)-th smallest of n, so that the next one is within as often."""
    rank = int(np.ceil((count + 1) * COVERAGE))
    return min(count, rank)
