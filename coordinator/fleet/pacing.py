"""How often agents send rows, and how long a poll gathers them.

A batch costs the coordinator the same, however many rows it has: so a large fleet sends fewer and
larger ones. Knows nothing of Ray.
"""

from __future__ import annotations

from collections.abc import Callable
from time import monotonic
from typing import Final

BATCH_S: Final = 0.4
"""A batch of rows is sent after this time, however few rows it has."""
BATCHES_PER_S: Final = 400.0
"""Of all agents together, at most: half of what one coordinator takes (docs/scaling.md)."""
GATHER_S: Final = 0.05
"""Between two polls that have events: events that come together cost less."""


def batch_s(agents: int) -> float:
    """Seconds after which each of so many agents sends what it has measured."""
    return max(BATCH_S, agents / BATCHES_PER_S)


class Gathering:
    """For how long a poll that has its first event waits for more.

    What came while the last events were worked off has gathered already: a loop that has more to do
    than GATHER_S never waits.

    Args:
        now_s: a clock that only grows.
    """

    def __init__(self, now_s: Callable[[], float] = monotonic) -> None:
        self._now_s = now_s
        self._until_s = now_s()

    @property
    def left_s(self) -> float:
        """Until the next poll should end."""
        return max(0.0, self._until_s - self._now_s())

    def polled(self) -> None:
        """A poll has events."""
        self._until_s = self._now_s() + GATHER_S
