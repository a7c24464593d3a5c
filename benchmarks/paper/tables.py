"""The tables of docs/paper.md, one for each block of the page.

A ratio is a geometric mean over groups, with the number of groups in brackets; – stands where there
are none. Knows nothing of the page.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from benchmarks.paper.claims import claims_table
from benchmarks.paper.findings import (
    BLOCKS,
    LARGE_TILE,
    LAYOUTS,
    SCALARS,
    GridAxis,
    correlations,
    large_tile_classes,
    tuned_groups,
)
from benchmarks.paper.forest import ForestResult
from benchmarks.paper.markdown import NONE, Line, markdown_table, mean_and_count, span
from benchmarks.paper.recordings import GRID, MAIN, STUDY, Recordings
from coordinator.report.tile_study import (
    BASE_TILE,
    ENERGY,
    POWER,
    TIE_FACTOR,
    TIME,
    Ratios,
    RowGroup,
    SizeClass,
    TileGroup,
    TunedGroups,
    excess_of_tile,
    geomean,
    least_us,
    metered_pairs,
    reading_ratios,
    rows_where,
    size_classes,
)
from costmodel.evaluate.metrics import score
from gemmcast.rows import Row

SM_THREADS = 2048
"""Threads that a multiprocessor of sm_90 holds."""
WARP = 32
CAP_SHARE = 0.97
"""A row above this share of the board's power limit counts as at the cap."""
ALWAYS = (8, 16, 32)
"""Tiles of which the table of balance shows the cost of always taking them."""


def tables(recordings: Recordings, forests: Sequence[ForestResult]) -> dict[str, str]:
    """Name of the block -> Markdown."""
    return {
        "extent": _extent(recordings),
        "claims": claims_table(recordings, forests),
        "time": _by_tile(recordings, TIME),
        "power": _by_tile(recordings, POWER),
        "best": _best(recordings),
        "saving": _saving(recordings),
        "occupancy": _occupancy(recordings),
        "energy": _by_tile(recordings, ENERGY),
        "balance": _balance(recordings),
        "large": _large(recordings),
        "depends": _depends(recordings),
        "blocks": _cutlass(recordings.grid, BLOCKS),
        "layouts": _cutlass(recordings.grid, LAYOUTS),
        "scalars": _cutlass(recordings.grid, SCALARS),
        "forest": _forest(forests),
    }


def _extent(recordings: Recordings) -> str:
    main = recordings.main
    lines = [
        _extent_line(f"`{MAIN}`, all", main.rows),
        _extent_line(f"`{MAIN}`, tiled kernel", main.tiled_rows),
        _extent_line(f"`{MAIN}`, CUTLASS fp32 on the paper's grid", recordings.grid),
    ]
    for m in sorted(GRID["m"]):
        lines.append(_extent_line(f"... with m = {m}", rows_where(recordings.grid, m=m)))
    study = recordings.study
    if study:
        lines.append(_extent_line(f"`{STUDY}`, tiled kernel", study.tiled_rows))
        study_text = (
            f"`{STUDY}` has {len(study.rows):,} rows with status ok, of {study.all_rows:,} in all."
        )
    else:
        study_text = (
            f"**`{STUDY}` (the tile study: tiles 1 and 2, the paper's shapes) is not recorded "
            f"yet**; everything about tiles comes from the tiled rows of `{MAIN}`."
        )
    header = [
        "rows with status ok",
        "rows",
        "shapes",
        "boards",
        "with power",
        "of these at the power cap",
    ]
    table = markdown_table(header, lines)
    return f"{table}\n\n`{MAIN}` has {main.all_rows:,} rows in all.\n{study_text}"


def _extent_line(name: str, rows: Sequence[Row]) -> Line:
    shapes = {(row["m"], row["n"], row["k"]) for row in rows}
    boards = {row["device_uuid"] for row in rows}
    metered = [row for row in rows if row[POWER]]
    capped = [row for row in metered if _is_capped(row)]
    counts = [len(some) for some in (rows, shapes, boards, metered, capped)]
    return [name, *(f"{count:,}" for count in counts)]


def _is_capped(row: Row) -> bool:
    limit_w = row["power_limit_w"]
    return bool(limit_w and row[POWER] > CAP_SHARE * limit_w)


def _by_tile(recordings: Recordings, reading: str) -> str:
    """A reading of each tile over BASE_TILE's. Time is of complete shapes, as all have it."""
    tile_groups = recordings.tile_groups()
    tiles = _all_tiles(recordings)
    lines = []
    for sizes in size_classes(tile_groups):
        groups = sizes.complete if reading == TIME else sizes.groups
        cells = [_over_base_tile(groups, reading, tile) for tile in tiles]
        lines.append([f"`{sizes.dataset}`", sizes.size, *cells])
    return markdown_table(["dataset", "GFLOP", *_tile_columns(tiles)], lines)


def _all_tiles(recordings: Recordings) -> list[int]:
    tiles: set[int] = set()
    for groups in recordings.tile_groups().values():
        tiles = tiles.union(*groups)
    return sorted(tiles)


def _tile_columns(tiles: Sequence[int]) -> list[str]:
    return [f"tile {tile}" for tile in tiles]


def _over_base_tile(groups: Sequence[TileGroup], reading: str, tile: int) -> str:
    if tile == BASE_TILE:
        return "1"
    return mean_and_count(reading_ratios(groups, reading, tile, BASE_TILE))


def _best(recordings: Recordings) -> str:
    header = [
        "kernels",
        "groups",
        "configurations each",
        "baseline",
        "baseline ÷ best",
        "p90",
        "max",
        "worst ÷ best",
        "max",
    ]
    return markdown_table(header, [_best_line(tuned) for tuned in tuned_groups(recordings)])


def _best_line(tuned: TunedGroups) -> Line:
    over_best = tuned.speedups()
    configurations = []
    worst_over_best = []
    for _, rows in tuned.with_baseline():
        configurations.append(len(rows))
        worst_over_best.append(max(row[TIME] for row in rows) / least_us(rows))
    worst = np.array(worst_over_best)
    return [
        tuned.name,
        f"{len(over_best):,}",
        f"{np.median(configurations):.0f}",
        tuned.baseline,
        f"{geomean(over_best):.2f}",
        f"{np.percentile(over_best, 90):.2f}",
        f"{over_best.max():.2f}",
        f"{geomean(worst):.2f}",
        f"{worst.max():.2f}",
    ]


def _saving(recordings: Recordings) -> str:
    header = [
        "kernels",
        "baseline",
        "pairs metered",
        "faster by over 2 %",
        "of these with less power",
        "speed of the faster",
        "their power",
        "from, to",
    ]
    return markdown_table(header, [_saving_line(tuned) for tuned in tuned_groups(recordings)])


def _saving_line(tuned: TunedGroups) -> Line:
    pairs = metered_pairs(tuned)
    faster = pairs[pairs[:, 0] > TIE_FACTOR]
    speeds, powers = faster.T
    return [
        tuned.name,
        tuned.baseline,
        len(pairs),
        len(faster),
        int(np.sum(powers < 1)),
        mean_and_count(speeds),
        mean_and_count(powers),
        span(powers),
    ]


def _occupancy(recordings: Recordings) -> str:
    rows: dict[int, Row] = {}
    for groups in recordings.tile_groups().values():
        for group in groups:
            rows |= group
    header = [
        "tile",
        "threads of a block",
        "registers",
        "shared memory of a block, bytes",
        "occupancy",
        "blocks of an SM",
        "warps of an SM",
        "shared memory of an SM, KiB",
        "global loads per multiply-add",
    ]
    return markdown_table(header, [_occupancy_line(tile, rows[tile]) for tile in sorted(rows)])


def _occupancy_line(tile: int, row: Row) -> Line:
    threads = tile * tile
    smem_bytes = row["smem_bytes"]
    occupancy = row["occupancy"]
    blocks = round(occupancy * SM_THREADS / threads) if occupancy else 0
    warps = -(-threads // WARP)
    return [
        tile,
        threads,
        row["regs"],
        f"{smem_bytes:,}",
        f"{occupancy:.3f}",
        blocks,
        blocks * warps,
        f"{blocks * smem_bytes / 1024:.1f}",
        f"{2 / tile:g}",
    ]


def _balance(recordings: Recordings) -> str:
    tiles = _all_tiles(recordings)
    lines = []
    for sizes in size_classes(recordings.tile_groups()):
        near = [_near_best(sizes, tile) for tile in tiles]
        excess = [excess_of_tile(sizes.complete, tile) for tile in ALWAYS]
        costs = [_excess(ratios) for ratios in excess]
        class_of_sizes = [f"`{sizes.dataset}`", sizes.size, len(sizes.complete)]
        lines.append([*class_of_sizes, *near, *costs])
    always = [f"always {tile}" for tile in ALWAYS]
    header = ["dataset", "GFLOP", "shapes", *_tile_columns(tiles), *always]
    return markdown_table(header, lines)


def _near_best(sizes: SizeClass, tile: int) -> str:
    """The number of shapes on which the tile is within TIE_FACTOR of the best."""
    excess = excess_of_tile(sizes.complete, tile)
    return str(np.sum(excess <= TIE_FACTOR)) if len(excess) else NONE


def _excess(ratios: Ratios) -> str:
    """Mean / largest excess."""
    if not len(ratios):
        return NONE
    mean = 100 * (geomean(ratios) - 1)
    largest = 100 * (ratios.max() - 1)
    return f"{mean:.0f} / {largest:.0f} %"


def _large(recordings: Recordings) -> str:
    lines = []
    for (name, one), groups in large_tile_classes(recordings).items():
        ratios = reading_ratios(groups, TIME, LARGE_TILE, BASE_TILE)
        faster = int(np.sum(ratios < 1 / TIE_FACTOR))
        slower = int(np.sum(ratios > TIE_FACTOR))
        mean = f"{geomean(ratios):.2f}"
        counts = (len(ratios), mean, span(ratios), faster, slower)
        lines.append([f"`{name}`", one.blocks, one.work, one.k, *counts])
    header = [
        "dataset",
        f"blocks of {LARGE_TILE}x{LARGE_TILE}",
        f"its work over tile {BASE_TILE}'s",
        "k",
        "shapes",
        f"time over tile {BASE_TILE}'s",
        "from, to",
        "faster by over 2 %",
        "slower by over 2 %",
    ]
    return markdown_table(header, lines)


def _depends(recordings: Recordings) -> str:
    result = correlations(recordings)
    lines = []
    for quantity, values in zip(result.quantities, result.values, strict=True):
        cells = [NONE if np.isnan(value) else f"{value:+.2f}" for value in values]
        lines.append([quantity, *cells])
    return markdown_table(["", *result.columns], lines)


def _cutlass(grid: Sequence[Row], axis: GridAxis) -> str:
    groups = axis.groups(grid)
    others = set().union(*groups) - {axis.base}
    values = [axis.base, *sorted(others)]
    complete = [group for group in groups if len(group) == len(values)]
    lines = [_cutlass_line(groups, complete, axis, value) for value in values]
    fastest = f"fastest in, of {len(complete)}"
    by_m = [f"m = {m}" for m in sorted(GRID["m"])]
    header = [axis.name, fastest, "time", *by_m, "power", "energy"]
    return markdown_table(header, lines)


def _cutlass_line(
    groups: Sequence[RowGroup[str]],
    complete: Sequence[RowGroup[str]],
    axis: GridAxis,
    value: str,
) -> Line:
    fastest = sum(_fastest(group) == value for group in complete) if complete else NONE
    if value == axis.base:
        return [value, fastest, *["1"] * (3 + len(GRID["m"]))]
    cells = [mean_and_count(reading_ratios(groups, TIME, value, axis.base))]
    for m in sorted(GRID["m"]):
        of_m = [group for group in groups if _first_row(group)["m"] == m]
        cells.append(mean_and_count(reading_ratios(of_m, TIME, value, axis.base)))
    for reading in (POWER, ENERGY):
        cells.append(mean_and_count(reading_ratios(groups, reading, value, axis.base)))
    return [value, fastest, *cells]


def _fastest(group: RowGroup[str]) -> str:
    return min(group, key=lambda value: float(group[value][TIME]))


def _first_row(group: RowGroup[str]) -> Row:
    return next(iter(group.values()))


def _forest(forests: Sequence[ForestResult]) -> str:
    header = [
        "set",
        "target",
        "rows",
        "shapes",
        "split, 5-fold",
        "median %",
        "mean %",
        "p90 %",
        "R²",
    ]
    return markdown_table(header, [_forest_line(forest) for forest in forests])


def _forest_line(forest: ForestResult) -> Line:
    errors = score(forest.measured, forest.predicted)
    r2 = np.nan if errors.r2 is None else errors.r2
    return [
        forest.name,
        "runtime" if forest.target == TIME else "power",
        f"{errors.rows:,}",
        forest.shapes,
        forest.split,
        f"{errors.median_ape:.1f}",
        f"{errors.mape:.1f}",
        f"{errors.p90_ape:.1f}",
        f"{r2:.3f}",
    ]
