"""The tables of the sets: tiles, warps, clusters, stages, swizzles.

Tiles and warp tiles of CUTLASS 2.x kernels are those of CUTLASS' own generator
(cutlass_library/generator.py, GenerateSM50_Simt and GenerateSM80_TensorOp_*). A tile of 256 x 256
and a warp tile 48 wide are in no set: docs/cutlass.md says why. Tables BETWEEN_* are those of the
set `between`: no row is in the other tables, so that the knobs alone name one kernel of all sets.
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
    (128, 32): (64, 32),
    (32, 128): (32, 64),
}
"""Tile of a thread block -> tile of a warp."""
SIMT_PAPER: Final = (
    SimtRow((64, 64)),
    SimtRow((128, 64)),
    SimtRow((64, 128)),
    SimtRow((128, 128)),
    SimtRow((256, 128)),
    SimtRow((128, 256)),
)
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
BETWEEN_SIMT: Final = (
    SimtRow((128, 32), 2, 1),
    SimtRow((128, 32), 4, 1),
    SimtRow((32, 128), 2, 1),
    SimtRow((32, 128), 4, 1),
    SimtRow((64, 64), 3, 1),
    SimtRow((64, 64), 5, 1),
    SimtRow((64, 64), 2, 4),
    SimtRow((128, 64), 3, 1),
    SimtRow((128, 64), 5, 4),
    SimtRow((64, 128), 3, 1),
    SimtRow((64, 128), 4, 1),
    SimtRow((64, 128), 5, 8),
    SimtRow((128, 128), 3, 1),
    SimtRow((128, 128), 4, 4),
    SimtRow((256, 128), 3, 1),
    SimtRow((128, 256), 3, 1),
)
BETWEEN_TENSOR_OP: Final = (
    TensorOpRow((64, 64), (32, 32), 64, 3, 1),
    TensorOpRow((64, 64), (32, 32), 64, 6, 4),
    TensorOpRow((64, 64), (32, 32), 128, 3, 1),
    TensorOpRow((128, 32), (32, 32), 64, 4, 1),
    TensorOpRow((32, 128), (32, 32), 64, 4, 1),
    TensorOpRow((128, 64), (64, 32), 64, 3, 1),
    TensorOpRow((128, 64), (64, 32), 128, 4, 4),
    TensorOpRow((64, 128), (32, 64), 64, 3, 1),
    TensorOpRow((64, 128), (32, 64), 128, 4, 1),
    TensorOpRow((128, 128), (64, 64), 128, 4, 1),
    TensorOpRow((128, 128), (64, 32), 64, 4, 1),
    TensorOpRow((192, 128), (48, 64), 64, 3, 1),
    TensorOpRow((256, 64), (64, 64), 64, 3, 1),
    TensorOpRow((256, 64), (64, 64), 128, 4, 4),
    TensorOpRow((64, 256), (64, 64), 64, 3, 1),
    TensorOpRow((256, 128), (64, 64), 64, 4, 1),
    TensorOpRow((128, 256), (64, 64), 64, 4, 4),
)
BETWEEN_TRANSPOSED: Final = (
    TensorOpRow((64, 64), (32, 32), 64, 4, 1),
    TensorOpRow((128, 128), (64, 64), 64, 4, 1),
    TensorOpRow((256, 128), (64, 64), 64, 3, 1),
    TensorOpRow((128, 256), (64, 64), 64, 3, 1),
)
"""For fp16 and bf16 in the layouts tn and tt, which the other sets do not have."""
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
BETWEEN_WGMMA: Final = (
    WgmmaRow((64, 64), (1, 1), "ws", 1),
    WgmmaRow((64, 96), (1, 1), "ws", 1),
    WgmmaRow((64, 192), (1, 1), "ws", 1),
    WgmmaRow((64, 64), (2, 1), "pingpong", 1),
    WgmmaRow((64, 256), (1, 1), "pingpong", 1),
    WgmmaRow((128, 64), (1, 1), "pingpong", 1),
    WgmmaRow((128, 96), (2, 1), "pingpong", 1),
    WgmmaRow((128, 160), (1, 1), "coop", 1),
    WgmmaRow((128, 192), (2, 1), "coop", 1),
    WgmmaRow((128, 128), (2, 2), "coop", 4),
    WgmmaRow((256, 64), (1, 1), "coop", 1),
    WgmmaRow((256, 96), (2, 1), "coop", 4),
    WgmmaRow((128, 64), (1, 2), "streamk", 1),
    WgmmaRow((128, 192), (1, 2), "streamk", 1),
)
BETWEEN_WGMMA_FP8: Final = (
    WgmmaRow((64, 64), (1, 1), "ws", 1),
    WgmmaRow((64, 96), (1, 1), "ws", 1),
    WgmmaRow((64, 192), (1, 1), "ws", 1),
    WgmmaRow((64, 64), (2, 1), "pingpong", 1),
    WgmmaRow((64, 256), (1, 1), "pingpongfast", 1),
    WgmmaRow((128, 64), (1, 1), "pingpongfast", 1),
    WgmmaRow((128, 96), (2, 1), "pingpongfast", 1),
    WgmmaRow((128, 160), (1, 1), "coopfast", 1),
    WgmmaRow((128, 192), (2, 1), "coopfast", 1),
    WgmmaRow((128, 128), (2, 2), "coop", 4),
    WgmmaRow((256, 64), (1, 1), "coop", 1),
    WgmmaRow((256, 96), (2, 1), "coopfast", 4),
    WgmmaRow((128, 64), (1, 2), "streamk", 1),
    WgmmaRow((128, 96), (1, 2), "streamk", 1),
)
WGMMA_STAGES: Final = {
    (False, 64, 64): (13, 12),
    (False, 64, 96): (10, 10),
    (False, 64, 128): (8, 8),
    (False, 64, 192): (6, 6),
    (False, 64, 256): (5, 4),
    (False, 128, 64): (8, 8),
    (False, 128, 96): (7, 6),
    (False, 128, 128): (6, 6),
    (True, 128, 64): (8, 7),
    # fp8 only
    (True, 128, 96): (7, 0),
    (True, 128, 128): (6, 5),
    (True, 128, 160): (5, 4),
    (True, 128, 192): (4, 4),
    (True, 128, 256): (4, 3),
    (True, 256, 64): (4, 4),
    (True, 256, 96): (4, 3),
    (True, 256, 128): (4, 3),
}
"""(cooperative, tile_m, tile_n) -> stages of a compiled kernel, and of one in tf32, as libraries of
CUTLASS 4.2.0 report them. The rows of a tile have 128 bytes in every dtype."""
WGMMA_LAYOUTS: Final = {
    "fp16": ("nn", "nt"),
    "bf16": ("nn", "nt"),
    "tf32": ("nt",),
    "fp8_e4m3": ("nt",),
}
"""wgmma needs k contiguous where elements have one or four bytes."""
