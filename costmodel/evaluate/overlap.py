"""What training rows have of the rows that a model is tested with: boards, layers, shapes, cells.

A claim about new GEMMs holds for what was new. Each group of a tested row (its board, its (n, k),
its shape, its cell) was in the training rows or not; the shares are printed beside the errors.
Knows nothing of models.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

import numpy as np

from costmodel.dataset import Mask, TrainingSet
from gemmcast.config import KNOBS

OVERLAPS: Final[Mapping[str, tuple[str, ...]]] = {
    "board": ("device", "device_uuid"),
    "layer": ("n", "k"),
    "shape": ("m", "n", "k", "batch"),
    "cell": (
        *("m", "n", "k", "batch", "dtype", "layout", "alpha", "beta"),
        *("family", "kernel", *KNOBS, "cache", "device"),
    ),
}
"""Kind of group -> the columns that name it."""
Overlap = dict[str, float]
"""Kind of group -> per cent of the tested rows whose group training rows have too."""


def overlap(data: TrainingSet, folds: Iterable[tuple[Mask, Mask]]) -> Overlap:
    """Of the tested rows of all folds.

    Args:
        folds: masks of the training rows and of the test rows.
    """
    masks = list(folds)
    shares: Overlap = {}
    for kind, columns in OVERLAPS.items():
        codes = _codes(data, columns)
        known = 0
        tested = 0
        for is_training, is_test in masks:
            known += int(np.isin(codes[is_test], codes[is_training]).sum())
            tested += int(is_test.sum())
        shares[kind] = 100 * known / max(1, tested)
    return shares


def overlap_with(training: TrainingSet, test: TrainingSet) -> Overlap:
    """Of the rows of one table, where another one was trained on."""
    shares: Overlap = {}
    for kind, columns in OVERLAPS.items():
        known = set(training.keys(*columns))
        is_known = [key in known for key in test.keys(*columns)]
        shares[kind] = 100 * sum(is_known) / max(1, len(is_known))
    return shares


def _codes(data: TrainingSet, columns: Iterable[str]) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    """[n_rows] Equal numbers where the rows are equal in these columns."""
    numbers: dict[tuple[object, ...], int] = {}
    codes = [numbers.setdefault(key, len(numbers)) for key in data.keys(*columns)]
    return np.array(codes, dtype=np.int64)
