"""Which samples of an agent are taken: of its own cells and device, as the schema has them.

Whatever an agent sends is checked before it is counted, committed or shown. A batch of another form
is refused whole, a row that breaks a rule alone (samples/batch_rules.py, claims.py). What is
refused is counted, and said in a line that names the agent, at first and then whenever the count
has doubled. A cell whose rows are refused is measured again; after MAX_REFUSALS it is given up with
a reason. An agent that sends nothing else is broken: its leases have failed, and its cells are not
to blame. Batches that come together are judged together, in the time of one. Knows nothing of Ray.
An agent that lies within the rules is not found out here.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain
from typing import Final

import numpy as np
import pyarrow as pa

from coordinator.fleet.claims import check_device, of_other_cells, of_others
from coordinator.fleet.events import agent_event
from coordinator.fleet.interface import Ended, Ready, Samples
from coordinator.fleet.lost_cell import LostCell
from coordinator.samples.answers import CONTENDED
from coordinator.samples.batch_rules import (
    BATCH_ROWS,
    Broken,
    Flags,
    broken_rows,
    checked_form,
    joined,
)
from gemmcast.cell import Cell
from gemmcast.device import Device
from gemmcast.errors import InputError

log = logging.getLogger(__name__)

MAX_REFUSALS: Final = 3
"""Rows of one cell, before it is given up."""
BROKEN_ROWS: Final = 10
"""Rows that are refused in succession, before their agent is to blame, and not their cells."""

IsAnswered = Callable[[str], bool]
"""Whether a cell, by its id, has an answer."""


@dataclass(slots=True)
class Sender:
    """One agent, by what it has sent."""

    boards: dict[str, Device] = field(default_factory=dict)
    """UUID -> what it said of its device. A restarted agent may have another one."""
    expected: dict[str, Cell] = field(default_factory=dict)
    """Cells that it had and has not answered, also those that were taken back."""
    refused: int = 0
    """Rows of this run."""
    in_succession: int = 0
    """Rows that were refused since one was taken."""
    last: str = ""
    """Why the last of them was refused."""
    next_line: int = 1
    """How many must be refused before that is said again."""

    @property
    def is_broken(self) -> bool:
        """Whether it sends nothing that can be taken."""
        return self.in_succession >= BROKEN_ROWS

    def note_taken(self, rows: pa.RecordBatch) -> None:
        """These rows of it are taken."""
        self.in_succession = 0
        ids, statuses = rows.column("cell_id").to_pylist(), rows.column("status").to_pylist()
        for cell_id, status in zip(ids, statuses, strict=True):
            if status != CONTENDED:
                self.expected.pop(cell_id, None)


class Admission:
    """All agents of a run.

    Args:
        is_answered: says it of a cell that an agent was not given.
        devices: the kind that the plan names; rows of a "replay" come from many boards.
    """

    def __init__(self, is_answered: IsAnswered, devices: str = "auto") -> None:
        self._is_answered = is_answered
        self._devices = devices
        self._senders: dict[str, Sender] = {}
        self._strangers: dict[str, str] = {}
        """Agent without a device that could be one -> why."""
        self._refusals = Counter[str]()
        self._lost: list[LostCell] = []
        self.refused = 0
        """Rows of all agents in this run."""

    def join(self, ready: Ready) -> bool:
        """An agent has started; False: what it says of its device is nonsense, it gets no cells."""
        try:
            check_device(ready.device)
        except InputError as error:
            if ready.agent not in self._strangers:
                fields = agent_event("agent_fault", ready.agent, str(error))
                log.warning("agent %s gets no cells: %s", ready.agent, error, extra=fields)
            self._strangers[ready.agent] = str(error)
            return False
        self._strangers.pop(ready.agent, None)
        self._sender(ready.agent).boards[ready.device.uuid] = ready.device
        return True

    def leave(self, agent: str) -> None:
        """An agent is gone for good; rows that still arrive are taken as before."""
        self._strangers.pop(agent, None)
        self._sender(agent).in_succession = 0

    def expect(self, agent: str, cells: Iterable[Cell]) -> None:
        """These cells are leased to an agent."""
        leased = self._sender(agent).expected
        leased.update((cell.cell_id, cell) for cell in cells)

    def admit_all(self, sent: Sequence[Samples]) -> Iterator[tuple[str, pa.Table]]:
        """Agent and the rows that are taken of each batch, those that have none left out.

        Where a batch breaks a rule, those that were judged with it are judged again, each alone. Of
        an agent of which something was refused, each is from then on. So what one agent sends
        costs others at most one more look. Take over what comes before the next one is asked for:
        it is then known as answered.
        """
        is_refused = {one.agent: self._sender(one.agent).refused > 0 for one in sent}
        for group in _groups(one for one in sent if not is_refused[one.agent]):
            if self._take_together(group):
                yield from ((one.agent, one.table) for one in group)
            else:
                yield from self._admit_each(group)
        yield from self._admit_each(one for one in sent if is_refused[one.agent])

    def admit(self, agent: str, batch: pa.Table) -> pa.Table | None:
        """The rows that are taken; None: there is none.

        Args:
            batch: what the agent has sent, whatever it is.
        """
        sender = self._sender(agent)
        try:
            rows = self._admitted(agent, sender, checked_form(batch))
        except InputError as error:
            self._refuse_batch(agent, sender, batch, error)
            return None
        if not len(rows):
            return None
        sender.note_taken(rows)
        # The same table, where nothing was refused.
        return batch if len(rows) == len(batch) else pa.Table.from_batches([rows])

    def end(self, ended: Ended) -> Ended:
        """The end of a lease, as a failure if its agent is broken."""
        sender = self._sender(ended.agent)
        if not sender.is_broken or ended.error is not None:
            return ended
        error = f"its rows are refused: {sender.last}"
        return replace(ended, error=error, is_cells_doing=False)

    def lost_cells(self) -> list[LostCell]:
        """Take out the cells that are given up, because their rows were refused."""
        lost, self._lost = self._lost, []
        return lost

    def faults(self) -> dict[str, str]:
        """Agent that sends nothing of use -> why."""
        faults = dict(self._strangers)
        for agent, sender in self._senders.items():
            if sender.is_broken:
                faults[agent] = f"{sender.refused} rows of it were refused: {sender.last}"
        return faults

    def _sender(self, agent: str) -> Sender:
        if agent not in self._senders:
            self._senders[agent] = Sender()
        return self._senders[agent]

    def _admit_each(self, sent: Iterable[Samples]) -> Iterator[tuple[str, pa.Table]]:
        for one in sent:
            rows = self.admit(one.agent, one.table)
            if rows is not None:
                yield one.agent, rows

    def _take_together(self, group: Sequence[Samples]) -> bool:
        """Whether every row of these batches is taken; False: nothing is said of any of them."""
        try:
            batches = [checked_form(one.table) for one in group]
            is_good = self._are_good(group, batches)
        except InputError:
            return False
        if is_good:
            for one, rows in zip(group, batches, strict=True):
                self._sender(one.agent).note_taken(rows)
        return is_good

    def _are_good(self, group: Sequence[Samples], batches: Sequence[pa.RecordBatch]) -> bool:
        """Whether there are rows in every batch, all of cells that are expected, without a fault.

        Raises:
            InputError: as `broken_rows` does.
        """
        cells: list[Cell | None] = []
        others: list[Iterator[Broken]] = []
        for one, rows in zip(group, batches, strict=True):
            sender = self._sender(one.agent)
            cells += map(sender.expected.get, rows.column("cell_id").to_pylist())
            others.append(of_others(rows, self._own(one.agent, sender)))
        together = joined(batches)
        broken = chain(broken_rows(together), *others, of_other_cells(together, cells))
        return all(map(len, batches)) and next(broken, None) is None

    def _admitted(self, agent: str, sender: Sender, rows: pa.RecordBatch) -> pa.RecordBatch:
        """The rows that break no rule, without those of cells that have an answer."""
        rows = self._without_repeated(sender, rows)
        if not len(rows):
            return rows
        cells = list(map(sender.expected.get, rows.column("cell_id").to_pylist()))
        broken = list(broken_rows(rows))
        broken += of_others(rows, self._own(agent, sender))
        broken += of_other_cells(rows, cells)
        if not broken:
            return rows
        is_refused = np.logical_or.reduce([one.rows for one in broken])
        self._refuse_rows(agent, sender, is_refused, cells, broken[0].error)
        return rows.filter(pa.array(~is_refused))

    def _without_repeated(self, sender: Sender, rows: pa.RecordBatch) -> pa.RecordBatch:
        """A batch that was sent twice, or late, when others had measured its cells, is no fault."""
        ids = rows.column("cell_id").to_pylist()
        if sender.expected.keys() >= set(ids):
            return rows
        is_news = [one in sender.expected or not self._is_answered(one) for one in ids]
        return rows.filter(pa.array(is_news))

    def _own(self, agent: str, sender: Sender) -> dict[str, set[str]]:
        """Column -> what it may say in a row of that agent."""
        own = {"agent": {agent}, "device": {device.name for device in sender.boards.values()}}
        if self._devices != "replay":
            own["device_uuid"] = set(sender.boards)
        return own

    def _refuse_batch(self, agent: str, sender: Sender, batch: pa.Table, error: InputError) -> None:
        rows = len(batch) if isinstance(batch, pa.Table) else 0
        self._note(agent, sender, max(BROKEN_ROWS, rows), "a whole batch", error)

    def _refuse_rows(
        self,
        agent: str,
        sender: Sender,
        is_refused: Flags,
        cells: Sequence[Cell | None],
        error: InputError,
    ) -> None:
        count = int(is_refused.sum())
        self._note(agent, sender, count, f"{count} of {len(is_refused)} rows", error)
        if sender.is_broken:
            return
        for place in np.flatnonzero(is_refused).tolist():
            cell = cells[place]
            if cell is not None:
                self._note_refusal(agent, sender, cell, error)

    def _note(self, agent: str, sender: Sender, count: int, what: str, error: InputError) -> None:
        self.refused += count
        sender.refused += count
        sender.in_succession += count
        sender.last = str(error)
        if sender.refused < sender.next_line:
            return
        sender.next_line = 2 * sender.refused
        text = "agent %s: %s refused, %d rows in this run: %s"
        fields = agent_event("agent_fault", agent, str(error))
        log.warning(text, agent, what, sender.refused, error, extra=fields)

    def _note_refusal(self, agent: str, sender: Sender, cell: Cell, error: InputError) -> None:
        """Count it against the cell, and give it up after MAX_REFUSALS."""
        self._refusals[cell.cell_id] += 1
        if self._refusals[cell.cell_id] < MAX_REFUSALS or not sender.boards:
            return
        del self._refusals[cell.cell_id]
        sender.expected.pop(cell.cell_id, None)
        device = list(sender.boards.values())[-1]
        reason = f"{MAX_REFUSALS} rows of it were refused: {error}"
        self._lost.append(LostCell(cell, device, agent, reason))


def _groups(sent: Iterable[Samples]) -> Iterator[list[Samples]]:
    """Batches that have together no more rows than one may have."""
    group: list[Samples] = []
    rows = 0
    for one in sent:
        more = len(one.table) if isinstance(one.table, pa.Table) else 0
        if group and rows + more > BATCH_ROWS:
            yield group
            group, rows = [], 0
        group.append(one)
        rows += more
    if group:
        yield group
