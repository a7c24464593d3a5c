"""How a tile changes what a GEMM costs: rows side by side in groups, as arXiv 2411.16954 does.

A group holds rows of the same GEMM on the same board that differ in one thing, such as the tile.
A ratio is the quotient of two rows of one group; ratios are averaged as geometric means.
Knows neither models nor how results are shown: coordinator/report/html.py and benchmarks/paper do.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from operator import itemgetter
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from gemmcast.rows import Row

Varied = TypeVar("Varied", bound=Hashable)
"""What differs within a group: a tile (int), a block or a layout (str), a configuration."""
TileGroup = dict[int, Row]
"""Tile -> row, of one GEMM on one board."""
TileGroups = Mapping[str, Sequence[TileGroup]]
"""TrainingSet -> its groups of tiles."""
RowGroup = Mapping[Varied, Row]
"""A group of rows by what differs in it, where no tile is meant."""
Ratios = npt.NDArray[np.float64]
"""[n_pairs]"""

SIZE_CLASSES = {
    "< 0.01": (0.0, 0.01),
    "0.01 to 0.1": (0.01, 0.1),
    "0.1 to 1": (0.1, 1.0),
    "1 to 10": (1.0, 10.0),
    "10 to 100": (10.0, 100.0),
    "> 100": (100.0, np.inf),
}
"""Name of a size class -> from, to (exclusive), in GFLOP."""
ALL_SIZES = "all"
BASE_TILE = 16
TIE_FACTOR = 1.02
"""Times within this factor count as equal: a burst without a power window repeats to 0.94 %
(docs/measuring.md), and two of these are the smallest difference that says something."""
TIME, POWER, ENERGY = "runtime_us", "power_w", "energy_mj"


def rows_where(rows: Iterable[Row], **values: object) -> list[Row]:
    """The rows that have these values in these columns."""
    return [row for row in rows if values.items() <= row.items()]


def group_rows(
    rows: Iterable[Row], same: Sequence[str], varied: Callable[[Row], Varied]
) -> list[dict[Varied, Row]]:
    """Rows of one board that are equal in the columns `same`, by their value of `varied`.

    Groups with a single row are left out.
    """
    key_of = itemgetter(*same, "device_uuid")
    by_key: dict[tuple[object, ...], dict[Varied, Row]] = defaultdict(dict)
    for row in rows:
        by_key[key_of(row)][varied(row)] = row
    return [group for group in by_key.values() if len(group) > 1]


def reading_ratios(
    groups: Iterable[RowGroup[Varied]], reading: str, value: Varied, base: Varied
) -> Ratios:
    """reading of `value` / reading of `base`, of every group in which both were read."""
    ratios = []
    for group in groups:
        if value not in group or base not in group:
            continue
        numerator = group[value][reading]
        denominator = group[base][reading]
        if numerator and denominator:
            ratios.append(numerator / denominator)
    return np.array(ratios, dtype=np.float64)


def complete_groups(groups: Sequence[dict[Varied, Row]]) -> list[dict[Varied, Row]]:
    """The groups that have every value of the most frequent set of values."""
    if not groups:
        return []
    value_sets = Counter(frozenset(group) for group in groups)
    expected, _ = value_sets.most_common(1)[0]
    return [group for group in groups if expected <= set(group)]


def geomean(values: Ratios) -> float:
    """The geometric mean."""
    return float(np.exp(np.mean(np.log(values))))


def gflop(group: RowGroup[Varied]) -> float:
    """The size of a group's GEMM, 2 m n k batch."""
    row = next(iter(group.values()))
    return 2e-9 * float(row["m"] * row["n"] * row["k"] * row["batch"])


def least_us(rows: Iterable[Row]) -> float:
    """The time of the fastest row."""
    return min(float(row[TIME]) for row in rows)


def excess_of_tile(groups: Sequence[TileGroup], tile: int) -> Ratios:
    """The tile's time / the best tile's, of every group that has the tile."""
    ratios = [group[tile][TIME] / least_us(group.values()) for group in groups if tile in group]
    return np.array(ratios, dtype=np.float64)


@dataclass(frozen=True, slots=True, kw_only=True)
class SizeClass:
    """The shapes of one dataset in one size class."""

    dataset: str
    size: str
    """A name of SIZE_CLASSES, or ALL_SIZES."""
    groups: list[TileGroup]
    complete: list[TileGroup]
    """Those with every tile that most groups of the class have."""


def size_classes(tile_groups: TileGroups) -> list[SizeClass]:
    """By dataset and size; after the sizes of a dataset comes the dataset as a whole."""
    classes: list[SizeClass] = []
    for dataset, groups in tile_groups.items():
        sized = _by_size(dataset, groups)
        complete: list[TileGroup] = []
        for one in sized:
            complete += one.complete
        whole = SizeClass(dataset=dataset, size=ALL_SIZES, groups=list(groups), complete=complete)
        classes += [*sized, whole]
    return classes


def _by_size(dataset: str, groups: Sequence[TileGroup]) -> list[SizeClass]:
    classes = []
    for size, (low, high) in SIZE_CLASSES.items():
        members = [group for group in groups if low <= gflop(group) < high]
        if members:
            complete = complete_groups(members)
            one = SizeClass(dataset=dataset, size=size, groups=members, complete=complete)
            classes.append(one)
    return classes


@dataclass(frozen=True, slots=True, kw_only=True)
class TunedGroup:
    """Configurations of one GEMM on one board."""

    rows: list[Row]
    baseline: Row | None
    """The row that a user would get without tuning; None where it was not measured."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TunedGroups:
    """Groups of one kind of kernel that are compared with the same baseline."""

    name: str
    baseline: str
    """What the baseline is, in words."""
    groups: list[TunedGroup]

    def with_baseline(self) -> list[tuple[Row, list[Row]]]:
        """(baseline, rows) of the groups in which the baseline was measured."""
        return [(group.baseline, group.rows) for group in self.groups if group.baseline]

    def speedups(self) -> Ratios:
        """[n_groups with the baseline] The baseline's time / the least time."""
        ratios = [baseline[TIME] / least_us(rows) for baseline, rows in self.with_baseline()]
        return np.array(ratios, dtype=np.float64)


def tuned_by_tile(tile_groups: TileGroups) -> dict[str, list[TunedGroups]]:
    """TrainingSet -> its tiles, compared with the smallest tile and with BASE_TILE.

    Shapes may begin at different tiles. Each such smallest tile is a baseline for all shapes that
    have it, among the tiles from it on. The last entry compares with BASE_TILE, among the tiles
    that every shape has.
    """
    tuned: dict[str, list[TunedGroups]] = {}
    for one in size_classes(tile_groups):
        if one.size != ALL_SIZES or not one.complete:
            continue
        smallest = sorted(set(map(min, one.complete)))
        entries = [_from_tile(one, tile, baseline=tile) for tile in smallest]
        in_all_shapes = min(BASE_TILE, smallest[-1])
        entries.append(_from_tile(one, in_all_shapes, baseline=BASE_TILE))
        tuned[one.dataset] = entries
    return tuned


def _from_tile(sizes: SizeClass, first: int, baseline: int) -> TunedGroups:
    """The tiles from `first` on, of the complete shapes that have it."""
    groups = []
    largest = first
    for group in sizes.complete:
        if first not in group:
            continue
        rows = [row for tile, row in group.items() if tile >= first]
        groups.append(TunedGroup(rows=rows, baseline=group.get(baseline)))
        largest = max(largest, *group)
    return TunedGroups(
        name=f"tiled {first} to {largest}, {sizes.dataset}",
        baseline=f"tile {baseline}",
        groups=groups,
    )


def metered_pairs(tuned: TunedGroups) -> Ratios:
    """[n_pairs, 2] Each metered configuration beside its metered baseline, both sustained.

    First column: the baseline's time / the configuration's. Second: the configuration's power /
    the baseline's.
    """
    pairs = []
    for baseline, rows in tuned.with_baseline():
        if not _is_metered(baseline):
            continue
        for row in rows:
            if row is not baseline and _is_metered(row):
                speed = baseline["sustained_runtime_us"] / row["sustained_runtime_us"]
                pairs.append((speed, row[POWER] / baseline[POWER]))
    return np.array(pairs, dtype=np.float64).reshape(-1, 2)


def _is_metered(row: Row) -> bool:
    return bool(row[POWER] and row["sustained_runtime_us"])
