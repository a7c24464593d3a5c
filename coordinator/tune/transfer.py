"""What one type of device has measured ranks for another.

The model errs in the same direction on similar devices: what a rival gained on one type beyond its
prediction, it is taken to gain on the other too. Rivals that were not measured move with the mean
of those that were, since the best guesses are the luckiest. So fewer of them need measuring.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import inf
from statistics import mean

from coordinator.tune.guesses import predicted_log
from coordinator.tune.problem import Problem, Rival
from gemmcast.config import KernelConfig
from gemmcast.objective import Objective


def reranked(
    problem: Problem, leader: Problem, raced: Mapping[KernelConfig, float], objective: Objective
) -> list[Rival]:
    """The rivals of a problem, in the order that another type's readings suggest.

    Args:
        problem: on the type whose turn it is.
        leader: the same GEMM on the type that was measured.
        raced: configuration -> logarithm of its cost over the default's, there.
    """
    errors: dict[KernelConfig, float] = {}
    for rival in leader.rivals:
        if rival.config in raced:
            predicted = predicted_log(leader, rival, objective)
            errors[rival.config] = raced[rival.config] - predicted
    common = mean(errors.values()) if errors else 0.0
    expected: dict[KernelConfig, float] = {}
    for rival in problem.rivals:
        error = errors.get(rival.config, common)
        expected[rival.config] = predicted_log(problem, rival, objective) + error
    best = min(raced, key=lambda config: raced[config], default=None)
    return sorted(problem.rivals, key=lambda one: _order(one, best, expected))


def _order(
    rival: Rival, best: KernelConfig | None, expected: Mapping[KernelConfig, float]
) -> tuple[bool, float]:
    return rival.config != best, expected.get(rival.config, inf)
