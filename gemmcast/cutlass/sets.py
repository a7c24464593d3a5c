"""Which CUTLASS kernels a set holds.

- paper: SIMT fp32 in four layouts, for any GPU;
- default: SIMT fp32 with more stages and swizzles, and tensor cores through mma.sync (sm_80 on),
  split-k at run time;
- wide: default, and tensor cores through wgmma and TMA (sm_90), with clusters, warp-specialised
  schedules and stream-k;
- between: tiles and stages between those of wide, and tn and tt in half precision (sm_90).

The tables are in tile_tables.py. Pure text: needs no CUDA, no headers, no GPU.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Final

from gemmcast.config import KernelConfig
from gemmcast.cutlass.kernel import IN_BYTES, CutlassKernel
from gemmcast.cutlass.tile_tables import (
    BETWEEN_SIMT,
    BETWEEN_TENSOR_OP,
    BETWEEN_TRANSPOSED,
    BETWEEN_WGMMA,
    BETWEEN_WGMMA_FP8,
    SIMT_EXTRA,
    SIMT_PAPER,
    SIMT_TILES,
    TENSOR_OP,
    TENSOR_OP_LAYOUTS,
    WGMMA,
    WGMMA_FP8,
    WGMMA_LAYOUTS,
    SimtRow,
    TensorOpRow,
    WgmmaRow,
)
from gemmcast.errors import InputError
from gemmcast.gemm import LAYOUTS

CUTLASS_SETS: Final = ("paper", "default", "wide", "between")
HOPPER_SETS: Final = ("wide", "between")
SMEM_KIB: Final = {
    "sm_70": 96,
    "sm_75": 64,
    "sm_80": 163,
    "sm_86": 99,
    "sm_87": 163,
    "sm_89": 99,
    "sm_90": 227,
    "sm_100": 227,
    "sm_103": 227,
    "sm_120": 99,
    "sm_121": 99,
}
"""Architectures that kernels are built for -> shared memory that one block may use (CUDA C++
Programming Guide, "Technical Specifications per Compute Capability")."""
HOPPER: Final = "sm_90"
SIMT_TILE_K: Final = 8
WGMMA_TILE_K_BYTES: Final = 128
"""What one swizzled row of shared memory holds."""


def kernels(set_name: str, arch: str) -> list[CutlassKernel]:
    """The set's kernels that fit the architecture, always in the same order.

    Raises:
        InputError: an unknown set or architecture, or a set that the architecture cannot run.
    """
    _check_set(set_name, arch)
    if set_name == "paper":
        members = [_simt(layout, row) for layout in LAYOUTS for row in SIMT_PAPER]
    elif set_name == "default":
        members = _default()
    elif set_name == "wide":
        members = [*_default(), *_wgmma(WGMMA, WGMMA_FP8)]
    else:
        members = _between()
    limit_bytes = SMEM_KIB[arch] * 1024
    return [kernel for kernel in members if kernel.smem_bytes <= limit_bytes]


def configs(set_name: str, arch: str, dtype: str, layout: str) -> list[KernelConfig]:
    """What a plan may name: the set's kernels for one dtype and layout; none where it has none.

    Raises:
        InputError: as `kernels` does.
    """
    chosen = []
    for kernel in kernels(set_name, arch):
        if (kernel.dtype, kernel.layout) == (dtype, layout):
            chosen.append(kernel.config)
    return chosen


@cache
def all_kernels(dtype: str, layout: str) -> tuple[CutlassKernel, ...]:
    """The kernels of every set for one dtype and layout, each once."""
    members = {kernel: None for name in CUTLASS_SETS for kernel in kernels(name, HOPPER)}
    return tuple(kernel for kernel in members if (kernel.dtype, kernel.layout) == (dtype, layout))


def _check_set(set_name: str, arch: str) -> None:
    if set_name not in CUTLASS_SETS:
        way_out = f"use one of {', '.join(CUTLASS_SETS)}"
        raise InputError("set", set_name, "no such set of CUTLASS kernels", way_out)
    if arch not in SMEM_KIB:
        way_out = f"use one of {', '.join(SMEM_KIB)}"
        raise InputError("arch", arch, "kernels are not generated for this architecture", way_out)
    if set_name in HOPPER_SETS and arch != HOPPER:
        rule = f"the set {set_name} needs wgmma, which only {HOPPER} has"
        raise InputError("arch", arch, rule, "build the set default")
    if set_name == "default" and int(arch.removeprefix("sm_")) < 80:
        rule = "the set default needs asynchronous copies, which came with sm_80"
        raise InputError("arch", arch, rule, "build the set paper")


def _default() -> list[CutlassKernel]:
    simt = [_simt("nn", row) for row in (*SIMT_PAPER, *SIMT_EXTRA)]
    return simt + _tensor_ops(TENSOR_OP)


def _between() -> list[CutlassKernel]:
    members = [_simt("nn", row) for row in BETWEEN_SIMT]
    members += _tensor_ops(BETWEEN_TENSOR_OP)
    for dtype in ("fp16", "bf16"):
        for layout in ("tn", "tt"):
            members += [_tensor_op(dtype, layout, row) for row in BETWEEN_TRANSPOSED]
    return members + _wgmma(BETWEEN_WGMMA, BETWEEN_WGMMA_FP8)


def _tensor_ops(rows: Sequence[TensorOpRow]) -> list[CutlassKernel]:
    members = []
    for dtype in ("tf32", "fp16", "bf16"):
        for layout in TENSOR_OP_LAYOUTS:
            members += [_tensor_op(dtype, layout, row) for row in rows]
    return members


def _wgmma(usual: Sequence[WgmmaRow], fp8: Sequence[WgmmaRow]) -> list[CutlassKernel]:
    members = []
    for dtype, layouts in WGMMA_LAYOUTS.items():
        rows = fp8 if dtype == "fp8_e4m3" else usual
        for layout in layouts:
            members += [_hopper(dtype, layout, row) for row in rows]
    return members


def _simt(layout: str, row: SimtRow) -> CutlassKernel:
    return CutlassKernel(
        dtype="fp32",
        layout=layout,
        tile=(*row.tile, SIMT_TILE_K),
        warp=(*SIMT_TILES[row.tile], SIMT_TILE_K),
        stages=row.stages,
        swizzle=row.swizzle,
    )


def _tensor_op(dtype: str, layout: str, row: TensorOpRow) -> CutlassKernel:
    tile_k = row.tile_k_bytes // IN_BYTES[dtype]
    return CutlassKernel(
        dtype=dtype,
        layout=layout,
        tile=(*row.tile, tile_k),
        warp=(*row.warp, tile_k),
        stages=row.stages,
        swizzle=row.swizzle,
    )


def _hopper(dtype: str, layout: str, row: WgmmaRow) -> CutlassKernel:
    return CutlassKernel(
        dtype=dtype,
        layout=layout,
        tile=(*row.tile, WGMMA_TILE_K_BYTES // IN_BYTES[dtype]),
        cluster=row.cluster,
        schedule=row.schedule,
        swizzle=row.swizzle,
    )
