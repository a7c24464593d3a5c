"""Time one kernel in a burst: batches of launches until the median settles.

A batch is long enough for the clock that times it; batches repeat until the relative standard error of their median is
below the target, or the time is spent. Knows nothing of what is launched or of which clock: tests pass a fake batch.

The standard error of a median is 1.2533 sigma / sqrt(n); sigma is estimated by 1.4826 MAD, so that one interrupted batch does not count.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from time import perf_counter

import numpy as np

from gemmcast.procedure import Procedure

BatchUs = Callable[[int], float]
# microseconds that n launches took
MIN_BATCHES = 7
# before they may be called settled: of five, three equal ones would do
MIN_BATCHES_SPENT, MIN_BATCHES_LATE = 5, 3
# when the time is up, and when four times of it are
MAX_BATCHES = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class Burst:
    """The time of one launch."""

    runtime_us: float
    runtime_rse: float
    repeats: int
    # launches timed


def time_burst(
    batch_us: BatchUs, procedure: Procedure, *, min_batch_us: float, max_launches: int, now_s: Callable[[], float] = perf_counter
) -> Burst:
    """The median time of a launch.

    Args:
        batch_us: runs that many launches and times them; the kernel is warm.
        min_batch_us: a batch shorter than this is not worth the clock's resolution.
        max_launches: in one batch.
    """
    start_s = now_s()
    launches = _size(batch_us, min_batch_us, max_launches)
    times_us: list[float] = []
    while len(times_us) < MAX_BATCHES:
        times_us.append(batch_us(launches) / launches)
        spent = now_s() - start_s > procedure.burst_s
        settled = len(times_us) >= MIN_BATCHES and relative_standard_error(times_us) < procedure.target_rse
        overdue = now_s() - start_s > 4 * procedure.burst_s
        if settled or (spent and len(times_us) >= (MIN_BATCHES_LATE if overdue else MIN_BATCHES_SPENT)):
            break
    return Burst(runtime_us=float(np.median(times_us)), runtime_rse=relative_standard_error(times_us), repeats=launches * len(times_us))


def relative_standard_error(times_us: list[float]) -> float:
    """Of the median, robustly."""
    times = np.asarray(times_us)
    median = float(np.median(times))
    sigma = 1.4826 * float(np.median(np.abs(times - median)))
    return 1.2533 * sigma / np.sqrt(len(times)) / median if median > 0 else 0.0


def _size(batch_us: BatchUs, min_batch_us: float, max_launches: int) -> int:
    """Launches that fill a batch, estimated from ever longer ones; a long reading is never trusted alone: it may have been interrupted."""
    launches = 1
    for _ in range(8):
        took_us = batch_us(launches)
        if took_us >= min_batch_us:
            took_us = min(took_us, batch_us(launches))
        wanted = int(np.ceil(launches * 1.1 * min_batch_us / max(took_us, 1e-3)))
        if took_us >= min_batch_us or launches >= max_launches:
            break
        launches = min(max(wanted, launches + 1), max_launches, launches * 32)
    return launches
