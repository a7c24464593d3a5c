"""Which agent measures which cells: leases of agents, and what is tried again.

A lease is a number of cells that takes an agent some seconds. A cell under which an agent died is a
suspect: it is leased after all others, alone, and while no other suspect is, so that the third
death shows which cell it is. An agent whose device others use waits, and then gets one cell at a
time until the device is free (sharing.py). Cells that a second board should measure are leased as
soon as they fill a lease. Holds no samples and knows nothing of the store.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field

import pyarrow as pa

from coordinator.fleet.cell_queue import CellQueue, take_cells
from coordinator.fleet.deaths import RETURN_S, Deaths
from coordinator.fleet.due import Due
from coordinator.fleet.interface import Ended, Ready
from coordinator.fleet.sharing import Sharing
from coordinator.samples.answers import CONTENDED
from gemmcast.cell import Cell
from gemmcast.device import Device

log = logging.getLogger(__name__)

CELLS_PER_LEASE = {"cpu": (1, 32), "cuda": (16, 256)}
"""Fewest and most, by kind of device. A GPU's agent works on several cells at once, and has too few
at the end of a lease."""
FEWEST_CONTENDED = {"cpu": 8, "cuda": 1}
"""Contended rows in succession from which on an agent waits. On a CPU one cell may be interrupted
although its host is free."""
LEASES_PER_AGENT = 2
"""One that runs and one that waits, so that an agent is never idle between two."""
MAX_DEATHS = 3
"""Deaths of agents under one cell, before it becomes a row "agent_lost"."""
MAX_FAILURES = 3
"""Pairs of leases that an agent loses without one sample, before it gets no more."""


@dataclass(slots=True)
class AgentState:
    """An agent as the scheduler sees it."""

    device: Device
    shares_our_cpu: bool
    """Whether it measures the CPU that also trains."""
    sharing: Sharing
    """The other processes on its device."""
    seen_s: float
    """When it was last seen to take leases."""
    leases: dict[int, list[Cell]] = field(default_factory=dict)
    waiting_at_death: set[int] = field(default_factory=set)
    """Leases that waited behind the one under which the agent died; their cells are innocent."""
    failures: int = 0
    """Lost leases since the last sample."""

    @property
    def has_failed(self) -> bool:
        """Whether the agent gets no more leases."""
        return self.failures >= MAX_FAILURES * LEASES_PER_AGENT

    @property
    def is_waited_for(self) -> bool:
        """Whether its device may be free soon: cells that were set aside are tried there."""
        return self.sharing.is_shared and not self.sharing.is_given_up

    @property
    def is_full(self) -> bool:
        """Whether it has as many leases as it may have."""
        return len(self.leases) >= (1 if self.sharing.is_shared else LEASES_PER_AGENT)


@dataclass(frozen=True, slots=True)
class LostCell:
    """A cell under which MAX_DEATHS agents died."""

    cell: Cell
    device: Device
    agent: str
    """The last of them."""
    reason: str


class Leases:
    """The cells that are due, in queues or with agents.

    Args:
        now_s: a clock that only grows.
        due: what the store says of cells.
    """

    def __init__(self, now_s: Callable[[], float], due: Due) -> None:
        self._now_s = now_s
        self._due = due
        self.agents: dict[str, AgentState] = {}
        self._queues: dict[str, CellQueue] = {}
        self._deaths = Deaths(now_s)
        self._last_lease = 0

    def join(self, ready: Ready) -> None:
        """An agent has started, or is back after its death."""
        if ready.agent in self.agents:
            self._deaths.came_back(ready.agent)
            return
        self.agents[ready.agent] = AgentState(
            device=ready.device,
            shares_our_cpu=ready.local and ready.device.kind == "cpu",
            sharing=Sharing(self._now_s, FEWEST_CONTENDED[ready.device.kind]),
            seen_s=self._now_s(),
        )

    def note_answering(self, names: Collection[str]) -> None:
        """These agents take leases now."""
        for name in names:
            if name in self.agents:
                self.agents[name].seen_s = self._now_s()

    def has_queue(self, device_key: str) -> bool:
        """Whether the cells of a device were added before."""
        return device_key in self._queues

    def add_queue(self, device_key: str, cells: Sequence[Cell], drawn: Sequence[Cell] = ()) -> None:
        """Cells that an agent with this device name or UUID can measure.

        Args:
            cells: those without an answer.
            drawn: those that two boards measure, with or without an answer.
        """
        self._queues[device_key] = CellQueue(device_key, cells, drawn, self._due)

    def add_cells(self, device_key: str, cells: Sequence[Cell]) -> None:
        """More cells without an answer, behind those that are there."""
        self._queues[device_key].first.extend(cells)

    def lacking(self, device_key: str) -> int:
        """How many cells would fill the queue of a device for a while; 0: it has enough."""
        queue = self._queues[device_key]
        agents = self._agents_of(queue)
        if not agents:
            return 0
        _, most = CELLS_PER_LEASE[agents[0].device.kind]
        full = LEASES_PER_AGENT * most * len(agents)
        return 0 if len(queue.first) > full // 2 else full - len(queue.first)

    def next_lease(self, name: str) -> tuple[int, list[Cell]] | None:
        """A new lease for an agent, if it may have one and there are cells for its device."""
        agent = self.agents[name]
        if agent.is_full or agent.has_failed or agent.sharing.is_resting:
            return None
        cells = self._next_cells(agent)
        if not cells:
            return None
        self._last_lease += 1
        agent.leases[self._last_lease] = cells
        return self._last_lease, cells

    def end(self, ended: Ended) -> None:
        """Take a lease back; its cells that are still due return to their queue."""
        agent = self.agents[ended.agent]
        cells = agent.leases.pop(ended.lease, [])
        left = [cell for cell in cells if self._due.is_due(cell, agent.device.uuid)]
        if ended.error is None:
            self._note_sharing(ended.agent, agent, len(cells))
        elif left:
            agent.failures += 1
        if ended.error is not None and ended.is_cells_doing:
            self._note_death(agent, ended, left)
        self._return(left)

    def lost_cells(self) -> list[LostCell]:
        """Take out the cells that are given up, because too many agents died under them."""
        lost = []
        for queue in self._queues.values():
            for cell in list(queue.suspects):
                deaths = self._deaths.counted(cell.cell_id)
                if len(deaths) < MAX_DEATHS or not self._deaths.is_settled(cell.cell_id):
                    continue
                last = deaths[-1]
                device = self.agents[last.agent].device
                reason = f"{MAX_DEATHS} agents died under it: {last.reason}"
                lost.append(LostCell(cell, device, last.agent, reason))
                queue.suspects.remove(cell)
        return lost

    def note_rows(self, name: str, rows: pa.Table) -> None:
        """An agent has sent rows: count the tries of contended cells, and watch its device."""
        if name not in self.agents:
            return
        agent = self.agents[name]
        queue = self._queue_of(agent.device)
        statuses = rows["status"].to_pylist()
        for cell_id, status in zip(rows["cell_id"].to_pylist(), statuses, strict=True):
            if status == CONTENDED:
                queue.note_contended(cell_id)
        if agent.sharing.saw(statuses, rows["reason"].to_pylist()):
            log.info("agent %s: its device is free again", name)
            queue.try_again()

    def waiting(self) -> dict[str, str]:
        """Agent that waits for other processes to leave its device -> what it says of them."""
        waiting = {}
        for name, agent in self.agents.items():
            if agent.sharing.is_shared:
                waiting[name] = agent.sharing.reason
        return waiting

    def second_due(self) -> int:
        """How many cells wait for a second board."""
        return sum(queue.second_due() for queue in self._queues.values())

    def is_finished(self) -> bool:
        """Whether no cell is with an agent, and none is left that one may still measure."""
        if any(agent.leases for agent in self.agents.values()):
            return False
        return not any(map(self._is_open, self._queues.values()))

    def all_failed(self) -> bool:
        """Whether no agent gets leases any more."""
        return all(agent.has_failed for agent in self.agents.values())

    def _is_open(self, queue: CellQueue) -> bool:
        """Whether an agent may still measure a cell of that queue."""
        agents = [agent for agent in self._agents_of(queue) if not agent.has_failed]
        hopeful = [agent for agent in agents if not agent.sharing.is_given_up]
        if queue.has_first() and (hopeful or not agents):
            return True
        if queue.set_aside and any(agent.is_waited_for for agent in agents):
            return True
        boards = [agent.device.uuid for agent in agents if self._takes_seconds(agent)]
        return any(map(queue.seconds, boards))

    def _takes_seconds(self, agent: AgentState) -> bool:
        """Whether a run waits for it to measure cells after another board: only if it is free."""
        is_here = self._now_s() - agent.seen_s <= RETURN_S
        return is_here and not agent.sharing.is_shared

    def _next_cells(self, agent: AgentState) -> list[Cell]:
        fewest, most = CELLS_PER_LEASE[agent.device.kind]
        if agent.sharing.is_shared:
            # To see whether the device is free.
            fewest = most = 1
        queue = self._queue_of(agent.device)
        if agent.is_waited_for and not queue.first:
            queue.bring_back()
        cells = queue.first
        seconds = self._free_seconds(queue, agent.device.uuid)
        if len(seconds) >= fewest or not cells:
            cells = seconds
        if cells:
            share = len(cells) // (len(self._agents_of(queue)) * LEASES_PER_AGENT)
            return take_cells(cells, min(most, max(fewest, share)))
        for suspect in queue.suspects:
            if self._may_be_tried(suspect, agent.device.uuid):
                queue.suspects.remove(suspect)
                return [suspect]
        return []

    def _free_seconds(self, queue: CellQueue, board: str) -> deque[Cell]:
        """Cells that this board should measure after another one, and that no agent has."""
        seconds = queue.seconds(board)
        if not seconds:
            return deque()
        leased = {cell.cell_id for cells in self._all_leases() for cell in cells}
        suspects = {cell.cell_id for cell in queue.suspects}
        return deque(cell for cell in seconds if cell.cell_id not in leased | suspects)

    def _may_be_tried(self, suspect: Cell, board: str) -> bool:
        """Whether a death under it would be its own doing, and is needed to know."""
        if not self._due.is_due(suspect, board):
            return False
        if not self._deaths.is_quiet() or self._is_suspect_leased():
            return False
        cell_id = suspect.cell_id
        is_enough = len(self._deaths.under(cell_id)) >= MAX_DEATHS
        return not is_enough or self._deaths.is_settled(cell_id)

    def _is_suspect_leased(self) -> bool:
        return any(self._is_suspect(cells[0]) for cells in self._all_leases())

    def _is_suspect(self, cell: Cell) -> bool:
        return bool(self._deaths.under(cell.cell_id))

    def _all_leases(self) -> Iterator[list[Cell]]:
        for agent in self.agents.values():
            yield from agent.leases.values()

    def _queue_of(self, device: Device) -> CellQueue:
        """That of the device itself, or that of its type."""
        return self._queues.get(device.uuid) or self._queues[device.name]

    def _agents_of(self, queue: CellQueue) -> list[AgentState]:
        agents = self.agents.values()
        return [agent for agent in agents if self._queue_of(agent.device) is queue]

    def _note_sharing(self, name: str, agent: AgentState, cells: int) -> None:
        was_shared = agent.sharing.is_shared
        agent.sharing.lease_ended(cells)
        if agent.sharing.is_shared and not was_shared:
            log.warning("agent %s waits: %s", name, agent.sharing.reason)

    def _note_death(self, agent: AgentState, ended: Ended, left: Sequence[Cell]) -> None:
        """An agent dies once, however many leases it loses: under the first of them."""
        assert ended.error is not None
        has_waited = any(lease < ended.lease for lease in agent.leases)
        if has_waited:
            return
        if ended.lease in agent.waiting_at_death:
            agent.waiting_at_death.discard(ended.lease)
            return
        agent.waiting_at_death |= agent.leases.keys()
        cell_id = left[0].cell_id if left else None
        self._deaths.add(ended.agent, cell_id, ended.error)

    def _return(self, cells: Sequence[Cell]) -> None:
        """Suspects to theirs, the others to their queue."""
        innocent: dict[str, list[Cell]] = {}
        for cell in reversed(cells):
            if self._is_suspect(cell):
                self._queues[cell.device_key].suspects.appendleft(cell)
            else:
                innocent.setdefault(cell.device_key, []).insert(0, cell)
        for device_key, of_device in innocent.items():
            self._queues[device_key].give_back(of_device)
