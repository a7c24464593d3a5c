"""What no answer may be beyond: peak and bandwidth of the device, its idle power and its limit.

    shortest_us = max(FLOP / peak, bytes / bandwidth), each over how much faster rows were measured
    power_w     between idle_power_w and HIGHEST_POWER x power_limit_w
    sustained   between the runtime over THROTTLED and THROTTLED times the runtime

Cold operands come from memory. Of warm ones the L2 cache holds as much as fits, and its own
bandwidth bounds the rest; where that was never measured (2.2 times the memory's stands for it),
memory alone does. Peaks and bandwidths are measured, so kernels may be a little faster: the fastest
training row of the dtype and family says by how much. Bounds hold for values and intervals alike.
docs/decisions/0019-answers-within-physics.md has the figures.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from costmodel import graph_ops
from costmodel.categories import Categories
from costmodel.graph_ops import Array
from costmodel.terms import Terms

LEAST_SPEED: Final = 1.05
"""Allowed over the measured peak and bandwidth, also where no training row was as fast: rows of an
H100 reach 1.043 of its peak, of an H200 1.08; reads alone reach 1.09 of the bandwidth there."""
HIGHEST_POWER: Final = 1.01
"""Allowed over the power limit: windows at the cap read up to 1.004 of it."""
THROTTLED: Final = np.float32(3.0)
"""Between a launch in seconds of work and one in a short burst, at most: clocks differ by no more.
Of all good rows of datasets/ the ratio is 0.74 to 1.9."""
Matrix = npt.NDArray[np.float32]
Values = npt.NDArray[np.float64]


class Limits(NamedTuple):
    """What bounds the answers to a query."""

    shortest_us: Array
    """[n, 1]."""
    lowest_w: Array
    """[n, 1], NaN where the power limit is."""
    highest_w: Array
    """[n, 1], likewise."""
    mflop: Array
    """[n, 1] of the problem, in millions."""

    def interval(self, outputs: Sequence[str], low: Array, high: Array) -> tuple[Array, Array]:
        """low and high[n, n_outputs], cut where they are beyond the bounds; array-API code.

        Sustained runtime and energy are bounded by the interval of the runtime, too: where no row
        was metered, the networks alone would leave them open.
        """
        xp = low.__array_namespace__()
        ends = graph_ops.split(high, [1] * len(outputs))
        at_runtime = outputs.index("runtime_us")
        fastest_us = graph_ops.split(low, [1] * len(outputs))[at_runtime]
        least_us = xp.maximum(fastest_us / THROTTLED, self.shortest_us)
        most_us = ends[at_runtime] * THROTTLED
        lowest = {
            "runtime_us": self.shortest_us,
            "tflops": 0.0 * self.mflop,
            "sustained_runtime_us": least_us,
            "power_w": self.lowest_w,
            "energy_mj": self.lowest_w * least_us * 1e-3,
        }
        highest = {
            "tflops": self.mflop / self.shortest_us,
            "sustained_runtime_us": most_us,
            "power_w": self.highest_w,
            "energy_mj": self.highest_w * most_us * 1e-3,
        }
        lowest_of_all = xp.concat([lowest[name] for name in outputs], axis=1)
        for i, name in enumerate(outputs):
            if name in highest:
                ends[i] = xp.minimum(ends[i], highest[name])
        return xp.maximum(low, lowest_of_all), xp.concat(ends, axis=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """How much faster than peak and bandwidth the kernels of each kind of arithmetic are."""

    beyond: Matrix
    """[n_categories, 2] speed over peak and bandwidth that is more than LEAST_SPEED, or 0."""

    @classmethod
    def of(cls, least_us: Matrix, categories: Categories, one_hot: Matrix, us: Values) -> Bounds:
        """Of the training rows.

        Args:
            least_us: [n, 2] as in Terms.
            categories: what the columns of one_hot are.
            one_hot: [n, n_categories].
            us: [n] the shortest time that was measured of each row.
        """
        speeds = least_us / us[:, np.newaxis]
        beyond = np.zeros((len(categories), 2), dtype=np.float32)
        for i, field in enumerate(categories.fields):
            if field == "dtype":
                fastest = speeds[one_hot[:, i] > 0].max(axis=0)
                beyond[i] = np.maximum(fastest - LEAST_SPEED, 0.0)
        return cls(beyond=beyond)

    def limits(self, terms: Terms, limit_w: Array, one_hot: Array) -> Limits:
        """What bounds the answers; array-API code, traced into the graph.

        Args:
            terms: of the queries.
            limit_w: [n, 1] their power limits, NaN where power is unknown.
            one_hot: [n, n_categories].
        """
        xp = one_hot.__array_namespace__()
        least = np.full(2, LEAST_SPEED, dtype=np.float32)
        speeds = graph_ops.gemm(one_hot, xp.asarray(self.beyond), xp.asarray(least))
        times_us = terms.least_us / speeds
        highest_w = HIGHEST_POWER * limit_w
        # NaN where the limit is: not every version of ONNX Runtime keeps one in a minimum
        idle_w = terms.idle_power_w + 0.0 * limit_w
        return Limits(
            shortest_us=graph_ops.reduce_max(times_us, axis=1),
            lowest_w=xp.minimum(idle_w, highest_w),
            highest_w=highest_w,
            mflop=terms.mflop,
        )
