"""cuBLASLt on a GPU: real products against float64, the knobs of cuBLAS' default, and graphs."""

from __future__ import annotations

from types import ModuleType
from typing import Any

import numpy as np
import pytest
from gpu_here import cupy_or_skip

from agent.dtypes import CARRIERS, narrow, widen
from agent.kernels import load
from agent.kernels.cublaslt import CublasLt
from agent.kernels.cublaslt.library import WORKSPACE_BYTES
from agent.kernels.cublaslt.names import LT_KNOBS
from agent.operands import Array, Carved, input_elements, output_elements
from agent.tolerance import tolerance
from gemmcast.config import KernelConfig
from gemmcast.errors import MeasurementError
from gemmcast.gemm import LAYOUTS, Gemm

pytestmark = [pytest.mark.gpu, pytest.mark.filterwarnings("default")]
CASES = [(dtype, layout) for dtype in ("fp32", "tf32", "fp16", "bf16") for layout in LAYOUTS]
CASES += [("fp8_e4m3", "nt"), ("int8", "nt")]
KERNELS = ["default", "heuristic-1", "heuristic-2", *(f"enumerated-{i}" for i in range(5))]


def _config(kernel: str = "", **knobs: int) -> KernelConfig:
    return KernelConfig(family="cublaslt", kernel=kernel, **knobs)


def _knobs(facts: dict[str, Any]) -> dict[str, int]:
    return {knob: facts[knob] for knob in LT_KNOBS}


def _cupy() -> ModuleType:
    pytest.importorskip("nvmath.bindings.cublasLt")
    return cupy_or_skip()


def _e4m3() -> np.ndarray:
    """Value of each of the 256 codes; the two NaNs are not used."""
    bits = np.arange(256)
    exponent = bits >> 3 & 15
    fraction = (bits & 7) / 8
    normal = (1 + fraction) * 2.0 ** (exponent - 7.0)
    subnormal = fraction * 2.0**-6
    sign = np.where(bits >> 7, -1.0, 1.0)
    return sign * np.where(exponent > 0, normal, subnormal)


def _random(xp: ModuleType, rng: np.random.Generator, size: int, dtype: str) -> Array:
    if dtype == "fp8_e4m3":
        codes = np.flatnonzero(np.abs(_e4m3()) <= 2)
        return xp.asarray(rng.choice(codes, size).astype(np.uint8))
    values = rng.standard_normal(size).astype(np.float32)
    if dtype == "int8":
        values *= 32
    return narrow(xp, xp.asarray(values), dtype)


def _widened(xp: ModuleType, array: Array, dtype: str, *, transposed: bool) -> Array:
    wide = xp.asarray(_e4m3())[array] if dtype == "fp8_e4m3" else widen(xp, array, dtype)
    return wide.swapaxes(1, 2) if transposed else wide


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize(("dtype", "layout"), CASES)
def test_real_products_are_right(dtype: str, layout: str, batch: int) -> None:
    xp, rng = _cupy(), np.random.default_rng(7)
    alpha = 3.0 if dtype == "int8" else 0.5
    gemm = Gemm(m=64, n=96, k=128, batch=batch, dtype=dtype, layout=layout, alpha=alpha, beta=2.0)
    inputs = _random(xp, rng, 2 * input_elements(gemm), dtype)
    outputs = _random(xp, rng, 2 * output_elements(gemm), gemm.c_dtype)
    sets = Carved(gemm, inputs, outputs, 2)
    before = outputs.copy()
    untouched = Carved(gemm, inputs, before, 2)[0].c
    a = _widened(xp, sets[1].a, dtype, transposed=layout[0] == "t")
    b = _widened(xp, sets[1].b, dtype, transposed=layout[1] == "t")
    want = alpha * xp.matmul(a, b) + 2.0 * widen(xp, sets[1].c, gemm.c_dtype)
    scale = xp.sqrt(xp.mean(want * want))
    family = CublasLt()
    multiplied = []
    for kernel in KERNELS:
        outputs[:] = before
        try:
            prepared = family.prepare(gemm, _config(kernel), sets)
        except MeasurementError:
            # A list may be shorter.
            continue
        prepared.launch(1)
        difference = xp.abs(widen(xp, sets[1].c, gemm.c_dtype) - want)
        limit = tolerance(gemm, prepared.facts["split_k"]).element
        assert float(xp.max(difference) / scale) <= limit, prepared.facts
        assert bool((sets[0].c == untouched).all())
        facts = prepared.facts
        assert facts["kernel"] == kernel
        assert facts["workspace_bytes"] <= WORKSPACE_BYTES
        again = family.prepare(gemm, _config(**_knobs(facts)), sets)
        assert again.facts["algo_id"] == facts["algo_id"]
        multiplied.append(kernel)
    # Few configurations take ragged batches.
    assert {"default", "enumerated-0"} <= set(multiplied)
    assert len(multiplied) >= 3


def test_cublas_has_the_knobs_of_the_heuristics_first_choice() -> None:
    xp, gemm = _cupy(), Gemm(m=300, n=200, k=128, dtype="fp16", beta=1.0)
    inputs = xp.zeros(input_elements(gemm), xp.float16)
    outputs = xp.zeros(output_elements(gemm), xp.float16)
    sets = Carved(gemm, inputs, outputs, 1)
    of_cublas = load("cublas").prepare(gemm, KernelConfig(family="cublas"), sets).facts
    of_cublaslt = CublasLt().prepare(gemm, _config(), sets).facts
    assert _knobs(of_cublas) == _knobs(of_cublaslt)
    assert _knobs(of_cublas) != dict.fromkeys(LT_KNOBS, 0)


def test_a_real_launch_can_be_captured_into_a_graph() -> None:
    xp, rng = _cupy(), np.random.default_rng(7)
    gemm = Gemm(m=64, n=96, k=128, dtype="fp16")
    inputs = _random(xp, rng, input_elements(gemm), "fp16")
    outputs = _random(xp, rng, output_elements(gemm), "fp16")
    prepared = CublasLt().prepare(gemm, _config(), Carved(gemm, inputs, outputs, 1))
    # The arrays were filled on another stream.
    xp.cuda.Device().synchronize()
    with xp.cuda.Stream(non_blocking=True) as stream:
        prepared.launch(0)
        stream.synchronize()
        want = outputs.copy()
        outputs.fill(0)
        stream.synchronize()
        stream.begin_capture()
        prepared.launch(0)
        graph = stream.end_capture()
        graph.launch(stream)
        stream.synchronize()
    assert bool((outputs == want).all())
    assert CARRIERS["fp16"] == str(outputs.dtype)
