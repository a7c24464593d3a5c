"""Tables with our own columns, and files that are no tables."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

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
        "runtime_rse": None,
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
        ({"dtype": "posit16"}, "^dtype = 'posit16': bad.csv, row 2: unknown dtype; use one of fp"),
        ({"family": "magma"}, "^family = 'magma': bad.csv, row 2: unknown kernel family"),
        ({"layout": "tx"}, "^layout = 'tx': bad.csv, row 2: unknown layout"),
        ({"m": 0}, "^m = 0: bad.csv, row 2: "),
        ({"tile_m": -8}, "^tile_m = '-8': bad.csv, row 2: must not be negative"),
        ({"runtime_us": "nan"}, "^runtime_us = 'nan': bad.csv, row 2: must be finite"),
        ({"runtime_us": ""}, "^runtime_us = None: bad.csv, row 2: every sample needs it"),
        ({"power_w": 0}, "^power_w = '0': bad.csv, row 2: must be above 0"),
        ({"cache": "lukewarm"}, "^cache = 'lukewarm': bad.csv, row 2: .*use one of cold, warm"),
        ({"status": "fine"}, "^status = 'fine': bad.csv, row 2: .*use one of ok"),
        ({"device_kind": "tpu"}, "^device_kind = 'tpu': bad.csv, row 2: .*use one of cuda, cpu"),
        ({"mig": "perhaps"}, "^mig = 'perhaps': bad.csv, row 2: must be true or false"),
        (
            {"measured_at": "yesterday"},
            "^measured_at = 'yesterday': bad.csv, row 2: must be a time of ISO 8601",
        ),
        ({"device": ""}, "^device = None: the table does not say what it was measured on"),
        ({"device": "abacus"}, "^device = 'abacus': is no GPU"),
    ],
)
def test_a_bad_cell_is_refused_with_column_value_and_row(
    write: Write, own_row: MakeRow, values: Row, message: str
) -> None:
    empty = {name: "" for name in values if name not in own_row()}
    first = {**own_row(), **empty}
    with pytest.raises(InputError, match=message):
        read_table(write([first, {**first, **values}], "bad.csv"))


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
        (b"m,n,k\n1,2,3\n1,2\n", None, "^cells = 2: file, row 2: the header has 3 columns"),
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
