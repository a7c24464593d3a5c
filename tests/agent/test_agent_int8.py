"""int8: whole numbers, multiplied and added without rounding; C is int32."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from agent.check import check
from agent.dtypes import carrier, narrow, poison, widen
from agent.kernels import Prepared
from agent.operands import Carved, Operands, input_elements, output_elements
from gemmcast.config import FAMILIES
from gemmcast.errors import MeasurementError
from gemmcast.gemm import Gemm

GEMM = Gemm(m=90, n=70, k=5000, dtype="int8", layout="nt", alpha=2.0, beta=3.0)


def _operands(gemm: Gemm) -> Operands:
    rng = np.random.default_rng(5)
    values = 32 * rng.standard_normal(input_elements(gemm))
    inputs = narrow(np, values.astype(np.float32), "int8")
    outputs = np.full(output_elements(gemm), 7, np.int32)
    (operands,) = Carved(gemm, inputs, outputs, 1)
    return operands


def _multiply(gemm: Gemm, operands: Operands, wrong: int = 0) -> Prepared:
    """A kernel in int32, wrong by that much in one element."""

    def launch(_: int) -> None:
        a = operands.a.astype(np.int32)
        b = operands.b.astype(np.int32).swapaxes(-1, -2)
        before = operands.c if gemm.beta else 0
        product = int(gemm.alpha) * np.matmul(a, b) + int(gemm.beta) * before
        product[0, 0, 0] += wrong
        operands.c[...] = product

    return Prepared(launch, {})


def test_numbers_are_rounded_to_the_nearest_and_end_at_127() -> None:
    values = np.array([0.4, 0.6, -0.6, 1.5, 2.5, 126.6, 127.6, 1e9, -1e9], dtype=np.float32)
    stored = narrow(np, values, "int8")
    assert stored.dtype == carrier("int8") == "int8"
    assert stored.tolist() == [0, 1, -1, 2, 2, 127, 127, 127, -127]
    assert widen(np, stored, "int8").tolist() == stored.tolist()
    assert widen(np, stored, "int8").dtype == np.float64


@pytest.mark.parametrize("beta", [0.0, 3.0])
def test_a_right_product_has_no_error_at_all(beta: float) -> None:
    gemm = Gemm(m=90, n=70, k=5000, dtype="int8", layout="nt", alpha=2.0, beta=beta)
    operands = _operands(gemm)
    assert check(np, gemm, operands, _multiply(gemm, operands)) == 0


def test_one_element_that_is_off_by_one_is_incorrect() -> None:
    operands = _operands(GEMM)
    with pytest.raises(MeasurementError, match="incorrect"):
        check(np, GEMM, operands, _multiply(GEMM, operands, wrong=1))


def test_an_element_that_was_not_written_is_incorrect() -> None:
    gemm = Gemm(m=90, n=70, k=500, dtype="int8", layout="nt")
    operands = _operands(gemm)
    whole = _multiply(gemm, operands)

    def launch(_: int) -> None:
        last: Any = operands.c[0, -1, -1]
        whole.launch(0)
        operands.c[0, -1, -1] = last

    with pytest.raises(MeasurementError, match="incorrect"):
        check(np, gemm, operands, Prepared(launch, {}))


def test_no_product_reaches_the_poison() -> None:
    stored = np.zeros(3, carrier("int32"))
    poison(stored, "int32")
    assert set(stored.tolist()) == {-(2**31)}


def test_only_cublaslt_has_int8() -> None:
    assert [name for name, facts in FAMILIES.items() if "int8" in facts.dtypes] == ["cublaslt"]
