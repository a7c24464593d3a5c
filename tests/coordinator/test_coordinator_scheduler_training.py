"""The scheduler over a fake fleet: trainings that take long, and the way of their models."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import count, pairwise
from typing import Any

import pyarrow as pa
import pytest
from fake_fleet import (
    FakeAgent,
    FakeFleet,
    FakeTrainer,
    Measure,
    make_scheduler,
    never,
    rows_by_status,
    run_all,
)

from coordinator.fleet.commits import COMMIT_S
from coordinator.plan.cells import plan_cells
from coordinator.plan.schema import Plan
from coordinator.samples.store import SampleStore
from gemmcast.cell import Cell
from gemmcast.device import Device
from gemmcast.modeldir import ShippedModel
from gemmcast.tabledir import Shipped, version_of

MakePlan = Callable[..., Plan]
MakeFleet = Callable[..., FakeFleet]


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
    assert agents.pushed[0] == (ShippedModel(data=f"model of {rows[0]}".encode()), "1")
    assert all(version > 0 for _, version in trainer.started)


def test_the_loop_does_not_read_the_store_for_a_training(
    store: SampleStore, fleet: MakeFleet, make_plan: MakePlan, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> pa.Table:
        raise AssertionError("nothing is leased or committed meanwhile")

    monkeypatch.setattr(store, "read", refuse)
    agents = fleet(1)
    trainer = FakeTrainer(agents)
    run_all(_training_plan(make_plan), store, agents, trainer)
    assert len(trainer.started) == 3


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
    assert rows_by_status(store, plan_cells(plan, cpu).cells) == {"ok": 400}
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
    assert agents.pushed[-1][0].data == b"model of 150"
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

    def newest(self) -> tuple[ShippedModel, str] | None:
        due = [poll for poll in self._at_polls if poll <= self._fleet.polls]
        if not due:
            return None
        version = self._at_polls.pop(due[0])
        return ShippedModel(data=f"model {version}".encode()), version


def test_a_version_that_is_promoted_during_a_run_is_pushed_without_a_training(
    store: SampleStore, fleet: MakeFleet, make_plan: MakePlan
) -> None:
    agents = fleet(2)
    champions = Promoted(agents, {0: "2", 5: "3", 8: "2"})
    scheduler = make_scheduler(make_plan({"sample": 200}), store, agents, champions=champions)
    assert scheduler.run(stop=never)
    pushed = [(model.data, version) for model, version in agents.pushed]
    assert pushed == [(b"model 2", "2"), (b"model 3", "3"), (b"model 2", "2")]
    state = agents.delivery.state()
    assert (state.version, state.nodes, state.nodes_with_version) == ("2", 2, 2)


class PromotedTables:
    """Tables that are champions from a poll of a fleet on."""

    def __init__(self, fleet: FakeFleet, at_poll: int, tables: Sequence[Shipped]) -> None:
        self._fleet = fleet
        self._at_poll = at_poll
        self._tables: Sequence[Shipped] | None = tables

    def newest(self) -> tuple[Sequence[Shipped], str] | None:
        if self._tables is None or self._fleet.polls < self._at_poll:
            return None
        tables, self._tables = self._tables, None
        return tables, version_of(tables)


def test_tables_that_are_promoted_during_a_run_are_pushed_and_waited_for(
    store: SampleStore, fleet: MakeFleet, make_plan: MakePlan
) -> None:
    agents = fleet(2)
    shipped = [Shipped(data=b"a table", version="3")]
    tables = PromotedTables(agents, 5, shipped)
    scheduler = make_scheduler(make_plan({"sample": 200}), store, agents, tables=tables)
    assert scheduler.run(stop=never)
    assert agents.pushed_tables == [(shipped, version_of(shipped))]
    assert agents.tables_delivery.state().nodes_with_version == 2
    late = PromotedTables(agents, 0, [Shipped(data=b"another", version="4")])
    scheduler = make_scheduler(make_plan({"sample": 200}), store, agents, tables=late)
    agents.silent = {"node1/cpu"}
    scheduler.deliver(20.0, stop=never)
    state = agents.tables_delivery.state()
    assert state.nodes_with_version == 1
    assert "not taken by node1/cpu (no answer for 10 s)" in state.text()


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

    def newest(self) -> tuple[ShippedModel, str] | None:
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
