"""How far two recordings of the same cells differ: no model can be asked to predict better than that.

.venv/bin/python benchmarks/noise_floor.py [datasets/h100_demo.parquet datasets/h100_demo_again.parquet] [--json]
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

READINGS = ("runtime_us", "sustained_runtime_us", "power_w", "energy_mj")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="*", type=Path, default=[Path("datasets/h100_demo.parquet"), Path("datasets/h100_demo_again.parquet")])
    parser.add_argument("--json", action="store_true", help="one JSON object on the last line")
    args = parser.parse_args()
    if len(args.files) != 2:
        parser.error("name two recordings of the same cells")
    found = noise_floor(*args.files)
    if args.json:
        print(json.dumps(found))
        return
    print(f"{'reading':24}{'median %':>10}{'p90 %':>10}{'max %':>10}{'cells':>8}")
    for name, values in found.items():
        print(f"{name:24}{values['median']:10.2f}{values['p90']:10.2f}{values['max']:10.2f}{values['cells']:8.0f}")


def noise_floor(first: Path, second: Path) -> dict[str, dict[str, float]]:
    """reading -> relative difference in per cent, over the cells that both have."""
    one, two = ({row["cell_id"]: row for row in pq.read_table(path).to_pylist()} for path in (first, second))
    found = {}
    for name in READINGS:
        pairs = np.array([(one[cell][name], two[cell][name]) for cell in one if cell in two and one[cell][name] and two[cell][name]])
        if len(pairs):
            difference = 100 * np.abs(pairs[:, 1] / pairs[:, 0] - 1)
            median, p90 = np.percentile(difference, [50, 90])
            found[name] = {"median": float(median), "p90": float(p90), "max": float(difference.max()), "cells": len(pairs)}
    return found


if __name__ == "__main__":
    main()
