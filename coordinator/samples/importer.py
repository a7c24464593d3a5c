"""Measured tables of others as samples: read, complete with the device's descriptors, name each row by its content.

A row's ids are made of what was asked and what was read, never of the file's name, its time, or estimated descriptors: the same row is the
same cell wherever and whenever it is imported, and the store takes it once. Reading needs no workspace.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import pyarrow as pa

from coordinator.samples.datasheets import WAY_OUT, find_board
from coordinator.samples.estimate import estimate, peak_tflops
from coordinator.samples.formats.aiconfigurator import read_aiconfigurator
from coordinator.samples.formats.checked_rows import CONFIG_COLUMNS, GEMM_COLUMNS, ParsedRows, Row
from coordinator.samples.formats.own_columns import read_flat
from coordinator.samples.formats.t4 import read_t4
from coordinator.samples.formats.table_file import FORMATS, guess
from coordinator.samples.store import Batch, SampleStore
from gemmcast import __version__
from gemmcast.arrow import to_table
from gemmcast.device import Device
from gemmcast.errors import InputError
from gemmcast.rows import config_of, gemm_of, known_columns
from gemmcast.sample import Sample, digest

CONTENT: Final = (
    *GEMM_COLUMNS, *CONFIG_COLUMNS, "cache", "operand_distribution", "device", "library", "status", "runtime_us", "sustained_runtime_us", "power_w", "energy_mj",
)  # fmt: skip
# what makes two rows the same row
NEEDED_OF_DEVICE: Final = ("device_kind", "compute_units", "peak_tflops", "dram_gbps")
# without these, nothing can be learned from a row
REPEATED: Final = "stands earlier in the table"


@dataclass(frozen=True, slots=True, kw_only=True)
class Outside:
    """A table of others, read."""

    format: str
    # one of FORMATS
    table: pa.Table
    # of the sample schema; no cell twice
    skipped: dict[str, int]
    # why rows were left out -> how many
    notes: tuple[str, ...]
    # one line each: where descriptors come from, what was not read


def read_outside(path: Path, format: str | None = None, device: Device | None = None, known: Device | None = None) -> pa.Table:
    """The rows of a measured table as samples; see `read`."""
    return read(path, format, device, known=known).table


def read(
    path: Path, format: str | None = None, device: Device | None = None, constants: Mapping[str, str] | None = None, known: Device | None = None
) -> Outside:
    """A measured table of others.

    Args:
        format: one of FORMATS; None: the one that the file's first bytes and columns tell.
        device: what the rows were measured on; None: what the file says of it, the rest estimated from its rows.
        constants: columns that hold for every row; T4 only.
        known: stands for `device` with the rows that name it, or name none.

    Raises:
        InputError: not such a file, a column or value that breaks a rule, or a device of which too little is known.
    """
    if format not in (None, *FORMATS):
        raise InputError("--format", format, "unknown format", f"use one of {', '.join(FORMATS)}")
    chosen = format or guess(path)
    if constants and chosen != "kernel-tuner-t4":
        raise InputError("--set", " ".join(constants), f"is for T4 results; this is {chosen}", "add a column to the table")
    found = _read(path, chosen, constants or {})
    rows, notes = _on_devices(found.rows, device, known)
    measured_at = datetime.fromtimestamp(path.stat().st_mtime, UTC).isoformat(timespec="milliseconds")
    named = [_named(row, f"import:{chosen}:{path.name}", measured_at) for row in rows]
    unique = list({row["cell_id"]: row for row in reversed(named)}.values())[::-1]
    skipped = dict(found.skipped) | ({REPEATED: len(named) - len(unique)} if len(unique) < len(named) else {})
    return Outside(format=chosen, table=to_table(unique), skipped=skipped, notes=(*notes, *found.notes))


def append(outside: Outside, store: SampleStore) -> int:
    """How many of its rows the store did not have; they are committed at once, or none is."""
    sender = "import:" + digest({"cells": outside.table["cell_id"].to_pylist()})
    return len(store.append([Batch(sender, 1, outside.table)]))


def read_device(path: Path) -> Device:
    """A device description: what `Device.to_json` writes."""
    try:
        return Device.from_json(path.read_text())
    except (OSError, UnicodeDecodeError) as error:
        raise InputError("--device", str(path), f"can't be read ({error})", "name a file with a device description in JSON") from None


def _read(path: Path, format: str, constants: Mapping[str, str]) -> ParsedRows:
    if format == "aiconfigurator":
        return read_aiconfigurator(path)
    return read_t4(path, constants) if format == "kernel-tuner-t4" else read_flat(path, format)


def _on_devices(rows: Sequence[Row], given: Device | None, known: Device | None) -> tuple[list[Row], list[str]]:
    """(rows with all descriptors, in their order; notes). What a row says of its device itself is kept."""
    meant = given or known
    unnamed = meant.name if meant else None
    groups: dict[str | None, list[Row]] = defaultdict(list)
    for row in rows:
        groups[row.get("device", unnamed)].append(row)
    if given and len(groups) > 1:
        raise InputError("--device", given.name, f"the table has rows of {', '.join(map(str, groups))}", "split it, one file for each device")
    devices: dict[str | None, Device | None] = {}
    notes: list[str] = []
    for name, group in groups.items():
        devices[name], note = _device(name, group, known if given is None and known and name == known.name else given)
        notes += [note] if note else []
    return [_complete(row, devices[row.get("device", unnamed)]) for row in rows], notes


def _device(name: str | None, rows: Sequence[Row], given: Device | None) -> tuple[Device | None, str | None]:
    """(what fills the gaps, a note on it); None where there are none."""
    if given:
        return _agreed(name or given.name, rows, given)
    if name is None:
        raise InputError("device", None, "the table does not say what it was measured on", f"add a column device, or {WAY_OUT}")
    if all(row.get(column) for row in rows for column in NEEDED_OF_DEVICE):
        return None, None
    return estimate(name, rows)


def _agreed(name: str, rows: Sequence[Row], given: Device) -> tuple[Device, str | None]:
    """The given device, with the peaks that nobody measured on it taken from the rows."""
    board, other = find_board(name), find_board(given.name)
    if board and other and board != other:
        raise InputError("--device", given.name, f"the table was measured on {name}", "give that device's description")
    seen = peak_tflops([(gemm_of(row), row["runtime_us"]) for row in rows if row.get("status", "ok") == "ok"])
    new = {dtype: peak for dtype, peak in seen.items() if not given.peak_tflops.get(dtype)}
    text = ", ".join(f"{dtype} {peak:.4g} TFLOP/s" for dtype, peak in new.items())
    return replace(given, peak_tflops={**given.peak_tflops, **new}), f"{given.name}: peak taken from the rows: {text}" if new else None


def _complete(row: Row, device: Device | None) -> Row:
    described = known_columns(gemm_of(row), config_of(row), device) if device else {}
    name = {"device": device.name} if device else {}
    return Sample(**{**described, **row, **name}).row()


def _named(row: Row, agent: str, measured_at: str) -> Row:
    """With provenance and ids; those that a row has already, as an export of this program does, are kept."""
    cell_id = row["cell_id"] or digest({name: row[name] for name in CONTENT})
    return {
        **row,
        "cell_id": cell_id,
        "sample_id": row["sample_id"] or digest({"sample": cell_id}),
        "agent": row["agent"] or agent,
        "program_version": row["program_version"] or __version__,
        "measured_at": row["measured_at"] or measured_at,
    }
