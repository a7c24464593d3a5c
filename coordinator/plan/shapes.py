"""The problem sizes of a [sweep.shapes] table: its list, its grids, then its random sample.

    log(size) ~ uniform(log(min), log(max + 1)), rounded to a multiple

The draws of a seed are one sequence, so a longer sample begins with the shorter one. Does not know
kernels or devices.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import numpy as np

from coordinator.plan.sweep import Shapes

Shape = tuple[int, int, int]

MAX_DRAWS_PER_SHAPE = 1000
"""A table that leaves no room for another new shape ends after so many draws."""


def shapes_of(shapes: Shapes, seed: int) -> list[Shape]:
    """The (m, n, k) of a table, each once; `seed` is the plan's."""
    result = dict.fromkeys(_listed(shapes))
    wanted = len(result) + shapes.sample
    draws = _draws(shapes, seed if shapes.seed is None else shapes.seed)
    while len(result) < wanted:
        shape = next(draws, None)
        if shape is None:
            break
        result[shape] = None
    return list(result)


def _listed(shapes: Shapes) -> Iterator[Shape]:
    yield from shapes.list
    yield from itertools.product(shapes.m, shapes.n, shapes.k)
    for m, (n, k) in itertools.product(shapes.m, shapes.nk):
        yield m, n, k


def _draws(shapes: Shapes, seed: int) -> Iterator[Shape]:
    rng = np.random.default_rng(seed)
    log_bounds = np.log(shapes.min), np.log(shapes.max + 1)
    for _ in range(MAX_DRAWS_PER_SHAPE * max(shapes.sample, 1)):
        sizes = np.exp(rng.uniform(*log_bounds, 3)).astype(int)
        m, n, k = (_rounded(int(size), shapes) for size in sizes)
        if shapes.max_gflop is None or 2e-9 * m * n * k <= shapes.max_gflop:
            yield m, n, k


def _rounded(size: int, shapes: Shapes) -> int:
    """To the nearest multiple within the bounds."""
    step = shapes.multiple
    fewest = -(-shapes.min // step)
    most = shapes.max // step
    steps = round(min(size, shapes.max) / step)
    return min(max(steps, fewest), most) * step
