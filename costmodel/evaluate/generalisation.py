"""How well a kind of model predicts layers, kernels, devices and boards that it was not trained on.

Each split parts all samples once, by board a few times; a model is fitted on one part and scored
on the other, beside the baselines that cost little. The caller hands over how a model is fitted:
usually smaller than the one that is published, so that a split takes seconds. One split each is no
cross-validation: the numbers say how large an error to expect, not which of two models is better.

    layer        a fifth of the (n, k), chosen by a hash, at any m
    layer-algorithm    a fifth of the pairs of an (n, k) and an algorithm; rows of that (n, k) with
                 others, and of the algorithm on other (n, k), stay
    member       a fifth of the kernels of every family that has several, chosen by a hash
    device X     all rows of one type of device, predicted from those of the others
    device X + 50 samples    the same, with 50 rows of that device's other shapes in training, those
                             with power first
    board        each board once, by a model without any row of it; rows of its type's other boards
                 stay, at the same shapes too
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import chain, zip_longest
from typing import Final

import numpy as np

from costmodel.dataset import Indices, Mask, Names, TrainingSet
from costmodel.evaluate.boards import board_folds, boards
from costmodel.evaluate.crossval import (
    Fit,
    Predictions,
    add_intervals,
    beside_baselines,
    place,
    scores,
    scores_by,
)
from costmodel.evaluate.groups import (
    FOLDS,
    devices,
    kernels,
    kinds,
    layer_algorithms,
    layers,
    split,
)
from costmodel.evaluate.metrics import ScoreTable, to_json
from costmodel.progress import Step, no_step

MIN_TRAINING: Final = 100
"""Rows; a split with fewer training rows is left out."""
MIN_TEST: Final = 10
"""Rows; a split with fewer test rows is left out."""
MIN_LAYERS: Final = 20
"""Different layers, or pairs with an algorithm; with fewer there is no split by them."""
MIN_MEMBERS: Final = 4
"""Different kernels; with fewer there is no split by kernel."""
MIN_DEVICE_ROWS: Final = 500
"""Rows; a type of device with fewer is not left out."""
MOST_DEVICES: Final = 4
"""So many types of device are left out in turn, those with most rows: each costs two fits."""
KNOWN_SAMPLES: Final = 50
"""Rows of a device that are known beforehand in its second split."""
CHEAP_BASELINES: Final = ("lookup", "roofline")
"""The forest takes as long as a fit of the model."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Split:
    """Which rows a model is trained on, and which it is tested with."""

    name: str
    """Splits of one name are scored together; no row is tested in two of them."""
    description: str
    """In words, for the card."""
    training: Mask
    test: Mask


@dataclass(frozen=True, slots=True, kw_only=True)
class SplitScores:
    """The errors of one split."""

    description: str
    train_rows: int
    """Of one model; of the smallest where there are several."""
    test_rows: int
    scores: ScoreTable
    kinds: Mapping[str, ScoreTable]
    """The same rows by kind of kernel (groups.py)."""

    def to_json(self) -> dict[str, object]:
        """The layout of a model card."""
        return {
            "split": self.description,
            "train_rows": self.train_rows,
            "test_rows": self.test_rows,
            "scores": to_json(self.scores),
            "kinds": {name: to_json(table) for name, table in self.kinds.items()},
        }


def generalisation(data: TrainingSet, fit: Fit, step: Step = no_step) -> dict[str, SplitScores]:
    """The errors of each split that the data allow, by the split's name.

    Args:
        fit: called once per split with its training rows.
        step: called before each split.
    """
    predicted: dict[str, Predictions] = defaultdict(dict)
    parts_by_name: dict[str, list[Split]] = defaultdict(list)
    parts = list(splits(data))
    for i, part in enumerate(parts):
        step("generalisation", i, len(parts))
        training = data.take(part.training)
        test = data.take(part.test)
        model = fit(training)
        from_model = model.predict(test.queries)
        of_part = beside_baselines(training, test, from_model, CHEAP_BASELINES)
        add_intervals(of_part, model.outputs_, from_model)
        place(predicted[part.name], of_part, part.test)
        parts_by_name[part.name].append(part)
    by_name: dict[str, SplitScores] = {}
    for name, of_name in parts_by_name.items():
        by_name[name] = SplitScores(
            description=of_name[0].description,
            train_rows=min(int(part.training.sum()) for part in of_name),
            test_rows=sum(int(part.test.sum()) for part in of_name),
            scores=scores(data, predicted[name]),
            kinds=_by_kind(data, predicted[name]),
        )
    return by_name


def _by_kind(data: TrainingSet, predicted: Predictions) -> dict[str, ScoreTable]:
    """The scores of each kind of kernel that was tested."""
    tables = scores_by(data, predicted, kinds(data))
    return {name: table for name, table in tables.items() if table}


def splits(data: TrainingSet) -> Iterator[Split]:
    """The splits that have enough rows on both sides."""
    parts = chain(
        _by_layer(data),
        _by_layer_and_algorithm(data),
        _by_kernel(data),
        _by_device(data),
        _by_board(data),
    )
    for part in parts:
        if part.training.sum() >= MIN_TRAINING and part.test.sum() >= MIN_TEST:
            yield part


def _by_layer(data: TrainingSet) -> Iterator[Split]:
    groups = layers(data)
    if len(set(groups)) < MIN_LAYERS:
        return
    training, test = next(split(groups, FOLDS))
    yield Split(
        name="layer",
        description="a fifth of the (n, k), chosen by a hash, left out at every m",
        training=training,
        test=test,
    )


def _by_layer_and_algorithm(data: TrainingSet) -> Iterator[Split]:
    groups = layer_algorithms(data)
    if len(set(groups) - {None}) < MIN_LAYERS:
        return
    training, test = next(split(groups, FOLDS))
    yield Split(
        name="layer-algorithm",
        description=(
            "a fifth of the pairs of an (n, k) and an algorithm, chosen by a hash, left out at "
            "every m; other algorithms on that (n, k) may stay, and the algorithm on others"
        ),
        training=training,
        test=test,
    )


def _by_kernel(data: TrainingSet) -> Iterator[Split]:
    groups = kernels(data)
    if len(set(groups) - {None}) < MIN_MEMBERS:
        return
    training, test = next(split(groups, FOLDS, within=data.column("family")))
    description = (
        "a fifth of every family's kernels (kernel, tile, algorithm), chosen by a hash, "
        "left out at every shape"
    )
    yield Split(name="member", description=description, training=training, test=test)


def _by_device(data: TrainingSet) -> Iterator[Split]:
    names = devices(data)
    counts = Counter(names.tolist())
    if len(counts) == 1:
        return
    for device, rows in counts.most_common(MOST_DEVICES):
        if rows < MIN_DEVICE_ROWS:
            continue
        of_device = names == device
        known, test = _known_samples(data, of_device)
        yield Split(
            name=f"device {device}",
            description="no rows of this type of device; rows of others, at the same shapes too",
            training=~of_device,
            test=test,
        )
        yield Split(
            name=f"device {device} + {KNOWN_SAMPLES} samples",
            description=(
                f"the same with {known.sum()} samples of other shapes of this type of device, "
                "those with power first"
            ),
            training=~of_device | known,
            test=test,
        )


def _by_board(data: TrainingSet) -> Iterator[Split]:
    count = len(set(boards(data)) - {None})
    groups = board_folds(data, FOLDS)
    folds = min(FOLDS, count)
    description = (
        f"no rows of the board: {count} boards in {folds} groups, each predicted by a model of the "
        "others; rows of other boards, at the same shapes too"
    )
    for training, test in split(groups, folds):
        yield Split(name="board", description=description, training=training, test=test)


def _known_samples(data: TrainingSet, of_device: Mask) -> tuple[Mask, Mask]:
    """Masks of the device's rows that are known beforehand, and of those to predict.

    Known are KNOWN_SAMPLES rows, spread over half of the device's shapes, those with power first.
    To predict are all rows of the other half.
    """
    shapes = data.shapes.copy()
    shapes[~of_device] = None
    _, known_half = next(split(shapes, 2))
    has_power = ~np.isnan(data.measured["power_w"])

    # an order that depends on names alone
    by_cell_id = np.argsort(data.column("cell_id"), kind="stable")
    candidates: list[int] = []
    for wanted in (known_half & has_power, known_half & ~has_power):
        rows = by_cell_id[wanted[by_cell_id]]
        candidates += _one_shape_after_another(data.shapes, rows)
    known = np.zeros(len(data), dtype=bool)
    known[candidates[:KNOWN_SAMPLES]] = True
    return known, of_device & ~known_half


def _one_shape_after_another(shapes: Names, rows: Indices) -> list[int]:
    """The rows in another order: one of every shape, then a second of each, and so on."""
    rows_by_shape: dict[str, list[int]] = {}
    for row in rows.tolist():
        rows_by_shape.setdefault(shapes[row], []).append(row)
    rounds = zip_longest(*rows_by_shape.values())
    return [row for row in chain.from_iterable(rounds) if row is not None]
