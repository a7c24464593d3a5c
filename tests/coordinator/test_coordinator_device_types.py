"""Plans that speak about types of devices: budgets, sweeps, and what `plan` says of each."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from fake_fleet import FakeAgent, FakeFleet, Measure, run_all

from coordinator.plan.cells import plan_cells
from coordinator.plan.device_types import check_type, closest, fits
from coordinator.plan.known_devices import known_device
from coordinator.plan.schema import Plan, parse_plan
from coordinator.plan.sizing import size_of
from coordinator.samples.store import SampleStore
from gemmcast.device import Device
from gemmcast.errors import InputError

MakePlan = Callable[..., Plan]
SXM, PCIE, A100 = "NVIDIA H100 80GB HBM3", "NVIDIA H100 PCIe", "NVIDIA A100-SXM4-80GB"
SLICE = "NVIDIA H100 80GB HBM3 MIG 1g.10gb"
SWEEP = {"family": "cublas", "dtypes": ["fp16"], "shapes": {"sample": 60}}


def gpus(gpu: Device) -> list[Device]:
    names = (SXM, PCIE, A100)
    return [replace(gpu, name=name, uuid=f"GPU-{i}") for i, name in enumerate(names)]


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("h100", [SXM, PCIE]),
        ("H100-SXM", [SXM]),
        ("h100_pcie", [PCIE]),
        (SXM, [SXM]),
        ("a100", [A100]),
        ("a100-sxm4-80gb", [A100]),
        ("*a100*", [A100]),
        ("NVIDIA H100*", [SXM, PCIE, SLICE]),
        ("h100 mig", [SLICE]),
        ("h200", []),
    ],
)
def test_a_name_means_every_device_of_its_words(text: str, meant: list[str]) -> None:
    assert [name for name in (SXM, PCIE, A100, SLICE) if fits(text, name)] == meant


def test_the_name_with_the_most_words_counts() -> None:
    texts = ["*", "h100", "h100-pcie"]
    assert [closest(texts, name) for name in (SXM, PCIE, A100)] == ["h100", "h100-pcie", "*"]
    assert closest(texts[::-1], PCIE) == "h100-pcie", "in whatever order"
    assert closest(["h200"], SXM) is None


@pytest.mark.parametrize("text", ["h100", "GH200", "rtx", "H100-NVL", "*EPYC*", A100, "b200"])
def test_known_products_and_patterns_may_be_named(text: str) -> None:
    assert check_type(text) == text


@pytest.mark.parametrize(
    ("options", "rule"),
    [
        ({"measure": {"budgets": {"h10": 5}}}, r"budgets = .*'h10' is no known device.*h100"),
        ({"measure": {"budgets": {"": 5}}}, "is no known device"),
        ({"measure": {"budgets": {"h100": 0}}}, "give a number of cells"),
        ({"measure": {"budgets": {"h100": True}}}, "give a number of cells"),
        ({"devices": ["h-100"]}, r"sweep.0.devices = .*'h-100' is no known device"),
        ({"devices": []}, "sweep.0.devices"),
    ],
)
def test_a_slip_is_refused_with_similar_names(options: dict[str, Any], rule: str) -> None:
    measure = options.pop("measure", {})
    with pytest.raises(InputError, match=rule):
        parse_plan({"name": "slip", "measure": measure, "sweep": [{**SWEEP, **options}]})


def test_each_type_has_its_own_budget(store: SampleStore, measure: Measure, gpu: Device) -> None:
    """Every H100: 20 cells; every other type: 5; the PCIe board a tenth."""
    budgets = {"h100": 20, "h100-pcie": 0.1}
    plan = parse_plan(
        {"name": "types", "measure": {"budget": 5, "budgets": budgets}, "sweep": [SWEEP]}
    )
    fleet = FakeFleet(measure, {device.name: FakeAgent(device) for device in gpus(gpu)})
    scheduler = run_all(plan, store, fleet)
    measured = store.read()["device"].to_pylist()
    assert [measured.count(name) for name in (SXM, PCIE, A100)] == [20, 6, 5]
    assert scheduler.progress.cells == scheduler.progress.done == 31
    assert f"{PCIE}: 6 of 6 cells" in scheduler.progress.budget


def test_a_type_without_a_budget_is_measured_whole(
    store: SampleStore, measure: Measure, gpu: Device
) -> None:
    plan = parse_plan({"name": "types", "measure": {"budgets": {"h100": 5}}, "sweep": [SWEEP]})
    fleet = FakeFleet(measure, {device.name: FakeAgent(device) for device in gpus(gpu)})
    run_all(plan, store, fleet)
    measured = store.read()["device"].to_pylist()
    assert [measured.count(name) for name in (SXM, PCIE, A100)] == [5, 5, 60]


def test_a_sweep_is_for_the_types_that_it_names(gpu: Device) -> None:
    tiled = {"family": "tiled", "shapes": {"sample": 4}, "knobs": {"tile": [16]}}
    sweeps = [{**SWEEP, "devices": ["h100-sxm", "*A100*"]}, tiled]
    plan = parse_plan({"name": "types", "sweep": sweeps})
    planned = [plan_cells(plan, device) for device in gpus(gpu)]
    assert [len(one.cells) for one in planned] == [64, 4, 64]
    assert planned[1].refused == {"cublas for h100-sxm, *A100*; this is NVIDIA H100 PCIe": 60}
    # The types of a sweep are no part of its cells.
    same = parse_plan({"name": "types", "sweep": [SWEEP, tiled]})
    ids = {cell.cell_id for cell in plan_cells(same, gpus(gpu)[0]).cells}
    assert {cell.cell_id for cell in planned[0].cells} == ids


def test_plan_shows_cells_and_minutes_of_each_type(
    tmp_path: Path, coordinator: Callable[..., Any]
) -> None:
    path = tmp_path / "types.toml"
    path.write_text(
        """
        name = "types"
        [measure]
        budget = 50
        budgets = { h100 = 200 }
        [[sweep]]
        family = "cublas"
        shapes = { sample = 300 }
        """
    )
    done = coordinator("plan", path, "--device", "h100", "--device", "h200", "--json")
    assert done.returncode == 0, done.stderr
    sizes = json.loads(done.stdout.splitlines()[-1])["devices"]
    assert [size["device"] for size in sizes] == [SXM, "NVIDIA H200"]
    assert [size["cells_in_budget"] for size in sizes] == [200, 50]
    plan = parse_plan({"name": "types", "sweep": [{**SWEEP, "shapes": {"sample": 300}}]})
    whole = size_of(plan, known_device("h100")).estimated_minutes
    assert 0 < sizes[1]["estimated_minutes"] < sizes[0]["estimated_minutes"] < whole
