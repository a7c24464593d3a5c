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
    ("values", "message"),
    [
        (
            {"latency": -0.1},
            "^latency = -0.1: bad.parquet, row 2: must be above 0; correct the table",
        ),
        ({"latency": float("nan")}, "^latency = nan: bad.parquet, row 2: must be finite"),
        ({"latency": float("inf")}, "^latency = inf: bad.parquet, row 2: must be finite"),
        ({"latency": None}, "^latency = None: bad.parquet, row 2: every sample needs it"),
        ({"latency": 0.0}, "^latency = 0.0: bad.parquet, row 2: must be above 0"),
        ({"m": 0}, "^m = 0: bad.parquet, row 2: must be a whole number from 1 to 16777216"),
        ({"n": -4}, "^n = -4: bad.parquet, row 2: "),
        ({"k": 2**25}, "^k = 33554432: bad.parquet, row 2: "),
        ({"power": -1.0}, "^power = -1.0: bad.parquet, row 2: must be above 0"),
        ({"device": "NVIDIA Paper 9000"}, "^device = 'NVIDIA Paper 9000': is no GPU .*--device"),
        ({"device": "NVIDIA H100 80GB HBM3 MIG 1g.10gb"}, "^device = .*is no GPU"),
    ],
)
def test_a_bad_value_is_refused_with_its_row(
    write: Write, aic_row: MakeRow, values: Row, message: str
) -> None:
    with pytest.raises(InputError, match=message):
        read_table(write([aic_row(), {**aic_row(), **values}], "bad.parquet"))


def test_text_where_a_number_must_be_is_refused(write: Write, aic_row: MakeRow) -> None:
    with pytest.raises(InputError, match="^latency = 'fast': bad.csv, row 1: must be a number"):
        read_table(write([aic_row(latency="fast")], "bad.csv"))
    with pytest.raises(InputError, match="^m = '12.5': bad.csv, row 1: must be a whole number"):
        read_table(write([{**aic_row(), "m": 12.5}], "bad.csv"))
