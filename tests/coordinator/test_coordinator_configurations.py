"""Which kernels a sweep means: names, algorithms of cuBLASLt, sets of CUTLASS, custom kernels."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from agent.kernels.custom import read_custom
from coordinator.plan.cells import plan_cells
from coordinator.plan.configurations import algorithm_names
from coordinator.plan.schema import Plan, read_plan
from gemmcast.cell import Cell
from gemmcast.cutlass.sets import configs
from gemmcast.device import Device
from gemmcast.errors import InputError

MakePlan = Callable[..., Plan]
PLANS = Path(__file__).parents[2] / "datasets" / "plans"
CUSTOM = "examples/kernels/tiled_vec4.toml"
ONE = {"list": [[64, 32, 16]]}
SMALL = {"sample": 20, "max": 512}


@pytest.fixture
def hopper(gpu: Device) -> Device:
    return replace(gpu, arch="sm_90")


def _cells(plan: Plan, device: Device) -> list[Cell]:
    return plan_cells(plan, device).cells


def _kernels(cells: list[Cell]) -> list[str]:
    return [cell.config.kernel for cell in cells]


def test_several_names_are_several_configurations_times_the_knobs(
    make_plan: MakePlan, cpu: Device
) -> None:
    threads = {"cpu_threads": [1, 2]}
    plan = make_plan(ONE, kernel=["numpy", "blocked"], knobs=threads)
    assert Counter(_kernels(_cells(plan, cpu))) == {"numpy": 2, "blocked": 2}
    listed = make_plan(ONE, kernel=["numpy"])
    named = make_plan(ONE, kernel="numpy")
    assert _cells(listed, cpu) == _cells(named, cpu)


def test_algorithms_are_the_default_the_rest_of_the_list_and_enumerated_ones(
    make_plan: MakePlan, hopper: Device
) -> None:
    listed = ["default", *(f"heuristic-{i}" for i in range(1, 8))]
    assert algorithm_names(1) == ["default"]
    assert algorithm_names(8) == listed
    plan = make_plan(ONE, family="cublaslt", algorithms=10)
    assert _kernels(_cells(plan, hopper)) == [*listed, "enumerated-0", "enumerated-1"]


@pytest.mark.parametrize(
    ("dtype", "layout"),
    [("fp32", "nn"), ("fp16", "nt"), ("fp8_e4m3", "nt")],
)
def test_a_set_is_that_of_the_devices_architecture_dtype_and_layout(
    make_plan: MakePlan, hopper: Device, dtype: str, layout: str
) -> None:
    plan = make_plan(
        ONE,
        family="cutlass",
        kernel_set="wide",
        dtypes=[dtype],
        layouts=[layout],
    )
    made = configs("wide", "sm_90", dtype, layout)
    assert len(made) > 5
    assert [cell.config for cell in _cells(plan, hopper)] == made


def test_knobs_multiply_a_set_and_a_missing_layout_is_no_cell(
    make_plan: MakePlan, hopper: Device
) -> None:
    plan = make_plan(
        ONE,
        family="cutlass",
        kernel_set="default",
        dtypes=["fp16", "bf16"],
        layouts=["nt", "tt"],
        knobs={"split_k": [1, 4]},
    )
    planned = plan_cells(plan, hopper)
    counts = Counter((cell.gemm.layout, cell.config.split_k) for cell in planned.cells)
    assert counts == {("nt", 1): 30, ("nt", 4): 30}
    assert planned.refused == {
        "set default of cutlass has no fp16 tt for sm_90": 1,
        "set default of cutlass has no bf16 tt for sm_90": 1,
    }


def test_without_an_architecture_a_set_is_refused_with_the_reason(
    make_plan: MakePlan, gpu: Device
) -> None:
    plan = make_plan(ONE, family="cutlass", kernel_set="default")
    planned = plan_cells(plan, replace(gpu, arch=None))
    reason = f"kernel_set default depends on the architecture, and that of {gpu.name} is not known"
    assert planned.cells == []
    assert planned.refused == {reason: 1}


def test_a_set_that_an_architecture_lacks_is_refused_there_and_ends_no_run(
    make_plan: MakePlan, gpu: Device
) -> None:
    plan = make_plan(ONE, family="cutlass", kernel_set="wide")
    planned = plan_cells(plan, replace(gpu, arch="sm_80"))
    assert planned.cells == []
    assert planned.refused == {"set wide of cutlass has no fp32 nn for sm_80": 1}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"family": "cutlass", "algorithms": 4},
            "algorithms is for family cublaslt, not cutlass",
        ),
        (
            {"family": "cublaslt", "kernel_set": "wide"},
            "kernel_set is for family cutlass, not cublaslt",
        ),
        (
            {"family": "cublaslt", "algorithms": 4, "kernel": "default"},
            "algorithms names the kernels itself: leave kernel out",
        ),
        (
            {"family": "cutlass", "kernel_set": "wide", "knobs": {"stages": [4]}},
            "leave stages out of knobs",
        ),
        ({"kernel": []}, "no kernel: leave the key out, or name some"),
        ({"scalars": [[1, 1]], "alpha": 2.0}, "scalars replaces alpha and beta"),
        ({"family": "cutlass", "kernel_set": "huge"}, "'between', 'usual' or 'short'"),
        ({"per_shape": 0}, "greater than or equal to 1"),
    ],
)
def test_keys_that_do_not_go_together_are_refused_with_the_reason(
    make_plan: MakePlan, options: dict[str, object], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        make_plan(ONE, **options)


def test_scalars_are_pairs_of_alpha_and_beta(make_plan: MakePlan, gpu: Device) -> None:
    pairs = [[1, 0], [1, 1], [0.5, 0.5], [2, 0]]
    cells = _cells(make_plan(ONE, family="cublas", scalars=pairs), gpu)
    assert [[cell.gemm.alpha, cell.gemm.beta] for cell in cells] == pairs


def test_a_draw_for_each_shape_is_fair_steady_and_independent_of_other_shapes(
    make_plan: MakePlan, hopper: Device
) -> None:
    options = {"family": "cublaslt", "algorithms": 24, "per_shape": 5, "dtypes": ["fp16"]}
    many = _cells(make_plan({"sample": 200, "max": 512}, **options), hopper)
    few = _cells(make_plan(SMALL, **options), hopper)
    assert set(few) <= set(many)
    cells_per_shape = Counter(cell.gemm.shape_key for cell in many)
    assert set(cells_per_shape.values()) == {5}

    # the library's default is in every draw
    drawn = Counter(_kernels(many))
    assert drawn.pop("default") == 200
    assert len(drawn) == 23
    assert min(drawn.values()) > 15 and max(drawn.values()) < 60
    other_seed = _cells(make_plan(SMALL, **options, seed=1), hopper)
    assert other_seed != few


def test_power_is_planned_only_for_devices_that_have_it(make_plan: MakePlan, gpu: Device) -> None:
    plan = make_plan(SMALL, family="cublas", power_share=1.0)
    assert all(cell.power for cell in _cells(plan, gpu))
    without_power = replace(gpu, idle_power_w=None)
    assert not any(cell.power for cell in _cells(plan, without_power))


def test_a_custom_kernel_is_named_by_its_content(make_plan: MakePlan, gpu: Device) -> None:
    (cell,) = _cells(make_plan(ONE, family="custom", kernel=CUSTOM), gpu)
    assert cell.config.kernel == read_custom(CUSTOM).name != CUSTOM


def test_a_missing_custom_kernel_is_refused_before_anything_runs(
    make_plan: MakePlan, gpu: Device
) -> None:
    path = "examples/kernels/nowhere.toml"
    with pytest.raises(InputError, match=rf"sweep\.0\.kernel = '{path}'"):
        _cells(make_plan(ONE, family="custom", kernel=path), gpu)


def test_a_replay_names_a_custom_kernel_as_the_plan_does(make_plan: MakePlan, gpu: Device) -> None:
    devices = {"kind": "replay", "dataset": "datasets/h100_demo.parquet"}
    plan = make_plan(ONE, family="custom", kernel=CUSTOM, devices=devices)
    (cell,) = _cells(plan, gpu)
    assert cell.config.kernel == CUSTOM


def test_sampled_sizes_are_multiples_within_their_bounds(make_plan: MakePlan, gpu: Device) -> None:
    shapes = {"sample": 300, "min": 20, "max": 1000, "multiple": 16}
    cells = _cells(make_plan(shapes, family="cublas"), gpu)
    assert len(cells) == 300
    sizes: set[int] = set()
    for cell in cells:
        sizes |= {cell.gemm.m, cell.gemm.n, cell.gemm.k}
    assert all(size % 16 == 0 for size in sizes)
    assert (min(sizes), max(sizes)) == (32, 992)


def test_bounds_without_a_multiple_between_them_are_refused(make_plan: MakePlan) -> None:
    message = "multiple = 64 leaves no size between min = 16 and max = 48"
    with pytest.raises(InputError, match=message):
        make_plan({"sample": 3, "min": 16, "max": 48, "multiple": 64})


def test_layers_are_every_m_with_every_pair(make_plan: MakePlan, gpu: Device) -> None:
    shapes = {"m": [1, 16], "nk": [[4096, 1024], [512, 2048]]}
    cells = _cells(make_plan(shapes, family="cublas"), gpu)
    assert [(cell.gemm.m, cell.gemm.n, cell.gemm.k) for cell in cells] == [
        (1, 4096, 1024),
        (1, 512, 2048),
        (16, 4096, 1024),
        (16, 512, 2048),
    ]


@pytest.mark.parametrize("grid", [{"nk": [[8, 8]]}, {"m": [8], "n": [8], "nk": [[8, 8]]}])
def test_half_a_grid_is_refused(make_plan: MakePlan, grid: dict[str, object]) -> None:
    with pytest.raises(InputError, match="a grid needs all of m, n and k, or m and nk"):
        make_plan(grid, family="cublas")


@pytest.mark.parametrize("plan", ["reference", "tiles"])
def test_the_plans_of_the_reference_sweeps_fit_an_h100(plan: str, hopper: Device) -> None:
    device = replace(hopper, memory_bytes=80 * 10**9)
    planned = plan_cells(read_plan(PLANS / f"{plan}.toml"), device)
    assert planned.cells
    assert not planned.refused
