"""A test list for CUTLASS' own profiler, and the same as command lines.

    cutlass_profiler --operation=Gemm --testlist-file=cutlass_testlist_nvidia_h200_time.csv

Its first column is the name of a kernel in CUTLASS' library, exact as CUTLASS 4 builds it; the
others are arguments of the profiler, by name. The command lines have patterns in place of names,
which CUTLASS 3 matches too. The library must contain the kernels: it is built with
-DCUTLASS_LIBRARY_KERNELS=NAME,... and they are all CUTLASS 3.x kernels of sm_90.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from typing import Final

from gemmcast.cutlass.kernel import CutlassKernel
from gemmcast.cutlass.profiler_names import CORES, profiler_name
from gemmcast.exports.export import Export, ExportOptions, LeftOut, chosen, file_stem
from gemmcast.kernel_names import contradiction, resolved
from gemmcast.tuned_entry import TunedEntry
from gemmcast.tuned_table import TunedTable

COLUMNS: Final = (
    "operation_name",
    *("m", "n", "k", "batch_count", "alpha", "beta"),
    *("split_k_slices", "swizzle_size"),
)
"""The first is the kernel, the others are the profiler's arguments."""
_Line = tuple[str, ...]


def cutlass_profiler(table: TunedTable, _options: ExportOptions) -> Export:
    """A test list, and a file of command lines."""
    left_out = LeftOut()
    lines = []
    for entry in table.entries:
        kernel = _kernel(entry)
        name = profiler_name(kernel) if kernel else None
        if kernel is None or name is None:
            left_out.reasons[_why_not(entry, kernel)] += 1
            continue
        lines.append(_line(name, entry, kernel))
    if not lines:
        way_out = "tune with --families cutlass and the kernel set wide, on sm_90"
        raise left_out.nothing_left(table, way_out)
    stem = file_stem(table)
    files = {
        f"cutlass_testlist_{stem}.csv": _csv(lines),
        f"cutlass_profiler_{stem}.sh": _commands(lines),
    }
    return Export(files=files, notes=tuple(left_out.notes()))


def _kernel(entry: TunedEntry) -> CutlassKernel | None:
    """What runs, if its name or knobs say which CUTLASS kernel that is."""
    config = resolved(entry.gemm, chosen(entry))
    if config.family != "cutlass" or contradiction(entry.gemm, config):
        return None
    return CutlassKernel.parse(config.kernel)


def _why_not(entry: TunedEntry, kernel: CutlassKernel | None) -> str:
    family = chosen(entry).family
    if family != "cutlass":
        return f"it is of the family {family}"
    if kernel is None:
        return "neither name nor knobs say which CUTLASS kernel it is"
    return "CUTLASS' library has its CUTLASS 2.x kernels with C column-major only"


def _line(name: str, entry: TunedEntry, kernel: CutlassKernel) -> _Line:
    """The cells of one line, in the order of COLUMNS."""
    gemm = entry.gemm
    sizes = [gemm.m, gemm.n, gemm.k, gemm.batch]
    scales = [gemm.alpha, gemm.beta]
    split_k = max(1, chosen(entry).split_k)
    numbers = [f"{number:.10g}" for number in (*sizes, *scales, split_k, kernel.swizzle)]
    return name, *numbers


def _csv(lines: Sequence[_Line]) -> str:
    """The profiler splits at commas and knows no quotes; no cell needs any."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    writer.writerows(lines)
    return text.getvalue()


def _commands(lines: Sequence[_Line]) -> str:
    commands = ["#!/bin/sh", "# CUTLASS' profiler, one problem a line", "set -e"]
    for name, *numbers in lines:
        arguments = []
        for column, number in zip(COLUMNS[1:], numbers, strict=True):
            arguments.append(f"--{column}={number}")
        pattern = _pattern(name)
        commands.append(
            f"cutlass_profiler --operation=Gemm '--kernels={pattern}' {' '.join(arguments)}"
        )
    return "\n".join(commands) + "\n"


def _pattern(name: str) -> str:
    """CUTLASS 3 has the shape of one instruction before the core of a name."""
    for core in CORES:
        head, core_of_name, rest = name.partition(f"_{core}_")
        if core_of_name:
            return f"{head}_*{core}_{rest}"
    return name
