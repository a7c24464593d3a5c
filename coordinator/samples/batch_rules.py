"""What a batch of samples may look like, whoever sent it: its form, and what each row may say.

    form     an Arrow table with exactly the columns of SCHEMA, not too long, not too large
    numbers  finite, and between the limits of their column
    text     no longer than its column may be, a status and a time of the schema
    speed    a row that is ok has a runtime that some device could reach

Every rule looks at all rows at once: a coordinator takes 30,000 rows a second. A bad form costs the
batch, a bad value its row. Does not know who sent it, nor which cells it should hold.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from math import inf
from typing import Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from gemmcast.arrow import SCHEMA, from_bytes
from gemmcast.errors import InputError
from gemmcast.sample import COLUMNS, REQUIRED, SCHEMA_VERSION, STATUSES

BATCH_ROWS: Final = 5_000
"""An agent sends 500 at most (agent/actor.py)."""
BATCH_BYTES: Final = 16 * 2**20
"""Of 500 rows with whole compiler messages as their reason."""
SENT_BYTES: Final = 2 * BATCH_BYTES
"""Of a whole batch: what has more is not even opened."""
LONGEST_TEXT: Final = {"reason": 2**14, "kernel": 1_024}
LONGEST_OTHER_TEXT: Final = 256
"""Of every other column with text. [bytes]"""
FASTEST_TFLOPS: Final = 1e5
"""Far beyond every device. A runtime of 0 or in another unit is faster."""
LARGEST: Final = 1e15
"""Of every number that has no limits of its own: a petabyte, 30 years in microseconds."""
LONGEST_US: Final = 1e10
"""Nearly three hours: far beyond every limit of a cell."""
LIMITS: Final[dict[str, tuple[float, float]]] = {
    "alpha": (-inf, inf),
    "beta": (-inf, inf),
    "runtime_us": (1e-3, LONGEST_US),
    "sustained_runtime_us": (1e-3, LONGEST_US),
    "energy_mj": (0.0, 1e12),
    "window_s": (0.0, 1e5),
    "power_w": (0.0, 1e5),
    "power_instant_w": (0.0, 1e5),
    "power_limit_w": (0.0, 1e5),
    "idle_power_w": (0.0, 1e5),
    "temperature_c": (-100.0, 300.0),
    "occupancy": (0.0, 1.0),
    "clock_mhz": (0.0, 1e5),
    "clock_start_mhz": (0.0, 1e5),
    "clock_max_mhz": (0.0, 1e5),
    "sustained_clock_mhz": (0.0, 1e5),
    "throttle_reasons": (-inf, inf),
    "schema_version": (1.0, SCHEMA_VERSION),
}
"""Lowest and highest value; of the other numbers 0 and LARGEST."""
SAME_VERSION: Final = "give all nodes the same version of gemmcast"
LOOK: Final = "look at the agent's node"

Flags = npt.NDArray[np.bool_]
"""[n_rows]: which rows break a rule."""
Numbers = npt.NDArray[np.float64]
"""[n_rows, n_numbers]: all columns with numbers."""


@dataclass(frozen=True, slots=True)
class Broken:
    """A rule that rows of a batch break."""

    rows: Flags
    error: InputError
    """Of the first of them."""


def received(sent: object) -> object:
    """The table that an agent has sent as bytes; what is none stays what it is, to be refused."""
    if not isinstance(sent, bytes) or len(sent) > SENT_BYTES:
        return sent
    try:
        return from_bytes(sent)
    except (pa.ArrowException, OSError, ValueError):
        return sent


def checked_form(batch: object) -> pa.RecordBatch:
    """What an agent has sent, as one record batch of SCHEMA.

    Raises:
        InputError: it is something else, or larger than any batch of an agent.
    """
    if not isinstance(batch, pa.Table):
        raise InputError("batch", type(batch).__name__, "is no table of samples", SAME_VERSION)
    if len(batch) > BATCH_ROWS:
        raise InputError("rows", len(batch), f"a batch has up to {BATCH_ROWS}", LOOK)
    if not batch.schema.equals(SCHEMA):
        raise _other_schema(batch.schema)
    try:
        # Offsets that lead out of a buffer would end this process.
        batch.validate(full=True)
    except pa.ArrowInvalid as error:
        rule = f"is damaged ({str(error).splitlines()[0][:200]})"
        raise InputError("batch", len(batch), rule, LOOK) from None
    return _one_batch(batch)


def joined(batches: Sequence[pa.RecordBatch]) -> pa.RecordBatch:
    """The rows of batches that `checked_form` gave, one after the other."""
    return _one_batch(pa.Table.from_batches(batches, SCHEMA))


def broken_rows(rows: pa.RecordBatch) -> Iterator[Broken]:
    """The rules that rows break, each with its rows.

    Args:
        rows: with the columns of SCHEMA, as `checked_form` gives them.

    Raises:
        InputError: a null where none may be, or more text than any batch of an agent has.
    """
    for place in _FLAGS:
        _checked_nulls(rows, place)
    # numbers[n_rows, n_numbers]; a null is NaN, which is beyond no limit.
    numbers = rows.select(_NUMBERS).to_tensor(null_to_nan=True).to_numpy()
    yield from _broken_numbers(rows, numbers)
    yield from _broken_speeds(rows, numbers)
    yield from _broken_texts(rows)
    yield from _broken_words(rows)


def _broken_numbers(rows: pa.RecordBatch, numbers: Numbers) -> Iterator[Broken]:
    is_broken = (numbers < _LOWEST) | (numbers > _HIGHEST)
    is_nan = np.isnan(numbers)
    counts = is_nan.sum(axis=0)
    for index in np.flatnonzero(counts):
        column = _checked_nulls(rows, _NUMBERS[index])
        if column.null_count < counts[index]:
            is_broken[:, index] |= is_nan[:, index] & column.is_valid().to_numpy(False)
    for index in np.flatnonzero(is_broken.any(axis=0)):
        rule = f"must be a finite number from {_LOWEST[index]:g} to {_HIGHEST[index]:g}"
        yield _broken(rows, _NUMBERS[index], is_broken[:, index], rule)


def _broken_speeds(rows: pa.RecordBatch, numbers: Numbers) -> Iterator[Broken]:
    """Rows that are ok without a runtime, or with one that nothing reaches."""
    flops = 2.0 * numbers[:, _SHAPE].prod(axis=1)
    is_possible = flops <= FASTEST_TFLOPS * 1e6 * numbers[:, _RUNTIME]
    if is_possible.all():
        return
    is_ok = pc.equal(rows.column("status"), "ok").to_numpy(False)
    is_broken = is_ok & ~is_possible
    if is_broken.any():
        rule = f"is missing in a row that is ok, or faster than {FASTEST_TFLOPS:,.0f} TFLOP/s"
        yield _broken(rows, _PLACES["runtime_us"], is_broken, rule)


def _broken_texts(rows: pa.RecordBatch) -> Iterator[Broken]:
    joined = pa.concat_arrays([rows.column(place) for place in _TEXTS])
    # lengths[n_texts, n_rows]
    lengths = pc.binary_length(joined).fill_null(0).to_numpy(False).reshape(len(_TEXTS), -1)
    if joined.null_count:
        for place in _TEXTS:
            _checked_nulls(rows, place)
    total = int(lengths.sum())
    if total > BATCH_BYTES:
        raise InputError("bytes", total, f"a batch has up to {BATCH_BYTES} of text", LOOK)
    is_long = lengths > _LENGTHS
    if not is_long.any():
        return
    for index in np.flatnonzero(is_long.any(axis=1)):
        rule = f"is longer than {_LENGTHS[index, 0]} bytes"
        yield _broken(rows, _TEXTS[index], is_long[index], rule)


def _checked_nulls(rows: pa.RecordBatch, place: int) -> pa.Array:
    """A column that may have nulls. Raises InputError where none may be."""
    column = rows.column(place)
    name = _NAMES[place]
    if column.null_count and name in REQUIRED:
        raise InputError("column", name, "has nulls in it", LOOK)
    return column


def _broken_words(rows: pa.RecordBatch) -> Iterator[Broken]:
    status, measured_at = rows.column("status"), rows.column("measured_at")
    statuses = status.to_pylist()
    if not STATUSES.keys() >= set(statuses):
        is_unknown = np.array([one not in STATUSES for one in statuses])
        yield _broken(rows, _PLACES["status"], is_unknown, "is no status of the schema")
    are_times = list(map(_is_time, measured_at.to_pylist()))
    if not all(are_times):
        rule = "is no time of ISO 8601 with a zone"
        yield _broken(rows, _PLACES["measured_at"], ~np.array(are_times), rule)


def _is_time(text: str) -> bool:
    """Whether it names a moment in any time zone."""
    try:
        return datetime.fromisoformat(text).tzinfo is not None
    except ValueError:
        return False


def _broken(rows: pa.RecordBatch, place: int, is_broken: Flags, rule: str) -> Broken:
    first = int(is_broken.argmax())
    value = rows.column(place)[first].as_py()
    return Broken(is_broken, InputError(_NAMES[place], value, rule, LOOK))


def _other_schema(schema: pa.Schema) -> InputError:
    for field in SCHEMA:
        place = schema.get_field_index(field.name)
        if place < 0:
            return InputError("column", field.name, "the batch has it not, or twice", SAME_VERSION)
        if not schema.field(place).equals(field):
            is_of = f"must be {field.type}{'' if field.nullable else ' and never null'}"
            return InputError(field.name, str(schema.field(place).type), is_of, SAME_VERSION)
    rule = f"must be those of SCHEMA, {len(SCHEMA)} in their order"
    return InputError("columns", len(schema), rule, SAME_VERSION)


def _one_batch(table: pa.Table) -> pa.RecordBatch:
    batches = table.to_batches()
    if len(batches) == 1:
        return batches[0]
    combined = table.combine_chunks().to_batches()
    return combined[0] if combined else pa.RecordBatch.from_pylist([], schema=SCHEMA)


def _places(kind: str) -> list[int]:
    """Of all columns of a kind, in SCHEMA."""
    return [place for place, name in enumerate(_NAMES) if COLUMNS[name] == kind]


_NAMES: Final = SCHEMA.names


def _limits(place: int) -> tuple[float, float]:
    return LIMITS.get(_NAMES[place], (0.0, LARGEST))


_PLACES: Final = {name: place for place, name in enumerate(_NAMES)}
_NUMBERS: Final = [*_places("float"), *_places("int")]
_LIMITS: Final = np.array(list(map(_limits, _NUMBERS)))
_LOWEST: Final = _LIMITS[:, 0]
_HIGHEST: Final = _LIMITS[:, 1]
"""[n_numbers]"""
_SHAPE: Final = [_NUMBERS.index(_PLACES[name]) for name in ("m", "n", "k", "batch")]
_RUNTIME: Final = _NUMBERS.index(_PLACES["runtime_us"])
_FLAGS: Final = _places("bool")
_TEXTS: Final = _places("str")
_LENGTHS: Final = np.array(
    [[LONGEST_TEXT.get(_NAMES[place], LONGEST_OTHER_TEXT)] for place in _TEXTS]
)
"""[n_texts, 1]"""
