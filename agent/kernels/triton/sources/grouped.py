"""A mixture of experts: rows of A sorted by expert, each multiplied by the matrix of its expert.

One launch for all experts. A tile along m belongs to one expert; which rows it has stands in a list
that routing makes, as in vLLM's fused MoE kernel.
"""

import triton
import triton.language as tl


@triton.jit
def grouped(
    a,
    b,
    c,
    rows_of_tiles,
    experts,
    all_rows,
    tiles_m,
    n,
    k,
    group_m,
    TILE_M: tl.constexpr,
    TILE_N: tl.constexpr,
    TILE_K: tl.constexpr,
):
    """A[all_rows, k], B[experts, n, k], C[all_rows, n]; a row of `all_rows` and more is padding."""
    tiles_n = tl.cdiv(n, TILE_N)
    tiles_in_group = group_m * tiles_n
    group = tl.program_id(0) // tiles_in_group
    in_group = tl.program_id(0) % tiles_in_group
    rows_in_group = min(tiles_m - group * group_m, group_m)
    tile_m = group * group_m + in_group % rows_in_group
    tile_n = in_group // rows_in_group

    rows = tl.load(rows_of_tiles + tile_m * TILE_M + tl.arange(0, TILE_M)).to(tl.int64)
    expert = tl.load(experts + tile_m).to(tl.int64)
    is_row = rows < all_rows
    columns = (tile_n * TILE_N + tl.arange(0, TILE_N)).to(tl.int64)
    steps = tl.arange(0, TILE_K)
    a_at = a + rows[:, None] * k + steps[None, :]
    # Columns beyond the edge are read from the beginning, and not written.
    b_at = b + expert * n * k + (columns % n)[None, :] * k + steps[:, None]

    sums = tl.zeros((TILE_M, TILE_N), dtype=tl.float32)
    for done in range(0, k, TILE_K):
        left = k - done
        a_tile = tl.load(a_at, mask=is_row[:, None] & (steps[None, :] < left), other=0.0)
        b_tile = tl.load(b_at, mask=steps[:, None] < left, other=0.0)
        sums = tl.dot(a_tile, b_tile, sums)
        a_at += TILE_K
        b_at += TILE_K

    inside = is_row[:, None] & (columns[None, :] < n)
    c_at = c + rows[:, None] * n + columns[None, :]
    tl.store(c_at, sums.to(c.dtype.element_ty), mask=inside)
