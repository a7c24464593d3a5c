"""Sweeps of the family triton: sets, words for knobs, kernels of the project, plans to record."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from agent.kernels.triton import read_triton
from coordinator.plan.cells import plan_cells
from coordinator.plan.schema import Plan, read_plan
from coordinator.plan.shapes import shapes_of
from gemmcast.cell import Cell
from gemmcast.config import TRITON_KERNELS, KernelConfig
from gemmcast.device import Device
from gemmcast.errors import InputError
from gemmcast.gemm import Gemm
from gemmcast.triton_sets import configs, is_default

MakePlan = Callable[..., Plan]
PLANS = Path(__file__).parents[2] / "datasets" / "plans"
EXAMPLE = "examples/kernels/w8a8_block.toml"
SHARED = {
    "broad.toml": {(2816, 2048), (5120, 2048)},
    "layer-power.toml": {(6144, 2048)},
}
"""Layers that a later plan has, too: of experts, and of cuBLAS alone."""
ONE = {"list": [[64, 128, 128]]}
FP8: dict[str, Any] = {"family": "triton", "dtypes": ["fp8_e4m3"], "layouts": ["nt"]}


@pytest.fixture
def hopper(gpu: Device) -> Device:
    return replace(gpu, arch="sm_90", memory_bytes=80 * 10**9)


def cells_of(plan: Plan, device: Device) -> list[Cell]:
    return plan_cells(plan, device).cells


def test_a_set_is_that_of_each_kernel(make_plan: MakePlan, hopper: Device) -> None:
    kernels = ["matmul", "scaled_block"]
    plan = make_plan(ONE, **FP8, kernel=kernels, kernel_set="short")
    expected = []
    for kernel in kernels:
        expected += configs("short", "sm_90", kernel, "fp8_e4m3", "nt")
    assert [cell.config for cell in cells_of(plan, hopper)] == expected


def test_what_engines_ship_is_among_the_chosen(make_plan: MakePlan, hopper: Device) -> None:
    shapes = {"sample": 30, "multiple": 16}
    plan = make_plan(shapes, **FP8, kernel_set="short", per_shape=3)
    cells = cells_of(plan, hopper)
    assert len(cells) == 90
    assert sum(is_default(cell.config) for cell in cells) == 30
    assert len({cell.config for cell in cells}) > 30


def test_a_longer_choice_has_the_shorter_one(make_plan: MakePlan, hopper: Device) -> None:
    few = make_plan(ONE, **FP8, kernel_set="short", per_shape=4)
    more = make_plan(ONE, **FP8, kernel_set="short", per_shape=9)
    assert set(cells_of(few, hopper)) < set(cells_of(more, hopper))


def test_a_set_without_the_dtype_is_refused_with_the_reason(
    make_plan: MakePlan, hopper: Device
) -> None:
    options = {**FP8, "dtypes": ["bf16"], "kernel": "scaled_block", "kernel_set": "short"}
    planned = plan_cells(make_plan(ONE, **options), hopper)
    assert planned.cells == []
    assert planned.refused == {"set short of triton has no bf16 nt for sm_90": 1}


def test_the_words_of_the_field_are_knobs(make_plan: MakePlan, hopper: Device) -> None:
    knobs = {"group_m": [1, 32], "warps": [4, 8], "tile_m": [64]}
    words = make_plan(ONE, **FP8, knobs=knobs)
    columns = {"swizzle": [1, 32], "block_threads": [128, 256], "tile_m": [64]}
    assert cells_of(words, hopper) == cells_of(make_plan(ONE, **FP8, knobs=columns), hopper)
    assert KernelConfig.parse("triton:group_m=32,warps=8") == KernelConfig(
        family="triton", swizzle=32, block_threads=256
    )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"knobs": {"warps": [4], "block_threads": [128]}}, "warps and block_threads are one knob"),
        ({"knobs": {"group": [4]}}, "unknown knob 'group'"),
        ({"kernel_set": "wide"}, "kernel_set is for family cutlass, not triton"),
        ({"kernel_set": "short", "knobs": {"stages": [4]}}, "leave stages out of knobs"),
        ({"kernel_set": "short", "kernel": EXAMPLE}, "give knobs in place of kernel_set"),
        ({"family": "cutlass", "kernel_set": "short"}, "are for family triton, not cutlass"),
        ({"algorithms": 4}, "algorithms is for family cublaslt, not triton"),
    ],
    ids=str,
)
def test_keys_that_do_not_go_together_are_refused(
    make_plan: MakePlan, options: dict[str, object], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        make_plan(ONE, **{**FP8, **options})


def test_a_kernel_of_the_project_is_pinned_to_its_content(
    make_plan: MakePlan, hopper: Device
) -> None:
    plan = make_plan(ONE, **FP8, kernel=EXAMPLE, knobs={"tile_m": [16, 64]})
    names = {cell.config.kernel for cell in cells_of(plan, hopper)}
    assert names == {read_triton(EXAMPLE).name}


@pytest.mark.parametrize("kernel", ["ragged", "examples/nowhere.toml"])
def test_a_kernel_that_is_not_there_is_refused_before_anything_runs(
    make_plan: MakePlan, hopper: Device, kernel: str
) -> None:
    plan = make_plan(ONE, **FP8, kernel=kernel)
    with pytest.raises(InputError, match=r"sweep\.0\.kernel"):
        cells_of(plan, hopper)


def layers_of(path: Path) -> set[tuple[int, int]]:
    plan = read_plan(path)
    layers: set[tuple[int, int]] = set()
    for sweep in plan.sweep:
        layers |= {(n, k) for _, n, k in shapes_of(sweep.shapes, plan.seed)}
    return layers


def test_the_plans_to_record_have_layers_of_their_own() -> None:
    layers = layers_of(PLANS / "triton.toml")
    assert len(layers) >= 60
    for other in sorted(PLANS.glob("*.toml")):
        if not other.name.startswith("triton"):
            assert layers & layers_of(other) == SHARED.get(other.name, set()), other.name


def test_the_plans_to_record_have_enough_cells_and_the_defaults(hopper: Device) -> None:
    plan = PLANS / "triton.toml"
    planned = plan_cells(read_plan(plan), hopper)
    assert not planned.refused
    assert len(planned.cells) >= 12_000
    assert sum(cell.power for cell in planned.cells) >= 300
    assert {cell.gemm.m for cell in planned.cells} >= {1, 16384}
    assert {cell.config.kernel for cell in planned.cells} == set(TRITON_KERNELS)
    problems = {(cell.gemm, cell.config.kernel) for cell in planned.cells}
    defaults = [cell for cell in planned.cells if is_default(cell.config)]
    assert len(defaults) == len(problems)
    # A second type of GPU measures a part of the same cells.
    again = cells_of(read_plan(PLANS / "triton-again.toml"), hopper)
    assert len(again) >= 4_000
    assert set(map(_work, again)) < set(map(_work, planned.cells))


def _work(cell: Cell) -> tuple[Gemm, KernelConfig]:
    return cell.gemm, cell.config
