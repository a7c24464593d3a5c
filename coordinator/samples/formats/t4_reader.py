"""Read results of autotuners in the T4 format (t4.py): ours, and those of other programs.

Files of other programs do not say which GEMM was computed: the user adds it as constants, which
hold for every row. Their configuration is kept as text in the column `kernel`, except keys with the
name of one of our columns. A result that breaks a rule is left out. Does not know devices.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from math import sqrt
from statistics import mean, median, stdev
from typing import Final

from coordinator.samples.formats.checked_rows import (
    READABLE,
    ParsedRows,
    check_constants,
    checked,
    utc,
)
from coordinator.samples.formats.source_file import SourceFile
from coordinator.samples.formats.t4 import CONFIGURATION, PROGRAM, STATUSES
from gemmcast.errors import InputError
from gemmcast.renames import STANDARD_ERROR
from gemmcast.rows import Row
from gemmcast.sample import check_version

READABLE_CONFIGURATION: Final = frozenset({*CONFIGURATION, "threads", "fill"})
"""Keys of a configuration that are columns, with the names of earlier schemas."""
TO_US: Final = {
    "": 1e3,
    "ms": 1e3,
    "us": 1.0,
    "µs": 1.0,
    "ns": 1e-3,
    "s": 1e6,
}
"""Unit of time -> factor to us. Kernel Tuner's times are in ms; in some files the unit is empty."""
LONGEST: Final = 1e300
"""A larger time, also infinity, is none; in any unit."""
MEDIAN_OVER_MEAN: Final = 1.2533
"""Standard error of a median over that of a mean, for a normal distribution: sqrt(pi / 2)."""
NAME_T4: Final = "name a file of T4 results"


def read_t4(source: SourceFile, constants: Mapping[str, str]) -> ParsedRows:
    """The rows of a T4 file.

    Args:
        constants: columns that hold for every row and override the file.

    Raises:
        InputError: not T4, of a newer schema, or a constant that is no column.
    """
    check_constants(constants)
    file = _json(source)
    metadata = file.get("metadata")
    ours = False
    shared: object = {}
    if isinstance(metadata, dict) and metadata.get("program") == PROGRAM:
        ours = True
        shared = metadata.get("constants", {})
    _check_version(shared, source)
    unread: Counter[str] = Counter()
    parsed = ParsedRows(word="result")
    for number, result in enumerate(file["results"], 1):
        try:
            row = _row(result, ours, unread)
            parsed.rows[number] = _checked({**_columns(shared), **row, **constants})
        except InputError as error:
            parsed.refused[number] = error
    if unread:
        parsed.notes.append(f"measurements that were not read: {', '.join(sorted(unread))}")
    if isinstance(shared, dict) and shared.keys() - READABLE:
        names = ", ".join(sorted(shared.keys() - READABLE))
        parsed.notes.append(f"constants that were not read: {names}")
    return parsed


def _json(source: SourceFile) -> Row:
    try:
        file = json.loads(source.text())
    except (ValueError, RecursionError) as error:
        raise source.refused(f"not JSON ({error})", NAME_T4) from None
    results = file.get("results") if isinstance(file, dict) else None
    if not isinstance(results, list) or not results:
        value = None if results is None else "no list, or an empty one"
        rule = f"{source.name} has no T4 results"
        raise InputError("results", value, rule, "name a file that has")
    contents: Row = file
    return contents


def _check_version(shared: object, source: SourceFile) -> None:
    version = shared.get("schema_version") if isinstance(shared, dict) else None
    if isinstance(version, int):
        check_version(version, source.name)


def _checked(row: Row) -> Row:
    try:
        return checked(row)
    except InputError as error:
        way_out = error.way_out
        if error.field not in row:
            way_out = f"give it for all rows: --set {error.field}=..."
        raise InputError(error.field, error.value, error.rule, way_out) from None


def _row(result: object, ours: bool, unread: Counter[str]) -> Row:
    entry = _object("result", result)
    configuration = _object("configuration", entry.get("configuration"))
    measured, units = _measured(entry)
    row: Row = {"status": _status(entry)}
    if row["status"] == "ok":
        row |= _runtime(entry, measured, units)
        if "nvml_power" in measured:
            row["power_w"] = measured["nvml_power"]
    elif not ours:
        row["reason"] = f"T4 invalidity {entry.get('invalidity')}"
    timestamp = entry.get("timestamp")
    if timestamp:
        row["measured_at"] = utc(str(timestamp))
    for name, value in measured.items():
        # a measurement of another program must not replace the GEMM or the configuration
        if name in READABLE and (ours or name not in READABLE_CONFIGURATION):
            row[name] = value
    unread.update(set(measured) - READABLE - {"time", "nvml_power"})
    return {**row, **_configured(configuration)}


def _status(entry: Row) -> str:
    invalidity = entry.get("invalidity", "correct")
    if not isinstance(invalidity, str) or invalidity not in STATUSES:
        way_out = f"use one of {', '.join(STATUSES)}"
        raise InputError("invalidity", invalidity, "T4 has no such value", way_out)
    return STATUSES[invalidity]


def _configured(configuration: Row) -> Row:
    """Keys with the names of our columns as they are; the others as text, in `kernel`."""
    row: Row = {}
    others: list[str] = []
    for name, value in configuration.items():
        if name in READABLE_CONFIGURATION:
            row[name] = value
        else:
            others.append(f"{name}={value}")
    if others:
        row["kernel"] = " ".join([str(row.get("kernel") or ""), *others]).strip()
    return row


def _measured(entry: Row) -> tuple[Row, dict[str, str]]:
    """The values and the units of the measurements, by name."""
    measurements = entry.get("measurements") or []
    if not isinstance(measurements, list):
        raise InputError("measurements", measurements, "must be a list", NAME_T4)
    values: Row = {}
    units: dict[str, str] = {}
    for measurement in measurements:
        fields = _object("measurements", measurement)
        name = str(fields.get("name"))
        values[name] = fields.get("value")
        units[name] = str(fields.get("unit") or "")
    return values, units


def _runtime(entry: Row, measured: Row, units: dict[str, str]) -> Row:
    """The median of the runtimes, as in our own readings; else the measurement `time`."""
    if "runtime_us" in measured:
        return {}
    times = entry.get("times")
    if isinstance(times, dict):
        runtimes = times.get("runtimes")
        if isinstance(runtimes, list) and runtimes:
            return _of_runtimes(runtimes)
    time = measured.get("time")
    unit = units.get("time", "")
    if unit not in TO_US:
        named_units = filter(None, TO_US)
        way_out = f"use one of {', '.join(named_units)}"
        raise InputError("unit", unit, "is no unit of time", way_out)
    if _is_time(time):
        return {"runtime_us": float(str(time)) * TO_US[unit]}
    # what is no time is left for the check
    return {"runtime_us": time}


def _of_runtimes(runtimes: list[float]) -> Row:
    for value in runtimes:
        if not _is_time(value):
            rule = "must be times: finite numbers above 0"
            raise InputError("runtimes", value, rule, "correct the file")
    rse = None
    average = mean(runtimes)
    if len(runtimes) > 1:
        standard_error = stdev(runtimes) / sqrt(len(runtimes))
        rse = MEDIAN_OVER_MEAN * standard_error / average
    return {
        "runtime_us": median(runtimes) * TO_US["ms"],
        "launches_timed": len(runtimes),
        STANDARD_ERROR: rse,
    }


def _is_time(value: object) -> bool:
    """Whether it is a number above 0 that a float can hold."""
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 < value < LONGEST


def _columns(values: object) -> Row:
    """The entries that are columns of a sample."""
    constants = _object("constants", values)
    return {name: value for name, value in constants.items() if name in READABLE}


def _object(name: str, value: object) -> Row:
    if not isinstance(value, dict):
        raise InputError(name, value, "must be a JSON object", NAME_T4)
    return value
