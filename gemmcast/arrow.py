"""Samples as Arrow: the schema of batches, store and datasets. Needs pyarrow, which the embedded predictor does not."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import pyarrow as pa

from gemmcast.errors import InputError
from gemmcast.sample import COLUMNS, REQUIRED

_TYPES: Final = {"int": pa.int64(), "float": pa.float64(), "str": pa.string(), "bool": pa.bool_()}
SCHEMA: Final = pa.schema([pa.field(name, _TYPES[kind], nullable=name not in REQUIRED) for name, kind in COLUMNS.items()])


def to_table(rows: Sequence[Mapping[str, Any]]) -> pa.Table:
    """Rows of Sample.row() as one table of SCHEMA."""
    return pa.Table.from_pylist(list(rows), schema=SCHEMA)


def conform(table: pa.Table, source: str) -> pa.Table:
    """A table read from a file, with exactly the columns of SCHEMA: unknown ones are refused, missing ones become null.

    Raises:
        InputError: an unknown column, a missing or null column that must be there, or a type that can't be cast.
    """
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
