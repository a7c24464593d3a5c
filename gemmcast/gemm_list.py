"""Lists of GEMMs: what a user wants tuned or predicted, each with how much it counts.

A file is CSV with a header, or JSON: a list of objects, alone or under the key `gemms`. Only m, n
and k are required. A GEMM that stands there twice is listed once, with the sum of the weights.
Does not know where a list comes from: gemmcast/language_models.py makes one from a model.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from gemmcast.config import TRITON_KERNELS
from gemmcast.errors import InputError
from gemmcast.gemm import Gemm

_SIZES: Final = ("m", "n", "k", "batch")
_NUMBERS: Final = ("alpha", "beta", "weight")
_WORDS: Final = ("dtype", "layout", "name", "kernel")
COLUMNS: Final = (*_SIZES, "dtype", "layout", "weight", "name", "kernel", "alpha", "beta")
"""What a file may have; m, n and k are required."""
MAX_WEIGHT: Final = 1e15
"""Launches of one GEMM at most: sums over a list stay numbers."""
KERNELS: Final = ("", *TRITON_KERNELS)
"""Values of `ListedGemm.kernel`."""
_REQUIRED: Final = ("m", "n", "k")
_LISTING: Final = ("weight", "name", "kernel")
_MAX_DIGITS: Final = 8
_NAMES_SHOWN: Final = 3
_WAY_OUT: Final = f"columns are {', '.join(COLUMNS)}"

_Row = tuple[str, Mapping[str, object]]
"""Where it stands, in words; its values."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ListedGemm:
    """One GEMM of a list."""

    gemm: Gemm
    """The problem."""
    weight: float = 1.0
    """How much it counts: launches in whatever the list stands for. Above 0, at most MAX_WEIGHT."""
    name: str = ""
    """What it is for; free text, may be empty."""
    kernel: str = ""
    """The Triton kernel that computes what is meant: `grouped` for a mixture of experts,
    `scaled_block` for fp8 with block scales; empty for a plain GEMM. Other families compute
    the same shape without scales, and with as many rows for each expert."""

    def __post_init__(self) -> None:
        if not 0 < self.weight <= MAX_WEIGHT:
            rule = f"must be a number above 0, at most {MAX_WEIGHT:g}"
            raise InputError("weight", self.weight, rule, "leave a GEMM that does not count out")
        if self.kernel not in KERNELS:
            way_out = f"use one of {', '.join(TRITON_KERNELS)}, or leave it out"
            raise InputError("kernel", self.kernel, "unknown kernel", way_out)

    def __str__(self) -> str:
        return f"{self.name}: {self.gemm}" if self.name else str(self.gemm)


def read_gemms(path: Path | str, *, dtype: str = "fp32", layout: str = "nn") -> list[ListedGemm]:
    """The GEMMs of a CSV or JSON file, in its order, each once.

    Args:
        path: the file; its content says which of the two it is.
        dtype: what a GEMM without one has.
        layout: the same.

    Raises:
        InputError: the file can't be read, is empty, or breaks a rule; with the line and field.
    """
    path = Path(path)
    text = _text(path)
    is_json = text.lstrip().startswith(("[", "{"))
    rows = _json_rows(path, text) if is_json else _csv_rows(path, text)
    absent = {"dtype": dtype, "layout": layout}
    listed = [_listed(place, {**absent, **values}) for place, values in rows]
    if not listed:
        raise InputError("gemms", str(path), "has no GEMM", "give one line to each")
    return summed(listed)


def summed(gemms: Iterable[ListedGemm]) -> list[ListedGemm]:
    """Each GEMM once, in the order of first appearance: weights added, names joined."""
    groups: dict[tuple[Gemm, str], list[ListedGemm]] = {}
    for listed in gemms:
        groups.setdefault((listed.gemm, listed.kernel), []).append(listed)
    return [_sum(group) for group in groups.values()]


def _sum(group: list[ListedGemm]) -> ListedGemm:
    weight = sum(listed.weight for listed in group)
    names = list(dict.fromkeys(listed.name for listed in group if listed.name))
    name = " + ".join(names[:_NAMES_SHOWN])
    if len(names) > _NAMES_SHOWN:
        name += f" + {len(names) - _NAMES_SHOWN} more"
    return replace(group[0], weight=weight, name=name)


def _text(path: Path) -> str:
    way_out = "name a CSV or JSON file of GEMMs"
    try:
        # A spreadsheet's CSV starts with a byte order mark.
        return path.read_text(encoding="utf-8-sig")
    except OSError as error:
        rule = f"can't be read ({error.strerror})"
    except UnicodeDecodeError:
        rule = "is no text in UTF-8"
    raise InputError("gemms", str(path), rule, way_out)


def _csv_rows(path: Path, text: str) -> Iterator[_Row]:
    lines = csv.reader(text.splitlines(keepends=True), strict=True, skipinitialspace=True)
    header: list[str] = []
    try:
        for cells in lines:
            words = [cell.strip() for cell in cells]
            if not any(words):
                continue
            place = f"{path.name}, line {lines.line_num}"
            if not header:
                header = words
                _check_header(place, header)
                continue
            yield place, _csv_values(place, header, words)
    except csv.Error as error:
        rule = f"no CSV (line {lines.line_num}: {error})"
        raise InputError("gemms", str(path), rule, "correct the line") from None


def _check_header(place: str, header: list[str]) -> None:
    _check_columns(place, header)
    for column in header:
        if header.count(column) > 1:
            raise InputError(place, column, "a column stands there twice", "leave one out")


def _check_columns(place: str, columns: Iterable[str]) -> None:
    present = list(columns)
    for column in present:
        if column not in COLUMNS:
            raise InputError(place, column, "unknown column", _WAY_OUT)
    for column in _REQUIRED:
        if column not in present:
            rule = f"has no {column}"
            raise InputError(place, ",".join(present), rule, "m, n and k are required")


def _csv_values(place: str, header: list[str], words: list[str]) -> dict[str, object]:
    """The cells that are not empty, as numbers where the column has numbers."""
    if len(words) > len(header):
        rule = f"has {len(words)} cells under {len(header)} columns"
        raise InputError(place, ",".join(words), rule, "separate them by one comma each")
    cells = dict(zip(header, words, strict=False))
    filled = {column: word for column, word in cells.items() if word}
    return {column: _number(column, word) for column, word in filled.items()}


def _number(column: str, word: str) -> object:
    """The number that a cell says; the word itself where it says none, which is refused later."""
    if column in _SIZES and word.isdecimal() and len(word) <= _MAX_DIGITS:
        return int(word)
    if column not in _NUMBERS:
        return word
    try:
        return float(word)
    except ValueError:
        return word


def _json_rows(path: Path, text: str) -> Iterator[_Row]:
    try:
        values = json.loads(text, object_pairs_hook=_unique_keys)
    except (ValueError, RecursionError) as error:
        rule = f"no JSON ({error})"
        raise InputError("gemms", str(path), rule, "correct the file") from None
    rows = values.get("gemms") if isinstance(values, dict) else values
    if not isinstance(rows, list):
        way_out = "write a list of objects, alone or under the key gemms"
        raise InputError("gemms", str(path), "no list of GEMMs", way_out)
    for number, row in enumerate(rows, 1):
        place = f"{path.name}, GEMM {number}"
        if not isinstance(row, dict):
            raise InputError(place, row, "must be an object", _WAY_OUT)
        present = {column: value for column, value in row.items() if value is not None}
        _check_columns(place, present)
        yield place, present


def _unique_keys(pairs: list[tuple[str, object]]) -> dict[str, object]:
    values = dict(pairs)
    if len(values) < len(pairs):
        keys = [key for key, _ in pairs]
        raise ValueError(f"a key stands twice in one object: {', '.join(keys)}")
    return values


def _listed(place: str, values: Mapping[str, object]) -> ListedGemm:
    """One row as a GEMM; errors say where it stands."""
    for column in _REQUIRED:
        if column not in values:
            raise InputError(f"{place}, {column}", "", "is empty", "m, n and k are required")
    listing = {column: values[column] for column in _LISTING if column in values}
    problem = {column: value for column, value in values.items() if column not in listing}
    try:
        _check_types(values)
        gemm = Gemm(**problem)  # type: ignore[arg-type]
        return ListedGemm(gemm=gemm, **listing)  # type: ignore[arg-type]
    except InputError as error:
        field = f"{place}, {error.field}"
        raise InputError(field, error.value, error.rule, error.way_out) from None


def _check_types(values: Mapping[str, object]) -> None:
    """Sizes are left to Gemm, which says their limits."""
    for column, value in values.items():
        if column in _WORDS and not isinstance(value, str):
            raise InputError(column, value, "must be a text", "correct it")
        # True is a number, too.
        if column in _NUMBERS and (isinstance(value, bool) or not isinstance(value, int | float)):
            raise InputError(column, value, "must be a number", "correct it")
