"""The loop: lease cells to agents, commit what comes back, train when there is enough, push what wins.

It holds no state that the store does not: which cells are done is what the store has committed, so it may be killed at any moment and
started again. One thread; training and publishing happen elsewhere (coordinator/fleet/trainer.py) and are looked at between two polls.

A CPU that trains can't measure: agents of this very host's CPU get no cells while a training waits or runs.
"""

from __future__ import annotations

import logging
from collections import Counter, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from time import monotonic
from typing import Protocol
from uuid import uuid4

import pyarrow as pa
import pyarrow.compute as pc

from coordinator.fleet.cluster import Ended, Event, Fleet, Ready, Samples
from coordinator.plan.cells import plan_cells
from coordinator.plan.schema import Plan
from coordinator.samples.store import Batch, SampleStore
from gemmcast.arrow import to_table
from gemmcast.cell import Cell
from gemmcast.device import Device
from gemmcast.errors import GemmcastError
from gemmcast.rows import failed

log = logging.getLogger(__name__)

POLL_S = 0.2
COMMIT_S = 1.0
# at most so often while samples stream in: a commit is a file, and whoever kills the coordinator has less than this measured again
LEASE_CELLS = {"cpu": (1, 32), "cuda": (16, 256)}
# fewest and most, by kind of device: a GPU's agent works on several cells at once and runs dry at the end of a lease
POWER_CELL = 32
# one that is metered for power takes as long as so many that are not
LEASES_PER_AGENT = 2
# one that runs and one that waits, so that an agent is never idle between two
MAX_CONTENDED = 3
# tries of a cell on devices that somebody else used, before it is a row "contended"
CROWDED_ROWS, CROWDED_REST_S = 8, 30.0
# so many such rows in a row, and an agent gets no lease for so long
MAX_DEATHS = 3
# of agents under one cell, before it is a row "agent_lost"
MAX_FAILURES = 3
# of an agent in a row without one sample, before it gets no more


class Trainer(Protocol):
    """Trains and publishes elsewhere, one at a time."""

    @property
    def busy(self) -> bool: ...

    def start(self, table: pa.Table, store_version: int) -> None: ...

    def finished(self) -> tuple[bytes, str] | None:
        """A model that passed the gate and its version, once."""


@dataclass(slots=True)
class _Agent:
    device: Device
    shares_our_cpu: bool
    leases: dict[int, list[Cell]] = field(default_factory=dict)
    queued_at_death: set[int] = field(default_factory=set)
    # leases that waited behind the one under which it died: their cells are innocent
    contended: int = 0
    # rows "contended" since the last one that was not
    rests_until_s: float = 0.0
    failures: int = 0


@dataclass(slots=True)
class Progress:
    """What a run looks like now; the terminal shows it."""

    cells: int = 0
    done: int = 0
    # committed, in this run or earlier
    committed_now: int = 0
    # in this run
    statuses: Counter[str] = field(default_factory=Counter)
    agents: int = 0
    training: bool = False


class Scheduler:
    """One run of a plan over a store."""

    def __init__(
        self, plan: Plan, store: SampleStore, fleet: Fleet, trainer: Trainer | None, *, cells: Sequence[Cell] | None = None, trained_rows: int = 0,
        now_s: Callable[[], float] = monotonic,
    ) -> None:  # fmt: skip
        self._plan, self._store, self._fleet, self._trainer = plan, store, fleet, trainer
        self._only = cells
        # a given list in place of the plan's own cells
        self._trained_rows = trained_rows
        # with status ok, that the newest version was made from
        self._agents: dict[str, _Agent] = {}
        self._queues: dict[str, deque[Cell]] = {}
        # device name or UUID -> cells not leased
        self._life = uuid4().hex[:12]
        self._numbers = Counter[str]()
        self._deaths = Counter[str]()
        self._contended = Counter[str]()
        # tries by cell
        self._last_error = ""
        self._now_s = now_s
        self._uncommitted: list[Batch] = []
        self._committed_s = now_s()
        self._lease = 0
        self._trained_at = 0
        self.progress = Progress()

    def run(self, *, stop: Callable[[], bool], show: Callable[[Progress], None] = lambda _: None) -> bool:
        """Until every cell is committed or `stop()`; whether all are.

        Raises:
            GemmcastError: every agent has failed, and none is starting.
        """
        self._take(self._fleet.known())
        try:
            while not stop():
                self._take(self._fleet.poll(POLL_S))
                self._take_model()
                self._start_training(final=False)
                show(self.progress)
                if self._agents and not self._fleet.starting():
                    if self._finished():
                        return True
                    if all(map(self._has_failed, self._agents.values())):
                        raise GemmcastError(f"every agent has failed, the last with: {self._last_error}")
                self._hand_out()
            return False
        finally:
            self._commit()

    def train_once_more(self, *, stop: Callable[[], bool], show: Callable[[Progress], None] = lambda _: None) -> None:
        """After the last cell: wait for a training that runs, then train on everything."""
        if self._trainer is None or not self._plan.train.at_end:
            return
        started = False
        while not stop():
            self._take_model()
            if not self._trainer.busy:
                if started or not self._start_training(final=True):
                    return
                started = True
            show(self.progress)
            self._fleet.poll(POLL_S)

    # what came

    def _take(self, events: Sequence[Event]) -> None:
        for event in events:
            if isinstance(event, Samples):
                self._uncommitted.append(self._batch(event.agent, self._worth_keeping(event.agent, event.table)))
        # the end of a lease is looked at when its last samples are committed
        if any(isinstance(event, Ended) for event in events) or self._now_s() - self._committed_s >= COMMIT_S:
            self._commit()
        for event in events:
            if isinstance(event, Ready):
                self._join(event)
            elif isinstance(event, Ended):
                self._end(event)

    def _commit(self) -> None:
        batches, self._uncommitted, self._committed_s = self._uncommitted, [], self._now_s()
        if not batches:
            return
        rows = self._store.append(batches)
        for batch in batches:
            if batch.sender.partition("@")[0] in self._agents:
                self._agents[batch.sender.partition("@")[0]].failures = 0
        self.progress.statuses.update(rows["status"].to_pylist())
        self.progress.committed_now += len(rows)
        self.progress.done += len(rows)

    def _worth_keeping(self, name: str, table: pa.Table) -> pa.Table:
        """Without rows "contended" that another try may better: their cells go back to the queue when the lease ends."""
        agent, keep = self._agents.get(name), []
        for cell_id, status in zip(table["cell_id"].to_pylist(), table["status"].to_pylist(), strict=True):
            contended = status == "contended"
            self._contended[cell_id] += contended
            keep.append(not contended or self._contended[cell_id] >= MAX_CONTENDED)
            if agent is not None:
                agent.contended = agent.contended + 1 if contended else 0
        if agent is not None and agent.contended >= CROWDED_ROWS:
            log.warning("agent %s shares its device with somebody; it rests for %g s", name, CROWDED_REST_S)
            agent.contended, agent.rests_until_s = 0, self._now_s() + CROWDED_REST_S
        return table.filter(pa.array(keep, pa.bool_()))

    def _batch(self, agent: str, table: pa.Table) -> Batch:
        sender = f"{agent}@{self._life}"
        self._numbers[sender] += 1
        return Batch(sender, self._numbers[sender], table)

    def _join(self, event: Ready) -> None:
        device = event.device
        device_key = device.uuid if self._plan.devices.spread == "each" else device.name
        if device_key not in self._queues:
            cells = plan_cells(self._plan, device).cells if self._only is None else [cell for cell in self._only if cell.device_key == device_key]
            todo = [cell for cell in cells if cell.cell_id not in self._store.committed]
            self._queues[device_key] = deque(todo)
            self.progress.cells += len(cells)
            self.progress.done += len(cells) - len(todo)
        self._agents[event.agent] = _Agent(device=device, shares_our_cpu=event.local and device.kind == "cpu")
        self.progress.agents = len(self._agents)
        log.info("agent %s measures %s (%s)", event.agent, device.name, device.uuid)

    def _end(self, event: Ended) -> None:
        agent = self._agents.get(event.agent)
        if agent is None:
            self._count_start_failure(event)
            return
        left = [cell for cell in agent.leases.pop(event.lease, []) if cell.cell_id not in self._store.committed]
        if event.error is None or not left:
            self._give_back(left)
            return
        agent.failures += 1
        self._last_error = event.error
        if event.lease in agent.queued_at_death:
            agent.queued_at_death.discard(event.lease)
        else:
            agent.queued_at_death |= {lease for lease in agent.leases if lease > event.lease}
            self._deaths[left[0].cell_id] += 1
            if self._deaths[left[0].cell_id] >= MAX_DEATHS:
                cell = left.pop(0)
                row = failed(cell, agent.device, event.agent, "agent_lost", f"{MAX_DEATHS} agents died under it: {event.error}")
                self._uncommitted.append(self._batch(event.agent, to_table([row])))
                self._commit()
        self._give_back(left)

    def _count_start_failure(self, event: Ended) -> None:
        self._deaths[event.agent] += 1
        if self._deaths[event.agent] >= MAX_FAILURES and not self._agents:
            raise GemmcastError(f"agent {event.agent} can't start: {event.error}")

    @staticmethod
    def _has_failed(agent: _Agent) -> bool:
        return agent.failures >= MAX_FAILURES * LEASES_PER_AGENT

    def _give_back(self, cells: Sequence[Cell]) -> None:
        """To the front; what was contended to the end, for another agent or a quieter time."""
        for cell in reversed(cells):
            if not self._contended[cell.cell_id]:
                self._queues[cell.device_key].appendleft(cell)
        for cell in cells:
            if self._contended[cell.cell_id]:
                self._queues[cell.device_key].append(cell)

    # what goes out

    def _hand_out(self) -> None:
        held = self._training_due() or (self._trainer is not None and self._trainer.busy)
        for name, agent in self._agents.items():
            if (held and agent.shares_our_cpu) or self._has_failed(agent) or agent.rests_until_s > self._now_s():
                continue
            while len(agent.leases) < LEASES_PER_AGENT and (cells := self._next_cells(agent)):
                self._lease += 1
                agent.leases[self._lease] = cells
                self._fleet.lease(name, self._lease, cells)

    def _next_cells(self, agent: _Agent) -> list[Cell]:
        for target in (agent.device.uuid, agent.device.name):
            queue = self._queues.get(target)
            if queue:
                alike = sum(target in (other.device.uuid, other.device.name) for other in self._agents.values())
                if self._deaths[queue[0].cell_id]:
                    return [queue.popleft()]  # an agent died under it or under one close behind it: alone, it shows which
                fewest, most = LEASE_CELLS[agent.device.kind]
                return _take_worth(queue, min(most, max(fewest, len(queue) // (alike * LEASES_PER_AGENT))))
        return []

    def _finished(self) -> bool:
        return not any(self._queues.values()) and not any(agent.leases for agent in self._agents.values())

    # models

    def _training_due(self) -> bool:
        ok = self.progress.statuses["ok"]
        return self._trainer is not None and ok - self._trained_at >= self._plan.train.every and ok >= self._plan.train.min_rows

    def _start_training(self, *, final: bool) -> bool:
        if self._trainer is None or self._trainer.busy or not (final or self._training_due()):
            return False
        if any(agent.leases for agent in self._agents.values() if agent.shares_our_cpu):
            return False
        table = self._store.read()
        rows = pc.sum(pc.equal(table["status"], "ok")).as_py() or 0
        self._trained_at = self.progress.statuses["ok"]
        if rows < self._plan.train.min_rows or rows == self._trained_rows:
            return False
        self._trained_rows = rows
        self._trainer.start(table, self._store.version)
        return True

    def _take_model(self) -> None:
        if self._trainer is None:
            return
        self.progress.training = self._trainer.busy
        if found := self._trainer.finished():
            self._fleet.push(*found)


def _take_worth(queue: deque[Cell], cells: int) -> list[Cell]:
    """From the front, as long as that many cells without power take; one at least."""
    taken: list[Cell] = []
    while queue and (cells >= 1 or not taken):
        cells -= POWER_CELL if queue[0].power else 1
        taken.append(queue.popleft())
    return taken
