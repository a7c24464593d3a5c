"""Names and knobs of kernels: each says the other, in rows of samples as in queries."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from gemmcast import Gemm, KernelConfig, query
from gemmcast.arrow import read_samples
from gemmcast.cutlass.kernel import CutlassKernel
from gemmcast.cutlass.sets import CUTLASS_SETS, kernels
from gemmcast.feasible import impossible
from gemmcast.kernel_names import contradiction, resolved
from gemmcast.rows import config_of, gemm_of

DATASETS = Path(__file__).parents[2] / "datasets"
WGMMA = "wgmma_bf16_nt_128x128x64_2x1_pingpong_z1_a8"
GEMM = Gemm(m=512, n=512, k=512, dtype="bf16", layout="nt")


@pytest.mark.parametrize("set_name", CUTLASS_SETS)
def test_every_kernel_of_a_set_is_known_by_its_name_and_by_its_knobs(set_name: str) -> None:
    for kernel in kernels(set_name, "sm_90"):
        assert CutlassKernel.parse(kernel.name) == kernel
        gemm = replace(GEMM, dtype=kernel.dtype, layout=kernel.layout)
        whole = KernelConfig(family="cutlass", kernel=kernel.name, **kernel.knobs)
        assert kernel.compiled_stages > 0
        for config in (
            KernelConfig(family="cutlass", kernel=kernel.name),
            kernel.config,
            replace(whole, kernel=""),
            whole,
        ):
            assert resolved(gemm, config) == whole
            assert contradiction(gemm, config) is None


def test_a_name_keeps_what_the_configuration_says_besides() -> None:
    config = KernelConfig(family="cutlass", kernel=WGMMA, split_k=4, block_threads=384)
    whole = resolved(GEMM, config)
    assert (whole.split_k, whole.block_threads, whole.stages) == (4, 384, 6)


@pytest.mark.parametrize(
    "name",
    [
        "",
        "mine",
        "wgmma_bf16_nt_128x128x64_2x1_pingpong_z1",
        # tensor cores read bf16 by eights
        "wgmma_bf16_nt_128x128x64_2x1_pingpong_z1_a4",
        "tensorop_fp32_nt_64x64x8_32x32x8_s4_z1_a1",
        f"{WGMMA}_",
        "simt_fp32_nn_" + 90 * "1" + "x64x8_32x64x8_s2_z1_a1",
    ],
)
def test_another_name_says_nothing(name: str) -> None:
    assert CutlassKernel.parse(name) is None
    config = KernelConfig(family="cutlass", kernel=name, split_k=2)
    assert resolved(GEMM, config) == config


def test_knobs_of_several_kernels_or_of_none_are_left_alone() -> None:
    several = KernelConfig(family="cutlass", tile_m=128, tile_n=128, tile_k=64)
    none = KernelConfig(family="cutlass", tile_m=96, tile_n=96, tile_k=64, stages=3)
    other = KernelConfig(family="cublaslt", kernel=WGMMA)
    for config in (several, none, other):
        assert resolved(GEMM, config) == config


def test_a_contradiction_changes_nothing_and_is_named() -> None:
    config = KernelConfig(family="cutlass", kernel=WGMMA, tile_m=256)
    assert resolved(GEMM, config) == config
    assert contradiction(GEMM, config) == f"{WGMMA} has tile_m = 128, not 256"
    nn = replace(GEMM, layout="nn")
    named = KernelConfig(family="cutlass", kernel=WGMMA)
    assert resolved(nn, named) == named
    assert contradiction(nn, named) == f"{WGMMA} multiplies bf16 nt, not bf16 nn"


def test_recorded_rows_say_what_names_say_and_are_possible() -> None:
    """A sample with a name alone, or with knobs alone, is the row of the query with both."""
    table = read_samples(DATASETS / "h200_exam.parquet")
    rows = [row for row in table.to_pylist() if row["status"] == "ok"]
    for row in rows:
        assert impossible(gemm_of(row), config_of(row), row["arch"]) is None
    cutlass = [row for row in rows if row["family"] == "cutlass"]
    whole = {name: [row[name] for row in cutlass] for name in table.column_names}
    knobs = CutlassKernel.parse(WGMMA)
    assert knobs is not None
    named_only = {**whole, **{name: [0] * len(cutlass) for name in knobs.knobs}}
    knobs_only = {**whole, "kernel": [""] * len(cutlass)}
    expected = query.from_columns(whole)
    assert len(expected) > 400
    for columns in (named_only, knobs_only):
        assert np.array_equal(query.from_columns(columns), expected)
