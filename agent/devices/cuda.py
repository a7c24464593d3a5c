"""One GPU as a device: CuPy for memory and streams, CUDA graphs for timing, NVML for power.

A burst is a captured graph of many launches between two events, so that the launch overhead of Python is out of the time; that
overhead is read by itself, from a few plain launches. Operand sets are windows of one arena of random numbers and rotate inside the
graph; where a graph does not get round all of them, or all of them together stay below 3x L2, a pass of reads over a flush buffer
evicts them before every replay. Everything goes to one queue (queue.py), so what is enqueued for the next cell never runs beside this one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import ceil
from statistics import median
from time import perf_counter
from typing import Any

import cupy

from agent.devices.cuda_peaks import describe
from agent.devices.cuda_stream import SPIN_CYCLES, GraphBatches, GraphLoad, Queue
from agent.devices.nvml import NvmlBoard
from agent.dtypes import CARRIERS, narrow
from agent.kernels import Prepared, load
from agent.operands import Carved, Operands, input_elements, output_elements
from agent.power import PowerReading, heat, meter
from agent.timing import MAX_BATCHES, MIN_BATCHES, Burst, Pending, Steps, time_burst
from gemmcast.config import KernelConfig
from gemmcast.device import Device
from gemmcast.errors import MeasurementError
from gemmcast.gemm import DTYPES, Gemm
from gemmcast.procedure import Procedure

DEPTH = 8
# cells under way: one is timed, two wait to be, the rest are being prepared or checked
MIN_BATCH_US, LONG_BATCH_US, LONG_BATCH_LAUNCHES = 500.0, 2000.0, 64
# the host pays for every launch in a graph, not for its length: kernels that need few have longer batches
MAX_LAUNCHES = 512
# in one graph
PROBE_LAUNCHES, PROBE_FEW = 8, 3
# plain launches that show the host's cost and size the batch; fewer of long kernels
PROBE_BELOW_US, PROBE_ONCE_US = 1000.0, 20_000.0
PROBE_SPIN = SPIN_CYCLES
# cycles a launch: while it spins the host enqueues
LOAD_GRAPH_US = 5_000.0
MAX_LOAD_GRAPH_US = 50_000.0
RANDOM_BLOCK = 2**24
HEATER = Gemm(m=4096, n=4096, k=4096, dtype="fp16")
HEATER_LAUNCHES = 16
# some milliseconds; it runs at the power cap


class CudaBackend:
    """The first GPU that this process sees (Ray gives each agent one)."""

    xp: Any = cupy
    depth = DEPTH

    def __init__(self) -> None:
        self._properties = cupy.cuda.runtime.getDeviceProperties(0)
        self.board = NvmlBoard(cupy.cuda.runtime.deviceGetPCIBusId(0))
        self._neighbours = self.board.compute_processes()  # before we hold a context of our own
        cupy.cuda.Device(0).use()
        self.queue = Queue(int(self._properties["multiProcessorCount"]), self.board.clock_max_mhz())
        self._l2_bytes = int(self._properties["l2CacheSize"])
        self._arenas: dict[str, Any] = {}
        self._made: tuple[Gemm, bool, Carved] | None = None
        self._is_warm = False
        self._flush_buffer = cupy.zeros(3 * self._l2_bytes // 4, dtype=cupy.float32)
        self._touch = self.queue.toucher(self._flush_buffer)

    def identify(self) -> Device:
        runtime = cupy.cuda.runtime.runtimeGetVersion()
        library: Any = load("cublas")
        return Device(
            name=self._properties["name"].decode(),
            kind="cuda",
            uuid=self.board.uuid,
            compute_units=int(self._properties["multiProcessorCount"]),
            arch=f"sm_{self._properties['major']}{self._properties['minor']}",
            clock_max_mhz=self.board.clock_max_mhz(),
            power_limit_w=self.board.power_limit_w(),
            memory_bytes=int(self._properties["totalGlobalMem"]),
            l2_bytes=self._l2_bytes,
            dram_gbps=0.0,
            empty_launch_us=0.0,
            driver=self.board.driver(),
            cuda=f"{runtime // 1000}.{runtime % 1000 // 10}",
            library=library.version,
            mig=self.board.mig(),
        )

    def characterise(self) -> Device:
        return describe(self)

    def operands(self, gemm: Gemm, *, cold: bool) -> Sequence[Operands]:
        if self._made and self._made[:2] == (gemm, cold):
            return self._made[2]
        sets = min(ceil(3 * self._l2_bytes / gemm.operand_bytes), MAX_LAUNCHES) if cold else 1
        inputs = self._arena(gemm.dtype, gemm.dtype, sets * input_elements(gemm))
        outputs = self._arena(f"{gemm.c_dtype} C", gemm.c_dtype, sets * output_elements(gemm))
        self._made = (gemm, cold, Carved(gemm, inputs, outputs, sets))
        return self._made[2]

    def pending(self) -> Pending:
        return _Enqueued(self.queue.event())

    def read(self, array: Any) -> Any:
        return self.queue.read(array)

    def burst(self, prepared: Prepared, sets: int, procedure: Procedure, *, cold: bool) -> Steps[tuple[Burst, dict[str, Any]]]:
        launch_us, overhead_us = yield from self._probe(prepared, sets)
        batch_us = max(MIN_BATCH_US, min(LONG_BATCH_US, LONG_BATCH_LAUNCHES * launch_us))
        launches = min(max(1, ceil(batch_us / launch_us)), sets if cold and sets == MAX_LAUNCHES else MAX_LAUNCHES)
        graph = self.queue.capture(prepared, sets, launches)
        before: Callable[[], None] | None = None if cold else lambda: prepared.launch(0)
        if cold and (launches < sets or sets == MAX_LAUNCHES):
            before = self._evict
        batch_s = launches * launch_us * 1e-6
        at_once = max(1, min(MIN_BATCHES, int(procedure.burst_s / batch_s)), min(MAX_BATCHES, ceil(procedure.min_burst_s / batch_s)))
        burst = yield from time_burst(
            lambda _launches, count: GraphBatches(self.queue, graph, count, before),
            launches, procedure, at_once=at_once, full_mhz=lambda: self.queue.full_mhz,
        )  # fmt: skip
        return burst, {
            "host_launch_us": overhead_us,
            "launch_bound": overhead_us > burst.runtime_us,
            "temperature_c": self.board.temperature_c(),
            "throttle_reasons": self.board.throttle_reasons(),
        }

    def no_power(self) -> str | None:
        if self.board.mig():
            return "a MIG slice shares the board's energy counter with its neighbours"
        return None if self.board.has_energy() else "this board has no total-energy counter"

    def power(
        self, prepared: Prepared, sets: int, burst: Burst, procedure: Procedure, *, step_s: float | None, meanwhile: Callable[[], object]
    ) -> PowerReading:
        if not self._is_warm:
            self._is_warm = True
            self._heat()
        all_sets = min(sets, ceil(MAX_LOAD_GRAPH_US / burst.runtime_us))  # else L2 would keep the first few
        launches = max(1, min(MAX_LAUNCHES, max(round(LOAD_GRAPH_US / burst.runtime_us), all_sets)))
        load_ = GraphLoad(self.queue, self.queue.capture(prepared, sets, launches), launches)
        limit_w = self.board.power_limit_w()
        return meter(self.board, load_, procedure, step_s=step_s, burst_mhz=burst.clock_mhz, limit_w=limit_w, meanwhile=meanwhile)

    def contention(self) -> str | None:
        others = max(self._neighbours, self.board.compute_processes() - 1)
        return f"{others} other process(es) hold this GPU" if others else None

    def _heat(self) -> None:
        """To the temperature that a sweep keeps the board at, before its power is read for the first time."""
        sets = self.operands(HEATER, cold=False)
        prepared = load("cublas").prepare(HEATER, KernelConfig(family="cublas"), sets)
        graph = self.queue.capture(prepared, len(sets), HEATER_LAUNCHES)
        heat(GraphLoad(self.queue, graph, HEATER_LAUNCHES), self.board.temperature_c)

    def _evict(self) -> None:
        """From L2, by reading something else."""
        self._touch(0)

    def _probe(self, prepared: Prepared, sets: int) -> Steps[tuple[float, float]]:
        """About how long a warm launch runs, and what it costs the host (both us), without a graph."""
        launches, spin = 1, SPIN_CYCLES
        while True:
            self.queue.spin(spin)
            begin = self.queue.event()
            host_us = []
            for i in range(launches):
                start_s = perf_counter()
                prepared.launch(i % sets)
                host_us.append((perf_counter() - start_s) * 1e6)
            end = self.queue.event()
            yield _Enqueued(end)
            took_us = float(cupy.cuda.get_elapsed_time(begin, end)) * 1e3 / launches
            if launches > 1 or took_us >= PROBE_ONCE_US:
                return max(took_us, 1e-3), median(host_us)
            launches = PROBE_LAUNCHES if took_us < PROBE_BELOW_US else PROBE_FEW
            spin = launches * PROBE_SPIN

    def _arena(self, name: str, dtype: str, size: int) -> Any:
        """At least `size` random normals. Inputs are never written, so no result becomes an input."""
        arena = self._arenas.get(name)
        if arena is None or arena.size < size:
            known = 0 if arena is None else arena.size
            self._made = self._arenas[name] = arena = None
            size = self._affordable(size, 2 * known, DTYPES[dtype].in_bytes)
            arena = self._arenas[name] = cupy.empty(size, dtype=CARRIERS[dtype])
            for at in range(0, size, RANDOM_BLOCK):
                block = cupy.random.standard_normal(min(RANDOM_BLOCK, size - at), dtype=cupy.float32)
                arena[at : at + block.size] = narrow(cupy, block, dtype)
        return arena

    def _affordable(self, size: int, wished: int, item_bytes: int) -> int:
        """Elements: as many as wished where there is room for so many, else as many as needed."""
        free, _ = cupy.cuda.runtime.memGetInfo()
        free += cupy.get_default_memory_pool().free_bytes()
        if size * item_bytes > 0.95 * free:
            raise MeasurementError("out_of_memory", f"operands need {size * item_bytes / 2**30:.1f} GiB, {free / 2**30:.1f} GiB are free")
        return max(size, wished) if wished * item_bytes < 0.1 * free else size


class _Enqueued:
    """Everything up to an event."""

    def __init__(self, event: Any) -> None:
        self._event = event

    def wait(self) -> None:
        self._event.synchronize()
