"""Since when a board is off: the step in its readings, in the order of time.

    score(i) = |mean after i - mean before i| sqrt(n_before n_after / n) / scatter

The step is where the score is highest. Readings are over what cells that are alike take, and far
ones count as LIMIT scatters, so that no single one makes a step.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from coordinator.health.readings import Numbers, Words
from coordinator.health.shifts import SCATTER

LIMIT: Final = 3.0
"""Scatters that a reading counts at most."""
FEWEST: Final = 8
"""Readings before a step, and after it."""
STEP: Final = 6.0
"""Below this score there is no step: of 1,000 readings without one, the highest score is 3 to 4."""


def since(values: Numbers, moments: Words) -> str:
    """The moment of the first reading after the step; of the first reading where there is none.

    Args:
        values: [n] readings of one board over what is usual, in logarithms; NaN: not known.
        moments: [n] when each was measured: UTC, ISO 8601.
    """
    order = np.argsort(moments.astype(str), kind="stable")
    known = order[~np.isnan(values[order])]
    if not len(known):
        return str(moments[order[0]]) if len(order) else ""
    first = _first_after_step(values[known])
    return str(moments[known[first]])


def _first_after_step(values: Numbers) -> int:
    count = len(values)
    if count < 2 * FEWEST:
        return 0
    scatter = SCATTER * float(np.median(np.abs(np.diff(values)))) / np.sqrt(2)
    if scatter == 0:
        return 0
    middle = np.median(values)
    clipped = np.clip((values - middle) / scatter, -LIMIT, LIMIT)
    sums = np.cumsum(clipped)
    before = np.arange(FEWEST, count - FEWEST + 1)
    after = count - before
    mean_before = sums[before - 1] / before
    mean_after = (sums[-1] - sums[before - 1]) / after
    # Only a rise is a fault that began.
    scores = (mean_after - mean_before) * np.sqrt(before * after / count)
    best = int(np.argmax(scores))
    return int(before[best]) if scores[best] >= STEP else 0
