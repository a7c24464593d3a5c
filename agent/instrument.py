"""Measure cells: prepare, check, time, meter. The order of a measurement stands here and nowhere else.

A measurement is a generator that yields whatever it waits for. On a device that works by itself a few cells are under way at once:
while the device computes for one, the host prepares the next. Their work is enqueued on one queue, so it never overlaps there.

Knows nothing of Ray, processes or plans. Whatever goes wrong with a cell becomes a row with a status; only a broken program raises.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from time import sleep
from typing import Any, Protocol

from agent.check import Reference, verdict
from agent.devices import DeviceBackend
from agent.kernels import Prepared, load, refuse
from agent.operands import Operands
from agent.power import PowerReading
from agent.timing import Burst, Pending, Rest, Steps, finish
from gemmcast.cell import Cell
from gemmcast.device import Device
from gemmcast.errors import MeasurementError
from gemmcast.procedure import Procedure
from gemmcast.rows import Row, blank

QUICK = Procedure(burst_s=0.005, min_burst_s=0.0)
# the burst before power is metered; the one that counts comes after, in the state that the kernel itself has brought the board to
CONTENTION_WAITS_S = (0.2, 0.5, 1.0, 2.0)
# how long we wait for a neighbour to leave before the row is marked


@dataclass(frozen=True, slots=True)
class Outcome:
    """A row, and whether the process that made it must not go on (its CUDA context is gone)."""

    row: Row
    fatal: bool = False


@dataclass(frozen=True, slots=True)
class Fault:
    """The device failed under one of several cells that were under way, nobody knows which; the process must not go on."""

    reason: str


Event = Outcome | Fault


class Instrument(Protocol):
    """Answers cells with rows."""

    device: Device

    def measure_all(self, cells: Sequence[Cell], *, depth: int | None = None, begun: Callable[[Cell], None] = lambda _: None) -> Iterator[Event]:
        """An outcome for each cell, as they are done. Nothing comes after a fatal outcome or a fault.

        Args:
            depth: how many may be under way at once, where that is to be fewer than the device's own number. Unless it is 1, one more is
                begun while power is metered.
            begun: called before anything is done for a cell.
        """


@dataclass(slots=True)
class _Measurement:
    """A cell under way."""

    cell: Cell
    row: Row
    steps: Steps[None]
    waits_for: Pending | None = None
    done: bool = False
    fault: str | None = None
    # the device's own failure


@dataclass(slots=True)
class _Checked:
    """What A·B should be, for the operands at hand."""

    sets: Sequence[Operands] | None = None
    reference: Reference | None = field(default=None)


class LiveInstrument:
    """A bench, put to work."""

    def __init__(self, backend: DeviceBackend, device: Device, procedure: Procedure, agent: str, *, wait: Callable[[float], None] = sleep) -> None:
        self.device = device
        self._backend, self._procedure, self._agent, self._wait = backend, procedure, agent, wait
        self._checked = _Checked()
        self._todo: deque[Cell] = deque()
        self._under_way: deque[_Measurement] = deque()
        self._short_of_memory: set[object] = set()
        self._begun: Callable[[Cell], None] = lambda _: None
        self._depth = 1
        self._crowded = self._stayed = False
        # a neighbour was there when we looked last; it stayed through all the waiting

    def measure(self, cell: Cell) -> Outcome:
        """One cell, alone."""
        (outcome,) = self.measure_all([cell], depth=1)
        assert isinstance(outcome, Outcome)  # a fault among several needs several
        return outcome

    def measure_all(self, cells: Sequence[Cell], *, depth: int | None = None, begun: Callable[[Cell], None] = lambda _: None) -> Iterator[Event]:
        self._todo, self._under_way, self._short_of_memory, self._begun = deque(cells), deque(), set(), begun
        self._depth = min(depth or self._backend.depth, self._backend.depth)
        begun_one = False
        while self._todo or self._under_way:
            # one begins, then another goes on: were all begun at once, the device would wait while all of them are prepared
            if not (begun_one and self._under_way) and self._begin_one():
                begun_one = True
                continue
            begun_one = False
            # whose work was enqueued first is done first
            first = self._under_way[0]
            if first.waits_for is not None:
                self._go_on(first)
            self._under_way.popleft()
            if not first.done:
                self._under_way.append(first)
                continue
            if first.fault is not None and self._under_way:
                yield Fault(first.fault)
                return
            yield Outcome(first.row, fatal=first.fault is not None)
            if first.fault is not None:
                return

    def _begin_one(self, beside: int = 0) -> bool:
        """Start the next cell, if one more may be under way."""
        if not self._todo or len(self._under_way) >= self._depth + beside or self._short_of_memory or any(one.fault for one in self._under_way):
            return False
        cell = self._todo.popleft()
        self._begun(cell)
        row = blank(cell, self.device, self._agent)
        started = _Measurement(cell, row, self._read_alone(cell, row))
        self._under_way.append(started)
        self._advance(started)
        return True

    def _begin_beside(self) -> None:
        """One more, while power settles; it ends its work on the device before the window opens. Alone stays alone."""
        if self._depth > 1 and self._begin_one(beside=1):
            self._backend.pending().wait()

    def _go_on(self, measurement: _Measurement) -> None:
        assert measurement.waits_for is not None
        try:
            measurement.waits_for.wait()
        except RuntimeError as error:
            measurement.fault = _device_fault(error)
            self._end(measurement, "cuda_error", measurement.fault)
        else:
            self._advance(measurement)

    def _advance(self, measurement: _Measurement) -> None:
        """To its next wait, or to its end."""
        try:
            measurement.waits_for = next(measurement.steps)
            return
        except StopIteration:
            measurement.waits_for, measurement.done = None, True
        except MeasurementError as error:
            self._end(measurement, error.status, error.reason)
        except MemoryError as error:
            self._end(measurement, "out_of_memory", str(error))
        except RuntimeError as error:
            measurement.fault = _device_fault(error)
            self._end(measurement, "cuda_error", measurement.fault)

    @staticmethod
    def _end(measurement: _Measurement, status: str, reason: str) -> None:
        measurement.row |= {"status": status, "reason": reason}
        measurement.waits_for, measurement.done = None, True

    def _read_alone(self, cell: Cell, row: Row) -> Steps[None]:
        """Try again while a neighbour computes here too, then give up."""
        for wait_s in (*(() if self._stayed else CONTENTION_WAITS_S), None):
            try:
                return (yield from self._read(cell, row))
            except MeasurementError as error:
                if error.status == "contended" and wait_s is None:
                    self._stayed = self._crowded  # the next cells need not wait for it all over again
                if error.status != "contended" or wait_s is None:
                    raise
                yield Rest(wait_s, self._wait)

    def _read(self, cell: Cell, row: Row) -> Steps[None]:
        reason = self._backend.contention()
        self._crowded = reason is not None
        if reason:
            raise MeasurementError("contended", reason)
        self._stayed = False
        refuse(cell.gemm, cell.config, self.device.kind)
        started = None
        try:
            started = self._start(cell, row)
        except (MeasurementError, MemoryError) as error:
            if len(self._under_way) == 1 or getattr(error, "status", "out_of_memory") != "out_of_memory":
                raise
        if started is None:  # tried again out here: the exception holds on to the memory of the first try
            yield from self._others()  # their operands may be all that is in the way
            started = self._start(cell, row)
        prepared, operands, errors = started  # held to the end: a launch knows their addresses alone
        sets = len(operands)
        yield self._backend.pending()
        row["max_error_over_rms"] = verdict(cell.gemm, self._backend.read(errors))
        no_power = self._backend.no_power() if cell.power else None
        power = None
        if cell.power and not no_power:
            # sizes the load, and shows the clock before any cap
            first = yield from self._time(prepared, sets, QUICK, cell, row)
            power = self._meter(prepared, sets, first, row)
        steps = self._time(prepared, sets, self._procedure, cell, row)
        if power and not power.capped:
            finish(steps)  # before another kernel moves the board's voltage; one that was at the cap has to rest
        else:
            yield from steps
        if no_power:
            raise MeasurementError("unsupported", f"no power reading: {no_power}")
        if power and power.dispute:
            raise MeasurementError("power_disputed", power.dispute)

    def _start(self, cell: Cell, row: Row) -> tuple[Prepared, Sequence[Operands], Any]:
        """Operands, the kernel, its first launch and what is wrong with the result: all of it enqueued, nothing waited for."""
        sets = self._backend.operands(cell.gemm, cold=cell.cache == "cold")
        prepared = load(cell.config.family).prepare(cell.gemm, cell.config, sets)
        row |= prepared.facts
        return prepared, sets, self._reference(cell, sets).errors(prepared, cell.gemm.alpha, cell.gemm.beta)

    def _time(self, prepared: Prepared, sets: int, procedure: Procedure, cell: Cell, row: Row) -> Steps[Burst]:
        burst, conditions = yield from self._backend.burst(prepared, sets, procedure, cold=cell.cache == "cold")
        row |= conditions
        row |= {"runtime_us": burst.runtime_us, "runtime_rse": burst.runtime_rse, "launches_timed": burst.launches_timed}
        row |= {"clock_mhz": burst.clock_mhz, "clock_start_mhz": burst.start_mhz}
        if burst.held_back:
            raise MeasurementError("throttled", f"the clock was at {burst.start_mhz:.0f} MHz before the kernel ran, and no rest raised it")
        return burst

    def _meter(self, prepared: Prepared, sets: int, burst: Burst, row: Row) -> PowerReading:
        """Fills the row's power columns."""
        self._backend.pending().wait()  # what the others have enqueued would run into the window
        power = self._backend.power(prepared, sets, burst, self._procedure, step_s=self.device.counter_step_s, meanwhile=self._begin_beside)
        row |= {
            "sustained_runtime_us": power.sustained_runtime_us,
            "sustained_clock_mhz": power.clock_mhz,
            "power_w": power.power_w,
            "power_instant_w": power.power_instant_w,
            "energy_mj": power.energy_mj,
            "window_s": power.window_s,
            "counter_steps": power.counter_steps,
        }
        return power

    def _others(self) -> Steps[None]:
        """Until no other cell is under way, but for those that wait here too; no new one begins meanwhile."""
        waiting, me = self._short_of_memory, object()
        waiting.add(me)
        try:
            while len(self._under_way) > len(waiting):
                yield Rest(0.0)
        finally:
            waiting.discard(me)

    def _reference(self, cell: Cell, sets: Sequence[Operands]) -> Reference:
        if self._checked.sets is not sets or self._checked.reference is None:
            self._checked = _Checked()  # the old one's memory first
            self._checked = _Checked(sets, Reference(self._backend.xp, cell.gemm, sets[0]))
        assert self._checked.reference is not None
        return self._checked.reference


def _device_fault(error: RuntimeError) -> str:
    """What CUDA said; anything else is a bug of ours and raised."""
    if not type(error).__module__.startswith(("cupy", "cuda.", "nvmath")):
        raise error
    return str(error)
