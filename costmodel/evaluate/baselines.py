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
from sklearn.ensemble import RandomForestRegressor

from costmodel.dataset import TrainingSet, Values, library_default
from gemmcast.config import KNOBS
from gemmcast.query import AT, Rows

SHAPE: Final = [AT["m"], AT["n"], AT["k"]]
"""Columns of a query; so are the following two."""
TILE: Final = [AT["tile_m"], AT["tile_n"], AT["tile_k"]]
FAMILY: Final = AT["family"]
CONFIG: Final = ("device", "family", "kernel", "dtype", "layout", "batch", "cache")
"""Columns of a sample that a configuration is compared by; the knobs follow."""

Key = tuple[object, ...]
"""A configuration; without its first part, the device, the same configuration on any device."""
Baseline = Callable[[TrainingSet, TrainingSet, str], Values]
"""From training rows, test rows and a target to [n_test] predictions."""


def lookup(training: TrainingSet, test: TrainingSet, target: str) -> Values:
    """The nearest shape's measurement of the same configuration.

    Args:
        training: where a measurement is looked up; rows without the target are left out.
        test: rows to predict.
        target: one of TARGETS.

    Returns:
        [n_test].
    """
    known = _with_target(training, target)
    rows_by_key: dict[Key, list[int]] = defaultdict(list)
    for i, key in enumerate(_configurations(known)):
        for part in _wider(key):
            rows_by_key[part].append(i)
    known_shapes = _log_shapes(known.queries)

    @cache
    def shapes_of_key(key: Key) -> Values:
        """[n_rows, 3] The shapes that a configuration was measured at."""
        return known_shapes[rows_by_key[key]]

    @cache
    def nearest_row(key: Key, *shape: float) -> int:
        """Which of the known rows with this configuration has the nearest shape."""
        distances = np.sum((shapes_of_key(key) - shape) ** 2, axis=1)
        nearest = int(np.argmin(distances))
        return rows_by_key[key][nearest]

    rows: list[int] = []
    test_shapes = _log_shapes(test.queries).tolist()
    for key, shape in zip(_configurations(test), test_shapes, strict=True):
        part = next(part for part in _wider(key) if part in rows_by_key)
        rows.append(nearest_row(part, *shape))
    return known.measured[target][rows]


def roofline(training: TrainingSet, test: TrainingSet, target: str) -> Values:
    """The roofline times a family's factor: the median of measured over roofline.

    For power the device's limit takes the place of the roofline; energy and throughput follow
    from their definitions. A family without training rows has the factor of all rows.

    Args:
        training: what the factors are fitted on.
        test: rows to predict.
        target: one of TARGETS.

    Returns:
        [n_test].
    """
    known = _with_target(training, target)
    log_factors = np.log(known.measured[target] / _roofline(known, target))
    train_families = known.queries[:, FAMILY]
    test_families = test.queries[:, FAMILY]
    factors = np.full(len(test), np.exp(np.median(log_factors)))
    for family in set(train_families.tolist()):
        of_family = log_factors[train_families == family]
        factors[test_families == family] = np.exp(np.median(of_family))
    return np.asarray(_roofline(test, target) * factors)


def paper_forest(training: TrainingSet, test: TrainingSet, target: str) -> Values:
    """The random forest of arXiv 2411.16954.

    Args:
        training: what the forest is fitted on.
        test: rows to predict.
        target: one of TARGETS.

    Returns:
        [n_test].
    """
    known = _with_target(training, target)
    forest = RandomForestRegressor(
        n_estimators=100,
        max_depth=6,
        random_state=0,
        n_jobs=-1,
    )
    forest.fit(_paper_features(known.queries), known.measured[target])
    return np.asarray(forest.predict(_paper_features(test.queries)))


BASELINES: Final[dict[str, Baseline]] = {
    "lookup": lookup,
    "roofline": roofline,
    "paper_forest": paper_forest,
}


def _with_target(data: TrainingSet, target: str) -> TrainingSet:
    """The rows on which the target was measured."""
    return data.take(~np.isnan(data.measured[target]))


def _configurations(data: TrainingSet) -> list[Key]:
    """[n_rows] The configuration of each row: without knobs where a library chose them."""
    configs = data.keys(*CONFIG)
    knobs = data.keys(*KNOBS)
    keys: list[Key] = []
    for i, is_default in enumerate(library_default(data)):
        keys.append(configs[i] if is_default else configs[i] + knobs[i])
    return keys


def _wider(key: Key) -> list[Key]:
    """The configuration, the same one on any device, and any configuration."""
    return [key, key[1:], ()]


def _roofline(data: TrainingSet, target: str) -> Values:
    """[n_rows] What the target would be at the measured peak and bandwidth."""
    queries = data.queries.astype(np.float64)
    limit_w = np.maximum(queries[:, AT["power_limit_w"]], 1.0)
    if target == "power_w":
        return limit_w
    compute_us = _flops(queries) / queries[:, AT["peak_tflops"]] * 1e-6
    traffic_us = _moved_bytes(queries) / queries[:, AT["dram_gbps"]] * 1e-3
    time_us = np.maximum(compute_us, traffic_us)
    if target == "energy_mj":
        return np.asarray(limit_w * time_us * 1e-3)
    if target == "tflops":
        return np.asarray(_flops(queries) / (time_us * 1e6))
    return np.asarray(time_us)


def _flops(queries: Values) -> Values:
    """[n_rows], of queries in double precision, which holds these products exactly."""
    multiply_adds = np.prod(queries[:, SHAPE], axis=1)
    return np.asarray(2 * multiply_adds * queries[:, AT["batch"]])


def _moved_bytes(queries: Values) -> Values:
    """[n_rows] Every operand once."""
    m, n, k = queries[:, SHAPE].T
    inputs = (m * k + k * n) * queries[:, AT["in_bytes"]]
    output = m * n * queries[:, AT["out_bytes"]]
    return np.asarray(queries[:, AT["batch"]] * (inputs + output))


def _log_shapes(queries: Rows) -> Values:
    """[n_rows, 3] Logarithms of m, n and k."""
    return np.asarray(np.log(queries[:, SHAPE].astype(np.float64)))


def _paper_features(queries: Rows) -> Values:
    """[n_rows, 9] The columns of the paper's forest."""
    values = queries.astype(np.float64)
    m, n, k = values[:, SHAPE].T
    tiles = values[:, TILE]
    flops = _flops(values)
    moved = _moved_bytes(values)
    return np.column_stack([m, n, k, tiles, flops / moved, moved, flops])
