"""Descriptors of a device that nobody here has measured, from its datasheet and its rows.

    peak       = the best row, at least 0.8 of the datasheet's, at most all of it, for each dtype
    bandwidth  = 0.9 of the datasheet's

Rows alone are a poor judge: a table of small GEMMs shows neither peak nor bandwidth. What our own
boards reached of their datasheets is a better one: H100 and H200 0.73 to 0.83 of the peaks, 0.87 to
0.89 of the bandwidth. What an empty kernel takes stays unknown: the shortest runtime is none. These
estimates stand only until a board of that name is measured (gemmcast/descriptions.py).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from coordinator.samples.datasheets import WAY_OUT, Datasheet, find_datasheet
from gemmcast.descriptions import ESTIMATED
from gemmcast.device import Device
from gemmcast.errors import InputError
from gemmcast.gemm import Gemm
from gemmcast.rows import ReadRow, gemm_of

REACHED_PEAK: Final = 0.8
"""Share of the datasheet's throughput that the best large GEMM reaches."""
REACHED_GBPS: Final = 0.9
"""Share of the datasheet's bandwidth that a copy reaches."""
MIB: Final = 2**20
GIB: Final = 2**30

Timing = tuple[Gemm, float]
"""A GEMM and its runtime in us."""


def estimate(name: str, rows: Sequence[ReadRow]) -> tuple[Device, str]:
    """The device of these rows, and one line that says where its numbers come from.

    Args:
        name: of the device, as the rows have it.
        rows: checked and plausible rows; columns that a file did not have may be absent.

    Raises:
        InputError: no datasheet of that name.
    """
    datasheet = find_datasheet(name)
    if datasheet is None:
        raise InputError("device", name, "is no GPU whose datasheet is known here", WAY_OUT)
    limits = [row["power_limit_w"] for row in rows if row.get("power_limit_w")]
    best = peak_tflops(ok_timings(rows))
    dtypes = dict.fromkeys(row["dtype"] for row in rows)
    peaks = {dtype: within_reach(dtype, best.get(dtype, 0.0), datasheet) for dtype in dtypes}
    device = Device(
        name=name,
        kind="cuda",
        uuid=ESTIMATED + name,
        compute_units=datasheet.compute_units,
        arch=datasheet.arch,
        clock_max_mhz=datasheet.clock_max_mhz,
        power_limit_w=max(limits, default=None),
        memory_bytes=datasheet.memory_gib * GIB,
        l2_bytes=datasheet.l2_mib * MIB,
        dram_gbps=REACHED_GBPS * datasheet.dram_gbps,
        peak_tflops=peaks,
    )
    limit = f"{device.power_limit_w:.0f} W" if device.power_limit_w else "unknown"
    note = (
        f"{name}: descriptors estimated from its datasheet and rows ({len(rows)}): "
        f"{peaks_text(peaks)}; {device.dram_gbps:.0f} GB/s; "
        f"power limit {limit}; {_datasheet_text(datasheet)}. A measured board replaces them"
    )
    return device, note


def ok_timings(rows: Sequence[ReadRow]) -> list[Timing]:
    """GEMM and runtime of the rows that are ok; a row without a status is ok."""
    timings = []
    for row in rows:
        if row.get("status", "ok") == "ok":
            timings.append((gemm_of(row), float(row["runtime_us"])))
    return timings


def peak_tflops(timings: Sequence[Timing]) -> dict[str, float]:
    """dtype -> TFLOP/s of its best row."""
    peaks: dict[str, float] = {}
    for gemm, runtime_us in timings:
        tflops = gemm.flops / (runtime_us * 1e6)
        peaks[gemm.dtype] = max(peaks.get(gemm.dtype, 0.0), tflops)
    return peaks


def peaks_text(peaks: Mapping[str, float]) -> str:
    """Peaks for a note to the user."""
    return ", ".join(f"{dtype} {peak:.4g} TFLOP/s" for dtype, peak in peaks.items())


def within_reach(dtype: str, best_tflops: float, datasheet: Datasheet) -> float:
    """The throughput of the best row, within what the datasheet lets expect of large GEMMs."""
    highest = datasheet.peak_tflops.get(dtype, best_tflops)
    return min(max(best_tflops, REACHED_PEAK * highest), highest)


def _datasheet_text(datasheet: Datasheet) -> str:
    return (
        f"{datasheet.compute_units} SMs, {datasheet.l2_mib} MiB L2, {datasheet.memory_gib} GiB, "
        f"{datasheet.clock_max_mhz:.0f} MHz, {datasheet.arch}"
    )
