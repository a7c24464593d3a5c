"""A workspace and tables of the program before schema 3 are read, extended and served."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from deltalake import DeltaTable, write_deltalake

from agent.devices.replay import ReplayInstrument
from coordinator.plan.cells import plan_cells
from coordinator.plan.schema import read_plan
from coordinator.samples.importer import read_table
from coordinator.samples.store import SampleStore
from gemmcast import Predictor, modeldir
from gemmcast.arrow import SCHEMA, read_samples
from gemmcast.cell import Cell
from gemmcast.descriptions import device_of
from gemmcast.rows import Row, config_of, gemm_of
from registry.cli import main as registry_command
from registry.registry import Registry

ROOT = Path(__file__).parents[2]
BEFORE = ROOT / "tests" / "before"
OLD_CELLS, ALL_CELLS = 48, 72
OLD_VERSION = 7
MORE_CELLS = """
[[sweep]]
family = "blas"
kernel = "blocked"
shapes = { sample = 24, min = 8, max = 96 }
knobs = { cpu_threads = [1], tile = [32] }
"""
TUNER_CONSTANTS = {
    "m": "1024",
    "n": "512",
    "k": "256",
    "dtype": "fp16",
    "device": "NVIDIA A100-SXM4-80GB",
}
Run = Callable[..., subprocess.CompletedProcess[str]]


def _unpack(folder: Path) -> Path:
    with tarfile.open(BEFORE / "workspace.tar.xz") as archive:
        archive.extractall(folder, filter="data")
    return folder / "workspace"


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    """The old workspace, to be changed."""
    return _unpack(tmp_path)


@pytest.fixture(scope="module")
def unchanged(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The old workspace for readers, which must not change its store."""
    place = _unpack(tmp_path_factory.mktemp("before"))
    yield place
    table = DeltaTable(place / "samples")
    assert table.version() == OLD_VERSION
    assert "threads" in {field.name for field in table.schema().fields}


def _values(done: subprocess.CompletedProcess[str]) -> Row:
    """The JSON of a command that ended well."""
    assert done.returncode == 0, done.stderr
    values: Row = json.loads(done.stdout.splitlines()[-1])
    return values


# Read


def test_status_reads_the_old_store_and_registry(coordinator: Run, unchanged: Path) -> None:
    status = _values(coordinator("status", "--workspace", unchanged, "--json"))
    assert status["samples"] == {"ok": OLD_CELLS}
    assert (status["champion"], status["versions"]) == ("1", 1)


def test_the_store_has_the_rows_in_the_present_columns(unchanged: Path) -> None:
    rows = SampleStore.open(unchanged / "samples", create=False).read()
    assert rows.schema == SCHEMA
    assert set(rows["cpu_threads"].to_pylist()) == {1, 2}
    assert set(rows["block_threads"].to_pylist()) == {0}
    measured = read_samples(BEFORE / "cpu.parquet")
    assert _by_cell(rows, "runtime_us").items() <= _by_cell(measured, "runtime_us").items()


@pytest.mark.parametrize("name", ["samples.parquet", "samples.json"])
def test_an_export_has_the_present_columns(
    coordinator: Run, unchanged: Path, tmp_path: Path, name: str
) -> None:
    path = tmp_path / name
    exported = _values(coordinator("export", path, "--workspace", unchanged, "--json"))
    assert exported["rows"] == OLD_CELLS
    samples = SampleStore.open(unchanged / "samples", create=False).read()
    assert read_table(path).table.sort_by("cell_id").equals(samples)


def test_the_report_is_written(coordinator: Run, unchanged: Path, tmp_path: Path) -> None:
    path = tmp_path / "report.html"
    coordinator("report", "--workspace", unchanged, "--out", path, "--json")
    assert "Model version" in path.read_text()


def test_the_old_registry_gives_its_version(unchanged: Path) -> None:
    versions = Registry(unchanged / "registry")
    (version,) = versions.list()
    assert version.number == "1"
    published = versions.load("champion")
    assert (published.card.rows, published.card.contract) == (OLD_CELLS, 2)
    assert published.card.repeatability["runtime_rse"]["rows"] == OLD_CELLS
    node_model = next((unchanged / "node").glob("model-*.onnx"))
    assert published.model == node_model.read_bytes()


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("list",), "champion"),
        (("show", "champion"), "AMD EPYC (2 cores) (48)"),
        (("verify", "1"), "version 1 is whole"),
    ],
)
def test_the_registrys_commands_read_the_old_version(
    unchanged: Path,
    capsys: pytest.CaptureFixture[str],
    arguments: tuple[str, ...],
    expected: str,
) -> None:
    assert registry_command([*arguments, "--workspace", str(unchanged)]) == 0
    assert expected in capsys.readouterr().out


def test_the_old_model_predicts_from_the_old_nodes_directory(unchanged: Path) -> None:
    (device,) = modeldir.devices(unchanged / "node")
    expected = json.loads((BEFORE / "predictions.json").read_text())
    rows = read_samples(BEFORE / "cpu.parquet").to_pylist()
    assert device == device_of(rows)
    with Predictor(unchanged / "node") as predictor:
        assert predictor.version == "1"
        for row in rows[: len(expected)]:
            prediction = predictor.predict(gemm_of(row), config_of(row), device)
            assert prediction.runtime_us == pytest.approx(expected[row["cell_id"]], rel=1e-5)


# Extend


def test_a_training_on_the_old_store_makes_the_next_version(
    coordinator: Run, workspace: Path
) -> None:
    trained = _values(coordinator("train", "--min-rows", "30", "--workspace", workspace, "--json"))
    assert trained["rows"] == OLD_CELLS
    versions = Registry(workspace / "registry")
    assert {version.number for version in versions.list()} == {"1", "2"}
    assert trained["version"] == "2" or trained["objection"]


@pytest.mark.cluster
def test_the_same_plan_with_more_cells_measures_only_the_new_ones(
    workspace: Path, tmp_path: Path, python_env: dict[str, str]
) -> None:
    before = SampleStore.open(workspace / "samples", create=False)
    old_rows, old_version = before.read(), before.version
    shutil.copy(BEFORE / "cpu.parquet", tmp_path)
    plan = tmp_path / "grown.toml"
    plan.write_text((BEFORE / "before.toml").read_text() + MORE_CELLS)
    command = [sys.executable, "-m", "coordinator", "run", str(plan), "--no-train", "--json"]
    command += ["--workspace", str(workspace)]
    without_ray = {name: value for name, value in python_env.items() if name[:4] != "RAY_"}
    done = subprocess.run(
        command, cwd=ROOT, env=without_ray, capture_output=True, text=True, check=False
    )
    assert _values(done)["committed_now"] == ALL_CELLS - OLD_CELLS

    after = SampleStore.open(workspace / "samples", create=False)
    assert {field.name for field in DeltaTable(workspace / "samples").schema().fields} == set(
        SCHEMA.names
    )
    assert after.counts() == {"ok": ALL_CELLS}
    sample_ids = _by_cell(after.read(), "sample_id")
    assert _by_cell(old_rows, "sample_id").items() <= sample_ids.items()
    assert len(sample_ids) == ALL_CELLS
    assert after.read(version=old_version).equals(old_rows)


def test_the_old_plan_still_names_the_old_cells(workspace: Path, tmp_path: Path) -> None:
    for name in ("cpu.parquet", "before.toml"):
        shutil.copy(BEFORE / name, tmp_path)
    device = device_of(read_samples(BEFORE / "cpu.parquet").to_pylist())
    cells = plan_cells(read_plan(tmp_path / "before.toml"), device).cells
    store = SampleStore.open(workspace / "samples", create=False)
    assert {cell.cell_id for cell in cells} == store.committed


def test_rows_of_an_old_import_are_not_added_again(
    coordinator: Run, workspace: Path, tmp_path: Path
) -> None:
    """The old program's store, as if it had imported the file: its rows under its own ids."""
    rows = pq.read_table(BEFORE / "kernels.parquet")
    path = shutil.copy(BEFORE / "kernels.parquet", tmp_path / "again.parquet")
    place = tmp_path / "imported"
    DeltaTable.create(str(place), schema=rows.schema)
    write_deltalake(str(place), rows, mode="append")
    options = ("--workspace", workspace, "--store", place, "--json")
    imported = _values(coordinator("import", path, *options))
    assert (imported["rows"], imported["added"]) == (len(rows), 0)


# Tables


def test_ids_of_imported_rows_are_those_of_the_old_program() -> None:
    expected = json.loads((BEFORE / "ids.json").read_text())
    assert len(expected) == 5
    for name, ids in expected.items():
        constants = {**TUNER_CONSTANTS, "family": "custom"} if name == "tuner.t4.json" else None
        table = read_table(BEFORE / name, constants=constants).table
        cells, samples = table["cell_id"].to_pylist(), table["sample_id"].to_pylist()
        assert sorted(map(list, zip(cells, samples, strict=True))) == ids, name


def test_old_constants_give_the_same_rows_as_the_present_ones() -> None:
    path = BEFORE / "tuner.t4.json"
    old = read_table(path, constants={**TUNER_CONSTANTS, "family": "own"}).table
    present = read_table(path, constants={**TUNER_CONSTANTS, "family": "custom"}).table
    assert old.equals(present)
    assert sorted(old["block_threads"].to_pylist()) == [128, 256]


@pytest.mark.parametrize("name", ["cpu.parquet", "kernels.parquet"])
def test_an_old_dataset_is_imported_in_the_present_columns(name: str) -> None:
    imported = read_table(BEFORE / name).table
    assert imported.equals(read_samples(BEFORE / name))


def test_old_families_kernels_and_threads_get_their_present_names() -> None:
    kernels = read_table(BEFORE / "kernels.parquet").table
    assert set(kernels["family"].to_pylist()) >= {"custom", "cublaslt", "cutlass"}
    enumerated = [name for name in kernels["kernel"].to_pylist() if "enumerated-" in name]
    old = pq.read_table(BEFORE / "kernels.parquet")["kernel"].to_pylist()
    assert len(enumerated) == sum(name.startswith("beyond-") for name in old) == 10
    assert set(kernels["cpu_threads"].to_pylist()) == {0}
    cpu = read_table(BEFORE / "cpu.csv").table
    assert set(cpu["cpu_threads"].to_pylist()) == {1, 2}
    assert set(cpu["launches_timed"].to_pylist()) > {200}


@pytest.mark.parametrize("name", ["cpu.parquet", "kernels.parquet"])
def test_an_old_dataset_replays(name: str) -> None:
    instrument = ReplayInstrument(BEFORE / name, "me")
    rows = [row for row in read_samples(BEFORE / name).to_pylist() if row["status"] == "ok"]
    cells = [_cell(row) for row in rows]
    assert len(set(cells)) == len(cells)
    for row, cell in zip(rows, cells, strict=True):
        replayed = instrument.measure(cell).row
        assert (replayed["status"], replayed["cell_id"]) == ("ok", cell.cell_id)
        assert replayed["runtime_us"] == row["runtime_us"]


def _cell(row: Row) -> Cell:
    return Cell(
        gemm=gemm_of(row),
        config=config_of(row),
        device_key=row["device"],
        cache=row["cache"],
        power=row["power_w"] is not None,
    )


def _by_cell(table: pa.Table, column: str) -> dict[str, object]:
    return dict(zip(table["cell_id"].to_pylist(), table[column].to_pylist(), strict=True))
