"""datasets/plans/holes*.toml fill what the recordings lack: 150 rows by hole, dtype and family.

Counted are cells, so a hole needs more of them than rows: cuBLASLt has no such algorithm for up to
a sixth of the cells of the other plans (a third of the fp8 cells beyond its list).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest

from coordinator.plan.cells import Planned, plan_cells
from coordinator.plan.known_devices import known_device
from coordinator.plan.schema import read_plan
from gemmcast.cell import Cell
from gemmcast.cutlass.sets import kernels

PLANS = Path(__file__).resolve().parents[2] / "datasets" / "plans"
HOLES = ("holes", "holes-more", "holes-warm")
ALONE = ("holes-power", "holes-int8")
ROWS = 150
LONGEST_MINUTES = 5.0
"""Of a plan without power: one call of a GPU machine has about nine."""
FP32 = {"fp32"}
HALF = {"fp16", "bf16"}
TENSOR = {*HALF, "tf32"}
EVERY = {*FP32, *TENSOR, "fp8_e4m3"}
LIBRARIES = {
    "cublas": {*FP32, *TENSOR},
    "cublaslt": EVERY,
    "cutlass": EVERY,
    "tiled": FP32,
}
BATCHED = {family: dtypes for family, dtypes in LIBRARIES.items() if family != "cutlass"}
NOT_TILED = {family: dtypes for family, dtypes in LIBRARIES.items() if family != "tiled"}
Fits = Callable[[Cell], bool]


def is_any(_cell: Cell) -> bool:
    return True


def splits(slices: int) -> Fits:
    return lambda cell: cell.config.split_k == slices


def has_layout(layout: str) -> Fits:
    return lambda cell: cell.gemm.layout == layout


def is_of_between(cell: Cell) -> bool:
    return cell.config.kernel in between()


def is_wgmma_of_between(cell: Cell) -> bool:
    return is_of_between(cell) and cell.config.kernel.startswith("wgmma")


def is_mma_of_between(cell: Cell) -> bool:
    return is_of_between(cell) and cell.config.kernel.startswith("tensorop")


@cache
def between() -> frozenset[str]:
    return frozenset(kernel.name for kernel in kernels("between", "sm_90"))


KINDS: dict[str, tuple[Fits, dict[str, set[str]]]] = {
    **{f"split_k {slices}": (splits(slices), {"cutlass": EVERY}) for slices in (2, 4, 8, 16)},
    "tiles between, SIMT": (is_of_between, {"cutlass": FP32}),
    "tiles between, mma.sync": (is_mma_of_between, {"cutlass": TENSOR}),
    "tiles between, wgmma": (is_wgmma_of_between, {"cutlass": EVERY - FP32}),
    "warm": (lambda cell: cell.cache == "warm", LIBRARIES),
    "m = 1 to 8": (lambda cell: cell.gemm.m <= 8, LIBRARIES),
    "beta = 1": (lambda cell: cell.gemm.beta == 1.0, LIBRARIES),
    "batch": (lambda cell: 2 <= cell.gemm.batch <= 1024, BATCHED),
    "cuBLASLt in fp32": (is_any, {"cublaslt": FP32}),
    # the recordings have 8,000 rows of cuBLAS in nn
    "nn in half precision": (has_layout("nn"), {"cublaslt": HALF, "cutlass": HALF}),
    "tn in half precision": (has_layout("tn"), dict.fromkeys(NOT_TILED, HALF)),
    "tt in half precision": (has_layout("tt"), dict.fromkeys(NOT_TILED, HALF)),
    "n or k of a vocabulary": (lambda cell: max(cell.gemm.n, cell.gemm.k) >= 32_000, NOT_TILED),
    "beyond the list": (
        lambda cell: cell.config.kernel.startswith("enumerated"),
        {"cublaslt": EVERY},
    ),
}
"""Hole -> its cells, and family -> dtypes that have it."""


@cache
def planned(name: str) -> Planned:
    return plan_cells(read_plan(PLANS / f"{name}.toml"), known_device("h100"))


@cache
def cells() -> list[Cell]:
    return [cell for name in HOLES for cell in planned(name).cells]


@pytest.mark.parametrize("kind", KINDS)
def test_every_hole_is_filled_for_each_dtype_and_family(kind: str) -> None:
    fits, families = KINDS[kind]
    counts = Counter((cell.config.family, cell.gemm.dtype) for cell in cells() if fits(cell))
    wanted = [(family, dtype) for family, dtypes in families.items() for dtype in sorted(dtypes)]
    thin = {pair: counts[pair] for pair in wanted if counts[pair] < ROWS}
    assert not thin


@pytest.mark.parametrize("name", [*HOLES, *ALONE])
def test_nothing_is_refused(name: str) -> None:
    assert planned(name).refused == {}


@pytest.mark.parametrize("name", HOLES)
def test_a_plan_without_power_fits_into_one_call(name: str) -> None:
    assert planned(name).minutes < LONGEST_MINUTES
    assert not any(cell.power for cell in planned(name).cells)


def test_int8_is_recorded_in_cublaslt() -> None:
    recorded = planned("holes-int8").cells
    assert {(cell.config.family, cell.gemm.dtype) for cell in recorded} == {("cublaslt", "int8")}
    assert sum(not cell.power for cell in recorded) >= 5 * ROWS
    assert sum(cell.gemm.m <= 8 for cell in recorded) >= 50


def test_the_plan_with_power_meters_fifteen_hundred_cells_mostly_short() -> None:
    device = known_device("h100")
    metered = planned("holes-power").cells
    assert all(cell.power for cell in metered)
    assert len(metered) >= 1500
    short = 0
    for cell in metered:
        compute_us = cell.gemm.flops / (0.6 * device.peak_tflops[cell.gemm.dtype] * 1e6)
        memory_us = cell.gemm.operand_bytes / (0.75 * device.dram_gbps * 1e3)
        short += 5 <= max(compute_us, memory_us) + 2 <= 50
    assert short > 0.6 * len(metered)


LATER = "layer-power.toml"
"""Recorded afterwards, for power: it has seven of those layers with what cuBLAS chooses itself, and
no algorithm."""


def test_sixty_layers_beyond_the_list_are_in_no_other_plan() -> None:
    beyond: set[tuple[int, int]] = set()
    others: set[tuple[int, int]] = set()
    for path in PLANS.glob("*.toml"):
        if path.name == LATER:
            continue
        for sweep in read_plan(path).sweep:
            (beyond if "enumerated-0" in sweep.kernel else others).update(sweep.shapes.nk)
    assert len(beyond - others) >= 60


def test_sizes_reach_two_to_the_eighteenth() -> None:
    gemms = [cell.gemm for cell in cells()]
    assert max(gemm.n for gemm in gemms) == max(gemm.k for gemm in gemms) == 262_144
    assert {gemm.batch for gemm in gemms} == {1, *(2**i for i in range(1, 11))}
    heads = {(gemm.n, gemm.k) for gemm in gemms if gemm.n >= 32_000 and gemm.k <= 8192}
    assert len(heads) >= 28
