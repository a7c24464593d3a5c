"""T4 results: ours come back as they went, other tuners' files need their problem as constants."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from coordinator.samples.formats.t4 import INVALIDITY, STATUSES, write_t4
from coordinator.samples.importer import read_table
from gemmcast.arrow import read_samples, to_table
from gemmcast.config import KernelConfig
from gemmcast.errors import InputError
from gemmcast.exports.export import ExportOptions
from gemmcast.exports.formats import export_table
from gemmcast.gemm import Gemm
from gemmcast.rows import Row, config_of, gemm_of
from gemmcast.sample import STATUSES as ALL_STATUSES
from gemmcast.tuned_entry import Cost
from gemmcast.tuned_table import TableKey, TunedEntry, TunedTable

DATASETS = Path(__file__).parents[3] / "datasets"
READINGS = ("runtime_us", "sustained_runtime_us", "power_w", "energy_mj")
Write = Callable[..., Path]
MakeRow = Callable[..., Row]
Constants = dict[str, str]


@pytest.mark.parametrize("name", ["h100_demo", "h100_repeatability"])
def test_what_goes_out_as_t4_comes_back_as_it_was(name: str, tmp_path: Path) -> None:
    samples = read_samples(DATASETS / f"{name}.parquet")
    write_t4(samples, tmp_path / "samples.t4.json")
    imported = read_table(tmp_path / "samples.t4.json")
    assert (imported.format, imported.skipped, imported.notes) == ("t4", {}, ())
    assert imported.table.sort_by("cell_id").equals(samples.sort_by("cell_id"))


def test_failed_rows_go_out_with_the_invalidity_of_t4_and_come_back(
    power_samples: pa.Table, tmp_path: Path
) -> None:
    rows = power_samples.slice(0, len(ALL_STATUSES)).to_pylist()
    for row, status in zip(rows, ALL_STATUSES, strict=True):
        if status != "ok":
            row |= {**dict.fromkeys(READINGS), "status": status, "reason": "so"}
    path = tmp_path / "failed.json"
    write_t4(to_table(rows), path)
    status_of = {row["sample_id"]: row["status"] for row in rows}
    for result in json.loads(path.read_text())["results"]:
        measured = {entry["name"]: entry["value"] for entry in result["measurements"]}
        invalidity = INVALIDITY.get(status_of[measured["sample_id"]], "runtime")
        assert result["invalidity"] == invalidity
        assert invalidity in STATUSES
        assert result["correctness"] == (measured["status"] != "incorrect")
    imported = read_table(path).table
    assert imported.sort_by("cell_id").equals(to_table(rows).sort_by("cell_id"))


def test_a_t4_file_has_the_form_that_other_tuners_read(
    power_samples: pa.Table, tmp_path: Path
) -> None:
    path = tmp_path / "new" / "five.json"
    write_t4(power_samples.slice(0, 5), path)
    file = json.loads(path.read_text())
    assert (file["schema_version"], len(file["results"])) == ("1.0.0", 5)
    assert file["metadata"]["constants"]["compute_units"] == 132
    for result in file["results"]:
        assert set(result) == {
            "timestamp",
            "configuration",
            "times",
            "invalidity",
            "correctness",
            "measurements",
            "objectives",
        }
        by_name = {}
        for entry in result["measurements"]:
            assert set(entry) == {"name", "value", "unit"}
            assert type(entry["value"]) in (int, float, str)
            by_name[entry["name"]] = entry
        assert by_name["time"]["value"] == result["times"]["runtimes"][0]
        assert by_name["time"]["unit"] == "ms"
        assert by_name["runtime_us"]["unit"] == "us"
        assert by_name["energy_mj"]["unit"] == "mJ"


@pytest.mark.parametrize(
    ("count", "name", "message"),
    [(0, "none.json", "samples = 0"), (3, "three.txt", "name it SOMETHING.json")],
)
def test_no_t4_file_without_samples_or_with_another_name(
    power_samples: pa.Table, tmp_path: Path, count: int, name: str, message: str
) -> None:
    with pytest.raises(InputError, match=message):
        write_t4(power_samples.slice(0, count), tmp_path / name)
    assert not list(tmp_path.iterdir())


def test_a_kernel_tuner_file_needs_its_problem_from_the_user(
    write: Write, kernel_tuner: MakeRow, problem: Constants
) -> None:
    imported = read_table(write([kernel_tuner()], "results.json"), constants=problem)
    (row,) = imported.table.to_pylist()
    expected = {
        "m": 1024,
        "n": 512,
        "k": 256,
        "dtype": "fp16",
        "family": "custom",
        "tile_m": 64,
        "split_k": 2,
        "kernel": "block_size_x=16",
        "runtime_us": 1250.0,
        "launches_timed": 3,
        "power_w": 300.0,
        "energy_mj": None,
        "compute_units": 108,
        "arch": "sm_80",
        "measured_at": "2025-03-01T10:00:00.500+00:00",
    }
    assert {name: row[name] for name in expected} == expected
    deviation = np.std([1.0, 3.0, 1.25], ddof=1)
    error = 1.2533 * deviation / np.sqrt(3) / 1.75
    assert row["runtime_uncertainty"] == pytest.approx(np.hypot(error, np.hypot(0.006, 0.01)))
    assert imported.notes[1] == "measurements that were not read: GFLOP/s"


@pytest.mark.parametrize(
    ("unit", "runtime_us"),
    [("", 1500.0), ("ms", 1500.0), ("us", 1.5), ("ns", 1.5), ("s", 1.5e6)],
)
def test_without_single_runtimes_the_measured_time_counts(
    write: Write, kernel_tuner: MakeRow, problem: Constants, unit: str, runtime_us: float
) -> None:
    value = 1500.0 if unit == "ns" else 1.5
    time = {"name": "time", "value": value, "unit": unit}
    path = write([kernel_tuner(times={}, measurements=[time])], "results.json")
    (row,) = read_table(path, constants=problem).table.to_pylist()
    assert row["runtime_us"] == pytest.approx(runtime_us)
    assert row["launches_timed"] is None


@pytest.mark.parametrize(
    ("invalidity", "status"),
    [
        ("compile", "unsupported"),
        ("runtime", "cuda_error"),
        ("correctness", "incorrect"),
        ("timeout", "timeout"),
    ],
)
def test_an_invalid_result_is_a_failed_row(
    write: Write, kernel_tuner: MakeRow, problem: Constants, invalidity: str, status: str
) -> None:
    time = {"name": "time", "value": "FailedConfig", "unit": "ms"}
    failed = kernel_tuner(invalidity=invalidity, times={"runtimes": []}, measurements=[time])
    path = write([kernel_tuner(), failed], "results.json")
    table = read_table(path, constants=problem).table
    assert table["status"].to_pylist() == ["ok", status]
    assert table["reason"].to_pylist() == [None, f"T4 invalidity {invalidity}"]
    assert table["runtime_us"].to_pylist()[1] is None


@pytest.mark.parametrize(
    ("result", "constants", "message"),
    [
        ({}, {"tile": "64"}, "^--set = 'tile': is no column of a sample"),
        ({}, {"k": None}, "^k = None: results.json, result 1: .*--set k=..."),
        ({}, {"device": None}, "^device = None: results.json, result 1: the table does not say"),
        ({}, {"m": "many"}, "^m = 'many': results.json, result 1: must be a number"),
        ({"configuration": {"tile_m": True}}, {}, "^tile_m = True: .*1: must be a number"),
        ({"configuration": {"tile_m": 10**400}}, {}, "^tile_m = 10000.*1: must be finite"),
        ({"configuration": {"layout": ["nn"]}}, {}, "^layout = .*1: must be a text"),
        ({"invalidity": "bored"}, {}, "^invalidity = 'bored': results.json, result 1: "),
        ({"configuration": None}, {}, "^configuration = None: .*1: must be a JSON object"),
        ({"measurements": 7}, {}, "^measurements = 7: results.json, result 1: must be a list"),
        ({"measurements": [7]}, {}, "^measurements = 7: "),
        ({"times": {"runtimes": [1.0, "a"]}}, {}, "^runtimes = 'a': .*1: must be times"),
        ({"times": {"runtimes": [2.0, -1.0, 2.0]}}, {}, "^runtimes = -1.0: .*1: must be times"),
        ({"times": {"runtimes": [1.0, float("nan")]}}, {}, "^runtimes = nan: .*1: must be times"),
        ({"times": {"runtimes": [10**400, 1.0]}}, {}, "^runtimes = 10000.*1: must be times"),
        ({"times": {"runtimes": [True, 1.0]}}, {}, "^runtimes = True: .*1: must be times"),
        (
            {"times": {}, "measurements": [{"name": "time", "value": 1, "unit": "fortnights"}]},
            {},
            "^unit = 'fortnights'",
        ),
        (
            {"times": {}, "measurements": []},
            {},
            "^runtime_us = None: results.json, result 1: every sample needs it",
        ),
        ({"timestamp": "noon"}, {}, "^measured_at = 'noon': results.json, result 1"),
    ],
)
def test_a_bad_result_is_refused_with_its_number(
    write: Write,
    kernel_tuner: MakeRow,
    problem: Constants,
    result: Row,
    constants: dict[str, str | None],
    message: str,
) -> None:
    """A constant that is None is left out."""
    changed = {**problem, **constants}
    given = {name: value for name, value in changed.items() if value is not None}
    with pytest.raises(InputError, match=message):
        read_table(write([kernel_tuner(**result)], "results.json"), constants=given)


def test_a_constant_that_is_no_column_is_named(write: Write, kernel_tuner: MakeRow) -> None:
    constants = {"m": 8, "n": 8, "k": 8, "dtype": "fp32", "family": "custom", "device": "a100"}
    metadata = {"program": "gemmcast", "constants": {**constants, "clock_mhzz": 1980.0}}
    file = {"metadata": metadata, "results": [kernel_tuner()]}
    notes = read_table(write(file, "results.json")).notes
    assert "constants that were not read: clock_mhzz" in notes


def test_a_bad_result_costs_itself(write: Write, kernel_tuner: MakeRow, problem: Constants) -> None:
    results = [kernel_tuner(), kernel_tuner(times={"runtimes": [-1.0]}), 7]
    imported = read_table(write(results, "results.json"), constants=problem)
    assert len(imported.table) == 1
    expected = {
        "runtimes must be times: finite numbers above 0": 1,
        "result must be a JSON object": 1,
    }
    assert imported.skipped == expected


def test_a_file_of_a_newer_schema_is_refused(write: Write, kernel_tuner: MakeRow) -> None:
    metadata = {"program": "gemmcast", "constants": {"schema_version": 5}}
    file = {"metadata": metadata, "results": [kernel_tuner()]}
    with pytest.raises(InputError, match="^schema_version = 5: results.json is of a newer schema"):
        read_table(write(file, "results.json"))


def test_results_that_are_no_objects_are_refused(write: Write) -> None:
    with pytest.raises(InputError, match="^result = 7: results.json, result 1: must be a JSON obj"):
        read_table(write({"results": [7]}, "results.json"))


def test_an_exported_tuned_table_is_read(tmp_path: Path) -> None:
    gemm = Gemm(m=64, n=4096, k=7168, dtype="fp8_e4m3", layout="nt")
    knobs = {"tile_n": 128, "tile_k": 128, "swizzle": 32, "block_threads": 128, "stages": 2}
    default = KernelConfig(family="triton", kernel="scaled_block", tile_m=64, **knobs)
    winner = replace(default, tile_m=16)
    entry = TunedEntry(
        gemm=gemm,
        default=default,
        winner=winner,
        default_measured=Cost(runtime_us=60.0),
        winner_measured=Cost(runtime_us=40.0, power_w=500.0),
        verified=True,
    )
    table = TunedTable(TableKey(device="NVIDIA H200", library="cublas 13.1.0"), [entry])
    options = ExportOptions(timestamp="2026-11-29T00:00:00+00:00")
    ((name, text),) = export_table(table, "t4", options).files.items()
    (tmp_path / name).write_text(text)
    first, second = read_table(tmp_path / name).table.to_pylist()
    assert [config_of(first), config_of(second)] == [default, winner]
    assert gemm_of(first) == gemm_of(second) == gemm
    assert (first["runtime_us"], second["runtime_us"], second["power_w"]) == (60.0, 40.0, 500.0)
    assert (first["device"], first["library"]) == ("NVIDIA H200", "cublas 13.1.0")
    assert first["measured_at"] == "2026-11-29T00:00:00.000+00:00"
