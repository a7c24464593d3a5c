"""Triton kernels on a GPU: configurations of every set against float64, scales, batches, graphs.

Skipped without CuPy and a GPU; and without Triton, unless GEMMCAST_TRITON names a folder that
`python -m agent.kernels.triton build --out` wrote.
"""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

import numpy as np
import pytest
from gpu_here import cupy_or_skip

from agent.check import check
from agent.dtypes import narrow
from agent.kernels.triton import Triton, read_triton
from agent.kernels.triton.build import build, compilations_of
from agent.kernels.triton.cubins import Cubins, default_folder
from agent.operands import Carved, input_elements, output_elements
from gemmcast.config import KernelConfig
from gemmcast.errors import MeasurementError
from gemmcast.gemm import Gemm
from gemmcast.triton_sets import configs

pytestmark = pytest.mark.gpu

EXAMPLE = "examples/kernels/w8a8_block.toml"
EVERY = 7
"""Of the configurations of the set short, each so-manieth."""
# Over every edge; n and k are multiples of 16, k is no multiple of a tile.
SHAPES = [(1, 272, 1040), (77, 400, 528), (1152, 2560, 1024)]
KERNELS = [
    ("matmul", "fp16", "nt"),
    ("matmul", "fp16", "nn"),
    ("matmul", "bf16", "nt"),
    ("matmul", "bf16", "nn"),
    ("matmul", "fp8_e4m3", "nt"),
    ("matmul", "fp8_e4m3", "nn"),
    ("scaled_block", "fp8_e4m3", "nt"),
    ("grouped", "bf16", "nt"),
    ("grouped", "fp8_e4m3", "nt"),
    (EXAMPLE, "fp8_e4m3", "nt"),
]


class OnGpu(NamedTuple):
    cupy: ModuleType
    folder: Path

    def family(self, gemm: Gemm, members: list[KernelConfig]) -> Triton:
        """The family, with the cubins of these configurations where Triton can make them."""
        if importlib.util.find_spec("triton") is not None:
            from agent.kernels.triton.compiler import TritonCompiler

            arch = f"sm_{self.cupy.cuda.Device().compute_capability}"
            needed = compilations_of(read_triton(members[0].kernel), gemm, members, arch)
            build(
                needed,
                Cubins(self.folder),
                TritonCompiler(),
                arch=arch,
                configurations=len(members),
                jobs=os.cpu_count() or 1,
            )
        return Triton(self.folder)

    def sets(self, gemm: Gemm, count: int) -> Carved:
        """Operand sets of standard normal numbers, as they are stored."""
        rng = np.random.default_rng(gemm.m)
        inputs = rng.standard_normal(count * input_elements(gemm), np.float32)
        outputs = np.zeros(count * output_elements(gemm), np.float32)
        on_gpu = self.cupy.asarray(narrow(np, inputs, gemm.dtype))
        return Carved(gemm, on_gpu, self.cupy.asarray(narrow(np, outputs, gemm.c_dtype)), count)


@pytest.fixture(scope="module")
def on_gpu(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OnGpu]:
    """CuPy and a folder of cubins, or a skip."""
    cupy = cupy_or_skip()
    if os.environ.get("GEMMCAST_TRITON"):
        yield OnGpu(cupy, default_folder())
        return
    if importlib.util.find_spec("triton") is None:
        pytest.skip("neither Triton nor GEMMCAST_TRITON, a folder of its cubins")
    yield OnGpu(cupy, tmp_path_factory.mktemp("cubins"))


def _members(kernel: str, dtype: str, layout: str) -> list[KernelConfig]:
    if kernel == EXAMPLE:
        knobs = {"tile_n": 128, "tile_k": 128, "swizzle": 32, "stages": 3}
        base = KernelConfig(family="triton", kernel=kernel, **knobs)
        return [replace(base, tile_m=16), replace(base, tile_m=128, block_threads=256)]
    return configs("short", "sm_90", kernel, dtype, layout)[::EVERY]


@pytest.mark.parametrize(("kernel", "dtype", "layout"), KERNELS, ids=str)
def test_kernels_multiply_on_a_gpu(on_gpu: OnGpu, kernel: str, dtype: str, layout: str) -> None:
    members = _members(kernel, dtype, layout)
    wrong = []
    for m, n, k in SHAPES:
        gemm = Gemm(m=m, n=n, k=k, dtype=dtype, layout=layout)
        family = on_gpu.family(gemm, members)
        sets = on_gpu.sets(gemm, 2)
        for member in members:
            try:
                prepared = family.prepare(gemm, member, sets)
                check(on_gpu.cupy, gemm, sets[0], prepared)
            except MeasurementError as error:
                wrong.append(f"{gemm} {member}: {error.status}: {error.reason}")
                continue
            for fact in ("regs", "smem_bytes", "occupancy", "block_threads"):
                assert prepared.facts[fact] > 0
    assert wrong == []


@pytest.mark.parametrize("kernel", ["matmul", "grouped"])
def test_a_batch_multiplies_on_a_gpu(on_gpu: OnGpu, kernel: str) -> None:
    gemm = Gemm(m=77, n=272, k=528, batch=5, dtype="bf16", layout="nt")
    member = configs("short", "sm_90", kernel, "bf16", "nt")[0]
    sets = on_gpu.sets(gemm, 1)
    prepared = on_gpu.family(gemm, [member]).prepare(gemm, member, sets)
    assert check(on_gpu.cupy, gemm, sets[0], prepared) < 0.05


@pytest.mark.parametrize(("kernel", "dtype"), [("matmul", "bf16"), ("scaled_block", "fp8_e4m3")])
def test_a_graph_of_launches_multiplies_every_set(on_gpu: OnGpu, kernel: str, dtype: str) -> None:
    cupy = on_gpu.cupy
    gemm = Gemm(m=64, n=512, k=1024, dtype=dtype, layout="nt")
    member = configs("short", "sm_90", kernel, dtype, "nt")[0]
    sets = on_gpu.sets(gemm, 3)
    prepared = on_gpu.family(gemm, [member]).prepare(gemm, member, sets)
    stream = cupy.cuda.Stream(non_blocking=True)
    with stream:
        stream.begin_capture()
        for i in range(3):
            prepared.launch(i)
        graph = stream.end_capture()
        graph.launch()
        stream.synchronize()
    from_graph = [cupy.asnumpy(one.c) for one in sets]
    for i, c in enumerate(from_graph):
        sets[i].c.fill(0)
        prepared.launch(i)
        cupy.cuda.get_current_stream().synchronize()
        assert np.array_equal(cupy.asnumpy(sets[i].c), c)
        assert c.any()
