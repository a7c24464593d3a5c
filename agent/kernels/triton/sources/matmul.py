"""C = A·B in Triton, with the knobs that engines tune: tiles, grouped rows of tiles, warps, stages.

Tiles are rasterised in groups of `group_m` rows, so that blocks that run together share operands in
L2 (Triton's tutorial "Matrix Multiplication", section "L2 Cache Optimizations").
"""

import triton
import triton.language as tl


@triton.jit
def matmul(
    a,
    b,
    c,
    m,
    n,
    k,
    group_m,
    TILE_M: tl.constexpr,
    TILE_N: tl.constexpr,
    TILE_K: tl.constexpr,
    TRANS_B: tl.constexpr,
):
    """A is m x k; B is k x n, or stored as n x k (TRANS_B). Grid: tiles of C, batch."""
    batch = tl.program_id(1).to(tl.int64)
    a += batch * m * k
    b += batch * k * n
    c += batch * m * n

    tiles_m = tl.cdiv(m, TILE_M)
    tiles_n = tl.cdiv(n, TILE_N)
    tiles_in_group = group_m * tiles_n
    group = tl.program_id(0) // tiles_in_group
    in_group = tl.program_id(0) % tiles_in_group
    rows_in_group = min(tiles_m - group * group_m, group_m)
    tile_m = group * group_m + in_group % rows_in_group
    tile_n = in_group // rows_in_group

    # What lies beyond the edge is read from the beginning, and not written.
    rows = (tile_m * TILE_M + tl.arange(0, TILE_M)).to(tl.int64)
    columns = (tile_n * TILE_N + tl.arange(0, TILE_N)).to(tl.int64)
    steps = tl.arange(0, TILE_K)
    a_at = a + (rows % m)[:, None] * k + steps[None, :]
    if TRANS_B:
        b_at = b + (columns % n)[None, :] * k + steps[:, None]
        b_step = TILE_K
    else:
        b_at = b + steps[:, None].to(tl.int64) * n + (columns % n)[None, :]
        b_step = TILE_K * n

    sums = tl.zeros((TILE_M, TILE_N), dtype=tl.float32)
    for done in range(0, k, TILE_K):
        left = k - done
        a_tile = tl.load(a_at, mask=steps[None, :] < left, other=0.0)
        b_tile = tl.load(b_at, mask=steps[:, None] < left, other=0.0)
        sums = tl.dot(a_tile, b_tile, sums)
        a_at += TILE_K
        b_at += b_step

    inside = (rows[:, None] < m) & (columns[None, :] < n)
    c_at = c + rows[:, None] * n + columns[None, :]
    tl.store(c_at, sums.to(c.dtype.element_ty), mask=inside)
