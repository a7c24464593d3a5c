"""How well one GPU agrees with itself: 50 cells measured five times in random order.

    .venv/bin/python benchmarks/repeatability.py [--out samples.parquet] [--json]
    .venv/bin/python benchmarks/repeatability.py --recorded datasets/h100_repeatability.parquet

The first form needs a GPU and takes about five minutes; the second needs none and takes a second.
Several GPUs share the work: start one process each, with its own CUDA_VISIBLE_DEVICES and --share
0/2, 1/2; then --recorded with both files. A cell stays on one GPU. The rows are written after
every 20.

The same cells are then measured five times more without power, in another random order, as a
sweep would: `runtime_only_cv`. Printed is the coefficient of variation in per cent: the standard
deviation over the mean of five readings, median over the cells. A cell counts as capped if mean
clock and power are those of a capped kernel (agent/power.py) in most of its readings.
"""

from __future__ import annotations

import argparse
import sys
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np
import pyarrow.parquet as pq

from agent.power import at_cap
from agent.spec import AgentSpec
from agent.supervisor import ChildSupervisor
from gemmcast.arrow import read_samples, to_table
from gemmcast.cell import Cell
from gemmcast.cli_parser import Parser
from gemmcast.config import KernelConfig
from gemmcast.errors import InputError
from gemmcast.gemm import Gemm
from gemmcast.procedure import Procedure
from gemmcast.program import json_line, run_script
from gemmcast.rows import Row

REPEATS = 5
WRITE_EVERY = 20
SEED = 11
SHAPES = (
    (128, 128, 128),
    (512, 512, 512),
    (1024, 1024, 1024),
    (768, 768, 3072),
    (16, 4096, 4096),
    (64, 4096, 1024),
    (1000, 700, 900),
    (2048, 512, 1024),
    (333, 777, 1555),
    (2048, 512, 256),
)
"""m, n, k; each with every family of BY_FAMILY."""
BY_FAMILY = (
    ("cublas", "fp32", "nn"),
    ("cublas", "tf32", "nn"),
    ("cublas", "fp16", "nn"),
    ("cublaslt", "bf16", "nt"),
)
LARGE = (
    ("cublas", "fp16", 8192),
    ("cublas", "bf16", 4096),
    ("cublas", "tf32", 4096),
    ("cublaslt", "fp16", 6144),
    ("cublaslt", "bf16", 8192),
)
"""Cubes that reach the power cap."""
TILED = (
    (512, 512, 512),
    (1000, 1000, 1000),
    (2048, 1024, 512),
    (300, 4000, 200),
    (64, 64, 4096),
)
"""m, n, k, with tiles of 16."""
PROBLEM = ("family", "dtype", "layout", "m", "n", "k")

Group = list[Row]
"""The readings of one cell."""


def main() -> int:
    """The command; returns the exit code."""
    args = _parser().parse_args()
    rows: list[Row] = []
    if args.recorded:
        for path in args.recorded:
            rows += read_samples(path).to_pylist()
    else:
        index, shares = _share(args.share)
        rows = measure(index, shares, args.out)
    figures = variation(rows)
    if args.json:
        print(json_line(figures))
        return 0
    for name, value in figures.items():
        print(f"{name:20} {value:8.2f}")
    return 0


def _share(text: str) -> tuple[int, int]:
    """Of `2/8`: which share of the work, and how many shares."""
    index, slash, shares = text.partition("/")
    if not slash or not index.isdecimal() or not shares.isdecimal():
        raise InputError("--share", text, "must be INDEX/SHARES", "write --share 0/8")
    return int(index), int(shares)


def cells() -> list[Cell]:
    """Every cell REPEATS times with power, then as often without."""
    problems = list(_problems())
    repeated: list[Cell] = []
    for power in (True, False):
        for gemm, config in problems:
            for repeat in range(REPEATS):
                cell = Cell(
                    gemm=gemm,
                    config=config,
                    device_key="here",
                    power=power,
                    repeat=repeat,
                )
                repeated.append(cell)
    return repeated


def measure(index: int, shares: int, out: Path | None) -> list[Row]:
    """Measure one share of the cells on this process's GPU.

    Args:
        index: which share, from 0.
        shares: how many there are.
        out: a Parquet file to keep the rows in.
    """
    wanted = _in_random_order(index, shares)
    rows: list[Row] = []
    with TemporaryDirectory() as model_dir:
        spec = AgentSpec(
            kind="cuda",
            agent="repeatability",
            model_dir=Path(model_dir),
            procedure=Procedure(),
        )
        supervisor = ChildSupervisor(spec)
        try:
            for row in supervisor.measure(wanted):
                if row is None:
                    continue
                rows.append(row)
                progress = f"\r{len(rows)} of {len(wanted)}"
                print(progress, end="", file=sys.stderr, flush=True)
                is_last = len(rows) == len(wanted)
                if out and (is_last or len(rows) % WRITE_EVERY == 0):
                    pq.write_table(to_table(rows), out, compression="zstd")
        finally:
            supervisor.stop()
    print(file=sys.stderr)
    return rows


def variation(rows: Iterable[Row]) -> dict[str, float]:
    """Medians over the cells, in per cent, and the numbers of cells and rows they rest on."""
    not_ok = 0
    with_power: dict[tuple[object, ...], Group] = defaultdict(list)
    without_power: dict[tuple[object, ...], Group] = defaultdict(list)
    for row in rows:
        if row["status"] != "ok":
            not_ok += 1
            continue
        groups = without_power if row["power_w"] is None else with_power
        groups[tuple(row[name] for name in PROBLEM)].append(row)
    metered = _complete(with_power.values())
    unmetered = _complete(without_power.values())
    capped: list[Group] = []
    free: list[Group] = []
    for group in metered:
        (capped if _is_capped(group) else free).append(group)
    figures = {"runtime_cv": _median_cv(metered, "runtime_us")}
    if unmetered:
        figures["runtime_only_cv"] = _median_cv(unmetered, "runtime_us")
    return {
        **figures,
        "sustained_cv": _median_cv(metered, "sustained_runtime_us"),
        "power_cv": _median_cv(free, "power_w"),
        "power_capped_cv": _median_cv(capped, "power_w"),
        "energy_cv": _median_cv(metered, "energy_mj"),
        "cells": float(len(metered)),
        "cells_capped": float(len(capped)),
        "rows_not_ok": float(not_ok),
    }


def _parser() -> argparse.ArgumentParser:
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--recorded",
        type=Path,
        nargs="+",
        help="files that were made with --out, instead of a GPU",
    )
    parser.add_argument(
        "--share",
        default="0/1",
        help="measure only the I-th of N shares of the cells: I/N",
    )
    parser.add_argument("--out", type=Path, help="keep the samples in this Parquet file")
    parser.add_argument("--json", action="store_true", help="one JSON object on the last line")
    return parser


def _problems() -> Iterator[tuple[Gemm, KernelConfig]]:
    for m, n, k in SHAPES:
        for family, dtype, layout in BY_FAMILY:
            gemm = Gemm(m=m, n=n, k=k, dtype=dtype, layout=layout)
            yield gemm, KernelConfig(family=family)
    for family, dtype, dim in LARGE:
        yield Gemm(m=dim, n=dim, k=dim, dtype=dtype), KernelConfig(family=family)
    for m, n, k in TILED:
        config = KernelConfig(family="tiled", tile_m=16, tile_n=16, tile_k=16)
        yield Gemm(m=m, n=n, k=k), config


def _in_random_order(index: int, shares: int) -> list[Cell]:
    """The cells of one share: first those with power, then those without, each in random order."""
    rng = np.random.default_rng(SEED)
    every = cells()
    half = len(every) // 2
    order = [*rng.permutation(half), *(half + rng.permutation(half))]
    return [every[i] for i in order if i // REPEATS % shares == index]


def _complete(groups: Iterable[Group]) -> list[Group]:
    """The cells of which every reading is there."""
    return [group for group in groups if len(group) == REPEATS]


def _is_capped(group: Group) -> bool:
    capped = 0
    for row in group:
        clocks = row["sustained_clock_mhz"], row["clock_mhz"]
        capped += bool(at_cap(row["power_w"], row["power_limit_w"], *clocks))
    return capped > REPEATS / 2


def _median_cv(groups: Sequence[Group], name: str) -> float:
    """Median over the cells of a reading's coefficient of variation; NaN without cells."""
    if not groups:
        return float("nan")
    variations: list[float] = []
    for group in groups:
        values = np.array([row[name] for row in group], dtype=np.float64)
        variations.append(float(100 * values.std(ddof=1) / values.mean()))
    return float(np.median(variations))


if __name__ == "__main__":
    run_script(main)
