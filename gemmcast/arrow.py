"""Samples as Arrow: the schema of batches, store and datasets, and the reader of any schema.

Columns of schemas 1 to 3 are read through gemmcast/renames.py, and nothing is written in them. The
embedded predictor imports neither this nor the other files of gemmcast that need pyarrow.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

import pyarrow as pa
import pyarrow.compute as pc

from gemmcast import renames, warm_windows
from gemmcast.errors import InputError
from gemmcast.parquet_file import read_parquet
from gemmcast.sample import COLUMNS, DEFAULTS, REQUIRED, SCHEMA_VERSION, check_version

_TYPES: Final = {
    "int": pa.int64(),
    "float": pa.float64(),
    "str": pa.string(),
    "bool": pa.bool_(),
}
_VERSION: Final = "schema_version"
_EVERY_SAMPLE: Final = "every sample needs it (docs/schema.md)"


def _schema() -> pa.Schema:
    columns = []
    for name, kind in COLUMNS.items():
        columns.append(pa.field(name, _TYPES[kind], nullable=name not in REQUIRED))
    return pa.schema(columns)


SCHEMA: Final = _schema()


def read_samples(path: str | Path, columns: Sequence[str] | None = None) -> pa.Table:
    """A Parquet file of samples, of any schema, with the columns of SCHEMA or only some of them."""
    table = conform(read_parquet(path, str(path)), str(path))
    return table if columns is None else table.select(list(columns))


def to_table(rows: Sequence[Mapping[str, object]]) -> pa.Table:
    """Rows of `Sample.row()` as one table of SCHEMA; an absent column becomes null.

    Raises:
        TypeError: a row has a column that the schema does not have. Arrow would drop it in silence.
    """
    for number, row in enumerate(rows, 1):
        unknown = row.keys() - COLUMNS.keys()
        if unknown:
            raise TypeError(f"row {number} has columns that no sample has: {sorted(unknown)}")
    return pa.Table.from_pylist(list(rows), schema=SCHEMA)


def to_bytes(table: pa.Table) -> bytes:
    """A table as an Arrow stream, for `from_bytes`: pickled, a table takes ten times as long."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return bytes(sink.getvalue().to_pybytes())


def from_bytes(data: bytes) -> pa.Table:
    """The table that `to_bytes` was called with.

    Raises:
        pa.ArrowInvalid: it is no Arrow stream.
    """
    return pa.ipc.open_stream(data).read_all()


def conform(table: pa.Table, source: str) -> pa.Table:
    """A table read from a file, with exactly the columns of SCHEMA.

    A missing column becomes null or its default. Columns of an older schema are renamed.

    Args:
        table: columns of any schema.
        source: where it was read; for messages.

    Raises:
        InputError: a newer schema, an unknown column, a null where none may be, a column that every
            file needs and this one lacks, or a type that cannot be cast.
    """
    check_schema(table, source)
    table = _with_uncertainty(upgrade(table))
    unknown = sorted(set(table.column_names) - set(COLUMNS))
    if unknown:
        rule = f"{source} has a column that the schema does not have"
        raise InputError("column", unknown[0], rule, "drop or rename it (docs/schema.md)")
    columns = [_column(table, field, source) for field in SCHEMA]
    return _in_this_schema(pa.table(columns, schema=SCHEMA))


def check_schema(table: pa.Table, source: str) -> None:
    """Refuse rows of a schema that this version does not know.

    Args:
        table: its column `schema_version` is enough.
        source: where it was read; for messages.
    """
    if _VERSION not in table.column_names or not len(table):
        return
    try:
        newest = pc.max(table[_VERSION].cast(pa.int64())).as_py()
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
        # no number: whoever reads the column says so
        return
    check_version(newest or 0, source)


def upgrade(table: pa.Table) -> pa.Table:
    """A table of schema 1 or 2 in the names of schema 3; a table of a later schema unchanged."""
    names = [renames.COLUMNS.get(name, name) for name in table.column_names]
    if "threads" not in names and names == table.column_names:
        return table
    table = table.rename_columns(names)
    if "family" not in names:
        return table
    if "kernel" in names:
        table = _rename_kernels(table)
    families = table["family"].to_pylist()
    current = [renames.FAMILIES.get(family, family) for family in families]
    table = _replace(table, "family", current)
    return _split_threads(table) if "threads" in names else table


def _in_this_schema(table: pa.Table) -> pa.Table:
    """A table with the columns of SCHEMA whose rows are of any schema.

    See `renames.with_empty_kernel` and gemmcast/warm_windows.py.
    """
    kernel_us = table["empty_kernel_us"]
    on_cpu = pc.equal(table["device_kind"], "cpu")
    of_cpu = pc.coalesce(kernel_us, table["empty_launch_us"])
    is_warm = _has_warm_window(table)
    present = {
        "status": pc.if_else(is_warm, warm_windows.STATUS, table["status"]),
        "reason": pc.if_else(is_warm, warm_windows.REASON, table["reason"]),
        "empty_kernel_us": pc.if_else(on_cpu, of_cpu, kernel_us),
        _VERSION: pa.array([SCHEMA_VERSION] * len(table), pa.int64()),
    }
    for name, column in present.items():
        field = SCHEMA.field(name)
        table = table.set_column(SCHEMA.get_field_index(name), field, column)
    return table


def _has_warm_window(table: pa.Table) -> pa.Array:
    """Which rows are ok but for a power window that was warm: see gemmcast/warm_windows.py."""
    is_old = pc.less(table[_VERSION], warm_windows.COLD_SINCE)
    may_be_warm = pc.and_(is_old, pc.is_valid(table["power_w"]))
    # pc.indices_nonzero crashes on a column without chunks.
    places = may_be_warm.to_numpy().nonzero()[0].tolist()
    rows = table.select([*warm_windows.COLUMNS, _VERSION]).filter(may_be_warm).to_pylist()
    is_warm = [False] * len(table)
    for place, row in zip(places, rows, strict=True):
        is_warm[place] = warm_windows.is_warm(row, row[_VERSION])
    return pa.array(is_warm, pa.bool_())


def _rename_kernels(table: pa.Table) -> pa.Table:
    families = table["family"].to_pylist()
    kernels = table["kernel"].to_pylist()
    return _replace(table, "kernel", list(map(renames.current_kernel, families, kernels)))


def _split_threads(table: pa.Table) -> pa.Table:
    """Schemas 1 and 2 kept the threads of a CPU and of a thread block in one column."""
    threads = table["threads"]
    none = pa.scalar(0, threads.type)
    on_cpu = pc.equal(table["family"], "blas")
    table = table.append_column("cpu_threads", pc.if_else(on_cpu, threads, none))
    table = table.append_column("block_threads", pc.if_else(on_cpu, none, threads))
    return table.drop_columns(["threads"])


def _with_uncertainty(table: pa.Table) -> pa.Table:
    """Schemas 1 to 3 kept the standard error of a burst in place of the uncertainty."""
    names = table.column_names
    if renames.STANDARD_ERROR not in names or "family" not in names:
        return table
    if not _is_number(table[renames.STANDARD_ERROR].type):
        return table
    errors = table[renames.STANDARD_ERROR].to_pylist()
    families = table["family"].to_pylist()
    sustained_us = [None] * len(table)
    if "sustained_runtime_us" in names:
        sustained_us = table["sustained_runtime_us"].to_pylist()
    uncertainties = list(map(renames.current_uncertainty, errors, sustained_us, families))
    table = table.drop_columns([renames.STANDARD_ERROR])
    if "runtime_uncertainty" in names:
        return table
    return table.append_column("runtime_uncertainty", pa.array(uncertainties, pa.float64()))


def _is_number(kind: pa.DataType) -> bool:
    """Or a column without values, which may have no type."""
    tests = (pa.types.is_floating, pa.types.is_integer, pa.types.is_null)
    return any(test(kind) for test in tests)


def _replace(table: pa.Table, name: str, values: Sequence[object]) -> pa.Table:
    """The table with other values in a column, if it has that column."""
    if name not in table.column_names:
        return table
    column = pa.array(values, table[name].type)
    return table.set_column(table.column_names.index(name), name, column)


def _column(table: pa.Table, field: pa.Field, source: str) -> pa.ChunkedArray:
    """One column of SCHEMA out of a table that may lack it or have another type."""
    if field.name not in table.column_names:
        return _missing(field, len(table), source)
    column = table[field.name]
    try:
        column = column.cast(field.type)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        rule = f"{source}: can't be read as {field.type} ({error})"
        raise InputError(field.name, str(column.type), rule, "see docs/schema.md") from None
    if column.null_count and not field.nullable:
        rule = f"{source} has {column.null_count} nulls in it"
        raise InputError("column", field.name, rule, _EVERY_SAMPLE)
    return column


def _missing(field: pa.Field, size: int, source: str) -> pa.Array:
    """The column of a file that lacks it: null, or the default of Sample."""
    if field.nullable:
        return pa.nulls(size, field.type)
    if field.name not in DEFAULTS:
        raise InputError("column", field.name, f"{source} has no such column", _EVERY_SAMPLE)
    return pa.array([DEFAULTS[field.name]] * size, field.type)
