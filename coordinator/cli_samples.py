"""`python -m coordinator import | export`: tables into a workspace's samples, and out of them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from coordinator.options import (
    WORKSPACE,
    AsJson,
    Constants,
    DeviceFile,
    ExportFile,
    ExportFormat,
    ImportFile,
    ImportFormat,
    StoreUri,
    WorkspacePath,
    assignments,
)
from gemmcast.errors import InputError

if TYPE_CHECKING:
    from coordinator.samples.store import SampleStore
    from coordinator.workspace import Workspace


def import_(
    file: ImportFile,
    format: ImportFormat = None,
    workspace: WorkspacePath = WORKSPACE,
    store: StoreUri = None,
    device: DeviceFile = None,
    constants: Constants = None,
    json: AsJson = False,
) -> None:
    """Append a measured table to a workspace's samples; rows that are there add nothing."""
    from coordinator import terminal
    from coordinator.samples.importer import read_device, read_table
    from coordinator.samples.store import SampleStore
    from coordinator.workspace import Workspace

    place = Workspace(workspace)
    given_device = read_device(device) if device else None
    uri = store or place.samples
    known = (
        SampleStore.open(uri, create=False).measured_devices() if SampleStore.exists(uri) else []
    )
    imported = read_table(file, format, given_device, assignments(constants or []), known)
    with place.locked(), SampleStore.writing(uri, place.path) as samples:
        samples.each_board.update(imported.each_board)
        added = len(samples.append([imported.table]))
    counts: dict[str, object] = {
        "file": str(file),
        "format": imported.format,
        "rows": len(imported.table),
        "added": added,
        "already_there": len(imported.table) - added,
    }

    def text() -> None:
        """The result for people."""
        skipped = {f"skipped: {why}": count for why, count in imported.skipped.items()}
        terminal.show_values("import", counts | skipped)
        for note in imported.notes:
            terminal.show_line(note)

    values = {**counts, "skipped": imported.skipped, "notes": imported.notes}
    terminal.result(values, as_json=json, text=text)


def export(
    file: ExportFile,
    workspace: WorkspacePath = WORKSPACE,
    store: StoreUri = None,
    format: ExportFormat = None,
    json: AsJson = False,
) -> None:
    """Write a workspace's samples as a dataset with its card (.md), or as T4 results."""
    from coordinator import terminal
    from coordinator.samples.dataset_counts import counts
    from coordinator.samples.export import write_dataset
    from coordinator.samples.formats.t4 import write_t4

    if format not in (None, "parquet", "t4"):
        raise InputError("--format", format, "unknown format", "use parquet or t4")
    place, samples = open_samples(workspace, store)
    table = samples.read()
    if format == "t4" or (format is None and file.suffix == ".json"):
        write_t4(table, file)
        counted = counts(table)
    else:
        counted = write_dataset(table, file, place.measure_settings())
    values = {"file": str(file), **counted}
    terminal.result(values, as_json=json, text=lambda: terminal.show_values(str(file), counted))


def open_samples(workspace: Path, store: str | None) -> tuple[Workspace, SampleStore]:
    """A workspace and its samples, to read them.

    Raises:
        InputError: there are none.
    """
    from coordinator.samples.store import SampleStore
    from coordinator.workspace import Workspace

    place = Workspace(workspace)
    if store is None:
        place.must_exist()
    return place, SampleStore.open(store or place.samples, create=False)
