"""Whether predictions put configurations in the right order, which is what a tuner needs of them.

A group is one problem on one type of device with MIN_CONFIGS or more measured configurations. For
each group

    tau       Kendall's rank correlation (tau-b) of predicted and measured: 1 the same order,
              0 none, -1 the reverse
    regret    the measured value of the configuration predicted best, over the best measured,
              less 1, in per cent
    regret_8  the same for the best of the eight predicted best: the loss if only these are measured

and over the groups their mean and median. Equal predictions are ordered by a fixed random draw: a
method that cannot tell configurations apart has tau 0 and the regret of a guess. A configuration
that was measured several times counts once, with its mean.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from scipy.stats import kendalltau

from costmodel.dataset import Indices, TrainingSet, Values
from gemmcast.card import Scores
from gemmcast.config import KNOBS, TRITON_KERNELS
from gemmcast.query import INTERVALS

MIN_CONFIGS: Final = 8
TOP: Final = 8
RANKED: Final = ("runtime_us", "energy_mj")
"""Targets of which less is better."""
PROBLEM: Final = (
    "m",
    "n",
    "k",
    "batch",
    "dtype",
    "layout",
    "alpha",
    "beta",
    "cache",
    "device",
)
PLAIN_TRITON: Final = TRITON_KERNELS[0]
CONFIG: Final = ("family", "kernel", *KNOBS)


@dataclass(frozen=True)
class Group:
    """The configurations of one problem that were measured."""

    rows: Indices
    """[n_configurations] one row of each configuration."""
    measured: Values
    """[n_configurations] the mean of the configuration's measurements."""


def ranking(data: TrainingSet, predicted: Mapping[str, Mapping[str, Values]]) -> Scores:
    """How well each method orders the configurations of a problem.

    Args:
        data: rows with measurements.
        predicted: target -> method -> [n_rows]; a method with missing predictions for these
            configurations is left out.

    Returns:
        target -> method -> groups (their number), and tau, regret and regret_8 with _mean and
        _median. A target without a group is left out.
    """
    problems, configs = problems_of(data), data.keys(*CONFIG)
    scores: dict[str, dict[str, dict[str, float]]] = {}
    for target in RANKED:
        groups = list(grouped(problems, configs, data.measured[target]))
        methods = predicted.get(target, {})
        for method, values in methods.items() if groups else ():
            is_missing = any(np.isnan(values[group.rows]).any() for group in groups)
            if method in INTERVALS or is_missing:
                continue
            by_group = [agreement(group.measured, values[group.rows]) for group in groups]
            pooled = _mean_and_median(by_group)
            scores.setdefault(target, {})[method] = {"groups": len(groups), **pooled}
    return scores


def agreement(measured: Values, predicted: Values) -> dict[str, float]:
    """tau, regret and, where there are more than eight configurations, regret_8 of one group.

    Args:
        measured: [n_configurations], less is better.
        predicted: [n_configurations].
    """
    drawn = np.random.default_rng(0).permutation(len(predicted))
    best_first = np.lexsort((drawn, predicted))
    tau = float(kendalltau(measured, predicted).statistic)
    values = {
        "tau": 0.0 if np.isnan(tau) else tau,
        "regret": _regret(measured, best_first[:1]),
    }
    if len(measured) > TOP:
        values["regret_8"] = _regret(measured, best_first[:TOP])
    return values


def _regret(measured: Values, chosen: Indices) -> float:
    """By how many per cent the best of the chosen exceeds the best of all."""
    return float(100 * (measured[chosen].min() / measured.min() - 1))


def _mean_and_median(by_group: Iterable[Mapping[str, float]]) -> dict[str, float]:
    values_by_metric: dict[str, list[float]] = defaultdict(list)
    for of_group in by_group:
        for metric, value in of_group.items():
            values_by_metric[metric].append(value)
    pooled: dict[str, float] = {}
    for metric, values in values_by_metric.items():
        pooled[f"{metric}_mean"] = float(np.mean(values))
        pooled[f"{metric}_median"] = float(np.median(values))
    return pooled


def problems_of(data: TrainingSet, *more: str) -> list[tuple[Hashable, ...]]:
    """[n_rows] What is computed, and what else a group has in common.

    A Triton kernel other than the plain product computes something else: experts, scales.

    Args:
        more: columns beside PROBLEM.
    """
    keys = data.keys("family", "kernel", *PROBLEM, *more)
    problems: list[tuple[Hashable, ...]] = []
    for family, kernel, *problem in keys:
        is_plain = family != "triton" or kernel == PLAIN_TRITON
        problems.append(("" if is_plain else kernel, *problem))
    return problems


def grouped(
    problems: Sequence[Hashable], configs: Sequence[Hashable], measured: Values
) -> Iterator[Group]:
    """The problems with enough measured configurations.

    Args:
        problems: [n_rows] what a group has in common.
        configs: [n_rows] what tells its members apart.
        measured: [n_rows], NaN where it was not measured.
    """
    rows_of: dict[Hashable, dict[Hashable, list[int]]] = defaultdict(lambda: defaultdict(list))
    for i in np.flatnonzero(~np.isnan(measured)).tolist():
        rows_of[problems[i]][configs[i]].append(i)
    for of_config in rows_of.values():
        if len(of_config) < MIN_CONFIGS:
            continue
        first_rows: list[int] = []
        means: list[float] = []
        for rows in of_config.values():
            first_rows.append(rows[0])
            means.append(measured[rows].mean())
        yield Group(np.array(first_rows), np.array(means))
