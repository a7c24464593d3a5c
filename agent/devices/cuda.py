"""One GPU as a device: CuPy for memory and streams, CUDA graphs for timing, NVML for power.

A burst is a captured graph of many launches between two events, so that the launch overhead of Python is out of the time. Operand
sets are windows of one arena of random numbers and rotate inside the graph; where all sets together stay below 3x L2 a pass of
reads over a flush buffer evicts them before every replay. The events are enqueued behind that pass (or a short spin), so the GPU
never waits for the host between them.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import replace
from time import perf_counter, sleep
from typing import Any

import cupy

from agent.devices.nvml import NvmlBoard
from agent.kernels import Operands, Prepared, carve, load
from agent.numbers import CARRIERS, narrow
from agent.power import PowerReading, meter
from agent.timing import Burst, time_burst
from gemmcast.config import FAMILIES, KernelConfig
from gemmcast.device import Device
from gemmcast.errors import MeasurementError
from gemmcast.gemm import DTYPES, Gemm
from gemmcast.procedure import Procedure

MIN_BATCH_US = 500.0
MAX_LAUNCHES = 512
# in one graph
SPIN_CYCLES = 60_000
# about 30 us: covers the enqueueing of event and graph
LOAD_GRAPH_US = 5_000.0
LOAD_DEPTH = 12
# graphs queued ahead while power is metered
PEAK_DIMS = (4096, 8192)
RANDOM_BLOCK = 2**24
SPIN = r"""extern "C" __global__ void spin(long long cycles) { const long long start = clock64(); while (clock64() - start < cycles) {} }"""
EMPTY = r"""extern "C" __global__ void empty() {}"""


class CudaBench:
    """The first GPU that this process sees (Ray gives each agent one)."""

    xp: Any = cupy

    def __init__(self) -> None:
        properties = cupy.cuda.runtime.getDeviceProperties(0)
        self._properties = properties
        self.board = NvmlBoard(cupy.cuda.runtime.deviceGetPCIBusId(0))
        self._neighbours = self.board.compute_processes()  # before we hold a context of our own
        cupy.cuda.Device(0).use()
        self._stream = cupy.cuda.Stream(non_blocking=True)
        self._stream.use()
        self._l2_bytes = int(properties["l2CacheSize"])
        self._arenas: dict[str, Any] = {}
        self._made: tuple[Gemm, bool, list[Operands]] | None = None
        self._spin = cupy.RawKernel(SPIN, "spin")
        self._empty = cupy.RawKernel(EMPTY, "empty")
        self._flush_buffer = cupy.zeros(3 * self._l2_bytes // 4, dtype=cupy.float32)
        self._flush_out = cupy.zeros((), dtype=cupy.float32)
        self._flush = False

    def identify(self) -> Device:
        runtime = cupy.cuda.runtime.runtimeGetVersion()
        library: Any = load("cublas")
        return Device(
            name=self._properties["name"].decode(),
            kind="cuda",
            uuid=self.board.uuid,
            sm_count=int(self._properties["multiProcessorCount"]),
            clock_max_mhz=self.board.clock_max_mhz(),
            power_limit_w=self.board.power_limit_w(),
            memory_bytes=int(self._properties["totalGlobalMem"]),
            l2_bytes=self._l2_bytes,
            dram_gbps=0.0,
            launch_overhead_us=0.0,
            driver=self.board.driver(),
            cuda=f"{runtime // 1000}.{runtime % 1000 // 10}",
            library=library.version,
            mig=self.board.mig(),
        )

    def characterise(self) -> Device:
        idle_w = self._idle_power_w()
        peaks = {dtype: self._peak_tflops(dtype) for dtype in FAMILIES["cublas"].dtypes}
        return replace(
            self.identify(), idle_power_w=idle_w, dram_gbps=self._dram_gbps(), launch_overhead_us=self._launch_overhead_us(), peak_tflops=peaks
        )

    def operands(self, gemm: Gemm, *, cold: bool) -> Sequence[Operands]:
        if self._made and self._made[:2] == (gemm, cold):
            return self._made[2]
        sets = min(-(-3 * self._l2_bytes // gemm.operand_bytes), MAX_LAUNCHES) if cold else 1
        inputs = self._arena(gemm.dtype, sets * gemm.batch * (gemm.m * gemm.k + gemm.k * gemm.n))
        outputs = self._arena(f"{gemm.dtype} C", sets * gemm.batch * gemm.m * gemm.n)
        self._made = (gemm, cold, carve(gemm, inputs, outputs, sets))
        self._flush = cold and sets * gemm.operand_bytes < 3 * self._l2_bytes
        return self._made[2]

    def burst(self, prepared: Prepared, sets: int, procedure: Procedure) -> tuple[Burst, dict[str, Any]]:
        graphs: dict[int, Any] = {}
        begin, end = cupy.cuda.Event(), cupy.cuda.Event()

        def batch_us(launches: int) -> float:
            if launches not in graphs:
                graphs[launches] = self._capture(prepared, sets, launches)
                graphs[launches].launch(self._stream)
            self._hold_back()
            begin.record(self._stream)
            graphs[launches].launch(self._stream)
            end.record(self._stream)
            end.synchronize()
            return float(cupy.cuda.get_elapsed_time(begin, end)) * 1e3

        limit = sets if self._flush else MAX_LAUNCHES
        start_mhz = self.board.clock_mhz()
        timed = time_burst(batch_us, procedure, min_batch_us=MIN_BATCH_US, max_launches=limit)
        conditions = {
            "clock_start_mhz": start_mhz,
            "clock_mhz": self.board.clock_mhz(),
            "temperature_c": self.board.temperature_c(),
            "throttle_reasons": self.board.throttle_reasons(),
        }
        return timed, conditions

    def power(self, prepared: Prepared, sets: int, runtime_us: float, procedure: Procedure) -> PowerReading | None:
        if not self.board.has_energy() or self.board.mig():
            return None
        launches = max(1, min(MAX_LAUNCHES, round(LOAD_GRAPH_US / runtime_us)))
        return meter(self.board, _Load(self._stream, self._capture(prepared, sets, launches), launches), procedure)

    def contention(self) -> str | None:
        others = max(self._neighbours, self.board.compute_processes() - 1)
        return f"{others} other process(es) hold this GPU" if others else None

    def _capture(self, prepared: Prepared, sets: int, launches: int) -> Any:
        self._stream.begin_capture()
        try:
            for i in range(launches):
                prepared.launch(i % sets)
        finally:
            graph = self._stream.end_capture()
        graph.upload(self._stream)
        return graph

    def _hold_back(self) -> None:
        """Keep the GPU busy while the host enqueues what is timed; evict L2 where the sets alone don't."""
        if self._flush:
            cupy.sum(self._flush_buffer, out=self._flush_out)
        self._spin((1,), (1,), (SPIN_CYCLES,))

    def _arena(self, name: str, size: int) -> Any:
        """At least `size` random normals. Inputs are never written, so no result becomes an input."""
        arena, dtype = self._arenas.get(name), name.split(maxsplit=1)[0]
        if arena is None or arena.size < size:
            needed = size * DTYPES[dtype].in_bytes
            self._made = self._arenas[name] = arena = None
            free, _ = cupy.cuda.runtime.memGetInfo()
            free += cupy.get_default_memory_pool().free_bytes()
            if needed > 0.95 * free:
                raise MeasurementError("out_of_memory", f"operands need {needed / 2**30:.1f} GiB, {free / 2**30:.1f} GiB are free")
            arena = self._arenas[name] = cupy.empty(size, dtype=CARRIERS[dtype])
            for at in range(0, size, RANDOM_BLOCK):
                block = cupy.random.standard_normal(min(RANDOM_BLOCK, size - at), dtype=cupy.float32)
                arena[at : at + block.size] = narrow(cupy, block, dtype)
        return arena

    def _idle_power_w(self) -> float | None:
        """Mean of half a second without work; the board needs a while to come down first."""
        if self.board.power_w() is None or not self.board.has_energy():
            return None
        self._stream.synchronize()
        sleep(1.0)
        readings = []
        for _ in range(10):
            readings.append(self.board.power_w() or 0.0)
            sleep(0.05)
        return sum(readings) / len(readings)

    def _peak_tflops(self, dtype: str) -> float:
        best = 0.0
        procedure = Procedure(burst_s=0.05)
        for dim in PEAK_DIMS:
            gemm = Gemm(m=dim, n=dim, k=dim, dtype=dtype)
            sets = self.operands(gemm, cold=True)
            prepared = load("cublas").prepare(gemm, KernelConfig(family="cublas"), sets)
            prepared.launch(0)
            best = max(best, gemm.flops / (self.burst(prepared, len(sets), procedure)[0].runtime_us * 1e6))
        return best

    def _dram_gbps(self) -> float:
        """Of a copy far beyond L2, bytes read plus bytes written."""
        source = cupy.ones(2**27, dtype=cupy.float32)
        target = cupy.empty_like(source)
        best_ms = min(self._event_ms(lambda: cupy.copyto(target, source)) for _ in range(10))
        return float(2 * source.nbytes / (best_ms * 1e6))

    def _launch_overhead_us(self) -> float:
        """Host time of one launch of an empty kernel, the queue never full."""
        took = []
        for _ in range(10):
            self._stream.synchronize()
            start_s = perf_counter()
            for _ in range(100):
                self._empty((1,), (1,), ())
            took.append((perf_counter() - start_s) * 1e4)
        self._stream.synchronize()
        return min(took)

    def _event_ms(self, run: Any) -> float:
        begin, end = cupy.cuda.Event(), cupy.cuda.Event()
        self._spin((1,), (1,), (SPIN_CYCLES,))
        begin.record(self._stream)
        run()
        end.record(self._stream)
        end.synchronize()
        return float(cupy.cuda.get_elapsed_time(begin, end))


class _Load:
    """A queue of graph launches, kept `LOAD_DEPTH` deep; the `Load` of agent/power.py."""

    def __init__(self, stream: Any, graph: Any, launches: int) -> None:
        self._stream, self._graph, self._launches = stream, graph, launches
        self._queued: deque[Any] = deque()
        self._done: Any = None
        self._first: Any = None
        self._count = 0

    def feed(self) -> None:
        self._collect()
        while len(self._queued) < LOAD_DEPTH:
            self._graph.launch(self._stream)
            event = cupy.cuda.Event()
            event.record(self._stream)
            self._queued.append(event)

    def mark(self) -> None:
        self._collect()
        if self._done is None:
            self._queued[0].synchronize()
            self._collect()
        self._first, self._count = self._done, 0

    def launch_us(self) -> float:
        self._collect()
        if not self._count:
            self._queued[0].synchronize()
            self._collect()
        return float(cupy.cuda.get_elapsed_time(self._first, self._done)) * 1e3 / (self._count * self._launches)

    def stop(self) -> None:
        self._stream.synchronize()
        self._queued.clear()

    def _collect(self) -> None:
        while self._queued and self._queued[0].done:
            self._done = self._queued.popleft()
            self._count += 1
