"""A table in a file, Parquet or CSV, as rows of plain values; which format a file is of, by its first bytes and its columns.

Rows are counted from 1, the header not counted. Knows nothing of what the columns mean, but for the ones that tell formats apart.
"""

from __future__ import annotations

import csv
from collections import Counter
from pathlib import Path
from typing import Any, Final

import pyarrow as pa
import pyarrow.parquet as pq

from gemmcast.errors import InputError

FORMATS: Final = ("aiconfigurator", "kernel-tuner-t4", "csv", "parquet")
MAGIC: Final = b"PAR1"
AICONFIGURATOR: Final = frozenset({"gemm_dtype", "latency"})
Row = dict[str, Any]


def guess(path: Path) -> str:
    """One of FORMATS.

    Raises:
        InputError: there is no such file, or it is empty.
    """
    start = opening(path)
    if path.suffix == ".json" or start.lstrip().startswith(b"{"):
        return "kernel-tuner-t4"
    columns, _ = _parquet(path, rows=False) if start.startswith(MAGIC) else _csv(path, rows=False)
    if set(columns) >= AICONFIGURATOR:
        return "aiconfigurator"
    return "parquet" if start.startswith(MAGIC) else "csv"


def opening(path: Path) -> bytes:
    """The first bytes of a file that is not empty."""
    try:
        with path.open("rb") as file:
            start = file.read(64)
    except OSError as error:
        raise InputError("FILE", str(path), f"can't be read ({error.strerror})", "name a file that is there") from None
    if not start.strip():
        raise InputError("FILE", str(path), "is empty", "name a file with a table in it")
    return start


def load(path: Path, *, kind: str | None = None) -> tuple[list[str], list[Row]]:
    """(columns, rows) of a file; `kind` is parquet, csv, or None for whichever it is. A CSV's values are text, empty cells None.

    Raises:
        InputError: not a table of that kind, or one without rows.
    """
    parquet = opening(path).startswith(MAGIC)
    if kind == "csv" and parquet:
        raise InputError("FILE", str(path), "is a Parquet file", "use --format parquet")
    columns, rows = _parquet(path) if parquet or kind == "parquet" else _csv(path)
    if not rows:
        raise InputError("FILE", str(path), "has no rows", "name a file with a table in it")
    return columns, rows


def _parquet(path: Path, *, rows: bool = True) -> tuple[list[str], list[Row]]:
    try:
        if not rows:
            return list(pq.read_schema(path).names), []
        table = pq.read_table(path, partitioning=None)
        return table.column_names, table.to_pylist()
    except (pa.ArrowException, OSError, ValueError) as error:
        raise InputError("FILE", str(path), f"not a Parquet file ({_first_line(error)})", "name a Parquet file that is whole") from None


def _csv(path: Path, *, rows: bool = True) -> tuple[list[str], list[Row]]:
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            lines = csv.reader(file, strict=True)
            columns = [name.strip() for name in next(lines, [])]
            cells = [line for line in lines if line] if rows else []
    except (UnicodeDecodeError, csv.Error) as error:
        raise InputError("FILE", str(path), f"not a CSV file ({_first_line(error)})", "name a CSV file in UTF-8") from None
    if twice := [name for name, count in Counter(columns).items() if count > 1]:
        raise InputError("column", twice[0], f"{path.name} has it twice", "drop or rename one of them")
    for number, line in enumerate(cells, 1):
        if len(line) != len(columns):
            rule = f"{path.name}, row {number}: the header has {len(columns)} columns"
            raise InputError("cells", len(line), rule, "correct the row; quote cells with commas in them")
    return columns, [{name: cell.strip() or None for name, cell in zip(columns, line, strict=True)} for line in cells]


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [""])[0]
