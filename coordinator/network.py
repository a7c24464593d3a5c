"""An ensemble of small networks on the terms of coordinator/terms.py: fitted one by one, a few matrix products answer for all.

    inputs[n, n_inputs], terms then categories  ->  said[n, n_targets], apart[n, n_targets * members]

Each target has members of its own, fitted on the rows that have it. Their mean is the answer, and how far each is from it tells how much the
data leave open there. What a network is shown are products of powers of the terms, which in logarithms are sums, so they and the scales go into
its first layer. Inputs are held within what was seen: a network that extrapolates linearly in logarithms is off by powers.

Measured times have odd ones among them, and an error counts by its ratio, so a fit is to Huber's loss: squared for small errors, linear beyond.
scikit-learn's MLPRegressor has the squared one alone; here are AdamW (Loshchilov & Hutter, ICLR 2019) and a rate that falls as a cosine
(docs/decisions/0011).
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Final, Self

import numpy as np
import numpy.typing as npt
from joblib import Parallel, delayed

from coordinator import lean

Values = npt.NDArray[np.float64]
RATE: Final = 1e-2
# of learning, at MOST_BATCH rows a batch; with fewer less, by the root
WARM: Final = 200
# steps until that rate is reached
MOMENTS: Final = (0.9, 0.999)
TINY: Final = 1e-8
HUBER: Final = 0.1
# standard deviations of the target beyond which an error counts linearly
DECAYS: Final = (1500.0, 0.1, 1.0)
# of weights: the first over the rows, within the others, because few rows are soon learned by heart
LEAST_BATCH, MOST_BATCH, BATCHES, PASSES = 16, 256, 50, 200
# rows; BATCHES are a pass where that leaves as many rows a batch, and more than PASSES teach nothing
STEADY: Final = 1e-3
# standard deviation of an input below which its changes are rounding, which must not be made large
NARROW: Final = 1.0
# least scale of an input: what hardly varies must not decide everything about the rows where it does, as the memory's bandwidth would when
# fifty rows of another device join thousands of one


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
    """Args: inputs[n, n_shown], wanted[n]."""
    means, deviations = inputs.mean(axis=0, dtype=np.float64), inputs.std(axis=0, dtype=np.float64)
    scales = np.where(deviations < STEADY, np.inf, np.maximum(deviations, NARROW))
    middle, width = float(wanted.mean()), float(wanted.std()) or 1.0
    batch = int(np.clip(len(wanted) // BATCHES, LEAST_BATCH, MOST_BATCH))
    most = min(steps, max(1, PASSES * len(wanted) // batch))
    fitted = _descend(((inputs - means) / scales).astype(np.float32), ((wanted - middle) / width).astype(np.float32), hidden, most, batch, seed)
    weights, biases = ([values.astype(np.float64) for values in of] for of in (fitted[:3], fitted[3:]))
    # scales go into the first and the last layer
    weights[0] /= scales[:, None]
    biases[0] -= means @ weights[0]
    weights[2], biases[2] = weights[2] * width, biases[2] * width + middle
    return _Layers(tuple(w.astype(np.float32) for w in weights), tuple(b.astype(np.float32) for b in biases))


def _descend(
    inputs: npt.NDArray[np.float32], wanted: npt.NDArray[np.float32], hidden: int, steps: int, batch: int, seed: int
) -> list[npt.NDArray[np.float32]]:
    """Weights and biases, three each, of a network with two hidden layers of ReLU, for inputs [n, n_inputs] and wanted [n] of unit scale."""
    rng = np.random.default_rng(seed)
    sizes = (inputs.shape[1], hidden, hidden, 1)
    fitted = [(rng.standard_normal((a, b)) * np.sqrt(2 / a)).astype(np.float32) for a, b in pairwise(sizes)]  # He et al., ICCV 2015
    fitted[2] *= np.float32(HUBER)  # so that answers begin near the mean
    fitted += [np.zeros(b, dtype=np.float32) for b in sizes[1:]]
    first, second = ([np.zeros_like(values) for values in fitted] for _ in range(2))
    batch = min(batch, len(wanted))
    rate, decay = RATE * np.sqrt(batch / MOST_BATCH), float(np.clip(DECAYS[0] / len(wanted), *DECAYS[1:]))
    order, at = rng.permutation(len(wanted)), 0
    for step in range(1, steps + 1):
        if at + batch > len(wanted):
            order, at = rng.permutation(len(wanted)), 0
        rows, at = order[at : at + batch], at + batch
        now = rate * min(1.0, step / WARM) * (1 + np.cos(np.pi * step / steps)) / 2
        by_first, by_second = (1 - moment**step for moment in MOMENTS)
        for i, slope in enumerate(_slopes(fitted, inputs[rows], wanted[rows])):
            first[i] += np.float32(1 - MOMENTS[0]) * (slope - first[i])
            second[i] += np.float32(1 - MOMENTS[1]) * (slope * slope - second[i])
            fitted[i] -= np.float32(now / by_first) * first[i] / (np.sqrt(second[i] / np.float32(by_second)) + np.float32(TINY))
            if i < len(sizes) - 1:
                fitted[i] *= np.float32(1 - now * decay)
    return fitted


def _slopes(fitted: list[npt.NDArray[np.float32]], inputs: npt.NDArray[np.float32], wanted: npt.NDArray[np.float32]) -> list[npt.NDArray[np.float32]]:
    """Of the mean of Huber's loss over a batch, by everything that is fitted; backpropagation."""
    weights, biases = fitted[:3], fitted[3:]
    one = lean.relu(inputs @ weights[0] + biases[0])
    two = lean.relu(one @ weights[1] + biases[1])
    off = (two @ weights[2] + biases[2])[:, 0] - wanted
    by_answer = (np.clip(off / np.float32(HUBER), -1, 1) / np.float32(len(wanted)))[:, None]
    by_two = (by_answer @ weights[2].T) * (two > 0)
    by_one = (by_two @ weights[1].T) * (one > 0)
    layers = ((inputs, by_one), (one, by_two), (two, by_answer))
    return [x.T @ by for x, by in layers] + [by.sum(axis=0) for _, by in layers]
