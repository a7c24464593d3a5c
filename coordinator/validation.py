"""How right a model is about GEMMs that it never saw: grouped cross-validation, beside the three baselines.

A group's rows are all in one fold, and each fold is answered by models that were fitted on the others. Groups are shapes, or the (n, k) of a
layer at any m. Every method sees the same rows. Knows nothing of files or of what is printed.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from coordinator.baselines import BASELINES
from coordinator.dataset import TARGETS, Dataset
from coordinator.model import CostModel
from coordinator.scores import score
from gemmcast.question import INTERVALS

Predicted = dict[str, dict[str, npt.NDArray[np.float64]]]
# target -> method -> [n_rows]; NaN where the method has no answer
FOLDS = 5


def answers(training: Dataset, test: Dataset) -> Predicted:
    """What the model and the baselines say about the test rows, fitted on the training rows; the model's interval is there as `low` and `high`."""
    model = CostModel().fit_dataset(training)
    said = model.predict(test.questions)
    found = beside_baselines(training, test, said)
    for i, target in enumerate(model.outputs_):
        if target in found:
            found[target] |= {side: said[side][:, i].astype(np.float64) for side in INTERVALS}
    return found


def coverage(data: Dataset, predicted: Predicted) -> dict[str, float]:
    """target -> share of the measured values that lie within the model's interval, in per cent."""
    found = {}
    for target, methods in predicted.items():
        measured, (low, high) = data.measured[target], (methods[side] for side in INTERVALS)
        known = ~(np.isnan(measured) | np.isnan(low))
        if known.any():
            found[target] = float(100 * np.mean((low[known] <= measured[known]) & (measured[known] <= high[known])))
    return found


def unseen_coverage(model: CostModel, unseen: Dataset) -> dict[str, float]:
    """As `coverage`, on shapes that the model has not seen: calibrated on one half of them, asked about the other, by turns.

    The model is calibrated on all of them at the end.
    """
    within: Predicted = {target: {side: np.full(len(unseen), np.nan) for side in INTERVALS} for target in model.outputs_}
    for one, other in split(unseen.shapes, 2):
        if one.any() and other.any():
            said = model.calibrate(unseen.take(one)).predict(unseen.questions[other])
            for i, target in enumerate(model.outputs_):
                for side in INTERVALS:
                    within[target][side][other] = said[side][:, i]
    model.calibrate(unseen)
    return coverage(unseen, within)


def beside_baselines(training: Dataset, test: Dataset, said: Mapping[str, npt.NDArray[np.float64]]) -> Predicted:
    """A model's answers by target, with those of the baselines; every method sees the training rows alone."""
    return {
        target: {"model": said[target], **{name: method(training, test, target) for name, method in BASELINES.items()}}
        for target in TARGETS
        if target in said and not np.isnan(training.measured[target]).all()
    }


def cross_validated(data: Dataset, groups: npt.NDArray[Any], folds: int = FOLDS, done: Callable[[int, int], None] = lambda *_: None) -> Predicted:
    """Every row answered by models that saw no row of its group.

    Args:
        groups: [n_rows] names.
        done: told how many folds of how many are done.
    """
    found: Predicted = {}
    for i, (training, test) in enumerate(split(groups, folds)):
        for target, methods in answers(data.take(training), data.take(test)).items():
            for name, values in methods.items():
                found.setdefault(target, {}).setdefault(name, np.full(len(data), np.nan))[test] = values
        done(i + 1, folds)
    return found


def split(groups: npt.NDArray[Any], folds: int) -> Iterator[tuple[npt.NDArray[np.bool_], npt.NDArray[np.bool_]]]:
    """Masks of training and test rows. Groups are dealt out in the order of their names' hashes: folds have equally many of them."""
    names = sorted(set(groups), key=lambda name: hashlib.sha256(str(name).encode()).digest())
    fold_of = {name: i % folds for i, name in enumerate(names)}
    of_row = np.array([fold_of[name] for name in groups])
    for fold in range(folds):
        yield of_row != fold, of_row == fold


def layers(data: Dataset) -> npt.NDArray[Any]:
    """[n_rows] The (n, k) of each row."""
    columns = [data.table[name].to_pylist() for name in ("n", "k")]
    return np.array([f"{n}x{k}" for n, k in zip(*columns, strict=True)], dtype=object)


def scores(data: Dataset, predicted: Predicted, rows: npt.NDArray[np.bool_] | None = None) -> dict[str, dict[str, dict[str, float]]]:
    """target -> method -> metric (coordinator/scores.py), over the rows where the target was read and the method has an answer."""
    found: dict[str, dict[str, dict[str, float]]] = {}
    for target, methods in predicted.items():
        measured = data.measured[target]
        for name, values in methods.items():
            if name in INTERVALS:
                continue
            known = ~(np.isnan(measured) | np.isnan(values)) & (True if rows is None else rows)
            if known.any():
                found.setdefault(target, {})[name] = score(measured[known], values[known])
    return found
