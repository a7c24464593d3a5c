"""Which agent measures which cells: queues by device, leases of agents, and what is tried again.

A lease is a number of cells that takes an agent some seconds. A cell under which an agent died is a
suspect: it is leased after all others, alone, and while no other suspect is, so that the third
death shows which cell it is. Contended cells wait at the end of the queue, and an agent whose
device others use rests. Holds no samples and knows nothing of the store.
"""

from __future__ import annotations

import logging
from collections import Counter, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import pyarrow as pa

from coordinator.fleet.deaths import Deaths
from coordinator.fleet.interface import Ended, Ready
from gemmcast.cell import Cell
from gemmcast.device import Device

log = logging.getLogger(__name__)

CELLS_PER_LEASE = {"cpu": (1, 32), "cuda": (16, 256)}
"""Fewest and most, by kind of device. A GPU's agent works on several cells at once, and has too few
at the end of a lease."""
POWER_CELL = 32
"""A cell with power takes as long as this many cells without."""
LEASES_PER_AGENT = 2
"""One that runs and one that waits, so that an agent is never idle between two."""
MAX_CONTENDED = 3
"""Tries of a cell on devices that others use, before it becomes a row "contended"."""
CONTENDED_ROWS = 8
"""After this many contended rows in succession an agent rests."""
REST_S = 30.0
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
    leases: dict[int, list[Cell]] = field(default_factory=dict)
    waiting_at_death: set[int] = field(default_factory=set)
    """Leases that waited behind the one under which the agent died; their cells are innocent."""
    contended_rows: int = 0
    """Contended rows since the last row that was not."""
    rests_until_s: float = 0.0
    failures: int = 0
    """Lost leases since the last sample."""

    @property
    def has_failed(self) -> bool:
        """Whether the agent gets no more leases."""
        return self.failures >= MAX_FAILURES * LEASES_PER_AGENT


@dataclass(frozen=True, slots=True)
class LostCell:
    """A cell under which MAX_DEATHS agents died."""

    cell: Cell
    device: Device
    agent: str
    """The last of them."""
    reason: str


class Leases:
    """The cells that are not committed, in queues or with agents."""

    def __init__(self, now_s: Callable[[], float]) -> None:
        self._now_s = now_s
        self.agents: dict[str, AgentState] = {}
        self._queues: dict[str, deque[Cell]] = {}
        self._suspects: dict[str, deque[Cell]] = {}
        self._deaths = Deaths(now_s)
        self._contended = Counter[str]()
        self._last_lease = 0

    def join(self, ready: Ready) -> None:
        """An agent has started, or is back after its death."""
        if ready.agent in self.agents:
            self._deaths.came_back(ready.agent)
            return
        shares_our_cpu = ready.local and ready.device.kind == "cpu"
        self.agents[ready.agent] = AgentState(ready.device, shares_our_cpu)

    def has_queue(self, device_key: str) -> bool:
        """Whether the cells of a device were added before."""
        return device_key in self._queues

    def add_queue(self, device_key: str, cells: Sequence[Cell]) -> None:
        """Cells that an agent with this device name or UUID can measure."""
        self._queues[device_key] = deque(cells)
        self._suspects[device_key] = deque()

    def next_lease(self, name: str) -> tuple[int, list[Cell]] | None:
        """A new lease for an agent, if it may have one and there are cells for its device."""
        agent = self.agents[name]
        is_full = len(agent.leases) >= LEASES_PER_AGENT
        if is_full or agent.has_failed or agent.rests_until_s > self._now_s():
            return None
        cells = self._next_cells(agent.device)
        if not cells:
            return None
        self._last_lease += 1
        agent.leases[self._last_lease] = cells
        return self._last_lease, cells

    def end(self, ended: Ended, committed: set[str]) -> None:
        """Take a lease back; its cells that are not committed return to their queue."""
        agent = self.agents[ended.agent]
        cells = agent.leases.pop(ended.lease, [])
        left = [cell for cell in cells if cell.cell_id not in committed]
        if ended.error is not None:
            if left:
                agent.failures += 1
            if ended.is_cells_doing:
                self._note_death(agent, ended, left)
        self._return(left)

    def lost_cells(self) -> list[LostCell]:
        """Take out the cells that are given up, because too many agents died under them."""
        lost = []
        for suspects in self._suspects.values():
            for cell in list(suspects):
                deaths = self._deaths.counted(cell.cell_id)
                if len(deaths) < MAX_DEATHS or not self._deaths.is_settled(cell.cell_id):
                    continue
                last = deaths[-1]
                device = self.agents[last.agent].device
                reason = f"{MAX_DEATHS} agents died under it: {last.reason}"
                lost.append(LostCell(cell, device, last.agent, reason))
                suspects.remove(cell)
        return lost

    def without_retries(self, name: str, table: pa.Table) -> pa.Table:
        """The rows to commit: all but contended ones whose cells may be tried again."""
        keep = []
        for cell_id, status in zip(
            table["cell_id"].to_pylist(), table["status"].to_pylist(), strict=True
        ):
            is_contended = status == "contended"
            if is_contended:
                self._contended[cell_id] += 1
            keep.append(not is_contended or self._contended[cell_id] >= MAX_CONTENDED)
            if name in self.agents:
                self._count_contended(name, is_contended)
        return table.filter(pa.array(keep, pa.bool_()))

    def is_finished(self) -> bool:
        """Whether no cell is in a queue or with an agent."""
        is_queued = any(self._queues.values()) or any(self._suspects.values())
        is_leased = any(agent.leases for agent in self.agents.values())
        return not is_queued and not is_leased

    def all_failed(self) -> bool:
        """Whether no agent gets leases any more."""
        return all(agent.has_failed for agent in self.agents.values())

    def _next_cells(self, device: Device) -> list[Cell]:
        for key in (device.uuid, device.name):
            queue = self._queues.get(key)
            if queue:
                fewest, most = CELLS_PER_LEASE[device.kind]
                fair_share = len(queue) // (self._agents_of(key) * LEASES_PER_AGENT)
                return take_cells(queue, min(most, max(fewest, fair_share)))
            suspects = self._suspects.get(key)
            if suspects and self._may_be_tried(suspects[0]):
                return [suspects.popleft()]
        return []

    def _may_be_tried(self, suspect: Cell) -> bool:
        """Whether a death under it would be its own doing, and is needed to know."""
        if not self._deaths.is_quiet() or self._is_suspect_leased():
            return False
        cell_id = suspect.cell_id
        is_enough = len(self._deaths.under(cell_id)) >= MAX_DEATHS
        return not is_enough or self._deaths.is_settled(cell_id)

    def _is_suspect_leased(self) -> bool:
        leases = [cells for agent in self.agents.values() for cells in agent.leases.values()]
        return any(self._is_suspect(cells[0]) for cells in leases)

    def _is_suspect(self, cell: Cell) -> bool:
        return bool(self._deaths.under(cell.cell_id))

    def _agents_of(self, device_key: str) -> int:
        devices = [agent.device for agent in self.agents.values()]
        return sum(device_key in (device.uuid, device.name) for device in devices)

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

    def _count_contended(self, name: str, is_contended: bool) -> None:
        agent = self.agents[name]
        agent.contended_rows = agent.contended_rows + 1 if is_contended else 0
        if agent.contended_rows >= CONTENDED_ROWS:
            log.warning("agent %s: other processes use its device; it rests %g s", name, REST_S)
            agent.contended_rows = 0
            agent.rests_until_s = self._now_s() + REST_S

    def _return(self, cells: Sequence[Cell]) -> None:
        """To the front of the queue; contended cells to its end, for another agent or later."""
        for cell in reversed(cells):
            if self._is_suspect(cell):
                self._suspects[cell.device_key].appendleft(cell)
            elif not self._contended[cell.cell_id]:
                self._queues[cell.device_key].appendleft(cell)
        for cell in cells:
            if self._contended[cell.cell_id] and not self._is_suspect(cell):
                self._queues[cell.device_key].append(cell)


def take_cells(queue: deque[Cell], cells: int) -> list[Cell]:
    """Remove from the front what takes as long as `cells` without power; one cell at least."""
    taken: list[Cell] = []
    budget = cells
    while queue and (budget >= 1 or not taken):
        budget -= POWER_CELL if queue[0].power else 1
        taken.append(queue.popleft())
    return taken
