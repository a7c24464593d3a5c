"""A table in a file, Parquet or CSV, as rows of plain values; and which format a file has.

A file's format shows in its first bytes and its columns. Rows are counted from 1, without the
header. Does not know what columns mean, except those that identify another program's table.
"""

from __future__ import annotations

import csv
import io
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

import pyarrow as pa
import pyarrow.parquet as pq

from coordinator.samples.formats.source_file import SourceFile
from gemmcast.errors import InputError
from gemmcast.parquet_file import read_parquet
from gemmcast.rows import Row

FORMATS: Final = ("aiconfigurator", "t4", "csv", "parquet", "tunableop", "cutlass-profiler")
PARQUET_START: Final = b"PAR1"
TUNABLEOP_START: Final = re.compile(
    rb"(?:\xef\xbb\xbf)?\s*(?:Validator,[A-Z_]+,|[A-Za-z]*TunableOp_\w)"
)
"""A result of TunableOp has no header."""
AICONFIGURATOR: Final = frozenset({"gemm_dtype", "latency"})
"""Columns that identify a table of AIConfigurator."""
CUTLASS_PROFILER: Final = frozenset({"OperationKind", "Operation", "Runtime"})
"""Columns that identify a table of CUTLASS' profiler."""
SEPARATORS: Final = {";": "semicolons", "\t": "tabs", "|": "bars"}
"""What separates cells in files that are not separated by commas -> its name."""
MOST_VALUES: Final = 50_000_000
"""Rows x columns of a Parquet file: each becomes an object of Python."""
WHOLE_PARQUET: Final = "name a Parquet file that is whole"


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """The contents of a file."""

    columns: list[str]
    rows: dict[int, Row] = field(default_factory=dict)
    """Number of the row -> value by column."""
    broken: dict[int, InputError] = field(default_factory=dict)
    """Number of the row -> why it can't be read."""


def guess_format(source: SourceFile) -> str:
    """One of FORMATS.

    Raises:
        InputError: the file is damaged.
    """
    if source.suffix == ".json" or source.data[:64].lstrip().startswith(b"{"):
        return "t4"
    if TUNABLEOP_START.match(source.data):
        return "tunableop"
    if source.data.startswith(PARQUET_START):
        kind = "parquet"
        columns = _parquet_columns(source)
    else:
        kind = "csv"
        columns, _ = _csv_lines(source)
    if CUTLASS_PROFILER.issubset(columns):
        return "cutlass-profiler"
    return "aiconfigurator" if AICONFIGURATOR.issubset(columns) else kind


def load(source: SourceFile, *, kind: str | None = None) -> Table:
    """The columns and rows of a file. A CSV's values are text, its empty cells None.

    Args:
        kind: csv or parquet; None: whichever it is.

    Raises:
        InputError: not a table of that kind, or one without rows.
    """
    is_parquet = source.data.startswith(PARQUET_START)
    if kind == "csv" and is_parquet:
        raise source.refused("is a Parquet file", "use --format parquet")
    table = _parquet(source) if is_parquet or kind == "parquet" else _csv(source)
    if not table.rows and not table.broken:
        raise source.refused("has no rows")
    return table


def _parquet_columns(source: SourceFile) -> list[str]:
    try:
        return list(pq.read_schema(pa.BufferReader(source.data)).names)
    except (pa.ArrowException, OSError, ValueError) as error:
        raise _damaged(source, "Parquet", error, WHOLE_PARQUET) from None


def _parquet(source: SourceFile) -> Table:
    try:
        table = read_parquet(source.data, source.name, most_values=MOST_VALUES)
    except InputError:
        raise
    except (pa.ArrowException, OSError, ValueError) as error:
        raise _damaged(source, "Parquet", error, WHOLE_PARQUET) from None
    _check_names(table.column_names, source)
    table = _with_text(table, source)
    return Table(columns=table.column_names, rows=dict(enumerate(table.to_pylist(), 1)))


def _with_text(table: pa.Table, source: SourceFile) -> pa.Table:
    """The table with text where other programs wrote its bytes."""
    for place, column in enumerate(table.schema):
        kind = column.type.value_type if pa.types.is_dictionary(column.type) else column.type
        if not (pa.types.is_binary(kind) or pa.types.is_large_binary(kind)):
            continue
        try:
            text = table[column.name].cast(kind).cast(pa.string())
        except pa.ArrowInvalid:
            rule = f"{source.name} has bytes in it that are no UTF-8"
            raise InputError("column", column.name, rule, "write it as text") from None
        table = table.set_column(place, column.name, text)
    return table


def _csv(source: SourceFile) -> Table:
    columns, lines = _csv_lines(source)
    table = Table(columns=columns)
    for number, line in enumerate(lines, 1):
        if len(line) != len(columns):
            rule = f"the header has {len(columns)} columns"
            way_out = "correct the row; quote cells with commas in them"
            table.broken[number] = InputError("cells", len(line), rule, way_out)
            continue
        cells = [cell.strip() or None for cell in line]
        table.rows[number] = dict(zip(columns, cells, strict=True))
    return table


def _csv_lines(source: SourceFile) -> tuple[list[str], Sequence[list[str]]]:
    """The header, and the lines below it that are not blank."""
    try:
        lines = csv.reader(io.StringIO(source.text(), newline=""), strict=True)
        columns = [name.strip() for name in next(lines, [])]
        filled = [line for line in lines if line]
    except (UnicodeDecodeError, csv.Error) as error:
        raise _damaged(source, "CSV", error, "name a CSV file in UTF-8") from None
    for separator, name in SEPARATORS.items():
        if len(columns) == 1 and separator in columns[0]:
            way_out = "separate them by commas, with points in decimal numbers"
            raise source.refused(f"its cells are separated by {name}", way_out)
    _check_names(columns, source)
    return columns, filled


def _check_names(columns: Sequence[str], source: SourceFile) -> None:
    for name, count in Counter(columns).items():
        if count > 1:
            rule = f"{source.name} has it twice"
            raise InputError("column", name, rule, "drop or rename one of them")


def _damaged(source: SourceFile, kind: str, error: Exception, way_out: str) -> InputError:
    first_line = next(iter(str(error).splitlines()), "")
    return source.refused(f"not a {kind} file ({first_line})", way_out)
