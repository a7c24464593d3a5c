"""What is enqueued on the GPU: captured graphs, batches between events, the load that power is metered under, and clocks.

Clocks are counted where they tick: a kernel of a block for every SM writes the SM's cycle counter and the board's nanosecond timer
before and after what is timed; cycles over nanoseconds is the mean clock in between. (NVML's reading stays at the maximum while
tensor-core kernels run at 80 % of it.) The short spin before each batch does two things: it keeps the GPU busy while the host enqueues
what is timed, and it shows the clock that the board allows to a kernel that draws little.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from statistics import median
from typing import Any

import cupy
import numpy as np

from agent.kernels import Prepared
from agent.timing import Batch

SPIN_CYCLES = 60_000
# about 30 us: covers the enqueueing of events and graph
STAMP_THREADS = 1024
STAMP_BLOCKS_PER_SM = 4
# enough that every SM gets one
CALIBRATIONS = 15
MOST_GRAPH_US = 10.0
LOAD_DEPTH = 12
# graphs queued ahead while power is metered
LOAD_SLOTS = 4096
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

extern "C" __global__ void empty() {}
"""


class Queue:
    """One stream, and what is measured on it. Becomes the process's current stream."""

    def __init__(self, sm_count: int, clock_max_mhz: float | None) -> None:
        self.stream = cupy.cuda.Stream(non_blocking=True)
        self.stream.use()
        self._copies = cupy.cuda.Stream(non_blocking=True)
        self._sm_count, self._clock_max_mhz = sm_count, clock_max_mhz
        module = cupy.RawModule(code=SOURCE)
        self._spin, self._stamp, self.empty = (module.get_function(name) for name in ("spin", "stamp", "empty"))
        self._unread = cupy.zeros(4, dtype=cupy.int64)
        self.full_mhz: float | None = None
        # the highest clock that a spin has seen
        self.graph_us = self._graph_us()
        # what two events around a graph see of the graph itself

    def _graph_us(self) -> float:
        """The time between two events around a graph that no kernel in it takes: that of one empty kernel, less an empty kernel's share."""
        prepared = Prepared(lambda _: self.empty((1,), (1,), ()))
        graphs = [self.capture(prepared, 1, launches) for launches in (1, 65)]
        few, many = (median(self._graph_took_us(graph) for _ in range(CALIBRATIONS)) for graph in graphs)
        return min(max(0.0, few - (many - few) / 64), MOST_GRAPH_US)

    def _graph_took_us(self, graph: Any) -> float:
        graph.launch(self.stream)
        self.spin()
        begin = self.event()
        graph.launch(self.stream)
        end = self.event()
        end.synchronize()
        return float(cupy.cuda.get_elapsed_time(begin, end)) * 1e3

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

    def stamp(self, seen: Any) -> None:
        self._stamp((self._sm_count * STAMP_BLOCKS_PER_SM,), (STAMP_THREADS,), (seen,))

    def stamps(self, *shape: int) -> Any:
        """int64[*shape, sm, 2], zero where an SM was not met."""
        return cupy.zeros((*shape, self._sm_count, 2), dtype=cupy.int64)

    def read(self, array: Any) -> Any:
        """To the host, past what was enqueued later; the array's own work must be done."""
        return array.get(stream=self._copies)

    def saw(self, clock_mhz: float) -> None:
        self.full_mhz = max(min(clock_mhz, self._clock_max_mhz or clock_mhz), self.full_mhz or 0.0)


class GraphBatches:
    """Batches of one graph, enqueued at once; the `Batches` of agent/timing.py.

    Args:
        before: enqueued ahead of each batch (evicts L2, or warms it).
    """

    def __init__(self, queue: Queue, graph: Any, count: int, before: Callable[[], None]) -> None:
        self._queue, self._graph = queue, graph
        self._spins = cupy.zeros((count, 4), dtype=cupy.int64)
        self._stamps = queue.stamps(count, 2)
        self._events = [self._enqueue(i, before) for i in range(count)]
        self._done = queue.event()

    def _enqueue(self, i: int, before: Callable[[], None]) -> tuple[Any, Any]:
        queue = self._queue
        before()
        queue.spin(seen=self._spins[i])
        queue.stamp(self._stamps[i, 0])
        begin = queue.event()
        self._graph.launch(queue.stream)
        end = queue.event()
        queue.stamp(self._stamps[i, 1])
        return begin, end

    def wait(self) -> None:
        self._done.synchronize()

    def read(self) -> Sequence[Batch]:
        spins, stamps = self._queue.read(self._spins), self._queue.read(self._stamps)
        found = []
        for (begin, end), spin, (before, after) in zip(self._events, spins, stamps, strict=True):
            start_mhz = float(spin[2] - spin[0]) / float(spin[3] - spin[1]) * 1e3
            self._queue.saw(start_mhz)
            took_us = float(cupy.cuda.get_elapsed_time(begin, end)) * 1e3 - self._queue.graph_us
            found.append(Batch(took_us=took_us, clock_mhz=mean_clock_mhz(before, after), start_mhz=start_mhz))
        return found


class GraphLoad:
    """A queue of graph launches, kept `LOAD_DEPTH` deep; the `Load` of agent/power.py."""

    def __init__(self, queue: Queue, graph: Any, launches: int) -> None:
        self._queue, self._graph, self._launches = queue, graph, launches
        self._stamps = queue.stamps(LOAD_SLOTS)
        self._events: deque[Any] = deque()
        self._enqueued = self._done = self._marked = 0
        self._done_event: Any = None
        self._marked_event: Any = None

    def feed(self) -> None:
        self._collect()
        while len(self._events) < LOAD_DEPTH:
            self._queue.stamp(self._stamps[self._enqueued % LOAD_SLOTS])
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
        return mean_clock_mhz(first, last) if self._done - self._marked < LOAD_SLOTS - LOAD_DEPTH else None

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


def mean_clock_mhz(before: Any, after: Any) -> float | None:
    """The median over SMs of cycles per time between two stamps[sm, 2]; None where no SM was met twice."""
    met = (before[:, 0] != 0) & (after[:, 0] != 0) & (after[:, 1] > before[:, 1])
    if not met.any():
        return None
    passed = (after - before)[met].astype(np.float64)
    return float(np.median(passed[:, 0] / passed[:, 1])) * 1e3
