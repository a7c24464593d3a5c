"""Whether predictions put configurations in the right order, which is what whoever tunes needs of them.

A group is one problem on one type of device with MIN_CONFIGS or more configurations that were measured there. In each group

    tau       Kendall's rank correlation (tau-b) of predicted and measured: 1 the same order, 0 none, -1 the reverse
    regret    the measured value of what is predicted to be best, over the best that was measured, less 1, in per cent
    regret_8  the same for the best of the eight that are predicted to be best: what is lost by measuring only these

and over the groups their mean and median. Configurations of which a method says the same are ordered by lot, always the same one: a method that
does not tell configurations apart has tau 0 and the regret of a guess. What was measured several times counts with its mean.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.stats import kendalltau

from costmodel.dataset import Dataset
from gemmcast.config import KNOBS
from gemmcast.query import INTERVALS

Values = npt.NDArray[np.float64]
# [n_configurations]
MIN_CONFIGS = 8
TOP = 8
RANKED = ("runtime_us", "energy_mj")
# of which less is better
PROBLEM = ("m", "n", "k", "batch", "dtype", "layout", "alpha", "beta", "cache", "device")
CONFIG = ("family", "kernel", *KNOBS)


def ranking(data: Dataset, predicted: dict[str, dict[str, Values]]) -> dict[str, dict[str, dict[str, float]]]:
    """target -> method -> groups, and tau, regret and regret_8 with _mean and _median; a target without a group is left out.

    Args:
        predicted: target -> method -> [n_rows]; a method that has no answer for some is left out.
    """
    found: dict[str, dict[str, dict[str, float]]] = {}
    for target in RANKED:
        methods = {name: said for name, said in predicted.get(target, {}).items() if name not in INTERVALS and not np.isnan(said).any()}
        groups = list(_groups(data, data.measured[target]))
        for name, values in methods.items() if groups else ():
            each = [agreement(measured, values[rows]) for rows, measured in groups]
            found.setdefault(target, {})[name] = {"groups": len(groups), **_pooled(each)}
    return found


def agreement(measured: Values, predicted: Values) -> dict[str, float]:
    """tau, regret and, where there are more than eight, regret_8 of one group."""
    best_first = np.lexsort((np.random.default_rng(0).permutation(len(predicted)), predicted))
    best = measured.min()
    tau = float(kendalltau(measured, predicted).statistic)
    found = {"tau": 0.0 if np.isnan(tau) else tau, "regret": float(100 * (measured[best_first[0]] / best - 1))}
    return {**found, "regret_8": float(100 * (measured[best_first[:TOP]].min() / best - 1))} if len(measured) > TOP else found


def _pooled(each: list[dict[str, float]]) -> dict[str, float]:
    values = {name: [of[name] for of in each if name in of] for name in ("tau", "regret", "regret_8")}
    pooled = {name: {"mean": np.mean(of), "median": np.median(of)} for name, of in values.items() if of}
    return {f"{name}_{way}": float(value) for name, ways in pooled.items() for way, value in ways.items()}


def _groups(data: Dataset, read: Values) -> Iterator[tuple[npt.NDArray[np.intp], Values]]:
    """Of each group a row of every configuration, and what was measured of it."""
    problems: dict[Any, dict[Any, list[int]]] = defaultdict(lambda: defaultdict(list))
    for i, (problem, config) in enumerate(zip(data.keys(*PROBLEM), data.keys(*CONFIG), strict=True)):
        if not np.isnan(read[i]):
            problems[problem][config].append(i)
    for configs in problems.values():
        if len(configs) >= MIN_CONFIGS:
            yield np.array([rows[0] for rows in configs.values()]), np.array([read[rows].mean() for rows in configs.values()])
