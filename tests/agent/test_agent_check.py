"""The check of results: kernels that are right, or wrong in one place, in every dtype."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from agent.check import Reference, check, verdict
from agent.dtypes import CARRIERS, narrow, poison, widen
from agent.kernels import Prepared
from agent.operands import Carved, Operands, input_elements, output_elements
from agent.tolerance import tolerance
from gemmcast.errors import MeasurementError
from gemmcast.gemm import LAYOUTS, Gemm

# Of c[batch, m, n] as float32, before it is stored.
Spoil = Callable[[Any], None]


def _carried(values: Any, dtype: str) -> Any:
    if dtype == "fp64":
        return values
    return narrow(np, np.ascontiguousarray(values, dtype=np.float32), dtype)


def _as_tf32(values: Any) -> Any:
    """Rounded to ten bits of the mantissa."""
    bits = values.astype(np.float32).view(np.uint32)
    return (bits + 0x1000 & 0xFFFFE000).view(np.float32)


class FakeKernel:
    """Multiplies as hardware does.

    Operands are of the dtype, products are summed in float32 (float64 for fp64), C is rounded to
    the dtype.
    """

    def __init__(
        self,
        gemm: Gemm,
        *,
        spoil: Spoil = lambda _: None,
        seed: int = 0,
        beta: float | None = None,
        untouched: Any = None,
    ) -> None:
        self.gemm = gemm
        self._spoil = spoil
        self._beta = gemm.beta if beta is None else beta
        self._untouched = untouched
        rng = np.random.default_rng(seed)
        inputs = _carried(rng.standard_normal(input_elements(gemm)), gemm.dtype)
        outputs = _carried(rng.standard_normal(output_elements(gemm)), gemm.c_dtype)
        (operands,) = Carved(gemm, inputs, outputs, 1)
        self.operands: Operands = operands

    def _wide(self, stored: Any, layout: str) -> Any:
        row_major = stored.swapaxes(-1, -2) if layout == "t" else stored
        wide = widen(np, row_major, self.gemm.dtype)
        if self.gemm.dtype == "tf32":
            return _as_tf32(wide)
        return wide if self.gemm.dtype == "fp64" else wide.astype(np.float32)

    def launch(self, _: int) -> None:
        stored, gemm = self.operands, self.gemm
        a = self._wide(stored.a, gemm.layout[0])
        b = self._wide(stored.b, gemm.layout[1])
        c = gemm.alpha * np.matmul(a, b)
        if self._beta:
            c = c + widen(np, stored.c, gemm.c_dtype) * self._beta
        self._spoil(c)
        new = _carried(c, gemm.c_dtype)
        if self._untouched is not None:
            new[self._untouched] = stored.c[self._untouched]
        stored.c[...] = new

    def check(self) -> float:
        return check(np, self.gemm, self.operands, Prepared(self.launch))


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", CARRIERS)
@pytest.mark.parametrize(
    ("m", "n", "k", "batch"), [(1, 1, 1, 1), (70, 33, 129, 1), (200, 130, 40, 3)]
)
def test_a_right_result_passes(dtype: str, layout: str, m: int, n: int, k: int, batch: int) -> None:
    gemm = Gemm(m=m, n=n, k=k, batch=batch, dtype=dtype, layout=layout)
    assert 0 <= FakeKernel(gemm).check() <= 0.5 * tolerance(gemm, 1).element


@pytest.mark.parametrize("dtype", CARRIERS)
def test_a_right_result_passes_where_k_is_long(dtype: str) -> None:
    gemm = Gemm(m=66, n=20, k=20_000, dtype=dtype)
    assert FakeKernel(gemm).check() <= 0.5 * tolerance(gemm, 1).element


def _zeroed(c: Any) -> None:
    c[-1, 17:33, 32:48] = 0


def _shifted(c: Any) -> None:
    c[-1, 17:33, 32:48] = np.roll(c[-1, 17:33, 32:48], 1, axis=1)


def _one_k_step_short(c: Any) -> None:
    c[-1, 17:33, 32:48] *= 0.8


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("dtype", CARRIERS)
@pytest.mark.parametrize("spoil", [_zeroed, _shifted, _one_k_step_short])
def test_one_wrong_tile_is_detected(dtype: str, spoil: Spoil, batch: int) -> None:
    kernel = FakeKernel(Gemm(m=300, n=200, k=100, batch=batch, dtype=dtype), spoil=spoil)
    with pytest.raises(MeasurementError, match="largest relative error .* is over") as caught:
        kernel.check()
    assert caught.value.status == "incorrect"


# Of 300, the first and the last are compared element by element.
@pytest.mark.parametrize("row", [0, 1, 149, 299])
@pytest.mark.parametrize("dtype", CARRIERS)
def test_one_wrong_element_is_detected(dtype: str, row: int) -> None:
    def spoil(c: Any) -> None:
        c[0, row, 77] += 5 * np.sqrt(100)

    with pytest.raises(MeasurementError, match="incorrect"):
        FakeKernel(Gemm(m=300, n=200, k=100, dtype=dtype), spoil=spoil).check()


@pytest.mark.parametrize("row", [0, 1, 299])
@pytest.mark.parametrize("dtype", CARRIERS)
def test_an_element_that_was_not_written_is_detected(dtype: str, row: int) -> None:
    kernel = FakeKernel(Gemm(m=300, n=200, k=100, dtype=dtype), untouched=(0, row, 199))
    with pytest.raises(MeasurementError, match="nan"):
        kernel.check()


@pytest.mark.parametrize("dtype", CARRIERS)
def test_alpha_and_beta_are_part_of_the_result(dtype: str) -> None:
    gemm = Gemm(m=100, n=60, k=50, dtype=dtype, alpha=2.0, beta=0.5)
    assert FakeKernel(gemm).check() <= tolerance(gemm, 1).element
    with pytest.raises(MeasurementError, match="incorrect"):
        FakeKernel(gemm, beta=0.0).check()


def test_beta_zero_must_not_read_c() -> None:
    class ReadsC(FakeKernel):
        def launch(self, i: int) -> None:
            before = self.operands.c.copy()
            super().launch(i)
            self.operands.c[...] += 0 * before

    with pytest.raises(MeasurementError, match="nan"):
        ReadsC(Gemm(m=40, n=40, k=40)).check()


@pytest.mark.parametrize("dtype", CARRIERS)
def test_the_limit_is_the_tolerance(dtype: str) -> None:
    gemm = Gemm(m=64, n=50, k=64, dtype=dtype)
    # Of one element; C's elements have a standard deviation of sqrt(64).
    limit = 8 * tolerance(gemm, 0).element
    with pytest.raises(MeasurementError, match="incorrect"):
        FakeKernel(gemm, spoil=_more(10 * limit)).check()
    FakeKernel(gemm, spoil=_more(0.3 * limit)).check()


def _more(by: float) -> Spoil:
    def add(c: Any) -> None:
        c[0, 10, 10] += by

    return add


class SplitsK(FakeKernel):
    """Adds slices of k up in C, and rounds the total to C's type after each, as cuBLAS does."""

    def __init__(self, gemm: Gemm, slices: int, missing: int | None = None) -> None:
        super().__init__(gemm)
        self._slices = slices
        self._missing = missing

    def launch(self, _: int) -> None:
        gemm, c = self.gemm, self.operands.c
        a = self._wide(self.operands.a, gemm.layout[0])
        b = self._wide(self.operands.b, gemm.layout[1])
        total = np.zeros(c.shape)
        if gemm.beta:
            total = gemm.beta * widen(np, c, gemm.c_dtype)
        for number, at in enumerate(np.array_split(np.arange(gemm.k), self._slices)):
            if number != self._missing:
                c[...] = _carried(total + a[..., at] @ b[..., at, :], gemm.c_dtype)
                total = widen(np, c, gemm.c_dtype)


# What cuBLAS split on an H100 (datasets/h100_sxm, called incorrect then): dtype, slices, m, n, k,
# and the largest error there.
RECORDED = [
    ("fp16", 8, 656, 7433, 14047, 0.00438),
    ("bf16", 6, 1328, 3462, 7890, 0.0318),
    ("fp16", 8, 514, 5761, 10972, 0.00452),
    ("bf16", 8, 514, 5761, 10972, 0.0325),
    ("bf16", 6, 338, 12816, 15155, 0.0316),
    ("bf16", 33, 55, 9296, 10027, 0.0768),
]
SPLIT = [case[:4] for case in RECORDED]


@pytest.mark.parametrize(("dtype", "slices", "m", "n", "k", "error"), RECORDED)
def test_the_errors_that_cublas_made_there_are_about_half_of_the_limit(
    dtype: str, slices: int, m: int, n: int, k: int, error: float
) -> None:
    limit = tolerance(Gemm(m=m, n=n, k=k, dtype=dtype), slices)
    assert 0.3 < error / limit.element < 0.6


@pytest.mark.parametrize("beta", [0.0, 1.0])
@pytest.mark.parametrize(("dtype", "slices", "m", "n"), SPLIT)
def test_partial_sums_may_be_rounded_to_the_type_of_c(
    dtype: str, slices: int, m: int, n: int, beta: float
) -> None:
    """The number of slices and of elements decides, so k may be shorter than it was."""
    gemm = Gemm(m=min(m, 64), n=n, k=16 * slices, dtype=dtype, beta=beta)
    kernel = SplitsK(gemm, slices)
    errors = Reference(np, gemm, kernel.operands).errors(Prepared(kernel.launch), 1.0, beta)
    once = tolerance(gemm, 1)
    split = tolerance(gemm, slices)
    assert 0.2 < errors[0] / split.element < 0.7
    assert errors[1] < 0.7 * split.row
    # More than one rounding explains.
    assert errors[0] > 0.7 * once.element
    assert verdict(gemm, slices, errors) == errors[0]
    # A library that does not say how often it splits is not refused either.
    assert verdict(gemm, 0, errors) == errors[0]


@pytest.mark.parametrize("known", [True, False])
@pytest.mark.parametrize(("dtype", "slices", "m", "n"), SPLIT)
def test_a_missing_slice_is_detected(dtype: str, slices: int, m: int, n: int, known: bool) -> None:
    gemm = Gemm(m=min(m, 64), n=min(n, 2000), k=16 * slices, dtype=dtype)
    kernel = SplitsK(gemm, slices, missing=slices // 2)
    errors = Reference(np, gemm, kernel.operands).errors(Prepared(kernel.launch), 1.0, 0.0)
    with pytest.raises(MeasurementError, match="is over"):
        verdict(gemm, slices if known else 0, errors)
    # By its rows alone, too.
    assert errors[1] > tolerance(gemm, 0).row


@pytest.mark.parametrize("dtype", ["fp16", "bf16"])
def test_one_step_of_k_that_a_tile_lacks_is_detected(dtype: str) -> None:
    """64 of 10,027, in one tile of 64 x 64, where k is split 33 times."""
    lacking = np.random.default_rng(1).standard_normal((64, 64)) * np.sqrt(64)

    def spoil(c: Any) -> None:
        c[0, :, 64:128] -= lacking

    gemm = Gemm(m=64, n=128, k=10_027, dtype=dtype)
    kernel = FakeKernel(gemm, spoil=spoil)
    errors = Reference(np, gemm, kernel.operands).errors(Prepared(kernel.launch), 1.0, 0.0)
    for slices in (33, 0):
        with pytest.raises(MeasurementError, match="is over"):
            verdict(gemm, slices, errors)


def test_more_slices_more_elements_and_a_c_that_is_added_to_may_err_more() -> None:
    gemm = Gemm(m=64, n=4096, k=8192, dtype="bf16")
    limits = [tolerance(gemm, slices).element for slices in (1, 2, 8, 33, 64)]
    assert limits == sorted(limits)
    assert limits[3] > 3 * limits[0]
    assert tolerance(gemm, 0) == tolerance(gemm, 64)
    assert tolerance(replace(gemm, n=64), 8).element < tolerance(gemm, 8).element
    assert tolerance(replace(gemm, beta=1.0), 8).element > tolerance(gemm, 8).element


def test_no_more_slices_count_than_k_has_steps() -> None:
    short = Gemm(m=64, n=64, k=21, dtype="bf16")
    assert tolerance(short, 132) == tolerance(short, 0) == tolerance(short, 2)


def test_slices_do_not_matter_where_c_is_rounded_as_finely_as_the_sums() -> None:
    for dtype in ("fp32", "fp64", "tf32"):
        gemm = Gemm(m=64, n=1000, k=4096, dtype=dtype)
        assert tolerance(gemm, 33).element < 1.2 * tolerance(gemm, 1).element


def test_a_dtype_with_fewer_bits_may_err_more() -> None:
    def limit(dtype: str, k: int = 1024) -> float:
        return tolerance(Gemm(m=64, n=64, k=k, dtype=dtype), 1).row

    limits = [limit(dtype) for dtype in ("fp64", "fp32", "fp16", "bf16", "fp8_e4m3")]
    assert limits == sorted(limits)
    assert len(set(limits)) == 5
    # Its operands may be cut off.
    assert limit("fp16") < limit("tf32") < 2 * limit("fp16")
    assert limit("fp64", 4096) < 1e-12
    assert limit("fp32", 4 * 4096) == pytest.approx(2 * limit("fp32", 4096), rel=0.02)


def test_fp32_that_was_multiplied_as_tf32_is_detected() -> None:
    class Tf32(FakeKernel):
        def _wide(self, stored: Any, layout: str) -> Any:
            return _as_tf32(super()._wide(stored, layout))

    with pytest.raises(MeasurementError, match="incorrect"):
        Tf32(Gemm(m=64, n=64, k=64)).check()


@pytest.mark.filterwarnings(
    "ignore:overflow encountered:RuntimeWarning", "ignore:invalid value encountered:RuntimeWarning"
)
def test_a_result_that_overflows_its_dtype_is_wrong() -> None:
    with pytest.raises(MeasurementError, match="incorrect"):
        FakeKernel(Gemm(m=40, n=40, k=40, dtype="fp16", alpha=1e6)).check()


def test_an_fp8_product_is_stored_as_bf16() -> None:
    gemm = Gemm(m=40, n=30, k=20, dtype="fp8_e4m3")
    operands = FakeKernel(gemm).operands
    assert operands.a.dtype == np.uint8
    assert operands.b.dtype == np.uint8
    assert operands.c.dtype == np.uint16
    # The multiplicands are exact.
    of_bf16 = tolerance(replace(gemm, dtype="bf16"), 1)
    assert tolerance(gemm, 1).element < 1.1 * of_bf16.element


def test_an_fp8_operand_that_is_read_as_another_number_is_detected() -> None:
    class IgnoresSigns(FakeKernel):
        def _wide(self, stored: Any, layout: str) -> Any:
            return super()._wide(stored & 0x7F, layout)

    with pytest.raises(MeasurementError, match="incorrect"):
        IgnoresSigns(Gemm(m=64, n=64, k=64, dtype="fp8_e4m3")).check()


@pytest.mark.parametrize("dtype", CARRIERS)
def test_a_kernel_that_forgets_beta_is_detected_where_k_is_long(dtype: str) -> None:
    gemm = Gemm(m=40, n=30, k=10_000, dtype=dtype, beta=0.5)
    assert FakeKernel(gemm).check() <= tolerance(gemm, 1).element
    with pytest.raises(MeasurementError, match="incorrect"):
        FakeKernel(gemm, beta=0.0).check()


@pytest.mark.parametrize("dtype", CARRIERS)
def test_what_an_earlier_kernel_left_in_c_is_not_held_against_the_next(dtype: str) -> None:
    kernel = FakeKernel(Gemm(m=40, n=30, k=20, dtype=dtype, beta=1.0))
    poison(kernel.operands.c, kernel.gemm.c_dtype)
    assert kernel.check() <= tolerance(kernel.gemm, 1).element


@pytest.mark.parametrize("width", [8, 34, 55, 144])
@pytest.mark.parametrize("dtype", CARRIERS)
def test_a_tile_that_was_written_some_columns_aside_is_detected_whatever_the_distance(
    dtype: str, width: int
) -> None:
    def spoil(c: Any) -> None:
        c[0, 145:161] = np.roll(c[0, 145:161], width, axis=1)

    gemm = Gemm(m=300, n=600, k=100, dtype=dtype)
    kernel = FakeKernel(gemm, spoil=spoil)
    _, by_row = Reference(np, gemm, kernel.operands).errors(Prepared(kernel.launch), 1.0, 0.0)
    assert by_row > 1.0  # one row's error is about 1.4 where the signs are as good as random
    with pytest.raises(MeasurementError, match="incorrect"):
        kernel.check()


@pytest.mark.parametrize("dtype", CARRIERS)
def test_a_bias_over_a_tile_is_detected_in_the_rows_that_are_only_summed(dtype: str) -> None:
    def spoil(c: Any) -> None:
        # Half the size of an element.
        c[0, 145:149, 64:128] += 5.0

    gemm = Gemm(m=300, n=256, k=100, dtype=dtype)
    kernel = FakeKernel(gemm, spoil=spoil)
    _, by_row = Reference(np, gemm, kernel.operands).errors(Prepared(kernel.launch), 1.0, 0.0)
    assert by_row > tolerance(gemm, 0).row


def test_one_reference_serves_every_kernel_of_a_problem() -> None:
    gemm = Gemm(m=70, n=50, k=60, dtype="bf16", layout="tn")
    right, wrong = FakeKernel(gemm), FakeKernel(gemm, spoil=lambda c: np.multiply(c, 1.1, out=c))
    wrong.operands = right.operands
    reference = Reference(np, gemm, right.operands)
    for _ in range(2):
        errors = reference.errors(Prepared(right.launch), 1.0, 0.0)
        assert verdict(gemm, 1, errors) <= tolerance(gemm, 1).element
        with pytest.raises(MeasurementError, match="incorrect"):
            verdict(gemm, 1, reference.errors(Prepared(wrong.launch), 1.0, 0.0))


def test_a_reference_never_launches_by_itself() -> None:
    gemm, launched = Gemm(m=20, n=20, k=20), list[int]()
    kernel = FakeKernel(gemm)
    reference = Reference(np, gemm, kernel.operands)
    assert launched == []
    reference.errors(Prepared(lambda i: (launched.append(i), kernel.launch(i))[1]), 1.0, 0.0)
    assert launched == [0]


@pytest.mark.parametrize(
    "errors",
    [
        (float("nan"), 0.0),
        (0.0, float("nan")),
        (float("nan"), float("nan")),
        (float("nan"), 1e9),
        (1e9, float("nan")),
    ],
)
def test_an_error_that_is_no_number_never_passes(errors: tuple[float, float]) -> None:
    with pytest.raises(MeasurementError, match="nan|1e\\+09") as caught:
        verdict(Gemm(m=8, n=8, k=8), 1, np.array(errors))
    assert caught.value.status == "incorrect"


def test_the_larger_error_is_the_verdict() -> None:
    gemm = Gemm(m=8, n=8, k=64)
    limit = tolerance(gemm, 1)
    assert verdict(gemm, 1, np.array([limit.element / 4, limit.row / 2])) == limit.row / 2
    assert verdict(gemm, 1, np.array([limit.element, limit.row])) == max(limit.element, limit.row)
    for errors in ([limit.element * 1.01, 0.0], [0.0, limit.row * 1.01]):
        with pytest.raises(MeasurementError, match="is over"):
            verdict(gemm, 1, np.array(errors))


def test_a_product_of_zeros_is_compared_as_it_is() -> None:
    gemm = Gemm(m=8, n=8, k=8)
    kernel = FakeKernel(gemm)
    kernel.operands.a[...] = 0
    assert kernel.check() == 0.0
    writes_ones = FakeKernel(gemm, spoil=lambda c: c.fill(1.0))
    writes_ones.operands = kernel.operands
    with pytest.raises(MeasurementError, match="incorrect"):
        writes_ones.check()
