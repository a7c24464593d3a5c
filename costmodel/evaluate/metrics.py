"""How wrong predictions are: absolute percentage errors and R², as plain numbers (3.1 is 3.1 %).

R² alone accepts nothing: a method can have R² 0.95 and a mean error of 148 %, because R² sees only the largest GEMMs.
"""

from __future__ import annotations

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


COMPARED = ("runtime_us", "power_w", "energy_mj")
