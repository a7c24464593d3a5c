"""How wrong predictions are: absolute percentage errors and R², as plain numbers (3.1 is 3.1 %).

R² alone accepts nothing: a method can have R² 0.95 and a mean error of 148 %, because R² sees only the largest GEMMs.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

Values = npt.NDArray[np.float64]
# [n_rows]


def score(measured: Values, predicted: Values) -> dict[str, float]:
    """mape, median_ape, p90_ape (per cent), r2 and rows. What does not exist is left out, because JSON has no NaN: of no rows only
    `rows` is left, and values that are all alike have no r2."""
    if not len(measured):
        return {"rows": 0}
    ape = 100 * np.abs(predicted / measured - 1)
    spread = float(np.sum((measured - measured.mean()) ** 2))
    found = {"mape": float(ape.mean()), "median_ape": float(np.median(ape)), "p90_ape": float(np.percentile(ape, 90)), "rows": len(measured)}
    return {**found, "r2": 1 - float(np.sum((measured - predicted) ** 2)) / spread} if spread > 0 else found


def table(scores: Mapping[str, Any], metrics: tuple[str, ...] = ("median_ape", "mape", "p90_ape", "r2")) -> list[list[str]]:
    """Rows of text: target, method (the model first), one column a metric, rows."""
    return [
        [target, method, *(_number(metric, values.get(metric)) for metric in metrics), str(int(values["rows"]))]
        for target, methods in scores.items()
        for method, values in sorted(methods.items(), key=lambda item: item[0] != "model")
    ]


BRIEF = ("runtime_us", "sustained_runtime_us", "power_w", "energy_mj")
COMPARED = ("runtime_us", "power_w", "energy_mj")
RANKS = ("tau_mean", "tau_median", "regret_mean", "regret_median", "regret_8_mean", "regret_8_median")


def brief(named: Mapping[str, Mapping[str, Any]]) -> list[list[str]]:
    """Rows of text from name -> scores: name, the model's "median / mean" error of each target of BRIEF, rows."""
    return [
        [name, *(_both(scores.get(target)) for target in BRIEF), str(int(scores["runtime_us"]["model"]["rows"]))] for name, scores in named.items()
    ]


def ranks(ranking: Mapping[str, Any]) -> list[list[str]]:
    """Rows of text: target, method, one column a name of RANKS, groups (costmodel/evaluate/ranking.py)."""
    return [
        [target, method, *(_number(name, values.get(name)) for name in RANKS), str(int(values["groups"]))]
        for target, methods in ranking.items()
        for method, values in sorted(methods.items(), key=lambda item: item[0] != "model")
    ]


def _both(methods: Mapping[str, Mapping[str, float]] | None) -> str:
    return f"{methods['model']['median_ape']:.1f} / {methods['model']['mape']:.1f}" if methods else "-"


def _number(metric: str, value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}" if metric == "r2" or metric.startswith("tau") else f"{value:.1f}"
