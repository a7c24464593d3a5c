"""CUTLASS kernels on a GPU: every kernel of the built libraries against float64; scaling; graphs.

Skipped without CuPy, a GPU and GEMMCAST_CUTLASS, the folder that
`python -m agent.kernels.cutlass build --out` wrote.
"""

from __future__ import annotations

import os
from types import ModuleType
from typing import NamedTuple

import numpy as np
import pytest
from gpu_here import cupy_or_skip

from agent.kernels.cutlass import Cutlass
from agent.kernels.cutlass.libraries import BuiltKernel
from agent.kernels.cutlass.sources import HOPPER_SCHEDULES
from agent.operands import Array, Operands
from gemmcast.config import KernelConfig
from gemmcast.cutlass.sets import CUTLASS_SETS, kernels
from gemmcast.errors import MeasurementError
from gemmcast.gemm import DTYPES, LAYOUTS, Gemm

pytestmark = pytest.mark.gpu


class Case(NamedTuple):
    m: int
    n: int
    k: int
    slices: int
    alpha: float
    beta: float


CASES = (
    # 1.4 waves of 128 x 128 tiles.
    Case(1152, 2560, 1024, 1, 1.0, 0.0),
    # Ragged, yet whole 16 bytes.
    Case(203, 336, 272, 1, 0.5, 0.5),
    Case(128, 256, 1024, 2, 1.0, 1.0),
)


def _groups() -> list[tuple[str, str]]:
    groups = set()
    for set_name in CUTLASS_SETS:
        for kernel in kernels(set_name, "sm_90"):
            groups.add((kernel.dtype, kernel.layout))
    return sorted(groups)


class OnGpu(NamedTuple):
    cupy: ModuleType
    family: Cutlass
    built: list[BuiltKernel]


@pytest.fixture
def on_gpu() -> OnGpu:
    """CuPy and the family, or a skip."""
    cupy = cupy_or_skip()
    if not os.environ.get("GEMMCAST_CUTLASS"):
        pytest.skip("GEMMCAST_CUTLASS names no folder of built libraries")
    family = Cutlass()
    try:
        built = family.kernels(f"sm_{cupy.cuda.Device().compute_capability}")
    except MeasurementError as error:
        pytest.skip(str(error))
    by_name = {kernel.name: kernel for kernel in built}
    return OnGpu(cupy, family, list(by_name.values()))


def _random(cupy: ModuleType, dtype: str, *shape: int) -> Array:
    """Standard normal numbers (fp8: of magnitude 2^-3 to 7.5) as they are stored.

    bf16 is stored as uint16, fp8 as uint8.
    """
    rng = np.random.default_rng(sum(shape))
    if dtype == "fp8_e4m3":
        magnitudes = rng.integers(0x20, 0x50, shape, np.uint8)
        signs = rng.integers(0, 2, shape, np.uint8) << 7
        return cupy.asarray(magnitudes | signs)
    values = rng.standard_normal(shape, np.float32)
    if dtype == "bf16":
        return cupy.asarray((values.view(np.uint32) >> 16).astype(np.uint16))
    return cupy.asarray(values.astype("float16" if dtype == "fp16" else "float32"))


def _widened(cupy: ModuleType, array: Array) -> Array:
    if array.dtype == cupy.uint8:
        return cupy.asarray(_e4m3())[array]
    if array.dtype == cupy.uint16:
        array = (array.astype(cupy.uint32) << 16).view(cupy.float32)
    return array.astype(cupy.float64)


def _e4m3() -> np.ndarray:
    """Value of each of the 256 codes; NaNs do not occur."""
    codes = np.arange(256)
    exponent = codes >> 3 & 15
    mantissa = codes & 7
    normal = (8 + mantissa) * 2.0 ** (exponent - 10)
    magnitudes = np.where(exponent > 0, normal, mantissa * 2.0**-9)
    return magnitudes * np.where(codes < 128, 1.0, -1.0)


def _operands(cupy: ModuleType, gemm: Gemm) -> Operands:
    a_shape = (gemm.k, gemm.m) if gemm.layout[0] == "t" else (gemm.m, gemm.k)
    b_shape = (gemm.n, gemm.k) if gemm.layout[1] == "t" else (gemm.k, gemm.n)
    return Operands(
        _random(cupy, gemm.dtype, 1, *a_shape),
        _random(cupy, gemm.dtype, 1, *b_shape),
        _random(cupy, gemm.c_dtype, 1, gemm.m, gemm.n),
    )


def _product(cupy: ModuleType, gemm: Gemm, operands: Operands) -> Array:
    a = _widened(cupy, operands.a[0])
    b = _widened(cupy, operands.b[0])
    c = _widened(cupy, operands.c[0])
    a = a.T if gemm.layout[0] == "t" else a
    b = b.T if gemm.layout[1] == "t" else b
    return gemm.alpha * (a @ b) + gemm.beta * c


def _tolerances_off(cupy: ModuleType, gemm: Gemm, c: Array, want: Array) -> float:
    """The largest error over what rounding explains: above 1 is wrong, and so is NaN."""
    error = abs(_widened(cupy, c[0]) - want).max() / (want * want).mean() ** 0.5
    # Operands in fp8 are multiplied exactly here: what is rounded is C, to bf16.
    roundoff = DTYPES[gemm.c_dtype].unit_roundoff
    if gemm.dtype == "tf32":
        # Operands may be cut off instead of rounded, which takes all of the usual tolerance.
        roundoff *= 2
    return float(error) / (8 * roundoff + 8 * 2.0**-24 * gemm.k**0.5)


def _poison(cupy: ModuleType, c: Array) -> None:
    c.fill(0x7FC0 if c.dtype == cupy.uint16 else float("nan"))


def _has_slices(kernel: BuiltKernel) -> bool:
    return "wgmma" not in kernel.name or "streamk" in kernel.name


def _wrong(on_gpu: OnGpu, gemm: Gemm, built: list[BuiltKernel], slices: int) -> list[str]:
    """The kernels whose product is wrong."""
    cupy = on_gpu.cupy
    operands = _operands(cupy, gemm)
    want = _product(cupy, gemm, operands)
    before = operands.c.copy()
    if not gemm.beta:
        # It must not be read.
        _poison(cupy, before)
    wrong = []
    for kernel in built:
        split_k = slices if _has_slices(kernel) else 1
        operands.c[...] = before
        config = KernelConfig(family="cutlass", kernel=kernel.name, split_k=split_k)
        prepared = on_gpu.family.prepare(gemm, config, [operands])
        prepared.launch(0)
        off = _tolerances_off(cupy, gemm, operands.c, want)
        if not off <= 1:
            wrong.append(f"{kernel.name} split_k={split_k}: {off:.3g} tolerances off")
        for fact in ("regs", "tile_m", "stages", "occupancy"):
            assert prepared.facts[fact] > 0
    return wrong


@pytest.mark.parametrize(("dtype", "layout"), _groups())
def test_every_kernel_multiplies_on_a_gpu(on_gpu: OnGpu, dtype: str, layout: str) -> None:
    group = [one for one in on_gpu.built if (one.dtype, one.layout) == (dtype, layout)]
    for rows, n, k, slices, alpha, beta in CASES:
        # Rows of an A that is stored transposed have m elements: whole 16 bytes too.
        m = 8 * (rows // 8) if layout[0] == "t" else rows
        gemm = Gemm(m=m, n=n, k=k, dtype=dtype, layout=layout, alpha=alpha, beta=beta)
        assert _wrong(on_gpu, gemm, group, slices) == []


@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_papers_kernels_scale_on_a_gpu(on_gpu: OnGpu, layout: str) -> None:
    paper = {one.name for one in kernels("paper", "sm_90") if one.layout == layout}
    built = [one for one in on_gpu.built if one.name in paper]
    for alpha, beta in ((1.0, 0.0), (1.0, 1.0), (0.5, 0.5), (2.0, 0.0)):
        gemm = Gemm(m=301, n=263, k=97, layout=layout, alpha=alpha, beta=beta)
        assert _wrong(on_gpu, gemm, built, 1) == []


def _schedule(name: str) -> str:
    for schedule in HOPPER_SCHEDULES:
        if f"_{schedule}_" in name:
            return schedule
    return ""


def test_one_kernel_of_each_kind_is_captured_into_a_graph(on_gpu: OnGpu) -> None:
    kinds = {}
    for kernel in on_gpu.built:
        unit = kernel.name.split("_")[0]
        kinds[unit, kernel.dtype, _schedule(kernel.name)] = kernel
    for kernel in kinds.values():
        _check_capture(on_gpu, kernel)


def _check_capture(on_gpu: OnGpu, kernel: BuiltKernel) -> None:
    cupy = on_gpu.cupy
    gemm = Gemm(m=512, n=768, k=1024, dtype=kernel.dtype, layout=kernel.layout, alpha=0.5)
    operands = _operands(cupy, gemm)
    want = _product(cupy, gemm, operands)
    split_k = 2 if _has_slices(kernel) else 1
    config = KernelConfig(family="cutlass", kernel=kernel.name, split_k=split_k)
    prepared = on_gpu.family.prepare(gemm, config, [operands])
    # A stream that does not block does not wait for the operands either.
    cupy.cuda.Device().synchronize()
    with cupy.cuda.Stream(non_blocking=True) as stream:
        stream.begin_capture()
        prepared.launch(0)
        graph = stream.end_capture()
        # The second launch meets the semaphores that the first one left.
        for _ in range(2):
            operands.c.fill(0)
            graph.launch()
        stream.synchronize()
    assert _tolerances_off(cupy, gemm, operands.c, want) <= 1, kernel.name
