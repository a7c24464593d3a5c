"""Tuned tables as JSON: written in one canonical form, read strictly.

Equal tables have equal bytes: entries are sorted, and a knob that is 0 is left out. Reading refuses
what it does not know, so that a misspelt or newer key is not taken for a default. docs/tables.md
has the format. Does not know what a table is for.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import MISSING, asdict, fields
from typing import Any, Final, NoReturn, TypeVar

from gemmcast.config import KernelConfig
from gemmcast.errors import InputError
from gemmcast.gemm import Gemm
from gemmcast.table_key import TableKey
from gemmcast.tuned_entry import Cost, TunedEntry

FORMAT: Final = "gemmcast tuned table"
SCHEMA_VERSION: Final = 1
MAX_BYTES: Final = 64 * 2**20
"""Of a file: larger ones are refused before they are read."""
MAX_ENTRIES: Final = 50_000
Values = dict[str, Any]
"""A JSON object."""
T = TypeVar("T")

_TOP: Final = ("format", "schema_version", "key", "entries")
_NESTED: Final[dict[str, type]] = {
    "gemm": Gemm,
    "default": KernelConfig,
    "winner": KernelConfig,
    "default_measured": Cost,
    "winner_measured": Cost,
    "default_predicted": Cost,
    "winner_predicted": Cost,
}
"""Fields of an entry that are objects themselves."""
_ANOTHER: Final = "name a table that `python -m coordinator tune` wrote"


def values_of(key: TableKey, entries: Iterable[TunedEntry]) -> Values:
    """A table as JSON values."""
    head = {"format": FORMAT, "schema_version": SCHEMA_VERSION, "key": asdict(key)}
    return {**head, "entries": [entry_values(entry) for entry in entries]}


def to_json(key: TableKey, entries: Iterable[TunedEntry]) -> str:
    """Indented JSON, one line for each entry."""
    head = values_of(key, entries)
    lines = [json.dumps(entry) for entry in head.pop("entries")]
    opened = json.dumps(head, indent=1).removesuffix("\n}")
    listed = ",\n  ".join(lines)
    return f'{opened},\n "entries": [\n  {listed}\n ]\n}}\n'


def from_json(text: str | bytes, source: str) -> tuple[TableKey, list[TunedEntry]]:
    """The inverse of `to_json`.

    Args:
        source: the file, for messages.

    Raises:
        InputError: too large, no JSON, no tuned table, of a newer schema, or a value that is wrong.
    """
    if len(text) > MAX_BYTES:
        raise too_large(source, len(text))
    values = _object(_parsed(text, source), source)
    check_schema(values.get("format"), values.get("schema_version"), source)
    _check_names(values, _TOP, _TOP, source)
    key = read_key(values["key"], source)
    return key, read_entries(values["entries"], source)


def check_schema(format_: object, version: object, source: str) -> None:
    """Refuse another format, and a schema that this version does not know."""
    if format_ != FORMAT:
        raise InputError("format", format_, f"{source} is no tuned table", _ANOTHER)
    if type(version) is not int or version < 1:
        rule = f"{source}: must be a whole number from 1"
        raise InputError("schema_version", version, rule, _ANOTHER)
    if version > SCHEMA_VERSION:
        rule = f"{source} is of a newer schema; this gemmcast reads {SCHEMA_VERSION}"
        way_out = "use the gemmcast that wrote it, or a newer one"
        raise InputError("schema_version", version, rule, way_out)


def entry_values(entry: TunedEntry) -> Values:
    """An entry as JSON values, without what is unknown."""
    values = asdict(entry)
    for name in _NESTED:
        if name != "gemm":
            values[name] = {knob: value for knob, value in values[name].items() if value}
    return values


def read_key(values: object, source: str) -> TableKey:
    """The key of a table from its JSON values. Raises InputError."""
    return _made(TableKey, values, f"{source}, key")


def read_entries(values: object, source: str) -> list[TunedEntry]:
    """The entries of a table from their JSON values. Raises InputError."""
    if not isinstance(values, list):
        raise InputError("entries", values, f"{source}: must be a list", _ANOTHER)
    if len(values) > MAX_ENTRIES:
        rule = f"{source} has more than {MAX_ENTRIES} entries"
        raise InputError("entries", len(values), rule, "split the table by layers")
    return [_entry(one, f"{source}, entry {place}") for place, one in enumerate(values, 1)]


def too_large(source: str, size: int) -> InputError:
    """The error for a file that is not read."""
    rule = f"{source} is larger than {MAX_BYTES} bytes"
    return InputError("size", size, rule, "split the table by layers")


def _entry(values: object, source: str) -> TunedEntry:
    made = dict(_object(values, source))
    for name, kind in _NESTED.items():
        if name in made:
            made[name] = _made(kind, made[name], f"{source}, {name}")
    return _made(TunedEntry, made, source)


def _made(kind: type[T], values: object, source: str) -> T:
    """A frozen dataclass of JSON values; its own checks say which entry they refuse."""
    given = _object(values, source)
    every = fields(kind)  # type: ignore[arg-type]
    needed = [f.name for f in every if f.default is MISSING and f.default_factory is MISSING]
    _check_names(given, needed, [f.name for f in every], source)
    try:
        return kind(**given)
    except InputError as error:
        rule = f"{error.rule} ({source})"
        raise InputError(error.field, error.value, rule, error.way_out) from None


def _check_names(
    values: Mapping[str, object], needed: Sequence[str], known: Sequence[str], source: str
) -> None:
    for name in values:
        if name not in known:
            rule = f"{source}: unknown name"
            raise InputError("name", name, rule, f"known are {', '.join(known)}")
    for name in needed:
        if name not in values:
            raise InputError("name", name, f"{source}: is missing", _ANOTHER)


def _object(values: object, source: str) -> Values:
    if not isinstance(values, dict):
        raise InputError("table", values, f"{source}: must be a JSON object", _ANOTHER)
    return values


def _parsed(text: str | bytes, source: str) -> object:
    try:
        return json.loads(text, parse_constant=_refuse, object_pairs_hook=_unique)
    # ValueError: no JSON, or no UTF-8. RecursionError: thousands of brackets.
    except (ValueError, RecursionError) as error:
        raise InputError("table", source, f"is no tuned table ({error})", _ANOTHER) from None


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is no JSON number")


def _unique(pairs: list[tuple[str, object]]) -> Values:
    values = dict(pairs)
    if len(values) < len(pairs):
        raise ValueError("a name stands twice in one object")
    return values
