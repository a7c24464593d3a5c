"""Tables, notes and the result of a tuning, from its races.

Each type of device has a table of its own: `OUT/DEVICE-OBJECTIVE.json`, and beside it the note
(.md). Does not measure.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path

from coordinator.tune.outcome import Outcome, outcome_of
from coordinator.tune.readings import Readings
from coordinator.tune.result import TuneResult, TypeResult, note
from coordinator.tune.search import Search
from gemmcast.device import Device
from gemmcast.errors import WorkspaceError
from gemmcast.gemm import Gemm
from gemmcast.modeldir import write_atomically
from gemmcast.table_key import TableKey
from gemmcast.tuned_entry import TunedEntry
from gemmcast.tuned_table import TunedTable

BUILT = ("cutlass", "triton")
"""Families whose kernels are built by the user: their version is part of a table's key."""


def write_results(
    search: Search,
    readings: Readings,
    devices: Mapping[str, Device],
    out: Path,
    is_complete: bool,
) -> TuneResult:
    """Write a table for each type of device.

    Raises:
        WorkspaceError: the directory can't be written.
    """
    types: list[TypeResult] = []
    for name, device in devices.items():
        races = search.races[name]
        outcomes = [outcome_of(races[place]) for place in sorted(races)]
        result = TypeResult(
            table=TunedTable(
                _key(device, str(search.settings.objective), readings), _entries(outcomes)
            ),
            outcomes=outcomes,
            refused=[one for one in search.problems[name] if one.default is None],
            path=out / f"{_file_name(device, str(search.settings.objective))}.json",
            spent_s=0.0 if search.settings.is_replay else search.spent_s(name),
        )
        _write(result)
        types.append(result)
    return TuneResult(
        types=types,
        complete=is_complete,
        measurements=len(readings),
        saved_measurements=search.saved,
    )


def _entries(outcomes: Iterable[Outcome]) -> Collection[TunedEntry]:
    """One for each problem: a line that names its kernel may be that of --families, too."""
    entries: dict[tuple[Gemm, str], TunedEntry] = {}
    for outcome in outcomes:
        entry = outcome.entry
        entries.setdefault((entry.gemm, entry.operation), entry)
    return entries.values()


def _write(result: TypeResult) -> None:
    try:
        result.path.parent.mkdir(parents=True, exist_ok=True)
        result.table.write(result.path)
        write_atomically(result.path.with_suffix(".md"), note(result).encode())
    except OSError as error:
        rule = f"{result.path} can't be written ({error.strerror})"
        raise WorkspaceError(f"{rule}: name another --out; nothing measured is lost") from None


def _key(device: Device, objective: str, readings: Readings) -> TableKey:
    """The device as it is now, with the kernels that were measured."""
    sets = sorted(set().union(*(readings.libraries.get(family, set()) for family in BUILT)))
    tritons = {_triton_in(library) for library in readings.libraries.get("triton", set())}
    return TableKey.of(
        device,
        objective,
        kernel_set="; ".join(sets) or None,
        triton=", ".join(sorted(tritons)) or None,
    )


def _triton_in(library: str) -> str:
    """`3.6.0` of `triton 3.6.0, source 1a2b`."""
    return library.removeprefix("triton ").partition(",")[0]


def _file_name(device: Device, objective: str) -> str:
    return re.sub(r"[^a-z0-9.]+", "-", f"{device.name}-{objective}".lower()).strip("-")
