"""A fleet and a trainer that live in this process, on a made-up clock.

Each poll takes the time that it may take at most, and then every agent has measured `batch` cells.
An agent that dies loses this batch and all its leases, and is back at once, unless its node dies.
A model is taken at the next poll.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from coordinator.fleet.delivery import Delivery
from coordinator.fleet.interface import (
    Champions,
    Ended,
    Event,
    Fleet,
    Left,
    Ready,
    Samples,
    TableChampions,
)
from coordinator.fleet.scheduler import Scheduler
from coordinator.fleet.tally import Tally
from coordinator.plan.schema import Plan
from coordinator.samples.snapshot import Snapshot
from coordinator.samples.store import SampleStore
from gemmcast.arrow import to_table
from gemmcast.cell import Cell
from gemmcast.device import Device
from gemmcast.modeldir import ShippedModel
from gemmcast.rows import Row
from gemmcast.tabledir import Shipped

Measure = Callable[[Cell, Device], Row]
Dies = Callable[[str, Cell], bool]
"""Whether an agent dies when it comes to a cell."""
MAX_POLLS = 5000
MIDNIGHT = datetime(2026, 11, 30, tzinfo=UTC)
"""Of a Monday, when the clock of a fleet begins."""


def never_dies(_agent: str, _cell: Cell) -> bool:
    return False


@dataclass
class FakeAgent:
    device: Device
    local: bool = False
    joins_at: int = 0
    """The poll at which it is ready."""
    is_ready: bool = False
    leases: dict[int, list[Cell]] = field(default_factory=dict)


class FakeFleet:
    """See the head of this file. Its calls are recorded in public attributes."""

    def __init__(
        self,
        measure: Measure,
        agents: dict[str, FakeAgent],
        *,
        batch: int = 4,
        dies: Dies = never_dies,
    ) -> None:
        self._measure = measure
        self._batch = batch
        self._dies = dies
        self.agents = agents
        self.polls = 0
        self.time_s = 0.0
        self.deaths = Counter[str]()
        self.measured = Counter[str]()
        self.leased: list[tuple[str, list[Cell]]] = []
        self.pushed: list[tuple[ShippedModel, str]] = []
        self.delivery = Delivery(self.now_s)
        self.pushed_tables: list[tuple[Sequence[Shipped], str]] = []
        self.tables_delivery = Delivery(self.now_s, "table set")
        self.silent: set[str] = set()
        """Agents that do not answer a push."""
        self.stopped: set[str] = set()
        """Agents that stand still: they do nothing, and do not answer."""
        self.hanging: set[str] = set()
        """Agents that answer, but whose measuring stands still."""
        self.gone: set[str] = set()
        """Agents whose node has died: they lose every lease at once and are never back."""
        self.is_resting = False

    def now_s(self) -> float:
        return self.time_s

    def today(self) -> datetime:
        return MIDNIGHT + timedelta(seconds=self.time_s)

    def starting(self) -> int:
        return 0

    def faults(self) -> dict[str, str]:
        return {}

    def ready_agents(self) -> list[Ready]:
        return [
            self._ready(name)
            for name, agent in self.agents.items()
            if agent.is_ready and name not in self.stopped
        ]

    def poll(self, timeout_s: float) -> list[Event]:
        self.polls += 1
        self.time_s += timeout_s
        assert self.polls < MAX_POLLS, "the run never ends"
        self._deliver()
        events: list[Event] = []
        for name, agent in self.agents.items():
            if self.is_resting:
                events += self._leave(name, agent)
            elif not agent.is_ready and self.polls > agent.joins_at:
                agent.is_ready = True
                for delivery in (self.delivery, self.tables_delivery):
                    delivery.join(name, name.partition("/")[0])
                events.append(self._ready(name))
            elif name in self.gone:
                events += self._lose_leases(name, agent, "the node died")
            elif agent.leases and name not in self.stopped | self.hanging:
                events += self._work(name, agent)
        return events

    def lease(self, agent: str, lease: int, cells: Sequence[Cell]) -> None:
        assert lease not in self.agents[agent].leases
        assert cells
        self.agents[agent].leases[lease] = list(cells)
        self.leased.append((agent, list(cells)))

    def rest(self, *, now: bool) -> None:
        self.is_resting = now

    def push(self, model: ShippedModel, version: str) -> None:
        self.pushed.append((model, version))
        self.delivery.want(version)

    def push_tables(self, tables: Sequence[Shipped], version: str) -> None:
        self.pushed_tables.append((tables, version))
        self.tables_delivery.want(version)

    def close(self) -> None:
        for agent in self.agents.values():
            agent.leases.clear()

    def cells_leased_to(self, name: str) -> int:
        return sum(len(cells) for agent, cells in self.leased if agent == name)

    def _deliver(self) -> None:
        for delivery in (self.delivery, self.tables_delivery):
            for name in delivery.due():
                delivery.sent(name)
                if name not in self.silent | self.gone:
                    delivery.answered(name, str(delivery.wanted))

    def _ready(self, name: str) -> Ready:
        agent = self.agents[name]
        return Ready(agent=name, device=agent.device, host="paper", local=agent.local)

    def _work(self, name: str, agent: FakeAgent) -> list[Event]:
        lease, cells = next(iter(agent.leases.items()))
        rows: list[Row] = []
        for cell in cells[: self._batch]:
            if self._dies(name, cell):
                self.deaths[cell.cell_id] += 1
                return self._die(name, agent, rows)
            self.measured[cell.cell_id] += 1
            rows.append({**self._measure(cell, agent.device), "agent": name})
        del cells[: self._batch]
        events: list[Event] = [Samples(agent=name, lease=lease, table=to_table(rows))]
        if not cells:
            del agent.leases[lease]
            events.append(Ended(agent=name, lease=lease))
        return events

    def _leave(self, name: str, agent: FakeAgent) -> list[Event]:
        if not agent.is_ready:
            return []
        agent.is_ready = False
        for delivery in (self.delivery, self.tables_delivery):
            delivery.leave(name)
        return [*self._lose_leases(name, agent, "it rests"), Left(agent=name)]

    def _die(self, name: str, agent: FakeAgent, lost: list[Row]) -> list[Event]:
        return [*self._lose_leases(name, agent, "the actor died"), self._ready(name)]

    def _lose_leases(self, name: str, agent: FakeAgent, error: str) -> list[Event]:
        leases = list(agent.leases)
        agent.leases = {}
        return [Ended(agent=name, lease=lease, error=error) for lease in leases]


class FakeTrainer:
    """A training takes `polls` of the fleet; every model passes the gate and is the champion."""

    def __init__(self, fleet: FakeFleet, polls: int = 5) -> None:
        self._fleet = fleet
        self._polls = polls
        self._until = -1
        self._made: tuple[ShippedModel, str] | None = None
        self.started: list[tuple[int, int]] = []
        """(rows, store version) of each training."""
        self.joined: list[Device] = []

    @property
    def busy(self) -> bool:
        return self._fleet.polls < self._until

    def join(self, device: Device) -> None:
        self.joined.append(device)

    def start(self, samples: Snapshot) -> None:
        assert not self.busy
        for agent in self._fleet.agents.values():
            measures_our_cpu = agent.local and agent.device.kind == "cpu"
            assert not (measures_our_cpu and agent.leases)
        self._until = self._fleet.polls + self._polls
        rows = len(samples.read())
        self.started.append((rows, samples.version))
        model = ShippedModel(data=f"model of {rows}".encode())
        self._made = (model, str(len(self.started)))

    def newest(self) -> tuple[ShippedModel, str] | None:
        if self.busy:
            return None
        made, self._made = self._made, None
        return made


def make_scheduler(
    plan: Plan,
    store: SampleStore,
    fleet: FakeFleet,
    trainer: FakeTrainer | None = None,
    *,
    champions: Champions | None = None,
    tables: TableChampions | None = None,
    cells: Sequence[Cell] | None = None,
    trained_rows: int = 0,
    tally: Tally | None = None,
    now_s: Callable[[], float] | None = None,
    today: Callable[[], datetime] | None = None,
) -> Scheduler:
    """A scheduler on the fleet's clock."""
    as_fleet: Fleet = fleet
    return Scheduler(
        plan,
        store,
        as_fleet,
        trainer,
        champions=champions or trainer,
        tables=tables,
        cells=cells,
        trained_rows=trained_rows,
        tally=tally,
        now_s=now_s or fleet.now_s,
        today=today or fleet.today,
    )


def never() -> bool:
    return False


def run_all(*arguments: Any, **options: Any) -> Scheduler:
    """A scheduler of `make_scheduler` after a run in which every cell was committed."""
    scheduler = make_scheduler(*arguments, **options)
    assert scheduler.run(stop=never)
    return scheduler


def rows_by_status(store: SampleStore, cells: Sequence[Cell]) -> dict[str, int]:
    """Rows by status, once every cell is proven to be there once."""
    ids = store.read()["cell_id"].to_pylist()
    assert sorted(ids) == sorted(cell.cell_id for cell in cells)
    return store.counts()
