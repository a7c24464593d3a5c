"""A cell that nobody can measure, and what becomes of it in the store."""

from __future__ import annotations

from dataclasses import dataclass

import pyarrow as pa

from gemmcast.arrow import to_table
from gemmcast.cell import Cell
from gemmcast.device import Device
from gemmcast.rows import failed


@dataclass(frozen=True, slots=True)
class LostCell:
    """A cell that is given up: agents died under it again and again, or its rows were refused."""

    cell: Cell
    device: Device
    agent: str
    """The last of them."""
    reason: str

    def row(self) -> pa.Table:
        """What becomes of it in the store."""
        return to_table([failed(self.cell, self.device, self.agent, "agent_lost", self.reason)])
