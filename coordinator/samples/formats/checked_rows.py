"""What the reader of one format hands on: checked rows in the columns of the sample schema.

    error: m = 0: table.csv, row 3: must be a whole number from 1 to 16777216; correct the table

A value that breaks a rule ends the import, because the rest of such a table cannot be trusted
either. A row that is correct but has no equivalent here is left out and counted.
Column names, families and kernels of earlier schemas are accepted. Does not know devices.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass, field, fields
from datetime import UTC, datetime
from math import isfinite
from typing import Final

from costmodel.dataset import READINGS
from gemmcast import renames
from gemmcast.config import KernelConfig
from gemmcast.device import DEVICE_KINDS
from gemmcast.errors import InputError
from gemmcast.gemm import Gemm
from gemmcast.query import CACHES
from gemmcast.rows import Row
from gemmcast.sample import COLUMNS, SCHEMA_VERSION, STATUSES

GEMM_COLUMNS: Final = tuple(f.name for f in fields(Gemm))
CONFIG_COLUMNS: Final = tuple(f.name for f in fields(KernelConfig))
READABLE: Final = frozenset({*COLUMNS, *renames.COLUMNS, "threads"})
"""The names that a column of a file may have: those of the present schema and the earlier ones."""
NEEDED: Final = ("m", "n", "k", "dtype", "family")
"""What every row must have; a row that is ok needs a runtime too."""
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

    rows: list[Row] = field(default_factory=list)
    """In columns of the sample schema; columns that the file does not have are absent."""
    skipped: Counter[str] = field(default_factory=Counter)
    """Why rows were left out -> how many."""
    notes: list[str] = field(default_factory=list)
    """For the user, one line each."""


def checked(values: Row, place: str) -> Row:
    """A row with the types and bounds of the schema, GEMM and configuration complete.

    Args:
        values: by column, in the names of any schema; None or "" where a cell is empty.
        place: the file and the row, for messages.

    Raises:
        InputError: a value that is out of bounds, or one that is missing.
    """
    row: Row = {}
    for name, value in with_current_names(values).items():
        if value is not None and value != "":
            row[name] = _typed(name, value, place)
    needed = [*NEEDED]
    if row.get("status", "ok") == "ok":
        needed.append("runtime_us")
    for name in needed:
        if name not in row:
            rule = f"{place}: every sample needs it"
            way_out = "fill it in, or leave the row out"
            raise InputError(name, values.get(name), rule, way_out)
    gemm_values = {name: row[name] for name in GEMM_COLUMNS if name in row}
    config_values = {name: row[name] for name in CONFIG_COLUMNS if name in row}
    try:
        gemm = Gemm(**gemm_values)
        config = KernelConfig(**config_values)
    except InputError as error:
        rule = f"{place}: {error.rule}"
        raise InputError(error.field, error.value, rule, error.way_out) from None
    return {**row, **asdict(gemm), **asdict(config)}


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
    if "schema_version" in row and not values.keys() <= COLUMNS.keys():
        row["schema_version"] = SCHEMA_VERSION
    return row


def utc(text: str, place: str) -> str:
    """A time of ISO 8601 as UTC; one without a zone is taken as UTC."""
    try:
        moment = datetime.fromisoformat(text)
        if moment.tzinfo is None:
            moment = moment.replace(tzinfo=UTC)
        return moment.astimezone(UTC).isoformat(timespec="milliseconds")
    except (ValueError, OverflowError):
        rule = f"{place}: must be a time of ISO 8601"
        raise InputError(
            "measured_at", text, rule, "write it as 2026-01-31T12:00:00+00:00"
        ) from None


def _typed(name: str, value: object, place: str) -> str | bool | int | float:
    kind = COLUMNS[name]
    is_plain = not isinstance(value, dict | list)
    if not is_plain or (isinstance(value, bool) and kind != "bool"):
        expected = "text" if kind == "str" else "number"
        raise InputError(name, value, f"{place}: must be a {expected}", CORRECT)
    if kind == "str":
        return _text(name, str(value), place)
    if kind == "bool":
        return _boolean(name, value, place)
    number = _number(name, value, place)
    _check_sign(name, value, number, place)
    return number


def _text(name: str, text: str, place: str) -> str:
    choices = CHOICES.get(name)
    if choices and text not in choices:
        rule = f"{place}: is no {name} of the schema"
        way_out = f"use one of {', '.join(choices)}"
        raise InputError(name, text, rule, way_out)
    if name == "measured_at":
        return utc(text, place)
    return text


def _boolean(name: str, value: object, place: str) -> bool:
    word = str(value).strip().lower()
    if word not in BOOLEANS:
        raise InputError(name, value, f"{place}: must be true or false", CORRECT)
    return BOOLEANS[word]


def _number(name: str, value: object, place: str) -> int | float:
    """A finite number; a whole one that fits 64 bits where the column has whole numbers."""
    text = str(value)
    is_whole_column = COLUMNS[name] == "int"
    try:
        # a large whole number must not lose digits on the way through a float
        is_digits = type(value) is int or text.isdecimal()
        number = int(text) if is_whole_column and is_digits else float(text)
        finite = isfinite(number)
    except OverflowError:
        finite = False
    except ValueError:
        raise InputError(name, value, f"{place}: must be a number", CORRECT) from None
    if not finite:
        raise InputError(name, value, f"{place}: must be finite", LEAVE_EMPTY)
    if not is_whole_column:
        return float(number)
    if number != int(number) or abs(number) >= 2**63:
        raise InputError(name, value, f"{place}: must be a whole number", CORRECT)
    return int(number)


def _check_sign(name: str, value: object, number: int | float, place: str) -> None:
    """Gemm checks its own columns."""
    if name in GEMM_COLUMNS or name in SIGNED:
        return
    way_out = f"{CORRECT}; {LEAVE_EMPTY}"
    if name in POSITIVE and number <= 0:
        raise InputError(name, value, f"{place}: must be above 0", way_out)
    if number < 0:
        raise InputError(name, value, f"{place}: must not be negative", way_out)
