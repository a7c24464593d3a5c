"""The metrics of a run, for Prometheus: their names, labels and meaning. docs/watching.md has them.

Base units stand in the names (seconds, ratio, total), labels have few values: an agent, a status, a
state, a board, a reason. Ray's exporter puts `ray_` before each name and labels of its own behind.
Knows nothing of Ray: session.py gives its `Counter` and `Gauge`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final, Literal, Protocol


@dataclass(frozen=True, slots=True, kw_only=True)
class Metric:
    """One metric."""

    name: str
    kind: Literal["counter", "gauge"]
    meaning: str
    labels: tuple[str, ...] = ()


def _counter(name: str, meaning: str, *labels: str) -> Metric:
    return Metric(name=name, kind="counter", meaning=meaning, labels=labels)


def _gauge(name: str, meaning: str, *labels: str) -> Metric:
    return Metric(name=name, kind="gauge", meaning=meaning, labels=labels)


METRICS: Final = (
    _gauge("gemmcast_run_active", "1 while a run measures or trains, 0 once it has ended"),
    _gauge("gemmcast_cells", "Cells of the plan, or of its budget, on all devices that joined"),
    _gauge("gemmcast_cells_due", "Of these, cells without an answer"),
    _gauge("gemmcast_cells_per_second", "Rows committed a second, over the last minute"),
    _counter("gemmcast_rows_total", "Rows committed; a failure is a status but ok", "status"),
    _counter("gemmcast_rows_refused_total", "Rows that agents sent and admission refused"),
    _counter("gemmcast_commits_total", "Commits to the sample store"),
    _gauge(
        "gemmcast_commit_lag_seconds",
        "What the oldest row of the last commit had waited at the coordinator, or waits by now",
    ),
    _gauge("gemmcast_loop_seconds", "Longest pass of the coordinator's loop in the last second"),
    _counter("gemmcast_store_failures_total", "Commits or reads that the sample store refused"),
    _gauge("gemmcast_agents", "Agents by what they do", "state"),
    _gauge("gemmcast_agent_cells_per_second", "Rows of an agent, over the last minute", "agent"),
    _gauge(
        "gemmcast_agent_busy_ratio",
        "Share of the last minute in which an agent had cells to measure",
        "agent",
    ),
    _gauge(
        "gemmcast_agent_model_version",
        "Model version that an agent has read back; 0: none yet",
        "agent",
    ),
    _gauge("gemmcast_champion_version", "Model version that every agent should have; 0: none yet"),
    _gauge("gemmcast_agents_without_champion", "Agents that have not taken that version"),
    _gauge("gemmcast_training_active", "1 while a training runs"),
    _gauge("gemmcast_training_seconds", "How long the last training took, the gate included"),
    _counter("gemmcast_trainings_total", "Trainings by how they ended", "outcome"),
    _gauge(
        "gemmcast_fresh_error_ratio",
        "Median error of the champion's runtime on rows measured since it is champion",
    ),
    _gauge(
        "gemmcast_board_sick",
        "1 while a board is sick, and 1 for each reason; its samples are not trained on",
        *("board", "device", "reason"),
    ),
)
"""In the order of the dashboard."""


class Meters(Protocol):
    """Where the figures of a run go."""

    def set(self, name: str, value: float, **labels: str) -> None:
        """A gauge has this value now."""

    def add(self, name: str, amount: float, **labels: str) -> None:
        """A counter has grown by so much; nothing happens for 0 and less."""


class RayGauge(Protocol):
    """ray.util.metrics.Gauge."""

    def set(self, value: float, tags: dict[str, str]) -> None:
        """See Ray."""


class RayCounter(Protocol):
    """ray.util.metrics.Counter."""

    def inc(self, value: float, tags: dict[str, str]) -> None:
        """See Ray."""


class ExportedMeters:
    """Those of Ray's exporter, in a process that is connected to a cluster.

    Args:
        gauge: makes a gauge of a name, a meaning and labels; `counter` likewise.
    """

    def __init__(
        self,
        gauge: Callable[[str, str, tuple[str, ...]], RayGauge],
        counter: Callable[[str, str, tuple[str, ...]], RayCounter],
    ) -> None:
        self._gauges: Mapping[str, RayGauge] = {
            metric.name: gauge(metric.name, metric.meaning, metric.labels)
            for metric in METRICS
            if metric.kind == "gauge"
        }
        self._counters: Mapping[str, RayCounter] = {
            metric.name: counter(metric.name, metric.meaning, metric.labels)
            for metric in METRICS
            if metric.kind == "counter"
        }

    def set(self, name: str, value: float, **labels: str) -> None:
        """A gauge has this value now."""
        self._gauges[name].set(float(value), labels)

    def add(self, name: str, amount: float, **labels: str) -> None:
        """A counter has grown by so much."""
        if amount > 0:
            self._counters[name].inc(float(amount), labels)
