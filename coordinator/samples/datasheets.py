"""Datasheets of well-known GPUs, for tables that name a GPU and say nothing else about it.

Streaming multiprocessors, compute capability, L2, memory, highest SM clock and memory bandwidth are
public numbers, from datasheets and from what the driver reports. Only what a table of measurements
cannot show is taken from here: peaks and bandwidth are estimated from its rows (estimate.py).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

WAY_OUT: Final = "give --device with a JSON file of the device (docs/importing.md)"
"""What a user can do about a device of which too little is known."""


@dataclass(frozen=True, slots=True)
class Datasheet:
    """One product."""

    words: str
    """Words that a name of the product holds, all of them."""
    compute_units: int
    """Streaming multiprocessors."""
    arch: str
    l2_mib: int
    memory_gib: int
    clock_max_mhz: float
    dram_gbps: float
    """Memory bandwidth of the datasheet: no kernel reaches it."""


DATASHEETS: Final = (
    Datasheet("gb200", 152, "sm_100", 126, 184, 1965.0, 8000.0),
    Datasheet("b200", 148, "sm_100", 126, 178, 1965.0, 8000.0),
    Datasheet("gh200", 132, "sm_90", 60, 96, 1980.0, 4000.0),
    Datasheet("h200 nvl", 132, "sm_90", 60, 140, 1785.0, 4800.0),
    Datasheet("h200", 132, "sm_90", 60, 140, 1980.0, 4800.0),
    Datasheet("h100 pcie", 114, "sm_90", 50, 80, 1755.0, 2039.0),
    Datasheet("h100 nvl", 132, "sm_90", 50, 94, 1785.0, 3938.0),
    Datasheet("h100", 132, "sm_90", 50, 80, 1980.0, 3352.0),
    Datasheet("h800 pcie", 114, "sm_90", 50, 80, 1755.0, 2039.0),
    Datasheet("h800", 132, "sm_90", 50, 80, 1980.0, 3352.0),
    Datasheet("h20", 78, "sm_90", 60, 96, 1980.0, 4000.0),
    Datasheet("a100 40gb", 108, "sm_80", 40, 40, 1410.0, 1555.0),
    Datasheet("a100", 108, "sm_80", 40, 80, 1410.0, 2039.0),
    Datasheet("a800", 108, "sm_80", 40, 80, 1410.0, 2039.0),
    Datasheet("a30", 56, "sm_80", 24, 24, 1440.0, 933.0),
    Datasheet("a10", 72, "sm_86", 6, 24, 1695.0, 600.0),
    Datasheet("a40", 84, "sm_86", 6, 48, 1740.0, 696.0),
    Datasheet("l40s", 142, "sm_89", 96, 48, 2520.0, 864.0),
    Datasheet("l40", 142, "sm_89", 96, 48, 2490.0, 864.0),
    Datasheet("l4", 58, "sm_89", 48, 24, 2040.0, 300.0),
    Datasheet("v100 16gb", 80, "sm_70", 6, 16, 1530.0, 900.0),
    Datasheet("v100", 80, "sm_70", 6, 32, 1530.0, 900.0),
    Datasheet("t4", 40, "sm_75", 4, 16, 1590.0, 320.0),
)
"""The first match counts, so a variant stands before the product that it is a variant of."""


def find_datasheet(name: str) -> Datasheet | None:
    """The datasheet of a GPU; None: unknown, or only a slice of a GPU (MIG).

    Args:
        name: as a driver gives it (NVIDIA A100-SXM4-80GB) or as tables write it (a100_sxm).
    """
    words = set(re.split(r"[^a-z0-9]+", name.lower()))
    if "mig" in words:
        return None
    for datasheet in DATASHEETS:
        if words.issuperset(datasheet.words.split()):
            return datasheet
    return None
