"""How right a model is about GEMMs that it never saw: grouped cross-validation, beside the three baselines.

A group's rows are all in one fold, and each fold is answered by models that were fitted on the others. Groups are shapes, layers (n and k at any m),
members of a kernel family (one kernel with one tile), or types of device. Every method sees the same rows. Knows nothing of files or of what
is printed.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from costmodel.dataset import TARGETS, Dataset, library_default, resolved_default, unresolved
from costmodel.evaluate.baselines import BASELINES
from costmodel.evaluate.metrics import score
from costmodel.model import CostModel
from gemmcast.query import INTERVALS, algorithm

Predicted = dict[str, dict[str, npt.NDArray[np.float64]]]
# target -> method -> [n_rows]; NaN where the method has no answer
FOLDS = 5
MEMBER = ("family", "kernel", "tile_m", "tile_n", "tile_k", "algorithm")
# what a kernel is before it meets a shape
UNRESOLVED = "unresolved"
# a method: the model, asked about what a library will choose itself as if that were not known


def answers(training: Dataset, test: Dataset) -> Predicted:
    """What a model and the baselines say about the test rows, fitted on the training rows."""
    return asked(CostModel().fit_dataset(training), training, test)


def asked(model: CostModel, training: Dataset, test: Dataset) -> Predicted:
    """What a model that was fitted on the training rows and the baselines say about the test rows.

    The model's interval is there as `low` and `high`, and as UNRESOLVED what it says of a library's own choice when nobody tells which.
    """
    said = model.predict(test.queries)
    found = beside_baselines(training, test, said)
    own = resolved_default(test)
    plain = model.predict(unresolved(test.take(own))) if own.any() else {}
    for i, target in enumerate(model.outputs_):
        if target in found:
            found[target] |= {side: said[side][:, i].astype(np.float64) for side in INTERVALS}
            if plain:
                found[target][UNRESOLVED] = np.full(len(test), np.nan)
                found[target][UNRESOLVED][own] = plain[target]
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
            said = model.calibrate(unseen.take(one)).predict(unseen.queries[other])
            for i, target in enumerate(model.outputs_):
                for side in INTERVALS:
                    within[target][side][other] = said[side][:, i]
    model.calibrate(unseen)
    return coverage(unseen, within)


def beside_baselines(
    training: Dataset, test: Dataset, said: Mapping[str, npt.NDArray[np.float64]], baselines: Iterable[str] = tuple(BASELINES)
) -> Predicted:
    """A model's answers by target, with those of the baselines; every method sees the training rows alone."""
    return {
        target: {"model": said[target], **{name: BASELINES[name](training, test, target) for name in baselines}}
        for target in TARGETS
        if target in said and not np.isnan(training.measured[target]).all()
    }


def cross_validated(
    data: Dataset,
    groups: npt.NDArray[Any],
    folds: int = FOLDS,
    done: Callable[[int, int], None] = lambda *_: None,
    within: npt.NDArray[Any] | None = None,
) -> Predicted:
    """Every row that has a group answered by models that saw no row of that group; NaN for the others.

    Args:
        groups, within: as `split` takes them.
        done: told how many folds of how many are done.
    """
    found: Predicted = {}
    for i, (training, test) in enumerate(split(groups, folds, within)):
        for target, methods in answers(data.take(training), data.take(test)).items():
            for name, values in methods.items():
                found.setdefault(target, {}).setdefault(name, np.full(len(data), np.nan))[test] = values
        done(i + 1, folds)
    return found


def split(
    groups: npt.NDArray[Any], folds: int, within: npt.NDArray[Any] | None = None
) -> Iterator[tuple[npt.NDArray[np.bool_], npt.NDArray[np.bool_]]]:
    """Masks of training and test rows. Groups are dealt out in the order of their names' hashes: folds have equally many of them.

    Args:
        groups: [n_rows] names; rows of None are trained on in every fold.
        within: [n_rows] larger groups, of which each is dealt out on its own, so that every fold has a part of it.
    """
    names: dict[Any, set[Any]] = {}
    for group, larger in zip(groups, within if within is not None else [None] * len(groups), strict=True):
        names.setdefault(larger, set()).add(group)
    of_row = np.full(len(groups), -1)
    for larger, of_it in names.items():
        ordered = sorted(of_it - {None}, key=lambda name: hashlib.sha256(str(name).encode()).digest())
        fold_of = {None: -1, **{name: i % folds for i, name in enumerate(ordered)}}
        rows = slice(None) if within is None else within == larger
        of_row[rows] = [fold_of[name] for name in groups[rows]]
    for fold in range(folds):
        yield of_row != fold, of_row == fold


def layers(data: Dataset) -> npt.NDArray[Any]:
    """[n_rows] The (n, k) of each row."""
    return np.array([f"{n}x{k}" for n, k in data.keys("n", "k")], dtype=object)


def members(data: Dataset) -> npt.NDArray[Any]:
    """[n_rows] The family's kernel of each row, by MEMBER; None in a family of one, which nobody could be asked about unseen, and where a library
    chose the kernel, which nobody asks for."""
    rows = data.keys(*MEMBER[:-1], "algo_id")
    names = [
        None if own else (family, kernel, *tile, algorithm(family, kernel, algo_id))
        for (family, kernel, *tile, algo_id), own in zip(rows, library_default(data), strict=True)
    ]
    many = {family for family, count in Counter(name[0] for name in set(names) if name).items() if count > 1}
    return np.array([" ".join(map(str, name)) if name and name[0] in many else None for name in names], dtype=object)


def sizes(data: Dataset) -> npt.NDArray[Any]:
    """[n_rows] The decade of each row's flops: "1e09" from 1e9 to just below 1e10."""
    return np.array([f"1e{len(str(2 * m * n * k * batch)) - 1:02d}" for m, n, k, batch in data.keys("m", "n", "k", "batch")])


GROUPS: dict[str, Callable[[Dataset], npt.NDArray[Any]]] = {
    "shape": lambda data: data.shapes, "layer": layers, "member": members, "device": lambda data: data.column("device").astype(object),
}  # fmt: skip


def scores(data: Dataset, predicted: Predicted, rows: npt.NDArray[np.bool_] | None = None) -> dict[str, dict[str, dict[str, float]]]:
    """target -> method -> metric (costmodel/evaluate/metrics.py), over the rows where the target was read and the method has an answer."""
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


def scores_by(data: Dataset, predicted: Predicted, names: npt.NDArray[Any]) -> dict[str, dict[str, dict[str, dict[str, float]]]]:
    """name -> `scores` of the rows of that name, in alphabetical order.

    Args:
        names: [n_rows].
    """
    return {str(name): scores(data, predicted, names == name) for name in sorted(set(names))}
