"""Do readings of small cells agree with one another? A cold cell that was warm shows here.

window over burst   sustained_runtime_us / runtime_us, which is 1 where no cap acts
time of a step      runtime of the tiled kernel in one wave, over its steps along k
"""

from __future__ import annotations

from typing import Final, TypedDict

import numpy as np

from coordinator.samples.columns import Columns, Numbers
from gemmcast.gemm import DTYPES

SMALL_BYTES: Final = 100_000
"""Operands below this are small."""
FEWEST_STEPS: Final = 16
"""Along k: with fewer, a launch is mostly begin and end."""


class WindowOverBurst(TypedDict):
    """Of cold cells with small operands, no cap."""

    median: float
    p10: float
    p90: float
    cells: int


def window_over_burst(measured: Columns) -> WindowOverBurst | None:
    """Of the rows that are ok; None where no row has such a window."""
    ratios = measured.numbers("sustained_runtime_us") / measured.numbers("runtime_us")
    is_capped = measured.words("capped").astype(bool)
    is_cold = measured.words("cache") == "cold"
    is_small = _operand_bytes(measured) < SMALL_BYTES
    chosen = ratios[is_cold & is_small & ~is_capped & ~np.isnan(ratios)]
    if not len(chosen):
        return None
    p10, median, p90 = np.percentile(chosen, (10, 50, 90)).tolist()
    return WindowOverBurst(median=median, p10=p10, p90=p90, cells=len(chosen))


def step_times_ns(measured: Columns) -> dict[str, float]:
    """Tile -> median time of a step (ns) of the tiled kernel, where its blocks are one wave."""
    tiles = measured.numbers("tile_m")
    is_tiled = measured.words("family") == "tiled"
    m, n, k = (measured.numbers(name) for name in "mnk")
    side = np.where(is_tiled, tiles, 1.0)
    steps = np.ceil(k / side)
    blocks = np.ceil(m / side) * np.ceil(n / side) * measured.numbers("batch")
    is_one_wave = blocks <= measured.numbers("compute_units")
    is_cold = measured.words("cache") == "cold"
    chosen = is_tiled & is_cold & is_one_wave & (steps >= FEWEST_STEPS)
    times_ns = 1e3 * measured.numbers("runtime_us") / steps
    medians: dict[str, float] = {}
    for tile in np.unique(tiles[chosen]).tolist():
        medians[f"{tile:.0f}"] = float(np.median(times_ns[chosen & (tiles == tile)]))
    return medians


def _operand_bytes(measured: Columns) -> Numbers:
    """Of one set, as `Gemm.operand_bytes`."""
    stored = [DTYPES[dtype] for dtype in measured.words("dtype").tolist()]
    in_bytes = np.array([one.in_bytes for one in stored], dtype=np.float64)
    out_bytes = np.array([one.out_bytes for one in stored], dtype=np.float64)
    m, n, k = (measured.numbers(name) for name in "mnk")
    a_and_b = (m * k + k * n) * in_bytes
    return measured.numbers("batch") * (a_and_b + m * n * out_bytes)
