"""How far two datasets of the same cells differ, or repeated cells within one dataset.

    .venv/bin/python benchmarks/noise_floor.py [FIRST.parquet SECOND.parquet] [--json]
    .venv/bin/python benchmarks/noise_floor.py datasets/h100_repeatability.parquet [--json]

Needs no GPU; takes a second on two cores.

No model can be expected to predict better than that. The default is the recorded H100, twice.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from costmodel.evaluate.noise import noise_floor, repeatability
from gemmcast.arrow import read_samples
from gemmcast.cli_parser import Parser
from gemmcast.program import json_line, run_script

DEFAULT = (Path("datasets/h100_demo.parquet"), Path("datasets/h100_demo_again.parquet"))
COLUMNS = ("median", "p90", "max")


def main() -> None:
    """The command."""
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="*", type=Path, default=list(DEFAULT))
    parser.add_argument("--json", action="store_true", help="one JSON object on the last line")
    args = parser.parse_args()
    if len(args.files) not in (1, 2):
        parser.error("name one dataset, or two of the same cells")
    rows = [read_samples(path).to_pylist() for path in args.files]
    spreads = noise_floor(*rows) if len(rows) == 2 else repeatability(*rows)
    if args.json:
        print(json_line(spreads))
    else:
        _show(spreads)


def _show(spreads: Mapping[str, Mapping[str, float]]) -> None:
    heads = "".join(f"{name} %".rjust(10) for name in COLUMNS)
    print(f"{'reading':24}{heads}{'pairs':>8}")
    for reading, spread in spreads.items():
        percents = "".join(f"{spread[name]:10.2f}" for name in COLUMNS)
        count = spread.get("cells", spread.get("rows"))
        print(f"{reading:24}{percents}{count:8.0f}")


if __name__ == "__main__":
    run_script(main)
