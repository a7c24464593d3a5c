"""The paper's random forest on our rows, cross-validated in two ways.

Split by rows, as in the paper, other rows of the same shape are in training; split by shape, whole
shapes are held out. Every row is predicted by a forest that was not trained on it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from benchmarks.paper.recordings import GRID, MAIN, STUDY, Recordings
from coordinator.report.tile_study import POWER, TIME
from costmodel.dataset import TrainingSet, Values
from costmodel.evaluate.baselines import paper_forest
from costmodel.evaluate.groups import FOLDS, split

ON_GRID = "CUTLASS fp32 on the paper's grid"
BY_ROW, BY_SHAPE = "rows split at random", "grouped by shape"


@dataclass(frozen=True, slots=True, kw_only=True)
class ForestResult:
    """The forest's predictions of one target on one set of rows."""

    name: str
    target: str
    shapes: int
    split: str
    """BY_ROW or BY_SHAPE."""
    measured: Values
    predicted: Values


def fit_forests(recordings: Recordings) -> list[ForestResult]:
    """Every set of rows with FOLDS shapes or more, both targets, both splits."""
    results = []
    for name, rows in _row_sets(recordings):
        for target in (TIME, POWER):
            is_read = ~np.isnan(rows.measured[target])
            read = rows.take(is_read)
            if len(set(read.shapes)) >= FOLDS:
                results.append(_cross_validated(name, read, target, BY_ROW))
                results.append(_cross_validated(name, read, target, BY_SHAPE))
    return results


def _row_sets(recordings: Recordings) -> Iterator[tuple[str, TrainingSet]]:
    main = recordings.main.data
    yield f"tiled, {MAIN}", _tiled(main)
    if recordings.study:
        yield f"tiled, {STUDY}", _tiled(recordings.study.data)
    is_cutlass = main.column("family") == "cutlass"
    is_fp32 = main.column("dtype") == "fp32"
    has_two_stages = main.column("stages") == 2
    is_whole = main.column("split_k") <= 1
    is_simt = is_cutlass & is_fp32 & has_two_stages & is_whole
    on_grid = np.ones(len(main), dtype=bool)
    for name, sizes in GRID.items():
        on_grid &= np.isin(main.column(name), list(sizes))
    yield ON_GRID, main.take(is_simt & on_grid)
    yield "CUTLASS fp32, random shapes", main.take(is_simt & ~on_grid)


def _tiled(data: TrainingSet) -> TrainingSet:
    return data.take(data.column("family") == "tiled")


def _cross_validated(name: str, rows: TrainingSet, target: str, how: str) -> ForestResult:
    row_names = np.arange(len(rows)).astype(str).astype(object)
    groups = rows.shapes if how == BY_SHAPE else row_names
    predicted = np.full(len(rows), np.nan)
    for training, test in split(groups, FOLDS):
        predicted[test] = paper_forest(rows.take(training), rows.take(test), target)
    return ForestResult(
        name=name,
        target=target,
        shapes=len(set(rows.shapes)),
        split=how,
        measured=rows.measured[target],
        predicted=predicted,
    )
