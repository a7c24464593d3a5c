"""What training rows have of the rows that a model is tested with: boards, layers, shapes, cells.

A claim about new GEMMs holds for what was new. Each group of a tested row (its board, its (n, k),
its shape, its cell) was in the training rows or not; the shares are printed beside the errors.
Knows nothing of models.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

from costmodel.dataset import Mask, TrainingSet
from gemmcast.config import KNOBS

BOARD: Final = ("device", "device_uuid")
LAYER: Final = ("n", "k")
SHAPE: Final = ("m", "n", "k", "batch")
CONFIG: Final = ("family", "kernel", *KNOBS)
CELL: Final = (*SHAPE, "dtype", "layout", "alpha", "beta", *CONFIG, "cache", "device")
"""A GEMM with the configuration that ran, the state of the cache and the type of device; unlike a
cell id it does not contain a plan's repeat or power flag."""
KINDS: Final[Mapping[str, tuple[str, ...]]] = {
    "board": BOARD,
    "layer": LAYER,
    "shape": SHAPE,
    "cell": CELL,
}
"""Kind of group -> the columns that name it."""

Overlap = dict[str, float]
"""Kind of group -> per cent of the tested rows whose group training rows have too."""


def overlap(training: TrainingSet, test: TrainingSet) -> Overlap:
    """What a model's training rows have of the rows that it is tested with."""
    shares: Overlap = {}
    for kind, columns in KINDS.items():
        known = set(training.keys(*columns))
        is_known = [key in known for key in test.keys(*columns)]
        shares[kind] = 100 * sum(is_known) / max(1, len(is_known))
    return shares


def overlap_of_folds(data: TrainingSet, folds: Iterable[tuple[Mask, Mask]]) -> Overlap:
    """The same over the tested rows of all folds.

    Args:
        folds: masks of the training rows and of the test rows, none of them without a test row.
    """
    sums = dict.fromkeys(KINDS, 0.0)
    tested = 0
    for is_training, is_test in folds:
        test = data.take(is_test)
        tested += len(test)
        for kind, share in overlap(data.take(is_training), test).items():
            sums[kind] += share * len(test)
    return {kind: total / max(1, tested) for kind, total in sums.items()}
