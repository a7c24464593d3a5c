"""One GPU as a device: CuPy for memory and streams, CUDA graphs for timing, NVML for power.

A burst is a captured graph of many launches between two events, so that the launch overhead of
Python is out of the time; that overhead is measured apart, from a few plain launches. Operand sets
are windows of one arena of random numbers and rotate inside the graph; where that leaves some of
them in L2, a pass of reads over a flush buffer evicts it before every replay (rotation.py).
Everything goes to one stream (cuda_stream.py), so what is enqueued for the next cell never runs
beside this one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from math import ceil
from statistics import median
from typing import Protocol, cast

import cupy

from agent.devices.cuda_arena import CudaArenas
from agent.devices.cuda_graphs import GraphBatches, GraphLoad
from agent.devices.cuda_peaks import characterise
from agent.devices.cuda_stream import SPIN_CYCLES, CudaStream, elapsed_us
from agent.devices.neighbours import Neighbours
from agent.devices.nvml import NvmlBoard, module_energy
from agent.devices.rotation import COLD, MAX_LAUNCHES, MAX_SETS, Round, cold_round, sets_needed
from agent.devices.visible import name_of_slice
from agent.kernels import Prepared, load
from agent.operands import Array, ArrayModule, Carved, Operands, input_elements, output_elements
from agent.power import PowerReading, heat, meter
from agent.power_window import HOST_CLOCK, HostClock
from agent.timing import MAX_BATCHES, MIN_BATCHES, Batches, Burst, Pending, Steps, time_burst
from gemmcast.config import KernelConfig
from gemmcast.device import Device
from gemmcast.gemm import Gemm
from gemmcast.procedure import Procedure
from gemmcast.rows import Row

DEPTH = 8
"""Cells under way: one is timed, two wait for it, the rest are being prepared or checked."""
MIN_BATCH_US = 500.0
LONG_BATCH_US = 2000.0
LONG_BATCH_LAUNCHES = 64
"""A batch is as long as so many launches, between MIN_BATCH_US and LONG_BATCH_US: the host pays for
every launch in a graph, not for its length."""
PROBE_LAUNCHES = 8
"""Plain launches that show the host's cost and size the batch."""
PROBE_LAUNCHES_LONG = 3
"""The same for kernels of PROBE_LONG_US and more."""
PROBE_LONG_US = 1000.0
PROBE_ONCE_US = 20_000.0
"""Kernels of this length are launched only once."""
LOAD_ROUND_US = 5_000.0
"""A round of a load takes about so long; LOAD_DEPTH rounds outlast any pause of the host."""
MAX_LOAD_ROUND_US = 50_000.0
HEATER = Gemm(m=4096, n=4096, k=4096, dtype="fp16")
"""Runs at the power cap."""
HEATER_US = 300.0
"""Of one launch, roughly."""


class CudaBackend:
    """The first GPU that this process sees (Ray gives each agent one).

    Args:
        clock: the host's; tests pass a made-up one.
    """

    xp: ArrayModule = cupy
    depth = DEPTH

    def __init__(self, clock: HostClock = HOST_CLOCK) -> None:
        self.clock = clock
        self._properties = cupy.cuda.runtime.getDeviceProperties(0)
        self.board = NvmlBoard(cupy.cuda.runtime.deviceGetPCIBusId(0))
        # Before this process holds a context of its own.
        self._neighbours = Neighbours(self.board.process_ids)
        cupy.cuda.Device(0).use()
        self._sm_count = int(self._properties["multiProcessorCount"])
        self.stream = CudaStream(self._sm_count, self.board.clock_max_mhz())
        self._l2_bytes = int(self._properties["l2CacheSize"])
        self._arenas = CudaArenas()
        self._problem: tuple[Gemm, int] | None = None
        self._sets: Sequence[Operands] = ()
        self._is_warm = False
        self._flush_buffer = cupy.zeros(COLD * self._l2_bytes // 4, dtype=cupy.float32)
        self._touch = self.stream.toucher(self._flush_buffer)
        self._neighbours.note_own_context()

    def identify(self) -> Device:
        """See `DeviceBackend`."""
        properties = self._properties
        runtime = cupy.cuda.runtime.runtimeGetVersion()
        name = properties["name"].decode()
        memory_bytes = int(properties["totalGlobalMem"])
        is_slice = self.board.mig()
        return Device(
            name=name_of_slice(name, memory_bytes) if is_slice else name,
            kind="cuda",
            uuid=self.board.uuid,
            compute_units=self._sm_count,
            arch=f"sm_{properties['major']}{properties['minor']}",
            clock_max_mhz=self.board.clock_max_mhz(),
            power_limit_w=self.board.power_limit_w(),
            memory_bytes=memory_bytes,
            l2_bytes=self._l2_bytes,
            dram_gbps=0.0,
            empty_launch_us=0.0,
            driver=self.board.driver(),
            cuda=f"{runtime // 1000}.{runtime % 1000 // 10}",
            library=_library_version(),
            mig=is_slice,
        )

    def characterise(self) -> Device:
        """See `DeviceBackend`."""
        return characterise(self)

    def operands(self, gemm: Gemm, *, cold: bool, metered: bool = False) -> Sequence[Operands]:
        """See `DeviceBackend`."""
        most = MAX_SETS if metered else MAX_LAUNCHES
        count = sets_needed(gemm.operand_bytes, self._l2_bytes, most) if cold else 1
        if self._problem == (gemm, count):
            return self._sets
        # Dropped first: they may be the last windows of an arena that must grow.
        self._problem = None
        self._sets = ()
        inputs = self._arenas.get(gemm.dtype, gemm.dtype, count * input_elements(gemm))
        outputs = self._arenas.get(f"{gemm.c_dtype} C", gemm.c_dtype, count * output_elements(gemm))
        self._sets = Carved(gemm, inputs, outputs, count)
        self._problem = (gemm, count)
        return self._sets

    def pending(self) -> Pending:
        """See `DeviceBackend`."""
        return _Enqueued(self.stream.event())

    def read(self, array: Array) -> Array:
        """See `DeviceBackend`."""
        return self.stream.read(array)

    def burst(
        self,
        prepared: Prepared,
        sets: Sequence[Operands],
        procedure: Procedure,
        *,
        cold: bool,
        window_mhz: float | None = None,
    ) -> Steps[tuple[Burst, Row]]:
        """See `DeviceBackend`."""
        launch_us, host_us = yield from self._probe(prepared, len(sets))
        launches = _launches_in_batch(launch_us)
        batch = self._round(sets, launches, launches, cold=cold)
        before = self._evict_l2 if batch.evicts else None
        if cold:
            # The probe has left its operands there.
            self._evict_l2()
        else:
            before = partial(prepared.launch, 0)
        graph = self.stream.capture(prepared, len(sets), batch.launches)

        def run(_launches: int, count: int) -> Batches:
            """So many replays of the graph."""
            return GraphBatches(self.stream, graph, count, before)

        def full_mhz() -> float | None:
            """The highest clock that was seen on this GPU."""
            return self.stream.full_mhz

        at_once = _batches_at_once(batch.launches * launch_us * 1e-6, procedure)
        burst = yield from time_burst(
            run,
            batch.launches,
            procedure,
            at_once=at_once,
            full_mhz=full_mhz,
            window_mhz=window_mhz,
        )
        return burst, {
            "host_launch_us": host_us,
            "launch_bound": host_us > burst.runtime_us,
            "temperature_c": self.board.temperature_c(),
            "throttle_reasons": self.board.throttle_reasons(),
        }

    def no_power(self) -> str | None:
        """See `DeviceBackend`."""
        if self.board.mig():
            return "a MIG slice shares the board's energy counter with its neighbours"
        if not self.board.has_energy():
            return "this board has no total-energy counter"
        return module_energy(self._properties["name"].decode())

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
        if not self._is_warm:
            self._is_warm = True
            self._heat()
        load_ = self._load(prepared, sets, burst.runtime_us, cold=cold)
        return meter(
            self.board,
            load_,
            procedure,
            step_s=step_s,
            burst_mhz=burst.clock_mhz,
            limit_w=self.board.power_limit_w(),
            meanwhile=meanwhile,
            contention=self.contention,
            clock=self.clock,
        )

    def contention(self) -> str | None:
        """See `DeviceBackend`."""
        others = self._neighbours.count()
        return f"{others} other process(es) hold this GPU" if others else None

    def _heat(self) -> None:
        """To the temperature at which a sweep keeps the board, before its first power reading."""
        sets = self.operands(HEATER, cold=False)
        prepared = load("cublas").prepare(HEATER, KernelConfig(family="cublas"), sets)
        load_ = self._load(prepared, sets, HEATER_US, cold=False)
        heat(load_, self.board.temperature_c, clock=self.clock)

    def _load(
        self, prepared: Prepared, sets: Sequence[Operands], launch_us: float, *, cold: bool
    ) -> GraphLoad:
        """A queue of launches that take about `launch_us` each."""
        wanted = max(1, round(LOAD_ROUND_US / launch_us))
        most = max(wanted, int(MAX_LOAD_ROUND_US / launch_us))
        round_ = self._round(sets, wanted, most, cold=cold)
        graphs = self.stream.capture_round(prepared, len(sets), round_.launches)
        before = self._evict_l2 if round_.evicts else None
        if cold:
            # Earlier launches of this kernel have left their operands there.
            self._evict_l2()
        return GraphLoad(self.stream, graphs, round_.launches, before)

    def _round(self, sets: Sequence[Operands], wanted: int, most: int, *, cold: bool) -> Round:
        if not cold:
            return Round(launches=wanted, evicts=False)
        first = sets[0]
        set_bytes = first.a.nbytes + first.b.nbytes + first.c.nbytes
        return cold_round(len(sets), set_bytes, self._l2_bytes, wanted=wanted, most=most)

    def _evict_l2(self) -> None:
        """By reading something else."""
        self._touch(0)

    def _probe(self, prepared: Prepared, sets: int) -> Steps[tuple[float, float]]:
        """The time of a warm launch, roughly, and its cost on the host (both us); no graph."""
        launches, spin_cycles = 1, SPIN_CYCLES
        while True:
            # The host enqueues while the GPU spins.
            self.stream.spin(spin_cycles)
            begin = self.stream.event()
            host_us = [self._host_us(prepared, i % sets) for i in range(launches)]
            end = self.stream.event()
            yield _Enqueued(end)
            launch_us = elapsed_us(begin, end) / launches
            if launches > 1 or launch_us >= PROBE_ONCE_US:
                return max(launch_us, 1e-3), median(host_us)
            launches = PROBE_LAUNCHES if launch_us < PROBE_LONG_US else PROBE_LAUNCHES_LONG
            spin_cycles = launches * SPIN_CYCLES

    def _host_us(self, prepared: Prepared, i: int) -> float:
        """Time that the host takes to enqueue one launch."""
        start_s = self.clock.now_s()
        prepared.launch(i)
        return (self.clock.now_s() - start_s) * 1e6


class _Versioned(Protocol):
    version: str


def _library_version() -> str:
    """Name and version of cuBLAS."""
    return cast(_Versioned, load("cublas")).version


def _launches_in_batch(launch_us: float) -> int:
    batch_us = min(LONG_BATCH_US, LONG_BATCH_LAUNCHES * launch_us)
    batch_us = max(MIN_BATCH_US, batch_us)
    return min(max(1, ceil(batch_us / launch_us)), MAX_LAUNCHES)


def _batches_at_once(batch_s: float, procedure: Procedure) -> int:
    """Batches that are enqueued together: as many as the shortest burst has, or fit the longest."""
    fit = min(MIN_BATCHES, int(procedure.burst_s / batch_s))
    needed = min(MAX_BATCHES, ceil(procedure.min_burst_s / batch_s))
    return max(1, fit, needed)


class _Enqueued:
    """Everything up to an event."""

    def __init__(self, event: cupy.cuda.Event) -> None:
        self._event = event

    def wait(self) -> None:
        """Until it is done."""
        self._event.synchronize()
