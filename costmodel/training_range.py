"""Whether a query is outside of what the model was trained on.

Three things of a query must be as in training rows:

    its arithmetic    family, dtype, layout, beta and cache state: some row had all of them together
    its algorithm     some row of the family and dtype had it
    its kernel        some row of the family had the algorithm, tile, warp tile and stages together

and its numbers must be within those of the training rows, by a margin: work within that of rows of
the same dtype, beta and cache state, sizes within those of the same family besides, knobs within
those of the family and dtype, readings of the device within those at the dtype. A row belongs to
few combinations, so each is one number, a weighted sum of what makes it; the limits are looked up
with one matrix product (docs/decisions/0019-answers-within-physics.md).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from costmodel import graph_ops
from costmodel.graph_ops import Array
from costmodel.terms import MAY_BE_UNKNOWN, QUANTITIES, RESOURCES, Terms

DTYPE: Final = ("dtype",)
FAMILY: Final = ("family", "dtype")
ARITHMETIC: Final = (*FAMILY, "trans_a", "trans_b", "beta", "warm")
ALGORITHM: Final = (*FAMILY, "algorithm")
KERNEL: Final = (
    "family",
    "algorithm",
    "used_tile_m",
    "used_tile_n",
    "stages",
    "warp_m",
    "warp_n",
    "warp_k",
)
COMBINATIONS: Final = (ARITHMETIC, ALGORITHM, KERNEL)
"""What one training row must have had together."""

CONDITIONS: Final = ("dtype", "beta", "warm")
WORK: Final = ("mflop", "dram_a_us", "dram_b_us", "dram_c_us")
"""Compared with rows of the same CONDITIONS."""
SIZES: Final = ("m", "n", "k", "batch")
"""Compared with rows of the same CONDITIONS and family."""
KNOBS: Final = (
    "tile_unknown",
    *RESOURCES,
    "split_k",
    "swizzle",
    "threads",
)
"""Compared with rows of the same FAMILY."""
DEVICE: Final = ("active_units", "peak_tflops", "dram_gbps", "power_limit_w")
"""Compared with rows of the same DTYPE."""
POOLS: Final = {
    **dict.fromkeys(WORK, CONDITIONS),
    **dict.fromkeys(SIZES, ("family", *CONDITIONS)),
    **dict.fromkeys(KNOBS, FAMILY),
    **dict.fromkeys(DEVICE, DTYPE),
}
"""Quantity -> what a training row must have in common with a query to be its measure."""
LARGEST_ONLY: Final = (*KNOBS, *WORK)
"""A knob that is 0 is unknown; little work takes little time, and sizes have their own limits."""
MARGIN: Final = 1.5
"""Factor by which a quantity may be beyond the training rows."""
MARGINS: Final = {
    # products of sizes: with 1.5 twice as many unseen shapes of a small sweep are flagged
    **dict.fromkeys(WORK, 2.0),
    # an H200 has 1.4 times the bandwidth of an H100: this tells them apart
    "dram_gbps": 1.25,
    "power_limit_w": 1.1,
    # a block of an H100 may have 1.18 times as much as any recorded one
    "smem_bytes": 1.1,
    "tile_unknown": 1.0,
    "cluster_blocks": 1.0,
    "threads": 1.0,
}
"""Where it is another one."""
NUMBERS: Final = (*QUANTITIES, *RESOURCES)
"""What is looked at."""
COLUMNS: Final = np.array([NUMBERS.index(name) for name in POOLS])

MADE_OF: Final = tuple(dict.fromkeys(name for made_of in COMBINATIONS for name in made_of))
ENDLESS: Final = float(np.finfo(np.float32).max)
"""The limit of a reading that no training row knows; not infinite, for 0 times it must be 0."""
HEAVIEST: Final = 2**28
"""Sums of weights times values are whole numbers below 2^53, which float64 holds."""
Matrix = npt.NDArray[np.float32]
Keys = npt.NDArray[np.float64]


def _weights() -> Keys:
    """[len(NUMBERS), len(COMBINATIONS)] random whole numbers, 0 where a number is no part of it."""
    drawn = np.random.default_rng(0).integers(1, HEAVIEST, size=len(MADE_OF))
    weights = np.zeros((len(NUMBERS), len(COMBINATIONS)))
    for name, weight in zip(MADE_OF, drawn, strict=True):
        is_part = [name in made_of for made_of in COMBINATIONS]
        weights[NUMBERS.index(name)] = np.where(is_part, weight, 0)
    return weights


WEIGHTS: Final = _weights()


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingRange:
    """The combinations of the training rows, and the limits of their numbers."""

    arithmetic: Keys
    """[n_arithmetics] keys."""
    algorithms: Keys
    """[n_algorithms] keys."""
    kernels: Keys
    """[n_kernels] keys."""
    limits: Matrix
    """[n_arithmetics, 2 x len(POOLS)] the lowest numbers, then the highest, margins included."""

    @classmethod
    def of(cls, terms: Terms) -> TrainingRange:
        """Of the terms of the training rows."""
        numbers = _numbers(terms)
        arithmetic, algorithms, kernels = _keys(numbers)
        known, first_rows = np.unique(arithmetic, return_index=True)
        limits = [_limits(numbers, numbers[row]) for row in first_rows]
        return cls(
            arithmetic=known,
            algorithms=np.unique(algorithms),
            kernels=np.unique(kernels),
            limits=np.array(limits, dtype=np.float32),
        )

    def is_outside(self, terms: Terms) -> Array:
        """[n] bool, of the terms of n queries; array-API code, traced into the graph."""
        numbers = _numbers(terms)
        xp = numbers.__array_namespace__()
        arithmetic, algorithm, kernel = _keys(numbers)
        # 0 everywhere for a new arithmetic: then every number is beyond its limits
        is_arithmetic = xp.astype(arithmetic == xp.asarray(self.arithmetic), xp.float32)
        limits = graph_ops.matmul(is_arithmetic, xp.asarray(self.limits))
        lowest, highest = graph_ops.split(limits, [len(POOLS)] * 2)
        checked = xp.take(numbers, xp.asarray(COLUMNS), axis=1)
        is_within = graph_ops.is_all((checked >= lowest) & (checked <= highest), axis=1)
        is_known = _is_one_of(algorithm, self.algorithms) & _is_one_of(kernel, self.kernels)
        return graph_ops.squeeze(~(is_within & is_known))


def _numbers(terms: Terms) -> Array:
    """[n, len(NUMBERS)]."""
    xp = terms.quantities.__array_namespace__()
    return xp.concat([terms.quantities, terms.resources], axis=1)


def _keys(numbers: Array) -> list[Array]:
    """[n, 1] for each of COMBINATIONS; equal where all that makes it is equal."""
    xp = numbers.__array_namespace__()
    keys = graph_ops.matmul(xp.astype(numbers, xp.float64), xp.asarray(WEIGHTS))
    return graph_ops.split(keys, [1] * len(COMBINATIONS))


def _is_one_of(key: Array, known: Keys) -> Array:
    """[n, 1] whether the key[n, 1] is a known one."""
    xp = key.__array_namespace__()
    return graph_ops.is_any(key == xp.asarray(known), axis=1)


def _limits(numbers: Matrix, like: Matrix) -> list[float]:
    """[2 x len(POOLS)] for the arithmetic of the row `like`[len(NUMBERS)]."""
    pools: dict[tuple[str, ...], Matrix] = {}
    for common in set(POOLS.values()):
        columns = [NUMBERS.index(field) for field in common]
        is_equal = numbers[:, columns] == like[columns]
        pools[common] = numbers[is_equal.all(axis=1)]
    lowest: list[float] = []
    highest: list[float] = []
    for name, common in POOLS.items():
        values = pools[common][:, NUMBERS.index(name)]
        margin = MARGINS.get(name, MARGIN)
        is_known = name not in MAY_BE_UNKNOWN or values.any()
        smallest, largest = float(values.min()), float(values.max())
        lowest.append(0.0 if name in LARGEST_ONLY else smallest / margin)
        highest.append(largest * margin if is_known else ENDLESS)
    return lowest + highest
