"""What is enqueued on the GPU: captured graphs, batches between events, the load that power is metered under, and clocks.

Clocks are counted where they tick: a kernel of a block for every SM writes the SM's cycle counter and the board's nanosecond timer
before and after what is timed; cycles over nanoseconds is the mean clock in between. (NVML's reading stays at the maximum while
tensor-core kernels run at 80 % of it.) The short spin before batches does two things: it keeps the GPU busy while the host enqueues
what is timed, and it shows the clock that the board allows to a kernel that draws little.
"""

from __future__ import annotations

import ctypes
from collections import deque
from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any

import cupy
import numpy as np

from agent.kernels import Prepared
from agent.kernels.launch import launcher
from agent.operands import address_of
from agent.timing import Batch

SPIN_CYCLES = 60_000
# about 30 us: covers the enqueueing of events and graph
STAMP_THREADS = 1024
STAMP_BLOCKS_PER_SM = 4
# enough that every SM gets one
TOUCH_BLOCKS_PER_SM = 2
LOAD_DEPTH = 6
# graphs queued ahead while power is metered
LOAD_SLOTS = 1024
# graphs of one load whose clocks are kept: five seconds' worth
SOURCE = r"""
__device__ long long now_ns() { long long t; asm volatile("mov.u64 %0, %%globaltimer;" : "=l"(t)); return t; }

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
    float sum = 0.0f;
    for (long long i = blockIdx.x * (long long)blockDim.x + threadIdx.x; i < count; i += (long long)gridDim.x * blockDim.x) {
        const float4 v = from[i];
        sum += v.x + v.y + v.z + v.w;
    }
    if (sum == 1234.5f) *sink = 1;  // never true, and the compiler does not know
}

extern "C" __global__ void empty() {}
"""


class Queue:
    """One stream, and what is measured on it. Becomes the process's current stream."""

    def __init__(self, compute_units: int, clock_max_mhz: float | None) -> None:
        self.stream = cupy.cuda.Stream(non_blocking=True)
        self.stream.use()
        self._copies = cupy.cuda.Stream(non_blocking=True)
        self._sm_count, self._clock_max_mhz = compute_units, clock_max_mhz
        module = cupy.RawModule(code=SOURCE)
        self._spin, self._stamp, self._touch, self.empty = (module.get_function(name) for name in ("spin", "stamp", "touch", "empty"))
        self._unread = cupy.zeros(4, dtype=cupy.int64)
        self.full_mhz: float | None = None
        # the highest clock that a spin has seen

    def capture(self, prepared: Prepared, sets: int, launches: int) -> Any:
        """A graph of that many launches, one after the other, rotating over the sets."""
        self.stream.begin_capture()
        try:
            for i in range(launches):
                prepared.launch(i % sets)
        finally:
            graph = self.stream.end_capture()
        graph.upload(self.stream)
        return graph

    def event(self) -> Any:
        event = cupy.cuda.Event()
        event.record(self.stream)
        return event

    def spin(self, cycles: int = SPIN_CYCLES, seen: Any = None) -> None:
        self._spin((1,), (1,), (np.int64(cycles), self._unread if seen is None else seen))

    def stamper(self, seen: Any) -> Callable[[int], None]:
        """stamp(i) writes clocks to seen[i, sm, 2]; cheap, for there are many."""
        slots = np.uint64(address_of(seen)) + np.arange(len(seen), dtype=np.uint64) * np.uint64(seen.strides[0])
        return launcher(self._stamp, (self._sm_count * STAMP_BLOCKS_PER_SM, 1, 1), (STAMP_THREADS, 1, 1), slots[:, None])

    def toucher(self, buffer: Any) -> Callable[[int], None]:
        """touch(0) reads all of a buffer of zeros, past whatever L2 held."""
        pointers = np.array([[address_of(buffer), address_of(self._unread)]], np.uint64)
        grid = (self._sm_count * TOUCH_BLOCKS_PER_SM, 1, 1)
        return launcher(self._touch, grid, (STAMP_THREADS, 1, 1), pointers, (ctypes.c_longlong(buffer.nbytes // 16),))

    def stamps(self, count: int) -> Any:
        """int64[count, sm, 2], zero where an SM was not met."""
        return cupy.zeros((count, self._sm_count, 2), dtype=cupy.int64)

    @cached_property
    def load_stamps(self) -> tuple[Any, Callable[[int], None]]:
        """For one load at a time."""
        stamps = self.stamps(LOAD_SLOTS)
        return stamps, self.stamper(stamps)

    def read(self, array: Any) -> Any:
        """To the host, past what was enqueued later; the array's own work must be done."""
        return array.get(stream=self._copies)

    def saw(self, clock_mhz: float) -> None:
        self.full_mhz = max(min(clock_mhz, self._clock_max_mhz or clock_mhz), self.full_mhz or 0.0)


class GraphBatches:
    """Batches of one graph, enqueued at once; the `Batches` of agent/timing.py.

    One spin stands before all of them: they take milliseconds, and what a board allows changes ten times a second.

    Args:
        before: enqueued ahead of each batch (evicts L2, or warms it), if anything.
    """

    def __init__(self, queue: Queue, graph: Any, count: int, before: Callable[[], None] | None) -> None:
        self._queue, self._graph = queue, graph
        self._spin = cupy.zeros(4, dtype=cupy.int64)
        self._stamps = queue.stamps(2 * count)
        stamp = queue.stamper(self._stamps)
        queue.spin(seen=self._spin)
        self._events = [self._enqueue(i, stamp, before) for i in range(count)]
        self._done = queue.event()

    def _enqueue(self, i: int, stamp: Callable[[int], None], before: Callable[[], None] | None) -> tuple[Any, Any]:
        if before is not None:
            before()
        stamp(2 * i)
        begin = self._queue.event()
        self._graph.launch(self._queue.stream)
        end = self._queue.event()
        stamp(2 * i + 1)
        return begin, end

    def wait(self) -> None:
        self._done.synchronize()

    def read(self) -> Sequence[Batch]:
        spin, stamps = self._queue.read(self._spin), self._queue.read(self._stamps)
        start_mhz = float(spin[2] - spin[0]) / float(spin[3] - spin[1]) * 1e3
        self._queue.saw(start_mhz)
        return [
            Batch(took_us=float(cupy.cuda.get_elapsed_time(begin, end)) * 1e3, clock_mhz=clock_mhz, start_mhz=start_mhz)
            for (begin, end), clock_mhz in zip(self._events, mean_clocks_mhz(stamps[::2], stamps[1::2]), strict=True)
        ]


class GraphLoad:
    """A queue of graph launches, kept `LOAD_DEPTH` deep; the `Load` of agent/power.py."""

    def __init__(self, queue: Queue, graph: Any, launches: int) -> None:
        self._queue, self._graph, self._launches = queue, graph, launches
        self._stamps, self._stamp = queue.load_stamps
        self._events: deque[Any] = deque()
        self._enqueued = self._done = self._marked = 0
        self._done_event: Any = None
        self._marked_event: Any = None

    def feed(self) -> None:
        self._collect()
        while len(self._events) < LOAD_DEPTH:
            self._stamp(self._enqueued % LOAD_SLOTS)
            self._graph.launch(self._queue.stream)
            self._events.append(self._queue.event())
            self._enqueued += 1

    def mark(self) -> None:
        self._wait_for_more_than(0)
        self._marked, self._marked_event = self._done, self._done_event

    def launch_us(self) -> float:
        self._wait_for_more_than(self._marked)
        took_us = float(cupy.cuda.get_elapsed_time(self._marked_event, self._done_event)) * 1e3
        return took_us / ((self._done - self._marked) * self._launches)

    def clock_mhz(self) -> float | None:
        """From the start of the first graph since the mark to the start of the last."""
        self._wait_for_more_than(self._marked + 1)
        first, last = (self._queue.read(self._stamps[at % LOAD_SLOTS]) for at in (self._marked, self._done - 1))
        return mean_clocks_mhz(first[None], last[None])[0] if self._done - self._marked < LOAD_SLOTS - LOAD_DEPTH else None

    def stop(self) -> None:
        self._queue.stream.synchronize()
        self._events.clear()

    def _wait_for_more_than(self, done: int) -> None:
        self._collect()
        while self._done <= done:
            self.feed()
            self._events[0].synchronize()
            self._collect()

    def _collect(self) -> None:
        while self._events and self._events[0].done:
            self._done_event = self._events.popleft()
            self._done += 1


def mean_clocks_mhz(before: Any, after: Any) -> list[float | None]:
    """For each pair of stamps[pair, sm, 2] the median over SMs of cycles per time between them; None where no SM was met twice."""
    cycles, ns = np.moveaxis((after - before).astype(np.float64), -1, 0)
    met = (before[..., 0] != 0) & (after[..., 0] != 0) & (ns > 0)
    ratios = np.sort(np.where(met, cycles / np.where(met, ns, 1), np.inf), axis=-1)  # those that were not met at the end
    return [float(row[(n - 1) // 2] + row[n // 2]) / 2 * 1e3 if n else None for row, n in zip(ratios, met.sum(-1), strict=True)]
