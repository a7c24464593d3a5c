"""Samples as Arrow: the schema of batches, store and datasets. Needs pyarrow, which the embedded predictor does not."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from gemmcast import renames
from gemmcast.errors import InputError
from gemmcast.sample import COLUMNS, REQUIRED, SCHEMA_VERSION

_TYPES: Final = {"int": pa.int64(), "float": pa.float64(), "str": pa.string(), "bool": pa.bool_()}
SCHEMA: Final = pa.schema([pa.field(name, _TYPES[kind], nullable=name not in REQUIRED) for name, kind in COLUMNS.items()])


def read_samples(path: str | Path, columns: Sequence[str] | None = None) -> pa.Table:
    """A Parquet file of samples, of any schema, with the columns of SCHEMA (or only some of them)."""
    table = conform(pq.read_table(path), str(path))
    return table if columns is None else table.select(list(columns))


def to_table(rows: Sequence[Mapping[str, Any]]) -> pa.Table:
    """Rows of Sample.row() as one table of SCHEMA."""
    return pa.Table.from_pylist(list(rows), schema=SCHEMA)


def conform(table: pa.Table, source: str) -> pa.Table:
    """A table read from a file, with exactly the columns of SCHEMA: unknown ones are refused, missing ones become null.

    Raises:
        InputError: an unknown column, a missing or null column that must be there, or a type that can't be cast.
    """
    table = upgrade(table)
    if unknown := sorted(set(table.column_names) - set(COLUMNS)):
        raise InputError("column", unknown[0], f"{source} has a column that the schema does not know", "drop or rename it (docs/schema.md)")
    columns = []
    for field in SCHEMA:
        if field.name not in table.column_names:
            columns.append(_missing(field, len(table), source))
            continue
        try:
            columns.append(table[field.name].cast(field.type))
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
            raise InputError(
                field.name, str(table[field.name].type), f"{source}: can't be read as {field.type} ({error})", "see docs/schema.md"
            ) from None
        if columns[-1].null_count and not field.nullable:
            raise InputError("column", field.name, f"{source} has {columns[-1].null_count} nulls in it", "every sample needs it (docs/schema.md)")
    return pa.table(columns, schema=SCHEMA)


def upgrade(table: pa.Table) -> pa.Table:
    """A table of schema 1 or 2 in the names of schema 3; one of schema 3 as it is."""
    names = [renames.COLUMNS.get(name, name) for name in table.column_names]
    if "threads" not in names and names == table.column_names:
        return table
    table = table.rename_columns(names)
    if "family" not in names:
        return table
    families = table["family"].to_pylist()
    current = [renames.FAMILIES.get(family, family) for family in families]
    table = _replace(table, "family", current)
    if "kernel" in names:
        kernels = table["kernel"].to_pylist()
        table = _replace(table, "kernel", list(map(renames.current_kernel, families, kernels)))
    if "threads" in names:
        on_cpu = pc.equal(table["family"], "blas")
        threads = table["threads"]
        for name, here in (("cpu_threads", on_cpu), ("block_threads", pc.invert(on_cpu))):
            table = table.append_column(name, pc.if_else(here, threads, pa.scalar(0, threads.type)))
        table = table.drop_columns(["threads"])
    return _replace(table, "schema_version", [SCHEMA_VERSION] * len(table))


def _replace(table: pa.Table, name: str, values: list[object]) -> pa.Table:
    if name not in table.column_names:
        return table
    column = pa.array(values, table[name].type)
    return table.set_column(table.column_names.index(name), name, column)


def _missing(field: pa.Field, size: int, source: str) -> pa.Array:
    from gemmcast.sample import Sample

    defaults = {name: value.default for name, value in Sample.__dataclass_fields__.items()}
    if field.nullable:
        return pa.nulls(size, field.type)
    default = {"batch": 1, "layout": "nn", "alpha": 1.0, "beta": 0.0, "kernel": ""}.get(field.name, defaults[field.name])
    if COLUMNS[field.name] == "int" and not isinstance(default, int):
        default = 0 if field.name not in ("m", "n", "k") else None
    if not isinstance(default, (int, float, str, bool)):
        raise InputError("column", field.name, f"{source} has no such column", "every sample needs it (docs/schema.md)")
    return pa.array([default] * size, field.type)
