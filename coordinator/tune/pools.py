"""The rivals of a problem: every configuration that can run it, the model's best guess first.

Names of cuBLASLt's heuristic list say nothing to a model: they follow the library's default, in
the library's order. Where no model answers for a device, the order is that of the families.
Of a recording only those take part that a row answers for.
Does not measure.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import inf
from typing import Protocol

from coordinator.tune.families import runnable
from coordinator.tune.problem import Problem, Rival, predicted_cost
from gemmcast import ties
from gemmcast.config import KernelConfig
from gemmcast.device import Device
from gemmcast.errors import InputError
from gemmcast.gemm import Gemm
from gemmcast.gemm_list import ListedGemm
from gemmcast.objective import Objective
from gemmcast.predictor import Predictor, RankedConfig
from gemmcast.triton_sets import distinct
from gemmcast.tuned_entry import Cost

LIBRARY = "cublaslt"


class Recorded(Protocol):
    """What a recording holds of a device."""

    def recorded(self, listed: ListedGemm, configs: Sequence[KernelConfig]) -> list[KernelConfig]:
        """Those that a row answers for; nothing, where the first one has none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pools:
    """Makes problems of lines.

    Args:
        predictors: those that may answer, the best first.
        count: rivals that are kept of each problem.
        kernel_set: of Triton's configurations only those of this set.
    """

    families: Sequence[str] | None
    objective: Objective
    predictors: Sequence[Predictor]
    count: int
    kernel_set: str | None = None
    recorded: Recorded | None = None

    def problem(self, listed: ListedGemm, device: Device) -> Problem:
        """One line on one type of device.

        Raises:
            InputError: a family runs on no such device, or has no such kernel.
        """
        configs, reason = runnable(listed, self.families, device, self.kernel_set)
        if configs and self.recorded is not None:
            configs = self.recorded.recorded(listed, configs)
            reason = "" if configs else "the recording does not hold its default"
        if not configs:
            return Problem(listed=listed, device_key=device.name, default=None, reason=reason)
        configs = distinct(listed.gemm, configs)
        costs = self._predicted(listed, configs, device)
        default = Rival(config=configs[0], predicted=costs.get(configs[0], Cost()))
        others = [Rival(config=one, predicted=costs.get(one, Cost())) for one in configs[1:]]
        ranked = sorted(others, key=lambda rival: self._place(rival, default, costs))
        return Problem(
            listed=listed,
            device_key=device.name,
            default=default,
            rivals=tuple(ranked[: self.count]),
            possible=len(configs),
        )

    def _predicted(
        self, listed: ListedGemm, configs: Sequence[KernelConfig], device: Device
    ) -> dict[KernelConfig, Cost]:
        """What the first model that answers says of the default and of the best guesses."""
        known = [config for config in configs if not _is_name(config)]
        for predictor in self.predictors if known else ():
            if all(one.kind != device.kind for one in predictor.devices):
                # It would answer, of what it has never seen.
                continue
            try:
                ranked = self._ranked(predictor, listed.gemm, known, device)
                default = predictor.predict_batch([(listed.gemm, known[0])], device)
            except InputError:
                continue
            costs = {one.config: predicted_cost(one.prediction) for one in ranked}
            return {**costs, known[0]: predicted_cost(default[0])}
        return {}

    def _ranked(
        self, predictor: Predictor, gemm: Gemm, configs: Sequence[KernelConfig], device: Device
    ) -> list[RankedConfig]:
        """The best guesses; by time, where the model predicts no energy."""
        # Of a limit of power all are needed, because many may be above it.
        top = None if self.objective.is_capped else self.count + 1
        ranked_by = "time" if self.objective.is_capped else str(self.objective)
        try:
            return predictor.rank(gemm, configs, ranked_by, device, top=top)
        except InputError:
            return predictor.rank(gemm, configs, "time", device, top=top)

    def _place(
        self, rival: Rival, default: Rival, costs: Mapping[KernelConfig, Cost]
    ) -> tuple[bool, float]:
        """Sorts by: above the limit of power, predicted cost; what is as good stays in order."""
        cost = rival.predicted
        if _is_name(rival.config):
            library = KernelConfig(family=LIBRARY, kernel="default")
            cost = costs.get(library, default.predicted)
        predicted = self.objective.of(cost)
        if predicted is None:
            # Without power the time is the next best guess.
            predicted = cost.runtime_us
        return not self.objective.admits(cost), inf if predicted is None else predicted


def _is_name(config: KernelConfig) -> bool:
    """Whether a model would refuse it as a bare name of the library's list."""
    if config.family != LIBRARY:
        return False
    try:
        ties.check_names((config,))
    except InputError:
        return True
    return False
