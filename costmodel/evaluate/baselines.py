"""The methods that the model must beat, in every table.

lookup        the value of the nearest training shape (Euclidean in log m, n, k) with the same
              configuration on the same device, else with it on any device, else with any
              configuration; kernels that a library chose are one configuration
roofline      max(flops / measured peak, bytes / measured bandwidth), times one factor per family,
              fitted on the training rows
paper_forest  RandomForestRegressor(n_estimators=100, max_depth=6, random_state=0) per target on raw
              m, n, k, tile m/n/k, flops/bytes, bytes, flops, as in arXiv 2411.16954
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from functools import cache
from typing import Final

import numpy as np
import numpy.typing as npt
from sklearn.ensemble import RandomForestRegressor

from costmodel.dataset import TrainingSet, Values, library_default
from gemmcast.config import KNOBS
from gemmcast.query import AT, Rows

SHAPE: Final = ("m", "n", "k")
TILE: Final = ("tile_m", "tile_n", "tile_k")
CONFIG: Final = ("device", "family", "kernel", "dtype", "layout", "batch", "cache")
"""Columns that a configuration is compared by; the device is the first, the knobs follow."""

Key = tuple[object, ...]
"""A configuration; without its first part, the same configuration on any device."""
Baseline = Callable[[TrainingSet, TrainingSet, str], Values]
"""From training rows, test rows and a target to [n_test] predictions."""


def lookup(training: TrainingSet, test: TrainingSet, target: str) -> Values:
    """The nearest shape's measurement of the same configuration."""
    known = training.take(~np.isnan(training.measured[target]))
    rows_by_key: dict[Key, list[int]] = defaultdict(list)
    for i, key in enumerate(_configurations(known)):
        for part in _wider(key):
            rows_by_key[part].append(i)
    known_shapes = _log_shapes(known.queries)

    @cache
    def nearest_row(key: Key, *shape: float) -> int:
        """Which of the known rows with this configuration has the nearest shape."""
        rows = rows_by_key[key]
        distances = np.sum((known_shapes[rows] - shape) ** 2, axis=1)
        return rows[int(np.argmin(distances))]

    nearest: list[int] = []
    for key, shape in zip(_configurations(test), _log_shapes(test.queries).tolist(), strict=True):
        part = next(part for part in _wider(key) if part in rows_by_key)
        nearest.append(nearest_row(part, *shape))
    return np.asarray(known.measured[target][nearest])


def roofline(training: TrainingSet, test: TrainingSet, target: str) -> Values:
    """The roofline times a family's factor: the median of measured over roofline.

    For power the device's limit takes the place of the roofline; energy and throughput follow from
    their definitions. A family without training rows has the factor of all rows.
    """
    known = training.take(~np.isnan(training.measured[target]))
    log_factors = np.log(known.measured[target] / _roofline(known, target))
    train_families = known.queries[:, AT["family"]]
    test_families = test.queries[:, AT["family"]]
    factors = np.full(len(test), np.exp(np.median(log_factors)))
    for family in set(train_families.tolist()):
        of_family = log_factors[train_families == family]
        factors[test_families == family] = np.exp(np.median(of_family))
    return np.asarray(_roofline(test, target) * factors)


def paper_forest(training: TrainingSet, test: TrainingSet, target: str) -> Values:
    """The random forest of arXiv 2411.16954."""
    known = training.take(~np.isnan(training.measured[target]))
    forest = RandomForestRegressor(n_estimators=100, max_depth=6, random_state=0, n_jobs=-1)
    forest.fit(_paper_features(known.queries), known.measured[target])
    return np.asarray(forest.predict(_paper_features(test.queries)), dtype=np.float64)


BASELINES: Final[dict[str, Baseline]] = {
    "lookup": lookup,
    "roofline": roofline,
    "paper_forest": paper_forest,
}


def _configurations(data: TrainingSet) -> list[Key]:
    """[n_rows] The configuration of each row: without knobs where a library chose them."""
    keys: list[Key] = []
    is_default = library_default(data)
    for i, (config, knobs) in enumerate(zip(data.keys(*CONFIG), data.keys(*KNOBS), strict=True)):
        keys.append(config if is_default[i] else config + knobs)
    return keys


def _wider(key: Key) -> list[Key]:
    """The configuration, the same one on any device, and any configuration."""
    return [key, key[1:], ()]


def _roofline(data: TrainingSet, target: str) -> Values:
    """[n_rows] What the target would be at the measured peak and bandwidth."""
    queries = data.queries.astype(np.float64)
    compute_us = _flops(queries) / queries[:, AT["peak_tflops"]] * 1e-6
    traffic_us = _moved_bytes(queries) / queries[:, AT["dram_gbps"]] * 1e-3
    time_us = np.maximum(compute_us, traffic_us)
    limit_w = np.maximum(queries[:, AT["power_limit_w"]], 1.0)
    if target == "power_w":
        return np.asarray(limit_w)
    if target == "energy_mj":
        return np.asarray(limit_w * time_us * 1e-3)
    if target == "tflops":
        return np.asarray(_flops(queries) / (time_us * 1e6))
    return np.asarray(time_us)


def _flops(queries: npt.NDArray[np.float64]) -> Values:
    sizes = queries[:, [AT[name] for name in (*SHAPE, "batch")]]
    return np.asarray(2 * np.prod(sizes, axis=1))


def _moved_bytes(queries: npt.NDArray[np.float64]) -> Values:
    """[n_rows] Every operand once."""
    m, n, k = queries[:, [AT[name] for name in SHAPE]].T
    inputs = (m * k + k * n) * queries[:, AT["in_bytes"]]
    output = m * n * queries[:, AT["out_bytes"]]
    return np.asarray(queries[:, AT["batch"]] * (inputs + output))


def _log_shapes(queries: Rows) -> Values:
    """[n_rows, 3]"""
    sizes = queries[:, [AT[name] for name in SHAPE]]
    return np.asarray(np.log(sizes.astype(np.float64)))


def _paper_features(queries: Rows) -> Values:
    """[n_rows, 9]"""
    values = queries.astype(np.float64)
    m, n, k = values[:, [AT[name] for name in SHAPE]].T
    tile = values[:, [AT[name] for name in TILE]]
    flops = _flops(values)
    moved = _moved_bytes(values)
    return np.column_stack([m, n, k, tile, flops / moved, moved, flops])
