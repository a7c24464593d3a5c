"""A Triton kernel's configuration for every token count, as engines read it.

    {"triton_version": "3.6.0", "1": {"BLOCK_SIZE_M": 16, ...}, "2": ..., "4096": ...}

An engine looks a token count up and takes the nearest entry. So every usual count is written, and
those of the table: one left out would get its neighbour's configuration, which was never measured
for it. Where no gain was measured the entry is the default's. Knows no engine and no file name.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Final

from gemmcast.config import WARP_THREADS, KernelConfig
from gemmcast.exports.export import chosen
from gemmcast.tuned_entry import TunedEntry

TOKEN_COUNTS: Final = (
    *(1, 2, 4, 8, 16, 24, 32, 48, 64, 96),
    *(128, 256, 512, 1024, 1536, 2048, 3072, 4096),
)
"""What engines' own tuners measure."""
Entries = Mapping[int, Sequence[TunedEntry]]
"""Token count -> the entries of one layer; several where one file serves several products."""


def by_tokens(entries: Entries) -> dict[int, KernelConfig]:
    """A configuration for every usual token count and each of the entries', smallest first."""
    configs = {}
    for tokens in sorted({*TOKEN_COUNTS, *entries}):
        configs[tokens] = _config(tokens, entries)
    return configs


def disputed(entries: Entries) -> list[int]:
    """The token counts at which the products of one layer have different configurations."""
    return [tokens for tokens, several in entries.items() if len(set(map(chosen, several))) > 1]


def engine_json(configs: Mapping[int, KernelConfig], triton_version: str | None = None) -> str:
    """The text of one file.

    Args:
        triton_version: of the compiler; None leaves the key out, for loaders that take token
            counts only.
    """
    values: dict[str, object] = {}
    if triton_version is not None:
        values["triton_version"] = triton_version
    for tokens, config in configs.items():
        values[str(tokens)] = engine_knobs(config)
    return json.dumps(values, indent=4) + "\n"


def engine_knobs(config: KernelConfig) -> dict[str, int]:
    """The knobs in engines' words."""
    return {
        "BLOCK_SIZE_M": config.tile_m,
        "BLOCK_SIZE_N": config.tile_n,
        "BLOCK_SIZE_K": config.tile_k,
        "GROUP_SIZE_M": config.swizzle,
        "num_warps": config.block_threads // WARP_THREADS,
        "num_stages": config.stages,
    }


def unsayable(entry: TunedEntry, kernel: str, dtypes: Mapping[str, str]) -> str | None:
    """Why a file of token counts can't say an entry; None where it can.

    Args:
        kernel: name of the Triton kernel whose configurations the file has.
        dtypes: our dtype -> the engine's word, of what the engine's kernel multiplies.
    """
    gemm = entry.gemm
    if entry.default.family != "triton" or entry.default.kernel != kernel:
        name = entry.default.kernel or "of no name"
        return f"its default is {entry.default.family} {name}, not triton {kernel}"
    if gemm.dtype not in dtypes:
        return f"the engine's kernel does not multiply {gemm.dtype}"
    if gemm.layout != "nt":
        return f"the engine's kernel reads layout nt, not {gemm.layout}"
    if (gemm.alpha, gemm.beta) != (1.0, 0.0):
        return "the engine's kernel has neither alpha nor beta"
    for config in (entry.default, chosen(entry)):
        reason = _unsayable_config(config, kernel)
        if reason:
            return reason
    return None


def _unsayable_config(config: KernelConfig, kernel: str) -> str | None:
    if config.family != "triton" or config.kernel != kernel:
        return f"its winner is {config.family} {config.kernel}, which the engine's kernel is not"
    unknown = [name for name, value in engine_knobs(config).items() if not value]
    return f"{unknown[0]} is unknown" if unknown else None


def _config(tokens: int, entries: Entries) -> KernelConfig:
    """What the products agree on; else the default of the nearest entry."""
    several = entries.get(tokens)
    if several is None:
        nearest = min(sorted(entries), key=lambda other: abs(other - tokens))
        return entries[nearest][0].default
    configs = set(map(chosen, several))
    return configs.pop() if len(configs) == 1 else several[0].default
