"""The power meter, on a board and a queue that live on one made-up clock."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from agent.power import (
    CAPPED_CLOCK,
    CAPPED_STEPS,
    HEAT_READ_S,
    HEAT_S,
    HEAT_STEADY,
    MAX_DISAGREEMENT,
    PowerReading,
    heat,
    meter,
)
from agent.power_window import STALL_S, HostClock
from gemmcast.errors import MeasurementError
from gemmcast.procedure import Procedure


class Clock:
    """`wait_when_busy` may take up to `late_s` longer than it should: the host is busy."""

    def __init__(self, late_s: float = 0.0, seed: int = 0) -> None:
        self.now, self._late_s, self._rng = 1000.0, late_s, np.random.default_rng(seed)

    def now_s(self) -> float:
        return self.now

    def wait(self, seconds: float) -> None:
        self.now += seconds

    def wait_when_busy(self, seconds: float) -> None:
        """One wait in twenty is long: the host had something else to do."""
        self.now += seconds + (
            self._late_s * float(self._rng.random()) if self._rng.random() < 0.05 else 0.0
        )


class FakeBoard:
    """A counter that steps every `step_s`, `phase_s` after the full step.

    A read takes `read_s` and samples at its middle.
    """

    def __init__(
        self,
        clock: Clock,
        power_w: float,
        *,
        phase_s: float = 0.0,
        step_s: float = 0.1,
        read_s: float = 0.004,
        cap: bool = False,
        instant_w: Callable[[float], float | None] = lambda _: None,
    ) -> None:
        self._clock, self._power_w, self._phase_s, self._step_s, self._read_s, self._cap = (
            clock,
            power_w,
            phase_s,
            step_s,
            read_s,
            cap,
        )
        self._instant_w = instant_w
        self.reads_s: list[float] = []

    def energy_mj(self) -> float:
        self.reads_s.append(self._clock.now)
        self._clock.wait(self._read_s / 2)
        steps = (self._clock.now - self._phase_s) // self._step_s
        self._clock.wait(self._read_s / 2)
        return steps * self._step_s * self._power_w * 1e3

    def power_instant_w(self) -> float | None:
        return self._instant_w(self._clock.now)

    def capped(self) -> bool:
        return self._cap


class FakeLoad:
    """Launches of a known length, fed at a cost; it notes when it was fed, marked and stopped."""

    def __init__(
        self, clock: Clock, launch_us: float = 1650.0, clock_mhz: float | None = None
    ) -> None:
        self._clock, self._launch_us, self._clock_mhz = clock, launch_us, clock_mhz
        self.fed_s: list[float] = []
        self.marked_s: list[float] = []
        self.stopped = 0

    def feed(self) -> None:
        assert not self.stopped
        self.fed_s.append(self._clock.now)
        self._clock.wait(0.0001)

    def launch_us(self) -> float:
        assert self.marked_s
        assert not self.stopped
        return self._launch_us

    def clock_mhz(self) -> float | None:
        assert self.marked_s
        assert not self.stopped
        return self._clock_mhz

    def mark(self) -> None:
        self.marked_s.append(self._clock.now)

    def stop(self) -> None:
        self.stopped += 1


USUAL = Procedure()


def _meter(
    power_w: float,
    *,
    procedure: Procedure = USUAL,
    launch_us: float = 1650.0,
    clock_mhz: float | None = None,
    burst_mhz: float | None = None,
    given_s: float | None = None,
    limit_w: float | None = None,
    late_s: float = 0.0,
    seed: int = 0,
    **board: Any,
) -> tuple[PowerReading, FakeLoad, float]:
    clock = Clock(late_s, seed)
    load = FakeLoad(clock, launch_us, clock_mhz)
    metered = FakeBoard(clock, power_w, **board)
    reading = meter(
        metered,
        load,
        procedure,
        step_s=given_s,
        burst_mhz=burst_mhz,
        limit_w=limit_w,
        clock=HostClock(now_s=clock.now_s, wait=clock.wait_when_busy),
    )
    assert load.stopped == 1
    return reading, load, clock.now


@pytest.mark.parametrize("power_w", [35.0, 310.0, 700.0])
@pytest.mark.parametrize("phase_s", [0.0, 0.0013, 0.0371, 0.0502, 0.0999])
@pytest.mark.parametrize("step_s", [0.1, 0.0987])
def test_a_known_power_is_recovered_though_reads_do_not_meet_the_steps(
    power_w: float, phase_s: float, step_s: float
) -> None:
    reading, _, _ = _meter(power_w, phase_s=phase_s, step_s=step_s)
    assert reading.power_w == pytest.approx(power_w, rel=0.01)
    assert reading.window_s == pytest.approx(5 * step_s, rel=0.01)
    assert reading.counter_steps == 5


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("power_w", [35.0, 700.0])
@pytest.mark.parametrize("phase_s", [0.0, 0.0371, 0.0999])
@pytest.mark.parametrize("step_s", [0.1, 0.0987])
def test_counted_in_steps_a_busy_host_does_not_matter(
    power_w: float, phase_s: float, step_s: float, seed: int
) -> None:
    """The length was measured beforehand; each step is seen up to 30 ms late."""
    reading, _, _ = _meter(
        power_w, phase_s=phase_s, step_s=step_s, given_s=step_s * 1.001, late_s=0.03, seed=seed
    )
    assert reading.power_w == pytest.approx(power_w, rel=0.003)
    assert reading.window_s == pytest.approx(reading.counter_steps * step_s * 1.001)
    assert reading.counter_steps >= 5


def test_by_the_times_that_steps_were_seen_a_busy_host_does_matter() -> None:
    """The test above without counting steps; it shows that the host there is busy."""
    errors = [
        abs(_meter(700.0, late_s=0.03, seed=seed)[0].power_w / 700.0 - 1) for seed in range(20)
    ]
    assert max(errors) > 0.01
    assert float(np.median(errors)) < 0.03


def test_a_step_that_was_missed_is_counted_by_its_length() -> None:
    class Blinks(FakeBoard):
        """The counter shows nothing new for two steps, once."""

        def energy_mj(self) -> float:
            now_mj = super().energy_mj()
            return 1000.4 * 300e3 if 1000.4 < self._clock.now < 1000.65 else now_mj

    clock = Clock()
    load = FakeLoad(clock)
    reading = meter(
        Blinks(clock, 300.0, phase_s=0.01),
        load,
        USUAL,
        step_s=0.1,
        clock=HostClock(now_s=clock.now_s, wait=clock.wait),
    )
    assert reading.counter_steps == 5
    assert reading.window_s == pytest.approx(0.5)
    assert reading.power_w == pytest.approx(300.0, rel=0.003)


def test_the_counter_is_left_alone_until_a_step_is_due() -> None:
    clock = Clock()
    load, board = FakeLoad(clock), FakeBoard(clock, 300.0)
    meter(board, load, USUAL, step_s=0.1, clock=HostClock(now_s=clock.now_s, wait=clock.wait))
    in_window = [read_s for read_s in board.reads_s if read_s > load.marked_s[0]]
    # A tick and a read are 5 ms; it looks from 15 ms before each step.
    assert 5 <= len(in_window) <= 5 * 6


def test_energy_is_power_times_the_sustained_runtime() -> None:
    reading, _, _ = _meter(700.0, launch_us=2000.0)
    assert reading.sustained_runtime_us == 2000.0
    assert reading.energy_mj == pytest.approx(reading.power_w * 2000.0 / 1000)
    assert reading.energy_mj == pytest.approx(1400.0, rel=0.01)


def test_the_queue_is_fed_from_before_the_window_to_its_end() -> None:
    _, load, end_s = _meter(300.0, procedure=Procedure(settle_s=0.25))
    (marked_s,) = load.marked_s
    assert load.fed_s[0] == 1000.0
    assert marked_s - load.fed_s[0] >= 0.25
    gaps = [
        later - earlier for earlier, later in zip(load.fed_s, [*load.fed_s[1:], end_s], strict=True)
    ]
    # Two reads and a wait.
    assert max(gaps) < 0.015


def test_more_steps_make_a_longer_window() -> None:
    reading, _, _ = _meter(300.0, procedure=Procedure(power_steps=12))
    assert reading.counter_steps == 12
    assert round(reading.window_s, 1) == 1.2


@pytest.mark.parametrize("given_s", [None, 0.1])
@pytest.mark.parametrize(
    ("clock_mhz", "burst_mhz", "cap", "steps"),
    [
        (1.001 * CAPPED_CLOCK * 1755.0, 1755.0, False, 5),
        (0.999 * CAPPED_CLOCK * 1755.0, 1755.0, False, CAPPED_STEPS),
        (0.7 * 1755.0, 1755.0, False, CAPPED_STEPS),
        (1755.0, 1755.0, True, 5),  # the driver's bit lingers from the kernel before
        (1300.0, None, False, 5),
        (1300.0, None, True, CAPPED_STEPS),
        (None, 1755.0, True, CAPPED_STEPS),
        (None, None, False, 5),
    ],
)
def test_a_cap_is_judged_by_the_mean_clock_and_metered_for_seconds(
    clock_mhz: float | None, burst_mhz: float | None, cap: bool, steps: int, given_s: float | None
) -> None:
    reading, _, _ = _meter(
        700.0, cap=cap, clock_mhz=clock_mhz, burst_mhz=burst_mhz, given_s=given_s
    )
    assert reading.counter_steps == steps
    assert reading.window_s == pytest.approx(steps * 0.1, rel=0.01)
    assert reading.power_w == pytest.approx(700.0, rel=0.01)
    assert reading.clock_mhz == clock_mhz


@pytest.mark.parametrize(
    ("power_w", "steps"), [(780.0, CAPPED_STEPS), (0.98 * 700.0, CAPPED_STEPS), (0.96 * 700.0, 5)]
)
def test_a_board_at_its_limit_is_metered_for_seconds_though_the_cap_has_not_slowed_it_yet(
    power_w: float, steps: int
) -> None:
    reading, _, _ = _meter(power_w, clock_mhz=1755.0, burst_mhz=1755.0, limit_w=700.0)
    assert reading.counter_steps == steps


def test_a_capped_window_that_was_to_be_longer_anyway_stays_so() -> None:
    reading, _, _ = _meter(700.0, cap=True, procedure=Procedure(power_steps=CAPPED_STEPS + 7))
    assert reading.counter_steps == CAPPED_STEPS + 7


@pytest.mark.parametrize("given_s", [None, 0.1])
def test_a_counter_that_never_moves_is_not_a_meter(given_s: float | None) -> None:
    clock = Clock()
    load = FakeLoad(clock, 100.0)
    with pytest.raises(MeasurementError, match="the energy counter did not move for 3 s") as caught:
        meter(
            FakeBoard(clock, 0.0),
            load,
            Procedure(),
            step_s=given_s,
            clock=HostClock(now_s=clock.now_s, wait=clock.wait),
        )
    assert caught.value.status == "unsupported"
    assert load.stopped == 1
    assert clock.now - 1000.0 < Procedure().settle_s + STALL_S + 0.1


@pytest.mark.parametrize("given_s", [None, 0.1])
@pytest.mark.parametrize("where", ["read", "wait"])
def test_a_node_that_stands_still_in_the_window_gives_no_power(
    given_s: float | None, where: str
) -> None:
    """The queue runs dry meanwhile, so the window's mean would be far too low."""

    class Freezes(Clock):
        """Once, for 70 s, in the middle of the window."""

        frozen_s = 0.0

        def freeze(self, place: str) -> None:
            if place == where and self.now > 1000.6 and not self.frozen_s:
                self.frozen_s = 70.0
                self.now += self.frozen_s

        def wait_when_busy(self, seconds: float) -> None:
            super().wait_when_busy(seconds)
            self.freeze("wait")

    class FreezingBoard(FakeBoard):
        def energy_mj(self) -> float:
            energy_mj = super().energy_mj()
            clock.freeze("read")
            return energy_mj

    clock = Freezes()
    load = FakeLoad(clock, 100.0)
    with pytest.raises(MeasurementError, match="stood still for 70 s") as caught:
        meter(
            FreezingBoard(clock, 300.0),
            load,
            Procedure(),
            step_s=given_s,
            burst_mhz=None,
            limit_w=None,
            clock=HostClock(now_s=clock.now_s, wait=clock.wait_when_busy),
        )
    assert caught.value.status == "contended"
    assert clock.frozen_s
    assert load.stopped == 1


@pytest.mark.parametrize("given_s", [None, 0.1])
def test_a_counter_that_stops_in_the_window_is_given_up_too(given_s: float | None) -> None:
    class Stops(FakeBoard):
        def energy_mj(self) -> float:
            return min(super().energy_mj(), 1000.6 * 300e3)

    clock = Clock()
    load = FakeLoad(clock, 100.0)
    with pytest.raises(MeasurementError, match="did not move"):
        meter(
            Stops(clock, 300.0),
            load,
            Procedure(),
            step_s=given_s,
            clock=HostClock(now_s=clock.now_s, wait=clock.wait),
        )
    assert load.stopped == 1


@pytest.mark.parametrize("given_s", [None, 0.1])
@pytest.mark.parametrize("fall_s", [1000.3, 1000.6])
@pytest.mark.parametrize("has_instant", [False, True])
def test_a_counter_that_falls_is_no_power(
    given_s: float | None, fall_s: float, has_instant: bool
) -> None:
    """It was reset, or wrapped: as the window opens, or within it."""

    class Falls(FakeBoard):
        def energy_mj(self) -> float:
            energy_mj = super().energy_mj()
            return energy_mj - 1000.2 * 300e3 if self._clock.now > fall_s else energy_mj

    clock = Clock()
    load = FakeLoad(clock)
    instant_w = 300.0 if has_instant else None
    board = Falls(clock, 300.0, instant_w=lambda _: instant_w)
    host = HostClock(now_s=clock.now_s, wait=clock.wait)
    with pytest.raises(
        MeasurementError, match=r"the energy counter fell from \d+ to \d+ mJ"
    ) as caught:
        meter(board, load, USUAL, step_s=given_s, clock=host)
    assert caught.value.status == "power_disputed"
    assert load.stopped == 1


def test_a_board_that_fails_in_the_window_leaves_no_load_behind() -> None:
    class Fails(FakeBoard):
        def energy_mj(self) -> float:
            if self._clock.now > 1000.6:
                raise MeasurementError("cuda_error", "GPU is lost")
            return super().energy_mj()

    clock = Clock()
    load = FakeLoad(clock)
    with pytest.raises(MeasurementError, match="GPU is lost"):
        meter(Fails(clock, 300.0), load, USUAL, clock=HostClock(now_s=clock.now_s, wait=clock.wait))
    assert load.stopped == 1


@pytest.mark.parametrize("takes_s", [0.0, 0.1, 0.9])
def test_meanwhile_is_called_once_under_load_and_the_load_settles_whatever_it_takes(
    takes_s: float,
) -> None:
    clock = Clock()
    load, board = FakeLoad(clock), FakeBoard(clock, 300.0)
    called_s: list[float] = []

    def meanwhile() -> None:
        assert load.fed_s
        assert not load.marked_s
        assert not board.reads_s
        called_s.append(clock.now)
        clock.wait(takes_s)

    meter(
        board,
        load,
        Procedure(settle_s=0.25),
        meanwhile=meanwhile,
        clock=HostClock(now_s=clock.now_s, wait=clock.wait),
    )
    (at_s,) = called_s
    assert at_s - load.fed_s[0] < 0.001
    fed_again_s = next(fed_s for fed_s in load.fed_s if fed_s > at_s)
    # The queue had enough.
    if takes_s < 0.125:
        assert 1000.25 <= board.reads_s[0] < 1000.26
    else:
        assert 0.25 <= board.reads_s[0] - fed_again_s < 0.26


def test_instantaneous_power_is_integrated_over_the_window_alone() -> None:
    """A board at 900 W while it settles and at 290, then 310 W in the window."""
    reading, load, end_s = _meter(
        300.0,
        instant_w=lambda now_s: 900.0 if now_s < 1000.3 else 290.0 if now_s < 1000.55 else 310.0,
        phase_s=0.05,
    )
    (marked_s,) = load.marked_s
    want = (290.0 * (1000.55 - marked_s) + 310.0 * (end_s - 1000.55)) / (end_s - marked_s)
    assert 1000.3 < marked_s < 1000.4
    assert reading.power_instant_w == pytest.approx(want, rel=0.003)


def test_instantaneous_power_that_is_absent_at_times_is_averaged_over_the_others() -> None:
    reading, _, _ = _meter(300.0, instant_w=lambda now_s: 300.0 if int(now_s * 50) % 2 else None)
    assert reading.power_instant_w == pytest.approx(300.0)
    assert reading.dispute is None


@pytest.mark.parametrize("side", [1, -1])
def test_a_counter_and_a_board_that_disagree_make_a_dispute(side: int) -> None:
    near, far = (
        _meter(300.0, given_s=0.1, instant_w=lambda _, by=by: 300.0 / (1 + side * by))[0]
        for by in (0.048, 0.052)
    )
    assert near.dispute is None
    assert far.dispute is not None
    assert far.dispute.startswith("energy counter 300.0 W, instantaneous power ")
    assert far.dispute.endswith("W: over 5% apart")


def test_without_instantaneous_power_there_is_no_dispute() -> None:
    reading, _, _ = _meter(300.0)
    assert reading.power_instant_w is None
    assert reading.dispute is None


def test_a_board_that_reads_zero_watts_is_a_dispute_and_not_a_fault() -> None:
    reading = PowerReading(
        power_w=300.0, power_instant_w=0.0, sustained_runtime_us=10.0, window_s=0.5, counter_steps=5
    )
    assert reading.dispute == "energy counter 300.0 W, instantaneous power 0.0 W: over 5% apart"
    assert MAX_DISAGREEMENT == 0.05


class Oven:
    """A loaded board that goes from 30 to 60 degrees, half of the remaining way every `half_s`."""

    def __init__(self, clock: Clock, half_s: float) -> None:
        self._clock, self._half_s, self._begun_s = clock, half_s, clock.now

    def temperature_c(self) -> float:
        return float(round(60.0 - 30.0 * 0.5 ** ((self._clock.now - self._begun_s) / self._half_s)))


@pytest.mark.parametrize(("half_s", "most_s"), [(0.01, 6), (2.0, 15), (6.0, HEAT_S), (1000.0, 6)])
def test_a_board_is_heated_until_its_temperature_rises_no_more(
    half_s: float, most_s: float
) -> None:
    clock = Clock()
    load, oven = FakeLoad(clock), Oven(clock, half_s)
    heat(load, oven.temperature_c, clock=HostClock(now_s=clock.now_s, wait=clock.wait))
    took_s = clock.now - 1000.0
    assert HEAT_STEADY * HEAT_READ_S <= took_s <= most_s + HEAT_READ_S + 0.1
    assert load.stopped == 1
    assert max(np.diff(load.fed_s)) < 0.01
    if took_s < HEAT_S:
        before_s = clock.now - HEAT_STEADY * HEAT_READ_S
        assert (
            oven.temperature_c() - round(60.0 - 30.0 * 0.5 ** ((before_s - 1000.0) / half_s)) <= 2
        )


def test_a_board_without_a_temperature_is_not_heated() -> None:
    clock = Clock()
    load = FakeLoad(clock)
    heat(load, lambda: None, clock=HostClock(now_s=clock.now_s, wait=clock.wait))
    assert clock.now == 1000.0
    assert load.stopped == 1
