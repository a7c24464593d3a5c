"""Meter the energy of one kernel on one GPU.

    P = (e_last - e_first) / (steps x step)        E = P x sustained runtime

The load settles, then one window between steps of the board's energy counter is read
(agent/power_window.py); at the power cap a longer one. The mean time of a launch in the window is
the sustained runtime, which differs from the burst's where a cap bites. The board's instantaneous
power, integrated over the window, checks the counter.
Knows nothing of Ray, of shapes, or of what is launched; tests pass a fake board.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from agent.power_window import HOST_CLOCK, Board, HostClock, Load, Window, feed_until
from gemmcast.procedure import Procedure

CAPPED_STEPS = 20
"""Steps of a window at the cap: two periods of the regulator, one second each on an H100."""
CAPPED_CLOCK = 0.97
"""A mean clock below this share of the burst's is the cap's doing."""
AT_THE_LIMIT = 0.97
"""Above this share of the power limit, the cap bites or is about to."""
NEAR_THE_LIMIT = 0.7
"""Below this share of the power limit, a low clock has other reasons. A short window at the cap may
lie in one of the regulator's undershoots, which reach down to it."""
MAX_DISAGREEMENT = 0.05
"""Between counter and instantaneous power, relative."""
HEAT_READ_S = 1.0
"""Between two readings of the temperature."""
HEAT_STEADY = 4
"""A board is warm when its temperature rose by at most HEAT_RISE_C over so many readings."""
HEAT_RISE_C = 1.0
HEAT_S = 30.0
"""Heating ends after this time in any case."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PowerReading:
    """One window."""

    power_w: float
    """Mean over the window, idle draw included, by the energy counter."""
    power_instant_w: float | None = None
    """The same by integrating the instantaneous power."""
    sustained_runtime_us: float
    """Mean time of one launch inside the window."""
    clock_mhz: float | None = None
    """Mean SM clock inside the window."""
    window_s: float
    counter_steps: int
    """Steps of the energy counter that the window spans."""
    capped: bool = False
    """The power cap slowed the kernel, or was about to."""

    @property
    def energy_mj(self) -> float:
        """Energy of one launch."""
        return self.power_w * self.sustained_runtime_us * 1e-3

    @property
    def dispute(self) -> str | None:
        """Why the reading is in doubt, if it is."""
        if self.power_instant_w is None:
            return None
        difference_w = abs(self.power_w - self.power_instant_w)
        if difference_w <= MAX_DISAGREEMENT * self.power_instant_w:
            return None
        return (
            f"energy counter {self.power_w:.1f} W, instantaneous power "
            f"{self.power_instant_w:.1f} W: over {MAX_DISAGREEMENT:.0%} apart"
        )


def meter(
    board: Board,
    load: Load,
    procedure: Procedure,
    *,
    step_s: float | None = None,
    burst_mhz: float | None = None,
    limit_w: float | None = None,
    meanwhile: Callable[[], object] = lambda: None,
    contention: Callable[[], str | None] = lambda: None,
    clock: HostClock = HOST_CLOCK,
) -> PowerReading:
    """Let the load settle, then read one window between counter steps.

    Args:
        step_s: length of a counter step, where it was measured.
        burst_mhz: the clock of this kernel in a short burst; a lower one in the window is a cap.
        limit_w: the board's power limit. An H100 draws 11 % more for most of a second before the
            cap bites.
        meanwhile: called once while the load settles.
        contention: why the board is shared, if it is; called at every counter step.

    Raises:
        MeasurementError: "unsupported" when the counter does not move, "power_disputed" when it
            falls, "contended" when the board is shared.
    """
    try:
        _settle(load, procedure.settle_s, meanwhile, clock)
        window = Window(board, load, step_s, clock, contention)
        window.next_step()
        load.mark()
        window.open()
        window.extend_to(procedure.power_steps)
        capped = at_cap(window.power_w, limit_w, load.clock_mhz(), burst_mhz)
        if capped is None:
            # Less sure: the driver's bit lingers from the kernel before.
            capped = board.capped()
        if capped:
            window.extend_to(CAPPED_STEPS)
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
    load: Load, temperature_c: Callable[[], float | None], *, clock: HostClock = HOST_CLOCK
) -> None:
    """Load the board until its temperature rises no more.

    A cold board leaks less: it draws 0.3 to 0.4 % less per kelvin (seen on an H100).
    """
    end_s = clock.now_s() + HEAT_S
    readings = [temperature_c()]
    try:
        while readings[-1] is not None and clock.now_s() < end_s and not _is_steady(readings):
            feed_until(load, clock.now_s() + HEAT_READ_S, clock)
            readings.append(temperature_c())
    finally:
        load.stop()


def at_cap(
    power_w: float, limit_w: float | None, clock_mhz: float | None, burst_mhz: float | None
) -> bool | None:
    """Whether the power cap slows the kernel, or is about to; None where clocks are missing.

    A low clock alone is no sign: light kernels fall from the clock of a rested board to their own,
    4 % lower, far from any cap.
    """
    if limit_w is not None and power_w > AT_THE_LIMIT * limit_w:
        return True
    if clock_mhz is None or burst_mhz is None:
        return None
    if limit_w is not None and power_w <= NEAR_THE_LIMIT * limit_w:
        return False
    return clock_mhz < CAPPED_CLOCK * burst_mhz


def _settle(load: Load, settle_s: float, meanwhile: Callable[[], object], clock: HostClock) -> None:
    settled_s = clock.now_s() + settle_s
    load.feed()
    meanwhile()
    if clock.now_s() > settled_s - settle_s / 2:
        # The queue was not fed in that time, so the load settles anew.
        settled_s = clock.now_s() + settle_s
    feed_until(load, settled_s, clock)


def _is_steady(readings_c: Sequence[float | None]) -> bool:
    if len(readings_c) <= HEAT_STEADY:
        return False
    before, after = readings_c[-1 - HEAT_STEADY], readings_c[-1]
    if before is None or after is None:
        return False
    return after - before <= HEAT_RISE_C
