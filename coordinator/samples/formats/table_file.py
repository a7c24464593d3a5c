"""A table in a file, Parquet or CSV, as rows of plain values; and which format a file has.

A file's format shows in its first bytes and its columns. Rows are counted from 1, without the
header. Does not know what columns mean, except the two that identify an AIConfigurator table.
"""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import pyarrow as pa
import pyarrow.parquet as pq

from gemmcast.errors import InputError
from gemmcast.rows import Row

FORMATS: Final = ("aiconfigurator", "t4", "csv", "parquet")
PARQUET_START: Final = b"PAR1"
AICONFIGURATOR: Final = frozenset({"gemm_dtype", "latency"})
"""Columns that identify a table of AIConfigurator."""
NAME_A_TABLE: Final = "name a file with a table in it"

Table = tuple[list[str], list[Row]]
"""Columns, and rows by column."""


def guess_format(path: Path) -> str:
    """One of FORMATS.

    Raises:
        InputError: there is no such file, it is empty, or it is damaged.
    """
    start = first_bytes(path)
    if path.suffix == ".json" or start.lstrip().startswith(b"{"):
        return "t4"
    if start.startswith(PARQUET_START):
        kind = "parquet"
        columns = _parquet_columns(path)
    else:
        kind = "csv"
        columns, _ = _csv_lines(path)
    return "aiconfigurator" if AICONFIGURATOR.issubset(columns) else kind


def first_bytes(path: Path) -> bytes:
    """The first bytes of a file that is not empty."""
    try:
        with path.open("rb") as file:
            start = file.read(64)
    except OSError as error:
        rule = f"can't be read ({error.strerror})"
        raise InputError("FILE", str(path), rule, "name a file that is there") from None
    if not start.strip():
        raise InputError("FILE", str(path), "is empty", NAME_A_TABLE)
    return start


def load(path: Path, *, kind: str | None = None) -> Table:
    """The columns and rows of a file. A CSV's values are text, its empty cells None.

    Args:
        kind: csv or parquet; None: whichever it is.

    Raises:
        InputError: not a table of that kind, or one without rows.
    """
    is_parquet = first_bytes(path).startswith(PARQUET_START)
    if kind == "csv" and is_parquet:
        raise InputError("FILE", str(path), "is a Parquet file", "use --format parquet")
    if is_parquet or kind == "parquet":
        columns, rows = _parquet(path)
    else:
        columns, rows = _csv(path)
    if not rows:
        raise InputError("FILE", str(path), "has no rows", NAME_A_TABLE)
    return columns, rows


def _parquet_columns(path: Path) -> list[str]:
    try:
        return list(pq.read_schema(path).names)
    except (pa.ArrowException, OSError, ValueError) as error:
        raise _damaged(path, "Parquet", error, "name a Parquet file that is whole") from None


def _parquet(path: Path) -> Table:
    try:
        # without partitioning, because a folder named m=7 would add a column
        table = pq.read_table(path, partitioning=None)
        return table.column_names, table.to_pylist()
    except (pa.ArrowException, OSError, ValueError) as error:
        raise _damaged(path, "Parquet", error, "name a Parquet file that is whole") from None


def _csv(path: Path) -> Table:
    columns, lines = _csv_lines(path)
    rows: list[Row] = []
    for number, line in enumerate(lines, 1):
        if len(line) != len(columns):
            rule = f"{path.name}, row {number}: the header has {len(columns)} columns"
            way_out = "correct the row; quote cells with commas in them"
            raise InputError("cells", len(line), rule, way_out)
        cells = [cell.strip() or None for cell in line]
        rows.append(dict(zip(columns, cells, strict=True)))
    return columns, rows


def _csv_lines(path: Path) -> tuple[list[str], Sequence[list[str]]]:
    """The header, and the lines below it that are not blank."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            lines = csv.reader(file, strict=True)
            columns = [name.strip() for name in next(lines, [])]
            filled = [line for line in lines if line]
    except (UnicodeDecodeError, csv.Error) as error:
        raise _damaged(path, "CSV", error, "name a CSV file in UTF-8") from None
    for name, count in Counter(columns).items():
        if count > 1:
            rule = f"{path.name} has it twice"
            raise InputError("column", name, rule, "drop or rename one of them")
    return columns, filled


def _damaged(path: Path, kind: str, error: Exception, way_out: str) -> InputError:
    first_line = next(iter(str(error).splitlines()), "")
    return InputError("FILE", str(path), f"not a {kind} file ({first_line})", way_out)
