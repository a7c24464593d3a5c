"""The messages between the supervisor and its measuring child, and the events of an instrument.

    to the child     AgentSpec, once; then Request, any number of times
    from the child   Ready, once; then for each cell of a request Started and Outcome, or one Fault
                     or Restart that ends the request

They are pickled by the pipe (multiprocessing.connection), so cells and devices arrive as objects.
"""

from __future__ import annotations

from dataclasses import dataclass

from gemmcast.cell import Cell
from gemmcast.device import Device
from gemmcast.rows import Row


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """Cells to measure."""

    cells: list[Cell]
    depth: int | None
    """How many may be under way at once; None for the device's own number."""


@dataclass(frozen=True, slots=True)
class Ready:
    """The child can measure."""

    device: Device


@dataclass(frozen=True, slots=True)
class Started:
    """A cell has begun; its time counts from here."""

    cell_id: str


@dataclass(frozen=True, slots=True)
class Outcome:
    """The row of one cell."""

    row: Row
    fatal: bool = False
    """Whether the process that made the row must end (its CUDA context is gone)."""


@dataclass(frozen=True, slots=True)
class Fault:
    """The device failed under several cells; any may be the cause. The process must end."""

    reason: str


@dataclass(frozen=True, slots=True)
class Restart:
    """A new process is to go on, with the cells that have no row. No cell is the cause."""


Event = Outcome | Fault | Restart
Message = Ready | Started | Outcome | Fault | Restart
