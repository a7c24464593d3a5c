"""Is the result right? Every configuration is checked against float64 before it is timed.

Two comparisons, both cheap beside the GEMM: up to 64 whole rows of C, spread over all of it,
element by element; and every row of every batch by Freivalds' test (C·x against A·(B·x) for a
random sign vector x), which a wrong tile does not pass. Errors are relative to the root mean square
of C's elements. Before the launch C is filled with NaN (where beta is 0), so an element that the
kernel did not write is an error too. A·B is computed once for all configurations of a problem.

agent/tolerance.py says how large an error a right kernel may have.
Works on NumPy and CuPy arrays alike; on a GPU nothing here waits for it.
"""

from __future__ import annotations

from functools import cache
from math import sqrt

from agent.dtypes import narrow, poison, widen
from agent.kernels import BlockScales, Prepared
from agent.operands import Array, ArrayModule, Operands
from agent.tolerance import ROWS, tolerance
from gemmcast.errors import MeasurementError
from gemmcast.gemm import Gemm


class Reference:
    """A·B of one operand set, as far as it is compared.

    Args:
        xp: the array module, numpy or cupy.
        operands: the set that launch(0) multiplies.
        scales: of its blocks; None where it has none.
    """

    def __init__(
        self, xp: ArrayModule, gemm: Gemm, operands: Operands, scales: BlockScales | None = None
    ) -> None:
        self._xp = xp
        self._gemm = gemm
        self._c = operands.c
        a = _row_major(operands.a, gemm.layout[0])
        b = _row_major(operands.b, gemm.layout[1])
        count = min(gemm.m, ROWS)
        self._rows = xp.linspace(0, gemm.m - 1, count).astype(xp.int64)
        self._signs = _signs(xp, gemm.n)
        b64 = widen(xp, b, gemm.dtype)
        a_rows = widen(xp, a[:, self._rows], gemm.dtype)
        if scales is not None:
            _scale(xp, a_rows, scales.a[self._rows], (1, scales.length))
            # b64 is [batch, k, n].
            _scale(xp, b64.swapaxes(-1, -2), scales.b, (scales.length, scales.length))
        self._product_rows = xp.matmul(a_rows, b64)
        b_signs = xp.matmul(b64, self._signs)[..., None]
        # The largest of all copies; that of A comes next and is as large.
        del b64
        a64 = widen(xp, a, gemm.dtype)
        if scales is not None:
            _scale(xp, a64, scales.a, (1, scales.length))
        self._signed_sums = xp.matmul(a64, b_signs)[..., 0]

    def errors(self, prepared: Prepared, alpha: float, beta: float) -> Array:
        """Launch once; the largest element error and the largest row error, as array[2].

        Both are relative to the root mean square of C, and NaN where C holds one.
        """
        xp, gemm = self._xp, self._gemm
        c_before = None
        if beta:
            self._fill()
            c_before = widen(xp, self._c, gemm.c_dtype) * beta
        else:
            poison(self._c, gemm.c_dtype)
        prepared.launch(0)
        c = widen(xp, self._c, gemm.c_dtype)
        expected = alpha * self._product_rows
        expected_sums = alpha * self._signed_sums
        if c_before is not None:
            expected = expected + c_before[:, self._rows]
            expected_sums = expected_sums + xp.matmul(c_before, self._signs)
        scale = xp.sqrt(xp.mean(expected * expected))
        scale = xp.where(scale > 0, scale, 1.0)
        element_error = xp.max(xp.abs(c[:, self._rows] - expected))
        sums = xp.matmul(c, self._signs)
        row_error = xp.max(xp.abs(sums - expected_sums)) / sqrt(gemm.n)
        return xp.stack([element_error, row_error]) / scale

    def _fill(self) -> None:
        """Fill C with numbers as large as A·B.

        Launches of other kernels have accumulated in it, so it may hold infinities.
        """
        xp, gemm = self._xp, self._gemm
        index = xp.arange(self._c.size, dtype=xp.float32)
        waves = xp.sin(index) * xp.float32(sqrt(2 * gemm.k))
        self._c[...] = narrow(xp, waves, gemm.c_dtype).reshape(self._c.shape)


def verdict(gemm: Gemm, split_k: int, errors: Array) -> float:
    """The larger of the two errors, on the host.

    Args:
        split_k: slices of k; 0 where the library does not say.

    Raises:
        MeasurementError: "incorrect" when an error is over its tolerance, or not a number.
    """
    allowed = tolerance(gemm, split_k)
    element_error, row_error = float(errors[0]), float(errors[1])
    _check_error(element_error, allowed.element)
    _check_error(row_error, allowed.row)
    return max(element_error, row_error)


def check(xp: ArrayModule, gemm: Gemm, operands: Operands, prepared: Prepared) -> float:
    """Launch, compare and judge at once; the largest error.

    Raises:
        MeasurementError: "incorrect".
    """
    reference = Reference(xp, gemm, operands, prepared.scales)
    errors = reference.errors(prepared, gemm.alpha, gemm.beta)
    on_host = errors if xp.__name__ == "numpy" else errors.get()
    return verdict(gemm, prepared.facts.get("split_k", 0), on_host)


def _check_error(error: float, allowed: float) -> None:
    # "not <=", so that NaN does not pass either.
    if not error <= allowed:
        reason = f"largest relative error {error:.3g} is over {allowed:.3g}"
        raise MeasurementError("incorrect", reason)


def _scale(xp: ArrayModule, values: Array, scales: Array, lengths: tuple[int, int]) -> None:
    """Multiply blocks of values[batch, rows, columns] by their scales, in place.

    Args:
        scales: [blocks of rows, blocks of columns].
        lengths: rows and columns of a block; the last ones may be shorter.
    """
    rows, columns = values.shape[-2:]
    wide = xp.repeat(scales, lengths[0], axis=0)[:rows]
    values *= xp.repeat(wide, lengths[1], axis=1)[:, :columns]


def _row_major(stored: Array, layout: str) -> Array:
    return stored.swapaxes(-1, -2) if layout == "t" else stored


def _signs(xp: ArrayModule, n: int) -> Array:
    """n signs, +1 or -1: fixed, and as good as random."""
    power_of_two = 1 << (n - 1).bit_length()
    return _hashed_signs(xp, power_of_two)[:n]


@cache
def _hashed_signs(xp: ArrayModule, n: int) -> Array:
    # A multiplicative hash alone is nearly periodic (Fibonacci numbers); the shifts mix it.
    bits = xp.arange(1, n + 1) * 2654435761 % 2**32
    for _ in range(2):
        bits = (bits ^ (bits >> 16)) * 0x45D9F3B % 2**32
    return xp.where(bits < 2**31, 1.0, -1.0)
