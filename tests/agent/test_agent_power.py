"""The power meter, on a board and a queue that live on one made-up clock."""

from __future__ import annotations

import pytest

from agent.power import CAPPED_STEPS, STALL_S, PowerReading, meter
from gemmcast.errors import MeasurementError
from gemmcast.procedure import Procedure


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def now_s(self) -> float:
        return self.now

    def wait(self, seconds: float) -> None:
        self.now += seconds


class FakeBoard:
    """A counter that steps every `step_s`, `phase_s` after the full step; a read takes `read_s` and samples at its middle."""

    def __init__(self, clock: Clock, power_w: float, *, phase_s: float = 0.0, step_s: float = 0.1, read_s: float = 0.004, cap: bool = False) -> None:
        self._clock, self._power_w, self._phase_s, self._step_s, self._read_s, self._cap = clock, power_w, phase_s, step_s, read_s, cap

    def energy_mj(self) -> float:
        self._clock.wait(self._read_s / 2)
        steps = (self._clock.now - self._phase_s) // self._step_s
        self._clock.wait(self._read_s / 2)
        return steps * self._step_s * self._power_w * 1e3

    def capped(self) -> bool:
        return self._cap


class FakeLoad:
    """Launches of a known length, fed at a cost; says when it was marked, and whether it is still fed."""

    def __init__(self, clock: Clock, launch_us: float) -> None:
        self._clock, self._launch_us = clock, launch_us
        self.fed_s: list[float] = []
        self.marked_s: list[float] = []
        self.stopped = False

    def feed(self) -> None:
        assert not self.stopped
        self.fed_s.append(self._clock.now)
        self._clock.wait(0.0001)

    def launch_us(self) -> float:
        assert self.marked_s and not self.stopped
        return self._launch_us

    def mark(self) -> None:
        self.marked_s.append(self._clock.now)

    def stop(self) -> None:
        self.stopped = True


USUAL = Procedure()


def _meter(power_w: float, *, procedure: Procedure = USUAL, launch_us: float = 1650.0, **board: float) -> tuple[PowerReading, FakeLoad, float]:
    clock = Clock()
    load = FakeLoad(clock, launch_us)
    reading = meter(FakeBoard(clock, power_w, **board), load, procedure, now_s=clock.now_s, wait=clock.wait)  # type: ignore[arg-type]
    return reading, load, clock.now


@pytest.mark.parametrize("power_w", [35.0, 310.0, 700.0])
@pytest.mark.parametrize("phase_s", [0.0, 0.0013, 0.0371, 0.0502, 0.0999])
@pytest.mark.parametrize("step_s", [0.1, 0.0987])
def test_a_known_power_is_recovered_though_reads_do_not_meet_the_steps(power_w: float, phase_s: float, step_s: float) -> None:
    reading, _, _ = _meter(power_w, phase_s=phase_s, step_s=step_s)
    assert reading.power_w == pytest.approx(power_w, rel=0.01)
    assert reading.window_s == pytest.approx(5 * step_s, rel=0.01)
    assert reading.counter_steps == 5


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
    gaps = [later - earlier for earlier, later in zip(load.fed_s, [*load.fed_s[1:], end_s], strict=True)]
    assert max(gaps) < 0.015  # two reads and a wait
    assert load.stopped


def test_more_steps_make_a_longer_window() -> None:
    reading, _, _ = _meter(300.0, procedure=Procedure(power_steps=12))
    assert (reading.counter_steps, round(reading.window_s, 1)) == (12, 1.2)


def test_a_capped_board_is_metered_for_seconds() -> None:
    reading, _, _ = _meter(700.0, cap=True)
    assert reading.counter_steps == CAPPED_STEPS
    assert reading.window_s == pytest.approx(CAPPED_STEPS * 0.1, rel=0.01)
    assert reading.power_w == pytest.approx(700.0, rel=0.003)


def test_a_counter_that_never_moves_is_not_a_meter() -> None:
    clock = Clock()
    load = FakeLoad(clock, 100.0)
    with pytest.raises(MeasurementError, match="the energy counter did not move for 3 s") as caught:
        meter(FakeBoard(clock, 0.0), load, Procedure(), now_s=clock.now_s, wait=clock.wait)
    assert caught.value.status == "unsupported"
    assert load.stopped
    assert clock.now - 1000.0 < Procedure().settle_s + STALL_S + 0.1


def test_a_counter_that_stops_in_the_window_is_given_up_too() -> None:
    class Stops(FakeBoard):
        def energy_mj(self) -> float:
            return min(super().energy_mj(), 1000.6 * 300e3)

    clock = Clock()
    load = FakeLoad(clock, 100.0)
    with pytest.raises(MeasurementError, match="did not move"):
        meter(Stops(clock, 300.0), load, Procedure(), now_s=clock.now_s, wait=clock.wait)
    assert load.stopped
