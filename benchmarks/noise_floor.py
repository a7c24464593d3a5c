"""How far two recordings of the same cells differ, or the cells that one recording has several times: no model can be asked to predict
better than that.

.venv/bin/python benchmarks/noise_floor.py [datasets/h100_demo.parquet datasets/h100_demo_again.parquet] [--json]
.venv/bin/python benchmarks/noise_floor.py datasets/h100_repeatability.parquet [--json]
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from costmodel.evaluate.noise import noise_floor, repeatability
from gemmcast.arrow import read_samples


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "files",
        nargs="*",
        type=Path,
        default=[Path("datasets/h100_demo.parquet"), Path("datasets/h100_demo_again.parquet")],
    )
    parser.add_argument("--json", action="store_true", help="one JSON object on the last line")
    args = parser.parse_args()
    if len(args.files) not in (1, 2):
        parser.error("name one recording, or two of the same cells")
    rows = [read_samples(path).to_pylist() for path in args.files]
    found = noise_floor(*rows) if len(rows) == 2 else repeatability(*rows)
    if args.json:
        print(json.dumps(found))
        return
    print(f"{'reading':24}{'median %':>10}{'p90 %':>10}{'max %':>10}{'pairs':>8}")
    for name, values in found.items():
        print(
            f"{name:24}{values['median']:10.2f}{values['p90']:10.2f}{values['max']:10.2f}{values.get('cells', values.get('rows')):8.0f}"
        )


if __name__ == "__main__":
    main()
