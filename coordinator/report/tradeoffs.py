"""Time against energy: what the configuration with least energy saves, and how slow it is.

A problem is one GEMM under one condition on one type of device; boards of a type count as one.
Runtimes are the sustained ones, at which power was measured. Knows nothing of figures.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from coordinator.report.analysis import Predict
from costmodel.dataset import Indices, TrainingSet, Values
from costmodel.evaluate.ranking import CONFIG, PROBLEM
from gemmcast.config import KernelConfig
from gemmcast.rows import config_of, gemm_of

Key = tuple[object, ...]
ConfigRows = list[list[int]]
"""The rows of each configuration of one problem."""
TIME, ENERGY = "sustained_runtime_us", "energy_mj"
MIN_CONFIGS = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Tradeoff:
    """Every metered configuration of one problem; repeated measurements count with their mean."""

    problem: str
    held_out: bool
    families: list[str]
    """[n_configs], as all arrays here."""
    names: list[str]
    time_us: Values
    energy_mj: Values
    predicted_time_us: Values
    predicted_energy_mj: Values
    front: Indices
    """The measured Pareto front, fastest first."""
    predicted_front: Indices
    """The front of the predictions, fastest first."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EnergySaving:
    """The configuration with least energy against the fastest, over all metered problems."""

    problems: int
    differ: int
    """Problems where these are two configurations."""
    saved: float
    """Median saving of energy over these problems, in per cent."""
    slower: float
    """Median loss of time over these problems, in per cent."""


def pareto(time: Values, energy: Values) -> Indices:
    """Indices of the configurations that no other beats in both, fastest first."""
    order = np.lexsort((energy, time))
    energies = energy[order]
    least = np.minimum.accumulate(energies)
    least_before = np.append(np.inf, least[:-1])
    return order[energies < least_before]


def metered_problems(data: TrainingSet) -> list[ConfigRows]:
    """Of each problem with MIN_CONFIGS or more metered configurations, the rows of each."""
    has_energy = ~np.isnan(data.measured[ENERGY])
    has_time = ~np.isnan(data.measured[TIME])
    problem_keys = data.keys(*PROBLEM)
    config_keys = data.keys(*CONFIG)
    problems: dict[Key, dict[Key, list[int]]] = defaultdict(dict)
    for row in np.flatnonzero(has_energy & has_time).tolist():
        configs = problems[problem_keys[row]]
        configs.setdefault(config_keys[row], []).append(row)
    large = [configs for configs in problems.values() if len(configs) >= MIN_CONFIGS]
    return [list(configs.values()) for configs in large]


def energy_saving(data: TrainingSet) -> EnergySaving | None:
    """None if no problem has MIN_CONFIGS metered configurations."""
    problems = metered_problems(data)
    if not problems:
        return None
    savings = []
    for configs in problems:
        time = _means(data, TIME, configs)
        energy = _means(data, ENERGY, configs)
        fastest = int(np.argmin(time))
        cheapest = int(np.argmin(energy))
        saved = 1 - energy[cheapest] / energy[fastest]
        slower = time[cheapest] / time[fastest] - 1
        if saved > 0:
            savings.append((saved, slower))
    saved, slower = 100 * np.median(savings, axis=0) if savings else (0.0, 0.0)
    return EnergySaving(
        problems=len(problems), differ=len(savings), saved=float(saved), slower=float(slower)
    )


def tradeoff(data: TrainingSet, held: TrainingSet, predict: Predict) -> Tradeoff | None:
    """Of the problem with the most metered configurations, a held-out one if possible.

    Returns:
        None if no problem has MIN_CONFIGS metered configurations, or the model predicts no energy.
    """
    for rows, held_out in ((held, True), (data, False)):
        problems = metered_problems(rows)
        if problems:
            largest = max(problems, key=_configs_then_first_row)
            return _tradeoff(rows, largest, predict, held_out=held_out)
    return None


def _configs_then_first_row(configs: ConfigRows) -> tuple[int, int]:
    """Many configurations first; among equals, the problem that was measured first."""
    return len(configs), -min(rows[0] for rows in configs)


def _tradeoff(
    data: TrainingSet, configs: ConfigRows, predict: Predict, *, held_out: bool
) -> Tradeoff | None:
    first_rows = np.array([rows[0] for rows in configs])
    predictions = predict(data.queries[first_rows])
    if ENERGY not in predictions or np.isnan(predictions[ENERGY]).any():
        return None
    samples = data.take(first_rows).table.to_pylist()
    kernels = [config_of(sample) for sample in samples]
    time = _means(data, TIME, configs)
    energy = _means(data, ENERGY, configs)
    predicted_time = predictions[TIME].astype(np.float64)
    predicted_energy = predictions[ENERGY].astype(np.float64)
    return Tradeoff(
        problem=f"{gemm_of(samples[0])} on {samples[0]['device']}",
        held_out=held_out,
        families=[kernel.family for kernel in kernels],
        names=_config_names(kernels),
        time_us=time,
        energy_mj=energy,
        predicted_time_us=predicted_time,
        predicted_energy_mj=predicted_energy,
        front=pareto(time, energy),
        predicted_front=pareto(predicted_time, predicted_energy),
    )


def _config_names(configs: Sequence[KernelConfig]) -> list[str]:
    """Family and kernel if these differ between all configurations, else every knob."""
    short = [f"{config.family} {config.kernel}".strip() for config in configs]
    if len(set(short)) == len(short):
        return short
    return [str(config) for config in configs]


def _means(data: TrainingSet, target: str, configs: ConfigRows) -> Values:
    """[n_configs]"""
    measured = data.measured[target]
    return np.array([measured[rows].mean() for rows in configs], dtype=np.float64)
