"""What cuBLASLt's ids mean as knobs, what a configuration asks for by name, and in which order unlisted configurations are tried.

cuBLASLt computes C^T: its tiles and clusters, rows x columns, run along our n and m. They are swapped here and nowhere else.
Custom option, inner shape and reduction scheme are no knobs of ours: beyond the heuristic's list there is one of each per configuration,
so that the knobs of a row name one configuration. Needs neither the library nor a GPU.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

Table = NDArray[np.int32]
# table[n_configurations, n_ids], each row an Ids
Grid = tuple[NDArray[np.int32], ...]
# the values that each of Ids may take; every combination is a configuration

KNOBS: Final = ("algo_id", "tile_m", "tile_n", "tile_k", "stages", "split_k", "swizzle", "cluster_m", "cluster_n")
KNOBS_OF: Final = {
    "algo": ("algo_id",),
    "tile": ("tile_m", "tile_n"),
    "stages": ("tile_k", "stages"),
    "split": ("split_k",),
    "swizzle": ("swizzle",),
    "cluster": ("cluster_m", "cluster_n"),
}
# which of Ids tells which knobs
SPLITS: Final = (2, 3, 4, 8, 16)
PORTABLE_CLUSTER: Final = 8
# thread blocks that CUDA grants without being asked specially
SCHEMES: Final = (2, 1, 4)
# cublasLtReductionScheme_t, the most exact first: slices kept in the compute type, added up in place, kept in the output's type


class Ids(NamedTuple):
    """A configuration in the library's own numbers."""

    algo: int
    tile: int
    stages: int
    split: int
    swizzle: int
    cluster: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Algorithm:
    """What one algorithm id says it can do."""

    algo: int
    tiles: tuple[int, ...]
    stages: tuple[int, ...]
    scheme: int
    # of split-k; 0: no split-k
    swizzles: int
    # the largest
    batched: bool
    alignment: tuple[int, int, int]
    # bytes, of the library's A, B and C


def parse(kernel: str) -> tuple[str, int] | None:
    """("heuristic", i) or ("enumerated", i); no name at all is the default; None for what is no name of ours."""
    if kernel in ("", "default"):
        return "heuristic", 0
    found = re.fullmatch(r"(heuristic|beyond)-(0|[1-9]\d{0,8})", kernel)
    return (found[1], int(found[2])) if found and kernel != "heuristic-0" else None


def named(index: int) -> str:
    """The name of the heuristic's choice of that index."""
    return f"heuristic-{index}" if index else "default"


class Names:
    """Knobs of the ids, from the names of the binding's enums (TILE_128x64, STAGES_64xAUTO, SHAPE_2x1x1)."""

    def __init__(self, tiles: Iterable[Any], stages: Iterable[Any], clusters: Iterable[Any]) -> None:
        self._tiles, self._stages, self._clusters = (_numbers(members) for members in (tiles, stages, clusters))

    def knobs(self, ids: Ids) -> dict[str, int]:
        """0 where the library leaves it open, or its name is newer than the binding."""
        tile, stages, cluster = self._tiles.get(ids.tile, (0, 0)), self._stages.get(ids.stages, (0, 0)), self._clusters.get(ids.cluster, (0, 0))
        values = (ids.algo, tile[1], tile[0], stages[0], stages[1], max(1, ids.split), ids.swizzle, cluster[1], cluster[0])
        return dict(zip(KNOBS, values, strict=True))

    def deep(self, stages: Iterable[int]) -> bool:
        """Does the library pick the depth itself (xAUTO)? Those are the algorithms of sm_90 and later, the ones that have clusters."""
        return any(depth[0] and not depth[1] for depth in (self._stages.get(one, (0, 0)) for one in stages))

    def clusters(self) -> list[int]:
        """Shapes worth asking for: powers of two, portable; 0 leaves it to the library."""
        shapes = {one: shape for one, shape in self._clusters.items() if shape[0] * shape[1] in (1, 2, 4, PORTABLE_CLUSTER)}
        return [0, *sorted(shapes)]

    def having(self, wanted: Mapping[str, int], table: Table, *, exact: bool) -> NDArray[np.bool_]:
        """Which rows have the wanted knobs. A wanted 0 leaves the knob open, unless exact."""
        fits = np.ones(len(table), dtype=bool)
        for at, of in enumerate(Ids._fields):
            good = [one for one in set(table[:, at].tolist()) if self._fits(Ids(0, 0, 0, 1, 0, 0)._replace(**{of: one}), of, wanted, exact)]
            fits &= np.isin(table[:, at], good)
        return fits

    def _fits(self, ids: Ids, of: str, wanted: Mapping[str, int], exact: bool) -> bool:
        have = self.knobs(ids)
        return all(wanted[knob] == have[knob] or (not exact and not wanted[knob]) for knob in KNOBS_OF[of])


def _numbers(members: Iterable[Any]) -> dict[int, tuple[int, int]]:
    """id -> the first two numbers of its name; AUTO is 0."""
    found = ((int(member), re.fullmatch(r"[A-Z]+_(\d+)x(\d+|AUTO)(?:x\d+)?", member.name)) for member in members)
    return {one: (int(name[1]), 0 if name[2] == "AUTO" else int(name[2])) for one, name in found if name}


def scheme(mask: int) -> int:
    """The reduction scheme to use, of those that the mask allows; 0 for none."""
    return next((one for one in SCHEMES if mask & one), 0)


def grids(algorithms: Sequence[Algorithm], names: Names, *, batched: bool, alignment: tuple[int, int, int]) -> list[Grid]:
    """Every configuration that the capabilities allow; most of them the library will refuse when asked."""
    made = []
    for one in algorithms:
        aligned = all(have % max(1, need) == 0 for have, need in zip(alignment, one.alignment, strict=True))
        if aligned and (one.batched or not batched):
            splits = (1, *SPLITS) if one.scheme else (1,)
            clusters = names.clusters() if names.deep(one.stages) else [0]
            axes = ((one.algo,), one.tiles, one.stages, splits, range(one.swizzles + 1), clusters)
            made.append(tuple(np.array(axis, dtype=np.int32) for axis in axes))
    return made


def size(made: Iterable[Grid]) -> int:
    return sum(prod(map(len, grid)) for grid in made)


def shuffled(made: Sequence[Grid], problem: str, first: int | None = None) -> Table:
    """All of it or the first so many, in an order that depends on the problem's text and on each row alone: none moves another."""
    seed = np.full(1, int.from_bytes(hashlib.sha256(problem.encode()).digest()[:8], "little"), dtype=np.uint64)
    keys = np.concatenate([np.empty(0, np.uint64), *(_keys(grid, seed) for grid in made)])
    if first is None or first >= len(keys):
        places = np.argsort(keys, kind="stable")
    else:  # a problem has hundreds of thousands: sorting them all takes longer than measuring a few
        places = np.sort(np.argpartition(keys, first)[:first])
        places = places[np.argsort(keys[places], kind="stable")]
    return _rows(made, places)


def _keys(grid: Grid, seed: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Of every row, the last axis running fastest."""
    key = seed
    for axis in grid:
        key = _mixed((key[:, None] ^ axis.astype(np.uint64)).ravel())
    return key


def _rows(made: Sequence[Grid], places: NDArray[np.intp]) -> Table:
    rows = np.empty((len(places), len(Ids._fields)), dtype=np.int32)
    begin = 0
    for grid in made:
        shape = tuple(map(len, grid))
        here = (places >= begin) & (places < begin + prod(shape))
        at = np.unravel_index(places[here] - begin, shape)
        rows[here] = np.stack([axis[i] for axis, i in zip(grid, at, strict=True)], axis=-1)
        begin += prod(shape)
    return rows


def _mixed(x: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """The finalizer of splitmix64 (prng.di.unimi.it/splitmix64.c): NumPy promises no shuffle of its own to stay the same."""
    x = x + np.uint64(0x9E3779B97F4A7C15)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


def without(rows: Table, listed: Iterable[Ids]) -> Table:
    """The rows that are not listed."""
    kept = np.ones(len(rows), dtype=bool)
    for ids in listed:
        kept &= (rows != np.array(ids, dtype=np.int32)).any(axis=1)
    return rows[kept]
