"""One GEMM of the list on one type of device: its default, and who may be better.

Kept in the workspace from before the first measurement (coordinator/tune/record.py), so that a
tuning which was killed goes on with the same rivals, whatever the model says by then.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from gemmcast.config import KernelConfig
from gemmcast.gemm import Gemm
from gemmcast.gemm_list import ListedGemm
from gemmcast.prediction import Prediction
from gemmcast.tuned_entry import Cost


@dataclass(frozen=True, slots=True, kw_only=True)
class Rival:
    """A configuration, and what the model predicts for it."""

    config: KernelConfig
    predicted: Cost = field(default_factory=Cost)
    """Empty where no model answers."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """See the head of this file."""

    listed: ListedGemm
    device_key: str
    """Name of the type of device."""
    default: Rival | None
    """What library or engine would run; None: no kernel computes the GEMM there."""
    rivals: tuple[Rival, ...] = ()
    """The first of all others, the best guess first."""
    possible: int = 0
    """Configurations that can run it, the default among them."""
    reason: str = ""
    """Without a default: why."""

    @property
    def gemm(self) -> Gemm:
        """The problem itself."""
        return self.listed.gemm

    def predicted(self, config: KernelConfig) -> Cost:
        """What the model predicts for a configuration of this problem."""
        everyone = [self.default, *self.rivals]
        fitting = (one.predicted for one in everyone if one and one.config == config)
        return next(fitting, Cost())

    def to_json(self) -> dict[str, object]:
        """Plain values, for the record."""
        return {
            "gemm": asdict(self.listed.gemm),
            "weight": self.listed.weight,
            "name": self.listed.name,
            "kernel": self.listed.kernel,
            "device": self.device_key,
            "default": None if self.default is None else _to_json(self.default),
            "rivals": [_to_json(rival) for rival in self.rivals],
            "possible": self.possible,
            "reason": self.reason,
        }

    @staticmethod
    def from_json(values: Mapping[str, Any]) -> Problem:
        """The inverse of `to_json`. Raises KeyError, TypeError or ValueError for anything else."""
        listed = ListedGemm(
            gemm=Gemm(**values["gemm"]),
            weight=values["weight"],
            name=values["name"],
            kernel=values["kernel"],
        )
        default = values["default"]
        return Problem(
            listed=listed,
            device_key=values["device"],
            default=None if default is None else _from_json(default),
            rivals=tuple(map(_from_json, values["rivals"])),
            possible=values["possible"],
            reason=values["reason"],
        )


def predicted_cost(prediction: Prediction) -> Cost:
    """The parts of a prediction that a table keeps."""
    return Cost(
        runtime_us=prediction.runtime_us,
        sustained_runtime_us=prediction.sustained_runtime_us,
        power_w=prediction.power_w,
        energy_mj=prediction.energy_mj,
    )


def estimated_cost(measured: Cost, predicted: Cost) -> Cost:
    """What a launch costs by the time of a burst and the predicted power.

    Rivals are first compared by this: a power window costs fifty times a burst. Where no power is
    predicted, all draw the same.
    """
    time_us = measured.runtime_us
    if time_us is None:
        return Cost()
    energy_mj = time_us * (predicted.power_w or 1.0) * 1e-3
    return Cost(runtime_us=time_us, sustained_runtime_us=time_us, energy_mj=energy_mj)


def _to_json(rival: Rival) -> dict[str, object]:
    return {"config": _said(rival.config), "predicted": _said(rival.predicted)}


def _said(values: KernelConfig | Cost) -> dict[str, object]:
    """The fields that say something: a record has hundreds of rivals a problem."""
    return {name: value for name, value in asdict(values).items() if value}


def _from_json(values: Mapping[str, Any]) -> Rival:
    config = KernelConfig(**values["config"])
    return Rival(config=config, predicted=Cost(**values["predicted"]))
