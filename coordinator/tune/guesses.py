"""Which configurations of a problem are worth measuring next: a model's, corrected by readings.

    guess = predicted + correction - doubt        logarithms of the cost over the default's

A model errs alike on configurations with similar knobs, so what it was wrong by on those that were
measured corrects the others: a Gaussian process over log2(1 + knob), with the model as its mean.
Correction and doubt are its mean and standard deviation (Rasmussen and Williams, Gaussian Processes
for Machine Learning, 2006, equations 2.25 and 2.26). Of several guesses each one lowers the doubt
about its neighbours, so they lie apart. Figures: docs/tuning.md.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import inf, log
from typing import Final

import numpy as np
import numpy.typing as npt

from coordinator.tune.problem import Problem, Rival
from gemmcast.config import KNOBS, KernelConfig
from gemmcast.objective import Objective

OF_FAMILY: Final = 0.1
"""Standard deviation of what a model errs by on all configurations of a family alike, in logs."""
OF_KNOBS: Final = 0.1
"""Of what it errs by on those with the same knobs; on layers that it never saw it is 6 to 18 %."""
READING: Final = 0.013
"""Of a reading beside the default's."""
REACH: Final = 1.5
"""Powers of two by which a knob differs before errors are less than two thirds the same."""
REACH_OF: Final = {"swizzle": 2 * REACH}
"""Of knobs that matter less."""

Values = npt.NDArray[np.float64]
"""[n_configs], or a matrix of them."""


def next_guesses(
    problem: Problem,
    differences: Mapping[KernelConfig, float],
    tried: Sequence[KernelConfig],
    count: int,
    objective: Objective,
) -> list[Rival]:
    """Up to `count` rivals that were not tried, the most promising first.

    Args:
        problem: with a default.
        differences: configuration -> logarithm of its measured cost over the default's.
        tried: those that take part already, measured or not.
    """
    assert problem.default is not None
    taken = {*tried, problem.default.config}
    left = [rival for rival in problem.rivals if rival.config not in taken]
    if len(left) <= count:
        return left
    # The default does not differ from itself.
    measured = {**differences, problem.default.config: 0.0}
    everyone = (problem.default, *problem.rivals)
    predicted = np.empty(len(everyone))
    logs = np.empty(len(everyone))
    is_taken = np.empty(len(everyone), dtype=bool)
    for i, one in enumerate(everyone):
        predicted[i] = _guess(problem, one, objective)
        logs[i] = measured.get(one.config, np.nan)
        is_taken[i] = one.config in taken
    knobs = Knobs([one.config for one in everyone])
    known = np.flatnonzero(np.isfinite(logs) & np.isfinite(predicted)).tolist()
    expected = predicted + knobs.correction(known, (logs - predicted)[known])
    return [everyone[place] for place in _apart(knobs, expected, known, is_taken, count)]


def _apart(
    knobs: Knobs, expected: Values, known: list[int], is_taken: npt.NDArray[np.bool_], count: int
) -> list[int]:
    """Places of the next ones: each lowers the doubt about those like it."""
    places: list[int] = []
    for _ in range(count):
        guesses = np.where(is_taken, inf, expected - knobs.doubt(known + places))
        # Without a finite guess, the first in the order of the list.
        best = int(guesses.argmin()) if np.isfinite(guesses).any() else int(is_taken.argmin())
        places.append(best)
        is_taken[best] = True
    return places


def predicted_log(problem: Problem, rival: Rival, objective: Objective) -> float:
    """Logarithm of a predicted cost over the default's; 0 where the model says nothing."""
    assert problem.default is not None
    cost, default = objective.of(rival.predicted), objective.of(problem.default.predicted)
    return log(cost / default) if cost and default else 0.0


def _guess(problem: Problem, rival: Rival, objective: Objective) -> float:
    is_admitted = objective.admits(rival.predicted)
    return predicted_log(problem, rival, objective) if is_admitted else inf


class Knobs:
    """How alike a model errs on configurations.

    Args:
        configs: [n_configs]. About a bare name, without knobs, nothing is learned.
    """

    def __init__(self, configs: Sequence[KernelConfig]) -> None:
        values = np.array([[getattr(one, name) for name in KNOBS] for one in configs], dtype=float)
        reach = np.array([REACH_OF.get(name, REACH) for name in KNOBS])
        self._places = np.log2(1 + values) / reach
        self._families = np.array([one.family for one in configs])
        self._has_knobs: npt.NDArray[np.bool_] = values.max(axis=1) > 0

    def correction(self, known: Sequence[int], errors: Values) -> Values:
        """[n_configs] What is to be added to predictions.

        Args:
            known: places of what was measured.
            errors: of each, measured less predicted.
        """
        shared = self._covariance(known)
        corrected: Values = shared @ np.linalg.solve(_with_noise(shared[known]), errors)
        return corrected

    def doubt(self, known: Sequence[int]) -> Values:
        """[n_configs] Standard deviation of what is left to learn."""
        shared = self._covariance(known)
        explained = shared @ np.linalg.inv(_with_noise(shared[known])) * shared
        alone = np.where(self._has_knobs, OF_FAMILY**2 + OF_KNOBS**2, 0.0)
        left: Values = np.sqrt(np.maximum(alone - explained.sum(axis=1), 0.0))
        return left

    def _covariance(self, known: Sequence[int]) -> Values:
        """[n_configs, n_known] Of the model's errors."""
        apart = self._places[:, None] - self._places[known]
        of_knobs = OF_KNOBS**2 * np.exp(-0.5 * (apart**2).sum(axis=2))
        is_alike = self._families[:, None] == self._families[None, known]
        have_knobs = self._has_knobs[:, None] & self._has_knobs[None, known]
        covariance: Values = np.where(is_alike & have_knobs, OF_FAMILY**2 + of_knobs, 0.0)
        return covariance


def _with_noise(covariance: Values) -> Values:
    return covariance + READING**2 * np.eye(len(covariance))
