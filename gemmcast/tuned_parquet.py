"""Tuned tables as Parquet, for Polars, DuckDB and pandas: one row for each entry.

The columns are the fields of TunedEntry, nested as in the JSON; `key` is the table's key, the same
in every row. A knob that is unknown is null. Needs pyarrow; nothing of the wheel imports it.
"""

from __future__ import annotations

from dataclasses import asdict, fields
from pathlib import Path
from typing import Final

import pyarrow as pa
import pyarrow.parquet as pq

from gemmcast import modeldir, parquet_file, tuned_json
from gemmcast.config import KernelConfig
from gemmcast.errors import InputError
from gemmcast.gemm import Gemm
from gemmcast.table_key import TableKey
from gemmcast.tuned_entry import Cost, TunedEntry
from gemmcast.tuned_table import TunedTable

_FORMAT: Final = b"gemmcast.format"
_VERSION: Final = b"gemmcast.schema_version"
_ANOTHER: Final = "name a table that `python -m coordinator tune` wrote"
_PLAIN: Final = {"str": pa.string(), "int": pa.int64(), "float": pa.float64(), "bool": pa.bool_()}


def _struct(kind: type) -> pa.StructType:
    """Of a dataclass with plain fields."""
    columns: list[tuple[str, pa.DataType]] = []
    for field in fields(kind):
        columns.append((field.name, _PLAIN[str(field.type).removesuffix(" | None")]))
    return pa.struct(columns)


_NESTED: Final = {kind.__name__: _struct(kind) for kind in (Gemm, KernelConfig, Cost)}


def _schema() -> pa.Schema:
    columns = [pa.field("key", _struct(TableKey))]
    for field in fields(TunedEntry):
        columns.append(pa.field(field.name, (_PLAIN | _NESTED)[str(field.type)]))
    return pa.schema(columns)


SCHEMA: Final = _schema()


def write_parquet(table: TunedTable, path: str | Path) -> None:
    """Write a table as Parquet, whole or not at all.

    Raises:
        InputError: the table has no entry, and so no row that could hold its key.
    """
    if not len(table):
        raise InputError("table", str(path), "has no entry to write", "write it as JSON")
    key = asdict(table.key)
    rows = [{"key": key, **tuned_json.entry_values(entry)} for entry in table.entries]
    version = str(tuned_json.SCHEMA_VERSION).encode()
    metadata = {_FORMAT: tuned_json.FORMAT.encode(), _VERSION: version}
    arrow = pa.Table.from_pylist(rows, schema=SCHEMA.with_metadata(metadata))
    sink = pa.BufferOutputStream()
    pq.write_table(arrow, sink, compression="zstd")
    modeldir.write_atomically(Path(path), sink.getvalue().to_pybytes())


def read_parquet(path: str | Path) -> TunedTable:
    """The inverse of `write_parquet`.

    Raises:
        InputError: the file can't be read, is no tuned table, or has rows of several keys.
    """
    source = str(path)
    try:
        arrow = parquet_file.read_parquet(path, source, "table", nested=True)
    except (OSError, pa.ArrowException) as error:
        raise InputError("table", source, f"can't be read ({error})", _ANOTHER) from None
    _check_schema(arrow.schema, source)
    rows = arrow.to_pylist()
    keys = [row.pop("key", None) for row in rows]
    if not keys or any(key != keys[0] for key in keys):
        raise InputError("key", source, "is not the same in every row", _ANOTHER)
    entries = tuned_json.read_entries([_known(row) for row in rows], source)
    return TunedTable(tuned_json.read_key(keys[0], source), entries)


def _check_schema(schema: pa.Schema, source: str) -> None:
    metadata = schema.metadata or {}
    format_ = metadata.get(_FORMAT, b"").decode(errors="replace")
    version = metadata.get(_VERSION, b"").decode(errors="replace")
    number = int(version) if version.isdecimal() else None
    tuned_json.check_schema(format_, number, source)


def _known(row: tuned_json.Values) -> tuned_json.Values:
    """A row without the nulls of its configurations and costs."""
    return {name: _without_nulls(value) for name, value in row.items()}


def _without_nulls(value: object) -> object:
    if not isinstance(value, dict):
        return value
    return {name: one for name, one in value.items() if one is not None}
