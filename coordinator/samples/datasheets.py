"""Datasheets of well-known GPUs, for tables that name a GPU and say little else about it.

Public numbers, from datasheets and from what the driver reports: multiprocessors, compute
capability, L2, memory, highest SM clock, memory bandwidth, power limit, and the throughput of each
dtype at boost clock, dense (without sparsity). They describe a board that nobody here has measured
(estimate.py), and bound what a row may claim (plausible.py).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from gemmcast.device_names import SLICE, words

WAY_OUT: Final = "give --device with a JSON file of the device (docs/importing.md)"
"""What a user can do about a device of which too little is known."""


@dataclass(frozen=True, slots=True)
class Datasheet:
    """One product."""

    words: str
    """Words that a name of the product holds, all of them."""
    compute_units: int
    """Streaming multiprocessors; Xe cores of an Intel GPU."""
    arch: str
    l2_mib: int
    memory_gib: int
    clock_max_mhz: float
    dram_gbps: float
    """Memory bandwidth: no kernel reaches it."""
    power_w: float
    """The highest power limit that it is sold with."""
    throughput: tuple[float, float, float, float, float]
    """TFLOP/s with fp64, fp32, tf32, fp16 (or bf16) and fp8, by the fastest units that the board
    has for it; 0: none."""

    @property
    def peak_tflops(self) -> Mapping[str, float]:
        """dtype -> TFLOP/s; a dtype that the board does not multiply is absent."""
        fp64, fp32, tf32, half, fp8 = self.throughput
        by_dtype = {
            "fp64": fp64,
            "fp32": fp32,
            "tf32": tf32,
            "fp16": half,
            "bf16": half,
            "fp8_e4m3": fp8,
        }
        return {dtype: peak for dtype, peak in by_dtype.items() if peak}


HOPPER: Final = (67.0, 67.0, 494.7, 989.4, 1978.9)
"""Of all SXM boards with 132 multiprocessors; those of NVL and PCIe boards have lower clocks."""
HOPPER_NVL: Final = (60.0, 60.0, 417.7, 835.5, 1671.0)
HOPPER_PCIE: Final = (51.2, 51.2, 378.0, 756.5, 1513.0)
AMPERE: Final = (19.5, 19.5, 156.0, 312.0, 0.0)
DATASHEETS: Final = (
    # words, SMs, arch, L2 MiB, memory GiB, MHz, GB/s, W, TFLOP/s
    Datasheet(
        "gb300",
        152,
        "sm_103",
        126,
        277,
        2062.0,
        8000.0,
        1400.0,
        (1.4, 80.0, 1250.0, 2500.0, 5000.0),
    ),
    Datasheet(
        "b300", 148, "sm_103", 126, 268, 2032.0, 8000.0, 1100.0, (1.3, 77.0, 1125.0, 2250.0, 4500.0)
    ),
    Datasheet(
        "gb200",
        152,
        "sm_100",
        126,
        184,
        1965.0,
        8000.0,
        1200.0,
        (40.0, 80.0, 1250.0, 2500.0, 5000.0),
    ),
    Datasheet(
        "b200",
        148,
        "sm_100",
        126,
        178,
        1965.0,
        8000.0,
        1000.0,
        (37.0, 75.0, 1125.0, 2250.0, 4500.0),
    ),
    Datasheet("gb10", 48, "sm_121", 24, 119, 2418.0, 273.0, 140.0, (0.5, 31.0, 53.0, 213.0, 214.0)),
    Datasheet("gh200", 132, "sm_90", 60, 96, 1980.0, 4000.0, 1000.0, HOPPER),
    Datasheet("h200 nvl", 132, "sm_90", 60, 140, 1785.0, 4800.0, 600.0, HOPPER_NVL),
    Datasheet("h200", 132, "sm_90", 60, 140, 1980.0, 4800.0, 700.0, HOPPER),
    Datasheet("h100 pcie", 114, "sm_90", 50, 80, 1755.0, 2039.0, 350.0, HOPPER_PCIE),
    Datasheet("h100 nvl", 132, "sm_90", 50, 94, 1785.0, 3938.0, 400.0, HOPPER_NVL),
    Datasheet("h100", 132, "sm_90", 50, 80, 1980.0, 3352.0, 700.0, HOPPER),
    Datasheet(
        "h800 pcie", 114, "sm_90", 50, 80, 1755.0, 2039.0, 350.0, (0.8, 51.2, 378.0, 756.5, 1513.0)
    ),
    Datasheet(
        "h800", 132, "sm_90", 50, 80, 1980.0, 3352.0, 700.0, (1.0, 67.0, 494.7, 989.4, 1978.9)
    ),
    Datasheet(
        "h20 3e", 78, "sm_90", 60, 140, 1980.0, 4800.0, 500.0, (1.0, 44.0, 74.0, 148.0, 296.0)
    ),
    Datasheet("h20e", 78, "sm_90", 60, 140, 1980.0, 4800.0, 500.0, (1.0, 44.0, 74.0, 148.0, 296.0)),
    Datasheet("h20", 78, "sm_90", 60, 96, 1980.0, 4000.0, 500.0, (1.0, 44.0, 74.0, 148.0, 296.0)),
    Datasheet("a100 40gb", 108, "sm_80", 40, 40, 1410.0, 1555.0, 400.0, AMPERE),
    Datasheet("a100", 108, "sm_80", 40, 80, 1410.0, 2039.0, 400.0, AMPERE),
    Datasheet("a800 40gb", 108, "sm_80", 40, 40, 1410.0, 1555.0, 400.0, AMPERE),
    Datasheet("a800", 108, "sm_80", 40, 80, 1410.0, 2039.0, 400.0, AMPERE),
    Datasheet("a30", 56, "sm_80", 24, 24, 1440.0, 933.0, 165.0, (10.3, 10.3, 82.0, 165.0, 0.0)),
    Datasheet("a10", 72, "sm_86", 6, 24, 1695.0, 600.0, 150.0, (0.5, 31.2, 62.5, 125.0, 0.0)),
    Datasheet("a40", 84, "sm_86", 6, 48, 1740.0, 696.0, 300.0, (0.6, 37.4, 74.8, 149.7, 0.0)),
    Datasheet("l40s", 142, "sm_89", 96, 48, 2520.0, 864.0, 350.0, (1.4, 91.6, 183.0, 362.0, 733.0)),
    Datasheet("l40", 142, "sm_89", 96, 48, 2490.0, 864.0, 300.0, (1.4, 90.5, 90.5, 181.0, 362.0)),
    Datasheet("l4", 58, "sm_89", 48, 24, 2040.0, 300.0, 72.0, (0.5, 30.3, 60.0, 121.0, 242.5)),
    Datasheet(
        "rtx pro 6000",
        188,
        "sm_120",
        128,
        96,
        2617.0,
        1792.0,
        600.0,
        (2.0, 126.0, 252.0, 504.0, 1007.0),
    ),
    Datasheet(
        "rtx 5090", 170, "sm_120", 96, 32, 3090.0, 1792.0, 600.0, (1.6, 104.8, 104.8, 209.5, 419.0)
    ),
    Datasheet("v100 16gb", 80, "sm_70", 6, 16, 1530.0, 900.0, 300.0, (7.8, 15.7, 0.0, 125.0, 0.0)),
    Datasheet("v100", 80, "sm_70", 6, 32, 1530.0, 900.0, 300.0, (7.8, 15.7, 0.0, 125.0, 0.0)),
    Datasheet("t4", 40, "sm_75", 4, 16, 1590.0, 320.0, 70.0, (0.3, 8.1, 0.0, 65.0, 0.0)),
    # Intel Arc Pro
    Datasheet("b60", 20, "xe2", 18, 24, 2400.0, 456.0, 200.0, (0.8, 12.3, 49.0, 98.3, 0.0)),
)
"""The first match counts, so a variant stands before the product that it is a variant of."""


def find_datasheet(name: str) -> Datasheet | None:
    """The datasheet of a GPU; None: unknown, or only a slice of a GPU (MIG).

    Args:
        name: as a driver gives it (NVIDIA A100-SXM4-80GB) or as tables write it (a100_sxm).
    """
    of_name = words(name)
    if SLICE in of_name:
        return None
    for datasheet in DATASHEETS:
        if of_name.issuperset(datasheet.words.split()):
            return datasheet
    return None
