"""Is the result right? Every configuration is checked against float64 before it is timed.

Two looks, both cheap beside the GEMM: up to 64 whole rows of C, spread over all of it, element by element; and every row of every
batch by Freivalds' test (C·x against A·(B·x) for a random sign vector x), which no wrong tile survives.
Errors are relative to the root mean square of C's elements. C is poisoned with NaN before the launch, so an element that the
kernel did not write is an error too. Works on NumPy and CuPy arrays alike.

Tolerance: 8 u for the rounding of multiplicands and of C, plus 8 u_acc sqrt(k) for the accumulation
(Higham & Mary, "A new approach to probabilistic rounding error analysis", 2019: errors of random data grow with sqrt(k)).
"""

from __future__ import annotations

from math import sqrt
from typing import Any

from agent.kernels import Operands, Prepared
from agent.numbers import poison, widen
from gemmcast.errors import MeasurementError
from gemmcast.gemm import DTYPES, Gemm

ROWS = 64


def tolerance(dtype: str, k: int) -> float:
    accumulator = 2.0**-53 if dtype == "fp64" else 2.0**-24
    return 8 * DTYPES[dtype].unit_roundoff + 8 * accumulator * sqrt(k)


def check(xp: Any, gemm: Gemm, operands: Operands, prepared: Prepared) -> float:
    """Launch once and compare.

    Args:
        xp: the array module, numpy or cupy.
        operands: the set that launch(0) multiplies.

    Returns:
        The largest error found, relative to the root mean square of C.

    Raises:
        MeasurementError: "incorrect", when that error is over the tolerance.
    """
    before = widen(xp, operands.c, gemm.dtype) * gemm.beta if gemm.beta else 0.0
    if not gemm.beta:
        poison(operands.c, gemm.dtype)
    prepared.launch(0)
    error = _worst(xp, gemm, operands, before)
    limit = tolerance(gemm.dtype, gemm.k)
    if not error <= limit:  # NaN must not pass
        raise MeasurementError("incorrect", f"largest relative error {error:.3g} is over {limit:.3g}")
    return error


def _worst(xp: Any, gemm: Gemm, operands: Operands, before: Any) -> float:
    a = operands.a.swapaxes(-1, -2) if gemm.layout[0] == "t" else operands.a
    b = operands.b.swapaxes(-1, -2) if gemm.layout[1] == "t" else operands.b
    c64 = widen(xp, operands.c, gemm.dtype)
    rows = xp.linspace(0, gemm.m - 1, min(gemm.m, ROWS)).astype(xp.int64)
    a64, b64 = widen(xp, a, gemm.dtype), widen(xp, b, gemm.dtype)
    want = gemm.alpha * xp.matmul(a64[:, rows], b64) + (before[:, rows] if gemm.beta else 0.0)
    scale = float(xp.sqrt(xp.mean(want * want))) or 1.0
    by_element = xp.max(xp.abs(c64[:, rows] - want))

    signs = xp.where(xp.arange(gemm.n) * 2654435761 % 4294967296 < 2147483648, 1.0, -1.0)  # Knuth's multiplicative hash: fixed, and as good as random
    expected = gemm.alpha * xp.matmul(a64, xp.matmul(b64, signs)[..., None])[..., 0]
    got = xp.matmul(c64 - before, signs)
    by_row = xp.max(xp.abs(got - expected)) / sqrt(gemm.n)
    # max() alone would drop a NaN on one side
    return float(xp.max(xp.stack([by_element, by_row]))) / scale if bool(xp.isfinite(by_row)) else float("nan")
