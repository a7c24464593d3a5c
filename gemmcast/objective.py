"""What a ranking minimises, as users write it.

time                 runtime_us
energy               energy_mj
edp                  energy_mj x sustained_runtime_us
time-under-watts=W   sustained_runtime_us, of the configurations that draw at most W watts
"""

from __future__ import annotations

from dataclasses import dataclass
from math import inf, isfinite, prod
from typing import Final

from gemmcast.errors import InputError
from gemmcast.tuned_entry import Cost

MINIMISED: Final = {
    "time": ("runtime_us",),
    "energy": ("energy_mj",),
    "edp": ("energy_mj", "sustained_runtime_us"),
}
"""Objective -> the outputs of a model whose product is minimised."""
UNDER_WATTS: Final = "time-under-watts"
OBJECTIVES: Final = (*MINIMISED, f"{UNDER_WATTS}=W")
"""As they are written."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Objective:
    """One of OBJECTIVES."""

    name: str
    """A key of MINIMISED, or UNDER_WATTS."""
    outputs: tuple[str, ...]
    """The outputs of a model whose product is minimised."""
    most_watts: float = inf
    """Mean board power that a configuration may draw in an endless row of launches. [W]"""

    @property
    def needed(self) -> tuple[str, ...]:
        """The outputs that a model must have."""
        return (*self.outputs, "power_w") if self.is_capped else self.outputs

    @property
    def is_capped(self) -> bool:
        """Whether some configurations draw too much."""
        return isfinite(self.most_watts)

    @property
    def has_prefilter(self) -> bool:
        """Whether a model's prefilter, which knows times only, can choose for it."""
        return self.name == "time"

    @property
    def is_metered(self) -> bool:
        """Whether to measure it takes a power window, fifty times as long as a burst."""
        return self.name != "time"

    def of(self, cost: Cost) -> float | None:
        """What is minimised; None where the cost lacks a part of it."""
        parts = [getattr(cost, name) for name in self.outputs]
        return None if None in parts else prod(parts)

    def admits(self, cost: Cost) -> bool:
        """Whether its power is within the limit; yes where none is known."""
        return cost.power_w is None or cost.power_w <= self.most_watts

    @staticmethod
    def parse(text: str) -> Objective:
        """The objective that a user writes.

        Raises:
            InputError: none of OBJECTIVES, or watts that are no number above 0.
        """
        if text in MINIMISED:
            return Objective(name=text, outputs=MINIMISED[text])
        name, equals, watts = text.partition("=")
        if name != UNDER_WATTS or not equals:
            way_out = f"use one of {', '.join(OBJECTIVES)}"
            raise InputError("objective", text, "unknown objective", way_out)
        outputs = ("sustained_runtime_us",)
        return Objective(name=name, outputs=outputs, most_watts=_watts(text, watts))

    def __str__(self) -> str:
        return f"{self.name}={self.most_watts:g}" if self.is_capped else self.name


def _watts(text: str, watts: str) -> float:
    try:
        number = float(watts)
    except ValueError:
        number = 0.0
    if not 0 < number < inf:
        way_out = f"write {UNDER_WATTS}=400"
        raise InputError("objective", text, "watts must be a number above 0", way_out)
    return number
