"""What the recorded datasets hold, and how well cells that were measured again agree.

    .venv/bin/python benchmarks/datasets.py [datasets/*.parquet] [--json]

Counts different cells, shapes, groups to tune in, rows with power and failures. NAME_again.parquet
has cells of NAME.parquet that were measured on another machine or day. Cells and groups are defined
in coordinator/samples/dataset_card.py.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from coordinator.samples.dataset_card import DatasetCounts, counts
from costmodel.evaluate.noise import noise_floor
from gemmcast.arrow import read_samples
from gemmcast.cli_parser import Parser
from gemmcast.program import json_line, run_script
from gemmcast.rows import Row

FOLDER = Path(__file__).resolve().parent.parent / "datasets"
AGAIN = "_again"
"""What the name of a second measurement ends with."""

Spreads = Mapping[str, Mapping[str, float]]
"""reading -> median, p90, max in per cent, and the number of cells"""


def main() -> int:
    """The command; returns the exit code."""
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="*", type=Path, default=sorted(FOLDER.glob("*.parquet")))
    parser.add_argument("--json", action="store_true", help="one JSON object on the last line")
    args = parser.parse_args()
    rows: dict[str, list[Row]] = {}
    for path in args.files:
        rows[path.stem] = read_samples(path).to_pylist()
    if args.json:
        print(json_line(_to_json(rows)))
        return 0
    for name, of_dataset in rows.items():
        print(name)
        _show_counts(counts(of_dataset))
        _show_spreads(_measured_again(rows, name) or {})
    return 0


def _to_json(rows: Mapping[str, list[Row]]) -> dict[str, dict[str, object]]:
    printed: dict[str, dict[str, object]] = {}
    for name, of_dataset in rows.items():
        spreads = _measured_again(rows, name)
        printed[name] = {**counts(of_dataset), "noise_floor": spreads}
    return printed


def _measured_again(rows: Mapping[str, list[Row]], name: str) -> Spreads | None:
    """How far a dataset and its second measurement differ; None where there is none."""
    again = rows.get(name + AGAIN)
    if again is None:
        return None
    return noise_floor(rows[name], again)


def _show_counts(counted: DatasetCounts) -> None:
    for key, value in counted.items():
        text = str(value)
        if isinstance(value, dict):
            text = ", ".join(f"{word} {count}" for word, count in value.items())
        print(f"  {key:18} {text}")


def _show_spreads(spreads: Spreads) -> None:
    for reading, spread in spreads.items():
        percent = f"median {spread['median']:.2f} %, p90 {spread['p90']:.2f} %"
        print(f"  {reading:22} {percent} over {spread['cells']} cells measured again")


if __name__ == "__main__":
    run_script(main)
