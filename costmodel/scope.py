"""What a model may be asked: what its training rows hold, by type of device and kernel family.

A query beyond it gets an answer too, mostly flagged `extrapolating` (costmodel/training_range.py);
this is the same in words, for people (`gemmcast models`). Knows no model.
"""

from __future__ import annotations

from typing import Final

import pyarrow as pa
import pyarrow.compute as pc

from costmodel.dataset import TrainingSet
from gemmcast.config import KernelConfig
from gemmcast.rows import ReadRow

RANGES: Final = ("m", "n", "k", "batch", "beta")
"""Columns of which the smallest and the largest value are given."""
KERNEL: Final = ("algo_id", "kernel", "tile_m", "tile_n", "tile_k")
"""Columns that tell the kernels of a family apart."""

Scope = dict[str, dict[str, dict[str, object]]]
"""Type of device -> kernel family -> name -> what was measured."""


def scope(data: TrainingSet) -> Scope:
    """The scope of a model that is trained on these rows."""
    by_device: Scope = {}
    for device in _values(data.table, "device"):
        of_device = _with(data.table, "device", device)
        by_family: dict[str, dict[str, object]] = {}
        for family in _values(of_device, "family"):
            rows = _with(of_device, "family", family)
            by_family[family] = _of_family(rows, family)
        by_device[device] = by_family
    return by_device


def _of_family(rows: pa.Table, family: str) -> dict[str, object]:
    layouts: dict[str, list[str]] = {}
    for dtype in _values(rows, "dtype"):
        of_dtype = _with(rows, "dtype", dtype)
        layouts[dtype] = _values(of_dtype, "layout")
    ranges: dict[str, list[float]] = {}
    for name in RANGES:
        ends = pc.min_max(rows[name]).as_py()
        ranges[name] = [ends["min"], ends["max"]]
    return {
        "rows": len(rows),
        "layouts": layouts,
        **ranges,
        "cache": _values(rows, "cache"),
        "kernels": _kernels(rows, family),
    }


def _kernels(rows: pa.Table, family: str) -> list[str]:
    """The different kernels: by the library's number, else by name, else by tile."""
    grouped = rows.select(KERNEL).group_by(list(KERNEL))
    different = grouped.aggregate([]).to_pylist()
    names: set[str] = set()
    for row in different:
        names.add(_kernel(family, row))
    # a library's own choice, of which nothing is known
    names.discard("")
    return sorted(names)


def _kernel(family: str, row: ReadRow) -> str:
    number: int = row["algo_id"]
    kernel: str = row["kernel"]
    if number:
        return f"algo_id={number}"
    if kernel:
        return kernel
    tiled = KernelConfig(
        family=family,
        tile_m=row["tile_m"],
        tile_n=row["tile_n"],
        tile_k=row["tile_k"],
    )
    _, _, tile = str(tiled).partition(":")
    return tile


def _with(table: pa.Table, column: str, value: str) -> pa.Table:
    """The rows with this value."""
    has_value = pc.equal(table[column], value)
    return table.filter(has_value)


def _values(table: pa.Table, column: str) -> list[str]:
    """The different values, sorted."""
    different = pc.unique(table[column])
    values: list[str] = sorted(different.to_pylist())
    return values
