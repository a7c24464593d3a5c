"""The cells of one type of device, or of one device, that no agent has.

    first      without an answer, in the order of the plan; contended ones come back to its end
    suspects   under which an agent died
    set aside  contended MAX_CONTENDED times; they come back when a device is, or may be, free again
    halfway    drawn for two boards and answered by one: no queue. Which of them a board should
               measure now is what `Due` says

Knows nothing of agents, nor of deaths.
"""

from __future__ import annotations

from collections import Counter, OrderedDict, deque
from collections.abc import Iterable, Sequence
from functools import partial
from itertools import islice

from coordinator.fleet.due import Due
from gemmcast.cell import Cell

POWER_CELL = 32
"""A cell with power takes as long as this many cells without."""
MAX_CONTENDED = 3
"""Tries of a cell on devices that others use, before it is set aside."""


class CellQueue:
    """See the head of this file.

    Args:
        device_key: what the cells carry.
        cells: those without an answer.
        drawn: those that two boards measure, with or without an answer.
        due: what the store says of them.
    """

    def __init__(
        self, device_key: str, cells: Sequence[Cell], drawn: Sequence[Cell], due: Due
    ) -> None:
        self.device_key = device_key
        self.first = deque(cells)
        self.suspects = deque[Cell]()
        self.set_aside: list[Cell] = []
        self._drawn = drawn
        self._due = due
        self._contended = Counter[str]()
        self._halfway = OrderedDict[str, Cell]()
        self.release(drawn)

    def has_first(self) -> bool:
        """Whether a cell without an answer is here that may be tried."""
        return bool(self.first) or not all(map(self._due.has_answer, self.suspects))

    def release(self, cells: Iterable[Cell]) -> None:
        """No agent has these cells any more: those that another board should measure can be had."""
        for cell in filter(self._due.needs_second, cells):
            self._halfway[cell.cell_id] = cell

    def seconds(self, board: str, most: int | None = None) -> list[Cell]:
        """The cells that this board should measure after another one, at most so many."""
        cells = filter(partial(self._is_second_of, board), self._halfway.values())
        return list(islice(cells, most))

    def take_seconds(self, cells: Iterable[Cell]) -> None:
        """An agent has these cells now."""
        for cell in cells:
            self._halfway.pop(cell.cell_id, None)

    @property
    def halfway(self) -> int:
        """How many cells may wait for a second board."""
        return len(self._halfway)

    def second_due(self) -> int:
        """How many cells wait for a second board, without those that agents have."""
        waiting = filter(self._due.needs_second, self._halfway.values())
        self._halfway = OrderedDict((cell.cell_id, cell) for cell in waiting)
        return len(self._halfway)

    def _is_second_of(self, board: str, cell: Cell) -> bool:
        is_hopeful = self._contended[cell.cell_id] < MAX_CONTENDED
        return is_hopeful and self._due.is_second_of(cell, board)

    def note_contended(self, cell_id: str) -> None:
        """Others used the device while the cell was measured."""
        self._contended[cell_id] += 1

    def give_back(self, cells: Iterable[Cell]) -> None:
        """To the front of the queue; contended cells to its end, for another agent or later."""
        untried: list[Cell] = []
        for cell in cells:
            tries = self._contended[cell.cell_id]
            if self._due.has_answer(cell):
                # A second board should have measured it.
                if cell.cell_id in self._halfway:
                    self._halfway.move_to_end(cell.cell_id, last=False)
                continue
            if tries >= MAX_CONTENDED:
                self.set_aside.append(cell)
            elif tries:
                self.first.append(cell)
            else:
                untried.append(cell)
        self.first.extendleft(reversed(untried))

    def bring_back(self) -> None:
        """What was set aside is tried once more."""
        self.first.extend(self.set_aside)
        self.set_aside = []

    def try_again(self) -> None:
        """A device is free again: what was contended there counts no more."""
        for cell in (*self.set_aside, *self._drawn):
            del self._contended[cell.cell_id]
        self.bring_back()


def take_cells(queue: deque[Cell], cells: int) -> list[Cell]:
    """Remove from the front what takes as long as `cells` without power; one cell at least."""
    taken: list[Cell] = []
    budget = cells
    while queue and (budget >= 1 or not taken):
        budget -= POWER_CELL if queue[0].power else 1
        taken.append(queue.popleft())
    return taken
