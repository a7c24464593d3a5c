"""Boosted trees for one target, on quantities of costmodel/terms.py as they are.

Trees do not see monotone transforms, so they need no logarithms. The quantities are the same bits
in NumPy and in ONNX Runtime, so a row takes the same way in both. scikit-learn fits and predicts.
In a graph the trees are one TreeEnsembleRegressor node, with thresholds rounded down to float32, so
that `x <= threshold` is the same for every float32 x.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
from sklearn.ensemble import HistGradientBoostingRegressor

from costmodel import graph_ops
from costmodel.graph_ops import Array

Matrix = npt.NDArray[np.float32]
Values = npt.NDArray[np.float64]
Attributes = dict[str, list[object]]
NODE_ATTRIBUTES: Final = (
    "nodes_treeids",
    "nodes_nodeids",
    "nodes_featureids",
    "nodes_values",
    "nodes_modes",
    "nodes_truenodeids",
    "nodes_falsenodeids",
    "nodes_missing_value_tracks_true",
    "target_treeids",
    "target_nodeids",
    "target_ids",
    "target_weights",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class TreeSettings:
    """Of scikit-learn's HistGradientBoostingRegressor."""

    iterations: int = 150
    """Trees."""
    leaves: int = 31
    """At most, of one tree."""
    learning_rate: float = 0.1
    min_leaf_rows: int = 5


def fit_trees(
    settings: TreeSettings, inputs: Matrix, target: Values
) -> HistGradientBoostingRegressor:
    """On inputs[n, n_inputs], with the rows where target[n] is not NaN."""
    trees = HistGradientBoostingRegressor(
        max_iter=settings.iterations,
        max_leaf_nodes=settings.leaves,
        learning_rate=settings.learning_rate,
        min_samples_leaf=settings.min_leaf_rows,
        early_stopping=False,
        random_state=0,
    )
    measured = ~np.isnan(target)
    return trees.fit(inputs[measured], target[measured])


def predict_trees(trees: HistGradientBoostingRegressor, inputs: Array) -> Array:
    """[n, 1] of inputs[n, n_inputs]: by scikit-learn, or as a node of the graph that is traced."""
    if graph_ops.is_traced(inputs):
        return graph_ops.tree_ensemble(inputs, onnx_attributes(trees))
    return trees.predict(inputs)[:, None].astype(np.float32)


def onnx_attributes(trees: HistGradientBoostingRegressor) -> dict[str, object]:
    """Of the TreeEnsembleRegressor that gives the same values."""
    columns: Attributes = {name: [] for name in NODE_ATTRIBUTES}
    for number, (predictor,) in enumerate(trees._predictors):
        for name, values in _tree_attributes(number, predictor.nodes).items():
            columns[name] += values
    baseline = float(trees._baseline_prediction.item())
    return {**columns, "n_targets": 1, "base_values": [baseline]}


def _tree_attributes(number: int, nodes: npt.NDArray[np.void]) -> Attributes:
    is_leaf = nodes["is_leaf"].astype(bool)
    leaves = np.flatnonzero(is_leaf)
    return {
        "nodes_treeids": [number] * len(nodes),
        "nodes_nodeids": list(range(len(nodes))),
        "nodes_featureids": nodes["feature_idx"].tolist(),
        "nodes_values": _round_down(nodes["num_threshold"]).tolist(),
        "nodes_modes": np.where(is_leaf, "LEAF", "BRANCH_LEQ").tolist(),
        "nodes_truenodeids": nodes["left"].tolist(),
        "nodes_falsenodeids": nodes["right"].tolist(),
        "nodes_missing_value_tracks_true": nodes["missing_go_to_left"].tolist(),
        "target_treeids": [number] * len(leaves),
        "target_nodeids": leaves.tolist(),
        "target_ids": [0] * len(leaves),
        "target_weights": nodes["value"][leaves].tolist(),
    }


def _round_down(values: Values) -> Matrix:
    """The largest float32 not above each float64."""
    rounded = values.astype(np.float32)
    below = np.nextafter(rounded, np.float32(-np.inf))
    return np.where(rounded.astype(np.float64) > values, below, rounded)
