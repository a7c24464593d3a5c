"""The flat row, and samples as Arrow tables."""

from __future__ import annotations

from typing import Any, get_type_hints

import pyarrow as pa
import pytest

from gemmcast import warm_windows
from gemmcast.arrow import SCHEMA, conform, to_table
from gemmcast.config import KNOBS, KernelConfig
from gemmcast.descriptions import device_of
from gemmcast.device import Device
from gemmcast.errors import InputError
from gemmcast.gemm import Gemm
from gemmcast.rows import config_of, gemm_of, known_columns
from gemmcast.sample import COLUMNS, REQUIRED, STATUSES, Sample, digest

GEMM = Gemm(m=64, n=32, k=16, batch=3, dtype="fp16", layout="tn", alpha=2.0, beta=1.0)
CONFIG = KernelConfig(family="cutlass", kernel="k", tile_m=128, tile_n=64, stages=3, split_k=2)


@pytest.fixture
def row(gpu: Device) -> dict[str, Any]:
    return Sample(
        **known_columns(GEMM, CONFIG, gpu), runtime_us=12.5, sample_id="s", cell_id="c"
    ).row()


def test_a_row_is_the_columns_in_order(row: dict[str, Any]) -> None:
    assert list(row) == list(COLUMNS) == SCHEMA.names
    assert set(COLUMNS.values()) == {"int", "float", "str", "bool"}
    for name, hint in get_type_hints(Sample).items():
        assert (type(None) in getattr(hint, "__args__", ())) == (name not in REQUIRED)
        assert SCHEMA.field(name).nullable == (name not in REQUIRED)


def test_required_are_the_problem_the_configuration_the_outcome_and_the_names() -> None:
    assert {
        "m",
        "n",
        "k",
        "batch",
        "dtype",
        "layout",
        "alpha",
        "beta",
        "family",
        "kernel",
        *KNOBS,
    } < REQUIRED
    assert {"status", "device", "cell_id", "sample_id", "measured_at", "schema_version"} < REQUIRED
    assert not REQUIRED & {"runtime_us", "power_w", "reason", "regs", "peak_tflops", "idle_power_w"}
    assert next(iter(STATUSES)) == "ok"


def test_a_row_gives_back_what_it_describes(row: dict[str, Any], gpu: Device) -> None:
    assert (gemm_of(row), config_of(row)) == (GEMM, CONFIG)
    other = {**row, "dtype": "fp32", "peak_tflops": gpu.peak_tflops["fp32"]}
    unmeasured = {**row, "dtype": "fp64", "peak_tflops": None}
    assert device_of([row, other, unmeasured]) == gpu


def test_a_digest_does_not_depend_on_order() -> None:
    assert (
        digest({"a": 1, "b": [2.5, None]})
        == digest({"b": [2.5, None], "a": 1})
        != digest({"a": 1, "b": [2.5, 0]})
    )


def test_a_table_holds_rows_as_they_are(row: dict[str, Any]) -> None:
    table = to_table([row, {**row, "runtime_us": None, "status": "timeout", "reason": "60 s"}])
    assert table.schema == SCHEMA
    assert table.to_pylist()[0] == row
    assert conform(table, "here") == table
    assert to_table([]).schema == SCHEMA


def test_a_misspelt_column_is_no_row_of_a_table(row: dict[str, Any]) -> None:
    with pytest.raises(TypeError, match=r"row 2 has columns that no sample has: \['clock_mhzz'\]"):
        to_table([row, {**row, "clock_mhzz": 1980.0}])


def test_rows_of_a_newer_schema_are_refused_whatever_their_columns(row: dict[str, Any]) -> None:
    newer = to_table([row, {**row, "schema_version": 5}]).append_column("new", pa.array([1, 2]))
    with pytest.raises(InputError, match="^schema_version = 5: x.parquet is of a newer schema"):
        conform(newer, "x.parquet")


def test_conform_casts_what_can_be_cast(row: dict[str, Any]) -> None:
    table = to_table([row])
    narrow = table.set_column(0, "m", table["m"].cast(pa.int32())).set_column(
        table.schema.get_field_index("dtype"), "dtype", [["fp16"]]
    )
    shuffled = narrow.select(sorted(narrow.column_names))
    assert conform(shuffled, "here") == table


def test_conform_fills_what_is_missing(row: dict[str, Any]) -> None:
    table = to_table([row, row])
    few = conform(
        table.select(["m", "n", "k", "dtype", "family", "runtime_us", "device", "device_kind"]),
        "here",
    )
    assert few.schema == SCHEMA
    filled = few.to_pylist()[0]
    assert (gemm_of(filled), config_of(filled)) == (
        Gemm(m=64, n=32, k=16, dtype="fp16"),
        KernelConfig(family="cutlass"),
    )
    assert (
        filled["runtime_us"],
        filled["power_w"],
        filled["cache"],
        filled["status"],
        filled["mig"],
    ) == (12.5, None, "cold", "ok", False)


@pytest.mark.parametrize("name", ["m", "dtype", "family"])
def test_conform_refuses_a_table_without_the_problem(row: dict[str, Any], name: str) -> None:
    with pytest.raises(InputError) as caught:
        conform(to_table([row]).drop_columns([name]), "old.parquet")
    assert (
        str(caught.value) == f"column = '{name}': old.parquet has no such column; "
        "every sample needs it (docs/schema.md)"
    )


def test_conform_refuses_a_null_that_must_not_be(row: dict[str, Any]) -> None:
    table = to_table([row, row])
    holes = table.set_column(0, "m", pa.array([1, None], pa.int64()))
    with pytest.raises(InputError) as caught:
        conform(holes, "old.parquet")
    assert (
        str(caught.value)
        == "column = 'm': old.parquet has 1 nulls in it; every sample needs it (docs/schema.md)"
    )


def test_conform_refuses_a_column_it_does_not_know(row: dict[str, Any]) -> None:
    table = to_table([row]).append_column("speed", pa.array([1.0]))
    with pytest.raises(InputError) as caught:
        conform(table, "old.parquet")
    rule = "old.parquet has a column that the schema does not have"
    expected = f"column = 'speed': {rule}; drop or rename it (docs/schema.md)"
    assert str(caught.value) == expected


@pytest.mark.parametrize("values", [["fast"], [[1.0]]])
def test_conform_refuses_a_type_that_can_not_be_cast(
    row: dict[str, Any], values: list[Any]
) -> None:
    table = to_table([row])
    wrong = table.set_column(
        table.schema.get_field_index("runtime_us"), "runtime_us", pa.array(values)
    )
    with pytest.raises(
        InputError,
        match=r"runtime_us = '.*': old.parquet: can't be read as double .*; see docs/schema.md",
    ):
        conform(wrong, "old.parquet")


def _window(**values: object) -> dict[str, object]:
    """A cold power window on a GPU with an L2 of 50 MB."""
    row = {**Sample(m=64, n=64, k=64, dtype="fp16", family="cublas").row(), "device_kind": "cuda"}
    return {**row, "l2_bytes": 50_000_000, "power_w": 150.0, "schema_version": 3, **values}


@pytest.mark.parametrize(
    ("values", "status"),
    [
        # 512 sets are 12.6 MB.
        ({}, "power_disputed"),
        # 512 sets are 50.3 MB: more than L2.
        ({"m": 128, "n": 128, "k": 128}, "ok"),
        ({"batch": 4}, "ok"),
        ({"dtype": "fp64"}, "ok"),
        ({"cache": "warm"}, "ok"),
        ({"power_w": None}, "ok"),
        ({"schema_version": 4}, "ok"),
        ({"l2_bytes": None}, "ok"),
        ({"status": "incorrect"}, "incorrect"),
    ],
)
def test_an_older_power_window_whose_operands_stayed_in_l2_is_marked(
    values: dict[str, object], status: str
) -> None:
    (row,) = conform(to_table([_window(**values)]), "here").to_pylist()
    assert row["status"] == status
    assert (row["reason"] == warm_windows.REASON) is (status == "power_disputed")
    # No reading is lost.
    assert row["power_w"] == _window(**values)["power_w"]
