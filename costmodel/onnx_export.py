"""From a fitted CostModel to one ONNX file: question in, physical units out (docs/onnx.md).

    question -> [terms and networks traced by ndonnx] ---------------------------\
    question -> [features traced by ndonnx] -> features -> [trees by skl2onnx] -> [exp, products, intervals traced by ndonnx] -> outputs

Trees are there only where the model takes any. skl2onnx converts them through the converter registered below, because its own (1.20)
hands NumPy integers to onnx, which refuses them, and rounds float64 thresholds to the nearest float32, which can move a row to the
other side of a split. Rounded down, `x <= threshold` is the same for every float32 x.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

import ndonnx as ndx
import numpy as np
import onnx
from onnx import compose
from skl2onnx import to_onnx, update_registered_converter
from skl2onnx.common.data_types import FloatTensorType
from skl2onnx.common.shape_calculator import calculate_linear_regressor_output_shapes
from sklearn.ensemble import HistGradientBoostingRegressor

from costmodel.model import CostModel
from costmodel.tree_features import NAMES, features
from gemmcast import __version__
from gemmcast.device import Device
from gemmcast.modelfile import METADATA_PREFIX, PREFILTER
from gemmcast.query import (
    CONTRACT,
    DTYPE_CODES,
    FAMILY_CODES,
    FIELDS,
    INPUT,
    IR_VERSION,
    ML_OPSET,
    OPSET,
)

INPUT_AGAIN = "question_again"


def export(model: CostModel, devices: Sequence[Device]) -> bytes:
    """The .onnx file. `devices` are those it was trained on; the file then needs no other description of them."""
    graph = _answers_graph(model)
    if model.trees_:
        trees = _features_graph()
        for name, of_target in model.trees_.items():
            keep = [output.name for output in trees.graph.output]
            joint = [("features", f"{name}_features")]
            trees = compose.merge_models(trees, _trees_graph(of_target, name), io_map=joint, outputs=[*keep, f"{name}_log"])
        wanted = {taken.name for taken in graph.graph.input}
        joints = [(output.name, f"in_{output.name}") for output in trees.graph.output if f"in_{output.name}" in wanted]
        graph = compose.merge_models(trees, graph, io_map=joints, outputs=[output.name for output in graph.graph.output])
    _state_opsets(graph)
    graph.producer_name, graph.producer_version, graph.doc_string = "gemmcast", __version__, "GEMM cost model; see docs/onnx.md"
    shortlist = base64.b64encode(_shortlist_graph(model).SerializeToString()).decode()
    onnx.helper.set_model_props(graph, {PREFILTER: shortlist, **_properties(model, devices)})
    onnx.checker.check_model(graph)
    data: bytes = graph.SerializeToString()
    return data


def _features_graph() -> onnx.ModelProto:
    asked = ndx.argument(shape=("n", len(FIELDS)), dtype=ndx.float32)
    floor_us, columns = features(asked)
    return _stamped(ndx.build({INPUT: asked}, {"features": columns, "floor_us": floor_us, INPUT_AGAIN: asked}), "f_")


def _trees_graph(trees: HistGradientBoostingRegressor, name: str) -> onnx.ModelProto:
    inputs = [(f"{name}_features", FloatTensorType([None, len(NAMES)]))]
    model = to_onnx(trees, initial_types=inputs, target_opset={"": OPSET, "ai.onnx.ml": ML_OPSET})
    return _stamped(model, f"{name}_", rename={model.graph.output[0].name: f"{name}_log"})


def _answers_graph(model: CostModel) -> onnx.ModelProto:
    """The question goes in twice where there are trees: once to their features, whose graph hands it on."""

    def column(width: int) -> Any:
        return ndx.argument(shape=("n", width), dtype=ndx.float32)

    asked, floor_us, logs = column(len(FIELDS)), column(1), {name: column(1) for name in model.trees_}
    found = model.answer(asked, logs, floor_us)
    inputs = {INPUT: asked}
    if logs:
        inputs = {f"in_{INPUT_AGAIN}": asked, **{f"in_{name}_log": value for name, value in logs.items()}}
        inputs |= {"in_floor_us": floor_us} if "runtime" in logs else {}
    return _stamped(ndx.build(inputs, found), "a_")


def _shortlist_graph(model: CostModel) -> onnx.ModelProto:
    """What the rough model says of many questions: a graph of its own, because ONNX Runtime runs all of one whatever is asked for."""
    asked = ndx.argument(shape=("n", len(FIELDS)), dtype=ndx.float32)
    return _stamped(ndx.build({INPUT: asked}, {"runtime_us": model.rough(asked)}), "s_")


def _stamped(model: onnx.ModelProto, prefix: str, rename: Mapping[str, str] | None = None) -> onnx.ModelProto:
    """One opset and IR version for all parts, and node and value names that can't meet those of another part."""
    model.ir_version = IR_VERSION
    del model.metadata_props[:]
    _state_opsets(model)
    for node in model.graph.node:
        node.output[:] = [(rename or {}).get(name, name) for name in node.output]
    for output in model.graph.output:
        output.name = (rename or {}).get(output.name, output.name)
    prefixed: onnx.ModelProto = compose.add_prefix(model, prefix, rename_inputs=False, rename_outputs=False)
    return prefixed


def _state_opsets(model: onnx.ModelProto) -> None:
    """Both, once each: merging two models keeps those of either."""
    del model.opset_import[:]
    model.opset_import.extend([onnx.helper.make_opsetid("", OPSET), onnx.helper.make_opsetid("ai.onnx.ml", ML_OPSET)])


def _properties(model: CostModel, devices: Sequence[Device]) -> dict[str, str]:
    values = {
        "contract": str(CONTRACT),
        "fields": json.dumps(FIELDS),
        "outputs": json.dumps(model.outputs_),
        "devices": json.dumps([asdict(device) for device in devices]),
        "dtypes": json.dumps(DTYPE_CODES),
        "families": json.dumps(FAMILY_CODES),
        "created_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "program_version": __version__,
    }
    return {METADATA_PREFIX + name: value for name, value in values.items()}


def _convert_boosting(scope: Any, operator: Any, container: Any) -> None:
    """A HistGradientBoostingRegressor as one TreeEnsembleRegressor node."""
    trees: HistGradientBoostingRegressor = operator.raw_operator
    columns: dict[str, list[Any]] = {name: [] for name in (*_NODE_ATTRIBUTES, *_LEAF_ATTRIBUTES)}
    for number, (predictor,) in enumerate(trees._predictors):
        _append_tree(columns, number, predictor.nodes)
    container.add_node(
        "TreeEnsembleRegressor", operator.input_full_names, operator.output_full_names, op_domain="ai.onnx.ml", op_version=ML_OPSET,
        name=scope.get_unique_operator_name("TreeEnsembleRegressor"), n_targets=1, base_values=[float(trees._baseline_prediction.item())], **columns,
    )  # fmt: skip


_NODE_ATTRIBUTES = (
    "nodes_treeids", "nodes_nodeids", "nodes_featureids", "nodes_values", "nodes_modes", "nodes_truenodeids", "nodes_falsenodeids",
    "nodes_missing_value_tracks_true",
)  # fmt: skip
_LEAF_ATTRIBUTES = ("target_treeids", "target_nodeids", "target_ids", "target_weights")


def _append_tree(columns: dict[str, list[Any]], number: int, nodes: Any) -> None:
    leaf = nodes["is_leaf"].astype(bool)
    leaves = np.flatnonzero(leaf)
    added = {
        "nodes_treeids": [number] * len(nodes),
        "nodes_nodeids": list(range(len(nodes))),
        "nodes_featureids": nodes["feature_idx"].tolist(),
        "nodes_values": _floor32(nodes["num_threshold"]).tolist(),
        "nodes_modes": ["LEAF" if is_leaf else "BRANCH_LEQ" for is_leaf in leaf],
        "nodes_truenodeids": nodes["left"].tolist(),
        "nodes_falsenodeids": nodes["right"].tolist(),
        "nodes_missing_value_tracks_true": nodes["missing_go_to_left"].tolist(),
        "target_treeids": [number] * len(leaves),
        "target_nodeids": leaves.tolist(),
        "target_ids": [0] * len(leaves),
        "target_weights": nodes["value"][leaves].tolist(),
    }
    for name, values in added.items():
        columns[name] += values


def _floor32(values: Any) -> Any:
    """The largest float32 not above each float64."""
    rounded = values.astype(np.float32)
    return np.where(rounded.astype(np.float64) > values, np.nextafter(rounded, np.float32(-np.inf)), rounded)


update_registered_converter(
    HistGradientBoostingRegressor,
    "GemmcastHistGradientBoostingRegressor",
    calculate_linear_regressor_output_shapes,
    _convert_boosting,
    overwrite=True,
)
