"""Descriptors of a device, estimated from rows that were measured on it.

    peak      = max of flops / runtime, for each dtype
    bandwidth = 99th percentile of bytes / runtime, over rows that move more than four times the L2
    launch    = 5th percentile of runtime, over tiny GEMMs

What rows cannot show comes from datasheets.py. A peak is only as good as the table's largest GEMMs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

import numpy as np

from coordinator.samples.datasheets import WAY_OUT, Datasheet, find_datasheet
from gemmcast.device import Device
from gemmcast.errors import InputError
from gemmcast.gemm import Gemm
from gemmcast.rows import ReadRow, gemm_of

L2_MULTIPLE: Final = 4
"""A row counts as bound by memory when its operands are more than so many times the L2."""
MIN_ROWS: Final = 10
"""Fewer rows give no percentile."""
REACHABLE: Final = 0.9
"""Share of the datasheet's bandwidth that a copy reaches; used if no row is bound by memory."""
TINY_FLOPS: Final = 2 * 128**3
TINY_BYTES: Final = 2**20
LAUNCH_US: Final = 3.0
"""An empty launch on a recent GPU; the upper bound where a table has no tiny GEMMs."""
MIB: Final = 2**20
GIB: Final = 2**30

Timing = tuple[Gemm, float]
"""A GEMM and its runtime in us."""
Estimate = tuple[float, str]
"""A number, and one phrase that says where it comes from."""


def estimate(name: str, rows: Sequence[ReadRow]) -> tuple[Device, str]:
    """The device of these rows, and one line that says where its numbers come from.

    Args:
        name: of the device, as the rows have it.
        rows: checked rows; columns that a file did not have may be absent.

    Raises:
        InputError: no datasheet of that name, or no row is ok.
    """
    datasheet = find_datasheet(name)
    if datasheet is None:
        raise InputError("device", name, "is no GPU whose datasheet is known here", WAY_OUT)
    timings = ok_timings(rows)
    if not timings:
        rule = "has no row with status ok to estimate its descriptors from"
        raise InputError("device", name, rule, WAY_OUT)
    dram_gbps, dram_source = _bandwidth(timings, datasheet)
    launch_us, launch_source = _launch(timings)
    limits = [row["power_limit_w"] for row in rows if row.get("power_limit_w")]
    device = Device(
        name=name,
        kind="cuda",
        uuid=f"imported-{name}",
        compute_units=datasheet.compute_units,
        arch=datasheet.arch,
        clock_max_mhz=datasheet.clock_max_mhz,
        power_limit_w=max(limits, default=None),
        memory_bytes=datasheet.memory_gib * GIB,
        l2_bytes=datasheet.l2_mib * MIB,
        dram_gbps=dram_gbps,
        empty_launch_us=launch_us,
        peak_tflops=peak_tflops(timings),
    )
    limit = f"{device.power_limit_w:.0f} W" if device.power_limit_w else "unknown"
    note = (
        f"{name}: descriptors estimated from {len(timings)} rows: "
        f"{peaks_text(device.peak_tflops)} (the best row); "
        f"{dram_gbps:.0f} GB/s ({dram_source}); launch {launch_us:.2f} us ({launch_source}); "
        f"power limit {limit}. From the datasheet: {_datasheet_text(datasheet)}"
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


def _bandwidth(timings: Sequence[Timing], datasheet: Datasheet) -> Estimate:
    min_bytes = L2_MULTIPLE * datasheet.l2_mib * MIB
    bandwidths = []
    for gemm, runtime_us in timings:
        if gemm.operand_bytes > min_bytes:
            bandwidths.append(gemm.operand_bytes / (runtime_us * 1e3))
    percentile = 0.0
    if len(bandwidths) >= MIN_ROWS:
        percentile = float(np.percentile(bandwidths, 99))
    if percentile < datasheet.dram_gbps / 2:
        source = f"{REACHABLE:.0%} of the datasheet's: no row is bound by memory"
        return REACHABLE * datasheet.dram_gbps, source
    source = f"99th percentile of {len(bandwidths)} rows beyond {L2_MULTIPLE}x L2"
    return min(percentile, datasheet.dram_gbps), source


def _launch(timings: Sequence[Timing]) -> Estimate:
    tiny_us = []
    for gemm, runtime_us in timings:
        if gemm.flops <= TINY_FLOPS and gemm.operand_bytes <= TINY_BYTES:
            tiny_us.append(runtime_us)
    if tiny_us:
        percentile = float(np.percentile(tiny_us, 5))
        return percentile, f"5th percentile of {len(tiny_us)} tiny GEMMs"
    shortest_us = min(runtime_us for _, runtime_us in timings)
    return min(LAUNCH_US, shortest_us), "the table has no tiny GEMMs"


def _datasheet_text(datasheet: Datasheet) -> str:
    return (
        f"{datasheet.compute_units} SMs, {datasheet.l2_mib} MiB L2, {datasheet.memory_gib} GiB, "
        f"{datasheet.clock_max_mhz:.0f} MHz, {datasheet.arch}"
    )
