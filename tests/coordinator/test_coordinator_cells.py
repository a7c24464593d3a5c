"""From a plan to cells: always the same ones in the same order, all of them measurable."""

from __future__ import annotations

import pickle
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise, product
from operator import attrgetter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from coordinator.plan.cells import plan_cells
from coordinator.plan.schema import Plan, Shapes, parse_plan, read_plan
from coordinator.plan.shapes import shapes_of
from gemmcast.cell import Cell
from gemmcast.device import Device
from gemmcast.errors import InputError

MakePlan = Callable[..., Plan]
DEMO = Path(__file__).parent.parent.parent / "examples" / "demo.toml"
PRINT_IDS = """
import sys
from pathlib import Path
from coordinator.plan.cells import plan_cells
from coordinator.plan.schema import read_plan
from gemmcast.device import Device
for cell in plan_cells(read_plan(Path(sys.argv[1])), Device.from_json(sys.argv[2])).cells:
    print(cell.cell_id, int(cell.power))
"""


def _cells(plan: Plan, device: Device) -> list[Cell]:
    return plan_cells(plan, device).cells


def test_another_process_plans_the_same_cells_in_the_same_order(
    gpu: Device, python_env: dict[str, str]
) -> None:
    here = "".join(f"{cell.cell_id} {int(cell.power)}\n" for cell in _cells(read_plan(DEMO), gpu))
    command = [sys.executable, "-c", PRINT_IDS, str(DEMO), gpu.to_json()]
    for seed in ("1", "2"):
        there = subprocess.run(
            command,
            capture_output=True,
            text=True,
            env={**python_env, "PYTHONHASHSEED": seed},
            check=True,
        ).stdout
        assert there == here
    assert len(here.splitlines()) == 80 * 8


def test_a_cell_id_is_for_ever(make_plan: MakePlan, cpu: Device) -> None:
    (cell,) = _cells(
        make_plan({"list": [[64, 32, 16]]}, kernel="numpy", knobs={"cpu_threads": [1]}), cpu
    )
    assert cell.cell_id == "a843bd0404554b5e"


def test_every_cell_has_an_id_of_its_own(gpu: Device) -> None:
    cells = _cells(read_plan(DEMO), gpu)
    assert len({cell.cell_id for cell in cells}) == len(cells)
    assert all(pickle.loads(pickle.dumps(cell)).cell_id == cell.cell_id for cell in cells[:20])


# shapes


def test_sampled_shapes_are_spread_evenly_over_the_orders_of_magnitude() -> None:
    shapes = np.array(shapes_of(Shapes(sample=4000, min=16, max=4096), seed=3))
    assert shapes.min() >= 16 and shapes.max() <= 4096
    for dimension in np.log2(shapes).T:
        counts, _ = np.histogram(dimension, bins=np.linspace(4, 12, 9))
        assert counts.min() > 0.85 * 500 and counts.max() < 1.15 * 500


def test_sampled_shapes_are_all_different_and_meet_their_bounds() -> None:
    shapes = shapes_of(Shapes(sample=300, min=1, max=8), seed=0)
    assert len(set(shapes)) == len(shapes) == 300  # of 512 that there are
    assert {size for shape in shapes for size in shape} == set(range(1, 9))


def test_a_table_without_room_for_more_gives_what_there_is() -> None:
    assert len(shapes_of(Shapes(sample=50, min=7, max=8), seed=0)) == 8


def test_a_longer_sample_begins_with_the_shorter_one() -> None:
    short, long = (shapes_of(Shapes(sample=size), seed=5) for size in (20, 60))
    assert long[:20] == short
    assert shapes_of(Shapes(sample=20), seed=6) != short
    assert shapes_of(Shapes(sample=20, seed=5), seed=6) == short


def test_no_sampled_shape_is_above_max_gflop() -> None:
    shapes = shapes_of(Shapes(sample=200, min=16, max=4096, max_gflop=0.5), seed=0)
    assert len(shapes) == 200
    assert max(2e-9 * m * n * k for m, n, k in shapes) <= 0.5
    assert max(max(shape) for shape in shapes) > 2000  # one long side is allowed


def test_lists_grids_and_samples_go_together_without_repeats() -> None:
    table = Shapes(
        list=((3, 3, 3), (1, 1, 1), (3, 3, 3)), m=(1, 2), n=(1,), k=(1, 2), sample=5, min=1, max=2
    )
    shapes = shapes_of(table, seed=0)
    assert shapes[:5] == [(3, 3, 3), (1, 1, 1), (1, 1, 2), (2, 1, 1), (2, 1, 2)]
    # Of the eight shapes that the sample may draw four were there before.
    assert len(set(shapes)) == len(shapes) == 5 + 4


# configurations


def test_a_sweep_is_the_product_of_everything(make_plan: MakePlan, cpu: Device) -> None:
    plan = make_plan(
        {"m": [8, 16], "n": [8], "k": [8, 32]},
        dtypes=["fp32", "fp64"],
        layouts=["nn", "tt"],
        batch=[1, 4],
        knobs={"cpu_threads": [1, 2], "tile_m": [4]},
    )
    cells = _cells(plan, cpu)
    assert len(cells) == 4 * 2 * 2 * 2 * 2
    values = {
        "m": (8, 16),
        "k": (8, 32),
        "dtype": ("fp32", "fp64"),
        "layout": ("nn", "tt"),
        "batch": (1, 4),
    }
    of_gemm = attrgetter(*values)
    measured = {(*of_gemm(cell.gemm), cell.config.cpu_threads) for cell in cells}
    assert measured == set(product(*values.values(), (1, 2)))


def test_cells_of_one_problem_stand_together(make_plan: MakePlan, cpu: Device) -> None:
    plan = make_plan({"sample": 10}, dtypes=["fp32", "fp64"], knobs={"cpu_threads": [1, 2, 4]})
    gemms = [cell.gemm for cell in _cells(plan, cpu)]
    changes = sum(one != other for one, other in pairwise(gemms))
    assert changes == 10 * 2 - 1


def test_tile_sets_all_three_tiles(make_plan: MakePlan, gpu: Device) -> None:
    knobs = {"tile": [4, 8], "stages": [2]}
    cells = _cells(make_plan({"list": [[8, 8, 8]]}, family="tiled", knobs=knobs), gpu)
    knobs_of = attrgetter("tile_m", "tile_n", "tile_k", "stages")
    assert [knobs_of(cell.config) for cell in cells] == [(4, 4, 4, 2), (8, 8, 8, 2)]


def test_the_same_cell_of_two_sweeps_is_one(cpu: Device) -> None:
    one = {"family": "blas", "shapes": {"list": [[8, 8, 8], [9, 9, 9]]}}
    other = {"family": "blas", "shapes": {"list": [[9, 9, 9], [10, 10, 10]]}}
    plan = parse_plan({"name": "twice", "sweep": [one, other]})
    assert sorted(cell.gemm.m for cell in _cells(plan, cpu)) == [8, 9, 10]


def test_any_beginning_of_a_plan_is_a_sample_of_all_its_sweeps(cpu: Device) -> None:
    both = {"family": "blas", "knobs": {"cpu_threads": [1, 2]}}
    few = {**both, "shapes": {"sample": 5}, "layouts": ["nn"]}
    many = {**both, "shapes": {"sample": 50}, "layouts": ["tt"]}
    cells = _cells(parse_plan({"name": "two", "sweep": [few, many]}), cpu)
    assert len(cells) == 110
    for beginning in range(22, 110, 11):
        of_few = sum(cell.gemm.layout == "nn" for cell in cells[:beginning])
        assert abs(of_few - beginning / 11) <= 2
    # The two cells of a problem stay together.
    for one, two in zip(cells[::2], cells[1::2], strict=True):
        assert one.gemm == two.gemm


def test_repeats_are_cells_of_their_own(make_plan: MakePlan, cpu: Device) -> None:
    cells = _cells(make_plan({"sample": 4}, repeats=3), cpu)
    assert [cell.repeat for cell in cells] == [0, 1, 2] * 4
    once = _cells(make_plan({"sample": 4}), cpu)
    assert [cell.cell_id for cell in cells if cell.repeat == 0] == [cell.cell_id for cell in once]


def test_a_share_of_the_cells_is_metered_and_stays_the_same(
    make_plan: MakePlan, gpu: Device
) -> None:
    def metered(share: float, sample: int = 1000) -> set[str]:
        cells = _cells(make_plan({"sample": sample}, family="cublas", power_share=share), gpu)
        return {str(cell.gemm) for cell in cells if cell.power}

    assert metered(0.0) == set()
    assert len(metered(1.0)) == 1000
    assert 120 <= len(metered(0.15)) <= 180
    assert metered(0.15) == metered(0.15) < metered(0.4)
    assert metered(0.15, 500) < metered(0.15)


# devices


def test_cells_are_of_a_type_of_device_or_of_one_gpu(make_plan: MakePlan, gpu: Device) -> None:
    twin = replace(gpu, uuid="GPU-paper-1")
    per_type = make_plan({"sample": 5}, family="cublas")
    assert _cells(per_type, gpu) == _cells(per_type, twin)
    assert {cell.device_key for cell in _cells(per_type, gpu)} == {gpu.name}
    per_gpu = make_plan({"sample": 5}, family="cublas", devices={"replicate": "per_gpu"})
    ids = {cell.cell_id for cell in _cells(per_gpu, gpu)}
    assert not ids & {cell.cell_id for cell in _cells(per_gpu, twin)}
    assert {cell.device_key for cell in _cells(per_gpu, twin)} == {twin.uuid}


def test_what_a_device_cannot_do_is_counted_and_left_out(cpu: Device, gpu: Device) -> None:
    plan = read_plan(DEMO)
    on_cpu, on_gpu = plan_cells(plan, cpu), plan_cells(plan, gpu)
    assert {cell.config.family for cell in on_cpu.cells} == {"blas"}
    assert on_cpu.refused == {
        "family tiled needs a cuda device; this is cpu": 320,
        "family cublas needs a cuda device; this is cpu": 320,
    }
    assert {cell.config.family for cell in on_gpu.cells} == {"tiled", "cublas"}
    assert on_gpu.refused == {"family blas needs a cpu device; this is cuda": 650}


def test_a_dtype_that_a_family_lacks_is_counted_with_its_repeats(
    make_plan: MakePlan, cpu: Device
) -> None:
    planned = plan_cells(make_plan({"sample": 5}, dtypes=["fp32", "bf16"], repeats=2), cpu)
    assert planned.refused == {"family blas has no bf16": 10}
    assert len(planned.cells) == 10


def test_a_shape_larger_than_the_memory_is_refused(make_plan: MakePlan, cpu: Device) -> None:
    plan = make_plan({"list": [[8, 8, 8], [40_000, 40_000, 40_000]]})
    with pytest.raises(InputError) as caught:
        plan_cells(plan, cpu)
    assert str(caught.value) == (
        "sweep.0.shapes = '40000x40000x40000 fp32 nn': its operands and their "
        "float64 copies for the check need 53.6 GiB, "
        "Paper CPU (2 cores) has 16.0; take smaller shapes"
    )
    assert len(plan_cells(plan, replace(cpu, memory_bytes=2**37)).cells) == 2


def test_the_estimate_grows_with_the_work(make_plan: MakePlan, gpu: Device) -> None:
    def planned(**options: Any) -> Any:
        return plan_cells(make_plan({"sample": 50, "max": 4096}, family="cublas", **options), gpu)

    plain, metered, repeated = planned(), planned(power_share=1.0), planned(repeats=3)
    assert 0 < plain.minutes < metered.minutes
    assert repeated.minutes == pytest.approx(3 * plain.minutes)
    # Settling, and six steps of the counter.
    power_s = 0.25 + 0.6
    assert metered.minutes - plain.minutes == pytest.approx(50 * power_s / 60)
    # fp32, and its copies in float64.
    largest = max(cell.gemm.operand_bytes for cell in plain.cells)
    assert plain.memory_bytes == 3 * largest
