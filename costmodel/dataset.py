"""Samples as the arrays that models are fitted on, and the split by shape.

    queries[n_rows, n_fields]      measured[target][n_rows]      shapes[n_rows]

A split keeps all rows of one shape on one side, by a hash of the shape's name: a shape that is held
out once is held out of every model version, so a new version and the champion can be compared on
shapes that neither was trained on. Knows nothing of models.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from gemmcast import query
from gemmcast.config import KNOBS
from gemmcast.contracts import EMPTY_KERNEL_SINCE, HOST_LAUNCH_US
from gemmcast.descriptions import Descriptions
from gemmcast.device import Device
from gemmcast.draw import is_drawn
from gemmcast.query import CONTRACT, OUTPUTS
from gemmcast.rows import GEMM_COLUMNS, gemm_of

Values = npt.NDArray[np.float64]
"""[n_rows] of one target; NaN where it was not measured."""
Mask = npt.NDArray[np.bool_]
"""[n_rows] which rows."""
Indices = npt.NDArray[np.int64]
"""Numbers of rows."""
Names = npt.NDArray[np.object_]
"""[n_rows] names of groups; None where a row belongs to none."""

Column = npt.NDArray[Any]
"""[n_rows] of numbers or of text, as the column has them."""

THROUGHPUT: Final = "tflops"
READINGS: Final = tuple(name for name in OUTPUTS if name != THROUGHPUT)
"""The targets that are measured; each is a column of a sample."""
TARGETS: Final = (*READINGS, THROUGHPUT)
"""All outputs of a model: the readings, and the throughput that follows from the runtime."""
FLOOR_COLUMNS: Final = ("runtime_us", "peak_tflops", "dram_gbps", "compute_units")
"""Columns that must be positive, else a row has no analytical floor."""


@dataclass(frozen=True)
class TrainingSet:
    """Rows with status ok, for a model to be fitted on or tested with."""

    table: pa.Table
    """The rows in the sample schema."""
    queries: query.Rows
    """[n_rows, len(FIELDS)] the rows as a model's input."""
    measured: dict[str, Values]
    """target -> [n_rows], NaN where it was not measured."""
    shapes: Names
    """[n_rows] the name of each row's shape."""

    def __len__(self) -> int:
        return len(self.shapes)

    def take(self, rows: Mask | Indices) -> TrainingSet:
        """The rows of a mask or of indices, in order."""
        indices = np.flatnonzero(rows) if rows.dtype == bool else rows
        table = self.table.take(pa.array(indices))
        measured = {name: values[indices] for name, values in self.measured.items()}
        return TrainingSet(
            table=table,
            queries=self.queries[indices],
            measured=measured,
            shapes=self.shapes[indices],
        )

    def column(self, name: str) -> Column:
        """[n_rows] One column of the sample schema."""
        return np.asarray(self.table[name].to_pylist())

    def keys(self, *columns: str) -> list[tuple[Any, ...]]:
        """[n_rows] What each row has in these columns."""
        values = self.table.select(columns).to_pydict()
        return list(zip(*values.values(), strict=True))


def training_set(table: pa.Table, contract: int = CONTRACT) -> TrainingSet:
    """The usable rows of a table of samples.

    Usable is a row with status ok and a runtime, of a device whose peak at the row's dtype,
    bandwidth and number of units were measured.

    Args:
        table: samples, in the sample schema.
        contract: of the file that the queries are for.
    """
    is_usable = pc.equal(table["status"], "ok")
    for name in FLOOR_COLUMNS:
        is_positive = pc.greater(pc.fill_null(table[name], 0), 0)
        is_usable = pc.and_(is_usable, is_positive)
    usable = _for_contract(table.filter(is_usable), contract)
    columns = usable.to_pydict()
    flops: list[float] = []
    shapes: list[str] = []
    for row in usable.select(GEMM_COLUMNS).to_pylist():
        gemm = gemm_of(row)
        flops.append(gemm.flops)
        shapes.append(gemm.shape_key)
    measured: dict[str, Values] = {}
    for name in READINGS:
        measured[name] = np.array(columns[name], dtype=np.float64)
    measured[THROUGHPUT] = np.array(flops, dtype=np.float64) / (measured["runtime_us"] * 1e6)
    return TrainingSet(
        table=usable,
        queries=query.from_columns(columns),
        measured=measured,
        shapes=np.array(shapes, dtype=object),
    )


def _for_contract(table: pa.Table, contract: int) -> pa.Table:
    """The samples, with what field 29 of a query was before contract 4 (gemmcast/contracts.py)."""
    if contract >= EMPTY_KERNEL_SINCE:
        return table
    launch_us = pc.fill_null(table["empty_launch_us"], HOST_LAUNCH_US)
    place = table.column_names.index("empty_kernel_us")
    return table.set_column(place, table.schema.field(place), launch_us)


def devices_of(data: TrainingSet) -> list[Device]:
    """One description per type of device in the data, by name (gemmcast/descriptions.py)."""
    return Descriptions.of_rows(data.table.to_pylist()).devices


def library_default(data: TrainingSet) -> Mask:
    """[n_rows] True where a library chose the kernel."""
    families = data.column("family")
    is_heuristic = (families == "cublaslt") & (data.column("kernel") == "default")
    return np.asarray((families == "cublas") | is_heuristic, dtype=bool)


def resolved_default(data: TrainingSet) -> Mask:
    """[n_rows] True where a library chose the kernel and reported its knobs."""
    return library_default(data) & _has_knobs(data)


def resolved_name(data: TrainingSet) -> Mask:
    """[n_rows] True where a plan named cuBLASLt's algorithm and the library reported its knobs.

    The name is a place in a list of that problem (`heuristic-3`, `enumerated-17`); a query with the
    name alone has no knobs.
    """
    is_named = (data.column("family") == "cublaslt") & ~library_default(data)
    return np.asarray(is_named & _has_knobs(data), dtype=bool)


def _has_knobs(data: TrainingSet) -> Mask:
    has_knobs = np.zeros(len(data), dtype=bool)
    for knob in KNOBS:
        has_knobs |= data.column(knob) > 0
    return has_knobs


def unresolved(data: TrainingSet) -> query.Rows:
    """[n_rows, n_fields] The same rows as queries in which all knobs are unknown."""
    unknown = dict.fromkeys(KNOBS, [0] * len(data))
    return query.from_columns(data.table.to_pydict() | unknown)


def with_unresolved_copies(data: TrainingSet) -> TrainingSet:
    """The rows, and a copy without knobs of every row whose kernel a library chose.

    A user who has no library at hand does not know which kernel it will choose. The copies let a
    model answer that query too.
    """
    defaults = data.take(resolved_default(data))
    if not len(defaults):
        return data
    measured: dict[str, Values] = {}
    for name, values in data.measured.items():
        measured[name] = np.concatenate([values, defaults.measured[name]])
    return TrainingSet(
        table=pa.concat_tables([data.table, defaults.table]),
        queries=np.concatenate([data.queries, unresolved(defaults)]),
        measured=measured,
        shapes=np.concatenate([data.shapes, defaults.shapes]),
    )


def held_out(shapes: Names, share: float) -> Mask:
    """[n_rows] True for the shapes that no model version is trained on.

    Args:
        shapes: [n_rows] names; the same shape may come many times.
        share: about this share of the different shapes is held out.
    """
    drawn = {shape for shape in set(shapes) if is_drawn(str(shape), share)}
    return np.array([shape in drawn for shape in shapes], dtype=bool)


def split_by_shape(data: TrainingSet, share: float) -> tuple[TrainingSet, TrainingSet]:
    """The rows to train on, and the held-out rows to test with."""
    is_held_out = held_out(data.shapes, share)
    return data.take(~is_held_out), data.take(is_held_out)
