"""GEMM on the CPU: NumPy's BLAS with a number of threads, and a cache-blocked loop over it.

    kernel "numpy"    one call of the BLAS that NumPy is linked with
    kernel "blocked"  C[i, j] += A[i, l]·B[l, j] over blocks of tile_m x tile_n x tile_k,
                      one BLAS call each

Which tile is best depends on the caches. Thread counts are set through threadpoolctl, and recorded
as it reports them.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import NamedTuple

import numpy as np
from threadpoolctl import ThreadpoolController

from agent.kernels import Launch, Prepared
from agent.operands import Array, Operands
from gemmcast.config import KernelConfig
from gemmcast.errors import MeasurementError
from gemmcast.gemm import Gemm


class Factors(NamedTuple):
    """Views of one operand set, or of one block of it, as NumPy multiplies them."""

    a: Array
    """[m, k]; with a leading batch where there are several problems."""
    b: Array
    """[k, n], likewise."""
    c: Array
    """[m, n], likewise."""
    adds: bool = False
    """The product is added to C instead of written: every block of k but the first."""


@cache
def _controller() -> ThreadpoolController:
    return ThreadpoolController().select(user_api="blas")


@cache
def _default_threads() -> tuple[int, ...]:
    """The number that each library chose by itself, read before the first cell sets one."""
    return tuple(pool.num_threads or 1 for pool in _controller().lib_controllers)


def set_threads(threads: int) -> int:
    """Set the number of threads; the number that BLAS then reports.

    Args:
        threads: 0 for the library's default, whatever an earlier cell has set.
    """
    pools = _controller().lib_controllers
    for pool, default in zip(pools, _default_threads(), strict=True):
        pool.set_num_threads(threads or default)
    return max((pool.num_threads or 1 for pool in pools), default=1)


def library() -> str:
    """Name and version of NumPy's BLAS."""
    names = {f"{pool['internal_api']} {pool.get('version')}" for pool in _controller().info()}
    return ", ".join(sorted(names)) or "unknown"


class Blas:
    """NumPy's matmul."""

    def prepare(self, gemm: Gemm, config: KernelConfig, sets: Sequence[Operands]) -> Prepared:
        """Set the threads and make the views that a launch multiplies."""
        if (gemm.alpha, gemm.beta) != (1.0, 0.0):
            scales = f"alpha={gemm.alpha}, beta={gemm.beta}"
            raise MeasurementError("unsupported", f"NumPy computes only A·B, not {scales}")
        threads = set_threads(config.cpu_threads)
        if config.cpu_threads not in (0, threads):
            reason = f"BLAS runs {threads} threads instead of {config.cpu_threads}"
            raise MeasurementError("unsupported", reason)
        factors = [_factors(gemm, operands) for operands in sets]
        facts = {
            "cpu_threads": threads,
            "kernel": config.kernel or "numpy",
            "library": library(),
        }
        if config.kernel in ("", "numpy"):
            return Prepared(_whole(factors), facts)
        if config.kernel == "blocked":
            blocks = [_blocks(whole, config) for whole in factors]
            return Prepared(_blocked(blocks), facts)
        reason = f"blas has kernels numpy and blocked, not {config.kernel!r}"
        raise MeasurementError("unsupported", reason)


def _factors(gemm: Gemm, operands: Operands) -> Factors:
    a = _row_major(operands.a, gemm.layout[0])
    b = _row_major(operands.b, gemm.layout[1])
    return Factors(_without_batch(a), _without_batch(b), _without_batch(operands.c))


def _row_major(stored: Array, letter: str) -> Array:
    return stored.swapaxes(-1, -2) if letter == "t" else stored


def _without_batch(array: Array) -> Array:
    """A single problem as a plain matrix."""
    return array[0] if array.shape[0] == 1 else array


def _whole(factors: Sequence[Factors]) -> Launch:
    def launch(i: int) -> None:
        """One call of BLAS."""
        a, b, c, _ = factors[i]
        np.matmul(a, b, out=c)

    return launch


def _blocks(whole: Factors, config: KernelConfig) -> list[Factors]:
    """The views of every block, made ahead: slicing costs as much as a small block's product."""
    a, b, c, _ = whole
    if a.ndim != 2:
        raise MeasurementError("unsupported", "the blocked kernel has no batch")
    m, k = a.shape
    n = b.shape[1]
    tile_m = config.tile_m or m
    tile_n = config.tile_n or n
    tile_k = config.tile_k or k
    blocks = []
    for i in range(0, m, tile_m):
        rows = slice(i, i + tile_m)
        for j in range(0, n, tile_n):
            columns = slice(j, j + tile_n)
            for p in range(0, k, tile_k):
                depth = slice(p, p + tile_k)
                block = Factors(a[rows, depth], b[depth, columns], c[rows, columns], adds=p > 0)
                blocks.append(block)
    return blocks


def _blocked(blocks: Sequence[list[Factors]]) -> Launch:
    def launch(i: int) -> None:
        """One call of BLAS a block."""
        for a, b, c, adds in blocks[i]:
            if adds:
                np.add(c, a @ b, out=c)
            else:
                np.matmul(a, b, out=c)

    return launch


FAMILY = Blas()
