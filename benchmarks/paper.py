"""The findings of arXiv 2411.16954 made again on the recorded H100s: docs/paper.md and its figures.

    .venv/bin/python benchmarks/paper.py [--out docs/paper] [--datasets datasets]     pictures into docs/paper/, tables into docs/paper.md
    .venv/bin/python benchmarks/paper.py --check                                      writes nothing; 1 if the page's tables are not the data's

Tables stand in the page between <!-- NAME --> and <!-- /NAME -->; the rest of it is written by hand. Rows are compared within a group: the same
GEMM on the same board, one thing different. A ratio is a geometric mean over groups, with the number of groups in brackets. `h100_sxm` must be
there; `h100_tiles`, the tile study, is used when it is. --check lets decimals differ by one in the last digit: forests do, by machine.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import matplotlib
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from coordinator.baselines import paper_forest
from coordinator.dataset import Dataset, dataset
from coordinator.scores import score
from coordinator.validation import FOLDS, split
from gemmcast.arrow import conform
from gemmcast.errors import GemmcastError, InputError
from gemmcast.modeldir import write_atomically
from gemmcast.sample import config_of

matplotlib.use("Agg")
from matplotlib import pyplot as plt
from matplotlib.figure import Figure

ROOT = Path(__file__).resolve().parent.parent
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
SM_THREADS = 2048
# resident on a multiprocessor of sm_90
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
COLOURS = {1: "#440154", 2: "#414487", 4: "#2a788e", 8: "#22a884", 16: "#e3a008", 32: "#d1495b"}
GREY = "#5b6b7b"


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


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "paper", help="folder of the figures; the page is beside it, with .md")
    parser.add_argument("--datasets", type=Path, default=ROOT / "datasets", help=f"folder of {MAIN}.parquet and {TILES}.parquet")
    parser.add_argument("--check", action="store_true", help="write nothing; exit code 1 if the page's tables are not what the data say")
    args = parser.parse_args(arguments)
    try:
        page = args.out.with_suffix(".md")
        if not page.is_file():
            raise InputError("--out", str(args.out), f"there is no page {page}", "copy docs/paper.md to there: its tables are then written anew")
        data = read(args.datasets)
        forests = _forests(data.main)
        text = page.read_text()
        made = filled(text, _tables(data, forests))
        if args.check:
            return _checked(page, text, made)
        args.out.mkdir(parents=True, exist_ok=True)
        for name, figure in _figures(data, forests).items():
            figure.savefig(args.out / f"{name}.png", dpi=100)
            plt.close(figure)
        write_atomically(page, made.encode())
    except (GemmcastError, OSError) as error:
        print(f"paper: {error}", file=sys.stderr)
        return 2
    print(f"{page} and {args.out}/*.png, from {data.all_rows:,} rows")
    return 0


def read(folder: Path) -> Data:
    """Raises InputError where a file can't be used, or has no rows of the tiled kernel or of the paper's CUTLASS grid."""
    table = _read(folder / f"{MAIN}.parquet")
    rows = {MAIN: _ok(table)}
    if (folder / f"{TILES}.parquet").exists():
        rows[TILES] = _ok(_read(folder / f"{TILES}.parquet"))
    tiled = {name: groups(_of(found, family="tiled"), SHAPE, lambda row: row["tile_m"]) for name, found in rows.items()}
    grid = [row for row in _simt(rows[MAIN]) if _on_grid(row)]
    if not any(tiled.values()):
        raise InputError("family", "tiled", f"{folder} has no shape with two tiles of the tiled kernel", "record datasets/plans/tiles.toml")
    if not grid:
        raise InputError("family", "cutlass", f"{folder} has no fp32 rows on the paper's grid", "record datasets/plans/reference.toml")
    return Data(
        all_rows=len(table),
        everything=rows[MAIN],
        tiled={name: found for name, found in tiled.items() if found},
        tiled_rows=[row for found in rows.values() for row in _of(found, family="tiled")],
        grid=grid,
        main=dataset(table),
        tiles_rows=len(rows[TILES]) if TILES in rows else None,
    )


def _read(path: Path) -> pa.Table:
    return conform(pq.read_table(path), str(path))


def _ok(table: pa.Table) -> list[Row]:
    found: list[Row] = table.to_pylist()
    return _of(found, status="ok")


def _of(rows: Iterable[Row], **wanted: object) -> list[Row]:
    return [row for row in rows if all(row[name] == value for name, value in wanted.items())]


def _simt(rows: Iterable[Row]) -> list[Row]:
    return [row for row in _of(rows, family="cutlass", dtype="fp32") if row["stages"] == 2 and row["split_k"] <= 1]


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


def _gflop(group: Group) -> float:
    row = next(iter(group.values()))
    return 2e-9 * float(row["m"] * row["n"] * row["k"])


@dataclass(frozen=True, slots=True, kw_only=True)
class _Class:
    """Shapes of one dataset and size."""

    dataset: str
    size: str
    found: list[Group]
    complete: list[Group]
    # with every tile that most of them have


def _classes(data: Data) -> list[_Class]:
    """By dataset and size, and at its end each dataset as a whole."""
    classes = []
    for name, found in data.tiled.items():
        sized = {size: [group for group in found if low <= _gflop(group) < high] for size, (low, high) in SIZES.items()}
        of = [_Class(dataset=name, size=size, found=here, complete=whole(here)[1]) for size, here in sized.items() if here]
        complete = [group for one in of for group in one.complete]
        classes += [*of, _Class(dataset=name, size="all", found=found, complete=complete)]
    return classes


def _geomean(values: Values) -> float:
    return float(np.exp(np.mean(np.log(values))))


def _mean(values: Values) -> str:
    return f"{_geomean(values):.2f} ({len(values)})" if len(values) else "–"


def _block(row: Row) -> str:
    return f"{row['tile_m']}x{row['tile_n']}"


def _scalars(row: Row) -> str:
    return f"{row['alpha']:g}, {row['beta']:g}"


# Tables


def _tables(data: Data, forests: Sequence[Forest]) -> dict[str, str]:
    """Name of the block -> Markdown."""
    return {
        "extent": _extent(data),
        "claims": _claims(data, forests),
        "time": _by_tile(data, TIME, complete=True),
        "power": _by_tile(data, POWER),
        "best": _best(data),
        "saving": _saving(data),
        "occupancy": _occupancy(data),
        "energy": _by_tile(data, ENERGY),
        "balance": _balance(data),
        "depends": _depends(data),
        "blocks": _cutlass(data, ("layout", "alpha", "beta"), _block, BASE_BLOCK, "block"),
        "layouts": _cutlass(data, ("tile_m", "tile_n", "alpha", "beta"), lambda row: row["layout"], BASE_LAYOUT, "layout"),
        "scalars": _cutlass(data, ("tile_m", "tile_n", "layout"), _scalars, BASE_SCALARS, "alpha, beta"),
        "forest": _forest_table(forests),
    }


def _markdown(header: Sequence[str], lines: Iterable[Sequence[object]]) -> str:
    rows = [header, ["---"] * len(header), *([str(cell) for cell in line] for line in lines)]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def _extent(data: Data) -> str:
    def line(what: str, rows: Sequence[Row]) -> tuple[str, ...]:
        shapes = {tuple(row[name] for name in SHAPE) for row in rows}
        metered = [row for row in rows if row[POWER]]
        capped = sum(row[POWER] > 0.97 * row["power_limit_w"] for row in metered if row["power_limit_w"])
        boards = {row["gpu_uuid"] for row in rows}
        return what, *(f"{count:,}" for count in (len(rows), len(shapes), len(boards), len(metered), capped))

    tiled = _of(data.everything, family="tiled")
    lines = [line(f"`{MAIN}`, all", data.everything), line(f"`{MAIN}`, tiled kernel", tiled)]
    lines += [line(f"`{MAIN}`, CUTLASS fp32 on the paper's grid", data.grid)]
    lines += [line(f"... with m = {m}", _of(data.grid, m=m)) for m in sorted(GRID[0])]
    study = f"**`{TILES}` (the tile study: tiles 1 and 2, the paper's shapes) is not recorded yet**; tiles stand on the tiled rows of `{MAIN}` alone."
    if data.tiles_rows is not None:
        study = f"`{TILES}` has {data.tiles_rows:,} rows with status ok."
    header = ["rows with status ok", "rows", "shapes", "boards", "with power", "of these at the power cap"]
    return f"{_markdown(header, lines)}\n\n`{MAIN}` has {data.all_rows:,} rows in all.\n{study}"


def _claims(data: Data, forests: Sequence[Forest]) -> str:
    lines = []
    for name in data.tiled:
        smallest, of_16 = (one for one in _tuned(data) if one.name == f"tiled, {name}")
        speedups = np.array([group[min(group)][TIME] / _least(group) for group in smallest.found])
        power = np.array([drawn for speed, drawn in _pairs(smallest) if speed > TIE])
        near = sum(group[BASE_TILE][TIME] <= TIE * _least(group) for group in of_16.found if BASE_TILE in group)
        below, above = (
            ratios([group for group in data.tiled[name] if (_gflop(group) >= 1) == large], ENERGY, 32, BASE_TILE) for large in (False, True)
        )
        energy = f"{_change(below)} below 1 GFLOP, {_change(above)} above"
        lines += [
            (
                "up to 3.2x faster by tile",
                f"{smallest.baseline} over the best: {_geomean(speedups):.2f}x, at most {speedups.max():.2f}x",
                len(speedups),
            ),
            (
                "22 % less power",
                f"of tiles faster than it, {np.sum(power < 1)} of {len(power)} draw less than it; {_change(power)}",
                f"{len(power)} pairs",
            ),
            ("16x16 is the best balance", f"tile 16 is the fastest or within 2 % of it on {near} shapes", len(of_16.found)),
            ("", f"energy of tile 32 over tile 16: {energy}", f"{len(below)} and {len(above)} pairs"),
        ]
        lines[-4:] = [(claim, said, f"`{name}`, {on if isinstance(on, str) else f'{on} shapes'}") for claim, said, on in lines[-4:]]
    for target, claim in ((TIME, "forest, runtime: R² 0.98, mean error 15.57 %"), (POWER, "forest, power: R² 0.78, median error 5.42 %")):
        for one in forests:
            if one.target == target and one.name.startswith("CUTLASS fp32 on the paper"):
                scored = score(one.measured, one.predicted)
                said = f"R² {scored.get('r2', np.nan):.3f}, mean {scored['mape']:.1f} %, median {scored['median_ape']:.1f} %, {one.how}"
                lines.append((claim, said, f"{scored['rows']:,} rows, {one.shapes} shapes"))
    return _markdown(["the paper, RTX 4070", "here, H100", "on"], lines)


def _least(group: Group) -> float:
    return min(float(row[TIME]) for row in group.values())


def _change(values: Values) -> str:
    if not len(values):
        return "not measured"
    low, high = (100 * (value - 1) for value in (values.min(), values.max()))
    return f"{100 * (_geomean(values) - 1):+.0f} % ({low:+.0f} to {high:+.0f} %)"


def _by_tile(data: Data, reading: str, complete: bool = False) -> str:
    tiles = sorted({tile for found in data.tiled.values() for group in found for tile in group})
    lines = []
    for one in _classes(data):
        among = one.complete if complete else one.found
        cells = [_mean(ratios(among, reading, tile, BASE_TILE)) if tile != BASE_TILE else "1" for tile in tiles]
        lines.append((f"`{one.dataset}`", one.size, *cells))
    return _markdown(["dataset", "GFLOP", *(f"tile {tile}" for tile in tiles)], lines)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Tuned:
    """Groups of configurations of one GEMM, and the one that a user would take without measuring."""

    name: str
    found: list[Group]
    baseline: str
    base: Callable[[Group], Row | None]


def _tuned(data: Data) -> list[_Tuned]:
    tiled = {one.dataset: one.complete for one in _classes(data) if one.size == "all"}
    blocks = whole(groups(data.grid, (*SHAPE, "layout", "alpha", "beta"), _block))[1]
    problem = (*SHAPE, "dtype", "layout", "alpha", "beta")
    half = [row for row in data.everything if row["dtype"] in {"fp16", "bf16"}]
    many = {
        family: [group for group in groups(_of(among, family=family), problem, config_of) if len(group) >= TO_TUNE]
        for family, among in (("cutlass", half), ("cublaslt", data.everything))
    }
    found = []
    for name, of in tiled.items():
        least = " or ".join(str(tile) for tile in sorted({min(group) for group in of}))
        found.append(_Tuned(name=f"tiled, {name}", found=of, baseline=f"the smallest tile ({least})", base=lambda group: group[min(group)]))
        found.append(_Tuned(name=f"tiled, {name}", found=of, baseline=f"tile {BASE_TILE}", base=lambda group: group.get(BASE_TILE)))
    found += [
        _Tuned(name="CUTLASS fp32, paper's grid", found=blocks, baseline=f"block {BASE_BLOCK}", base=lambda group: group.get(BASE_BLOCK)),
        _Tuned(name="CUTLASS fp16, bf16", found=many["cutlass"], baseline="mma.sync 128x128x32, 4 stages", base=_usual),
        _Tuned(name="cuBLASLt, all dtypes", found=many["cublaslt"], baseline="its heuristic's first choice", base=_first_choice),
    ]
    return [one for one in found if any(one.base(group) for group in one.found)]


def _usual(group: Group) -> Row | None:
    return next((row for row in group.values() if "_128x128x32_64x64x32_s4_z1_" in row["kernel"]), None)


def _first_choice(group: Group) -> Row | None:
    return next((row for row in group.values() if row["kernel"] == "default"), None)


def _best(data: Data) -> str:
    lines = []
    for one in _tuned(data):
        times = [(base[TIME], np.array([row[TIME] for row in group.values()])) for group in one.found if (base := one.base(group))]
        over, worst = np.array([base / of.min() for base, of in times]), np.array([of.max() / of.min() for _, of in times])
        size = f"{np.median([len(of) for _, of in times]):.0f}"
        shown = [f"{_geomean(over):.2f}", f"{np.percentile(over, 90):.2f}", f"{over.max():.2f}", f"{_geomean(worst):.2f}", f"{worst.max():.2f}"]
        lines.append((one.name, f"{len(times):,}", size, one.baseline, *shown))
    header = ["kernels", "groups", "configurations each", "baseline", "baseline ÷ best", "p90", "max", "worst ÷ best", "max"]
    return _markdown(header, lines)


def _pairs(one: _Tuned) -> Values:
    """[pairs, 2] Baseline's time over a configuration's, and the configuration's power over the baseline's; both metered, sustained."""
    found = []
    for group in one.found:
        base = one.base(group)
        metered = [row for row in group.values() if row is not base and row[POWER] and row["sustained_runtime_us"]]
        if base and base[POWER] and base["sustained_runtime_us"]:
            found += [(base["sustained_runtime_us"] / row["sustained_runtime_us"], row[POWER] / base[POWER]) for row in metered]
    return np.array(found, dtype=np.float64).reshape(-1, 2)


def _saving(data: Data) -> str:
    lines = []
    for one in _tuned(data):
        pairs = _pairs(one)
        faster = pairs[pairs[:, 0] > TIE]
        shown = [_mean(faster[:, 0]), _mean(faster[:, 1]), f"{faster[:, 1].min():.2f} to {faster[:, 1].max():.2f}"] if len(faster) else ["–"] * 3
        lines.append((one.name, one.baseline, len(pairs), len(faster), int(np.sum(faster[:, 1] < 1)), *shown))
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
    return _markdown(header, lines)


def _occupancy(data: Data) -> str:
    rows = {tile: row for found in data.tiled.values() for group in found for tile, row in group.items()}
    lines = []
    for tile in sorted(rows):
        threads, smem, occupancy = tile * tile, rows[tile]["smem_bytes"], rows[tile]["occupancy"]
        blocks = round(occupancy * SM_THREADS / threads) if occupancy else 0
        of_sm = blocks, blocks * -(-threads // 32), f"{blocks * smem / 1024:.1f}"
        lines.append((tile, threads, rows[tile]["regs"], f"{smem:,}", f"{occupancy:.3f}", *of_sm, f"{2 / tile:g}"))
    header = ["tile", "threads of a block", "registers", "its shared memory, bytes", "occupancy", "blocks of an SM", "warps", "shared memory, KiB"]
    return _markdown([*header, "global loads per multiply-add"], lines)


def _balance(data: Data) -> str:
    tiles = sorted({tile for found in data.tiled.values() for group in found for tile in group})
    lines = []
    for one in _classes(data):
        best = [_least(group) for group in one.complete]
        pairs = list(zip(one.complete, best, strict=True))
        near = [[group[tile][TIME] <= TIE * least for group, least in pairs if tile in group] for tile in tiles]
        costs = [_cost(one.complete, best, tile) for tile in (8, 16, 32)]
        lines.append((f"`{one.dataset}`", one.size, len(pairs), *(sum(of) if of else "–" for of in near), *costs))
    header = ["dataset", "GFLOP", "shapes", *(f"tile {tile}" for tile in tiles), "always 8", "always 16", "always 32"]
    return _markdown(header, lines)


def _cost(complete: Sequence[Group], best: Sequence[float], tile: int) -> str:
    over = np.array([group[tile][TIME] / least for group, least in zip(complete, best, strict=True) if tile in group])
    return f"{100 * (_geomean(over) - 1):.0f} / {100 * (over.max() - 1):.0f} %" if len(over) else "–"


def _sets(data: Data) -> dict[str, list[Row]]:
    half = [row for row in _of(data.everything, family="cutlass") if row["dtype"] in {"fp16", "bf16"}]
    spread = [row for row in _simt(data.everything) if not _on_grid(row)]
    sets = {"tiled": data.tiled_rows, "CUTLASS fp32, grid": data.grid, "CUTLASS fp32, random": spread, "CUTLASS fp16, bf16": half}
    return {name: rows for name, rows in sets.items() if rows}


def _correlations(data: Data) -> tuple[list[str], Values]:
    """Titles of columns, and [quantity, column] rank correlations."""
    titles, columns = [], []
    for name, rows in _sets(data).items():
        for word, reading in (("runtime", TIME), ("power", POWER)):
            known = [row for row in rows if row[reading]]
            measured = np.array([row[reading] for row in known], dtype=np.float64)
            columns.append([spearman(np.array([of(row) for row in known], dtype=np.float64), measured) for of in QUANTITIES.values()])
            titles.append(f"{name}: {word} ({len(known):,})")
    return titles, np.array(columns).T


def _depends(data: Data) -> str:
    titles, found = _correlations(data)
    lines = [(name, *("–" if np.isnan(value) else f"{value:+.2f}" for value in found[i])) for i, name in enumerate(QUANTITIES)]
    return _markdown(["", *titles], lines)


def _cutlass(data: Data, same: Sequence[str], axis: Callable[[Row], Any], base: str, word: str) -> str:
    found = groups(data.grid, (*SHAPE, *same), axis)
    values = sorted({value for group in found for value in group}, key=lambda value: (value != base, value))
    complete = [group for group in found if len(group) == len(values)]
    lines = []
    for value in values:
        fastest = sum(min(group, key=lambda at, group=group: float(group[at][TIME])) == value for group in complete)  # type: ignore[misc]
        by_m = [ratios([group for group in found if next(iter(group.values()))["m"] == m], TIME, value, base) for m in sorted(GRID[0])]
        ours = [ratios(found, reading, value, base) for reading in (TIME, POWER, ENERGY)]
        lines.append((value, *([fastest] if complete else ["–"]), *(_mean(one) if value != base else "1" for one in (ours[0], *by_m, *ours[1:]))))
    header = [word, f"fastest in, of {len(complete)}", "time", *(f"m = {m}" for m in sorted(GRID[0])), "power", "energy"]
    return _markdown(header, lines)


def _forests(data: Dataset) -> list[Forest]:
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


def _forest_table(forests: Sequence[Forest]) -> str:
    lines: list[Sequence[object]] = []
    for one in forests:
        scored = score(one.measured, one.predicted)
        errors = [f"{scored[name]:.1f}" for name in ("median_ape", "mape", "p90_ape")]
        word = "runtime" if one.target == TIME else "power"
        lines.append((one.name, word, f"{scored['rows']:,}", one.shapes, one.how, *errors, f"{scored.get('r2', np.nan):.3f}"))
    return _markdown(["set", "target", "rows", "shapes", "split, 5-fold", "median %", "mean %", "p90 %", "R²"], lines)


# The page


def filled(text: str, blocks: dict[str, str]) -> str:
    """The page with its blocks written anew. Raises InputError where it lacks one."""
    for name, block in blocks.items():
        before, start, rest = text.partition(f"<!-- {name} -->\n")
        _, end, after = rest.partition(f"<!-- /{name} -->")
        if not start or not end:
            raise InputError("page", name, "there is no such block in the page", f"write <!-- {name} --> and <!-- /{name} -->, a line each")
        text = f"{before}{start}{block}\n{end}{after}"
    return text


def alike(one: str, two: str) -> bool:
    """The same words and whole numbers; decimals may differ by one in the last digit."""
    number = re.compile(r"\d[\d,]*\.?\d*")
    found = zip(number.findall(one), number.findall(two), strict=False)
    return number.sub("#", one) == number.sub("#", two) and all(a == b or _near(a.replace(",", ""), b.replace(",", "")) for a, b in found)


def _near(one: str, two: str) -> bool:
    digits = [len(text.partition(".")[2]) for text in (one, two)]
    return digits[0] == digits[1] > 0 and abs(float(one) - float(two)) < 1.5 * 10 ** -digits[0]


def _checked(page: Path, text: str, made: str) -> int:
    pairs = list(zip(text.splitlines(), made.splitlines(), strict=False))
    wrong = [f"{page}:{i}: says {old!r}; the data say {new!r}" for i, (old, new) in enumerate(pairs, 1) if not alike(old, new)]
    if len(text.splitlines()) != len(made.splitlines()):
        wrong.append(f"{page} has {len(text.splitlines())} lines; the data make {len(made.splitlines())}")
    print("\n".join([*wrong[:10], "write it anew: .venv/bin/python benchmarks/paper.py"]) if wrong else f"{page} is what the data say")
    return int(bool(wrong))


# Figures


def _figures(data: Data, forests: Sequence[Forest]) -> dict[str, Figure]:
    return {
        "tiles": _plot_tiles(data),
        "best": _plot_best(data),
        "occupancy": _plot_occupancy(data),
        "balance": _plot_balance(data),
        "depends": _plot_depends(data),
        "cutlass": _plot_cutlass(data),
        "forest": _plot_forest(forests),
    }


def _plot_tiles(data: Data) -> Figure:
    figure, panels = plt.subplots(1, 3, figsize=(12, 4), layout="constrained", sharex=True)
    every = [group for found in data.tiled.values() for group in found]
    for axes, reading, word in zip(panels, (TIME, POWER, ENERGY), ("time", "power", "energy"), strict=True):
        for tile in sorted({tile for group in every for tile in group} - {BASE_TILE}):
            here = [group for group in every if len(ratios([group], reading, tile, BASE_TILE))]
            axes.scatter(
                [_gflop(group) for group in here], ratios(here, reading, tile, BASE_TILE),
                s=14, alpha=0.7, color=COLOURS[tile], label=f"tile {tile}", edgecolors="none",
            )  # fmt: skip
        axes.axhline(1, color=GREY, linewidth=1)
        axes.set(xscale="log", yscale="log", xlabel="size, GFLOP", title=f"{word} over that of tile {BASE_TILE}")
        fine = (0.9, 1.1, 1.2, 1.3) if reading == POWER else ()
        _plain(axes.yaxis, sorted([*fine, 0.5, 0.6, 0.7, 0.8, 1, 1.5, 2, 3, 5, 10, 20]))
    panels[0].legend(frameon=False)
    return figure


def _plain(axis: Any, ticks: Sequence[float]) -> None:
    """A logarithmic axis with these ticks alone, fewer where they would touch."""
    low, high = axis.get_view_interval()
    shown: list[float] = []
    for tick in ticks:
        if low <= tick <= high and (not shown or np.log(tick / shown[-1]) > 0.04 * np.log(high / low)):
            shown.append(tick)
    axis.set_ticks(shown)
    axis.set_ticks([], minor=True)
    axis.set_major_formatter(lambda value, _: f"{value:g}")


def _plot_best(data: Data) -> Figure:
    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4.2), layout="constrained")
    for i, one in enumerate(_tuned(data)):
        label = f"{one.name}: {one.baseline}"
        over = np.sort([base[TIME] / _least(group) for group in one.found if (base := one.base(group))])
        left.plot(np.linspace(0, 100, len(over)), over, color=f"C{i}", label=label)
        pairs = _pairs(one)
        right.scatter(pairs[:, 0], pairs[:, 1], s=14, alpha=0.6, color=f"C{i}", edgecolors="none")
    left.set(yscale="log", xlabel="share of the groups, %", ylabel="baseline's time over the best's")
    right.set(xscale="log", yscale="log", xlabel="baseline's time over the configuration's (sustained)", ylabel="its power over the baseline's")
    right.set_title("pairs with both metered, colours as on the left", fontsize=10)
    right.axhline(1, color=GREY, linewidth=1)
    right.axvline(1, color=GREY, linewidth=1)
    left.set_ylim(top=2 * left.get_ylim()[1])
    _plain(left.yaxis, (1, 1.5, 2, 3, 5, 10, 20, 50))
    _plain(right.xaxis, (0.1, 0.2, 0.3, 0.5, 0.7, 1, 1.5, 2, 3, 5, 10))
    _plain(right.yaxis, (0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1, 1.1, 1.2, 1.3, 1.5, 2, 3))
    left.legend(frameon=False, fontsize=8)
    return figure


def _plot_occupancy(data: Data) -> Figure:
    rows = {tile: row for found in data.tiled.values() for group in found for tile, row in sorted(group.items())}
    tiles = sorted(rows)
    figure, axes = plt.subplots(figsize=(6, 3.4), layout="constrained")
    axes.bar(range(len(tiles)), [100 * (rows[tile]["occupancy"] or 0) for tile in tiles], color=[COLOURS[tile] for tile in tiles], width=0.5)
    axes.set(ylabel="occupancy, % (bars)", ylim=(0, 110), xlabel="tile")
    axes.set_xticks(range(len(tiles)), [str(tile) for tile in tiles])
    other = axes.twinx()
    other.plot(range(len(tiles)), [rows[tile]["smem_bytes"] for tile in tiles], color=GREY, marker="o")
    other.set(yscale="log", ylabel="shared memory of a block, bytes (line)")
    return figure


def _plot_balance(data: Data) -> Figure:
    sources = list(data.tiled)
    figure, panels = plt.subplots(1, len(sources), figsize=(6.5 * len(sources), 4), layout="constrained", squeeze=False)
    for axes, source in zip(panels[0], sources, strict=True):
        found = [one for one in _classes(data) if one.dataset == source and one.size != "all"]
        for tile in sorted({tile for one in found for group in one.complete for tile in group}):
            costs = [[group[tile][TIME] / _least(group) for group in one.complete if tile in group] for one in found]
            at = [i for i, cost in enumerate(costs) if cost]
            axes.plot(at, [_geomean(np.array(costs[i])) for i in at], color=COLOURS[tile], marker="o", label=f"tile {tile}")
        axes.set_xticks(range(len(found)), [f"{one.size}\n({len(one.complete)})" for one in found], fontsize=8)
        axes.set(yscale="log", xlabel="size, GFLOP (shapes)", ylabel="time over the best tile's", title=source)
        _plain(axes.yaxis, (1, 1.1, 1.2, 1.5, 2, 3, 5, 10, 20))
        axes.legend(frameon=False)
    return figure


def _plot_depends(data: Data) -> Figure:
    titles, found = _correlations(data)
    figure, axes = plt.subplots(figsize=(8.5, 5.5), layout="constrained")
    axes.imshow(found, cmap="RdBu_r", vmin=-1, vmax=1, aspect="auto")
    for (i, j), value in np.ndenumerate(found):
        text = "–" if np.isnan(value) else f"{value:+.2f}"
        axes.text(j, i, text, ha="center", va="center", fontsize=8, color="white" if abs(value) > 0.6 else "black")
    axes.set_xticks(range(len(titles)), [re.sub(r": |, | (?=\()", "\n", title) for title in titles], fontsize=8)
    axes.set_yticks(range(len(QUANTITIES)), list(QUANTITIES))
    return figure


def _plot_cutlass(data: Data) -> Figure:
    figure, panels = plt.subplots(1, 3, figsize=(12, 4), layout="constrained", width_ratios=(3, 2, 2))
    axis: list[tuple[tuple[str, ...], Callable[[Row], Any], str, str]] = [
        (("layout", "alpha", "beta"), _block, BASE_BLOCK, "block"),
        (("tile_m", "tile_n", "alpha", "beta"), lambda row: row["layout"], BASE_LAYOUT, "layout"),
        (("tile_m", "tile_n", "layout"), _scalars, BASE_SCALARS, "alpha, beta"),
    ]
    for axes, (same, of, base, word) in zip(panels, axis, strict=True):
        found = groups(data.grid, (*SHAPE, *same), of)
        over = {value: ratios(found, TIME, value, base) for value in sorted({value for group in found for value in group} - {base})}
        labels = [f"{value}\n({len(values)})" for value, values in over.items()]
        axes.boxplot(list(over.values()), tick_labels=labels, flierprops={"markersize": 2}, whis=(5, 95))
        axes.axhline(1, color=GREY, linewidth=0.8)
        axes.set(xlabel=f"{word} (groups)", title=f"time over that of {base}")
        axes.tick_params(axis="x", labelsize=8)
    return figure


def _plot_forest(forests: Sequence[Forest]) -> Figure:
    figure, panels = plt.subplots(1, 2, figsize=(11, 4.6), layout="constrained", sharey=True)
    names = list(dict.fromkeys(one.name for one in forests))
    for axes, target, word in zip(panels, (TIME, POWER), ("runtime", "power"), strict=True):
        for one in forests:
            if one.target == target:
                errors = np.sort(100 * np.abs(one.predicted / one.measured - 1))
                style = "-" if one.how.startswith("grouped") else ":"
                axes.plot(errors, np.linspace(0, 100, len(errors)), style, color=f"C{names.index(one.name)}", label=f"{one.name} ({one.how})")
        axes.set(xscale="log", xlim=(0.3, 1000), xlabel=f"error of predicted {word} below, %")
        axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    panels[0].set_ylabel("share of the rows, %")
    figure.legend(*panels[0].get_legend_handles_labels(), frameon=False, fontsize=8, loc="outside lower center", ncols=3)
    return figure


if __name__ == "__main__":
    sys.exit(main())
