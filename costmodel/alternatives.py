"""What else could be the model: every candidate fitted on the same samples, asked about the same unseen shapes, in one table.

`python -m coordinator train --compare` prints it and publishes nothing. Grouped cross-validation by shape; errors are scikit-learn's own answers.
A plain candidate is a product of steps, of which each learns what those before it leave: the floor of costmodel/terms.py, a handful of
coefficients a family (the analytical fit), trees. Trees see what the default's networks see, the terms and the raw question. One regressor a target.

Size and latency are of the last fold's ONNX graphs, one thread, ONNX Runtime. Those of plain candidates are the regressors alone, one a target:
their columns are not in the graph and cost nothing here. The default's graph is whole: features, intervals and the flag included.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from time import perf_counter
from typing import Any, Final, Protocol

import numpy as np
import numpy.typing as npt
from skl2onnx import to_onnx
from skl2onnx.common.data_types import FloatTensorType
from sklearn.ensemble import ExtraTreesRegressor, HistGradientBoostingRegressor, RandomForestRegressor
from sklearn.linear_model import LinearRegression

from costmodel.dataset import Dataset
from costmodel.evaluate.crossval import FOLDS, scores, split
from costmodel.evaluate.metrics import COMPARED
from costmodel.gate import MAX_LATENCY_US
from costmodel.model import MIN_POWER_ROWS, CostModel
from costmodel.onnx_export import export
from costmodel.terms import SHOWN, log_floor_us, terms
from costmodel.train import devices_of, open_session, p50_us
from gemmcast.config import FAMILIES
from gemmcast.query import AT, FIELDS, ML_OPSET, OPSET, Rows

Values = npt.NDArray[np.float64]
# [n_rows]
Columns = npt.NDArray[np.float32]
# [n_rows, n_columns]
Graph = tuple[bytes, Columns]
# an ONNX file, and its input for some questions
DEFAULT: Final = "default"
BATCH: Final = 256
TIMES: Final = ("own_busy_us", "own_l2_a_us", "own_l2_b_us", "dram_a_us", "dram_b_us", "dram_c_us", "steps_us", "empty_launch_us")
# the analytical fit's, of costmodel/terms.py
TINY: Final = 1e-9
# in place of an answer of 0, which has no logarithm


class Step(Protocol):
    """A factor of a plain candidate's answer."""

    def fit(self, queries: Rows, measured: Values, so_far: Values) -> None: ...

    def factor(self, queries: Rows) -> Values: ...

    def graphs(self, queries: Rows) -> list[Graph]: ...


class Floor:
    """The terms' own; for power the device's limit, for energy both."""

    def __init__(self, target: str) -> None:
        self.target = target

    def fit(self, queries: Rows, measured: Values, so_far: Values) -> None: ...

    def factor(self, queries: Rows) -> Values:
        floor_us, limit_w = np.exp(log_floor_us(terms(queries))), _limit_w(queries)
        of_target: dict[str, Values] = {"runtime_us": floor_us, "power_w": limit_w, "energy_mj": 1e-3 * limit_w * floor_us}
        return of_target[self.target]

    def graphs(self, queries: Rows) -> list[Graph]:
        return []


class Analytical:
    """Non-negative least squares of relative errors on a few times, with coefficients of each family's own."""

    def __init__(self, target: str) -> None:
        self.target = target
        self.fitted = LinearRegression(positive=True, fit_intercept=False)

    def fit(self, queries: Rows, measured: Values, so_far: Values) -> None:
        self.fitted.fit(self._columns(queries) / measured[:, None], np.ones(len(measured)))

    def factor(self, queries: Rows) -> Values:
        return np.maximum(np.asarray(self.fitted.predict(self._columns(queries)), dtype=np.float64), TINY)

    def graphs(self, queries: Rows) -> list[Graph]:
        return [_graph(self.fitted, self._columns(queries))]

    def _columns(self, queries: Rows) -> Columns:
        """[n, n_families x n_times]: times, or what the board's limit makes of them in mJ; for power their shares of it, and the idle draw."""
        times_us = _times_us(queries, *TIMES)
        limit_w, idle_w = _limit_w(queries)[:, None], queries[:, [AT["idle_power_w"]]]
        shares = np.column_stack([limit_w * times_us / times_us.sum(axis=1, keepdims=True), idle_w])
        columns = {"runtime_us": times_us, "power_w": shares, "energy_mj": 1e-3 * limit_w * times_us}[self.target]
        of_family = queries[:, [AT["family"]]] == np.arange(len(FAMILIES))
        return np.asarray((of_family[:, :, None] * columns[:, None, :]).reshape(len(queries), -1), dtype=np.float32)


class Learned:
    """A regressor of the logarithm of what is left."""

    def __init__(self, regressor: Any, columns: Callable[[Rows], Columns]) -> None:
        self.regressor, self.columns = regressor, columns

    def fit(self, queries: Rows, measured: Values, so_far: Values) -> None:
        self.regressor.fit(self.columns(queries), np.log(measured / so_far))

    def factor(self, queries: Rows) -> Values:
        return np.asarray(np.exp(self.regressor.predict(self.columns(queries))), dtype=np.float64)

    def graphs(self, queries: Rows) -> list[Graph]:
        return [_graph(self.regressor, self.columns(queries))]


class Candidate(Protocol):
    """What can be compared."""

    def fit(self, data: Dataset) -> None: ...

    def predict(self, queries: Rows) -> Mapping[str, Values]: ...

    def graphs(self, data: Dataset, queries: Rows) -> list[Graph]: ...


class Plain:
    """The product of some steps, for each target on its own."""

    def __init__(self, steps: Callable[[str], Sequence[Step]]) -> None:
        self.make, self.steps = steps, dict[str, Sequence[Step]]()

    def fit(self, data: Dataset) -> None:
        for target in COMPARED:
            known = data.measured[target] > 0
            if known.sum() < MIN_POWER_ROWS:
                continue
            queries, measured, so_far = data.queries[known], data.measured[target][known], np.ones(known.sum())
            self.steps[target] = self.make(target)
            for step in self.steps[target]:
                step.fit(queries, measured, so_far)
                so_far = so_far * step.factor(queries)

    def predict(self, queries: Rows) -> Mapping[str, Values]:
        return {target: np.prod([step.factor(queries) for step in steps], axis=0) for target, steps in self.steps.items()}

    def graphs(self, data: Dataset, queries: Rows) -> list[Graph]:
        return [graph for steps in self.steps.values() for step in steps for graph in step.graphs(queries)]


class Default:
    """What `train` publishes."""

    def fit(self, data: Dataset) -> None:
        self.model = CostModel().fit_dataset(data)

    def predict(self, queries: Rows) -> Mapping[str, Values]:
        return self.model.predict(queries)

    def graphs(self, data: Dataset, queries: Rows) -> list[Graph]:
        return [(export(self.model, devices_of(data)), queries)]


def _seen(queries: Rows) -> Columns:
    return np.column_stack([SHOWN.of(np, terms(queries)), queries])


def _times_us(queries: Rows, *names: str) -> Values:
    """[n, len(names)], of what networks are shown."""
    return np.asarray(np.exp(SHOWN.of(np, terms(queries))[:, [SHOWN.names.index(name) for name in names]].astype(np.float64)))


def _forest(kind: Any) -> Learned:
    return Learned(kind(n_estimators=100, max_features=1 / 3, min_samples_leaf=2, random_state=0, n_jobs=-1), _seen)


def _boosting() -> Learned:
    trees = HistGradientBoostingRegressor(max_iter=150, max_leaf_nodes=31, min_samples_leaf=5, early_stopping=False, random_state=0)
    return Learned(trees, _seen)


def _monotone(target: str) -> Learned:
    """On raw fields, without a floor; a larger problem takes no less time and energy (of power nothing is known)."""
    grows = [int(name in ("m", "n", "k", "batch") and target != "power_w") for name in FIELDS]
    trees = HistGradientBoostingRegressor(
        max_iter=150, max_leaf_nodes=31, min_samples_leaf=5, early_stopping=False, random_state=0, monotonic_cst=grows
    )
    return Learned(trees, lambda queries: queries)


CANDIDATES: Final[dict[str, Callable[[], Candidate]]] = {
    "random forest": lambda: Plain(lambda target: [Floor(target), _forest(RandomForestRegressor)]),
    "extra trees": lambda: Plain(lambda target: [Floor(target), _forest(ExtraTreesRegressor)]),
    "boosting": lambda: Plain(lambda target: [Floor(target), _boosting()]),
    "boosting, monotone": lambda: Plain(lambda target: [_monotone(target)]),
    "analytical fit": lambda: Plain(lambda target: [Analytical(target)]),
    "analytical fit + boosting": lambda: Plain(lambda target: [Analytical(target), _boosting()]),
    DEFAULT: Default,
}


def compare(data: Dataset, done: Callable[[str], None] = lambda _: None) -> dict[str, Any]:
    """Every candidate's errors (target -> metric, per cent), mean_error over the targets, size_mib, fit_s of one fold, batch_us and single_us;
    and the winner: the smallest mean_error of those whose single_us is within bound_us.

    Args:
        done: told the candidate's name after every fold.
    """
    found = {name: _measured(make, data, partial(done, name)) for name, make in CANDIDATES.items()}
    within = {name: of for name, of in found.items() if of["single_us"] <= MAX_LATENCY_US}
    winner = min(within, key=lambda name: within[name]["mean_error"], default=None)
    return {"rows": len(data), "shapes": len(set(data.shapes)), "candidates": found, "bound_us": MAX_LATENCY_US, "winner": winner, "default": DEFAULT}


def _measured(make: Callable[[], Candidate], data: Dataset, done: Callable[[], None]) -> dict[str, Any]:
    predicted = {target: np.full(len(data), np.nan) for target in COMPARED}
    took_s = []
    for training, test in split(data.shapes, FOLDS):
        candidate, known, start_s = make(), data.take(training), perf_counter()
        candidate.fit(known)
        took_s.append(perf_counter() - start_s)
        said = candidate.predict(data.queries[test])
        for target in COMPARED:
            if target in said:
                predicted[target][test] = said[target]
        done()
    graphs = candidate.graphs(known, np.resize(data.queries, (BATCH, len(FIELDS))))
    sessions = [(open_session(graph), columns) for graph, columns in graphs]
    named = [(session, session.get_inputs()[0].name, columns) for session, columns in sessions]
    errors = {target: methods["model"] for target, methods in scores(data, {target: {"model": said} for target, said in predicted.items()}).items()}
    return {
        "errors": errors,
        "mean_error": float(np.mean([of["mape"] for of in errors.values()])),
        "size_mib": sum(len(graph) for graph, _ in graphs) / 2**20,
        "fit_s": float(np.mean(took_s)),
        "batch_us": p50_us(lambda: _run(named, BATCH), 50),
        "single_us": p50_us(lambda: _run(named, 1), 500),
    }


def _run(graphs: Sequence[tuple[Any, str, Columns]], rows: int) -> None:
    for session, name, columns in graphs:
        session.run(None, {name: columns[:rows]})


def _graph(regressor: Any, columns: Columns) -> Graph:
    inputs = [("columns", FloatTensorType([None, columns.shape[1]]))]
    graph: bytes = to_onnx(regressor, initial_types=inputs, target_opset={"": OPSET, "ai.onnx.ml": ML_OPSET}).SerializeToString()
    return graph, columns


def _limit_w(queries: Rows) -> Values:
    return np.maximum(queries[:, AT["power_limit_w"]].astype(np.float64), 1.0)
