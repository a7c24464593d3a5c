"""Captured graphs at work: batches between events, and the load under which power is metered.

A graph holds many launches, so that the launch overhead of Python is out of the time.
Knows nothing of what a graph launches.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import cupy

from agent.devices.cuda_stream import (
    LOAD_SLOTS,
    CudaStream,
    Stamp,
    elapsed_us,
    mean_clocks_mhz,
)
from agent.timing import Batch

LOAD_DEPTH = 6
"""Rounds that are queued ahead while power is metered."""


class GraphBatches:
    """Batches of one graph, enqueued at once; the `Batches` of agent/timing.py.

    One spin stands before all of them: together they take milliseconds, and the clock that a board
    allows changes ten times a second.

    Args:
        before: enqueued ahead of each batch (evicts L2, or warms it), if anything.
    """

    def __init__(
        self,
        stream: CudaStream,
        graph: cupy.cuda.Graph,
        count: int,
        before: Callable[[], None] | None,
    ) -> None:
        self._stream = stream
        self._graph = graph
        self._before = before
        self._spin = cupy.zeros(4, dtype=cupy.int64)
        self._stamps = stream.stamps(2 * count)
        stamp = stream.stamper(self._stamps)
        stream.spin(seen=self._spin)
        self._events = [self._enqueue(i, stamp) for i in range(count)]
        self._done = stream.event()

    def wait(self) -> None:
        """Until the last batch is done."""
        self._done.synchronize()

    def read(self) -> Sequence[Batch]:
        """See `Batches`."""
        start_mhz = self._spin_mhz()
        self._stream.saw(start_mhz)
        stamps = self._stream.read(self._stamps)
        clocks = mean_clocks_mhz(stamps[::2], stamps[1::2])
        batches = []
        for (begin, end), clock_mhz in zip(self._events, clocks, strict=True):
            took_us = elapsed_us(begin, end)
            batches.append(Batch(took_us=took_us, clock_mhz=clock_mhz, start_mhz=start_mhz))
        return batches

    def _enqueue(self, i: int, stamp: Stamp) -> tuple[cupy.cuda.Event, cupy.cuda.Event]:
        if self._before is not None:
            self._before()
        # Stamps lie outside of the events, so that they are not timed.
        stamp(2 * i)
        begin = self._stream.event()
        self._stream.launch(self._graph)
        end = self._stream.event()
        stamp(2 * i + 1)
        return begin, end

    def _spin_mhz(self) -> float:
        begin_cycles, begin_ns, end_cycles, end_ns = self._stream.read(self._spin)
        return float(end_cycles - begin_cycles) / float(end_ns - begin_ns) * 1e3


@dataclass(frozen=True, slots=True)
class _Queued:
    """A round of launches that is queued, between two events."""

    begin: cupy.cuda.Event
    end: cupy.cuda.Event


class GraphLoad:
    """A queue of rounds, kept `LOAD_DEPTH` deep; the `Load` of agent/power.py.

    Args:
        graphs: of one round, in their order.
        launches: in one round.
        before: enqueued ahead of each round (evicts L2), if anything; it is not timed.
    """

    def __init__(
        self,
        stream: CudaStream,
        graphs: Sequence[cupy.cuda.Graph],
        launches: int,
        before: Callable[[], None] | None = None,
    ) -> None:
        self._stream = stream
        self._graphs = graphs
        self._launches = launches
        self._before = before
        self._stamps, self._stamp = stream.load_stamps
        self._queue: deque[_Queued] = deque()
        self._enqueued = 0
        self._done = 0
        self._marked = 0
        self._timed_us = 0.0
        """Of the rounds that ended since the mark."""

    def feed(self) -> None:
        """See `Load`."""
        self._collect()
        while len(self._queue) < LOAD_DEPTH:
            self._enqueue_round()

    def mark(self) -> None:
        """See `Load`."""
        self._wait_for_more_than(0)
        self._marked = self._done
        self._timed_us = 0.0

    def launch_us(self) -> float:
        """See `Load`."""
        self._wait_for_more_than(self._marked)
        rounds = self._done - self._marked
        return self._timed_us / (rounds * self._launches)

    def clock_mhz(self) -> float | None:
        """See `Load`: from the start of the first round since the mark to the start of the last.

        None when the window was so long that the first round's slot was used again.
        """
        self._wait_for_more_than(self._marked + 1)
        if self._done - self._marked >= LOAD_SLOTS - LOAD_DEPTH:
            return None
        first = self._stream.read(self._stamps[self._marked % LOAD_SLOTS])
        last = self._stream.read(self._stamps[(self._done - 1) % LOAD_SLOTS])
        (clock_mhz,) = mean_clocks_mhz(first[None], last[None])
        return clock_mhz

    def stop(self) -> None:
        """See `Load`."""
        self._stream.synchronize()
        self._queue.clear()

    def _enqueue_round(self) -> None:
        self._stamp(self._enqueued % LOAD_SLOTS)
        if self._before is not None:
            self._before()
        begin = self._stream.event()
        for graph in self._graphs:
            self._stream.launch(graph)
        self._queue.append(_Queued(begin, self._stream.event()))
        self._enqueued += 1

    def _wait_for_more_than(self, done: int) -> None:
        """Until more than `done` rounds have ended."""
        self._collect()
        while self._done <= done:
            self.feed()
            self._queue[0].end.synchronize()
            self._collect()

    def _collect(self) -> None:
        while self._queue and self._queue[0].end.done:
            ended = self._queue.popleft()
            self._timed_us += elapsed_us(ended.begin, ended.end)
            self._done += 1
