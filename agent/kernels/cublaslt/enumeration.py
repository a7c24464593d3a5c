"""Every configuration that the capabilities allow for a problem, in a fixed shuffled order.

A problem has hundreds of thousands. The order is that of a hash of the problem's text and of the
configuration alone: a configuration that is added or left out moves none of the others, and
recorded rows can name a configuration by its place. Needs neither the library nor a GPU.

    axes    for one algorithm, the values of each of its ids
    table   table[n_configurations, n_ids], each row an Ids
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from math import prod
from typing import Final

import numpy as np
from numpy.typing import NDArray

from agent.kernels.cublaslt.names import Capabilities, IdDecoder, Ids, IdTable

IdAxes = tuple[NDArray[np.int32], ...]
"""The values that each of Ids may take; every combination is a configuration."""
SPLITS: Final = (1, 2, 3, 4, 8, 16)
"""Slices of k to try."""


def axes_of(
    algorithms: Iterable[Capabilities],
    decoder: IdDecoder,
    *,
    batched: bool,
    alignment: tuple[int, int, int],
) -> list[IdAxes]:
    """What the capabilities allow; the library refuses most of it when it checks.

    Args:
        alignment: bytes, of every row of the library's A, B and C.
    """
    axes = []
    for algorithm in algorithms:
        if batched and not algorithm.batched:
            continue
        if not _is_aligned(alignment, algorithm.alignment):
            continue
        has_clusters = decoder.has_automatic_depth(algorithm.stages)
        # In the order of Ids.
        values: tuple[Sequence[int], ...] = (
            (algorithm.algo,),
            algorithm.tiles,
            algorithm.stages,
            SPLITS if algorithm.scheme else (1,),
            range(algorithm.swizzles + 1),
            decoder.cluster_ids() if has_clusters else (0,),
        )
        axes.append(tuple(np.array(axis, dtype=np.int32) for axis in values))
    return axes


def _is_aligned(alignment: Sequence[int], needed: Sequence[int]) -> bool:
    pairs = zip(alignment, needed, strict=True)
    return all(available % max(1, least) == 0 for available, least in pairs)


def size(axes: Iterable[IdAxes]) -> int:
    """The number of configurations."""
    return sum(prod(_shape(one)) for one in axes)


def _shape(axes: IdAxes) -> tuple[int, ...]:
    return tuple(len(axis) for axis in axes)


def shuffled(axes: Sequence[IdAxes], problem: str, first: int | None = None) -> IdTable:
    """The configurations in their order.

    Args:
        problem: the text that seeds the order.
        first: only so many of the first places; None for all.
    """
    digest = hashlib.sha256(problem.encode()).digest()
    seed = np.full(1, int.from_bytes(digest[:8], "little"), dtype=np.uint64)
    keys = np.concatenate([np.empty(0, np.uint64), *(_keys(one, seed) for one in axes)])
    if first is None or first >= len(keys):
        places = np.argsort(keys, kind="stable")
    else:
        # Sorting all of them takes longer than measuring a few kernels.
        places = np.sort(np.argpartition(keys, first)[:first])
        places = places[np.argsort(keys[places], kind="stable")]
    return _rows(axes, places)


def _keys(axes: IdAxes, seed: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """[n_configurations]: one hash each, the last axis varying fastest."""
    keys = seed
    for axis in axes:
        pairs = keys[:, None] ^ axis.astype(np.uint64)
        keys = _mixed(pairs.ravel())
    return keys


def _mixed(x: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """The finalizer of splitmix64 (prng.di.unimi.it/splitmix64.c).

    NumPy does not promise that a shuffle of its own stays the same.
    """
    x = x + np.uint64(0x9E3779B97F4A7C15)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


def _rows(axes: Sequence[IdAxes], places: NDArray[np.intp]) -> IdTable:
    """The configurations at these places, counted through all axes."""
    rows = np.empty((len(places), len(Ids._fields)), dtype=np.int32)
    begin = 0
    for one in axes:
        shape = _shape(one)
        end = begin + prod(shape)
        inside = (places >= begin) & (places < end)
        indices = np.unravel_index(places[inside] - begin, shape)
        columns = [axis[index] for axis, index in zip(one, indices, strict=True)]
        rows[inside] = np.stack(columns, axis=-1)
        begin = end
    return rows


def without(rows: IdTable, listed: Iterable[Ids]) -> IdTable:
    """The rows that are not listed."""
    kept = np.ones(len(rows), dtype=bool)
    for ids in listed:
        kept &= (rows != np.array(ids, dtype=np.int32)).any(axis=1)
    return rows[kept]
