"""Which rows a first fit leaves out, to say whether trees help and how wide intervals are.

A layer, an (n, k) at any m, is left out as a whole: what is learned from these rows then holds for
layers that no sample has. They are in FOLDS parts, so that rows of some layers can be tested with
what rows of other layers say. This is inside a training; which shapes no version is trained on is
in costmodel/dataset.py.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

from gemmcast.query import AT, Rows

Numbers = npt.NDArray[np.int64]
"""[n_rows]"""

HELD_OUT: Final = 0.2
"""Of the layers."""
FOLDS: Final = 4
"""Parts of the held-out layers: 0 to FOLDS - 1. The number FOLDS is of the rows to train on."""
MIN_LAYERS: Final = 20
"""With fewer layers shapes are left out: one layer would be a large part of the rows."""


def parts(queries: Rows) -> Numbers:
    """[n_rows] the part of each row of queries[n_rows, n_fields], drawn at random by layer.

    Where all rows have one shape they are drawn one by one.
    """
    group_of_row = _groups(queries, "n", "k")
    if group_of_row.max() + 1 < MIN_LAYERS:
        group_of_row = _groups(queries, "m", "n", "k")
    if not group_of_row.any():
        group_of_row = np.arange(len(queries))
    count = int(group_of_row.max()) + 1
    place_of_group = np.random.default_rng(0).permutation(count)
    place_of_row = place_of_group[group_of_row]
    is_held_out = place_of_row < max(1, round(HELD_OUT * count))
    return np.where(is_held_out, place_of_row % FOLDS, FOLDS)


def _groups(queries: Rows, *fields: str) -> Numbers:
    """[n_rows] a number for what each row has in these fields."""
    columns = [AT[field] for field in fields]
    numbers = np.unique(queries[:, columns], axis=0, return_inverse=True)[1]
    return numbers.reshape(-1)
