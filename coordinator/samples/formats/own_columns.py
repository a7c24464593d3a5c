"""A table with our own columns (docs/schema.md), as CSV or Parquet: an export of this program, or one that somebody wrote for it.

Optional columns may be absent or empty. Columns that the schema does not know are refused: a misspelt one would be lost otherwise.
"""

from __future__ import annotations

from difflib import get_close_matches
from pathlib import Path

from coordinator.samples.formats.checked_rows import NEEDED, ParsedRows, checked
from coordinator.samples.formats.table_file import load
from gemmcast.errors import InputError
from gemmcast.sample import COLUMNS


def read_flat(path: Path, kind: str) -> ParsedRows:
    """Args: kind: csv or parquet.

    Raises:
        InputError: an unknown column, one that is missing, or a bad value, with its row.
    """
    columns, rows = load(path, kind=kind)
    for name in columns:
        if name not in COLUMNS:
            near = get_close_matches(name, COLUMNS, 1, 0.5)
            way_out = f"did you mean {near[0]!r}? drop or rename it (docs/schema.md)" if near else "drop or rename it (docs/schema.md)"
            raise InputError("column", name, f"{path.name} has a column that the schema does not know", way_out)
    for name in (*NEEDED, "runtime_us"):
        if name not in columns:
            raise InputError("column", name, f"{path.name} has no such column", "every sample needs it (docs/schema.md)")
    return ParsedRows(rows=[checked(row, f"{path.name}, row {number}") for number, row in enumerate(rows, 1)])
