"""From a fitted model to one ONNX file: query in, physical units out (docs/onnx.md).

`ndonnx` traces the model's `evaluate`, the code that NumPy runs, so the file has all mathematics of
the model in it. Its metadata describe the fields, the outputs and the devices, and contain a second
graph: the prefilter, which ranks many configurations before the model scores the best. It is not
part of the first graph because ONNX Runtime runs every node, whatever output is requested.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Final, Protocol

import ndonnx as ndx
import onnx
from sklearn.ensemble import HistGradientBoostingRegressor

from costmodel.graph_ops import Array
from costmodel.graph_twins import without_twins
from costmodel.trees import predict_trees
from gemmcast import __version__
from gemmcast.device import Device
from gemmcast.modelfile import METADATA_PREFIX, PREFILTER_KEY
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

PREFILTER_OUTPUT: Final = "runtime_us"


class Traceable(Protocol):
    """A fitted model: CostModel, or one that starts from a base."""

    outputs_: tuple[str, ...]
    """Names of the outputs, in the order of the contract."""

    def evaluate(self, query: Array) -> dict[str, Array]:
        """Every output, low and high, and extrapolating; array-API code."""
        ...

    def prefilter(self, query: Array) -> Array:
        """[n] about runtime_us; array-API code."""
        ...


def export(model: Traceable, devices: Sequence[Device], created_at: str | None = None) -> bytes:
    """The .onnx file. The same arguments give the same bytes.

    Args:
        model: fitted.
        devices: those that it was trained on; the file then needs no other description of them.
        created_at: UTC, ISO 8601; None: now.
    """
    stamp = created_at or datetime.now(UTC).isoformat(timespec="seconds")
    graph = _traced(model.evaluate, INPUT, len(FIELDS))
    prefilter = _traced(
        lambda query: {PREFILTER_OUTPUT: model.prefilter(query)}, INPUT, len(FIELDS)
    )
    graph.producer_name = "gemmcast"
    graph.producer_version = __version__
    graph.doc_string = "GEMM cost model; see docs/onnx.md"
    encoded = base64.b64encode(prefilter.SerializeToString()).decode()
    properties = {PREFILTER_KEY: encoded, **_properties(model, devices, stamp)}
    onnx.helper.set_model_props(graph, properties)
    onnx.checker.check_model(graph)
    data: bytes = graph.SerializeToString()
    return data


def empty_graph() -> bytes:
    """A file that returns its queries as they are: the least that ONNX Runtime can do."""
    graph = _traced(lambda query: {"same": query}, INPUT, len(FIELDS))
    data: bytes = graph.SerializeToString()
    return data


def export_trees(trees: HistGradientBoostingRegressor, n_inputs: int) -> bytes:
    """Trees alone as an .onnx file, from `inputs`[n, n_inputs] to `values`[n, 1]."""
    graph = _traced(lambda inputs: {"values": predict_trees(trees, inputs)}, "inputs", n_inputs)
    data: bytes = graph.SerializeToString()
    return data


def _traced(
    function: Callable[[Array], Mapping[str, Array]], name: str, n_inputs: int
) -> onnx.ModelProto:
    """The graph of a function from input `name`[n, n_inputs] to named outputs."""
    argument = ndx.argument(shape=("n", n_inputs), dtype=ndx.float32)
    model: onnx.ModelProto = ndx.build({name: argument}, dict(function(argument)))
    model.ir_version = IR_VERSION
    del model.metadata_props[:]
    # The versions of the contract, whatever operators this model uses
    del model.opset_import[:]
    model.opset_import.extend(
        [
            onnx.helper.make_opsetid("", OPSET),
            onnx.helper.make_opsetid("ai.onnx.ml", ML_OPSET),
        ]
    )
    return without_twins(model)


def _properties(model: Traceable, devices: Sequence[Device], created_at: str) -> dict[str, str]:
    """What a reader needs beside the graph, as text."""
    values = {
        "contract": str(CONTRACT),
        "fields": json.dumps(FIELDS),
        "outputs": json.dumps(model.outputs_),
        "devices": json.dumps([asdict(device) for device in devices]),
        "dtypes": json.dumps(DTYPE_CODES),
        "families": json.dumps(FAMILY_CODES),
        "created_at": created_at,
        "program_version": __version__,
    }
    return {METADATA_PREFIX + name: value for name, value in values.items()}
