"""A store that is down while a run lasts: agents wait, the pauses grow, nothing is lost."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path

import pyarrow as pa
import pytest
from fake_fleet import FakeAgent, FakeFleet, FakeTrainer, Measure, make_scheduler

from coordinator.fleet.commits import LONGEST_PAUSE_S
from coordinator.plan.cells import plan_cells
from coordinator.plan.schema import Plan
from coordinator.samples.log import OvertakenError
from coordinator.samples.store import SampleStore
from gemmcast.device import Device
from gemmcast.errors import UnavailableError

MakePlan = Callable[..., Plan]
CELLS = 300


class FailingStore(SampleStore):
    """A store that fails between two moments of the fleet's clock."""

    fleet: FakeFleet
    fails_from_s: float
    fails_until_s: float
    tries_s: list[float]

    def _fail(self) -> None:
        self.tries_s.append(self.fleet.time_s)
        if self.fails_from_s <= self.fleet.time_s < self.fails_until_s:
            raise UnavailableError("sample store s3://bucket: connection refused")

    def append(self, tables: Sequence[pa.Table]) -> pa.Table:
        self._fail()
        return super().append(tables)

    def read(self, *, version: int | None = None) -> pa.Table:
        self._fail()
        return super().read(version=version)


MakeStore = Callable[..., FailingStore]


@pytest.fixture
def fleet(measure: Measure, cpu: Device) -> FakeFleet:
    return FakeFleet(measure, {"a": FakeAgent(cpu), "b": FakeAgent(cpu)})


@pytest.fixture
def failing(tmp_path: Path, fleet: FakeFleet) -> MakeStore:
    """A store that fails in a window of time."""

    def make(from_s: float, until_s: float) -> FailingStore:
        store = SampleStore.open(tmp_path / "samples", create=True)
        store.__class__ = FailingStore
        assert isinstance(store, FailingStore)
        store.fleet, store.tries_s = fleet, []
        store.fails_from_s, store.fails_until_s = from_s, until_s
        return store

    return make


@pytest.fixture
def plan(make_plan: MakePlan) -> Plan:
    return make_plan({"sample": CELLS, "max": 4096})


def test_every_cell_is_committed_once_when_the_store_is_back(
    failing: MakeStore, fleet: FakeFleet, plan: Plan, cpu: Device, caplog: pytest.LogCaptureFixture
) -> None:
    store = failing(5, 150)
    scheduler = make_scheduler(plan, store, fleet)
    assert scheduler.run(stop=lambda: False)
    ids = store.read()["cell_id"].to_pylist()
    assert sorted(ids) == sorted(cell.cell_id for cell in plan_cells(plan, cpu).cells)
    assert set(fleet.measured.values()) == {1}
    assert scheduler.progress.done == scheduler.progress.committed_now == CELLS
    line = caplog.records[-1].getMessage()
    assert line.startswith("sample store s3://bucket: connection refused; ")
    assert line.endswith("rows wait, agents get no cells; next try in 60 s")


def test_agents_are_held_back_and_pauses_grow(
    failing: MakeStore, fleet: FakeFleet, plan: Plan
) -> None:
    store = failing(5, 600)
    leased_at: list[float] = []
    lease = fleet.lease

    def noted(*arguments: object) -> None:
        leased_at.append(fleet.time_s)
        lease(*arguments)  # type: ignore[arg-type]

    fleet.lease = noted  # type: ignore[method-assign, assignment]
    assert make_scheduler(plan, store, fleet).run(stop=lambda: False)
    failed_s = [time_s for time_s in store.tries_s if 5 <= time_s < 600]
    assert not [time_s for time_s in leased_at if failed_s[0] < time_s < 600]
    pauses = [round(later - earlier) for earlier, later in pairwise(failed_s)]
    assert pauses[:7] == [1, 2, 4, 8, 16, 32, LONGEST_PAUSE_S]
    assert set(pauses[6:]) == {LONGEST_PAUSE_S}


def test_a_run_that_is_stopped_meanwhile_says_what_is_measured_again(
    failing: MakeStore, fleet: FakeFleet, plan: Plan, caplog: pytest.LogCaptureFixture
) -> None:
    store = failing(0, 1e9)
    assert not make_scheduler(plan, store, fleet).run(stop=lambda: fleet.time_s > 20)
    waiting = sum(fleet.measured.values())
    assert f"{waiting} rows are lost: measured again by the next run" in caplog.text
    store.fails_until_s = 0
    for agent in fleet.agents.values():
        agent.leases.clear()
    assert make_scheduler(plan, store, fleet).run(stop=lambda: False)
    assert len(store.read()) == CELLS


def test_the_last_training_waits_for_the_store(
    failing: MakeStore, fleet: FakeFleet, make_plan: MakePlan
) -> None:
    plan = make_plan({"sample": 40}, train={"min_rows": 20, "every": 1000})
    store, trainer = failing(0, 0), FakeTrainer(fleet)
    scheduler = make_scheduler(plan, store, fleet, trainer)
    assert scheduler.run(stop=lambda: False)
    store.fails_from_s, store.fails_until_s = fleet.time_s, fleet.time_s + 100
    scheduler.train_once_more(stop=lambda: False)
    assert [rows for rows, _ in trainer.started] == [40]


def test_a_store_that_another_process_writes_ends_the_run(
    failing: MakeStore, fleet: FakeFleet, plan: Plan, tmp_path: Path, measure: Measure, cpu: Device
) -> None:
    store = failing(0, 0)
    other = SampleStore.open(tmp_path / "samples", create=True)
    rows = [measure(cell, cpu) for cell in plan_cells(plan, cpu).cells[-2:]]
    other.append([pa.Table.from_pylist(rows, schema=other.read().schema)])
    with pytest.raises(OvertakenError, match="another process has written to the sample store"):
        make_scheduler(plan, store, fleet).run(stop=lambda: False)
    assert len(SampleStore.open(tmp_path / "samples", create=False).read()) == 2
