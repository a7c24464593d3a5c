"""Data files of a sample store: Parquet, each named by the SHA-256 of its bytes.

Whoever reads a file compares it with its name, so a flipped bit never becomes a value. Files that
older programs or Delta Lake itself wrote have no such name and are read as they are.
Does not know the log.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from typing import Final

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from coordinator.samples.answers import COLUMNS, Answers
from coordinator.samples.place import StorePlace
from gemmcast.arrow import SCHEMA, conform
from gemmcast.sample import SCHEMA_VERSION

_NAME: Final = re.compile(r"samples-([0-9a-f]{64})\.parquet")
_DELTA_PREFIX: Final = "part-"
"""Of the files that Delta Lake itself writes, as programs before this one let it."""


class DamagedFileError(Exception):
    """A data file that is missing, short, or has a flipped bit."""


def encoded(rows: pa.Table) -> tuple[str, bytes]:
    """Name and bytes of a data file with these rows."""
    sink = pa.BufferOutputStream()
    pq.write_table(rows, sink)
    data = sink.getvalue().to_pybytes()
    return f"samples-{hashlib.sha256(data).hexdigest()}.parquet", data


def read_file(place: StorePlace, name: str) -> pa.Table:
    """The rows of a data file, with the columns of SCHEMA.

    Raises:
        DamagedFileError: it is not what was written.
        InputError: it has columns that the schema does not have.
        UnavailableError: the store does not answer.
    """
    data = _verified(place, name)
    try:
        rows = pq.read_table(pa.BufferReader(data))
    except (pa.ArrowException, OSError) as error:
        raise DamagedFileError(str(error)) from None
    return conform(rows, f"{place.shown}/{name}")


def read_answers(place: StorePlace, names: Sequence[str]) -> tuple[Answers, list[str]]:
    """What the rows of all files that are whole say, and the names of the other files.

    Takes the memory of one file at a time.
    """
    answers = Answers()
    damaged = []
    for name in names:
        try:
            answers.add(_answer_columns(place, name))
        except DamagedFileError:
            damaged.append(name)
    return answers, damaged


def read_files(place: StorePlace, names: Sequence[str]) -> tuple[pa.Table, list[str]]:
    """The rows of all files that are whole, and the names of the others."""
    tables = [SCHEMA.empty_table()]
    damaged = []
    for name in names:
        try:
            tables.append(read_file(place, name))
        except DamagedFileError:
            damaged.append(name)
    return pa.concat_tables(tables), damaged


def is_data_file(name: str) -> bool:
    """Whether a file of this name was part of a table, now or earlier."""
    return name.startswith(_DELTA_PREFIX) or _NAME.fullmatch(name) is not None


def _answer_columns(place: StorePlace, name: str) -> pa.Table:
    """The columns of a data file that `Answers` reads; see `read_file`."""
    if not _NAME.fullmatch(name):
        return read_file(place, name)
    data = pa.BufferReader(_verified(place, name))
    try:
        file = pq.ParquetFile(data)
        if not file.schema_arrow.equals(SCHEMA):
            return read_file(place, name)
        rows = file.read(columns=[*COLUMNS, "schema_version"])
    except (pa.ArrowException, OSError) as error:
        raise DamagedFileError(str(error)) from None
    is_current = pc.all(pc.equal(rows["schema_version"], SCHEMA_VERSION)).as_py()
    # In older rows the status depends on other columns.
    return rows if is_current else read_file(place, name)


def _verified(place: StorePlace, name: str) -> bytes:
    try:
        data = place.read(name)
    except FileNotFoundError:
        raise DamagedFileError("missing") from None
    named = _NAME.fullmatch(name)
    if named and hashlib.sha256(data).hexdigest() != named[1]:
        raise DamagedFileError("its bytes have changed")
    return data
