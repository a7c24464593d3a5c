"""Time one kernel in a burst: batches of launches until the median settles.

A batch is long enough for the clock that times it. Batches repeat until the relative standard error
of their median is below the target, or the time is spent. A batch that began at a lowered clock
(the kernel before lowered it, or a hot board) is left out: after a rest batches run again. A burst
at a clock that only a power cap explains is timed again until two agree: the board's regulator may
still slow it for what ran before.

The standard error of a median is 1.2533 sigma / sqrt(n). sigma is estimated by 1.4826 MAD, so that
one interrupted batch does not count.

Whatever takes time is a generator of `Pending`: it yields work that is under way, and its caller
waits for that work before resuming it. So one thread prepares the next measurement while the device
is busy (agent/instrument.py).
Knows nothing of what is launched or of which clock: tests pass fake batches.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, replace
from math import ceil, sqrt
from time import sleep
from typing import Protocol, TypeVar

import numpy as np

from gemmcast.procedure import Procedure

T = TypeVar("T")

MIN_BATCHES = 7
"""Before a median may count as settled: of five, three equal ones would be enough."""
MIN_BATCHES_SPENT = 5
"""The same once the time is spent."""
MIN_BATCHES_LATE = 3
"""The same once four times the time is spent."""
MAX_BATCHES = 200
LOW_CLOCK = 0.97
"""Below this share of the highest clock seen, the board is held back."""
RESTS_S = (0.1, 0.3, 1.0)
"""Rests of a board that is held back, one before each new try."""
CAPPED_CLOCK = 0.9
"""Below this share of the highest clock seen, a power cap slows the kernel: of 4,962 kernels that
drew less than the cap (datasets/h100_sxm), 6 ran so slowly for half a second."""
SAME_CLOCK = 0.03
"""Two bursts whose clocks differ by less than this share agree."""
SIZING_STEPS = 8
SIZING_GROWTH = 32
"""One sizing step multiplies the launches by this at most."""
SIZING_MARGIN = 1.1


class Pending(Protocol):
    """Work that is under way."""

    def wait(self) -> None:
        """Return when it is done."""


Steps = Generator[Pending, None, T]


def finish(steps: Steps[T]) -> T:
    """Run a generator to its end, waiting for each step; returns its value."""
    while True:
        try:
            pending = next(steps)
        except StopIteration as end:
            result: T = end.value
            return result
        pending.wait()


@dataclass(frozen=True, slots=True)
class Rest:
    """A time in which nothing runs."""

    seconds: float
    sleep: Callable[[float], None] = sleep

    def wait(self) -> None:
        """Sleep."""
        self.sleep(self.seconds)


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """Launches in a row, timed together."""

    took_us: float
    """Time of all launches."""
    clock_mhz: float | None = None
    """Mean clock while they ran."""
    start_mhz: float | None = None
    """Clock just before, of a kernel that draws little."""


class Batches(Pending, Protocol):
    """Batches that are under way."""

    def read(self) -> Sequence[Batch]:
        """Their times; call it after `wait`."""


RunBatches = Callable[[int, int], Batches]
"""(launches in a batch, number of batches) -> the batches, started."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Burst:
    """The time of one launch."""

    runtime_us: float
    """Median over the batches."""
    runtime_rse: float
    """Relative standard error of that median."""
    launches_timed: int
    clock_mhz: float | None = None
    """Mean clock while the kernel ran."""
    start_mhz: float | None = None
    """Clock before the kernel ran."""
    held_back: bool = False
    """The clock was low before the kernel ran, and no rest helped."""
    capped: bool | None = None
    """A power cap slowed the kernel; None where clocks are not counted."""
    unsteady: bool = False
    """Capped, and no two bursts agree on the clock."""


def time_burst(
    run: RunBatches,
    launches: int,
    procedure: Procedure,
    *,
    at_once: int = 1,
    spent_s: Callable[[], float] | None = None,
    full_mhz: Callable[[], float | None] = lambda: None,
    window_mhz: float | None = None,
) -> Steps[Burst]:
    """The median time of a launch.

    Args:
        run: starts batches; the kernel is warm.
        launches: in a batch.
        at_once: batches that are started before any is read, at least one.
        spent_s: what counts as spent of `procedure.burst_s`; without it, the batches' own time.
        full_mhz: the highest clock seen so far on this device, where clocks can be read.
        window_mhz: mean clock of this kernel in its power window; no burst is slower.
    """

    def once() -> Steps[Burst]:
        """One burst, and whether it was capped."""
        burst = yield from _time_settled(run, launches, procedure, at_once, spent_s, full_mhz)
        full = full_mhz()
        if burst.clock_mhz is None or full is None:
            return burst
        return replace(burst, capped=burst.clock_mhz < CAPPED_CLOCK * full)

    burst = yield from once()
    if burst.held_back or not _is_doubtful(burst, window_mhz):
        return burst
    # At first without a rest: on a GPU, the other cells under way run in between.
    for rest_s in (0.0, *RESTS_S):
        yield Rest(rest_s)
        again = yield from once()
        if again.held_back:
            break
        slower, faster = sorted((burst, again), key=_clock)
        burst = faster
        has_recovered = not _is_doubtful(faster, window_mhz)
        is_steady = not _is_below(slower.clock_mhz, 1 - SAME_CLOCK, faster.clock_mhz)
        reaches_window = not _is_below(faster.clock_mhz, LOW_CLOCK, window_mhz)
        if has_recovered or (is_steady and reaches_window):
            return burst
    return replace(burst, unsteady=True)


def size(run: RunBatches, min_batch_us: float, max_launches: int) -> Steps[int]:
    """Launches that fill a batch of `min_batch_us`, estimated from ever longer batches.

    A long reading may come from an interruption, so it is always read twice.
    """
    launches = 1
    for _ in range(SIZING_STEPS):
        took_us = yield from _time_once(run, launches)
        if took_us >= min_batch_us:
            again_us = yield from _time_once(run, launches)
            took_us = min(took_us, again_us)
        if took_us >= min_batch_us or launches >= max_launches:
            break
        wanted = ceil(launches * SIZING_MARGIN * min_batch_us / max(took_us, 1e-3))
        wanted = max(wanted, launches + 1)
        launches = min(wanted, max_launches, launches * SIZING_GROWTH)
    return launches


def _time_settled(
    run: RunBatches,
    launches: int,
    procedure: Procedure,
    at_once: int,
    spent_s: Callable[[], float] | None,
    full_mhz: Callable[[], float | None],
) -> Steps[Burst]:
    """One burst, without the batches that began at a lowered clock."""
    kept: list[Batch] = []
    held_back: list[Batch] = []
    rests = iter(RESTS_S)
    while True:
        wanted = _batches_wanted(kept, procedure, at_once, spent_s)
        if wanted == 0:
            break
        running = run(launches, min(wanted, at_once))
        yield running
        batches = running.read()
        full = full_mhz()
        low = [batch for batch in batches if _is_below(batch.start_mhz, LOW_CLOCK, full)]
        high = [batch for batch in batches if not _is_below(batch.start_mhz, LOW_CLOCK, full)]
        kept += high
        held_back += low
        if low and len(low) >= len(high):
            rest_s = next(rests, None)
            if rest_s is None:
                break
            yield Rest(rest_s)
    if held_back and len(kept) < MIN_BATCHES_LATE:
        return _summary(held_back, launches, held_back=True)
    return _summary(kept, launches, held_back=False)


def relative_standard_error(times_us: Sequence[float]) -> float:
    """Of the median of `times_us`, robust against outliers."""
    times = np.asarray(times_us)
    median = float(np.median(times))
    if median <= 0:
        return 0.0
    sigma = 1.4826 * float(np.median(np.abs(times - median)))
    return 1.2533 * sigma / sqrt(len(times)) / median


def _time_once(run: RunBatches, launches: int) -> Steps[float]:
    running = run(launches, 1)
    yield running
    return running.read()[0].took_us


def _batches_wanted(
    batches: Sequence[Batch],
    procedure: Procedure,
    at_once: int,
    clock_s: Callable[[], float] | None,
) -> int:
    """How many more batches; 0 when the median has settled or the time is spent."""
    count = len(batches)
    if count == 0:
        return max(MIN_BATCHES, at_once)
    if count >= MAX_BATCHES:
        return 0
    times_us = [batch.took_us for batch in batches]
    if count >= MIN_BATCHES and relative_standard_error(times_us) < procedure.target_rse:
        return 0
    spent_s = sum(times_us) * 1e-6 if clock_s is None else clock_s()
    is_late = spent_s > 4 * procedure.burst_s
    enough = MIN_BATCHES_LATE if is_late else MIN_BATCHES_SPENT
    if spent_s > procedure.burst_s and count >= enough:
        return 0
    return MIN_BATCHES


def _is_below(mhz: float | None, share: float, of_mhz: float | None) -> bool:
    """Whether a clock is below a share of another; not where one of them is unknown."""
    return mhz is not None and of_mhz is not None and mhz < share * of_mhz


def _is_doubtful(burst: Burst, window_mhz: float | None) -> bool:
    """Whether the board may still slow this kernel for what ran before."""
    return bool(burst.capped) or _is_below(burst.clock_mhz, LOW_CLOCK, window_mhz)


def _clock(burst: Burst) -> float:
    return burst.clock_mhz or 0.0


def _summary(batches: Sequence[Batch], launches: int, *, held_back: bool) -> Burst:
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
    present = [value for value in values if value is not None]
    return float(np.median(present)) if present else None
