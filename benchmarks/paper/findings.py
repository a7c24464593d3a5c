"""What benchmarks/paper.py compares: the recorded rows, put beside each other in groups, and the paper's forest on them.

Rows are compared as in coordinator/report/tile_study.py, which holds what the reports of workspaces need as well. Rows whose status is not ok are left out.
Knows nothing of how findings are shown: that is paper_tables.py and paper_plots.py, and paper.py is the command.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from coordinator.report.tile_study import BASE_TILE, POWER, TIME, Group, Row, Tuned, Values, groups, tuned_by_tile, where, whole
from costmodel.dataset import Dataset, dataset
from costmodel.evaluate.baselines import paper_forest
from costmodel.evaluate.crossval import FOLDS, split
from gemmcast.arrow import conform
from gemmcast.errors import InputError
from gemmcast.rows import config_of

MAIN, TILES = "h100_sxm", "h100_tiles"
SHAPE = ("m", "n", "k")
GRID = ({512, 1024, 2048, 128256}, {512, 1024, 2048}, {512, 1024, 2048})
# m, n and k of the plan's paper set
BASE_BLOCK, BASE_LAYOUT, BASE_SCALARS = "128x128", "nn", "1, 0"
TO_TUNE = 20
# configurations of one GEMM on one board
LARGE_TILE, SMS, RESIDENT = 32, 132, 2
# a multiprocessor takes two blocks of 32x32
WASTE, SHORT = 1.1, 128
# more work than tile 16 by its rounding up; a short k, four steps of tile 32: limits set after looking at the data
QUANTITIES: dict[str, Callable[[Row], float]] = {
    "m": lambda row: row["m"],
    "n": lambda row: row["n"],
    "k": lambda row: row["k"],
    "m·n": lambda row: row["m"] * row["n"],
    "m·k": lambda row: row["m"] * row["k"],
    "n·k": lambda row: row["n"] * row["k"],
    "m·n·k": lambda row: row["m"] * row["n"] * row["k"],
    "flops per byte": lambda row: 1 / (1 / row["m"] + 1 / row["n"] + 1 / row["k"]),
    "tile_m · tile_n": lambda row: row["tile_m"] * row["tile_n"],
    "shared memory": lambda row: row["smem_bytes"] or 0,
    "occupancy": lambda row: row["occupancy"] or 0,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Data:
    """Rows with status ok, and what is compared in them."""

    all_rows: int
    everything: list[Row]
    tiled: dict[str, list[Group]]
    # dataset -> shapes on one board, by tile
    tiled_rows: dict[str, list[Row]]
    grid: list[Row]
    # CUTLASS fp32 SIMT kernels on the paper's grid of shapes
    main: Dataset
    study: Dataset | None
    # the tile study's own file; None where there is none
    study_rows: tuple[int, int]
    # with status ok, and all


@dataclass(frozen=True, slots=True, kw_only=True)
class Forest:
    """The paper's forest on one set of rows, each answered by a forest that did not see it."""

    name: str
    shapes: int
    target: str
    how: str
    measured: Values
    predicted: Values


def read(folder: Path) -> Data:
    """Raises InputError where a file can't be used, or has no rows of the tiled kernel or of the paper's CUTLASS grid."""
    table = _read(folder / f"{MAIN}.parquet")
    study = _read(folder / f"{TILES}.parquet") if (folder / f"{TILES}.parquet").exists() else None
    rows = {MAIN: _ok(table), **({TILES: _ok(study)} if study else {})}
    tiled = {name: groups(where(found, family="tiled"), SHAPE, lambda row: row["tile_m"]) for name, found in rows.items()}
    grid = [row for row in _simt(rows[MAIN]) if _on_grid(row)]
    if not any(tiled.values()):
        raise InputError("family", "tiled", f"{folder} has no shape with two tiles of the tiled kernel", "record datasets/plans/tiles.toml")
    if not grid:
        raise InputError("family", "cutlass", f"{folder} has no fp32 rows on the paper's grid", "record datasets/plans/reference.toml")
    return Data(
        all_rows=len(table),
        everything=rows[MAIN],
        tiled={name: found for name, found in tiled.items() if found},
        tiled_rows={name: where(found, family="tiled") for name, found in rows.items()},
        grid=grid,
        main=dataset(table),
        study=dataset(study) if study else None,
        study_rows=(len(rows.get(TILES, ())), len(study) if study else 0),
    )


def _read(path: Path) -> pa.Table:
    return conform(pq.read_table(path), str(path))


def _ok(table: pa.Table) -> list[Row]:
    found: list[Row] = table.to_pylist()
    return where(found, status="ok")


def _simt(rows: Iterable[Row]) -> list[Row]:
    return [row for row in where(rows, family="cutlass", dtype="fp32") if row["stages"] == 2 and row["split_k"] <= 1]


def _on_grid(row: Row) -> bool:
    return all(row[name] in sizes for name, sizes in zip(SHAPE, GRID, strict=True))


# Comparing


def spearman(one: Values, two: Values) -> float:
    """NaN where one of them is constant."""
    a, b = _ranks(one), _ranks(two)
    return float(np.corrcoef(a, b)[0, 1]) if len(a) > 1 and np.ptp(a) and np.ptp(b) else float("nan")


def _ranks(values: Values) -> Values:
    """Equal values share the mean of their ranks."""
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    ranks: Values = (np.cumsum(counts) - (counts - 1) / 2)[inverse]
    return ranks


def block_of(row: Row) -> str:
    return f"{row['tile_m']}x{row['tile_n']}"


def scalars_of(row: Row) -> str:
    return f"{row['alpha']:g}, {row['beta']:g}"


# Findings


def where_large(data: Data) -> dict[tuple[str, str, str, str], list[Group]]:
    """Dataset, blocks of LARGE_TILE, its work over BASE_TILE's, k -> shapes that have both tiles. Only shapes of many blocks are parted further."""
    found: dict[tuple[str, str, str, str], list[Group]] = {}
    few, full = f"up to {SMS}", f"{SMS + 1} to {SMS * RESIDENT}"
    many, narrow, wide = f"over {SMS * RESIDENT}", f"up to {WASTE}", f"over {WASTE}"
    classes = [(few, "any", "any"), (full, "any", "any"), (many, wide, "any"), (many, narrow, f"below {SHORT}"), (many, narrow, f"from {SHORT} on")]
    for name, tiled in data.tiled.items():
        both = [group for group in tiled if LARGE_TILE in group and BASE_TILE in group]
        for group in both:
            row = group[LARGE_TILE]
            m, n, k = (row[size] for size in SHAPE)
            blocks = row["batch"] * -(-m // LARGE_TILE) * -(-n // LARGE_TILE)
            over = _work(m, n, k, LARGE_TILE) / _work(m, n, k, BASE_TILE)
            at = 0 if blocks <= SMS else 1 if blocks <= SMS * RESIDENT else 2 if over > WASTE else 3 if k < SHORT else 4
            found.setdefault((name, *classes[at]), []).append(group)
    order = [(name, *one) for name in data.tiled for one in classes]
    return {at: found[at] for at in order if at in found}


def _work(m: int, n: int, k: int, tile: int) -> float:
    """Multiply-adds, sizes rounded up to tiles."""
    return float(np.prod([-(-size // tile) * tile for size in (m, n, k)], dtype=np.float64))


def tuned(data: Data) -> list[Tuned]:
    blocks = whole(groups(data.grid, (*SHAPE, "layout", "alpha", "beta"), block_of))[1]
    problem = (*SHAPE, "dtype", "layout", "alpha", "beta")
    half = [row for row in data.everything if row["dtype"] in {"fp16", "bf16"}]
    many = {
        family: [group for group in groups(where(among, family=family), problem, config_of) if len(group) >= TO_TUNE]
        for family, among in (("cutlass", half), ("cublaslt", data.everything))
    }
    found = [
        *(one for of in tuned_by_tile(data.tiled).values() for one in of),
        Tuned(name="CUTLASS fp32, paper's grid", found=blocks, baseline=f"block {BASE_BLOCK}", base=lambda group: group.get(BASE_BLOCK)),
        Tuned(name="CUTLASS fp16, bf16", found=many["cutlass"], baseline="mma.sync 128x128x32, 4 stages", base=_usual),
        Tuned(name="cuBLASLt, all dtypes", found=many["cublaslt"], baseline="its heuristic's first choice", base=_first_choice),
    ]
    return [one for one in found if any(one.base(group) for group in one.found)]


def _usual(group: Group) -> Row | None:
    return next((row for row in group.values() if "_128x128x32_64x64x32_s4_z1_" in row["kernel"]), None)


def _first_choice(group: Group) -> Row | None:
    return next((row for row in group.values() if row["kernel"] == "default"), None)


def _sets(data: Data) -> dict[str, list[Row]]:
    half = [row for row in where(data.everything, family="cutlass") if row["dtype"] in {"fp16", "bf16"}]
    spread = [row for row in _simt(data.everything) if not _on_grid(row)]
    tiled = {f"tiled, {name}": rows for name, rows in data.tiled_rows.items()}
    sets = {**tiled, "CUTLASS fp32, grid": data.grid, "CUTLASS fp32, random": spread, "CUTLASS fp16, bf16": half}
    return {name: rows for name, rows in sets.items() if rows}


def correlations(data: Data) -> tuple[list[str], Values]:
    """Titles of columns, and [quantity, column] rank correlations."""
    titles, columns = [], []
    for name, rows in _sets(data).items():
        for word, reading in (("runtime", TIME), ("power", POWER)):
            known = [row for row in rows if row[reading]]
            measured = np.array([row[reading] for row in known], dtype=np.float64)
            columns.append([spearman(np.array([of(row) for row in known], dtype=np.float64), measured) for of in QUANTITIES.values()])
            titles.append(f"{name}: {word} ({len(known):,})")
    return titles, np.array(columns).T


def fit_forests(data: Data) -> list[Forest]:
    """Five-fold both ways: rows dealt out at random, as the paper splits, and shapes dealt out, as is honest."""
    main = data.main
    family, dtype, stages = (main.column(name) for name in ("family", "dtype", "stages"))
    on_grid = np.all([np.isin(main.column(name), list(sizes)) for name, sizes in zip(SHAPE, GRID, strict=True)], axis=0)
    simt = (family == "cutlass") & (dtype == "fp32") & (stages == 2) & (main.column("split_k") <= 1)
    sets = {
        f"tiled, {MAIN}": main.take(family == "tiled"),
        **({f"tiled, {TILES}": data.study.take(data.study.column("family") == "tiled")} if data.study else {}),
        "CUTLASS fp32 on the paper's grid": main.take(simt & on_grid),
        "CUTLASS fp32, random shapes": main.take(simt & ~on_grid),
    }
    found = []
    for name, among in sets.items():
        for target in (TIME, POWER):
            rows = among.take(~np.isnan(among.measured[target]))
            if len(set(rows.shapes)) < FOLDS:
                continue
            for how, of in (("rows split at random", np.arange(len(rows))), ("grouped by shape", rows.shapes)):
                predicted = np.full(len(rows), np.nan)
                for training, test in split(of, FOLDS):
                    predicted[test] = paper_forest(rows.take(training), rows.take(test), target)
                shapes = len(set(rows.shapes))
                found.append(Forest(name=name, shapes=shapes, target=target, how=how, measured=rows.measured[target], predicted=predicted))
    return found
