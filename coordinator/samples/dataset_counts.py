"""What a dataset holds: rows, cells, shapes, groups to tune in, and rows by kind.

A group to tune in is a shape, dtype and family with GROUP or more different configurations.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Final, TypedDict

import numpy as np
import pyarrow as pa

from coordinator.samples.columns import Columns
from costmodel.evaluate.overlap import CELL, CONFIG, SHAPE

GROUP: Final = 20
RANGES: Final[Mapping[str, Mapping[str, tuple[float, float]]]] = {
    "m": {"1": (1, 1), "2-8": (2, 8), "9 and more": (9, np.inf)},
    "split_k": {"0": (0, 0), "1": (1, 1), "2-16": (2, 16), "17 and more": (17, np.inf)},
    "batch": {"1": (1, 1), "2-1024": (2, 1024), "1025 and more": (1025, np.inf)},
    "beta": {"0": (0, 0), "1": (1, 1)},
}
"""Column -> name of a range -> its first and last value. What is in none is `other`."""


class DatasetCounts(TypedDict):
    """What a dataset holds."""

    device: dict[str, int]
    """Name of the device -> rows."""
    rows: int
    cells: int
    """Different cells among the rows that are ok; so are shapes, groups, families and dtypes."""
    shapes: int
    groups_of_20: int
    rows_with_power: int
    by_family: dict[str, int]
    by_dtype: dict[str, int]
    not_ok: dict[str, int]
    """Status -> rows, without ok."""


def counts(table: pa.Table) -> DatasetCounts:
    """Rows, cells, shapes and groups, and how many rows are not ok.

    Args:
        table: samples, with the columns of the sample schema.
    """
    measured = Columns(table)
    statuses = Counter(table["status"].to_pylist())
    statuses.pop("ok", None)
    return DatasetCounts(
        device=dict(Counter(table["device"].to_pylist())),
        rows=len(table),
        cells=measured.count(*CELL),
        shapes=measured.count(*SHAPE),
        groups_of_20=_groups(measured),
        rows_with_power=len(measured) - measured.table["power_w"].null_count,
        by_family=measured.by("family"),
        by_dtype=measured.by("dtype"),
        not_ok=dict(statuses),
    )


def rows_by_kind(measured: Columns) -> dict[str, dict[str, int]]:
    """Rows by layout and cache, and by ranges of m, split_k, batch and beta."""
    kinds = {"layout": measured.by("layout"), "cache": measured.by("cache")}
    for name, ranges in RANGES.items():
        values = measured.numbers(name)
        by_range: dict[str, int] = {}
        for word, (first, last) in ranges.items():
            by_range[word] = int(((first <= values) & (values <= last)).sum())
        by_range["other"] = len(measured) - sum(by_range.values())
        kinds[name] = {word: count for word, count in by_range.items() if count}
    return kinds


def _groups(measured: Columns) -> int:
    groups = measured.codes(*SHAPE, "dtype", "family")
    configs = measured.codes(*CONFIG)
    different = np.unique(np.stack([groups, configs]), axis=1)
    return int((np.bincount(different[0]) >= GROUP).sum())
