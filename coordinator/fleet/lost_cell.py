"""A cell that is given up, and the row that says why.

Agents died under it (leases.py), or its rows were refused (admission.py). Knows nothing of either.
"""

from __future__ import annotations

from dataclasses import dataclass

import pyarrow as pa

from gemmcast.arrow import to_table
from gemmcast.cell import Cell
from gemmcast.device import Device
from gemmcast.rows import failed


@dataclass(frozen=True, slots=True)
class LostCell:
    """See the head of this file."""

    cell: Cell
    device: Device
    agent: str
    """The last that has tried it."""
    reason: str
    """For people."""

    def row(self) -> pa.Table:
        """What becomes of it in the store."""
        return to_table([failed(self.cell, self.device, self.agent, "agent_lost", self.reason)])
