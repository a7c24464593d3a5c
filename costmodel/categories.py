"""Kinds of kernel and of arithmetic, as columns of 0 and 1 for the networks.

    query[n, len(FIELDS)]  ->  one_hot[n, n_categories]

There are two sorts of category: (family, dtype), and (family, algorithm). A column is 1 where the
query has that combination; a combination without a column was in no training row.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from costmodel import graph_ops
from costmodel.graph_ops import Array
from gemmcast.query import AT, FIELDS, Rows

FAMILY_STEP: Final = 2.0**20
"""More than any code of a dtype or an algorithm: family x FAMILY_STEP + code is one number."""
SORTS: Final = ("dtype", "algorithm")
Matrix = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True, kw_only=True)
class Categories:
    """The combinations that training rows had."""

    fields: tuple[str, ...]
    """[n_categories] one of SORTS for each category."""
    keys: Matrix
    """[n_categories] family x FAMILY_STEP + code."""

    @classmethod
    def of(cls, queries: Rows) -> Categories:
        """Every combination in queries[n, len(FIELDS)]."""
        fields: list[str] = []
        keys: list[float] = []
        for field in SORTS:
            known = np.unique(_key(queries, field)).tolist()
            fields += [field] * len(known)
            keys += known
        return cls(fields=tuple(fields), keys=np.array(keys, dtype=np.float32))

    def __len__(self) -> int:
        return len(self.fields)

    def one_hot(self, query: Array) -> Array:
        """[n, n_categories]; array-API code, traced into the graph."""
        xp = query.__array_namespace__()
        to_keys = np.zeros((len(FIELDS), len(self)), dtype=np.float32)
        to_keys[AT["family"]] = FAMILY_STEP
        for i, field in enumerate(self.fields):
            to_keys[AT[field], i] = 1
        keys = graph_ops.matmul(query, xp.asarray(to_keys))
        return xp.astype(keys == xp.asarray(self.keys), xp.float32)

    def kernel_groups(self) -> list[tuple[int, float]]:
        """(column, group) of every algorithm: see `kernel_group`."""
        groups = []
        for i, (field, key) in enumerate(zip(self.fields, self.keys.tolist(), strict=True)):
            if field == "algorithm":
                family, algorithm = divmod(key, FAMILY_STEP)
                groups.append((i, float(kernel_group(family, algorithm))))
        return groups


def kernel_group(family: Array, algorithm: Array) -> Array:
    """A number for the family, with and without a named algorithm."""
    return family + (algorithm > 0) / 2


def _key(queries: Rows, field: str) -> Matrix:
    return FAMILY_STEP * queries[:, AT["family"]] + queries[:, AT[field]]
