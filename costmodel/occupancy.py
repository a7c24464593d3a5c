"""How many blocks of threads run on a GPU at the same time, and what they load together.

    blocks of an SM = what its registers and its shared memory hold
    waves           = tiles / (SMs x blocks of an SM)
    loads of a wave = its rows of A and its columns of B, each once

The limits are those of recent NVIDIA GPUs (CUDA C++ Programming Guide, "Compute Capabilities").
Arrays are [n, 1] where nothing else is said. Does not know what is computed.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from costmodel import graph_ops
from costmodel.formulas import Grid, Query, Tile, Times
from costmodel.graph_ops import Array

SMEM_PER_SM: Final = 227.0 * 1024.0
"""Of recent NVIDIA GPUs. [bytes]"""
BLOCKS_PER_SM: Final = 32.0
REGISTERS_PER_SM: Final = 65536.0
REGISTERS_PER_SUM: Final = 1.5
REGISTERS_BESIDE: Final = 30.0
"""Registers of a thread: so many for each element of C, and so many more. With these, two thirds of
the recorded Triton kernels and three quarters of CUTLASS 2 get the blocks that CUDA says."""

REGISTERS_OF_THREAD: Final = 255.0
"""No thread has more; a kernel with more elements of C to a thread keeps some in memory."""
SPILLED: Final = 0.125
"""Blocks of an SM then: of 452 recorded Triton kernels with 256 elements to a thread every one took
2.4 to 55 times as long as the best of its problem, 5 to 24 times in the median."""


class Waves(NamedTuple):
    """Blocks that run at the same time. [n, 1]"""

    count: Array
    """Waves, the last one maybe not full."""
    load_us: Array
    """Loading A and B, if the tiles of a wave share what they load."""


def blocks_per_sm(q: Query, tile: Tile, grid: Grid, smem_bytes: Array) -> Array:
    """[n, 1] blocks of threads that one SM runs at the same time.

    As many as its registers and its shared memory allow: C lies in registers, and the tiles of all
    stages in shared memory. It is SPILLED where C is too large for the registers of its threads,
    and 1 where clusters are used, because their blocks need the SM's whole shared memory, and where
    the query does not name the threads of a block.
    """
    xp = q.k.__array_namespace__()
    # All in elements of C
    room = REGISTERS_PER_SM / REGISTERS_PER_SUM
    by_registers = tile.area + q.threads * (REGISTERS_BESIDE / REGISTERS_PER_SUM)
    taken = xp.maximum(by_registers, smem_bytes * (room / SMEM_PER_SM))
    blocks = graph_ops.clip(xp.floor(room / taken), 1.0, BLOCKS_PER_SM)
    blocks = xp.where(tile.area > q.threads * REGISTERS_OF_THREAD, SPILLED, blocks)
    return xp.where(grid.has_clusters | (q.threads == 0.0), 1.0, blocks)


def waves_of(q: Query, grid: Grid, times: Times, room: Array) -> Waves:
    """What runs at the same time, with `room` blocks on each SM.

    A wave has `swizzle` rows of tiles, as Triton's `group_m` and CUTLASS 2's swizzle have them, and
    as many columns as it needs; a tile shares its rows of A with those, and its columns of B.
    """
    xp = q.k.__array_namespace__()
    together = q.active_units * room
    count_m, count_n = graph_ops.split(grid.count, [1, 1])
    running = xp.minimum(together, grid.of_slice)
    width = xp.minimum(grid.requested_swizzle, count_m)
    columns = xp.minimum(running / width, count_n)
    sharing = xp.concat([columns, running / columns], axis=1)
    return Waves(
        count=xp.ceil(grid.tiles / together),
        load_us=xp.sum(times.l2 / sharing, axis=1, keepdims=True),
    )


def smem_bytes_of(q: Query, tile: Tile) -> Array:
    """[n, 1] the bytes of the tiles of all stages, 0 where the query does not name them."""
    xp = q.k.__array_namespace__()
    both_sides = xp.sum(q.tile, axis=1, keepdims=True)
    return q.stages * both_sides * tile.named_k * q.in_bytes
