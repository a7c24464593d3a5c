"""What the tile does to a prediction: its partial dependence, beside what was measured.

The mean over problems of the prediction with the tile replaced (Friedman, Greedy function
approximation, 2001, section 8.2), in logarithms and relative to each problem's own mean, so that
large problems do not outweigh small ones. A problem is one GEMM under one condition on one type of
device. Knows nothing of figures.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from coordinator.report.analysis import Predict
from coordinator.report.importance import TILE_FIELDS, key_codes
from costmodel.dataset import Indices, Mask, TrainingSet, Values
from costmodel.evaluate.ranking import PROBLEM
from gemmcast.query import AT, KNOB_FIELDS, Rows

Tile = tuple[int, int, int]
"""m, n, k"""
FAMILIES_BY_TILE = ("tiled", "blas", "custom", "triton", "cutlass", "cublaslt")
"""Ordered by how much of the difference between their configurations is the tile."""
MAX_TILES = 12
MIN_PROBLEMS = 10
"""Held-out problems with two measured tiles; with fewer, all problems are used."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TileDependence:
    """One target by tile, relative to the geometric mean of all tiles on the same problem."""

    target: str
    predicted: Values
    """[n_tiles] Geometric mean over the problems."""
    low: Values
    """[n_tiles] 10th percentile of the problems' predictions."""
    high: Values
    """[n_tiles] 90th percentile of the problems' predictions."""
    measured: Values | None
    """[n_tiles] None if no problem has two measured tiles."""
    problems: int
    held_out: bool
    """Whether all problems are held out."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FamilyByTile:
    """The dependences of one family on one device."""

    family: str
    device: str
    tiles: list[Tile]
    """By area."""
    dependences: list[TileDependence]


def dependence_on_tile(
    data: TrainingSet,
    held: TrainingSet,
    predict: Predict,
    targets: Sequence[str] = ("runtime_us", "power_w"),
) -> FamilyByTile | None:
    """Of the first of FAMILIES_BY_TILE with two tiles, on its most frequent device.

    Args:
        held: the held-out rows of `data`; used alone if MIN_PROBLEMS of their problems have two
            measured tiles.

    Returns:
        None if no family has two tiles.
    """
    for family in FAMILIES_BY_TILE:
        rows = _with_tile(data, family)
        if not len(rows):
            continue
        device = Counter(rows.column("device").tolist()).most_common(1)[0][0]
        rows = _on_device(rows, device)
        tiles = _frequent_tiles(rows)
        if len(tiles) < 2:
            continue
        held_rows = _on_device(_with_tile(held, family), device)
        dependences = []
        for target in targets:
            one = _dependence(held_rows, rows, tiles, predict, target, MIN_PROBLEMS)
            one = one or _dependence(rows, rows, tiles, predict, target, 0)
            if one:
                dependences.append(one)
        return FamilyByTile(family=family, device=device, tiles=tiles, dependences=dependences)
    return None


def _with_tile(data: TrainingSet, family: str) -> TrainingSet:
    """The family's rows with a known tile."""
    has_tile = data.column("tile_m").astype(int) > 0
    return data.take((data.column("family") == family) & has_tile)


def _on_device(data: TrainingSet, device: str) -> TrainingSet:
    return data.take(data.column("device") == device)


def _frequent_tiles(rows: TrainingSet) -> list[Tile]:
    counts = Counter(rows.keys(*TILE_FIELDS))
    tiles = [tile for tile, _ in counts.most_common(MAX_TILES)]
    return sorted(tiles, key=lambda tile: (tile[0] * tile[1], tile))


def _dependence(
    rows: TrainingSet,
    known: TrainingSet,
    tiles: list[Tile],
    predict: Predict,
    target: str,
    min_problems: int,
) -> TileDependence | None:
    """None if the model lacks the target, or with fewer problems than `min_problems`.

    Args:
        known: the rows that define the usual knobs of a tile; a superset of `rows`.
        min_problems: problems whose target was measured with two tiles.
    """
    problems = key_codes(rows.keys(*PROBLEM))
    effects, used = _measured_effects(rows, problems, tiles, target)
    if len(used) < min_problems:
        return None
    predictions = predict(_with_every_tile(rows, problems, known, tiles))
    if target not in predictions:
        return None
    values = np.asarray(predictions[target], dtype=np.float64)
    logs = np.log(values).reshape(-1, len(tiles))
    if len(used):
        logs = logs[used]
    relative = logs - logs.mean(axis=1, keepdims=True)
    low, high = np.exp(np.percentile(relative, [10, 90], axis=0))
    return TileDependence(
        target=target,
        predicted=np.exp(relative.mean(axis=0)),
        low=low,
        high=high,
        measured=np.exp(effects) if len(used) else None,
        problems=len(relative),
        held_out=rows is not known,
    )


def _measured_effects(
    rows: TrainingSet, problems: Indices, tiles: list[Tile], target: str
) -> tuple[Values, Indices]:
    """`tile_effects` of the rows that have one of the tiles and the target."""
    places = {tile: place for place, tile in enumerate(tiles)}
    tile_of_row = rows.keys(*TILE_FIELDS)
    at = np.array([places.get(tile, -1) for tile in tile_of_row], dtype=np.int64)
    measured = rows.measured[target]
    usable = (at >= 0) & ~np.isnan(measured)
    logs = np.log(measured[usable])
    return tile_effects(problems[usable], at[usable], logs, len(tiles))


def _with_every_tile(
    rows: TrainingSet, problems: Indices, known: TrainingSet, tiles: list[Tile]
) -> Rows:
    """[n_problems * n_tiles, n_fields] Each problem's first query with every tile.

    A tile brings the knobs with which it was measured most often.
    """
    columns = _columns_of_tile(known)
    usual = _usual_values(known, tiles, columns)
    first_rows = np.unique(problems, return_index=True)[1]
    queries = np.repeat(rows.queries[first_rows], len(tiles), axis=0)
    queries[:, columns] = np.tile(usual, (len(first_rows), 1))
    return queries


def _columns_of_tile(known: TrainingSet) -> list[int]:
    """The places of the fields that a tile brings with it."""
    fields = [*TILE_FIELDS, *KNOB_FIELDS]
    if known.column("device_kind")[0] == "cpu":
        # on a CPU the threads do not follow from the tile
        fields.remove("threads")
    return [AT[name] for name in fields]


def _usual_values(known: TrainingSet, tiles: list[Tile], columns: list[int]) -> Rows:
    """[n_tiles, n_columns] The most frequent values of each tile."""
    tile_of_row = known.keys(*TILE_FIELDS)
    counts: dict[Tile, Counter[tuple[float, ...]]] = defaultdict(Counter)
    for tile, values in zip(tile_of_row, known.queries[:, columns].tolist(), strict=True):
        counts[tile][tuple(values)] += 1
    usual = []
    for tile in tiles:
        [(values, _)] = counts[tile].most_common(1)
        usual.append(values)
    return np.array(usual, dtype=np.float32)


def tile_effects(
    problems: Indices, tiles: Indices, logs: Values, n_tiles: int
) -> tuple[Values, Indices]:
    """Least squares of log = effect of the problem + effect of the tile.

    Not every problem has every tile. If each has all, this is the mean of the logarithm relative
    to the problem's mean. Several rows of one problem and tile count with their mean.

    Args:
        problems, tiles, logs: [n_rows]

    Returns:
        effects[n_tiles], NaN for a tile without a usable problem; the usable problems, which have
        two tiles or more.
    """
    means, measured = _mean_table(problems, tiles, logs, n_tiles)
    usable = np.flatnonzero(measured.sum(axis=1) > 1)
    means, measured = means[usable], measured[usable]
    counts = measured.sum(axis=1, keepdims=True)
    centred = np.where(measured, means - means.sum(axis=1, keepdims=True) / counts, 0.0)

    # normal equations, with the effects of the problems eliminated
    weights = measured.astype(np.float64)
    normal = np.diag(weights.sum(axis=0)) - weights.T @ (weights / counts)
    effects = np.linalg.pinv(normal) @ centred.sum(axis=0)
    has_tile = measured.any(axis=0)
    if has_tile.any():
        effects = effects - effects[has_tile].mean()
    return np.where(has_tile, effects, np.nan), usable


def _mean_table(
    problems: Indices, tiles: Indices, logs: Values, n_tiles: int
) -> tuple[Values, Mask]:
    """[n_problems, n_tiles] Means of the rows, 0 where there is none; where there are rows."""
    n_problems = int(problems.max(initial=-1)) + 1
    sums = np.zeros((n_problems, n_tiles))
    counts = np.zeros((n_problems, n_tiles))
    np.add.at(sums, (problems, tiles), logs)
    np.add.at(counts, (problems, tiles), 1)
    measured = counts > 0
    means = np.divide(sums, counts, out=np.zeros_like(sums), where=measured)
    return means, measured
