"""Samples as the arrays that models learn from: questions, measured targets, and the split by shape.

A split keeps every row of one shape on one side, by a hash of the shape: a shape that is held out once is held out of every
version, so that a new version and the champion can be compared on shapes that neither has seen.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from gemmcast import query
from gemmcast.config import KNOBS
from gemmcast.rows import gemm_of

TARGETS = ("runtime_us", "sustained_runtime_us", "power_w", "energy_mj", "tflops")


@dataclass(frozen=True)
class Dataset:
    """Rows with status ok."""

    table: pa.Table
    # of the sample schema
    queries: query.Rows
    # [n_rows, len(FIELDS)]
    measured: dict[str, npt.NDArray[np.float64]]
    # target -> [n_rows], NaN where it was not read
    shapes: npt.NDArray[Any]
    # [n_rows], the name of each row's shape

    def __len__(self) -> int:
        return len(self.shapes)

    def take(self, rows: npt.NDArray[Any]) -> Dataset:
        """The rows of a mask or of indices, in order."""
        indices = np.flatnonzero(rows) if rows.dtype == bool else rows
        measured = {name: values[indices] for name, values in self.measured.items()}
        return Dataset(self.table.take(pa.array(indices)), self.queries[indices], measured, self.shapes[indices])

    def column(self, name: str) -> npt.NDArray[Any]:
        return np.asarray(self.table[name].to_pylist())

    def keys(self, *columns: str) -> list[tuple[Any, ...]]:
        """[n_rows] What each row has in these columns."""
        return list(zip(*(self.table[name].to_pylist() for name in columns), strict=True))


def dataset(table: pa.Table) -> Dataset:
    """The usable rows of a table of samples: status ok, a runtime, and a device that was measured at the row's dtype."""
    wanted = pc.equal(table["status"], "ok")
    for name in ("runtime_us", "peak_tflops", "dram_gbps", "compute_units"):  # without these there is no floor to learn from
        wanted = pc.and_(wanted, pc.greater(pc.fill_null(table[name], 0), 0))
    usable = table.filter(wanted)
    columns = {name: usable[name].to_pylist() for name in usable.column_names}
    measured = {name: np.array(columns[name], dtype=np.float64) for name in TARGETS if name != "tflops"}
    rows = [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]
    gemms = [gemm_of(row) for row in rows]
    measured["tflops"] = np.array([gemm.flops for gemm in gemms], dtype=np.float64) / (measured["runtime_us"] * 1e6)
    shapes = np.array([gemm.shape_key for gemm in gemms], dtype=object)
    return Dataset(usable, query.from_columns(columns), measured, shapes)


def library_default(data: Dataset) -> npt.NDArray[np.bool_]:
    """[n_rows] True where a library was left to choose."""
    families = data.column("family")
    chosen: npt.NDArray[np.bool_] = (families == "cublas") | ((families == "cublaslt") & (data.column("kernel") == "default"))
    return chosen


def resolved_default(data: Dataset) -> npt.NDArray[np.bool_]:
    """[n_rows] True where it also told what it chose."""
    told: npt.NDArray[np.bool_] = library_default(data) & np.any([data.column(knob) > 0 for knob in KNOBS], axis=0)
    return told


def unresolved(data: Dataset) -> query.Rows:
    """[n_rows, n_fields] The questions of somebody who names none."""
    return query.from_columns({name: data.table[name].to_pylist() for name in data.table.column_names} | {knob: [0] * len(data) for knob in KNOBS})


def with_unresolved_copies(data: Dataset) -> Dataset:
    """And once more each row of what a library chose itself, as a question without knobs, because who has no library to ask does not know them."""
    own = data.take(resolved_default(data))
    if not len(own):
        return data
    return Dataset(
        pa.concat_tables([data.table, own.table]),
        np.concatenate([data.queries, unresolved(own)]),
        {name: np.concatenate([values, own.measured[name]]) for name, values in data.measured.items()},
        np.concatenate([data.shapes, own.shapes]),
    )


def held_out(shapes: npt.NDArray[Any], share: float) -> npt.NDArray[np.bool_]:
    """[n_rows] True for shapes that training never sees."""
    limit = share * 2**32
    chosen = {shape: int.from_bytes(hashlib.sha256(str(shape).encode()).digest()[:4], "big") < limit for shape in set(shapes)}
    return np.array([chosen[shape] for shape in shapes], dtype=bool)
