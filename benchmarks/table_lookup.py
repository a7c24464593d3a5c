"""How long a look-up in a tuned table takes.

    .venv/bin/python benchmarks/table_lookup.py [--table FILE] [--json]

Needs no GPU; takes a second on two cores.

Without a table it is one of six layers with 18 token counts each, as engines tune. The GEMMs are
other objects than those of the table. Times are medians of processor time over rounds of many
look-ups. Beside them stand ratios to a plain dict from Gemm to configuration, measured in the same
rounds, which depend little on the machine.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import median
from time import process_time

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from gemmcast import Gemm, KernelConfig, TableKey, TunedEntry, TunedTable
from gemmcast.cli_parser import Parser
from gemmcast.program import json_line, run_script

LAYERS = ((6144, 4096), (4096, 4096), (28672, 4096), (4096, 14336), (10240, 8192), (8192, 28672))
"""n and k."""
TOKENS = (1, 2, 4, 8, 16, 24, 32, 48, 64, 96, 128, 256, 512, 1024, 1536, 2048, 3072, 4096)
ROUNDS = 101
REPEATS = 20
LIMIT_US = 2.0


def main() -> int:
    """The command; returns the exit code."""
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--table", type=Path, help="a table's file in place of the made-up one")
    parser.add_argument("--json", action="store_true", help="one JSON object on the last line")
    args = parser.parse_args()
    table = made_up_table() if args.table is None else TunedTable.read(args.table)
    figures = measure(table)
    if args.json:
        print(json_line(figures))
        return 0
    print(f"{len(table)} entries; at most {LIMIT_US:g} us are wanted")
    for name, value in figures.items():
        print(f"{name:20} {value:8.3f}")
    return 0


def measure(table: TunedTable) -> dict[str, float]:
    """Times of one look-up in us, and ratios to a dict."""
    own = [replace(entry.gemm) for entry in table.entries]
    between = [replace(gemm, m=gemm.m + 1) for gemm in own]
    plain = {entry.gemm: entry.winner for entry in table.entries}
    fresh = TunedTable(table.key, table.entries)
    first_us = one_us(fresh.lookup, between)
    own_again = own * REPEATS
    between_again = between * REPEATS
    entry_us: list[float] = []
    nearest_us: list[float] = []
    dict_us: list[float] = []
    for _ in range(ROUNDS):
        entry_us.append(one_us(table.lookup, own_again))
        nearest_us.append(one_us(table.lookup, between_again))
        dict_us.append(one_us(plain.get, own_again))
    return {
        "entry_us": median(entry_us),
        "nearest_us": median(nearest_us),
        "dict_us": median(dict_us),
        "first_nearest_us": first_us,
        "entry_over_dict": _ratio(entry_us, dict_us),
        "nearest_over_dict": _ratio(nearest_us, dict_us),
    }


def _ratio(over: Sequence[float], under: Sequence[float]) -> float:
    """Median of the ratios of both, round by round."""
    return median(one / other for one, other in zip(over, under, strict=True))


def one_us(call: Callable[[Gemm], object], gemms: Sequence[Gemm]) -> float:
    """Mean time of one call. [us]"""
    begin_s = process_time()
    for gemm in gemms:
        call(gemm)
    return 1e6 * (process_time() - begin_s) / len(gemms)


def made_up_table() -> TunedTable:
    """Whatever the winners are, a look-up takes as long."""
    default = KernelConfig.parse(
        "triton:kernel=scaled_block,tile_m=64,tile_n=128,tile_k=128,group_m=32,warps=4,stages=2"
    )
    entries: list[TunedEntry] = []
    for n, k in LAYERS:
        for m in TOKENS:
            gemm = Gemm(m=m, n=n, k=k, dtype="fp8_e4m3", layout="nt")
            entries.append(TunedEntry(gemm=gemm, default=default, winner=default))
    return TunedTable(TableKey(device="made up"), entries)


if __name__ == "__main__":
    run_script(main)
