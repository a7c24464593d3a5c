"""What a run counts of itself: rows and failures of each agent, how busy each is, how late commits
are.

The scheduler fills it: at each commit, and once a second with the agents' leases. Whoever shows a
run reads it (live.py). Knows nothing of Ray, nor of how it is shown.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from time import monotonic
from typing import Final

import pyarrow as pa

from coordinator.fleet.agent_state import AgentState
from coordinator.fleet.fresh_errors import FreshErrors
from coordinator.fleet.rate import Rate

LOOK_S: Final = 1.0
"""Time between two looks at the leases."""


@dataclass(slots=True)
class AgentTally:
    """What one agent has done in this run."""

    device: str
    """Name of the product."""
    rate: Rate
    busy_rate: Rate
    rows: int = 0
    """That were committed."""
    failed: int = 0
    """Of these, the ones with a status other than ok."""
    has_cells: bool = False
    """Whether it had a lease at the last look."""
    busy_s: float = 0.0
    """Time in which it had one."""
    cells_per_s: float = 0.0
    """Over the last minute."""
    busy_ratio: float = 0.0
    """Share of the last minute in which it had a lease."""


class Tally:
    """The counts of one run.

    Args:
        now_s: a clock that only grows.
        fresh: what new rows are held against; None: nothing.
    """

    def __init__(
        self, now_s: Callable[[], float] = monotonic, fresh: FreshErrors | None = None
    ) -> None:
        self._now_s = now_s
        self._looked_s = self._passed_s = now_s()
        self._longest_pass_s = 0.0
        self.fresh = fresh
        self.agents: dict[str, AgentTally] = {}
        self.trainings = Counter[str]()
        """How a training ended -> how many."""
        self.training_s: float | None = None
        """How long the last one took."""
        self.commits = 0
        self.store_failures = 0
        """How often the store has failed."""
        self.lag_s: float | None = None
        """What the oldest row of the last commit waited here; or of those that wait, if longer."""
        self.loop_s = 0.0
        """The longest pass of the scheduler's loop in the second before the last look."""

    def join(self, agent: str, device: str) -> None:
        """An agent measures from now on, on a device of this name."""
        if agent not in self.agents:
            rate, busy_rate = Rate(self._now_s), Rate(self._now_s)
            rate.of(0)
            busy_rate.of(0)
            self.agents[agent] = AgentTally(device=device, rate=rate, busy_rate=busy_rate)

    def note_commit(self, rows: pa.Table, waited_s: float) -> None:
        """One commit; its oldest row has waited for so long."""
        self.commits += 1
        self.lag_s = waited_s
        if self.fresh is not None:
            self.fresh.note_rows(rows)
        counted = rows.select(["agent", "status"]).group_by(["agent", "status"])
        for one in counted.aggregate([([], "count_all")]).to_pylist():
            agent = self.agents.get(one["agent"])
            if agent is None:
                continue
            agent.rows += one["count_all"]
            if one["status"] != "ok":
                agent.failed += one["count_all"]

    def note_model(self, model: bytes, version: str) -> None:
        """Another champion: what is fresh from here on is fresh to it."""
        if self.fresh is not None:
            self.fresh.note_model(model, version)

    def note_training(self, outcome: str, training_s: float) -> None:
        """A training has ended; called from its thread."""
        self.trainings[outcome] += 1
        self.training_s = training_s

    def look(self, agents: Mapping[str, AgentState], waiting_s: float, store_failures: int) -> None:
        """Called in each pass of the loop; looks at the agents once a second.

        Args:
            waiting_s: how long the oldest row that is not committed has waited.
            store_failures: how often the store has failed.
        """
        now_s = self._now_s()
        self._longest_pass_s = max(self._longest_pass_s, now_s - self._passed_s)
        self._passed_s = now_s
        passed_s = now_s - self._looked_s
        if passed_s < LOOK_S:
            return
        self._looked_s = now_s
        self.loop_s, self._longest_pass_s = self._longest_pass_s, 0.0
        self.store_failures = store_failures
        if waiting_s:
            self.lag_s = max(self.lag_s or 0.0, waiting_s)
        self._note_agents(agents, passed_s)
        if self.fresh is not None:
            self.fresh.look()

    def _note_agents(self, agents: Mapping[str, AgentState], passed_s: float) -> None:
        for name in self.agents.keys() - agents.keys():
            # It has left.
            del self.agents[name]
        for name, agent in self.agents.items():
            agent.has_cells = bool(agents[name].leases)
            agent.busy_s += passed_s * agent.has_cells
            agent.cells_per_s = agent.rate.of(agent.rows) or 0.0
            agent.busy_ratio = min(1.0, agent.busy_rate.of(agent.busy_s) or 0.0)
