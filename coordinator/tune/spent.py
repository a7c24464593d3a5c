"""How much of a budget is spent, by the times at which the committed readings began.

An estimate knows nothing of rests at the power cap, which can take ten times as long as a burst. So
a round counts as long as its readings lie apart on their boards, and what is planned next is
estimated at the pace so far. Times in which nothing was measured (a night between two runs) do not
count. Readings of a recording have no time of here; their estimates count.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from itertools import pairwise
from typing import Final

from coordinator.tune.readings import Reading

LONGEST_GAP_S: Final = 60.0
"""Between two readings of a board; a longer one is a pause of the tuning."""


class Spent:
    """The time of one type of device."""

    def __init__(self) -> None:
        self._planned_s = 0.0
        self._estimated_s = 0.0
        self._taken_s = 0.0

    @property
    def total_s(self) -> float:
        """Of all rounds, the present one included."""
        return self._taken_s + self.pace * self._planned_s

    @property
    def pace(self) -> float:
        """How many times as long as estimated the rounds took."""
        return self._taken_s / self._estimated_s if self._taken_s else 1.0

    def plan(self, seconds: float) -> None:
        """Cells of the present round, by their estimates."""
        self._planned_s += seconds

    def note(self, readings: Iterable[Reading]) -> None:
        """The readings of the present round, which is over."""
        taken_s = _apart_s(readings)
        self._taken_s += self.pace * self._planned_s if taken_s is None else taken_s
        self._estimated_s += self._planned_s
        self._planned_s = 0.0


def _apart_s(readings: Iterable[Reading]) -> float | None:
    """Time over which readings lie apart, over all boards; None where that is not known."""
    began_s: dict[str, list[float]] = defaultdict(list)
    for reading in readings:
        if reading.began_s is not None:
            began_s[reading.board].append(reading.began_s)
    boards = [sorted(times) for times in began_s.values() if len(times) > 1]
    if not boards:
        return None
    total_s = 0.0
    for times in boards:
        gaps = [later - earlier for earlier, later in pairwise(times)]
        counted = [gap for gap in gaps if gap <= LONGEST_GAP_S]
        # The last one takes as long as the others.
        total_s += sum(counted) * len(times) / len(gaps)
    return total_s
