"""Measured entries as results in the T4 format, which Kernel Tuner and other autotuners read.

    {"schema_version": "1.0.0", "metadata": {...}, "results": [{"timestamp", "configuration",
     "times", "invalidity", "correctness", "measurements": [{"name", "value", "unit"}],
     "objectives"}]}

https://github.com/KernelTuner/kernel_tuner (kernel_tuner/schema/T4). Each entry is two results, the
default and the winner, or one where they are the same. Times are in ms there. `python -m
coordinator import` reads the file too (coordinator/samples/formats/t4_reader.py).
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from typing import Final

from gemmcast.config import KernelConfig
from gemmcast.exports.export import Export, ExportOptions, LeftOut, file_stem
from gemmcast.tuned_entry import Cost, TunedEntry
from gemmcast.tuned_table import TunedTable

VERSION: Final = "1.0.0"
PROGRAM: Final = "gemmcast"
CONSTANTS: Final = ("device", "driver", "cuda", "library", "power_limit_w")
"""Fields of a table's key that are columns of a sample."""
UNITS: Final = {
    "runtime_us": "us",
    "sustained_runtime_us": "us",
    "power_w": "W",
    "energy_mj": "mJ",
}
OBJECTIVES: Final = {"energy": ["energy_mj"], "edp": ["time", "energy_mj"]}
"""Objective of a table -> measurements to minimise; all others minimise the time."""
US_PER_MS: Final = 1e3


def t4(table: TunedTable, options: ExportOptions) -> Export:
    """One file with the results of every measured entry."""
    left_out = LeftOut()
    objectives = OBJECTIVES.get(table.key.objective, ["time"])
    results = []
    for entry in table.entries:
        measured = list(_measured(entry))
        if not measured:
            left_out.reasons["it was not measured"] += 1
        for config, cost in measured:
            result = _result(entry, config, cost)
            results.append({"timestamp": options.timestamp, **result, "objectives": objectives})
    if not results:
        raise left_out.nothing_left(table, "T4 has measurements only: tune by measuring")
    metadata = {"program": PROGRAM, "constants": _constants(table), "table": asdict(table.key)}
    file = {"schema_version": VERSION, "metadata": metadata, "results": results}
    text = json.dumps(file, indent=1, ensure_ascii=False, allow_nan=False)
    name = f"{file_stem(table)}.json"
    return Export(files={name: f"{text}\n"}, notes=tuple(left_out.notes()))


def _constants(table: TunedTable) -> dict[str, object]:
    """What is the same for all results, without what is unknown."""
    values = {name: getattr(table.key, name) for name in CONSTANTS}
    return {name: value for name, value in values.items() if value is not None}


def _measured(entry: TunedEntry) -> Iterator[tuple[KernelConfig, Cost]]:
    """The configurations of an entry whose time was measured."""
    if entry.default_measured.runtime_us is not None:
        yield entry.default, entry.default_measured
    if entry.winner_measured.runtime_us is not None and not entry.keeps_default:
        yield entry.winner, entry.winner_measured


def _result(entry: TunedEntry, config: KernelConfig, cost: Cost) -> Mapping[str, object]:
    """What was measured of one configuration."""
    runtime_ms = (cost.runtime_us or 0.0) / US_PER_MS
    measurements: list[Mapping[str, object]] = []
    measurements.append({"name": "time", "value": runtime_ms, "unit": "ms"})
    for name, unit in UNITS.items():
        value = getattr(cost, name)
        if value is not None:
            measurements.append({"name": name, "value": value, "unit": unit})
    return {
        "configuration": {**asdict(entry.gemm), **asdict(config)},
        "times": {"runtimes": [runtime_ms]},
        "invalidity": "correct",
        "correctness": 1,
        "measurements": measurements,
    }
