"""The multi-output model: an analytical floor, and boosted trees for what the floor does not explain.

    runtime_us           = floor_us x exp(trees_runtime)
    sustained_runtime_us = runtime_us x exp(trees_sustained)
    power_w              = power_limit_w x exp(trees_power)
    energy_mj            = power_w x sustained_runtime_us / 1000
    tflops               = flops / (runtime_us x 1e6)

Energy and throughput are computed, never fitted, so that the outputs can't contradict each other. A target that was not read in
some rows costs the others nothing: each has trees of its own. Never shown power, the model has none; never shown a sustained runtime
(tables of others have none), it has neither that nor energy.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, Self

import numpy as np
import numpy.typing as npt
from sklearn.base import BaseEstimator, RegressorMixin
from sklearn.ensemble import HistGradientBoostingRegressor

from coordinator.dataset import Dataset
from coordinator.features import NAMES, features
from gemmcast.question import AT, OUTPUTS, Rows

Answers = dict[str, npt.NDArray[np.float64]]
# output -> [n_rows]
MIN_POWER_ROWS: Final = 40
# fewer teach nothing


def answers(columns: Any, floor_us: Any, logs: Mapping[str, Any]) -> dict[str, Any]:
    """Every output from the features, the floor and the trees' logarithms, each [n, 1]; array-API code, traced into the graph."""
    xp = columns.__array_namespace__()

    def at(name: str) -> Any:
        return columns[:, NAMES.index(name) : NAMES.index(name) + 1]

    runtime_us = floor_us * xp.exp(logs["runtime"])
    found = {"runtime_us": runtime_us, "tflops": at("work") * 2e-6 / runtime_us}
    if "power" in logs:
        found["power_w"] = at("power_limit_w") * xp.exp(logs["power"])
    if "sustained" in logs:
        found["sustained_runtime_us"] = runtime_us * xp.exp(logs["sustained"])
        found["energy_mj"] = found["power_w"] * found["sustained_runtime_us"] * 1e-3
    return found


class CostModel(RegressorMixin, BaseEstimator):  # type: ignore[misc]
    """A scikit-learn regressor from raw questions to every output.

    Args:
        iterations: trees per target.
        leaves: at most, per tree of runtime; half as many for the targets that fewer rows have.
    """

    def __init__(self, iterations: int = 150, leaves: int = 31, learning_rate: float = 0.1, min_leaf: int = 5) -> None:
        self.iterations, self.leaves, self.learning_rate, self.min_leaf = iterations, leaves, learning_rate, min_leaf

    def fit(self, questions: Rows, measured: Answers) -> Self:
        """Args: questions[n_rows, n_fields]; measured: runtime_us, and the other targets with NaN where they were not read."""
        floor_us, columns = features(questions)
        runtime_us = measured["runtime_us"]
        self.trees_ = {"runtime": self._boost(columns, runtime_us / floor_us[:, 0], self.leaves)}
        unread = np.full(len(questions), np.nan)
        power_w, sustained_us = measured.get("power_w", unread), measured.get("sustained_runtime_us", unread)
        limit_w = questions[:, AT["power_limit_w"]]
        metered = ~np.isnan(power_w) & (limit_w > 0)
        lasting = metered & ~np.isnan(sustained_us)
        if metered.sum() >= MIN_POWER_ROWS:
            if lasting.sum() >= MIN_POWER_ROWS:
                self.trees_["sustained"] = self._boost(columns[lasting], sustained_us[lasting] / runtime_us[lasting], self.leaves // 2)
            self.trees_["power"] = self._boost(columns[metered], power_w[metered] / limit_w[metered], self.leaves // 2)
        has = {"power_w": "power", "sustained_runtime_us": "sustained", "energy_mj": "sustained"}
        self.outputs_ = tuple(name for name in OUTPUTS if name not in has or has[name] in self.trees_)
        return self

    def fit_dataset(self, data: Dataset) -> Self:
        return self.fit(data.questions, data.measured)

    def predict(self, questions: Rows) -> Answers:
        floor_us, columns = features(questions)
        logs = {name: trees.predict(columns)[:, None] for name, trees in self.trees_.items()}
        found = answers(columns.astype(np.float64), floor_us.astype(np.float64), logs)
        return {name: found[name][:, 0] for name in self.outputs_}

    def _boost(self, columns: Any, ratio: Any, leaves: int) -> HistGradientBoostingRegressor:
        trees = HistGradientBoostingRegressor(
            max_iter=self.iterations,
            max_leaf_nodes=leaves,
            learning_rate=self.learning_rate,
            min_samples_leaf=self.min_leaf,
            early_stopping=False,
            random_state=0,
        )
        return trees.fit(columns, np.log(ratio.astype(np.float64)))
