"""Measure one cell: operands, kernel, check, burst, power. The order stands here and nowhere else.

    look -> refuse -> operands -> first launch -> check -> [short burst -> power window] -> burst
         -> look

A look is for other processes on the device. One that sees some spoils every cell under way: it has
status "contended", and is measured again when they have left.
A measurement is a generator that yields whatever it waits for and fills a row as it goes on. What
goes wrong with the cell is raised as MeasurementError; the readings so far stay in the row.
Knows nothing of Ray, processes or plans, nor of how many cells are under way.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from agent.check import Reference, verdict
from agent.devices import DeviceBackend
from agent.kernels import BlockScales, Prepared, load, refuse
from agent.operands import Array, Operands
from agent.power import PowerReading
from agent.timing import Burst, Rest, Steps, finish
from gemmcast.cell import Cell
from gemmcast.device import Device
from gemmcast.errors import MeasurementError
from gemmcast.procedure import Procedure
from gemmcast.rows import Row
from gemmcast.uncertainty import runtime_uncertainty

BEFORE_POWER = Procedure(burst_s=0.005, min_burst_s=0.0)
"""The short burst before power is metered. The burst that counts comes after the window, in the
state that the kernel itself has brought the board to."""
CONTENTION_WAITS_S = (0.2, 0.5, 1.0, 2.0)
"""Waits for another process to leave the device, before the row is marked "contended"."""


class Others(Protocol):
    """The other cells that are under way, as a measurement sees them."""

    def are_none(self) -> bool:
        """Whether this cell is alone."""

    def wait_until_done(self) -> Steps[None]:
        """Wait until this cell is alone; no new one begins meanwhile."""

    def begin_next(self) -> None:
        """Begin one more cell now, and wait for what it enqueues."""


@dataclass(slots=True)
class _Launched:
    """A kernel after its first launch, which may still run.

    It is held to the end of the measurement: a launch keeps the operands' addresses, not the
    operands.
    """

    prepared: Prepared
    sets: Sequence[Operands]
    errors: Array
    """Of the result, on the device."""


class Measurer:
    """Measures cells on one backend.

    Args:
        others: the other cells under way on it.
        wait: sleeps; tests pass one that does not.
    """

    def __init__(
        self,
        backend: DeviceBackend,
        device: Device,
        procedure: Procedure,
        others: Others,
        wait: Callable[[float], None],
    ) -> None:
        self._backend = backend
        self._device = device
        self._procedure = procedure
        self._others = others
        self._wait = wait
        self._reference: Reference | None = None
        self._reference_sets: Sequence[Operands] | None = None
        self._reference_scales: BlockScales | None = None
        # Looks that saw another process on the device, and what the last of them saw.
        self._sightings = 0
        self._seen: str | None = None
        # It was there at the last look, and so long any cell has waited for it to leave.
        self._is_shared = False
        self._waited_s = 0.0

    def measure(self, cell: Cell, row: Row) -> Steps[None]:
        """Fill the row's columns; while another process computes here, try again a few times.

        Raises:
            MeasurementError: whatever is wrong with the cell.
        """
        for wait_s in CONTENTION_WAITS_S:
            try:
                yield from self._measure_once(cell, row)
                return
            except MeasurementError as error:
                if error.status != "contended" or self._stays_shared:
                    raise
            if self._is_shared:
                self._waited_s += wait_s
            yield Rest(wait_s, self._wait)
        yield from self._measure_once(cell, row)

    @property
    def _stays_shared(self) -> bool:
        """Whether a process stayed through all waits: it is not waited for again."""
        return self._waited_s >= sum(CONTENTION_WAITS_S)

    def _measure_once(self, cell: Cell, row: Row) -> Steps[None]:
        """Measure while no other process computes here; a look at the begin and one at the end."""
        sightings = self._sightings
        self._refuse_neighbours(sightings)
        try:
            yield from self._measure_undisturbed(cell, row)
        except (MeasurementError, MemoryError):
            # Whatever went wrong, a neighbour may be the cause.
            self._refuse_neighbours(sightings)
            raise
        self._refuse_neighbours(sightings)

    def _refuse_neighbours(self, sightings: int) -> None:
        """Look for other processes.

        Args:
            sightings: looks that had seen one when the cell began.

        Raises:
            MeasurementError: "contended": one is there, or was seen by any cell in between.
        """
        reason = self._backend.contention()
        self._is_shared = reason is not None
        if reason is not None:
            self._sightings += 1
            self._seen = reason
        else:
            self._waited_s = 0.0
        if self._sightings > sightings:
            raise MeasurementError("contended", str(self._seen)) from None

    def _measure_undisturbed(self, cell: Cell, row: Row) -> Steps[None]:
        refuse(cell.gemm, cell.config, self._device)
        launched = yield from self._launch_when_there_is_room(cell, row)
        yield self._backend.pending()
        errors = self._backend.read(launched.errors)
        row["max_error_over_rms"] = verdict(cell.gemm, row["split_k"], errors)

        no_power = self._backend.no_power() if cell.power else None
        power = None
        if cell.power and no_power is None:
            # Sizes the load, and shows the clock before any cap.
            before = yield from self._time(launched, BEFORE_POWER, cell, row)
            power = self._meter(launched, before, cell, row)
        window_mhz = None if power is None else power.clock_mhz
        steps = self._time(launched, self._procedure, cell, row, window_mhz)
        if power is not None and not power.capped:
            # At once, before another kernel moves the board's voltage.
            burst = finish(steps)
        else:
            # Without a window there is no hurry; after a window at the cap the board has to rest.
            burst = yield from steps
        row["capped"] = burst.capped if power is None else power.capped

        if no_power is not None:
            raise MeasurementError("unsupported", f"no power reading: {no_power}")
        if power is not None and power.dispute is not None:
            raise MeasurementError("power_disputed", power.dispute)

    def _launch_when_there_is_room(self, cell: Cell, row: Row) -> Steps[_Launched]:
        try:
            return self._launch(cell, row)
        except (MeasurementError, MemoryError) as error:
            if self._others.are_none() or not _is_out_of_memory(error):
                raise
        # The operands of the others may be all that is in the way. Tried again out here, because
        # the exception above holds on to the memory of the first try.
        yield from self._others.wait_until_done()
        return self._launch(cell, row)

    def _launch(self, cell: Cell, row: Row) -> _Launched:
        """Enqueue the first launch and the comparison of its result; wait for nothing."""
        sets = self._backend.operands(cell.gemm, cold=cell.cache == "cold", metered=cell.power)
        prepared = load(cell.config.family).prepare(cell.gemm, cell.config, sets)
        row.update(prepared.facts)
        reference = self._reference_of(cell, sets, prepared.scales)
        errors = reference.errors(prepared, cell.gemm.alpha, cell.gemm.beta)
        return _Launched(prepared, sets, errors)

    def _reference_of(
        self, cell: Cell, sets: Sequence[Operands], scales: BlockScales | None
    ) -> Reference:
        """A·B of these operands: the one of the last cell where they are the same."""
        is_of_these = self._reference_sets is sets and self._reference_scales is scales
        if self._reference is None or not is_of_these:
            # The old one's memory must be free before the new one is computed.
            self._reference = None
            self._reference_sets = None
            self._reference = Reference(self._backend.xp, cell.gemm, sets[0], scales)
            self._reference_sets = sets
            self._reference_scales = scales
        return self._reference

    def _time(
        self,
        launched: _Launched,
        procedure: Procedure,
        cell: Cell,
        row: Row,
        window_mhz: float | None = None,
    ) -> Steps[Burst]:
        """Time a burst and fill the row's columns of it."""
        burst, conditions = yield from self._backend.burst(
            launched.prepared,
            launched.sets,
            procedure,
            cold=cell.cache == "cold",
            window_mhz=window_mhz,
        )
        row.update(conditions)
        row["runtime_us"] = burst.runtime_us
        row["runtime_uncertainty"] = runtime_uncertainty(
            burst.runtime_rse,
            after_window=row["sustained_runtime_us"] is not None,
            device_kind=self._device.kind,
        )
        row["launches_timed"] = burst.launches_timed
        row["clock_mhz"] = burst.clock_mhz
        row["clock_start_mhz"] = burst.start_mhz
        if burst.held_back:
            raise MeasurementError(
                "throttled",
                f"the clock was at {burst.start_mhz:.0f} MHz before the kernel ran, "
                "and no rest raised it",
            )
        if burst.unsteady:
            raise MeasurementError(
                "throttled",
                f"the clock was at {burst.clock_mhz:.0f} MHz and lower while the kernel ran, "
                "and no two bursts agree on it",
            )
        return burst

    def _meter(self, launched: _Launched, burst: Burst, cell: Cell, row: Row) -> PowerReading:
        """Meter power and fill the row's columns of it."""
        # What the others have enqueued must not run inside the window.
        self._backend.pending().wait()
        power = self._backend.power(
            launched.prepared,
            launched.sets,
            burst,
            self._procedure,
            cold=cell.cache == "cold",
            step_s=self._device.counter_step_s,
            meanwhile=self._others.begin_next,
        )
        row["sustained_runtime_us"] = power.sustained_runtime_us
        row["sustained_clock_mhz"] = power.clock_mhz
        row["power_w"] = power.power_w
        row["power_instant_w"] = power.power_instant_w
        row["energy_mj"] = power.energy_mj
        row["window_s"] = power.window_s
        row["counter_steps"] = power.counter_steps
        return power


def _is_out_of_memory(error: MeasurementError | MemoryError) -> bool:
    return isinstance(error, MemoryError) or error.status == "out_of_memory"
