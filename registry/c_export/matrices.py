"""Products of a query's numbers with a constant matrix: y = x W + b.

float32: four rows of W at a time, of which only the columns from the first to the last that is not
0 are kept and computed. The networks' later layers are blocks along the diagonal, so that leaves
out most of their zeros; and a compiler computes the columns side by side without changing the order
of any sum. float64 (small matrices of keys and of processes): two loops over W as it is.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import numpy as np

from gemmcast.errors import InputError
from registry.c_export.arrays import Arrays
from registry.c_export.graph import Constant, Node

ROWS_AT_ONCE: Final = 4
_USUAL: Final = {"alpha": 1.0, "beta": 1.0, "transA": 0, "transB": 0}


def product(arrays: Arrays, node: Node) -> list[str]:
    """The lines of a Gemm or a MatMul.

    Raises:
        InputError: no constant matrix, or more than one row times it.
    """
    x, w, *b = node.inputs
    weights = arrays.constant(w)
    is_usual = all(_USUAL[name] == value for name, value in node.attributes.items())
    if weights is None or weights.ndim != 2 or arrays.type(x).size != len(weights) or not is_usual:
        rule = f"the model uses {node.operator} in a way that is not written as C"
        raise InputError("--format", "c", rule, "export it as onnx")
    y = node.outputs[0]
    lines = arrays.declare(y)
    if b:
        start = arrays.broadcast(b[0], arrays.type(y).shape)
        lines.append(f"for (int i = 0; i < {weights.shape[1]}; ++i)")
        lines.append(f"    {arrays.element(y, 'i')} = {start};")
    else:
        lines.append(f"memset({arrays.pointer(y)}, 0, sizeof {arrays.pointer(y)});")
    add = _in_groups if weights.dtype == np.float32 else _as_it_is
    return lines + add(arrays, node, weights)


def spans(weights: Constant) -> Iterator[tuple[slice, slice]]:
    """Rows that are computed together, and the columns of theirs that are kept.

    The last rows, fewer than ROWS_AT_ONCE, are computed one by one.
    """
    whole = len(weights) // ROWS_AT_ONCE * ROWS_AT_ONCE
    starts = [*range(0, whole, ROWS_AT_ONCE), *range(whole, len(weights))]
    for start in starts:
        rows = slice(start, start + (ROWS_AT_ONCE if start < whole else 1))
        used = np.flatnonzero(weights[rows].any(axis=0))
        yield rows, slice(int(used[0]), int(used[-1]) + 1) if len(used) else slice(0, 0)


def _in_groups(arrays: Arrays, node: Node, weights: Constant) -> list[str]:
    x, w = node.inputs[:2]
    columns: list[int] = []
    kept: list[Constant] = []
    for rows, span in spans(weights):
        columns += [span.start, span.stop]
        kept.append(weights[rows, span].ravel())
    # C has no array of length 0: a matrix of zeros gets a number that nothing reads.
    packed = np.concatenate(kept) if any(columns) else weights.ravel()[:1]
    w_name = arrays.add_constant(w, packed)
    spans_name = arrays.add_constant(f"{w}_spans", np.array(columns, dtype=np.int64))
    y = arrays.pointer(node.outputs[0])
    return [f"multiply({arrays.pointer(x)}, {len(weights)}, {w_name}, {spans_name}, {y});"]


def _as_it_is(arrays: Arrays, node: Node, weights: Constant) -> list[str]:
    x, w = node.inputs[:2]
    count, columns = weights.shape
    factor = arrays.element(w, f"i * {columns} + j")
    return [
        f"for (int i = 0; i < {count}; ++i)",
        f"    for (int j = 0; j < {columns}; ++j)",
        f"        {arrays.element(node.outputs[0], 'j')} += {arrays.element(x, 'i')} * {factor};",
    ]
