"""The burst timer, on a clock that only launches move."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, cycle, repeat

import numpy as np
import pytest

from agent.timing import (
    LOW_CLOCK,
    MAX_BATCHES,
    MIN_BATCHES,
    MIN_BATCHES_LATE,
    MIN_BATCHES_SPENT,
    RESTS_S,
    Batch,
    Burst,
    Rest,
    Steps,
    finish,
    relative_standard_error,
    size,
    time_burst,
)
from gemmcast.procedure import Procedure

USUAL = Procedure()
FULL_MHZ = 1980.0


@dataclass
class Started:
    """Batches that can be read once somebody has waited for them."""

    batches: list[Batch]
    done: bool = False

    def wait(self) -> None:
        self.done = True

    def read(self) -> Sequence[Batch]:
        assert self.done
        return self.batches


class FakeKernel:
    """Batch i takes `launches` times the i-th of `launch_us`, plus `extra_us`.

    The i-th of `clocks` holds the clock before it and the clock while it runs.
    """

    def __init__(
        self,
        launch_us: Iterator[float],
        extra_us: Callable[[int], float] = lambda _: 0.0,
        clocks: Iterable[tuple[float | None, float | None]] = (),
    ) -> None:
        self._launch_us, self._extra_us, self._clocks = (
            launch_us,
            extra_us,
            chain(clocks, repeat((None, None))),
        )
        self.sizes: list[int] = []
        self.counts: list[int] = []
        self.spent_s = 0.0

    def run(self, launches: int, count: int) -> Started:
        self.counts.append(count)
        return Started([self._batch(launches) for _ in range(count)])

    def _batch(self, launches: int) -> Batch:
        took_us = launches * next(self._launch_us) + self._extra_us(len(self.sizes))
        self.sizes.append(launches)
        self.spent_s += took_us * 1e-6
        start_mhz, clock_mhz = next(self._clocks)
        return Batch(took_us=took_us, start_mhz=start_mhz, clock_mhz=clock_mhz)

    def time(
        self,
        procedure: Procedure = USUAL,
        *,
        min_batch_us: float = 1000.0,
        max_launches: int = 20_000,
    ) -> Burst:
        """As the CPU's backend does it: size, then time, a batch at once."""
        return finish(
            time_burst(self.run, finish(size(self.run, min_batch_us, max_launches)), procedure)
        )


def rested(steps: Steps[Burst]) -> tuple[Burst, list[float]]:
    """To the end without sleeping; the burst, and how long it would have rested."""
    rests = []
    while True:
        try:
            pending = next(steps)
        except StopIteration as end:
            return end.value, rests
        if isinstance(pending, Rest):
            rests.append(pending.seconds)
        else:
            pending.wait()


def _unsteady(spread: float = 0.2) -> Iterator[float]:
    rng = np.random.default_rng(5)
    while True:
        yield 100.0 * (1 + spread * rng.uniform(-1, 1))


@pytest.mark.parametrize("launch_us", [0.3, 7.0, 130.0, 999.0, 5000.0])
def test_a_batch_is_as_long_as_the_clock_needs_and_hardly_longer(launch_us: float) -> None:
    kernel = FakeKernel(repeat(launch_us))
    burst = kernel.time()
    batch = kernel.sizes[-1]
    assert burst.runtime_us == pytest.approx(launch_us)
    assert batch * launch_us >= 1000.0
    assert batch == 1 or batch * launch_us <= 2 * 1000.0
    assert burst.launches_timed == batch * MIN_BATCHES


def test_a_batch_never_has_more_launches_than_allowed() -> None:
    kernel = FakeKernel(repeat(0.01))
    burst = kernel.time(max_launches=512)
    assert max(kernel.sizes) == kernel.sizes[-1] == 512
    assert burst.runtime_us == pytest.approx(0.01)


def test_a_first_reading_that_was_interrupted_does_not_size_the_batch() -> None:
    kernel = FakeKernel(repeat(7.0), extra_us=lambda i: 3000.0 if i == 0 else 0.0)
    kernel.time()
    assert kernel.sizes[-1] * 7.0 >= 1000.0


def test_sizing_takes_few_readings_from_one_launch_up() -> None:
    kernel = FakeKernel(repeat(0.02))
    launches = finish(size(kernel.run, 1000.0, 10**6))
    assert 50_000 <= launches <= 100_000
    assert kernel.sizes[0] == 1
    assert kernel.sizes == sorted(kernel.sizes)
    assert len(kernel.sizes) <= 9
    assert set(kernel.counts) == {1}


def test_a_kernel_that_takes_no_time_is_sized_by_the_bound() -> None:
    assert finish(size(FakeKernel(repeat(0.0)).run, 1000.0, 300)) == 300


def test_a_steady_kernel_needs_the_fewest_batches() -> None:
    kernel = FakeKernel(cycle([100.0, 100.1, 99.9]))
    burst = kernel.time(Procedure(target_rse=0.005, burst_s=10.0))
    assert burst.launches_timed == MIN_BATCHES * kernel.sizes[-1]
    assert burst.runtime_rse < 0.005


def test_a_noisy_kernel_is_repeated_until_its_median_is_known() -> None:
    kernel = FakeKernel(_unsteady(0.05))
    burst = kernel.time(Procedure(target_rse=0.005, burst_s=10.0))
    assert burst.runtime_rse < 0.005
    assert burst.launches_timed > 3 * MIN_BATCHES * kernel.sizes[-1]
    assert burst.runtime_us == pytest.approx(100.0, rel=0.02)


def test_a_kernel_that_never_settles_is_stopped_by_the_budget() -> None:
    kernel = FakeKernel(_unsteady())
    burst = kernel.time(Procedure(target_rse=1e-6, burst_s=0.05))
    assert 0.05 <= kernel.spent_s < 0.06
    assert burst.runtime_rse > 1e-6


def test_the_number_of_batches_is_bounded_too() -> None:
    kernel = FakeKernel(_unsteady())
    burst = kernel.time(Procedure(target_rse=1e-6, burst_s=60.0))
    assert burst.launches_timed == MAX_BATCHES * kernel.sizes[-1]


@pytest.mark.parametrize(
    ("launch_us", "batches"),
    [(1e6, MIN_BATCHES_LATE), (7000.0, MIN_BATCHES_SPENT), (20_000.0, MIN_BATCHES_SPENT)],
)
def test_a_launch_near_or_over_the_budget_runs_a_few_times_only(
    launch_us: float, batches: int
) -> None:
    kernel = FakeKernel(repeat(launch_us))
    burst = finish(time_burst(kernel.run, 1, Procedure(burst_s=0.03, target_rse=0.0)))
    assert burst.launches_timed == batches
    assert kernel.spent_s == pytest.approx(batches * launch_us * 1e-6)


def test_interrupted_batches_do_not_count() -> None:
    kernel = FakeKernel(chain(repeat(50.0, 8), cycle([50.0, 50.2, 49.8, 50.1, 900.0])))
    burst = kernel.time(Procedure(target_rse=1e-4, burst_s=0.2))
    assert burst.runtime_us == pytest.approx(50.0, rel=0.01)
    assert burst.runtime_rse < 0.01


@pytest.mark.parametrize("at_once", [1, 2, MIN_BATCHES, 30])
def test_so_many_batches_are_started_before_anybody_looks(at_once: int) -> None:
    kernel = FakeKernel(repeat(100.0))
    burst = finish(time_burst(kernel.run, 10, Procedure(burst_s=10.0), at_once=at_once))
    assert kernel.counts[0] == at_once
    assert max(kernel.counts) <= at_once
    assert burst.launches_timed == 10 * sum(kernel.counts)
    assert sum(kernel.counts) == max(at_once, -(-MIN_BATCHES // at_once) * at_once)


def test_more_batches_are_added_a_few_at_a_time() -> None:
    kernel = FakeKernel(_unsteady())
    finish(time_burst(kernel.run, 10, Procedure(target_rse=1e-6, burst_s=0.1), at_once=30))
    assert kernel.counts[0] == 30
    assert len(kernel.counts) > 3
    assert set(kernel.counts[1:]) == {MIN_BATCHES}


def test_the_timer_gives_the_turn_away_before_it_reads() -> None:
    kernel = FakeKernel(repeat(100.0))
    steps = time_burst(kernel.run, 10, USUAL, at_once=MIN_BATCHES)
    first = next(steps)
    assert isinstance(first, Started)
    assert not first.done
    # Whoever resumes it without waiting reads what is not there.
    with pytest.raises(AssertionError):
        next(steps)


LOW, HIGH = (LOW_CLOCK * FULL_MHZ - 1, 1500.0), (LOW_CLOCK * FULL_MHZ + 1, 1900.0)


def _clocked(
    *clocks: tuple[float | None, float | None], then: tuple[float | None, float | None] = HIGH
) -> FakeKernel:
    """100 us a launch at a high clock, 140 us where it was low before."""
    seen = [*clocks, *repeat(then, 500)]
    return FakeKernel(
        (140.0 if start_mhz == LOW[0] else 100.0 for start_mhz, _ in seen), clocks=seen
    )


@pytest.mark.parametrize("at_once", [1, 4, MIN_BATCHES])
def test_batches_that_began_at_a_low_clock_are_left_out(at_once: int) -> None:
    kernel = _clocked(LOW)
    burst, rests = rested(
        time_burst(kernel.run, 10, USUAL, at_once=at_once, full_mhz=lambda: FULL_MHZ)
    )
    assert burst == Burst(
        runtime_us=100.0,
        runtime_rse=0.0,
        launches_timed=10 * (sum(kernel.counts) - 1),
        clock_mhz=HIGH[1],
        start_mhz=HIGH[0],
        held_back=False,
        capped=False,
    )
    # One of four is too few to rest for.
    assert rests == ([RESTS_S[0]] if at_once == 1 else [])


def test_a_rest_is_taken_where_half_of_the_batches_were_low() -> None:
    kernel = _clocked(*[LOW] * 4, *[HIGH] * 3, *[LOW] * 3)
    burst, rests = rested(
        time_burst(kernel.run, 10, USUAL, at_once=MIN_BATCHES, full_mhz=lambda: FULL_MHZ)
    )
    assert rests == [RESTS_S[0]]
    assert burst.runtime_us == 100.0
    assert burst.held_back is False
    assert burst.start_mhz == HIGH[0]


def test_rests_grow_until_one_helps() -> None:
    kernel = _clocked(*[LOW] * 3 * MIN_BATCHES)
    burst, rests = rested(
        time_burst(kernel.run, 10, USUAL, at_once=MIN_BATCHES, full_mhz=lambda: FULL_MHZ)
    )
    assert tuple(rests) == RESTS_S == (0.1, 0.3, 1.0)
    assert burst.runtime_us == 100.0
    assert burst.launches_timed == 10 * MIN_BATCHES
    assert burst.held_back is False


@pytest.mark.parametrize("at_once", [1, MIN_BATCHES])
def test_a_burst_that_no_rest_helps_says_that_it_was_held_back(at_once: int) -> None:
    kernel = _clocked(then=LOW)
    burst, rests = rested(
        time_burst(kernel.run, 10, USUAL, at_once=at_once, full_mhz=lambda: FULL_MHZ)
    )
    assert tuple(rests) == RESTS_S
    assert (burst.held_back, burst.runtime_us, burst.start_mhz, burst.clock_mhz) == (
        True,
        140.0,
        *LOW,
    )
    assert burst.launches_timed == 10 * (len(RESTS_S) + 1) * at_once


def test_enough_batches_at_a_high_clock_are_kept_though_the_board_ends_low() -> None:
    kernel = _clocked(*[HIGH] * MIN_BATCHES_LATE, then=LOW)
    burst, rests = rested(time_burst(kernel.run, 10, USUAL, at_once=1, full_mhz=lambda: FULL_MHZ))
    assert tuple(rests) == RESTS_S
    assert burst.held_back is False
    assert burst.runtime_us == 100.0
    assert burst.launches_timed == 10 * MIN_BATCHES_LATE


def test_too_few_batches_at_a_high_clock_do_not_speak_for_the_kernel() -> None:
    kernel = _clocked(*[HIGH] * (MIN_BATCHES_LATE - 1), then=LOW)
    burst, _ = rested(time_burst(kernel.run, 10, USUAL, at_once=1, full_mhz=lambda: FULL_MHZ))
    assert burst.held_back is True
    assert burst.runtime_us == 140.0
    assert burst.start_mhz == LOW[0]


def test_batches_whose_clock_falls_only_while_they_run_are_kept() -> None:
    kernel = _clocked(then=(FULL_MHZ, 0.6 * FULL_MHZ))
    burst, rests = rested(
        time_burst(kernel.run, 10, USUAL, at_once=MIN_BATCHES, full_mhz=lambda: FULL_MHZ)
    )
    # A second burst agrees.
    assert rests == [0.0]
    assert (burst.held_back, burst.capped, burst.unsteady) == (False, True, False)
    assert burst.launches_timed == 10 * MIN_BATCHES
    assert burst.clock_mhz == 0.6 * FULL_MHZ
    assert burst.start_mhz == FULL_MHZ


@pytest.mark.parametrize(("start_mhz", "full_mhz"), [(300.0, None), (None, FULL_MHZ), (None, None)])
def test_nothing_is_low_where_a_clock_is_not_known(
    start_mhz: float | None, full_mhz: float | None
) -> None:
    kernel = _clocked(then=(start_mhz, None))
    burst, rests = rested(
        time_burst(kernel.run, 10, USUAL, at_once=MIN_BATCHES, full_mhz=lambda: full_mhz)
    )
    assert rests == []
    assert burst.held_back is False
    assert burst.launches_timed == 10 * MIN_BATCHES
    assert burst.clock_mhz is None
    assert burst.start_mhz == start_mhz


def test_low_is_judged_by_the_highest_clock_seen_until_then() -> None:
    kernel, never = _clocked(then=(1200.0, 1200.0)), Procedure(target_rse=-1.0, burst_s=0.012)
    steps = time_burst(
        kernel.run,
        10,
        never,
        at_once=MIN_BATCHES,
        full_mhz=lambda: 1200.0 if len(kernel.counts) == 1 else FULL_MHZ,
    )
    burst, rests = rested(steps)
    # The first look kept its batches. Against the higher clock they are doubtful, and no other
    # burst can be had.
    assert tuple(rests) == (*RESTS_S, 0.0, *RESTS_S)
    assert (burst.held_back, burst.unsteady) == (False, True)
    assert burst.launches_timed == 10 * MIN_BATCHES


def _bursts(*clocks_mhz: float, window_mhz: float | None = None) -> tuple[Burst, list[float]]:
    """Of a kernel whose time goes with its clock; burst i runs at the i-th, the last one on."""
    seen = [(FULL_MHZ, mhz) for mhz in clocks_mhz[:-1] for _ in range(MIN_BATCHES)]
    seen += [(FULL_MHZ, clocks_mhz[-1])] * 10 * MIN_BATCHES
    kernel = FakeKernel((100.0 * FULL_MHZ / mhz for _, mhz in seen), clocks=seen)
    return rested(
        time_burst(
            kernel.run,
            10,
            USUAL,
            at_once=MIN_BATCHES,
            full_mhz=lambda: FULL_MHZ,
            window_mhz=window_mhz,
        )
    )


def test_a_burst_that_the_kernel_before_slowed_is_timed_again() -> None:
    burst, rests = _bursts(1473.0, 1880.0)
    assert (burst.clock_mhz, burst.capped, burst.unsteady) == (1880.0, False, False)
    assert burst.runtime_us == pytest.approx(100.0 * FULL_MHZ / 1880)
    assert rests == [0.0]


def test_a_capped_kernel_is_timed_until_two_bursts_agree() -> None:
    burst, rests = _bursts(1420.0, 1600.0, 1590.0)
    assert (burst.clock_mhz, burst.capped, burst.unsteady) == (1600.0, True, False)
    assert rests == [0.0, RESTS_S[0]]


def test_bursts_of_which_no_two_agree_are_marked() -> None:
    burst, rests = _bursts(1000.0, 1100.0, 1200.0, 1300.0, 1400.0)
    assert burst.unsteady is True
    # The one at the highest clock
    assert burst.clock_mhz == 1400.0
    assert tuple(rests) == (0.0, *RESTS_S)


def test_no_burst_is_slower_than_the_power_window_of_its_kernel() -> None:
    burst, rests = _bursts(1335.0, 1340.0, 1826.0, window_mhz=1820.0)
    assert (burst.clock_mhz, burst.unsteady) == (1826.0, False)
    assert rests == [0.0, RESTS_S[0]]
    burst, _ = _bursts(1335.0, window_mhz=1820.0)
    assert burst.unsteady is True


def test_a_burst_just_below_its_window_is_as_good_as_one_above() -> None:
    burst, rests = _bursts(1850.0, window_mhz=1880.0)
    assert (burst.clock_mhz, rests) == (1850.0, [])


def test_a_rest_sleeps_as_long_as_it_should() -> None:
    slept: list[float] = []
    Rest(0.3, slept.append).wait()
    assert slept == [0.3]


def test_the_standard_error_is_that_of_medians_of_such_samples() -> None:
    rng = np.random.default_rng(11)
    samples = 100.0 + 4.0 * rng.standard_normal((1500, 61))
    seen = float(np.std(np.median(samples, axis=1))) / 100.0
    estimated = float(np.mean([relative_standard_error(list(times)) for times in samples]))
    assert estimated == pytest.approx(seen, rel=0.1)


def test_the_standard_error_of_one_reading_is_none() -> None:
    assert relative_standard_error([12.0]) == 0.0
    assert relative_standard_error([0.0, 0.0, 0.0]) == 0.0
