"""One configuration in a race: its readings beside those of the default, turn by turn.

Knows no rule of deciding.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields
from math import log
from statistics import median

from coordinator.tune.paired import Difference, difference
from coordinator.tune.problem import Rival
from coordinator.tune.readings import Reading
from gemmcast.config import KernelConfig
from gemmcast.tuned_entry import Cost


class Track:
    """The readings of one rival, or of the default beside itself."""

    def __init__(self, rival: Rival) -> None:
        self.rival = rival
        self.left_out = ""
        """Why it is not measured any more; empty while it is."""
        self.was_measured = False
        self._logs: dict[int, float] = {}
        self._beside: dict[int, float] = {}
        self._costs: list[Cost] = []
        self._earlier: list[Cost] = []

    @property
    def config(self) -> KernelConfig:
        """What is measured."""
        return self.rival.config

    def start_over(self) -> None:
        """Forget the readings: the next ones count."""
        self._logs = {}
        self._beside = {}
        self._earlier = self._costs
        self._costs = []

    def note(
        self, turn: int, reading: Reading, value: float, default: float | None
    ) -> Sequence[float]:
        """A good reading; returns the differences from the default so far.

        Args:
            value: what is minimised, of this reading.
            default: the same of the default in this turn; None where there is none on this board.
        """
        self.was_measured = True
        self._costs.append(reading.cost)
        self._logs[turn] = log(value)
        if default is not None:
            self._beside[turn] = log(value / default)
        return self.differences

    @property
    def differences(self) -> list[float]:
        """From the default, one for each turn that has both."""
        return list(self._beside.values())

    def from_default(self, noise: float) -> Difference | None:
        """How much it differs from the default; None without a pair."""
        return difference(self.differences, noise) if self._beside else None

    def from_other(self, other: Track, noise: float) -> Difference | None:
        """How much it differs from another track, over the turns of both."""
        shared = [turn for turn in self._beside if turn in other._beside]
        values = [self._beside[turn] - other._beside[turn] for turn in shared]
        return difference(values, noise) if values else None

    def level(self) -> float | None:
        """Median logarithm of the cost, whatever the default did; None without a reading."""
        return median(self._logs.values()) if self._logs else None

    def cost(self) -> Cost:
        """Medians of what was measured; of the readings that count, if there are any yet."""
        medians: dict[str, float] = {}
        for field in fields(Cost):
            values = [getattr(cost, field.name) for cost in self._costs or self._earlier]
            known = [value for value in values if value is not None]
            if known:
                medians[field.name] = median(known)
        return Cost(**medians)
