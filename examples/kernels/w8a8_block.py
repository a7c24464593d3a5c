"""A block-scaled fp8 product with the parameters of vLLM's w8a8 block kernel: strides and all.

Described by w8a8_block.toml (docs/triton.md). GROUP_SIZE_M is a constant here, so that every value
of `group_m` is compiled, as engines do.
"""

import triton
import triton.language as tl


@triton.jit
def w8a8_block(
    A,
    B,
    C,
    As,
    Bs,
    M,
    N,
    K,
    stride_am,
    stride_bn,
    stride_cm,
    stride_As_m,
    stride_Bs_n,
    group_n: tl.constexpr,
    group_k: tl.constexpr,
    BLOCK_SIZE_M: tl.constexpr,
    BLOCK_SIZE_N: tl.constexpr,
    BLOCK_SIZE_K: tl.constexpr,
    GROUP_SIZE_M: tl.constexpr,
):
    """C = A·B of A[m, k] and B[n, k]; As[m, k / group_k] and Bs[n / group_n, k / group_k]."""
    block = tl.program_id(0)
    blocks_m = tl.cdiv(M, BLOCK_SIZE_M)
    blocks_n = tl.cdiv(N, BLOCK_SIZE_N)
    blocks_in_group = GROUP_SIZE_M * blocks_n
    first_m = block // blocks_in_group * GROUP_SIZE_M
    group_rows = min(blocks_m - first_m, GROUP_SIZE_M)
    block_m = first_m + block % blocks_in_group % group_rows
    block_n = block % blocks_in_group // group_rows

    rows = (block_m * BLOCK_SIZE_M + tl.arange(0, BLOCK_SIZE_M)).to(tl.int64) % M
    columns = (block_n * BLOCK_SIZE_N + tl.arange(0, BLOCK_SIZE_N)).to(tl.int64) % N
    steps = tl.arange(0, BLOCK_SIZE_K)
    a_ptrs = A + rows[:, None] * stride_am + steps[None, :]
    b_ptrs = B + columns[None, :] * stride_bn + steps[:, None]
    as_ptrs = As + rows * stride_As_m
    bs_ptrs = Bs + columns // group_n * stride_Bs_n

    sums = tl.zeros((BLOCK_SIZE_M, BLOCK_SIZE_N), dtype=tl.float32)
    for done in range(0, K, BLOCK_SIZE_K):
        left = K - done
        a = tl.load(a_ptrs, mask=steps[None, :] < left, other=0.0)
        b = tl.load(b_ptrs, mask=steps[:, None] < left, other=0.0)
        scale = done // group_k
        a_scale = tl.load(as_ptrs + scale)
        b_scale = tl.load(bs_ptrs + scale)
        sums += tl.dot(a, b) * a_scale[:, None] * b_scale[None, :]
        a_ptrs += BLOCK_SIZE_K
        b_ptrs += BLOCK_SIZE_K

    rows = (block_m * BLOCK_SIZE_M + tl.arange(0, BLOCK_SIZE_M)).to(tl.int64)
    columns = (block_n * BLOCK_SIZE_N + tl.arange(0, BLOCK_SIZE_N)).to(tl.int64)
    inside = (rows[:, None] < M) & (columns[None, :] < N)
    c_ptrs = C + rows[:, None] * stride_cm + columns[None, :]
    tl.store(c_ptrs, sums.to(C.dtype.element_ty), mask=inside)
