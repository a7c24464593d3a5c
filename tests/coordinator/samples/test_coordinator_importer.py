"""Import: descriptors of devices, rows that are taken once, the command line and the page."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pytest

from coordinator.samples.datasheets import DATASHEETS, find_datasheet
from coordinator.samples.formats.checked_rows import NEEDED
from coordinator.samples.formats.t4 import INVALIDITY, STATUSES
from coordinator.samples.formats.table_file import FORMATS
from coordinator.samples.importer import read_device, read_table
from coordinator.samples.store import SampleStore
from gemmcast.descriptions import device_of
from gemmcast.device import Device
from gemmcast.errors import InputError
from gemmcast.rows import Row

DOCS = Path(__file__).parents[3] / "docs"
Write = Callable[..., Path]
MakeRow = Callable[..., Row]
Run = Callable[..., subprocess.CompletedProcess[str]]


# Descriptors of devices


def test_descriptors_are_estimated_from_the_rows(
    write: Write, aic_rows: list[Row], aic_row: MakeRow
) -> None:
    bound_by_memory = [aic_row(8 + i, 16384, 16384) for i in range(12)]
    imported = read_table(write([*aic_rows, *bound_by_memory], "gemm.csv"))
    device = device_of(imported.table.to_pylist())
    assert device.peak_tflops["bf16"] == pytest.approx(800.0, rel=1e-6)
    assert device.dram_gbps == pytest.approx(0.9 * 4800)
    assert (device.empty_kernel_us, device.empty_launch_us) == (None, None)
    assert (device.compute_units, device.arch) == (132, "sm_90")
    assert (device.power_limit_w, device.l2_bytes) == (700.0, 60 * 2**20)
    (note,) = imported.notes
    assert "estimated from its datasheet and rows (48): bf16 800 TFLOP/s; 4320 GB/s" in note
    assert "132 SMs" in note


@pytest.mark.parametrize(("latency", "peak"), [(1.0, 0.8 * 989.4), (0.13, 989.4)])
def test_a_peak_is_within_reach_of_the_datasheets(
    write: Write, aic_row: MakeRow, latency: float, peak: float
) -> None:
    """Rows of 137 and of 1057 TFLOP/s: the one is no large GEMM's best, the other no GPU's."""
    rows = [aic_row(4096, 4096, 4096, latency=latency)]
    device = device_of(read_table(write(rows, "square.csv")).table.to_pylist())
    assert device.peak_tflops == {"bf16": pytest.approx(peak)}


def test_a_table_that_describes_its_device_but_names_no_board_is_none_of_ours(
    write: Write, own_row: MakeRow
) -> None:
    said = {"device_kind": "cuda", "compute_units": 132, "peak_tflops": 700.0, "dram_gbps": 2900.0}
    (row,) = read_table(write([own_row(**said)], "said.csv")).table.to_pylist()
    assert {name: row[name] for name in said} == said
    assert row["device_uuid"] == "imported-NVIDIA H100 80GB HBM3"
    board = read_table(write([own_row(**said, device_uuid="GPU-1")], "board.csv")).table
    assert board["device_uuid"].to_pylist() == ["GPU-1"]


def test_rows_that_all_failed_are_described_too(write: Write, own_row: MakeRow) -> None:
    row = own_row(status="timeout", runtime_us="")
    device = device_of(read_table(write([row], "failed.csv")).table.to_pylist())
    assert device.peak_tflops == {"fp16": pytest.approx(0.8 * 989.4)}


def test_a_given_device_describes_the_rows(
    write: Write, aic_row: MakeRow, gpu: Device, tmp_path: Path
) -> None:
    (tmp_path / "device.json").write_text(gpu.to_json())
    given = read_device(tmp_path / "device.json")
    name = "whatever it is called"
    rows = [aic_row(device=name), aic_row(m=64, gemm_dtype="fp16", device=name)]
    imported = read_table(write(rows, "gemm.csv"), device=given)
    assert imported.notes == ()
    first, second = imported.table.to_pylist()
    assert (first["device"], first["device_uuid"]) == (gpu.name, gpu.uuid)
    assert (first["dram_gbps"], first["idle_power_w"]) == (2900.0, 70.0)
    assert (first["peak_tflops"], second["peak_tflops"]) == (660.0, 640.0)
    assert first["power_limit_w"] == 700.0


def test_a_peak_that_a_given_device_lacks_is_taken_from_the_rows(
    write: Write, own_row: MakeRow, cpu: Device
) -> None:
    row = own_row(family="blas", dtype="fp16", runtime_us=1000.0, device=cpu.name)
    imported = read_table(write([row], "blas.csv"), device=cpu)
    assert imported.table["peak_tflops"].to_pylist() == [pytest.approx(2 * 1024 * 512 * 256 / 1e9)]
    assert "peak taken from the rows: fp16" in imported.notes[0]


def test_the_description_of_another_gpu_is_refused(
    write: Write, aic_row: MakeRow, gpu: Device
) -> None:
    other = replace(gpu, name="NVIDIA A100-SXM4-80GB")
    message = "^--device = 'NVIDIA A100-SXM4-80GB': the table was measured on NVIDIA H200"
    with pytest.raises(InputError, match=message):
        read_table(write([aic_row()], "gemm.csv"), device=other)
    message = "^--device = .*the table has rows of NVIDIA H200, L40S; split it"
    with pytest.raises(InputError, match=message):
        read_table(write([aic_row(), aic_row(device="L40S")], "two.csv"), device=gpu)


def test_two_devices_in_one_table_are_described_separately(write: Write, aic_row: MakeRow) -> None:
    rows = [aic_row(), aic_row(device="l40s", latency=0.1, power=0, power_limit=0), aic_row(m=2)]
    table = read_table(write(rows, "two.csv")).table
    assert table["device"].to_pylist() == ["NVIDIA H200", "l40s", "NVIDIA H200"]
    assert table["compute_units"].to_pylist() == [132, 142, 132]


def test_a_known_device_describes_only_its_own_rows(write: Write, aic_rows: list[Row]) -> None:
    path = write(aic_rows, "gemm.csv")
    alone = read_table(path).table
    same = replace(device_of(alone.to_pylist()), dram_gbps=1234.0)
    assert set(read_table(path, known=[same]).table["dram_gbps"].to_pylist()) == {1234.0}
    other = replace(same, name="NVIDIA L40S")
    beside_other = read_table(path, known=[other]).table
    assert beside_other.drop_columns(["sample_id"]).equals(alone.drop_columns(["sample_id"]))
    with pytest.raises(InputError, match="the table was measured on"):
        read_table(path, device=other)


@pytest.mark.parametrize(
    ("known", "is_described"),
    [
        ("NVIDIA H200", True),
        ("NVIDIA H200 (500 W)", True),
        ("NVIDIA H200 NVL", False),
        ("NVIDIA H200 MIG 1g.18gb", False),
        ("NVIDIA GH200 480GB", False),
    ],
)
@pytest.mark.parametrize("name", ["h200", "H200_SXM"])
def test_a_known_device_describes_rows_with_a_short_name_of_it(
    write: Write, aic_rows: list[Row], known: str, name: str, is_described: bool
) -> None:
    rows: list[Row] = [row | {"device": name} for row in aic_rows]
    path = write(rows, "gemm.csv")
    alone = read_table(path).table
    described = device_of(alone.to_pylist())
    board = replace(described, name=known, uuid="GPU-1", compute_units=77)
    table = read_table(path, known=[board]).table
    assert set(table["compute_units"].to_pylist()) == {77 if is_described else 132}
    assert set(table["device"].to_pylist()) == {name}
    assert table["cell_id"].equals(alone["cell_id"])


@pytest.mark.parametrize(
    ("name", "compute_units", "memory_gib"),
    [
        ("h100_sxm", 132, 80),
        ("NVIDIA H100 80GB HBM3", 132, 80),
        ("NVIDIA H100 PCIe", 114, 80),
        ("h200_sxm", 132, 140),
        ("a100_sxm", 108, 80),
        ("NVIDIA A100-SXM4-40GB", 108, 40),
        ("b200_sxm", 148, 178),
        ("GB200", 152, 184),
        ("NVIDIA L40S", 142, 48),
        ("Tesla T4", 40, 16),
    ],
)
def test_datasheets_go_by_the_drivers_name_and_by_short_ones(
    name: str, compute_units: int, memory_gib: int
) -> None:
    datasheet = find_datasheet(name)
    assert datasheet is not None
    assert (datasheet.compute_units, datasheet.memory_gib) == (compute_units, memory_gib)


def test_every_datasheet_matches_its_own_words_first() -> None:
    for datasheet in DATASHEETS:
        assert find_datasheet(datasheet.words) == datasheet


# The store and the command line


@pytest.fixture
def store(tmp_path: Path) -> SampleStore:
    return SampleStore.open(tmp_path / "samples", create=True)


def test_the_same_rows_are_added_once_whatever_the_file_is_called(
    write: Write, aic_rows: list[Row], store: SampleStore
) -> None:
    first = read_table(write(aic_rows, "one.csv")).table
    second = read_table(write(aic_rows, "two.parquet")).table
    added = [len(store.append([table])) for table in (first, first, second)]
    assert added == [len(aic_rows), 0, 0]
    assert len(store.read()) == len(aic_rows)


def test_a_table_that_has_grown_adds_what_is_new(
    write: Write, aic_rows: list[Row], store: SampleStore
) -> None:
    added = []
    for rows in (aic_rows[:10], aic_rows, aic_rows[::-1]):
        table = read_table(write(rows, "grows.csv")).table
        added.append(len(store.append([table])))
    assert added == [10, len(aic_rows) - 10, 0]


def test_import_and_export_at_the_terminal(
    coordinator: Run, write: Write, aic_rows: list[Row], aic_row: MakeRow, tmp_path: Path
) -> None:
    table = write([*aic_rows, aic_row(gemm_dtype="sq")], "gemm.parquet")
    workspace, other = tmp_path / "workspace", tmp_path / "other"
    done = coordinator("import", "--format", "aiconfigurator", table, "--workspace", workspace)
    assert done.returncode == 0
    assert "descriptors estimated from its datasheet and rows (36)" in done.stdout
    assert "skipped: gemm_dtype sq" in done.stdout

    again = _values(coordinator("import", table, "--workspace", workspace, "--json"))
    assert (again["rows"], again["added"], again["already_there"]) == (36, 0, 36)
    reason = "gemm_dtype sq: its latency is not that of the product alone"
    assert again["skipped"] == {reason: 1}

    t4 = tmp_path / "out.t4.json"
    exported = _values(coordinator("export", t4, "--workspace", workspace, "--json"))
    assert exported["rows"] == 36
    imported = _values(coordinator("import", "--format", "t4", t4, "--workspace", other, "--json"))
    assert imported["added"] == 36
    stores = [SampleStore.open(path / "samples", create=False) for path in (workspace, other)]
    assert stores[0].read().equals(stores[1].read())


def test_the_file_of_a_tuner_at_the_terminal(
    coordinator: Run,
    write: Write,
    kernel_tuner: MakeRow,
    problem: dict[str, str],
    tmp_path: Path,
    gpu: Device,
) -> None:
    description, workspace = tmp_path / "device.json", tmp_path / "w"
    description.write_text(gpu.to_json())
    path = write([kernel_tuner()], "results.json")
    options = ["--workspace", workspace, "--device", description, "--json"]
    for name, value in problem.items():
        if name != "device":
            options += ["--set", f"{name}={value}"]
    assert _values(coordinator("import", path, *options))["added"] == 1
    (row,) = SampleStore.open(workspace / "samples", create=False).read().to_pylist()
    assert (row["device"], row["m"], row["kernel"]) == (gpu.name, 1024, "block_size_x=16")


def test_bad_input_ends_with_one_line_and_changes_nothing(
    coordinator: Run, write: Write, aic_row: MakeRow, tmp_path: Path, gpu: Device
) -> None:
    workspace = tmp_path / "workspace"
    good = write([aic_row()], "good.csv")
    bad = write([{**aic_row(), "m": 0}, {**aic_row(), "m": 0}], "bad.csv")
    empty = tmp_path / "device.json"
    empty.write_text("{}")
    misspelt = tmp_path / "misspelt.json"
    misspelt.write_text(gpu.to_json().replace("peak_tflops", "peak_tflop"))
    for arguments, message in (
        ([bad], "m = '0': bad.csv, row 1"),
        ([good, "--format", "xml"], "--format = 'xml'"),
        ([good, "--format", "kernel-tuner-t4"], "use one of aiconfigurator, t4, csv, parquet, "),
        (
            [good, "--set", "m=3"],
            "--set = 'm': is for t4, tunableop, cutlass-profiler; this is aiconfigurator",
        ),
        ([good, "--set", "m"], "--set = 'm': must be COLUMN=VALUE"),
        ([good, "--device", empty], "not a device description"),
        ([good, "--device", misspelt], "no device has a key 'peak_tflop'"),
        ([good, "--device", tmp_path / "none.json"], "--device = "),
        ([tmp_path / "none.csv"], "FILE = "),
    ):
        done = coordinator("import", *arguments, "--workspace", workspace)
        assert (done.returncode, done.stdout) == (2, "")
        assert done.stderr.startswith("error: ")
        assert message in done.stderr
        assert done.stderr.count("\n") == 1
    assert not workspace.exists()


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("x.json", ["--format", "xml"], "--format = 'xml'"),
        ("x.parquet", ["--format", "t4"], "FILE = "),
        ("x", [], "FILE = "),
        (".", [], "FILE = "),
    ],
)
def test_an_export_that_is_refused_writes_nothing(
    coordinator: Run,
    write: Write,
    aic_row: MakeRow,
    tmp_path: Path,
    name: str,
    options: list[str],
    message: str,
) -> None:
    workspace = tmp_path / "workspace"
    coordinator("import", write([aic_row()], "good.csv"), "--workspace", workspace)
    done = coordinator("export", tmp_path / name, *options, "--workspace", workspace)
    assert done.returncode == 2
    assert message in done.stderr
    assert {path.name for path in tmp_path.iterdir()} == {"good.csv", "workspace"}


def _values(done: subprocess.CompletedProcess[str]) -> Row:
    """The JSON of a command that ended well."""
    assert done.returncode == 0, done.stderr
    values: Row = json.loads(done.stdout.splitlines()[-1])
    return values


def test_a_board_that_was_measured_here_needs_no_description(
    coordinator: Run,
    write: Write,
    own_row: MakeRow,
    power_samples: pa.Table,
    tmp_path: Path,
    gpu: Device,
) -> None:
    """It has no datasheet; its samples say what it is."""
    workspace = tmp_path / "workspace"
    table = write([own_row(device=gpu.name, dtype="fp16")], "paper.csv")
    alone = coordinator("import", table, "--workspace", workspace)
    assert (alone.returncode, workspace.exists()) == (2, False)
    SampleStore.open(workspace / "samples", create=True).append([power_samples])
    imported = _values(coordinator("import", table, "--workspace", workspace, "--json"))
    assert imported["notes"] == [f"{gpu.name}: described as by the samples that are there"]
    samples = SampleStore.open(workspace / "samples", create=False)
    (device,) = samples.measured_devices()
    assert (device.name, device.uuid, device.power_limit_w) == (gpu.name, gpu.uuid, 700.0)
    (row,) = [row for row in samples.read().to_pylist() if row["runtime_us"] == 7.25]
    assert (row["dram_gbps"], row["peak_tflops"]) == (2900.0, 640.0)
    assert row["device_uuid"] == f"imported-{gpu.name}"


# The page


def test_the_page_names_every_format_and_every_state() -> None:
    page = (DOCS / "importing.md").read_text()
    for words in (FORMATS, INVALIDITY, INVALIDITY.values(), STATUSES, STATUSES.values(), NEEDED):
        for word in words:
            assert f"`{word}`" in page, word
