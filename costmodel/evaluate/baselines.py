"""The methods that the model must beat, in every table; written down so that nobody picks a weak opponent.

lookup        the value of the nearest training shape (Euclidean in log m, n, k) with the same configuration, which for a library's own choice
              is that it chose itself; on a device where that was never measured, with the same configuration on any other
roofline      max(flops / measured peak, bytes / measured bandwidth), times one factor per family fitted on the training rows
paper_forest  RandomForestRegressor(n_estimators=100, max_depth=6, random_state=0) per target on raw m, n, k, tile m/n/k,
              flops/bytes, bytes, flops, as in arXiv 2411.16954
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn.ensemble import RandomForestRegressor

from costmodel.dataset import Dataset, library_default
from costmodel.tree_features import FLOOR_UNITS, NAMES, features
from gemmcast.config import KNOBS
from gemmcast.query import AT

Values = npt.NDArray[np.float64]
_SHAPE = ("m", "n", "k")
_CONFIG = ("device", "family", "kernel", "dtype", "layout", "batch", "cache")


def lookup(train: Dataset, test: Dataset, target: str) -> Values:
    """Where the configuration was never measured, the nearest shape of any configuration."""
    known = train.take(~np.isnan(train.measured[target]))
    by_config: dict[tuple[Any, ...], list[int]] = defaultdict(list)
    for i, key in enumerate(_configs(known)):
        by_config[key].append(i)
        by_config[key[1:]].append(i)
    by_config[()] = list(range(len(known)))
    shapes, nearest = _log_shapes(known.queries), cache(lambda key, shape: _nearest(shapes, by_config[key], shape))
    asked = zip(_configs(test), map(tuple, _log_shapes(test.queries).tolist()), strict=True)
    found = [nearest(next(part for part in (key, key[1:], ()) if part in by_config), shape) for key, shape in asked]
    return np.asarray(known.measured[target][found])


def roofline(train: Dataset, test: Dataset, target: str) -> Values:
    """For power, the device's limit in place of the roofline; energy and throughput follow from their definitions."""
    known = ~np.isnan(train.measured[target])
    raw, measured = _raw(train, target)[known], train.measured[target][known]
    families = train.queries[known][:, AT["family"]]
    factors = {family: float(np.exp(np.median(np.log(measured[families == family] / raw[families == family])))) for family in set(families.tolist())}
    overall = float(np.exp(np.median(np.log(measured / raw))))
    factor: Values = np.array([factors.get(family, overall) for family in test.queries[:, AT["family"]].tolist()])
    scaled: Values = _raw(test, target) * factor
    return scaled


def paper_forest(train: Dataset, test: Dataset, target: str) -> Values:
    known = ~np.isnan(train.measured[target])
    forest = RandomForestRegressor(n_estimators=100, max_depth=6, random_state=0, n_jobs=-1)
    forest.fit(_paper_features(train)[known], train.measured[target][known])
    return np.asarray(forest.predict(_paper_features(test)), dtype=np.float64)


BASELINES: dict[str, Callable[[Dataset, Dataset, str], Values]] = {"lookup": lookup, "roofline": roofline, "paper_forest": paper_forest}


def _configs(data: Dataset) -> list[tuple[Any, ...]]:
    """[n_rows] The device, and what was asked for there."""
    rows = zip(data.keys(*_CONFIG), data.keys(*KNOBS), library_default(data), strict=True)
    return [config if own else config + knobs for config, knobs, own in rows]


def _raw(data: Dataset, target: str) -> Values:
    q = data.queries.astype(np.float64)
    columns = features(data.queries)[1]
    times_us = columns[:, [NAMES.index("compute_time"), NAMES.index("bytes_time")]] * FLOOR_UNITS[:, 0]
    time_us = np.max(times_us, axis=1).astype(np.float64)
    limit_w = np.maximum(q[:, AT["power_limit_w"]], 1.0)
    flops = 2 * q[:, AT["m"]] * q[:, AT["n"]] * q[:, AT["k"]] * q[:, AT["batch"]]
    found: Values = {"power_w": limit_w, "energy_mj": limit_w * time_us * 1e-3, "tflops": flops / (time_us * 1e6)}.get(target, time_us)
    return found


def _nearest(shapes: Values, among: list[int], shape: tuple[float, ...]) -> int:
    return among[int(np.argmin(np.sum((shapes[among] - shape) ** 2, axis=1)))]


def _log_shapes(rows: Any) -> Values:
    shapes: Values = np.log(rows[:, [AT[name] for name in _SHAPE]].astype(np.float64))
    return shapes


def _paper_features(data: Dataset) -> Values:
    q = data.queries.astype(np.float64)
    m, n, k, batch = (q[:, AT[name]] for name in (*_SHAPE, "batch"))
    flops = 2 * m * n * k * batch
    moved = batch * ((m * k + k * n) * q[:, AT["in_bytes"]] + m * n * q[:, AT["out_bytes"]])
    return np.column_stack([m, n, k, *(q[:, AT[name]] for name in ("tile_m", "tile_n", "tile_k")), flops / moved, moved, flops])
