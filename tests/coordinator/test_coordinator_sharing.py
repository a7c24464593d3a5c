"""Devices that others use: agents wait, cells stay due, and a run ends all the same."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
from fake_fleet import FakeAgent, FakeFleet, Measure, make_scheduler, never, rows_by_status

from coordinator.fleet.cell_queue import MAX_CONTENDED
from coordinator.fleet.interface import Progress
from coordinator.fleet.record import RunRecord
from coordinator.fleet.scheduler import Scheduler
from coordinator.fleet.sharing import (
    LEAST_PATIENCE_S,
    LONGEST_PAUSE_S,
    MOST_PATIENCE_S,
    Sharing,
)
from coordinator.holder import Holder
from coordinator.plan.cells import plan_cells
from coordinator.plan.schema import Plan
from coordinator.progress import RunDisplay
from coordinator.samples.store import SampleStore
from coordinator.workspace import Workspace
from gemmcast.arrow import to_table
from gemmcast.cell import Cell
from gemmcast.device import Device
from gemmcast.rows import Row
from tests.made_up_clock import Clock

MakePlan = Callable[..., Plan]
REASON = "1 other process(es) hold this GPU"
CELLS = 100


# One agent


@pytest.fixture
def sharing(clock: Clock) -> Sharing:
    return Sharing(clock)


def _lease(sharing: Sharing, *statuses: str) -> bool:
    """A lease with these rows; whether the device was seen to be free again."""
    is_free = sharing.saw(statuses, [REASON if one == "contended" else None for one in statuses])
    sharing.lease_ended(len(statuses))
    return is_free


def test_a_lease_with_any_measured_cell_is_no_reason_to_wait(sharing: Sharing) -> None:
    for statuses in (["ok"], ["contended", "ok"], ["ok", "contended"], ["contended", "timeout"]):
        _lease(sharing, *statuses)
        assert not (sharing.is_shared or sharing.is_resting)


def test_pauses_grow_to_a_limit_and_begin_anew_when_the_device_was_free(
    sharing: Sharing, clock: Clock
) -> None:
    def pause_s() -> float:
        began_s = clock.now
        while sharing.is_resting:
            clock.now += 0.5
        return clock.now - began_s

    pauses = []
    for _ in range(8):
        assert not _lease(sharing, "contended", "contended")
        assert (sharing.is_shared, sharing.reason) == (True, REASON)
        pauses.append(pause_s())
    assert pauses == [1, 2, 4, 8, 16, 30, 30, LONGEST_PAUSE_S]
    assert _lease(sharing, "ok")
    assert not (sharing.is_shared or sharing.is_resting)
    assert not _lease(sharing, "ok")
    _lease(sharing, "contended")
    assert pause_s() == 1


@pytest.mark.parametrize(
    ("free_s", "patience_s"),
    [(0.0, LEAST_PATIENCE_S), (600.0, 600.0), (1e6, MOST_PATIENCE_S)],
)
def test_a_device_is_waited_for_as_long_as_it_was_free(
    sharing: Sharing, clock: Clock, free_s: float, patience_s: float
) -> None:
    clock.now += free_s
    _lease(sharing, "contended")
    clock.now += patience_s - 1
    _lease(sharing, "contended")
    assert not sharing.is_given_up
    clock.now += 2
    assert not sharing.is_given_up
    _lease(sharing, "contended")
    assert sharing.is_given_up
    _lease(sharing, "ok")
    assert not sharing.is_given_up


# A run


@dataclass
class Crowd:
    """Measures like `measure`, but a board is shared in some spans of time."""

    measure: Measure
    spans: dict[str, tuple[float, float]] = field(default_factory=dict)
    """Board -> from when until when, on the fleet's clock. [s]"""
    fleet: FakeFleet | None = None
    tries: Counter[str] = field(default_factory=Counter)

    def __call__(self, cell: Cell, device: Device) -> Row:
        assert self.fleet is not None
        self.tries[cell.cell_id] += 1
        row = self.measure(cell, device)
        from_s, until_s = self.spans.get(device.uuid, (0.0, 0.0))
        if from_s <= self.fleet.time_s < until_s:
            return {**row, "status": "contended", "reason": REASON, "runtime_us": None}
        return row


@pytest.fixture
def crowd(measure: Measure) -> Crowd:
    return Crowd(measure)


def _fleet(crowd: Crowd, *devices: Device, **options: Any) -> FakeFleet:
    agents = {f"node{i}/gpu0": FakeAgent(device) for i, device in enumerate(devices)}
    crowd.fleet = FakeFleet(crowd, agents, **options)
    return crowd.fleet


@pytest.fixture
def plan(make_plan: MakePlan) -> Plan:
    return make_plan({"sample": CELLS}, family="cublas", devices={"second_board": 0})


@pytest.fixture
def cells(plan: Plan, gpu: Device) -> list[Cell]:
    return plan_cells(plan, gpu).cells


def _run(plan: Plan, store: SampleStore, fleet: FakeFleet) -> tuple[Scheduler, list[Progress]]:
    scheduler = make_scheduler(plan, store, fleet)
    shown: list[Progress] = []
    assert scheduler.run(stop=never, show=lambda progress: shown.append(replace(progress)))
    return scheduler, shown


def test_a_run_goes_on_when_the_neighbour_has_left(
    store: SampleStore, crowd: Crowd, plan: Plan, cells: list[Cell], gpu: Device
) -> None:
    fleet = _fleet(crowd, gpu)
    crowd.spans[gpu.uuid] = (2.0, 42.0)
    scheduler, shown = _run(plan, store, fleet)
    assert rows_by_status(store, cells) == {"ok": CELLS}
    assert fleet.time_s > 42.0
    # It said all the time that it waits, and why.
    waiting = [progress.waiting for progress in shown]
    assert {"node0/gpu0": REASON} in waiting
    assert waiting[-1] == {}
    last = scheduler.progress
    assert (last.done, dict(last.statuses)) == (CELLS, {"ok": CELLS})
    # While it waits, a cell now and then shows whether the device is free.
    assert sum(crowd.tries.values()) < 2 * CELLS


@pytest.mark.parametrize("count", [1, 3, CELLS])
def test_a_device_that_is_always_shared_ends_the_run_and_its_cells_stay_due(
    store: SampleStore, crowd: Crowd, make_plan: MakePlan, gpu: Device, count: int
) -> None:
    plan = make_plan({"sample": count}, family="cublas")
    cells = plan_cells(plan, gpu).cells
    fleet = _fleet(crowd, gpu, batch=64)
    crowd.spans[gpu.uuid] = (0.0, 1e9)
    scheduler, _ = _run(plan, store, fleet)
    assert LEAST_PATIENCE_S < fleet.time_s < 2 * LEAST_PATIENCE_S + 5
    assert (scheduler.progress.cells, scheduler.progress.done) == (count, 0)
    # While it waits, one cell after another shows whether the device is free.
    probes = [len(cells) for _, cells in fleet.leased if len(cells) < count or count == 1]
    assert 5 <= len(probes) <= 9
    # Those that were tried are recorded, and have no answer.
    assert store.counts().keys() == {"contended"}
    assert store.committed == set()
    # The next run has the device for itself.
    crowd.spans.clear()
    scheduler, _ = _run(plan, store, _fleet(crowd, gpu))
    assert rows_by_status(store, cells) == {"ok": count}
    assert scheduler.progress.done == scheduler.progress.committed_now == count
    _run(plan, store, third := _fleet(crowd, gpu))
    assert third.leased == []


def test_the_last_cell_waits_for_a_neighbour_that_leaves_soon(
    store: SampleStore, crowd: Crowd, make_plan: MakePlan, gpu: Device
) -> None:
    plan = make_plan({"sample": 1}, family="cublas")
    fleet = _fleet(crowd, gpu)
    crowd.spans[gpu.uuid] = (0.0, 50.0)
    _run(plan, store, fleet)
    assert store.counts() == {"ok": 1}
    assert sum(crowd.tries.values()) > MAX_CONTENDED


def test_another_gpu_of_the_type_measures_what_the_shared_one_does_not(
    store: SampleStore, crowd: Crowd, plan: Plan, cells: list[Cell], gpu: Device
) -> None:
    other = replace(gpu, uuid="GPU-paper-1")
    fleet = _fleet(crowd, gpu, other)
    crowd.spans[gpu.uuid] = (0.0, 1e9)
    _run(plan, store, fleet)
    assert rows_by_status(store, cells) == {"ok": CELLS}
    assert set(store.read()["device_uuid"].to_pylist()) == {other.uuid}
    assert fleet.time_s < LEAST_PATIENCE_S


def test_a_gpu_that_was_given_up_comes_back_while_others_measure(
    store: SampleStore,
    crowd: Crowd,
    make_plan: MakePlan,
    gpu: Device,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("coordinator.fleet.sharing.LEAST_PATIENCE_S", 5.0)
    other = replace(gpu, uuid="GPU-paper-1")
    plan = make_plan({"sample": 150, "max": 4096}, family="cublas", devices={"second_board": 0})
    fleet = _fleet(crowd, gpu, other, batch=1)
    crowd.spans[gpu.uuid] = (0.0, 10.0)
    _run(plan, store, fleet)
    assert store.counts() == {"ok": 150}
    assert store.read()["device_uuid"].to_pylist().count(gpu.uuid) > 10


def test_on_a_cpu_a_cell_that_is_always_interrupted_ends_after_some_tries(
    store: SampleStore, measure: Measure, make_plan: MakePlan, cpu: Device
) -> None:
    """Others come and go there all the time: it is not one of them that leaves."""
    plan = make_plan({"sample": 40})
    long = max(plan_cells(plan, cpu).cells, key=lambda cell: cell.gemm.flops)

    def interrupted(cell: Cell, device: Device) -> Row:
        row = measure(cell, device)
        return {**row, "status": "contended"} if cell == long else row

    fleet = FakeFleet(interrupted, {"node0/cpu": FakeAgent(cpu)})
    scheduler, _ = _run(plan, store, fleet)
    assert store.counts() == {"ok": 39, "contended": 1}
    assert fleet.measured[long.cell_id] == MAX_CONTENDED
    assert (scheduler.progress.cells, scheduler.progress.done) == (40, 39)
    assert fleet.time_s < 20


def test_a_cpu_that_others_use_all_the_time_ends_the_run_too(
    store: SampleStore, crowd: Crowd, make_plan: MakePlan, cpu: Device
) -> None:
    fleet = _fleet(crowd, cpu)
    crowd.spans[cpu.uuid] = (0.0, 1e9)
    scheduler, _ = _run(make_plan({"sample": 20}), store, fleet)
    assert (scheduler.progress.cells, scheduler.progress.done) == (20, 0)
    assert fleet.time_s < 2 * LEAST_PATIENCE_S


# What people are told


def test_the_end_of_a_run_says_what_is_due_and_status_repeats_it(
    tmp_path: Path, coordinator: Callable[..., Any], crowd: Crowd, cells: list[Cell], gpu: Device
) -> None:
    crowd.spans[gpu.uuid] = (0.0, 1e9)
    _fleet(crowd, gpu)
    workspace = tmp_path / "workspace"
    SampleStore.open(workspace / "samples", create=True).append([to_table([crowd(cells[0], gpu)])])
    progress = Progress(cells=30, done=18, second_due=1, agents=1)
    left = RunRecord.of(progress, is_at_end=True)
    assert left.lines() == [
        "Still due, because other processes used the devices: 12 cells. "
        "Run the same plan again for them.",
        "Due on a second board of the same type: 1 cell.",
    ]
    (workspace / "run.json").write_bytes(left.to_json())
    shown = coordinator("status", "--workspace", workspace).stdout
    assert "12 (contended): run the same plan again" in shown
    assert "due on a second board" in shown
    values = json.loads(coordinator("status", "--workspace", workspace, "--json").stdout)
    assert (values["contended_due"], values["second_due"], values["waiting"]) == (12, 1, {})
    # A run that was stopped has not left them: it goes on.
    assert RunRecord.of(progress, is_at_end=False).contended_due == 0
    assert RunRecord.of(Progress(cells=30, done=30), is_at_end=True).lines() == []


def test_status_says_which_agent_waits_and_why_while_the_run_lives(
    tmp_path: Path, coordinator: Callable[..., Any]
) -> None:
    workspace = Workspace(tmp_path / "workspace")
    progress = Progress(cells=30, agents=1, waiting={"node0/gpu0": REASON})
    with workspace.locked():
        SampleStore.open(workspace.samples, create=True)
        workspace.run.write_bytes(RunRecord.waiting_in(progress).to_json())
        shown = coordinator("status", "--workspace", workspace.path).stdout
        (line,) = [line for line in shown.splitlines() if "waits" in line]
        assert line.split(maxsplit=2) == ["node0/gpu0", "waits", REASON]
    # Killed, it cannot take the note back.
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    holder = Holder(host=socket.gethostname(), pid=dead.pid)
    (workspace.path / "holder").write_text(holder.to_json())
    assert "waits" not in coordinator("status", "--workspace", workspace.path).stdout
    workspace.run.write_bytes(b"{")
    assert coordinator("status", "--workspace", workspace.path).returncode == 0


def test_the_progress_line_says_who_waits_and_why() -> None:
    waiting = {"node0/gpu0": REASON}
    display = RunDisplay()
    run = Progress(cells=30, done=3, agents=2, waiting=waiting, second_due=2)
    assert f"2 agents, node0/gpu0 waits ({REASON}), no model" in display.details(run, None)
    run.waiting["node1/gpu0"] = "2 other process(es) hold this GPU"
    assert f"node0/gpu0 and 1 more wait ({REASON})" in display.details(run, None)
    run = Progress(cells=30, done=30, agents=2, second_due=2)
    assert "2 for a second board" in display.details(run, None)


def test_an_older_store_with_contended_cells_is_continued(
    tmp_path: Path, crowd: Crowd, plan: Plan, cells: list[Cell], gpu: Device
) -> None:
    crowd.spans[gpu.uuid] = (0.0, 1e9)
    _fleet(crowd, gpu)
    rows = [crowd(cell, gpu) for cell in cells[:10]]
    crowd.spans.clear()
    rows += [crowd(cell, gpu) for cell in cells[10:20]]
    SampleStore.open(tmp_path / "samples", create=True).append([to_table(rows)])
    store = SampleStore.open(tmp_path / "samples", create=True)
    assert store.counts() == {"contended": 10, "ok": 10}
    scheduler, _ = _run(plan, store, _fleet(crowd, gpu))
    assert rows_by_status(store, cells) == {"ok": CELLS}
    assert scheduler.progress.committed_now == CELLS - 10
    sample_ids = store.read()["sample_id"].to_pylist()
    assert len(set(sample_ids)) == CELLS
