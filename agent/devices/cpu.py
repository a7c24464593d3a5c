"""The cores of this host as a device: what a machine without a GPU really measures.

Operands are windows of one arena of random numbers, so that no cell pays for allocation or filling.
There is no readable power: power columns stay null. Other processes always share a CPU. A batch in
which the kernel took a core away from us (an involuntary context switch) is timed again. Long
batches are allowed a few switches: there are always some, and they cost next to nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from time import perf_counter

import numpy as np
from numpy.typing import NDArray

from agent.devices import cpu_host
from agent.devices.rotation import sets_needed
from agent.kernels import Prepared, blas
from agent.operands import Array, ArrayModule, Carved, Operands, input_elements, output_elements
from agent.power import PowerReading
from agent.timing import Batch, Burst, Pending, Steps, size, time_burst
from gemmcast.device import Device
from gemmcast.errors import MeasurementError
from gemmcast.gemm import DTYPES, Gemm
from gemmcast.procedure import Procedure
from gemmcast.rows import Row

MIN_BATCH_US = 1000.0
MAX_LAUNCHES = 20_000
MAX_ARENA_BYTES = 2**30
MAX_MEMORY_SHARE = 0.7
"""Of the available memory that one arena may take."""
RANDOM_BLOCK = 2**22
"""Elements that are drawn; an arena repeats them."""
PEAK_DIM = 1024
"""Side of the GEMM that measures the peak."""
MAX_PREEMPTED = 40
"""Interrupted batches of one burst before the cell is given up."""
UNNOTICED_US = 10_000.0
"""One switch in so long a time is the system's own business: a quiet host has a few in every 0.1 s,
which cost 0.1 to 1 %."""
PEAK_DTYPES = ("fp32", "fp64")
NO_POWER = "a CPU has no energy counter that this program can read"


class _Done:
    """NumPy has finished when it returns."""

    def __init__(self, batches: Sequence[Batch] = ()) -> None:
        self._batches = batches

    def wait(self) -> None:
        """Return at once."""

    def read(self) -> Sequence[Batch]:
        """The batches."""
        return self._batches


@dataclass(frozen=True, slots=True, kw_only=True)
class CpuClock:
    """What bursts are timed by; tests pass a made-up one."""

    now_s: Callable[[], float] = perf_counter
    preemptions: Callable[[], int] = cpu_host.preemptions
    """Involuntary context switches of this process so far."""


CPU_CLOCK = CpuClock()


class CpuBackend:
    """NumPy on all cores that this process may use."""

    xp: ArrayModule = np
    depth = 1

    def __init__(self, clock: CpuClock = CPU_CLOCK) -> None:
        self._clock = clock
        self._cores = cpu_host.core_count()
        self._cache_bytes = cpu_host.last_level_cache_bytes()
        self._arenas: dict[str, Array] = {}
        self._rng = np.random.default_rng(20241116)
        self._problem: tuple[Gemm, bool] | None = None
        self._sets: list[Operands] = []

    def identify(self) -> Device:
        """See `DeviceBackend`."""
        return Device(
            name=cpu_host.cpu_name(),
            kind="cpu",
            uuid=f"CPU-{cpu_host.machine_id()}",
            compute_units=self._cores,
            memory_bytes=cpu_host.memory_bytes(),
            l2_bytes=self._cache_bytes,
            dram_gbps=0.0,
            library=f"numpy {np.__version__}, {blas.library()}",
        )

    def characterise(self) -> Device:
        """See `DeviceBackend`."""
        blas.set_threads(self._cores)
        smallest_us = self._smallest_gemm_us()
        return replace(
            self.identify(),
            dram_gbps=self._copy_gbps(),
            empty_kernel_us=smallest_us,
            empty_launch_us=smallest_us,
            peak_tflops={dtype: self._peak_tflops(dtype) for dtype in PEAK_DTYPES},
        )

    def operands(self, gemm: Gemm, *, cold: bool, metered: bool = False) -> Sequence[Operands]:
        """See `DeviceBackend`."""
        if self._problem == (gemm, cold):
            return self._sets
        in_size, out_size = input_elements(gemm), output_elements(gemm)
        # Padding included: a tiny set takes a hundred times its own bytes.
        set_bytes = (in_size + out_size) * DTYPES[gemm.dtype].in_bytes
        most = max(1, MAX_ARENA_BYTES // set_bytes)
        count = sets_needed(gemm.operand_bytes, self._cache_bytes, most) if cold else 1
        inputs = self._arena(gemm.dtype, gemm.dtype, count * in_size)
        outputs = self._arena(f"{gemm.dtype} C", gemm.dtype, count * out_size)
        self._sets = list(Carved(gemm, inputs, outputs, count))
        self._problem = (gemm, cold)
        return self._sets

    def pending(self) -> Pending:
        """See `DeviceBackend`."""
        return _Done()

    def read(self, array: Array) -> Array:
        """See `DeviceBackend`."""
        return array

    def burst(
        self,
        prepared: Prepared,
        sets: Sequence[Operands],
        procedure: Procedure,
        *,
        cold: bool,
        window_mhz: float | None = None,
    ) -> Steps[tuple[Burst, Row]]:
        """See `DeviceBackend`.

        Raises:
            MeasurementError: "contended" when too many batches were interrupted.
        """
        timer = _BatchTimer(prepared, len(sets), self._clock)
        # Interrupted batches count too: a busy host must not cost more time than an idle one.
        began_s = self._clock.now_s()

        def spent_s() -> float:
            """Since the burst began."""
            return self._clock.now_s() - began_s

        launches = yield from size(timer.run, MIN_BATCH_US, MAX_LAUNCHES)
        burst = yield from time_burst(timer.run, launches, procedure, spent_s=spent_s)
        return burst, {}

    def no_power(self) -> str | None:
        """See `DeviceBackend`."""
        return NO_POWER

    def power(
        self,
        prepared: Prepared,
        sets: Sequence[Operands],
        burst: Burst,
        procedure: Procedure,
        *,
        cold: bool,
        step_s: float | None,
        meanwhile: Callable[[], object],
    ) -> PowerReading:
        """See `DeviceBackend`."""
        raise MeasurementError("unsupported", NO_POWER)

    def contention(self) -> str | None:
        """None: `burst` sees it batch by batch."""
        return None

    def _arena(self, name: str, dtype: str, elements: int) -> Array:
        """At least so many standard normal numbers; a larger arena replaces one that is too small.

        Inputs are never written, so no result becomes an input.
        """
        arena = self._arenas.get(name)
        if arena is None or len(arena) < elements:
            arena_bytes = elements * DTYPES[dtype].in_bytes
            if arena_bytes > MAX_MEMORY_SHARE * cpu_host.available_bytes():
                reason = f"operands need {arena_bytes / 2**30:.1f} GiB"
                raise MeasurementError("out_of_memory", reason)
            block = self._random(min(elements, RANDOM_BLOCK), dtype)
            arena = np.resize(block, elements)
            self._arenas[name] = arena
        return arena

    def _random(self, elements: int, dtype: str) -> NDArray[np.floating]:
        if dtype == "fp64":
            return self._rng.standard_normal(elements)
        return self._rng.standard_normal(elements, dtype=np.float32)

    def _peak_tflops(self, dtype: str) -> float:
        gemm = Gemm(m=PEAK_DIM, n=PEAK_DIM, k=PEAK_DIM, dtype=dtype)
        (operands,) = self.operands(gemm, cold=False)

        def multiply() -> None:
            """One large GEMM on all cores."""
            np.matmul(operands.a, operands.b, out=operands.c)

        return gemm.flops / (self._best_s(multiply) * 1e12)

    def _copy_gbps(self) -> float:
        """Of a copy, bytes read plus bytes written."""
        arena = self._arena("fp32", "fp32", 3 * self._cache_bytes // 4)
        source = arena[: len(arena) // 2]
        target = np.empty_like(source)

        def copy() -> None:
            """All of it."""
            np.copyto(target, source)

        return float(2 * source.nbytes) / (self._best_s(copy) * 1e9)

    def _smallest_gemm_us(self) -> float:
        """Call and work in one: on a CPU nothing is launched."""
        one = np.ones((1, 1), dtype=np.float32)

        def multiply_thousand_times() -> None:
            """The smallest GEMM."""
            for _ in range(1000):
                np.matmul(one, one, out=one)

        return self._best_s(multiply_thousand_times) * 1e3

    def _best_s(self, run: Callable[[], None], times: int = 7) -> float:
        durations_s = []
        for _ in range(times):
            start_s = self._clock.now_s()
            run()
            durations_s.append(self._clock.now_s() - start_s)
        return min(durations_s)


class _BatchTimer:
    """Times batches of launches that rotate over the operand sets."""

    def __init__(self, prepared: Prepared, sets: int, clock: CpuClock) -> None:
        self._launch = prepared.launch
        self._sets = sets
        self._clock = clock
        self._next_set = 0
        self._preempted = 0

    def run(self, launches: int, count: int) -> _Done:
        """`count` batches of so many launches."""
        return _Done([Batch(took_us=self._undisturbed_us(launches)) for _ in range(count)])

    def _undisturbed_us(self, launches: int) -> float:
        while True:
            order = self._next_sets(launches)
            before = self._clock.preemptions()
            took_us = self._batch_us(order)
            if self._clock.preemptions() - before <= took_us // UNNOTICED_US:
                return took_us
            self._preempted += 1
            if self._preempted > MAX_PREEMPTED:
                reason = f"other processes interrupted {self._preempted} batches"
                raise MeasurementError("contended", reason)

    def _next_sets(self, launches: int) -> list[int]:
        """Go on with the set after the one that was last."""
        first = self._next_set
        self._next_set = (first + launches) % self._sets
        return [(first + i) % self._sets for i in range(launches)]

    def _batch_us(self, order: list[int]) -> float:
        launch = self._launch
        start_s = self._clock.now_s()
        for i in order:
            launch(i)
        return (self._clock.now_s() - start_s) * 1e6
