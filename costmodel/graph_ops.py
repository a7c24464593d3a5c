"""Array operations that `ndonnx` would write as several ONNX nodes, or does not have.

Each function takes NumPy arrays, or `ndonnx` arrays while a graph is traced: then it writes the one
ONNX operator that does the work. Everything else in the cost model uses the array API.
Every axis has at least one entry, so that reductions need no case for empty arrays.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from typing import Any

import ndonnx as ndx
import numpy as np
import onnx
import spox

Array = Any
"""A NumPy array, or an ndonnx array while a graph is traced."""

onnx_ops: Array = import_module("spox.opset.ai.onnx.v21")
onnx_ml_ops: Array = import_module("spox.opset.ai.onnx.ml.v3")
"""Generated modules: type checkers cannot follow their names."""


def matmul(a: Array, b: Array) -> Array:
    """a @ b of matrices."""
    return _either([a, b], np.matmul, onnx_ops.matmul)


def gemm(a: Array, b: Array, c: Array) -> Array:
    """a @ b + c of matrices."""
    return _either([a, b, c], _numpy_gemm, onnx_ops.gemm)


def silu(x: Array) -> Array:
    """x / (1 + e^-x), the SiLU of Hendrycks & Gimpel (arXiv 1606.08415)."""
    return _either([x], _numpy_silu, _onnx_silu)


def reduce_max(x: Array, axis: int) -> Array:
    """The largest entry along an axis, which stays with length 1."""
    return _reduced(x, axis, np.max, onnx_ops.reduce_max)


def reduce_min(x: Array, axis: int) -> Array:
    """The smallest entry along an axis, which stays with length 1."""
    return _reduced(x, axis, np.min, onnx_ops.reduce_min)


def is_all(x: Array, axis: int) -> Array:
    """Whether every flag along an axis is set; the axis stays with length 1."""
    return _reduced(x, axis, np.min, onnx_ops.reduce_min)


def is_any(x: Array, axis: int) -> Array:
    """Whether a flag along an axis is set; the axis stays with length 1."""
    return _reduced(x, axis, np.max, onnx_ops.reduce_max)


def clip(x: Array, lowest: float, highest: float) -> Array:
    """Numbers from lowest to highest."""
    if not is_traced(x):
        return np.clip(x, np.float32(lowest), np.float32(highest))
    ends = [onnx_ops.const(np.float32(end)) for end in (lowest, highest)]
    return ndx.asarray(onnx_ops.clip(x.unwrap_spox(), *ends))


def reduce_prod(x: Array, axis: int) -> Array:
    """The product along an axis, which stays with length 1."""
    return _reduced(x, axis, np.prod, onnx_ops.reduce_prod)


def split(x: Array, lengths: Sequence[int]) -> list[Array]:
    """Neighbouring columns of x[n, sum(lengths)] in groups of these lengths."""
    if isinstance(x, np.ndarray):
        return np.split(x, np.cumsum(lengths)[:-1], axis=1)
    parts = onnx_ops.split(x.unwrap_spox(), onnx_ops.const(list(lengths)), axis=1)
    return [ndx.asarray(part) for part in parts]


def spans(x: Array, wanted: Sequence[tuple[int, int]], width: int) -> list[Array]:
    """Some groups of neighbouring columns of x[n, width], one after the other.

    In a graph one Split: a Gather of many columns copies number by number, and takes a quarter of
    the prefilter's time.

    Args:
        wanted: the first column and the number of columns of each group, in order.
    """
    lengths: list[int] = []
    places: list[int] = []
    end = 0
    for start, length in [*wanted, (width, 0)]:
        if start > end:
            lengths.append(start - end)
        if length:
            places.append(len(lengths))
            lengths.append(length)
        end = start + length
    groups = split(x, lengths)
    return [groups[place] for place in places]


def columns(x: Array, wanted: Sequence[int], width: int) -> Array:
    """Some columns of x[n, width], in ascending order."""
    if not is_traced(x):
        return x[:, wanted]
    neighbours: list[tuple[int, int]] = []
    for column in wanted:
        start, length = neighbours[-1] if neighbours else (column, 0)
        if start + length == column:
            neighbours[-1:] = [(start, length + 1)]
        else:
            neighbours.append((column, 1))
    return ndx.concat(spans(x, neighbours, width), axis=1)


def squeeze(x: Array) -> Array:
    """[n] of x[n, 1]."""
    return x[:, 0] if isinstance(x, np.ndarray) else ndx.squeeze(x, axis=1)


def tree_ensemble(x: Array, attributes: Mapping[str, object]) -> Array:
    """[n, 1] of x[n, n_columns]: ONNX' TreeEnsembleRegressor. Only for traced arrays."""
    node = onnx_ml_ops.tree_ensemble_regressor(x.unwrap_spox(), **attributes)
    return ndx.asarray(node)


def inlined(model: bytes, name: str, x: Array) -> dict[str, Array]:
    """Output -> values of an ONNX file whose only input has that name. Only for traced arrays."""
    graph = onnx.load_model_from_string(model)
    outputs = spox.inline(graph)(**{name: x.unwrap_spox()})
    return {output: ndx.asarray(values) for output, values in outputs.items()}


def is_traced(x: Array) -> bool:
    """Whether `x` belongs to a graph that is being traced."""
    return not isinstance(x, np.ndarray)


def _reduced(x: Array, axis: int, numpy: Callable[..., Array], node: Callable[..., Array]) -> Array:
    if not is_traced(x):
        return numpy(x, axis=axis, keepdims=True)
    axes = onnx_ops.const(np.array([axis]))
    return ndx.asarray(node(x.unwrap_spox(), axes, keepdims=1))


def _numpy_gemm(a: Array, b: Array, c: Array) -> Array:
    return a @ b + c


def _numpy_silu(x: Array) -> Array:
    """With tanh instead of an exponential, which could overflow."""
    return x * (0.5 + 0.5 * np.tanh(0.5 * x))


def _onnx_silu(x: Array) -> Array:
    return onnx_ops.mul(x, onnx_ops.sigmoid(x))


def _either(
    arrays: Sequence[Array], numpy: Callable[..., Array], node: Callable[..., Array]
) -> Array:
    if not any(is_traced(x) for x in arrays):
        return numpy(*arrays)
    traced = [ndx.asarray(x).unwrap_spox() for x in arrays]
    return ndx.asarray(node(*traced))
