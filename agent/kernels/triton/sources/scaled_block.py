"""fp8 with scales: each 128 of k have one in every row of A and in every 128 columns of B.

    c[i, j] = sum over blocks of k:  a_scales[i, block] * b_scales[j // 128, block] * (a · b)

The products of a block are summed by the tensor cores and scaled in fp32, as vLLM's and SGLang's
w8a8 block kernels do (DeepSeek-V3, arXiv 2412.19437, section 3.3).
"""

import triton
import triton.language as tl


@triton.jit
def scaled_block(
    a,
    b,
    c,
    a_scales,
    b_scales,
    m,
    n,
    k,
    group_m,
    TILE_M: tl.constexpr,
    TILE_N: tl.constexpr,
    TILE_K: tl.constexpr,
    SCALED: tl.constexpr,
):
    """A is m x k, B is stored as n x k; TILE_K divides SCALED, the length of a block."""
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
    b_at = b + (columns % n)[None, :] * k + steps[:, None]
    blocks = tl.cdiv(k, SCALED)
    a_scales_at = a_scales + (rows % m) * blocks
    b_scales_at = b_scales + (columns % n) // SCALED * blocks

    sums = tl.zeros((TILE_M, TILE_N), dtype=tl.float32)
    for done in range(0, k, TILE_K):
        left = k - done
        block = done // SCALED
        a_tile = tl.load(a_at, mask=steps[None, :] < left, other=0.0)
        b_tile = tl.load(b_at, mask=steps[:, None] < left, other=0.0)
        a_scale = tl.load(a_scales_at + block)
        b_scale = tl.load(b_scales_at + block)
        sums += tl.dot(a_tile, b_tile) * a_scale[:, None] * b_scale[None, :]
        a_at += TILE_K
        b_at += TILE_K

    inside = (rows[:, None] < m) & (columns[None, :] < n)
    c_at = c + rows[:, None] * n + columns[None, :]
    tl.store(c_at, sums.to(c.dtype.element_ty), mask=inside)
