"""An ensemble of small networks on the terms of coordinator/terms.py: scikit-learn fits the members, a few matrix products answer for all.

    inputs[n, n_inputs], terms then categories  ->  said[n, n_targets], apart[n, n_targets * members]

A member is a scikit-learn MLPRegressor. Each target has members of its own, fitted on the rows that have it. Their mean is the answer, and how
far each is from it tells how much the data leave open there. What a network is shown are products of powers of the terms, which in logarithms
are sums, so they and the scales go into its first layer. Inputs are held within what was seen: a network that extrapolates linearly in
logarithms is off by powers.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Mapping
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
RATES: Final = ((2e-3, 80), (5e-4, 25), (1e-4, 15))
# learning rate and passes over the rows, one after the other
PENALTIES: Final = (20.0, 1e-2, 1e-1)
# on large weights: the first over the rows, within the others, because few rows are soon learned by heart
BATCHES: Final = 130
# of a pass, where that leaves 16 to 256 rows a batch
STEADY: Final = 1e-3
# standard deviation of an input below which its changes are rounding, which must not be made large


@dataclass(frozen=True)
class _Layers:
    """One member: weights[in, out] and biases[out]."""

    weights: tuple[npt.NDArray[np.float32], ...]
    biases: tuple[npt.NDArray[np.float32], ...]


class Ensemble:
    """An ensemble for each target.

    Args:
        hidden: targets in the order of the answers, and how wide both hidden layers of their networks are.
        members: networks of each target.
        steps: of gradient descent, at most, in the fit of one of them.
    """

    def __init__(self, hidden: Mapping[str, int], members: int, steps: int) -> None:
        self.hidden, self.members, self.steps = dict(hidden), members, steps

    def fit(self, inputs: npt.NDArray[np.float32], shown: npt.NDArray[np.float32], wanted: Mapping[str, Values]) -> Self:
        """Args:
        inputs: [n, n_inputs].
        shown: [n_inputs, n_shown], the sums of them that a network is shown.
        wanted: target -> [n], NaN where it was not read.
        """
        self.low_, self.high_ = inputs.min(axis=0), inputs.max(axis=0)
        self.middle_ = inputs.mean(axis=0, dtype=np.float64).astype(np.float32)
        rows = self._held(np, inputs) @ shown
        jobs = [(target, seed) for target in self.hidden for seed in range(self.members)]
        known = {target: ~np.isnan(wanted[target]) for target in self.hidden}
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        fitted = Parallel(n_jobs=min(cores, len(jobs)), inner_max_num_threads=1, backend="loky")(
            delayed(_fit_member)(rows[known[target]], wanted[target][known[target]], self.hidden[target], self.steps, seed) for target, seed in jobs
        )
        self.first_ = shown @ np.concatenate([member.weights[0] for member in fitted], axis=1), np.concatenate([m.biases[0] for m in fitted])
        # one product for all members
        self.second_ = [(member.weights[1], member.biases[1]) for member in fitted]
        self.last_ = self._last(fitted)
        return self

    def answer(self, inputs: Any) -> tuple[Any, Any]:
        """(said, apart) of inputs[n, n_inputs]: the members' mean, and each member's distance from it; array-API code, traced into the graph."""
        xp = inputs.__array_namespace__()

        def layer(x: Any, weights: Any, biases: Any) -> Any:
            return lean.gemm(x, xp.asarray(weights), xp.asarray(biases))

        first = lean.relu(layer(self._held(xp, inputs), *self.first_))
        parts = lean.split(first, [len(biases) for _, biases in self.second_])
        second = xp.concat([lean.relu(layer(x, *of)) for x, of in zip(parts, self.second_, strict=True)], axis=1)
        said, apart = self.last_
        return layer(second, *said), xp.abs(layer(second, *apart))

    def _held(self, xp: Any, inputs: Any) -> Any:
        return lean.most(lean.least(inputs, xp.asarray(self.high_)), xp.asarray(self.low_)) - xp.asarray(self.middle_)

    def _last(self, fitted: list[_Layers]) -> tuple[tuple[Any, Any], tuple[Any, Any]]:
        """Weights and biases from all last hidden layers to the mean of each target's members, and to their differences from it."""
        ends = np.cumsum([0, *(len(member.weights[2]) for member in fitted)])
        each = np.zeros((ends[-1], len(fitted)), dtype=np.float64)
        for i, member in enumerate(fitted):
            each[ends[i] : ends[i + 1], i] = member.weights[2][:, 0]
        biases = np.concatenate([member.biases[2] for member in fitted]).astype(np.float64)
        mean = np.kron(np.eye(len(self.hidden)), np.full((self.members, 1), 1 / self.members))
        apart = np.eye(len(fitted)) - np.kron(np.eye(len(self.hidden)), np.full((self.members, self.members), 1 / self.members))
        return tuple(((each @ to).astype(np.float32), (biases @ to).astype(np.float32)) for to in (mean, apart))  # type: ignore[return-value]


def _fit_member(inputs: npt.NDArray[np.float32], wanted: Values, hidden: int, steps: int, seed: int) -> _Layers:
    scaler = StandardScaler().fit(inputs.astype(np.float64))
    steady = np.sqrt(scaler.var_) < STEADY
    scaled = np.where(steady, 0.0, scaler.transform(inputs.astype(np.float64))).astype(np.float32)
    middle, width = float(wanted.mean()), float(wanted.std()) or 1.0
    batch = int(np.clip(len(wanted) // BATCHES, 16, 256))
    passes = min(1.0, steps / (sum(count for _, count in RATES) * len(wanted) / batch))
    times, least, most = PENALTIES
    network = MLPRegressor(
        hidden_layer_sizes=(hidden, hidden), alpha=float(np.clip(times / len(wanted), least, most)), batch_size=min(batch, len(wanted)),
        random_state=seed, warm_start=True,
    )  # fmt: skip
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # the passes are ours to count
        for rate, count in RATES:
            network.set_params(learning_rate_init=rate, max_iter=max(1, round(count * passes)), n_iter_no_change=10**6)
            network._optimizer = None  # a warm start otherwise keeps the old rate
            network.fit(scaled, ((wanted - middle) / width).astype(np.float32))
    weights, biases = [w.astype(np.float64) for w in network.coefs_], [b.astype(np.float64) for b in network.intercepts_]
    weights[0][steady] = 0
    # scales go into the first and the last layer
    weights[0] /= scaler.scale_[:, None]
    biases[0] -= scaler.mean_ @ weights[0]
    weights[2], biases[2] = weights[2] * width, biases[2] * width + middle
    return _Layers(tuple(w.astype(np.float32) for w in weights), tuple(b.astype(np.float32) for b in biases))
