"""A store and tables of schema 3 (tests/before) are read, extended, imported and replayed."""

from __future__ import annotations

import tarfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from agent.devices.replay import ReplayInstrument
from coordinator.samples.formats.t4 import write_t4
from coordinator.samples.importer import read_table
from coordinator.samples.store import SampleStore
from gemmcast.arrow import SCHEMA, read_samples

ARCHIVE = Path(__file__).parents[1] / "before" / "contract3.tar.xz"
GPU = "NVIDIA H100 80GB HBM3"


@pytest.fixture
def before(tmp_path: Path) -> Path:
    with tarfile.open(ARCHIVE) as archive:
        archive.extractall(tmp_path, filter="data")
    return tmp_path


@pytest.fixture
def rows(before: Path) -> pa.Table:
    return read_samples(before / "rows.parquet").sort_by("cell_id")


def test_a_store_gives_its_rows_in_the_present_schema(before: Path, rows: pa.Table) -> None:
    store = SampleStore.open(before / "samples", create=False)
    assert store.read().equals(rows)
    assert (
        "empty_kernel_us" not in pq.read_schema(next((before / "samples").glob("*.parquet"))).names
    )


def test_its_first_writer_brings_it_to_the_present_schema(before: Path, rows: pa.Table) -> None:
    written = SampleStore.open(before / "samples", create=True)
    assert len(written.append([rows])) == 0
    again = SampleStore.open(before / "samples", create=False)
    assert again.read().equals(rows)
    assert again.version == written.version
    assert again.read(version=written.version - 1).equals(rows)


@pytest.mark.parametrize("name", ["rows.parquet", "rows.t4.json"])
def test_an_import_keeps_ids_and_gives_the_same_rows(
    before: Path, rows: pa.Table, name: str
) -> None:
    assert read_table(before / name).table.sort_by("cell_id").equals(rows)


def test_a_cpu_of_a_csv_has_its_smallest_gemm_as_empty_kernel(tmp_path: Path) -> None:
    path = tmp_path / "cpu.csv"
    columns = "m,n,k,dtype,family,runtime_us,device,device_kind,compute_units,dram_gbps"
    values = "64,64,64,fp32,blas,10,Some CPU,cpu,4,20"
    path.write_text(f"{columns},peak_tflops,empty_launch_us\n{values},0.2,0.9\n")
    (row,) = read_table(path).table.to_pylist()
    assert (row["empty_kernel_us"], row["empty_launch_us"]) == (0.9, 0.9)


def test_an_export_has_the_empty_kernels(tmp_path: Path, rows: pa.Table) -> None:
    measured = rows.set_column(
        SCHEMA.get_field_index("empty_kernel_us"),
        SCHEMA.field("empty_kernel_us"),
        pa.array([1.17] * len(rows)),
    )
    write_t4(measured, tmp_path / "rows.json")
    assert read_table(tmp_path / "rows.json").table.sort_by("cell_id").equals(measured)


def test_a_replay_has_the_device_without_its_host(before: Path) -> None:
    device = ReplayInstrument(before / "rows.parquet", "replayer", GPU).device
    assert device.empty_kernel_us is None
    assert device.empty_launch_us == pytest.approx(11.25, rel=1e-3)
