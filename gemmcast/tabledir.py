"""The tuned tables of a node, in its model directory, replaced so that no reader sees half of them.

    DIR/table-<sha12>.json   one table, named by its content, written whole, then renamed
    DIR/tables.json          {"version", "tables": [...]}; renamed last

A set of tables is replaced as a whole: the champions of one registry. Several agents may write at
once, and readers need no lock (gemmcast/modeldir.py). Does not know what a table says.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

from gemmcast import modeldir
from gemmcast.errors import InputError
from gemmcast.modeldir import GRACE_S, sha256, write_atomically

CURRENT: Final = "tables.json"
TABLES: Final = f"table-{'[0-9a-f]' * 12}.json"
"""Pattern of the tables' names: no other file is ever deleted."""
_PUSH: Final = "push the tables again: python -m registry tables push NODE_DIR"


@dataclass(frozen=True, slots=True, kw_only=True)
class PlacedTable:
    """One table of a node."""

    file: str
    """Name of its file in the directory."""
    sha256: str
    """SHA-256 of that file, in hexadecimal digits."""
    version: str
    """Its version in the registry."""
    signature: str | None = None
    """What was signed with the table, and the signature (docs/signing.md); None: unsigned."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PlacedTables:
    """The content of tables.json."""

    version: str
    """Names the whole set: equal sets have equal versions."""
    tables: tuple[PlacedTable, ...]
    """One for each type of device and objective."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Shipped:
    """A table on its way to the nodes."""

    data: bytes
    """The table as JSON."""
    version: str
    """Its version in the registry."""
    signature: str | None = None
    """None: unsigned."""


def version_of(tables: Sequence[Shipped]) -> str:
    """Names a set of tables: 12 digits of a SHA-256 over contents and versions."""
    parts = sorted(f"{sha256(table.data)} {table.version}" for table in tables)
    return sha256("\n".join(parts).encode())[:12]


def put_tables(directory: Path, shipped: Sequence[Shipped]) -> PlacedTables:
    """Make these the tables of this node, in place of those that it has."""
    placed = tuple(_put(directory, table) for table in shipped)
    current = PlacedTables(version=version_of(shipped), tables=placed)
    tables = [modeldir.without_none(asdict(table)) for table in placed]
    values = {"version": current.version, "tables": tables}
    write_atomically(directory / CURRENT, json.dumps(values).encode())
    _delete_others(directory, {table.file for table in placed})
    return current


def read_current(directory: Path) -> PlacedTables:
    """Which tables the node has. Raises InputError where there are none, or a damaged file."""
    try:
        values = json.loads((directory / CURRENT).read_text("utf-8"))
        tables = tuple(PlacedTable(**table) for table in values["tables"])
        for table in tables:
            modeldir.check_text(asdict(table))
        return PlacedTables(version=values["version"], tables=tables)
    except FileNotFoundError:
        rule = f"has no tuned tables ({CURRENT})"
        way_out = "promote one in the registry, or name a table's file"
        raise InputError("model directory", str(directory), rule, way_out) from None
    except (ValueError, KeyError, TypeError) as error:
        rule = f"not written by gemmcast ({error!r})"
        raise InputError(CURRENT, str(directory), rule, _PUSH) from None


def read_table(directory: Path, table: PlacedTable) -> bytes:
    """The bytes of one table.

    Raises:
        FileNotFoundError: newer tables have displaced it; read tables.json again.
        InputError: the file is damaged.
    """
    path = directory / table.file
    if modeldir.leads_out(directory, table.file):
        raise InputError(CURRENT, table.file, "leads out of the directory", _PUSH)
    data = path.read_bytes()
    if sha256(data) != table.sha256:
        raise InputError("table", str(path), "does not match its SHA-256", _PUSH)
    return data


def _put(directory: Path, table: Shipped) -> PlacedTable:
    digest = sha256(table.data)
    path = directory / f"table-{digest[:12]}.json"
    # A symbolic link is replaced: what it points at may change later.
    if path.is_symlink() or not path.exists() or sha256(path.read_bytes()) != digest:
        write_atomically(path, table.data)
    os.utime(path)
    return PlacedTable(
        file=path.name, sha256=digest, version=table.version, signature=table.signature
    )


def _delete_others(directory: Path, kept: set[str]) -> None:
    """Tables that are not current, once no reader can be about to open them."""
    newest = (directory / CURRENT).stat().st_mtime
    for path in directory.glob(TABLES):
        try:
            is_old = path.stat().st_mtime < newest - GRACE_S
        except FileNotFoundError:
            # Another writer has just deleted it.
            continue
        if path.name not in kept and is_old:
            path.unlink(missing_ok=True)
