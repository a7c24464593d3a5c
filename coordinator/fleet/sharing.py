"""How long an agent waits whose device is used by other processes too.

    pause = 1, 2, 4, ... 30 s, then one cell to see whether the device is free
    patience = as long as the device was free before, but at least a minute and at most an hour

When a whole lease was contended, the agent gets nothing but such cells until one of them is
measured. If it still is contended after that patience, the agent is not waited for any longer: the
run ends if nothing else is left.
Knows nothing of leases or cells.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from coordinator.samples.answers import CONTENDED

FIRST_PAUSE_S = 1.0
LONGEST_PAUSE_S = 30.0
LEAST_PATIENCE_S = 60.0
MOST_PATIENCE_S = 3600.0


class Sharing:
    """What is known of the other processes on one agent's device.

    Args:
        now_s: a clock that only grows.
        fewest: contended rows in succession without which the device counts as free.
    """

    def __init__(self, now_s: Callable[[], float], fewest: int = 1) -> None:
        self._now_s = now_s
        self._fewest = fewest
        self._began_s = now_s()
        self._in_succession = 0
        self._shared_since_s: float | None = None
        self._pause_s = 0.0
        self._until_s = 0.0
        self.is_given_up = False
        """Whether it is not waited for any longer."""
        self.reason = ""
        """What the agent said last of the other processes."""

    @property
    def is_shared(self) -> bool:
        """Whether a whole lease was contended, and no cell was measured since."""
        return self._shared_since_s is not None

    @property
    def is_resting(self) -> bool:
        """Whether the pause before the next try is not over."""
        return self._now_s() < self._until_s

    def saw(self, statuses: Sequence[str], reasons: Sequence[str | None]) -> bool:
        """Rows of the agent have come; returns whether they show that the device is free again."""
        was_shared = self.is_shared
        for status, reason in zip(statuses, reasons, strict=True):
            if status == CONTENDED:
                self._in_succession += 1
                self.reason = reason or CONTENDED
            elif self._in_succession or self.is_shared:
                self._note_free()
        return was_shared and not self.is_shared

    def lease_ended(self, cells: int) -> None:
        """A lease of so many cells has ended: if all of them were contended, wait."""
        if self._in_succession < max(cells, self._fewest):
            return
        now_s = self._now_s()
        if self._shared_since_s is None:
            self._shared_since_s = now_s
        free_s = self._shared_since_s - self._began_s
        patience_s = min(max(LEAST_PATIENCE_S, free_s), MOST_PATIENCE_S)
        self.is_given_up = now_s - self._shared_since_s > patience_s
        self._pause_s = min(max(FIRST_PAUSE_S, 2 * self._pause_s), LONGEST_PAUSE_S)
        self._until_s = now_s + self._pause_s

    def _note_free(self) -> None:
        self._in_succession = 0
        self._shared_since_s = None
        self._pause_s = 0.0
        self._until_s = 0.0
        self.is_given_up = False
