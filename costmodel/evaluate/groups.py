"""Groups of rows, and their deal into folds: what a model is not trained on when it is tested.

A group is a name per row: its shape, its layer (n and k at any m), its kernel (with one tile),
its type of device, its board (boards.py), or its size. Groups are dealt into folds by a hash of
their names, so the folds depend neither on the order of the rows nor on the machine. Knows nothing
of models.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator
from typing import Final

import numpy as np

from costmodel.dataset import Mask, Names, TrainingSet, library_default
from costmodel.evaluate.boards import boards
from gemmcast.draw import shuffled
from gemmcast.kernel_names import algorithm
from gemmcast.renames import first_config

FOLDS: Final = 5
KERNEL: Final = ("family", "kernel", "tile_m", "tile_n", "tile_k")
"""Columns that name a kernel, besides its algorithm, before it meets a shape."""


def split(groups: Names, folds: int, within: Names | None = None) -> Iterator[tuple[Mask, Mask]]:
    """Masks of training and test rows, one pair per fold.

    Groups are dealt out in the order of their names' hashes, so that folds have equally many.

    Args:
        groups: [n_rows] names; rows of None are in the training rows of every fold.
        folds: how many.
        within: [n_rows] names of larger groups. Each of them is dealt out on its own, so that every
            fold has a part of it.
    """
    parents = [None] * len(groups) if within is None else within
    names_of_parent: dict[object, set[str | None]] = defaultdict(set)
    for group, parent in zip(groups, parents, strict=True):
        names_of_parent[parent].add(group)
    fold_of: dict[tuple[object, str | None], int] = {}
    for parent, names in names_of_parent.items():
        fold_of[parent, None] = -1
        for i, name in enumerate(shuffled(filter(None, names))):
            fold_of[parent, name] = i % folds
    fold_of_row = np.array([fold_of[key] for key in zip(parents, groups, strict=True)])
    for fold in range(folds):
        yield fold_of_row != fold, fold_of_row == fold


def layers(data: TrainingSet) -> Names:
    """[n_rows] The (n, k) of each row."""
    return np.array([f"{n}x{k}" for n, k in data.keys("n", "k")], dtype=object)


def kernels(data: TrainingSet) -> Names:
    """[n_rows] The kernel of each row, with its tile and algorithm.

    None where a library chose the kernel, and in a family with one kernel: a model that was trained
    without it would have no row of the family.
    """
    names = np.full(len(data), None, dtype=object)
    is_default = library_default(data)
    kernels_of_family: dict[str, set[str]] = defaultdict(set)
    for i, (family, kernel, *tile, algo_id) in enumerate(data.keys(*KERNEL, "algo_id")):
        if is_default[i]:
            continue
        number = algorithm(family, kernel, algo_id)
        parts = (*_first_names(family, kernel), *tile, number)
        names[i] = " ".join(map(str, parts))
        kernels_of_family[family].add(names[i])
    for members in kernels_of_family.values():
        if len(members) == 1:
            names[names == members.pop()] = None
    return names


def _first_names(family: str, kernel: str) -> tuple[str, str]:
    """The names of schema 1, so that the folds of a dataset stay the same."""
    config: dict[str, str | int] = {
        "family": family,
        "kernel": kernel,
        "block_threads": 0,
        "cpu_threads": 0,
    }
    first = first_config(config)
    return str(first["family"]), str(first["kernel"])


def sizes(data: TrainingSet) -> Names:
    """[n_rows] The decade of each row's flops: "1e09" from 1e9 to just below 1e10."""
    decades: list[str] = []
    for m, n, k, batch in data.keys("m", "n", "k", "batch"):
        digits = len(str(2 * m * n * k * batch))
        decades.append(f"1e{digits - 1:02d}")
    return np.array(decades, dtype=object)


def devices(data: TrainingSet) -> Names:
    """[n_rows] The type of device of each row."""
    return data.column("device").astype(object)


GROUPS: Final[dict[str, Callable[[TrainingSet], Names]]] = {
    "shape": lambda data: data.shapes,
    "layer": layers,
    "member": kernels,
    "device": devices,
    "board": boards,
}
"""What a fold keeps together, by its name on the command line and in cards."""
