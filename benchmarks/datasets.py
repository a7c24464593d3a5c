"""What the recorded datasets hold, how they are spread over boards, and what they lack.

    .venv/bin/python benchmarks/datasets.py [datasets/*.parquet] [--json]

Needs no GPU; takes ten seconds on two cores.

For each dataset: different cells, shapes, groups to tune in, rows with power and failures
(coordinator/samples/dataset_counts.py), its boards, and how far readings of one cell differ between
boards of one type (second_boards.py); NAME_again.parquet has cells of NAME.parquet that were
measured on another machine or day, so the two are compared together. Small cells are compared with
one another (consistency.py). Then for each type of device,
over all files: the same of its boards, and kinds of cells that have too few rows (holes.py).
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TypedDict

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np
import pyarrow as pa

from coordinator.samples.columns import Columns
from coordinator.samples.consistency import WindowOverBurst, step_times_ns, window_over_burst
from coordinator.samples.dataset_counts import DatasetCounts, counts, rows_by_kind
from coordinator.samples.holes import NEEDED, Hole, holes
from coordinator.samples.second_boards import (
    BoardCounts,
    Difference,
    board_counts,
    board_differences,
)
from gemmcast.arrow import read_samples
from gemmcast.cli_parser import Parser
from gemmcast.cutlass.sets import HOPPER, kernels
from gemmcast.program import json_line, run_script

FOLDER = Path(__file__).resolve().parent.parent / "datasets"
AGAIN = "_again"
"""What the name of a second measurement ends with."""
FIRST_SETS = ("paper", "default", "wide")
"""Sets of CUTLASS kernels whose tiles and stages leave gaps."""
TITLE_WIDTH = 38


class OfDataset(TypedDict):
    """What is printed of one file."""

    counts: DatasetCounts
    rows_by: dict[str, dict[str, int]]
    """Column -> value or range -> rows."""
    boards: BoardCounts
    with_again: BoardCounts | None
    """Of the file and its second measurement together; None where there is none."""
    noise_floor: dict[str, Difference]
    """The same; of the file alone where there is none."""
    window_over_burst: WindowOverBurst | None
    step_times_ns: dict[str, float]


class OfDevice(TypedDict):
    """What is printed of one type of device, over all files."""

    boards: BoardCounts
    noise_floor: dict[str, Difference]
    holes: dict[str, Hole]
    """Of a GPU."""


def main() -> int:
    """The command; returns the exit code."""
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="*", type=Path, default=sorted(FOLDER.glob("*.parquet")))
    parser.add_argument("--json", action="store_true", help="one JSON object on the last line")
    args = parser.parse_args()
    tables = {path.stem: read_samples(path) for path in args.files}
    datasets = {name: _of_dataset(tables, name) for name in tables}
    devices = _of_devices(Columns(pa.concat_tables(tables.values())))
    if args.json:
        print(json_line({"datasets": datasets, "devices": devices}))
        return 0
    for name, dataset in datasets.items():
        _show_dataset(name, dataset)
    for name, device in devices.items():
        _show_device(name, device)
    return 0


def _of_dataset(tables: Mapping[str, pa.Table], name: str) -> OfDataset:
    table = tables[name]
    again = tables.get(name + AGAIN)
    measured = Columns(table)
    both = measured if again is None else Columns(pa.concat_tables([table, again]))
    return OfDataset(
        counts=counts(table),
        rows_by=rows_by_kind(measured),
        boards=board_counts(measured),
        with_again=None if again is None else board_counts(both),
        noise_floor=board_differences(both),
        window_over_burst=window_over_burst(measured),
        step_times_ns=step_times_ns(measured),
    )


def _of_devices(measured: Columns) -> dict[str, OfDevice]:
    first_kernels: set[str] = set()
    for set_name in FIRST_SETS:
        first_kernels |= {kernel.name for kernel in kernels(set_name, HOPPER)}
    names = measured.words("device")
    devices: dict[str, OfDevice] = {}
    for name in np.unique(names.astype(str)).tolist():
        of_device = measured.where(names == name)
        is_gpu = "cuda" in of_device.by("device_kind")
        devices[name] = OfDevice(
            boards=board_counts(of_device),
            noise_floor=board_differences(of_device),
            holes=holes(of_device, first_kernels) if is_gpu else {},
        )
    return devices


def _show_dataset(name: str, dataset: OfDataset) -> None:
    print(name)
    for key, value in dataset["counts"].items():
        text = _joined(value) if isinstance(value, dict) else str(value)
        print(f"  {key:18} {text}")
    for column, by_value in dataset["rows_by"].items():
        print(f"  by_{column:15} {_joined(by_value)}")
    _show_boards("boards", dataset["boards"])
    if dataset["with_again"] is not None:
        _show_boards(f"with {name}{AGAIN}", dataset["with_again"])
    _show_differences(dataset["noise_floor"])
    _show_consistency(dataset["window_over_burst"], dataset["step_times_ns"])


def _show_consistency(ratio: WindowOverBurst | None, steps_ns: Mapping[str, float]) -> None:
    if ratio is not None:
        median = f"median {ratio['median']:.3f}"
        tails = f"p10 {ratio['p10']:.3f}, p90 {ratio['p90']:.3f}"
        cells = f"{ratio['cells']:,} cells"
        print(f"  window over burst, small operands: {median}, {tails}, {cells}")
    if steps_ns:
        by_tile = [f"tile {tile} {ns:.0f}" for tile, ns in steps_ns.items()]
        print(f"  ns a step of the tiled kernel, one wave: {', '.join(by_tile)}")


def _show_device(name: str, device: OfDevice) -> None:
    print(f"all files, {name}")
    _show_boards("boards", device["boards"])
    _show_differences(device["noise_floor"])
    if device["holes"]:
        print(f"  {'kinds of cells':{TITLE_WIDTH}} {'layers':>7} {'boards':>7}  rows by dtype")
    for kind, hole in device["holes"].items():
        layers, boards = hole["layers"], hole["boards"]
        rows = _joined(hole["rows"])
        missing = ", ".join(hole["missing"])
        if missing:
            rows += f"; below {NEEDED}: {missing}"
        print(f"  {kind:{TITLE_WIDTH}} {layers:7} {boards:7}  {rows}")


def _show_boards(title: str, boards: BoardCounts) -> None:
    count = boards["boards"]
    effective = boards["effective_boards"]
    metered = boards["effective_boards_with_power"]
    on_two = boards["cells_on_two_boards"]
    metered_on_two = boards["cells_on_two_boards_with_power"]
    print(f"  {title:18} {count}")
    print(f"    effective number {effective:.1f} over cells, {metered:.1f} over cells with power")
    print(f"    on two or more   {on_two:,} cells, {metered_on_two:,} with power")


def _show_differences(differences: Mapping[str, Difference]) -> None:
    if differences:
        print("  readings of one cell on two boards differ by")
    for reading, spread in differences.items():
        median = f"median {spread['median']:.2f} %"
        tails = f"p90 {spread['p90']:.2f} %, p99 {spread['p99']:.2f} %"
        pairs = f"{spread['pairs']:,} pairs of {spread['shapes']:,} shapes"
        boards = f"{spread['board_pairs']} pairs of boards"
        print(f"    {reading:22} {median}, {tails}; {pairs} on {boards}")


def _joined(counted: Mapping[str, int]) -> str:
    return ", ".join(f"{word} {count:,}" for word, count in counted.items()) or "none"


if __name__ == "__main__":
    run_script(main)
