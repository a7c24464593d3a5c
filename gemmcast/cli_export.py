"""`gemmcast export`: tuned tables as the files that runtimes read (docs/exports.md)."""

from __future__ import annotations

import argparse
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from gemmcast.errors import InputError
from gemmcast.exports.export import ExportOptions, merged, write
from gemmcast.exports.formats import export_table
from gemmcast.tuned_table import TunedTable

BLOCK_SHAPE: Final = "N,K"


def export(args: argparse.Namespace) -> tuple[dict[str, Any], str]:
    """Write the files; what was written, with --json and as text."""
    block_shape = _block_shape(args.block_shape)
    exports = []
    for path in args.tables:
        table = TunedTable.read(path)
        options = ExportOptions(
            experts=args.experts,
            top_k=args.top_k,
            intermediate=args.intermediate,
            decides=args.decides,
            kernel=args.kernel,
            block_shape=block_shape,
            timestamp=_written_at(path),
        )
        exports.append(export_table(table, args.format, options))
    made = merged(exports)
    paths = [str(path) for path in write(made, args.out)]
    values = {"format": args.format, "files": paths, "notes": list(made.notes)}
    return values, "\n".join([*made.notes, *paths])


def _written_at(path: Path) -> str:
    """When a file was changed, in UTC."""
    changed = datetime.fromtimestamp(path.stat().st_mtime, UTC)
    return changed.isoformat(timespec="milliseconds")


def _block_shape(text: str | None) -> tuple[int, int] | None:
    """`128,128` as numbers."""
    if text is None:
        return None
    parts = [part.strip() for part in text.strip("[]").split(",")]
    if len(parts) != 2 or not all(part.isdecimal() and int(part) > 0 for part in parts):
        rule = "must be two whole numbers from 1"
        raise InputError("--block-shape", text, rule, "write 128,128")
    n, k = map(int, parts)
    return n, k
