"""A table with the columns of docs/schema.md, as CSV or Parquet: an export of this program, or a
table that somebody wrote for it.

Optional columns may be absent or empty. Columns of earlier schemas are accepted. An unknown column
is refused, because a misspelt one would otherwise be lost.
"""

from __future__ import annotations

from collections.abc import Sequence
from difflib import get_close_matches

from coordinator.samples.formats.checked_rows import NEEDED, READABLE, ParsedRows, checked
from coordinator.samples.formats.source_file import SourceFile
from coordinator.samples.formats.table_file import load
from gemmcast.errors import InputError
from gemmcast.renames import COLUMNS as RENAMED
from gemmcast.sample import COLUMNS, check_version


def read_own_columns(source: SourceFile, kind: str) -> ParsedRows:
    """The rows of the table.

    Args:
        kind: csv or parquet.

    Raises:
        InputError: an unknown column, one that is missing, or a newer schema.
    """
    table = load(source, kind=kind)
    for values in table.rows.values():
        version = str(values.get("schema_version"))
        if version.isdecimal():
            check_version(int(version), source.name)
    _check_columns(table.columns, source.name)
    parsed = ParsedRows(refused=table.broken)
    for number, values in table.rows.items():
        try:
            parsed.rows[number] = checked(values)
        except InputError as error:
            parsed.refused[number] = error
    return parsed


def _check_columns(columns: Sequence[str], file: str) -> None:
    for name in columns:
        if name not in READABLE:
            rule = f"{file} has a column that the schema does not have"
            raise InputError("column", name, rule, _way_out(name))
        present_name = RENAMED.get(name)
        if present_name in columns:
            rule = f"{file} has it a second time, as {present_name}"
            raise InputError("column", name, rule, "drop one of them")
    for name in (*NEEDED, "runtime_us"):
        if name not in columns:
            way_out = "every sample needs it (docs/schema.md)"
            raise InputError("column", name, f"{file} has no such column", way_out)


def _way_out(name: str) -> str:
    nearest = get_close_matches(name, COLUMNS, 1, 0.5)
    guess = f"did you mean {nearest[0]!r}? " if nearest else ""
    return f"{guess}drop or rename it (docs/schema.md)"
