"""Array operations for which ndonnx writes several nodes, because arrays might be empty; a question has a row at least.

Each works on NumPy arrays and, by the one ONNX operator that does it, on ndonnx's.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib import import_module
from typing import Any

import ndonnx as ndx
import numpy as np

op: Any = import_module("spox.opset.ai.onnx.v21")
# generated code, whose names type checkers do not follow


def matmul(a: Any, b: Any) -> Any:
    return _either(a, b, numpy=np.matmul, onnx=op.matmul)


def gemm(a: Any, b: Any, c: Any) -> Any:
    """a @ b + c of matrices."""
    return _either(a, b, c, numpy=lambda a, b, c: a @ b + c, onnx=op.gemm)


def split(x: Any, lengths: Sequence[int]) -> list[Any]:
    """Rows in groups of so many."""
    if isinstance(x, np.ndarray):
        return np.split(x, np.cumsum(lengths)[:-1])
    return [ndx.asarray(part) for part in op.split(x.unwrap_spox(), op.const(list(lengths)), axis=0)]


def largest(x: Any, axis: int, *, keep: bool = True) -> Any:
    """Along the axis, which stays with length 1 or is gone then."""
    return _either(x, numpy=lambda x: x.max(axis=axis, keepdims=keep), onnx=lambda x: op.reduce_max(x, op.const([axis]), keepdims=int(keep)))


def smallest(x: Any, axis: int, *, keep: bool = True) -> Any:
    return _either(x, numpy=lambda x: x.min(axis=axis, keepdims=keep), onnx=lambda x: op.reduce_min(x, op.const([axis]), keepdims=int(keep)))


def mean(x: Any, axis: int) -> Any:
    """Along the axis, which is gone then."""
    return _either(x, numpy=lambda x: x.mean(axis=axis), onnx=lambda x: op.reduce_mean(x, op.const([axis]), keepdims=0))


def row(x: Any, at: int) -> Any:
    """[n] of [rows, n]."""
    return _either(x, numpy=lambda x: x[at], onnx=lambda x: op.gather(x, op.const(at), axis=0))


def _either(*arrays: Any, numpy: Callable[..., Any], onnx: Callable[..., Any]) -> Any:
    if all(isinstance(x, np.ndarray) for x in arrays):
        return numpy(*arrays)
    return ndx.asarray(onnx(*((x if isinstance(x, ndx.Array) else ndx.asarray(x)).unwrap_spox() for x in arrays)))
