"""Which queries are about a device that own rows are of.

A query has no name of its device, only descriptors. It is about a device of the own rows where
units, memory bandwidth and L2 cache are the same but for NEAR. Boards of one type are one device.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Self

import numpy as np
import numpy.typing as npt

from costmodel import graph_ops
from costmodel.graph_ops import Array
from gemmcast.query import AT, Rows

Matrix = npt.NDArray[np.float32]
Mask = npt.NDArray[np.bool_]

DESCRIPTORS: Final = ("active_units", "dram_gbps", "l2_bytes")
COLUMNS: Final = [AT[name] for name in DESCRIPTORS]
NEAR: Final = 1.1
"""Factor between two readings that may be of one type: boards differ by up to 1.01 in bandwidth."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OwnDevices:
    """The types of device of some rows."""

    lowest: Matrix
    """[n_types, n_descriptors] of the queries about it."""
    highest: Matrix

    @classmethod
    def of(cls, queries: Rows) -> Self:
        """Of the own rows[n, n_fields]."""
        readings = np.unique(queries[:, COLUMNS], axis=0)
        types: list[Matrix] = []
        for reading in readings:
            if not any(_is_near(reading, known) for known in types):
                types.append(reading)
        centres = np.array(types, dtype=np.float32)
        return cls(lowest=centres / np.float32(NEAR), highest=centres * np.float32(NEAR))

    def __len__(self) -> int:
        return len(self.lowest)

    def shares(self, query: Array) -> list[Array]:
        """For each type [n, 1] whether the query is about it; half where two types are near.

        Array-API code, traced into the graph.
        """
        xp = query.__array_namespace__()
        readings = xp.take(query, xp.asarray(np.array(COLUMNS)), axis=1)
        is_of: list[Array] = []
        for lowest, highest in zip(self.lowest, self.highest, strict=True):
            is_inside = (readings >= xp.asarray(lowest)) & (readings <= xp.asarray(highest))
            inside = xp.astype(is_inside, xp.float32)
            is_of.append(graph_ops.reduce_min(inside, axis=1))
        number = xp.sum(xp.concat(is_of, axis=1), axis=1, keepdims=True)
        return [one / xp.maximum(number, xp.asarray(np.float32(1))) for one in is_of]


def _is_near(one: Matrix, other: Matrix) -> bool:
    ratios = np.maximum(one, 1) / np.maximum(other, 1)
    return bool(np.all((ratios <= NEAR) & (ratios >= 1 / NEAR)))
