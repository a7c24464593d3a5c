"""The findings of benchmarks/paper.py as Markdown tables, one for each block of docs/paper.md.

A ratio is a geometric mean over groups, with the number of groups in brackets; – stands where there are none. Knows nothing of the page.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np

from benchmarks.paper.findings import (
    BASE_BLOCK,
    BASE_LAYOUT,
    BASE_SCALARS,
    GRID,
    LARGE_TILE,
    MAIN,
    QUANTITIES,
    SHAPE,
    TILES,
    Data,
    Forest,
    block_of,
    correlations,
    scalars_of,
    tuned,
    where_large,
)
from coordinator.report.tile_study import (
    BASE_TILE,
    ENERGY,
    POWER,
    TIE,
    TIME,
    Group,
    Row,
    Values,
    geomean,
    gflop,
    groups,
    least_us,
    metered_pairs,
    ratios,
    size_classes,
    tuned_by_tile,
    where,
)
from costmodel.evaluate.metrics import score

SM_THREADS = 2048
# resident on a multiprocessor of sm_90


def tables(data: Data, forests: Sequence[Forest]) -> dict[str, str]:
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
        "large": _large(data),
        "depends": _depends(data),
        "blocks": _cutlass(data, ("layout", "alpha", "beta"), block_of, BASE_BLOCK, "block"),
        "layouts": _cutlass(data, ("tile_m", "tile_n", "alpha", "beta"), lambda row: row["layout"], BASE_LAYOUT, "layout"),
        "scalars": _cutlass(data, ("tile_m", "tile_n", "layout"), scalars_of, BASE_SCALARS, "alpha, beta"),
        "forest": _forest_table(forests),
    }


def _extent(data: Data) -> str:
    def line(what: str, rows: Sequence[Row]) -> tuple[str, ...]:
        shapes = {tuple(row[name] for name in SHAPE) for row in rows}
        metered = [row for row in rows if row[POWER]]
        capped = sum(row[POWER] > 0.97 * row["power_limit_w"] for row in metered if row["power_limit_w"])
        boards = {row["device_uuid"] for row in rows}
        return what, *(f"{count:,}" for count in (len(rows), len(shapes), len(boards), len(metered), capped))

    tiled = where(data.everything, family="tiled")
    lines = [line(f"`{MAIN}`, all", data.everything), line(f"`{MAIN}`, tiled kernel", tiled)]
    lines += [line(f"`{MAIN}`, CUTLASS fp32 on the paper's grid", data.grid)]
    lines += [line(f"... with m = {m}", where(data.grid, m=m)) for m in sorted(GRID[0])]
    lines += [line(f"`{name}`, tiled kernel", rows) for name, rows in data.tiled_rows.items() if name != MAIN]
    study = f"**`{TILES}` (the tile study: tiles 1 and 2, the paper's shapes) is not recorded yet**; tiles stand on the tiled rows of `{MAIN}` alone."
    if data.study is not None:
        study = f"`{TILES}` has {data.study_rows[0]:,} rows with status ok, of {data.study_rows[1]:,} in all."
    header = ["rows with status ok", "rows", "shapes", "boards", "with power", "of these at the power cap"]
    return f"{_markdown(header, lines)}\n\n`{MAIN}` has {data.all_rows:,} rows in all.\n{study}"


def _claims(data: Data, forests: Sequence[Forest]) -> str:
    lines = []
    for name, (*smallest, of_16) in tuned_by_tile(data.tiled).items():
        said: list[tuple[str, str, str]] = []
        for from_one in smallest:
            speedups = np.array([base[TIME] / least_us(group) for group in from_one.found if (base := from_one.base(group))])
            faster = f"{from_one.baseline} over the best: {geomean(speedups):.2f}x, at most {speedups.max():.2f}x"
            said.append(("up to 3.2x faster by tile", faster, f"{len(speedups)} shapes"))
        for from_one in smallest:
            power = np.array([drawn for speed, drawn in metered_pairs(from_one) if speed > TIE])
            drawn = f"of tiles faster than {from_one.baseline}, {np.sum(power < 1)} of {len(power)} draw less than it; {_change(power)}"
            said.append(("22 % less power", drawn, f"{len(power)} pairs"))
        near = sum(group[BASE_TILE][TIME] <= TIE * least_us(group) for group in of_16.found if BASE_TILE in group)
        below, above = (
            ratios([group for group in data.tiled[name] if (gflop(group) >= 1) == large], ENERGY, 32, BASE_TILE) for large in (False, True)
        )
        energy = f"{_change(below)} below 1 GFLOP, {_change(above)} above"
        balance = f"tile {BASE_TILE} is the fastest or within 2 % of it on {near} shapes"
        said.append((f"{BASE_TILE}x{BASE_TILE} is the best balance", balance, f"{len(of_16.found)} shapes"))
        said.append(("", f"energy of tile 32 over tile {BASE_TILE}: {energy}", f"{len(below)} and {len(above)} pairs"))
        lines += [(claim, found, f"`{name}`, {on}") for claim, found, on in said]
    for target, claim in ((TIME, "forest, runtime: R² 0.98, mean error 15.57 %"), (POWER, "forest, power: R² 0.78, median error 5.42 %")):
        for one in forests:
            if one.target == target and one.name.startswith("CUTLASS fp32 on the paper"):
                scored = score(one.measured, one.predicted)
                shown = f"R² {scored.get('r2', np.nan):.3f}, mean {scored['mape']:.1f} %, median {scored['median_ape']:.1f} %, {one.how}"
                lines.append((claim, shown, f"{scored['rows']:,} rows, {one.shapes} shapes"))
    return _markdown(["the paper, RTX 4070", "here, H100", "on"], lines)


def _by_tile(data: Data, reading: str, complete: bool = False) -> str:
    tiles = sorted({tile for found in data.tiled.values() for group in found for tile in group})
    lines = []
    for one in size_classes(data.tiled):
        among = one.complete if complete else one.found
        cells = [_mean(ratios(among, reading, tile, BASE_TILE)) if tile != BASE_TILE else "1" for tile in tiles]
        lines.append((f"`{one.dataset}`", one.size, *cells))
    return _markdown(["dataset", "GFLOP", *(f"tile {tile}" for tile in tiles)], lines)


def _best(data: Data) -> str:
    lines = []
    for one in tuned(data):
        times = [(base[TIME], np.array([row[TIME] for row in group.values()])) for group in one.found if (base := one.base(group))]
        over, worst = np.array([base / of.min() for base, of in times]), np.array([of.max() / of.min() for _, of in times])
        size = f"{np.median([len(of) for _, of in times]):.0f}"
        shown = [f"{geomean(over):.2f}", f"{np.percentile(over, 90):.2f}", f"{over.max():.2f}", f"{geomean(worst):.2f}", f"{worst.max():.2f}"]
        lines.append((one.name, f"{len(times):,}", size, one.baseline, *shown))
    header = ["kernels", "groups", "configurations each", "baseline", "baseline ÷ best", "p90", "max", "worst ÷ best", "max"]
    return _markdown(header, lines)


def _saving(data: Data) -> str:
    lines = []
    for one in tuned(data):
        pairs = metered_pairs(one)
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
    for one in size_classes(data.tiled):
        best = [least_us(group) for group in one.complete]
        pairs = list(zip(one.complete, best, strict=True))
        near = [[group[tile][TIME] <= TIE * least for group, least in pairs if tile in group] for tile in tiles]
        costs = [_cost(one.complete, best, tile) for tile in (8, 16, 32)]
        lines.append((f"`{one.dataset}`", one.size, len(pairs), *(sum(of) if of else "–" for of in near), *costs))
    header = ["dataset", "GFLOP", "shapes", *(f"tile {tile}" for tile in tiles), "always 8", "always 16", "always 32"]
    return _markdown(header, lines)


def _cost(complete: Sequence[Group], best: Sequence[float], tile: int) -> str:
    over = np.array([group[tile][TIME] / least for group, least in zip(complete, best, strict=True) if tile in group])
    return f"{100 * (geomean(over) - 1):.0f} / {100 * (over.max() - 1):.0f} %" if len(over) else "–"


def _large(data: Data) -> str:
    lines = []
    for (name, *parts), found in where_large(data).items():
        over = ratios(found, TIME, LARGE_TILE, BASE_TILE)
        span = f"{over.min():.2f} to {over.max():.2f}"
        lines.append((f"`{name}`", *parts, len(over), f"{geomean(over):.2f}", span, int(np.sum(over < 1 / TIE)), int(np.sum(over > TIE))))
    blocks, work = f"blocks of {LARGE_TILE}x{LARGE_TILE}", f"its work over tile {BASE_TILE}'s"
    times = [f"time over tile {BASE_TILE}'s", "from, to", "faster by over 2 %", "slower by over 2 %"]
    return _markdown(["dataset", blocks, work, "k", "shapes", *times], lines)


def _depends(data: Data) -> str:
    titles, found = correlations(data)
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


def _forest_table(forests: Sequence[Forest]) -> str:
    lines: list[Sequence[object]] = []
    for one in forests:
        scored = score(one.measured, one.predicted)
        errors = [f"{scored[name]:.1f}" for name in ("median_ape", "mape", "p90_ape")]
        word = "runtime" if one.target == TIME else "power"
        lines.append((one.name, word, f"{scored['rows']:,}", one.shapes, one.how, *errors, f"{scored.get('r2', np.nan):.3f}"))
    return _markdown(["set", "target", "rows", "shapes", "split, 5-fold", "median %", "mean %", "p90 %", "R²"], lines)


# Cells


def _markdown(header: Sequence[str], lines: Iterable[Sequence[object]]) -> str:
    rows = [header, ["---"] * len(header), *([str(cell) for cell in line] for line in lines)]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def _mean(values: Values) -> str:
    return f"{geomean(values):.2f} ({len(values)})" if len(values) else "–"


def _change(values: Values) -> str:
    if not len(values):
        return "not measured"
    low, high = (100 * (value - 1) for value in (values.min(), values.max()))
    return f"{100 * (geomean(values) - 1):+.0f} % ({low:+.0f} to {high:+.0f} %)"
