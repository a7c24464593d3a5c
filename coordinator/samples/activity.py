"""How a run is doing, read from its store: rate, agents, and the age of the last commit.

The rate is that of the last minute in which anything was measured, by the clocks of the nodes; the
age says whether that minute is now. Does not know whether a coordinator runs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from coordinator.samples.store import SampleStore

WINDOW = timedelta(minutes=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Activity:
    """The last minute of measuring."""

    cells_per_s: float | None
    """None for fewer than two rows."""
    agents: int
    """Agents that measured a row in it."""
    last_commit_s: float | None
    """Age of the last commit that changed the table. [s]"""


def activity(samples: SampleStore) -> Activity:
    """The activity that a store shows."""
    columns = samples.columns("measured_at", "agent")
    committed_ms = samples.committed_ms
    now_ms = datetime.now(UTC).timestamp() * 1e3
    age_s = None if committed_ms is None else max(0.0, (now_ms - committed_ms) / 1e3)
    moments = columns["measured_at"].to_pylist()
    rate, agents = last_minute(moments, columns["agent"].to_pylist())
    return Activity(cells_per_s=rate, agents=agents, last_commit_s=age_s)


def last_minute(
    moments: Sequence[str | None], agents: Sequence[str | None]
) -> tuple[float | None, int]:
    """Rows a second, and how many agents, in the minute before the newest row.

    Args:
        moments: of each row: UTC, ISO 8601; rows without a time do not count.
        agents: of each row.
    """
    timed = [
        (datetime.fromisoformat(moment), agent)
        for moment, agent in zip(moments, agents, strict=True)
        if moment
    ]
    if not timed:
        return None, 0
    newest = max(moment for moment, _ in timed)
    recent = [(moment, agent) for moment, agent in timed if newest - moment <= WINDOW]
    oldest = min(moment for moment, _ in recent)
    span_s = (newest - oldest).total_seconds()
    rate = (len(recent) - 1) / span_s if span_s > 0 else None
    return rate, len({agent for _, agent in recent})
