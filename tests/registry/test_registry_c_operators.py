"""Each ONNX operator that is written as C gives what ONNX Runtime gives, for one query."""

from __future__ import annotations

import ctypes
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper

from gemmcast.errors import InputError
from gemmcast.query import INPUT
from registry.c_export.evaluation import evaluation
from registry.c_export.graph import read_graph
from registry.c_export.literals import number
from registry.c_export.operators import OPERATORS

WIDTH = 12
NAN = float("nan")
ROW = np.array([[1, 2, 4, 8, 0, -3, 0.5, 7, 7, NAN, 1e-3, -90]], dtype=np.float32)
Array = npt.NDArray[np.generic]
CONSTANTS: dict[str, Array] = {
    "three": np.array(3, np.float32),
    "least": np.array(-2, np.float32),
    "sevens": np.array([2, 4, 8, 16, 32, 64, 128], np.float32),
    "column": np.array([1], np.int64),
    "last": np.array([2], np.int64),
    "first_two": np.array([0], np.int64),
    "end_two": np.array([2], np.int64),
    "one_step": np.array([1], np.int64),
    "flat": np.array([-1, WIDTH * 7], np.int64),
    "halves": np.array([5, 7], np.int64),
    "places": np.array([3, 0, 3, 11], np.int64),
    # Ten rows, of which only some columns are used: blocks along the diagonal, and two rows beyond.
    "wide": np.kron(np.eye(2), np.ones((5, 20))).astype(np.float32),
    "narrow": np.arange(10, dtype=np.float32).reshape(10, 1),
    "zeros": np.zeros((10, 2), np.float32),
    "bias": np.linspace(-1, 1, 40).astype(np.float32),
    "double": np.arange(10).reshape(5, 2) / 7.0,
    "many": np.array([1.0, 7.0, -3.0]),
}
NODES: list[tuple[str, list[str], dict[str, Any]]] = [
    ("Add", ["x", "three"], {}),
    ("Sub", ["three", "x"], {}),
    ("Mul", ["x", "x"], {}),
    ("Div", ["x", "three"], {}),
    ("Neg", ["x"], {}),
    ("Abs", ["x"], {}),
    ("Ceil", ["x"], {}),
    ("Floor", ["x"], {}),
    ("Exp", ["x"], {}),
    ("Log", ["Abs"], {}),
    ("Sigmoid", ["x"], {}),
    ("Equal", ["x", "three"], {}),
    ("Greater", ["x", "three"], {}),
    ("GreaterOrEqual", ["x", "three"], {}),
    ("Less", ["x", "three"], {}),
    ("LessOrEqual", ["x", "three"], {}),
    ("And", ["Greater", "Less"], {}),
    ("Or", ["Greater", "Less"], {}),
    ("Not", ["Greater"], {}),
    ("Where", ["Greater", "x", "three"], {}),
    ("Max", ["x", "three", "Neg"], {}),
    ("Min", ["x", "three", "Neg"], {}),
    # NaN on one side only
    ("Max:left", ["x", "three"], {}),
    ("Max:right", ["three", "x"], {}),
    ("Min:left", ["x", "three"], {}),
    ("Min:right", ["three", "x"], {}),
    ("Equal:same", ["Where", "Where"], {}),
    # Without NaN, whose place in a reduction ONNX leaves open.
    ("Unsqueeze", ["Where", "last"], {}),
    ("Div:cube", ["Unsqueeze", "sevens"], {}),
    ("ReduceMax", ["Div:cube", "last"], {"keepdims": 1}),
    ("ReduceMin", ["Div:cube", "column"], {"keepdims": 1}),
    ("ReduceSum", ["Div:cube", "last"], {"keepdims": 1}),
    ("ReduceProd", ["Where", "column"], {"keepdims": 1}),
    ("Squeeze", ["ReduceMax", "last"], {}),
    ("Clip", ["Where", "least", "three"], {}),
    ("ReduceMax:flags", ["Greater", "column"], {"keepdims": 1}),
    ("ReduceMin:flags", ["Not", "column"], {"keepdims": 1}),
    ("ReduceMin:set", ["Equal:same", "column"], {"keepdims": 1}),
    ("Slice", ["Div:cube", "first_two", "end_two", "last", "one_step"], {}),
    ("Reshape", ["Div:cube", "flat"], {}),
    ("Concat", ["x", "ReduceProd", "x"], {"axis": 1}),
    ("Gather", ["x", "places"], {"axis": 1}),
    ("Identity", ["x"], {}),
    ("Slice:ten", ["Where", "first_two", "ten", "column", "one_step"], {}),
    ("Gemm", ["Slice:ten", "wide", "bias"], {}),
    ("MatMul", ["Slice:ten", "narrow"], {}),
    ("MatMul:zeros", ["Slice:ten", "zeros"], {}),
    ("Slice:five", ["x", "first_two", "five", "column", "one_step"], {}),
    ("Cast", ["Slice:five"], {"to": TensorProto.DOUBLE}),
    ("MatMul:double", ["Cast", "double"], {}),
    ("Max:double", ["MatMul:double", "MatMul:double"], {}),
    ("Cast:float", ["Max:double"], {"to": TensorProto.FLOAT}),
    ("Cast:flag", ["Slice:five"], {"to": TensorProto.BOOL}),
    ("Equal:keys", ["Cast:column", "many"], {}),
]


def _model(nodes: list[onnx.NodeProto], outputs: list[onnx.ValueInfoProto]) -> bytes:
    question = helper.make_tensor_value_info(INPUT, TensorProto.FLOAT, ["n", WIDTH])
    graph = helper.make_graph(nodes, "operators", [question], outputs)
    opsets = [helper.make_opsetid("", 21), helper.make_opsetid("ai.onnx.ml", 3)]
    return bytes(helper.make_model(graph, opset_imports=opsets, ir_version=10).SerializeToString())


def _every_operator() -> bytes:
    """One output for each node that gives floats or flags."""
    constants = {
        **CONSTANTS,
        "ten": np.array([10], np.int64),
        "five": np.array([5], np.int64),
        "seventh": np.array([7], np.int64),
        "eighth": np.array([8], np.int64),
    }
    nodes = [helper.make_node("Identity", [INPUT], ["x"])]
    for name, array in constants.items():
        value = numpy_helper.from_array(array, name)
        nodes.append(helper.make_node("Constant", [], [name], value=value))
    nodes.append(helper.make_node("Slice", ["x", "seventh", "eighth", "column"], ["Slice:column"]))
    nodes[-1].input.append("one_step")
    to_double = helper.make_node("Cast", ["Slice:column"], ["Cast:column"], to=TensorProto.DOUBLE)
    nodes.append(to_double)
    nodes.append(helper.make_node("Split", ["x", "halves"], ["Split:0", "Split:1"], axis=1))
    names = ["Split:1"]
    for name, inputs, attributes in NODES:
        nodes.append(helper.make_node(name.partition(":")[0], inputs, [name], **attributes))
        names.append(name)
    nodes.append(_trees("Trees"))
    names.append("Trees")
    model = onnx.load_model_from_string(_model(nodes, []))
    inferred = onnx.shape_inference.infer_shapes(model, strict_mode=True, data_prop=True)
    by_name = {value.name: value for value in inferred.graph.value_info}
    doubles = {name for name, value in by_name.items() if value.type.tensor_type.elem_type == 11}
    shown = [by_name[name] for name in names if name not in doubles]
    renamed = [helper.make_node("Identity", [value.name], [_c_name(value.name)]) for value in shown]
    outputs: list[onnx.ValueInfoProto] = []
    for value in shown:
        output = onnx.ValueInfoProto()
        output.CopyFrom(value)
        output.name = _c_name(value.name)
        outputs.append(output)
    return _model([*nodes, *renamed], outputs)


def _trees(output: str, branch: str = "BRANCH_LEQ") -> onnx.NodeProto:
    """Two trees: x[2] <= 4 ? (x[5] <= -4 ? 1 : 2) : 4, and x[0] <= 0 ? 8 : 16; and 100."""
    return helper.make_node(
        "TreeEnsembleRegressor",
        [INPUT],
        [output],
        domain="ai.onnx.ml",
        n_targets=1,
        base_values=[100.0],
        nodes_treeids=[0, 0, 0, 0, 0, 1, 1, 1],
        nodes_nodeids=[0, 1, 2, 3, 4, 0, 1, 2],
        nodes_featureids=[2, 5, 0, 0, 0, 0, 0, 0],
        nodes_values=[4.0, -4.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0],
        nodes_modes=[branch, branch, "LEAF", "LEAF", "LEAF", branch, "LEAF", "LEAF"],
        nodes_truenodeids=[1, 2, 0, 0, 0, 1, 0, 0],
        nodes_falsenodeids=[4, 3, 0, 0, 0, 2, 0, 0],
        target_treeids=[0, 0, 0, 1, 1],
        target_nodeids=[2, 3, 4, 1, 2],
        target_ids=[0, 0, 0, 0, 0],
        target_weights=[1.0, 2.0, 4.0, 8.0, 16.0],
    )


def _c_name(name: str) -> str:
    return f"of_{name.replace(':', '_')}"


@pytest.mark.skipif(shutil.which("gcc") is None, reason="there is no gcc")
def test_every_operator_is_that_of_onnx_runtime(tmp_path: Path) -> None:
    model = _every_operator()
    session = ort.InferenceSession(model, providers=["CPUExecutionProvider"])
    expected = session.run(None, {INPUT: ROW})
    graph = read_graph(model)
    written = {node.operator for node in graph.nodes}
    assert written == set(OPERATORS)
    answers = _run_as_c(model, tmp_path)
    for name, values in zip(graph.outputs, expected, strict=True):
        mine = answers[name].reshape(values.shape)
        assert np.allclose(mine, values, rtol=1e-6, atol=1e-37, equal_nan=True), name


def _run_as_c(model: bytes, folder: Path) -> dict[str, Array]:
    graph = read_graph(model)
    text = evaluation(graph)
    members = []
    fields = []
    for name in graph.outputs:
        array = graph.types[name]
        is_flag = array.dtype == np.bool_
        members.append(f"{'unsigned char' if is_flag else 'float'} {name}[{array.size}];")
        fields.append((name, (ctypes.c_uint8 if is_flag else ctypes.c_float) * array.size))
    source = folder / "operators.c"
    source.write_text(
        f"#include <math.h>\n#include <string.h>\n{text.constants}\n{text.helpers}\n"
        f"struct outputs {{ {' '.join(members)} }};\n"
        "void evaluate(const float *question, struct outputs *out);\n"
        f"void evaluate(const float *question, struct outputs *out)\n{{\n{text.body}\n}}\n"
    )
    library = folder / "operators.so"
    flags = ["-std=c99", "-Wall", "-Wextra", "-pedantic", "-Werror", "-fsanitize=undefined"]
    command = ["gcc", *flags, "-shared", "-fPIC", str(source), "-o", str(library), "-lm"]
    subprocess.run(command, check=True)

    class Outputs(ctypes.Structure):
        _fields_ = fields

    out = Outputs()
    evaluate = ctypes.CDLL(str(library)).evaluate
    evaluate(ctypes.c_void_p(ROW.ctypes.data), ctypes.byref(out))
    return {name: np.array(getattr(out, name)) for name, _ in fields}


def test_an_operator_beyond_them_is_refused() -> None:
    node = helper.make_node("Tanh", [INPUT], ["y"])
    output = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", WIDTH])
    with pytest.raises(InputError, match="an operator Tanh, which is not written as C"):
        evaluation(read_graph(_model([node], [output])))


def test_trees_of_another_kind_are_refused() -> None:
    output = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 1])
    model = _model([_trees("y", "BRANCH_GT")], [output])
    with pytest.raises(InputError, match="has trees of a kind that is not written as C"):
        evaluation(read_graph(model))


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (np.float32(0.1), "0.1f"),
        (np.float32(1e-7), "1e-07f"),
        (np.float32(2), "2.0f"),
        (np.float64(0.1), "0.1"),
        (np.float32(np.nan), "NAN"),
        (np.float32(-np.inf), "-INFINITY"),
        (np.int64(7), "7"),
        (np.bool_(True), "1"),
    ],
)
def test_numbers(value: np.generic, text: str) -> None:
    assert number(value) == text
