"""Which kernels a sweep means: names, cuBLASLt's candidates, CUTLASS' sets, own kernels by content, draws for each shape."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from agent.kernels.custom import read_custom
from agent.kernels.cutlass.generate import configs
from coordinator.plan.cells import candidate_names, plan_cells
from coordinator.plan.schema import Plan, read_plan
from gemmcast.cell import Cell
from gemmcast.device import Device
from gemmcast.errors import InputError

MakePlan = Callable[..., Plan]
PLANS = Path(__file__).parents[2] / "datasets" / "plans"
OWN = "examples/kernels/tiled_vec4.toml"
ONE = {"list": [[64, 32, 16]]}


@pytest.fixture
def hopper(gpu: Device) -> Device:
    return replace(gpu, arch="sm_90")


def _cells(plan: Plan, device: Device) -> list[Cell]:
    return plan_cells(plan, device).cells


def _kernels(cells: list[Cell]) -> list[str]:
    return [cell.config.kernel for cell in cells]


def test_several_names_are_several_configurations_times_the_knobs(make_plan: MakePlan, cpu: Device) -> None:
    cells = _cells(make_plan(ONE, kernel=["numpy", "blocked"], knobs={"cpu_threads": [1, 2]}), cpu)
    assert Counter(_kernels(cells)) == {"numpy": 2, "blocked": 2}
    assert _cells(make_plan(ONE, kernel=["numpy"]), cpu) == _cells(make_plan(ONE, kernel="numpy"), cpu)


def test_candidates_are_the_default_the_rest_of_the_list_and_others(make_plan: MakePlan, hopper: Device) -> None:
    assert candidate_names(1) == ["default"]
    assert candidate_names(8) == ["default", *(f"heuristic-{i}" for i in range(1, 8))]
    assert _kernels(_cells(make_plan(ONE, family="cublaslt", candidates=10), hopper)) == [*candidate_names(8), "enumerated-0", "enumerated-1"]


@pytest.mark.parametrize(("dtype", "layout"), [("fp32", "nn"), ("fp16", "nt"), ("fp8_e4m3", "nt")])
def test_a_set_is_that_of_the_devices_architecture_dtype_and_layout(make_plan: MakePlan, hopper: Device, dtype: str, layout: str) -> None:
    plan = make_plan(ONE, family="cutlass", kernel_set="wide", dtypes=[dtype], layouts=[layout])
    made = configs("wide", "sm_90", dtype, layout)
    assert len(made) > 5
    assert [cell.config for cell in _cells(plan, hopper)] == made


def test_knobs_multiply_a_set_and_what_a_set_has_not_is_no_cell(make_plan: MakePlan, hopper: Device) -> None:
    plan = make_plan(ONE, family="cutlass", kernel_set="default", dtypes=["fp16", "bf16"], layouts=["nt", "tt"], knobs={"split_k": [1, 4]})
    planned = plan_cells(plan, hopper)
    assert Counter((cell.gemm.layout, cell.config.split_k) for cell in planned.cells) == {("nt", 1): 30, ("nt", 4): 30}
    assert planned.refused == {f"set default of CUTLASS has no {dtype} tt for sm_90": 1 for dtype in ("fp16", "bf16")}


def test_without_an_architecture_a_set_is_refused_with_the_reason(make_plan: MakePlan, gpu: Device) -> None:
    planned = plan_cells(make_plan(ONE, family="cutlass", kernel_set="default"), replace(gpu, arch=None))
    assert planned.cells == []
    assert planned.refused == {f"kernel_set default is by architecture, and that of {gpu.name} is not known": 1}


def test_a_set_that_an_architecture_has_not_is_refused_there_and_ends_no_run(make_plan: MakePlan, gpu: Device) -> None:
    planned = plan_cells(make_plan(ONE, family="cutlass", kernel_set="wide"), replace(gpu, arch="sm_80"))
    assert (planned.cells, planned.refused) == ([], {"set wide of CUTLASS has no fp32 nn for sm_80": 1})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"family": "cutlass", "candidates": 4}, "candidates is for family cublaslt, not cutlass"),
        ({"family": "cublaslt", "kernel_set": "wide"}, "kernel_set is for family cutlass, not cublaslt"),
        ({"family": "cublaslt", "candidates": 4, "kernel": "default"}, "candidates names the kernels itself: leave kernel out"),
        ({"family": "cutlass", "kernel_set": "wide", "knobs": {"stages": [4]}}, "leave stages out of knobs"),
        ({"kernel": []}, "no kernel: leave the key out, or name some"),
        ({"scalars": [[1, 1]], "alpha": 2.0}, "scalars takes the place of alpha and beta"),
        ({"family": "cutlass", "kernel_set": "huge"}, "'paper', 'default' or 'wide'"),
        ({"per_shape": 0}, "greater than or equal to 1"),
    ],
)
def test_what_does_not_go_together_is_refused_with_its_reason(make_plan: MakePlan, options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        make_plan(ONE, **options)


def test_scalars_are_pairs_of_alpha_and_beta(make_plan: MakePlan, gpu: Device) -> None:
    pairs = [[1, 0], [1, 1], [0.5, 0.5], [2, 0]]
    cells = _cells(make_plan(ONE, family="cublas", scalars=pairs), gpu)
    assert [[cell.gemm.alpha, cell.gemm.beta] for cell in cells] == pairs


def test_a_draw_for_each_shape_is_fair_steady_and_knows_nothing_of_other_shapes(make_plan: MakePlan, hopper: Device) -> None:
    options = {"family": "cublaslt", "candidates": 24, "per_shape": 5, "dtypes": ["fp16"]}
    many, few = (_cells(make_plan({"sample": size, "max": 512}, **options), hopper) for size in (200, 20))
    assert set(few) <= set(many)
    of_a_shape = Counter(cell.gemm.shape_key for cell in many)
    assert set(of_a_shape.values()) == {5}
    drawn = Counter(_kernels(many))
    assert drawn.pop("default") == 200  # what users get today is in every draw
    assert len(drawn) == 23 and min(drawn.values()) > 15 and max(drawn.values()) < 60
    assert _cells(make_plan({"sample": 20, "max": 512}, **options, seed=1), hopper) != few


def test_power_is_asked_only_of_devices_that_have_it(make_plan: MakePlan, gpu: Device) -> None:
    plan = make_plan({"sample": 20, "max": 512}, family="cublas", power_share=1.0)
    assert all(cell.power for cell in _cells(plan, gpu))
    assert not any(cell.power for cell in _cells(plan, replace(gpu, idle_power_w=None)))


def test_an_own_kernel_is_named_by_its_content_and_a_bad_one_is_refused_before_anything_runs(make_plan: MakePlan, gpu: Device) -> None:
    (cell,) = _cells(make_plan(ONE, family="custom", kernel=OWN), gpu)
    assert cell.config.kernel == read_custom(OWN).name != OWN
    with pytest.raises(InputError, match=r"sweep\.0\.kernel = 'examples/kernels/nowhere\.toml'"):
        _cells(make_plan(ONE, family="custom", kernel="examples/kernels/nowhere.toml"), gpu)


def test_a_replay_asks_for_an_own_kernel_as_the_plan_says(make_plan: MakePlan, gpu: Device) -> None:
    recorded = str(Path("datasets/h100_demo.parquet"))
    (cell,) = _cells(make_plan(ONE, family="custom", kernel=OWN, devices={"kind": "replay", "dataset": recorded}), gpu)
    assert cell.config.kernel == OWN


def test_sampled_sizes_are_multiples_within_their_bounds(make_plan: MakePlan, gpu: Device) -> None:
    cells = _cells(make_plan({"sample": 300, "min": 20, "max": 1000, "multiple": 16}, family="cublas"), gpu)
    sizes = {size for cell in cells for size in (cell.gemm.m, cell.gemm.n, cell.gemm.k)}
    assert len(cells) == 300 and all(size % 16 == 0 for size in sizes)
    assert (min(sizes), max(sizes)) == (32, 992)
    with pytest.raises(InputError, match="multiple = 64 leaves no size between min = 16 and max = 48"):
        make_plan({"sample": 3, "min": 16, "max": 48, "multiple": 64})


def test_layers_are_every_m_with_every_pair(make_plan: MakePlan, gpu: Device) -> None:
    cells = _cells(make_plan({"m": [1, 16], "nk": [[4096, 1024], [512, 2048]]}, family="cublas"), gpu)
    assert [(cell.gemm.m, cell.gemm.n, cell.gemm.k) for cell in cells] == [(1, 4096, 1024), (1, 512, 2048), (16, 4096, 1024), (16, 512, 2048)]
    for grid in ({"nk": [[8, 8]]}, {"m": [8], "n": [8], "nk": [[8, 8]]}):
        with pytest.raises(InputError, match="a grid needs all of m, n and k, or m and nk"):
            make_plan(grid, family="cublas")


@pytest.mark.parametrize("plan", ["reference", "tiles"])
def test_the_plans_of_the_reference_sweeps_fit_an_h100(plan: str, hopper: Device) -> None:
    planned = plan_cells(read_plan(PLANS / f"{plan}.toml"), replace(hopper, memory_bytes=80 * 10**9))
    assert planned.cells and not planned.refused
