"""Names of kernels in CUTLASS' own library, which its profiler lists, and our names for them.

    cutlass3x_sm90_tensorop_gemm_bf16_bf16_f32_bf16_bf16_128x128x64_2x1x1_0_tnt_align8
        _warpspecialized_pingpong_epi_tma        wgmma_bf16_nt_128x128x64_2x1_pingpong_z1_a8

Name: operands A, B, accumulator, C, D; tile, cluster, stages (0: as many as fit), layouts of A, B
and C (t is row-major there), alignment, tile scheduler, schedule, epilogue
(python/cutlass_library/gemm_operation.py, as of CUTLASS 4). Only CUTLASS 3.x kernels of sm_90 are
known here: those of 2.x write C column-major. The swizzle is no part of a name there.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import Final

from gemmcast.cutlass.kernel import CutlassKernel

OPERANDS: Final = {
    "tf32": ("f32", "f32"),
    "fp16": ("f16", "f16"),
    "bf16": ("bf16", "bf16"),
    "fp8_e4m3": ("e4m3", "bf16"),
}
"""dtype -> the profiler's words for A and B, and for C."""
SCHEDULES: Final = {
    "ws": "warpspecialized",
    "pingpong": "warpspecialized_pingpong",
    "coop": "warpspecialized_cooperative",
    "streamk": "stream_k_warpspecialized_cooperative",
    "pingpongfast": "warpspecialized_pingpong_fp8_fastaccum",
    "coopfast": "warpspecialized_cooperative_fp8_fastaccum",
}
"""Our schedule -> tile scheduler and schedule."""
EPILOGUE: Final = "epi_tma"
MATH: Final = {"tf32": "tf32gemm"}
"""dtype -> the core of the name, where the multiplier's format is not the operands'."""
CORES: Final = ("gemm", *MATH.values())
SWAPPED: Final = str.maketrans("nt", "tn")
"""Our layout letters are those of row-major matrices, theirs of column-major ones."""
NAME: Final = re.compile(
    r"cutlass3x_sm90_tensorop_(?:[a-z]\d+x\d+x\d+)?(?P<core>(?:tf32)?gemm)_"
    r"(?P<a>[a-z0-9]+)_(?P<b>[a-z0-9]+)_f32_(?P<c>[a-z0-9]+)_(?P<d>[a-z0-9]+)_"
    r"(?P<tile>\d{1,5}x\d{1,5}x\d{1,5})_(?P<cluster>\d{1,2}x\d{1,2})x1_\d+_"
    r"(?P<layouts>[nt]{3})_align(?P<alignment>\d{1,3})_(?P<schedule>\w+?)_epi_(?P<epilogue>\w+)",
    re.ASCII,
)
MAX_NAME: Final = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class NamedKernel:
    """What a name of CUTLASS' library says."""

    kernel: CutlassKernel
    """Ours, with swizzle 1."""
    is_transposed: bool
    """Whether the library's kernel writes C column-major, so that ours computes C^T."""


def profiler_name(kernel: CutlassKernel) -> str | None:
    """The name of a kernel in CUTLASS' library; None where it has no such kernel."""
    if not kernel.schedule or kernel.dtype not in OPERANDS:
        return None
    ab, c = OPERANDS[kernel.dtype]
    core = MATH.get(kernel.dtype, "gemm")
    tile = "x".join(map(str, kernel.tile))
    cluster_m, cluster_n = kernel.cluster
    layouts = f"{kernel.layout.translate(SWAPPED)}t"
    return (
        f"cutlass3x_sm90_tensorop_{core}_{ab}_{ab}_f32_{c}_{c}_{tile}_{cluster_m}x{cluster_n}x1_0_"
        f"{layouts}_align{kernel.alignment}_{SCHEDULES[kernel.schedule]}_{EPILOGUE}"
    )


def named_kernel(name: str) -> NamedKernel | None:
    """Our kernel of a name of CUTLASS' library; None where there is no equivalent.

    The library's may have no C operand (`void`), which ours, with beta 0, does not read either.
    """
    match = NAME.fullmatch(name) if len(name) <= MAX_NAME else None
    if match is None or match["epilogue"] != "tma" or match["c"] not in ("void", match["d"]):
        return None
    schedule = _our_schedule(match["schedule"])
    dtype = _our_dtype(match)
    if schedule is None or dtype is None:
        return None
    tile_m, tile_n, tile_k = _numbers(match["tile"])
    cluster_m, cluster_n = _numbers(match["cluster"])
    kernel = CutlassKernel(
        dtype=dtype,
        layout=match["layouts"][:2].translate(SWAPPED),
        tile=(tile_m, tile_n, tile_k),
        cluster=(cluster_m, cluster_n),
        schedule=schedule,
        swizzle=1,
    )
    if int(match["alignment"]) != kernel.alignment:
        return None
    is_transposed = match["layouts"][2] == "n"
    return NamedKernel(
        kernel=_transposed(kernel) if is_transposed else kernel, is_transposed=is_transposed
    )


def transposed_layout(layout: str) -> str:
    """Our layout of B^T·A^T, for A·B of which C is column-major: the letters change places."""
    flipped = layout.translate(SWAPPED)
    return flipped[::-1]


def _transposed(kernel: CutlassKernel) -> CutlassKernel:
    """The kernel that computes C^T with the same blocks: m and n change places."""
    tile_m, tile_n, tile_k = kernel.tile
    cluster_m, cluster_n = kernel.cluster
    return replace(
        kernel,
        layout=transposed_layout(kernel.layout),
        tile=(tile_n, tile_m, tile_k),
        cluster=(cluster_n, cluster_m),
    )


def _our_schedule(words: str) -> str | None:
    for schedule, theirs in SCHEDULES.items():
        if words == theirs:
            return schedule
    return None


def _our_dtype(match: re.Match[str]) -> str | None:
    for dtype, (ab, d) in OPERANDS.items():
        core = MATH.get(dtype, "gemm")
        if (match["a"], match["b"], match["d"], match["core"]) == (ab, ab, d, core):
            return dtype
    return None


def _numbers(joined: str) -> list[int]:
    return [int(number) for number in joined.split("x")]
