"""Which cells to measure next, so that the model learns most per second of the device.

    k(i, j) = Matern(|x_i - x_j|),   x: the model's own inputs, standardised
    gain_i  = sum over candidates j of cov(i, j)^2 / (variance_i + noise) / seconds_i

A Gaussian process stands for what the model does not know: cells that are alike for the model say
the same. The next cell is the one whose answer lowers the variance of all candidates together most,
per second (Cohn, Neural Networks 1996; Seo et al., IJCNN 2000). `logdet` takes the one of the
largest variance, the greedy mode of a k-DPP (Chen et al., NeurIPS 2018); `doubted` lets the process
vary as the model's doubt does. Both were worse (docs/decisions/0021-planner.md). Random features
(Rahimi & Recht, NeurIPS 2007) make a step linear in the candidates. Shape legend: queries[n,
n_fields], inputs[n, n_inputs], features[n, FEATURES]. Knows nothing of plans, agents or stores.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from gemmcast.errors import InputError
from gemmcast.query import EXTRAPOLATING, INTERVALS, Rows

Values = npt.NDArray[np.float64]
"""[n]"""
Matrix = npt.NDArray[np.float32]
"""[n, n_columns]"""
Indices = npt.NDArray[np.int64]
"""Numbers of candidates."""

FEATURES: Final = 256
"""Random features of the process: pairs of cosine and sine."""
DEGREES: Final = 3
"""Of freedom of their frequencies, which makes the process a Matern one of order 3/2."""
LENGTH: Final = 0.35
"""Distance over which cells are alike, in medians of the distance between two candidates."""
NOISE: Final = 1.0
"""Variance of a measured cell's answer that says nothing of others, over that of the process."""
LEAST_SCALE: Final = 0.5
"""Least scale of an input, as in costmodel/network.py: one that hardly varies tells little."""
NORMAL_90: Final = 1.645
"""Standard deviations that 90 % of a normal distribution lie within, to either side."""
PAIRS: Final = 2_000
"""Of candidates, whose distances give the median."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """What a method chooses from."""

    inputs: Matrix
    """[n, n_inputs] of the candidates, standardised."""
    known: Matrix
    """[n_known, n_inputs] of what is measured already."""
    doubt: Values
    """[n] standard deviation of the model's answer at each candidate; only ratios count."""
    seconds: Values
    """[n] what a candidate costs."""
    rng: np.random.Generator


def choose(
    candidates: Rows,
    known: Rows,
    count: int,
    method: str = "planner",
    *,
    doubt: Values | None = None,
    seconds: Values | None = None,
    seed: int = 0,
) -> Indices:
    """The candidates to measure next, the best first; the same for the same arguments.

    Args:
        candidates: [n, n_fields] queries of the cells that may be measured.
        known: [n_known, n_fields] queries of those that are measured, or that will be.
        count: how many; all of them, where there are no more.
        method: a name of METHODS.
        doubt: [n] of the model at the candidates, see `doubt_of`; for `doubt` and `doubted`.
        seconds: [n] of the device for each candidate; None: all cost the same.
        seed: of the random features, and of `random`.

    Returns:
        [count] numbers of candidates.

    Raises:
        InputError: an unknown method.
    """
    if method not in METHODS:
        raise InputError("method", method, "unknown method", f"use one of {', '.join(METHODS)}")
    n = len(candidates)
    count = min(count, n)
    if count <= 0:
        return np.empty(0, dtype=np.int64)
    inputs = model_inputs(np.concatenate([candidates, known]))
    task = Task(
        inputs=inputs[:n],
        known=inputs[n:],
        doubt=np.ones(n) if doubt is None else np.asarray(doubt, dtype=np.float64),
        seconds=np.ones(n) if seconds is None else np.asarray(seconds, dtype=np.float64),
        rng=np.random.default_rng(seed),
    )
    return METHODS[method](task, count)


def doubt_of(answers: Mapping[str, npt.NDArray[np.generic]]) -> Values:
    """[n] Standard deviation of the runtime's logarithm, by the model's own intervals.

    Outside of the training range they say little: there it is the largest of all.

    Args:
        answers: of a model file (`LoadedModel.run`) or of a fitted `CostModel`.
    """
    low, high = (np.asarray(answers[side][:, 0], dtype=np.float64) for side in INTERVALS)
    deviations: Values = np.log(high / low) / (2 * NORMAL_90)
    is_outside = np.asarray(answers[EXTRAPOLATING], dtype=bool)
    return np.where(is_outside, deviations.max(initial=0.0), deviations)


def model_inputs(queries: Rows) -> Matrix:
    """[n, n_inputs] What the model's networks see of these queries, each input of unit scale."""
    # They take a second to import, and most runs have no budget.
    from costmodel.categories import Categories
    from costmodel.seen import Seen, middle_of
    from costmodel.terms import terms

    quantities = terms(queries).quantities
    one_hot = Categories.of(queries).one_hot(queries)
    seen = Seen.of(quantities, middle_of(quantities))
    inputs = np.concatenate([seen(quantities), one_hot], axis=1)
    centred = inputs - inputs.mean(axis=0)
    scaled: Matrix = centred / np.maximum(centred.std(axis=0), LEAST_SCALE)
    return scaled.astype(np.float32)


def random(task: Task, count: int) -> Indices:
    """Any candidates."""
    return task.rng.permutation(len(task.inputs))[:count]


def grid(task: Task, count: int) -> Indices:
    """Evenly spaced ones, in the order of the inputs: dimensions first."""
    order = np.lexsort(task.inputs.T[::-1])
    places = np.linspace(0, len(order) - 1, count)
    return order[places.round().astype(np.int64)]


def doubt_alone(task: Task, count: int) -> Indices:
    """Those that the model is least sure of, per second."""
    ties = task.rng.random(len(task.doubt))
    return np.lexsort((ties, -task.doubt / task.seconds))[:count]


def logdet(task: Task, count: int) -> Indices:
    """Those that differ most from each other and from what is known."""
    return _greedy(task, count, Process(task, np.ones(len(task.inputs))), Process.variances)


def planner(task: Task, count: int) -> Indices:
    """Those that leave the least variance over all candidates."""
    return _greedy(task, count, Process(task, np.ones(len(task.inputs))), Process.gains)


def doubted(task: Task, count: int) -> Indices:
    """The same where the process varies as much as the model is in doubt."""
    return _greedy(task, count, Process(task, task.doubt), Process.gains)


def _greedy(
    task: Task, count: int, process: Process, value: Callable[[Process], Values]
) -> Indices:
    """One after another the candidate of the largest value per second."""
    is_free = np.ones(len(task.inputs), dtype=bool)
    chosen: list[int] = []
    for _ in range(count):
        per_second = np.where(is_free, value(process) / task.seconds, -np.inf)
        best = int(np.argmax(per_second))
        is_free[best] = False
        chosen.append(best)
        process.measure(best)
    return np.array(chosen, dtype=np.int64)


class Process:
    """A Gaussian process over the candidates, given what is known.

    With features F, covariance S of their weights and H = S F'F S:  variance = diag(F S F'),
    and the sum of cov(i, j)^2 over j is diag(F H F'). A measured cell changes S by a product of two
    vectors, so each step is linear in candidates and features.
    """

    def __init__(self, task: Task, deviations: Values) -> None:
        features = _Features(task)
        scale = deviations / np.sqrt(np.mean(deviations**2))
        self._features = features.of(task.inputs) * scale[:, None].astype(np.float32)
        self._covariance = _posterior(features.of(task.known))
        squares = self._features.T @ self._features
        self._spread = self._covariance @ squares.astype(np.float64) @ self._covariance
        self._variance = self._quadratic(self._covariance)
        self._explained = self._quadratic(self._spread)

    def variances(self) -> Values:
        """[n] What is left open at each candidate."""
        return self._variance

    def gains(self) -> Values:
        """[n] By how much the sum of all variances falls, when a candidate is measured."""
        gains: Values = self._explained / (self._variance + NOISE)
        return gains

    def measure(self, candidate: int) -> None:
        """A candidate's answer is known from here on."""
        row = self._features[candidate].astype(np.float64)
        weights = self._covariance @ row
        spread = self._spread @ row
        total = NOISE + row @ weights
        square = row @ spread / total
        both = np.stack([weights, spread], axis=1).astype(np.float32)
        covariance, crossing = (self._features @ both).T.astype(np.float64)
        self._variance = self._variance - covariance**2 / total
        crossed = 2 * crossing - square * covariance
        self._explained = self._explained - crossed * covariance / total
        mixed = np.outer(weights, spread) / total
        own = np.outer(weights, weights) / total
        self._spread += square * own - mixed - mixed.T
        self._covariance -= own

    def _quadratic(self, form: Values) -> Values:
        """[n] x'Ax of each candidate's features x."""
        product = self._features @ form.astype(np.float32)
        values: Values = np.einsum("ij,ij->i", product, self._features).astype(np.float64)
        return values


class _Features:
    """Random features whose products are the Matern covariance of two inputs."""

    def __init__(self, task: Task) -> None:
        n, n_inputs = task.inputs.shape
        pairs = task.rng.integers(n, size=(2, PAIRS))
        distances = np.linalg.norm(task.inputs[pairs[0]] - task.inputs[pairs[1]], axis=1)
        length = LENGTH * (float(np.median(distances)) or 1.0)
        waves = FEATURES // 2
        frequencies = task.rng.standard_normal((n_inputs, waves)) / length
        tails = np.sqrt(task.rng.chisquare(DEGREES, waves) / DEGREES)
        self._frequencies = (frequencies / tails).astype(np.float32)

    def of(self, inputs: Matrix) -> Matrix:
        """[n, FEATURES]"""
        angles = inputs @ self._frequencies
        waves = np.concatenate([np.cos(angles), np.sin(angles)], axis=1)
        return np.asarray(waves / np.sqrt(FEATURES / 2), dtype=np.float32)


def _posterior(known: Matrix) -> Values:
    """[FEATURES, FEATURES] covariance of the weights, given the known features."""
    squares = (known.T @ known).astype(np.float64)
    precision = np.eye(FEATURES) + squares / NOISE
    return np.asarray(np.linalg.inv(precision), dtype=np.float64)


METHODS: Final[dict[str, Callable[[Task, int], Indices]]] = {
    "planner": planner,
    "doubted": doubted,
    "logdet": logdet,
    "doubt": doubt_alone,
    "grid": grid,
    "random": random,
}
"""Ways to choose, by name."""
