"""The parent's side of the measuring child: send it cells, watch it, kill it, start another.

A cell that runs over its limit is killed with its child and becomes a row "timeout"; time in the
queue does not count, nor does time in which the whole node stood still (agent/awake.py). A cell
under which a child dies is tried again with a new child; the second death is a row "crashed". An
outcome marked fatal is a row already; it only needs a new child. Where several cells were under
way, any of them may be the cause: each is then measured alone, and only what happens there counts.
Knows nothing of Ray.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from multiprocessing.connection import Connection
from time import monotonic

from agent.awake import AwakeTime
from agent.child_process import PROGRAM, ChildDied, ChildProcess
from agent.messages import Fault, Message, Outcome, Ready, Request, Restart, Started
from agent.spec import AgentSpec
from gemmcast.cell import Cell
from gemmcast.device import Device
from gemmcast.rows import Row, failed

log = logging.getLogger(__name__)

TICK_S = 0.2
"""A caller that waits for a long cell gets None this often."""
MAX_DEATHS = 2
"""Deaths of a child under one cell before the cell is a row "crashed"."""
MAX_CRASHED_IN_A_ROW = 4
"""Crashed cells in a row before the cause must be the node."""
EXIT_GRACE_S = 1.0
"""A child that closed its pipe gets this long to end by itself."""


class Lease:
    """The cells of one call that have no row yet."""

    def __init__(self, cells: Sequence[Cell]) -> None:
        self.todo = list(cells)
        self.under_way: list[Cell] = []
        self.suspects: list[Cell] = []
        """Cells that were under way together when a child ended: each is measured alone."""
        self.deaths = Counter[str]()

    def next_cells(self) -> list[Cell]:
        """What the child measures next: one suspect, or everything that is left."""
        self.under_way = []
        return self.suspects[:1] or self.todo

    def start(self, cell_id: str) -> None:
        """The cell is under way."""
        cell = next(cell for cell in self.todo if cell.cell_id == cell_id)
        self.under_way.append(cell)

    def remove(self, cell_id: str) -> None:
        """The cell has its row. One occurrence is removed: a cell may be listed twice."""
        for cells in (self.todo, self.under_way, self.suspects):
            for cell in cells:
                if cell.cell_id == cell_id:
                    cells.remove(cell)
                    break

    def oldest(self) -> Cell:
        """The cell that began first of those under way."""
        candidates = self.under_way or self.suspects or self.todo
        return candidates[0]

    def culprit(self) -> Cell | None:
        """The one cell that can have ended the child; None where several become suspects."""
        if len(self.under_way) > 1:
            self.suspects = list(self.under_way)
            count = len(self.suspects)
            log.warning("the measuring process ended under %d cells; each is tried alone", count)
            return None
        return self.oldest()


class ChildSupervisor:
    """Owns one measuring child.

    Args:
        program: the command that starts the child, without its arguments.
        now_s: the clock that limits are checked by; tests pass a made-up one.

    Raises:
        ChildDied: the child cannot start.
    """

    def __init__(
        self,
        spec: AgentSpec,
        program: Sequence[str] = PROGRAM,
        now_s: Callable[[], float] = monotonic,
    ) -> None:
        self._spec = spec
        self._timeout_s = spec.procedure.timeout_s
        self._ran = AwakeTime(now_s)
        self._child = ChildProcess(spec, program)
        self._crashed_in_a_row = 0
        self.device = self._child.start()

    @property
    def pid(self) -> int | None:
        """Process id of the running child."""
        return self._child.pid

    def stop(self) -> None:
        """Kill the child."""
        self._child.stop()

    def be_ready(self) -> Device:
        """Start the child if none is running.

        Raises:
            ChildDied: it cannot start.
        """
        if self._child.pipe is None:
            self.device = self._child.start()
        return self.device

    def measure(self, cells: Sequence[Cell]) -> Iterator[Row | None]:
        """Yield the row of each cell as it is done, and None now and then during a long one."""
        lease = Lease(cells)
        try:
            while lease.todo:
                self.be_ready()
                try:
                    yield from self._request(lease)
                except (EOFError, OSError):
                    status = self._child.stop(EXIT_GRACE_S)
                    row = self._after_death(lease, status)
                    if row is not None:
                        yield row
        finally:
            if lease.todo:
                # The caller left early. Rows still to come would look like the next call's.
                self.stop()

    def _request(self, lease: Lease) -> Iterator[Row | None]:
        """Send cells to the child and yield their rows."""
        pipe = self._child.pipe
        assert pipe is not None
        cells = lease.next_cells()
        depth = 1 if lease.suspects else self._spec.depth
        pipe.send(Request(cells=cells, depth=depth))
        for row in self._listen(pipe, lease, len(cells)):
            if row is not None:
                self._crashed_in_a_row = 0
            yield row

    def _listen(self, pipe: Connection, lease: Lease, expected: int) -> Iterator[Row | None]:
        self._ran.restart()
        while expected:
            if not pipe.poll(TICK_S):
                if self._ran.look() > self._timeout_s:
                    reason = f"ran longer than {self._timeout_s:g} s and was killed"
                    yield from self._end_child(lease, "timeout", reason)
                    return
                yield None
                continue
            message: Message = pipe.recv()
            self._ran.restart()
            match message:
                case Started(cell_id):
                    lease.start(cell_id)
                case Fault(reason):
                    log.warning("the device failed: %s", reason)
                    yield from self._end_child(lease, "cuda_error", reason)
                    return
                case Restart():
                    self.stop()
                    return
                case Outcome(row, fatal):
                    expected -= 1
                    lease.remove(str(row["cell_id"]))
                    if fatal:
                        self.stop()
                    yield row
                    if fatal:
                        return
                case Ready():
                    raise AssertionError("a child says only once that it is ready")

    def _end_child(self, lease: Lease, status: str, reason: str) -> Iterator[Row]:
        """Kill the child; yield a row where one cell alone can be the cause.

        A child that can't be killed is under the cell that began first. No other agent should try
        that one.
        """
        self.stop()
        culprit = lease.oldest() if self._child.is_stuck else lease.culprit()
        if culprit is None:
            return
        lease.remove(culprit.cell_id)
        yield self._failed(culprit, status, reason)

    def _after_death(self, lease: Lease, status: int | None) -> Row | None:
        """A row "crashed" where the child has died too often under one cell.

        Raises:
            ChildDied: too many cells in a row have crashed.
        """
        culprit = lease.culprit()
        if culprit is None:
            return None
        lease.deaths[culprit.cell_id] += 1
        log.warning("the measuring process died (%s) under %s", status, culprit.cell_id)
        if lease.deaths[culprit.cell_id] < MAX_DEATHS:
            return None
        output = self._child.last_output()
        reason = f"the measuring process died with status {status}, {MAX_DEATHS} times: {output}"
        self._count_crash(reason)
        lease.remove(culprit.cell_id)
        return self._failed(culprit, "crashed", reason)

    def _count_crash(self, reason: str) -> None:
        self._crashed_in_a_row += 1
        count = self._crashed_in_a_row
        if count > MAX_CRASHED_IN_A_ROW:
            agent = self._spec.agent
            raise ChildDied(f"{count} cells in a row crashed on {agent}, the last one: {reason}")

    def _failed(self, cell: Cell, status: str, reason: str) -> Row:
        return failed(cell, self.device, self._spec.agent, status, reason)
