"""What the makers say of well-known boards, for tables that name a board and tell nothing else of it.

Streaming multiprocessors, compute capability, L2, memory, highest SM clock and memory bandwidth are public numbers (datasheets, and what
the driver reports). Only what a table can't show is taken from here: peaks and bandwidth are estimated from its rows.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

WAY_OUT: Final = "give --device with a JSON file of the device (docs/importing.md)"


@dataclass(frozen=True, slots=True)
class Board:
    """One product."""

    key: str
    # words that its name holds, all of them
    compute_units: int
    arch: str
    l2_mib: int
    memory_gib: int
    clock_max_mhz: float
    dram_gbps: float
    # of the datasheet: no kernel reaches it


BOARDS: Final = (
    # first match counts: variants stand before the board that they are a variant of
    Board("gb200", 152, "sm_100", 126, 184, 1965.0, 8000.0),
    Board("b200", 148, "sm_100", 126, 178, 1965.0, 8000.0),
    Board("gh200", 132, "sm_90", 60, 96, 1980.0, 4000.0),
    Board("h200 nvl", 132, "sm_90", 60, 140, 1785.0, 4800.0),
    Board("h200", 132, "sm_90", 60, 140, 1980.0, 4800.0),
    Board("h100 pcie", 114, "sm_90", 50, 80, 1755.0, 2039.0),
    Board("h100 nvl", 132, "sm_90", 50, 94, 1785.0, 3938.0),
    Board("h100", 132, "sm_90", 50, 80, 1980.0, 3352.0),
    Board("h800 pcie", 114, "sm_90", 50, 80, 1755.0, 2039.0),
    Board("h800", 132, "sm_90", 50, 80, 1980.0, 3352.0),
    Board("h20", 78, "sm_90", 60, 96, 1980.0, 4000.0),
    Board("a100 40gb", 108, "sm_80", 40, 40, 1410.0, 1555.0),
    Board("a100", 108, "sm_80", 40, 80, 1410.0, 2039.0),
    Board("a800", 108, "sm_80", 40, 80, 1410.0, 2039.0),
    Board("a30", 56, "sm_80", 24, 24, 1440.0, 933.0),
    Board("a10", 72, "sm_86", 6, 24, 1695.0, 600.0),
    Board("a40", 84, "sm_86", 6, 48, 1740.0, 696.0),
    Board("l40s", 142, "sm_89", 96, 48, 2520.0, 864.0),
    Board("l40", 142, "sm_89", 96, 48, 2490.0, 864.0),
    Board("l4", 58, "sm_89", 48, 24, 2040.0, 300.0),
    Board("v100 16gb", 80, "sm_70", 6, 16, 1530.0, 900.0),
    Board("v100", 80, "sm_70", 6, 32, 1530.0, 900.0),
    Board("t4", 40, "sm_75", 4, 16, 1590.0, 320.0),
)


def find_board(name: str) -> Board | None:
    """The board of a product's name as a driver gives it (NVIDIA A100-SXM4-80GB) or as tables write it (a100_sxm); None: not known.

    A slice of a GPU is none of them.
    """
    words = set(re.split(r"[^a-z0-9]+", name.lower()))
    if "mig" in words:
        return None
    return next((board for board in BOARDS if set(board.key.split()) <= words), None)
