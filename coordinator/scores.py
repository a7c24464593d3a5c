"""How wrong predictions are: absolute percentage errors and R², as plain numbers (3.1 is 3.1 %).

R² alone accepts nothing: a method can have R² 0.95 and a mean error of 148 %, because R² sees only the largest GEMMs.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

Values = npt.NDArray[np.float64]
# [n_rows]


def score(measured: Values, predicted: Values) -> dict[str, float]:
    """mape, median_ape, p90_ape (per cent), r2 and rows; NaNs where there is nothing to score."""
    if not len(measured):
        return {"mape": float("nan"), "median_ape": float("nan"), "p90_ape": float("nan"), "r2": float("nan"), "rows": 0}
    ape = 100 * np.abs(predicted / measured - 1)
    spread = float(np.sum((measured - measured.mean()) ** 2))
    r2 = 1 - float(np.sum((measured - predicted) ** 2)) / spread if spread > 0 else float("nan")
    return {
        "mape": float(ape.mean()),
        "median_ape": float(np.median(ape)),
        "p90_ape": float(np.percentile(ape, 90)),
        "r2": r2,
        "rows": len(measured),
    }


def table(scores: dict[str, Any], metrics: tuple[str, ...] = ("median_ape", "mape", "p90_ape", "r2")) -> list[list[str]]:
    """Rows of text: target, method (the model first), one column a metric."""
    return [
        [target, method, *(f"{values[metric]:.3f}" if metric == "r2" else f"{values[metric]:.1f}" for metric in metrics), str(int(values["rows"]))]
        for target, methods in scores.items()
        for method, values in sorted(methods.items(), key=lambda item: item[0] != "model")
    ]
