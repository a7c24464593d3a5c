"""The scheduler over a fake fleet: agents that die, cells that kill, trainings that take long."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import count, pairwise
from pathlib import Path
from typing import Any

import pytest
from fake_fleet import FakeAgent, FakeFleet, FakeTrainer, Measure, make_scheduler

from coordinator.fleet.commits import COMMIT_S
from coordinator.fleet.interface import NO_LEASE, Ended, Event, Progress, Samples
from coordinator.fleet.leases import MAX_CONTENDED, MAX_DEATHS, POWER_CELL, take_cells
from coordinator.fleet.scheduler import Scheduler
from coordinator.plan.cells import plan_cells
from coordinator.plan.schema import Plan
from coordinator.samples.store import SampleStore
from gemmcast.arrow import to_table
from gemmcast.cell import Cell
from gemmcast.device import Device
from gemmcast.errors import GemmcastError, InputError

MakePlan = Callable[..., Plan]
MakeFleet = Callable[..., FakeFleet]


@pytest.fixture
def store(tmp_path: Path) -> SampleStore:
    return SampleStore.open(tmp_path / "samples", create=True)


@pytest.fixture
def fleet(measure: Measure, cpu: Device) -> Callable[..., FakeFleet]:
    """A fleet of CPUs of one kind, unless agents are given."""

    def make(agents: dict[str, FakeAgent] | int = 1, **options: Any) -> FakeFleet:
        if isinstance(agents, int):
            agents = {f"node{i}/cpu": FakeAgent(cpu) for i in range(agents)}
        return FakeFleet(measure, agents, **options)

    return make


def never() -> bool:
    return False


def run_all(*arguments: Any, **options: Any) -> Scheduler:
    """A scheduler of `make_scheduler` after a run in which every cell was committed."""
    scheduler = make_scheduler(*arguments, **options)
    assert scheduler.run(stop=never)
    return scheduler


def _counts(store: SampleStore, cells: Sequence[Cell]) -> dict[str, int]:
    """Rows by status, once every cell is proven to be there once."""
    ids = store.read()["cell_id"].to_pylist()
    assert sorted(ids) == sorted(cell.cell_id for cell in cells)
    return store.counts()


# measuring


def test_every_cell_is_measured_once(
    store: SampleStore, fleet: MakeFleet, make_plan: MakePlan, cpu: Device
) -> None:
    plan, agents = make_plan({"sample": 90}), fleet(3)
    cells = plan_cells(plan, cpu).cells
    shown: list[Progress] = []
    scheduler = make_scheduler(plan, store, agents)
    assert scheduler.run(stop=never, show=lambda progress: shown.append(replace(progress)))
    assert _counts(store, cells) == {"ok": 90}
    assert set(agents.measured.values()) == {1}
    assert {name for name, _ in agents.leased} == set(agents.agents)
    last = shown[-1]
    assert (last.cells, last.done, last.committed_now) == (90, 90, 90)
    assert last.agents == 3
    assert last.statuses["ok"] == 90
    done = [progress.done for progress in shown]
    assert done == sorted(done)


def test_an_agent_has_two_leases_and_they_shrink_at_the_end(
    store: SampleStore, fleet: MakeFleet, make_plan: MakePlan
) -> None:
    agents = fleet(2)
    make_scheduler(make_plan({"sample": 200, "max": 4096}), store, agents).run(stop=never)
    sizes = [len(cells) for _, cells in agents.leased]
    assert max(sizes) == 32 and sizes[-1] == 1
    assert sum(sizes) == 200


def test_a_cell_with_power_weighs_as_much_as_many_without(make_plan: MakePlan, cpu: Device) -> None:
    cells = plan_cells(make_plan({"sample": 300, "max": 4096}), cpu).cells
    metered = [replace(cell, power=True) for cell in cells]
    for queue, size in (
        (cells, 128),
        (metered, 128 // POWER_CELL),
        ([*metered[:1], *cells], 128 - POWER_CELL + 1),
    ):
        assert len(take_cells(deque(queue), 128)) == size
    assert len(take_cells(deque(metered), 1)) == 1  # never nothing
    assert len(take_cells(deque(cells[:5]), 128)) == 5


def test_started_again_it_measures_what_is_missing(
    store: SampleStore, fleet: MakeFleet, make_plan: MakePlan, cpu: Device
) -> None:
    plan, first = make_plan({"sample": 40}), fleet()
    looks = iter(range(100))
    assert not make_scheduler(plan, store, first).run(stop=lambda: next(looks) > 3)
    done = len(store.read())
    assert 0 < done < 40
    second = fleet()
    scheduler = run_all(plan, store, second)
    assert _counts(store, plan_cells(plan, cpu).cells) == {"ok": 40}
    assert sum(second.measured.values()) == 40 - done
    assert (scheduler.progress.done, scheduler.progress.committed_now) == (40, 40 - done)
    third = fleet()
    run_all(plan, store, third)
    assert third.leased == []


def test_stop_ends_it_at_once(store: SampleStore, fleet: MakeFleet, make_plan: MakePlan) -> None:
    agents = fleet()
    assert not make_scheduler(make_plan(), store, agents).run(stop=lambda: True)
    assert (agents.polls, agents.leased) == (0, [])
    agents = fleet()
    assert not make_scheduler(make_plan({"sample": 500}), store, agents).run(
        stop=lambda: agents.polls >= 3
    )
    assert agents.polls == 3
    assert store.counts() == {"ok": 2 * 4}  # of three polls the first was the agent's welcome


def test_a_second_scheduler_on_the_same_fleet_measures_a_list(
    store: SampleStore, fleet: MakeFleet, make_plan: MakePlan, cpu: Device, gpu: Device
) -> None:
    plan, agents = make_plan({"sample": 10}), fleet(2)
    run_all(plan, store, agents)
    more = plan_cells(make_plan({"sample": 12, "seed": 99}), cpu).cells
    foreign = plan_cells(make_plan({"sample": 3}, family="cublas"), gpu).cells
    scheduler = run_all(plan, store, agents, None, cells=[*more, *foreign])
    assert _counts(store, [*plan_cells(plan, cpu).cells, *more]) == {"ok": 22}
    assert (scheduler.progress.cells, scheduler.progress.committed_now) == (12, 12)


def test_an_agent_that_joins_late_gets_cells(
    store: SampleStore, fleet: MakeFleet, make_plan: MakePlan, cpu: Device
) -> None:
    agents = fleet({"early": FakeAgent(cpu), "late": FakeAgent(cpu, joins_at=10)})
    plan = make_plan({"sample": 200, "max": 4096})
    run_all(plan, store, agents)
    assert _counts(store, plan_cells(plan, cpu).cells) == {"ok": 200}
    assert sum(len(cells) for name, cells in agents.leased if name == "late") > 40


def test_equal_devices_share_and_different_ones_do_not(
    store: SampleStore, fleet: MakeFleet, make_plan: MakePlan, cpu: Device, gpu: Device
) -> None:
    other = replace(gpu, name="Another GPU", uuid="GPU-other")
    twin = replace(gpu, uuid="GPU-paper-1")
    agents = fleet(
        {
            "gpu0": FakeAgent(gpu),
            "gpu1": FakeAgent(twin),
            "gpu2": FakeAgent(other),
            "gpu3": FakeAgent(cpu),
        }
    )
    plan = make_plan({"sample": 30}, family="cublas")
    run_all(plan, store, agents)
    cells = plan_cells(plan, gpu).cells + plan_cells(plan, other).cells
    assert _counts(store, cells) == {"ok": 60}
    by_uuid = Counter(store.read()["device_uuid"].to_pylist())
    assert by_uuid["GPU-other"] == 30 and by_uuid["GPU-paper-0"] + by_uuid["GPU-paper-1"] == 30
    assert min(by_uuid.values()) > 5


def test_each_gpu_measures_everything_when_the_plan_says_so(
    store: SampleStore, fleet: MakeFleet, make_plan: MakePlan, gpu: Device
) -> None:
    twins = [gpu, replace(gpu, uuid="GPU-paper-1")]
    agents = fleet({f"gpu{i}": FakeAgent(device) for i, device in enumerate(twins)})
    plan = make_plan({"sample": 15}, family="cublas", devices={"replicate": "per_gpu"})
    run_all(plan, store, agents)
    cells = plan_cells(plan, twins[0]).cells + plan_cells(plan, twins[1]).cells
    assert _counts(store, cells) == {"ok": 30}
    by_uuid = Counter(store.read()["device_uuid"].to_pylist())
    assert by_uuid == {"GPU-paper-0": 15, "GPU-paper-1": 15}


def test_a_shape_that_no_device_can_hold_ends_the_run(
    store: SampleStore, fleet: MakeFleet, make_plan: MakePlan
) -> None:
    with pytest.raises(
        InputError,
        match=r"sweep.0.shapes = '60000x60000x60000 fp32 nn': its operands and their ",
    ):
        make_scheduler(make_plan({"list": [[60_000] * 3]}), store, fleet()).run(stop=never)
    assert store.counts() == {}


# deaths


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
    assert _counts(store, cells) == {"ok": 60}


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
    assert _counts(store, cells) == {"ok": 60}
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
    assert _counts(store, cells) == {"ok": 99, "agent_lost": 1}
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
    assert _counts(store, cells) == {"ok": 78, "agent_lost": 2}
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
    plan = make_plan({"sample": 300}, family="cublas")
    run_all(plan, store, fleet)
    assert sum(name.startswith("second/") for name, _ in fleet.leased) > 8
    assert _counts(store, plan_cells(plan, gpu).cells) == {"ok": 300}


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
    assert _counts(store, plan_cells(plan, cpu).cells) == {"ok": 200}
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
    scheduler = make_scheduler(make_plan({"sample": 100}), store, fleet(2, dies=lambda *_: True))
    message = "every agent has failed, the last with: the actor died"
    with pytest.raises(GemmcastError, match=message):
        scheduler.run(stop=never)
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
    counts = _counts(store, plan_cells(plan, cpu).cells)
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
    assert _counts(store, plan_cells(plan, cpu).cells) == {"ok": 200}
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
    assert _counts(store, plan_cells(plan, cpu).cells) == {"ok": 30}


# training


def _training_plan(make_plan: MakePlan, sample: int = 150, **train: Any) -> Plan:
    return make_plan({"sample": sample}, train={"every": 40, "min_rows": 40, **train})


def _commits_at_once() -> Callable[[], float]:
    """A clock that is always late enough for a commit."""
    return count(step=COMMIT_S).__next__


def test_commits_are_few_and_nothing_waits_in_vain(
    store: SampleStore, fleet: MakeFleet, make_plan: MakePlan
) -> None:
    before = store.version
    agents = fleet(1)
    run_all(_training_plan(make_plan), store, agents, now_s=lambda: 0.0)
    assert (
        0 < store.version - before <= len(agents.leased) < agents.polls
        and len(store.committed) == 150
    )


def test_what_came_before_a_stop_is_committed(
    store: SampleStore, fleet: MakeFleet, make_plan: MakePlan
) -> None:
    looks = count()
    scheduler = make_scheduler(_training_plan(make_plan), store, fleet(1), now_s=lambda: 0.0)
    assert not scheduler.run(stop=lambda: next(looks) >= 2)
    assert 0 < len(store.committed) == scheduler.progress.committed_now < 150


def test_training_starts_when_it_is_due_and_the_model_is_pushed(
    store: SampleStore, fleet: MakeFleet, make_plan: MakePlan
) -> None:
    agents = fleet(1)
    trainer = FakeTrainer(agents)
    run_all(_training_plan(make_plan), store, agents, trainer, now_s=_commits_at_once())
    rows = [rows for rows, _ in trainer.started]
    assert rows[0] >= 40 and all(later - earlier >= 40 for earlier, later in pairwise(rows))
    assert len(rows) == 3
    assert [version for _, version in agents.pushed] == ["1", "2", "3"][: len(agents.pushed)]
    assert agents.pushed[0] == (f"model of {rows[0]}".encode(), "1")
    assert all(version > 0 for _, version in trainer.started)


def test_no_training_before_there_are_enough_rows(
    store: SampleStore, fleet: MakeFleet, make_plan: MakePlan
) -> None:
    agents = fleet(1)
    trainer = FakeTrainer(agents)
    run_all(_training_plan(make_plan, min_rows=100), store, agents, trainer)
    assert trainer.started[0][0] >= 100


def test_failed_rows_do_not_count(
    store: SampleStore, make_plan: MakePlan, measure: Measure, cpu: Device
) -> None:
    agents = FakeFleet(
        lambda cell, device: measure(cell, device, status="unsupported", reason="no"),
        {"a": FakeAgent(cpu)},
    )
    trainer = FakeTrainer(agents)
    scheduler = run_all(_training_plan(make_plan), store, agents, trainer)
    scheduler.train_once_more(stop=never)
    assert trainer.started == []
    assert scheduler.progress.statuses == {"unsupported": 150}


def test_a_cpu_that_trains_gets_no_cells_while_others_go_on(
    store: SampleStore, measure: Measure, make_plan: MakePlan, cpu: Device
) -> None:
    busy: list[tuple[str, int]] = []

    class Watched(FakeFleet):
        def lease(self, agent: str, lease: int, cells: Sequence[Cell]) -> None:
            if trainer.busy:
                busy.append((agent, self.polls))
            super().lease(agent, lease, cells)

    agents = Watched(measure, {"here/cpu": FakeAgent(cpu, local=True), "there/cpu": FakeAgent(cpu)})
    trainer = FakeTrainer(agents, polls=15)
    plan = _training_plan(make_plan, 400)
    # FakeTrainer.start refuses to start while the CPU here still measures
    run_all(plan, store, agents, trainer)
    assert _counts(store, plan_cells(plan, cpu).cells) == {"ok": 400}
    assert len(trainer.started) >= 2
    assert {name for name, _ in busy} == {"there/cpu"}
    assert sum(name == "here/cpu" for name, _ in agents.leased) > 2


def test_a_gpu_of_this_host_goes_on_while_its_cpu_trains(
    store: SampleStore, measure: Measure, make_plan: MakePlan, gpu: Device
) -> None:
    agents = FakeFleet(measure, {"here/gpu0": FakeAgent(gpu, local=True)})
    trainer = FakeTrainer(agents, polls=1000)
    plan = make_plan({"sample": 150}, family="cublas", train={"every": 40, "min_rows": 40})
    run_all(plan, store, agents, trainer)
    assert agents.polls < 100 and trainer.busy


def test_the_last_training_sees_every_row(
    store: SampleStore, fleet: MakeFleet, make_plan: MakePlan
) -> None:
    agents = fleet(1)
    trainer = FakeTrainer(agents, polls=30)
    scheduler = run_all(_training_plan(make_plan), store, agents, trainer)
    scheduler.train_once_more(stop=never)
    assert trainer.started[-1] == (150, store.version)
    assert agents.pushed[-1][0] == b"model of 150"
    assert not trainer.busy
    started = len(trainer.started)
    scheduler.train_once_more(stop=never)  # nothing is new
    assert len(trainer.started) == started


def test_a_version_that_knows_all_rows_is_not_trained_again(
    store: SampleStore, fleet: MakeFleet, make_plan: MakePlan
) -> None:
    plan = _training_plan(make_plan)
    run_all(plan, store, fleet())
    for trained, starts in ((150, 0), (149, 1)):
        agents = fleet(1)
        trainer = FakeTrainer(agents)
        scheduler = make_scheduler(plan, store, agents, trainer, trained_rows=trained)
        assert scheduler.run(stop=never)
        scheduler.train_once_more(stop=never)
        assert len(trainer.started) == starts


def test_no_last_training_when_the_plan_says_so(
    store: SampleStore, fleet: MakeFleet, make_plan: MakePlan
) -> None:
    agents = fleet(1)
    trainer = FakeTrainer(agents)
    scheduler = run_all(
        _training_plan(make_plan, 50, every=1000, at_end=False), store, agents, trainer
    )
    scheduler.train_once_more(stop=never)
    assert trainer.started == []


def test_stop_ends_the_wait_for_a_training(
    store: SampleStore, fleet: MakeFleet, make_plan: MakePlan
) -> None:
    agents = fleet(1)
    trainer = FakeTrainer(agents, polls=4000)
    scheduler = run_all(_training_plan(make_plan, 60), store, agents, trainer)
    before = agents.polls
    scheduler.train_once_more(stop=lambda: agents.polls >= before + 2)
    assert trainer.busy and agents.polls == before + 2


# pushing


class Promoted:
    """A registry in which somebody makes versions champion, at given polls of a fleet."""

    def __init__(self, fleet: FakeFleet, at_polls: dict[int, str]) -> None:
        self._fleet = fleet
        self._at_polls = at_polls

    def newest(self) -> tuple[bytes, str] | None:
        due = [poll for poll in self._at_polls if poll <= self._fleet.polls]
        if not due:
            return None
        version = self._at_polls.pop(due[0])
        return f"model {version}".encode(), version


def test_a_version_that_is_promoted_during_a_run_is_pushed_without_a_training(
    store: SampleStore, fleet: MakeFleet, make_plan: MakePlan
) -> None:
    agents = fleet(2)
    champions = Promoted(agents, {0: "2", 5: "3", 8: "2"})
    scheduler = make_scheduler(make_plan({"sample": 200}), store, agents, champions=champions)
    assert scheduler.run(stop=never)
    assert agents.pushed == [(b"model 2", "2"), (b"model 3", "3"), (b"model 2", "2")]
    state = agents.delivery.state()
    assert (state.version, state.nodes, state.nodes_with_version) == ("2", 2, 2)


def test_at_the_end_every_agent_is_waited_for_and_who_does_not_answer_is_named(
    store: SampleStore, fleet: MakeFleet, make_plan: MakePlan
) -> None:
    agents = fleet(3)
    trainer = FakeTrainer(agents)
    scheduler = run_all(_training_plan(make_plan, every=1000), store, agents, trainer)
    agents.silent = {"node1/cpu"}
    scheduler.train_once_more(stop=never)
    before_s = agents.time_s
    scheduler.deliver(20.0, stop=never)
    assert 20.0 <= agents.time_s - before_s < 21.0
    state = agents.delivery.state()
    assert state.text() == (
        "Model 1 is on 2 of 3 nodes; not taken by node1/cpu (no answer for 10 s): "
        "the next run sends it again."
    )


def test_the_end_does_not_wait_for_what_every_agent_has(
    store: SampleStore, fleet: MakeFleet, make_plan: MakePlan
) -> None:
    agents = fleet(3)
    trainer = FakeTrainer(agents)
    scheduler = run_all(_training_plan(make_plan, every=1000), store, agents, trainer)
    scheduler.train_once_more(stop=never)
    scheduler.deliver(20.0, stop=never)
    polls = agents.polls
    scheduler.deliver(20.0, stop=never)
    assert agents.polls == polls
    assert agents.delivery.state().text() == "Model 1 is on 3 of 3 nodes."


class EndsUnseen(FakeTrainer):
    """Its training ends at the very moment after somebody has asked for its model."""

    def newest(self) -> tuple[bytes, str] | None:
        newest = super().newest()
        if self._fleet.polls == self._until - 1:
            self._until = self._fleet.polls
        return newest


def test_a_training_that_ends_between_two_looks_is_pushed(
    store: SampleStore, fleet: MakeFleet, make_plan: MakePlan
) -> None:
    agents = fleet(1)
    trainer = EndsUnseen(agents)
    scheduler = run_all(_training_plan(make_plan, every=1000), store, agents, trainer)
    scheduler.train_once_more(stop=never)
    assert [version for _, version in agents.pushed] == ["1"]


# devices that somebody else uses


def _crowding(measure: Measure, crowded: Callable[[Cell, Device], bool]) -> Measure:
    def one(cell: Cell, device: Device) -> dict[str, Any]:
        row = measure(cell, device)
        return (
            {**row, "status": "contended", "reason": "1 other process", "runtime_us": None}
            if crowded(cell, device)
            else row
        )

    return one


def test_a_cell_that_was_contended_is_tried_again_and_better_later(
    store: SampleStore, make_plan: MakePlan, cpu: Device, measure: Measure
) -> None:
    tries = Counter[str]()

    def once(cell: Cell, _: Device) -> bool:
        tries[cell.cell_id] += 1
        return tries[cell.cell_id] == 1 and cell.gemm.m % 2 == 0

    plan = make_plan({"sample": 60})
    fleet = FakeFleet(_crowding(measure, once), {"node0/cpu": FakeAgent(cpu)})
    run_all(plan, store, fleet)
    assert _counts(store, plan_cells(plan, cpu).cells) == {"ok": 60}
    assert sum(tries.values()) > 60


def test_what_stays_contended_is_a_row_after_three_tries_and_the_run_ends(
    store: SampleStore, make_plan: MakePlan, cpu: Device, measure: Measure
) -> None:
    plan, clock = make_plan({"sample": 20}), iter(range(10**9))
    fleet = FakeFleet(_crowding(measure, lambda *_: True), {"node0/cpu": FakeAgent(cpu)})
    run_all(plan, store, fleet, now_s=lambda: float(next(clock)))
    assert _counts(store, plan_cells(plan, cpu).cells) == {"contended": 20}
    assert set(fleet.measured.values()) == {MAX_CONTENDED}


def test_an_agent_on_a_crowded_device_rests_and_the_others_do_its_cells(
    store: SampleStore, make_plan: MakePlan, cpu: Device, measure: Measure
) -> None:
    crowded = replace(cpu, uuid="CPU-crowded")
    plan = make_plan({"sample": 200})
    fleet = FakeFleet(
        _crowding(measure, lambda _, device: device.uuid == crowded.uuid),
        {"a/cpu": FakeAgent(crowded), "b/cpu": FakeAgent(cpu)},
    )
    run_all(plan, store, fleet, now_s=lambda: 0.0)
    assert _counts(store, plan_cells(plan, cpu).cells) == {"ok": 200}
    assert sum(len(cells) for name, cells in fleet.leased if name == "a/cpu") < 100
