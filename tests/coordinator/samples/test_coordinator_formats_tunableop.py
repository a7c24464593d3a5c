"""Results of PyTorch's TunableOp: what becomes of a line, what is left out, what is refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from coordinator.samples.importer import read_table
from gemmcast.errors import InputError

DEVICE = {"device": "NVIDIA H100 80GB HBM3"}
HEAD = "Validator,PT_VERSION,2.9.1\n"
GEMM = "GemmTunableOp_BFloat16_TN,tn_4096_512_2048_ld_2048_2048_4096,Default,0.05\n"
Save = Callable[[str], Path]


@pytest.fixture
def save(tmp_path: Path) -> Save:
    def save(text: str) -> Path:
        path = tmp_path / "tunableop_results0.csv"
        path.write_bytes(text.encode())
        return path

    return save


def test_a_linear_layer_becomes_a_sample(save: Save) -> None:
    """x of 512 x 2048 by the transpose of W, 4096 x 2048: column-major it is TN, m = 4096."""
    imported = read_table(save(HEAD + GEMM), constants=DEVICE)
    assert imported.format == "tunableop"
    (row,) = imported.table.to_pylist()
    expected = {
        "m": 512,
        "n": 4096,
        "k": 2048,
        "batch": 1,
        "dtype": "bf16",
        "layout": "nt",
        "family": "cublas",
        "kernel": "default",
        "cache": "warm",
        "status": "ok",
        "runtime_us": 50.0,
        "power_w": None,
        "device": "NVIDIA H100 80GB HBM3",
        "library": "PyTorch 2.9.1",
        "agent": "import:tunableop:tunableop_results0.csv",
    }
    assert {name: row[name] for name in expected} == expected


@pytest.mark.parametrize(
    ("letters", "layout", "ld"),
    [
        ("NN", "nn", "64_32_64"),
        ("NT", "tn", "64_16_64"),
        ("TN", "nt", "32_32_64"),
        ("TT", "tt", "32_16_64"),
    ],
)
def test_operands_change_places_and_leading_dimensions_say_dense(
    save: Save, letters: str, layout: str, ld: str
) -> None:
    line = f"GemmTunableOp_Half_{letters},{letters.lower()}_64_16_32_ld_{ld},Default,1\n"
    (row,) = read_table(save(HEAD + line), constants=DEVICE).table.to_pylist()
    assert (row["m"], row["n"], row["k"], row["layout"]) == (16, 64, 32, layout)
    first, *others = ld.split("_")
    padded = line.replace(ld, "_".join([str(int(first) + 8), *others]))
    imported = read_table(save(HEAD + padded + GEMM), constants=DEVICE)
    assert imported.skipped == {"its leading dimensions are larger than its matrices": 1}


def test_the_leading_dimension_of_one_column_says_nothing(save: Save) -> None:
    line = "GemmTunableOp_Half_TN,tn_64_1_32_ld_32_77_99,Default,1\n"
    (row,) = read_table(save(HEAD + line), constants=DEVICE).table.to_pylist()
    assert (row["m"], row["n"], row["k"]) == (1, 64, 32)


@pytest.mark.parametrize(
    ("line", "dtype", "batch", "kernel"),
    [
        ("GemmTunableOp_float_NT,nt_25088_4096_64,Default,1.262", "fp32", 1, "default"),
        ("GemmTunableOp_tf32_NN,nn_64_64_64_ld_64_64_64,Default,1", "tf32", 1, "default"),
        ("GemmTunableOp_double_NN,nn_64_64_64_ld_64_64_64,Default,1", "fp64", 1, "default"),
        (
            "GemmStridedBatchedTunableOp_Half_NN,nn_64_64_64_B_12_ld_64_64_64,Gemm_Rocblas_7,1",
            "fp16",
            12,
            "Gemm_Rocblas_7",
        ),
        (
            "ScaledGemmTunableOp_Float8_e4m3fn_Float8_e4m3fn_BFloat16_TN,"
            "tn_64_64_64_ld_64_64_64_rw_0_bias_None,Default,1",
            "fp8_e4m3",
            1,
            "default",
        ),
    ],
)
def test_every_plain_product(save: Save, line: str, dtype: str, batch: int, kernel: str) -> None:
    (row,) = read_table(save(HEAD + line), constants=DEVICE).table.to_pylist()
    assert (row["dtype"], row["batch"], row["kernel"]) == (dtype, batch, kernel)


def test_versions_of_libraries_are_kept(save: Save) -> None:
    validators = "Validator,ROCBLAS_VERSION,4.3.0\nValidator,PT_VERSION,2.9.1\n"
    arch = "Validator,GCN_ARCH_NAME,gfx942:sramecc+:xnack-\n"
    (row,) = read_table(save(validators + arch + GEMM), constants=DEVICE).table.to_pylist()
    assert row["library"] == "PyTorch 2.9.1 (ROCBLAS_VERSION 4.3.0)"


def test_what_has_no_equivalent_is_left_out_and_counted(save: Save) -> None:
    fp8 = "ScaledGemmTunableOp_Float8_e4m3fn_Float8_e4m3fn"
    lines = [
        "GemmAndBiasTunableOp_BFloat16_TN,tn_64_64_64_ld_64_64_64,Default,1",
        "GemmTunableOp_c10::complex<float>_NN,nn_64_64_64_ld_64_64_64,Default,1",
        f"{fp8}_BFloat16_TN,tn_64_64_64_ld_64_64_64_rw_1_bias_None,Default,1",
        f"{fp8}_BFloat16_TN,tn_64_64_64_ld_64_64_64_rw_0_bias_Half,Default,1",
        f"{fp8}_Half_TN,tn_64_64_64_ld_64_64_64_rw_0_bias_None,Default,1",
        "GemmTunableOp_Half_NN,nn_64_64_64_ld_64_64_64,Default",
    ]
    imported = read_table(save(HEAD + GEMM + "\n".join(lines)), constants=DEVICE)
    assert len(imported.table) == 1
    assert imported.skipped == {
        "GemmAndBias is more than a product": 1,
        "type c10::complex<float> has no equivalent": 1,
        "ScaledGemm with a scale for each row, or a bias": 2,
        "ScaledGemm of Float8_e4m3fn_Float8_e4m3fn_Half has no equivalent": 1,
        "it has no time": 1,
    }


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("GemmTunableOp_Half_NN,nn_64_64,Default,1", "parameters = 'nn_64_64': are no parameters"),
        (
            "GemmTunableOp_Half_NN,tn_64_64_64,Default,1",
            "are no parameters of GemmTunableOp_",
        ),
        ("GemmTunableOp_Half_NN,nn_64_64_64", "cells = 2: a result has 3 or 4 cells"),
        ("GemmTunableOp_Half,nn_64_64_64,Default,1", "operator = 'GemmTunableOp_Half': is no"),
        ("GemmTunableOp_Half_NN,nn_64_64_64,Default,-1", "runtime_us = -1000.0: must be above 0"),
        ("GemmTunableOp_Half_NN,nn_64_64_64,Default,fast", "runtime_us = 'fast': must be a number"),
        ("GemmTunableOp_Half_NN,nn_0_64_64,Default,1", "n = 0: must be a whole number"),
    ],
)
def test_a_bad_line_costs_itself(save: Save, line: str, message: str) -> None:
    imported = read_table(save(HEAD + line + "\n" + GEMM), constants=DEVICE)
    assert len(imported.table) == 1
    (note,) = [note for note in imported.notes if "left out" in note]
    assert note.startswith("row 1 left out: ") and message in note


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (HEAD, "has no results of TunableOp"),
        (f"{HEAD}GemmAndBiasTunableOp_Half_TN,tn_8_8_8_ld_8_8_8,Default,1", "none of its 1 rows"),
    ],
)
def test_a_file_without_a_usable_line_is_refused(save: Save, text: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        read_table(save(text), constants=DEVICE)


def test_the_device_and_every_column_may_be_set(save: Save) -> None:
    cold = {**DEVICE, "cache": "cold"}
    (row,) = read_table(save(HEAD + GEMM), constants=cold).table.to_pylist()
    assert row["cache"] == "cold"
    with pytest.raises(InputError, match="device = None: .*--set device=NAME"):
        read_table(save(HEAD + GEMM))
    with pytest.raises(InputError, match="--set = 'tile': is no column of a sample"):
        read_table(save(HEAD + GEMM), constants={**DEVICE, "tile": "64"})


def test_a_file_without_validators_is_known_by_its_first_line(save: Save) -> None:
    imported = read_table(save("\ufeff" + GEMM), constants=DEVICE)
    assert imported.format == "tunableop"
    assert imported.table["library"].to_pylist() == ["PyTorch"]
