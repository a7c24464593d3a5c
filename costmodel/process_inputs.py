"""What a Gaussian process sees of a query: shares of the floor, sizes, and the kind of kernel.

    query[n, n_fields], quantities[n, n_quantities]  ->  inputs[n, 14], kinds[n, 1], groups[n, 1]

What a base gets wrong follows from what a kernel waits for, how large it is, and which kernel it
is. The inputs are such that a distance of 1 is a clear difference. They are float64, so that sums
over many rows are the same in NumPy and in ONNX Runtime.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

import numpy as np
import numpy.typing as npt

from costmodel import graph_ops
from costmodel.categories import FAMILY_STEP
from costmodel.gaussian_process import Points
from costmodel.graph_ops import Array
from costmodel.terms import QUANTITIES
from gemmcast.query import AT, FIELDS

Matrix = npt.NDArray[np.float32]

SHARE_WIDTH: Final = 2.0
"""What a share of 1 comes to."""
SHARES: Final = {
    "dram_a_us": 0,
    "dram_b_us": 0,
    "dram_c_us": 0,
    "compute_us": 1,
    "l2_a_us": 2,
    "l2_b_us": 2,
    "steps_us": 3,
}
"""Part of the floor -> the share that it belongs to."""
LOGARITHMS: Final[Mapping[str, float]] = {
    "floor_us": 3.0,
    "m": 3.0,
    "n": 3.0,
    "k": 3.0,
    "used_tile_m": 2.0,
    "used_tile_n": 2.0,
    "tiles": 4.0,
    "busiest_sm": 3.0,
    "padding": 1.0,
}
"""Quantities that are seen in logarithms, and over what."""
SMALLEST: Final = np.float32(1e-3)


def points_of(query: Array, quantities: Array) -> Points:
    """Where a process is evaluated; array-API code, traced into the graph."""
    xp = query.__array_namespace__()
    parts = xp.take(quantities, xp.asarray(SHARE_COLUMNS), axis=1)
    floor_us = xp.take(quantities, xp.asarray(FLOOR_COLUMN), axis=1)
    shares = graph_ops.matmul(parts, xp.asarray(TO_SHARES)) / floor_us
    sizes = xp.take(quantities, xp.asarray(LOG_COLUMNS), axis=1)
    positive = xp.maximum(sizes, xp.asarray(SMALLEST))
    logs = xp.log(positive) / xp.asarray(LOG_SCALES)
    warm = graph_ops.matmul(query, xp.asarray(TO_WARM))
    seen = xp.concat([shares, logs, warm], axis=1)
    inputs = xp.astype(seen, xp.float64)
    kinds = graph_ops.matmul(query, xp.asarray(TO_KIND))
    named = FAMILY_STEP / 2 * _is_named(query)
    shapes = graph_ops.matmul(query, xp.asarray(TO_SHAPE))
    return Points(
        inputs=inputs,
        kinds=kinds,
        groups=kinds + named,
        shapes=shapes,
    )


def groups_of(query: Array) -> Array:
    """[n, 1] a number for the family, with and without a named algorithm."""
    xp = query.__array_namespace__()
    family = graph_ops.matmul(query, xp.asarray(TO_FAMILY))
    return family + 0.5 * _is_named(query)


def _is_named(query: Array) -> Array:
    """[n, 1] 1 where the algorithm has a number."""
    xp = query.__array_namespace__()
    algorithm = graph_ops.matmul(query, xp.asarray(TO_ALGORITHM))
    return xp.astype(algorithm > 0.0, xp.float32)


def _places(names: Sequence[str]) -> npt.NDArray[np.int64]:
    """Columns of the quantities."""
    return np.array([QUANTITIES.index(name) for name in names])


def _to_shares() -> Matrix:
    """[n_parts, n_shares]."""
    matrix = np.zeros((len(SHARES), 1 + max(SHARES.values())), dtype=np.float32)
    matrix[np.arange(len(SHARES)), list(SHARES.values())] = SHARE_WIDTH
    return matrix


def _sum_of(weights: Mapping[str, float]) -> Matrix:
    """[n_fields, 1] what makes a weighted sum of some fields."""
    column = np.zeros((len(FIELDS), 1), dtype=np.float32)
    for name, weight in weights.items():
        column[AT[name]] = weight
    return column


SHARE_COLUMNS: Final = _places(list(SHARES))
TO_SHARES: Final = _to_shares()
FLOOR_COLUMN: Final = _places(["floor_us"])
LOG_COLUMNS: Final = _places(list(LOGARITHMS))
LOG_SCALES: Final = np.array(list(LOGARITHMS.values()), dtype=np.float32)
TO_WARM: Final = _sum_of({"warm": 1})
TO_FAMILY: Final = _sum_of({"family": 1})
TO_ALGORITHM: Final = _sum_of({"algorithm": 1})
# Which shape is which: different sums of different sizes, but for chance
TO_SHAPE: Final = _sum_of({"m": 1, "n": np.sqrt(2), "k": np.sqrt(3)})
TO_KIND: Final = _sum_of({"family": FAMILY_STEP, "dtype": 1})
