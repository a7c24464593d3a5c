"""Measured tables of others as samples: read the file, complete each row with its device, name it.

    cell_id   = digest of GEMM, configuration, conditions, device's name, library and readings
    sample_id = digest of cell_id

The ids do not contain the file's name, its time, or estimated descriptors. So the same row is the
same cell wherever and whenever it is imported, and the store takes it once. The digest uses the
names of schema 1: a table that an earlier version imported adds nothing either.
Does not know the store or a workspace.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import pyarrow as pa

from coordinator.samples.datasheets import WAY_OUT, find_datasheet
from coordinator.samples.estimate import estimate, ok_timings, peak_tflops, peaks_text
from coordinator.samples.formats.aiconfigurator import read_aiconfigurator
from coordinator.samples.formats.checked_rows import CONFIG_COLUMNS, GEMM_COLUMNS, ParsedRows
from coordinator.samples.formats.own_columns import read_own_columns
from coordinator.samples.formats.t4_reader import read_t4
from coordinator.samples.formats.table_file import FORMATS, guess_format
from gemmcast import __version__
from gemmcast.arrow import to_table
from gemmcast.device import Device
from gemmcast.errors import InputError
from gemmcast.renames import first_config
from gemmcast.rows import ReadRow, Row, config_of, gemm_of, known_columns
from gemmcast.sample import Sample, digest

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
NEEDED_OF_DEVICE: Final = ("device_kind", "compute_units", "peak_tflops", "dram_gbps")
"""Without these columns a model learns nothing from a row."""
REPEATED: Final = "stands earlier in the table"


@dataclass(frozen=True, slots=True, kw_only=True)
class ImportedTable:
    """A measured table, read."""

    format: str
    """One of FORMATS."""
    table: pa.Table
    """With the columns of the sample schema; no cell twice."""
    skipped: dict[str, int]
    """Why rows were left out -> how many."""
    notes: tuple[str, ...]
    """One line each: where descriptors come from, what was not read."""


def read_table(
    path: Path,
    format: str | None = None,
    device: Device | None = None,
    constants: Mapping[str, str] | None = None,
    known: Device | None = None,
) -> ImportedTable:
    """Read a measured table.

    Args:
        format: one of FORMATS; None: the one that the file's first bytes and columns show.
        device: what all rows were measured on; None: what the file says about it, and the rest
            estimated from its rows.
        constants: column -> value for every row; T4 only.
        known: used as `device` for the rows that name this device, or none.

    Raises:
        InputError: not such a file, a column or value that breaks a rule, or a device of which too
            little is known.
    """
    if format is not None and format not in FORMATS:
        way_out = f"use one of {', '.join(FORMATS)}"
        raise InputError("--format", format, "unknown format", way_out)
    chosen = format or guess_format(path)
    parsed = _parsed(path, chosen, constants or {})
    rows, device_notes = _with_devices(parsed.rows, device, known)
    modified = datetime.fromtimestamp(path.stat().st_mtime, UTC)
    measured_at = modified.isoformat(timespec="milliseconds")
    agent = f"import:{chosen}:{path.name}"
    by_cell: dict[str, Row] = {}
    skipped = Counter(parsed.skipped)
    for row in rows:
        sample = _with_provenance(row, agent, measured_at)
        if sample["cell_id"] in by_cell:
            skipped[REPEATED] += 1
        else:
            by_cell[sample["cell_id"]] = sample
    return ImportedTable(
        format=chosen,
        table=to_table(list(by_cell.values())),
        skipped=dict(skipped),
        notes=(*device_notes, *parsed.notes),
    )


def read_device(path: Path) -> Device:
    """A device description, as `Device.to_json` writes it.

    Raises:
        InputError: no such file, or not a device description.
    """
    try:
        return Device.from_json(path.read_text())
    except (OSError, UnicodeDecodeError) as error:
        rule = f"can't be read ({error})"
        way_out = "name a file with a device description in JSON"
        raise InputError("--device", str(path), rule, way_out) from None


def _parsed(path: Path, format: str, constants: Mapping[str, str]) -> ParsedRows:
    if format == "t4":
        return read_t4(path, constants)
    if constants:
        rule = f"is for T4 results; this is {format}"
        raise InputError("--set", " ".join(constants), rule, "add a column to the table")
    if format == "aiconfigurator":
        return read_aiconfigurator(path)
    return read_own_columns(path, format)


def _with_devices(
    rows: Sequence[Row], given: Device | None, known: Device | None
) -> tuple[list[Row], list[str]]:
    """The rows with all descriptors, in their order; and notes.

    What a row says about its device itself is kept.
    """
    meant = given or known
    name_if_absent = meant.name if meant else None
    groups: dict[str | None, list[Row]] = defaultdict(list)
    for row in rows:
        groups[row.get("device", name_if_absent)].append(row)
    if given and len(groups) > 1:
        rule = f"the table has rows of {', '.join(map(str, groups))}"
        raise InputError("--device", given.name, rule, "split it, one file for each device")
    devices: dict[str | None, Device | None] = {}
    notes: list[str] = []
    for name, group in groups.items():
        is_known = known is not None and name == known.name
        description = known if given is None and is_known else given
        devices[name], note = _device(name, group, description)
        if note:
            notes.append(note)
    completed = [_completed(row, devices[row.get("device", name_if_absent)]) for row in rows]
    return completed, notes


def _device(
    name: str | None, rows: Sequence[Row], given: Device | None
) -> tuple[Device | None, str | None]:
    """What fills the gaps of these rows, and a note about it; None where there are no gaps."""
    if given:
        return _with_missing_peaks(given, name or given.name, rows)
    if name is None:
        rule = "the table does not say what it was measured on"
        raise InputError("device", None, rule, f"add a column device, or {WAY_OUT}")
    for row in rows:
        if not all(row.get(column) for column in NEEDED_OF_DEVICE):
            return estimate(name, rows)
    return None, None


def _with_missing_peaks(given: Device, name: str, rows: Sequence[Row]) -> tuple[Device, str | None]:
    """The given device; a peak that was never measured on it is taken from the rows."""
    named, described = find_datasheet(name), find_datasheet(given.name)
    if named and described and named != described:
        rule = f"the table was measured on {name}"
        raise InputError("--device", given.name, rule, "give that device's description")
    missing: dict[str, float] = {}
    for dtype, peak in peak_tflops(ok_timings(rows)).items():
        if not given.peak_tflops.get(dtype):
            missing[dtype] = peak
    if not missing:
        return given, None
    note = f"{given.name}: peak taken from the rows: {peaks_text(missing)}"
    return replace(given, peak_tflops={**given.peak_tflops, **missing}), note


def _completed(row: Row, device: Device | None) -> Row:
    if device is None:
        return Sample(**row).row()
    descriptors = known_columns(gemm_of(row), config_of(row), device)
    return Sample(**{**descriptors, **row, "device": device.name}).row()


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


def _content_digest(row: ReadRow) -> str:
    config = first_config({name: row[name] for name in CONFIG_COLUMNS})
    content = {name: row[name] for name in CONTENT}
    return digest({**content, **config, "fill": row["operand_distribution"]})
