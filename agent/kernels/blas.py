"""GEMM on the CPU: NumPy's BLAS with a number of threads, and a cache-blocked loop over it.

kernel "numpy":   one call of the BLAS that NumPy is linked with.
kernel "blocked": C[i,j] += A[i,l]·B[l,j] over blocks of tile_m x tile_n x tile_k, each block one BLAS call; which tile is best
                  depends on the caches. Thread counts are set through threadpoolctl, and recorded as it reports them.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np
from threadpoolctl import ThreadpoolController

from agent.kernels import Prepared
from agent.operands import Operands
from gemmcast.config import KernelConfig
from gemmcast.errors import MeasurementError
from gemmcast.gemm import Gemm

Block = tuple[Any, Any, Any, bool]
# views of A, B and C, and whether C is written for the first time


@cache
def _controller() -> ThreadpoolController:
    return ThreadpoolController().select(user_api="blas")


@cache
def _own_threads() -> tuple[int, ...]:
    """What each library chose by itself, read before the first cell sets a number."""
    return tuple(pool.num_threads or 1 for pool in _controller().lib_controllers)


def set_threads(threads: int) -> int:
    """Threads that BLAS then reports. 0 is the library's own choice, whatever an earlier cell has set."""
    pools = _controller().lib_controllers
    for pool, own in zip(pools, _own_threads(), strict=True):
        pool.set_num_threads(threads or own)
    return max((pool.num_threads or 1 for pool in pools), default=1)


def library() -> str:
    """Name and version of NumPy's BLAS."""
    found = [f"{pool['internal_api']} {pool.get('version')}" for pool in _controller().info()]
    return ", ".join(sorted(set(found))) or "unknown"


class Blas:
    """NumPy's matmul."""

    def prepare(self, gemm: Gemm, config: KernelConfig, sets: Sequence[Operands]) -> Prepared:
        if (gemm.alpha, gemm.beta) != (1.0, 0.0):
            raise MeasurementError("unsupported", f"NumPy computes A·B alone, not alpha={gemm.alpha}, beta={gemm.beta}")
        threads = set_threads(config.cpu_threads)
        if config.cpu_threads and threads != config.cpu_threads:
            raise MeasurementError("unsupported", f"BLAS runs {threads} threads when asked for {config.cpu_threads}")
        views = [(_plain(s.a, gemm.layout[0]), _plain(s.b, gemm.layout[1]), s.c) for s in sets]
        facts = {"cpu_threads": threads, "kernel": config.kernel or "numpy", "library": library()}
        if config.kernel in ("", "numpy"):
            return Prepared(_whole(views), facts)
        if config.kernel == "blocked":
            return Prepared(_blocked([_blocks(a, b, c, config) for a, b, c in views]), facts)
        raise MeasurementError("unsupported", f"blas has kernels numpy and blocked, not {config.kernel!r}")


def _plain(stored: Any, layout: str) -> Any:
    array = stored.swapaxes(-1, -2) if layout == "t" else stored
    return array[0] if array.shape[0] == 1 else array


def _whole(views: list[tuple[Any, Any, Any]]) -> Any:
    squeezed = [(a, b, c[0] if c.shape[0] == 1 else c) for a, b, c in views]

    def launch(i: int) -> None:
        a, b, c = squeezed[i]
        np.matmul(a, b, out=c)

    return launch


def _blocks(a: Any, b: Any, c: Any, config: KernelConfig) -> list[Block]:
    """The views of every block, made ahead: slicing would cost as much as a small block's product."""
    if a.ndim != 2:
        raise MeasurementError("unsupported", "the blocked kernel has no batch")
    (m, k), n, out = a.shape, b.shape[1], c[0]
    tm, tn, tk = config.tile_m or m, config.tile_n or n, config.tile_k or k
    return [
        (a[i : i + tm, p : p + tk], b[p : p + tk, j : j + tn], out[i : i + tm, j : j + tn], p == 0)
        for i in range(0, m, tm)
        for j in range(0, n, tn)
        for p in range(0, k, tk)
    ]


def _blocked(blocks: list[list[Block]]) -> Any:
    def launch(i: int) -> None:
        for a, b, c, first in blocks[i]:
            if first:
                np.matmul(a, b, out=c)
            else:
                np.add(c, a @ b, out=c)

    return launch


FAMILY = Blas()
