"""Meter the energy of one kernel on one GPU.

The board's energy counter moves in steps of about 100 ms and one read costs about 4 ms, so a window is bounded by two steps,
never by two reads: P = (e_last - e_first) / (t_last - t_first). Between them the GPU's queue is kept fed; the time of one launch in
the window is the sustained runtime, which differs from the burst where a power cap bites. E = P x sustained runtime.
Knows nothing of Ray, of shapes, or of what is launched; tests pass a fake board.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from time import monotonic, sleep
from typing import Protocol

from gemmcast.errors import MeasurementError
from gemmcast.procedure import Procedure


class Board(Protocol):
    """What is read while a kernel runs."""

    def energy_mj(self) -> float:
        """Since the driver was loaded; only grows, in steps."""

    def capped(self) -> bool:
        """Whether the power cap slows the clock now."""


class Load(Protocol):
    """A queue of launches that is kept full."""

    def feed(self) -> None:
        """Enqueue until enough is queued; returns at once when it is."""

    def launch_us(self) -> float:
        """Mean time of a launch since `mark`."""

    def mark(self) -> None: ...

    def stop(self) -> None:
        """Wait until the queue is empty."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PowerReading:
    """One window."""

    power_w: float
    # mean over the window, idle draw included
    sustained_runtime_us: float
    # of one launch inside the window
    window_s: float
    counter_steps: int

    @property
    def energy_mj(self) -> float:
        return self.power_w * self.sustained_runtime_us * 1e-3


CAPPED_STEPS = 20
# at the cap the regulator swings on a scale of one second
STALL_S = 3.0


def meter(
    board: Board, load: Load, procedure: Procedure, *, now_s: Callable[[], float] = monotonic, wait: Callable[[float], None] = sleep
) -> PowerReading:
    """Settle, then read one window between counter steps.

    Raises:
        MeasurementError: "unsupported" when the counter does not move.
    """
    settled_s = now_s() + procedure.settle_s
    while now_s() < settled_s:
        load.feed()
        wait(0.001)
    first_mj, first_s = _next_step(board, load, now_s, wait)
    load.mark()
    steps = CAPPED_STEPS if board.capped() else procedure.power_steps
    last_mj, last_s = first_mj, first_s
    for _ in range(steps):
        last_mj, last_s = _next_step(board, load, now_s, wait)
    runtime_us = load.launch_us()
    load.stop()
    window_s = last_s - first_s
    return PowerReading(power_w=(last_mj - first_mj) / window_s / 1e3, sustained_runtime_us=runtime_us, window_s=window_s, counter_steps=steps)


def _next_step(board: Board, load: Load, now_s: Callable[[], float], wait: Callable[[float], None]) -> tuple[float, float]:
    """Energy (mJ) and time (s) at the counter's next step."""
    before_mj = board.energy_mj()
    give_up_s = now_s() + STALL_S
    while (now_mj := board.energy_mj()) == before_mj:
        load.feed()
        if now_s() > give_up_s:
            load.stop()
            raise MeasurementError("unsupported", f"the energy counter did not move for {STALL_S:g} s")
        wait(0.0005)
    return now_mj, now_s()
