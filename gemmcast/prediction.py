"""The answer to one query: what one GEMM costs with one kernel configuration on one device.

None stands for a value that the model does not predict: power where no training row had it, or
where the device's power limit is unknown or far from those of the training rows.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import isnan
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from gemmcast.modelfile import Answer

Objective = Literal["time", "energy", "edp"]
"""What a ranking minimises; gemmcast/objective.py has those with a limit, too."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Prediction:
    """What one GEMM costs with one kernel configuration on one device."""

    runtime_us: float
    """Time of one launch in a short burst. [us]"""
    tflops: float
    """flops / runtime_us. [TFLOP/s]"""
    sustained_runtime_us: float | None = None
    """Time of one launch in an endless row of launches, where a power cap acts. [us]"""
    power_w: float | None = None
    """Mean board power in that row, idle power included. [W]"""
    energy_mj: float | None = None
    """Energy of one launch: power_w x sustained_runtime_us. [mJ]"""
    low: Mapping[str, float] = field(default_factory=dict)
    """Field name -> lower end of the interval that holds nine of ten measurements. A value that is
    None has none."""
    high: Mapping[str, float] = field(default_factory=dict)
    """Field name -> upper end of that interval."""
    extrapolating: bool = False
    """Whether a size, device, kernel or dtype lies outside the training range. Then the intervals
    are not reliable."""
    model_version: str = ""
    """Version of the model, from the registry; of a single file, the start of its SHA-256."""

    @property
    def edp_mj_us(self) -> float | None:
        """Energy-delay product: energy_mj x sustained_runtime_us."""
        if self.energy_mj is None or self.sustained_runtime_us is None:
            return None
        return self.energy_mj * self.sustained_runtime_us

    @staticmethod
    def of(outputs: Sequence[str], answer: Answer, version: str) -> Prediction:
        """A model's answer by name.

        Args:
            outputs: the model's, in the order of the answer's lists.
            answer: NaN in it is what the model does not know (docs/onnx.md).
            version: of the model.
        """
        return Prediction(
            **known(outputs, answer.values),
            low=known(outputs, answer.low),
            high=known(outputs, answer.high),
            extrapolating=answer.extrapolating,
            model_version=version,
        )


def known(outputs: Sequence[str], values: Sequence[float]) -> dict[str, float]:
    """Values by output, without those that are NaN."""
    by_output = zip(outputs, values, strict=True)
    return {name: value for name, value in by_output if not isnan(value)}
