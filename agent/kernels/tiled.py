"""The paper's kernel: one shared-memory tile of A and of B per thread block, one thread per element of C.

Source of the scheme: CUDA C++ Programming Guide, "Shared Memory"; arXiv 2411.16954, section III (tile sizes 1 to 32, fp32).
Tile is tile_m = tile_n = tile_k. Layout nn; batches along the grid's z axis.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

import cupy

from agent.kernels import Prepared
from agent.kernels.launch import gemm_launcher
from agent.operands import Operands
from gemmcast.config import KernelConfig
from gemmcast.errors import MeasurementError
from gemmcast.gemm import Gemm

TILES = (1, 2, 4, 8, 16, 32)
MAX_GRID_YZ = 65535
SOURCE = r"""
extern "C" __global__ void tiled(const float* __restrict__ a, const float* __restrict__ b, float* __restrict__ c,
                                 int m, int n, int k, float alpha, float beta) {
    __shared__ float tile_a[TILE][TILE], tile_b[TILE][TILE];
    a += (size_t)blockIdx.z * m * k;
    b += (size_t)blockIdx.z * k * n;
    c += (size_t)blockIdx.z * m * n;
    const int row = blockIdx.y * TILE + threadIdx.y, col = blockIdx.x * TILE + threadIdx.x;
    float sum = 0.0f;
    for (int p = 0; p < k; p += TILE) {
        tile_a[threadIdx.y][threadIdx.x] = row < m && p + threadIdx.x < k ? a[(size_t)row * k + p + threadIdx.x] : 0.0f;
        tile_b[threadIdx.y][threadIdx.x] = p + threadIdx.y < k && col < n ? b[(size_t)(p + threadIdx.y) * n + col] : 0.0f;
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
def _kernel(tile: int) -> tuple[Any, dict[str, Any]]:
    kernel = cupy.RawKernel(SOURCE, "tiled", options=(f"-DTILE={tile}",))
    try:
        kernel.compile()
    except cupy.cuda.compiler.CompileException as error:
        raise MeasurementError("cuda_error", f"NVRTC can't compile tile {tile}: {str(error).strip().splitlines()[0]}") from None
    blocks = cupy.cuda.driver.occupancyMaxActiveBlocksPerMultiprocessor(kernel.kernel.ptr, tile * tile, 0)
    resident = cupy.cuda.runtime.getDeviceProperties(cupy.cuda.runtime.getDevice())["maxThreadsPerMultiProcessor"]
    return kernel, {
        "regs": kernel.num_regs,
        "smem_bytes": kernel.shared_size_bytes,
        "spill_bytes": kernel.local_size_bytes,
        "occupancy": blocks * tile * tile / resident,
        "block_threads": tile * tile,
        "kernel": f"tiled_{tile}",
    }


class Tiled:
    """The naive tiled kernel."""

    def prepare(self, gemm: Gemm, config: KernelConfig, sets: Sequence[Operands]) -> Prepared:
        tile = config.tile_m
        if tile not in TILES or (config.tile_n, config.tile_k) != (tile, tile):
            raise MeasurementError("unsupported", f"tiled has square tiles {TILES}, not {config.tile_m}x{config.tile_n}x{config.tile_k}")
        if gemm.layout != "nn":
            raise MeasurementError("unsupported", f"tiled reads row-major operands (nn), not {gemm.layout}")
        grid = (-(-gemm.n // tile), -(-gemm.m // tile), gemm.batch)
        if max(grid[1:]) > MAX_GRID_YZ:
            raise MeasurementError("unsupported", f"grid {grid} is over CUDA's limit of {MAX_GRID_YZ} blocks in y and z")
        kernel, facts = _kernel(tile)
        return Prepared(gemm_launcher(kernel, grid, (tile, tile, 1), gemm, sets), facts)


FAMILY = Tiled()
