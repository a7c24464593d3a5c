"""A Gaussian process for what a base leaves unexplained: few rows correct little, many much.

    value(q) = sum over the rows i of w_i k(q, i)
    k(q, i)  = all^2 + kind^2 [same kind] + group^2 [same group]
               + near^2 exp(-|x_q - x_i|^2 / (2 length^2))
    w        = (K + shape^2 [same shape] + noise^2)^-1 y

A kind is a family with a dtype; a group is also with or without a named algorithm. So the first
three terms are offsets, each shrunken by how few rows speak for it, and the last one is local. The
scales are those under which the rows are likeliest, less one for each scale that is not 0 (Akaike):
Rasmussen & Williams, Gaussian Processes for Machine Learning, 2006, eq. 2.30. Knows no GEMMs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from costmodel import graph_ops
from costmodel.graph_ops import Array

Values = npt.NDArray[np.float64]
Matrix = npt.NDArray[np.float64]

MAX_ROWS: Final = 800
"""Rows that the process keeps; of more a random choice. Its graph grows with them."""
SCALE_ROWS: Final = 300
"""Rows by which the scales are chosen."""
SCALES: Final = (0.0, 0.003, 0.01, 0.03, 0.1, 0.3)
"""Of logarithms: 0.03 is 3 %."""
NOISES: Final = (0.01, 0.02, 0.04, 0.08, 0.16)
LENGTHS: Final = (0.5, 1.0, 2.0, 4.0)
ROUNDS: Final = 3
"""Times that every scale is chosen anew, the others as they are."""
OUTLIER: Final = 4.0
"""Robust standard deviations from the median, at which a value is cut off."""
MIN_ROWS: Final = 3
"""Fewer rows say nothing."""


class Points(NamedTuple):
    """Where a process is observed, or evaluated."""

    inputs: Array
    """[n, n_inputs] float64."""
    kinds: Array
    """[n, 1] a number for each kind."""
    groups: Array
    """[n, 1] a number for each group."""

    shapes: Array
    """[n, 1] a number for each shape."""

    def take(self, rows: npt.NDArray[np.int64]) -> Points:
        """The points with these numbers."""
        return Points(*(values[rows] for values in self))


class Scales(NamedTuple):
    """Standard deviations of the terms, of the noise, and the length of the local term."""

    all: float
    kind: float
    group: float
    near: float
    shape: float
    length: float
    noise: float


CHOICES: Final = {
    "all": SCALES,
    "kind": SCALES,
    "group": SCALES,
    "near": SCALES,
    "shape": SCALES,
    "length": LENGTHS,
    "noise": NOISES,
}
FIRST: Final = Scales(all=0.0, kind=0.0, group=0.0, near=0.0, shape=0.0, length=1.0, noise=0.04)


@dataclass(frozen=True, slots=True, kw_only=True)
class Process:
    """A fitted process."""

    points: Points
    """Of the rows that it keeps."""
    weights: Values
    """[n_rows]."""
    scales: Scales

    def value(self, at: Points) -> Array:
        """[n, 1] float64 of n points; array-API code, traced into the graph."""
        scales = self.scales
        everywhere = scales.all**2 * float(self.weights.sum())
        value = 0.0 * at.inputs[:, :1] + everywhere
        if scales.kind:
            value = value + self._offsets(self.points.kinds, at.kinds, scales.kind)
        if scales.group:
            value = value + self._offsets(self.points.groups, at.groups, scales.group)
        if scales.near:
            value = value + self._local(at.inputs)
        return value

    def _offsets(self, own: Values, at: Array, scale: float) -> Array:
        """[n, 1] the offset of the kind or group of each point; 0 for one without a row."""
        xp = at.__array_namespace__()
        names = np.unique(own)
        same = xp.astype(at == xp.asarray(names[np.newaxis]), xp.float64)
        sums = np.array([[self.weights[own[:, 0] == name].sum()] for name in names])
        offsets = scale**2 * sums
        return graph_ops.matmul(same, xp.asarray(offsets))

    def _local(self, inputs: Array) -> Array:
        """[n, 1] the local term."""
        xp = inputs.__array_namespace__()
        own = self.points.inputs / self.scales.length
        scaled = inputs / self.scales.length
        squares = xp.asarray((own**2).sum(axis=1)[np.newaxis])
        products = graph_ops.matmul(scaled, xp.asarray(2.0 * own.T))
        distances = xp.sum(scaled * scaled, axis=1, keepdims=True) + squares - products
        weights = self.scales.near**2 * self.weights[:, np.newaxis]
        return graph_ops.matmul(xp.exp(-0.5 * distances), xp.asarray(weights))


def fit_process(points: Points, values: Values) -> Process | None:
    """A process of values[n] at n points; None where too few are known.

    Args:
        points: where they were observed.
        values: NaN where nothing was.
    """
    known = np.flatnonzero(~np.isnan(values))
    if len(known) < MIN_ROWS:
        return None
    order = np.random.default_rng(0).permutation(known)
    within = _without_outliers(values)
    few = order[:SCALE_ROWS]
    scales = _likeliest(points.take(few), within[few])
    kept = order[:MAX_ROWS]
    rows = points.take(kept)
    covariance = _covariance(rows, scales)
    weights = np.linalg.solve(covariance, within[kept])
    return Process(points=rows, weights=weights, scales=scales)


def _without_outliers(values: Values) -> Values:
    """Values far from the others are moved towards them."""
    middle = np.nanmedian(values)
    deviation = 1.4826 * np.nanmedian(np.abs(values - middle))
    reach = OUTLIER * max(float(deviation), NOISES[0])
    return np.clip(values, middle - reach, middle + reach)


def _likeliest(points: Points, values: Values) -> Scales:
    """The best of CHOICES, one scale after another."""
    best = FIRST
    score = _score(points, values, best)
    for _ in range(ROUNDS):
        before = best
        for name, choices in CHOICES.items():
            for candidate in _candidates(best, name, choices):
                of_candidate = _score(points, values, candidate)
                if of_candidate > score:
                    best, score = candidate, of_candidate
        if best == before:
            break
    return best


def _candidates(scales: Scales, name: str, choices: Sequence[float]) -> list[Scales]:
    """The same with another value of one scale."""
    if name == "length" and not scales.near:
        return []
    return [scales._replace(**{name: choice}) for choice in choices]


def _score(points: Points, values: Values, scales: Scales) -> float:
    """Logarithm of the likelihood, less one for each term that there is."""
    factor = np.linalg.cholesky(_covariance(points, scales))
    whitened = np.linalg.solve(factor, values)
    half_log_determinant = np.log(np.diag(factor)).sum()
    terms = np.count_nonzero(scales[:5])
    return float(-0.5 * whitened @ whitened - half_log_determinant - terms)


def _covariance(points: Points, scales: Scales) -> Matrix:
    """[n, n] of the values at n points, noise included."""
    inputs = points.inputs / scales.length
    squares = (inputs**2).sum(axis=1)
    distances = squares[:, np.newaxis] + squares - 2.0 * inputs @ inputs.T
    covariance: Matrix = (
        scales.all**2
        + scales.kind**2 * (points.kinds == points.kinds.T)
        + scales.group**2 * (points.groups == points.groups.T)
        + scales.near**2 * np.exp(-0.5 * distances)
        + scales.shape**2 * (points.shapes == points.shapes.T)
        + scales.noise**2 * np.eye(len(inputs))
    )
    return covariance
