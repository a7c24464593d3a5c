"""What was measured: the committed rows of a tuning, by cell.

Rows come from the store alone, never from an agent: what a decision rests on is what a restart
finds. Does not know what follows from a row.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from datetime import datetime
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from coordinator.samples.answers import CONTENDED, OK
from gemmcast.cell import Cell
from gemmcast.tuned_entry import Cost

COSTS = tuple(field.name for field in fields(Cost))
COLUMNS = (
    "cell_id",
    "status",
    "reason",
    "device_uuid",
    "family",
    "library",
    "measured_at",
    *COSTS,
)
"""Those of a sample that a tuning reads."""
PASSING = ("throttled", "power_disputed")
"""Statuses that say something of the moment, and nothing of the configuration."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """One row."""

    status: str
    reason: str = ""
    board: str = ""
    """`device_uuid` of the row."""
    began_s: float | None = None
    """When it was measured, in Unix time. [s]"""
    cost: Cost = field(default_factory=Cost)

    @property
    def is_ok(self) -> bool:
        """Whether its cost counts."""
        return self.status == OK

    @property
    def is_refusal(self) -> bool:
        """Whether the configuration would fail again."""
        return not self.is_ok and self.status not in PASSING

    @property
    def text(self) -> str:
        """`incorrect: the result differs ...`"""
        return f"{self.status}: {self.reason}" if self.reason else self.status


class Readings:
    """The rows of some cells."""

    def __init__(self) -> None:
        self._by_cell: dict[str, Reading] = {}
        self.libraries: dict[str, set[str]] = defaultdict(set)
        """Kernel family -> versions of what computed good readings."""

    def __len__(self) -> int:
        return len(self._by_cell)

    def take(self, rows: pa.Table, cells: Sequence[Cell]) -> None:
        """Note the answers of these cells.

        Args:
            rows: samples with COLUMNS at least, of these cells and others.
        """
        wanted = pa.array([cell.cell_id for cell in cells], pa.string())
        own = rows.select(list(COLUMNS)).filter(pc.is_in(rows["cell_id"], wanted))
        for row in own.to_pylist():
            if row["status"] == CONTENDED:
                continue
            self._by_cell[row["cell_id"]] = _reading(row)
            if row["status"] == OK and row["library"]:
                self.libraries[row["family"]].add(row["library"])

    def note(self, readings: Mapping[str, Reading]) -> None:
        """Add readings by the id of their cell."""
        self._by_cell.update(readings)

    def of(self, cell: Cell) -> Reading | None:
        """The answer of a cell; None where it has none."""
        return self._by_cell.get(cell.cell_id)


def _reading(row: Mapping[str, Any]) -> Reading:
    costs = {name: row[name] for name in COSTS if row[name]}
    return Reading(
        status=row["status"],
        reason=row["reason"] or "",
        board=row["device_uuid"],
        began_s=_seconds(row["measured_at"]),
        cost=Cost(**costs),
    )


def _seconds(text: str | None) -> float | None:
    """Unix time of a row's `measured_at`."""
    try:
        return datetime.fromisoformat(text).timestamp() if text else None
    except ValueError:
        return None
