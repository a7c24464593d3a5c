"""The loop over a fleet that lives in this process: agents that die, cells that kill, trainings that take their time."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from itertools import count, pairwise
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from coordinator.fleet.cluster import Ended, Event, Ready, Samples
from coordinator.fleet.scheduler import COMMIT_S, MAX_CONTENDED, MAX_DEATHS, POWER_CELL, Progress, Scheduler, _take_worth
from coordinator.plan.cells import plan_cells
from coordinator.plan.schema import Plan
from coordinator.samples.store import SampleStore
from gemmcast.arrow import to_table
from gemmcast.cell import Cell
from gemmcast.device import Device
from gemmcast.errors import GemmcastError, InputError

MakePlan = Callable[..., Plan]
Measure = Callable[..., dict[str, Any]]
Dies = Callable[[str, Cell], bool]
# whether an agent dies when it comes to a cell


@dataclass
class FakeAgent:
    device: Device
    local: bool = False
    joins_at: int = 0
    # the poll at which it is ready
    said: bool = False
    leases: dict[int, list[Cell]] = field(default_factory=dict)


class FakeFleet:
    """Agents that measure `batch` cells a poll and send them at once. One that dies loses its batch and all its leases, and is back at once."""

    def __init__(self, measure: Measure, agents: dict[str, FakeAgent], *, batch: int = 4, dies: Dies = lambda *_: False) -> None:
        self._measure, self.agents, self._batch, self._dies = measure, agents, batch, dies
        self.polls, self.deaths, self.measured = 0, Counter[str](), Counter[str]()
        self.leased: list[tuple[str, list[Cell]]] = []
        self.pushed: list[tuple[bytes, str]] = []

    def starting(self) -> int:
        return 0

    def known(self) -> list[Ready]:
        return [self._ready(name) for name, agent in self.agents.items() if agent.said]

    def poll(self, timeout_s: float) -> list[Event]:
        self.polls += 1
        assert self.polls < 5000, "the loop never ends"
        events: list[Event] = []
        for name, agent in self.agents.items():
            if not agent.said and self.polls > agent.joins_at:
                agent.said = True
                events.append(self._ready(name))
            elif agent.leases:
                events += self._work(name, agent)
        return events

    def lease(self, agent: str, lease: int, cells: Sequence[Cell]) -> None:
        assert lease not in self.agents[agent].leases and cells
        self.agents[agent].leases[lease] = list(cells)
        self.leased.append((agent, list(cells)))

    def push(self, model: bytes, version: str) -> None:
        self.pushed.append((model, version))

    def close(self) -> None: ...

    def _ready(self, name: str) -> Ready:
        return Ready(agent=name, device=self.agents[name].device, host="paper", local=self.agents[name].local)

    def _work(self, name: str, agent: FakeAgent) -> list[Event]:
        lease, cells = next(iter(agent.leases.items()))
        rows = []
        for cell in cells[: self._batch]:
            if self._dies(name, cell):
                self.deaths[cell.cell_id] += 1
                return self._die(name, agent, rows)
            self.measured[cell.cell_id] += 1
            rows.append(self._measure(cell, agent.device))
        del cells[: self._batch]
        if not cells:
            del agent.leases[lease]
        return [Samples(agent=name, lease=lease, table=to_table(rows)), *([] if cells else [Ended(agent=name, lease=lease)])]

    def _die(self, name: str, agent: FakeAgent, lost: list[dict[str, Any]]) -> list[Event]:
        leases, agent.leases = list(agent.leases), {}
        return [Ended(agent=name, lease=lease, error="the actor died") for lease in leases]


class FakeTrainer:
    """A training takes `polls` of the fleet; every model passes the gate."""

    def __init__(self, fleet: FakeFleet, polls: int = 5) -> None:
        self._fleet, self._polls, self._until = fleet, polls, -1
        self.started: list[tuple[int, int]] = []
        # (rows, store version)
        self._made: tuple[bytes, str] | None = None

    @property
    def busy(self) -> bool:
        return self._fleet.polls < self._until

    def start(self, table: pa.Table, store_version: int) -> None:
        assert not self.busy
        assert not [name for name, agent in self._fleet.agents.items() if agent.local and agent.device.kind == "cpu" and agent.leases]
        self._until = self._fleet.polls + self._polls
        self.started.append((len(table), store_version))
        self._made = (f"model of {len(table)}".encode(), str(len(self.started)))

    def finished(self) -> tuple[bytes, str] | None:
        if self.busy:
            return None
        made, self._made = self._made, None
        return made


@pytest.fixture
def store(tmp_path: Path) -> SampleStore:
    return SampleStore.open(tmp_path / "samples", create=True)


@pytest.fixture
def fleet(measure: Measure, cpu: Device) -> Callable[..., FakeFleet]:
    """A fleet of CPUs of one kind, unless agents are given."""

    def make(agents: dict[str, FakeAgent] | int = 1, **options: Any) -> FakeFleet:
        named = agents if isinstance(agents, dict) else {f"node{i}/cpu": FakeAgent(cpu) for i in range(agents)}
        return FakeFleet(measure, named, **options)

    return make


MakeFleet = Callable[..., FakeFleet]


def never() -> bool:
    return False


def _counts(store: SampleStore, cells: Sequence[Cell]) -> dict[str, int]:
    """Rows by status, once every cell is proven to be there once."""
    ids = store.read()["cell_id"].to_pylist()
    assert sorted(ids) == sorted(cell.cell_id for cell in cells)
    return store.counts()


# measuring


def test_every_cell_is_measured_once(store: SampleStore, fleet: MakeFleet, make_plan: MakePlan, cpu: Device) -> None:
    plan, agents = make_plan({"sample": 90}), fleet(3)
    cells = plan_cells(plan, cpu).cells
    shown: list[Progress] = []
    loop = Scheduler(plan, store, agents, None)
    assert loop.run(stop=never, show=lambda progress: shown.append(replace(progress)))
    assert _counts(store, cells) == {"ok": 90}
    assert set(agents.measured.values()) == {1}
    assert {name for name, _ in agents.leased} == set(agents.agents)
    assert (shown[-1].cells, shown[-1].done, shown[-1].committed_now, shown[-1].agents, shown[-1].statuses["ok"]) == (90, 90, 90, 3, 90)
    assert [progress.done for progress in shown] == sorted(progress.done for progress in shown)


def test_an_agent_has_two_leases_and_they_shrink_at_the_end(store: SampleStore, fleet: MakeFleet, make_plan: MakePlan) -> None:
    agents = fleet(2)
    Scheduler(make_plan({"sample": 200, "max": 4096}), store, agents, None).run(stop=never)
    sizes = [len(cells) for _, cells in agents.leased]
    assert max(sizes) == 32 and sizes[-1] == 1
    assert sum(sizes) == 200


def test_a_cell_with_power_weighs_as_much_as_many_without(make_plan: MakePlan, cpu: Device) -> None:
    cells = plan_cells(make_plan({"sample": 300, "max": 4096}), cpu).cells
    metered = [replace(cell, power=True) for cell in cells]
    for queue, size in ((cells, 128), (metered, 128 // POWER_CELL), ([*metered[:1], *cells], 128 - POWER_CELL + 1)):
        assert len(_take_worth(deque(queue), 128)) == size
    assert len(_take_worth(deque(metered), 1)) == 1  # never nothing
    assert len(_take_worth(deque(cells[:5]), 128)) == 5


def test_started_again_it_measures_what_is_missing(store: SampleStore, fleet: MakeFleet, make_plan: MakePlan, cpu: Device) -> None:
    plan, first = make_plan({"sample": 40}), fleet()
    looks = iter(range(100))
    assert not Scheduler(plan, store, first, None).run(stop=lambda: next(looks) > 3)
    done = len(store.read())
    assert 0 < done < 40
    second = fleet()
    loop = Scheduler(plan, store, second, None)
    assert loop.run(stop=never)
    assert _counts(store, plan_cells(plan, cpu).cells) == {"ok": 40}
    assert sum(second.measured.values()) == 40 - done
    assert (loop.progress.done, loop.progress.committed_now) == (40, 40 - done)
    third = fleet()
    assert Scheduler(plan, store, third, None).run(stop=never)
    assert third.leased == []


def test_stop_ends_it_at_once(store: SampleStore, fleet: MakeFleet, make_plan: MakePlan) -> None:
    agents = fleet()
    assert not Scheduler(make_plan(), store, agents, None).run(stop=lambda: True)
    assert (agents.polls, agents.leased) == (0, [])
    agents = fleet()
    assert not Scheduler(make_plan({"sample": 500}), store, agents, None).run(stop=lambda: agents.polls >= 3)
    assert agents.polls == 3
    assert store.counts() == {"ok": 2 * 4}  # of three polls the first was the agent's welcome


def test_a_second_loop_on_the_same_fleet_measures_a_list(store: SampleStore, fleet: MakeFleet, make_plan: MakePlan, cpu: Device, gpu: Device) -> None:
    plan, agents = make_plan({"sample": 10}), fleet(2)
    assert Scheduler(plan, store, agents, None).run(stop=never)
    more = plan_cells(make_plan({"sample": 12, "seed": 99}), cpu).cells
    foreign = plan_cells(make_plan({"sample": 3}, family="cublas"), gpu).cells
    loop = Scheduler(plan, store, agents, None, cells=[*more, *foreign])
    assert loop.run(stop=never)
    assert _counts(store, [*plan_cells(plan, cpu).cells, *more]) == {"ok": 22}
    assert (loop.progress.cells, loop.progress.committed_now) == (12, 12)


def test_an_agent_that_joins_late_gets_cells(store: SampleStore, fleet: MakeFleet, make_plan: MakePlan, cpu: Device) -> None:
    agents = fleet({"early": FakeAgent(cpu), "late": FakeAgent(cpu, joins_at=10)})
    plan = make_plan({"sample": 200, "max": 4096})
    assert Scheduler(plan, store, agents, None).run(stop=never)
    assert _counts(store, plan_cells(plan, cpu).cells) == {"ok": 200}
    assert sum(len(cells) for name, cells in agents.leased if name == "late") > 40


def test_equal_devices_share_and_different_ones_do_not(store: SampleStore, fleet: MakeFleet, make_plan: MakePlan, cpu: Device, gpu: Device) -> None:
    other = replace(gpu, name="Another GPU", uuid="GPU-other")
    agents = fleet({f"gpu{i}": FakeAgent(device) for i, device in enumerate((gpu, replace(gpu, uuid="GPU-paper-1"), other, cpu))})
    plan = make_plan({"sample": 30}, family="cublas")
    assert Scheduler(plan, store, agents, None).run(stop=never)
    assert _counts(store, [*plan_cells(plan, gpu).cells, *plan_cells(plan, other).cells]) == {"ok": 60}
    by_uuid = Counter(store.read()["device_uuid"].to_pylist())
    assert by_uuid["GPU-other"] == 30 and by_uuid["GPU-paper-0"] + by_uuid["GPU-paper-1"] == 30
    assert min(by_uuid.values()) > 5


def test_each_gpu_measures_everything_when_the_plan_says_so(store: SampleStore, fleet: MakeFleet, make_plan: MakePlan, gpu: Device) -> None:
    twins = [gpu, replace(gpu, uuid="GPU-paper-1")]
    agents = fleet({f"gpu{i}": FakeAgent(device) for i, device in enumerate(twins)})
    plan = make_plan({"sample": 15}, family="cublas", devices={"spread": "each"})
    assert Scheduler(plan, store, agents, None).run(stop=never)
    assert _counts(store, [cell for device in twins for cell in plan_cells(plan, device).cells]) == {"ok": 30}
    assert Counter(store.read()["device_uuid"].to_pylist()) == {"GPU-paper-0": 15, "GPU-paper-1": 15}


def test_a_shape_that_no_device_can_hold_ends_the_run(store: SampleStore, fleet: MakeFleet, make_plan: MakePlan) -> None:
    with pytest.raises(InputError, match=r"sweep.0.shapes = '60000x60000x60000 fp32 nn': its operands and their float64 copies"):
        Scheduler(make_plan({"list": [[60_000] * 3]}), store, fleet(), None).run(stop=never)
    assert store.counts() == {}


# deaths


@pytest.mark.parametrize("number", [1, 2])
def test_an_agent_that_dies_in_a_lease_costs_nothing(number: int, store: SampleStore, fleet: MakeFleet, make_plan: MakePlan, cpu: Device) -> None:
    plan = make_plan({"sample": 60})
    cells = plan_cells(plan, cpu).cells
    once = {cells[6].cell_id, cells[25].cell_id}

    def dies(_: str, cell: Cell) -> bool:
        if cell.cell_id in once:
            once.remove(cell.cell_id)
            return True
        return False

    agents = fleet(number, dies=dies)
    assert Scheduler(plan, store, agents, None).run(stop=never)
    assert not once
    assert _counts(store, cells) == {"ok": 60}


class LateFleet(FakeFleet):
    """What an agent had measured before it died arrives three polls later, when the cells are leased again."""

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


def test_rows_that_arrive_twice_are_committed_once(store: SampleStore, measure: Measure, make_plan: MakePlan, cpu: Device) -> None:
    plan = make_plan({"sample": 60})
    cells = plan_cells(plan, cpu).cells
    alive = [cells[7].cell_id]
    agents = LateFleet(
        measure, {"a": FakeAgent(cpu), "b": FakeAgent(cpu)}, dies=lambda _, cell: cell.cell_id in alive and alive.pop() == cell.cell_id, batch=8
    )
    loop = Scheduler(plan, store, agents, None)
    assert loop.run(stop=never)
    assert max(agents.measured.values()) == 2
    assert _counts(store, cells) == {"ok": 60}
    assert loop.progress.done == loop.progress.committed_now == 60


@pytest.mark.parametrize("batch", [1, 5, 32])
@pytest.mark.parametrize("number", [1, 2])
def test_a_cell_that_kills_every_agent_is_a_row_and_its_neighbours_are_innocent(
    batch: int, number: int, store: SampleStore, fleet: MakeFleet, make_plan: MakePlan, cpu: Device
) -> None:
    plan = make_plan({"sample": 100})
    cells = plan_cells(plan, cpu).cells
    poison = cells[20]
    agents = fleet(number, batch=batch, dies=lambda _, cell: cell.cell_id == poison.cell_id)
    loop = Scheduler(plan, store, agents, None)
    assert loop.run(stop=never)
    assert _counts(store, cells) == {"ok": 99, "agent_lost": 1}
    (row,) = [row for row in store.read().to_pylist() if row["status"] == "agent_lost"]
    assert (row["cell_id"], row["reason"], row["runtime_us"]) == (poison.cell_id, "3 agents died under it: the actor died", None)
    assert loop.progress.statuses == {"ok": 99, "agent_lost": 1}
    if batch == 1:
        assert agents.deaths[poison.cell_id] == MAX_DEATHS


def test_two_cells_that_kill_are_both_found(store: SampleStore, fleet: MakeFleet, make_plan: MakePlan, cpu: Device) -> None:
    plan = make_plan({"sample": 80})
    cells = plan_cells(plan, cpu).cells
    poison = {cells[3].cell_id, cells[5].cell_id}
    assert Scheduler(plan, store, fleet(2, batch=6, dies=lambda _, cell: cell.cell_id in poison), None).run(stop=never)
    assert _counts(store, cells) == {"ok": 78, "agent_lost": 2}
    assert {row["cell_id"] for row in store.read().to_pylist() if row["status"] != "ok"} == poison


def test_when_every_agent_fails_the_run_ends(store: SampleStore, fleet: MakeFleet, make_plan: MakePlan) -> None:
    with pytest.raises(GemmcastError, match="every agent has failed, the last with: the actor died"):
        Scheduler(make_plan({"sample": 100}), store, fleet(2, dies=lambda *_: True), None).run(stop=never)
    assert set(store.counts()) <= {"agent_lost"}


class SlowFleet(FakeFleet):
    """An agent that has not joined yet is starting."""

    def starting(self) -> int:
        return sum(not agent.said for agent in self.agents.values())


def test_a_run_waits_for_an_agent_that_is_starting_when_all_others_have_failed(
    store: SampleStore, measure: Measure, make_plan: MakePlan, cpu: Device
) -> None:
    plan = make_plan({"sample": 60})
    agents = SlowFleet(measure, {"a": FakeAgent(cpu), "b": FakeAgent(cpu, joins_at=200)}, dies=lambda name, _: name == "a")
    assert Scheduler(plan, store, agents, None).run(stop=never)
    assert agents.polls > 200
    counts = _counts(store, plan_cells(plan, cpu).cells)
    assert sum(counts.values()) == 60 and counts["ok"] > 50
    assert agents.leased[-1][0] == "b"


def test_an_agent_that_always_fails_is_left_out(store: SampleStore, fleet: MakeFleet, make_plan: MakePlan, cpu: Device) -> None:
    plan, agents = make_plan({"sample": 200, "max": 4096}), fleet(2, dies=lambda name, _: name == "node1/cpu")
    assert Scheduler(plan, store, agents, None).run(stop=never)
    assert _counts(store, plan_cells(plan, cpu).cells) == {"ok": 200}
    assert sum(name == "node1/cpu" for name, _ in agents.leased) <= 8


def test_agents_that_cannot_start_end_the_run(store: SampleStore, make_plan: MakePlan) -> None:
    class NoAgent(FakeFleet):
        def poll(self, timeout_s: float) -> list[Event]:
            self.polls += 1
            return [Ended(agent="node0/gpu0", lease=-1, error="no CUDA here")]

    agents = NoAgent(lambda *_: {}, {})
    with pytest.raises(GemmcastError, match="agent node0/gpu0 can't start: no CUDA here"):
        Scheduler(make_plan(), store, agents, None).run(stop=never)
    assert agents.polls == 3


def test_an_agent_that_cannot_start_does_not_stop_the_others(store: SampleStore, measure: Measure, make_plan: MakePlan, cpu: Device) -> None:
    class OneBroken(FakeFleet):
        def poll(self, timeout_s: float) -> list[Event]:
            return [*super().poll(timeout_s), Ended(agent="node0/gpu0", lease=-1, error="no CUDA here")]

    plan = make_plan({"sample": 30})
    assert Scheduler(plan, store, OneBroken(measure, {"ok": FakeAgent(cpu)}), None).run(stop=never)
    assert _counts(store, plan_cells(plan, cpu).cells) == {"ok": 30}


# training


def _training_plan(make_plan: MakePlan, sample: int = 150, **train: Any) -> Plan:
    return make_plan({"sample": sample}, train={"every": 40, "min_rows": 40, **train})


def _commits_at_once() -> Callable[[], float]:
    """A clock that is always late enough for a commit."""
    return count(step=COMMIT_S).__next__


def test_commits_are_few_and_nothing_waits_in_vain(store: SampleStore, fleet: MakeFleet, make_plan: MakePlan) -> None:
    before = store.version
    agents = fleet(1)
    assert Scheduler(_training_plan(make_plan), store, agents, None, now_s=lambda: 0.0).run(stop=never)
    assert 0 < store.version - before <= len(agents.leased) < agents.polls and len(store.committed) == 150


def test_what_came_before_a_stop_is_committed(store: SampleStore, fleet: MakeFleet, make_plan: MakePlan) -> None:
    asked = count()
    loop = Scheduler(_training_plan(make_plan), store, fleet(1), None, now_s=lambda: 0.0)
    assert not loop.run(stop=lambda: next(asked) >= 2)
    assert 0 < len(store.committed) == loop.progress.committed_now < 150


def test_training_starts_when_it_is_due_and_the_model_is_pushed(store: SampleStore, fleet: MakeFleet, make_plan: MakePlan) -> None:
    agents = fleet(1)
    trainer = FakeTrainer(agents)
    loop = Scheduler(_training_plan(make_plan), store, agents, trainer, now_s=_commits_at_once())
    assert loop.run(stop=never)
    rows = [rows for rows, _ in trainer.started]
    assert rows[0] >= 40 and all(later - earlier >= 40 for earlier, later in pairwise(rows))
    assert len(rows) == 3
    assert [version for _, version in agents.pushed] == ["1", "2", "3"][: len(agents.pushed)]
    assert agents.pushed[0] == (f"model of {rows[0]}".encode(), "1")
    assert all(version > 0 for _, version in trainer.started)


def test_no_training_before_there_are_enough_rows(store: SampleStore, fleet: MakeFleet, make_plan: MakePlan) -> None:
    agents = fleet(1)
    trainer = FakeTrainer(agents)
    assert Scheduler(_training_plan(make_plan, min_rows=100), store, agents, trainer).run(stop=never)
    assert trainer.started[0][0] >= 100


def test_failed_rows_do_not_count(store: SampleStore, make_plan: MakePlan, measure: Measure, cpu: Device) -> None:
    agents = FakeFleet(lambda cell, device: measure(cell, device, status="unsupported", reason="no"), {"a": FakeAgent(cpu)})
    trainer = FakeTrainer(agents)
    loop = Scheduler(_training_plan(make_plan), store, agents, trainer)
    assert loop.run(stop=never)
    loop.train_once_more(stop=never)
    assert trainer.started == []
    assert loop.progress.statuses == {"unsupported": 150}


def test_a_cpu_that_trains_gets_no_cells_while_others_go_on(store: SampleStore, measure: Measure, make_plan: MakePlan, cpu: Device) -> None:
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
    assert Scheduler(plan, store, agents, trainer).run(stop=never)
    assert _counts(store, plan_cells(plan, cpu).cells) == {"ok": 400}
    assert len(trainer.started) >= 2
    assert {name for name, _ in busy} == {"there/cpu"}
    assert sum(name == "here/cpu" for name, _ in agents.leased) > 2


def test_a_gpu_of_this_host_goes_on_while_its_cpu_trains(store: SampleStore, measure: Measure, make_plan: MakePlan, gpu: Device) -> None:
    agents = FakeFleet(measure, {"here/gpu0": FakeAgent(gpu, local=True)})
    trainer = FakeTrainer(agents, polls=1000)
    plan = make_plan({"sample": 150}, family="cublas", train={"every": 40, "min_rows": 40})
    assert Scheduler(plan, store, agents, trainer).run(stop=never)
    assert agents.polls < 100 and trainer.busy


def test_the_last_training_sees_every_row(store: SampleStore, fleet: MakeFleet, make_plan: MakePlan) -> None:
    agents = fleet(1)
    trainer = FakeTrainer(agents, polls=30)
    loop = Scheduler(_training_plan(make_plan), store, agents, trainer)
    assert loop.run(stop=never)
    loop.train_once_more(stop=never)
    assert trainer.started[-1] == (150, store.version)
    assert agents.pushed[-1][0] == b"model of 150"
    assert not trainer.busy
    started = len(trainer.started)
    loop.train_once_more(stop=never)  # nothing is new
    assert len(trainer.started) == started


def test_a_version_that_knows_all_rows_is_not_trained_again(store: SampleStore, fleet: MakeFleet, make_plan: MakePlan) -> None:
    plan = _training_plan(make_plan)
    assert Scheduler(plan, store, fleet(), None).run(stop=never)
    for trained, starts in ((150, 0), (149, 1)):
        agents = fleet(1)
        trainer = FakeTrainer(agents)
        loop = Scheduler(plan, store, agents, trainer, trained_rows=trained)
        assert loop.run(stop=never)
        loop.train_once_more(stop=never)
        assert len(trainer.started) == starts


def test_no_last_training_when_the_plan_says_so(store: SampleStore, fleet: MakeFleet, make_plan: MakePlan) -> None:
    agents = fleet(1)
    trainer = FakeTrainer(agents)
    loop = Scheduler(_training_plan(make_plan, 50, every=1000, at_end=False), store, agents, trainer)
    assert loop.run(stop=never)
    loop.train_once_more(stop=never)
    assert trainer.started == []


def test_stop_ends_the_wait_for_a_training(store: SampleStore, fleet: MakeFleet, make_plan: MakePlan) -> None:
    agents = fleet(1)
    trainer = FakeTrainer(agents, polls=4000)
    loop = Scheduler(_training_plan(make_plan, 60), store, agents, trainer)
    assert loop.run(stop=never)
    before = agents.polls
    loop.train_once_more(stop=lambda: agents.polls >= before + 2)
    assert trainer.busy and agents.polls == before + 2


# devices that somebody else uses


def _crowding(measure: Measure, crowded: Callable[[Cell, Device], bool]) -> Measure:
    def one(cell: Cell, device: Device) -> dict[str, Any]:
        row = measure(cell, device)
        return {**row, "status": "contended", "reason": "1 other process", "runtime_us": None} if crowded(cell, device) else row

    return one


def test_a_cell_that_was_contended_is_tried_again_and_better_later(store: SampleStore, make_plan: MakePlan, cpu: Device, measure: Measure) -> None:
    tries = Counter[str]()

    def once(cell: Cell, _: Device) -> bool:
        tries[cell.cell_id] += 1
        return tries[cell.cell_id] == 1 and cell.gemm.m % 2 == 0

    plan = make_plan({"sample": 60})
    fleet = FakeFleet(_crowding(measure, once), {"node0/cpu": FakeAgent(cpu)})
    assert Scheduler(plan, store, fleet, None).run(stop=never)
    assert _counts(store, plan_cells(plan, cpu).cells) == {"ok": 60}
    assert sum(tries.values()) > 60


def test_what_stays_contended_is_a_row_after_three_tries_and_the_run_ends(
    store: SampleStore, make_plan: MakePlan, cpu: Device, measure: Measure
) -> None:
    plan, clock = make_plan({"sample": 20}), iter(range(10**9))
    fleet = FakeFleet(_crowding(measure, lambda *_: True), {"node0/cpu": FakeAgent(cpu)})
    assert Scheduler(plan, store, fleet, None, now_s=lambda: float(next(clock))).run(stop=never)
    assert _counts(store, plan_cells(plan, cpu).cells) == {"contended": 20}
    assert set(fleet.measured.values()) == {MAX_CONTENDED}


def test_an_agent_on_a_crowded_device_rests_and_the_others_do_its_cells(
    store: SampleStore, make_plan: MakePlan, cpu: Device, measure: Measure
) -> None:
    crowded = replace(cpu, uuid="CPU-crowded")
    plan = make_plan({"sample": 200})
    fleet = FakeFleet(_crowding(measure, lambda _, device: device.uuid == crowded.uuid), {"a/cpu": FakeAgent(crowded), "b/cpu": FakeAgent(cpu)})
    assert Scheduler(plan, store, fleet, None, now_s=lambda: 0.0).run(stop=never)
    assert _counts(store, plan_cells(plan, cpu).cells) == {"ok": 200}
    assert sum(len(cells) for name, cells in fleet.leased if name == "a/cpu") < 100
