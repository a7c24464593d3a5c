"""What the boards of one type have read: one reading for each board and cell.

    name[n]     an array over these pairs; NaN where nothing was read

Repeats of a cell on one board are one reading, their median. Times are put at the highest clock and
at 50 °C, power at 50 °C, so that only what is left can be a fault:

    log_us = ln runtime + E ln(clock / highest clock) - TIME_PER_C (temperature - 50)

E, the elasticity, says how far a kind of cell follows the clock. The constants were fitted to cells
that two healthy boards have measured (benchmarks/health_curves.py). Does not judge.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Final, Self

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from gemmcast.config import KNOBS
from gemmcast.gemm import DTYPES

Numbers = npt.NDArray[np.float64]
"""[n]"""
Codes = npt.NDArray[np.int64]
"""[n]"""
Words = npt.NDArray[np.object_]
"""[n]"""
Mask = npt.NDArray[np.bool_]
"""[n]"""

KINDS: Final = ("compute", "memory", "small")
"""What bounds a cell: arithmetic, memory bandwidth, or what any kernel costs."""
ELASTICITY: Final = {"compute": 0.9, "memory": 0.35, "small": 0.45}
"""Kind of cell -> by how much its runtime follows the clock, as a power of it."""
TIME_PER_C: Final = 0.0003
"""A healthy board that is 18 °C warmer takes half a per cent longer at the same clock."""
POWER_PER_C: Final = 0.003
"""Leakage: 18 °C more are 5.5 % more power."""
USUAL_C: Final = 50.0
SMALL_US: Final = 5.0
"""A cell is small while its arithmetic and its traffic would each take less than this."""
READ: Final = ("ok", "throttled", "power_disputed")
"""Statuses of rows whose runtime was read."""
CELL: Final = (
    *("m", "n", "k", "batch", "dtype", "layout", "alpha", "beta"),
    *("family", "kernel", *KNOBS, "cache", "library"),
)
"""Columns in which the readings of one cell are equal on all boards. Another version of a library
may compute the same problem with another kernel."""
ALIKE: Final = ("family", "dtype", "cache", "library")
"""Columns in which cells of one kind are alike."""
CAPPED_SHARE: Final = 0.97
"""Older rows do not say whether the cap acted: a compute-bound kernel below this share of the
highest clock was capped."""


@dataclass(frozen=True, slots=True)
class Readings:
    """Boards of one type, in the order of their names and cells."""

    board: Words
    """UUID."""
    cell: Codes
    """Equal numbers for equal cells."""
    alike: Codes
    """Equal numbers for cells of one kind, family, dtype, cache and library."""
    kind: Words
    """One of KINDS."""
    log_us: Numbers
    """Of the runtime, at the usual clock and temperature."""
    raw_log_us: Numbers
    """The same as it was read."""
    log_mhz: Numbers
    """Of the clock."""
    log_w: Numbers
    """Of the power, at the usual temperature."""
    temperature_c: Numbers
    is_capped: Numbers
    """1 where the power cap acted."""
    row: Codes
    """A row of the table with this board and cell."""

    def __len__(self) -> int:
        return len(self.board)

    def where(self, mask: Mask) -> Self:
        """Only some of them."""
        return type(self)(*(getattr(self, field.name)[mask] for field in fields(self)))


def readings_of(table: pa.Table) -> Readings:
    """The readings of a table whose rows are of one type of device, in the sample schema."""
    is_read = pc.is_in(table["status"], pa.array(READ))
    is_read = pc.and_(is_read, pc.is_valid(table["runtime_us"]))
    rows = np.flatnonzero(column(is_read))
    table = table.take(pa.array(rows))
    kinds = kinds_of(table)
    cells = codes([table[name] for name in CELL])
    alike = codes([pa.array(kinds), *(table[name] for name in ALIKE)])
    pairs = codes([table["device_uuid"], pa.array(cells)])
    _, first = np.unique(pairs, return_index=True)
    return Readings(
        board=column(table["device_uuid"])[first],
        cell=cells[first],
        alike=alike[first],
        kind=kinds[first],
        row=rows[first],
        **_merged(_values(table, kinds), pairs),
    )


def _values(table: pa.Table, kinds: Words) -> dict[str, Numbers]:
    """Field of Readings -> [n_rows]."""
    raw_log_us = np.log(numbers(table["runtime_us"]))
    temperature_c = numbers(table["temperature_c"])
    warmer_c = np.nan_to_num(temperature_c - USUAL_C)
    at_clock = raw_log_us + _at_usual_clock(table, kinds)
    return {
        "log_us": at_clock - TIME_PER_C * warmer_c,
        "raw_log_us": raw_log_us,
        "log_mhz": np.log(numbers(table["clock_mhz"])),
        "log_w": np.log(numbers(table["power_w"])) - POWER_PER_C * warmer_c,
        "temperature_c": temperature_c,
        "is_capped": _capped(table, kinds),
    }


def _merged(values: Mapping[str, Numbers], pairs: Codes) -> dict[str, Numbers]:
    """Repeats of a cell on one board as one reading."""
    count = int(pairs.max(initial=-1)) + 1
    merged: dict[str, Numbers] = {}
    for name, readings in values.items():
        merged[name] = medians(pairs, readings, count)
    return merged


def kinds_of(table: pa.Table) -> Words:
    """[n_rows] what bounds each row, by the descriptors of its type: medians over all rows."""
    gemm = {name: numbers(table[name]) for name in ("m", "n", "k", "batch")}
    dtypes = column(table["dtype"])
    products = gemm["m"] * gemm["n"] * gemm["k"] * gemm["batch"]
    compute_us = 2e-6 * products / _usual_peaks(table, dtypes)
    moved = _bytes(gemm, dtypes)
    memory_us = 1e-3 * moved / _usual(numbers(table["dram_gbps"]))
    longest_us = np.fmax(compute_us, memory_us)
    bound = np.where(memory_us > compute_us, "memory", "compute")
    return np.where(longest_us < SMALL_US, "small", bound).astype(object)


def _usual_peaks(table: pa.Table, dtypes: Words) -> Numbers:
    """[n_rows] the median peak of each row's dtype."""
    peaks = numbers(table["peak_tflops"])
    usual = np.full(len(peaks), np.nan)
    for dtype in set(dtypes.tolist()):
        rows = dtypes == dtype
        usual[rows] = _usual(peaks[rows])
    return usual


def _bytes(gemm: Mapping[str, Numbers], dtypes: Words) -> Numbers:
    """[n_rows] of A, B and C, each once."""
    stored = np.array([DTYPES[dtype].in_bytes for dtype in dtypes], dtype=np.float64)
    result = np.array([DTYPES[dtype].out_bytes for dtype in dtypes], dtype=np.float64)
    operands = gemm["m"] * gemm["k"] + gemm["k"] * gemm["n"]
    return gemm["batch"] * (operands * stored + gemm["m"] * gemm["n"] * result)


def _usual(values: Numbers) -> float:
    """The median of those that are positive; NaN where none is."""
    known = values[values > 0]
    return float(np.median(known)) if len(known) else float("nan")


def _at_usual_clock(table: pa.Table, kinds: Words) -> Numbers:
    """[n_rows] what the logarithm of a runtime gains at the highest clock; 0 where no clock is."""
    share = numbers(table["clock_mhz"]) / numbers(table["clock_max_mhz"])
    elasticity = np.array([ELASTICITY[kind] for kind in kinds], dtype=np.float64)
    return np.nan_to_num(elasticity * np.log(share))


def _capped(table: pa.Table, kinds: Words) -> Numbers:
    said = numbers(pc.cast(table["capped"], pa.float64()))
    share = numbers(table["clock_mhz"]) / numbers(table["clock_max_mhz"])
    guessed = (kinds == "compute") & (share < CAPPED_SHARE)
    return np.where(np.isnan(said), guessed, said)


def medians(groups: Codes, values: Numbers, count: int) -> Numbers:
    """[count] the median of each group's values that are numbers; NaN where none is."""
    result = np.full(count, np.nan)
    known = ~np.isnan(values)
    order = np.lexsort([values[known], groups[known]])
    in_order, sorted_groups = values[known][order], groups[known][order]
    present, start, size = np.unique(sorted_groups, return_index=True, return_counts=True)
    low, high = start + (size - 1) // 2, start + size // 2
    result[present] = (in_order[low] + in_order[high]) / 2
    return result


def codes(columns: Sequence[pa.ChunkedArray | pa.Array]) -> Codes:
    """[n_rows] one number for what each row has in some columns."""
    joined = np.zeros(len(columns[0]), dtype=np.int64)
    for values in columns:
        whole = values.combine_chunks() if isinstance(values, pa.ChunkedArray) else values
        encoded = pc.dictionary_encode(whole, null_encoding="encode")
        numbered = np.asarray(encoded.indices, dtype=np.int64)
        both = joined * (1 + numbered.max(initial=0)) + numbered
        joined = np.unique(both, return_inverse=True)[1]
    return joined


def numbers(values: pa.ChunkedArray | pa.Array) -> Numbers:
    """[n_rows] NaN where a value is null."""
    return np.asarray(pc.cast(values, pa.float64()).to_numpy(zero_copy_only=False))


def column(values: pa.ChunkedArray | pa.Array) -> npt.NDArray[np.object_]:
    """[n_rows] as Python values."""
    return np.array(values.to_pylist(), dtype=object)
