"""What docs/paper.md compares: rows side by side, kernels against a baseline, and correlations.

Rows are compared as in coordinator/report/tile_study.py, which the HTML report uses as well.
Knows nothing of how findings are shown: tables.py, claims.py and plots.py do that.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import spearmanr

from benchmarks.paper.recordings import (
    SHAPE,
    Recordings,
    half_precision_rows,
    is_on_grid,
    simt_rows,
)
from coordinator.report.tile_study import (
    BASE_TILE,
    POWER,
    TIME,
    RowGroup,
    TileGroup,
    TunedGroup,
    TunedGroups,
    Varied,
    complete_groups,
    group_rows,
    rows_where,
    tuned_by_tile,
)
from costmodel.dataset import Values
from gemmcast.config import KernelConfig
from gemmcast.rows import Row, config_of

MIN_TUNED = 20
"""Configurations of one GEMM on one board, of kernels with many configurations."""
PROBLEM = (*SHAPE, "dtype", "layout", "alpha", "beta")


# Blocks, layouts and scalars of CUTLASS


@dataclass(frozen=True, slots=True, kw_only=True)
class GridAxis:
    """One property of CUTLASS kernels that is varied while all others stay the same."""

    name: str
    value_of: Callable[[Row], str]
    base: str
    """The value that the others are compared with."""
    same: tuple[str, ...]
    """Columns that are equal within a group, besides the shape."""

    def groups(self, rows: Sequence[Row]) -> list[dict[str, Row]]:
        """Rows that differ in this property only."""
        return group_rows(rows, (*SHAPE, *self.same), self.value_of)


def block_of(row: Row) -> str:
    """ "128x64" """
    return f"{row['tile_m']}x{row['tile_n']}"


def layout_of(row: Row) -> str:
    """ "nt" """
    return str(row["layout"])


def scalars_of(row: Row) -> str:
    """ "1, 0.5": alpha, beta"""
    return f"{row['alpha']:g}, {row['beta']:g}"


BLOCKS = GridAxis(name="block", value_of=block_of, base="128x128", same=("layout", "alpha", "beta"))
LAYOUTS = GridAxis(
    name="layout", value_of=layout_of, base="nn", same=("tile_m", "tile_n", "alpha", "beta")
)
SCALARS = GridAxis(
    name="alpha, beta", value_of=scalars_of, base="1, 0", same=("tile_m", "tile_n", "layout")
)


# Where a large tile loses

LARGE_TILE = 32
SMS = 132
"""Multiprocessors of the GPU."""
RESIDENT_BLOCKS = 2
"""Blocks of LARGE_TILE that one multiprocessor takes at once."""
WASTE_LIMIT = 1.1
"""More work than BASE_TILE by rounding up. Chosen after a look at the data, as SHORT_K was."""
SHORT_K = 128


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class LargeTileClass:
    """Shapes on which LARGE_TILE behaves alike. The order is that of the table."""

    place: int
    blocks: str
    """Blocks of LARGE_TILE."""
    work: str
    """Its work / BASE_TILE's."""
    k: str


_MANY = f"over {SMS * RESIDENT_BLOCKS}"
_LITTLE_WASTE = f"up to {WASTE_LIMIT}"
FEW_BLOCKS = LargeTileClass(place=0, blocks=f"up to {SMS}", work="any", k="any")
ONE_WAVE = LargeTileClass(
    place=1, blocks=f"{SMS + 1} to {SMS * RESIDENT_BLOCKS}", work="any", k="any"
)
MUCH_WASTE = LargeTileClass(place=2, blocks=_MANY, work=f"over {WASTE_LIMIT}", k="any")
SHORT = LargeTileClass(place=3, blocks=_MANY, work=_LITTLE_WASTE, k=f"below {SHORT_K}")
LONG = LargeTileClass(place=4, blocks=_MANY, work=_LITTLE_WASTE, k=f"from {SHORT_K} on")


def large_tile_classes(
    recordings: Recordings,
) -> dict[tuple[str, LargeTileClass], list[TileGroup]]:
    """Dataset and class -> the shapes that have both LARGE_TILE and BASE_TILE."""
    classes: dict[tuple[str, LargeTileClass], list[TileGroup]] = {}
    for name, groups in recordings.tile_groups().items():
        by_class: dict[LargeTileClass, list[TileGroup]] = {}
        for group in groups:
            if LARGE_TILE in group and BASE_TILE in group:
                by_class.setdefault(_class_of(group[LARGE_TILE]), []).append(group)
        for one in sorted(by_class):
            classes[name, one] = by_class[one]
    return classes


def _class_of(row: Row) -> LargeTileClass:
    blocks = row["batch"] * _tiles(row["m"], LARGE_TILE) * _tiles(row["n"], LARGE_TILE)
    if blocks <= SMS:
        return FEW_BLOCKS
    if blocks <= SMS * RESIDENT_BLOCKS:
        return ONE_WAVE
    if _work(row, LARGE_TILE) / _work(row, BASE_TILE) > WASTE_LIMIT:
        return MUCH_WASTE
    return SHORT if row["k"] < SHORT_K else LONG


def _tiles(size: int, tile: int) -> int:
    return -(-size // tile)


def _work(row: Row, tile: int) -> float:
    """Multiply-adds, with every size rounded up to tiles."""
    work = 1.0
    for name in SHAPE:
        work *= _tiles(row[name], tile) * tile
    return work


# Best against baseline


def tuned_groups(recordings: Recordings) -> list[TunedGroups]:
    """Kernels with a baseline that was measured: tiles, the grid's blocks, CUTLASS, cuBLASLt."""
    tuned: list[TunedGroups] = []
    for by_baseline in tuned_by_tile(recordings.tile_groups()).values():
        tuned += by_baseline
    rows = recordings.main.rows
    blocks = group_rows(recordings.grid, (*SHAPE, "layout", "alpha", "beta"), block_of)
    half = rows_where(half_precision_rows(rows), family="cutlass")
    tuned += [
        TunedGroups(
            name="CUTLASS fp32, paper's grid",
            baseline=f"block {BLOCKS.base}",
            groups=_tuned(complete_groups(blocks), _is_base_block),
        ),
        TunedGroups(
            name="CUTLASS fp16, bf16",
            baseline="mma.sync 128x128x32, 4 stages",
            groups=_tuned(_large_groups(half), _is_usual_kernel),
        ),
        TunedGroups(
            name="cuBLASLt, all dtypes",
            baseline="its heuristic's first choice",
            groups=_tuned(_large_groups(rows_where(rows, family="cublaslt")), _is_first_choice),
        ),
    ]
    return [one for one in tuned if one.with_baseline()]


def _large_groups(rows: Sequence[Row]) -> list[dict[KernelConfig, Row]]:
    """Problems with MIN_TUNED or more configurations."""
    groups = group_rows(rows, PROBLEM, config_of)
    return [group for group in groups if len(group) >= MIN_TUNED]


def _tuned(
    groups: Sequence[RowGroup[Varied]], is_baseline: Callable[[Row], bool]
) -> list[TunedGroup]:
    tuned = []
    for group in groups:
        rows = list(group.values())
        baseline = next(filter(is_baseline, rows), None)
        tuned.append(TunedGroup(rows=rows, baseline=baseline))
    return tuned


def _is_base_block(row: Row) -> bool:
    return block_of(row) == BLOCKS.base


def _is_usual_kernel(row: Row) -> bool:
    return "_128x128x32_64x64x32_s4_z1_" in row["kernel"]


def _is_first_choice(row: Row) -> bool:
    return bool(row["kernel"] == "default")


# What runtime and power depend on


@dataclass(frozen=True, slots=True, kw_only=True)
class Correlations:
    """Spearman's rank correlations of quantities with readings."""

    quantities: list[str]
    columns: list[str]
    """Set of rows, reading and number of rows."""
    values: Values
    """[n_quantities, n_columns] NaN if a quantity is constant."""


def quantities_of(row: Row) -> dict[str, float]:
    """What runtime and power may depend on."""
    m, n, k = row["m"], row["n"], row["k"]
    return {
        "m": m,
        "n": n,
        "k": k,
        "m·n": m * n,
        "m·k": m * k,
        "n·k": n * k,
        "m·n·k": m * n * k,
        "flops per byte": 1 / (1 / m + 1 / n + 1 / k),
        "tile_m · tile_n": row["tile_m"] * row["tile_n"],
        "shared memory": row["smem_bytes"] or 0,
        "occupancy": row["occupancy"] or 0,
    }


def correlations(recordings: Recordings) -> Correlations:
    """Of runtime and power with every quantity, in each set of rows."""
    titles = []
    columns = []
    for name, rows in _row_sets(recordings).items():
        for word, reading in (("runtime", TIME), ("power", POWER)):
            known = [row for row in rows if row[reading]]
            titles.append(f"{name}: {word} ({len(known):,})")
            columns.append(_rank_correlations(known, reading))
    names = list(quantities_of(recordings.grid[0]))
    return Correlations(quantities=names, columns=titles, values=np.array(columns).T)


def _row_sets(recordings: Recordings) -> dict[str, list[Row]]:
    """Name -> rows, of the sets that have any."""
    rows = recordings.main.rows
    sets = {f"tiled, {name}": one.tiled_rows for name, one in recordings.by_name().items()}
    sets["CUTLASS fp32, grid"] = recordings.grid
    sets["CUTLASS fp32, random"] = [row for row in simt_rows(rows) if not is_on_grid(row)]
    sets["CUTLASS fp16, bf16"] = rows_where(half_precision_rows(rows), family="cutlass")
    return {name: some for name, some in sets.items() if some}


def _rank_correlations(rows: Sequence[Row], reading: str) -> list[float]:
    """One number a quantity."""
    measured = np.array([row[reading] for row in rows], dtype=np.float64)
    table = np.array([list(quantities_of(row).values()) for row in rows], dtype=np.float64)
    return [spearman(quantity, measured) for quantity in table.T]


def spearman(one: Values, two: Values) -> float:
    """The rank correlation; NaN if one of them is constant."""
    if len(one) < 2 or not np.ptp(one) or not np.ptp(two):
        return float("nan")
    return float(spearmanr(one, two).statistic)
