"""Who watches a run: every two seconds its state goes to the workspace and to the metrics.

Counters grow by what is new since the last time. Gauges are set each time, changed or not: Ray's
exporter forgets those that nobody has set for 20 s, and so an agent that has left. Knows nothing of
Ray: `Meters` and `Fleet` stand for it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from time import monotonic
from typing import Final

from coordinator.fleet.interface import Fleet, Progress
from coordinator.fleet.live import (
    ENDED,
    FAILED,
    MEASURING,
    STOPPED,
    LiveRun,
    Moment,
    live_run,
)
from coordinator.fleet.meters import Meters
from coordinator.fleet.rate import Rate
from coordinator.fleet.tally import Tally
from gemmcast.errors import GemmcastError

VIEW_S: Final = 2.0
"""Time between two views."""
Boards = Callable[[], Sequence[tuple[dict[str, str], bool]]]
"""Labels of each board, and whether it is sick (coordinator/health/record.py)."""


@dataclass(frozen=True, slots=True)
class RunNote:
    """Which run it is, and where its state is kept."""

    plan: str
    """Name of the plan."""
    started_at: str
    """UTC, RFC 3339."""
    path: Path
    """The workspace's live.json."""


class RunWatch:
    """The views of one run.

    Args:
        now_s: a clock that only grows.
    """

    def __init__(
        self,
        note: RunNote,
        fleet: Fleet,
        meters: Meters,
        tally: Tally,
        boards: Boards,
        now_s: Callable[[], float] = monotonic,
    ) -> None:
        self._run = note
        self._fleet = fleet
        self._meters = meters
        self._tally = tally
        self._boards = boards
        self._now_s = now_s
        self._rate = Rate(now_s)
        self._viewed_s: float | None = None
        self._counted = Counter[tuple[str, str]]()

    def look(self, progress: Progress) -> None:
        """Note the run's state, if it is time; also in `progress`, for the display."""
        progress.lag_s = self._tally.lag_s
        progress.champion = self._fleet.delivery.wanted
        now_s = self._now_s()
        if self._viewed_s is None or now_s - self._viewed_s >= VIEW_S:
            self._viewed_s = now_s
            self._note(progress, MEASURING)

    def end(self, progress: Progress, *, is_complete: bool) -> None:
        """The run is over: with nothing left, or by a signal."""
        self._note(progress, ENDED if is_complete else STOPPED)

    @contextmanager
    def noting_failure(self, progress: Progress) -> Iterator[None]:
        """Note it if the run ends with an error."""
        try:
            yield
        except GemmcastError:
            self._note(progress, FAILED)
            raise

    def _note(self, progress: Progress, state: str) -> None:
        # Until an agent has joined no time counts.
        rate = self._rate.of(progress.committed_now) if progress.agents else None
        moment = Moment(
            plan=self._run.plan,
            started_at=self._run.started_at,
            state=state,
            cells_per_s=rate,
            starting=self._fleet.starting(),
        )
        run = live_run(moment, progress, self._tally, self._fleet.delivery)
        run.write(self._run.path)
        self._set_run(run)
        self._set_agents(run)
        self._set_training(run)
        for labels, is_sick in self._boards():
            self._meters.set("gemmcast_board_sick", is_sick, **labels)
        for status, rows in run.statuses.items():
            self._count("gemmcast_rows_total", rows, status=status)
        self._count("gemmcast_rows_refused_total", run.refused)
        self._count("gemmcast_commits_total", run.commits)
        self._count("gemmcast_store_failures_total", run.store_failures)

    def _set_run(self, run: LiveRun) -> None:
        is_active = run.state == MEASURING
        self._meters.set("gemmcast_run_active", is_active)
        self._meters.set("gemmcast_cells", run.cells)
        self._meters.set("gemmcast_cells_due", run.due)
        self._meters.set("gemmcast_cells_per_second", run.cells_per_s or 0.0)
        self._meters.set("gemmcast_loop_seconds", run.loop_s)
        if run.lag_s is not None:
            self._meters.set("gemmcast_commit_lag_seconds", run.lag_s)
        for state, agents in run.by_state().items():
            self._meters.set("gemmcast_agents", agents * is_active, state=state)

    def _set_agents(self, run: LiveRun) -> None:
        for name, agent in run.agents.items():
            version = version_number(agent.model)
            self._meters.set("gemmcast_agent_cells_per_second", agent.cells_per_s, agent=name)
            self._meters.set("gemmcast_agent_busy_ratio", agent.busy_ratio, agent=name)
            self._meters.set("gemmcast_agent_model_version", version, agent=name)

    def _set_training(self, run: LiveRun) -> None:
        self._meters.set("gemmcast_champion_version", version_number(run.champion))
        self._meters.set("gemmcast_agents_without_champion", run.without_champion)
        self._meters.set("gemmcast_training_active", run.training)
        if run.fresh_error_ratio is not None:
            self._meters.set("gemmcast_fresh_error_ratio", run.fresh_error_ratio)
        if self._tally.training_s is not None:
            self._meters.set("gemmcast_training_seconds", self._tally.training_s)
        for outcome, trainings in list(self._tally.trainings.items()):
            self._count("gemmcast_trainings_total", trainings, outcome=outcome)

    def _count(self, name: str, total: int, **labels: str) -> None:
        """Add what a total has grown by since the last view."""
        key = (name, "".join(labels.values()))
        self._meters.add(name, total - self._counted[key], **labels)
        self._counted[key] = max(total, self._counted[key])


def version_number(version: str | None) -> int:
    """The number of a model version; 0 where there is none, or where it is no number."""
    return int(version) if version is not None and version.isdecimal() else 0
