"""What the recorded datasets hold: different cells, shapes, groups to tune in, power, failures.

    .venv/bin/python benchmarks/datasets.py [datasets/*.parquet] [--json]

What is a cell and what a group stands in coordinator/recording.py.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import pyarrow.parquet as pq

from coordinator.recording import counts
from gemmcast.arrow import conform
from gemmcast.errors import InputError

FOLDER = Path(__file__).resolve().parent.parent / "datasets"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="*", type=Path, default=sorted(FOLDER.glob("*.parquet")))
    parser.add_argument("--json", action="store_true", help="one JSON object on the last line")
    args = parser.parse_args()
    try:
        found = {path.stem: counts(conform(pq.read_table(path), str(path)).to_pylist()) for path in args.files}
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


if __name__ == "__main__":
    sys.exit(main())
