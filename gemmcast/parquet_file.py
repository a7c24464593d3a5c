"""A Parquet file of anybody, read within limits that its footer is held to before its data.

A few kilobytes may stand for any number of values: pages are compressed, a run of equal values
takes some bytes however long it is, and one long text may be the value of every row. Nothing that
is stored as a Python object is ever read: Parquet has none, and pyarrow makes none of its metadata.
Does not know what columns mean.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from gemmcast.errors import InputError

MOST_ROWS: Final = 10_000_000
MOST_COLUMNS: Final = 1_000
MOST_VALUES: Final = 500_000_000
"""Rows x columns: 4 GB of numbers. The largest dataset of this project has 10 million."""
MOST_ROW_GROUPS: Final = 10_000
MOST_BYTES: Final = 4 * 2**30
"""Of all pages, unpacked, and of all text."""
DROP: Final = "drop such columns, or split the file"


def read_parquet(
    source: str | Path | bytes,
    name: str,
    field: str = "FILE",
    *,
    nested: bool = False,
    most_values: int = MOST_VALUES,
) -> pa.Table:
    """Every row of a Parquet file.

    Args:
        source: a path, or the bytes of the file.
        name: of the file, for messages.
        field: what the user calls it, for messages.
        nested: whether columns may have fields or lists in them.
        most_values: rows x columns.

    Raises:
        InputError: it stands for more than the limits, or has nested columns.
        pa.ArrowException, OSError: it can't be read.
    """
    opened = pa.BufferReader(source) if isinstance(source, bytes) else str(source)
    schema = pq.read_schema(opened)
    # Texts as numbers of a dictionary: a long one that is repeated is kept once.
    texts = [one.name for one in schema if _is_text(one.type)]
    opened = pa.BufferReader(source) if isinstance(source, bytes) else str(source)
    with pq.ParquetFile(opened, read_dictionary=texts) as file:
        _check_footer(file.metadata, most_values, name, field)
        for column in schema:
            if pa.types.is_nested(column.type) and not nested:
                rule = f"{name}: is a column of {str(column.type)[:80]}, not of plain values"
                raise InputError("column", column.name, rule, DROP)
        table = file.read()
    _check_texts(table, name, field)
    return table.cast(schema) if texts else table


def _check_footer(footer: pq.FileMetaData, most_values: int, name: str, field: str) -> None:
    values = footer.num_rows * footer.num_columns
    counts = (
        ("rows", footer.num_rows, MOST_ROWS),
        ("columns", footer.num_columns, MOST_COLUMNS),
        ("values", values, most_values),
        ("row groups", footer.num_row_groups, MOST_ROW_GROUPS),
    )
    for what, count, most in counts:
        if count > most:
            rule = f"has {count:,} {what}, a file may have {most:,}"
            raise InputError(field, name, rule, DROP)
    groups = map(footer.row_group, range(footer.num_row_groups))
    _check_bytes(sum(group.total_byte_size for group in groups), name, field)


def _check_texts(table: pa.Table, name: str, field: str) -> None:
    """Refuse texts that are too large once each row has its own."""
    total = 0
    for column in table.columns:
        if not pa.types.is_dictionary(column.type):
            continue
        for chunk in column.chunks:
            lengths = pc.binary_length(chunk.dictionary)
            total += pc.sum(lengths.take(chunk.indices).cast(pa.int64())).as_py() or 0
            _check_bytes(total, name, field)


def _check_bytes(count: int, name: str, field: str) -> None:
    if count > MOST_BYTES:
        rule = f"unpacks to {count // 2**20:,} MiB, a file may to {MOST_BYTES // 2**20:,}"
        raise InputError(field, name, rule, DROP)


def _is_text(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_binary(kind))
