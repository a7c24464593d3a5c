"""Deaths of agents, and which of them are a cell's doing.

A death counts against the cell that was being measured when the agent is back afterwards (else its
node has died) and no other agent died at about the same time (else something else killed them).
Knows nothing of leases or queues.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

AT_ONCE_S = 3.0
"""Deaths of several agents within this time have one cause, which is no cell."""
RETURN_S = 60.0
"""An agent that is not back after this time was not killed by a cell."""


@dataclass(slots=True, kw_only=True)
class Death:
    """One agent has died."""

    agent: str
    cell_id: str | None
    """The cell that was being measured, as far as is known."""
    reason: str
    at_s: float
    is_back: bool = False
    """Whether the agent has started again since."""


class Deaths:
    """All deaths of a run.

    Args:
        now_s: a clock that only grows.
    """

    def __init__(self, now_s: Callable[[], float]) -> None:
        self._now_s = now_s
        self._deaths: list[Death] = []

    def add(self, agent: str, cell_id: str | None, reason: str) -> None:
        """An agent has died, maybe under a cell."""
        at_s = self._now_s()
        death = Death(agent=agent, cell_id=cell_id, reason=reason, at_s=at_s)
        self._deaths.append(death)

    def came_back(self, agent: str) -> None:
        """An agent has started again."""
        for death in self._deaths:
            if death.agent == agent:
                death.is_back = True

    def under(self, cell_id: str) -> list[Death]:
        """Every death while this cell was being measured, whatever its cause."""
        return [death for death in self._deaths if death.cell_id == cell_id]

    def counted(self, cell_id: str) -> list[Death]:
        """The deaths that are this cell's doing."""
        return [
            death for death in self.under(cell_id) if death.is_back and not self._is_shared(death)
        ]

    def is_settled(self, cell_id: str) -> bool:
        """Whether nothing that may still happen changes what counts against this cell."""
        return all(self._is_old(death) for death in self.under(cell_id))

    def is_quiet(self) -> bool:
        """Whether no agent has died just now."""
        return not self._deaths or self._age_s(self._deaths[-1]) > AT_ONCE_S

    def _is_shared(self, death: Death) -> bool:
        return any(
            other.agent != death.agent and abs(other.at_s - death.at_s) <= AT_ONCE_S
            for other in self._deaths
        )

    def _is_old(self, death: Death) -> bool:
        limit_s = AT_ONCE_S if death.is_back else RETURN_S
        return self._age_s(death) > limit_s

    def _age_s(self, death: Death) -> float:
        return self._now_s() - death.at_s
