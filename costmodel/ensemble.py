"""Several small networks for each target, in a few matrix products.

    inputs[n, n_inputs]  ->  mean[n, n_targets], spread[n, n_targets]

The mean over the networks of a target is the prediction. The mean distance of the networks from it,
the spread, shows how much the data leave open at this point. The first target leads: its prediction
is one more input of the networks of the others, which were fitted with the measured value there
(what a board draws depends on how fast the work is done). Inputs are near 0 and no further than
those of the training rows (costmodel/seen.py).
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Final, NamedTuple, Self

import numpy as np
from joblib import Parallel, delayed
from scipy.linalg import block_diag

from costmodel import graph_ops
from costmodel.graph_ops import Array
from costmodel.network import Matrix, Network, Values, fit_network
from costmodel.progress import Step, no_step

PREFILTER_WIDTH: Final = 32
"""Of the network that ranks many configurations before the whole model scores the best of them."""


class Size(NamedTuple):
    """Of the networks of one target."""

    width: int
    """Of both hidden layers."""
    members: int


class Layer(NamedTuple):
    """x @ weights + biases."""

    weights: Matrix
    biases: Matrix

    def __call__(self, x: Array) -> Array:
        """[n, n_out] of x[n, n_in]."""
        xp = x.__array_namespace__()
        return graph_ops.gemm(x, xp.asarray(self.weights), xp.asarray(self.biases))


class Prediction(NamedTuple):
    """Of every target, in the order of the sizes."""

    mean: Array
    """[n, n_targets]."""
    spread: Array
    """[n, n_targets] mean distance of the networks from the mean."""


class Ensemble:
    """Networks for each target.

    Args:
        sizes: of each target; the first one leads.
        max_steps: of gradient descent, in the fit of one network.
    """

    def __init__(self, sizes: Mapping[str, Size], max_steps: int) -> None:
        self.sizes = dict(sizes)
        self.max_steps = max_steps
        self.leader = next(iter(self.sizes))

    def fit(
        self,
        inputs: Matrix,
        targets: Mapping[str, Values],
        *,
        prefilter: bool = True,
        step: Step = no_step,
    ) -> Self:
        """Fit every network on the rows where its target was measured, in parallel.

        Args:
            inputs: [n, n_inputs].
            targets: target -> [n], NaN where it was not measured.
            prefilter: whether `prefilter` will be called.
            step: called after each network.
        """
        with_leader = np.column_stack([inputs, targets[self.leader].astype(np.float32)])
        tasks = []
        for target, size in self.sizes.items():
            measured = ~np.isnan(targets[target])
            rows = (inputs if target == self.leader else with_leader)[measured]
            for seed in range(size.members):
                tasks.append((rows, targets[target][measured], size.width, self.max_steps, seed))
        if prefilter:
            measured = ~np.isnan(targets[self.leader])
            leader = targets[self.leader][measured]
            tasks.append((inputs[measured], leader, PREFILTER_WIDTH, self.max_steps, 0))
        networks = _fit_all(tasks, step)
        if prefilter:
            small = networks.pop()
            self.prefilter_ = [Layer(*layer) for layer in zip(*small, strict=True)]
        self._combine(networks, inputs.shape[1])
        return self

    def predict(self, inputs: Array) -> Prediction:
        """Of inputs[n, n_inputs]; array-API code, traced into the graph."""
        xp = inputs.__array_namespace__()
        n_leaders = self.sizes[self.leader].members
        first = self.first_(inputs)
        leading, following = first, None
        if self.follower_width_:
            leading, following = graph_ops.split(first, [self.leader_width_, self.follower_width_])
        hidden = graph_ops.split(
            graph_ops.silu(leading), [self.sizes[self.leader].width] * n_leaders
        )
        second = [layer(x) for layer, x in zip(self.second_, hidden, strict=True)]
        last = self.last_(graph_ops.silu(xp.concat(second, axis=1)))
        if self.follower_width_:
            following = graph_ops.gemm(last, xp.asarray(self.from_leader_), following)
            followers = graph_ops.silu(self.followers_second_(graph_ops.silu(following)))
            last = graph_ops.gemm(followers, xp.asarray(self.followers_last_), last)
        mean, distances = graph_ops.split(last, [len(self.sizes), len(self.average_)])
        spread = graph_ops.matmul(xp.abs(distances), xp.asarray(self.average_))
        return Prediction(mean, spread)

    def prefilter(self, inputs: Array) -> Array:
        """[n, 1] about the first target, by one small network; array-API code."""
        first, second, last = self.prefilter_
        hidden = graph_ops.silu(first(inputs))
        return last(graph_ops.silu(second(hidden)))

    def _combine(self, networks: list[Network], n_inputs: int) -> None:
        """Layers of many networks side by side: a graph pays for nodes, hardly for arithmetic."""
        leaders = networks[: self.sizes[self.leader].members]
        followers = networks[len(leaders) :]
        self.first_ = Layer(
            np.concatenate([network.weights[0][:n_inputs] for network in networks], axis=1),
            np.concatenate([network.biases[0] for network in networks]),
        )
        self.second_ = [Layer(network.weights[1], network.biases[1]) for network in leaders]
        self.leader_width_ = sum(len(network.biases[0]) for network in leaders)
        self.follower_width_ = sum(len(network.biases[0]) for network in followers)
        last = self._last(networks)
        # the biases of all networks, and the weights of the leaders
        self.last_ = Layer(last.weights[: self.leader_width_], last.biases)
        if not followers:
            return
        # small networks: one product with many zeros is faster than a product each
        self.followers_second_ = Layer(
            block_diag(*(network.weights[1] for network in followers)),
            np.concatenate([network.biases[1] for network in followers]),
        )
        self.followers_last_ = last.weights[self.leader_width_ :]
        # of all that `last_` gives, followers see the mean of the leaders alone: its first column
        rows_of_leader = [network.weights[0][n_inputs:] for network in followers]
        self.from_leader_ = np.zeros((len(last.biases), self.follower_width_), dtype=np.float32)
        self.from_leader_[:1] = np.concatenate(rows_of_leader, axis=1)

    def _last(self, networks: list[Network]) -> Layer:
        """One layer to the mean of every target, then each network's distance from its mean."""
        weights = block_diag(*(network.weights[2].astype(np.float64) for network in networks))
        biases = np.concatenate([network.biases[2].astype(np.float64) for network in networks])
        members = [size.members for size in self.sizes.values()]
        average = block_diag(*(np.full((n, 1), 1 / n) for n in members))
        own_mean = average @ (average > 0).T
        to_outputs = np.concatenate([average, np.eye(len(networks)) - own_mean], axis=1)
        self.average_ = average.astype(np.float32)
        return Layer(
            (weights @ to_outputs).astype(np.float32),
            (biases @ to_outputs).astype(np.float32),
        )


def _fit_all(tasks: list[tuple[Matrix, Values, int, int, int]], step: Step) -> list[Network]:
    """`fit_network` with each of these arguments, one process a core."""
    jobs = min(_cores(), len(tasks))
    with_one_thread = Parallel(
        n_jobs=jobs, inner_max_num_threads=1, backend="loky", return_as="generator"
    )
    networks: list[Network] = []
    step("networks", 0, len(tasks))
    for network in with_one_thread(delayed(fit_network)(*task) for task in tasks):
        networks.append(network)
        step("networks", len(networks), len(tasks))
    return networks


def _cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
