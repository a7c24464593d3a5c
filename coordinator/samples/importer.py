"""Measured tables of others as samples: read the file, complete each row with its device, name it.

A row that breaks a rule is left out and counted; a file without any good row is refused.

    cell_id   = digest of GEMM, configuration, conditions, device's name, library and readings
    sample_id = digest of cell_id

The ids do not contain the file's name, its time, or estimated descriptors. So the same row is the
same cell wherever and whenever it is imported, and the store takes it once. The digest uses the
names of schema 1: a table that an earlier version imported adds nothing either.
Does not know the store or a workspace.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pyarrow as pa

from coordinator.samples.answers import CONTENDED
from coordinator.samples.completing import with_devices
from coordinator.samples.formats.aiconfigurator import read_aiconfigurator
from coordinator.samples.formats.checked_rows import CONFIG_COLUMNS, GEMM_COLUMNS, ParsedRows
from coordinator.samples.formats.cutlass_profiler import read_cutlass_profiler
from coordinator.samples.formats.own_columns import read_own_columns
from coordinator.samples.formats.source_file import SourceFile, read_source
from coordinator.samples.formats.t4_reader import read_t4
from coordinator.samples.formats.table_file import FORMATS, guess_format
from coordinator.samples.formats.tunableop import read_tunableop
from coordinator.samples.plausible import ImplausibleError
from gemmcast import __version__
from gemmcast.arrow import to_table
from gemmcast.descriptions import ESTIMATED
from gemmcast.device import Device
from gemmcast.errors import InputError
from gemmcast.renames import first_config
from gemmcast.rows import ReadRow, Row
from gemmcast.sample import digest

CONTENT: Final = (
    *GEMM_COLUMNS,
    "cache",
    "device",
    "library",
    "status",
    "runtime_us",
    "sustained_runtime_us",
    "power_w",
    "energy_mj",
)
"""What makes two rows the same row, besides the configuration and the operands' values. It must
never change, because ids are made of it; so it does not follow other lists of readings."""
SHOWN_REFUSALS: Final = 3
"""Rows that are named for each rule that rows break."""
WITH_CONSTANTS: Final = {
    "t4": read_t4,
    "tunableop": read_tunableop,
    "cutlass-profiler": read_cutlass_profiler,
}
"""Formats whose files do not say all that a sample needs -> reader, which takes the rest."""
REPEATED: Final = "stands earlier in the table"


@dataclass(frozen=True, slots=True, kw_only=True)
class ImportedTable:
    """A measured table, read."""

    format: str
    """One of FORMATS."""
    table: pa.Table
    """With the columns of the sample schema; no cell twice, but by several boards."""
    each_board: frozenset[str]
    """Ids of the cells that came with their ids and boards: a row of each board is a row of its
    own."""
    skipped: dict[str, int]
    """Why rows were left out -> how many."""
    notes: tuple[str, ...]
    """One line each: where descriptors come from, which rows were left out, what was not read."""


def read_table(
    path: Path,
    format: str | None = None,
    device: Device | None = None,
    constants: Mapping[str, str] | None = None,
    known: Sequence[Device] = (),
) -> ImportedTable:
    """Read a measured table.

    Args:
        path: a file or a pipe; either may be gzipped.
        format: one of FORMATS; None: the one that the file's first bytes and columns show.
        device: what all rows were measured on; None: what the file says about it, and the rest
            estimated from its datasheet and its rows.
        constants: column -> value for every row; of the formats in WITH_CONSTANTS.
        known: devices that samples describe already; they describe the rows that name them.

    Raises:
        InputError: not such a file, a column that breaks a rule, or no row that can be used.
    """
    if format is not None and format not in FORMATS:
        way_out = f"use one of {', '.join(FORMATS)}"
        raise InputError("--format", format, "unknown format", way_out)
    source = read_source(path)
    chosen = format or guess_format(source)
    parsed = _parsed(source, chosen, constants or {})
    rows, device_notes = with_devices(parsed, device, known)
    _check_refusals(parsed, rows, source)
    agent = f"import:{chosen}:{source.name}"
    measured_at = source.modified.isoformat(timespec="milliseconds")
    by_cell: dict[tuple[str, str, bool], Row] = {}
    skipped = parsed.skipped + Counter(map(_reason, parsed.refused.values()))
    for row in rows:
        sample = _with_provenance(row, agent, measured_at)
        key = (sample["cell_id"], _board(row), row["status"] == CONTENDED)
        if key in by_cell:
            skipped[REPEATED] += 1
        else:
            by_cell[key] = sample
    return ImportedTable(
        format=chosen,
        table=to_table(list(by_cell.values())),
        each_board=frozenset(cell_id for cell_id, board, _ in by_cell if board),
        skipped=dict(skipped),
        notes=(*device_notes, *_refusal_notes(parsed), *parsed.notes),
    )


def read_device(path: Path) -> Device:
    """A device description, as `Device.to_json` writes it.

    Raises:
        InputError: no such file, or not a device description; also a key that none has.
    """
    return Device.read(path)


def _parsed(source: SourceFile, format: str, constants: Mapping[str, str]) -> ParsedRows:
    reader = WITH_CONSTANTS.get(format)
    if reader is not None:
        return reader(source, constants)
    if constants:
        rule = f"is for {', '.join(WITH_CONSTANTS)}; this is {format}"
        raise InputError("--set", " ".join(constants), rule, "add a column to the table")
    if format == "aiconfigurator":
        return read_aiconfigurator(source)
    return read_own_columns(source, format)


# rows that break a rule


def _check_refusals(parsed: ParsedRows, rows: Sequence[Row], source: SourceFile) -> None:
    """Refuse a file of which no row is left, or most are in another unit."""
    total = len(rows) + len(parsed.refused)
    beyond = []
    for number, error in parsed.refused.items():
        if isinstance(error, ImplausibleError):
            beyond.append(number)
    blamed = beyond if 2 * len(beyond) > total else list(parsed.refused)
    if rows and blamed is not beyond:
        return
    first = min(blamed)
    error = parsed.refused[first]
    others = f" and {len(blamed) - 1} more of {total}" if len(blamed) > 1 else ""
    rule = f"{source.name}, {parsed.word} {first}{others}: {error.rule}"
    raise InputError(error.field, error.value, rule, error.way_out)


def _reason(error: InputError) -> str:
    """What rows that break the same rule are counted by."""
    if isinstance(error, ImplausibleError):
        return f"{error.field}: {error.way_out}"
    return f"{error.field} {error.rule}"


def _refusal_notes(parsed: ParsedRows) -> Iterator[str]:
    """The first rows of every reason, with their values."""
    shown: Counter[str] = Counter()
    for number, error in sorted(parsed.refused.items()):
        reason = _reason(error)
        shown[reason] += 1
        if shown[reason] <= SHOWN_REFUSALS:
            yield f"{parsed.word} {number} left out: {error}"


def _with_provenance(row: Row, agent: str, measured_at: str) -> Row:
    """The row with ids and provenance; those that it has already are kept."""
    cell_id = row["cell_id"] or _content_digest(row)
    return {
        **row,
        "cell_id": cell_id,
        "sample_id": row["sample_id"] or digest({"sample": cell_id}),
        "agent": row["agent"] or agent,
        "program_version": row["program_version"] or __version__,
        "measured_at": row["measured_at"] or measured_at,
    }


def _board(row: ReadRow) -> str:
    """The board of a row that came with its id; empty where nothing says that boards differ."""
    uuid: str = row["device_uuid"]
    return uuid if row["cell_id"] and not uuid.startswith(ESTIMATED) else ""


def _content_digest(row: ReadRow) -> str:
    config = first_config({name: row[name] for name in CONFIG_COLUMNS})
    content = {name: row[name] for name in CONTENT}
    return digest({**content, **config, "fill": row["operand_distribution"]})
