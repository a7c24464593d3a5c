"""How well a kind of model predicts GEMMs of groups that it was not trained on: grouped
cross-validation, beside the baselines.

All rows of a group are in one fold, and each fold is predicted by models that were fitted on the
other folds (costmodel/evaluate/groups.py). Every method sees the same rows. How a model is fitted
is a function that the caller hands over. Knows nothing of files or of what is printed.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import Final, Protocol

import numpy as np
import numpy.typing as npt

from costmodel.dataset import (
    TARGETS,
    Mask,
    Names,
    TrainingSet,
    Values,
    resolved_default,
    resolved_name,
    unresolved,
)
from costmodel.evaluate.baselines import BASELINES
from costmodel.evaluate.groups import FOLDS, split
from costmodel.evaluate.metrics import ScoreTable, score, with_intervals
from costmodel.progress import Step, no_step
from gemmcast.query import INTERVALS, Rows

MODEL: Final = "model"
"""A method: the model, and the only one with intervals."""
UNRESOLVED: Final = "unresolved"
"""A method: the model, where a library chooses the kernel and the query does not say which."""
BY_NAME: Final = "by_name"
"""A method: the model, where the query has the name of a library's algorithm (`heuristic-3`) and no
knobs. A name is no input of a model, so the answer is that for the library's own choice."""

Predictions = dict[str, dict[str, Values]]
"""target -> method -> [n_rows]; NaN where the method has no prediction."""


class Model(Protocol):
    """A fitted model, such as costmodel.model.CostModel."""

    outputs_: tuple[str, ...]
    """Names of the outputs, in the order of the interval's columns."""

    def predict(self, queries: Rows) -> Mapping[str, npt.NDArray[np.floating]]:
        """output -> [n_rows]; `low` and `high` [n_rows, n_outputs]."""
        ...


Fit = Callable[[TrainingSet], Model]
"""From training rows to a fitted model."""


def predictions(
    model: Model,
    training: TrainingSet,
    test: TrainingSet,
    step: Step = no_step,
    baselines: Predictions | None = None,
) -> Predictions:
    """The test rows predicted by a model and by the baselines.

    The model's interval is there as methods `low` and `high`. Where a library chose the kernel, the
    method UNRESOLVED is the model without knowledge of the choice; where a plan named one of its
    algorithms, BY_NAME is the model without the algorithm's knobs.

    Args:
        model: fitted on the training rows.
        step: called before each baseline of each target.
        baselines: what `of_baselines` said of them before; None: it is asked now.
    """
    from_model = model.predict(test.queries)
    if baselines is None:
        baselines = of_baselines(training, test, step=step)
    predicted = _beside(_of_model(training, from_model), baselines)
    add_intervals(predicted, model.outputs_, from_model)
    without_knobs = {UNRESOLVED: resolved_default(test), BY_NAME: resolved_name(test)}
    for method, rows in without_knobs.items():
        if rows.any():
            answers = model.predict(unresolved(test.take(rows)))
            of_method: Predictions = {}
            for target in predicted:
                of_method[target] = {method: np.asarray(answers[target], dtype=np.float64)}
            place(predicted, of_method, rows)
    return predicted


def add_intervals(
    predicted: Predictions,
    outputs: Sequence[str],
    from_model: Mapping[str, npt.NDArray[np.floating]],
) -> None:
    """Put a model's intervals beside its predictions, as methods `low` and `high`.

    Args:
        predicted: target -> method -> [n_rows], changed in place.
        outputs: of the model, in the order of the intervals' columns.
        from_model: what it predicts.
    """
    for i, target in enumerate(outputs):
        if target not in predicted:
            continue
        for side in INTERVALS:
            predicted[target][side] = from_model[side][:, i].astype(np.float64)


def place(predicted: Predictions, of_part: Predictions, rows: Mask) -> None:
    """Put predictions of some rows into those of all rows, which are NaN elsewhere.

    Args:
        predicted: target -> method -> [n_rows], changed in place.
        of_part: target -> method -> [n_chosen].
        rows: which rows those are.
    """
    for target, methods in of_part.items():
        of_target = predicted.setdefault(target, {})
        for name, values in methods.items():
            of_target.setdefault(name, np.full(len(rows), np.nan))[rows] = values


def beside_baselines(
    training: TrainingSet,
    test: TrainingSet,
    from_model: Mapping[str, npt.NDArray[np.floating]],
    baselines: Sequence[str] = tuple(BASELINES),
    *,
    step: Step = no_step,
) -> Predictions:
    """A model's predictions by target, with those of the baselines.

    Args:
        training: all that a baseline sees.
        from_model: output -> [n_test].
        baselines: names of BASELINES.
        step: called before each baseline of each target.
    """
    of_model = _of_model(training, from_model)
    return _beside(of_model, of_baselines(training, test, baselines, step=step))


def of_baselines(
    training: TrainingSet,
    test: TrainingSet,
    baselines: Sequence[str] = tuple(BASELINES),
    *,
    step: Step = no_step,
) -> Predictions:
    """The baselines' predictions of every target that was measured. They need no model.

    Args:
        training: all that a baseline sees.
        baselines: names of BASELINES.
        step: called before each baseline of each target.
    """
    predicted: Predictions = {target: {} for target in TARGETS if _is_measured(training, target)}
    pairs = list(itertools.product(predicted, baselines))
    for i, (target, name) in enumerate(pairs):
        step("baselines", i, len(pairs))
        predicted[target][name] = BASELINES[name](training, test, target)
    return predicted


def _is_measured(data: TrainingSet, target: str) -> bool:
    return not np.isnan(data.measured[target]).all()


def _of_model(
    training: TrainingSet, from_model: Mapping[str, npt.NDArray[np.floating]]
) -> Predictions:
    """What a model says of the targets that its training rows have."""
    predicted: Predictions = {}
    for target in TARGETS:
        if target in from_model and _is_measured(training, target):
            predicted[target] = {MODEL: np.asarray(from_model[target])}
    return predicted


def _beside(of_model: Predictions, baselines: Predictions) -> Predictions:
    """A model's predictions, with those of the baselines of the same targets."""
    return {target: methods | baselines[target] for target, methods in of_model.items()}


def compare(
    training: TrainingSet,
    test: TrainingSet,
    from_model: Mapping[str, npt.NDArray[np.floating]],
) -> ScoreTable:
    """A model's errors on the test rows, beside those of the baselines."""
    return scores(test, beside_baselines(training, test, from_model))


def cross_validated(
    data: TrainingSet,
    groups: Names,
    fit: Fit,
    folds: int = FOLDS,
    *,
    within: Names | None = None,
    on_fold: Callable[[int, int], None] = lambda *_: None,
) -> Predictions:
    """Every row predicted by models that were fitted without its group; NaN for rows without one.

    Args:
        groups: as for `split`.
        within: as for `split`.
        on_fold: called after each fold with the number of folds done and of all folds.
    """
    predicted: Predictions = {}
    for i, (is_training, is_test) in enumerate(split(groups, folds, within)):
        training = data.take(is_training)
        test = data.take(is_test)
        place(predicted, predictions(fit(training), training, test), is_test)
        on_fold(i + 1, folds)
    return predicted


def coverage(data: TrainingSet, predicted: Predictions) -> dict[str, float]:
    """target -> per cent of the measured values that lie within the model's interval."""
    shares: dict[str, float] = {}
    for target, methods in predicted.items():
        measured = data.measured[target]
        low, high = (methods[side] for side in INTERVALS)
        known = ~(np.isnan(measured) | np.isnan(low))
        if known.any():
            is_within = (low <= measured) & (measured <= high)
            shares[target] = float(100 * np.mean(is_within[known]))
    return shares


def scores(data: TrainingSet, predicted: Predictions, rows: Mask | None = None) -> ScoreTable:
    """The errors of each method, over the rows with a measurement and a prediction.

    Those of the method MODEL have the coverage and the width of its intervals, where it has some.

    Args:
        rows: only these; all when None.
    """
    table: ScoreTable = {}
    for target, methods in predicted.items():
        measured = data.measured[target]
        for name, values in methods.items():
            if name in INTERVALS:
                continue
            known = ~(np.isnan(measured) | np.isnan(values))
            if rows is not None:
                known &= rows
            if not known.any():
                continue
            errors = score(measured[known], values[known])
            if name == MODEL and set(INTERVALS) <= set(methods):
                low, high = (methods[side][known] for side in INTERVALS)
                errors = with_intervals(errors, measured[known], low, high)
            table.setdefault(target, {})[name] = errors
    return table


def scores_by(data: TrainingSet, predicted: Predictions, names: Names) -> dict[str, ScoreTable]:
    """name -> `scores` of the rows of that name, in alphabetical order.

    Args:
        names: [n_rows].
    """
    tables: dict[str, ScoreTable] = {}
    for name in sorted(set(names)):
        tables[str(name)] = scores(data, predicted, names == name)
    return tables
