"""What a dataset says of its boards: how many count, which cells two have, how far they differ."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from coordinator.samples.columns import Columns
from coordinator.samples.dataset_counts import rows_by_kind
from coordinator.samples.holes import NEEDED, holes
from coordinator.samples.second_boards import board_counts, board_differences
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


def _on(row: Row, board: str, day: int, **columns: object) -> Row:
    return {**row, "device_uuid": board, "measured_at": f"2030-01-0{day}", **columns}


def test_the_effective_number_counts_boards_by_their_share_of_the_cells(row: Row) -> None:
    three = [_on(row, "A", 1, m=m) for m in (1, 2, 3)]
    equal = [_on(row, "B", 1, m=m) for m in (4, 5, 6)]
    counted = board_counts(_columns([*three, *equal]))
    assert (counted["boards"], counted["effective_boards"]) == (2, pytest.approx(2))

    # three cells and one: 1 / (0.75^2 + 0.25^2)
    counted = board_counts(_columns([*three, equal[0]]))
    assert counted["effective_boards"] == pytest.approx(1.6)

    # a repeat is no other cell, and a failed row no cell
    more = [three[0], {**equal[1], "status": "timeout"}]
    assert board_counts(_columns([*three, equal[0], *more])) == counted

    without_power = [{**cell, "power_w": None} for cell in equal]
    counted = board_counts(_columns([*three, *without_power]))
    assert counted["effective_boards_with_power"] == pytest.approx(1)
    assert board_counts(_columns(without_power))["effective_boards_with_power"] == 0


def test_a_cell_on_two_boards_has_all_its_columns_and_its_type_of_device(row: Row) -> None:
    on_a = _on(row, "A", 1)
    same = board_counts(_columns([on_a, _on(row, "B", 2), _on(row, "C", 3, power_w=None)]))
    assert same["cells_on_two_boards"] == same["cells_on_two_boards_with_power"] == 1
    different = ({"cache": "warm"}, {"stages": 9}, {"beta": 1.0}, {"device": "NVIDIA H200"})
    for columns in different:
        counted = board_counts(_columns([on_a, _on(row, "B", 2, **columns)]))
        assert counted["cells_on_two_boards"] == 0
    assert board_counts(_columns([on_a, on_a]))["cells_on_two_boards"] == 0


def test_the_later_board_is_compared_with_the_earlier_one(row: Row) -> None:
    on_a = _on(row, "A", 1, runtime_us=100.0, power_w=None)
    on_b = _on(row, "B", 2, runtime_us=110.0)
    differences = board_differences(_columns([on_b, on_a]))
    assert set(differences) == {"runtime_us", "sustained_runtime_us", "energy_mj"}
    assert differences["runtime_us"] == {
        "median": pytest.approx(10),
        "p90": pytest.approx(10),
        "p99": pytest.approx(10),
        "pairs": 1,
        "shapes": 1,
        "board_pairs": 1,
    }
    assert board_differences(_columns([on_a])) == {}


def test_every_two_boards_of_a_cell_are_a_pair_and_repeats_are_one_reading(row: Row) -> None:
    repeats = [_on(row, "A", 1, runtime_us=us) for us in (90.0, 100.0, 500.0)]
    others = [_on(row, "B", 2, runtime_us=101.0), _on(row, "C", 3, runtime_us=102.0)]
    second_shape = [_on(row, "B", day, m=7, runtime_us=us) for day, us in ((1, 50.0), (2, 60.0))]
    second_shape.append(_on(row, "C", 3, m=7, runtime_us=110.0))
    runtime = board_differences(_columns([*repeats, *others, *second_shape]))["runtime_us"]
    # 1, 2 and 0.99 % of the first shape, 100 % of the second
    assert runtime["median"] == pytest.approx(1.5)
    assert runtime["p99"] == pytest.approx(2 + 0.97 * 98)
    assert (runtime["pairs"], runtime["shapes"], runtime["board_pairs"]) == (4, 2, 3)


def test_rows_are_counted_by_ranges(row: Row) -> None:
    ranges = [(1, 1, 1, 0.0), (8, 2, 2, 1.0), (9, 16, 1024, 0.5), (10, 17, 1025, 0.0)]
    rows = []
    for m, split_k, batch, beta in ranges:
        rows.append({**row, "m": m, "split_k": split_k, "batch": batch, "beta": beta})
    counted = rows_by_kind(_columns([*rows, {**rows[0], "status": "timeout"}]))
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


@pytest.mark.parametrize(("name", "columns"), HOLES)
def test_a_row_is_of_its_kind_alone(row: Row, name: str, columns: Row) -> None:
    plain = {
        **row,
        **{"family": "tiled", "kernel": "", "dtype": "tf32", "layout": "nt", "split_k": 1},
        **{"m": 9, "n": 64, "k": 64, "batch": 1, "beta": 0.0, "cache": "cold"},
        **{"runtime_us": 50.1, "power_w": 300.0},
    }
    assert not any(hole["boards"] for hole in holes(_columns([plain]), {"old"}).values())
    filled = holes(_columns([plain, {**plain, **columns}]), {"old"})
    dtype = columns.get("dtype", "tf32")
    assert {kind for kind, hole in filled.items() if hole["boards"]} == {name}
    assert filled[name]["rows"][dtype] == 1


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
