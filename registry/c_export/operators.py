"""ONNX' operators as statements of C, for arrays of one query.

Each function returns the lines of one node. What does not occur in a model of gemmcast is refused:
operators beside OPERATORS, and parts of an array that do not lie together. Matrices are in
matrices.py.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial, reduce
from math import prod
from typing import Final

import numpy as np

from gemmcast.errors import InputError
from registry.c_export import matrices, trees
from registry.c_export.arrays import Arrays, loops, place
from registry.c_export.graph import Node, Shape

Lines = list[str]
Writer = Callable[[Arrays, Node], Lines]

_SUFFIXES: Final = {"float": "f", "double": ""}
_EXPRESSIONS: Final = {
    "Add": "{0} + {1}",
    "Sub": "{0} - {1}",
    "Mul": "{0} * {1}",
    "Div": "{0} / {1}",
    "Neg": "-{0}",
    "Abs": "fabs{f}({0})",
    "Ceil": "ceil{f}({0})",
    "Clip": "smaller{f}(larger{f}({0}, {1}), {2})",
    "Exp": "exp{f}({0})",
    "Floor": "floor{f}({0})",
    "Log": "log{f}({0})",
    "Sigmoid": "sigmoid{f}({0})",
    "Equal": "{0} == {1}",
    "Greater": "{0} > {1}",
    "GreaterOrEqual": "{0} >= {1}",
    "Less": "{0} < {1}",
    "LessOrEqual": "{0} <= {1}",
    "And": "{0} && {1}",
    "Or": "{0} || {1}",
    "Not": "!{0}",
    "Where": "{0} ? {1} : {2}",
}
_PAIRS: Final = {"Max": "larger{f}", "Min": "smaller{f}"}
_REDUCTIONS: Final = {
    "ReduceMax": "larger{f}({0}, {1})",
    "ReduceMin": "smaller{f}({0}, {1})",
    "ReduceProd": "{0} * {1}",
    "ReduceSum": "{0} + {1}",
}
_REDUCTIONS_OF_FLAGS: Final = {"ReduceMax": "{0} | {1}", "ReduceMin": "{0} & {1}"}


def statements(arrays: Arrays, node: Node) -> Lines:
    """The lines of one node.

    Raises:
        InputError: the operator is not one of OPERATORS.
    """
    if node.operator not in OPERATORS:
        rule = f"the model has an operator {node.operator}, which is not written as C"
        raise InputError("--format", "c", rule, "export it as onnx")
    return OPERATORS[node.operator](arrays, node)


def _elementwise(expression: str, arrays: Arrays, node: Node) -> Lines:
    """The same for every number, its inputs broadcast."""
    output = node.outputs[0]
    shape = arrays.type(output).shape
    numbers = [arrays.broadcast(name, shape) for name in node.inputs]
    value = expression.format(*numbers, f=_suffix(arrays, node))
    lines = arrays.declare(output)
    target = arrays.element(output, place(shape, shape))
    return lines + loops(shape, f"{target} = {value};")


def _extreme(function: str, arrays: Arrays, node: Node) -> Lines:
    """The largest or smallest of any number of inputs."""
    numbers = [f"{{{place}}}" for place in range(len(node.inputs))]
    expression = reduce(lambda a, b: f"{function}({a}, {b})", numbers)
    return _elementwise(expression, arrays, node)


def _cast(arrays: Arrays, node: Node) -> Lines:
    """The same numbers in another type."""
    kind = arrays.c_type(node.outputs[0])
    is_flag = arrays.type(node.outputs[0]).dtype == np.bool_
    return _elementwise("{0} != 0" if is_flag else f"({kind}){{0}}", arrays, node)


def _reduced(step: str, arrays: Arrays, node: Node) -> Lines:
    """One axis to its sum, product, largest or smallest."""
    source, output = node.inputs[0], node.outputs[0]
    if arrays.type(source).dtype == np.bool_:
        step = _REDUCTIONS_OF_FLAGS[node.operator]
    shape = arrays.type(source).shape
    axis = _axis(arrays, node, len(shape))
    inner = prod(shape[axis + 1 :])
    outer = prod(shape[:axis])
    x, y = arrays.pointer(source), arrays.declare(output)
    first = f"{x} + i * {shape[axis] * inner} + j"
    total = step.format("sum", f"from[k * {inner}]", f=_suffix(arrays, node))
    return [
        *y,
        f"for (int i = 0; i < {outer}; ++i)",
        f"    for (int j = 0; j < {inner}; ++j) {{",
        f"        const {arrays.c_type(source)} *from = {first};",
        f"        {arrays.c_type(source)} sum = from[0];",
        f"        for (int k = 1; k < {shape[axis]}; ++k)",
        f"            sum = {total};",
        f"        {arrays.pointer(output)}[i * {inner} + j] = sum;",
        "    }",
    ]


def _renamed(arrays: Arrays, node: Node) -> Lines:
    """The same numbers in the same order."""
    arrays.part(node.outputs[0], node.inputs[0])
    return []


def _split(arrays: Arrays, node: Node) -> Lines:
    """Neighbouring parts of an array."""
    source = node.inputs[0]
    shape = arrays.type(source).shape
    axis = node.attributes["axis"]
    _check_together(node, shape, axis)
    offset = 0
    for output in node.outputs:
        arrays.part(output, source, offset)
        offset += arrays.type(output).size
    return []


def _concat(arrays: Arrays, node: Node) -> Lines:
    """Arrays one behind the other."""
    output = node.outputs[0]
    _check_together(node, arrays.type(output).shape, node.attributes["axis"])
    lines = arrays.declare(output)
    target = arrays.pointer(output)
    offset = 0
    for source in node.inputs:
        size = arrays.type(source).size
        copied = f"{size} * sizeof({arrays.c_type(output)})"
        lines.append(f"memcpy({target} + {offset}, {arrays.pointer(source)}, {copied});")
        offset += size
    return lines


def _slice(arrays: Arrays, node: Node) -> Lines:
    """A range along one axis."""
    source, output = node.inputs[0], node.outputs[0]
    shape, wanted = arrays.type(source).shape, arrays.type(output).shape
    start, _, axis, step = (_whole(arrays, name) for name in node.inputs[1:])
    if step != 1 or start < 0:
        raise _unusual(node)
    inner = prod(shape[axis + 1 :])
    rows = prod(shape[:axis])
    lines = arrays.declare(output)
    part = wanted[axis] * inner
    from_place = f"{arrays.pointer(source)} + i * {shape[axis] * inner} + {start * inner}"
    copied = f"{part} * sizeof({arrays.c_type(output)})"
    return [
        *lines,
        f"for (int i = 0; i < {rows}; ++i)",
        f"    memcpy({arrays.pointer(output)} + i * {part}, {from_place}, {copied});",
    ]


def _gather(arrays: Arrays, node: Node) -> Lines:
    """Numbers at constant places."""
    source, places = node.inputs
    output = node.outputs[0]
    shape = arrays.type(output).shape
    _check_together(node, shape, node.attributes.get("axis", 0))
    index = arrays.element(places, place(shape, shape))
    lines = arrays.declare(output)
    target = arrays.element(output, place(shape, shape))
    return lines + loops(shape, f"{target} = {arrays.element(source, index)};")


def _suffix(arrays: Arrays, node: Node) -> str:
    """What C adds to the name of a function for the first input's type."""
    return _SUFFIXES.get(arrays.c_type(node.inputs[0]), "")


def _axis(arrays: Arrays, node: Node, rank: int) -> int:
    return _whole(arrays, node.inputs[1]) % rank


def _whole(arrays: Arrays, name: str) -> int:
    values = arrays.constant(name)
    assert values is not None and values.size == 1
    return int(values.ravel()[0])


def _check_together(node: Node, shape: Shape, axis: int) -> None:
    """Parts along an axis lie one behind the other only where all axes before have length 1."""
    if prod(shape[:axis]) != 1:
        raise _unusual(node)


def _unusual(node: Node) -> InputError:
    rule = f"the model uses {node.operator} in a way that is not written as C"
    return InputError("--format", "c", rule, "export it as onnx")


OPERATORS: Final[dict[str, Writer]] = {
    **{name: partial(_elementwise, text) for name, text in _EXPRESSIONS.items()},
    **{name: partial(_extreme, function) for name, function in _PAIRS.items()},
    **{name: partial(_reduced, step) for name, step in _REDUCTIONS.items()},
    **dict.fromkeys(("Identity", "Reshape", "Squeeze", "Unsqueeze"), _renamed),
    "Cast": _cast,
    "Split": _split,
    "Concat": _concat,
    "Slice": _slice,
    "Gather": _gather,
    "Gemm": matrices.product,
    "MatMul": matrices.product,
    "TreeEnsembleRegressor": trees.ensemble,
}
