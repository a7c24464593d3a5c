"""AIConfigurator tables: what becomes of a row, what is left out, what is refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from coordinator.samples.importer import read_table
from costmodel.dataset import training_set
from gemmcast.arrow import SCHEMA
from gemmcast.errors import InputError
from gemmcast.rows import Row

Write = Callable[..., Path]
MakeRow = Callable[..., Row]


def test_an_aiconfigurator_row_becomes_a_sample(write: Write, aic_row: MakeRow) -> None:
    path = write([aic_row(latency=0.012)], "gemm.parquet")
    (row,) = read_table(path).table.to_pylist()
    expected = {
        "m": 1024,
        "n": 1024,
        "k": 1024,
        "batch": 1,
        "dtype": "bf16",
        "layout": "nt",
        "family": "cublas",
        "kernel": "default",
        "status": "ok",
        "cache": "cold",
        "runtime_us": 12.0,
        "power_w": 350.5,
        "power_limit_w": 700.0,
        "sustained_runtime_us": None,
        "energy_mj": None,
        "idle_power_w": None,
        "library": "VLLM 0.1.2 (vllm_default)",
        "agent": "import:aiconfigurator:gemm.parquet",
        "device_uuid": "imported-NVIDIA H200",
        "device_kind": "cuda",
        "measured_at": "2025-10-09T08:53:20.000+00:00",
    }
    assert {name: row[name] for name in expected} == expected
    assert len(row["cell_id"]) == len(row["sample_id"]) == 16
    assert row["cell_id"] != row["sample_id"]


def test_csv_and_parquet_give_the_same_rows(write: Write, aic_rows: list[Row]) -> None:
    first = read_table(write(aic_rows, "gemm.parquet"))
    second = read_table(write(aic_rows, "gemm_perf.txt"))
    assert first.format == second.format == "aiconfigurator"
    assert first.table.drop_columns("agent").equals(second.table.drop_columns("agent"))
    assert first.table.schema == SCHEMA
    assert len(training_set(first.table)) == len(aic_rows)


def test_without_power_there_is_none_and_a_power_of_zero_was_not_read(
    write: Write, aic_row: MakeRow
) -> None:
    without_power = aic_row()
    del without_power["power"], without_power["power_limit"]
    zero_power = aic_row(power=0.0, power_limit=0.0)
    for path in (write([without_power], "bare.csv"), write([zero_power], "zero.parquet")):
        (row,) = read_table(path).table.to_pylist()
        assert row["power_w"] is row["power_limit_w"] is None


def test_what_has_no_equivalent_is_left_out_and_counted(write: Write, aic_row: MakeRow) -> None:
    rows = [
        aic_row(),
        aic_row(gemm_dtype="fp8_block"),
        aic_row(gemm_dtype="nvfp4"),
        aic_row(gemm_dtype="posit16"),
        aic_row(m=2, gemm_dtype="float16"),
        aic_row(op_name="moe"),
        aic_row(m=3, gemm_dtype="fp8_block"),
    ]
    imported = read_table(write(rows, "mixed.csv"))
    assert imported.table["dtype"].to_pylist() == ["bf16", "fp16"]
    assert imported.skipped == {
        "gemm_dtype fp8_block: its latency is not that of the product alone": 2,
        "gemm_dtype nvfp4: its latency is not that of the product alone": 1,
        "gemm_dtype posit16 has no equivalent": 1,
        "op_name moe is no GEMM": 1,
    }


def test_a_table_without_a_usable_row_is_refused(write: Write, aic_row: MakeRow) -> None:
    rows = [aic_row(gemm_dtype="int4_wo"), aic_row(m=3, gemm_dtype="int4_wo")]
    message = "none of its 2 rows can be used: gemm_dtype int4_wo: .*name a table of bf16 or fp16"
    with pytest.raises(InputError, match=message):
        read_table(write(rows, "int4.csv"))


def test_equal_rows_are_one_and_other_readings_are_others(write: Write, aic_row: MakeRow) -> None:
    rows = [aic_row(), aic_row(), aic_row(latency=0.5), aic_row(version="0.2")]
    imported = read_table(write(rows, "twice.csv"))
    assert imported.skipped == {"stands earlier in the table": 1}
    assert len(imported.table) == 3
    assert len(set(imported.table["cell_id"].to_pylist())) == 3


@pytest.mark.parametrize(
    ("values", "named", "rule"),
    [
        ({"latency": -0.1}, "latency = -0.1", "must be above 0"),
        ({"latency": float("nan")}, "latency = nan", "must be finite"),
        ({"latency": float("inf")}, "latency = inf", "must be finite"),
        ({"latency": None}, "latency = None", "every sample needs it"),
        ({"latency": 0.0}, "latency = 0.0", "must be above 0"),
        ({"m": 0}, "m = 0", "must be a whole number from 1 to 16777216"),
        ({"n": -4}, "n = -4", "must be a whole number"),
        ({"k": 2**25}, "k = 33554432", "must be a whole number"),
        ({"power": -1.0}, "power = -1.0", "must be above 0"),
        ({"device": "NVIDIA Paper 9000"}, "device = 'NVIDIA Paper 9000'", "is no GPU"),
        ({"device": "NVIDIA H100 80GB HBM3 MIG 1g.10gb"}, "device = 'NVIDIA H100", "is no GPU"),
    ],
)
def test_a_bad_value_costs_its_row(
    write: Write, aic_row: MakeRow, values: Row, named: str, rule: str
) -> None:
    bad = {**aic_row(m=64), **values}
    imported = read_table(write([aic_row(), bad, aic_row(m=8)], "bad.parquet"))
    assert imported.table["m"].to_pylist() == [1024, 8]
    ((reason, count),) = imported.skipped.items()
    assert (rule in reason, count) == (True, 1)
    (note,) = [note for note in imported.notes if note.startswith("row 2 left out: ")]
    assert named in note
    with pytest.raises(InputError, match=f"^{named}.*: alone.parquet, row 1: {rule}"):
        read_table(write([bad], "alone.parquet"))


@pytest.mark.parametrize(
    ("column", "text", "rule"),
    [
        ("latency", "fast", "must be a number"),
        ("latency", "0_5", "must be a number"),
        ("m", "12.5", "must be a whole number"),
    ],
)
def test_text_where_a_number_must_be_costs_its_row(
    write: Write, aic_row: MakeRow, column: str, text: str, rule: str
) -> None:
    with pytest.raises(InputError, match=f"^{column} = '{text}': bad.csv, row 1: {rule}"):
        read_table(write([{**aic_row(), column: text}], "bad.csv"))


@pytest.mark.parametrize(
    ("name", "compute_units", "arch"),
    [
        ("NVIDIA B300 SXM6 AC", 148, "sm_103"),
        ("NVIDIA GB300", 152, "sm_103"),
        ("NVIDIA RTX PRO 6000 Blackwell Server Edition", 188, "sm_120"),
        ("Intel(R) Arc(TM) Pro B60 Graphics", 20, "xe2"),
        ("NVIDIA A800-SXM4-80GB", 108, "sm_80"),
        ("NVIDIA H20-3e", 78, "sm_90"),
        ("NVIDIA GB10", 48, "sm_121"),
        ("NVIDIA GeForce RTX 5090", 170, "sm_120"),
    ],
)
def test_every_board_of_aiconfigurators_tables_is_known(
    write: Write, aic_row: MakeRow, name: str, compute_units: int, arch: str
) -> None:
    row = aic_row(device=name, latency=1.0, power=0, power_limit=0)
    (sample,) = read_table(write([row], "gemm.parquet")).table.to_pylist()
    assert (sample["compute_units"], sample["arch"]) == (compute_units, arch)
