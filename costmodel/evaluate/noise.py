"""How well readings of the same cell agree: no model can be expected to predict better than that.

    difference = 100 |second / first - 1|   in per cent

A cell is a GEMM with the configuration that ran (all knobs, as the row has them), the state of the
cache, and the type of device. Does not know any model, nor where the rows come from.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from costmodel.dataset import READINGS
from gemmcast.config import KernelConfig
from gemmcast.gemm import Gemm
from gemmcast.rows import ReadRow, config_of, gemm_of

CellKey = tuple[Gemm, KernelConfig, str, str]
"""Gemm, configuration, cache, name of the device."""
Pair = tuple[ReadRow, ReadRow]
"""Two measurements of one cell."""
Spread = dict[str, float]
"""median, p90 and max in per cent, and how many pairs (`cells`) or rows (`rows`) they are of."""


def noise_floor(rows: Iterable[ReadRow], again: Iterable[ReadRow]) -> dict[str, Spread]:
    """How far two datasets of the same cells differ.

    Returns:
        reading -> its spread, over the cells (by cell id) that are `ok` in both.
    """
    first = {row["cell_id"]: row for row in rows if row["status"] == "ok"}
    second = {row["cell_id"]: row for row in again if row["status"] == "ok"}
    return _differences([(first[cell], second[cell]) for cell in first if cell in second])


def repeatability(rows: Sequence[ReadRow]) -> dict[str, Spread]:
    """How far measurements of the same cell differ within one dataset.

    Each measurement is compared with the one before it, on any device of the same type.

    Returns:
        reading -> its spread over these pairs; and `runtime_rse`, the spread of the relative
        standard error within one reading, over all rows that are `ok`.
    """
    measured = [row for row in rows if row["status"] == "ok"]
    measured.sort(key=lambda row: str(row["measured_at"]))
    last: dict[CellKey, ReadRow] = {}
    pairs: list[Pair] = []
    for row in measured:
        cell = cell_key(row)
        if cell in last:
            pairs.append((last[cell], row))
        last[cell] = row
    spreads = _differences(pairs)
    errors = [100 * row["runtime_rse"] for row in measured if row["runtime_rse"] is not None]
    if errors:
        spreads["runtime_rse"] = _spread(errors, "rows")
    return spreads


def cell_key(row: ReadRow) -> CellKey:
    """What was measured. Unlike a cell id, it does not contain a plan's repeat or power flag."""
    return gemm_of(row), config_of(row), row["cache"], row["device"]


def _differences(pairs: Sequence[Pair]) -> dict[str, Spread]:
    spreads: dict[str, Spread] = {}
    for name in READINGS:
        values = []
        for first, second in pairs:
            if first[name] and second[name]:
                values.append(100 * abs(second[name] / first[name] - 1))
        if values:
            spreads[name] = _spread(values, "cells")
    return spreads


def _spread(values: Sequence[float], counted: str) -> Spread:
    median, p90 = np.percentile(values, [50, 90])
    return {
        "median": float(median),
        "p90": float(p90),
        "max": float(max(values)),
        counted: len(values),
    }
