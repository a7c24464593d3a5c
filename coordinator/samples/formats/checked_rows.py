"""What the reader of one format hands on: checked rows in the columns of the sample schema.

    row 3 left out: m = 0: must be a whole number from 1 to 16777216; correct the table

A value that breaks a rule costs its row, and so does a row that is correct but has no equivalent
here. Both are counted by reason. A table of which no row is left is refused.
Column names, families and kernels of earlier schemas are accepted. Does not know devices.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from datetime import UTC, datetime
from math import isfinite
from typing import Final

from costmodel.dataset import READINGS
from gemmcast import renames, warm_windows
from gemmcast.config import KernelConfig
from gemmcast.device import DEVICE_KINDS
from gemmcast.errors import InputError
from gemmcast.gemm import Gemm
from gemmcast.query import CACHES
from gemmcast.rows import Row
from gemmcast.sample import COLUMNS, DEFAULTS, SCHEMA_VERSION, STATUSES

GEMM_COLUMNS: Final = tuple(f.name for f in fields(Gemm))
CONFIG_COLUMNS: Final = tuple(f.name for f in fields(KernelConfig))
READABLE: Final = frozenset({*COLUMNS, *renames.COLUMNS, "threads", renames.STANDARD_ERROR})
"""The names that a column of a file may have: those of the present schema and the earlier ones."""
NEEDED: Final = ("m", "n", "k", "dtype", "family")
"""What every row must have; a row that is ok needs a runtime too."""
SHARES: Final = ("occupancy", renames.STANDARD_ERROR)
"""Columns between 0 and 1."""
POSITIVE: Final = (
    *READINGS,
    "launches_timed",
    "window_s",
)
"""Columns that must be above 0. All others must not be negative, except those of SIGNED."""
SIGNED: Final = ("alpha", "beta", "temperature_c", "throttle_reasons")
CHOICES: Final = {"status": STATUSES, "cache": CACHES, "device_kind": DEVICE_KINDS}
BOOLEANS: Final = {"true": True, "1": True, "false": False, "0": False}
CORRECT: Final = "correct the table"
LEAVE_EMPTY: Final = "leave the cell empty where nothing was read"


@dataclass(frozen=True, slots=True, kw_only=True)
class ParsedRows:
    """The rows of one file."""

    word: str = "row"
    """What the file calls a row, for messages."""
    rows: dict[int, Row] = field(default_factory=dict)
    """Number in the file, from 1 -> columns of the sample schema; those that the file does not have
    are absent."""
    skipped: Counter[str] = field(default_factory=Counter)
    """Why rows without an equivalent were left out -> how many."""
    refused: dict[int, InputError] = field(default_factory=dict)
    """Number in the file -> the rule that the row breaks."""
    notes: list[str] = field(default_factory=list)
    """For the user, one line each."""


def checked(values: Row) -> Row:
    """A row with the types and bounds of the schema, GEMM and configuration complete.

    Args:
        values: by column, in the names of any schema; None or "" where a cell is empty.

    Raises:
        InputError: a value that is out of bounds, or one that is missing.
    """
    row: Row = {}
    for name, value in with_current_names(values).items():
        if value is not None and value != "":
            row[name] = _typed(name, value)
    version = row.get("schema_version", SCHEMA_VERSION)
    row = _in_this_schema(row)
    needed = [*NEEDED]
    if row.get("status", "ok") == "ok":
        needed.append("runtime_us")
    for name in needed:
        if name not in row:
            way_out = "fill it in, or leave the row out"
            raise InputError(name, values.get(name), "every sample needs it", way_out)
    gemm_values = {name: row[name] for name in GEMM_COLUMNS if name in row}
    config_values = {name: row[name] for name in CONFIG_COLUMNS if name in row}
    gemm = Gemm(**gemm_values)
    config = KernelConfig(**config_values)
    complete = {**_with_uncertainty(row), **asdict(gemm), **asdict(config)}
    return _with_warm_window(complete, version)


def check_constants(constants: Mapping[str, str]) -> None:
    """Refuse a value for all rows (`--set`) of what is no column."""
    for name in constants:
        if name not in READABLE:
            raise InputError("--set", name, "is no column of a sample", "use one of docs/schema.md")


def with_current_names(values: Row) -> Row:
    """A row of any schema in the names of the present one."""
    row: Row = renames.renamed(values, renames.COLUMNS)
    family = row.get("family")
    kernel = row.get("kernel")
    threads = row.pop("threads", None)
    if isinstance(family, str):
        row["family"] = renames.FAMILIES.get(family, family)
        if isinstance(kernel, str):
            row["kernel"] = renames.current_kernel(family, kernel)
    if threads not in (None, ""):
        row.setdefault(renames.threads_column(str(family)), threads)
    return row


def _in_this_schema(row: Row) -> Row:
    """A row of any schema, in the present names, with what the present schema says."""
    current: Row = renames.with_empty_kernel(row, row.get("device_kind"))
    if "schema_version" in row:
        current["schema_version"] = max(row["schema_version"], SCHEMA_VERSION)
    return current


def utc(text: str) -> str:
    """A time of ISO 8601 as UTC; one without a zone is taken as UTC."""
    try:
        moment = datetime.fromisoformat(text)
        if moment.tzinfo is None:
            moment = moment.replace(tzinfo=UTC)
        return moment.astimezone(UTC).isoformat(timespec="milliseconds")
    except (ValueError, OverflowError):
        way_out = "write it as 2026-01-31T12:00:00+00:00"
        raise InputError("measured_at", text, "must be a time of ISO 8601", way_out) from None


def _with_uncertainty(row: Row) -> Row:
    """A checked row; a standard error becomes the uncertainty, unless the row has one."""
    row = dict(row)
    error = row.pop(renames.STANDARD_ERROR, None)
    if error is not None:
        sustained_runtime_us = row.get("sustained_runtime_us")
        uncertainty = renames.current_uncertainty(error, sustained_runtime_us, row["family"])
        row.setdefault("runtime_uncertainty", uncertainty)
    return row


def _with_warm_window(row: Row, schema_version: int) -> Row:
    """A complete row; one that is ok but for its power window is marked."""
    read = {**dict.fromkeys(warm_windows.COLUMNS), **DEFAULTS, **row}
    if not warm_windows.is_warm(read, schema_version):
        return row
    return {**row, "status": warm_windows.STATUS, "reason": warm_windows.REASON}


def _typed(name: str, value: object) -> str | bool | int | float:
    kind = _kind(name)
    is_plain = not isinstance(value, dict | list)
    if not is_plain or (isinstance(value, bool) and kind != "bool"):
        expected = "text" if kind == "str" else "number"
        raise InputError(name, value, f"must be a {expected}", CORRECT)
    if kind == "str":
        return _text(name, str(value))
    if kind == "bool":
        return _boolean(name, value)
    number = _number(name, value)
    _check_bounds(name, value, number)
    return number


def _kind(name: str) -> str:
    """Of the values of a column."""
    return "float" if name == renames.STANDARD_ERROR else COLUMNS[name]


def _text(name: str, text: str) -> str:
    choices = CHOICES.get(name)
    if choices and text not in choices:
        way_out = f"use one of {', '.join(choices)}"
        raise InputError(name, text, f"is no {name} of the schema", way_out)
    if name == "measured_at":
        return utc(text)
    return text


def _boolean(name: str, value: object) -> bool:
    word = str(value).strip().lower()
    if word not in BOOLEANS:
        raise InputError(name, value, "must be true or false", CORRECT)
    return BOOLEANS[word]


def _number(name: str, value: object) -> int | float:
    """A finite number; a whole one that fits 64 bits where the column has whole numbers."""
    text = str(value)
    if "_" in text:
        # Python reads 1_000 as a number, tables don't mean one
        raise InputError(name, value, "must be a number", CORRECT)
    is_whole_column = _kind(name) == "int"
    try:
        # a large whole number must not lose digits on the way through a float
        is_digits = type(value) is int or text.isdecimal()
        number = int(text) if is_whole_column and is_digits else float(text)
        finite = isfinite(number)
    except OverflowError:
        finite = False
    except ValueError:
        raise InputError(name, value, "must be a number", CORRECT) from None
    if not finite:
        raise InputError(name, value, "must be finite", LEAVE_EMPTY)
    if not is_whole_column:
        return float(number)
    if number != int(number) or abs(number) >= 2**63:
        raise InputError(name, value, "must be a whole number", CORRECT)
    return int(number)


def _check_bounds(name: str, value: object, number: int | float) -> None:
    """Gemm checks its own columns."""
    if name in GEMM_COLUMNS or name in SIGNED:
        return
    way_out = f"{CORRECT}; {LEAVE_EMPTY}"
    if name in POSITIVE and number <= 0:
        raise InputError(name, value, "must be above 0", way_out)
    if number < 0:
        raise InputError(name, value, "must not be negative", way_out)
    if name in SHARES and number > 1:
        raise InputError(name, value, "is a share, from 0 to 1", "write 75 % as 0.75")
