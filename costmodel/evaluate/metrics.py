"""How large the errors of predictions are, in per cent: 3.1 is 3.1 %.

    ape  = 100 |predicted / measured - 1|
    bias = median of 100 (predicted / measured - 1)
    r2   = 1 - sum (measured - predicted)^2 / sum (measured - mean of measured)^2
    within, width: share of the measurements in the 90 % interval, and how wide that is

R2 alone is no criterion: a method can have R2 0.95 and a mean error of 148 %, because R2 is decided
by the largest GEMMs. Knows nothing of models; gemmcast/score_table.py makes text of scores.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Final

import numpy as np
import numpy.typing as npt

from gemmcast.card import Scores

Values = npt.NDArray[np.float64]
"""[n_rows]"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Score:
    """Errors of one method on one target; a number that cannot be computed is None."""

    rows: int
    """How many rows were compared."""
    mape: float | None = None
    """Mean absolute percentage error."""
    median_ape: float | None = None
    """Median of the absolute percentage errors."""
    p90_ape: float | None = None
    """90th percentile of the absolute percentage errors."""
    bias: float | None = None
    """Median of the signed percentage errors: above 0 where predictions are too high."""
    r2: float | None = None
    """Coefficient of determination; None where all measured values are equal."""
    within: float | None = None
    """Per cent of the measured values in the 90 % interval; None for a method without intervals."""
    width: float | None = None
    """Median over the rows of how far the interval reaches above the prediction, in per cent."""

    def to_json(self) -> dict[str, float]:
        """The numbers that exist, by name: JSON has no NaN."""
        return {name: value for name, value in asdict(self).items() if value is not None}


COMPARED: Final = ("runtime_us", "power_w", "energy_mj")
"""Targets by which kinds of models are compared (costmodel/alternatives.py)."""
ScoreTable = dict[str, dict[str, Score]]
"""target -> method -> score"""


def score(measured: Values, predicted: Values) -> Score:
    """Compare predictions with measurements.

    Args:
        measured: [n_rows], above 0.
        predicted: [n_rows].
    """
    if not len(measured):
        return Score(rows=0)
    percent = 100 * (predicted / measured - 1)
    ape = np.abs(percent)
    return Score(
        rows=len(measured),
        mape=float(ape.mean()),
        median_ape=float(np.median(ape)),
        p90_ape=float(np.percentile(ape, 90)),
        bias=float(np.median(percent)),
        r2=_r2(measured, predicted),
    )


def with_intervals(errors: Score, measured: Values, low: Values, high: Values) -> Score:
    """The same errors with the coverage and the width of intervals.

    Args:
        measured, low, high: [n_rows]; low and high are NaN where there is no interval.
    """
    known = ~np.isnan(low)
    if not known.any():
        return errors
    is_within = (low <= measured) & (measured <= high)
    reach = np.sqrt(high[known] / low[known]) - 1
    return replace(
        errors,
        within=float(100 * np.mean(is_within[known])),
        width=float(100 * np.median(reach)),
    )


def to_json(scores: Mapping[str, Mapping[str, Score]]) -> Scores:
    """target -> method -> metric -> number: the layout of a model card."""
    plain: dict[str, dict[str, dict[str, float]]] = {}
    for target, methods in scores.items():
        plain[target] = {}
        for method, of_method in methods.items():
            plain[target][method] = of_method.to_json()
    return plain


def _r2(measured: Values, predicted: Values) -> float | None:
    spread = float(np.sum((measured - measured.mean()) ** 2))
    if spread == 0:
        return None
    return 1 - float(np.sum((measured - predicted) ** 2)) / spread
