"""Meter the energy of one kernel on one GPU.

The board's energy counter moves in steps of about 100 ms and one read costs 2 to 4 ms, so a window is bounded by two steps, never by
two reads: P = (e_last - e_first) / (steps x step). The steps come as regularly as a clock and are seen late by up to 30 ms on a busy
host, so where the step's length was measured beforehand the window is counted in steps, not by the times they were seen. Between them
the GPU's queue is kept fed; the time of one launch in the window is the sustained runtime, which differs from the burst where a power
cap bites. E = P x sustained runtime. The board's instantaneous power, integrated over the window, checks the counter.
Knows nothing of Ray, of shapes, or of what is launched; tests pass a fake board.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from time import monotonic, sleep
from typing import Protocol

from gemmcast.errors import MeasurementError
from gemmcast.procedure import Procedure


class Board(Protocol):
    """What is read while a kernel runs."""

    def energy_mj(self) -> float:
        """Since the driver was loaded; only grows, in steps."""

    def power_instant_w(self) -> float | None:
        """Now, not averaged; None where the board does not tell."""

    def capped(self) -> bool:
        """Whether the driver says that the power cap slows the clock now, or did a moment ago."""


class Load(Protocol):
    """A queue of launches that is kept full."""

    def feed(self) -> None:
        """Enqueue until enough is queued; returns at once when it is."""

    def mark(self) -> None: ...

    def launch_us(self) -> float:
        """Mean time of a launch since `mark`."""

    def clock_mhz(self) -> float | None:
        """Mean SM clock since `mark`, read in the queue itself; None where it can't be."""

    def stop(self) -> None:
        """Wait until the queue is empty."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PowerReading:
    """One window."""

    power_w: float
    # mean over the window, idle draw included, by the counter
    power_instant_w: float | None = None
    # the same by integrating the instantaneous power
    sustained_runtime_us: float
    # of one launch inside the window
    clock_mhz: float | None = None
    # mean SM clock inside the window
    window_s: float
    counter_steps: int
    capped: bool = False
    # the power cap slowed it, or was about to

    @property
    def energy_mj(self) -> float:
        return self.power_w * self.sustained_runtime_us * 1e-3

    @property
    def dispute(self) -> str | None:
        """Why the reading is in doubt, if it is."""
        if self.power_instant_w is None or abs(self.power_w - self.power_instant_w) <= MAX_DISAGREEMENT * self.power_instant_w:
            return None
        return f"the energy counter says {self.power_w:.1f} W, instantaneous power {self.power_instant_w:.1f} W: over {MAX_DISAGREEMENT:.0%} apart"


CAPPED_STEPS = 20
# at the cap the regulator swings with a period of one second (seen on an H100): two of them
CAPPED_CLOCK = 0.97
# a mean clock below this share of the burst's is the cap's doing
AT_THE_LIMIT, NEAR_THE_LIMIT = 0.97, 0.7
# shares of it; at the cap a short window may lie in one of the regulator's undershoots
STALL_S = 3.0
MAX_DISAGREEMENT = 0.05
TICK_S = 0.001
HEAT_READ_S, HEAT_STEADY, HEAT_RISE_C, HEAT_S = 1.0, 4, 1.0, 30.0
# a board is warm when the last four readings of its temperature, a second apart, rose by a kelvin at most, or after half a minute
EARLY_S = 0.015
# before the next step is due, the counter is looked at again


def meter(
    board: Board, load: Load, procedure: Procedure, *, step_s: float | None = None, burst_mhz: float | None = None, limit_w: float | None = None,
    meanwhile: Callable[[], object] = lambda: None, now_s: Callable[[], float] = monotonic, wait: Callable[[float], None] = sleep,
) -> PowerReading:  # fmt: skip
    """Settle, then read one window between counter steps.

    Args:
        step_s: length of a counter step, where it was measured.
        burst_mhz: the clock of this kernel in a short burst; a lower one in the window is a cap.
        limit_w: the board's power limit; an H100 passes it by 11 % for most of a second before the cap bites.
        meanwhile: called once while the load settles. What takes it long leaves the queue unfed, so the load settles anew.

    Raises:
        MeasurementError: "unsupported" when the counter does not move.
    """
    settled_s = now_s() + procedure.settle_s
    try:
        load.feed()
        meanwhile()
        if now_s() > settled_s - procedure.settle_s / 2:
            settled_s = now_s() + procedure.settle_s
        while now_s() < settled_s:
            load.feed()
            wait(TICK_S)
        window = _Window(board, load, step_s, now_s, wait)
        window.next_step()
        load.mark()
        window.open()
        while window.steps < procedure.power_steps:
            window.next_step()
        capped = at_cap(window.power_w, limit_w, load.clock_mhz(), burst_mhz)
        if capped is None:
            capped = board.capped()  # the driver's bit lingers from the kernel before
        if capped:
            while window.steps < max(CAPPED_STEPS, procedure.power_steps):
                window.next_step()
        return PowerReading(
            power_w=window.power_w,
            power_instant_w=window.power_instant_w,
            sustained_runtime_us=load.launch_us(),
            clock_mhz=load.clock_mhz(),
            window_s=window.length_s,
            counter_steps=window.steps,
            capped=capped,
        )
    finally:
        load.stop()


def heat(
    load: Load, temperature_c: Callable[[], float | None], *, now_s: Callable[[], float] = monotonic, wait: Callable[[float], None] = sleep
) -> None:
    """Load the board until its temperature rises no more: a cold one leaks less, and draws 0.3 to 0.4 % less per kelvin (seen on an H100)."""
    begun_s, readings = now_s(), [temperature_c()]
    try:
        while readings[-1] is not None and now_s() < begun_s + HEAT_S and not _is_steady(readings):
            next_s = now_s() + HEAT_READ_S
            while now_s() < next_s:
                load.feed()
                wait(TICK_S)
            readings.append(temperature_c())
    finally:
        load.stop()


def _is_steady(readings: Sequence[float | None]) -> bool:
    if len(readings) <= HEAT_STEADY:
        return False
    before, after = readings[-1 - HEAT_STEADY], readings[-1]
    return before is not None and after is not None and after - before <= HEAT_RISE_C


def at_cap(power_w: float, limit_w: float | None, clock_mhz: float | None, burst_mhz: float | None) -> bool | None:
    """Whether the power cap slows the kernel, or is about to; None where it can't be told.

    A low clock alone does not say so: light kernels fall from the clock of a rested board to their own, 4 % lower, far from any cap.
    """
    if limit_w is not None and power_w > AT_THE_LIMIT * limit_w:
        return True
    if clock_mhz is None or burst_mhz is None:
        return None
    return clock_mhz < CAPPED_CLOCK * burst_mhz and (limit_w is None or power_w > NEAR_THE_LIMIT * limit_w)


class _Window:
    """Counter steps, seen one by one while the queue is fed."""

    def __init__(self, board: Board, load: Load, step_s: float | None, now_s: Callable[[], float], wait: Callable[[float], None]) -> None:
        self._board, self._load, self._step_s, self._now_s, self._wait = board, load, step_s, now_s, wait
        self._first = self._last = (now_s(), board.energy_mj())
        self._seen, self._aligned = 0, False
        self._looked_s = self._watts_s = self._watched_s = 0.0

    def open(self) -> None:
        self._first, self._seen = self._last, 0
        self._looked_s, self._watts_s, self._watched_s = self._now_s(), 0.0, 0.0

    def next_step(self) -> None:
        """Until the counter has moved. A read costs milliseconds: none long before a step is due."""
        due_s = self._last[0] + (self._step_s - EARLY_S if self._step_s and self._aligned else 0.0)
        give_up_s = self._now_s() + STALL_S
        while True:
            self._load.feed()
            self._watch_power()
            if (now_s := self._now_s()) >= due_s and (now_mj := self._board.energy_mj()) != self._last[1]:
                # the counter has moved while it was read: the middle is the best guess
                self._last, self._seen, self._aligned = ((now_s + self._now_s()) / 2, now_mj), self._seen + 1, True
                return
            if self._now_s() > give_up_s:
                raise MeasurementError("unsupported", f"the energy counter did not move for {STALL_S:g} s")
            self._wait(TICK_S)

    @property
    def power_w(self) -> float:
        return (self._last[1] - self._first[1]) / self.length_s / 1e3

    @property
    def steps(self) -> int:
        """As many as fit between the first and the last; one may pass unseen on a busy host."""
        return round((self._last[0] - self._first[0]) / self._step_s) if self._step_s else self._seen

    @property
    def length_s(self) -> float:
        return self.steps * self._step_s if self._step_s else self._last[0] - self._first[0]

    @property
    def power_instant_w(self) -> float | None:
        return self._watts_s / self._watched_s if self._watched_s else None

    def _watch_power(self) -> None:
        watts, now_s = self._board.power_instant_w(), self._now_s()
        if watts is not None:
            self._watts_s += watts * (now_s - self._looked_s)
            self._watched_s += now_s - self._looked_s
        self._looked_s = now_s
