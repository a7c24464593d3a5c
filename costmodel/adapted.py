"""A model that starts from a base and learns from own samples what the base gets wrong.

    own = base x exp(process + trees)      for each target, on the devices of the own samples

The base (costmodel/base.py) stays as it is. A Gaussian process corrects it from the first few rows
on; boosted trees correct what is left, where they help on held-out own shapes. A query about
another device has the base's answer. The file is one ONNX graph again, the base inside it.
docs/decisions/0024-a-base.md has the figures.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple, Self

import numpy as np
import numpy.typing as npt
from sklearn.ensemble import HistGradientBoostingRegressor

from costmodel import graph_ops
from costmodel.base import USUAL_MARGIN, Answers, Base
from costmodel.bounds import Bounds, Limits
from costmodel.categories import Categories
from costmodel.dataset import TrainingSet, with_unresolved_copies
from costmodel.gaussian_process import Points, Process, fit_process
from costmodel.graph_ops import Array
from costmodel.model import Mask, Predicted
from costmodel.outputs import (
    MIN_POWER_ROWS,
    OUTPUT_OF_TARGET,
    KnownLimits,
    Measured,
    Values,
    compose,
    log_targets,
    outputs_of,
    shortest_us,
)
from costmodel.own_devices import OwnDevices
from costmodel.parts import FOLDS
from costmodel.parts import parts as parts_of_rows
from costmodel.process_inputs import groups_of, points_of
from costmodel.progress import Step, no_step
from costmodel.terms import QUANTITIES, Terms, terms
from costmodel.training_range import TrainingRange
from costmodel.trees import TreeSettings, fit_trees, predict_trees
from costmodel.widths import Widths
from gemmcast.query import AT, Rows

TREES: Final = TreeSettings(iterations=150, leaves=31, learning_rate=0.05, min_leaf_rows=10)
MIN_TRIAL_ROWS: Final = 400
"""With fewer rows of a target, the process alone corrects it: a fifth of them would say nothing."""
WORTH: Final = 0.98
"""Error on held-out shapes with one more part over the error without, from which on it is taken."""
SLOWER_DRAWS_LESS: Final = np.float32(0.7)
"""What a runtime is longer by, the power above idle is less by this share of: over the base's own
errors it is 0.3 to 0.8 below the cap. A runtime that is corrected alone would spoil the energy."""
IDLE_COLUMN: Final = np.array([QUANTITIES.index("idle_power_w")])
LEAST_MARGIN: Final = 1e-3
"""Of the base, when an error is divided by it: at a bound of physics an interval has no width."""
MIN_KNOWN_ROWS: Final = 20
"""Own rows from which on a kind of kernel does not extrapolate because the base lacks it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Correction:
    """Of one target, on one type of device."""

    process: Process | None
    """None where too few rows say something, or where it does not help."""
    trees: HistGradientBoostingRegressor | None
    """None where they do not help."""

    def value(self, points: Points, quantities: Array) -> Array:
        """[n, 1] in logarithms; array-API code, traced into the graph."""
        xp = quantities.__array_namespace__()
        value = 0.0 * quantities[:, :1]
        if self.process is not None:
            value = value + xp.astype(self.process.value(points), xp.float32)
        if self.trees is not None:
            value = value + predict_trees(self.trees, quantities)
        return value


class Parts(NamedTuple):
    """What corrects a target."""

    process: bool
    """Whether a Gaussian process does."""
    trees: bool
    """Whether boosted trees correct what is left."""


NOTHING, PROCESS, TREES_ALONE, BOTH = (
    Parts(process=False, trees=False),
    Parts(process=True, trees=False),
    Parts(process=False, trees=True),
    Parts(process=True, trees=True),
)


TRIED: Final = (PROCESS, NOTHING, TREES_ALONE, BOTH)
"""One after another; nothing at all needs no proof that it is worth it."""


class Asked(NamedTuple):
    """What is computed of some queries before any correction."""

    terms: Terms
    """Floor, work and quantities."""
    answers: Answers
    """Of the base."""
    points: Points
    """Where the processes are asked."""
    shares: list[Array]
    """For each type of own device [n, 1] whether the query is about it."""


class AdaptedModel:
    """A base with what own samples say. It has what the trainer uses of a CostModel."""

    outputs_: tuple[str, ...]
    """Names of the outputs, in the order of the contract."""
    targets_: tuple[str, ...]
    """What is corrected."""

    def __init__(self, base: Base) -> None:
        self.base = base

    # fitting

    def fit_dataset(self, data: TrainingSet, step: Step = no_step) -> Self:
        """Fit on own samples, with library defaults once more as queries without knobs.

        A fifth of their layers says whether trees help and how wide the intervals are.
        """
        rows = with_unresolved_copies(data)
        is_held_out = parts_of_rows(rows.queries) < FOLDS
        trial = rows.take(~is_held_out)
        held_out = rows.take(is_held_out)
        self._start(rows.queries, rows.measured)
        step("trial corrections", 0, 1)
        self.parts_ = self._best_parts(trial, held_out)
        self._fit_corrections(trial, self.parts_)
        self._calibrate(held_out)
        step("corrections", 0, 1)
        self._fit_corrections(rows, self.parts_)
        return self

    @property
    def tree_weight_(self) -> dict[str, float]:
        """Target -> 1 where trees correct what is left, else 0."""
        return {name: float(self.parts_[name].trees) for name in self.targets_}

    def _calibrate(self, rows: TrainingSet) -> None:
        """Set the intervals from own rows that the corrections were not fitted on."""
        asked = self._asked(rows.queries)
        composed = self._composed(rows.queries, asked)
        below, above = self._base_margins(asked)
        margins = np.maximum(0.5 * (below + above), LEAST_MARGIN)
        excess: dict[str, Values] = {}
        for i, name in enumerate(self.outputs_):
            # throughput is as uncertain as the runtime that it is computed from
            source = "runtime_us" if name == "tflops" else name
            measured = np.asarray(rows.measured[source], dtype=np.float64)
            error = np.abs(np.log(measured / composed[source][:, 0]))
            excess[name] = error / margins[:, i]
        self.widths_ = Widths.of(excess, groups_of(rows.queries)[:, 0])

    def _start(self, queries: Rows, measured: Measured) -> None:
        """What own rows say besides corrections: outputs, devices, limits, range."""
        self.devices_ = OwnDevices.of(queries)
        known = terms(queries)
        logs = log_targets(known.floor_us[:, 0], queries, measured)
        self.targets_ = tuple(name for name in OUTPUT_OF_TARGET if self._has(name, logs))
        self.outputs_ = outputs_of(self.targets_)
        self.limits_ = self.base.limits
        if "power" in self.targets_:
            with_power = ~np.isnan(logs["power"])
            own = KnownLimits.of(queries[with_power, AT["power_limit_w"]].astype(np.float64))
            self.limits_ = own.joined(self.base.limits)
        self.categories_ = Categories.of(queries)
        one_hot = self.categories_.one_hot(queries)
        self.bounds_ = Bounds.of(known.least_us, self.categories_, one_hot, shortest_us(measured))
        rows = _of_frequent_kinds(points_of(queries, known.quantities).kinds)
        self.range_: TrainingRange | None = None
        if rows.any():
            self.range_ = TrainingRange.of(Terms(*(values[rows] for values in known)))

    def _has(self, target: str, logs: Mapping[str, Values]) -> bool:
        """Whether the base has the target, or enough own rows have."""
        own_rows = int(np.sum(~np.isnan(logs[target])))
        return OUTPUT_OF_TARGET[target] in self.base.outputs or own_rows >= MIN_POWER_ROWS

    def _best_parts(self, trial: TrainingSet, held_out: TrainingSet) -> dict[str, Parts]:
        """Target -> the parts with the smallest error on held-out shapes; the fewer, the better."""
        best = dict.fromkeys(self.targets_, PROCESS)
        tried = [name for name in self.targets_ if _rows_with(trial, name) >= MIN_TRIAL_ROWS]
        if not tried:
            return best
        errors = dict.fromkeys(tried, np.inf)
        for parts in TRIED:
            self._fit_corrections(trial, dict.fromkeys(tried, parts))
            of_parts = self._mean_errors(held_out, tried)
            worth = 1.0 if parts == NOTHING else WORTH
            for name in tried:
                if of_parts[name] < worth * errors[name]:
                    best[name], errors[name] = parts, of_parts[name]
        return best

    def _mean_errors(self, data: TrainingSet, targets: Sequence[str]) -> dict[str, float]:
        """Target -> mean absolute error in logarithms; NaN without a row."""
        asked = self._asked(data.queries)
        residuals = self._residuals(asked, data.queries, data.measured)
        errors: dict[str, float] = {}
        for name in targets:
            left = residuals[name] - self._correction(asked, name)[:, 0]
            known = left[~np.isnan(left)]
            errors[name] = float(np.abs(known).mean()) if len(known) else np.nan
        return errors

    def _fit_corrections(self, data: TrainingSet, parts: Mapping[str, Parts]) -> None:
        """For each type of own device and each target."""
        asked = self._asked(data.queries)
        residuals = self._residuals(asked, data.queries, data.measured)
        self.corrections_: list[dict[str, Correction]] = []
        for share in asked.shares:
            rows = np.flatnonzero(share[:, 0] > 0)
            points = asked.points.take(rows)
            quantities = asked.terms.quantities[rows]
            of_type: dict[str, Correction] = {}
            for name, of_target in parts.items():
                left = residuals[name][rows]
                of_type[name] = _corrected(points, quantities, left, of_target)
            self.corrections_.append(of_type)

    def _residuals(self, asked: Asked, queries: Rows, measured: Measured) -> dict[str, Values]:
        """Target -> [n] logarithm of what was measured over what the base says."""
        logs = log_targets(asked.terms.floor_us[:, 0], queries, measured)
        factors = self._base_factors(asked)
        residuals: dict[str, Values] = {}
        for name in self.targets_:
            residuals[name] = logs[name] - np.log(factors[name][:, 0].astype(np.float64))
        if "power" in residuals:
            lead = self._lead(asked)[:, 0]
            residuals["power"] = residuals["power"] + lead * residuals["runtime"]
        return residuals

    # prediction

    def predict(self, queries: Rows) -> Predicted:
        """Every output, low and high, and extrapolating, of queries[n_rows, n_fields]."""
        return {name: np.asarray(values) for name, values in self.evaluate(queries).items()}

    def evaluate(self, query: Array) -> dict[str, Array]:
        """`predict` as array-API code, traced into the graph."""
        xp = query.__array_namespace__()
        asked = self._asked(query)
        composed = self._composed(query, asked)
        is_own = self._is_own(asked)
        widened = self.widths_.factors(self.outputs_, groups_of(query))
        widths = xp.where(is_own, widened, xp.asarray(np.float32(1)))
        below, above = self._base_margins(asked)
        values = xp.concat([composed[name] for name in self.outputs_], axis=1)
        limits = self._limits(query, asked)
        low, high = limits.interval(
            self.outputs_, values / xp.exp(below * widths), values * xp.exp(above * widths)
        )
        extrapolating = asked.answers.extrapolating
        if self.range_ is not None:
            is_beyond = self.range_.is_outside(asked.terms)
            extrapolating = extrapolating & (~is_own | xp.reshape(is_beyond, (-1, 1)))
        return {
            **{name: graph_ops.squeeze(composed[name]) for name in self.outputs_},
            "low": low,
            "high": high,
            "extrapolating": graph_ops.squeeze(extrapolating),
        }

    def prefilter(self, query: Array) -> Array:
        """[n] runtime_us by the base's smaller graph, with the processes' corrections."""
        xp = query.__array_namespace__()
        known = terms(query)
        points = points_of(query, known.quantities)
        correction = 0.0 * known.floor_us
        for share, of_type in zip(self.devices_.shares(query), self.corrections_, strict=True):
            process = of_type["runtime"].process
            if process is not None:
                correction = correction + share * xp.astype(process.value(points), xp.float32)
        return graph_ops.squeeze(self.base.prefilter(query) * xp.exp(correction))

    def _asked(self, query: Array) -> Asked:
        known = terms(query)
        return Asked(
            terms=known,
            answers=self.base.answers(query, any_limit=self.limits_ != self.base.limits),
            points=points_of(query, known.quantities),
            shares=self.devices_.shares(query),
        )

    def _composed(self, query: Array, asked: Asked) -> dict[str, Array]:
        """Output -> [n, 1]."""
        xp = query.__array_namespace__()
        logs = {name: self._correction(asked, name) for name in self.targets_}
        if "power" in logs:
            logs["power"] = logs["power"] - self._lead(asked) * logs["runtime"]
        factors = self._base_factors(asked)
        corrections = {name: factors[name] * xp.exp(logs[name]) for name in self.targets_}
        limit_w = self._known_limit(asked)
        return compose(asked.terms.floor_us, limit_w, self._limits(query, asked), corrections)

    def _limits(self, query: Array, asked: Asked) -> Limits:
        """What no output is beyond; the base's own answers never are."""
        xp = query.__array_namespace__()
        one_hot = self.categories_.one_hot(query)
        limits = self.bounds_.limits(asked.terms, self._known_limit(asked), one_hot)
        shortest_us = xp.minimum(limits.shortest_us, asked.answers.runtime_us)
        return limits._replace(shortest_us=shortest_us)

    def _known_limit(self, asked: Asked) -> Array:
        """[n, 1] the power limit, NaN where power is unknown."""
        limit_w = asked.terms.power_limit_w
        return self.limits_.known(limit_w) if "power" in self.targets_ else limit_w

    def _lead(self, asked: Asked) -> Array:
        """[n, 1] by what power falls where the runtime rises, in logarithms."""
        xp = asked.terms.floor_us.__array_namespace__()
        idle_w = xp.take(asked.terms.quantities, xp.asarray(IDLE_COLUMN), axis=1)
        base_w = asked.terms.power_limit_w * asked.answers.factors["power"]
        above_idle = xp.maximum(1.0 - idle_w / base_w, 0.0 * idle_w)
        return xp.where(idle_w > 0.0, SLOWER_DRAWS_LESS * above_idle, 0.0 * idle_w)

    def _base_factors(self, asked: Asked) -> dict[str, Array]:
        """Target -> [n, 1] what the base says, over floor, runtime or limit."""
        runtime = asked.answers.runtime_us / asked.terms.floor_us
        return {"runtime": runtime, **asked.answers.factors}

    def _base_margins(self, asked: Asked) -> tuple[Array, Array]:
        """Twice [n, n_outputs]: the base's interval below and above its answers, in logarithms."""
        below, above = asked.answers.below, asked.answers.above
        if self.outputs_ == self.base.outputs:
            return below, above
        usual = 0.0 * asked.terms.floor_us + USUAL_MARGIN
        return self._columns(below, usual), self._columns(above, usual)

    def _columns(self, of_base: Array, otherwise: Array) -> Array:
        """[n, n_outputs] the base's columns, or `otherwise`[n, 1] for what it does not have."""
        xp = of_base.__array_namespace__()
        columns = graph_ops.split(of_base, [1] * len(self.base.outputs))
        by_name = dict(zip(self.base.outputs, columns, strict=True))
        return xp.concat([by_name.get(name, otherwise) for name in self.outputs_], axis=1)

    def _correction(self, asked: Asked, target: str) -> Array:
        """[n, 1] in logarithms; 0 for the devices that no own row is of."""
        total = 0.0 * asked.terms.floor_us
        for share, of_type in zip(asked.shares, self.corrections_, strict=True):
            value = of_type[target].value(asked.points, asked.terms.quantities)
            total = total + share * value
        return total

    def _is_own(self, asked: Asked) -> Array:
        """[n, 1] bool: whether own rows are of the device."""
        xp = asked.terms.floor_us.__array_namespace__()
        return xp.sum(xp.concat(asked.shares, axis=1), axis=1, keepdims=True) > 0.0


def _corrected(
    points: Points, quantities: npt.NDArray[np.float32], residuals: Values, parts: Parts
) -> Correction:
    """The correction that residuals[n] ask for, NaN where nothing was measured."""
    process = fit_process(points, residuals) if parts.process else None
    if not parts.trees:
        return Correction(process=process, trees=None)
    if process is not None:
        residuals = residuals - process.value(points)[:, 0]
    if np.isnan(residuals).all():
        return Correction(process=process, trees=None)
    return Correction(process=process, trees=fit_trees(TREES, quantities, residuals))


def _rows_with(data: TrainingSet, target: str) -> int:
    """How many rows have a target."""
    return int(np.sum(~np.isnan(data.measured[OUTPUT_OF_TARGET[target]])))


def _of_frequent_kinds(kinds: npt.NDArray[np.float32]) -> Mask:
    """[n] the rows whose family and dtype enough rows have."""
    _, kind_of, counts = np.unique(kinds, return_inverse=True, return_counts=True)
    frequent: Mask = counts[kind_of.reshape(-1)] >= MIN_KNOWN_ROWS
    return frequent
