"""What the rows of a store say of each cell: the answers it has, and of which boards.

A row is the answer of its cell, whatever its status, unless the status is CONTENDED: such a row
only records that other processes used the device. The cell stays due, and its answer replaces the
record. Knows nothing of files, plans or runs.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, KeysView, Sequence
from functools import lru_cache
from typing import Final, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc

CONTENDED: Final = "contended"
OK: Final = "ok"
COLUMNS: Final = ("cell_id", "status", "device_uuid")
DIFFERENT: Final = 2**14
"""Answers that are kept for the next rows that say the same: of a thousand boards, all statuses."""


class Answer(NamedTuple):
    """One row, as far as it matters whether its cell is due."""

    status: str
    board: str
    """`device_uuid` of the row."""


class Answers:
    """The answers of all cells, and records of those that have none."""

    def __init__(self, rows: pa.Table | None = None) -> None:
        self.statuses = Counter[str]()
        """Status -> rows, without the records that an answer has replaced."""
        self._answers: dict[str, tuple[Answer, ...]] = {}
        self._records: dict[str, tuple[Answer, ...]] = {}
        # Many cells have the same, which is kept once.
        self._seen: dict[tuple[Answer, ...], tuple[Answer, ...]] = {}
        if rows is not None:
            self.add(rows)

    @property
    def committed(self) -> KeysView[str]:
        """The ids of the cells that have an answer. It grows."""
        return self._answers.keys()

    def has(self, cell_id: str) -> bool:
        """Whether a cell has an answer."""
        return cell_id in self._answers

    def of(self, cell_id: str) -> tuple[Answer, ...]:
        """The answers of a cell; where it has none, its records."""
        return self._answers.get(cell_id) or self._records.get(cell_id, ())

    def add(self, rows: pa.Table) -> None:
        """Rows that are in the store now, in any order."""
        first: list[str] = []
        for cell_id, answer in answers_in(rows):
            is_known = cell_id in self._answers or cell_id in self._records
            if is_known or answer.status == CONTENDED:
                self._add_again(cell_id, answer)
                continue
            # Most rows by far: the first one of their cell.
            self._answers[cell_id] = _alone(answer)
            first.append(answer.status)
        self.statuses.update(first)

    def _add_again(self, cell_id: str, answer: Answer) -> None:
        """One row more of a cell, or one that is no answer."""
        kept = self._answers
        if answer.status == CONTENDED:
            if cell_id in self._answers:
                return
            kept = self._records
        elif cell_id in self._records:
            self.statuses[CONTENDED] -= len(self._records.pop(cell_id))
        known = (*kept.get(cell_id, ()), answer)
        kept[cell_id] = self._seen.setdefault(known, known)
        self.statuses[answer.status] += 1


class Statuses:
    """How many rows of a run have each status, without records that an answer has replaced."""

    def __init__(self) -> None:
        self.counts = Counter[str]()
        """Status -> rows."""
        self._records = Counter[str]()
        """Cell -> its records, while it has no answer."""

    def add(self, rows: pa.Table) -> None:
        """Rows that were committed."""
        statuses = rows["status"].to_pylist()
        self.counts.update(statuses)
        if not self.counts[CONTENDED]:
            return
        for cell_id, status in zip(rows["cell_id"].to_pylist(), statuses, strict=True):
            if status == CONTENDED:
                self._records[cell_id] += 1
            else:
                self.counts[CONTENDED] -= self._records.pop(cell_id, 0)


def answers_in(rows: pa.Table) -> Iterator[tuple[str, Answer]]:
    """The cell of each row, and what the row says of it."""
    cell_ids, statuses, boards = (rows[name].to_pylist() for name in COLUMNS)
    return zip(cell_ids, map(_answer, statuses, boards), strict=True)


def is_news(answer: Answer, known: Sequence[Answer], *, each_board: bool) -> bool:
    """Whether a row says what the known ones of its cell do not."""
    if answer.status == CONTENDED:
        return not known
    answers = [one for one in known if one.status != CONTENDED]
    if each_board:
        return all(one.board != answer.board for one in answers)
    return not answers


def without_replaced(rows: pa.Table) -> pa.Table:
    """The rows, without the records of cells that have an answer among them."""
    is_record = pc.equal(rows["status"], CONTENDED)
    if not pc.any(is_record).as_py():
        return rows
    answered = rows["cell_id"].filter(pc.invert(is_record))
    is_replaced = pc.and_(is_record, pc.is_in(rows["cell_id"], pc.unique(answered)))
    return rows.filter(pc.invert(is_replaced))


@lru_cache(DIFFERENT)
def _answer(status: str, board: str) -> Answer:
    """Equal ones are one object."""
    return Answer(status, board)


@lru_cache(DIFFERENT)
def _alone(answer: Answer) -> tuple[Answer, ...]:
    """The answers of a cell that has one. Equal ones are one object."""
    return (answer,)
