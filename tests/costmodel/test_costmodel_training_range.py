"""What is flagged as never recorded, knob by knob, and what is not."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from costmodel.dataset import TrainingSet, held_out, training_set, with_unresolved_copies
from costmodel.evaluate.groups import split
from costmodel.terms import Typical, terms
from costmodel.training_range import TrainingRange
from gemmcast.arrow import read_samples
from gemmcast.query import AT, DTYPE_CODES, FAMILY_CODES, Rows

DATASETS = Path(__file__).parents[2] / "datasets"
Flags = npt.NDArray[np.bool_]


@pytest.fixture(scope="module")
def sweep() -> TrainingSet:
    """Rows of an H200 under usual conditions: cold, one problem, beta 0 but in fp32 of CUTLASS."""
    return training_set(read_samples(DATASETS / "h200_sxm.parquet"))


@pytest.fixture(scope="module")
def holes() -> TrainingSet:
    """Rows of an H200 that the sweep lacks: warm, batched, m = 1."""
    return training_set(read_samples(DATASETS / "h200_holes.parquet"))


def _flags(trained_on: Rows, asked: Rows) -> Flags:
    typical = Typical.of(trained_on)
    known, asked_for = (
        raw._replace(quantities=typical.filled(raw.quantities))
        for raw in (terms(trained_on), terms(asked))
    )
    flags: Flags = TrainingRange.of(known).is_outside(asked_for)
    return flags


def _usual_row(data: TrainingSet, family: str, dtype: str) -> Rows:
    """[1, n_fields] of a kernel with knobs, in the middle of all sizes."""
    queries = data.queries
    is_like = queries[:, AT["family"]] == FAMILY_CODES[family]
    is_like &= queries[:, AT["dtype"]] == DTYPE_CODES[dtype]
    is_like &= queries[:, AT["tile_m"]] < queries[:, AT["m"]]
    chosen = queries[is_like]
    by_m = chosen[np.argsort(chosen[:, AT["m"]], kind="stable")]
    middle: Rows = by_m[[len(by_m) // 2]]
    return middle


@pytest.mark.parametrize(
    ("family", "dtype", "change"),
    [
        ("cublas", "bf16", {"warm": 1}),
        ("cublas", "bf16", {"beta": 1}),
        ("cutlass", "fp8_e4m3", {"beta": 1}),
        ("cublas", "bf16", {"batch": 4}),
        ("cublas", "fp32", {"m": 1}),
        ("cublas", "fp32", {"n": 300_000}),
        ("cublas", "fp32", {"trans_b": 1}),
        ("cublaslt", "fp16", {"trans_a": 1}),
        ("cutlass", "fp16", {"split_k": 2}),
        ("cublaslt", "fp16", {"split_k": 4000}),
        ("cutlass", "fp16", {"tile_n": 96}),
        ("cutlass", "fp16", {"tile_m": 4096, "tile_n": 4096, "tile_k": 4096}),
        ("cutlass", "fp16", {"tile_k": 512}),
        # 3 stages of 768 KiB together
        ("cublaslt", "fp16", {"tile_m": 256, "tile_n": 256, "tile_k": 256, "stages": 3}),
        ("cutlass", "fp16", {"stages": 7}),
        ("cutlass", "fp16", {"stages": 1000}),
        ("cutlass", "fp16", {"warp_m": 16}),
        ("cutlass", "fp16", {"swizzle": 64}),
        ("cutlass", "fp16", {"cluster_m": 16}),
        ("cutlass", "fp16", {"threads": 2048}),
        ("cutlass", "fp16", {"algorithm": 5}),
        ("cublaslt", "tf32", {"algorithm": 7}),
        ("tiled", "fp32", {"tile_m": 64, "tile_n": 64, "tile_k": 64}),
        ("tiled", "fp32", {"tile_m": 16, "tile_n": 32}),
        ("cublaslt", "bf16", {"dtype": DTYPE_CODES["int8"]}),
        ("cublas", "fp16", {"dtype": DTYPE_CODES["fp8_e4m3"]}),
        ("cublas", "fp16", {"family": FAMILY_CODES["custom"]}),
        ("cublas", "bf16", {"peak_tflops": 80.0}),
        # the peak of fp32, which is none of fp16
        ("cublas", "fp16", {"peak_tflops": 51.0}),
        ("cublas", "fp16", {"dram_gbps": 3000.0}),
        ("cublas", "fp16", {"power_limit_w": 350.0}),
    ],
)
def test_what_was_never_recorded_is_flagged(
    sweep: TrainingSet, family: str, dtype: str, change: dict[str, float]
) -> None:
    usual = _usual_row(sweep, family, dtype)
    changed = usual.copy()
    for name, value in change.items():
        changed[:, AT[name]] = value
    assert _flags(sweep.queries, np.concatenate([usual, changed])).tolist() == [False, True]


@pytest.mark.parametrize("change", [{"m": 1.2}, {"k": 0.9}, {"power_limit_w": 0.0}])
def test_what_is_near_the_training_rows_is_not_flagged(
    sweep: TrainingSet, change: dict[str, float]
) -> None:
    """Sizes between recorded ones, and a limit that is unknown."""
    changed = _usual_row(sweep, "cublas", "bf16")
    for name, factor in change.items():
        changed[:, AT[name]] *= factor
    assert not _flags(sweep.queries, changed).any()


def test_an_unnamed_kernel_is_flagged_where_none_was_recorded(sweep: TrainingSet) -> None:
    """Of cuBLAS and cuBLASLt models learn what a query without knobs means; of CUTLASS nothing."""
    trained_on = with_unresolved_copies(sweep).queries
    flagged = {}
    for family in ("cublas", "cublaslt", "cutlass"):
        row = _usual_row(sweep, family, "fp16")
        for side in ("m", "n", "k"):
            row[:, AT[f"tile_{side}"]] = row[:, AT[side]]
        for name in ("warp_m", "warp_n", "warp_k", "stages", "swizzle", "threads", "algorithm"):
            row[:, AT[name]] = 0
        row[:, [AT["cluster_m"], AT["cluster_n"]]] = 0
        row[:, AT["split_k"]] = 1
        flagged[family] = bool(_flags(trained_on, row)[0])
    assert flagged == {"cublas": False, "cublaslt": False, "cutlass": True}


def test_recorded_conditions_are_flagged_without_and_not_with_their_rows(
    sweep: TrainingSet, holes: TrainingSet
) -> None:
    """Half of the shapes of the holes are added to the training rows, the others are asked for."""
    is_added = held_out(holes.shapes, 0.5)
    asked = holes.take(~is_added)
    is_hole = asked.queries[:, AT["warm"]] > 0
    is_hole |= asked.queries[:, AT["batch"]] > 1
    without = _flags(sweep.queries, asked.queries)
    with_holes = np.concatenate([sweep.queries, holes.queries[is_added]])
    assert without[is_hole].all()
    assert _flags(with_holes, asked.queries)[is_hole].mean() < 0.06


def test_unseen_shapes_of_a_sweep_are_hardly_flagged() -> None:
    data = training_set(read_samples(DATASETS / "h100_demo.parquet"))
    flagged = 0
    for is_known, is_new in split(data.shapes, 5):
        flagged += int(_flags(data.queries[is_known], data.queries[is_new]).sum())
    assert flagged / len(data) < 0.03
