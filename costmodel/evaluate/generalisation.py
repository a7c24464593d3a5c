"""How right a model of this kind is about more than new shapes: layers, kernels and devices of which it saw nothing.

Each question is one split of all samples, one refit and one table of errors. The refit has the published model's shares, one network a target, and a
third of the steps at most, so that it costs seconds: it is a stand-in, somewhat worse than the model itself, and is thrown away. One fold each, no
cross-validation: these numbers say how large an error to expect, not which of two models is better. Beside it stand the baselines that cost little.

    layer        a fifth of the (n, k), by hash, at any m
    member       a fifth of the kernels (costmodel/evaluate/crossval.py, MEMBER) of every family that has several, by hash
    device X     every row of one type of device, asked of what the others taught
    device X + 50 samples    the same rows, when 50 rows of other shapes of that device were known too, such with power if there are
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any

import numpy as np
import numpy.typing as npt

from costmodel.dataset import Dataset
from costmodel.evaluate.crossval import FOLDS, beside_baselines, layers, members, scores, split
from costmodel.model import CostModel

Mask = npt.NDArray[np.bool_]
# [n_rows]
MIN_TRAINING, MIN_TEST = 100, 10
# rows; a question with fewer is not asked
MIN_LAYERS, MIN_MEMBERS = 20, 4
# different ones; with fewer there is no such entry
MIN_DEVICE_ROWS = 500
MOST_DEVICES = 4
# are left out in turn, those with most rows: each costs two refits
KNOWN = 50
MEMBERS, STEPS = 1, 5_000
CHEAP = ("lookup", "roofline")
# the forest takes as long as the refit


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """One question: what is trained on, what is asked."""

    name: str
    split: str
    # in words
    training: Mask
    test: Mask


def unseen(data: Dataset, shares: Mapping[str, float]) -> dict[str, dict[str, Any]]:
    """name -> split (in words), train_rows, test_rows, scores (target -> method -> metric, costmodel/evaluate/metrics.py)."""
    found = {}
    for part in parts(data):
        training, test = data.take(part.training), data.take(part.test)
        said = CostModel(members=MEMBERS, steps=STEPS, shares=shares).fit_dataset(training).predict(test.queries)
        errors = scores(test, beside_baselines(training, test, said, CHEAP))
        found[part.name] = {"split": part.split, "train_rows": len(training), "test_rows": len(test), "scores": errors}
    return found


def parts(data: Dataset) -> Iterator[Part]:
    """The questions that the data can answer."""
    for part in (*_layer(data), *_member(data), *_devices(data)):
        if part.training.sum() >= MIN_TRAINING and part.test.sum() >= MIN_TEST:
            yield part


def _layer(data: Dataset) -> Iterator[Part]:
    groups = layers(data)
    if len(set(groups)) >= MIN_LAYERS:
        training, test = next(split(groups, FOLDS))
        yield Part(name="layer", split="a fifth of the (n, k), chosen by a hash, left out at every m", training=training, test=test)


def _member(data: Dataset) -> Iterator[Part]:
    groups = members(data)
    if len(set(groups) - {None}) >= MIN_MEMBERS:
        training, test = next(split(groups, FOLDS, within=data.column("family")))
        words = "a fifth of every family's kernels (kernel, tile, algorithm), chosen by a hash, left out at every shape"
        yield Part(name="member", split=words, training=training, test=test)


def _devices(data: Dataset) -> Iterator[Part]:
    devices = data.column("device")
    counts = Counter(devices.tolist())
    for device, rows in counts.most_common(MOST_DEVICES) if len(counts) > 1 else ():
        if rows < MIN_DEVICE_ROWS:
            continue
        here = devices == device
        known, test = _sampled(data, here)
        yield Part(name=f"device {device}", split="nothing of this type of device, much of others, shapes included", training=~here, test=test)
        words = f"as without them, with {known.sum()} samples of other shapes of this type of device, those with power first"
        yield Part(name=f"device {device} + {KNOWN} samples", split=words, training=~here | known, test=test)


def _sampled(data: Dataset, here: Mask) -> tuple[Mask, Mask]:
    """Of a device's rows KNOWN, spread over half of its shapes, those with power first; and all rows of the other half."""
    shapes = data.shapes.copy()
    shapes[~here] = None
    _, half = next(split(shapes, 2))
    metered = ~np.isnan(data.measured["power_w"])
    known = np.zeros(len(data), dtype=bool)
    hashed = np.argsort(data.column("cell_id"), kind="stable")  # an order that nobody chose
    known[[i for rows in (half & metered, half & ~metered) for i in _in_turn(data.shapes, hashed[rows[hashed]])][:KNOWN]] = True
    return known, here & ~half


def _in_turn(shapes: npt.NDArray[Any], rows: npt.NDArray[np.int64]) -> list[int]:
    """The rows, one of every shape, then a second of each, and so on."""
    by_shape: dict[Any, list[int]] = {}
    for i in rows.tolist():
        by_shape.setdefault(shapes[i], []).append(i)
    return [i for of_each in zip_longest(*by_shape.values()) for i in of_each if i is not None]
