"""What is said of predictions of tested rows: errors in all and by kind of row, coverage, order.

    cross_validation(data, "board", fit)  ->  the rows that were tested, and their predictions
    accuracy(tested)  ->  the numbers

A query of a library's kernel may have its knobs or only its name; `by_name` has the errors of both
on the same rows. Knows nothing of files or of what is printed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np

from costmodel.dataset import Names, TrainingSet, resolved_default, resolved_name
from costmodel.evaluate.boards import board_folds
from costmodel.evaluate.crossval import (
    BY_NAME,
    UNRESOLVED,
    Fit,
    Predictions,
    coverage,
    cross_validated,
    scores,
    scores_by,
)
from costmodel.evaluate.groups import FOLDS, GROUPS, kinds, sizes, split
from costmodel.evaluate.metrics import to_json
from costmodel.evaluate.overlap import Overlap, overlap_of_folds
from costmodel.evaluate.ranking import ranking
from gemmcast.card import Scores
from gemmcast.errors import InputError

BOARDS_IN_WORDS: Final = (
    "each row predicted by a model without any row of its board (single boards of a type stay in "
    "training)"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Tested:
    """Rows that a model was not trained on, with what was predicted for them."""

    protocol: str
    """How the rows were predicted, in words."""
    data: TrainingSet
    predicted: Predictions
    overlap: Overlap
    """Per cent of the rows whose board, (n, k), shape or cell the training rows had too."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Accuracy:
    """What is printed; errors and shares are in per cent."""

    protocol: str
    """How the rows were predicted, in words."""
    rows: int
    shapes: int
    overlap: Overlap
    """Of `Tested`."""
    targets: Scores
    """Of all rows."""
    coverage: Mapping[str, float]
    """Per target, how many measurements lie within the model's 90 % interval."""
    families: Mapping[str, Scores]
    kinds: Mapping[str, Scores]
    """By kind of kernel: the family; of cuBLASLt its heuristic's list, and what is beyond it."""
    by_name: Mapping[str, Scores]
    """By kind of a library's kernel: method `model` with its knobs, `by_name` without."""
    dtypes: Mapping[str, Scores]
    sizes: Mapping[str, Scores]
    """By decade of flops."""
    boards: Mapping[str, Scores]
    """By `device_uuid`; empty where a row has none."""
    ranking: Scores
    """How well configurations of one problem are ordered."""


def cross_validation(
    data: TrainingSet,
    group: str,
    fit: Fit,
    on_fold: Callable[[int, int], None] = lambda *_: None,
) -> Tested:
    """Every row that has a group, predicted by models that were fitted without its group.

    Args:
        group: a name of GROUPS.
        on_fold: called after each fold with the number of folds done and of all folds.

    Raises:
        InputError: there are fewer than two groups.
    """
    names = GROUPS[group](data)
    count = len(set(names) - {None})
    if count < 2:
        rule = f"the usable rows are of {count} {group}, which can't be left out"
        raise InputError("--group", group, rule, "choose another --group, or measure another")
    folds = count if group == "device" else min(FOLDS, count)
    protocol = f"{folds}-fold, grouped by {group}"
    if group == "board":
        names = board_folds(data, FOLDS)
        protocol = f"{count} boards in {protocol}: {BOARDS_IN_WORDS}"
    within = data.column("family") if group == "member" else None
    predicted = cross_validated(data, names, fit, folds, within=within, on_fold=on_fold)
    has_prediction = ~np.isnan(predicted["runtime_us"]["model"])
    of_rows: Predictions = {}
    for target, methods in predicted.items():
        of_rows[target] = {name: values[has_prediction] for name, values in methods.items()}
    return Tested(
        protocol=protocol,
        data=data.take(has_prediction),
        predicted=of_rows,
        overlap=overlap_of_folds(data, split(names, folds, within)),
    )


def accuracy(tested: Tested) -> Accuracy:
    """The errors of the tested rows."""
    data, predicted = tested.data, tested.predicted
    return Accuracy(
        protocol=tested.protocol,
        rows=len(data),
        shapes=len(set(data.shapes)),
        overlap=tested.overlap,
        targets=to_json(scores(data, predicted)),
        coverage=coverage(data, predicted),
        families=_by(data, predicted, data.column("family")),
        kinds=_by(data, predicted, kinds(data)),
        by_name=_by_name(data, predicted),
        dtypes=_by(data, predicted, data.column("dtype")),
        sizes=_by(data, predicted, sizes(data)),
        boards=_by(data, predicted, data.column("device_uuid")),
        ranking=ranking(data, predicted),
    )


def _by(data: TrainingSet, predicted: Predictions, names: Names) -> dict[str, Scores]:
    tables = scores_by(data, predicted, names)
    return {name: to_json(table) for name, table in tables.items()}


def _by_name(data: TrainingSet, predicted: Predictions) -> dict[str, Scores]:
    """The kernels of libraries with and without their knobs, the same rows in both."""
    nothing = np.full(len(data), np.nan)
    pairs: Predictions = {}
    for target, methods in predicted.items():
        of_default = methods.get(UNRESOLVED, nothing)
        of_name = methods.get(BY_NAME, nothing)
        without_knobs = np.where(np.isnan(of_default), of_name, of_default)
        pairs[target] = {"model": methods["model"], BY_NAME: without_knobs}
    names = _library_names(data)
    is_resolved = resolved_default(data) | resolved_name(data)
    rows = np.flatnonzero(is_resolved)
    chosen: Predictions = {}
    for target, methods in pairs.items():
        chosen[target] = {name: values[rows] for name, values in methods.items()}
    return _by(data.take(rows), chosen, names[rows])


def _library_names(data: TrainingSet) -> Names:
    """[n_rows] `cublas`, `cublaslt default`, `cublaslt heuristic-N`, `cublaslt enumerated-N`."""
    names: list[str] = []
    for family, kernel in data.keys("family", "kernel"):
        name, dash, _ = kernel.partition("-")
        names.append(f"{family} {name}{'-N' if dash else ''}".strip())
    return np.array(names, dtype=object)
