"""An ensemble of small networks on the terms of coordinator/terms.py: scikit-learn fits the members, one batch of products answers for all.

    terms[len(TERMS), n], categories[n_categories, n]  ->  answers[n_targets, n], spread[n_targets, n]

A member is a scikit-learn MLPRegressor. Each target has members of its own, fitted on the rows that have it, and of the same
architecture, so that the members' weights are stacked and a question goes through all of them in the same few nodes. Their mean is the answer,
and how far they are apart tells how much the data leave open there. Inputs are held within what was seen: a network that extrapolates
linearly in logarithms is off by powers.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, Self

import numpy as np
import numpy.typing as npt
from joblib import Parallel, delayed
from sklearn.exceptions import ConvergenceWarning
from sklearn.neural_network import MLPRegressor
from sklearn.preprocessing import StandardScaler

from coordinator import lean

Values = npt.NDArray[np.float64]
HIDDEN: Final = 64
NOTHING: Final = float(np.log(0.05))
# a microsecond or a count less than that is nothing
RATES: Final = ((2e-3, 80), (5e-4, 25), (1e-4, 15))
# learning rate and passes over the rows, one after the other
PENALTY: Final = 2e-2
BATCHES: Final = 130
# of a pass, where that leaves 16 to 256 rows a batch
STEADY: Final = 1e-3
# standard deviation of an input below which its changes are rounding, which must not be made large
MOST_STEPS: Final = 10_000
SIGMAS: Final = {1: 1.0, 2: 1.128, 3: 1.693, 4: 2.059, 5: 2.326, 6: 2.534, 7: 2.704, 8: 2.847}
# mean range of so many normal numbers, in standard deviations: the factor d2 of control charts


@dataclass(frozen=True)
class _Layers:
    """One member: weights[out, in] and biases[out] from scaled inputs to the scaled target, and those scales."""

    weights: tuple[npt.NDArray[np.float32], ...]
    biases: tuple[npt.NDArray[np.float32], ...]


class Ensemble:
    """Args: members: of each target. targets: their names, the order of the answers."""

    def __init__(self, targets: Sequence[str], members: int) -> None:
        self.targets, self.members = tuple(targets), members

    def fit(self, inputs: npt.NDArray[np.float32], wanted: dict[str, Values]) -> Self:
        """Args: inputs[n_inputs, n], terms then categories; wanted: target -> [n], NaN where it was not read."""
        self.low_, self.high_ = np.maximum(inputs.min(axis=1, keepdims=True), np.float32(NOTHING)), inputs.max(axis=1, keepdims=True)
        self.high_ = np.maximum(self.low_, self.high_)
        rows = self._held(np, inputs).T
        jobs = [(target, seed) for target in self.targets for seed in range(self.members)]
        known = {target: ~np.isnan(wanted[target]) for target in self.targets}
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        fitted = Parallel(n_jobs=min(cores, len(jobs)), inner_max_num_threads=1, backend="loky")(
            delayed(_fit_member)(rows[known[target]], wanted[target][known[target]], seed) for target, seed in jobs
        )
        first, second, last = (np.stack([member.weights[i] for member in fitted]) for i in range(3))
        biases = [np.stack([member.biases[i] for member in fitted])[:, :, None] for i in range(3)]
        self.first_ = first.reshape(-1, first.shape[-1]), biases[0].reshape(-1, 1)
        # [n_members * HIDDEN, n_inputs]: one product for all members
        self.second_, self.last_ = (second, biases[1]), (last, biases[2])
        # [n_members, out, in]
        return self

    def answer(self, inputs: Any) -> tuple[Any, Any]:
        """(answers, spread), each [n_targets, n], of inputs[n_inputs, n]: mean and range of the members (SIGMAS makes a standard deviation
        of a range); array-API code, traced into the graph."""
        xp = inputs.__array_namespace__()
        zero, count = xp.asarray(np.float32(0)), len(self.targets) * self.members
        hidden = xp.maximum(lean.gemm(xp.asarray(self.first_[0]), self._held(xp, inputs), xp.asarray(self.first_[1])), zero)
        hidden = xp.reshape(hidden, (count, HIDDEN, -1))
        hidden = xp.maximum(lean.matmul(xp.asarray(self.second_[0]), hidden) + xp.asarray(self.second_[1]), zero)
        said = lean.matmul(xp.asarray(self.last_[0]), hidden) + xp.asarray(self.last_[1])
        said = xp.reshape(said, (len(self.targets), self.members, -1))
        return lean.mean(said, axis=1), lean.largest(said, axis=1, keep=False) - lean.smallest(said, axis=1, keep=False)

    def _held(self, xp: Any, inputs: Any) -> Any:
        return xp.minimum(xp.maximum(inputs, xp.asarray(self.low_)), xp.asarray(self.high_))


def _fit_member(inputs: npt.NDArray[np.float32], wanted: Values, seed: int) -> _Layers:
    scaler = StandardScaler().fit(inputs.astype(np.float64))
    steady = np.sqrt(scaler.var_) < STEADY
    scaled = np.where(steady, 0.0, scaler.transform(inputs.astype(np.float64)))
    middle, width = float(wanted.mean()), float(wanted.std()) or 1.0
    batch = int(np.clip(len(wanted) // BATCHES, 16, 256))
    passes = min(1.0, MOST_STEPS / (sum(count for _, count in RATES) * len(wanted) / batch))
    network = MLPRegressor(hidden_layer_sizes=(HIDDEN, HIDDEN), alpha=PENALTY, batch_size=min(batch, len(wanted)), random_state=seed, warm_start=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # the passes are ours to count
        for rate, count in RATES:
            network.set_params(learning_rate_init=rate, max_iter=max(1, round(count * passes)), n_iter_no_change=10**6)
            network._optimizer = None  # a warm start otherwise keeps the old rate
            network.fit(scaled, (wanted - middle) / width)
    weights, biases = [w.T.copy() for w in network.coefs_], list(network.intercepts_)
    weights[0][:, steady] = 0
    # scales go into the first and the last layer
    biases[0] = biases[0] - weights[0] @ (scaler.mean_ / scaler.scale_)
    weights[0] = weights[0] / scaler.scale_
    weights[2], biases[2] = weights[2] * width, biases[2] * width + middle
    return _Layers(tuple(w.astype(np.float32) for w in weights), tuple(b.astype(np.float32) for b in biases))
