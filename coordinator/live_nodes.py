"""The nodes of a run, as rows of `status --watch`: devices, rate, failures, models, what they do.

Knows nothing of terminals.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from coordinator.fleet.live import LiveAgent, LiveRun

WELL: Final = ("measuring", "idle", "starting")
"""States of agents that are no trouble."""


@dataclass(frozen=True, slots=True)
class NodeRow:
    """The agents of one node, as a row of the table."""

    name: str
    agents: Sequence[LiveAgent]

    @property
    def is_well(self) -> bool:
        """Whether every agent measures or could."""
        return all(agent.state in WELL for agent in self.agents)

    def texts(self, *, is_measuring: bool) -> tuple[str, ...]:
        """The columns of the row."""
        models = {agent.model or "-" for agent in self.agents}
        cells_per_s = sum(agent.cells_per_s for agent in self.agents)
        busy = sum(agent.busy_ratio for agent in self.agents) / len(self.agents)
        return (
            self.name,
            _counted(short_name(agent.device) for agent in self.agents),
            f"{cells_per_s:.1f}" if is_measuring else "-",
            f"{100 * busy:.0f} %" if is_measuring else "-",
            str(sum(agent.failed for agent in self.agents)),
            models.pop() if len(models) == 1 else "mixed",
            self._states() if is_measuring else "-",
        )

    def _states(self) -> str:
        """What the agents do; where some do not measure, only these."""
        counts = Counter(agent.state for agent in self.agents)
        if len(counts) == 1:
            return next(iter(counts))
        del counts["measuring"]
        return ", ".join(f"{count} {state}" for state, count in counts.most_common())


def nodes_of(run: LiveRun) -> list[NodeRow]:
    """The nodes: those with trouble first, else by name."""
    by_node: dict[str, list[LiveAgent]] = defaultdict(list)
    for name, agent in run.agents.items():
        # An agent's name is HOST-NODE/DEVICE.
        by_node[name.rpartition("/")[0] or name].append(agent)
    rows = [NodeRow(name, agents) for name, agents in sorted(by_node.items())]
    return sorted(rows, key=lambda row: row.is_well)


def short_name(device: str) -> str:
    """`H100 80GB HBM3` of `NVIDIA H100 80GB HBM3`."""
    return device.removeprefix("NVIDIA ") or "?"


def _counted(names: Iterable[str]) -> str:
    counts = Counter(names)
    return ", ".join(f"{count} x {name}" if count > 1 else name for name, count in counts.items())
