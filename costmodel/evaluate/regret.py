"""What a choice by prediction loses in time, energy or energy-delay, in groups that were measured.

    regret = measured cost of what was chosen / lowest measured cost of the group - 1

A group is one problem on one board with MIN_CONFIGS or more measured configurations of one family.
Triton kernels that compute something else (experts, scales) are problems of their own. A choice is

    model_top1  the first of the ranking
    model_top8  the best of its first eight, as if these were measured
    random8     the best of eight drawn at random, on average over all draws
    default     what the library or the engine takes by itself
    cautious    gemmcast's own choice: the default, unless another is surely better

The model ranks as `Predictor.rank` does: for time, the prefilter keeps eight times as many as are
wanted. Choices of eight count where there are twice as many configurations, the last two where the
default was measured; `groups` says how many groups that are.

The best of many readings is a lucky one (the winner's curse), so a choice that is truly the best
has a regret above 0. Where n configurations are equal and readings differ by a relative s, it is s
times the mean of the largest of n normal numbers: 1.8 s for n = 16. In recorded groups few are
near the best: with s = 0.3 %, which readings of one board within a run differ by, it is 0.004 % in
cutlass and 0.02 % in cublaslt. All choices bear it alike; nothing is subtracted.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import comb
from typing import Final, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from costmodel.dataset import Indices, Mask, Names, TrainingSet, Values
from costmodel.evaluate.groups import layers
from costmodel.evaluate.ranking import CONFIG, TOP, Group, grouped, problems_of
from gemmcast.candidates import default_among
from gemmcast.config import KNOBS
from gemmcast.gain import Costs
from gemmcast.modelfile import Answers
from gemmcast.objective import MINIMISED, Objective
from gemmcast.query import EXTRAPOLATING, Rows
from gemmcast.ranking import PICKED_FROM, PREFILTERED
from gemmcast.rows import ReadRow, config_of

MIN_FOR_TOP: Final = 2 * TOP
"""Configurations of a group whose first eight are looked at: of nine they would be nearly all."""

RegretTable = dict[str, dict[str, dict[str, dict[str, float]]]]
"""family -> objective -> choice -> mean_regret, worst_regret, groups. A regret of 0.05 is 5 %."""


class Ranker(Protocol):
    """A fitted model, such as costmodel.model.CostModel."""

    outputs_: tuple[str, ...]
    """Names of the outputs, in the order of the interval's columns."""

    def predict(self, queries: Rows) -> Mapping[str, npt.NDArray[np.floating]]:
        """output -> [n_rows]; `low` and `high` [n_rows, n_outputs]."""
        ...

    def prefilter(self, queries: Rows) -> npt.NDArray[np.floating]:
        """[n_rows] runtime_us, roughly."""
        ...


Chooser = Callable[[Sequence[ReadRow]], Indices]
"""From the rows of a group, one a configuration, to the places of those chosen; maybe none."""


class Loss(NamedTuple):
    """What one choice lost in one group."""

    family: str
    objective: str
    choice: str
    regret: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Ranked:
    """What a model says of the configurations of one group."""

    costs: Costs
    """[n_configurations] in the objective."""
    estimates: Values
    """[n_configurations] by the prefilter; the costs where it is not used."""
    is_unsure: Mask
    """[n_configurations] whether they are `extrapolating`."""

    @staticmethod
    def by(model: Ranker, queries: Rows, objective: str) -> Ranked:
        """By a model, of queries[n_configurations, n_fields]."""
        answers: Answers = {name: np.asarray(v) for name, v in model.predict(queries).items()}
        minimised = Objective.parse(objective)
        costs = Costs.of(answers, model.outputs_, minimised)
        estimates: Values = costs.values
        if minimised.has_prefilter:
            estimates = np.asarray(model.prefilter(queries), dtype=np.float64)
        return Ranked(costs=costs, estimates=estimates, is_unsure=answers[EXTRAPOLATING])

    def first(self, top: int) -> Indices:
        """[top] The first of the ranking, cheapest first, in the order of `Predictor.rank`."""
        return self._kept(top)[:top]

    def cautious(self, default: int) -> int:
        """The cheapest whose gain on the default is sure, else the default, as `pick` chooses."""
        if self.is_unsure[default]:
            return default
        is_sure = self.costs.gains(default).are_sure & ~self.is_unsure
        kept = self._kept(PICKED_FROM)
        sure = kept[is_sure[kept]]
        return int(sure[0]) if len(sure) else default

    def _kept(self, top: int) -> Indices:
        """What the prefilter keeps, cheapest first."""
        kept = np.argsort(self.estimates, kind="stable")[: PREFILTERED * top]
        return kept[np.argsort(self.costs.values[kept], kind="stable")]


def losses(
    test: TrainingSet, model: Ranker, others: Mapping[str, Chooser] | None = None
) -> Iterator[Loss]:
    """What each choice loses in each group of the tested rows.

    Args:
        test: rows that the model was not trained on.
        model: fitted; an objective that it does not predict is left out.
        others: name -> another chooser of configurations, for time.
    """
    defaults = is_default(test)
    for objective, outputs in MINIMISED.items():
        if not set(outputs) <= set(model.outputs_):
            continue
        for group in groups_of(test, objective):
            rows = test.table.take(pa.array(group.rows)).to_pylist()
            ranked = Ranked.by(model, test.queries[group.rows], objective)
            places = np.flatnonzero(defaults[group.rows])
            default = int(places[0]) if len(places) else None
            of_choice = regrets(group.measured, ranked, default)
            for name, choose in (others or {}).items() if objective == "time" else ():
                chosen = choose(rows)
                if len(chosen):
                    of_choice[name] = _regret(group.measured, chosen)
            for choice, regret in of_choice.items():
                yield Loss(rows[0]["family"], objective, choice, regret)


def groups_of(data: TrainingSet, objective: str) -> Iterator[Group]:
    """The groups of an objective: of problems whose configurations have that reading."""
    cost: Values = np.prod([data.measured[name] for name in MINIMISED[objective]], axis=0)
    problems = problems_of(data, "family", "device_uuid")
    return grouped(problems, data.keys(*CONFIG), cost)


def layers_with_groups(data: TrainingSet) -> Names:
    """[n_rows] The (n, k) of each row if some group is of that layer, else None."""
    names = layers(data)
    tested: set[object] = set()
    for objective in MINIMISED:
        for group in groups_of(data, objective):
            tested.add(names[group.rows[0]])
    return np.array([name if name in tested else None for name in names], dtype=object)


def is_default(data: TrainingSet) -> Mask:
    """[n_rows] True where the configuration is what the library or the engine takes by itself."""
    rows = data.table.select(("family", "kernel", *KNOBS)).to_pylist()
    by_itself = np.zeros(len(data), dtype=bool)
    for i, row in enumerate(rows):
        # A measured Triton kernel says that k is not split, a candidate does not
        named = {**row, "split_k": 0} if row["family"] == "triton" else row
        by_itself[i] = default_among([config_of(named)]) is not None
    return by_itself


def regrets(measured: Values, ranked: Ranked, default: int | None) -> dict[str, float]:
    """Choice -> its regret in one group.

    Args:
        measured: [n_configurations], less is better.
        ranked: what the model says of them.
        default: where the default stands; None if it was not measured.
    """
    of_choice = {"model_top1": _regret(measured, ranked.first(1))}
    if len(measured) >= MIN_FOR_TOP:
        of_choice["model_top8"] = _regret(measured, ranked.first(TOP))
        of_choice["random8"] = at_random(measured, TOP)
    if default is not None:
        of_choice["default"] = _regret(measured, [default])
        of_choice["cautious"] = _regret(measured, [ranked.cautious(default)])
    return of_choice


def at_random(measured: Values, count: int) -> float:
    """The regret of the best of `count` configurations, on average over all draws of so many.

    The i-th lowest of n is the best of a draw if the others are above it: C(n - 1 - i, count - 1)
    of all C(n, count) draws.
    """
    lowest_first = np.sort(measured)
    draws = comb(len(measured), count)
    mean = 0.0
    for place, value in enumerate(lowest_first.tolist()):
        share = comb(len(measured) - 1 - place, count - 1) / draws
        mean += share * value
    return mean / float(lowest_first[0]) - 1


def pooled(of_groups: Iterable[Loss]) -> RegretTable:
    """Mean and worst regret over the groups of each family, objective and choice."""
    collected: dict[tuple[str, str, str], list[float]] = defaultdict(list)
    for family, objective, choice, regret in of_groups:
        collected[family, objective, choice].append(regret)
    table: RegretTable = {}
    for (family, objective, choice), values in sorted(collected.items()):
        of_objective = table.setdefault(family, {}).setdefault(objective, {})
        of_objective[choice] = {
            "mean_regret": float(np.mean(values)),
            "worst_regret": max(values),
            "groups": len(values),
        }
    return table


def _regret(measured: Values, chosen: Indices | Sequence[int]) -> float:
    return float(measured[chosen].min() / measured.min() - 1)
