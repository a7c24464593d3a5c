"""Measure one cell: prepare, check, time, meter. The order of a measurement stands here and nowhere else.

Knows nothing of Ray, processes or plans. Whatever goes wrong with a cell becomes a row with a status; only a broken program raises.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from time import sleep
from typing import Any, Protocol
from uuid import uuid4

from agent.check import check
from agent.devices import Bench
from agent.kernels import load, refuse
from gemmcast import __version__
from gemmcast.cell import Cell
from gemmcast.device import Device
from gemmcast.errors import MeasurementError
from gemmcast.procedure import Procedure
from gemmcast.sample import Sample, describe

Row = dict[str, Any]
CONTENTION_WAITS_S = (0.2, 0.5, 1.0, 2.0)
# how long we wait for a neighbour to leave before the row is marked


@dataclass(frozen=True, slots=True)
class Outcome:
    """A row, and whether the process that made it must not go on (its CUDA context is gone)."""

    row: Row
    fatal: bool = False


class Instrument(Protocol):
    """Answers cells with rows."""

    device: Device

    def measure(self, cell: Cell) -> Outcome: ...


def blank(cell: Cell, device: Device, agent: str) -> Row:
    """The row before anything was read."""
    base = Sample(
        **describe(cell.gemm, cell.config, device),
        cache=cell.cache,
        sample_id=uuid4().hex,
        cell_id=cell.cell_id,
        agent=agent,
        program_version=__version__,
        measured_at=datetime.now(UTC).isoformat(timespec="milliseconds"),
    )
    return base.row()


def failed(cell: Cell, device: Device, agent: str, status: str, reason: str) -> Row:
    return {**blank(cell, device, agent), "status": status, "reason": reason}


class LiveInstrument:
    """A bench, put to work."""

    def __init__(self, bench: Bench, device: Device, procedure: Procedure, agent: str, *, wait: Callable[[float], None] = sleep) -> None:
        self.device = device
        self._bench, self._procedure, self._agent, self._wait = bench, procedure, agent, wait

    def measure(self, cell: Cell) -> Outcome:
        row = blank(cell, self.device, self._agent)
        try:
            self._read_alone(cell, row)
        except MeasurementError as error:
            row |= {"status": error.status, "reason": error.reason}
        except MemoryError as error:
            row |= {"status": "out_of_memory", "reason": str(error)}
        except RuntimeError as error:
            if not type(error).__module__.startswith("cupy"):
                raise
            return Outcome({**row, "status": "cuda_error", "reason": str(error)}, fatal=True)
        return Outcome(row)

    def _read_alone(self, cell: Cell, row: Row) -> None:
        """Try again while a neighbour computes here too, then give up."""
        for wait_s in (*CONTENTION_WAITS_S, None):
            try:
                return self._read(cell, row)
            except MeasurementError as error:
                if error.status != "contended" or wait_s is None:
                    raise
                self._wait(wait_s)

    def _read(self, cell: Cell, row: Row) -> None:
        if reason := self._bench.contention():
            raise MeasurementError("contended", reason)
        refuse(cell.gemm, cell.config, self.device.kind)
        sets = self._bench.operands(cell.gemm, cold=cell.cache == "cold")
        prepared = load(cell.config.family).prepare(cell.gemm, cell.config, sets)
        row |= prepared.facts
        row["max_rel_error"] = check(self._bench.xp, cell.gemm, sets[0], prepared)
        burst, conditions = self._bench.burst(prepared, len(sets), self._procedure)
        row |= conditions
        power = self._bench.power(prepared, len(sets), burst.runtime_us, self._procedure) if cell.power else None
        row |= {"runtime_us": burst.runtime_us, "runtime_rse": burst.runtime_rse, "repeats": burst.repeats}
        if power:
            row |= {
                "sustained_runtime_us": power.sustained_runtime_us,
                "power_w": power.power_w,
                "energy_mj": power.energy_mj,
                "window_s": power.window_s,
                "counter_steps": power.counter_steps,
            }
