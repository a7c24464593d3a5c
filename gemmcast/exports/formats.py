"""The formats of `gemmcast export`, by name."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, NamedTuple

from gemmcast.errors import InputError
from gemmcast.exports.c_header import c_header
from gemmcast.exports.cublaslt import cublaslt
from gemmcast.exports.cutlass_profiler import cutlass_profiler
from gemmcast.exports.export import Export, ExportOptions
from gemmcast.exports.fused_moe import sglang_moe, vllm_moe
from gemmcast.exports.t4 import t4
from gemmcast.exports.w8a8_block import sglang_block, vllm_block
from gemmcast.tuned_table import TunedTable

ENGINE: Final = ("kernel",)
MIXTURE: Final = ("experts", "top_k", "intermediate", "decides", "block_shape")


class Format(NamedTuple):
    """One format."""

    export: Callable[[TunedTable, ExportOptions], Export]
    """One table to its files."""
    options: tuple[str, ...] = ()
    """Fields of ExportOptions that it reads, of those that users give."""


FORMATS: Final = {
    "vllm-moe": Format(vllm_moe, (*ENGINE, *MIXTURE)),
    "vllm-block": Format(vllm_block, ENGINE),
    "sglang-moe": Format(sglang_moe, (*ENGINE, *MIXTURE)),
    "sglang-block": Format(sglang_block, ENGINE),
    "t4": Format(t4),
    "c-header": Format(c_header),
    "cublaslt": Format(cublaslt),
    "cutlass-profiler": Format(cutlass_profiler),
}
"""Name -> format."""


def export_table(table: TunedTable, name: str, options: ExportOptions) -> Export:
    """One table in one format.

    Raises:
        InputError: an unknown format, an option that it does not read, or a table of which it can
            say nothing.
    """
    if name not in FORMATS:
        way_out = f"use one of {', '.join(FORMATS)}"
        raise InputError("--format", name, "unknown format", way_out)
    export, read = FORMATS[name]
    given = ExportOptions(timestamp=options.timestamp)
    for option in (*ENGINE, *MIXTURE):
        value = getattr(options, option)
        if option not in read and value != getattr(given, option):
            rule = f"the format {name} does not read it"
            raise InputError(f"--{option.replace('_', '-')}", value, rule, "leave it out")
    return export(table, options)
