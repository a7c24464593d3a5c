"""How long a run waits for an agent that can measure what is left.

Knows nothing of agents; the scheduler says whether any is of use.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

from gemmcast.errors import GemmcastError

NO_AGENT_S: Final = 300.0
"""A run that has cells left ends after this time without any agent that is likely to measure them.
Ray restarts agents in seconds; a node may need minutes to come back."""


class Hope:
    """That an agent comes, or comes back.

    Args:
        limit_s: how long a run goes on without one.
        now_s: a clock that only grows.
    """

    def __init__(self, limit_s: float, now_s: Callable[[], float]) -> None:
        self._limit_s = limit_s
        self._now_s = now_s
        self._lost_s: float | None = None

    def renew(self) -> None:
        """An agent is of use."""
        self._lost_s = None

    def check(self, faults: Mapping[str, str]) -> None:
        """No agent is of use.

        Args:
            faults: agent -> why.

        Raises:
            GemmcastError: for too long.
        """
        now_s = self._now_s()
        if self._lost_s is None:
            self._lost_s = now_s
        if now_s - self._lost_s <= self._limit_s:
            return
        reasons = [f"{agent}: {reason}" for agent, reason in faults.items()]
        reason = reasons[-1] if reasons else "no node has a device that the plan measures"
        raise GemmcastError(
            f"no agent has measured for {self._limit_s:.0f} s ({reason}); what was measured is "
            "committed: mend the nodes, and start the same command again to go on"
        )
