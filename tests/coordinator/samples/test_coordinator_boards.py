"""What a dataset says of its boards: how many count, which cells two have, how far they differ."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from coordinator.samples.columns import Columns
from coordinator.samples.dataset_counts import counts, rows_by_kind
from coordinator.samples.holes import NEEDED, holes
from coordinator.samples.second_boards import BoardCounts, board_counts, board_differences
from gemmcast.arrow import read_samples, to_table
from gemmcast.rows import Row

ROOT = Path(__file__).parents[3]
DATASET = ROOT / "datasets" / "h100_repeatability.parquet"
PROGRAM = ROOT / "benchmarks" / "datasets.py"


@pytest.fixture(scope="module")
def row() -> Row:
    """With power."""
    rows: list[Row] = read_samples(DATASET).to_pylist()
    return next(row for row in rows if row["power_w"])


def _columns(rows: list[Row]) -> Columns:
    return Columns(to_table(rows))


def _board_counts(*rows: Row) -> BoardCounts:
    return board_counts(_columns(list(rows)))


def _cells(row: Row, board: str, *sizes: int) -> list[Row]:
    """One cell for each m."""
    return [_on(row, board, 1, m=m) for m in sizes]


def _on(row: Row, board: str, day: int, **columns: object) -> Row:
    return {**row, "device_uuid": board, "measured_at": f"2030-01-0{day}", **columns}


def test_the_effective_number_counts_boards_by_their_share_of_the_cells(row: Row) -> None:
    three = _cells(row, "A", 1, 2, 3)
    other_three = _cells(row, "B", 4, 5, 6)
    equal = _board_counts(*three, *other_three)
    assert equal["boards"] == 2
    assert equal["effective_boards"] == pytest.approx(2)

    # three cells and one: 1 / (0.75^2 + 0.25^2)
    uneven = _board_counts(*three, *other_three[:1])
    assert uneven["effective_boards"] == pytest.approx(1.6)


def test_a_repeat_is_no_other_cell_and_a_failed_row_no_cell(row: Row) -> None:
    rows = [*_cells(row, "A", 1, 2, 3), *_cells(row, "B", 4)]
    counted = _board_counts(*rows)
    assert _board_counts(*rows, rows[0]) == counted
    failed = {**rows[0], "device_uuid": "C", "status": "timeout"}
    assert _board_counts(*rows, failed) == counted


def test_cells_with_power_have_their_own_effective_number(row: Row) -> None:
    metered = _cells(row, "A", 1, 2, 3)
    others = _cells({**row, "power_w": None}, "B", 4, 5, 6)
    counted = _board_counts(*metered, *others)
    assert counted["effective_boards_with_power"] == pytest.approx(1)
    assert _board_counts(*others)["effective_boards_with_power"] == 0


def test_a_cell_that_three_boards_have_counts_once(row: Row) -> None:
    on_a = _on(row, "A", 1)
    on_b = _on(row, "B", 2)
    on_c = _on(row, "C", 3, power_w=None)
    counted = _board_counts(on_a, on_b, on_c)
    assert counted["cells_on_two_boards"] == 1
    assert counted["cells_on_two_boards_with_power"] == 1
    assert _board_counts(on_a, on_c)["cells_on_two_boards_with_power"] == 0
    assert _board_counts(on_a, on_a)["cells_on_two_boards"] == 0


@pytest.mark.parametrize(
    "columns", [{"cache": "warm"}, {"stages": 9}, {"beta": 1.0}, {"device": "NVIDIA H200"}]
)
def test_a_cell_has_all_its_columns_and_its_type_of_device(row: Row, columns: Row) -> None:
    on_a = _on(row, "A", 1)
    on_b = _on(row, "B", 2, **columns)
    assert _board_counts(on_a, on_b)["cells_on_two_boards"] == 0


def test_the_later_board_is_compared_with_the_earlier_one(row: Row) -> None:
    on_a = _on(row, "A", 1, runtime_us=100.0, power_w=None)
    on_b = _on(row, "B", 2, runtime_us=110.0)
    differences = board_differences(_columns([on_b, on_a]))
    assert set(differences) == {"runtime_us", "sustained_runtime_us", "energy_mj"}
    ten_percent = dict.fromkeys(("median", "p90", "p99"), pytest.approx(10))
    one_pair = {"pairs": 1, "shapes": 1, "board_pairs": 1}
    assert differences["runtime_us"] == {**ten_percent, **one_pair}
    assert board_differences(_columns([on_a])) == {}


def test_every_two_boards_of_a_cell_are_a_pair_and_repeats_are_one_reading(row: Row) -> None:
    rows = [
        _on(row, "A", 1, runtime_us=90.0),
        _on(row, "A", 1, runtime_us=100.0),
        _on(row, "A", 1, runtime_us=500.0),
        _on(row, "B", 2, runtime_us=101.0),
        _on(row, "C", 3, runtime_us=102.0),
        _on(row, "B", 1, m=7, runtime_us=50.0),
        _on(row, "B", 2, m=7, runtime_us=60.0),
        _on(row, "C", 3, m=7, runtime_us=110.0),
    ]
    runtime = board_differences(_columns(rows))["runtime_us"]
    # 1, 2 and 0.99 % of the first shape, 100 % of the second
    assert runtime["median"] == pytest.approx(1.5)
    assert runtime["p99"] == pytest.approx(2 + 0.97 * 98)
    assert runtime["pairs"] == 4
    assert runtime["shapes"] == 2
    assert runtime["board_pairs"] == 3


def test_rows_are_counted_by_ranges(row: Row) -> None:
    rows = [
        {**row, "m": 1, "split_k": 1, "batch": 1, "beta": 0.0},
        {**row, "m": 8, "split_k": 2, "batch": 2, "beta": 1.0},
        {**row, "m": 9, "split_k": 16, "batch": 1024, "beta": 0.5},
        {**row, "m": 10, "split_k": 17, "batch": 1025, "beta": 0.0},
    ]
    failed = {**rows[0], "status": "timeout"}
    counted = rows_by_kind(_columns([*rows, failed]))
    assert counted["m"] == {"1": 1, "2-8": 1, "9 and more": 2}
    assert counted["split_k"] == {"1": 1, "2-16": 2, "17 and more": 1}
    assert counted["batch"] == {"1": 1, "2-1024": 2, "1025 and more": 1}
    assert counted["beta"] == {"0": 2, "1": 1, "other": 1}
    assert counted["layout"] == {row["layout"]: 4}


HOLES: list[tuple[str, Row]] = [
    ("cutlass, split_k 2 to 16", {"family": "cutlass", "kernel": "old", "split_k": 16}),
    ("cutlass, kernels between the sets", {"family": "cutlass", "kernel": "new", "split_k": 1}),
    ("cublaslt, fp32", {"family": "cublaslt", "dtype": "fp32"}),
    ("cublaslt, beyond the heuristic's list", {"family": "cublaslt", "kernel": "enumerated-0"}),
    ("warm cache", {"cache": "warm"}),
    ("m 1 to 8", {"m": 8}),
    ("beta 1", {"beta": 1.0}),
    ("batch 2 to 1024", {"batch": 1024}),
    ("n or k 73,729 to 262,144", {"k": 128256, "dtype": "bf16"}),
    ("half precision, tn", {"layout": "tn", "dtype": "bf16"}),
    ("power of launches of 5 to 50 us", {"runtime_us": 50.0, "power_w": 300.0}),
]
"""A kind, and what makes a plain row one of its rows."""


PLAIN: Row = {
    **{"family": "tiled", "kernel": "", "dtype": "tf32", "layout": "nt", "split_k": 1},
    **{"m": 9, "n": 64, "k": 64, "batch": 1, "beta": 0.0, "cache": "cold"},
    **{"runtime_us": 50.1, "power_w": 300.0},
}
"""A row of no kind."""


@pytest.mark.parametrize(("name", "columns"), HOLES)
def test_a_row_is_of_its_kind_alone(row: Row, name: str, columns: Row) -> None:
    plain = {**row, **PLAIN}
    of_kind = {**plain, **columns}
    filled = holes(_columns([plain, of_kind]), {"old"})
    kinds = [kind for kind, hole in filled.items() if hole["boards"]]
    assert kinds == [name]
    assert filled[name]["rows"][of_kind["dtype"]] == 1


def test_a_kind_is_filled_by_dtype(row: Row) -> None:
    rows = [_on(row, "A", 1, m=1, n=n + 1, dtype="bf16") for n in range(NEEDED)]
    rows += [_on(row, "B", 1, m=1, n=n + 1, dtype="fp16") for n in range(NEEDED - 1)]
    filled = holes(_columns(rows), ())["m 1 to 8"]
    assert filled["rows"]["bf16"] == NEEDED
    assert filled["missing"] == ["fp32", "tf32", "fp16", "fp8_e4m3"]
    assert (filled["layers"], filled["boards"]) == (NEEDED, 2)


def test_the_program_prints_a_file_with_its_second_measurement_and_all_files_of_a_type(
    row: Row, tmp_path: Path
) -> None:
    first = [_on(row, "A", 1, m=m) for m in (1, 2)]
    second = [_on(row, "B", 2, m=1, runtime_us=2 * row["runtime_us"])]
    for name, rows in (("x", first), ("x_again", second), ("y", [_on(row, "C", 3, m=2)])):
        pq.write_table(to_table(rows), tmp_path / f"{name}.parquet")
    files = sorted(map(str, tmp_path.iterdir()))
    command = [sys.executable, str(PROGRAM), *files]
    done = subprocess.run([*command, "--json"], capture_output=True, text=True, check=True)
    printed = json.loads(done.stdout.splitlines()[-1])
    of_x = printed["datasets"]["x"]
    assert (of_x["counts"]["cells"], of_x["boards"]["boards"]) == (2, 1)
    assert of_x["with_again"]["cells_on_two_boards"] == 1
    assert of_x["noise_floor"]["runtime_us"]["median"] == pytest.approx(100)
    assert printed["datasets"]["y"]["with_again"] is None
    (device,) = printed["devices"].values()
    assert (device["boards"]["boards"], device["boards"]["cells_on_two_boards"]) == (3, 2)
    assert device["noise_floor"]["runtime_us"]["board_pairs"] == 2
    assert device["holes"]["m 1 to 8"]["boards"] == 3


def test_a_dataset_without_a_good_row_is_counted(row: Row) -> None:
    failed = to_table([{**row, "status": "timeout"}])
    counted = counts(failed)
    assert (counted["rows"], counted["cells"], counted["groups_of_20"]) == (1, 0, 0)
    assert counted["not_ok"] == {"timeout": 1}
    nothing = Columns(failed)
    assert board_counts(nothing)["boards"] == board_counts(nothing)["cells_on_two_boards"] == 0
    assert board_differences(nothing) == {}
    assert not any(hole["boards"] for hole in holes(nothing, ()).values())
