"""The cores of this host as a device: what a machine without a GPU really measures.

Operands are windows of one arena of random numbers, so that no cell pays for allocation or filling. There is no readable power here:
power columns stay null. A CPU is never ours alone: a batch in which the kernel took a core away from us (involuntary context
switches) says nothing about the GEMM and is timed again. Long batches are allowed a few: there are always some, and they hardly cost.
"""

from __future__ import annotations

import os
import platform
import resource
import uuid
from collections.abc import Callable, Sequence
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np

from agent.kernels import Prepared, blas
from agent.operands import Carved, Operands, input_elements, output_elements
from agent.power import PowerReading
from agent.timing import Batch, Burst, Pending, Steps, size, time_burst
from gemmcast.device import Device
from gemmcast.errors import MeasurementError
from gemmcast.gemm import DTYPES, Gemm
from gemmcast.procedure import Procedure

MIN_BATCH_US = 1000.0
MAX_LAUNCHES = 20_000
MAX_ARENA_BYTES = 2**30
DEFAULT_CACHE_BYTES = 32 * 2**20
CHARACTERISE_DIM = 1024
MAX_PREEMPTED = 40
# batches of one burst that were interrupted by other processes, before the cell is given up
UNNOTICED_US = 10_000.0
# one switch in so long a time is the system's own business; a quiet host shows a few in every 0.1 s, which cost 0.1 to 1 %
TYPES: dict[str, Any] = {"fp32": np.float32, "fp64": np.float64}


class _Done:
    """NumPy has finished when it returns."""

    def __init__(self, batches: Sequence[Batch] = ()) -> None:
        self._batches = batches

    def wait(self) -> None:
        pass

    def read(self) -> Sequence[Batch]:
        return self._batches


class CpuBackend:
    """NumPy on all cores that this process may use."""

    xp: Any = np
    depth = 1

    def __init__(self) -> None:
        self._cores = len(os.sched_getaffinity(0))
        self._cache_bytes = _last_level_cache_bytes()
        self._arenas: dict[str, Any] = {}
        self._rng = np.random.default_rng(20241116)
        self._made: tuple[Gemm, bool, list[Operands]] | None = None

    def identify(self) -> Device:
        return Device(
            name=_cpu_name(),
            kind="cpu",
            uuid=f"CPU-{_machine_id()}",
            compute_units=self._cores,
            memory_bytes=os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
            l2_bytes=self._cache_bytes,
            dram_gbps=0.0,
            empty_launch_us=0.0,
            library=f"numpy {np.__version__}, {blas.library()}",
        )

    def characterise(self) -> Device:
        blas.set_threads(self._cores)
        known = self.identify()
        peaks = {dtype: self._peak_tflops(dtype) for dtype in TYPES}
        values = {name: getattr(known, name) for name in known.__slots__}
        return Device(**{**values, "dram_gbps": self._dram_gbps(), "empty_launch_us": self._empty_launch_us(), "peak_tflops": peaks})

    def operands(self, gemm: Gemm, *, cold: bool) -> Sequence[Operands]:
        if self._made and self._made[:2] == (gemm, cold):
            return self._made[2]
        sets = -(-3 * self._cache_bytes // gemm.operand_bytes) if cold else 1
        in_size, out_size = input_elements(gemm), output_elements(gemm)
        # padding included: a tiny set takes a hundred times its own bytes
        sets = max(1, min(sets, MAX_ARENA_BYTES // ((in_size + out_size) * DTYPES[gemm.dtype].in_bytes)))
        inputs, outputs = self._arena(gemm.dtype, sets * in_size), self._arena(f"{gemm.dtype} C", sets * out_size)
        self._made = (gemm, cold, list(Carved(gemm, inputs, outputs, sets)))
        return self._made[2]

    def pending(self) -> Pending:
        return _Done()

    def read(self, array: Any) -> Any:
        return array

    def burst(self, prepared: Prepared, sets: int, procedure: Procedure, *, cold: bool) -> Steps[tuple[Burst, dict[str, Any]]]:
        turn = preempted = 0

        def batches(launches: int, count: int) -> _Done:
            return _Done([Batch(took_us=batch_us(launches)) for _ in range(count)])

        def batch_us(launches: int) -> float:
            nonlocal turn, preempted
            while True:
                order = [(turn + i) % sets for i in range(launches)]
                turn = (turn + launches) % sets
                launch, before = prepared.launch, _preemptions()
                start_s = perf_counter()
                for i in order:
                    launch(i)
                took_us = (perf_counter() - start_s) * 1e6
                if _preemptions() - before <= took_us // UNNOTICED_US:
                    return took_us
                preempted += 1
                if preempted > MAX_PREEMPTED:
                    raise MeasurementError("contended", f"other processes interrupted {preempted} batches")

        began_s = perf_counter()  # what was interrupted and timed again counts too: a busy host must not cost more than an idle one
        launches = yield from size(batches, MIN_BATCH_US, MAX_LAUNCHES)
        return (yield from time_burst(batches, launches, procedure, spent_s=lambda: perf_counter() - began_s)), {}

    def no_power(self) -> str | None:
        return "a CPU has no energy counter that is ours to read"

    def power(
        self, prepared: Prepared, sets: int, burst: Burst, procedure: Procedure, *, step_s: float | None, meanwhile: Callable[[], object]
    ) -> PowerReading:
        raise MeasurementError("unsupported", str(self.no_power()))

    def contention(self) -> str | None:
        return None  # seen batch by batch, in `burst`

    def _arena(self, name: str, size: int) -> Any:
        """At least `size` random normals; a larger one replaces it when needed. Inputs are never written, so no result becomes an input."""
        arena, dtype = self._arenas.get(name), name.split(maxsplit=1)[0]
        if arena is None or len(arena) < size:
            if size * DTYPES[dtype].in_bytes > 0.7 * _available_bytes():
                raise MeasurementError("out_of_memory", f"operands need {size * DTYPES[dtype].in_bytes / 2**30:.1f} GiB")
            block = self._rng.standard_normal(min(size, 2**22), dtype=TYPES[dtype])
            arena = self._arenas[name] = np.resize(block, size)
        return arena

    def _peak_tflops(self, dtype: str) -> float:
        gemm = Gemm(m=CHARACTERISE_DIM, n=CHARACTERISE_DIM, k=CHARACTERISE_DIM, dtype=dtype)
        sets = self.operands(gemm, cold=False)
        return gemm.flops / (_best_s(lambda: np.matmul(sets[0].a, sets[0].b, out=sets[0].c)) * 1e12)

    def _dram_gbps(self) -> float:
        """Of a copy, bytes read plus bytes written."""
        arena = self._arena("fp32", 3 * self._cache_bytes // 4)
        half = len(arena) // 2
        target, source = np.empty_like(arena[:half]), arena[:half]
        return float(2 * source.nbytes) / (_best_s(lambda: np.copyto(target, source)) * 1e9)

    def _empty_launch_us(self) -> float:
        one = np.ones((1, 1), dtype=np.float32)

        def thousand() -> None:
            for _ in range(1000):
                np.matmul(one, one, out=one)

        return _best_s(thousand) * 1e3


def _best_s(run: Callable[[], object], times: int = 7) -> float:
    took = []
    for _ in range(times):
        start_s = perf_counter()
        run()
        took.append(perf_counter() - start_s)
    return min(took)


def _preemptions() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_nivcsw


def _cpu_name() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return f"{line.partition(':')[2].strip()} ({len(os.sched_getaffinity(0))} cores)"
    return f"{platform.machine()} ({len(os.sched_getaffinity(0))} cores)"


def _machine_id() -> str:
    path = Path("/etc/machine-id")
    text = path.read_text().strip() if path.exists() else ""
    return text or f"{uuid.getnode():012x}"


def _last_level_cache_bytes() -> int:
    sizes = []
    for path in Path("/sys/devices/system/cpu/cpu0/cache").glob("index*/size"):
        text = path.read_text().strip()
        sizes.append(int(text.rstrip("KM")) * {"K": 2**10, "M": 2**20}.get(text[-1], 1))
    return max(sizes, default=DEFAULT_CACHE_BYTES)


def _available_bytes() -> int:
    for line in Path("/proc/meminfo").read_text().splitlines():
        if line.startswith("MemAvailable"):
            return int(line.split()[1]) * 1024
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_AVPHYS_PAGES")
