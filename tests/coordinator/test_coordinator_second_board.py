"""Cells that two boards measure: once on each, through deaths and restarts, and never for ever."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from fake_fleet import FakeAgent, FakeFleet, Measure, make_scheduler, never, run_all

from coordinator.fleet.cell_queue import MAX_CONTENDED, CellQueue
from coordinator.fleet.commits import CommitQueue
from coordinator.fleet.deaths import RETURN_S
from coordinator.fleet.due import Due
from coordinator.fleet.scheduler import Scheduler
from coordinator.plan.cells import plan_cells
from coordinator.plan.schema import Plan
from coordinator.samples.store import SampleStore
from gemmcast.arrow import to_table
from gemmcast.cell import Cell
from gemmcast.device import Device
from gemmcast.rows import Row

MakePlan = Callable[..., Plan]
CELLS = 120
BOARDS = ("GPU-a", "GPU-b", "GPU-c")


@pytest.fixture
def plan(make_plan: MakePlan) -> Plan:
    return make_plan({"sample": CELLS}, family="cublas", devices={"second_board": 0.3})


@pytest.fixture
def drawn(plan: Plan, gpu: Device) -> set[str]:
    cells = plan_cells(plan, gpu).cells
    return {cell.cell_id for cell in cells if plan.devices.has_second_board(cell)}


@pytest.fixture
def boards(measure: Measure, gpu: Device) -> Callable[..., FakeFleet]:
    """A fleet of boards of one type, by their UUIDs."""

    def make(*uuids: str, measured_by: Measure = measure, **options: Any) -> FakeFleet:
        agents = {f"node-{uuid}/gpu0": FakeAgent(replace(gpu, uuid=uuid)) for uuid in uuids}
        return FakeFleet(measured_by, agents, **options)

    return make


def _boards_by_cell(store: SampleStore, status: str | None = None) -> dict[str, set[str]]:
    """Cell -> boards that have a row of it, each of them one."""
    found: dict[str, set[str]] = defaultdict(set)
    table = store.read()
    for row in table.to_pylist():
        if status in (None, row["status"]):
            assert row["device_uuid"] not in found[row["cell_id"]]
            found[row["cell_id"]].add(row["device_uuid"])
    assert len(set(table["sample_id"].to_pylist())) == len(table)
    return found


def _is_settled(store: SampleStore, plan: Plan, gpu: Device, drawn: set[str]) -> None:
    """Every cell is there once, and those that are drawn on two boards."""
    found = _boards_by_cell(store)
    assert found.keys() == {cell.cell_id for cell in plan_cells(plan, gpu).cells}
    assert {cell_id for cell_id, boards in found.items() if len(boards) == 2} == drawn
    assert max(map(len, found.values())) == 2


def test_the_share_is_drawn_by_the_cells_id(make_plan: MakePlan, gpu: Device) -> None:
    plan = make_plan({"sample": 4000, "max": 16384}, family="cublas")
    cells = plan_cells(plan, gpu).cells

    def drawn(share: float) -> set[str]:
        devices = plan.devices.model_copy(update={"second_board": share})
        return {cell.cell_id for cell in cells if devices.has_second_board(cell)}

    assert plan.devices.second_board == 0.05
    assert 160 < len(drawn(0.05)) < 240
    assert drawn(0.05) < drawn(0.1)
    assert (drawn(0.0), len(drawn(1.0))) == (set(), len(cells))


@pytest.mark.parametrize(
    "devices", [{"replicate": "per_gpu"}, {"kind": "replay", "dataset": "x.parquet"}]
)
def test_where_each_board_measures_all_or_none_is_real_no_cell_is_drawn(
    make_plan: MakePlan, gpu: Device, devices: dict[str, Any]
) -> None:
    plan = make_plan(family="cublas", devices={"second_board": 1.0, **devices})
    cells = plan_cells(plan, gpu).cells
    assert not any(map(plan.devices.has_second_board, cells))


@pytest.mark.parametrize("count", [2, 3])
def test_drawn_cells_are_measured_by_two_boards(
    store: SampleStore,
    boards: Callable[..., FakeFleet],
    plan: Plan,
    drawn: set[str],
    gpu: Device,
    count: int,
) -> None:
    fleet = boards(*BOARDS[:count])
    progress = run_all(plan, store, fleet).progress
    _is_settled(store, plan, gpu, drawn)
    assert (progress.cells, progress.done, progress.second_due) == (CELLS, CELLS, 0)
    assert progress.committed_now == CELLS + len(drawn)
    measured = Counter(fleet.measured.values())
    assert measured == {1: CELLS - len(drawn), 2: len(drawn)}
    # Nothing is left for another run, nor for another board.
    run_all(plan, store, again := boards(*BOARDS))
    assert again.leased == []


def test_second_measurements_come_as_soon_as_they_fill_a_lease(
    store: SampleStore, boards: Callable[..., FakeFleet], make_plan: MakePlan
) -> None:
    """Boards may not be there for long."""
    plan = make_plan({"sample": 600, "max": 4096}, family="cublas", devices={"second_board": 0.3})
    fleet = boards(*BOARDS[:2], batch=16)
    run_all(plan, store, fleet)
    seen = set[str]()
    firsts, seconds = [], []
    for i, (_, cells) in enumerate(fleet.leased):
        ids = {cell.cell_id for cell in cells}
        (seconds if ids & seen else firsts).append(i)
        seen |= ids
    assert min(seconds) < max(firsts) - 3


def test_one_board_ends_the_run_and_the_day_comes_when_there_is_another(
    store: SampleStore,
    boards: Callable[..., FakeFleet],
    plan: Plan,
    drawn: set[str],
    gpu: Device,
) -> None:
    progress = run_all(plan, store, boards("GPU-a")).progress
    assert (progress.done, progress.second_due) == (CELLS, len(drawn))
    run_all(plan, store, same := boards("GPU-a"))
    assert same.leased == []
    # Two agents on one board, as on a host with two nodes of Ray.
    fleet = boards("GPU-a")
    fleet.agents["second/gpu0"] = FakeAgent(fleet.agents["node-GPU-a/gpu0"].device)
    run_all(plan, store, fleet)
    assert fleet.leased == []
    progress = run_all(plan, store, other := boards("GPU-b")).progress
    assert sum(other.measured.values()) == len(drawn)
    _is_settled(store, plan, gpu, drawn)
    assert (progress.done, progress.second_due) == (CELLS, 0)


def test_a_coordinator_that_is_killed_again_and_again_measures_no_cell_twice_on_a_board(
    store: SampleStore,
    boards: Callable[..., FakeFleet],
    plan: Plan,
    drawn: set[str],
    gpu: Device,
) -> None:
    for start in range(12):
        fleet = boards(*BOARDS[start % 2 : start % 2 + 2])
        scheduler = make_scheduler(plan, store, fleet)
        scheduler.run(stop=lambda fleet=fleet: fleet.polls > 8)
    run_all(plan, store, boards(*BOARDS))
    _is_settled(store, plan, gpu, drawn)


def test_an_agent_that_dies_under_its_second_measurement_is_no_loss(
    store: SampleStore,
    boards: Callable[..., FakeFleet],
    plan: Plan,
    drawn: set[str],
    gpu: Device,
) -> None:
    run_all(plan, store, boards("GPU-a"))
    deadly = min(drawn)

    def dies(agent: str, cell: Cell) -> bool:
        return cell.cell_id == deadly

    fleet = boards("GPU-a", "GPU-b", dies=dies, batch=1)
    run_all(plan, store, fleet)
    _is_settled(store, plan, gpu, drawn)
    # On the other board only, until it is given up there.
    assert fleet.deaths == {deadly: 3}
    assert fleet.cells_leased_to("node-GPU-a/gpu0") == 0
    statuses = [row["status"] for row in store.read().to_pylist() if row["cell_id"] == deadly]
    assert sorted(statuses) == ["agent_lost", "ok"]


def test_a_cell_that_fails_on_one_board_is_measured_on_two_others(
    store: SampleStore,
    boards: Callable[..., FakeFleet],
    measure: Measure,
    plan: Plan,
    drawn: set[str],
) -> None:
    def throttled_on_a(cell: Cell, device: Device) -> Row:
        row = measure(cell, device)
        return {**row, "status": "throttled"} if device.uuid == "GPU-a" else row

    run_all(plan, store, boards("GPU-a", measured_by=throttled_on_a))
    assert store.counts() == {"throttled": CELLS}
    run_all(plan, store, boards(*BOARDS, measured_by=throttled_on_a))
    assert store.counts() == {"throttled": CELLS, "ok": 2 * len(drawn)}
    measured = _boards_by_cell(store, "ok")
    assert measured.keys() == drawn
    assert all(boards == {"GPU-b", "GPU-c"} for boards in measured.values())


def test_a_cell_that_fails_on_two_boards_is_not_tried_on_a_third(
    store: SampleStore,
    boards: Callable[..., FakeFleet],
    measure: Measure,
    plan: Plan,
    drawn: set[str],
) -> None:
    def incorrect(cell: Cell, device: Device) -> Row:
        return {**measure(cell, device), "status": "incorrect"}

    progress = run_all(plan, store, boards(*BOARDS, measured_by=incorrect)).progress
    assert store.counts() == {"incorrect": CELLS + len(drawn)}
    assert progress.second_due == 0


def test_a_board_that_is_shared_keeps_no_run_waiting_for_second_measurements(
    store: SampleStore,
    boards: Callable[..., FakeFleet],
    measure: Measure,
    plan: Plan,
    drawn: set[str],
) -> None:
    def contended_on_b(cell: Cell, device: Device) -> Row:
        row = measure(cell, device)
        return {**row, "status": "contended"} if device.uuid == "GPU-b" else row

    run_all(plan, store, boards("GPU-a"))
    fleet = boards("GPU-a", "GPU-b", measured_by=contended_on_b)
    progress = run_all(plan, store, fleet).progress
    assert fleet.time_s < RETURN_S / 2
    # The first answers stay, and no record stands beside them.
    assert store.counts() == {"ok": CELLS}
    assert (progress.done, progress.second_due) == (CELLS, len(drawn))


def test_what_was_contended_too_often_is_tried_again_on_a_free_device(
    store: SampleStore, plan: Plan, gpu: Device, measure: Measure
) -> None:
    here, elsewhere = plan_cells(plan, gpu).cells[:2]
    store.append([to_table([measure(elsewhere, replace(gpu, uuid="GPU-a"))])])
    commits = CommitQueue(store, lambda: 0.0)
    commits.take_each_board([elsewhere.cell_id])
    queue = CellQueue(gpu.name, [here], [elsewhere], Due(commits))
    assert (list(queue.first), queue.seconds("GPU-b")) == ([here], [elsewhere])
    for tried in range(1, MAX_CONTENDED + 1):
        queue.note_contended(here.cell_id)
        queue.note_contended(elsewhere.cell_id)
        queue.give_back([queue.first.popleft(), elsewhere])
        assert len(queue.first) == len(queue.seconds("GPU-b")) == (tried < MAX_CONTENDED)
    queue.try_again()
    assert (list(queue.first), queue.seconds("GPU-b")) == ([here], [elsewhere])
    queue.note_contended(here.cell_id)
    queue.give_back([queue.first.popleft()])
    assert list(queue.first) == [here]


def test_a_board_that_is_free_again_measures_what_it_could_not(
    store: SampleStore,
    boards: Callable[..., FakeFleet],
    measure: Measure,
    make_plan: MakePlan,
    plan: Plan,
) -> None:
    def contended_on_b(cell: Cell, device: Device) -> Row:
        row = measure(cell, device)
        is_shared = device.uuid == "GPU-b" and fleet.time_s < 30.0
        return {**row, "status": "contended"} if is_shared else row

    run_all(plan, store, boards("GPU-a"))
    fleet = boards("GPU-a", "GPU-b", measured_by=contended_on_b, batch=1)
    more = make_plan({"sample": 3 * CELLS}, family="cublas", devices={"second_board": 0.3})
    progress = run_all(more, store, fleet).progress
    assert max(fleet.measured.values()) > MAX_CONTENDED
    assert progress.second_due == 0


def test_a_board_that_is_gone_for_good_ends_the_run(
    store: SampleStore,
    boards: Callable[..., FakeFleet],
    plan: Plan,
    drawn: set[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    run_all(plan, store, boards("GPU-a"))
    fleet = boards("GPU-a", "GPU-b")
    here = fleet.ready_agents
    gone = "node-GPU-b/gpu0"

    def ready_agents() -> Any:
        return [ready for ready in here() if ready.agent != gone]

    fleet.gone.add(gone)
    monkeypatch.setattr(fleet, "ready_agents", ready_agents)
    scheduler: Scheduler = make_scheduler(plan, store, fleet)
    assert scheduler.run(stop=never)
    assert RETURN_S < fleet.time_s < RETURN_S + 5
    assert scheduler.progress.second_due == len(drawn)
