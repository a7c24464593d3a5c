"""One window on a board's energy counter, bounded by two of its steps.

The counter moves in steps of about 100 ms and one read costs 2 to 4 ms, so a window is bounded by
two steps, never by two reads. Steps come as regularly as a clock but are seen up to 30 ms late on a
busy host. Where the length of a step was measured beforehand, a window is therefore counted in
steps, not by the times at which they were seen. Meanwhile the GPU's queue is kept full, and at each
step somebody looks whether other processes use the board: that costs a millisecond too.
Knows nothing of caps, nor of what is launched.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from time import monotonic, sleep
from typing import Protocol

from gemmcast.errors import MeasurementError

STALL_S = 3.0
"""A counter that stands still for so long is no meter."""
FROZEN_S = 2.0
"""Two looks so far apart: this process stood still with its node, and the queue ran dry."""
TICK_S = 0.001
EARLY_S = 0.015
"""The counter is read from this long before the next step is due."""


class Board(Protocol):
    """What is read while a kernel runs."""

    def energy_mj(self) -> float:
        """Energy since the driver was loaded; it grows in steps, unless it is reset."""

    def power_instant_w(self) -> float | None:
        """Power now, not averaged; None where the board has no such reading."""

    def capped(self) -> bool:
        """Whether the driver reports that the power cap slows the clock, now or a moment ago."""


class Load(Protocol):
    """A queue of launches that is kept full."""

    def feed(self) -> None:
        """Enqueue until the queue is full; returns at once when it is."""

    def mark(self) -> None:
        """Begin the part that `launch_us` and `clock_mhz` are about."""

    def launch_us(self) -> float:
        """Mean time of a launch since `mark`."""

    def clock_mhz(self) -> float | None:
        """Mean SM clock since `mark`, counted on the SMs; None where it cannot be."""

    def stop(self) -> None:
        """Wait until the queue is empty."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HostClock:
    """Time on the host; tests pass a made-up one."""

    now_s: Callable[[], float] = monotonic
    wait: Callable[[float], None] = sleep


HOST_CLOCK = HostClock()


def feed_until(load: Load, end_s: float, clock: HostClock) -> None:
    """Keep the queue full until that time."""
    while clock.now_s() < end_s:
        load.feed()
        clock.wait(TICK_S)


@dataclass(frozen=True, slots=True)
class _Reading:
    """The counter after one of its steps."""

    seen_s: float
    energy_mj: float


class Window:
    """Counter steps, seen one by one while the queue is fed."""

    def __init__(
        self,
        board: Board,
        load: Load,
        step_s: float | None,
        clock: HostClock,
        contention: Callable[[], str | None] = lambda: None,
    ) -> None:
        self._board = board
        self._load = load
        self._step_s = step_s
        self._clock = clock
        self._contention = contention
        self._first = self._last = _Reading(clock.now_s(), board.energy_mj())
        self._steps_seen = 0
        # True once a step was seen: only then is it known when the next one is due.
        self._aligned = False
        self._instant = _Integral(clock.now_s())

    def open(self) -> None:
        """Begin the window at the step that was seen last."""
        self._first = self._last
        self._steps_seen = 0
        self._instant = _Integral(self._clock.now_s())

    def extend_to(self, steps: int) -> None:
        """Until the window spans at least so many steps."""
        while self.steps < steps:
            self.next_step()

    def next_step(self) -> None:
        """Until the counter has moved.

        Raises:
            MeasurementError: "unsupported" when it stands still for STALL_S, "contended" when this
                process does or when others use the board, "power_disputed" when it falls: it was
                reset, or wrapped.
        """
        due_s = self._next_due_s()
        looked_s = self._clock.now_s()
        give_up_s = looked_s + STALL_S
        while True:
            self._load.feed()
            self._instant.add(self._board.power_instant_w(), self._clock.now_s())
            # A read costs milliseconds, so there is none long before a step is due.
            has_moved = self._clock.now_s() >= due_s and self._read_counter()
            looked_s = self._refuse_freeze(looked_s)
            if has_moved:
                self._refuse_neighbours()
                return
            if looked_s > give_up_s:
                reason = f"the energy counter did not move for {STALL_S:g} s"
                raise MeasurementError("unsupported", reason)
            self._clock.wait(TICK_S)

    @property
    def steps(self) -> int:
        """Steps between the first and the last reading; on a busy host some are not seen."""
        if not self._step_s:
            return self._steps_seen
        return round((self._last.seen_s - self._first.seen_s) / self._step_s)

    @property
    def length_s(self) -> float:
        """By the length of a step where it is known, else by the times that steps were seen."""
        if not self._step_s:
            return self._last.seen_s - self._first.seen_s
        return self.steps * self._step_s

    @property
    def power_w(self) -> float:
        """Mean by the counter."""
        energy_mj = self._last.energy_mj - self._first.energy_mj
        return energy_mj / self.length_s / 1e3

    @property
    def power_instant_w(self) -> float | None:
        """Mean of the instantaneous power."""
        return self._instant.mean

    def _next_due_s(self) -> float:
        if not self._step_s or not self._aligned:
            return self._last.seen_s
        return self._last.seen_s + self._step_s - EARLY_S

    def _refuse_neighbours(self) -> None:
        reason = self._contention()
        if reason is not None:
            raise MeasurementError("contended", reason)

    def _refuse_freeze(self, looked_s: float) -> float:
        """Now. Raises MeasurementError where the look before was too long ago."""
        now_s = self._clock.now_s()
        gap_s = now_s - looked_s
        if gap_s > FROZEN_S:
            reason = f"this process stood still for {gap_s:.0f} s while power was metered"
            raise MeasurementError("contended", reason)
        return now_s

    def _read_counter(self) -> bool:
        """Whether it has moved since the last reading."""
        before_s = self._clock.now_s()
        energy_mj = self._board.energy_mj()
        if energy_mj == self._last.energy_mj:
            return False
        if energy_mj < self._last.energy_mj:
            reason = (
                f"the energy counter fell from {self._last.energy_mj:.0f} to {energy_mj:.0f} mJ"
            )
            raise MeasurementError("power_disputed", reason)
        # It moved while it was read: the middle is the best guess.
        seen_s = (before_s + self._clock.now_s()) / 2
        self._last = _Reading(seen_s, energy_mj)
        self._steps_seen += 1
        self._aligned = True
        return True


class _Integral:
    """Power over time, from readings at irregular times."""

    def __init__(self, begin_s: float) -> None:
        self._last_s = begin_s
        self._energy_j = 0.0
        self._watched_s = 0.0

    def add(self, power_w: float | None, now_s: float) -> None:
        """A reading; it stands for the time since the one before. None leaves that time out."""
        if power_w is not None:
            elapsed_s = now_s - self._last_s
            self._energy_j += power_w * elapsed_s
            self._watched_s += elapsed_s
        self._last_s = now_s

    @property
    def mean(self) -> float | None:
        """Mean power (W) over the time that was watched."""
        return self._energy_j / self._watched_s if self._watched_s else None
