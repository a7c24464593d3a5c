"""Which agent measures which cells: leases of agents, and what is tried again.

A lease is a number of cells that takes an agent some seconds. A cell under which an agent died is a
suspect: it is leased after all others, alone, and while no other suspect is, so that the third
death shows which cell it is. An agent whose device others use waits, and then gets one cell at a
time until the device is free (sharing.py). Cells that a second board should measure are leased as
soon as they fill a lease. Leases of an agent that falls silent or stands still go back
(agent_state.py); rows that it sends later count all the same. Holds no samples and knows nothing of
the store.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Collection, Iterator, Sequence

import pyarrow as pa

from agent.awake import AwakeTime
from coordinator.fleet.agent_state import LEASES_PER_AGENT, STALL_MARGIN_S, AgentState
from coordinator.fleet.cell_queue import CellQueue, take_cells
from coordinator.fleet.deaths import RETURN_S, Deaths
from coordinator.fleet.due import Due
from coordinator.fleet.events import agent_event
from coordinator.fleet.interface import Ended, Ready
from coordinator.fleet.lost_cell import LostCell
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
MAX_DEATHS = 3
"""Deaths of agents under one cell, before it becomes a row "agent_lost"."""


class Leases:
    """The cells that are due, in queues or with agents.

    Args:
        now_s: a clock that only grows.
        due: what the store says of cells.
        timeout_s: after which an agent gives a cell up.
    """

    def __init__(self, now_s: Callable[[], float], due: Due, timeout_s: float = 60.0) -> None:
        self._now_s = now_s
        # While this process stands still, nobody is late.
        self._awake = AwakeTime(now_s)
        self._due = due
        # One cell may run out of its time before it begins, the next one afterwards.
        self._stall_s = 2 * timeout_s + STALL_MARGIN_S
        self.agents: dict[str, AgentState] = {}
        self._queues: dict[str, CellQueue] = {}
        self._devices: dict[str, Device] = {}
        """Of every agent that ever joined."""
        self._deaths = Deaths(now_s)
        self._last_lease = 0
        self._sharers_of: dict[str, int] = {}
        """Device key -> agents that are likely to measure its cells; counted anew when an agent
        may have changed."""

    def join(self, ready: Ready) -> None:
        """An agent has started, or is back after its death."""
        awake_s = self._awake.look()
        self._sharers_of.clear()
        if ready.agent in self.agents:
            self._deaths.came_back(ready.agent)
            return
        self._devices[ready.agent] = ready.device
        self.agents[ready.agent] = AgentState(
            device=ready.device,
            shares_our_cpu=ready.local and ready.device.kind == "cpu",
            sharing=Sharing(self._now_s, FEWEST_CONTENDED[ready.device.kind]),
            seen_s=awake_s,
            progress_s=awake_s,
        )

    def leave(self, name: str) -> None:
        """An agent is gone for good."""
        self._sharers_of.clear()
        agent = self.agents.pop(name, None)
        if agent is not None:
            self._return_leases(agent)

    def note_answering(self, names: Collection[str]) -> None:
        """These agents take leases now; the leases of the others go back after a while."""
        awake_s = self._awake.look()
        self._sharers_of.clear()
        for name in names:
            if name in self.agents:
                self._note_answer(name, self.agents[name], awake_s)
        for name, agent in self.agents.items():
            if agent.fault:
                continue
            if agent.is_silent(awake_s):
                self._take_back(name, agent, "it does not answer")
            elif agent.stands_still(awake_s, self._stall_s):
                agent.is_stalled = True
                self._take_back(name, agent, f"it has sent no row for {self._stall_s:.0f} s")

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
        awake_s = self._awake.look()
        if not agent.may_measure(awake_s):
            return None
        cells = self._next_cells(agent)
        if not cells:
            return None
        self._last_lease += 1
        if not agent.leases:
            agent.progress_s = awake_s
        agent.leases[self._last_lease] = cells
        return self._last_lease, cells

    def end(self, ended: Ended) -> None:
        """Take a lease back; its cells that are still due return to their queue."""
        agent = self.agents[ended.agent]
        self._sharers_of.clear()
        if ended.error is None:
            self._note_progress(ended.agent, agent)
        cells = self._take_lease(agent, ended.lease)
        left = [cell for cell in cells if self._due.is_due(cell, agent.device.uuid)]
        if ended.error is None:
            self._note_sharing(ended.agent, agent, len(cells))
        elif left:
            self._note_failure(ended.agent, agent, ended.error)
        if ended.error is not None and ended.is_cells_doing and agent.dies_under(ended.lease):
            self._deaths.add(ended.agent, left[0].cell_id if left else None, ended.error)
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
                device = self._devices[last.agent]
                reason = f"{MAX_DEATHS} agents died under it: {last.reason}"
                lost.append(LostCell(cell, device, last.agent, reason))
                queue.suspects.remove(cell)
        return lost

    def note_rows(self, name: str, rows: pa.Table) -> None:
        """An agent has sent rows: count the tries of contended cells, and watch its device."""
        if name not in self.agents:
            return
        agent = self.agents[name]
        agent.note_rows()
        self._note_progress(name, agent)
        queue = self._queue_of(agent.device)
        statuses = rows["status"].to_pylist()
        if CONTENDED in statuses:
            for cell_id, status in zip(rows["cell_id"].to_pylist(), statuses, strict=True):
                if status == CONTENDED:
                    queue.note_contended(cell_id)
        if agent.sharing.saw(statuses, rows["reason"].to_pylist()):
            log.info(
                "agent %s: its device is free again", name, extra=agent_event("agent_free", name)
            )
            queue.try_again()

    def note_answer(self, cell: Cell) -> None:
        """There is a row of a lost cell."""
        self._queues[cell.device_key].release([cell])

    def waiting(self) -> dict[str, str]:
        """Agent that waits for other processes to leave its device -> what it says of them."""
        waiting = {}
        for name, agent in self.agents.items():
            if agent.sharing.is_shared:
                waiting[name] = agent.sharing.reason
        return waiting

    def faults(self) -> dict[str, str]:
        """Agent that gets no leases, or hardly any -> why."""
        problems = {name: agent.problem for name, agent in self.agents.items()}
        return {name: problem for name, problem in problems.items() if problem}

    def second_due(self) -> int:
        """How many cells wait for a second board."""
        return sum(queue.second_due() for queue in self._queues.values())

    def is_finished(self) -> bool:
        """Whether no cell is with an agent, and none is left that one may still measure."""
        if self.is_any_leased():
            return False
        return not any(map(self._is_open, self._queues.values()))

    def is_any_leased(self) -> bool:
        """Whether cells are with an agent."""
        return any(agent.leases for agent in self.agents.values())

    def has_queues(self) -> bool:
        """Whether an agent has ever joined."""
        return bool(self._queues)

    def is_hopeless(self) -> bool:
        """Whether cells are left that no agent is likely to measure now."""
        if any(agent.leases for agent in self.agents.values() if agent.is_of_use):
            return False
        queues = list(filter(self._is_open, self._queues.values()))
        agents = [agent for queue in queues for agent in self._agents_of(queue)]
        return bool(queues) and not any(agent.is_of_use for agent in agents)

    def _is_open(self, queue: CellQueue) -> bool:
        """Whether an agent may still measure a cell of that queue."""
        agents = self._agents_of(queue)
        usable = [agent for agent in agents if agent.is_of_use]
        hopeful = [agent for agent in usable if not agent.sharing.is_given_up]
        if queue.has_first() and (hopeful or not usable):
            return True
        if queue.set_aside and any(agent.is_waited_for for agent in usable):
            return True
        boards = [agent.device.uuid for agent in agents if self._takes_seconds(agent)]
        return any(map(queue.seconds, boards))

    def _takes_seconds(self, agent: AgentState) -> bool:
        """Whether a run waits for it to measure cells after another board: only if it is free."""
        if agent.has_failed or agent.is_stalled or agent.sharing.is_shared:
            return False
        return self._awake.look() - agent.seen_s <= RETURN_S

    def _next_cells(self, agent: AgentState) -> list[Cell]:
        fewest, most = CELLS_PER_LEASE[agent.device.kind]
        if agent.sharing.is_shared:
            # To see whether the device is free.
            fewest = most = 1
        queue = self._queue_of(agent.device)
        if agent.is_waited_for and not queue.first:
            queue.bring_back()
        leases = self._sharers(queue) * LEASES_PER_AGENT

        def share(cells: int) -> int:
            """Of so many cells."""
            return min(most, max(fewest, cells // leases))

        seconds = queue.seconds(agent.device.uuid, share(queue.halfway))
        seconds = [cell for cell in seconds if cell not in queue.suspects]
        if len(seconds) >= fewest or not queue.first:
            cells = take_cells(deque(seconds), most)
            queue.take_seconds(cells)
            return cells or self._next_suspect(queue, agent)
        return take_cells(queue.first, share(len(queue.first)))

    def _next_suspect(self, queue: CellQueue, agent: AgentState) -> list[Cell]:
        """A cell under which an agent has died, if it may be tried now."""
        for suspect in queue.suspects:
            if self._may_be_tried(suspect, agent.device.uuid):
                queue.suspects.remove(suspect)
                queue.take_seconds([suspect])
                return [suspect]
        return []

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

    def _sharers(self, queue: CellQueue) -> int:
        """How many agents are likely to measure the cells of a queue; one at least."""
        key = queue.device_key
        if key not in self._sharers_of:
            usable = sum(agent.is_of_use for agent in self._agents_of(queue))
            self._sharers_of[key] = max(1, usable)
        return self._sharers_of[key]

    def _take_lease(self, agent: AgentState, lease: int) -> list[Cell]:
        """The cells of a lease, which are with that agent no longer."""
        cells = agent.leases.pop(lease, [])
        self._queue_of(agent.device).release(cells)
        return cells

    def _note_answer(self, name: str, agent: AgentState, awake_s: float) -> None:
        silent_s = awake_s - agent.seen_s
        agent.seen_s = awake_s
        if agent.fault and not agent.is_stalled:
            extra = agent_event("agent_back", name)
            log.warning("agent %s answers again, after %.0f s", name, silent_s, extra=extra)
            agent.fault = ""
            agent.progress_s = awake_s

    def _note_progress(self, name: str, agent: AgentState) -> None:
        agent.progress_s = self._awake.look()
        if agent.is_stalled:
            log.warning("agent %s measures again", name, extra=agent_event("agent_back", name))
            agent.fault, agent.is_stalled = "", False

    def _note_failure(self, name: str, agent: AgentState, error: str) -> None:
        had_failed = agent.has_failed
        agent.note_failure(error, self._awake.look())
        if agent.has_failed and not had_failed:
            text = "agent %s lost %d leases in a row and is tried seldom now: %s"
            extra = agent_event("agent_fault", name, error)
            log.warning(text, name, agent.failures, error, extra=extra)

    def _take_back(self, name: str, agent: AgentState, reason: str) -> None:
        """Its cells are for others; rows that it sends later count all the same."""
        agent.fault = reason
        returned = self._return_leases(agent)
        text = "agent %s gets no cells: %s; %d cells are leased again"
        log.warning(text, name, reason, returned, extra=agent_event("agent_fault", name, reason))

    def _return_leases(self, agent: AgentState) -> int:
        """All cells of an agent that are still due; returns how many."""
        returned = 0
        for lease in reversed(list(agent.leases)):
            cells = self._take_lease(agent, lease)
            left = [cell for cell in cells if self._due.is_due(cell, agent.device.uuid)]
            returned += len(left)
            self._return(left)
        return returned

    def _note_sharing(self, name: str, agent: AgentState, cells: int) -> None:
        was_shared = agent.sharing.is_shared
        agent.sharing.lease_ended(cells)
        if agent.sharing.is_shared and not was_shared:
            reason = agent.sharing.reason
            extra = agent_event("agent_waits", name, reason)
            log.warning("agent %s waits: %s", name, reason, extra=extra)

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
