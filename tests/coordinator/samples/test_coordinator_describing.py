"""One device has one description in a store, in whatever order and parts its tables came."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from deltalake import write_deltalake

from coordinator.samples.describing import SETTLED
from coordinator.samples.importer import read_table
from coordinator.samples.store import SampleStore
from costmodel.dataset import devices_of, training_set
from costmodel.model import CostModel
from costmodel.onnx_export import export
from gemmcast import Predictor
from gemmcast.arrow import read_samples
from gemmcast.errors import InputError
from gemmcast.rows import Row, config_of, gemm_of

DEMO = Path(__file__).parents[3] / "datasets" / "h100_demo.parquet"
H100 = "NVIDIA H100 80GB HBM3"
FOREIGN = (
    "m,n,k,dtype,layout,family,kernel,runtime_us,device\n"
    f"42,1024,960,fp16,nn,cublas,default,20,{H100}\n"
)
Write = Callable[..., Path]
MakeRow = Callable[..., Row]


@pytest.fixture
def store(tmp_path: Path) -> SampleStore:
    return SampleStore.open(tmp_path / "samples", create=True)


@pytest.fixture(scope="module")
def demo() -> pa.Table:
    """400 of the recorded rows with power."""
    samples = read_samples(DEMO)
    metered = samples.filter(pc.is_valid(samples["power_w"]))
    return metered.take(list(range(0, len(metered), 2))[:400])


@pytest.fixture
def foreign(tmp_path: Path) -> pa.Table:
    """One row of a table from elsewhere, which says nothing of power."""
    path = tmp_path / "foreign.csv"
    path.write_text(FOREIGN)
    return read_table(path).table


def test_own_boards_describe_the_rows_of_others(
    store: SampleStore, demo: pa.Table, foreign: pa.Table
) -> None:
    store.append([foreign])
    store.append([demo])
    (row,) = [row for row in store.read().to_pylist() if row["m"] == 42]
    board = next(row for row in demo.to_pylist() if row["dtype"] == "fp16")
    # the recording is of schema 1, which had no column arch: the datasheet knows it
    settled = {*SETTLED, "peak_tflops"} - {"arch"}
    assert (row["arch"], board["arch"]) == ("sm_90", None)
    assert {name: row[name] for name in settled} == {name: board[name] for name in settled}
    assert (row["device_uuid"], row["runtime_us"]) == (f"imported-{H100}", 20.0)


def test_rows_that_were_measured_here_stay_as_they_are(
    store: SampleStore, demo: pa.Table, foreign: pa.Table
) -> None:
    store.append([foreign, demo])
    own = store.read().filter(pc.field("m") != 42)
    assert own.equals(demo.filter(pc.field("m") != 42).sort_by("cell_id"))


def test_the_order_and_the_parts_of_a_table_change_nothing(
    write: Write, aic_rows: list[Row], tmp_path: Path
) -> None:
    parts = [aic_rows[:9], aic_rows[9:30], aic_rows[30:], aic_rows]
    stored = []
    for number, order in enumerate(itertools.permutations(parts)):
        store = SampleStore.open(tmp_path / str(number), create=True)
        for rows in order:
            known = store.measured_devices()
            store.append([read_table(write(rows, "part.csv"), known=known).table])
        stored.append(store.read())
    assert all(table.equals(stored[0]) for table in stored)
    assert len(devices_of(training_set(stored[0]))) == 1


def test_a_peak_that_an_older_import_believed_is_bounded_by_the_datasheet(
    store: SampleStore, foreign: pa.Table
) -> None:
    place = foreign.column_names.index("peak_tflops")
    store.append([foreign.set_column(place, "peak_tflops", pa.array([687_195.0]))])
    assert store.read()["peak_tflops"].to_pylist() == [pytest.approx(989.4)]


def test_a_foreign_row_takes_no_power_away(
    demo: pa.Table, foreign: pa.Table, store: SampleStore, tmp_path: Path
) -> None:
    store.append([foreign])
    store.append([demo])
    data = training_set(store.read())
    tree_weight = {"runtime": 0.5, "sustained": 0.0, "power": 0.0}
    model = CostModel(members=1, steps=400, iterations=40, tree_weight=tree_weight)
    model.fit_dataset(data)
    file = tmp_path / "model.onnx"
    file.write_bytes(export(model, devices_of(data)))
    errors = []
    with Predictor(file) as predictor:
        assert [device.name for device in predictor.devices] == [H100]
        for row in demo.to_pylist()[::10]:
            cost = predictor.predict(gemm_of(row), config_of(row), H100)
            assert cost.power_w is not None
            errors.append((cost.power_w / row["power_w"], cost.runtime_us / row["runtime_us"]))
    power, runtime = np.median(np.abs(np.log(errors)), axis=0)
    assert power < 0.15
    assert runtime < 0.3


def test_a_store_of_a_newer_schema_is_refused_by_reader_and_writer(
    demo: pa.Table, tmp_path: Path
) -> None:
    newer = demo.append_column("new_column", pa.array([1] * len(demo)))
    place = newer.column_names.index("schema_version")
    newer = newer.set_column(place, "schema_version", pa.array([5] * len(demo)))
    path = tmp_path / "newer"
    write_deltalake(str(path), newer)
    files = sorted(entry.name for entry in path.rglob("*"))
    for create in (False, True):
        with pytest.raises(InputError, match="^schema_version = 5: .*is of a newer schema"):
            SampleStore.open(path, create=create)
    assert sorted(entry.name for entry in path.rglob("*")) == files
