"""The device that answers from a file, row for row; a missing cell is `not_recorded`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from agent.devices.replay import ReplayInstrument
from gemmcast.arrow import read_samples, to_table
from gemmcast.cell import Cell
from gemmcast.device import Device
from gemmcast.errors import InputError
from gemmcast.rows import config_of, gemm_of

ROOT = Path(__file__).parents[2]
MakeCell = Callable[..., Cell]
MakeRow = Callable[..., dict[str, Any]]
OURS = ("cell_id", "agent", "sample_id")


def _write(path: Path, rows: list[dict[str, Any]]) -> Path:
    pq.write_table(to_table(rows), path)
    return path


@pytest.fixture
def recorded(tmp_path: Path, make_cell: MakeCell, make_row: MakeRow) -> Path:
    """Two shapes on one and two threads, one of them measured twice; one metered; one failed."""
    rows = [
        make_row(make_cell(m=m, cpu_threads=threads), runtime_us=m / threads, cpu_threads=threads)
        for m in (32, 64)
        for threads in (1, 2)
    ]
    rows.append(
        make_row(
            make_cell(m=32),
            runtime_us=33.0,
            power_w=80.0,
            sustained_runtime_us=34.0,
            energy_mj=2.72,
        )
    )
    rows.append(
        {
            **make_row(make_cell(m=128), status="incorrect", reason="largest relative error 0.4"),
            "runtime_us": None,
        }
    )
    return _write(tmp_path / "recorded.parquet", rows)


def test_a_recorded_row_comes_back_as_it_was(recorded: Path, make_cell: MakeCell) -> None:
    instrument = ReplayInstrument(recorded, "replayer")
    by_cell = {
        (row["m"], row["cpu_threads"], row["power_w"]): row
        for row in pq.read_table(recorded).to_pylist()
    }
    for m in (32, 64):
        for threads in (1, 2):
            cell = make_cell(m=m, cpu_threads=threads, device_key="whatever")
            outcome = instrument.measure(cell)
            want = by_cell[m, threads, None]
            assert not outcome.fatal
            assert {name: value for name, value in outcome.row.items() if name not in OURS} == {
                n: v for n, v in want.items() if n not in OURS
            }
            assert outcome.row["cell_id"] == cell.cell_id
            assert outcome.row["agent"] == "replayer"
            assert outcome.row["sample_id"] != want["sample_id"]


def test_the_device_is_the_recorded_one(recorded: Path, device: Device) -> None:
    replayed = ReplayInstrument(recorded, "replayer").device
    assert replayed == replace(device, peak_tflops={"fp32": 0.2})


def test_a_recorded_failure_is_replayed_too(recorded: Path, make_cell: MakeCell) -> None:
    row = ReplayInstrument(recorded, "replayer").measure(make_cell(m=128)).row
    assert row["status"] == "incorrect"
    assert row["reason"] == "largest relative error 0.4"
    assert row["runtime_us"] is None


def test_a_row_with_power_answers_a_cell_with_power(recorded: Path, make_cell: MakeCell) -> None:
    instrument = ReplayInstrument(recorded, "replayer")
    assert instrument.measure(make_cell(m=32, power=True)).row["power_w"] == 80.0
    assert instrument.measure(make_cell(m=64, power=True)).row["power_w"] is None
    assert instrument.measure(make_cell(m=32, power=False)).row["power_w"] is None


def test_repeats_are_different_rows_while_there_are_some(
    recorded: Path, make_cell: MakeCell
) -> None:
    instrument = ReplayInstrument(recorded, "replayer")
    rows = [instrument.measure(make_cell(m=32, repeat=repeat)).row for repeat in range(3)]
    assert [row["status"] for row in rows] == ["ok", "ok", "not_recorded"]
    assert {row["runtime_us"] for row in rows[:2]} == {32.0, 33.0}


def test_cells_that_leave_threads_and_kernel_open_get_what_there_is(
    recorded: Path, make_cell: MakeCell
) -> None:
    row = (
        ReplayInstrument(recorded, "replayer")
        .measure(make_cell(m=64, cpu_threads=0, kernel=""))
        .row
    )
    assert row["status"] == "ok"
    assert row["kernel"] == "numpy"


@pytest.mark.parametrize(
    "options",
    [
        {"m": 33},
        {"m": 64, "k": 65},
        {"m": 64, "dtype": "fp64"},
        {"m": 64, "layout": "nt"},
        {"m": 64, "cache": "cold"},
        {"m": 64, "batch": 2},
        {"m": 64, "beta": 1.0},
        {"m": 64, "tile_m": 16},
        {"m": 64, "repeat": 1},
        {"m": 64, "cpu_threads": 4},
        {"m": 64, "kernel": "blocked"},
    ],
    ids=str,
)
def test_what_was_not_recorded_is_a_row_not_recorded(
    recorded: Path, make_cell: MakeCell, options: dict[str, Any]
) -> None:
    cell = make_cell(**options)
    row = ReplayInstrument(recorded, "replayer").measure(cell).row
    assert row["status"] == "not_recorded"
    assert row["reason"] == "recorded.parquet has no such cell"
    assert row["runtime_us"] is None
    assert row["cell_id"] == cell.cell_id
    assert row["m"] == cell.gemm.m
    assert row["agent"] == "replayer"


def test_one_of_several_devices_must_be_named(
    tmp_path: Path, make_cell: MakeCell, make_row: MakeRow, device: Device
) -> None:
    other = replace(device, name="Another CPU", uuid="CPU-other")
    path = _write(
        tmp_path / "two.parquet",
        [make_row(make_cell(), 10.0), make_row(make_cell(), 20.0, device=other)],
    )
    with pytest.raises(InputError, match="holds several devices: Another CPU, Paper CPU"):
        ReplayInstrument(path, "replayer")
    with pytest.raises(
        InputError,
        match=r"device_name = 'A third': is no known device; name one of: Another CPU, Paper CPU",
    ):
        ReplayInstrument(path, "replayer", "A third")
    with pytest.raises(InputError, match="device_name = 'cpu': fits several devices"):
        ReplayInstrument(path, "replayer", "cpu")
    instrument = ReplayInstrument(path, "replayer", "another")
    assert instrument.device == replace(other, peak_tflops={"fp32": 0.2})
    assert [instrument.measure(make_cell(repeat=i)).row["status"] for i in range(2)] == [
        "ok",
        "not_recorded",
    ]
    assert instrument.measure(make_cell()).row["runtime_us"] == 20.0


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such file"):
        ReplayInstrument(tmp_path / "nowhere.parquet", "replayer")


def test_a_file_of_something_else_is_refused(tmp_path: Path) -> None:
    text = tmp_path / "text.parquet"
    text.write_text("m,n,k\n1,2,3\n")
    with pytest.raises(InputError, match=r"text.parquet.*not a Parquet file"):
        ReplayInstrument(text, "replayer")
    foreign = tmp_path / "foreign.parquet"
    pq.write_table(pa.table({"passenger": [1], "fare": [2.5]}), foreign)
    with pytest.raises(InputError, match="column = 'fare'.*the schema does not have"):
        ReplayInstrument(foreign, "replayer")


def test_a_file_without_samples_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="holds no samples"):
        ReplayInstrument(_write(tmp_path / "empty.parquet", []), "replayer")


# questions that leave something open


@pytest.fixture
def resolved(tmp_path: Path, make_cell: MakeCell, make_row: MakeRow) -> ReplayInstrument:
    """Rows with more knobs than the cells: two configurations of a library, and a custom kernel."""
    one, two, own = (
        make_cell(m=32, family=family, kernel="", cpu_threads=0)
        for family in ("cublaslt", "cublaslt", "custom")
    )
    first = {"kernel": "default", "algo_id": 66, "tile_m": 128, "tile_n": 64, "split_k": 1}
    second = {"kernel": "heuristic-1", "algo_id": 21, "tile_m": 64, "tile_n": 64, "split_k": 4}
    rows = [
        make_row(one, 10.0, **first),
        make_row(two, 20.0, **second),
        make_row(one, 11.0, **first),
    ]
    rows.append(make_row(own, 30.0, kernel="kernels/mine.toml@1a2b3c4d", tile_m=64))
    return ReplayInstrument(_write(tmp_path / "resolved.parquet", rows), "replayer")


@pytest.mark.parametrize(
    ("knobs", "runtime_us"),
    [
        ({"kernel": "default"}, 10.0),
        ({"kernel": "heuristic-1"}, 20.0),
        ({"tile_m": 64}, 20.0),
        ({"algo_id": 66, "split_k": 1}, 10.0),
        ({"kernel": "default", "repeat": 1}, 11.0),
        ({"kernel": "heuristic-1", "repeat": 1}, None),
        # A repeat is of the same configuration.
        ({"repeat": 1}, 11.0),
        ({"tile_n": 64, "split_k": 4}, 20.0),
        ({"tile_m": 32}, None),
        ({"kernel": "default", "algo_id": 21}, None),
    ],
)
def test_an_open_knob_fits_any_and_a_given_one_must_fit(
    resolved: ReplayInstrument, make_cell: MakeCell, knobs: dict[str, Any], runtime_us: float | None
) -> None:
    row = resolved.measure(
        make_cell(**{"m": 32, "family": "cublaslt", "kernel": "", "cpu_threads": 0, **knobs})
    ).row
    assert row["runtime_us"] == runtime_us
    assert row["status"] == ("ok" if runtime_us else "not_recorded")


@pytest.mark.parametrize(
    ("kernel", "is_recorded"),
    [
        ("kernels/mine.toml", True),
        ("kernels/mine.toml@1a2b3c4d", True),
        ("kernels/mine.toml@ffffffff", False),
    ],
)
def test_a_custom_kernel_is_matched_by_its_path_or_by_its_content(
    resolved: ReplayInstrument, make_cell: MakeCell, kernel: str, is_recorded: bool
) -> None:
    row = resolved.measure(make_cell(m=32, family="custom", kernel=kernel, cpu_threads=0)).row
    assert (row["status"] == "ok") == is_recorded


@pytest.mark.parametrize(
    "name", ["h100_sxm", "h200_sxm", "h100_tiles", "h100_sxm_again", "h200_sxm_again"]
)
def test_every_recorded_sweep_answers(name: str) -> None:
    path = ROOT / "datasets" / f"{name}.parquet"
    instrument, table = ReplayInstrument(path, "replayer"), read_samples(path)
    for row in table.take(list(range(0, len(table), max(1, len(table) // 60)))).to_pylist():
        metered = row["power_w"] is not None
        cell = Cell(
            gemm=gemm_of(row),
            config=config_of(row),
            cache=row["cache"],
            power=metered,
            device_key=instrument.device.name,
        )
        replayed = instrument.measure(cell).row
        assert (
            replayed["status"],
            replayed["runtime_us"],
            replayed["power_w"],
            replayed["reason"],
        ) == tuple(row[column] for column in ("status", "runtime_us", "power_w", "reason"))
