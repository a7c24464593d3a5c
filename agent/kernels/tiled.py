"""The paper's kernel: shared-memory tiles per thread block, one element of C per thread.

Source of the scheme: CUDA C++ Programming Guide, "Shared Memory"; arXiv 2411.16954, section III
(tile sizes 1 to 32, fp32). tile_m = tile_n = tile_k; layout nn; batches along the grid's z axis.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import cupy

from agent.kernels import Prepared
from agent.kernels.launch import gemm_launcher, kernel_facts
from agent.operands import Operands
from gemmcast.config import KernelConfig
from gemmcast.errors import MeasurementError
from gemmcast.feasible import MAX_GRID_YZ
from gemmcast.gemm import Gemm
from gemmcast.rows import Row

TILE_SIZES = (1, 2, 4, 8, 16, 32)
SOURCE = r"""
extern "C" __global__ void tiled(const float* __restrict__ a, const float* __restrict__ b,
                                 float* __restrict__ c, int m, int n, int k,
                                 float alpha, float beta) {
    __shared__ float tile_a[TILE][TILE], tile_b[TILE][TILE];
    a += (size_t)blockIdx.z * m * k;
    b += (size_t)blockIdx.z * k * n;
    c += (size_t)blockIdx.z * m * n;
    const int row = blockIdx.y * TILE + threadIdx.y;
    const int col = blockIdx.x * TILE + threadIdx.x;
    float sum = 0.0f;
    for (int p = 0; p < k; p += TILE) {
        tile_a[threadIdx.y][threadIdx.x] =
            row < m && p + threadIdx.x < k ? a[(size_t)row * k + p + threadIdx.x] : 0.0f;
        tile_b[threadIdx.y][threadIdx.x] =
            p + threadIdx.y < k && col < n ? b[(size_t)(p + threadIdx.y) * n + col] : 0.0f;
        __syncthreads();
#pragma unroll
        for (int i = 0; i < TILE; ++i) sum += tile_a[threadIdx.y][i] * tile_b[i][threadIdx.x];
        __syncthreads();
    }
    if (row < m && col < n) {
        const size_t at = (size_t)row * n + col;
        c[at] = alpha * sum + (beta == 0.0f ? 0.0f : beta * c[at]);
    }
}
"""


@cache
def _kernel(tile: int) -> tuple[cupy.RawKernel, Row]:
    """The compiled kernel and its columns."""
    kernel = cupy.RawKernel(SOURCE, "tiled", options=(f"-DTILE={tile}",))
    try:
        kernel.compile()
    except cupy.cuda.compiler.CompileException as error:
        first_line = str(error).strip().splitlines()[0]
        reason = f"NVRTC cannot compile tile {tile}: {first_line}"
        raise MeasurementError("cuda_error", reason) from None
    facts = kernel_facts(kernel, threads=tile * tile)
    return kernel, {**facts, "kernel": f"tiled_{tile}"}


class Tiled:
    """The naive tiled kernel."""

    def prepare(self, gemm: Gemm, config: KernelConfig, sets: Sequence[Operands]) -> Prepared:
        """Compile the tile's kernel."""
        _check_supported(gemm, config)
        tile = config.tile_m
        grid = (-(-gemm.n // tile), -(-gemm.m // tile), gemm.batch)
        if max(grid[1:]) > MAX_GRID_YZ:
            reason = f"grid {grid} is over CUDA's limit of {MAX_GRID_YZ} blocks in y and z"
            raise MeasurementError("unsupported", reason)
        kernel, facts = _kernel(tile)
        launch = gemm_launcher(kernel, grid, (tile, tile, 1), gemm, sets)
        return Prepared(launch, facts)


def _check_supported(gemm: Gemm, config: KernelConfig) -> None:
    tile = (config.tile_m, config.tile_n, config.tile_k)
    if len(set(tile)) > 1 or config.tile_m not in TILE_SIZES:
        shown = "x".join(map(str, tile))
        raise MeasurementError("unsupported", f"tiled has square tiles {TILE_SIZES}, not {shown}")
    if gemm.layout != "nn":
        reason = f"tiled reads row-major operands (nn), not {gemm.layout}"
        raise MeasurementError("unsupported", reason)


FAMILY = Tiled()
