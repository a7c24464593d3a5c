"""CUTLASS kernels on a GPU: every kernel of the libraries that were built, against float64; scaling; graphs.

Skipped without CuPy, a GPU and GEMMCAST_CUTLASS, the folder that `python -m agent.kernels.cutlass build --out` wrote.
"""

from __future__ import annotations

import os
from typing import Any

import numpy
import pytest

from agent.kernels.cutlass import Built, Cutlass
from agent.kernels.cutlass.generate import SETS, kernels
from agent.kernels.cutlass.sources import SCHEDULES
from agent.operands import Operands
from gemmcast.config import KernelConfig
from gemmcast.errors import MeasurementError
from gemmcast.gemm import DTYPES, LAYOUTS, Gemm

GROUPS = sorted({(one.dtype, one.layout) for of_set in SETS for one in kernels(of_set, "sm_90")})
SHAPES = (((1152, 2560, 1024), 1, (1.0, 0.0)), ((203, 336, 272), 1, (0.5, 0.5)), ((128, 256, 1024), 2, (1.0, 1.0)))
# m, n, k; slices; alpha and beta. 1.4 waves of 128 x 128 tiles; ragged, yet whole 16 bytes; sliced


def _on_gpu() -> Any:
    """CuPy and the family, or a skip."""
    cupy = pytest.importorskip("cupy")
    try:
        found = cupy.cuda.runtime.getDeviceCount()
    except cupy.cuda.runtime.CUDARuntimeError as error:
        pytest.skip(str(error))
    if not found or not os.environ.get("GEMMCAST_CUTLASS"):
        pytest.skip("no GPU" if not found else "GEMMCAST_CUTLASS names no folder of built libraries")
    family = Cutlass()
    try:
        built = family.kernels(f"sm_{cupy.cuda.Device().compute_capability}")
    except MeasurementError as error:
        pytest.skip(str(error))
    return cupy, family, list({one.name: one for one in built}.values())


def _random(cupy: Any, dtype: str, *shape: int) -> Any:
    """Standard normal numbers (fp8: of magnitude 2^-3 to 7.5) as they are stored: bf16 as uint16, fp8 as uint8."""
    rng = numpy.random.default_rng(sum(shape))
    if dtype == "fp8_e4m3":
        return cupy.asarray(rng.integers(0x20, 0x50, shape, numpy.uint8) | (rng.integers(0, 2, shape, numpy.uint8) << 7))
    values = rng.standard_normal(shape, numpy.float32)
    if dtype == "bf16":
        return cupy.asarray((values.view(numpy.uint32) >> 16).astype(numpy.uint16))
    return cupy.asarray(values.astype("float16" if dtype == "fp16" else "float32"))


def _widened(cupy: Any, array: Any) -> Any:
    if array.dtype == cupy.uint8:
        codes = numpy.arange(256)
        exponent, mantissa = codes >> 3 & 15, codes & 7
        magnitudes = numpy.where(exponent > 0, (8 + mantissa) * 2.0 ** (exponent - 10), mantissa * 2.0**-9)
        return cupy.asarray(magnitudes * numpy.where(codes < 128, 1.0, -1.0))[array]
    bits = (array.astype(cupy.uint32) << 16).view(cupy.float32) if array.dtype == cupy.uint16 else array
    return bits.astype(cupy.float64)


def _operands(cupy: Any, gemm: Gemm) -> Operands:
    a = _random(cupy, gemm.dtype, *((1, gemm.k, gemm.m) if gemm.layout[0] == "t" else (1, gemm.m, gemm.k)))
    b = _random(cupy, gemm.dtype, *((1, gemm.n, gemm.k) if gemm.layout[1] == "t" else (1, gemm.k, gemm.n)))
    return Operands(a, b, _random(cupy, "bf16" if gemm.dtype == "fp8_e4m3" else gemm.dtype, 1, gemm.m, gemm.n))


def _product(cupy: Any, gemm: Gemm, operands: Operands) -> Any:
    a, b, c = (_widened(cupy, array[0]) for array in (operands.a, operands.b, operands.c))
    return gemm.alpha * ((a.T if gemm.layout[0] == "t" else a) @ (b.T if gemm.layout[1] == "t" else b)) + gemm.beta * c


def _far(cupy: Any, gemm: Gemm, c: Any, want: Any) -> float:
    """The largest error over what rounding explains: above 1 is wrong, and so is NaN."""
    error = float(abs(_widened(cupy, c[0]) - want).max() / (want * want).mean() ** 0.5)
    # fp8 operands are multiplied exactly here: what is rounded is C, to bf16
    # tf32 operands may be cut off instead of rounded, which alone takes all of the usual tolerance
    roundoff = DTYPES["bf16" if gemm.dtype == "fp8_e4m3" else gemm.dtype].unit_roundoff * (2 if gemm.dtype == "tf32" else 1)
    return error / (8 * roundoff + 8 * 2.0**-24 * gemm.k**0.5)


def _wrong(cupy: Any, family: Cutlass, gemm: Gemm, built: list[Built], slices: int) -> list[str]:
    operands = _operands(cupy, gemm)
    want, before, found = _product(cupy, gemm, operands), operands.c.copy(), []
    if not gemm.beta:
        before.fill(0x7FC0 if before.dtype == cupy.uint16 else float("nan"))  # must not be read
    for one in built:
        sliced = slices if "wgmma" not in one.name or "streamk" in one.name else 1
        operands.c[...] = before
        prepared = family.prepare(gemm, KernelConfig(family="cutlass", kernel=one.name, split_k=sliced), [operands])
        prepared.launch(0)
        if not (far := _far(cupy, gemm, operands.c, want)) <= 1:
            found.append(f"{one.name} split_k={sliced}: {far:.3g} tolerances off")
        assert prepared.facts["regs"] > 0 and prepared.facts["tile_m"] and prepared.facts["stages"] and prepared.facts["occupancy"] > 0
    return found


@pytest.mark.gpu
@pytest.mark.parametrize(("dtype", "layout"), GROUPS)
def test_every_kernel_multiplies_on_a_gpu(dtype: str, layout: str) -> None:
    cupy, family, built = _on_gpu()
    group = [one for one in built if (one.dtype, one.layout) == (dtype, layout)]
    for (m, n, k), slices, (alpha, beta) in SHAPES:
        gemm = Gemm(m=m, n=n, k=k, dtype=dtype, layout=layout, alpha=alpha, beta=beta)
        assert _wrong(cupy, family, gemm, group, slices) == []


@pytest.mark.gpu
@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_papers_kernels_scale_on_a_gpu(layout: str) -> None:
    cupy, family, built = _on_gpu()
    paper = {one.name for one in kernels("paper", "sm_90") if one.layout == layout}
    for alpha, beta in ((1.0, 0.0), (1.0, 1.0), (0.5, 0.5), (2.0, 0.0)):
        gemm = Gemm(m=301, n=263, k=97, layout=layout, alpha=alpha, beta=beta)
        assert _wrong(cupy, family, gemm, [one for one in built if one.name in paper], 1) == []


@pytest.mark.gpu
def test_one_kernel_of_each_kind_is_captured_into_a_graph() -> None:
    cupy, family, built = _on_gpu()
    kinds = {(one.name.split("_")[0], one.dtype, next((word for word in SCHEDULES if f"_{word}_" in one.name), "")): one for one in built}
    for one in kinds.values():
        gemm = Gemm(m=512, n=768, k=1024, dtype=one.dtype, layout=one.layout, alpha=0.5)
        operands, slices = _operands(cupy, gemm), 1 if "wgmma" in one.name and "streamk" not in one.name else 2
        want = _product(cupy, gemm, operands)
        prepared = family.prepare(gemm, KernelConfig(family="cutlass", kernel=one.name, split_k=slices), [operands])
        cupy.cuda.Device().synchronize()  # a stream that does not block does not wait for the operands either
        with cupy.cuda.Stream(non_blocking=True) as stream:
            stream.begin_capture()
            prepared.launch(0)
            graph = stream.end_capture()
            for _ in range(2):  # the second finds the semaphores that the first left
                operands.c.fill(0)
                graph.launch()
            stream.synchronize()
        assert _far(cupy, gemm, operands.c, want) <= 1, one.name
