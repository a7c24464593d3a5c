"""Configurations of one GEMM in the order of what a model predicts.

Everything is done on arrays; objects are made of what is returned. Where only a few are wanted by
time, the file's prefilter keeps PREFILTERED times as many, and the whole model ranks those. Knows
a loaded model and a table of configurations, and nothing of how either came to be.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from gemmcast import query
from gemmcast.config import KernelConfig
from gemmcast.config_table import ConfigTable, config_table
from gemmcast.device import Device
from gemmcast.errors import InputError
from gemmcast.feasible import check_knobs
from gemmcast.gain import NO_GAIN, Costs, Gain, Gains
from gemmcast.gemm import Gemm
from gemmcast.modelfile import Answer, Answers, LoadedModel
from gemmcast.objective import Objective
from gemmcast.prediction import Prediction
from gemmcast.ties import Ties

PREFILTERED: Final = 8
"""Configurations that the prefilter keeps for each one wanted."""
PICKED_FROM: Final = 8
"""How many a pick is made from: what comes first may have been recorded nowhere, and is then no
sure gain. No ranking is made from fewer, so that its first is the same for every `top`."""
Places = npt.NDArray[np.intp]
"""Places in a list of configurations."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RankedConfig:
    """One configuration of a ranking, and what it is predicted to cost."""

    config: KernelConfig
    prediction: Prediction
    tied: tuple[KernelConfig, ...] = ()
    """Others of the ranking that the model cannot tell from this one: each has this prediction, and
    their order is the order in which they were named."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice(RankedConfig):
    """The configuration to take, and what it gains over the default."""

    default: RankedConfig | None = None
    """What one gets without tuning; None where the list has no default."""
    gain: Gain = NO_GAIN
    """Of the choice over the default; 1 where there is none."""
    best: KernelConfig
    """The one with the lowest predicted cost, however sure that is."""
    best_gain: Gain = NO_GAIN
    """Of that one over the default."""
    possible: int
    """Configurations that can run the GEMM."""

    @property
    def keeps_default(self) -> bool:
        """Whether the choice is the default."""
        return self.default is not None and self.default.config == self.config


@dataclass(frozen=True, slots=True)
class Ranking:
    """What the whole model says of one problem's configurations, or of those worth it."""

    model: LoadedModel
    configs: tuple[KernelConfig, ...]
    """All of them."""
    places: Places
    """[n_scored] of the scored ones among all."""
    answers: Answers
    """[n_scored] of the model."""
    costs: Costs
    """[n_scored] in the objective."""
    order: Places
    """The scored ones, cheapest first, without those that draw too much power."""
    ties: Ties

    def ranked(self, scored: Sequence[int] | Places) -> list[RankedConfig]:
        """Some of the scored ones, as objects."""
        some = {name: values[scored] for name, values in self.answers.items()}
        ranked: list[RankedConfig] = []
        for i, prediction in zip(scored, predictions_of(self.model, some), strict=True):
            config = self.configs[self.places[i]]
            tied = self.ties.get(config, ())
            ranked.append(RankedConfig(config=config, prediction=prediction, tied=tied))
        return ranked

    def choice(self, default: int | None, *, bold: bool) -> Choice:
        """The cheapest that is surely better than the default, else the default.

        Where the default draws too much power, and with `bold`, the cheapest of all. The model is
        never sure of what is `extrapolating`.

        Args:
            default: place of one that is scored; None for no default.
            bold: whether to take the cheapest, however sure that is.
        """
        best = int(self.order[0])
        if default is None:
            return self._choice(best, best, best, None)
        at = int(np.flatnonzero(self.places == default)[0])
        gains = self.costs.gains(at)
        keeps_best = bold or at not in self.order
        chosen = best if keeps_best else self._surely_better(at, gains)
        return self._choice(chosen, best, at, gains)

    def _choice(self, chosen: int, best: int, default: int, gains: Gains | None) -> Choice:
        """Of three of the scored ones; without gains there is no default."""
        of_choice, of_default = self.ranked([chosen, default])
        return Choice(
            config=of_choice.config,
            prediction=of_choice.prediction,
            tied=of_choice.tied,
            default=None if gains is None else of_default,
            gain=NO_GAIN if gains is None else gains.of(chosen),
            best=self.configs[self.places[best]],
            best_gain=NO_GAIN if gains is None else gains.of(best),
            possible=len(self.configs),
        )

    def _surely_better(self, default: int, gains: Gains) -> int:
        """The first of the order whose gain is above 1 at its lower end, else the default."""
        is_sure = gains.are_sure & ~self.answers[query.EXTRAPOLATING]
        if self.answers[query.EXTRAPOLATING][default]:
            return default
        sure = self.order[is_sure[self.order]]
        return int(sure[0]) if len(sure) else default


@dataclass(frozen=True, slots=True)
class RankingTask:
    """What is to be ranked, checked."""

    model: LoadedModel
    gemm: Gemm
    table: ConfigTable
    objective: Objective
    device: Device
    """As the model's contract describes it."""
    default: int | None
    """Place of one in the table that is scored in any case."""

    @staticmethod
    def of(
        model: LoadedModel,
        gemm: Gemm,
        configs: Sequence[KernelConfig],
        objective: Objective,
        device: Device,
        default: KernelConfig | None,
    ) -> RankingTask:
        """A task, of configurations that the device can run.

        Args:
            default: what one gets without tuning; None: as `default_among` finds it.

        Raises:
            InputError: a configuration is impossible, or a name means nothing to a model.
        """
        table = config_table(gemm, configs, device)
        place = table.default if default is None else table.place_of(default)
        if default is not None and place is None:
            table, place = config_table(gemm, (default, *table.configs), device), 0
        for i in np.flatnonzero(table.is_impossible):
            check_knobs(gemm, table.configs[i], device.arch)
        return RankingTask(model, gemm, table, objective, device, place)

    def ranking(self, cache: str, wanted: int | None) -> Ranking:
        """The ranking.

        Args:
            cache: state of the L2 cache.
            wanted: how many are of interest; None: all.

        Raises:
            InputError: the model does not predict the objective for this device, no configuration
                is within its watts, or names that the model cannot tell apart.
        """
        table, objective = self.table, self.objective
        rows = table.rows(self.gemm, self.device, cache)
        ties = table.ties(rows)
        places = np.arange(len(rows))
        if wanted is not None and objective.has_prefilter:
            places = _prefiltered(self.model, rows, PREFILTERED * max(wanted, PICKED_FROM))
        if self.default is not None:
            places = _with(places, self.default)
        answers = self.model.run(rows[places])
        _check_predicted(answers, self.device, objective)
        costs = Costs.of(answers, tuple(self.model.outputs), objective)
        order = np.argsort(costs.values, kind="stable")
        if objective.is_capped:
            order = _within_watts(order, answers["power_w"], objective)
        return Ranking(self.model, table.configs, places, answers, costs, order, ties)


def predictions_of(model: LoadedModel, answers: Answers) -> list[Prediction]:
    """One object per row of the answers."""
    values = np.column_stack([answers[name] for name in model.outputs]).tolist()
    low, high = (answers[name].tolist() for name in query.INTERVALS)
    extrapolating = answers[query.EXTRAPOLATING].tolist()
    by_row: Iterable[tuple[list[float], list[float], list[float], bool]]
    by_row = zip(values, low, high, extrapolating, strict=True)
    return [Prediction.of(model.outputs, Answer(*row), model.version) for row in by_row]


def _prefiltered(model: LoadedModel, rows: query.Rows, count: int) -> Places:
    """Places of the `count` rows that the prefilter puts first, in their order; all if few."""
    estimates_us = model.estimate_us(rows) if len(rows) > count else None
    if estimates_us is None:
        return np.arange(len(rows))
    return np.sort(np.argsort(estimates_us, kind="stable")[:count])


def _with(places: Places, place: int) -> Places:
    return places if place in places else np.append(places, place)


def _check_predicted(answers: Answers, device: Device, objective: Objective) -> None:
    for name in objective.needed:
        if np.isnan(answers[name]).any():
            limit_w = device.power_limit_w
            limit = "is unknown"
            if limit_w is not None:
                limit = f"({limit_w:g} W) is far from the training rows'"
            rule = f"no energy is predicted for {device.name}: its power limit {limit}"
            way_out = 'use "time", or give a Device with its limit'
            raise InputError("objective", str(objective), rule, way_out)


def _within_watts(order: Places, power_w: npt.NDArray[np.float32], objective: Objective) -> Places:
    is_within = power_w[order] <= objective.most_watts
    if not is_within.any():
        rule = f"every configuration draws more, the least {power_w.min():.0f} W"
        raise InputError("objective", str(objective), rule, "allow more watts")
    return order[is_within]
