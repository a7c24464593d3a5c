"""Measure many cells: a few are under way at once, and each ends as a row.

While the device computes for one cell, the host prepares the next. Their work is enqueued on one
stream, so it never overlaps on the device. A cell's own steps are those of agent/measurement.py.
Knows nothing of Ray, processes or plans. Whatever goes wrong with a cell becomes a row with a
status; only a broken program raises.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from time import sleep
from typing import Protocol

from agent.devices import DeviceBackend
from agent.measurement import Measurer
from agent.messages import Event, Fault, Outcome
from agent.timing import Pending, Rest, Steps
from gemmcast.cell import Cell
from gemmcast.device import Device
from gemmcast.errors import MeasurementError
from gemmcast.procedure import Procedure
from gemmcast.rows import Row, blank

DEVICE_LIBRARIES = ("cupy", "cuda.", "nvmath")
"""Modules whose RuntimeError is the device's failure; any other is a bug of this program."""


class Instrument(Protocol):
    """Answers cells with rows."""

    device: Device

    def measure_all(
        self,
        cells: Sequence[Cell],
        *,
        depth: int | None = None,
        begun: Callable[[Cell], None] = lambda _: None,
    ) -> Iterator[Event]:
        """Yield an outcome for each cell as it is done.

        Nothing follows a fatal one, a fault or a restart.

        Args:
            depth: how many cells may be under way at once, where fewer than the device's own number
                are wanted. Unless it is 1, one more begins while power is metered.
            begun: called before anything is done for a cell.
        """


@dataclass(slots=True)
class _UnderWay:
    """A cell that has begun."""

    row: Row
    steps: Steps[None]
    waits_for: Pending | None = None
    """None at the end."""
    fault: str | None = None
    """The device's own failure."""

    def end(self, status: str, reason: str) -> None:
        """The row is finished, without success."""
        self.row["status"] = status
        self.row["reason"] = reason
        self.waits_for = None

    def advance(self) -> None:
        """Go on to the next wait, or to the end."""
        try:
            self.waits_for = next(self.steps)
        except StopIteration:
            self.waits_for = None
        except MeasurementError as error:
            self.end(error.status, error.reason)
        except MemoryError as error:
            self.end("out_of_memory", str(error))
        except RuntimeError as error:
            self.fail(error)

    def wait(self) -> None:
        """Wait for what was enqueued, then advance."""
        assert self.waits_for is not None
        try:
            self.waits_for.wait()
        except RuntimeError as error:
            self.fail(error)
        else:
            self.advance()

    def fail(self, error: RuntimeError) -> None:
        """End with the device's failure; a bug of this program is raised again."""
        if not type(error).__module__.startswith(DEVICE_LIBRARIES):
            raise error
        self.fault = str(error)
        self.end("cuda_error", self.fault)


class LiveInstrument:
    """A backend, put to work.

    It is the `Others` of each measurement: it knows which cells are under way.
    """

    def __init__(
        self,
        backend: DeviceBackend,
        device: Device,
        procedure: Procedure,
        agent: str,
        *,
        wait: Callable[[float], None] = sleep,
    ) -> None:
        self.device = device
        self._backend = backend
        self._agent = agent
        self._measurer = Measurer(backend, device, procedure, self, wait)
        self._begin([], 1, lambda _: None)

    def measure(self, cell: Cell) -> Outcome:
        """One cell, alone."""
        (outcome,) = self.measure_all([cell], depth=1)
        # There is a Fault only among several.
        assert isinstance(outcome, Outcome)
        return outcome

    def measure_all(
        self,
        cells: Sequence[Cell],
        *,
        depth: int | None = None,
        begun: Callable[[Cell], None] = lambda _: None,
    ) -> Iterator[Event]:
        """See `Instrument`."""
        self._begin(cells, min(depth or self._backend.depth, self._backend.depth), begun)
        has_begun_one = False
        while self._todo or self._under_way:
            # One begins, then another goes on: were all begun at once, the device would wait
            # while all of them are prepared.
            may_begin = not (has_begun_one and self._under_way)
            if may_begin and self._begin_one(self._depth):
                has_begun_one = True
                continue
            has_begun_one = False
            # Work is done in the order in which it was enqueued.
            first = self._under_way[0]
            if first.waits_for is not None:
                first.wait()
            self._under_way.popleft()
            if first.waits_for is not None:
                self._under_way.append(first)
                continue
            if first.fault is None:
                yield Outcome(first.row)
                continue
            if self._under_way:
                yield Fault(first.fault)
            else:
                yield Outcome(first.row, fatal=True)
            return

    def are_none(self) -> bool:
        """Whether at most one cell is under way."""
        return len(self._under_way) == 1

    def wait_until_done(self) -> Steps[None]:
        """Until no other cell is under way, except those that wait here too."""
        this = object()
        self._wait_for_room.add(this)
        try:
            while len(self._under_way) > len(self._wait_for_room):
                yield Rest(0.0)
        finally:
            self._wait_for_room.discard(this)

    def begin_next(self) -> None:
        """Begin one more than `depth`; its work on the device ends before this returns.

        For the time that power settles. Where cells are measured alone, none begins.
        """
        if self._depth > 1 and self._begin_one(self._depth + 1):
            self._backend.pending().wait()

    def _begin(self, cells: Sequence[Cell], depth: int, begun: Callable[[Cell], None]) -> None:
        self._todo = deque(cells)
        self._depth = depth
        self._begun = begun
        self._under_way: deque[_UnderWay] = deque()
        # Measurements that wait for room; new ones, for an earlier caller may have left some.
        self._wait_for_room: set[object] = set()

    def _begin_one(self, depth: int) -> bool:
        """Begin the next cell, if one more may be under way."""
        if not self._todo or len(self._under_way) >= depth or self._wait_for_room:
            return False
        if any(cell.fault for cell in self._under_way):
            return False
        cell = self._todo.popleft()
        self._begun(cell)
        row = blank(cell, self.device, self._agent)
        started = _UnderWay(row, self._measurer.measure(cell, row))
        self._under_way.append(started)
        started.advance()
        return True
