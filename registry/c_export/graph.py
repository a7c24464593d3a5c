"""The graph of a model file, for one query: its nodes, its constants, and the shape of each array.

    node = operator(inputs) -> outputs      every array has a type and a shape without unknowns

Only nodes that an output needs are kept. Knows nothing of C.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
import numpy.typing as npt

Constant = npt.NDArray[Any]
Shape = tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ArrayType:
    """What an array of the graph holds."""

    dtype: np.dtype[Any]
    """float32, float64, int64 or bool."""
    shape: Shape
    """Of one query; empty for a single number."""

    @property
    def size(self) -> int:
        """Numbers in it."""
        return prod(self.shape)


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """One operation."""

    operator: str
    """ONNX' name of it."""
    inputs: Sequence[str]
    """Names of arrays."""
    outputs: Sequence[str]
    """Names of arrays."""
    attributes: Mapping[str, Any]
    """By ONNX' names."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Graph:
    """What a model file computes for one query."""

    nodes: Sequence[Node]
    """In an order in which they can run, without constants."""
    constants: Mapping[str, Constant]
    """Array -> its numbers."""
    types: Mapping[str, ArrayType]
    """Array -> its type."""
    outputs: Sequence[str]
    """Names of the answers."""


def read_graph(model: bytes) -> Graph:
    """The graph of a model file."""
    import onnx

    proto = onnx.load_model_from_string(model)
    for value in (*proto.graph.input, *proto.graph.output):
        value.type.tensor_type.shape.dim[0].dim_value = 1
    inferred = onnx.shape_inference.infer_shapes(proto, strict_mode=True, data_prop=True).graph
    types = {value.name: _type(value) for value in (*inferred.value_info, *inferred.input)}
    outputs = [output.name for output in inferred.output]
    constants: dict[str, Constant] = {}
    nodes: list[Node] = []
    for node in inferred.node:
        if node.op_type == "Constant":
            array = onnx.numpy_helper.to_array(node.attribute[0].t)
            constants[node.output[0]] = array
        else:
            nodes.append(_node(node))
    for tensor in inferred.initializer:
        constants[tensor.name] = onnx.numpy_helper.to_array(tensor)
    for name, array in constants.items():
        types[name] = ArrayType(dtype=array.dtype, shape=array.shape)
    for output in inferred.output:
        types[output.name] = _type(output)
    return Graph(nodes=_needed(nodes, outputs), constants=constants, types=types, outputs=outputs)


def _type(value: Any) -> ArrayType:
    import onnx

    tensor = value.type.tensor_type
    shape = tuple(dim.dim_value for dim in tensor.shape.dim)
    return ArrayType(dtype=onnx.helper.tensor_dtype_to_np_dtype(tensor.elem_type), shape=shape)


def _node(node: Any) -> Node:
    import onnx

    attributes: dict[str, Any] = {}
    for attribute in node.attribute:
        attributes[attribute.name] = onnx.helper.get_attribute_value(attribute)
    return Node(
        operator=node.op_type,
        inputs=list(node.input),
        outputs=list(node.output),
        attributes=attributes,
    )


def _needed(nodes: Sequence[Node], outputs: Iterable[str]) -> list[Node]:
    """Those that an output depends on, in their order."""
    wanted = set(outputs)
    kept: list[Node] = []
    for node in reversed(nodes):
        if wanted.intersection(node.outputs):
            kept.append(node)
            wanted.update(node.inputs)
    return kept[::-1]
