"""The burst timer, on a clock that only launches move."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import chain, cycle, repeat

import numpy as np
import pytest

from agent.timing import MAX_BATCHES, MIN_BATCHES, MIN_BATCHES_SPENT, Burst, relative_standard_error, time_burst
from gemmcast.procedure import Procedure

USUAL = Procedure()


class FakeKernel:
    """Batches of launches of known length: batch i takes `launches` times the i-th of `launch_us`, plus `extra_us`."""

    def __init__(self, launch_us: Iterator[float], extra_us: Callable[[int], float] = lambda _: 0.0) -> None:
        self._launch_us, self._extra_us = launch_us, extra_us
        self.sizes: list[int] = []
        self._now_s = 100.0

    def batch_us(self, launches: int) -> float:
        took_us = launches * next(self._launch_us) + self._extra_us(len(self.sizes))
        self.sizes.append(launches)
        self._now_s += took_us * 1e-6
        return took_us

    def now_s(self) -> float:
        return self._now_s

    @property
    def spent_s(self) -> float:
        return self._now_s - 100.0

    def time(self, procedure: Procedure = USUAL, *, min_batch_us: float = 1000.0, max_launches: int = 20_000) -> Burst:
        return time_burst(self.batch_us, procedure, min_batch_us=min_batch_us, max_launches=max_launches, now_s=self.now_s)


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
    assert burst.repeats == batch * (MIN_BATCHES if launch_us < 5000 else MIN_BATCHES_SPENT)  # five of the long ones use the time up


def test_a_batch_never_has_more_launches_than_allowed() -> None:
    kernel = FakeKernel(repeat(0.01))
    burst = kernel.time(max_launches=512)
    assert max(kernel.sizes) == kernel.sizes[-1] == 512
    assert burst.runtime_us == pytest.approx(0.01)


def test_a_first_reading_that_was_interrupted_does_not_size_the_batch() -> None:
    kernel = FakeKernel(repeat(7.0), extra_us=lambda i: 3000.0 if i == 0 else 0.0)
    kernel.time()
    assert kernel.sizes[-1] * 7.0 >= 1000.0


def test_a_steady_kernel_needs_the_fewest_batches() -> None:
    kernel = FakeKernel(cycle([100.0, 100.1, 99.9]))
    burst = kernel.time(Procedure(target_rse=0.005, burst_s=10.0))
    assert kernel.sizes.count(kernel.sizes[-1]) <= MIN_BATCHES + 2  # two may be of the sizing
    assert burst.runtime_rse < 0.005


def test_a_noisy_kernel_is_repeated_until_its_median_is_known() -> None:
    kernel = FakeKernel(_unsteady(0.05))
    burst = kernel.time(Procedure(target_rse=0.005, burst_s=10.0))
    assert burst.runtime_rse < 0.005
    assert burst.repeats > 3 * MIN_BATCHES * kernel.sizes[-1]
    assert burst.runtime_us == pytest.approx(100.0, rel=0.02)


def test_a_kernel_that_never_settles_is_stopped_by_the_budget() -> None:
    kernel = FakeKernel(_unsteady())
    burst = kernel.time(Procedure(target_rse=1e-6, burst_s=0.05))
    assert 0.05 <= kernel.spent_s < 0.06
    assert burst.runtime_rse > 1e-6


def test_the_number_of_batches_is_bounded_too() -> None:
    kernel = FakeKernel(_unsteady())
    burst = kernel.time(Procedure(target_rse=1e-6, burst_s=60.0))
    assert burst.repeats == MAX_BATCHES * kernel.sizes[-1]


def test_a_launch_far_over_the_budget_runs_a_few_times_only() -> None:
    kernel = FakeKernel(repeat(1e6))
    burst = kernel.time(Procedure(burst_s=0.03))
    assert burst.repeats == 3
    assert kernel.spent_s <= 5.0


def test_interrupted_batches_do_not_count() -> None:
    kernel = FakeKernel(chain(repeat(50.0, 8), cycle([50.0, 50.2, 49.8, 50.1, 900.0])))
    burst = kernel.time(Procedure(target_rse=1e-4, burst_s=0.2))
    assert burst.runtime_us == pytest.approx(50.0, rel=0.01)
    assert burst.runtime_rse < 0.01


def test_the_standard_error_is_that_of_medians_of_such_samples() -> None:
    rng = np.random.default_rng(11)
    samples = 100.0 + 4.0 * rng.standard_normal((1500, 61))
    seen = float(np.std(np.median(samples, axis=1))) / 100.0
    said = float(np.mean([relative_standard_error(list(times)) for times in samples]))
    assert said == pytest.approx(seen, rel=0.1)


def test_the_standard_error_of_one_reading_is_none() -> None:
    assert relative_standard_error([12.0]) == 0.0
    assert relative_standard_error([0.0, 0.0, 0.0]) == 0.0
