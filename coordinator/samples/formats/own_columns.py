"""A table with the columns of docs/schema.md, as CSV or Parquet: an export of this program, or a
table that somebody wrote for it.

Optional columns may be absent or empty. Columns of earlier schemas are accepted. An unknown column
is refused, because a misspelt one would otherwise be lost.
"""

from __future__ import annotations

from collections.abc import Sequence
from difflib import get_close_matches
from pathlib import Path

from coordinator.samples.formats.checked_rows import NEEDED, READABLE, ParsedRows, checked
from coordinator.samples.formats.table_file import load
from gemmcast.errors import InputError
from gemmcast.renames import COLUMNS as RENAMED
from gemmcast.sample import COLUMNS


def read_own_columns(path: Path, kind: str) -> ParsedRows:
    """The rows of the table.

    Args:
        kind: csv or parquet.

    Raises:
        InputError: an unknown column, one that is missing, or a bad value, with its row.
    """
    columns, rows = load(path, kind=kind)
    _check_columns(columns, path.name)
    parsed = ParsedRows()
    for number, row in enumerate(rows, 1):
        parsed.rows.append(checked(row, f"{path.name}, row {number}"))
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
