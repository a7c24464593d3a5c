"""Kinds of models: the published one, and plain ones beside which it is measured.

A plain kind is a product of factors, one product per target. Each factor is fitted on what those
before it leave unexplained:

    prediction = analytical floor  or  analytical fit (coefficients per family),  x exp(trees)

Trees see what the published model's trees see. A kind can give its ONNX
graphs, so that size and latency can be measured. Knows nothing of how kinds are compared.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

import numpy as np
import numpy.typing as npt
from skl2onnx import to_onnx
from skl2onnx.common.data_types import FloatTensorType
from sklearn.ensemble import (
    ExtraTreesRegressor,
    HistGradientBoostingRegressor,
    RandomForestRegressor,
)
from sklearn.linear_model import LinearRegression

from costmodel.dataset import TrainingSet, Values, devices_of
from costmodel.evaluate.metrics import COMPARED
from costmodel.model import CostModel
from costmodel.onnx_export import export, export_trees
from costmodel.outputs import MIN_POWER_ROWS
from costmodel.terms import QUANTITIES, terms, tree_inputs
from gemmcast.config import FAMILIES
from gemmcast.query import AT, FIELDS, ML_OPSET, OPSET, Rows

Columns = npt.NDArray[np.float32]
"""[n_rows, n_columns]"""

DEFAULT: Final = "default"
"""The kind that `train` publishes."""
TIMES: Final = (
    "compute_us",
    "l2_a_us",
    "l2_b_us",
    "dram_a_us",
    "dram_b_us",
    "dram_c_us",
    "steps_us",
    "empty_kernel_us",
)
"""The times of the analytical fit, of costmodel/terms.py."""
SIZES: Final = ("m", "n", "k", "batch")
TINY: Final = 1e-9
"""In place of a prediction of 0, which has no logarithm."""


@dataclass(frozen=True)
class Graph:
    """A regressor as an ONNX file."""

    model: bytes
    columns: Columns
    """Its input for some queries."""


class Regressor(Protocol):
    """Of scikit-learn."""

    def fit(self, columns: Columns, values: Values) -> object:
        """Fit on [n_rows, n_columns] and [n_rows]."""
        ...

    def predict(self, columns: Columns) -> Values:
        """[n_rows]"""
        ...


class Factor(Protocol):
    """A factor of a plain kind's prediction, for one target."""

    def fit(self, queries: Rows, measured: Values, product: Values) -> None:
        """Fit what is left of the measurements by the product of the factors before, [n_rows]."""
        ...

    def predict(self, queries: Rows) -> Values:
        """[n_rows] The factor."""
        ...

    def graphs(self, queries: Rows) -> list[Graph]:
        """What it needs of ONNX Runtime for these queries."""
        ...


class Floor:
    """The analytical floor of the runtime; for power the device's limit, for energy both."""

    def __init__(self, target: str) -> None:
        self.target = target

    def fit(self, queries: Rows, measured: Values, product: Values) -> None:
        """Nothing to fit."""

    def predict(self, queries: Rows) -> Values:
        """[n_rows]"""
        if self.target == "power_w":
            return _limit_w(queries)
        floor_us: Values = terms(queries).floor_us[:, 0].astype(np.float64)
        if self.target == "energy_mj":
            return 1e-3 * _limit_w(queries) * floor_us
        return floor_us

    def graphs(self, queries: Rows) -> list[Graph]:
        """None: the floor is not measured here."""
        return []


class Analytical:
    """Non-negative least squares of relative errors on a few times, per family."""

    def __init__(self, target: str) -> None:
        self.target = target
        self.regressor = LinearRegression(positive=True, fit_intercept=False)

    def fit(self, queries: Rows, measured: Values, product: Values) -> None:
        """Fit the coefficients; a product of factors before is not taken into account."""
        relative = self._columns(queries) / measured[:, None]
        self.regressor.fit(relative, np.ones(len(measured)))

    def predict(self, queries: Rows) -> Values:
        """[n_rows]"""
        values = self.regressor.predict(self._columns(queries))
        return np.maximum(np.asarray(values, dtype=np.float64), TINY)

    def graphs(self, queries: Rows) -> list[Graph]:
        """The linear regression."""
        return [_graph(self.regressor, self._columns(queries))]

    def _columns(self, queries: Rows) -> Columns:
        """[n_rows, n_families x n_times] The quantities at the row's family, 0 at others."""
        quantities = self._quantities(queries)
        is_of_family = queries[:, [AT["family"]]] == np.arange(len(FAMILIES))
        by_family = is_of_family[:, :, None] * quantities[:, None, :]
        return np.asarray(by_family.reshape(len(queries), -1), dtype=np.float32)

    def _quantities(self, queries: Rows) -> Values:
        """[n_rows, n_times] Times in us; for energy, mJ at the power limit; for power, W.

        Power is the limit in the shares of the times, and the idle power as a further column.
        """
        times_us = _times_us(queries)
        limit_w = _limit_w(queries)[:, None]
        if self.target == "energy_mj":
            return 1e-3 * limit_w * times_us
        if self.target == "power_w":
            shares = times_us / times_us.sum(axis=1, keepdims=True)
            idle_w = queries[:, [AT["idle_power_w"]]]
            return np.column_stack([limit_w * shares, idle_w])
        return times_us


class Learned:
    """The exponential of a regressor that was fitted on the logarithm of what is left."""

    def __init__(self, regressor: Regressor, columns: Callable[[Rows], Columns]) -> None:
        self.regressor = regressor
        self.columns = columns

    def fit(self, queries: Rows, measured: Values, product: Values) -> None:
        """Fit the logarithm of measured over product."""
        self.regressor.fit(self.columns(queries), np.log(measured / product))

    def predict(self, queries: Rows) -> Values:
        """[n_rows]"""
        logs = self.regressor.predict(self.columns(queries))
        return np.asarray(np.exp(logs), dtype=np.float64)

    def graphs(self, queries: Rows) -> list[Graph]:
        """The regressor."""
        return [_graph(self.regressor, self.columns(queries))]


class ModelKind(Protocol):
    """A kind of model that can be compared."""

    def fit(self, data: TrainingSet) -> None:
        """Fit on the training rows."""
        ...

    def predict(self, queries: Rows) -> Mapping[str, npt.NDArray[np.floating]]:
        """target -> [n_rows]"""
        ...

    def graphs(self, data: TrainingSet, queries: Rows) -> list[Graph]:
        """The fitted model for ONNX Runtime, with inputs for these queries.

        Args:
            data: the training rows.
        """
        ...


class Plain:
    """The product of some factors, for each target separately."""

    def __init__(self, make_factors: Callable[[str], Sequence[Factor]]) -> None:
        self.make_factors = make_factors
        self.factors: dict[str, Sequence[Factor]] = {}

    def fit(self, data: TrainingSet) -> None:
        """Fit the targets that enough rows have, factor after factor."""
        for target in COMPARED:
            known = data.measured[target] > 0
            if known.sum() < MIN_POWER_ROWS:
                continue
            queries = data.queries[known]
            measured = data.measured[target][known]
            product = np.ones(len(measured))
            self.factors[target] = self.make_factors(target)
            for factor in self.factors[target]:
                factor.fit(queries, measured, product)
                product = product * factor.predict(queries)

    def predict(self, queries: Rows) -> Mapping[str, npt.NDArray[np.floating]]:
        """target -> [n_rows]"""
        predicted: dict[str, Values] = {}
        for target, factors in self.factors.items():
            values = [factor.predict(queries) for factor in factors]
            predicted[target] = np.prod(values, axis=0)
        return predicted

    def graphs(self, data: TrainingSet, queries: Rows) -> list[Graph]:
        """The graphs of all factors of all targets."""
        graphs: list[Graph] = []
        for factors in self.factors.values():
            for factor in factors:
                graphs += factor.graphs(queries)
        return graphs


class Default:
    """The kind that `train` publishes."""

    def fit(self, data: TrainingSet) -> None:
        """Fit on the training rows."""
        self.model = CostModel().fit_dataset(data)

    def predict(self, queries: Rows) -> Mapping[str, npt.NDArray[np.floating]]:
        """output -> [n_rows]"""
        return self.model.predict(queries)

    def graphs(self, data: TrainingSet, queries: Rows) -> list[Graph]:
        """The whole file."""
        return [Graph(export(self.model, devices_of(data)), queries)]


def _inputs(queries: Rows) -> Columns:
    """[n_rows, n_columns] What the published model's trees see."""
    return np.asarray(tree_inputs(terms(queries).quantities), dtype=np.float32)


def _times_us(queries: Rows) -> Values:
    """[n_rows, n_times] The times of TIMES."""
    columns = [QUANTITIES.index(name) for name in TIMES]
    return np.asarray(terms(queries).quantities[:, columns], dtype=np.float64)


def _limit_w(queries: Rows) -> Values:
    """[n_rows] The device's power limit, 1 W where it has none."""
    return np.maximum(queries[:, AT["power_limit_w"]].astype(np.float64), 1.0)


def _forest(kind: type[RandomForestRegressor] | type[ExtraTreesRegressor]) -> Learned:
    forest = kind(
        n_estimators=100,
        max_features=1 / 3,
        min_samples_leaf=2,
        random_state=0,
        n_jobs=-1,
    )
    return Learned(forest, _inputs)


def _trees(monotonic_cst: Sequence[int] | None = None) -> HistGradientBoostingRegressor:
    return HistGradientBoostingRegressor(
        max_iter=150,
        max_leaf_nodes=31,
        min_samples_leaf=5,
        early_stopping=False,
        random_state=0,
        monotonic_cst=monotonic_cst,
    )


def _boosting() -> Learned:
    return Learned(_trees(), _inputs)


def _monotone(target: str) -> Learned:
    """On raw fields, without a floor; a larger problem takes no less time and energy.

    Power may rise or fall with the size.
    """
    grows = [0] * len(FIELDS)
    for name in SIZES:
        grows[AT[name]] = int(target != "power_w")
    return Learned(_trees(grows), lambda queries: queries)


def _graph(regressor: Regressor, columns: Columns) -> Graph:
    if isinstance(regressor, HistGradientBoostingRegressor):
        return Graph(export_trees(regressor, columns.shape[1]), columns)
    inputs = [("columns", FloatTensorType([None, columns.shape[1]]))]
    opsets = {"": OPSET, "ai.onnx.ml": ML_OPSET}
    model = to_onnx(regressor, initial_types=inputs, target_opset=opsets)
    return Graph(model.SerializeToString(), columns)


MODEL_KINDS: Final[dict[str, Callable[[], ModelKind]]] = {
    "random forest": lambda: Plain(lambda target: [Floor(target), _forest(RandomForestRegressor)]),
    "extra trees": lambda: Plain(lambda target: [Floor(target), _forest(ExtraTreesRegressor)]),
    "boosting": lambda: Plain(lambda target: [Floor(target), _boosting()]),
    "boosting, monotone": lambda: Plain(lambda target: [_monotone(target)]),
    "analytical fit": lambda: Plain(lambda target: [Analytical(target)]),
    "analytical fit + boosting": lambda: Plain(lambda target: [Analytical(target), _boosting()]),
    DEFAULT: Default,
}
"""Name -> how to make an unfitted model of that kind."""
