"""How fast a count grows, over the last minute."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Final

RATE_S: Final = 60.0
"""A rate is that of the last minute."""


class Rate:
    """How many a second, over the last minute.

    Args:
        now_s: a clock that only grows.
    """

    def __init__(self, now_s: Callable[[], float]) -> None:
        self._now_s = now_s
        self._counts: deque[tuple[float, float]] = deque()

    def of(self, count: float) -> float | None:
        """The rate, when the count is this one now; None before there is any."""
        now_s = self._now_s()
        self._counts.append((now_s, count))
        while len(self._counts) > 2 and self._counts[1][0] <= now_s - RATE_S:
            self._counts.popleft()
        first_s, first = self._counts[0]
        if count == first or now_s <= first_s:
            return None
        return (count - first) / (now_s - first_s)
