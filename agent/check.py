"""Is the result right? Every configuration is checked against float64 before it is timed.

Two looks, both cheap beside the GEMM: up to 64 whole rows of C, spread over all of it, element by element; and every row of every
batch by Freivalds' test (C·x against A·(B·x) for a random sign vector x), which no wrong tile survives.
Errors are relative to the root mean square of C's elements. C is poisoned with NaN before the launch (where beta is 0), so an
element that the kernel did not write is an error too. Works on NumPy and CuPy arrays alike; on a GPU nothing here waits for it.

What A·B should be is computed once for all configurations of a problem.

Tolerance: 8 u for the rounding of multiplicands and of C, plus 8 u_acc sqrt(k) for the accumulation
(Higham & Mary, "A new approach to probabilistic rounding error analysis", 2019: errors of random data grow with sqrt(k)).
A single element may be off by twice that: libraries that split k may round its partial sums to C's type (cuBLAS does by default).
"""

from __future__ import annotations

from functools import cache
from math import sqrt
from typing import Any

from agent.dtypes import narrow, poison, widen
from agent.kernels import Prepared
from agent.operands import Operands
from gemmcast.errors import MeasurementError
from gemmcast.gemm import DTYPES, RESULTS, Gemm

ROWS = 64
MULTIPLIERS = {"tf32": 2.0**-10}
# unit roundoff, where the hardware may cut operands off instead of rounding them
ACCUMULATORS = {"fp64": 2.0**-53, "fp8_e4m3": 2.0**-14}
# unit roundoff, where it is not fp32's; Hopper's fp8 units keep 13 to 14 bits of a sum (DeepSeek-V3, arXiv 2412.19437, section 3.3.2)


def tolerance(dtype: str, k: int) -> float:
    """Of the largest row error, relative to the root mean square of C; a single element may be off by twice as much."""
    c_dtype = RESULTS.get(dtype, dtype)
    # fp8 operands are multiplied exactly: what is rounded is C
    return 8 * MULTIPLIERS.get(dtype, DTYPES[c_dtype].unit_roundoff) + 8 * ACCUMULATORS.get(dtype, 2.0**-24) * sqrt(k)


class Reference:
    """A·B of one operand set, as far as it is looked at.

    Args:
        xp: the array module, numpy or cupy.
        operands: the set that launch(0) multiplies.
    """

    def __init__(self, xp: Any, gemm: Gemm, operands: Operands) -> None:
        self._xp, self._gemm, self._c = xp, gemm, operands.c
        a = operands.a.swapaxes(-1, -2) if gemm.layout[0] == "t" else operands.a
        b = operands.b.swapaxes(-1, -2) if gemm.layout[1] == "t" else operands.b
        self._rows = xp.linspace(0, gemm.m - 1, min(gemm.m, ROWS)).astype(xp.int64)
        self._signs = _signs(xp, gemm.n)
        b64 = widen(xp, b, gemm.dtype)
        self._some = xp.matmul(widen(xp, a[:, self._rows], gemm.dtype), b64)
        times_signs = xp.matmul(b64, self._signs)[..., None]
        del b64  # the largest of all copies, and A's is as large
        self._sums = xp.matmul(widen(xp, a, gemm.dtype), times_signs)[..., 0]

    def errors(self, prepared: Prepared, alpha: float, beta: float) -> Any:
        """Launch once; [2] the largest element error and row error on the device, relative to the root mean square of C. NaN is an error."""
        xp, gemm = self._xp, self._gemm
        before = None
        if beta:
            self._fill()
            before = widen(xp, self._c, gemm.c_dtype) * beta
        else:
            poison(self._c, gemm.c_dtype)
        prepared.launch(0)
        c64 = widen(xp, self._c, gemm.c_dtype)
        want, sums = alpha * self._some, alpha * self._sums
        if before is not None:
            want, sums = want + before[:, self._rows], sums + xp.matmul(before, self._signs)
        scale = xp.sqrt(xp.mean(want * want))
        scale = xp.where(scale > 0, scale, 1.0)
        by_element = xp.max(xp.abs(c64[:, self._rows] - want))
        by_row = xp.max(xp.abs(xp.matmul(c64, self._signs) - sums)) / sqrt(gemm.n)
        return xp.stack([by_element, by_row]) / scale

    def _fill(self) -> None:
        """C as large as A·B. What lies there may be infinite: other kernels were launched on it time and again."""
        xp, gemm = self._xp, self._gemm
        waves = xp.sin(xp.arange(self._c.size, dtype=xp.float32)) * xp.float32(sqrt(2 * gemm.k))
        self._c[...] = narrow(xp, waves, gemm.c_dtype).reshape(self._c.shape)


def _signs(xp: Any, n: int) -> Any:
    """+1 or -1, fixed and as good as random: a multiplicative hash alone is nearly periodic (Fibonacci numbers), the shifts mix it."""
    return _all_signs(xp, 1 << (n - 1).bit_length())[:n]


@cache
def _all_signs(xp: Any, n: int) -> Any:
    bits = xp.arange(1, n + 1) * 2654435761 % 2**32
    for _ in range(2):
        bits = (bits ^ (bits >> 16)) * 0x45D9F3B % 2**32
    return xp.where(bits < 2**31, 1.0, -1.0)


def verdict(gemm: Gemm, errors: Any) -> float:
    """The larger of the two errors, on the host.

    Raises:
        MeasurementError: "incorrect", when one is over its tolerance, or not a number.
    """
    limit = tolerance(gemm.dtype, gemm.k)
    by_element, by_row = (float(error) for error in errors)
    for error, allowed in ((by_element, 2 * limit), (by_row, limit)):
        if not error <= allowed:  # nor may NaN pass
            raise MeasurementError("incorrect", f"largest relative error {error:.3g} is over {allowed:.3g}")
    return max(by_element, by_row)


def check(xp: Any, gemm: Gemm, operands: Operands, prepared: Prepared) -> float:
    """All of it at once: launch, compare, judge. Returns the largest error; raises MeasurementError("incorrect")."""
    errors = Reference(xp, gemm, operands).errors(prepared, gemm.alpha, gemm.beta)
    return verdict(gemm, errors if xp.__name__ == "numpy" else errors.get())
