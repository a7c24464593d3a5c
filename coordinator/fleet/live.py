"""The state of a run at one moment: what `status --watch`, the metrics and the log say of it.

The run keeps it in the workspace's live.json, every two seconds; whoever reads the file needs no
cluster and no store. Knows nothing of Ray, nor of how it is shown.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field, fields
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    # Who reads a file needs none of them, nor what they import.
    from coordinator.fleet.delivery import Delivery
    from coordinator.fleet.interface import Progress
    from coordinator.fleet.tally import Tally

MEASURING, ENDED, STOPPED, FAILED = "measuring", "ended", "stopped", "failed"
"""What a run does, or how it ended: with nothing left, by a signal, by an error."""
STATES: Final = ("measuring", "idle", "waiting", "fault", "starting")
"""What an agent does: waiting is for other processes to leave its device."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LiveAgent:
    """One agent."""

    device: str
    """Name of the product; empty: it has not started yet."""
    state: str
    """One of STATES."""
    reason: str = ""
    """Why it waits, or gets no cells."""
    rows: int = 0
    """That were committed in this run."""
    failed: int = 0
    """Of these, the ones with a status other than ok."""
    cells_per_s: float = 0.0
    """Over the last minute."""
    busy_ratio: float = 0.0
    """Share of the last minute in which it had cells to measure."""
    model: str | None = None
    """Version of the model that it has read back."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LiveRun:
    """One run."""

    plan: str
    """Name of the plan."""
    started_at: str
    """UTC, RFC 3339."""
    at: str
    """When this was noted: UTC, RFC 3339."""
    state: str
    """MEASURING, ENDED, STOPPED or FAILED."""
    cells: int
    """Of all devices that have joined; with a budget, as many as it has room for."""
    done: int
    """Cells that have an answer, from this run or earlier."""
    budget: str
    """What is spent of it, for people; empty without one."""
    cells_per_s: float | None
    """Over the last minute; None before there is any."""
    eta_s: float | None
    """Time until every cell has an answer, at that rate; None: not known."""
    lag_s: float | None
    """What the oldest row of the last commit had waited, or waits by now."""
    loop_s: float
    """Longest pass of the coordinator's loop in the last second."""
    rows: int
    """That were committed in this run."""
    statuses: Mapping[str, int]
    """Status -> rows of this run."""
    refused: int
    """Rows that agents sent and admission refused."""
    commits: int
    store_failures: int
    """How often the store has failed."""
    training: bool
    """Whether a training is running."""
    champion: str | None
    """The version that every agent should have."""
    without_champion: int
    """Agents that have not taken it."""
    fresh_error_ratio: float | None
    """Median error of its runtime on rows measured since it is champion."""
    second_due: int
    """Cells that wait for a second board of their type."""
    starting: int
    """Agents that are about to start."""
    closed: str = ""
    """Outside the plan's hours: `until 22:00 (Europe/Berlin)`."""
    agents: Mapping[str, LiveAgent] = field(default_factory=dict)
    """HOST-NODE/DEVICE -> the agent."""

    @property
    def due(self) -> int:
        """Cells without an answer."""
        return self.cells - self.done

    @property
    def failures(self) -> int:
        """Rows of this run with a status other than ok."""
        return sum(self.statuses.values()) - self.statuses.get("ok", 0)

    def by_state(self) -> dict[str, int]:
        """State -> how many agents, of every state."""
        counts = Counter(agent.state for agent in self.agents.values())
        counts["starting"] += self.starting
        return {state: counts[state] for state in STATES}

    def values(self) -> dict[str, Any]:
        """As JSON has it."""
        agents = {name: _values(agent) for name, agent in self.agents.items()}
        return _values(self) | {"agents": agents}

    def write(self, path: Path) -> None:
        """Replace the file, without waiting for the disk: it is worth nothing after a crash."""
        written = path.with_name(f".{path.name}")
        # Of a disk that is full or gone the store says more.
        with suppress(OSError):
            written.write_text(json.dumps(self.values()))
            written.replace(path)

    @staticmethod
    def read(path: Path) -> LiveRun | None:
        """That of the newest run; None where none has left any, or none that can be read."""
        try:
            values: dict[str, Any] = json.loads(path.read_bytes())
            agents = {name: LiveAgent(**one) for name, one in values.pop("agents").items()}
            return LiveRun(**values, agents=agents)
        except (OSError, ValueError, TypeError, KeyError, AttributeError):
            return None


@dataclass(frozen=True, slots=True, kw_only=True)
class Moment:
    """What a snapshot needs besides the run's own counts."""

    plan: str
    started_at: str
    state: str
    cells_per_s: float | None
    starting: int


def live_run(moment: Moment, progress: Progress, tally: Tally, delivery: Delivery) -> LiveRun:
    """The run as it is now."""
    versions = delivery.versions()
    due, rate = progress.cells - progress.done, moment.cells_per_s
    fresh = tally.fresh.newest if tally.fresh is not None else None
    return LiveRun(
        plan=moment.plan,
        started_at=moment.started_at,
        at=utc_now(),
        state=moment.state,
        cells=progress.cells,
        done=progress.done,
        budget=progress.budget,
        cells_per_s=rate,
        eta_s=due / rate if rate and due else None,
        lag_s=tally.lag_s,
        loop_s=tally.loop_s,
        rows=progress.committed_now,
        statuses=dict(progress.statuses),
        refused=progress.refused,
        commits=tally.commits,
        store_failures=tally.store_failures,
        # One that a run leaves at its end is given up.
        training=progress.training and moment.state == MEASURING,
        champion=delivery.wanted,
        without_champion=sum(one != delivery.wanted for one in versions.values()),
        fresh_error_ratio=None if fresh is None else fresh.error_ratio,
        second_due=progress.second_due,
        closed=progress.closed,
        starting=moment.starting,
        agents=_agents(progress, tally, versions),
    )


def _values(one: LiveRun | LiveAgent) -> dict[str, Any]:
    """What `asdict` gives, without copies: there may be a thousand agents."""
    return {field.name: getattr(one, field.name) for field in fields(one)}


def utc_now() -> str:
    """The time, as RFC 3339 has it."""
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _agents(
    progress: Progress, tally: Tally, versions: Mapping[str, str | None]
) -> dict[str, LiveAgent]:
    agents: dict[str, LiveAgent] = {}
    for name, one in tally.agents.items():
        state, reason = _state(progress, name, has_cells=one.has_cells)
        agents[name] = LiveAgent(
            device=one.device,
            state=state,
            reason=reason,
            rows=one.rows,
            failed=one.failed,
            cells_per_s=one.cells_per_s,
            busy_ratio=one.busy_ratio,
            model=versions.get(name),
        )
    for name, reason in progress.faults.items():
        if name not in agents:
            agents[name] = LiveAgent(device="", state="fault", reason=reason)
    return agents


def _state(progress: Progress, agent: str, *, has_cells: bool) -> tuple[str, str]:
    """What an agent does, and why it does not measure."""
    if agent in progress.faults:
        return "fault", progress.faults[agent]
    if agent in progress.waiting:
        return "waiting", progress.waiting[agent]
    return ("measuring" if has_cells else "idle"), ""
