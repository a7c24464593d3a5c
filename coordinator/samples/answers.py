"""What the rows of a store say of each cell: the answers it has, and of which boards.

A row is the answer of its cell, whatever its status, unless the status is CONTENDED: such a row
only records that other processes used the device. The cell stays due, and its answer replaces the
record. Knows nothing of files, plans or runs.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Final, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc

CONTENDED: Final = "contended"
OK: Final = "ok"
COLUMNS: Final = ("cell_id", "status", "device_uuid")


class Answer(NamedTuple):
    """One row, as far as it matters whether its cell is due."""

    status: str
    board: str
    """`device_uuid` of the row."""


class Answers:
    """The answers of all cells, and records of those that have none."""

    def __init__(self, rows: pa.Table | None = None) -> None:
        self.committed: set[str] = set()
        """The ids of the cells that have an answer."""
        self.statuses = Counter[str]()
        """Status -> rows, without the records that an answer has replaced."""
        self._of: dict[str, tuple[Answer, ...]] = {}
        # Many rows say the same, which is kept once.
        self._seen: dict[Answer, Answer] = {}
        if rows is not None:
            self.add(rows)

    def of(self, cell_id: str) -> tuple[Answer, ...]:
        """The answers of a cell; where it has none, its records."""
        return self._of.get(cell_id, ())

    def add(self, rows: pa.Table) -> None:
        """Rows that are in the store now, in any order."""
        for cell_id, answer in answers_in(rows):
            self.add_one(cell_id, answer)

    def add_one(self, cell_id: str, answer: Answer) -> None:
        """One row."""
        is_answer = answer.status != CONTENDED
        is_answered = cell_id in self.committed
        if is_answered and not is_answer:
            return
        known = self.of(cell_id)
        if is_answer and not is_answered:
            self.statuses[CONTENDED] -= len(known)
            self.committed.add(cell_id)
            known = ()
        self._of[cell_id] = (*known, self._seen.setdefault(answer, answer))
        self.statuses[answer.status] += 1


def answers_in(rows: pa.Table) -> Iterator[tuple[str, Answer]]:
    """The cell of each row, and what the row says of it."""
    columns = rows.select(list(COLUMNS)).to_pydict()
    for cell_id, status, board in zip(*columns.values(), strict=True):
        yield cell_id, Answer(status, board)


def without_replaced(rows: pa.Table) -> pa.Table:
    """The rows, without the records of cells that have an answer among them."""
    is_record = pc.equal(rows["status"], CONTENDED)
    if not pc.any(is_record).as_py():
        return rows
    answered = rows["cell_id"].filter(pc.invert(is_record))
    is_replaced = pc.and_(is_record, pc.is_in(rows["cell_id"], pc.unique(answered)))
    return rows.filter(pc.invert(is_replaced))
