"""What a kernel's name says in knobs, and knobs in a name: one place for everybody who needs it.

    resolved(gemm, "cutlass:kernel=wgmma_bf16_nt_...")  ->  the same with tile, stages, cluster, ...
    resolved(gemm, "cutlass:tile_m=128,stages=6,...")   ->  the same with the kernel that has them
    resolved(gemm, "triton:kernel=grouped,tile_m=16")   ->  the same with what engines ship
    library_name("enumerated-17")                       ->  a place in a list of cuBLASLt

The model reads knobs, and of a CUTLASS 3 name the schedule, so a kernel that is named and one that
is spelt out are the same query only once both are complete. A knob that is 0 is left open. Names of
cuBLASLt mean knobs only for one problem, on a node with the library; other families' names nothing.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cache, lru_cache
from typing import Any, Final, NamedTuple

from gemmcast.config import KNOBS, TRITON_KERNELS, KernelConfig
from gemmcast.cutlass.kernel import CutlassKernel
from gemmcast.cutlass.profiler_names import named_kernel
from gemmcast.cutlass.sets import all_kernels
from gemmcast.gemm import Gemm
from gemmcast.triton_sets import shipped

SCHEDULES: Final = ("ws", "pingpong", "coop", "streamk", "pingpongfast", "coopfast")
"""Schedules in the names of CUTLASS 3 kernels. The code is the place in this list, from 1."""


class LibraryName(NamedTuple):
    """A place in one of the two lists that cuBLASLt has for a problem."""

    source: str
    """`heuristic`: the library's own list, best first. `enumerated`: the rest, shuffled."""
    place: int


def library_name(kernel: str) -> LibraryName | None:
    """`""` and `default` are the heuristic's first choice; None for a name of another form."""
    if kernel in ("", "default"):
        return LibraryName("heuristic", 0)
    match = re.fullmatch(r"(heuristic|enumerated)-(0|[1-9]\d{0,8})", kernel)
    if match is None or kernel == "heuristic-0":
        return None
    return LibraryName(match[1], int(match[2]))


@cache
def algorithm(family: str, kernel: str, algo_id: int) -> int:
    """The library's own number of the algorithm, or the code of a schedule or kernel, or 0."""
    if family == "triton" and kernel in TRITON_KERNELS:
        return TRITON_KERNELS.index(kernel) + 1
    if algo_id or family != "cutlass":
        return algo_id
    named = named_kernel(kernel)
    if named is not None:
        return SCHEDULES.index(named.kernel.schedule) + 1
    for part in kernel.split("_"):
        if part in SCHEDULES:
            return SCHEDULES.index(part) + 1
    return 0


def is_meant(config: KernelConfig, name: str, knobs: Mapping[str, int]) -> bool:
    """Whether the configuration may mean the kernel of this name and these knobs."""
    if config.kernel not in ("", name):
        return False
    return all(getattr(config, knob) in (0, value) for knob, value in knobs.items())


def says_knobs(config: KernelConfig) -> bool:
    """Whether the name of the kernel says its knobs."""
    if config.family == "triton":
        return config.kernel in TRITON_KERNELS
    return config.family == "cutlass" and CutlassKernel.parse(config.kernel) is not None


def resolved(gemm: Gemm, config: KernelConfig) -> KernelConfig:
    """The configuration with everything that its name or its knobs determine.

    One that contradicts itself or the problem stays as it is.
    """
    if config.family == "triton" and config.kernel in TRITON_KERNELS:
        return _with_shipped_knobs(config)
    # As agents record them there is nothing to add
    is_recorded = config.kernel and config.tile_m and config.stages
    if config.family != "cutlass" or is_recorded:
        return config
    return _resolved(gemm.dtype, gemm.layout, config)


def contradiction(gemm: Gemm, config: KernelConfig) -> str | None:
    """How the name contradicts the problem or the knobs; None where it does not."""
    kernel = CutlassKernel.parse(config.kernel) if config.family == "cutlass" else None
    if kernel is None:
        return None
    if (kernel.dtype, kernel.layout) != (gemm.dtype, gemm.layout):
        own = f"{kernel.dtype} {kernel.layout}"
        return f"{kernel.name} multiplies {own}, not {gemm.dtype} {gemm.layout}"
    for name, value in _contradicted(config, kernel).items():
        return f"{kernel.name} has {name} = {value}, not {getattr(config, name)}"
    return None


def with_named_knobs(columns: Mapping[str, Sequence[Any]]) -> Mapping[str, Sequence[Any]]:
    """Columns of samples, with what names or knobs determine; a row that contradicts itself stays.

    Rows of this program's agents are complete already; others may have a name and nothing else.
    """
    families, kernels, tiles = (columns[name] for name in ("family", "kernel", "tile_m"))
    incomplete = []
    for i, (family, kernel, tile_m) in enumerate(zip(families, kernels, tiles, strict=True)):
        if family == "cutlass" and not (kernel and tile_m):
            incomplete.append(i)
    if not incomplete:
        return columns
    completed = {name: [*columns[name]] for name in ("kernel", *KNOBS)}
    for i in incomplete:
        named = {name: columns[name][i] or 0 for name in KNOBS}
        config = KernelConfig(family="cutlass", kernel=kernels[i] or "", **named)
        whole = _resolved(columns["dtype"][i], columns["layout"][i], config)
        for name, values in completed.items():
            values[i] = getattr(whole, name)
    return {**columns, **completed}


@lru_cache(maxsize=4096)
def _resolved(dtype: str, layout: str, config: KernelConfig) -> KernelConfig:
    kernel = CutlassKernel.parse(config.kernel) or _with_knobs(dtype, layout, config)
    if kernel is None or (kernel.dtype, kernel.layout) != (dtype, layout):
        return config
    if _contradicted(config, kernel):
        return config
    known: dict[str, Any] = {"kernel": kernel.name}
    for name, value in kernel.knobs.items():
        if value:
            known[name] = value
    return replace(config, **known)


def _with_shipped_knobs(config: KernelConfig) -> KernelConfig:
    """A knob of a Triton kernel of ours that is left out is that of the shipped configuration."""
    tiles = config.tile_m and config.tile_n and config.tile_k
    if tiles and config.swizzle and config.stages and config.block_threads:
        return config
    usual = shipped(config.kernel)
    absent = {name: getattr(usual, name) for name in KNOBS if not getattr(config, name)}
    return replace(config, **absent)


def _contradicted(config: KernelConfig, kernel: CutlassKernel) -> dict[str, int]:
    """The kernel's knobs that are known and that the configuration has otherwise."""
    contradicted: dict[str, int] = {}
    for name, value in kernel.knobs.items():
        wanted = getattr(config, name)
        if wanted and value and wanted != value:
            contradicted[name] = value
    return contradicted


def _with_knobs(dtype: str, layout: str, config: KernelConfig) -> CutlassKernel | None:
    """The one kernel of all sets that has the knobs; None where there are none or several."""
    if config.kernel or not config.tile_m:
        return None
    meant = []
    for kernel in all_kernels(dtype, layout):
        if is_meant(config, kernel.name, kernel.knobs):
            meant.append(kernel)
    return meant[0] if len(meant) == 1 else None
