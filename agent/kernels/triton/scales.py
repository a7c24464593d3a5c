"""Scales of blocks of A and B, for kernels that multiply scaled fp8.

    a_scales[sets, m, blocks], b_scales[sets, ceil(n / 128), blocks] float32; blocks = ceil(k / 128)

They lie around 1, each near one of its own, so that a kernel that reads the scale of another row
or block has a wrong result. Every operand set has scales of its own, so they are as cold as the
operands. Works on NumPy and CuPy arrays alike.
"""

from __future__ import annotations

from math import ceil

from agent.kernels import BlockScales
from agent.operands import Array, ArrayModule
from gemmcast.gemm import Gemm

BLOCK = 128
"""Elements along k that share a scale; of B, along n too."""
LOWEST = 0.75
SPREAD = 0.5
"""Scales lie between LOWEST and LOWEST + SPREAD."""
GOLDEN = 2654435761
"""Knuth's multiplier: neighbours become as good as random."""


class ScaleSets:
    """Of all operand sets of a problem.

    Args:
        sets: how many.
    """

    def __init__(self, xp: ArrayModule, gemm: Gemm, sets: int) -> None:
        blocks = ceil(gemm.k / BLOCK)
        self.a = _scales(xp, (sets, gemm.m, blocks))
        self.b = _scales(xp, (sets, ceil(gemm.n / BLOCK), blocks))
        self.first = BlockScales(self.a[0], self.b[0], BLOCK)
        """Of the set that is checked."""

    @property
    def bytes(self) -> int:
        """What those of one set take."""
        return int(self.a[0].nbytes + self.b[0].nbytes)


def _scales(xp: ArrayModule, shape: tuple[int, int, int]) -> Array:
    size = shape[0] * shape[1] * shape[2]
    bits = xp.arange(1, size + 1, dtype=xp.uint32) * xp.uint32(GOLDEN)
    bits = (bits ^ (bits >> xp.uint32(15))) * xp.uint32(GOLDEN)
    share = (bits >> xp.uint32(8)).astype(xp.float32) * xp.float32(2.0**-24)
    return (LOWEST + SPREAD * share).astype(xp.float32).reshape(shape)
