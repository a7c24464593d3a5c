"""Which rows each expert multiplies, for kernels of a mixture of experts; the same number for each.

    rows[experts * blocks * tile_m]: rows of A and C, sorted by expert; each expert's are padded to
                                     whole tiles with a row that does not exist
    experts[experts * blocks]:       the expert of each tile along m
    padded[1]:                       how many entries `rows` has

as vLLM's moe_align_block_size makes them. A Gemm of `batch` experts with m rows each has its rows
one expert after another. Works on NumPy and CuPy arrays alike.
"""

from __future__ import annotations

from math import ceil

from agent.operands import Array, ArrayModule
from gemmcast.gemm import Gemm


class Routing:
    """The three arrays, int32.

    Args:
        tile_m: rows of one tile.
    """

    def __init__(self, xp: ArrayModule, gemm: Gemm, tile_m: int) -> None:
        blocks = ceil(gemm.m / tile_m)
        padded_rows = blocks * tile_m
        place = xp.arange(gemm.batch * padded_rows, dtype=xp.int32)
        expert, row = place // padded_rows, place % padded_rows
        no_row = gemm.batch * gemm.m
        self.rows: Array = xp.where(row < gemm.m, expert * gemm.m + row, no_row).astype(xp.int32)
        self.experts: Array = xp.arange(gemm.batch * blocks, dtype=xp.int32) // blocks
        self.padded: Array = xp.full(1, gemm.batch * padded_rows, dtype=xp.int32)

    @property
    def bytes(self) -> int:
        """What they take."""
        return int(self.rows.nbytes + self.experts.nbytes + self.padded.nbytes)
