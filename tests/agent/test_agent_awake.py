"""The time that a process has lived."""

from __future__ import annotations

import pytest

from agent.awake import STALL_S, AwakeTime
from tests.made_up_clock import Clock


def test_time_passes_between_looks_that_lie_close_together(clock: Clock) -> None:
    time = AwakeTime(clock)
    for _ in range(50):
        clock.now += 0.2
        passed_s = time.look()
    assert passed_s == pytest.approx(10.0)


def test_a_freeze_counts_as_a_moment_however_long_it_was(clock: Clock) -> None:
    time = AwakeTime(clock)
    clock.now += 0.2
    time.look()
    clock.now += 70.0
    assert time.look() == pytest.approx(0.2 + STALL_S)
    clock.now += 0.2
    assert time.look() == pytest.approx(0.4 + STALL_S)


def test_a_machine_too_busy_for_frequent_looks_does_not_stop_the_time(clock: Clock) -> None:
    time = AwakeTime(clock)
    for _ in range(60):
        clock.now += 2 * STALL_S
        passed_s = time.look()
    assert passed_s == pytest.approx(60 * STALL_S)


def test_it_begins_again_at_a_restart(clock: Clock) -> None:
    time = AwakeTime(clock)
    clock.now += 0.5
    time.restart()
    assert time.look() == 0.0
