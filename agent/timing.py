"""Time one kernel in a burst: batches of launches until the median settles.

A batch is long enough for the clock that times it; batches repeat until the relative standard error of their median is
below the target, or the time is spent. Batches that began at a clock that somebody else had lowered (the kernel before, a hot
board) are left out: after a rest they are run again; where no rest helps, the burst says so.
Knows nothing of what is launched or of which clock: tests pass fake batches.

The standard error of a median is 1.2533 sigma / sqrt(n); sigma is estimated by 1.4826 MAD, so that one interrupted batch does not count.

Whatever takes time is a generator of `Pending`: it yields work that is under way, and is resumed when somebody has waited for it.
So one thread prepares the next measurement while the device is busy with this one (agent/instrument.py).
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from time import sleep
from typing import Protocol, TypeVar

import numpy as np

from gemmcast.procedure import Procedure

T = TypeVar("T")
MIN_BATCHES = 7
# before they may be called settled: of five, three equal ones would do
MIN_BATCHES_SPENT, MIN_BATCHES_LATE = 5, 3
# when the time is up, and when four times of it are
MAX_BATCHES = 200
LOW_CLOCK = 0.97
# of the highest clock seen: below it the board is held back
RESTS_S = (0.1, 0.3, 1.0)
# how long a board that is held back is left alone before another try


class Pending(Protocol):
    """Work that is under way."""

    def wait(self) -> None:
        """Until it is done."""


Steps = Generator[Pending, None, T]


def finish(steps: Steps[T]) -> T:
    """Run to the end, waiting for each step."""
    while True:
        try:
            next(steps).wait()
        except StopIteration as end:
            result: T = end.value
            return result


@dataclass(frozen=True, slots=True)
class Rest:
    """Nothing runs for a while."""

    seconds: float
    sleep: Callable[[float], None] = sleep

    def wait(self) -> None:
        self.sleep(self.seconds)


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """Launches in a row."""

    took_us: float
    # all of them
    clock_mhz: float | None = None
    # mean while they ran
    start_mhz: float | None = None
    # just before, of a kernel that draws little


class Batches(Pending, Protocol):
    """Batches under way; read after waiting."""

    def read(self) -> Sequence[Batch]: ...


RunBatches = Callable[[int, int], Batches]
# (launches in a batch, how many batches)


@dataclass(frozen=True, slots=True, kw_only=True)
class Burst:
    """The time of one launch."""

    runtime_us: float
    runtime_rse: float
    launches_timed: int
    # launches timed
    clock_mhz: float | None = None
    start_mhz: float | None = None
    held_back: bool = False
    # the clock was low before the kernel ran, and no rest helped


def time_burst(
    run: RunBatches, launches: int, procedure: Procedure, *, at_once: int = 1, spent_s: Callable[[], float] | None = None,
    full_mhz: Callable[[], float | None] = lambda: None,
) -> Steps[Burst]:  # fmt: skip
    """The median time of a launch.

    Args:
        run: starts that many batches of that many launches; the kernel is warm.
        launches: in a batch.
        at_once: batches that are started before anybody looks, one at least.
        spent_s: what counts as spent of the procedure's time; the batches' own time, if nothing is given.
        full_mhz: the highest clock seen so far on this device, if clocks can be read.
    """
    batches: list[Batch] = []
    held: list[Batch] = []
    rests = iter(RESTS_S)
    while (count := min(_wanted(batches, procedure, at_once, spent_s), at_once)) > 0:
        running = run(launches, count)
        yield running
        found = running.read()
        batches += [batch for batch in found if not _is_low(batch, full_mhz())]
        low = [batch for batch in found if _is_low(batch, full_mhz())]
        held += low
        if low and len(low) >= len(found) - len(low):
            pause_s = next(rests, None)
            if pause_s is None:
                break
            yield Rest(pause_s)
    if len(batches) < MIN_BATCHES_LATE and held:
        return _burst(held, launches, held_back=True)
    return _burst(batches, launches, held_back=False)


def size(run: RunBatches, min_batch_us: float, max_launches: int) -> Steps[int]:
    """Launches that fill a batch, estimated from ever longer ones; a long reading is never trusted alone: it may have been interrupted."""
    launches = 1
    for _ in range(8):
        took_us = yield from _once(run, launches)
        if took_us >= min_batch_us:
            took_us = min(took_us, (yield from _once(run, launches)))
        wanted = int(np.ceil(launches * 1.1 * min_batch_us / max(took_us, 1e-3)))
        if took_us >= min_batch_us or launches >= max_launches:
            break
        launches = min(max(wanted, launches + 1), max_launches, launches * 32)
    return launches


def relative_standard_error(times_us: Sequence[float]) -> float:
    """Of the median, robustly."""
    times = np.asarray(times_us)
    median = float(np.median(times))
    sigma = 1.4826 * float(np.median(np.abs(times - median)))
    return float(1.2533 * sigma / np.sqrt(len(times)) / median) if median > 0 else 0.0


def _once(run: RunBatches, launches: int) -> Steps[float]:
    running = run(launches, 1)
    yield running
    return running.read()[0].took_us


def _wanted(batches: Sequence[Batch], procedure: Procedure, at_once: int, clock_s: Callable[[], float] | None) -> int:
    """How many more: 0 when settled, or when the time is spent."""
    if not batches:
        return max(MIN_BATCHES, at_once)
    times_us = [batch.took_us for batch in batches]
    spent_s = sum(times_us) * 1e-6 if clock_s is None else clock_s()
    if len(batches) >= MAX_BATCHES or (len(batches) >= MIN_BATCHES and relative_standard_error(times_us) < procedure.target_rse):
        return 0
    least = MIN_BATCHES_LATE if spent_s > 4 * procedure.burst_s else MIN_BATCHES_SPENT
    if spent_s > procedure.burst_s and len(batches) >= least:
        return 0
    return MIN_BATCHES


def _is_low(batch: Batch, full_mhz: float | None) -> bool:
    return batch.start_mhz is not None and full_mhz is not None and batch.start_mhz < LOW_CLOCK * full_mhz


def _burst(batches: Sequence[Batch], launches: int, *, held_back: bool) -> Burst:
    times_us = [batch.took_us / launches for batch in batches]
    return Burst(
        runtime_us=float(np.median(times_us)),
        runtime_rse=relative_standard_error(times_us),
        launches_timed=launches * len(batches),
        clock_mhz=_median([batch.clock_mhz for batch in batches]),
        start_mhz=_median([batch.start_mhz for batch in batches]),
        held_back=held_back,
    )


def _median(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return float(np.median(known)) if known else None
