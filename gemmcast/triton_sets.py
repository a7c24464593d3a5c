"""Named sets of configurations, as engines' tuners try them; only what can fit on the GPU.

- usual: the 1,280 of vLLM's tuner, tiles 16..256 x 32..256 x 64 and 128, group 1..64, 4 and 8
  warps, 2 to 5 stages;
- short: 192 of them, that share a third of the cubins: what a recording takes samples from.

`group_m` is an argument of our kernels, so configurations that differ in it share a cubin. The
first configuration of a set is the one that engines ship. Needs neither Triton nor CUDA.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from dataclasses import replace
from functools import cache
from typing import Final, NamedTuple

from gemmcast.config import TRITON_KERNELS, WARP_THREADS, KernelConfig
from gemmcast.cutlass.sets import SMEM_KIB
from gemmcast.errors import InputError
from gemmcast.gemm import DTYPES, Gemm


class Operands(NamedTuple):
    """What one of our kernels multiplies."""

    dtypes: tuple[str, ...]
    layouts: tuple[str, ...]


class KnobTable(NamedTuple):
    """The values of each knob; a set is their product."""

    tile_m: tuple[int, ...]
    tile_n: tuple[int, ...]
    tile_k: tuple[int, ...]
    group_m: tuple[int, ...]
    warps: tuple[int, ...]
    stages: tuple[int, ...]


TRITON_OPERANDS: Final = {
    "matmul": Operands(("fp16", "bf16", "fp8_e4m3"), ("nt", "nn")),
    "scaled_block": Operands(("fp8_e4m3",), ("nt",)),
    "grouped": Operands(("fp16", "bf16", "fp8_e4m3"), ("nt",)),
}
"""As their descriptions have it (agent/kernels/triton/sources)."""
TRITON_SETS: Final = {
    "usual": KnobTable(
        (64, 16, 32, 128, 256), (128, 32, 64, 256), (128, 64), (32, 1, 16, 64), (4, 8), (2, 3, 4, 5)
    ),
    "short": KnobTable((64, 16, 128), (128, 32, 64, 256), (128, 64), (32, 1), (4, 8), (2, 4)),
}
"""Set -> its knobs. The first value of each is the engines' default."""
WGMMA_ROWS: Final = 64
"""A tile of fewer rows is multiplied with mma.sync, which keeps one stage in registers."""
MAX_SUMS: Final = 255
"""Elements of C that one thread may hold: more registers do not exist. Of 452 recorded kernels with
256 each one spilled, and took 2.4 to 55 times as long as the best of its problem."""


def configs(set_name: str, arch: str, kernel: str, dtype: str, layout: str) -> list[KernelConfig]:
    """The set's configurations of one of our kernels, always in the same order.

    Args:
        arch: `sm_90`, ...; its shared memory decides what fits.
        kernel: one of TRITON_KERNELS; empty for the first. What it does not multiply has none.

    Raises:
        InputError: an unknown set, architecture or kernel.
    """
    _check_names(set_name, arch, kernel)
    name = kernel or TRITON_KERNELS[0]
    operands = TRITON_OPERANDS[name]
    if dtype not in operands.dtypes or layout not in operands.layouts:
        return []
    limit_bytes = SMEM_KIB[arch] * 1024
    chosen = []
    for knobs in itertools.product(*TRITON_SETS[set_name]):
        config = _config(name, *knobs)
        if _sums(config) <= MAX_SUMS and smem_bytes(config, dtype) <= limit_bytes:
            chosen.append(config)
    return chosen


@cache
def shipped(kernel: str) -> KernelConfig:
    """The configuration that engines ship; of a kernel of ours what a knob left out means, too."""
    table = TRITON_SETS["usual"]
    return _config(kernel, *(values[0] for values in table))


def distinct(gemm: Gemm, configs: Iterable[KernelConfig]) -> list[KernelConfig]:
    """Without those of our kernels that run as an earlier one does: `group_m` beyond the rows of
    tiles that the GEMM has changes nothing."""
    first: dict[KernelConfig, KernelConfig] = {}
    for config in configs:
        first.setdefault(_as_it_runs(gemm, config), config)
    return list(first.values())


def _as_it_runs(gemm: Gemm, config: KernelConfig) -> KernelConfig:
    is_ours = config.family == "triton" and config.kernel in ("", *TRITON_KERNELS)
    if not (is_ours and config.tile_m):
        return config
    rows = -(-gemm.m // config.tile_m)
    if config.kernel == "grouped":
        # Tiles of one expert follow those of another.
        rows *= gemm.batch
    return replace(config, swizzle=min(config.swizzle, rows))


def is_default(config: KernelConfig) -> bool:
    """Whether a configuration is the one that engines ship."""
    return config == shipped(config.kernel)


def smem_bytes(config: KernelConfig, dtype: str) -> int:
    """Shared memory of one block, at least: the tiles of all stages."""
    stages = config.stages if config.tile_m >= WGMMA_ROWS else config.stages - 1
    elements = (config.tile_m + config.tile_n) * config.tile_k
    return stages * elements * DTYPES[dtype].in_bytes


def _sums(config: KernelConfig) -> int:
    """Elements of C that one thread holds."""
    return config.tile_m * config.tile_n // config.block_threads


def _config(
    kernel: str, tile_m: int, tile_n: int, tile_k: int, group_m: int, warps: int, stages: int
) -> KernelConfig:
    return KernelConfig(
        family="triton",
        kernel=kernel,
        tile_m=tile_m,
        tile_n=tile_n,
        tile_k=tile_k,
        swizzle=group_m,
        block_threads=WARP_THREADS * warps,
        stages=stages,
    )


def _check_names(set_name: str, arch: str, kernel: str) -> None:
    if set_name not in TRITON_SETS:
        way_out = f"use one of {', '.join(TRITON_SETS)}"
        raise InputError("set", set_name, "no such set of Triton kernels", way_out)
    if arch not in SMEM_KIB:
        way_out = f"use one of {', '.join(SMEM_KIB)}"
        raise InputError("arch", arch, "kernels are not built for this architecture", way_out)
    if kernel not in ("", *TRITON_KERNELS):
        way_out = f"use one of {', '.join(TRITON_KERNELS)}"
        raise InputError("kernel", kernel, "a set is of one of our kernels", way_out)
