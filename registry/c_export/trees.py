"""Boosted trees as arrays of their nodes, which one function of C walks.

    a node      if x[feature] <= value, then go to `left`, else to `right`
    a leaf      feature is -1, value is what the tree adds

The nodes of all trees lie one behind the other. No input of a tree is NaN, so where ONNX sends NaN
is left out.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import numpy as np

from gemmcast.errors import InputError
from registry.c_export.arrays import Arrays
from registry.c_export.graph import Node

_USUAL: Final = {"n_targets": 1, "post_transform": b"NONE", "aggregate_function": b"SUM"}
_BRANCH, _LEAF = b"BRANCH_LEQ", b"LEAF"


def ensemble(arrays: Arrays, node: Node) -> list[str]:
    """The lines of a TreeEnsembleRegressor.

    Raises:
        InputError: other trees than boosting makes: several outputs, or other comparisons.
    """
    given = node.attributes
    is_usual = all(given.get(name, value) == value for name, value in _USUAL.items())
    if not is_usual or set(given["nodes_modes"]) - {_BRANCH, _LEAF}:
        rule = "the model has trees of a kind that is not written as C"
        raise InputError("--format", "c", rule, "export it as onnx")
    output = node.outputs[0]
    columns = _columns(given)
    lines = arrays.declare(output)
    names = [arrays.add_constant(f"{output}_{name}", values) for name, values in columns.items()]
    walked = f"walk_trees({arrays.pointer(node.inputs[0])}, {', '.join(names)}"
    base = float(np.float32(given["base_values"][0]))
    count = len(columns["roots"])
    return [*lines, f"{arrays.element(output, '0')} = {base}f + {walked}, {count});"]


def _columns(given: Mapping[str, Any]) -> dict[str, np.ndarray[Any, Any]]:
    """Arrays of nodes in the order in which walk_trees takes them, and where each tree begins."""
    trees = np.array(given["nodes_treeids"])
    roots = np.flatnonzero(np.array(given["nodes_nodeids"]) == 0)
    start_of = dict(zip(trees[roots].tolist(), roots.tolist(), strict=True))
    starts = np.array([start_of[tree] for tree in trees.tolist()])
    is_leaf = np.array(given["nodes_modes"]) == _LEAF
    values = np.array(given["nodes_values"], dtype=np.float32)
    leaves = zip(given["target_treeids"], given["target_nodeids"], strict=True)
    places = [start_of[tree] + number for tree, number in leaves]
    values[places] = given["target_weights"]
    return {
        "features": np.where(is_leaf, -1, given["nodes_featureids"]),
        "values": values,
        "left": starts + given["nodes_truenodeids"],
        "right": starts + given["nodes_falsenodeids"],
        "roots": roots,
    }
