"""Tables of others: each format read as it is written, what can't be used counted, what is wrong refused with its place, nothing twice."""

from __future__ import annotations

import csv
import json
import os
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv as pc
import pyarrow.parquet as pq
import pytest

from coordinator.samples.datasheets import BOARDS, find_board
from coordinator.samples.formats.checked_rows import NEEDED
from coordinator.samples.formats.t4 import INVALIDITY, STATUSES, write_t4
from coordinator.samples.formats.table_file import FORMATS
from coordinator.samples.importer import Outside, append, read, read_device, read_outside
from coordinator.samples.store import SampleStore
from costmodel.dataset import dataset
from gemmcast.arrow import SCHEMA, to_table
from gemmcast.device import Device
from gemmcast.errors import InputError
from gemmcast.gemm import Gemm
from gemmcast.sample import STATUSES as ALL_STATUSES
from gemmcast.sample import device_of

DATASETS = Path(__file__).parents[2] / "datasets"
Row = dict[str, Any]
ANY_TIME_S = 1_760_000_000
PEAK_TFLOPS, DRAM_GBPS, LAUNCH_US = 800.0, 4300.0, 2.4
SHAPES = [(m, n, k) for m in (1, 16, 256, 4096) for n in (64, 1024, 16384) for k in (64, 4096, 16384)]


def _law_ms(m: int, n: int, k: int) -> float:
    """A roofline with a launch."""
    gemm = Gemm(m=m, n=n, k=k, dtype="bf16")
    return max(LAUNCH_US, gemm.flops / (PEAK_TFLOPS * 1e6), gemm.operand_bytes / (DRAM_GBPS * 1e3)) / 1e3


def _aic(m: int = 1024, n: int = 1024, k: int = 1024, **values: Any) -> Row:
    """A row of an AIConfigurator table."""
    return {
        "framework": "VLLM", "version": "0.1.2", "device": "NVIDIA H200", "op_name": "gemm", "kernel_source": "vllm_default",
        "gemm_dtype": "bfloat16", "m": m, "n": n, "k": k, "latency": _law_ms(m, n, k), "power": 350.5, "power_limit": 700.0, **values,
    }  # fmt: skip


def _flat(**values: Any) -> Row:
    """A row with our own columns, and no more of them than must be."""
    return {"m": 1024, "n": 512, "k": 256, "dtype": "fp16", "family": "cublas", "runtime_us": 7.25, "device": "NVIDIA H100 80GB HBM3", **values}


def _kernel_tuner(**values: Any) -> Row:
    """A result as Kernel Tuner writes it."""
    return {
        "timestamp": "2025-03-01 10:00:00.5+00:00", "configuration": {"block_size_x": 16, "tile_m": 64, "split_k": 2},
        "times": {"compilation": 600.0, "framework": 1.0, "runtimes": [1.0, 3.0, 1.25]}, "invalidity": "correct", "correctness": 1,
        "measurements": [{"name": "time", "value": 1.75, "unit": "ms"}, {"name": "nvml_power", "value": 300.0, "unit": ""},
                         {"name": "GFLOP/s", "value": 9.0, "unit": ""}],
        "objectives": ["time"], **values,
    }  # fmt: skip


SET = {"m": "1024", "n": "512", "k": "256", "dtype": "fp16", "family": "custom", "device": "NVIDIA A100-SXM4-80GB"}


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., Path]:
    """Rows as a file; the name says how."""

    def written(rows: Sequence[Row] | Row, name: str) -> Path:
        path = tmp_path / name
        if path.suffix == ".parquet":
            pq.write_table(pa.Table.from_pylist(list(rows)), path)
        elif path.suffix == ".json":
            path.write_text(json.dumps(rows if isinstance(rows, dict) else {"schema_version": "1.0.0", "results": rows}))
        else:
            with path.open("w", newline="") as file:
                table = csv.DictWriter(file, list(rows[0]))
                table.writeheader()
                table.writerows(rows)
        os.utime(path, (ANY_TIME_S, ANY_TIME_S))
        return path

    return written


Write = Callable[..., Path]
Run = Callable[..., tuple[int, str, str]]


def _rows(path: Path, *arguments: Any) -> list[Row]:
    rows: list[Row] = read_outside(path, *arguments).to_pylist()
    return rows


# AIConfigurator


def test_an_aiconfigurator_row_becomes_a_sample(write: Write) -> None:
    (row,) = _rows(write([_aic(latency=0.012)], "gemm.parquet"))
    assert (row["m"], row["n"], row["k"], row["batch"], row["dtype"], row["layout"]) == (1024, 1024, 1024, 1, "bf16", "nt")
    assert (row["family"], row["kernel"], row["status"], row["cache"]) == ("cublas", "default", "ok", "cold")
    assert (row["runtime_us"], row["power_w"], row["power_limit_w"]) == (12.0, 350.5, 700.0)
    assert row["sustained_runtime_us"] is row["energy_mj"] is row["idle_power_w"] is None
    assert (row["library"], row["agent"]) == ("VLLM 0.1.2 (vllm_default)", "import:aiconfigurator:gemm.parquet")
    assert (row["device_uuid"], row["device_kind"], row["measured_at"]) == ("imported-NVIDIA H200", "cuda", "2025-10-09T08:53:20.000+00:00")
    assert len(row["cell_id"]) == len(row["sample_id"]) == 16 and row["cell_id"] != row["sample_id"]


def test_csv_and_parquet_tell_the_same(write: Write) -> None:
    rows = [_aic(*shape) for shape in SHAPES]
    (first, second) = (read(write(rows, name)) for name in ("gemm.parquet", "gemm_perf.txt"))
    assert first.format == second.format == "aiconfigurator"
    assert first.table.drop_columns("agent").equals(second.table.drop_columns("agent"))
    assert first.table.schema == SCHEMA and len(dataset(first.table)) == len(SHAPES)


def test_a_table_without_power_has_none_and_a_power_of_zero_was_not_read(write: Write) -> None:
    row = {name: value for name, value in _aic().items() if not name.startswith("power")}
    (bare,) = _rows(write([row], "bare.csv"))
    (zero,) = _rows(write([_aic(power=0.0, power_limit=0.0)], "zero.parquet"))
    assert bare["power_w"] is bare["power_limit_w"] is zero["power_w"] is zero["power_limit_w"] is None


def test_what_has_no_equivalent_is_left_out_and_counted(write: Write) -> None:
    rows = [_aic(), _aic(gemm_dtype="fp8_block"), _aic(gemm_dtype="nvfp4"), _aic(gemm_dtype="posit16"), _aic(m=2, gemm_dtype="float16"),
            _aic(op_name="moe"), _aic(m=3, gemm_dtype="fp8_block")]  # fmt: skip
    outside = read(write(rows, "mixed.csv"))
    assert outside.table["dtype"].to_pylist() == ["bf16", "fp16"]
    assert outside.skipped == {
        "gemm_dtype fp8_block: its latency is not that of the product alone": 2,
        "gemm_dtype nvfp4: its latency is not that of the product alone": 1,
        "gemm_dtype posit16 has no equivalent": 1,
        "op_name moe is no GEMM": 1,
    }


def test_a_table_of_which_nothing_can_be_used_is_refused(write: Write) -> None:
    with pytest.raises(InputError, match="none of its 2 rows can be used: gemm_dtype int4_wo: .*name a table of bf16 or fp16"):
        read(write([_aic(gemm_dtype="int4_wo"), _aic(m=3, gemm_dtype="int4_wo")], "int4.csv"))


def test_equal_rows_are_one_and_other_readings_are_others(write: Write) -> None:
    outside = read(write([_aic(), _aic(), _aic(latency=0.5), _aic(version="0.2")], "twice.csv"))
    assert outside.skipped == {"stands earlier in the table": 1}
    assert (len(outside.table), len(set(outside.table["cell_id"].to_pylist()))) == (3, 3)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"latency": -0.1}, "^latency = -0.1: bad.parquet, row 2: must be above 0; correct the table"),
        ({"latency": float("nan")}, "^latency = nan: bad.parquet, row 2: must be finite"),
        ({"latency": float("inf")}, "^latency = inf: bad.parquet, row 2: must be finite"),
        ({"latency": None}, "^latency = None: bad.parquet, row 2: every sample needs it"),
        ({"latency": 0.0}, "^latency = 0.0: bad.parquet, row 2: must be above 0"),
        ({"m": 0}, "^m = 0: bad.parquet, row 2: must be a whole number from 1 to 16777216"),
        ({"n": -4}, "^n = -4: bad.parquet, row 2: "),
        ({"k": 2**25}, "^k = 33554432: bad.parquet, row 2: "),
        ({"power": -1.0}, "^power = -1.0: bad.parquet, row 2: must be above 0"),
        ({"device": "NVIDIA Paper 9000"}, "^device = 'NVIDIA Paper 9000': is no board .*give --device"),
        ({"device": "NVIDIA H100 80GB HBM3 MIG 1g.10gb"}, "^device = .*is no board"),
    ],
)
def test_a_bad_value_is_refused_with_its_row(write: Write, values: Row, message: str) -> None:
    with pytest.raises(InputError, match=message):
        read(write([_aic(), {**_aic(), **values}], "bad.parquet"))


def test_text_where_a_number_must_be_is_refused(write: Write) -> None:
    with pytest.raises(InputError, match="^latency = 'fast': bad.csv, row 1: must be a number"):
        read(write([_aic(latency="fast")], "bad.csv"))
    with pytest.raises(InputError, match="^m = '12.5': bad.csv, row 1: must be a whole number"):
        read(write([{**_aic(), "m": 12.5}], "bad.csv"))


# device descriptors


def test_descriptors_are_estimated_from_the_rows(write: Write) -> None:
    outside = read(write([_aic(*shape) for shape in [*SHAPES, *((8 + i, 16384, 16384) for i in range(12))]], "gemm.csv"))
    device = device_of(outside.table.to_pylist())
    assert device.peak_tflops["bf16"] == pytest.approx(PEAK_TFLOPS, rel=1e-6)
    assert device.dram_gbps == pytest.approx(DRAM_GBPS, rel=0.01)
    assert device.empty_launch_us == pytest.approx(LAUNCH_US)
    assert (device.compute_units, device.arch, device.power_limit_w, device.l2_bytes) == (132, "sm_90", 700.0, 60 * 2**20)
    (note,) = outside.notes
    assert "descriptors estimated from 48 rows: bf16 800 TFLOP/s (the best row)" in note and "132 SMs" in note


def test_where_no_row_is_bound_by_memory_the_datasheet_stands_in(write: Write) -> None:
    outside = read(write([_aic(4096, 4096, 4096 + 64 * i) for i in range(20)], "square.csv"))
    device = device_of(outside.table.to_pylist())
    assert device.dram_gbps == pytest.approx(0.9 * 4800)
    assert device.empty_launch_us == 3.0
    assert "90% of the datasheet's" in outside.notes[0] and "no tiny products" in outside.notes[0]


def test_a_given_device_describes_the_rows(write: Write, gpu: Device, tmp_path: Path) -> None:
    (tmp_path / "device.json").write_text(gpu.to_json())
    given = read_device(tmp_path / "device.json")
    outside = read(
        write([_aic(device="whatever it is called"), _aic(m=64, gemm_dtype="fp16", device="whatever it is called")], "gemm.csv"), None, given
    )
    assert outside.notes == ()
    first, second = outside.table.to_pylist()
    assert (first["device"], first["device_uuid"], first["dram_gbps"], first["idle_power_w"]) == (gpu.name, gpu.uuid, 2900.0, 70.0)
    assert (first["peak_tflops"], second["peak_tflops"], first["power_limit_w"]) == (660.0, 640.0, 700.0)


def test_a_peak_that_a_given_device_lacks_is_taken_from_the_rows(write: Write, cpu: Device) -> None:
    path = write([_flat(family="blas", dtype="fp16", runtime_us=1000.0, device=cpu.name)], "blas.csv")
    outside = read(path, device=cpu)
    assert outside.table["peak_tflops"].to_pylist() == [pytest.approx(2 * 1024 * 512 * 256 / 1e9)]
    assert "peak taken from the rows: fp16" in outside.notes[0]


def test_the_description_of_another_board_is_refused(write: Write, gpu: Device) -> None:
    other = Device.from_json(gpu.to_json().replace(gpu.name, "NVIDIA A100-SXM4-80GB"))
    with pytest.raises(InputError, match="^--device = 'NVIDIA A100-SXM4-80GB': the table was measured on NVIDIA H200"):
        read(write([_aic()], "gemm.csv"), None, other)
    with pytest.raises(InputError, match="^--device = .*the table has rows of NVIDIA H200, L40S; split it"):
        read(write([_aic(), _aic(device="L40S")], "two.csv"), None, gpu)


def test_two_devices_in_one_table_are_described_apart(write: Write) -> None:
    rows = _rows(write([_aic(), _aic(device="l40s", latency=0.1), _aic(m=2)], "two.csv"))
    assert [(row["device"], row["compute_units"]) for row in rows] == [("NVIDIA H200", 132), ("l40s", 142), ("NVIDIA H200", 132)]


@pytest.mark.parametrize(
    ("name", "compute_units", "memory_gib"),
    [("h100_sxm", 132, 80), ("NVIDIA H100 80GB HBM3", 132, 80), ("NVIDIA H100 PCIe", 114, 80), ("h200_sxm", 132, 140), ("a100_sxm", 108, 80),
     ("NVIDIA A100-SXM4-40GB", 108, 40), ("b200_sxm", 148, 178), ("GB200", 152, 184), ("NVIDIA L40S", 142, 48), ("Tesla T4", 40, 16)],
)  # fmt: skip
def test_boards_go_by_the_drivers_name_and_by_short_ones(name: str, compute_units: int, memory_gib: int) -> None:
    board = find_board(name)
    assert board is not None and (board.compute_units, board.memory_gib) == (compute_units, memory_gib)


def test_every_board_is_found_under_its_own_name() -> None:
    assert [find_board(board.key) for board in BOARDS] == list(BOARDS)


# our own columns


def test_a_few_columns_are_enough(write: Write) -> None:
    (row,) = _rows(write([_flat()], "mine.csv"))
    assert (row["layout"], row["batch"], row["alpha"], row["beta"], row["tile_m"], row["cache"], row["status"]) == (
        "nn",
        1,
        1.0,
        0.0,
        0,
        "cold",
        "ok",
    )
    assert (row["runtime_us"], row["runtime_rse"], row["power_w"], row["compute_units"]) == (7.25, None, None, 132)
    assert (row["agent"], row["measured_at"]) == ("import:csv:mine.csv", "2025-10-09T08:53:20.000+00:00")


@pytest.mark.parametrize("name", ["h100_demo", "h100_repeatability"])
def test_an_export_of_ours_comes_back_as_it_was(name: str, tmp_path: Path) -> None:
    samples = pq.read_table(DATASETS / f"{name}.parquet")
    whole = to_table([{column: row.get(column) for column in SCHEMA.names} for row in samples.to_pylist()])
    assert read(DATASETS / f"{name}.parquet").table.equals(whole)
    pc.write_csv(samples, tmp_path / "samples.csv")
    assert read(tmp_path / "samples.csv").table.equals(whole)


def test_failed_rows_need_no_runtime(write: Write) -> None:
    rows = _rows(write([_flat(status="ok"), _flat(m=8, status="timeout", runtime_us=None)], "mine.csv"))
    assert [(row["status"], row["runtime_us"]) for row in rows] == [("ok", 7.25), ("timeout", None)]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"runtime": 7.0}, "^column = 'runtime': bad.csv has a column that the schema does not know; did you mean 'runtime_"),
        ({"tile_mm": 7}, "^column = 'tile_mm': .*did you mean 'tile_m'"),
        ({"zzzzzz": 7}, "^column = 'zzzzzz': .*; drop or rename it"),
        ({"dtype": "posit16"}, "^dtype = 'posit16': bad.csv, row 2: unknown dtype; use one of fp64"),
        ({"family": "magma"}, "^family = 'magma': bad.csv, row 2: unknown kernel family"),
        ({"layout": "tx"}, "^layout = 'tx': bad.csv, row 2: unknown layout"),
        ({"m": 0}, "^m = 0: bad.csv, row 2: "),
        ({"tile_m": -8}, "^tile_m = '-8': bad.csv, row 2: must not be negative"),
        ({"runtime_us": "nan"}, "^runtime_us = 'nan': bad.csv, row 2: must be finite"),
        ({"runtime_us": ""}, "^runtime_us = None: bad.csv, row 2: every sample needs it"),
        ({"power_w": 0}, "^power_w = '0': bad.csv, row 2: must be above 0"),
        ({"cache": "lukewarm"}, "^cache = 'lukewarm': bad.csv, row 2: .*use one of cold, warm"),
        ({"status": "fine"}, "^status = 'fine': bad.csv, row 2: .*use one of ok"),
        ({"device_kind": "tpu"}, "^device_kind = 'tpu': bad.csv, row 2: .*use one of cuda, cpu"),
        ({"mig": "perhaps"}, "^mig = 'perhaps': bad.csv, row 2: must be true or false"),
        ({"measured_at": "yesterday"}, "^measured_at = 'yesterday': bad.csv, row 2: must be a time of ISO 8601"),
        ({"device": ""}, "^device = None: the table does not say what it was measured on"),
        ({"device": "abacus"}, "^device = 'abacus': is no board"),
    ],
)
def test_a_bad_cell_is_refused_with_column_value_and_row(write: Write, values: Row, message: str) -> None:
    first = {**_flat(), **{name: "" for name in values if name not in _flat()}}
    with pytest.raises(InputError, match=message):
        read(write([first, {**first, **values}], "bad.csv"))


@pytest.mark.parametrize("name", ["m", "n", "k", "dtype", "family", "runtime_us"])
def test_a_missing_column_is_refused_by_name(write: Write, name: str) -> None:
    with pytest.raises(InputError, match=f"^column = '{name}': short.csv has no such column"):
        read(write([{column: value for column, value in _flat().items() if column != name}], "short.csv"))


# files that are none


@pytest.mark.parametrize("format", [None, "aiconfigurator", "kernel-tuner-t4", "csv", "parquet"])
def test_an_empty_file_and_none_at_all_are_refused(tmp_path: Path, format: str | None) -> None:
    (tmp_path / "empty").write_text(" \n")
    with pytest.raises(InputError, match="^FILE = .*is empty"):
        read(tmp_path / "empty", format)
    with pytest.raises(InputError, match="^FILE = .*can't be read"):
        read(tmp_path / "nowhere", format)
    with pytest.raises(InputError, match="^FILE = .*can't be read"):
        read(tmp_path, format)


@pytest.mark.parametrize(
    ("content", "format", "message"),
    [
        (b"PAR1 and then nothing", None, "not a Parquet file"),
        (b"m,n,k\n1,2,3\n", "parquet", "not a Parquet file"),
        (b"m,n\xff,k\n1,2,3\n", None, "not a CSV file"),
        (b'm,n,k\n1,"2,3\n', None, "not a CSV file"),
        (b"m,n,k\n", "csv", "has no rows"),
        (b"m,n,k\n1,2,3\n1,2\n", None, "^cells = 2: file, row 2: the header has 3 columns"),
        (b"m,n,m\n1,2,3\n", None, "^column = 'm': file has it twice"),
        (b"m,n,k\n1,2,3\n", "aiconfigurator", "^column = 'device': file has no such column"),
        (b"{", None, "not JSON"),
        (b"{}", None, "^results = None: file has no T4 results"),
        (b'{"results": []}', None, "has no T4 results"),
        (b"[1]", "kernel-tuner-t4", "has no T4 results"),
        (b"m,n,k\n1,2,3\n", "xml", "^--format = 'xml': unknown format; use one of aiconfigurator"),
    ],
)
def test_a_damaged_file_is_refused(tmp_path: Path, content: bytes, format: str | None, message: str) -> None:
    (tmp_path / "file").write_bytes(content)
    with pytest.raises(InputError, match=message):
        read(tmp_path / "file", format)


def test_folders_named_like_columns_add_none(tmp_path: Path, write: Write) -> None:
    (tmp_path / "m=7").mkdir()
    assert _rows(write([_flat()], "m=7/mine.parquet"))[0]["m"] == 1024


def test_half_a_parquet_file_is_refused(write: Write) -> None:
    path = write([_aic(*shape) for shape in SHAPES], "half.parquet")
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(InputError, match="not a Parquet file"):
        read(path, "aiconfigurator")


def test_a_parquet_file_that_is_said_to_be_csv_is_refused(write: Write) -> None:
    with pytest.raises(InputError, match="is a Parquet file; use --format parquet"):
        read(write([_flat()], "mine.parquet"), "csv")


# T4


@pytest.mark.parametrize("name", ["h100_demo", "h100_repeatability"])
def test_what_goes_out_as_t4_comes_back_as_it_was(name: str, tmp_path: Path) -> None:
    samples = read(DATASETS / f"{name}.parquet").table
    write_t4(samples, tmp_path / "samples.t4.json")
    outside = read(tmp_path / "samples.t4.json")
    assert (outside.format, outside.skipped, outside.notes) == ("kernel-tuner-t4", {}, ())
    assert outside.table.sort_by("cell_id").equals(samples.sort_by("cell_id"))


def test_failed_rows_go_out_with_the_invalidity_of_t4_and_come_back(power_samples: pa.Table, tmp_path: Path) -> None:
    rows = power_samples.slice(0, len(ALL_STATUSES)).to_pylist()
    nothing = dict.fromkeys(("runtime_us", "sustained_runtime_us", "power_w", "energy_mj"))
    rows = [row if status == "ok" else {**row, **nothing, "status": status, "reason": "so"} for row, status in zip(rows, ALL_STATUSES, strict=True)]
    write_t4(to_table(rows), tmp_path / "failed.json")
    results = json.loads((tmp_path / "failed.json").read_text())["results"]
    status_of = {row["sample_id"]: row["status"] for row in rows}
    for result in results:
        said = {entry["name"]: entry["value"] for entry in result["measurements"]}
        assert result["invalidity"] == INVALIDITY.get(status_of[said["sample_id"]], "runtime") and result["invalidity"] in STATUSES
        assert result["correctness"] == (said["status"] != "incorrect")
    assert read_outside(tmp_path / "failed.json").sort_by("cell_id").equals(to_table(rows).sort_by("cell_id"))


def test_a_t4_file_is_of_the_form_that_other_tuners_read(power_samples: pa.Table, tmp_path: Path) -> None:
    write_t4(power_samples.slice(0, 5), tmp_path / "new" / "five.json")
    file = json.loads((tmp_path / "new" / "five.json").read_text())
    assert file["schema_version"] == "1.0.0" and len(file["results"]) == 5
    assert file["metadata"]["constants"]["compute_units"] == 132
    for result in file["results"]:
        assert set(result) == {"timestamp", "configuration", "times", "invalidity", "correctness", "measurements", "objectives"}
        named = {entry["name"]: entry for entry in result["measurements"]}
        assert named["time"]["value"] == result["times"]["runtimes"][0] and named["time"]["unit"] == "ms"
        assert named["runtime_us"]["unit"] == "us" and named["energy_mj"]["unit"] == "mJ"
        assert all(set(entry) == {"name", "value", "unit"} and type(entry["value"]) in (int, float, str) for entry in result["measurements"])


@pytest.mark.parametrize(("count", "name", "message"), [(0, "none.json", "samples = 0"), (3, "three.txt", "name it SOMETHING.json")])
def test_no_t4_file_of_nothing_or_of_another_name(power_samples: pa.Table, tmp_path: Path, count: int, name: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        write_t4(power_samples.slice(0, count), tmp_path / name)
    assert not list(tmp_path.iterdir())


def test_a_kernel_tuner_file_needs_its_problem_from_the_user(write: Write) -> None:
    outside = read(write([_kernel_tuner()], "results.json"), None, None, SET)
    (row,) = outside.table.to_pylist()
    assert (row["m"], row["n"], row["k"], row["dtype"], row["family"]) == (1024, 512, 256, "fp16", "custom")
    assert (row["tile_m"], row["split_k"], row["kernel"]) == (64, 2, "block_size_x=16")
    assert (row["runtime_us"], row["launches_timed"], row["power_w"], row["energy_mj"]) == (1250.0, 3, 300.0, None)
    assert row["runtime_rse"] == pytest.approx(1.2533 * np.std([1.0, 3.0, 1.25], ddof=1) / np.sqrt(3) / 1.75)
    assert (row["compute_units"], row["arch"], row["measured_at"]) == (108, "sm_80", "2025-03-01T10:00:00.500+00:00")
    assert outside.notes[1] == "measurements that were not read: GFLOP/s"


@pytest.mark.parametrize(("unit", "runtime_us"), [("", 1500.0), ("ms", 1500.0), ("us", 1.5), ("ns", 0.0015), ("s", 1.5e6)])
def test_without_single_runtimes_the_measured_time_counts(write: Write, unit: str, runtime_us: float) -> None:
    result = _kernel_tuner(times={}, measurements=[{"name": "time", "value": 1.5, "unit": unit}])
    (row,) = read(write([result], "results.json"), None, None, SET).table.to_pylist()
    assert row["runtime_us"] == pytest.approx(runtime_us) and row["launches_timed"] is None


@pytest.mark.parametrize(
    ("invalidity", "status"), [("compile", "unsupported"), ("runtime", "cuda_error"), ("correctness", "incorrect"), ("timeout", "timeout")]
)
def test_an_invalid_result_is_a_failed_row(write: Write, invalidity: str, status: str) -> None:
    failed = _kernel_tuner(invalidity=invalidity, times={"runtimes": []}, measurements=[{"name": "time", "value": "FailedConfig", "unit": "ms"}])
    rows = read(write([_kernel_tuner(), failed], "results.json"), None, None, SET).table.to_pylist()
    assert [(row["status"], row["reason"]) for row in rows] == [("ok", None), (status, f"T4 invalidity {invalidity}")]
    assert rows[1]["runtime_us"] is None


@pytest.mark.parametrize(
    ("result", "constants", "message"),
    [
        ({}, {**SET, "tile": "64"}, "^--set = 'tile': is no column of a sample"),
        ({}, {name: value for name, value in SET.items() if name != "k"}, "^k = None: results.json, result 1: .*--set k=..."),
        ({}, {name: value for name, value in SET.items() if name != "device"}, "^device = None: "),
        ({}, {**SET, "m": "many"}, "^m = 'many': results.json, result 1: must be a number"),
        ({"configuration": {"tile_m": True}}, SET, "^tile_m = True: results.json, result 1: must be a number"),
        ({"configuration": {"tile_m": 10**400}}, SET, "^tile_m = 10000.*: results.json, result 1: must be finite"),
        ({"configuration": {"layout": ["nn"]}}, SET, "^layout = .*: results.json, result 1: must be a text"),
        ({"invalidity": "bored"}, SET, "^invalidity = 'bored': results.json, result 1: "),
        ({"configuration": None}, SET, "^configuration = None: results.json, result 1: must be a JSON object"),
        ({"measurements": 7}, SET, "^measurements = 7: results.json, result 1: must be a list"),
        ({"measurements": [7]}, SET, "^measurements = 7: "),
        ({"times": {"runtimes": ["a"]}}, SET, "^runtimes = .*must be numbers"),
        ({"times": {"runtimes": [-1.0]}}, SET, "^runtime_us = -1000.0: results.json, result 1: must be above 0"),
        ({"times": {}, "measurements": [{"name": "time", "value": 1, "unit": "fortnights"}]}, SET, "^unit = 'fortnights'"),
        ({"times": {}, "measurements": []}, SET, "^runtime_us = None: results.json, result 1: every sample needs it"),
        ({"timestamp": "noon"}, SET, "^measured_at = 'noon': results.json, result 1"),
    ],
)
def test_a_bad_result_is_refused_with_its_number(write: Write, result: Row, constants: dict[str, str], message: str) -> None:
    with pytest.raises(InputError, match=message):
        read(write([_kernel_tuner(**result)], "results.json"), None, None, constants)


def test_results_that_are_no_objects_are_refused(write: Write) -> None:
    with pytest.raises(InputError, match="^result = 7: results.json, result 1: must be a JSON object"):
        read(write({"results": [7]}, "results.json"))


# the store and the command line


def _store(path: Path) -> SampleStore:
    return SampleStore.open(path / "samples", create=True)


def test_the_same_rows_are_added_once_whatever_the_file_is_called(write: Write, tmp_path: Path) -> None:
    first: Outside = read(write([_aic(*shape) for shape in SHAPES], "one.csv"))
    assert (append(first, _store(tmp_path)), append(first, _store(tmp_path))) == (len(SHAPES), 0)
    assert append(read(write([_aic(*shape) for shape in SHAPES], "two.parquet")), _store(tmp_path)) == 0
    assert len(_store(tmp_path).read()) == len(SHAPES)


def test_a_table_that_has_grown_adds_what_is_new(write: Write, tmp_path: Path) -> None:
    rows = [_aic(*shape) for shape in SHAPES]
    append(read(write(rows[:10], "grows.csv")), _store(tmp_path))
    assert append(read(write(rows, "grows.csv")), _store(tmp_path)) == len(SHAPES) - 10
    assert append(read(write(rows[::-1], "grows.csv")), _store(tmp_path)) == 0


@pytest.fixture
def run(coordinator: Callable[..., subprocess.CompletedProcess[str]]) -> Run:
    """(exit code, standard output, standard error) of the program."""

    def ended(*arguments: str | Path) -> tuple[int, str, str]:
        done = coordinator(*arguments)
        return done.returncode, done.stdout, done.stderr

    return ended


def test_import_and_export_at_the_terminal(run: Run, write: Write, tmp_path: Path) -> None:
    table, workspace = write([_aic(*shape) for shape in SHAPES] + [_aic(gemm_dtype="sq")], "gemm.parquet"), tmp_path / "workspace"
    code, out, _ = run("import", "--format", "aiconfigurator", table, "--workspace", workspace)
    assert code == 0 and "descriptors estimated from 36 rows" in out and "skipped: gemm_dtype sq" in out
    code, out, _ = run("import", table, "--workspace", workspace, "--json")
    found = json.loads(out.splitlines()[-1])
    assert (code, found["rows"], found["added"], found["already_there"]) == (0, 36, 0, 36)
    assert found["skipped"] == {"gemm_dtype sq: its latency is not that of the product alone": 1}
    t4 = tmp_path / "out.t4.json"
    assert json.loads(run("export", t4, "--workspace", workspace, "--json")[1])["rows"] == 36
    assert json.loads(run("import", t4, "--workspace", tmp_path / "other", "--json")[1])["added"] == 36
    assert _store(tmp_path / "other").read().equals(_store(workspace).read())


def test_a_tuners_file_at_the_terminal(run: Run, write: Write, tmp_path: Path, gpu: Device) -> None:
    (tmp_path / "device.json").write_text(gpu.to_json())
    constants = [part for name, value in SET.items() if name != "device" for part in ("--set", f"{name}={value}")]
    path = write([_kernel_tuner()], "results.json")
    code, out, err = run("import", path, "--workspace", tmp_path / "w", "--device", tmp_path / "device.json", *constants, "--json")
    assert code == 0, err
    assert json.loads(out)["added"] == 1
    (row,) = _store(tmp_path / "w").read().to_pylist()
    assert (row["device"], row["m"], row["kernel"]) == (gpu.name, 1024, "block_size_x=16")


def test_bad_input_ends_with_one_line_and_changes_nothing(run: Run, write: Write, tmp_path: Path) -> None:
    good, workspace = write([_aic()], "good.csv"), tmp_path / "workspace"
    bad = write([_aic(), {**_aic(), "m": 0}], "bad.csv")
    (tmp_path / "device.json").write_text("{}")
    for arguments, message in (
        ([bad], "m = '0': bad.csv, row 2"),
        ([good, "--format", "xml"], "--format = 'xml'"),
        ([good, "--set", "m=3"], "--set = 'm': is for T4 results; this is aiconfigurator"),
        ([good, "--set", "m"], "--set = 'm': must be COLUMN=VALUE"),
        ([good, "--device", tmp_path / "device.json"], "not a device description"),
        ([good, "--device", tmp_path / "none.json"], "--device = "),
        ([tmp_path / "none.csv"], "FILE = "),
    ):
        code, out, err = run("import", *arguments, "--workspace", workspace)
        assert (code, out) == (2, "") and err.startswith("error: ") and message in err and err.count("\n") == 1, err
    assert not workspace.exists()
    run("import", good, "--workspace", workspace)
    for name, options, message in (
        ("x.json", ["--format", "xml"], "--format = 'xml'"),
        ("x.parquet", ["--format", "t4"], "FILE = "),
        ("x", [], "FILE = "),
    ):
        code, _, err = run("export", tmp_path / name, *options, "--workspace", workspace)
        assert code == 2 and message in err and not (tmp_path / name).exists()


def test_what_is_known_of_a_device_is_for_its_own_rows_alone(write: Write) -> None:
    """A second table: of the same device it is asked with the first one's descriptors, of another with its own."""
    path = write([_aic(*shape) for shape in SHAPES], "gemm.csv")
    alone = read_outside(path)
    first = replace(device_of(alone.to_pylist()), dram_gbps=1234.0)
    assert set(read_outside(path, known=first)["dram_gbps"].to_pylist()) == {1234.0}
    other = replace(first, name="NVIDIA L40S")
    assert read_outside(path, known=other).drop_columns(["sample_id"]).equals(alone.drop_columns(["sample_id"]))
    with pytest.raises(InputError, match="the table was measured on"):
        read_outside(path, device=other)


# the page


def test_the_page_names_every_format_and_every_state() -> None:
    page = (DATASETS.parent / "docs" / "importing.md").read_text()
    for name in (*FORMATS, *INVALIDITY, *INVALIDITY.values(), *STATUSES, *STATUSES.values(), *NEEDED):
        assert f"`{name}`" in page, name
