"""Array operations for which ndonnx writes several nodes, or others than ONNX Runtime is quickest with; a question has a row at least.

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


def relu(x: Any) -> Any:
    """What is above 0; one node with a `gemm` before it."""
    return _either(x, numpy=lambda x: np.maximum(x, np.float32(0)), onnx=op.relu)


def silu(x: Any) -> Any:
    """x / (1 + e^-x)."""
    return _either(x, numpy=lambda x: x * (0.5 + 0.5 * np.tanh(0.5 * x)), onnx=lambda x: op.mul(x, op.sigmoid(x)))


def sign(x: Any) -> Any:
    return _either(x, numpy=np.sign, onnx=op.sign)


def most(a: Any, b: Any) -> Any:
    return _either(a, b, numpy=np.maximum, onnx=lambda a, b: op.max([a, b]))


def least(a: Any, b: Any) -> Any:
    return _either(a, b, numpy=np.minimum, onnx=lambda a, b: op.min([a, b]))


def split(x: Any, lengths: Sequence[int]) -> list[Any]:
    """Columns in groups of so many."""
    if isinstance(x, np.ndarray):
        return np.split(x, np.cumsum(lengths)[:-1], axis=1)
    return [ndx.asarray(part) for part in op.split(x.unwrap_spox(), op.const(list(lengths)), axis=1)]


def column(x: Any, i: int = 0) -> Any:
    """[n] of [n, columns]."""
    return _either(x, numpy=lambda x: x[:, i], onnx=lambda x: op.gather(x, op.const(i), axis=1))


def _either(*arrays: Any, numpy: Callable[..., Any], onnx: Callable[..., Any]) -> Any:
    if all(isinstance(x, np.ndarray) for x in arrays):
        return numpy(*arrays)
    return ndx.asarray(onnx(*((x if isinstance(x, ndx.Array) else ndx.asarray(x)).unwrap_spox() for x in arrays)))
