"""What cuBLASLt's ids mean as knobs, and what its kernels are called (gemmcast/kernel_names.py).

cuBLASLt computes C^T: its tiles and clusters, rows x columns, run along our n and m. They are
swapped here and nowhere else. Custom option, inner shape and reduction scheme are no knobs of ours:
outside the heuristic's list there is one of each per configuration, so that the knobs of a row name
one configuration. Needs neither the library nor a GPU.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import IntEnum
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

IdTable = NDArray[np.int32]
"""table[n_configurations, n_ids], each row an Ids."""
Pair = tuple[int, int]

LT_KNOBS: Final = (
    "algo_id",
    "tile_m",
    "tile_n",
    "tile_k",
    "stages",
    "split_k",
    "swizzle",
    "cluster_m",
    "cluster_n",
)
"""The knobs of a KernelConfig that the family has."""
KNOBS_OF_ID: Final = {
    "algo": ("algo_id",),
    "tile": ("tile_m", "tile_n"),
    "stages": ("tile_k", "stages"),
    "split": ("split_k",),
    "swizzle": ("swizzle",),
    "cluster": ("cluster_m", "cluster_n"),
}
"""Field of Ids -> the knobs that it decides."""
PORTABLE_CLUSTER: Final = 8
"""Thread blocks in a cluster that CUDA grants without a special attribute."""
REDUCTION_SCHEMES: Final = (2, 1, 4)
"""cublasLtReductionScheme_t, the most exact first: slices of k kept in the compute type, added up
in place, kept in the output's type."""
UNKNOWN: Final = (0, 0)


class Ids(NamedTuple):
    """A configuration in the library's own numbers."""

    algo: int
    tile: int
    stages: int
    split: int
    swizzle: int
    cluster: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Capabilities:
    """What one algorithm of the library can do."""

    algo: int
    """Its id."""
    tiles: tuple[int, ...]
    """Ids of its tiles."""
    stages: tuple[int, ...]
    """Ids of its stages."""
    scheme: int
    """The reduction scheme of split-k; 0 where it cannot split k."""
    swizzles: int
    """The largest swizzle."""
    batched: bool
    """Multiplies several problems in one launch."""
    alignment: tuple[int, int, int]
    """Bytes that it needs of the library's A, B and C."""


def heuristic_name(index: int) -> str:
    """The name of the heuristic's choice of that index."""
    return f"heuristic-{index}" if index else "default"


def reduction_scheme(mask: int) -> int:
    """The reduction scheme to use, of those that the mask allows; 0 for none."""
    for scheme in REDUCTION_SCHEMES:
        if mask & scheme:
            return scheme
    return 0


class IdDecoder:
    """Knobs of the ids, from the names of the binding's enums.

    Args:
        tiles: nvmath's MatmulTile, with names such as TILE_128x64.
        stages: MatmulStages: STAGES_64x3, STAGES_64xAUTO.
        clusters: ClusterShape: SHAPE_2x1x1.
    """

    def __init__(
        self, tiles: Iterable[IntEnum], stages: Iterable[IntEnum], clusters: Iterable[IntEnum]
    ) -> None:
        self._tiles = _pairs_of(tiles)
        self._stages = _pairs_of(stages)
        self._clusters = _pairs_of(clusters)

    def knobs(self, ids: Ids) -> dict[str, int]:
        """Every one of LT_KNOBS; 0 where the library decides it at run time, or where its name is
        newer than the binding."""
        rows, columns = self._tiles.get(ids.tile, UNKNOWN)
        tile_k, stages = self._stages.get(ids.stages, UNKNOWN)
        cluster_rows, cluster_columns = self._clusters.get(ids.cluster, UNKNOWN)
        return {
            "algo_id": ids.algo,
            "tile_m": columns,
            "tile_n": rows,
            "tile_k": tile_k,
            "stages": stages,
            "split_k": max(1, ids.split),
            "swizzle": ids.swizzle,
            "cluster_m": cluster_columns,
            "cluster_n": cluster_rows,
        }

    def has_automatic_depth(self, stages: Iterable[int]) -> bool:
        """Does the library pick the number of stages itself (xAUTO)?

        Those are the algorithms of sm_90 and later, the ones that have clusters.
        """
        for stages_id in stages:
            tile_k, depth = self._stages.get(stages_id, UNKNOWN)
            if tile_k and not depth:
                return True
        return False

    def cluster_ids(self) -> list[int]:
        """Clusters to try: powers of two, portable; 0 leaves the choice to the library."""
        sizes = (1, 2, 4, PORTABLE_CLUSTER)
        portable = [
            cluster_id
            for cluster_id, (rows, columns) in self._clusters.items()
            if rows * columns in sizes
        ]
        return [0, *sorted(portable)]

    def rows_with(
        self, wanted: Mapping[str, int], table: IdTable, *, exact: bool
    ) -> NDArray[np.bool_]:
        """[n_configurations]: whether the row has the wanted knobs.

        Args:
            wanted: every one of LT_KNOBS.
            exact: a wanted 0 is a value like others; otherwise it leaves the knob open.
        """
        matching = np.ones(len(table), dtype=bool)
        for column, field in enumerate(Ids._fields):
            values = set(table[:, column].tolist())
            good = [value for value in values if self._fits(field, value, wanted, exact)]
            matching &= np.isin(table[:, column], good)
        return matching

    def _fits(self, field: str, value: int, wanted: Mapping[str, int], exact: bool) -> bool:
        """Whether this value of one id gives the wanted knobs."""
        neutral = Ids(algo=0, tile=0, stages=0, split=1, swizzle=0, cluster=0)
        knobs = self.knobs(neutral._replace(**{field: value}))
        for knob in KNOBS_OF_ID[field]:
            is_open = not exact and not wanted[knob]
            if not is_open and wanted[knob] != knobs[knob]:
                return False
        return True


def _pairs_of(members: Iterable[IntEnum]) -> dict[int, Pair]:
    """id -> the first two numbers of its name; AUTO is 0. Names of another form are left out."""
    pairs = {}
    for member in members:
        match = re.fullmatch(r"[A-Z]+_(\d+)x(\d+|AUTO)(?:x\d+)?", member.name)
        if match is not None:
            second = 0 if match[2] == "AUTO" else int(match[2])
            pairs[int(member)] = (int(match[1]), second)
    return pairs
