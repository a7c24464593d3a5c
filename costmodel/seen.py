"""What the networks see of a query: quantities in logarithms, within the range of training rows.

    quantities[n, len(QUANTITIES)]  ->  inputs[n, len(INPUTS)]
    input = log(quantity within lowest and highest / middle)

A network extrapolates linearly in logarithms, which is off by powers: so it sees nothing beyond the
training rows. The middle is their geometric mean, because float32 rounds least near 0, and sums of
large terms that cancel would differ between NumPy and ONNX Runtime. Knows no network.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Self

import numpy as np
import numpy.typing as npt

from costmodel import graph_ops
from costmodel.graph_ops import Array
from costmodel.terms import DERIVED_SCALES, QUANTITIES
from gemmcast.query import KNOB_FIELDS

Matrix = npt.NDArray[np.float32]

FIELD_SCALES: Final[Mapping[str, float]] = {
    "m": 1e3,
    "n": 1e3,
    "k": 1e3,
    "warp_m": 64.0,
    "warp_n": 64.0,
    "warp_k": 64.0,
    "threads": 256.0,
    "active_units": 100.0,
    "peak_tflops": 300.0,
    "dram_gbps": 3e3,
    "l2_gbps": 6e3,
    "empty_kernel_us": 2.0,
    "power_limit_w": 700.0,
    "idle_power_w": 100.0,
}
"""Typical values of fields, where not 1."""
NOT_FOR_NETWORKS: Final = (
    # codes, which are categories
    "dtype",
    "family",
    "algorithm",
    # the whole matrix where the tile is not named
    "tile_m",
    "tile_n",
    "tile_k",
    # they brought nothing
    "warm",
    "l2_bytes",
    "clock_max_mhz",
    "mflop",
)
INPUTS: Final = tuple(name for name in QUANTITIES if name not in NOT_FOR_NETWORKS)
"""The quantities that the networks see."""
COLUMNS: Final = [QUANTITIES.index(name) for name in INPUTS]
SMALLEST: Final = 1e-4
"""In place of less, over the typical value: a logarithm needs more than 0."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """What networks that were fitted on some rows see."""

    lowest: Matrix
    """[n_inputs] of the quantities of those rows, above 0."""
    highest: Matrix
    """[n_inputs] likewise."""
    middle: Matrix
    """[n_inputs] what an input of 0 stands for."""

    @classmethod
    def of(cls, quantities: Matrix, middle: Matrix) -> Self:
        """For networks that are fitted on these rows[n, len(QUANTITIES)]."""
        rows = _positive(quantities)
        return cls(lowest=rows.min(axis=0), highest=rows.max(axis=0), middle=middle)

    def __call__(self, quantities: Array) -> Array:
        """[n, n_inputs] of quantities[n, len(QUANTITIES)]; array-API code."""
        xp = quantities.__array_namespace__()
        chosen = graph_ops.columns(quantities, COLUMNS, len(QUANTITIES))
        lowest, highest = xp.asarray(self.lowest), xp.asarray(self.highest)
        within = xp.minimum(xp.maximum(chosen, lowest), highest)
        return xp.log(within / xp.asarray(self.middle))


def middle_of(quantities: Matrix) -> Matrix:
    """[n_inputs] the geometric means of rows[n, len(QUANTITIES)]."""
    logs = np.log(_positive(quantities))
    middle: Matrix = np.exp(logs.mean(axis=0, dtype=np.float64)).astype(np.float32)
    return middle


def _positive(quantities: Matrix) -> Matrix:
    """[n, n_inputs]."""
    rows: Matrix = np.maximum(quantities[:, COLUMNS], LEAST)
    return rows


def _least() -> Matrix:
    """[n_inputs] in place of less."""
    scales = {**dict.fromkeys(INPUTS, 1.0), **FIELD_SCALES, **DERIVED_SCALES}
    least = SMALLEST * np.array([scales[name] for name in INPUTS], dtype=np.float32)
    for name in KNOB_FIELDS:
        # 0 means unknown: the logarithm is that of 1
        least[INPUTS.index(name)] = 1
    return least


LEAST: Final = _least()
