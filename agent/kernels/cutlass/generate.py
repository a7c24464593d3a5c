"""Which CUTLASS kernels a set holds. Pure text: needs no CUDA, no headers, no GPU.

- paper: SIMT fp32 in four layouts, for any GPU;
- default: SIMT fp32 with more stages and swizzles, and tensor cores through mma.sync (sm_80 on), split-k at run time;
- wide: default, and tensor cores through wgmma and TMA (sm_90), with clusters, warp-specialised schedules and stream-k.

Tiles and warp tiles of 2.x kernels are those of CUTLASS' own generator (cutlass_library/generator.py, GenerateSM50_Simt and
GenerateSM80_TensorOp_*). A tile of 256 x 256 is in no set: docs/cutlass.md says why.
"""

from __future__ import annotations

from typing import Final

from agent.kernels.cutlass.kernel import BYTES, Kernel
from gemmcast.config import KernelConfig
from gemmcast.errors import InputError
from gemmcast.gemm import LAYOUTS

SETS: Final = ("paper", "default", "wide")
SMEM_KIB: Final = {
    "sm_70": 96, "sm_75": 64, "sm_80": 163, "sm_86": 99, "sm_87": 163, "sm_89": 99, "sm_90": 227, "sm_100": 227, "sm_103": 227, "sm_120": 99,
    "sm_121": 99,
}  # fmt: skip
# architectures we build for, with what one block may use (CUDA C++ Programming Guide, "Technical Specifications per Compute Capability")
HOPPER: Final = "sm_90"

SIMT_TILES: Final = {(64, 64): (32, 64), (128, 64): (64, 32), (64, 128): (32, 64), (128, 128): (32, 64), (256, 128): (64, 64), (128, 256): (64, 64)}
# thread block (m, n) -> warp (m, n); tile_k is 8
SIMT_EXTRA: Final = (
    ((64, 64), 4, 1), ((128, 64), 4, 1), ((128, 128), 4, 1), ((128, 128), 5, 1), ((256, 128), 4, 1), ((128, 256), 4, 1),
    ((128, 128), 2, 4), ((128, 128), 2, 8),
)  # fmt: skip
# thread block (m, n), stages, swizzle
TENSOR_OP: Final = (
    ((64, 64), (32, 32), 64, 4, 1), ((64, 64), (32, 32), 128, 5, 1), ((128, 64), (64, 32), 64, 4, 1), ((64, 128), (32, 64), 64, 4, 1),
    ((128, 128), (64, 64), 64, 3, 1), ((128, 128), (64, 64), 64, 4, 1), ((128, 128), (64, 64), 64, 4, 4), ((128, 128), (64, 64), 64, 5, 8),
    ((128, 128), (64, 64), 128, 3, 4), ((256, 64), (64, 64), 64, 4, 1), ((64, 256), (64, 64), 64, 4, 1), ((256, 128), (64, 64), 64, 3, 1),
    ((256, 128), (64, 64), 128, 3, 8), ((128, 256), (64, 64), 64, 3, 1), ((128, 256), (64, 64), 128, 3, 8),
)  # fmt: skip
# thread block (m, n), warp (m, n), bytes of tile_k, stages, swizzle
TENSOR_OP_LAYOUTS: Final = ("nn", "nt")
# nt is what PyTorch's Linear runs: k lies contiguous in both operands
WGMMA: Final = (
    ((64, 128), (1, 1), "ws", 1), ((64, 128), (2, 1), "pingpong", 1), ((128, 128), (2, 1), "pingpong", 1), ((128, 128), (1, 1), "coop", 1),
    ((128, 256), (2, 1), "coop", 1), ((256, 128), (1, 2), "coop", 8), ((256, 128), (2, 1), "streamk", 1),
)  # fmt: skip
WGMMA_FP8: Final = (
    ((64, 128), (1, 1), "ws", 1), ((64, 128), (2, 1), "pingpong", 1), ((128, 128), (2, 1), "pingpongfast", 1), ((128, 128), (1, 1), "coop", 1),
    ((128, 256), (2, 1), "coopfast", 1), ((256, 128), (1, 2), "coopfast", 8), ((128, 128), (1, 2), "streamk", 1),
)  # fmt: skip
# thread block (m, n), cluster (m, n), schedule, swizzle; tile_k is 128 bytes. The schedule is no knob: all else must tell kernels apart
WGMMA_LAYOUTS: Final = {"fp16": ("nn", "nt"), "bf16": ("nn", "nt"), "tf32": ("nt",), "fp8_e4m3": ("nt",)}
# wgmma wants k contiguous where elements have one or four bytes


def kernels(of_set: str, arch: str) -> list[Kernel]:
    """The set's kernels that fit the architecture, always in the same order. Raises InputError for an unknown set or architecture."""
    if of_set not in SETS:
        raise InputError("set", of_set, "no such set of CUTLASS kernels", f"use one of {', '.join(SETS)}")
    if arch not in SMEM_KIB:
        raise InputError("arch", arch, "no architecture that kernels are generated for", f"use one of {', '.join(SMEM_KIB)}")
    if of_set == "wide" and arch != HOPPER:
        raise InputError("arch", arch, f"the set wide needs wgmma, which {HOPPER} alone has", "build the set default")
    if of_set == "paper":
        made = [_simt(layout, tile) for layout in LAYOUTS for tile in SIMT_TILES]
    elif int(arch.removeprefix("sm_")) < 80:
        raise InputError("arch", arch, "the default set needs asynchronous copies, which came with sm_80", "build the set paper")
    else:
        made = _default() + (_wgmma() if of_set == "wide" else [])
    return [kernel for kernel in made if kernel.smem_bytes <= SMEM_KIB[arch] * 1024]


def configs(of_set: str, arch: str, dtype: str, layout: str) -> list[KernelConfig]:
    """What a plan may name: the set's kernels for one dtype and layout, none where it has none. Raises InputError as kernels() does."""
    return [kernel.config for kernel in kernels(of_set, arch) if (kernel.dtype, kernel.layout) == (dtype, layout)]


def _default() -> list[Kernel]:
    simt = [_simt("nn", tile) for tile in SIMT_TILES] + [_simt("nn", *extra) for extra in SIMT_EXTRA]
    return simt + [_tensor_op(dtype, layout, *row) for dtype in ("tf32", "fp16", "bf16") for layout in TENSOR_OP_LAYOUTS for row in TENSOR_OP]


def _wgmma() -> list[Kernel]:
    return [
        Kernel(dtype=dtype, layout=layout, tile=(*tile, 128 // BYTES[dtype]), cluster=cluster, schedule=schedule, swizzle=swizzle)
        for dtype, layouts in WGMMA_LAYOUTS.items()
        for layout in layouts
        for tile, cluster, schedule, swizzle in (WGMMA_FP8 if dtype == "fp8_e4m3" else WGMMA)
    ]


def _simt(layout: str, tile: tuple[int, int], stages: int = 2, swizzle: int = 1) -> Kernel:
    return Kernel(dtype="fp32", layout=layout, tile=(*tile, 8), warp=(*SIMT_TILES[tile], 8), stages=stages, swizzle=swizzle)


def _tensor_op(dtype: str, layout: str, tile: tuple[int, int], warp: tuple[int, int], k_bytes: int, stages: int, swizzle: int) -> Kernel:
    k = k_bytes // BYTES[dtype]
    return Kernel(dtype=dtype, layout=layout, tile=(*tile, k), warp=(*warp, k), stages=stages, swizzle=swizzle)
