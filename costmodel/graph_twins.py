"""Merge the nodes of an ONNX graph that compute the same thing.

A model that starts from a base computes the terms of a query, and so does the base inside it. Nodes
of the same operator, attributes and inputs have the same outputs, so one of them is enough: that
halves the nodes, and ONNX Runtime pays for nodes. Node by node, in the order of the graph, as in
value numbering (Cocke & Schwartz 1970). Values stay the same to the bit.
"""

from __future__ import annotations

import onnx


def without_twins(model: onnx.ModelProto) -> onnx.ModelProto:
    """The same model with each of its nodes once. The names of inputs and outputs stay."""
    graph = model.graph
    kept_names = {output.name for output in graph.output}
    first_of: dict[str, str] = _twins_of_initializers(graph)
    known: dict[bytes, onnx.NodeProto] = {}
    nodes: list[onnx.NodeProto] = []
    for node in graph.node:
        for i, name in enumerate(node.input):
            node.input[i] = first_of.get(name, name)
        twin = known.setdefault(_content(node), node)
        if twin is node or kept_names & set(node.output):
            nodes.append(node)
            continue
        first_of.update(zip(node.output, twin.output, strict=True))
    del graph.node[:]
    graph.node.extend(nodes)
    del graph.value_info[:]
    return model


def _content(node: onnx.NodeProto) -> bytes:
    """All of a node but its names."""
    content = onnx.NodeProto()
    content.CopyFrom(node)
    content.ClearField("name")
    content.ClearField("doc_string")
    del content.output[:]
    # how many there are matters, and which optional ones are left out
    content.output.extend("x" if name else "" for name in node.output)
    data: bytes = content.SerializeToString(deterministic=True)
    return data


def _twins_of_initializers(graph: onnx.GraphProto) -> dict[str, str]:
    """Name -> name of the first initializer of the same content, which alone stays."""
    first_of: dict[str, str] = {}
    known: dict[bytes, str] = {}
    kept: list[onnx.TensorProto] = []
    for tensor in graph.initializer:
        content = onnx.TensorProto()
        content.CopyFrom(tensor)
        content.ClearField("name")
        first = known.setdefault(content.SerializeToString(deterministic=True), tensor.name)
        first_of[tensor.name] = first
        if first == tensor.name:
            kept.append(tensor)
    del graph.initializer[:]
    graph.initializer.extend(kept)
    return first_of
