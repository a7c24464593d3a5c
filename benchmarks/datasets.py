"""What the recorded datasets hold: different cells, shapes, groups to tune in, power, failures.

    .venv/bin/python benchmarks/datasets.py [datasets/*.parquet] [--json]

A cell is a GEMM with the configuration that ran (all knobs, as the row tells them) and the cache state; a group to tune in is a shape, dtype
and family with 20 or more configurations.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import pyarrow.parquet as pq

from gemmcast.arrow import conform
from gemmcast.config import KernelConfig
from gemmcast.errors import InputError
from gemmcast.sample import config_of, gemm_of

FOLDER = Path(__file__).resolve().parent.parent / "datasets"
GROUP = 20


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="*", type=Path, default=sorted(FOLDER.glob("*.parquet")))
    parser.add_argument("--json", action="store_true", help="one JSON object on the last line")
    args = parser.parse_args()
    try:
        found = {path.stem: counts(path) for path in args.files}
    except (InputError, OSError) as error:
        print(f"datasets: {error}", file=sys.stderr)
        return 2
    if args.json:
        print(json.dumps(found))
        return 0
    for name, values in found.items():
        print(name)
        for key, value in values.items():
            shown = ", ".join(f"{word} {count}" for word, count in value.items()) if isinstance(value, dict) else value
            print(f"  {key:18} {shown}")
    return 0


def counts(path: Path) -> dict[str, Any]:
    rows = conform(pq.read_table(path), str(path)).to_pylist()
    good = [row for row in rows if row["status"] == "ok"]
    cells = {(gemm_of(row), config_of(row), row["cache"], row["device"]) for row in good}
    groups: dict[tuple[str, str, str], set[KernelConfig]] = defaultdict(set)
    for gemm, config, _, _ in cells:
        groups[gemm.shape_key, gemm.dtype, config.family].add(config)
    return {
        "device": dict(Counter(row["device"] for row in rows)),
        "rows": len(rows),
        "cells": len(cells),
        "shapes": len({gemm.shape_key for gemm, _, _, _ in cells}),
        "groups_of_20": sum(len(configs) >= GROUP for configs in groups.values()),
        "rows_with_power": sum(row["power_w"] is not None for row in good),
        "by_family": dict(Counter(row["family"] for row in good)),
        "by_dtype": dict(Counter(row["dtype"] for row in good)),
        "not_ok": dict(Counter(row["status"] for row in rows if row["status"] != "ok")),
    }


if __name__ == "__main__":
    sys.exit(main())
