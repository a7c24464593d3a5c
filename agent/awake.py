"""Time as a process has lived it: what passes while it is frozen does not count.

A suspended machine or a stopped process (SIGSTOP, a cgroup's freezer) stands still while the clock
goes on, and so does its child. Such a gap shows as two looks at the clock that lie far apart.
"""

from __future__ import annotations

from collections.abc import Callable
from time import monotonic

STALL_S = 1.0
"""Of a longer time between two looks only this much counts. A caller looks several times a second;
where a busy machine makes that less, time passes more slowly, but it passes."""


class AwakeTime:
    """A stopwatch; look at it often.

    Args:
        now_s: a clock that only grows.
    """

    def __init__(self, now_s: Callable[[], float] = monotonic) -> None:
        self._now_s = now_s
        self.restart()

    def restart(self) -> None:
        """Begin at 0."""
        self._passed_s = 0.0
        self._looked_s = self._now_s()

    def look(self) -> float:
        """Seconds since the start, without those of a freeze."""
        now_s = self._now_s()
        self._passed_s += min(now_s - self._looked_s, STALL_S)
        self._looked_s = now_s
        return self._passed_s
