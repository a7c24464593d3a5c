"""Predictions beside held-out measurements: how wrong they are, and whether intervals hold.

Held out are rows from which the model cannot have learned: shapes that are never trained on, and
shapes that were first measured after the model was made. Errors and shares are in per cent (3.1 is
3.1 %). Knows nothing of figures: coordinator/report/figures.py draws what is computed here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from costmodel.dataset import TARGETS, Column, Mask, TrainingSet, Values, held_out
from costmodel.evaluate.groups import sizes
from costmodel.onnx_session import open_session
from gemmcast.card import ModelCard
from gemmcast.query import EXTRAPOLATING, INPUT, INTERVALS, Rows

Predictions = Mapping[str, npt.NDArray[np.floating]]
"""Target, `extrapolating` -> [n_rows]; `low`, `high` -> [n_rows, n_targets]."""
Predict = Callable[[Rows], Predictions]
"""queries[n_rows, len(FIELDS)] -> predictions."""
ALL_FAMILIES = "all"


@dataclass(frozen=True, slots=True, kw_only=True)
class HeldOutRows:
    """Held-out rows and the model's predictions of them."""

    data: TrainingSet
    predictions: Predictions
    measured_later: Mask
    """Measured after the model was made."""
    targets: tuple[str, ...]
    """In the order of the columns of `low` and `high`."""

    def has(self, target: str) -> Mask:
        """[n_rows] True where the target was measured, and the model answers."""
        measured: Mask = ~np.isnan(self.data.measured[target])
        if target in self.predictions:
            measured &= ~np.isnan(self.predictions[target])
        return measured

    def errors(self, target: str) -> Values:
        """[n_rows] Signed, in per cent; NaN where the target was not measured."""
        ratios = self.predictions[target] / self.data.measured[target]
        errors: Values = 100 * (ratios - 1)
        return errors


def predictor_of(model: bytes) -> Predict:
    """The function that an ONNX file holds. Older files lack some outputs; these are absent."""
    session = open_session(model)
    names = [output.name for output in session.get_outputs()]

    def predict(queries: Rows) -> Predictions:
        """Run the graph once."""
        return dict(zip(names, session.run(names, {INPUT: queries}), strict=True))

    return predict


def held_out_rows(data: TrainingSet, predict: Predict, card: ModelCard) -> HeldOutRows:
    """The rows of `data` from which the card's model cannot have learned."""
    moments = data.table["measured_at"].to_pylist()
    later = np.array([moment > card.created_at for moment in moments], dtype=bool)
    never_trained = held_out(data.shapes, card.holdout)
    # a set: np.isin compares texts pair by pair, which took 90 s of 100,000 rows
    known_before = set(data.shapes[~later].tolist())
    is_new_shape = np.array([shape not in known_before for shape in data.shapes], dtype=bool)
    chosen = never_trained | (later & is_new_shape)
    rows = data.take(chosen)
    return HeldOutRows(
        data=rows,
        predictions=predict(rows.queries),
        measured_later=later[chosen],
        targets=tuple(name for name in card.targets if name in TARGETS),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class ErrorSummary:
    """Absolute errors of a group of rows, in per cent."""

    rows: int
    median: float
    p90: float

    @staticmethod
    def of(errors: Values) -> ErrorSummary | None:
        """None if no row has an error that is a number."""
        known = np.abs(errors[~np.isnan(errors)])
        if not len(known):
            return None
        median = float(np.median(known))
        return ErrorSummary(rows=len(known), median=median, p90=float(np.percentile(known, 90)))


ErrorsBySize = Mapping[int, Mapping[str, ErrorSummary]]
"""Decade of flops (9 is 1e9 to just below 1e10) -> family, or ALL_FAMILIES -> errors."""


def error_by_size(held: HeldOutRows, target: str = "runtime_us") -> ErrorsBySize:
    """Errors of one target by size and family."""
    errors = held.errors(target)
    families = held.data.column("family")
    decades = np.array([_decade(name) for name in sizes(held.data)], dtype=int)
    by_decade: dict[int, dict[str, ErrorSummary]] = {}
    for decade in sorted(set(decades.tolist())):
        in_decade = decades == decade
        by_decade[decade] = _errors_by_family(errors[in_decade], families[in_decade])
    return by_decade


def _errors_by_family(errors: Values, families: Column) -> dict[str, ErrorSummary]:
    """Also of ALL_FAMILIES; families whose errors are unknown are left out."""
    groups = {ALL_FAMILIES: errors}
    for family in sorted(set(families.tolist())):
        groups[family] = errors[families == family]
    by_family = {}
    for name, members in groups.items():
        summary = ErrorSummary.of(members)
        if summary:
            by_family[name] = summary
    return by_family


def _decade(size: str) -> int:
    """ "1e09" is 9."""
    return int(size.removeprefix("1e"))


def families_of(errors: ErrorsBySize) -> list[str]:
    """The families in a table of errors, in alphabetical order."""
    names: set[str] = set()
    for by_family in errors.values():
        names |= set(by_family)
    return sorted(names - {ALL_FAMILIES})


@dataclass(frozen=True, slots=True, kw_only=True)
class IntervalCoverage:
    """How many held-out measurements of one target lie within its intervals. Shares in per cent."""

    rows: int
    within: float
    later_rows: int
    """Rows that were measured after the model was made."""
    later_within: float | None
    """None without such rows."""
    factor: float
    """A typical interval goes from predicted / factor to predicted * factor."""
    flagged: int
    """Rows that the model flags as outside its training range."""
    flagged_within: float | None
    """None without such rows."""


def interval_coverage(held: HeldOutRows) -> dict[str, IntervalCoverage]:
    """Target -> coverage of its intervals. Empty for a model without intervals."""
    if not set(INTERVALS) <= set(held.predictions):
        return {}
    flagged = flagged_rows(held)
    coverage = {}
    for column, target in enumerate(held.targets):
        if held.has(target).any():
            low, high = (held.predictions[side][:, column] for side in INTERVALS)
            coverage[target] = _coverage(held, target, low, high, flagged)
    return coverage


def flagged_rows(held: HeldOutRows) -> Mask:
    """[n_rows] True where the model says that a query is outside its training range."""
    if EXTRAPOLATING not in held.predictions:
        return np.zeros(len(held.data), dtype=bool)
    flags: Mask = np.asarray(held.predictions[EXTRAPOLATING]) > 0
    return flags


def _coverage(
    held: HeldOutRows,
    target: str,
    low: npt.NDArray[np.floating],
    high: npt.NDArray[np.floating],
    flagged: Mask,
) -> IntervalCoverage:
    measured = held.data.measured[target]
    known = held.has(target)
    later = known & held.measured_later
    outside_training = known & flagged
    inside = (low <= measured) & (measured <= high)
    return IntervalCoverage(
        rows=int(known.sum()),
        within=_share(inside[known]) or 0.0,
        later_rows=int(later.sum()),
        later_within=_share(inside[later]),
        factor=float(np.median(np.sqrt(high[known] / low[known]))),
        flagged=int(outside_training.sum()),
        flagged_within=_share(inside[outside_training]),
    )


def _share(flags: Mask) -> float | None:
    return float(100 * flags.mean()) if len(flags) else None
