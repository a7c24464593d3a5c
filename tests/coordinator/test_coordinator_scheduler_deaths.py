"""The scheduler over a fake fleet: agents that die, cells that kill, nodes that go away."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from fake_fleet import (
    FakeAgent,
    FakeFleet,
    Measure,
    make_scheduler,
    never,
    rows_by_status,
    run_all,
)

from coordinator.fleet.hope import NO_AGENT_S
from coordinator.fleet.interface import NO_LEASE, Ended, Event, Samples
from coordinator.fleet.leases import MAX_DEATHS
from coordinator.plan.cells import plan_cells
from coordinator.plan.schema import Plan
from coordinator.samples.store import SampleStore
from gemmcast.arrow import to_table
from gemmcast.cell import Cell
from gemmcast.device import Device
from gemmcast.errors import GemmcastError

MakePlan = Callable[..., Plan]
MakeFleet = Callable[..., FakeFleet]


@pytest.mark.parametrize("number", [1, 2])
def test_an_agent_that_dies_in_a_lease_costs_nothing(
    number: int, store: SampleStore, fleet: MakeFleet, make_plan: MakePlan, cpu: Device
) -> None:
    plan = make_plan({"sample": 60})
    cells = plan_cells(plan, cpu).cells
    once = {cells[6].cell_id, cells[25].cell_id}

    def dies(_: str, cell: Cell) -> bool:
        if cell.cell_id in once:
            once.remove(cell.cell_id)
            return True
        return False

    agents = fleet(number, dies=dies)
    run_all(plan, store, agents)
    assert not once
    assert rows_by_status(store, cells) == {"ok": 60}


class LateFleet(FakeFleet):
    """Samples of an agent that died arrive three polls later, when its cells are leased again."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._late: list[tuple[int, Event]] = []

    def poll(self, timeout_s: float) -> list[Event]:
        events = super().poll(timeout_s)
        due = [event for at, event in self._late if at <= self.polls]
        self._late = [(at, event) for at, event in self._late if at > self.polls]
        return [*events, *due]

    def _die(self, name: str, agent: FakeAgent, lost: list[dict[str, Any]]) -> list[Event]:
        lease = next(iter(agent.leases))
        self._late.append((self.polls + 3, Samples(agent=name, lease=lease, table=to_table(lost))))
        return super()._die(name, agent, lost)


def test_rows_that_arrive_twice_are_committed_once(
    store: SampleStore, measure: Measure, make_plan: MakePlan, cpu: Device
) -> None:
    plan = make_plan({"sample": 60})
    cells = plan_cells(plan, cpu).cells
    alive = [cells[7].cell_id]
    agents = LateFleet(
        measure,
        {"a": FakeAgent(cpu), "b": FakeAgent(cpu)},
        dies=lambda _, cell: cell.cell_id in alive and alive.pop() == cell.cell_id,
        batch=8,
    )
    scheduler = run_all(plan, store, agents)
    assert max(agents.measured.values()) == 2
    assert rows_by_status(store, cells) == {"ok": 60}
    assert scheduler.progress.done == scheduler.progress.committed_now == 60


@pytest.mark.parametrize("batch", [1, 5, 32])
@pytest.mark.parametrize("number", [1, 2])
def test_a_cell_that_kills_every_agent_is_a_row_and_its_neighbours_are_innocent(
    batch: int, number: int, store: SampleStore, fleet: MakeFleet, make_plan: MakePlan, cpu: Device
) -> None:
    plan = make_plan({"sample": 100})
    cells = plan_cells(plan, cpu).cells
    poison = cells[20]
    agents = fleet(number, batch=batch, dies=lambda _, cell: cell.cell_id == poison.cell_id)
    scheduler = run_all(plan, store, agents)
    assert rows_by_status(store, cells) == {"ok": 99, "agent_lost": 1}
    (row,) = [row for row in store.read().to_pylist() if row["status"] == "agent_lost"]
    assert row["cell_id"] == poison.cell_id
    assert row["reason"] == "3 agents died under it: the actor died"
    assert row["runtime_us"] is None
    assert scheduler.progress.statuses == {"ok": 99, "agent_lost": 1}
    if batch == 1:
        assert agents.deaths[poison.cell_id] == MAX_DEATHS


def test_two_cells_that_kill_are_two_rows(
    store: SampleStore, fleet: MakeFleet, make_plan: MakePlan, cpu: Device
) -> None:
    plan = make_plan({"sample": 80})
    cells = plan_cells(plan, cpu).cells
    poison = {cells[3].cell_id, cells[5].cell_id}
    run_all(plan, store, fleet(2, batch=6, dies=lambda _, cell: cell.cell_id in poison), None)
    assert rows_by_status(store, cells) == {"ok": 78, "agent_lost": 2}
    assert {row["cell_id"] for row in store.read().to_pylist() if row["status"] != "ok"} == poison


class FleetOfTwoNodes(FakeFleet):
    """The second node, with four agents, dies in the middle of their first leases."""

    def poll(self, timeout_s: float) -> list[Event]:
        if self.polls == 3:
            self.gone = {name for name in self.agents if name.startswith("second/")}
        return super().poll(timeout_s)


def test_the_death_of_a_node_is_no_cells_doing(
    store: SampleStore, measure: Measure, make_plan: MakePlan, gpu: Device
) -> None:
    names = ["first/gpu0", *(f"second/gpu{i}" for i in range(4))]
    agents = {name: FakeAgent(replace(gpu, uuid=name)) for name in names}
    fleet = FleetOfTwoNodes(measure, agents)
    plan = make_plan({"sample": 300}, family="cublas", devices={"second_board": 0})
    run_all(plan, store, fleet)
    assert sum(name.startswith("second/") for name, _ in fleet.leased) > 8
    assert rows_by_status(store, plan_cells(plan, gpu).cells) == {"ok": 300}


class FleetWithoutChildren(FakeFleet):
    """Its first agent lives, but cannot start a measuring child."""

    def poll(self, timeout_s: float) -> list[Event]:
        lost = self._lose_leases("a", self.agents["a"], "did not start")
        innocent = [replace(event, is_cells_doing=False) for event in lost]
        ready = [self._ready("a")] if innocent else []
        return [*innocent, *ready, *super().poll(timeout_s)]


def test_an_agent_without_a_measuring_child_makes_no_cell_a_suspect(
    store: SampleStore, measure: Measure, make_plan: MakePlan, cpu: Device
) -> None:
    fleet = FleetWithoutChildren(measure, {"a": FakeAgent(cpu), "b": FakeAgent(cpu)})
    plan = make_plan({"sample": 200, "max": 4096})
    run_all(plan, store, fleet)
    assert rows_by_status(store, plan_cells(plan, cpu).cells) == {"ok": 200}
    assert sum(name == "a" for name, _ in fleet.leased) >= 6
    first = next(cells for name, cells in fleet.leased if name == "a")
    again = [cells for name, cells in fleet.leased if name == "b" and first[0] in cells]
    assert all(len(cells) > 1 for cells in again)


def test_a_suspect_is_tried_alone_after_all_other_cells(
    store: SampleStore, fleet: MakeFleet, make_plan: MakePlan, cpu: Device
) -> None:
    plan = make_plan({"sample": 100})
    poison = {cell.cell_id for cell in plan_cells(plan, cpu).cells[20:60:20]}
    agents = fleet(2, dies=lambda _, cell: cell.cell_id in poison)
    run_all(plan, store, agents)
    tries = 2 * (MAX_DEATHS - 1)
    last = [cells for _, cells in agents.leased[-tries:]]
    assert [len(cells) for cells in last] == [1] * tries
    assert {cells[0].cell_id for cells in last} == poison
    rows = store.read().to_pylist()
    assert {row["cell_id"] for row in rows if row["status"] == "agent_lost"} == poison


def test_when_every_agent_fails_the_run_ends(
    store: SampleStore, fleet: MakeFleet, make_plan: MakePlan
) -> None:
    agents = fleet(2, dies=lambda *_: True)
    scheduler = make_scheduler(make_plan({"sample": 100}), store, agents)
    message = (
        r"for 300 s \(node1/cpu: lost \d+ leases in a row: the actor died\); what was measured"
    )
    with pytest.raises(GemmcastError, match=message):
        scheduler.run(stop=never)
    assert agents.time_s > NO_AGENT_S
    assert set(store.counts()) <= {"agent_lost"}


class SlowFleet(FakeFleet):
    """An agent that has not joined yet is starting."""

    def starting(self) -> int:
        return sum(not agent.is_ready for agent in self.agents.values())


def test_a_run_waits_for_an_agent_that_is_starting_when_all_others_have_failed(
    store: SampleStore, measure: Measure, make_plan: MakePlan, cpu: Device
) -> None:
    plan = make_plan({"sample": 60})
    agents = SlowFleet(
        measure,
        {"a": FakeAgent(cpu), "b": FakeAgent(cpu, joins_at=200)},
        dies=lambda name, _: name == "a",
    )
    run_all(plan, store, agents)
    assert agents.polls > 200
    counts = rows_by_status(store, plan_cells(plan, cpu).cells)
    assert sum(counts.values()) == 60 and counts["ok"] > 50
    assert agents.leased[-1][0] == "b"


def test_an_agent_that_always_fails_is_left_out(
    store: SampleStore, fleet: MakeFleet, make_plan: MakePlan, cpu: Device
) -> None:
    plan, agents = (
        make_plan({"sample": 200, "max": 4096}),
        fleet(2, dies=lambda name, _: name == "node1/cpu"),
    )
    run_all(plan, store, agents)
    assert rows_by_status(store, plan_cells(plan, cpu).cells) == {"ok": 200}
    assert sum(name == "node1/cpu" for name, _ in agents.leased) <= 8


def test_agents_that_cannot_start_end_the_run(store: SampleStore, make_plan: MakePlan) -> None:
    class NoAgent(FakeFleet):
        def poll(self, timeout_s: float) -> list[Event]:
            self.polls += 1
            return [Ended(agent="node0/gpu0", lease=NO_LEASE, error="no CUDA here")]

    agents = NoAgent(lambda *_: {}, {})
    with pytest.raises(GemmcastError, match="agent node0/gpu0 can't start: no CUDA here"):
        make_scheduler(make_plan(), store, agents).run(stop=never)
    assert agents.polls == 3


def test_an_agent_that_cannot_start_does_not_stop_the_others(
    store: SampleStore, measure: Measure, make_plan: MakePlan, cpu: Device
) -> None:
    class OneBroken(FakeFleet):
        def poll(self, timeout_s: float) -> list[Event]:
            return [
                *super().poll(timeout_s),
                Ended(agent="node0/gpu0", lease=NO_LEASE, error="no CUDA here"),
            ]

    plan = make_plan({"sample": 30})
    run_all(plan, store, OneBroken(measure, {"ok": FakeAgent(cpu)}))
    assert rows_by_status(store, plan_cells(plan, cpu).cells) == {"ok": 30}


def test_an_agent_that_cannot_start_does_not_end_the_run_while_another_one_starts(
    store: SampleStore, measure: Measure, make_plan: MakePlan, cpu: Device
) -> None:
    """As a node that declares GPUs without having any, beside one whose GPU takes a while."""

    class BrokenFirst(FakeFleet):
        def starting(self) -> int:
            return int(self.polls <= 20)

        def poll(self, timeout_s: float) -> list[Event]:
            events = super().poll(timeout_s)
            return [Ended(agent="node0/gpu0", lease=NO_LEASE, error="no CUDA here"), *events]

    plan = make_plan({"sample": 30})
    run_all(plan, store, BrokenFirst(measure, {"late": FakeAgent(cpu, joins_at=20)}))
    assert rows_by_status(store, plan_cells(plan, cpu).cells) == {"ok": 30}
