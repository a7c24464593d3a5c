"""Samples as results in the T4 format: JSON that Kernel Tuner and other autotuners write and read.

    {"schema_version": "1.0.0", "metadata": {...}, "results": [{"timestamp", "configuration",
     "times", "invalidity", "correctness", "measurements": [{"name", "value", "unit"}],
     "objectives"}]}

https://github.com/KernelTuner/kernel_tuner (kernel_tuner/schema/T4). Our files hold every column of
a sample, so an import gives the same samples back: GEMM, configuration and conditions are in
`configuration`; the rest is in `measurements`, or in `metadata.constants` where it is the same in
every row. t4_reader.py reads our files and those of other programs.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from math import isfinite
from pathlib import Path
from typing import Final

import pyarrow as pa

from coordinator.samples.export import in_order, refuse_directory, write_files
from coordinator.samples.formats.checked_rows import CONFIG_COLUMNS, GEMM_COLUMNS
from gemmcast.errors import InputError
from gemmcast.rows import ReadRow, Row
from gemmcast.sample import COLUMNS

VERSION: Final = "1.0.0"
PROGRAM: Final = "gemmcast"
"""`metadata.program` of our files."""
CONFIGURATION: Final = (*GEMM_COLUMNS, *CONFIG_COLUMNS, "cache", "operand_distribution")
"""Columns that are in `configuration`."""
_NAMES: Final = list(COLUMNS)
CONSTANTS: Final = (
    *_NAMES[_NAMES.index("device") : _NAMES.index("sample_id")],
    "agent",
    "program_version",
    "schema_version",
    "power_limit_w",
    "idle_power_w",
)
"""Columns that may be in `metadata.constants`: device and program."""
INVALIDITY: Final = {
    "ok": "correct",
    "incorrect": "correctness",
    "timeout": "timeout",
    "unsupported": "constraints",
    "not_recorded": "constraints",
}
"""Status -> invalidity; every other status is `runtime`."""
STATUSES: Final = {
    "correct": "ok",
    "correctness": "incorrect",
    "timeout": "timeout",
    "compile": "unsupported",
    "constraints": "unsupported",
    "runtime": "cuda_error",
}
"""Invalidity of other programs -> status."""
UNITS: Final = {
    "us": "us",
    "mhz": "MHz",
    "w": "W",
    "mj": "mJ",
    "s": "s",
    "bytes": "bytes",
    "c": "°C",
    "gbps": "GB/s",
    "tflops": "TFLOP/s",
}
"""Last word of a column's name -> unit."""


def write_t4(table: pa.Table, path: Path) -> None:
    """Write samples, in the columns of the sample schema, as one T4 file.

    Raises:
        InputError: the name does not end with .json, or there are no samples.
    """
    refuse_directory(path)
    if path.suffix != ".json":
        rule = "T4 results are a JSON file"
        raise InputError("FILE", str(path), rule, "name it SOMETHING.json")
    rows = in_order(table).to_pylist()
    constants = _constants(rows)
    file = {
        "schema_version": VERSION,
        "metadata": {"program": PROGRAM, "constants": constants},
        "results": [_result(row, constants) for row in rows],
    }
    text = json.dumps(file, ensure_ascii=False, allow_nan=False)
    write_files({path: text.encode()})


def _constants(rows: Sequence[ReadRow]) -> Row:
    constants: Row = {}
    for name in CONSTANTS:
        values = {row[name] for row in rows}
        if len(values) == 1 and None not in values:
            constants[name] = values.pop()
    return constants


def _result(row: ReadRow, constants: ReadRow) -> dict[str, object]:
    runtimes_ms = [] if row["runtime_us"] is None else [row["runtime_us"] * 1e-3]
    return {
        "timestamp": row["measured_at"],
        "configuration": {name: row[name] for name in CONFIGURATION},
        "times": {"runtimes": runtimes_ms},
        "invalidity": INVALIDITY.get(row["status"], "runtime"),
        "correctness": int(row["status"] != "incorrect"),
        "measurements": _measurements(row, constants, runtimes_ms),
        "objectives": ["time"],
    }


def _measurements(
    row: ReadRow, constants: ReadRow, runtimes_ms: Sequence[float]
) -> list[Mapping[str, object]]:
    entries: list[Mapping[str, object]] = []
    for runtime_ms in runtimes_ms:
        entries.append({"name": "time", "value": runtime_ms, "unit": "ms"})
    elsewhere = {*CONFIGURATION, *constants, "measured_at"}
    for name, value in row.items():
        if name in elsewhere or not _has_json(value):
            continue
        # T4 has numbers and texts only
        number_or_text = int(value) if isinstance(value, bool) else value
        unit = UNITS.get(name.rpartition("_")[2], "")
        entries.append({"name": name, "value": number_or_text, "unit": unit})
    return entries


def _has_json(value: object) -> bool:
    """Whether JSON can hold the value: it has no infinite numbers."""
    return value is not None and not (isinstance(value, float) and not isfinite(value))
