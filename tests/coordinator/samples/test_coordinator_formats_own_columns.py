"""Tables with our own columns, and files that are no tables."""

from __future__ import annotations

import gzip
import os
import re
import threading
from collections.abc import Callable
from math import hypot
from pathlib import Path

import pyarrow as pa
import pyarrow.csv as pc
import pyarrow.parquet as pq
import pytest

from coordinator.samples.importer import read_table
from gemmcast.arrow import read_samples
from gemmcast.errors import InputError
from gemmcast.rows import Row

DATASETS = Path(__file__).parents[3] / "datasets"
Write = Callable[..., Path]
MakeRow = Callable[..., Row]


def test_a_few_columns_are_enough(write: Write, own_row: MakeRow) -> None:
    (row,) = read_table(write([own_row()], "mine.csv")).table.to_pylist()
    expected = {
        "layout": "nn",
        "batch": 1,
        "alpha": 1.0,
        "beta": 0.0,
        "tile_m": 0,
        "cache": "cold",
        "status": "ok",
        "runtime_us": 7.25,
        "runtime_uncertainty": None,
        "power_w": None,
        "compute_units": 132,
        "agent": "import:csv:mine.csv",
        "measured_at": "2025-10-09T08:53:20.000+00:00",
    }
    assert {name: row[name] for name in expected} == expected


@pytest.mark.parametrize("name", ["h100_demo", "h100_repeatability"])
def test_an_export_of_ours_comes_back_as_it_was(name: str, tmp_path: Path) -> None:
    path = DATASETS / f"{name}.parquet"
    samples = read_samples(path)
    assert read_table(path).table.equals(samples)
    pc.write_csv(samples, tmp_path / "samples.csv")
    assert read_table(tmp_path / "samples.csv").table.equals(samples)


@pytest.mark.parametrize("name", ["h100_demo", "h100_repeatability"])
def test_a_csv_in_the_columns_of_an_older_schema_is_read(name: str, tmp_path: Path) -> None:
    path = DATASETS / f"{name}.parquet"
    old = pq.read_table(path)
    assert "threads" in old.column_names
    pc.write_csv(old, tmp_path / "samples.csv")
    assert read_table(tmp_path / "samples.csv").table.equals(read_samples(path))


@pytest.mark.parametrize(
    ("columns", "uncertainty"),
    [
        ({"runtime_rse": "0.008"}, hypot(0.006, 0.010, 0.008)),
        ({"runtime_rse": "0.008", "sustained_runtime_us": 7.3}, 0.010),
        ({"runtime_rse": ""}, None),
        ({"runtime_rse": "0.008", "runtime_uncertainty": "0.07"}, 0.07),
        ({"runtime_uncertainty": "1.5"}, 1.5),
    ],
)
def test_a_standard_error_of_an_older_schema_becomes_an_uncertainty(
    write: Write, own_row: MakeRow, columns: Row, uncertainty: float | None
) -> None:
    (row,) = read_table(write([{**own_row(), **columns}], "mine.csv")).table.to_pylist()
    assert row["runtime_uncertainty"] == pytest.approx(uncertainty)
    assert "runtime_rse" not in row


def test_failed_rows_need_no_runtime(write: Write, own_row: MakeRow) -> None:
    rows = [own_row(status="ok"), own_row(m=8, status="timeout", runtime_us=None)]
    table = read_table(write(rows, "mine.csv")).table
    assert table["status"].to_pylist() == ["ok", "timeout"]
    assert table["runtime_us"].to_pylist() == [7.25, None]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"runtime": 7.0}, "^column = 'runtime': bad.csv has a column .*did you mean 'runtime_"),
        ({"tile_mm": 7}, "^column = 'tile_mm': .*did you mean 'tile_m'"),
        ({"zzzzzz": 7}, "^column = 'zzzzzz': .*; drop or rename it"),
        (
            {"fill": "normal", "operand_distribution": "normal"},
            "^column = 'fill': bad.csv has it a second time, as operand_distribution; drop one",
        ),
    ],
)
def test_an_unknown_column_is_refused_with_a_guess(
    write: Write, own_row: MakeRow, values: Row, message: str
) -> None:
    with pytest.raises(InputError, match=message):
        read_table(write([{**own_row(), **values}], "bad.csv"))


@pytest.mark.parametrize(
    ("values", "named", "rule"),
    [
        ({"dtype": "posit16"}, "dtype = 'posit16'", "unknown dtype; use one of fp"),
        ({"family": "magma"}, "family = 'magma'", "unknown kernel family"),
        ({"layout": "tx"}, "layout = 'tx'", "unknown layout"),
        ({"m": 0}, "m = 0", "must be a whole number"),
        ({"tile_m": -8}, "tile_m = '-8'", "must not be negative"),
        ({"runtime_us": "nan"}, "runtime_us = 'nan'", "must be finite"),
        ({"runtime_us": ""}, "runtime_us = None", "every sample needs it"),
        ({"runtime_us": "1_0"}, "runtime_us = '1_0'", "must be a number"),
        ({"power_w": 0}, "power_w = '0'", "must be above 0"),
        ({"occupancy": 75}, "occupancy = '75'", "is a share, from 0 to 1; write 75 % as 0.75"),
        ({"runtime_rse": 5}, "runtime_rse = '5'", "is a share, from 0 to 1; write 75 % as 0.75"),
        ({"runtime_uncertainty": -0.1}, "runtime_uncertainty = '-0.1'", "must not be negative"),
        ({"cache": "lukewarm"}, "cache = 'lukewarm'", ".*use one of cold, warm"),
        ({"status": "fine"}, "status = 'fine'", ".*use one of ok"),
        ({"device_kind": "tpu"}, "device_kind = 'tpu'", ".*use one of cuda, cpu"),
        ({"mig": "perhaps"}, "mig = 'perhaps'", "must be true or false"),
        ({"measured_at": "yesterday"}, "measured_at = 'yesterday'", "must be a time of ISO 8601"),
        ({"device": ""}, "device = None", "the table does not say what it was measured on"),
        ({"device": "abacus"}, "device = 'abacus'", "is no GPU"),
        ({"family": "blas"}, "family = 'blas'", "this family runs on cpu, NVIDIA H100 .* cuda"),
        ({"device_kind": "cpu", "family": "blas"}, "device_kind = 'cpu'", "NVIDIA H100 .* cuda"),
    ],
)
def test_a_bad_cell_costs_its_row(
    write: Write, own_row: MakeRow, values: Row, named: str, rule: str
) -> None:
    empty = {name: "" for name in values if name not in own_row()}
    good = {**own_row(), **empty}
    bad = {**good, **values}
    imported = read_table(write([good, bad], "bad.csv"))
    assert len(imported.table) == 1
    assert list(imported.skipped.values()) == [1]
    assert any(re.match(f"row 2 left out: {named}: {rule}", note) for note in imported.notes)
    with pytest.raises(InputError, match=f"^{named}: alone.csv, row 1: {rule}"):
        read_table(write([bad], "alone.csv"))


def test_every_broken_rule_is_counted_and_its_first_rows_are_named(
    write: Write, own_row: MakeRow
) -> None:
    rows = [own_row(m=8), *(own_row(n=-n) for n in range(5)), own_row(k=0), own_row(m=16)]
    imported = read_table(write(rows, "bad.csv"))
    assert imported.table["m"].to_pylist() == [8, 16]
    rule = "must be a whole number from 1 to 16777216"
    assert imported.skipped == {f"n {rule}": 5, f"k {rule}": 1}
    left_out = [note.split(":")[0] for note in imported.notes if "left out" in note]
    numbers = ["row 2", "row 3", "row 4", "row 7"]
    assert left_out == [f"{number} left out" for number in numbers]


@pytest.mark.parametrize("name", ["m", "n", "k", "dtype", "family", "runtime_us"])
def test_a_missing_column_is_refused_by_name(write: Write, own_row: MakeRow, name: str) -> None:
    row = own_row()
    del row[name]
    with pytest.raises(InputError, match=f"^column = '{name}': short.csv has no such column"):
        read_table(write([row], "short.csv"))


# Files that are no tables


@pytest.mark.parametrize("format", [None, "aiconfigurator", "t4", "csv", "parquet"])
def test_an_empty_file_and_a_missing_one_are_refused(tmp_path: Path, format: str | None) -> None:
    (tmp_path / "empty").write_text(" \n")
    with pytest.raises(InputError, match="^FILE = .*is empty"):
        read_table(tmp_path / "empty", format)
    with pytest.raises(InputError, match="^FILE = .*can't be read"):
        read_table(tmp_path / "nowhere", format)
    with pytest.raises(InputError, match="^FILE = .*can't be read"):
        read_table(tmp_path, format)


@pytest.mark.parametrize(
    ("content", "format", "message"),
    [
        (b"PAR1 and then nothing", None, "not a Parquet file"),
        (b"m,n,k\n1,2,3\n", "parquet", "not a Parquet file"),
        (b"m,n\xff,k\n1,2,3\n", None, "not a CSV file"),
        (b'm,n,k\n1,"2,3\n', None, "not a CSV file"),
        (b"m,n,k\n", "csv", "has no rows"),
        (b"m;n;k\n1;2;3\n", None, "its cells are separated by semicolons; separate them by commas"),
        (b"m\tn\tk\n1\t2\t3\n", "csv", "its cells are separated by tabs"),
        (b"\x1f\x8b and then nothing", None, "can't be unpacked"),
        (b"version https://git-lfs.github.com/spec/v1\n", None, "pointer of Git LFS.*git lfs pull"),
        (b"m,n,m\n1,2,3\n", None, "^column = 'm': file has it twice"),
        (b"m,n,k\n1,2,3\n", "aiconfigurator", "^column = 'device': file has no such column"),
        (b"{", None, "not JSON"),
        (b"{}", None, "^results = None: file has no T4 results"),
        (b'{"results": []}', None, "has no T4 results"),
        (b"[1]", "t4", "has no T4 results"),
        (b"m,n,k\n1,2,3\n", "xml", "^--format = 'xml': unknown format; use one of aiconfigurator"),
    ],
)
def test_a_damaged_file_is_refused(
    tmp_path: Path, content: bytes, format: str | None, message: str
) -> None:
    (tmp_path / "file").write_bytes(content)
    with pytest.raises(InputError, match=message):
        read_table(tmp_path / "file", format)


def test_folders_named_like_columns_add_none(
    tmp_path: Path, write: Write, own_row: MakeRow
) -> None:
    (tmp_path / "m=7").mkdir()
    imported = read_table(write([own_row()], "m=7/mine.parquet"))
    assert imported.table["m"].to_pylist() == [1024]


def test_half_a_parquet_file_is_refused(write: Write, aic_rows: list[Row]) -> None:
    path = write(aic_rows, "half.parquet")
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(InputError, match="not a Parquet file"):
        read_table(path, "aiconfigurator")


def test_a_parquet_file_under_format_csv_is_refused(write: Write, own_row: MakeRow) -> None:
    with pytest.raises(InputError, match="is a Parquet file; use --format parquet"):
        read_table(write([own_row()], "mine.parquet"), "csv")


# Other ways in


def test_a_row_with_too_few_cells_costs_itself(write: Write, own_row: MakeRow) -> None:
    path = write([own_row()], "short.csv")
    path.write_text(path.read_text() + "1,2,3\n")
    imported = read_table(path)
    assert len(imported.table) == 1
    assert imported.skipped == {"cells the header has 7 columns": 1}


@pytest.mark.parametrize("name", ["mine.csv", "mine.parquet"])
def test_a_gzipped_table_is_read_like_the_table(write: Write, own_row: MakeRow, name: str) -> None:
    plain = write([own_row(), own_row(m=8)], name)
    packed = plain.with_name(f"{name}.gz")
    packed.write_bytes(gzip.compress(plain.read_bytes()))
    expected = read_table(plain).table.select(["m", "runtime_us", "cell_id"])
    assert read_table(packed).table.select(expected.column_names).equals(expected)


@pytest.mark.parametrize("name", ["mine.csv", "mine.parquet"])
def test_a_pipe_is_read_like_the_file(
    write: Write, own_row: MakeRow, tmp_path: Path, name: str
) -> None:
    plain = write([own_row(), own_row(m=8)], name)
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    writer = threading.Thread(target=pipe.write_bytes, args=[plain.read_bytes()])
    writer.start()
    imported = read_table(pipe)
    writer.join()
    assert imported.table["cell_id"].equals(read_table(plain).table["cell_id"])
    assert imported.table["agent"].to_pylist()[0].endswith(":pipe")


def test_text_that_was_written_as_bytes_is_read(tmp_path: Path, own_row: MakeRow) -> None:
    table = pa.Table.from_pylist([own_row()])
    as_bytes = table.set_column(3, "dtype", table["dtype"].cast(pa.binary()))
    device = as_bytes["device"].cast(pa.binary()).dictionary_encode()
    as_bytes = as_bytes.set_column(6, "device", device)
    pq.write_table(as_bytes, tmp_path / "mine.parquet")
    (row,) = read_table(tmp_path / "mine.parquet").table.to_pylist()
    assert (row["dtype"], row["device"]) == ("fp16", "NVIDIA H100 80GB HBM3")

    no_text = as_bytes.set_column(3, "dtype", pa.array([b"\xff\xfe"]))
    pq.write_table(no_text, tmp_path / "mine.parquet")
    with pytest.raises(InputError, match="^column = 'dtype': mine.parquet has bytes .* no UTF-8"):
        read_table(tmp_path / "mine.parquet")


@pytest.mark.parametrize("name", ["newer.csv", "newer.parquet"])
def test_a_table_of_a_newer_schema_is_refused(write: Write, own_row: MakeRow, name: str) -> None:
    rows = [own_row(schema_version=4), own_row(m=8, schema_version=5)]
    with pytest.raises(InputError, match="^schema_version = 5: newer.*is of a newer schema"):
        read_table(write(rows, name))
