"""Results of autotuners in the T4 format: JSON that Kernel Tuner and others write and read.

    {"schema_version": "1.0.0", "metadata": {...}, "results": [{"timestamp", "configuration", "times", "invalidity", "correctness",
     "measurements": [{"name", "value", "unit"}], "objectives"}]}

https://github.com/KernelTuner/kernel_tuner (kernel_tuner/schema/T4). Our own files hold every column of a sample, so that they come back as
they went: problem, configuration and conditions in `configuration`; the rest in `measurements`, or in `metadata.constants` where it is the
same in every row. Other programs' files hold no problem: the user adds it as constants.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from math import isfinite, sqrt
from pathlib import Path
from statistics import mean, median, stdev
from typing import Any, Final

import pyarrow as pa

from coordinator.samples.export import in_order
from coordinator.samples.formats.checked_rows import CONFIG_COLUMNS, GEMM_COLUMNS, ParsedRows, Row, checked, utc
from coordinator.samples.formats.table_file import opening
from gemmcast.errors import InputError
from gemmcast.modeldir import write_atomically
from gemmcast.sample import COLUMNS

VERSION: Final = "1.0.0"
PROGRAM: Final = "gemmcast"
ASKED: Final = (*GEMM_COLUMNS, *CONFIG_COLUMNS, "cache", "operand_distribution")
# columns that stand in `configuration`
_ORDER: Final = list(COLUMNS)
SHARED: Final = (
    *_ORDER[_ORDER.index("device") : _ORDER.index("sample_id")], "agent", "program_version", "schema_version", "power_limit_w", "idle_power_w",
)  # fmt: skip
# columns that may stand in `metadata.constants`
INVALIDITY: Final = {
    "ok": "correct", "incorrect": "correctness", "timeout": "timeout", "unsupported": "constraints", "not_recorded": "constraints",
}  # fmt: skip
# every other status: runtime
STATUSES: Final = {
    "correct": "ok", "correctness": "incorrect", "timeout": "timeout", "compile": "unsupported", "constraints": "unsupported",
    "runtime": "cuda_error",
}  # fmt: skip
TO_US: Final = {"": 1e3, "ms": 1e3, "us": 1.0, "µs": 1.0, "ns": 1e-3, "s": 1e6}
# unit -> factor; Kernel Tuner's times are in ms, with and without saying so
UNITS: Final = {
    "us": "us", "mhz": "MHz", "w": "W", "mj": "mJ", "s": "s", "bytes": "bytes", "c": "°C", "gbps": "GB/s", "tflops": "TFLOP/s",
}  # fmt: skip
# last word of a column's name -> unit


def write_t4(table: pa.Table, path: Path) -> None:
    """Samples of the sample schema as one T4 file.

    Raises:
        InputError: the name does not end with .json, or there are no samples.
    """
    if path.suffix != ".json":
        raise InputError("FILE", str(path), "T4 results are a JSON file", "name it SOMETHING.json")
    rows = in_order(table).to_pylist()
    constants = {name: rows[0][name] for name in SHARED if rows[0][name] is not None and len({row[name] for row in rows}) == 1}
    file = {
        "schema_version": VERSION,
        "metadata": {"program": PROGRAM, "constants": constants},
        "results": [_result(row, constants) for row in rows],
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, json.dumps(file, ensure_ascii=False, allow_nan=False).encode())


def _result(row: Row, constants: Row) -> dict[str, Any]:
    time_ms = [] if row["runtime_us"] is None else [row["runtime_us"] * 1e-3]
    said = {name: value for name, value in row.items() if _sayable(value) and name not in (*ASKED, *constants, "measured_at")}
    measurements = [{"name": "time", "value": value, "unit": "ms"} for value in time_ms]
    measurements += [{"name": name, "value": _plain(value), "unit": UNITS.get(name.rpartition("_")[2], "")} for name, value in said.items()]
    return {
        "timestamp": row["measured_at"],
        "configuration": {name: row[name] for name in ASKED},
        "times": {"runtimes": time_ms},
        "invalidity": INVALIDITY.get(row["status"], "runtime"),
        "correctness": int(row["status"] != "incorrect"),
        "measurements": measurements,
        "objectives": ["time"],
    }


def _sayable(value: Any) -> bool:
    """JSON has no numbers that are not finite."""
    return value is not None and not (isinstance(value, float) and not isfinite(value))


def _plain(value: Any) -> Any:
    """T4 knows numbers and texts only."""
    return int(value) if isinstance(value, bool) else value


def read_t4(path: Path, constants: Mapping[str, str]) -> ParsedRows:
    """Args: constants: columns that hold for every row, whatever the file says.

    Raises:
        InputError: not T4, or a missing or bad value, with the number of the result.
    """
    for name in constants:
        if name not in COLUMNS:
            raise InputError("--set", name, "is no column of a sample", "use one of docs/schema.md")
    file = _json(path)
    metadata = file.get("metadata")
    ours = isinstance(metadata, dict) and metadata.get("program") == PROGRAM
    shared = metadata.get("constants", {}) if isinstance(metadata, dict) and ours else {}
    rows: list[Row] = []
    unread: Counter[str] = Counter()
    for number, result in enumerate(file["results"], 1):
        place = f"{path.name}, result {number}"
        row = {**_known(shared, place), **_row(result, ours, unread, place), **constants}
        try:
            rows.append(checked(row, place))
        except InputError as error:
            way_out = f"say it for all rows: --set {error.field}=..." if error.field not in row else error.way_out
            raise InputError(error.field, error.value, error.rule, way_out) from None
    return ParsedRows(rows=rows, notes=[f"measurements that were not read: {', '.join(sorted(unread))}"] if unread else [])


def _json(path: Path) -> dict[str, Any]:
    opening(path)
    try:
        file = json.loads(path.read_text(encoding="utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise InputError("FILE", str(path), f"not JSON ({error})", "name a file of T4 results") from None
    results = file.get("results") if isinstance(file, dict) else None
    if not isinstance(results, list) or not results:
        raise InputError("results", None if results is None else "no list, or an empty one", f"{path.name} has no T4 results", "name a file that has")
    found: dict[str, Any] = file
    return found


def _row(result: Any, ours: bool, unread: Counter[str], place: str) -> Row:
    configuration, times = _table("configuration", _table("result", result, place).get("configuration"), place), result.get("times")
    invalidity = result.get("invalidity", "correct")
    if not isinstance(invalidity, str) or invalidity not in STATUSES:
        raise InputError("invalidity", invalidity, f"{place}: is none that T4 knows", f"use one of {', '.join(STATUSES)}")
    measured, units = _measured(result, place)
    row: Row = {"status": STATUSES[invalidity]}
    if row["status"] == "ok":
        row |= _timed(times if isinstance(times, dict) else {}, measured, units, place)
        row |= {"power_w": measured["nvml_power"]} if "nvml_power" in measured else {}
    elif not ours:
        row["reason"] = f"T4 invalidity {invalidity}"
    if timestamp := result.get("timestamp"):
        row["measured_at"] = utc(str(timestamp), place)
    row |= {name: value for name, value in measured.items() if name in COLUMNS and (ours or name not in ASKED)}
    unread.update(set(measured) - set(COLUMNS) - {"time", "nvml_power"})
    return {**row, **_configured(configuration)}


def _configured(configuration: Row) -> Row:
    """Keys with the names of our columns as they are; the others as text, in `kernel`."""
    row = {name: value for name, value in configuration.items() if name in ASKED}
    foreign = [f"{name}={value}" for name, value in configuration.items() if name not in ASKED]
    return {**row, "kernel": " ".join([str(row.get("kernel") or ""), *foreign]).strip()} if foreign else row


def _measured(result: Row, place: str) -> tuple[Row, dict[str, str]]:
    """(values, units) by the name of the measurement."""
    entries = result.get("measurements") or []
    if not isinstance(entries, list):
        raise InputError("measurements", entries, f"{place}: must be a list", "name a file of T4 results")
    tables = [_table("measurements", entry, place) for entry in entries]
    values = {str(entry.get("name")): entry.get("value") for entry in tables}
    return values, {str(entry.get("name")): str(entry.get("unit") or "") for entry in tables}


def _timed(times: Row, measured: Row, units: dict[str, str], place: str) -> Row:
    """The median of the runtimes, as our own readings are; else the measurement `time`."""
    if "runtime_us" in measured:
        return {}
    runtimes = times.get("runtimes")
    if isinstance(runtimes, list) and runtimes:
        if not all(type(value) in (int, float) for value in runtimes):
            raise InputError("runtimes", runtimes, f"{place}: must be numbers", "correct the file")
        rse = 1.2533 * stdev(runtimes) / sqrt(len(runtimes)) / mean(runtimes) if len(runtimes) > 1 and mean(runtimes) > 0 else None
        return {"runtime_us": median(runtimes) * TO_US["ms"], "launches_timed": len(runtimes), "runtime_rse": rse}
    time, unit = measured.get("time"), units.get("time", "")
    if unit not in TO_US:
        raise InputError("unit", unit, f"{place}: is no unit of time", f"use one of {', '.join(name for name in TO_US if name)}")
    return {"runtime_us": time * TO_US[unit] if isinstance(time, (int, float)) else time}


def _known(values: Any, place: str) -> Row:
    return {name: value for name, value in _table("constants", values, place).items() if name in COLUMNS}


def _table(name: str, value: Any, place: str) -> Row:
    if not isinstance(value, dict):
        raise InputError(name, value, f"{place}: must be a JSON object", "name a file of T4 results")
    return value
