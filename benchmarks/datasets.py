"""What the recorded datasets hold: different cells, shapes, groups to tune in, power, failures, and how well the cells that were measured
again (NAME_again.parquet, on another machine or day) agree.

    .venv/bin/python benchmarks/datasets.py [datasets/*.parquet] [--json]

What is a cell and what a group stands in coordinator/samples/export.py.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from coordinator.samples.dataset_card import counts
from costmodel.evaluate.noise import noise_floor
from gemmcast.arrow import read_samples
from gemmcast.errors import InputError

FOLDER = Path(__file__).resolve().parent.parent / "datasets"


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("files", nargs="*", type=Path, default=sorted(FOLDER.glob("*.parquet")))
    parser.add_argument("--json", action="store_true", help="one JSON object on the last line")
    args = parser.parse_args()
    try:
        rows = {path.stem: read_samples(path).to_pylist() for path in args.files}
    except (InputError, OSError) as error:
        print(f"datasets: {error}", file=sys.stderr)
        return 2
    found = {name: counts(of) for name, of in rows.items()}
    floors = {
        name: noise_floor(rows[name], rows[f"{name}_again"])
        for name in rows
        if f"{name}_again" in rows
    }
    if args.json:
        print(
            json.dumps(
                {
                    name: {**values, "noise_floor": floors.get(name)}
                    for name, values in found.items()
                }
            )
        )
        return 0
    for name, values in found.items():
        print(name)
        for key, value in values.items():
            shown = (
                ", ".join(f"{word} {count}" for word, count in value.items())
                if isinstance(value, dict)
                else value
            )
            print(f"  {key:18} {shown}")
        for reading, apart in floors.get(name, {}).items():
            shown = f"median {apart['median']:.2f} %, p90 {apart['p90']:.2f} % over {apart['cells']} cells measured again"
            print(f"  {reading:22} {shown}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
