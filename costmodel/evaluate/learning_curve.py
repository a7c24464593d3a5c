"""Learning curves: errors by the number of measured cells, of several ways to choose them.

    curve: method -> cells -> target -> metric -> error in per cent

Between two points a curve is a power law, a straight line in logarithms. Does not know how cells
are chosen, nor what a model is.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise

import numpy as np

Errors = dict[str, dict[str, float]]
"""target -> metric -> error, or a ratio of errors."""
Points = dict[int, Errors]
"""cells -> errors."""
Curve = dict[str, Points]
"""method -> points."""


def mean_errors(of_seeds: Sequence[Errors]) -> Errors:
    """The mean over the seeds, of the targets that every seed has."""
    means: Errors = {}
    for target, metrics in of_seeds[0].items():
        if not all(target in errors for errors in of_seeds):
            continue
        means[target] = {}
        for metric in metrics:
            values = [errors[target][metric] for errors in of_seeds]
            means[target][metric] = float(np.mean(values))
    return means


def over_all(points: Points, of_all: Errors) -> Points:
    """The errors over those of the model of all cells."""
    ratios: Points = {}
    for cells, errors in points.items():
        ratios[cells] = {}
        for target, metrics in errors.items():
            if target in of_all:
                of_target = of_all[target]
                ratios[cells][target] = {name: metrics[name] / of_target[name] for name in metrics}
    return ratios


def cells_for_same_error(points: Points, reference: Points) -> Points:
    """The cells of each point over those that the reference needs for its error.

    A metric is left out where the reference is never as bad, or never as good.
    """
    ratios: Points = {}
    for cells, errors in points.items():
        ratios[cells] = {}
        for target, metrics in errors.items():
            of_target: dict[str, float] = {}
            for metric, error in metrics.items():
                needed = cells_needed(_line(reference, target, metric), error)
                if needed is not None:
                    of_target[metric] = cells / needed
            ratios[cells][target] = of_target
    return ratios


def cells_needed(line: Mapping[int, float], error: float) -> float | None:
    """Where a line of errors first comes down to an error.

    Args:
        line: cells -> error.

    Returns:
        None: the error is above the first point, or below all of them.
    """
    for (fewer, worse), (more, better) in pairwise(sorted(line.items())):
        if worse >= error >= better and worse > better:
            way = np.log(worse / error) / np.log(worse / better)
            return float(fewer * (more / fewer) ** way)
    return None


def _line(points: Points, target: str, metric: str) -> dict[int, float]:
    line: dict[int, float] = {}
    for cells, errors in points.items():
        if target in errors:
            line[cells] = errors[target][metric]
    return line
