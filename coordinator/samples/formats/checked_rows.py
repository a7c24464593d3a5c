"""What a reader of one format hands on: rows in the columns of the sample schema, each checked, each with its place in the file.

    error: m = 0: table.csv, row 3: must be a whole number from 1 to 16777216; correct the table

A value that breaks a rule ends the import, because the rest of such a table can't be trusted either. A row that is right but has no
equivalent here is left out and counted. Knows nothing of devices.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass, field, fields
from datetime import UTC, datetime
from math import isfinite
from typing import Any, Final

from gemmcast.config import KernelConfig
from gemmcast.device import KINDS
from gemmcast.errors import InputError
from gemmcast.gemm import Gemm
from gemmcast.query import CACHES
from gemmcast.sample import COLUMNS, STATUSES

Row = dict[str, Any]
GEMM_COLUMNS: Final = tuple(f.name for f in fields(Gemm))
CONFIG_COLUMNS: Final = tuple(f.name for f in fields(KernelConfig))
NEEDED: Final = ("m", "n", "k", "dtype", "family")
# of every row; and a runtime, of those that are ok
POSITIVE: Final = ("runtime_us", "sustained_runtime_us", "power_w", "energy_mj", "launches_timed", "window_s")
SIGNED: Final = ("alpha", "beta", "temperature_c", "throttle_reasons")
CHOICES: Final = {"status": STATUSES, "cache": CACHES, "device_kind": KINDS}
WORDS: Final = {"true": True, "1": True, "false": False, "0": False}


@dataclass(frozen=True, slots=True, kw_only=True)
class ParsedRows:
    """The rows of one file."""

    rows: list[Row] = field(default_factory=list)
    # columns of the sample schema; those that are absent were not in the file
    skipped: Counter[str] = field(default_factory=Counter)
    # why rows were left out -> how many
    notes: list[str] = field(default_factory=list)
    # for the user, one line each


def checked(values: Row, place: str) -> Row:
    """A row with the types and bounds of the schema, without its empty cells; problem and configuration complete.

    Raises:
        InputError: a value that can't be, or a missing one that must be there; with the row's place in the file.
    """
    row = {name: _typed(name, value, place) for name, value in values.items() if value not in (None, "")}
    for name in (*NEEDED, *(["runtime_us"] if row.get("status", "ok") == "ok" else [])):
        if name not in row:
            raise InputError(name, values.get(name), f"{place}: every sample needs it", "fill it in, or leave the row out")
    try:
        gemm = Gemm(**{name: row[name] for name in GEMM_COLUMNS if name in row})
        config = KernelConfig(**{name: row[name] for name in CONFIG_COLUMNS if name in row})
    except InputError as error:
        raise InputError(error.field, error.value, f"{place}: {error.rule}", error.way_out) from None
    return {**row, **asdict(gemm), **asdict(config)}


def _typed(name: str, value: Any, place: str) -> Any:
    kind = COLUMNS[name]
    if isinstance(value, (dict, list)) or (isinstance(value, bool) and kind != "bool"):
        raise InputError(name, value, f"{place}: must be a {'text' if kind == 'str' else 'number'}", "correct the table")
    if kind == "str":
        return _text(name, value if isinstance(value, str) else str(value), place)
    if kind == "bool":
        if (word := str(value).strip().lower()) not in WORDS:
            raise InputError(name, value, f"{place}: must be true or false", "correct the table")
        return WORDS[word]
    try:
        number = int(value) if kind == "int" and (type(value) is int or str(value).isdecimal()) else float(value)
        finite = isfinite(number)
    except OverflowError:
        finite = False
    except (TypeError, ValueError):
        raise InputError(name, value, f"{place}: must be a number", "correct the table") from None
    if not finite:
        raise InputError(name, value, f"{place}: must be finite", "leave the cell empty where nothing was read")
    return _number(name, value, number, place)


def _number(name: str, value: Any, number: float, place: str) -> int | float:
    if COLUMNS[name] == "int":
        if number != int(number) or abs(number) >= 2**63:
            raise InputError(name, value, f"{place}: must be a whole number", "correct the table")
        number = int(number)
    if name not in (*GEMM_COLUMNS, *SIGNED) and (number < 0 or (number == 0 and name in POSITIVE)):
        rule = "must be above 0" if name in POSITIVE else "must not be negative"
        raise InputError(name, value, f"{place}: {rule}", "correct the table; leave the cell empty where nothing was read")
    return number if COLUMNS[name] == "int" else float(number)


def _text(name: str, text: str, place: str) -> str:
    if name in CHOICES and text not in CHOICES[name]:
        raise InputError(name, text, f"{place}: is no {name} that the schema knows", f"use one of {', '.join(CHOICES[name])}")
    if name == "measured_at":
        return utc(text, place)
    return text


def utc(text: str, place: str) -> str:
    """A time of ISO 8601 as UTC; one without a zone is taken as UTC."""
    try:
        moment = datetime.fromisoformat(text)
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).astimezone(UTC).isoformat(timespec="milliseconds")
    except (ValueError, OverflowError):
        raise InputError("measured_at", text, f"{place}: must be a time of ISO 8601", "write it as 2026-01-31T12:00:00+00:00") from None
