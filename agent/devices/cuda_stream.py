"""The CUDA stream that everything is enqueued on: graphs, events, spins, clock stamps.

Clocks are counted where they tick: a kernel with a block on every SM writes the SM's cycle counter
and the board's nanosecond timer before and after what is timed. Cycles over nanoseconds is the mean
clock in between. (NVML's reading stays at the maximum while tensor-core kernels run at 80 % of it.)
The short spin before batches does two things: it keeps the GPU busy while the host enqueues what is
timed, and it shows the clock that the board allows to a kernel that draws little.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from functools import cached_property

import cupy
import numpy as np
from numpy.typing import NDArray

from agent.devices.rotation import pieces
from agent.kernels import Prepared
from agent.kernels.launch import launcher
from agent.operands import Array, address_of

SPIN_CYCLES = 60_000
"""About 30 us: covers the enqueueing of events and graph."""
STAMP_THREADS = 1024
STAMP_BLOCKS_PER_SM = 4
"""Enough that every SM gets one."""
TOUCH_BLOCKS_PER_SM = 2
LOAD_SLOTS = 1024
"""Graphs of one load whose clocks are kept: five seconds' worth."""
SOURCE = r"""
__device__ long long now_ns() {
    long long t;
    asm volatile("mov.u64 %0, %%globaltimer;" : "=l"(t));
    return t;
}

extern "C" __global__ void spin(long long cycles, long long* seen) {
    const long long start = clock64();
    seen[0] = start; seen[1] = now_ns();
    while (clock64() - start < cycles) {}
    seen[2] = clock64(); seen[3] = now_ns();
}

extern "C" __global__ void stamp(long long* seen) {  // seen[sm][2]
    unsigned sm;
    asm volatile("mov.u32 %0, %%smid;" : "=r"(sm));
    if (threadIdx.x == 0) { seen[2 * sm] = clock64(); seen[2 * sm + 1] = now_ns(); }
}

extern "C" __global__ void touch(const float4* from, long long* sink, long long count) {
    const long long stride = (long long)gridDim.x * blockDim.x;
    float sum = 0.0f;
    for (long long i = blockIdx.x * (long long)blockDim.x + threadIdx.x; i < count; i += stride) {
        const float4 v = from[i];
        sum += v.x + v.y + v.z + v.w;
    }
    if (sum == 1234.5f) *sink = 1;  // never true, but the compiler cannot see that
}

extern "C" __global__ void empty() {}
"""

Stamp = Callable[[int], None]
"""stamp(i) enqueues the clocks of all SMs into slot i."""


class CudaStream:
    """One stream, and the kernels that measure on it. Becomes the process's current stream."""

    def __init__(self, compute_units: int, clock_max_mhz: float | None) -> None:
        self.handle = cupy.cuda.Stream(non_blocking=True)
        self.handle.use()
        self._copies = cupy.cuda.Stream(non_blocking=True)
        self._sm_count = compute_units
        self._clock_max_mhz = clock_max_mhz
        module = cupy.RawModule(code=SOURCE)
        self._spin = module.get_function("spin")
        self._stamp = module.get_function("stamp")
        self._touch = module.get_function("touch")
        self._empty = module.get_function("empty")
        self._unread = cupy.zeros(4, dtype=cupy.int64)
        self.full_mhz: float | None = None
        """The highest clock that a spin has seen."""

    def use(self) -> None:
        """Make it the process's current stream again."""
        self.handle.use()

    def synchronize(self) -> None:
        """Wait for everything that was enqueued."""
        self.handle.synchronize()

    def capture(
        self, prepared: Prepared, sets: int, launches: int, first: int = 0
    ) -> cupy.cuda.Graph:
        """A graph of that many launches, one after the other, rotating over the sets.

        Args:
            first: the set of the first launch.
        """
        self.handle.begin_capture()
        try:
            for i in range(first, first + launches):
                prepared.launch(i % sets)
        finally:
            graph = self.handle.end_capture()
        graph.upload(self.handle)
        return graph

    def capture_round(self, prepared: Prepared, sets: int, launches: int) -> list[cupy.cuda.Graph]:
        """The graphs of a round, in their order; equal pieces of it share one."""
        captured: dict[tuple[int, int], cupy.cuda.Graph] = {}
        graphs = []
        for first, count in pieces(launches, sets):
            if (first, count) not in captured:
                captured[first, count] = self.capture(prepared, sets, count, first)
            graphs.append(captured[first, count])
        return graphs

    def launch(self, graph: cupy.cuda.Graph) -> None:
        """Enqueue a graph."""
        graph.launch(self.handle)

    def event(self) -> cupy.cuda.Event:
        """An event after everything that was enqueued."""
        event = cupy.cuda.Event()
        event.record(self.handle)
        return event

    def spin(self, cycles: int = SPIN_CYCLES, seen: Array = None) -> None:
        """Keep one lane busy.

        Args:
            seen: int64[4] that takes cycles and nanoseconds before and after.
        """
        out = self._unread if seen is None else seen
        self._spin((1,), (1,), (np.int64(cycles), out))

    def launch_empty(self) -> None:
        """Enqueue a kernel that does nothing."""
        self._empty((1,), (1,), ())

    def stamps(self, count: int) -> Array:
        """Slots for clocks: int64[count, sm, 2], zero where no block ran on an SM."""
        return cupy.zeros((count, self._sm_count, 2), dtype=cupy.int64)

    def stamper(self, stamps: Array) -> Stamp:
        """Writes clocks into those slots; cheap, for there are many."""
        index = np.arange(len(stamps), dtype=np.uint64)
        slots = np.uint64(address_of(stamps)) + index * np.uint64(stamps.strides[0])
        grid = (self._sm_count * STAMP_BLOCKS_PER_SM, 1, 1)
        return launcher(self._stamp, grid, (STAMP_THREADS, 1, 1), slots[:, None])

    @cached_property
    def load_stamps(self) -> tuple[Array, Stamp]:
        """Slots and stamper of a load; there is one load at a time."""
        stamps = self.stamps(LOAD_SLOTS)
        return stamps, self.stamper(stamps)

    def toucher(self, buffer: Array) -> Callable[[int], None]:
        """touch(0) reads all of a buffer of zeros and so evicts what L2 held."""
        pointers = np.array([[address_of(buffer), address_of(self._unread)]], np.uint64)
        grid = (self._sm_count * TOUCH_BLOCKS_PER_SM, 1, 1)
        count = ctypes.c_longlong(buffer.nbytes // 16)
        return launcher(self._touch, grid, (STAMP_THREADS, 1, 1), pointers, (count,))

    def read(self, array: Array) -> Array:
        """Copy a finished array to the host, past what was enqueued later."""
        return array.get(stream=self._copies)

    def saw(self, clock_mhz: float) -> None:
        """A spin ran at this clock. What exceeds the board's maximum does not count."""
        allowed_mhz = min(clock_mhz, self._clock_max_mhz or clock_mhz)
        self.full_mhz = max(allowed_mhz, self.full_mhz or 0.0)


def elapsed_us(begin: cupy.cuda.Event, end: cupy.cuda.Event) -> float:
    """Between two events that are done."""
    return float(cupy.cuda.get_elapsed_time(begin, end)) * 1e3


def mean_clocks_mhz(before: NDArray[np.int64], after: NDArray[np.int64]) -> list[float | None]:
    """For each pair of stamps[pair, sm, 2] the median over SMs of the mean clock between them.

    None where no SM was stamped both times.
    """
    elapsed = (after - before).astype(np.float64)
    cycles, ns = elapsed[..., 0], elapsed[..., 1]
    stamped = (before[..., 0] != 0) & (after[..., 0] != 0) & (ns > 0)
    # An SM that was not stamped gets infinity, so sorting puts it behind the others.
    ratios = np.where(stamped, cycles / np.where(stamped, ns, 1), np.inf)
    ordered = np.sort(ratios, axis=-1)
    clocks: list[float | None] = []
    for row, count in zip(ordered, stamped.sum(axis=-1), strict=True):
        if count == 0:
            clocks.append(None)
            continue
        lower, upper = row[(count - 1) // 2], row[count // 2]
        clocks.append(float(lower + upper) / 2 * 1e3)
    return clocks
