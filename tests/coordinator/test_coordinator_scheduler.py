"""The scheduler over a fake fleet: what is measured, by whom, and how often."""

from __future__ import annotations

from collections import Counter, deque
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

from coordinator.fleet.cell_queue import POWER_CELL, take_cells
from coordinator.fleet.commits import COMMIT_S
from coordinator.fleet.interface import Progress
from coordinator.plan.cells import plan_cells
from coordinator.plan.schema import Plan
from coordinator.samples.store import SampleStore
from gemmcast.cell import Cell
from gemmcast.device import Device
from gemmcast.errors import InputError

MakePlan = Callable[..., Plan]
MakeFleet = Callable[..., FakeFleet]


def test_every_cell_is_measured_once(
    store: SampleStore, fleet: MakeFleet, make_plan: MakePlan, cpu: Device
) -> None:
    plan, agents = make_plan({"sample": 90}), fleet(3)
    cells = plan_cells(plan, cpu).cells
    shown: list[Progress] = []
    scheduler = make_scheduler(plan, store, agents)
    assert scheduler.run(stop=never, show=lambda progress: shown.append(replace(progress)))
    assert rows_by_status(store, cells) == {"ok": 90}
    assert set(agents.measured.values()) == {1}
    assert {name for name, _ in agents.leased} == set(agents.agents)
    last = shown[-1]
    assert (last.cells, last.done, last.committed_now) == (90, 90, 90)
    assert last.agents == 3
    assert last.statuses["ok"] == 90
    done = [progress.done for progress in shown]
    assert done == sorted(done)


def test_there_is_one_commit_a_second_however_many_leases_end(
    store: SampleStore, fleet: MakeFleet, make_plan: MakePlan, cpu: Device
) -> None:
    plan, agents = make_plan({"sample": 600, "max": 4096}), fleet(30, batch=1)
    run_all(plan, store, agents)
    assert rows_by_status(store, plan_cells(plan, cpu).cells) == {"ok": 600}
    # Rows that wait for a commit are answers: their cells are not leased again.
    assert set(agents.measured.values()) == {1}
    assert len(agents.leased) > 60
    assert 2 <= store.version <= agents.time_s / COMMIT_S + 1


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
    assert rows_by_status(store, plan_cells(plan, cpu).cells) == {"ok": 40}
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
    assert rows_by_status(store, [*plan_cells(plan, cpu).cells, *more]) == {"ok": 22}
    assert (scheduler.progress.cells, scheduler.progress.committed_now) == (12, 12)


def test_an_agent_that_joins_late_gets_cells(
    store: SampleStore, fleet: MakeFleet, make_plan: MakePlan, cpu: Device
) -> None:
    agents = fleet({"early": FakeAgent(cpu), "late": FakeAgent(cpu, joins_at=10)})
    plan = make_plan({"sample": 200, "max": 4096})
    run_all(plan, store, agents)
    assert rows_by_status(store, plan_cells(plan, cpu).cells) == {"ok": 200}
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
    plan = make_plan({"sample": 30}, family="cublas", devices={"second_board": 0})
    run_all(plan, store, agents)
    cells = plan_cells(plan, gpu).cells + plan_cells(plan, other).cells
    assert rows_by_status(store, cells) == {"ok": 60}
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
    assert rows_by_status(store, cells) == {"ok": 30}
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
    assert rows_by_status(store, plan_cells(plan, cpu).cells) == {"ok": 60}
    assert sum(tries.values()) > 60


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
    assert rows_by_status(store, plan_cells(plan, cpu).cells) == {"ok": 200}
    assert sum(len(cells) for name, cells in fleet.leased if name == "a/cpu") < 100
