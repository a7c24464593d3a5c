"""How often agents send rows, and how long a poll gathers them.

A batch costs the coordinator the same, however many rows it has: so a large fleet sends fewer and
larger ones. Knows nothing of Ray.
"""

from __future__ import annotations

from typing import Final

BATCH_S: Final = 0.4
"""A batch of rows is sent after this time, however few rows it has."""
BATCHES_PER_S: Final = 400.0
"""Of all agents together, at most: half of what one coordinator takes (docs/scaling.md)."""
GATHER_S: Final = 0.05
"""A poll goes on for this time after its first event: events that come together cost less."""


def batch_s(agents: int) -> float:
    """Seconds after which each of so many agents sends what it has measured."""
    return max(BATCH_S, agents / BATCHES_PER_S)
