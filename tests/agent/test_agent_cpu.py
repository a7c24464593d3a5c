"""The CPU's backend: how operands are laid out, cold and warm, and how bursts rotate over them."""

from __future__ import annotations

from itertools import count, pairwise
from typing import Any

import numpy as np
import pytest

from agent.devices import cpu
from agent.devices.cpu import MAX_ARENA_BYTES, NO_POWER, CpuBackend, CpuClock
from agent.kernels import Prepared, load
from agent.operands import Operands, address_of, input_elements, output_elements
from agent.timing import Burst, Steps, finish
from gemmcast.config import KernelConfig
from gemmcast.errors import MeasurementError
from gemmcast.gemm import LAYOUTS, Gemm
from gemmcast.procedure import Procedure


@pytest.fixture(scope="module")
def backend() -> CpuBackend:
    return CpuBackend()


def test_it_says_what_it_is(backend: CpuBackend) -> None:
    device = backend.identify()
    assert device.kind == "cpu"
    assert device.has_power is False
    assert device.mig is False
    assert device.compute_units >= 1
    assert device.memory_bytes > 2**28
    assert device.l2_bytes >= 2**18
    assert f"({device.compute_units} cores)" in device.name
    assert device.uuid.startswith("CPU-")
    assert device.uuid == CpuBackend().identify().uuid


def test_cold_operands_go_far_beyond_the_cache(backend: CpuBackend) -> None:
    gemm = Gemm(m=512, n=512, k=512)
    sets = backend.operands(gemm, cold=True)
    assert len(sets) * gemm.operand_bytes >= min(
        3 * backend.identify().l2_bytes, MAX_ARENA_BYTES - gemm.operand_bytes
    )
    starts = sorted(
        (array.__array_interface__["data"][0], array.nbytes)
        for s in sets
        for array in (s.a, s.b, s.c)
    )
    assert all(at + size <= following for (at, size), (following, _) in pairwise(starts))


def test_a_warm_operand_set_is_one(backend: CpuBackend) -> None:
    assert len(backend.operands(Gemm(m=512, n=512, k=512), cold=False)) == 1


def test_one_cold_set_is_enough_where_it_exceeds_the_cache_itself(backend: CpuBackend) -> None:
    side = int(np.sqrt(backend.identify().l2_bytes / 4)) + 1
    gemm = Gemm(m=side, n=side, k=side)
    if gemm.operand_bytes > MAX_ARENA_BYTES:
        pytest.skip("this cache is huge")
    assert len(backend.operands(gemm, cold=True)) == 1


@pytest.mark.parametrize("layout", LAYOUTS)
def test_operands_have_the_requested_layout(backend: CpuBackend, layout: str) -> None:
    (operands,) = backend.operands(
        Gemm(m=6, n=5, k=4, batch=3, layout=layout, dtype="fp64"), cold=False
    )
    assert operands.a.shape == ((3, 4, 6) if layout[0] == "t" else (3, 6, 4))
    assert operands.b.shape == ((3, 5, 4) if layout[1] == "t" else (3, 4, 5))
    assert operands.c.dtype == np.float64


def test_the_same_problem_gives_the_same_operands_again(backend: CpuBackend) -> None:
    gemm = Gemm(m=64, n=64, k=64)
    first = backend.operands(gemm, cold=False)
    assert backend.operands(gemm, cold=False) is first
    assert backend.operands(gemm, cold=True) is not first


def test_no_result_ever_becomes_an_input(backend: CpuBackend) -> None:
    for gemm in (Gemm(m=300, n=200, k=400), Gemm(m=64, n=700, k=512), Gemm(m=900, n=900, k=900)):
        sets = backend.operands(gemm, cold=False)
        inputs = [array for s in sets for array in (s.a, s.b)]
        before = [array.copy() for array in inputs]
        prepared = load("blas").prepare(gemm, KernelConfig(family="blas", cpu_threads=1), sets)
        for i in range(len(sets)):
            prepared.launch(i)
        for array, old in zip(inputs, before, strict=True):
            assert np.array_equal(array, old)
            # Products are far larger.
            assert abs(float(array.mean())) < 0.05
            assert abs(float(array.std()) - 1) < 0.05


def test_a_shape_that_does_not_fit_is_refused_before_it_is_allocated(backend: CpuBackend) -> None:
    gemm = Gemm(m=2**22, n=2**22, k=2**10)
    with pytest.raises(MeasurementError, match="operands need") as caught:
        backend.operands(gemm, cold=True)
    assert caught.value.status == "out_of_memory"
    # And the backend goes on.
    assert len(backend.operands(Gemm(m=8, n=8, k=8), cold=False)) == 1


_NO_OPERANDS = Operands(a=None, b=None, c=None)


class Clock:
    """A made-up clock that only launches move, and a count of context switches."""

    def __init__(self, launch_us: float, switches_per_batch: int = 0) -> None:
        self._now_us = 0.0
        self._launch_us = launch_us
        self._switches = count(0, switches_per_batch)
        self.order: list[int] = []

    def burst(self, sets: int, *, cold: bool = False) -> Steps[Any]:
        """Of a kernel whose launches take `launch_us`."""
        clock = CpuClock(now_s=lambda: self._now_us * 1e-6, preemptions=self._switches.__next__)
        prepared = Prepared(self._launch)
        rotated = [_NO_OPERANDS] * sets
        return CpuBackend(clock).burst(prepared, rotated, Procedure(burst_s=0.002), cold=cold)

    def _launch(self, i: int) -> None:
        self.order.append(i)
        self._now_us += self._launch_us


def test_a_burst_rotates_over_all_sets_and_goes_on_where_it_stopped() -> None:
    clock = Clock(launch_us=3.0)
    burst, conditions = finish(clock.burst(7, cold=True))
    assert clock.order == [i % 7 for i in range(len(clock.order))]
    assert burst.runtime_us == pytest.approx(3.0)
    assert 0 < burst.launches_timed <= len(clock.order)
    assert conditions == {}


def test_batches_that_others_interrupt_are_not_believed() -> None:
    clock = Clock(launch_us=50.0, switches_per_batch=1)
    with pytest.raises(MeasurementError, match="other processes interrupted") as caught:
        finish(clock.burst(1))
    assert caught.value.status == "contended"


def test_a_few_interruptions_of_a_long_batch_do_not_matter() -> None:
    burst, _ = finish(Clock(launch_us=12_000.0, switches_per_batch=1).burst(1))
    assert burst.runtime_us == pytest.approx(12_000.0)


def test_a_cpu_has_no_readable_power(backend: CpuBackend) -> None:
    assert backend.no_power() == NO_POWER
    burst = Burst(runtime_us=10.0, runtime_rse=0.0, launches_timed=1)
    with pytest.raises(MeasurementError, match="no energy counter") as caught:
        backend.power(
            Prepared(lambda _: None),
            [_NO_OPERANDS],
            burst,
            Procedure(),
            cold=True,
            step_s=None,
            meanwhile=lambda: pytest.fail("nothing settles"),
        )
    assert caught.value.status == "unsupported"


def test_a_cpu_works_only_while_its_host_waits(backend: CpuBackend) -> None:
    assert backend.depth == 1
    assert backend.contention() is None
    # Returns at once.
    backend.pending().wait()
    array = np.ones(3)
    assert backend.read(array) is array


def test_tiny_operands_that_are_cold_stay_within_the_arena(
    backend: CpuBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A set of 12 bytes takes 3 KiB with its padding: 3x the cache would be many GiB."""
    monkeypatch.setattr(cpu, "MAX_ARENA_BYTES", 2**22)
    gemm = Gemm(m=1, n=1, k=1)
    sets = backend.operands(gemm, cold=True)
    assert len(sets) == 2**22 // (4 * (input_elements(gemm) + output_elements(gemm)))
    assert all(one.a.shape == one.b.shape == one.c.shape == (1, 1, 1) for one in sets)


@pytest.mark.parametrize("dtype", ["fp32", "fp64"])
def test_operands_are_aligned_as_matrices_of_their_own(backend: CpuBackend, dtype: str) -> None:
    first, second, *_ = backend.operands(Gemm(m=33, n=17, k=5, dtype=dtype), cold=True)
    alignment = 256 * first.a.itemsize
    first_input, first_output = address_of(first.a), address_of(first.c)
    for array in (first.b, second.a, second.b):
        assert (address_of(array) - first_input) % alignment == 0
    assert (address_of(second.c) - first_output) % alignment == 0
