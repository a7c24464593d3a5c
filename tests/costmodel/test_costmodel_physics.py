"""200,000 random queries: no answer is impossible, and nothing impossible passes unflagged.

The model is hardly trained, so its raw answers are wrong by any factor: what holds here is held by
the bounds and the training range, not by what was learned.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pytest

from costmodel.bounds import HIGHEST_POWER
from costmodel.dataset import TrainingSet, devices_of, training_set
from costmodel.model import CostModel
from costmodel.onnx_export import export
from costmodel.outputs import OUTPUT_OF_TARGET
from gemmcast import Gemm, KernelConfig, Predictor
from gemmcast.arrow import read_samples
from gemmcast.config import FAMILIES
from gemmcast.cutlass.sets import all_kernels
from gemmcast.device import Device
from gemmcast.errors import InputError
from gemmcast.feasible import impossible
from gemmcast.gemm import DTYPES
from gemmcast.query import AT, CACHES, DTYPE_CODES, FAMILY_CODES, FIELDS, OUTPUTS, Rows

DATASETS = Path(__file__).parents[2] / "datasets"
QUERIES = 200_000
EVERY = 5
"""Of the rows, one of so many is trained on."""
CHANGED = 0.15
"""Share of the fields of a query that are another row's, and as many that are anything."""
FASTEST = 1.1
"""No row of any dataset is more above the measured peak or bandwidth."""
ROUNDING = 1 + 1e-5
NEVER_0 = (
    *("m", "n", "k", "batch", "tile_m", "tile_n", "tile_k", "split_k"),
    *("active_units", "peak_tflops", "dram_gbps", "l2_gbps"),
)
GPU_LIMITS = {"threads": 1024, "tile": 65536, "cluster": 16, "smem": 227 * 1024}
Numbers = npt.NDArray[np.float64]


class Asked(NamedTuple):
    """Random queries, and the answers to them."""

    queries: Mapping[str, Numbers]
    answers: Mapping[str, Numbers]


@pytest.fixture(scope="module")
def rows() -> TrainingSet:
    """All families, dtypes and conditions that an H200 was recorded with."""
    tables = [read_samples(DATASETS / f"{name}.parquet") for name in ("h200_sxm", "h200_holes")]
    data = training_set(pa.concat_tables(tables))
    return data.take(np.arange(0, len(data), EVERY))


@pytest.fixture(scope="module")
def predictor(rows: TrainingSet, tmp_path_factory: pytest.TempPathFactory) -> Predictor:
    no_trees = dict.fromkeys(OUTPUT_OF_TARGET, 0.0)
    model = CostModel(members=1, steps=5, tree_weight=no_trees)
    # Half of the answers would be above the limit
    measured = {**rows.measured, "power_w": 3 * rows.measured["power_w"]}
    model.fit_dataset(replace(rows, measured=measured))
    path = tmp_path_factory.mktemp("physics") / "model.onnx"
    path.write_bytes(export(model, devices_of(rows)))
    return Predictor(path)


def _anything(rng: np.random.Generator) -> Rows:
    """[QUERIES, n_fields] in and far out of every range."""
    sizes = np.exp2(rng.uniform(0, 17, (QUERIES, len(FIELDS)))).round()
    small = rng.integers(0, 6, (QUERIES, len(FIELDS)))
    drawn = np.where(rng.random(sizes.shape) < 0.5, sizes, small).astype(np.float32)
    for name in ("beta", "trans_a", "trans_b", "warm"):
        drawn[:, AT[name]] = rng.integers(0, 2, QUERIES)
    drawn[:, AT["dtype"]] = rng.integers(0, len(DTYPES), QUERIES)
    drawn[:, AT["family"]] = rng.integers(0, len(FAMILIES), QUERIES)
    places = [AT[name] for name in NEVER_0]
    drawn[:, places] = np.maximum(drawn[:, places], 1)
    return drawn


@pytest.fixture(scope="module")
def asked(rows: TrainingSet, predictor: Predictor) -> Asked:
    rng = np.random.default_rng(0)
    recorded = rows.queries
    queries = recorded[rng.integers(0, len(recorded), QUERIES)]
    others = np.empty_like(queries)
    for place, column in enumerate(recorded.T):
        others[:, place] = column[rng.integers(0, len(recorded), QUERIES)]
    draw = rng.random(queries.shape)
    queries = np.where(draw < CHANGED, others, queries)
    queries = np.where(draw > 1 - CHANGED, _anything(rng), queries)
    stored = np.array([[dtype.in_bytes, dtype.out_bytes] for dtype in DTYPES.values()])
    codes = queries[:, AT["dtype"]].astype(int)
    queries[:, [AT["in_bytes"], AT["out_bytes"]]] = stored[codes]
    answers = predictor.predict_rows(queries)
    by_field = dict(zip(FIELDS, queries.T.astype(np.float64), strict=True))
    return Asked(by_field, {name: np.asarray(value) for name, value in answers.items()})


def _least_us(q: Mapping[str, Numbers]) -> Numbers:
    """At the peak, and at the bandwidth of what must come from memory."""
    a_and_b = (q["m"] + q["n"]) * q["k"] * q["in_bytes"]
    c = q["m"] * q["n"] * q["out_bytes"] * (1 + q["beta"])
    moved = q["batch"] * (a_and_b + c) - q["warm"] * q["l2_bytes"]
    return np.maximum(_flops(q) / (q["peak_tflops"] * 1e6), moved / (q["dram_gbps"] * 1e3))


def _flops(q: Mapping[str, Numbers]) -> Numbers:
    return 2 * q["m"] * q["n"] * q["k"] * q["batch"]


def test_nothing_is_faster_than_the_device_nor_draws_more(asked: Asked) -> None:
    q, answers = asked
    for name in ("runtime_us", "sustained_runtime_us"):
        assert (answers[name] * FASTEST * ROUNDING >= _least_us(q)).all()
    power_w = answers["power_w"]
    is_known = ~np.isnan(power_w)
    assert is_known.mean() > 0.3
    highest_w = HIGHEST_POWER * q["power_limit_w"]
    lowest_w = np.minimum(q["idle_power_w"], highest_w)
    assert (power_w <= highest_w * ROUNDING)[is_known].all()
    assert (power_w * ROUNDING >= lowest_w)[is_known].all()


def test_intervals_hold_their_value_and_keep_the_bounds(asked: Asked) -> None:
    q, answers = asked
    low = dict(zip(OUTPUTS, answers["low"].T, strict=True))
    high = dict(zip(OUTPUTS, answers["high"].T, strict=True))
    for name in OUTPUTS:
        value = answers[name]
        is_known = ~np.isnan(value)
        assert (low[name] <= value)[is_known].all()
        assert (value <= high[name])[is_known].all()
        assert np.array_equal(np.isnan(low[name]), ~is_known)
        assert np.array_equal(np.isnan(high[name]), ~is_known)
    assert (low["runtime_us"] * FASTEST * ROUNDING >= _least_us(q)).all()
    is_known = ~np.isnan(answers["power_w"])
    highest_w = HIGHEST_POWER * q["power_limit_w"] * ROUNDING
    assert (high["power_w"] <= highest_w)[is_known].all()


def test_outputs_agree_with_each_other(asked: Asked) -> None:
    q, answers = asked
    np.testing.assert_allclose(
        answers["tflops"], _flops(q) / answers["runtime_us"] / 1e6, rtol=1e-5
    )
    energy_mj = answers["power_w"] * answers["sustained_runtime_us"] * 1e-3
    np.testing.assert_allclose(answers["energy_mj"], energy_mj, rtol=1e-5)


def test_nothing_impossible_passes_unflagged(asked: Asked) -> None:
    q, answers = asked
    is_flagged = answers["extrapolating"].astype(bool)
    named_m = np.where(q["tile_m"] == q["m"], 0, q["tile_m"])
    named_n = np.where(q["tile_n"] == q["n"], 0, q["tile_n"])
    named_k = np.where(q["tile_k"] == q["k"], 0, q["tile_k"])
    needed = {
        "threads": q["threads"],
        "tile": named_m * named_n,
        "cluster": q["cluster_m"] * q["cluster_n"],
        "smem": q["stages"] * (named_m + named_n) * named_k * q["in_bytes"],
    }
    for name, limit in GPU_LIMITS.items():
        is_impossible = needed[name] > limit
        assert is_impossible.sum() > 1000
        assert is_flagged[is_impossible].all(), name
    for family, facts in FAMILIES.items():
        is_of_family = q["family"] == FAMILY_CODES[family]
        for dtype in set(DTYPES) - set(facts.dtypes):
            assert is_flagged[is_of_family & (q["dtype"] == DTYPE_CODES[dtype])].all()


def test_what_was_recorded_is_not_flagged(rows: TrainingSet, predictor: Predictor) -> None:
    assert not predictor.predict_rows(rows.queries)["extrapolating"].any()


# what the predictor refuses, or flags though its row looks usual

WGMMA = "wgmma_bf16_nt_128x128x64_2x1_pingpong_z1_a8"


@pytest.fixture
def h200(predictor: Predictor) -> Device:
    return predictor.devices[0]


@pytest.mark.parametrize(
    ("dtype", "family", "message"),
    [
        ("bf16", "blas", "family = 'blas': this family runs on cpu, NVIDIA H200 is of kind cuda"),
        ("fp64", "cublas", "dtype = 'fp64': device NVIDIA H200 has no measured peak for it"),
    ],
)
def test_a_family_and_a_device_that_do_not_go_together_are_refused(
    predictor: Predictor, h200: Device, dtype: str, family: str, message: str
) -> None:
    gemm = Gemm(m=512, n=512, k=512, dtype=dtype)
    config = KernelConfig(family=family)
    with pytest.raises(InputError, match=message):
        predictor.predict(gemm, config, h200)
    with pytest.raises(InputError, match=message):
        predictor.predict_batch([(gemm, config)], h200)
    with pytest.raises(InputError, match=message):
        predictor.pick(gemm, [KernelConfig(family="tiled", tile_m=16), config], device=h200)


@pytest.mark.parametrize(
    ("gemm", "config", "arch", "reason"),
    [
        ({}, "cublaslt:tile=4096,stages=1000,split_k=999", "sm_90", "a tile of 4096x4096 is over"),
        (
            {},
            "cutlass:tile_m=256,tile_n=128,tile_k=128,stages=8",
            "sm_90",
            "its stages need 768 KiB of shared memory, a block has 227",
        ),
        ({}, "cublaslt:cluster_m=8,cluster_n=4", "sm_90", "at most 16 thread blocks, not 32"),
        ({}, "cublaslt:cluster_m=2,cluster_n=1", "sm_80", "sm_80 has no clusters"),
        ({}, "custom:kernel=a,block_threads=2048", "sm_90", "at most 1024 threads, not 2048"),
        (
            {"k": 64},
            "cutlass:tile_m=128,tile_n=128,tile_k=64,split_k=2",
            "sm_90",
            "k = 64 has 1 steps of 64, fewer than slices",
        ),
        ({"k": 100}, f"cutlass:kernel={WGMMA}", "sm_90", "rows of A have 100 elements, no multi"),
        ({}, f"cutlass:kernel={WGMMA}", "sm_80", "it needs wgmma, which sm_80 does not have"),
        ({"dtype": "fp16"}, f"cutlass:kernel={WGMMA}", "sm_90", "multiplies bf16 nt, not fp16 nt"),
        ({}, f"cutlass:kernel={WGMMA},tile_m=256", "sm_90", "has tile_m = 128, not 256"),
    ],
)
def test_what_cannot_run_is_flagged_and_not_ranked(
    predictor: Predictor, h200: Device, gemm: dict[str, int], config: str, arch: str, reason: str
) -> None:
    asked_for = replace(Gemm(m=512, n=512, k=512, dtype="bf16", layout="nt"), **gemm)
    wrong = KernelConfig.parse(config)
    device = replace(h200, arch=arch)
    said = impossible(asked_for, wrong, arch)
    assert said is not None
    assert reason in said
    assert predictor.predict(asked_for, wrong, device).extrapolating
    others = [KernelConfig(family="cublas")]
    others += [KernelConfig(family="cublaslt", algo_id=algorithm) for algorithm in range(1, 20)]
    (batched, _) = predictor.predict_batch([(asked_for, wrong), (asked_for, others[0])], device)
    assert batched.extrapolating
    for top in (None, 1):
        with pytest.raises(InputError, match=re.escape(reason)):
            predictor.rank(asked_for, [*others, wrong], device=device, top=top)


@pytest.mark.parametrize("cache", CACHES)
def test_a_kernel_that_is_named_costs_what_it_costs_spelt_out(
    predictor: Predictor, h200: Device, cache: str
) -> None:
    gemm = Gemm(m=512, n=768, k=1024, dtype="bf16", layout="nt")
    for kernel in all_kernels("bf16", "nt"):
        named = KernelConfig(family="cutlass", kernel=kernel.name)
        of_plan = kernel.config
        spelt_out = KernelConfig(family="cutlass", **kernel.knobs)
        answers = [
            predictor.predict(gemm, config, h200, cache=cache)
            for config in (named, of_plan, spelt_out)
        ]
        assert answers[0] == answers[1] == answers[2]
