"""A store that is down while a run lasts: agents wait, the pauses grow, nothing is lost."""

from __future__ import annotations

import errno
import shutil
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path

import pyarrow as pa
import pytest
from fake_fleet import FakeAgent, FakeFleet, Measure, make_scheduler

from coordinator.fleet import commits
from coordinator.fleet.commits import (
    LONGEST_PAUSE_S,
    MISSING_LIMIT_S,
    StoreLostError,
)
from coordinator.fleet.trainer import read_when_it_answers
from coordinator.plan.cells import plan_cells
from coordinator.plan.schema import Plan
from coordinator.samples.log import DamagedLogError, OvertakenError
from coordinator.samples.store import MissingStoreError, SampleStore
from gemmcast.arrow import to_table
from gemmcast.device import Device
from gemmcast.errors import InputError, UnavailableError, WorkspaceError

MakePlan = Callable[..., Plan]
CELLS = 300


class FailingStore(SampleStore):
    """A store that fails between two moments of the fleet's clock."""

    fleet: FakeFleet
    fails_from_s: float
    fails_until_s: float
    tries_s: list[float]
    error: Exception = UnavailableError("sample store s3://bucket: connection refused")

    def _fail(self) -> None:
        self.tries_s.append(self.fleet.time_s)
        if self.fails_from_s <= self.fleet.time_s < self.fails_until_s:
            raise self.error

    def append(self, tables: Sequence[pa.Table]) -> pa.Table:
        self._fail()
        return super().append(tables)


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
    assert line.startswith("sample store s3://bucket: connection refused; for 123 s now ")
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


def test_a_store_that_fails_for_too_long_ends_the_run(
    failing: MakeStore, fleet: FakeFleet, plan: Plan, monkeypatch: pytest.MonkeyPatch
) -> None:
    limit_s = 600.0
    monkeypatch.setattr(commits, "STORE_LIMIT_S", limit_s)
    store = failing(5, 1e9)
    message = (
        "connection refused, for 1[01] minutes; [0-9]+ rows are lost, the rest is safe: mend it"
    )
    with pytest.raises(StoreLostError, match=message):
        make_scheduler(plan, store, fleet).run(stop=lambda: False)
    assert limit_s <= fleet.time_s < limit_s + 2 * LONGEST_PAUSE_S
    assert not isinstance(StoreLostError(""), InputError | WorkspaceError), "exit code 1"


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, "No space left on device"),
        PermissionError(errno.EACCES, "Permission denied", "samples"),
        FileNotFoundError(errno.ENOENT, "No such file or directory", "samples/_delta_log"),
        DamagedLogError("sample store samples is damaged (version 3 is not what was committed)"),
    ],
)
def test_no_hiccup_of_the_store_ends_the_run(
    failing: MakeStore,
    fleet: FakeFleet,
    plan: Plan,
    error: Exception,
    caplog: pytest.LogCaptureFixture,
) -> None:
    store = failing(5, 60)
    store.error = error
    assert make_scheduler(plan, store, fleet).run(stop=lambda: False)
    assert len(store.read()) == CELLS
    assert set(fleet.measured.values()) == {1}
    assert "rows wait, agents get no cells; next try in 1 s" in caplog.text


def move_away(store: SampleStore, fleet: FakeFleet, path: Path, until_s: float) -> None:
    """The folder of the store is gone from 5 s on."""
    append = store.append
    away = path.with_name("away")

    def moved(tables: Sequence[pa.Table]) -> pa.Table:
        if 5 <= fleet.time_s < until_s and not away.exists():
            path.rename(away)
        if fleet.time_s >= until_s and away.exists():
            shutil.rmtree(path, ignore_errors=True)
            away.rename(path)
        return append(tables)

    store.append = moved  # type: ignore[method-assign]


def test_a_store_whose_disk_is_mounted_again_goes_on(
    tmp_path: Path, fleet: FakeFleet, plan: Plan, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "samples"
    store = SampleStore.open(path, create=True)
    move_away(store, fleet, path, until_s=40)
    assert make_scheduler(plan, store, fleet).run(stop=lambda: False)
    assert "is not there any more: it was deleted, or its disk is not mounted" in caplog.text
    ids = SampleStore.open(path, create=False).read()["cell_id"].to_pylist()
    assert len(ids) == len(set(ids)) == CELLS
    assert set(fleet.measured.values()) == {1}


def test_a_store_that_was_deleted_ends_the_run_soon(
    tmp_path: Path, fleet: FakeFleet, plan: Plan
) -> None:
    path = tmp_path / "samples"
    store = SampleStore.open(path, create=True)
    move_away(store, fleet, path, until_s=1e9)
    with pytest.raises(
        StoreLostError, match="it was deleted, or its disk is not mounted, for 2 min"
    ):
        make_scheduler(plan, store, fleet).run(stop=lambda: False)
    assert fleet.time_s < 2 * MISSING_LIMIT_S


def test_what_is_answered_stays_answered_while_the_store_is_away(
    tmp_path: Path, plan: Plan, measure: Measure, cpu: Device
) -> None:
    """A training that reads meanwhile must not make its cells due again."""
    path = tmp_path / "samples"
    store = SampleStore.open(path, create=True)
    rows = to_table([measure(cell, cpu) for cell in plan_cells(plan, cpu).cells[:3]])
    store.append([rows])
    path.rename(tmp_path / "away")
    with pytest.raises(MissingStoreError):
        store.read()
    (tmp_path / "away").rename(path)
    assert len(store.append([rows])) == 0
    assert len(store.read()) == 3


def test_a_training_waits_for_the_store(
    tmp_path: Path, plan: Plan, measure: Measure, cpu: Device, caplog: pytest.LogCaptureFixture
) -> None:
    path, away = tmp_path / "samples", tmp_path / "away"
    store = SampleStore.open(path, create=True)
    store.append([to_table([measure(cell, cpu) for cell in plan_cells(plan, cpu).cells[:3]])])
    expected, waits = store.read(), list[float]()

    def wait(seconds: float) -> None:
        waits.append(seconds)
        if len(waits) == 3:
            away.rename(path)

    path.rename(away)
    assert read_when_it_answers(store.snapshot(), wait).equals(expected)
    assert waits == [1.0, 2.0, 4.0]
    assert "is not there any more: the training waits; next try in 4 s" in caplog.text


def test_a_training_does_not_wait_for_ever(
    tmp_path: Path, plan: Plan, measure: Measure, cpu: Device
) -> None:
    path = tmp_path / "samples"
    store = SampleStore.open(path, create=True)
    store.append([to_table([measure(cell, cpu) for cell in plan_cells(plan, cpu).cells[:3]])])
    path.rename(tmp_path / "away")
    waits: list[float] = []
    with pytest.raises(StoreLostError, match="is not there any more, for 6[01] minutes"):
        read_when_it_answers(store.snapshot(), waits.append)
    assert sum(waits) >= commits.STORE_LIMIT_S


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
