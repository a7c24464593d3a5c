"""How well readings of the same cell agree: no model can be expected to predict better than that.

    difference = 100 |second / first - 1|                      in per cent
    deviation  = |ln(second / first)| / sqrt(u1^2 + u2^2)      u: runtime_uncertainty of a reading

A cell is a GEMM with the configuration that ran (all knobs, as the row has them), the state of the
cache, and the type of device. Does not know any model, nor where the rows come from.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from math import hypot, log, nan

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
Coverage = dict[str, float]
"""Share of the pairs whose runtimes deviate by at most one and two u (`within_1u`, `within_2u`), in
per cent; 68 and 95 if errors were normal. And how many pairs that are (`cells`)."""


def noise_floor(rows: Iterable[ReadRow], again: Iterable[ReadRow]) -> dict[str, Spread]:
    """How far two datasets of the same cells differ.

    Returns:
        reading -> its spread, over the cells (by cell id) that are `ok` in both.
    """
    return _differences(pairs_between(rows, again))


def repeatability(rows: Sequence[ReadRow]) -> dict[str, Spread]:
    """How far measurements of the same cell differ within one dataset.

    Returns:
        reading -> its spread over the pairs of `pairs_within`; and `runtime_uncertainty`, the
        spread of what the readings themselves claim, over all rows that are `ok`.
    """
    spreads = _differences(pairs_within(rows))
    claimed = []
    for row in rows:
        if row["status"] == "ok" and row["runtime_uncertainty"] is not None:
            claimed.append(100 * row["runtime_uncertainty"])
    if claimed:
        spreads["runtime_uncertainty"] = _spread(claimed, "rows")
    return spreads


def pairs_between(rows: Iterable[ReadRow], again: Iterable[ReadRow]) -> list[Pair]:
    """The readings of each cell (by cell id) that is `ok` in two datasets."""
    first = {row["cell_id"]: row for row in rows if row["status"] == "ok"}
    second = {row["cell_id"]: row for row in again if row["status"] == "ok"}
    return [(first[cell], second[cell]) for cell in first if cell in second]


def pairs_within(rows: Iterable[ReadRow]) -> list[Pair]:
    """Each `ok` measurement with the one of its cell before it, on any device of the same type."""
    measured = [row for row in rows if row["status"] == "ok"]
    measured.sort(key=lambda row: str(row["measured_at"]))
    last: dict[CellKey, ReadRow] = {}
    pairs: list[Pair] = []
    for row in measured:
        cell = cell_key(row)
        if cell in last:
            pairs.append((last[cell], row))
        last[cell] = row
    return pairs


def coverage(pairs: Iterable[Pair]) -> Coverage:
    """How many runtimes agree within their uncertainty; pairs without one are left out."""
    cells, within_1u, within_2u = 0, 0, 0
    for first, second in pairs:
        claimed = first["runtime_uncertainty"], second["runtime_uncertainty"]
        if None in claimed:
            continue
        difference = abs(log(second["runtime_us"] / first["runtime_us"]))
        cells += 1
        within_1u += difference <= hypot(*claimed)
        within_2u += difference <= 2 * hypot(*claimed)
    return {
        "within_1u": 100 * within_1u / cells if cells else nan,
        "within_2u": 100 * within_2u / cells if cells else nan,
        "cells": cells,
    }


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
