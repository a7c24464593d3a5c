"""What a tuning minimises, of what was measured and of what is predicted.

    time                runtime_us                     energy   energy_mj
    edp                 energy_mj x sustained_runtime_us
    time-under-watts=W  sustained_runtime_us, among those that draw at most W watts

All but the first need power windows, which cost fifty times a burst. So rivals are first compared
by an estimate: the measured time with the power that the model predicts. Knows no configuration.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

from gemmcast import objective as objectives
from gemmcast.prediction import Objective as RankedBy
from gemmcast.tuned_entry import Cost


@dataclass(frozen=True, slots=True)
class Objective:
    """One of the four; use `parse`."""

    text: str
    """As the user and the table's key write it."""
    watts: float | None = None
    """Most that a winner may draw. [W]"""

    @classmethod
    def parse(cls, text: str) -> Self:
        """From the option. Raises InputError for any other text."""
        objective = objectives.Objective.parse(text)
        return cls(text, objective.most_watts if objective.is_capped else None)

    @property
    def is_metered(self) -> bool:
        """Whether its cost needs a power window."""
        return self.text != "time"

    @property
    def ranked_by(self) -> RankedBy:
        """What the model ranks by."""
        if self.text == "energy":
            return "energy"
        return "edp" if self.text == "edp" else "time"

    def of(self, cost: Cost) -> float | None:
        """What is minimised; None where the cost lacks a part of it."""
        if self.text == "time":
            return cost.runtime_us
        if self.watts is not None:
            return cost.sustained_runtime_us
        if cost.energy_mj is None or cost.sustained_runtime_us is None:
            return None
        return cost.energy_mj * (cost.sustained_runtime_us if self.text == "edp" else 1.0)

    def estimate(self, measured: Cost, predicted: Cost) -> float | None:
        """The same by the time of a burst and the predicted power; any power, if there is none."""
        time_us = measured.runtime_us
        if time_us is None or self.text == "time" or self.watts is not None:
            return time_us
        energy = time_us * (predicted.power_w or 1.0)
        return energy * time_us if self.text == "edp" else energy

    def admits(self, cost: Cost) -> bool:
        """Whether its power is within the limit; yes where none is known."""
        return self.watts is None or cost.power_w is None or cost.power_w <= self.watts
