"""The answer to one question. None stands for what the model was never taught (power, on a machine without a meter)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

Objective = Literal["time", "energy", "edp"]
# what a choice of configurations minimises: runtime_us, energy_mj, or their product sustained (energy-delay)


@dataclass(frozen=True, slots=True, kw_only=True)
class Prediction:
    """What one GEMM costs with one kernel configuration on one device."""

    runtime_us: float
    # of one launch in a short burst
    tflops: float
    # flops / runtime_us
    sustained_runtime_us: float | None = None
    # of one launch in an endless row of them, where a power cap bites
    power_w: float | None = None
    # mean board power then, idle draw included
    energy_mj: float | None = None
    # of one launch: power_w x sustained_runtime_us
    low: Mapping[str, float] = field(default_factory=dict)
    high: Mapping[str, float] = field(default_factory=dict)
    # by the names above: nine of ten measurements of GEMMs like those that the model was taught lie between
    extrapolating: bool = False
    # a size, a device, a kind of kernel or a number format beyond what it was taught: there the intervals promise nothing
    model_version: str = ""

    @property
    def edp_mj_us(self) -> float | None:
        """Energy-delay product."""
        if self.energy_mj is None or self.sustained_runtime_us is None:
            return None
        return self.energy_mj * self.sustained_runtime_us
