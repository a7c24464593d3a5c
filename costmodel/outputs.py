"""Targets are what is fitted, outputs what is published: from one to the other and back.

    runtime_us           = floor_us x exp(runtime)         not below the shortest possible
    sustained_runtime_us = runtime_us x exp(sustained)     likewise, and as far as clocks can fall
    power_w              = power_limit_w x exp(power)      between idle power and the limit
    energy_mj            = power_w x sustained_runtime_us / 1000
    tflops               = mflop / runtime_us

Energy and throughput are computed, never fitted, so that outputs cannot contradict each other.
Without power in the samples the model has no power; without a sustained runtime (tables from
elsewhere have none) it has neither that nor energy. A query whose power limit is unknown, or beyond
those of the training rows, has NaN as power and energy.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Self

import numpy as np
import numpy.typing as npt

from costmodel import graph_ops
from costmodel.bounds import THROTTLED, Limits
from costmodel.graph_ops import Array
from gemmcast.query import AT, OUTPUTS, Rows

Values = npt.NDArray[np.float64]
Measured = Mapping[str, Values]
"""Output -> [n_rows], NaN where it was not measured."""

OUTPUT_OF_TARGET: Final = {
    "runtime": "runtime_us",
    "sustained": "sustained_runtime_us",
    "power": "power_w",
}
"""Every target that can be fitted, and the output that it is measured by."""
TARGETS_OF_OUTPUT: Final = {
    "runtime_us": ("runtime",),
    "tflops": ("runtime",),
    "sustained_runtime_us": ("runtime", "sustained"),
    "power_w": ("power",),
    "energy_mj": ("runtime", "sustained", "power"),
}
"""The targets whose corrections an output is made of."""
MIN_POWER_ROWS: Final = 40
"""With fewer rows a target other than runtime is not fitted."""
LIMIT_MARGIN: Final = 1.1
"""Factor by which a power limit may be beyond those of the training rows with power."""


@dataclass(frozen=True, slots=True, kw_only=True)
class KnownLimits:
    """The power limits that the power of a query is known for, margin included."""

    lowest_w: float
    highest_w: float

    @classmethod
    def of(cls, limits_w: Values) -> Self:
        """Of the limits[n] of the training rows with power, each above 0; maybe none."""
        if not len(limits_w):
            return cls(lowest_w=np.inf, highest_w=np.inf)
        lowest_w = float(limits_w.min() / LIMIT_MARGIN)
        return cls(lowest_w=lowest_w, highest_w=float(limits_w.max() * LIMIT_MARGIN))

    def joined(self, other: KnownLimits) -> KnownLimits:
        """From the lowest to the highest of both."""
        lowest_w = min(self.lowest_w, other.lowest_w)
        highest_w = max(_finite(self.highest_w), _finite(other.highest_w))
        return KnownLimits(lowest_w=lowest_w, highest_w=highest_w)

    def known(self, limit_w: Array) -> Array:
        """limit_w[n, 1], NaN where it is unknown or was never seen; array-API code."""
        xp = limit_w.__array_namespace__()
        is_known = graph_ops.clip(limit_w, self.lowest_w, self.highest_w) == limit_w
        return xp.where(is_known, limit_w, xp.asarray(np.float32(np.nan)))


def targets_of(floor_us: Values, queries: Rows, measured: Measured) -> dict[str, Values]:
    """`log_targets` of those with enough rows to be fitted; `runtime` comes first."""
    logs = log_targets(floor_us, queries, measured)
    targets = {"runtime": logs["runtime"]}
    if _rows_with(logs["power"]) < MIN_POWER_ROWS:
        return targets
    if _rows_with(logs["sustained"]) >= MIN_POWER_ROWS:
        targets["sustained"] = logs["sustained"]
    return targets | {"power": logs["power"]}


def log_targets(floor_us: Values, queries: Rows, measured: Measured) -> dict[str, Values]:
    """Target -> [n] correction in logarithms, NaN where it was not measured."""
    missing = np.full(len(queries), np.nan)
    runtime_us = measured["runtime_us"].astype(np.float64)
    sustained_us = measured.get("sustained_runtime_us", missing)
    power_w = measured.get("power_w", missing)
    limit_w = queries[:, AT["power_limit_w"]].astype(np.float64)
    with_power = ~np.isnan(power_w) & (limit_w > 0)
    with_sustained = with_power & ~np.isnan(sustained_us)
    everywhere = np.ones(len(queries), dtype=bool)
    return {
        "runtime": _log_ratio(runtime_us, floor_us.astype(np.float64), everywhere),
        "sustained": _log_ratio(sustained_us, runtime_us, with_sustained),
        "power": _log_ratio(power_w, limit_w, with_power),
    }


def shortest_us(measured: Measured) -> Values:
    """[n] of runtime and sustained runtime the shorter one."""
    runtime_us = measured["runtime_us"]
    return np.fmin(runtime_us, measured.get("sustained_runtime_us", runtime_us))


def _finite(limit_w: float) -> float:
    """0 in place of infinity, which stands for no limit at all."""
    return limit_w if np.isfinite(limit_w) else 0.0


def _rows_with(values: Values) -> int:
    return int(np.sum(~np.isnan(values)))


def _log_ratio(over: Values, under: Values, where: npt.NDArray[np.bool_]) -> Values:
    """NaN elsewhere."""
    ratio = np.full(len(over), np.nan)
    ratio[where] = np.log(over[where] / under[where])
    return ratio


def outputs_of(targets: Sequence[str]) -> tuple[str, ...]:
    """The outputs that these targets allow, in the order of the contract."""
    return tuple(name for name in OUTPUTS if set(TARGETS_OF_OUTPUT[name]) <= set(targets))


def compose(
    floor_us: Array, limit_w: Array, limits: Limits, corrections: Mapping[str, Array]
) -> dict[str, Array]:
    """Output -> [n, 1], in the order of the contract; array-API code.

    Args:
        floor_us: [n, 1].
        limit_w: [n, 1] the power limit, NaN where power is unknown.
        limits: what the outputs are not beyond.
        corrections: target -> [n, 1] factor, the exponential of what was predicted.
    """
    xp = floor_us.__array_namespace__()
    runtime_us = xp.maximum(floor_us * corrections["runtime"], limits.shortest_us)
    outputs = {"runtime_us": runtime_us, "tflops": limits.mflop / runtime_us}
    if "sustained" in corrections:
        slowdown = graph_ops.clip(corrections["sustained"], float(1 / THROTTLED), float(THROTTLED))
        outputs["sustained_runtime_us"] = xp.maximum(runtime_us * slowdown, limits.shortest_us)
    if "power" in corrections:
        power_w = xp.maximum(limit_w * corrections["power"], limits.lowest_w)
        outputs["power_w"] = xp.minimum(power_w, limits.highest_w)
    if "sustained" in corrections and "power" in corrections:
        outputs["energy_mj"] = outputs["power_w"] * outputs["sustained_runtime_us"] * 1e-3
    return outputs
