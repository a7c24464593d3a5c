"""Whether a query is outside of what the model was trained on.

A query extrapolates where a size, a device or an amount of work is beyond the smallest or largest
of the training rows by a margin, or where its kernel or dtype was in no training row.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from costmodel import graph_ops
from costmodel.categories import SORTS
from costmodel.graph_ops import Array
from costmodel.terms import QUANTITIES

MARGINS: Final = {
    "m": 1.5,
    "n": 1.5,
    "k": 1.5,
    "batch": 1.5,
    "active_units": 1.5,
    "peak_tflops": 1.5,
    # an H200 has 1.4 times the bandwidth of an H100: this tells them apart
    "dram_gbps": 1.25,
    "flops": 1.5,
    "dram_a_us": 1.5,
    "dram_b_us": 1.5,
    "dram_c_us": 1.5,
}
"""Quantity -> factor that it may be beyond the training rows."""
COLUMNS: Final = np.array([QUANTITIES.index(name) for name in MARGINS])
Matrix = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingRange:
    """Limits of the quantities of MARGINS, margins included."""

    lowest: Matrix
    highest: Matrix

    @classmethod
    def of(cls, quantities: Matrix) -> TrainingRange:
        """Of the quantities[n, len(QUANTITIES)] of the training rows."""
        checked = quantities[:, COLUMNS]
        margins = np.array(list(MARGINS.values()), dtype=np.float32)
        return cls(lowest=checked.min(axis=0) / margins, highest=checked.max(axis=0) * margins)

    def is_outside(self, quantities: Array, one_hot: Array) -> Array:
        """[n] bool, of quantities[n, n_quantities], one_hot[n, n_categories]; array-API code."""
        xp = quantities.__array_namespace__()
        checked = xp.take(quantities, xp.asarray(COLUMNS), axis=1)
        lowest, highest = xp.asarray(self.lowest), xp.asarray(self.highest)
        beyond = xp.astype((checked < lowest) | (checked > highest), xp.float32)
        # Every query belongs to one category of each sort
        to_unknown = np.full((one_hot.shape[1], 1), -1, dtype=np.float32)
        beyond_or_unknown = graph_ops.gemm(
            one_hot, xp.asarray(to_unknown), xp.sum(beyond, axis=1, keepdims=True)
        )
        return graph_ops.squeeze(beyond_or_unknown) > -len(SORTS)
