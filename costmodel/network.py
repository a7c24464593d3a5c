"""One small network: two hidden layers, fitted with AdamW to Huber's loss, in NumPy.

    output = W3 silu(s (W2 silu(s (W1 x + b1)) / s + b2)) / s + b3,  s = STEEPNESS

Measured times contain outliers and an error counts by its ratio, so the loss is squared for small
errors and linear beyond (scikit-learn's MLPRegressor has the squared loss only). For another
quantile than the median, errors above and below it weigh as in Koenker & Bassett (Econometrica
1978). AdamW is of
Loshchilov & Hutter, ICLR 2019; the learning rate falls as a cosine. The scales of inputs and target
are folded into the layers, so a fitted network takes and gives plain values. Knows no GEMMs.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from costmodel import graph_ops

Matrix = npt.NDArray[np.float32]
Values = npt.NDArray[np.float64]

LEARNING_RATE: Final = 1e-2
"""At MAX_BATCH rows a batch; less in proportion to the root of the batch."""
WARMUP_STEPS: Final = 200
FIRST_MOMENT: Final = 0.9
SECOND_MOMENT: Final = 0.999
EPSILON: Final = 1e-8
HUBER: Final = 0.05
"""Error, in standard deviations of the target, from which on the loss is linear."""
DECAY_ROWS: Final = 600.0
"""Weight decay is this over the rows, within the two limits: few rows are soon learned by heart."""
MIN_DECAY: Final = 0.1
MAX_DECAY: Final = 1.0
MIN_BATCH: Final = 16
MAX_BATCH: Final = 256
BATCHES_PER_PASS: Final = 50
"""Where the limits of the batch allow it."""
USUAL_STEPS: Final = 5_000
MIN_PASSES: Final = 70
MAX_PASSES: Final = 100
"""Over the rows, in USUAL_STEPS."""
CONSTANT: Final = 1e-3
"""Standard deviation below which an input does not vary: the rest is rounding."""
LEAST_SCALE: Final = 1.0
"""Least scale of an input: one that hardly varies must not decide about the few rows where it does,
as the bandwidth of the memory would if fifty rows of another device join thousands of one."""
STEEPNESS: Final = 1.7
"""Of the SiLU of the hidden layers, which then is close to the GELU."""


class Network(NamedTuple):
    """Three layers: weights[n_in, n_out] and biases[n_out]."""

    weights: tuple[Matrix, Matrix, Matrix]
    biases: tuple[Matrix, Matrix, Matrix]

    def __call__(self, inputs: Matrix) -> Matrix:
        """[n, 1] of inputs[n, n_inputs]."""
        hidden = inputs
        for weights, biases in zip(self.weights[:2], self.biases[:2], strict=True):
            hidden = graph_ops.silu(hidden @ weights + biases)
        output: Matrix = hidden @ self.weights[2] + self.biases[2]
        return output


def fit_network(
    inputs: Matrix,
    target: Values,
    width: int,
    max_steps: int,
    seed: int,
    quantile: float = 0.5,
) -> Network:
    """A network with hidden layers of this width, for inputs[n, n_inputs] and target[n].

    Args:
        quantile: of the target that the output is about.
    """
    mean = inputs.mean(axis=0, dtype=np.float64)
    scale = _input_scales(inputs)
    target_mean = float(target.mean())
    target_scale = float(target.std()) or 1.0
    parameters = _train(
        ((inputs - mean) / scale).astype(np.float32),
        ((target - target_mean) / target_scale).astype(np.float32),
        width,
        max_steps,
        seed,
        quantile,
    )
    w1, w2, w3, b1, b2, b3 = (values.astype(np.float64) for values in parameters)
    w1 = STEEPNESS * w1 / scale[:, None]
    b1 = STEEPNESS * b1 - mean @ w1
    b2 = STEEPNESS * b2
    w3 = target_scale * w3 / STEEPNESS
    b3 = target_scale * b3 + target_mean
    return Network(
        weights=(_float32(w1), _float32(w2), _float32(w3)),
        biases=(_float32(b1), _float32(b2), _float32(b3)),
    )


def _input_scales(inputs: Matrix) -> Values:
    """[n_inputs] what each input is divided by: infinity for one that does not vary."""
    deviation = inputs.std(axis=0, dtype=np.float64)
    return np.where(deviation < CONSTANT, np.inf, np.maximum(deviation, LEAST_SCALE))


def _float32(values: Values) -> Matrix:
    return values.astype(np.float32)


def _train(
    inputs: Matrix, target: Matrix, width: int, max_steps: int, seed: int, quantile: float
) -> list[Matrix]:
    """Three weights and three biases, for inputs and target of unit scale."""
    rows = len(target)
    rng = np.random.default_rng(seed)
    parameters = _initial(inputs.shape[1], width, rng)
    batch = batch_size(rows)
    steps = step_count(rows, batch, max_steps)
    decay = float(np.clip(DECAY_ROWS / rows, MIN_DECAY, MAX_DECAY))
    optimizer = AdamW(parameters, decay)
    peak_rate = LEARNING_RATE * np.sqrt(batch / MAX_BATCH)
    batches = _batches(rows, batch, rng)
    for step in range(1, steps + 1):
        chosen = next(batches)
        slopes = gradients(parameters, inputs[chosen], target[chosen], quantile)
        optimizer.step(slopes, peak_rate * schedule(step, steps))
    return parameters


def batch_size(rows: int) -> int:
    """Rows of one step."""
    wanted = np.clip(rows // BATCHES_PER_PASS, MIN_BATCH, MAX_BATCH)
    return min(int(wanted), rows)


def step_count(rows: int, batch: int, max_steps: int) -> int:
    """USUAL_STEPS, but no fewer and no more passes over the rows than allowed, nor more steps."""
    least = max(1, MIN_PASSES * rows // batch)
    most = max(1, MAX_PASSES * rows // batch)
    return min(max_steps, max(least, min(USUAL_STEPS, most)))


def schedule(step: int, steps: int) -> float:
    """Share of the peak learning rate: a linear warm-up, then half a cosine down to 0."""
    warmup = min(1.0, step / WARMUP_STEPS)
    return warmup * (1 + float(np.cos(np.pi * step / steps))) / 2


def _initial(n_inputs: int, width: int, rng: np.random.Generator) -> list[Matrix]:
    """Normal weights after He et al. (ICCV 2015), small ones in the last layer; biases of 0."""
    sizes = [n_inputs, width, width, 1]
    weights = []
    for n_in, n_out in pairwise(sizes):
        normal = rng.standard_normal((n_in, n_out))
        weights.append((normal * np.sqrt(2 / n_in)).astype(np.float32))
    # the first predictions are near the mean
    weights[2] *= np.float32(HUBER)
    biases = [np.zeros(size, dtype=np.float32) for size in sizes[1:]]
    return [*weights, *biases]


def _batches(rows: int, batch: int, rng: np.random.Generator) -> Iterator[npt.NDArray[np.int64]]:
    """Indices of the rows of one batch after another, in a new random order for every pass."""
    while True:
        order = rng.permutation(rows)
        for start in range(0, rows - batch + 1, batch):
            yield order[start : start + batch]


class AdamW:
    """Adam with decoupled weight decay; changes `parameters` in place."""

    def __init__(self, parameters: Sequence[Matrix], decay: float) -> None:
        self.parameters = parameters
        self.decay = decay
        self.means = [np.zeros_like(values) for values in parameters]
        self.squares = [np.zeros_like(values) for values in parameters]
        self.steps = 0

    def step(self, slopes: Sequence[Matrix], rate: float) -> None:
        """One step down the slopes; the weights decay, the biases do not."""
        self.steps += 1
        mean_rate = np.float32(rate / (1 - FIRST_MOMENT**self.steps))
        square_scale = np.float32(1 - SECOND_MOMENT**self.steps)
        kept = np.float32(1 - rate * self.decay)
        for i, slope in enumerate(slopes):
            values, mean, square = self.parameters[i], self.means[i], self.squares[i]
            _approach(mean, slope, 1 - FIRST_MOMENT)
            _approach(square, slope * slope, 1 - SECOND_MOMENT)
            deviation = np.sqrt(square / square_scale) + np.float32(EPSILON)
            values[:] = values - mean_rate * mean / deviation
            if values.ndim == 2:
                values[:] = values * kept


def _approach(average: Matrix, new: Matrix, share: float) -> None:
    """Move a running average, in place, by a share of the way to a new value."""
    average += np.float32(share) * (new - average)


def gradients(
    parameters: Sequence[Matrix], inputs: Matrix, target: Matrix, quantile: float = 0.5
) -> list[Matrix]:
    """Slopes of the mean of Huber's loss over a batch by every parameter; backpropagation."""
    w1, w2, w3, b1, b2, b3 = parameters
    hidden1, slope1 = _silu(inputs @ w1 + b1)
    hidden2, slope2 = _silu(hidden1 @ w2 + b2)
    error = (hidden2 @ w3 + b3)[:, 0] - target
    by_output = (_huber_slope(error, quantile) / np.float32(len(target)))[:, None]
    by_hidden2 = (by_output @ w3.T) * slope2
    by_hidden1 = (by_hidden2 @ w2.T) * slope1
    return [
        inputs.T @ by_hidden1,
        hidden1.T @ by_hidden2,
        hidden2.T @ by_output,
        by_hidden1.sum(axis=0),
        by_hidden2.sum(axis=0),
        by_output.sum(axis=0),
    ]


def _huber_slope(error: Matrix, quantile: float) -> Matrix:
    """Twice the quantile below the target, twice the rest above it; 1 for the median."""
    slope: Matrix = np.clip(error / np.float32(HUBER), -2 * quantile, 2 - 2 * quantile)
    return slope


def _silu(x: Matrix) -> tuple[Matrix, Matrix]:
    """x / (1 + e^(-STEEPNESS x)), and its slope."""
    gate = 0.5 + 0.5 * np.tanh(np.float32(STEEPNESS / 2) * x)
    value = x * gate
    return value, gate * (1 + np.float32(STEEPNESS) * (x - value))
