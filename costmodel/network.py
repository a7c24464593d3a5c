"""An ensemble of small networks on the terms of costmodel/terms.py: fitted one by one, a few matrix products answer for all.

    inputs[n, n_inputs], terms then categories  ->  [n, n_targets + n_networks], a mean for each target, and how far each network is from it

Each target has members of its own, fitted on the rows that have it. Their mean is the answer, and how far each is from it tells how much the
data leave open there. The other targets' networks are told the answer for the first one, the runtime, and were fitted beside the measured one: what
a board draws goes by how fast the work is done. What a network is shown are products of powers of the terms, which in logarithms are sums, so they
and the scales go into its first layer. Inputs are held within what was seen: a network that extrapolates linearly in logarithms is off by powers.

Measured times have odd ones among them, and an error counts by its ratio, so a fit is to Huber's loss: squared for small errors, linear beyond.
scikit-learn's MLPRegressor has the squared one alone; here are AdamW (Loshchilov & Hutter, ICLR 2019) and a rate that falls as a cosine
(docs/decisions/0011).
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Final, NamedTuple, Self

import numpy as np
import numpy.typing as npt
from joblib import Parallel, delayed
from scipy.linalg import block_diag

from costmodel import graph_ops

Values = npt.NDArray[np.float64]
RATE: Final = 1e-2
# of learning, at MOST_BATCH rows a batch; with fewer less, by the root
WARM: Final = 200
# steps until that rate is reached
MOMENTS: Final = (0.9, 0.999)
TINY: Final = 1e-8
HUBER: Final = 0.05
# standard deviations of the target beyond which an error counts linearly
DECAYS: Final = (600.0, 0.1, 1.0)
# of weights: the first over the rows, within the others, because few rows are soon learned by heart
LEAST_BATCH, MOST_BATCH, BATCHES = 16, 256, 50
# rows; BATCHES are a pass where that leaves as many rows a batch
STEPS, PASSES = 5_000, (70, 100)
# so many steps, but no fewer nor more passes over the rows; the longest fits have a limit beside (Ensemble)
ROUGH: Final = 32
# width of the network that only has to tell which of many questions are worth the others
STEADY: Final = 1e-3
# standard deviation of an input below which its changes are rounding, which must not be made large
STEEP: Final = 1.7
# of the hidden layers' x / (1 + e^(-STEEP x)), about the GELU of Hendrycks & Gimpel (arXiv 1606.08415)
NARROW: Final = 1.0
# least scale of an input: what hardly varies must not decide everything about the rows where it does, as the memory's bandwidth would when
# fifty rows of another device join thousands of one


@dataclass(frozen=True)
class _Layers:
    """One member: weights[in, out] and biases[out]."""

    weights: tuple[npt.NDArray[np.float32], ...]
    biases: tuple[npt.NDArray[np.float32], ...]


class Size(NamedTuple):
    """Of one target's networks."""

    width: int
    # of both hidden layers
    members: int


class Ensemble:
    """An ensemble for each target.

    Args:
        sizes: targets in the order of the answers. The first one's answer is told to the networks of the others.
        steps: of gradient descent, at most, in the fit of one network.
    """

    def __init__(self, sizes: Mapping[str, Size], steps: int) -> None:
        self.sizes, self.steps = dict(sizes), steps
        self.jobs = [(target, seed) for target, size in self.sizes.items() for seed in range(size.members)]
        # one network each

    def fit(self, inputs: npt.NDArray[np.float32], shown: npt.NDArray[np.float32], wanted: Mapping[str, Values], *, rough: bool = True) -> Self:
        """Args:
        inputs: [n, n_inputs].
        shown: [n_inputs, n_shown], the sums of them that a network is shown.
        wanted: target -> [n], NaN where it was not read.
        rough: whether `rough` will be asked.
        """
        self.low_, self.high_ = inputs.min(axis=0), inputs.max(axis=0)
        self.middle_ = inputs.mean(axis=0, dtype=np.float64).astype(np.float32)
        lead = next(iter(self.sizes))
        rows = self._held(np, inputs) @ shown
        rows_of = {target: rows if target == lead else np.column_stack([rows, wanted[lead].astype(np.float32)]) for target in self.sizes}
        known = {target: ~np.isnan(wanted[target]) for target in self.sizes}
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        tasks = [(target, seed, self.sizes[target].width) for target, seed in self.jobs] + [(lead, 0, ROUGH)] * rough
        fitted = Parallel(n_jobs=min(cores, len(tasks)), inner_max_num_threads=1, backend="loky")(
            delayed(_fit_member)(rows_of[target][known[target]], wanted[target][known[target]], width, self.steps, seed)
            for target, seed, width in tasks
        )
        if rough:
            *fitted, small = fitted
            self.rough_ = [(shown @ small.weights[0], small.biases[0]), *zip(small.weights[1:], small.biases[1:], strict=True)]
        self.first_ = (
            shown @ np.concatenate([member.weights[0][: rows.shape[1]] for member in fitted], axis=1),
            np.concatenate([member.biases[0] for member in fitted]),
        )
        # one product for all networks
        leading, others = fitted[: self.sizes[lead].members], fitted[self.sizes[lead].members :]
        self.second_ = [(member.weights[1], member.biases[1]) for member in leading]
        self.others_, self.runtime_input = None, None
        if others:  # they are small: one product with many zeros takes less time than one for each
            self.others_ = block_diag(*(member.weights[1] for member in others)), np.concatenate([member.biases[1] for member in others])
            self.runtime_input = np.concatenate([member.weights[0][rows.shape[1] :] for member in others], axis=1)
            # [1, n]: by the first target's answer, into the others' first layers
        self.last_ = self._last(fitted)
        return self

    def answer(self, inputs: Any) -> Any:
        """[n, n_targets + n_networks] of inputs[n, n_inputs]: each target's mean over its networks, then each network's distance from it, with its
        sign; array-API code, traced into the graph."""
        xp = inputs.__array_namespace__()

        def layer(x: Any, weights: Any, biases: Any) -> Any:
            return graph_ops.gemm(x, xp.asarray(weights), xp.asarray(biases))

        widths = [len(biases) for _, biases in self.second_]
        parts = [layer(self._held(xp, inputs), *self.first_)]
        if self.others_ is not None:
            parts = graph_ops.split(parts[0], [sum(widths), len(self.others_[1])])
        firsts = graph_ops.split(graph_ops.silu(parts[0]), widths)
        second = graph_ops.silu(xp.concat([layer(first, *of) for first, of in zip(firsts, self.second_, strict=True)], axis=1))
        weights, biases = self.last_
        if self.others_ is not None:
            lead = layer(second, weights[: sum(widths), :1], biases[:1])
            told = graph_ops.silu(graph_ops.gemm(lead, xp.asarray(self.runtime_input), parts[1]))
            second = xp.concat([second, graph_ops.silu(layer(told, *self.others_))], axis=1)
        return layer(second, weights, biases)

    def rough(self, inputs: Any) -> Any:
        """[n, 1] of inputs[n, n_inputs]: about the first target, by one small network, for a twentieth of the arithmetic; array-API code."""
        xp = inputs.__array_namespace__()
        x = self._held(xp, inputs)
        *hidden, last = self.rough_
        for weights, biases in hidden:
            x = graph_ops.silu(graph_ops.gemm(x, xp.asarray(weights), xp.asarray(biases)))
        return graph_ops.gemm(x, xp.asarray(last[0]), xp.asarray(last[1]))

    def _held(self, xp: Any, inputs: Any) -> Any:
        return graph_ops.most(graph_ops.least(inputs, xp.asarray(self.high_)), xp.asarray(self.low_)) - xp.asarray(self.middle_)

    def _last(self, fitted: list[_Layers]) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
        """Weights and biases from all last hidden layers to the targets' means and each network's difference from its own."""
        each = block_diag(*(member.weights[2].astype(np.float64) for member in fitted))
        biases = np.concatenate([member.biases[2] for member in fitted]).astype(np.float64)
        mean = block_diag(*(np.full((size.members, 1), 1 / size.members) for size in self.sizes.values()))
        of_target = block_diag(*(np.full((size.members, size.members), 1 / size.members) for size in self.sizes.values()))
        to = np.concatenate([mean, np.eye(len(fitted)) - of_target], axis=1)
        return (each @ to).astype(np.float32), (biases @ to).astype(np.float32)


def _fit_member(inputs: npt.NDArray[np.float32], wanted: Values, hidden: int, steps: int, seed: int) -> _Layers:
    """Args: inputs[n, n_shown], wanted[n]."""
    means, deviations = inputs.mean(axis=0, dtype=np.float64), inputs.std(axis=0, dtype=np.float64)
    scales = np.where(deviations < STEADY, np.inf, np.maximum(deviations, NARROW))
    middle, width = float(wanted.mean()), float(wanted.std()) or 1.0
    batch = int(np.clip(len(wanted) // BATCHES, LEAST_BATCH, MOST_BATCH))
    least, most = (max(1, passes * len(wanted) // batch) for passes in PASSES)
    steps = min(steps, max(least, min(STEPS, most)))
    fitted = _descend(((inputs - means) / scales).astype(np.float32), ((wanted - middle) / width).astype(np.float32), hidden, steps, batch, seed)
    weights, biases = ([values.astype(np.float64) for values in of] for of in (fitted[:3], fitted[3:]))
    # scales go into the layers
    weights[0] *= STEEP / scales[:, None]
    biases[0] = STEEP * biases[0] - means @ weights[0]
    biases[1] *= STEEP
    weights[2], biases[2] = weights[2] * width / STEEP, biases[2] * width + middle
    return _Layers(tuple(w.astype(np.float32) for w in weights), tuple(b.astype(np.float32) for b in biases))


def _descend(
    inputs: npt.NDArray[np.float32], wanted: npt.NDArray[np.float32], hidden: int, steps: int, batch: int, seed: int
) -> list[npt.NDArray[np.float32]]:
    """Weights and biases, three each, of a network with two hidden layers, for inputs [n, n_inputs] and wanted [n] of unit scale."""
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
    one, by_first = _bent(inputs @ weights[0] + biases[0])
    two, by_second = _bent(one @ weights[1] + biases[1])
    off = (two @ weights[2] + biases[2])[:, 0] - wanted
    by_answer = (np.clip(off / np.float32(HUBER), -1, 1) / np.float32(len(wanted)))[:, None]
    by_two = (by_answer @ weights[2].T) * by_second
    by_one = (by_two @ weights[1].T) * by_first
    layers = ((inputs, by_one), (one, by_two), (two, by_answer))
    return [x.T @ by for x, by in layers] + [by.sum(axis=0) for _, by in layers]


def _bent(x: npt.NDArray[np.float32]) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """What a hidden layer makes of its sums, and the slope there."""
    share = 0.5 + 0.5 * np.tanh(np.float32(STEEP / 2) * x)
    bent = x * share
    return bent, share * (1 + np.float32(STEEP) * (x - bent))
