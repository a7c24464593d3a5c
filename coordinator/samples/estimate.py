"""The descriptors of a device from the rows that were measured on it, where nobody measured the device itself.

    peak      = max of flops / runtime, for each dtype
    bandwidth = 99th percentile of bytes / runtime, over rows that move more than four times the L2
    launch    = 5th percentile of runtime, over tiny products

What rows can't show comes from coordinator/samples/datasheets.py. A peak is only as good as the table's largest products.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np

from coordinator.samples.datasheets import WAY_OUT, Board, find_board
from coordinator.samples.formats.checked_rows import Row
from gemmcast.device import Device
from gemmcast.errors import InputError
from gemmcast.gemm import Gemm
from gemmcast.rows import gemm_of

BEYOND_L2: Final = 4
FEW: Final = 10
# rows beyond the L2: fewer are no percentile
REACHED: Final = 0.9
# share of the datasheet's bandwidth that a copy reaches; stands in where no row is bound by memory
TINY_FLOPS: Final = 2 * 128**3
TINY_BYTES: Final = 2**20
LAUNCH_US: Final = 3.0
# of a recent GPU; at most that, where a table has no tiny products
Timed = Sequence[tuple[Gemm, float]]
# with runtime_us


def estimate(name: str, rows: Sequence[Row]) -> tuple[Device, str]:
    """The device of these rows, and one line that says where its numbers come from.

    Raises:
        InputError: the board is not known, or no row is ok.
    """
    board = find_board(name)
    if board is None:
        raise InputError("device", name, "is no board whose descriptors are known here", WAY_OUT)
    timed = [(gemm_of(row), row["runtime_us"]) for row in rows if row.get("status", "ok") == "ok"]
    if not timed:
        raise InputError("device", name, "has no row with status ok to estimate its descriptors from", WAY_OUT)
    peaks = peak_tflops(timed)
    (dram_gbps, of_dram), (launch_us, of_launch) = _bandwidth(timed, board), _launch(timed)
    limit_w = max((row["power_limit_w"] for row in rows if row.get("power_limit_w")), default=None)
    device = Device(
        name=name, kind="cuda", uuid=f"imported-{name}", compute_units=board.compute_units, arch=board.arch, clock_max_mhz=board.clock_max_mhz,
        power_limit_w=limit_w, memory_bytes=board.memory_gib * 2**30, l2_bytes=board.l2_mib * 2**20, dram_gbps=dram_gbps,
        empty_launch_us=launch_us, peak_tflops=peaks,
    )  # fmt: skip
    best = ", ".join(f"{dtype} {peak:.4g} TFLOP/s" for dtype, peak in peaks.items())
    return device, (
        f"{name}: descriptors estimated from {len(timed)} rows: {best} (the best row); {dram_gbps:.0f} GB/s ({of_dram}); "
        f"launch {launch_us:.2f} us ({of_launch}); power limit {f'{limit_w:.0f} W' if limit_w else 'unknown'}. "
        f"From the datasheet: {board.compute_units} SMs, {board.l2_mib} MiB L2, {board.memory_gib} GiB, {board.clock_max_mhz:.0f} MHz, {board.arch}"
    )


def peak_tflops(timed: Timed) -> dict[str, float]:
    """dtype -> the best that was seen."""
    peaks: dict[str, float] = {}
    for gemm, runtime_us in timed:
        peaks[gemm.dtype] = max(peaks.get(gemm.dtype, 0.0), gemm.flops / (runtime_us * 1e6))
    return peaks


def _bandwidth(timed: Timed, board: Board) -> tuple[float, str]:
    beyond = [gemm.operand_bytes / (us * 1e3) for gemm, us in timed if gemm.operand_bytes > BEYOND_L2 * board.l2_mib * 2**20]
    seen_gbps = float(np.percentile(beyond, 99)) if len(beyond) >= FEW else 0.0
    if seen_gbps < board.dram_gbps / 2:
        return REACHED * board.dram_gbps, f"{REACHED:.0%} of the datasheet's: no row is bound by memory"
    return min(seen_gbps, board.dram_gbps), f"99th percentile of {len(beyond)} rows beyond {BEYOND_L2}x L2"


def _launch(timed: Timed) -> tuple[float, str]:
    tiny_us = [us for gemm, us in timed if gemm.flops <= TINY_FLOPS and gemm.operand_bytes <= TINY_BYTES]
    if tiny_us:
        return float(np.percentile(tiny_us, 5)), f"5th percentile of {len(tiny_us)} tiny products"
    return float(np.min([LAUNCH_US, *(us for _, us in timed)])), "the table has no tiny products"
