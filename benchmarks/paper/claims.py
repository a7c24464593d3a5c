"""The table of the paper's claims beside what the same comparison gives on an H100.

A ratio is a geometric mean over pairs, then the smallest and the largest of them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from benchmarks.paper.forest import ON_GRID, ForestResult
from benchmarks.paper.markdown import Line, markdown_table
from benchmarks.paper.recordings import Recordings
from coordinator.report.tile_study import (
    BASE_TILE,
    ENERGY,
    POWER,
    TIE_FACTOR,
    TIME,
    Ratios,
    TileGroup,
    TunedGroups,
    geomean,
    gflop,
    least_us,
    metered_pairs,
    reading_ratios,
    tuned_by_tile,
)
from costmodel.evaluate.metrics import score

SPEED_CLAIM = "up to 3.2x faster by tile"
POWER_CLAIM = "22 % less power"
BALANCE_CLAIM = f"{BASE_TILE}x{BASE_TILE} is the best balance"
FOREST_CLAIMS = {
    TIME: "forest, runtime: R² 0.98, mean error 15.57 %",
    POWER: "forest, power: R² 0.78, median error 5.42 %",
}
LARGE_GFLOP = 1
"""From this size on, energy is compared apart."""


def claims_table(recordings: Recordings, forests: Sequence[ForestResult]) -> str:
    """One line per claim and dataset or split."""
    lines: list[Line] = []
    tile_groups = recordings.tile_groups()
    for name, by_baseline in tuned_by_tile(tile_groups).items():
        *by_smallest, by_base_tile = by_baseline
        lines += [_speed(name, tuned) for tuned in by_smallest]
        lines += [_power(name, tuned) for tuned in by_smallest]
        lines.append(_balance(name, by_base_tile))
        lines.append(_energy(name, tile_groups[name]))
    lines += _forest_lines(forests)
    return markdown_table(["the paper, RTX 4070", "here, H100", "on"], lines)


def _speed(name: str, tuned: TunedGroups) -> Line:
    speedups = tuned.speedups()
    mean = geomean(speedups)
    here = f"{tuned.baseline} over the best: {mean:.2f}x, at most {speedups.max():.2f}x"
    return SPEED_CLAIM, here, f"`{name}`, {len(speedups)} shapes"


def _power(name: str, tuned: TunedGroups) -> Line:
    pairs = metered_pairs(tuned)
    is_faster = pairs[:, 0] > TIE_FACTOR
    power = pairs[is_faster, 1]
    less = f"{np.sum(power < 1)} of {len(power)} draw less than it"
    here = f"of tiles faster than {tuned.baseline}, {less}; {_change(power)}"
    return POWER_CLAIM, here, f"`{name}`, {len(power)} pairs"


def _balance(name: str, tuned: TunedGroups) -> Line:
    near = 0
    for baseline, rows in tuned.with_baseline():
        near += baseline[TIME] <= TIE_FACTOR * least_us(rows)
    here = f"tile {BASE_TILE} is the fastest or within 2 % of it on {near} shapes"
    return BALANCE_CLAIM, here, f"`{name}`, {len(tuned.groups)} shapes"


def _energy(name: str, groups: Sequence[TileGroup]) -> Line:
    small = [group for group in groups if gflop(group) < LARGE_GFLOP]
    large = [group for group in groups if gflop(group) >= LARGE_GFLOP]
    below = reading_ratios(small, ENERGY, 32, BASE_TILE)
    above = reading_ratios(large, ENERGY, 32, BASE_TILE)
    here = (
        f"energy of tile 32 over tile {BASE_TILE}: {_change(below)} below {LARGE_GFLOP} GFLOP, "
        f"{_change(above)} above"
    )
    return "", here, f"`{name}`, {len(below)} and {len(above)} pairs"


def _change(ratios: Ratios) -> str:
    """ "-3 % (-37 to +46 %)" """
    if not len(ratios):
        return "not measured"
    low = 100 * (ratios.min() - 1)
    high = 100 * (ratios.max() - 1)
    mean = 100 * (geomean(ratios) - 1)
    return f"{mean:+.0f} % ({low:+.0f} to {high:+.0f} %)"


def _forest_lines(forests: Sequence[ForestResult]) -> Iterator[Line]:
    for target, claim in FOREST_CLAIMS.items():
        for forest in forests:
            if forest.target == target and forest.name == ON_GRID:
                yield claim, _forest_errors(forest), _forest_rows(forest)


def _forest_errors(forest: ForestResult) -> str:
    errors = score(forest.measured, forest.predicted)
    r2 = np.nan if errors.r2 is None else errors.r2
    return (
        f"R² {r2:.3f}, mean {errors.mape:.1f} %, median {errors.median_ape:.1f} %, {forest.split}"
    )


def _forest_rows(forest: ForestResult) -> str:
    return f"{len(forest.measured):,} rows, {forest.shapes} shapes"
