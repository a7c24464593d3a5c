"""How well one GPU agrees with itself: 50 cells measured five times in random order, coefficients of variation in per cent.

    .venv/bin/python benchmarks/repeatability.py [--out samples.parquet] [--json]     on a GPU; about five minutes
    .venv/bin/python benchmarks/repeatability.py --recorded datasets/h100_repeatability.parquet

Several GPUs share the work: one process each, with its own CUDA_VISIBLE_DEVICES and --share 0/2, 1/2; then --recorded with both files.
A cell stays on one GPU. What was measured is kept every 20 rows.

The same cells are then measured five times more without power, in another random order: `runtime_only_cv`, as a sweep would have it.
Whether a cell is capped is told as the meter tells it (agent/power.py): by mean clock and power, in most of its five readings. The
coefficient of variation is the standard deviation over the mean of the five readings; the table has the median over the cells.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import defaultdict
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np
import pyarrow.parquet as pq

from agent.power import at_cap
from agent.spec import AgentSpec
from agent.supervisor import ChildSupervisor
from gemmcast.arrow import to_table
from gemmcast.cell import Cell
from gemmcast.config import KernelConfig
from gemmcast.errors import GemmcastError
from gemmcast.gemm import Gemm
from gemmcast.procedure import Procedure

REPEATS = 5
KEEP_EVERY = 20
SEED = 11
SHAPES = (
    (128, 128, 128), (512, 512, 512), (1024, 1024, 1024), (768, 768, 3072), (16, 4096, 4096), (64, 4096, 1024), (1000, 700, 900),
    (2048, 512, 1024), (333, 777, 1555), (2048, 512, 256),
)  # fmt: skip
BY_FAMILY = (("cublas", "fp32", "nn"), ("cublas", "tf32", "nn"), ("cublas", "fp16", "nn"), ("cublaslt", "bf16", "nt"))
LARGE = (("cublas", "fp16", 8192), ("cublas", "bf16", 4096), ("cublas", "tf32", 4096), ("cublaslt", "fp16", 6144), ("cublaslt", "bf16", 8192))
TILED = ((512, 512, 512), (1000, 1000, 1000), (2048, 1024, 512), (300, 4000, 200), (64, 64, 4096))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recorded", type=Path, nargs="+", help="recordings made with --out, instead of a GPU")
    parser.add_argument("--share", default="0/1", help="measure only the I-th of N shares of the cells: I/N")
    parser.add_argument("--out", type=Path, help="keep the samples in this Parquet file")
    parser.add_argument("--json", action="store_true", help="one JSON object on the last line")
    args = parser.parse_args()
    try:
        if args.recorded:
            rows = [row for path in args.recorded for row in pq.read_table(path).to_pylist()]
        else:
            index, shares = map(int, args.share.split("/"))
            rows = measure(index, shares, args.out)
    except (GemmcastError, OSError, ValueError) as error:
        print(f"repeatability: {error}", file=sys.stderr)
        return 2
    found = variation(rows)
    print(json.dumps(found) if args.json else "\n".join(f"{name:20} {value:8.2f}" for name, value in found.items()))
    return 0


def cells() -> list[Cell]:
    configs: list[tuple[Gemm, str, dict[str, Any]]] = []
    configs += [(Gemm(m=m, n=n, k=k, dtype=dtype, layout=layout), family, {}) for m, n, k in SHAPES for family, dtype, layout in BY_FAMILY]
    configs += [(Gemm(m=dim, n=dim, k=dim, dtype=dtype), family, {}) for family, dtype, dim in LARGE]
    configs += [(Gemm(m=m, n=n, k=k), "tiled", {"tile_m": 16, "tile_n": 16, "tile_k": 16}) for m, n, k in TILED]
    return [
        Cell(gemm=gemm, config=KernelConfig(family=family, **knobs), device_key="here", power=power, repeat=repeat)
        for power in (True, False)
        for gemm, family, knobs in configs
        for repeat in range(REPEATS)
    ]


def measure(index: int, shares: int, out: Path | None) -> list[dict[str, Any]]:
    every, rng = cells(), np.random.default_rng(SEED)
    half = len(every) // 2
    order = [*rng.permutation(half), *(half + rng.permutation(half))]
    shuffled = [every[i] for i in order if i // REPEATS % shares == index]
    rows: list[dict[str, Any]] = []
    with TemporaryDirectory() as model_dir:
        spec = AgentSpec(
            kind="cuda",
            agent="repeatability",
            model_dir=Path(model_dir),
            procedure=Procedure(),
        )
        worker = ChildSupervisor(spec)
        try:
            for row in worker.measure(shuffled):
                if row is not None:
                    rows.append(row)
                    print(f"\r{len(rows)} of {len(shuffled)}", end="", file=sys.stderr, flush=True)
                    if out and (len(rows) % KEEP_EVERY == 0 or len(rows) == len(shuffled)):
                        pq.write_table(to_table(rows), out, compression="zstd")
        finally:
            worker.stop()
    print(file=sys.stderr)
    return rows


def variation(rows: list[dict[str, Any]]) -> dict[str, float]:
    """Medians over the cells, in per cent, and what they rest on."""
    groups = defaultdict(list)
    for row in rows:
        if row["status"] == "ok":
            groups[row["power_w"] is None, *(row[name] for name in ("family", "dtype", "layout", "m", "n", "k"))].append(row)
    whole = [group for key, group in groups.items() if len(group) == REPEATS and not key[0]]
    unmetered = [group for key, group in groups.items() if len(group) == REPEATS and key[0]]
    capped = [group for group in whole if sum(_is_capped(row) for row in group) > REPEATS / 2]
    free = [group for group in whole if not any(group is other for other in capped)]
    return {
        "runtime_cv": _median_cv(whole, "runtime_us"),
        **({"runtime_only_cv": _median_cv(unmetered, "runtime_us")} if unmetered else {}),
        "sustained_cv": _median_cv(whole, "sustained_runtime_us"),
        "power_cv": _median_cv(free, "power_w"),
        "power_capped_cv": _median_cv(capped, "power_w"),
        "energy_cv": _median_cv(whole, "energy_mj"),
        "cells": float(len(whole)),
        "cells_capped": float(len(capped)),
        "rows_not_ok": float(sum(row["status"] != "ok" for row in rows)),
    }


def _is_capped(row: dict[str, Any]) -> bool:
    return bool(at_cap(row["power_w"], row["power_limit_w"], row["sustained_clock_mhz"], row["clock_mhz"]))


def _median_cv(groups: list[list[dict[str, Any]]], name: str) -> float:
    readings = [np.array([row[name] for row in group], dtype=np.float64) for group in groups]
    return float(np.median([100 * values.std(ddof=1) / values.mean() for values in readings])) if readings else float("nan")


if __name__ == "__main__":
    sys.exit(main())
