"""Which cells are due, and on which boards: by the answers in the store and those on their way.

    a cell is due                    until it has an answer
    a cell that is drawn for two     until two boards have measured it; a board that has answered
                                     does not measure it again

A cell that failed on two boards would fail on any, and is not tried on a third. Nothing of this is
kept in between: after a restart the store says the same. Knows nothing of leases.
"""

from __future__ import annotations

from coordinator.fleet.commits import CommitQueue
from coordinator.samples.answers import CONTENDED, OK, Answer
from gemmcast.cell import Cell

BOARDS = 2
"""Boards that measure a drawn cell, and on which it may fail."""


class Due:
    """The cells of a run, as the store sees them.

    Args:
        commits: the store, and the rows that wait for it.
    """

    def __init__(self, commits: CommitQueue) -> None:
        self._commits = commits

    def has_answer(self, cell: Cell) -> bool:
        """Whether some board has answered."""
        return self._commits.is_answered(cell.cell_id)

    def needs_second(self, cell: Cell) -> bool:
        """Whether one board has answered, and another one should."""
        if not self._commits.takes_each_board(cell.cell_id) or not self.has_answer(cell):
            return False
        answers = self._answers(cell)
        measured = {answer.board for answer in answers if answer.status == OK}
        failed = {answer.board for answer in answers if answer.status != OK}
        return len(measured) < BOARDS and len(failed) < BOARDS

    def is_second_of(self, cell: Cell, board: str) -> bool:
        """Whether this board should measure the cell after another one has."""
        if not self.needs_second(cell):
            return False
        return all(answer.board != board for answer in self._answers(cell))

    def is_due(self, cell: Cell, board: str) -> bool:
        """Whether this board should measure the cell."""
        return not self.has_answer(cell) or self.is_second_of(cell, board)

    def _answers(self, cell: Cell) -> list[Answer]:
        known = self._commits.known(cell.cell_id)
        return [answer for answer in known if answer.status != CONTENDED]
