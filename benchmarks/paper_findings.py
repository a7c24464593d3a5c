"""What benchmarks/paper.py compares: the recorded rows, put beside each other in groups, and the paper's forest on them.

Rows are compared within a group: the same GEMM on the same board, one thing different; a ratio is that of two rows of a group. Rows whose status
is not ok are left out. Knows nothing of how findings are shown: that is paper_tables.py and paper_plots.py, and paper.py is the command.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from coordinator.baselines import paper_forest
from coordinator.dataset import Dataset, dataset
from coordinator.validation import FOLDS, split
from gemmcast.arrow import conform
from gemmcast.errors import InputError
from gemmcast.sample import config_of

Values = npt.NDArray[np.float64]
Row = dict[str, Any]
Group = dict[Any, Row]
# what differs -> the row
MAIN, TILES = "h100_sxm", "h100_tiles"
SIZES = {
    "< 0.01": (0.0, 0.01),
    "0.01 to 0.1": (0.01, 0.1),
    "0.1 to 1": (0.1, 1.0),
    "1 to 10": (1.0, 10.0),
    "10 to 100": (10.0, 100.0),
    "> 100": (100.0, np.inf),
}
# in GFLOP
SHAPE = ("m", "n", "k")
GRID = ({512, 1024, 2048, 128256}, {512, 1024, 2048}, {512, 1024, 2048})
# m, n and k of the plan's paper set
BASE_TILE, BASE_BLOCK, BASE_LAYOUT, BASE_SCALARS = 16, "128x128", "nn", "1, 0"
TIE = 1.02
# bursts without a power window repeat to 0.94 % (docs/measuring.md): nearer than two of these is no order
TO_TUNE = 20
# configurations of one GEMM on one board
TIME, POWER, ENERGY = "runtime_us", "power_w", "energy_mj"
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
    tiled_rows: list[Row]
    grid: list[Row]
    # CUTLASS fp32 SIMT kernels on the paper's grid of shapes
    main: Dataset
    tiles_rows: int | None
    # of the tile study's own file; None where there is none


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
    rows = {MAIN: _ok(table)}
    if (folder / f"{TILES}.parquet").exists():
        rows[TILES] = _ok(_read(folder / f"{TILES}.parquet"))
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
        tiled_rows=[row for found in rows.values() for row in where(found, family="tiled")],
        grid=grid,
        main=dataset(table),
        tiles_rows=len(rows[TILES]) if TILES in rows else None,
    )


def _read(path: Path) -> pa.Table:
    return conform(pq.read_table(path), str(path))


def _ok(table: pa.Table) -> list[Row]:
    found: list[Row] = table.to_pylist()
    return where(found, status="ok")


def where(rows: Iterable[Row], **wanted: object) -> list[Row]:
    return [row for row in rows if all(row[name] == value for name, value in wanted.items())]


def _simt(rows: Iterable[Row]) -> list[Row]:
    return [row for row in where(rows, family="cutlass", dtype="fp32") if row["stages"] == 2 and row["split_k"] <= 1]


def _on_grid(row: Row) -> bool:
    return all(row[name] in sizes for name, sizes in zip(SHAPE, GRID, strict=True))


# Comparing


def groups(rows: Iterable[Row], same: Sequence[str], axis: Callable[[Row], Any]) -> list[Group]:
    """Rows of one board that are alike in `same`, by what `axis` says; groups of one are left out."""
    found: dict[tuple[Any, ...], Group] = defaultdict(dict)
    for row in rows:
        found[tuple(row[name] for name in (*same, "gpu_uuid"))][axis(row)] = row
    return [group for group in found.values() if len(group) > 1]


def ratios(found: Iterable[Group], reading: str, value: Any, base: Any) -> Values:
    """reading of `value` / reading of `base`, of each group where both were read."""
    pairs = [(group[value][reading], group[base][reading]) for group in found if value in group and base in group]
    return np.array([one / two for one, two in pairs if one and two], dtype=np.float64)


def whole(found: Sequence[Group]) -> tuple[list[Any], list[Group]]:
    """The values that most groups have, and the groups that have them all."""
    values = Counter(tuple(sorted(group)) for group in found).most_common(1)[0][0] if found else ()
    return list(values), [group for group in found if set(values) <= set(group)]


def spearman(one: Values, two: Values) -> float:
    """NaN where one of them is constant."""
    a, b = _ranks(one), _ranks(two)
    return float(np.corrcoef(a, b)[0, 1]) if len(a) > 1 and np.ptp(a) and np.ptp(b) else float("nan")


def _ranks(values: Values) -> Values:
    """Equal values share the mean of their ranks."""
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    ranks: Values = (np.cumsum(counts) - (counts - 1) / 2)[inverse]
    return ranks


def geomean(values: Values) -> float:
    return float(np.exp(np.mean(np.log(values))))


def gflop(group: Group) -> float:
    row = next(iter(group.values()))
    return 2e-9 * float(row["m"] * row["n"] * row["k"])


def least_us(group: Group) -> float:
    return min(float(row[TIME]) for row in group.values())


def block_of(row: Row) -> str:
    return f"{row['tile_m']}x{row['tile_n']}"


def scalars_of(row: Row) -> str:
    return f"{row['alpha']:g}, {row['beta']:g}"


# Findings


@dataclass(frozen=True, slots=True, kw_only=True)
class SizeClass:
    """Shapes of one dataset and size."""

    dataset: str
    size: str
    found: list[Group]
    complete: list[Group]
    # with every tile that most of them have


def size_classes(data: Data) -> list[SizeClass]:
    """By dataset and size, and at its end each dataset as a whole."""
    classes = []
    for name, found in data.tiled.items():
        sized = {size: [group for group in found if low <= gflop(group) < high] for size, (low, high) in SIZES.items()}
        of = [SizeClass(dataset=name, size=size, found=here, complete=whole(here)[1]) for size, here in sized.items() if here]
        complete = [group for one in of for group in one.complete]
        classes += [*of, SizeClass(dataset=name, size="all", found=found, complete=complete)]
    return classes


@dataclass(frozen=True, slots=True, kw_only=True)
class Tuned:
    """Groups of configurations of one GEMM, and the one that a user would take without measuring."""

    name: str
    found: list[Group]
    baseline: str
    base: Callable[[Group], Row | None]


def tuned(data: Data) -> list[Tuned]:
    tiled = {one.dataset: one.complete for one in size_classes(data) if one.size == "all"}
    blocks = whole(groups(data.grid, (*SHAPE, "layout", "alpha", "beta"), block_of))[1]
    problem = (*SHAPE, "dtype", "layout", "alpha", "beta")
    half = [row for row in data.everything if row["dtype"] in {"fp16", "bf16"}]
    many = {
        family: [group for group in groups(where(among, family=family), problem, config_of) if len(group) >= TO_TUNE]
        for family, among in (("cutlass", half), ("cublaslt", data.everything))
    }
    found = []
    for name, of in tiled.items():
        least = " or ".join(str(tile) for tile in sorted({min(group) for group in of}))
        found.append(Tuned(name=f"tiled, {name}", found=of, baseline=f"the smallest tile ({least})", base=lambda group: group[min(group)]))
        found.append(Tuned(name=f"tiled, {name}", found=of, baseline=f"tile {BASE_TILE}", base=lambda group: group.get(BASE_TILE)))
    found += [
        Tuned(name="CUTLASS fp32, paper's grid", found=blocks, baseline=f"block {BASE_BLOCK}", base=lambda group: group.get(BASE_BLOCK)),
        Tuned(name="CUTLASS fp16, bf16", found=many["cutlass"], baseline="mma.sync 128x128x32, 4 stages", base=_usual),
        Tuned(name="cuBLASLt, all dtypes", found=many["cublaslt"], baseline="its heuristic's first choice", base=_first_choice),
    ]
    return [one for one in found if any(one.base(group) for group in one.found)]


def _usual(group: Group) -> Row | None:
    return next((row for row in group.values() if "_128x128x32_64x64x32_s4_z1_" in row["kernel"]), None)


def _first_choice(group: Group) -> Row | None:
    return next((row for row in group.values() if row["kernel"] == "default"), None)


def metered_pairs(one: Tuned) -> Values:
    """[pairs, 2] Baseline's time over a configuration's, and the configuration's power over the baseline's; both metered, sustained."""
    found = []
    for group in one.found:
        base = one.base(group)
        metered = [row for row in group.values() if row is not base and row[POWER] and row["sustained_runtime_us"]]
        if base and base[POWER] and base["sustained_runtime_us"]:
            found += [(base["sustained_runtime_us"] / row["sustained_runtime_us"], row[POWER] / base[POWER]) for row in metered]
    return np.array(found, dtype=np.float64).reshape(-1, 2)


def _sets(data: Data) -> dict[str, list[Row]]:
    half = [row for row in where(data.everything, family="cutlass") if row["dtype"] in {"fp16", "bf16"}]
    spread = [row for row in _simt(data.everything) if not _on_grid(row)]
    sets = {"tiled": data.tiled_rows, "CUTLASS fp32, grid": data.grid, "CUTLASS fp32, random": spread, "CUTLASS fp16, bf16": half}
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


def fit_forests(data: Dataset) -> list[Forest]:
    """Five-fold both ways: rows dealt out at random, as the paper splits, and shapes dealt out, as is honest."""
    family, dtype, stages = (data.column(name) for name in ("family", "dtype", "stages"))
    on_grid = np.all([np.isin(data.column(name), list(sizes)) for name, sizes in zip(SHAPE, GRID, strict=True)], axis=0)
    simt = (family == "cutlass") & (dtype == "fp32") & (stages == 2) & (data.column("split_k") <= 1)
    sets = {"tiled": family == "tiled", "CUTLASS fp32 on the paper's grid": simt & on_grid, "CUTLASS fp32, random shapes": simt & ~on_grid}
    found = []
    for name, mask in sets.items():
        for target in (TIME, POWER):
            rows = data.take(mask & ~np.isnan(data.measured[target]))
            if len(set(rows.shapes)) < FOLDS:
                continue
            for how, of in (("rows split at random", np.arange(len(rows))), ("grouped by shape", rows.shapes)):
                predicted = np.full(len(rows), np.nan)
                for training, test in split(of, FOLDS):
                    predicted[test] = paper_forest(rows.take(training), rows.take(test), target)
                shapes = len(set(rows.shapes))
                found.append(Forest(name=name, shapes=shapes, target=target, how=how, measured=rows.measured[target], predicted=predicted))
    return found
