"""How large an error a right kernel may have, relative to the root mean square of C.

    8 u + 8 u_acc sqrt(k)       of one element, and of the signed sum of a row over sqrt(n)

u is the unit roundoff of multiplicands and of C, u_acc that of the accumulator (Higham & Mary, "A
new approach to probabilistic rounding error analysis", 2019: errors of random data grow with
sqrt(k)).

Where k is split, cuBLAS may add the slices up in C itself: the running total T_1 .. T_s is rounded
to C's type s times. Each rounding errs by R u |T_j| (root mean square). Given that the element ends
as x, in units of C's root mean square, T_j^2 is x^2 (j/s)^2 + j/s (1 - j/s) in the mean (a Brownian
bridge), so the variance of the element's error is

    R^2 u^2 (q x^2 + r),   q = sum of (j/s)^2 = (s+1)(2s+1) / 6s
                           r = sum of j/s (1 - j/s) = (s^2-1) / 6s

The worst of N elements is large itself, and then its error is. A pair of size x and error t is
expected once among N where x^2 + t^2 / variance = L = 2 ln N. The largest t on that curve is

    element: R u sqrt(q) (L + r/q) / 2

The error of a row is that of many elements, which only varies as sqrt(L), and of its worst element:

    row:     R u sqrt((s+1)/2) sqrt(L) + element / sqrt(n)

In place of N stands N / REFUSED. The largest errors of 109,000 right results on H100 and H200 are
0.5 to 0.6 of this in fp16 and bf16, whatever s is (docs/measuring.md).
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil, log, sqrt

from gemmcast.gemm import DTYPES, RESULTS, Gemm

ROWS = 64
"""Rows of C that are compared element by element."""
STORED = {**RESULTS, "tf32": "fp32"}
"""dtype -> dtype as which C is stored, where it differs."""
MULTIPLICANDS = {"tf32": 2.0**-10}
"""Unit roundoff where the hardware may cut operands off instead of rounding them."""
ACCUMULATORS = {"fp64": 2.0**-53, "fp8_e4m3": 2.0**-14}
"""Unit roundoff where it is not fp32's. Hopper's fp8 units keep 13 to 14 bits of a sum
(DeepSeek-V3, arXiv 2412.19437, section 3.3.2)."""
FP32_ROUNDOFF = 2.0**-24
ROUNDING = 0.425
"""R: root mean square of a rounding error over u |x|. The error is uniform within u 2^e for x from
2^e to 2^(e+1), and mantissas are log-uniform: sqrt(1/3 · 3/(8 ln 2))."""
REFUSED = 1e-6
"""Share of right kernels that may be called wrong."""
UNKNOWN_SLICES = 64
"""Where a library does not say how often it splits k: 1.7 % of 26,327 defaults of cuBLAS split it
more often (datasets/). Those have a small C, of 61,710 elements at most."""
SHORTEST_SLICE = 16
"""k of one tensor-core instruction: no more than k / 16 slices have anything to add. Some
algorithms are configured for more."""


@dataclass(frozen=True, slots=True)
class Tolerance:
    """The largest errors of a right result, relative to the root mean square of C."""

    element: float
    """Of an element."""
    row: float
    """Of the signed sum of a row, over sqrt(n)."""


def tolerance(gemm: Gemm, split_k: int) -> Tolerance:
    """What a right kernel may err by.

    Args:
        split_k: slices of k; 0 where the library does not say.
    """
    if gemm.dtype == "int8":
        # Integers are multiplied and added exactly.
        return Tolerance(0.0, 0.0)
    accumulated = 8 * ACCUMULATORS.get(gemm.dtype, FP32_ROUNDOFF) * sqrt(gemm.k)
    # Operands of fp8 are multiplied exactly: what is rounded is C.
    c_roundoff = DTYPES[STORED.get(gemm.dtype, gemm.dtype)].unit_roundoff
    rounded = 8 * MULTIPLICANDS.get(gemm.dtype, c_roundoff)
    most = ceil(gemm.k / SHORTEST_SLICE)
    sums = _PartialSums(min(split_k or UNKNOWN_SLICES, most), from_c=gemm.beta != 0)
    rows = gemm.batch * gemm.m
    compared = gemm.batch * min(gemm.m, ROWS) * gemm.n
    element = max(rounded, c_roundoff * sums.element(compared))
    row = max(rounded, c_roundoff * sums.row(rows, gemm.n))
    return Tolerance(element + accumulated, row + accumulated)


@dataclass(frozen=True, slots=True)
class _PartialSums:
    """Slices that are added up in C. Errors are in units of u."""

    slices: int
    from_c: bool
    """beta is not 0: the total begins as beta·C, which may be most of it from the start."""

    def element(self, count: int) -> float:
        """The largest error of so many elements."""
        s = self.slices
        q, r = (s + 1) * (2 * s + 1) / (6 * s), (s * s - 1) / (6 * s)
        if self.from_c:
            q, r = s, 0.0
        return ROUNDING * sqrt(q) * (_rarest(count) + r / q) / 2

    def row(self, count: int, n: int) -> float:
        """The largest error of so many rows of n elements."""
        mean_square = self.slices if self.from_c else (self.slices + 1) / 2
        of_many = ROUNDING * sqrt(mean_square * _rarest(count))
        return of_many + self.element(count * n) / sqrt(n)


def _rarest(count: int) -> float:
    """L: the square of the largest of so many standard normal numbers, with a margin."""
    return 2 * log(count / REFUSED)
