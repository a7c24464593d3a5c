"""Plans with a budget: how many cells are measured, which, and that a restarted run goes on."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from fake_fleet import FakeAgent, FakeFleet, FakeTrainer, make_scheduler, run_all

from coordinator.fleet.rounds import Rounds, queries_of
from coordinator.plan.budget import Budget
from coordinator.plan.cells import plan_cells, seconds_of
from coordinator.plan.schema import Plan
from coordinator.plan.sizing import size_of
from coordinator.samples.store import SampleStore
from costmodel.train import TrainedModel
from gemmcast.cell import Cell
from gemmcast.device import Device
from gemmcast.errors import InputError
from gemmcast.modeldir import ShippedModel
from gemmcast.modelfile import LoadedModel
from gemmcast.query import AT, Rows

MakePlan = Callable[..., Plan]
MakeFleet = Callable[..., FakeFleet]
CELLS = 200


@pytest.fixture
def budgeted(make_plan: MakePlan) -> Callable[..., Plan]:
    """A plan of 200 cells with a budget."""

    def make(budget: object, **measure: object) -> Plan:
        return make_plan({"sample": CELLS}, measure={"budget": budget, **measure})

    return make


def _measured(store: SampleStore) -> list[str]:
    ids: list[str] = store.read()["cell_id"].to_pylist()
    return ids


def _all_rounds(held: Rounds, count: int) -> list[Cell]:
    cells: list[Cell] = []
    while chosen := held.next(count):
        cells += chosen
    return cells


def _seconds(plan: Plan, cells: Sequence[Cell], device: Device) -> float:
    return sum(seconds_of(plan, cell, device) for cell in cells)


@pytest.mark.parametrize(("budget", "cells"), [(50, 50), (0.1, 20), (1000, CELLS)])
def test_as_many_cells_as_the_budget_has(
    budget: float, cells: int, store: SampleStore, fleet: MakeFleet, budgeted: Callable[..., Plan]
) -> None:
    scheduler = run_all(budgeted(budget), store, fleet(2))
    measured = _measured(store)
    assert len(measured) == len(set(measured)) == cells
    progress = scheduler.progress
    assert (progress.done, progress.cells, progress.in_plan) == (cells, cells, CELLS)


def test_a_time_is_spent_by_the_cells_estimates(
    store: SampleStore, fleet: MakeFleet, budgeted: Callable[..., Plan], cpu: Device
) -> None:
    plan = budgeted("5s")
    cells = plan_cells(plan, cpu).cells
    assert _seconds(plan, cells, cpu) > 10
    scheduler = run_all(plan, store, fleet(1))
    measured = set(_measured(store))
    spent_s = _seconds(plan, [cell for cell in cells if cell.cell_id in measured], cpu)
    assert spent_s == pytest.approx(5, abs=0.1)
    assert scheduler.progress.done == scheduler.progress.cells == len(measured)
    assert scheduler.progress.budget == "0.1 of 0.1 min"


def test_a_run_that_is_started_again_goes_on(
    store: SampleStore, fleet: MakeFleet, budgeted: Callable[..., Plan]
) -> None:
    looks = iter(range(1000))
    first = make_scheduler(budgeted(80), store, fleet(1), now_s=lambda: 0.0)
    assert not first.run(stop=lambda: next(looks) >= 6)
    before = _measured(store)
    assert 0 < len(before) < 80
    again = run_all(budgeted(80), store, fleet(1))
    measured = _measured(store)
    assert len(measured) == len(set(measured)) == 80
    assert again.progress.committed_now == 80 - len(before)
    assert run_all(budgeted(80), store, fleet(1)).progress.committed_now == 0
    assert run_all(budgeted(90), store, fleet(1)).progress.committed_now == 10


def test_a_budget_counts_what_was_measured_without_one(
    store: SampleStore, fleet: MakeFleet, make_plan: MakePlan, budgeted: Callable[..., Plan]
) -> None:
    run_all(make_plan({"sample": CELLS}), store, fleet(1))
    scheduler = run_all(budgeted(50), store, fleet(1))
    assert (scheduler.progress.done, scheduler.progress.cells) == (CELLS, CELLS)
    assert scheduler.progress.committed_now == 0


def test_given_cells_have_no_budget(
    store: SampleStore, fleet: MakeFleet, budgeted: Callable[..., Plan], cpu: Device
) -> None:
    plan = budgeted(10)
    cells = plan_cells(plan, cpu).cells[:30]
    assert run_all(plan, store, fleet(1), cells=cells).progress.done == 30


def test_only_answers_are_spent(budgeted: Callable[..., Plan], cpu: Device) -> None:
    plan = budgeted(60)
    cells = plan_cells(plan, cpu).cells
    answered = {cells[0].cell_id}
    held = Rounds(plan, cpu, cells, answered)
    chosen = held.next(20)
    assert held.text() == "1 of 60 cells"
    answered |= {cell.cell_id for cell in chosen[:5]}
    assert held.text() == "6 of 60 cells"


def test_each_type_of_device_has_the_budget(
    store: SampleStore, measure: Any, cpu: Device, gpu: Device, make_plan: MakePlan
) -> None:
    plan = make_plan(measure={"budget": 7})
    sweep = plan.sweep[0].model_copy(update={"family": "tiled"})
    plan = plan.model_copy(update={"sweep": (*plan.sweep, sweep)})
    scheduler = run_all(plan, store, FakeFleet(measure, {"a": FakeAgent(cpu), "b": FakeAgent(gpu)}))
    devices = store.read()["device"].to_pylist()
    assert (devices.count(cpu.name), devices.count(gpu.name)) == (7, 7)
    each = [f"{device.name}: 7 of 7 cells" for device in (cpu, gpu)]
    assert scheduler.progress.budget == ", ".join(each)


def test_cells_with_power_keep_their_share(make_plan: MakePlan, gpu: Device) -> None:
    sweep = {"sample": CELLS}
    plan = make_plan(sweep, family="cublas", power_share=0.25, measure={"budget": 0.2})
    cells = plan_cells(plan, gpu).cells
    with_power = sum(cell.power for cell in cells)
    chosen = _all_rounds(Rounds(plan, gpu, cells, ()), count=10)
    assert len(chosen) == 40
    assert sum(cell.power for cell in chosen) == round(0.2 * with_power)


def test_rounds_are_in_the_order_of_the_plan_and_the_same_again(
    budgeted: Callable[..., Plan], cpu: Device
) -> None:
    plan = budgeted(60)
    cells = plan_cells(plan, cpu).cells
    chosen = Rounds(plan, cpu, cells, ()).next(60)
    places = [cells.index(cell) for cell in chosen]
    assert places == sorted(places)
    assert chosen == Rounds(plan, cpu, cells, ()).next(60)
    assert places != list(range(60))


def test_what_is_measured_is_not_chosen(budgeted: Callable[..., Plan], cpu: Device) -> None:
    plan = budgeted(60)
    cells = plan_cells(plan, cpu).cells
    known = {cell.cell_id for cell in cells[::4]}
    chosen = _all_rounds(Rounds(plan, cpu, cells, known), count=7)
    assert len(chosen) == 10
    assert not known & {cell.cell_id for cell in chosen}


class Sure:
    """A model that is sure of problems with m below 100, and extrapolates from 400 on."""

    def run(self, rows: Rows) -> dict[str, Any]:
        m = rows[:, AT["m"]]
        half = np.where((m < 100) | (m >= 400), 1.01, 1.2)[:, None]
        return {"low": 1 / half, "high": half, "extrapolating": m >= 400}


def test_cells_that_the_model_is_sure_of_are_left_out(
    budgeted: Callable[..., Plan], cpu: Device
) -> None:
    plan = budgeted(1000, target_interval=0.05)
    cells = plan_cells(plan, cpu).cells
    held = Rounds(plan, cpu, cells, ())
    first = held.next(10)
    assert len(first) == 10
    sure: Any = Sure()
    held.note_model(sure)
    later = _all_rounds(held, count=30)
    unsure = {cell.cell_id for cell in cells if cell.gemm.m >= 100}
    assert {cell.cell_id for cell in later} == unsure - {cell.cell_id for cell in first}
    assert held.left_out() == CELLS - 10 - len(later) > 0


def test_a_run_looks_at_each_new_model(
    store: SampleStore,
    fleet: MakeFleet,
    make_plan: MakePlan,
    candidate: TrainedModel,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The trainer's models are no models: the run warns and goes on with the one that it had."""
    seen: list[str] = []

    def note(held: Rounds, model: LoadedModel) -> None:
        seen.append(model.version)

    class Real(FakeTrainer):
        def newest(self) -> tuple[ShippedModel, str] | None:
            newest = super().newest()
            if newest is not None and newest[1] == "2":
                return ShippedModel(data=candidate.model), "2"
            return newest

    monkeypatch.setattr(Rounds, "note_model", note)
    agents = fleet(1)
    plan = make_plan(
        {"sample": CELLS},
        measure={"budget": 150, "target_interval": 0.01},
        train={"every": 40, "min_rows": 40},
    )
    with caplog.at_level(logging.WARNING):
        run_all(plan, store, agents, Real(agents), now_s=iter(range(10**6)).__next__)
    assert seen == ["2"]
    assert "the cells that model 1 is sure of are not known" in caplog.text
    assert len(_measured(store)) == 150


def test_queries_of_a_device_that_was_not_measured(
    budgeted: Callable[..., Plan], cpu: Device
) -> None:
    plan = budgeted(5)
    cells = plan_cells(plan, cpu).cells
    bare = replace(cpu, peak_tflops={"fp64": 0.1}, dram_gbps=0.0, compute_units=0)
    queries = queries_of(cells, bare)
    assert (queries[:, [AT["peak_tflops"], AT["dram_gbps"], AT["active_units"]]] > 0).all()
    assert len(Rounds(plan, bare, cells, ()).next(5)) == 5


def test_the_size_of_a_plan_with_a_budget(make_plan: MakePlan, gpu: Device) -> None:
    shapes = {"sample": 100}
    whole = size_of(make_plan(shapes, family="cublas"), gpu)
    tenth = size_of(make_plan(shapes, family="cublas", measure={"budget": 0.1}), gpu)
    assert (whole.cells, whole.cells_in_budget) == (100, 100)
    assert (tenth.cells, tenth.cells_in_budget) == (100, 10)
    assert tenth.estimated_minutes == pytest.approx(whole.estimated_minutes / 10)
    timed = size_of(make_plan(shapes, family="cublas", measure={"budget": "1s"}), gpu)
    assert timed.estimated_minutes == pytest.approx(1 / 60, rel=0.1)
    assert 0 < timed.cells_in_budget < 100
    long = size_of(make_plan(shapes, family="cublas", measure={"budget": "9h"}), gpu)
    assert long.cells_in_budget == 100
    assert long.estimated_minutes == pytest.approx(whole.estimated_minutes)


@pytest.mark.parametrize("value", [0, -1, 1.0, 1.5, "0m", "10", "10 m", "-1s", True, [5]])
def test_what_is_no_budget_is_refused(value: object, make_plan: MakePlan) -> None:
    with pytest.raises(InputError, match=r"measure\.budget = .*a number of cells, a share below 1"):
        make_plan(measure={"budget": value})


def test_a_target_goes_with_a_budget(make_plan: MakePlan) -> None:
    with pytest.raises(InputError, match="give budget too"):
        make_plan(measure={"target_interval": 0.05})


@pytest.mark.parametrize(
    ("value", "limit", "text"),
    [
        (500, 500, "20 of 500 cells"),
        (0.1, 40, "20 of 40 cells"),
        ("90s", 90, "0.3 of 1.5 min"),
        ("1.5h", 5400, "0.3 of 90.0 min"),
    ],
)
def test_budgets_in_words(value: float | str, limit: float, text: str) -> None:
    budget = Budget.of(value, cells=400)
    assert budget.limit == limit
    assert budget.text(20.0) == text
