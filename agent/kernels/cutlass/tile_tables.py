"""The tables of the sets: tiles, warps, clusters, stages, swizzles.

Tiles and warp tiles of CUTLASS 2.x kernels are those of CUTLASS' own generator
(cutlass_library/generator.py, GenerateSM50_Simt and GenerateSM80_TensorOp_*). A tile of 256 x 256
is in no set: docs/cutlass.md says why.
"""

from __future__ import annotations

from typing import Final, NamedTuple

Pair = tuple[int, int]
"""Along m and n."""


class SimtRow(NamedTuple):
    """A kernel on the CUDA cores."""

    tile: Pair
    stages: int = 2
    swizzle: int = 1


class TensorOpRow(NamedTuple):
    """A kernel with mma.sync."""

    tile: Pair
    warp: Pair
    tile_k_bytes: int
    stages: int
    swizzle: int


class WgmmaRow(NamedTuple):
    """A kernel with wgmma. The schedule is no knob: everything else must differ between kernels."""

    tile: Pair
    cluster: Pair
    schedule: str
    swizzle: int


SIMT_TILES: Final = {
    (64, 64): (32, 64),
    (128, 64): (64, 32),
    (64, 128): (32, 64),
    (128, 128): (32, 64),
    (256, 128): (64, 64),
    (128, 256): (64, 64),
}
"""Tile of a thread block -> tile of a warp."""
SIMT_EXTRA: Final = (
    SimtRow((64, 64), 4, 1),
    SimtRow((128, 64), 4, 1),
    SimtRow((128, 128), 4, 1),
    SimtRow((128, 128), 5, 1),
    SimtRow((256, 128), 4, 1),
    SimtRow((128, 256), 4, 1),
    SimtRow((128, 128), 2, 4),
    SimtRow((128, 128), 2, 8),
)
TENSOR_OP: Final = (
    TensorOpRow((64, 64), (32, 32), 64, 4, 1),
    TensorOpRow((64, 64), (32, 32), 128, 5, 1),
    TensorOpRow((128, 64), (64, 32), 64, 4, 1),
    TensorOpRow((64, 128), (32, 64), 64, 4, 1),
    TensorOpRow((128, 128), (64, 64), 64, 3, 1),
    TensorOpRow((128, 128), (64, 64), 64, 4, 1),
    TensorOpRow((128, 128), (64, 64), 64, 4, 4),
    TensorOpRow((128, 128), (64, 64), 64, 5, 8),
    TensorOpRow((128, 128), (64, 64), 128, 3, 4),
    TensorOpRow((256, 64), (64, 64), 64, 4, 1),
    TensorOpRow((64, 256), (64, 64), 64, 4, 1),
    TensorOpRow((256, 128), (64, 64), 64, 3, 1),
    TensorOpRow((256, 128), (64, 64), 128, 3, 8),
    TensorOpRow((128, 256), (64, 64), 64, 3, 1),
    TensorOpRow((128, 256), (64, 64), 128, 3, 8),
)
TENSOR_OP_LAYOUTS: Final = ("nn", "nt")
"""nt is what PyTorch's Linear runs: k lies contiguous in both operands."""
WGMMA: Final = (
    WgmmaRow((64, 128), (1, 1), "ws", 1),
    WgmmaRow((64, 128), (2, 1), "pingpong", 1),
    WgmmaRow((128, 128), (2, 1), "pingpong", 1),
    WgmmaRow((128, 128), (1, 1), "coop", 1),
    WgmmaRow((128, 256), (2, 1), "coop", 1),
    WgmmaRow((256, 128), (1, 2), "coop", 8),
    WgmmaRow((256, 128), (2, 1), "streamk", 1),
)
WGMMA_FP8: Final = (
    WgmmaRow((64, 128), (1, 1), "ws", 1),
    WgmmaRow((64, 128), (2, 1), "pingpong", 1),
    WgmmaRow((128, 128), (2, 1), "pingpongfast", 1),
    WgmmaRow((128, 128), (1, 1), "coop", 1),
    WgmmaRow((128, 256), (2, 1), "coopfast", 1),
    WgmmaRow((256, 128), (1, 2), "coopfast", 8),
    WgmmaRow((128, 128), (1, 2), "streamk", 1),
)
WGMMA_LAYOUTS: Final = {
    "fp16": ("nn", "nt"),
    "bf16": ("nn", "nt"),
    "tf32": ("nt",),
    "fp8_e4m3": ("nt",),
}
"""wgmma wants k contiguous where elements have one or four bytes."""
