"""A workspace's samples as a dataset: the file replays, the card says what is in it."""

from __future__ import annotations

import re
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from agent.devices.replay import ReplayInstrument
from coordinator.samples.dataset_counts import counts
from coordinator.samples.export import UNITS, write_dataset
from gemmcast.arrow import SCHEMA, read_samples, to_table
from gemmcast.errors import InputError
from gemmcast.rows import Row, config_of, gemm_of

ROOT = Path(__file__).parents[2]
DATASET = ROOT / "datasets" / "h100_repeatability.parquet"
SCHEMA_PAGE = ROOT / "docs" / "schema.md"
ON_THE_CARD = (
    "license: cc-by-4.0",
    "# mine",
    "NVIDIA H100 80GB HBM3",
    "GPU-43ea8348-acd5-90a7-7868-4fd6aca1ee70",
    "580.159.04",
    "cublaslt 13.1.0",
    '{"power_steps": 5}',
    "2026-11-25T15:16:14",
    "| rows | 500; not ok: power_disputed 10 |",
    "| rows with power | 240 |",
    "| different cells, shapes | 50, 17 |",
)


@pytest.fixture(scope="module")
def samples() -> pa.Table:
    return read_samples(DATASET)


def test_every_row_is_written_in_the_order_of_measuring(samples: pa.Table, tmp_path: Path) -> None:
    path = tmp_path / "new" / "mine.parquet"
    write_dataset(samples, path)
    written = pq.read_table(path)
    assert written.schema == SCHEMA
    assert sorted(written["sample_id"].to_pylist()) == sorted(samples["sample_id"].to_pylist())
    assert written["measured_at"].to_pylist() == sorted(written["measured_at"].to_pylist())
    assert {entry.name for entry in path.parent.iterdir()} == {"mine.parquet", "mine.md"}


def test_columns_have_the_units_of_the_schema_page(samples: pa.Table, tmp_path: Path) -> None:
    path = tmp_path / "mine.parquet"
    write_dataset(samples, path)
    units = {}
    for column in pq.read_schema(path):
        if column.metadata:
            units[column.name] = column.metadata[b"unit"].decode()
    rows = re.findall(r"^\| `(\w+)` \|(?:[^|]*\|){3} ([^|]+) \|", SCHEMA_PAGE.read_text(), re.M)
    on_the_page = {name: unit for name, unit in rows if unit in UNITS.values()}
    assert {name: units.get(name) for name in on_the_page} == on_the_page
    assert len(units) > 20


def test_a_dataset_replays(power_samples: pa.Table, tmp_path: Path) -> None:
    path = tmp_path / "mine.parquet"
    write_dataset(power_samples, path)
    assert ReplayInstrument(path, "me").device.name == power_samples["device"][0].as_py()


def test_the_card_says_what_on_what_when_and_how(samples: pa.Table, tmp_path: Path) -> None:
    path = tmp_path / "mine.parquet"
    write_dataset(samples, path, {"power_steps": 5})
    card = path.with_suffix(".md").read_text()
    for text in ON_THE_CARD:
        assert text in card


def test_cells_are_counted_once_groups_from_twenty_on_and_failures_by_status(
    samples: pa.Table,
) -> None:
    rows: list[Row] = samples.to_pylist()
    first = next(row for row in rows if row["family"] == "cublaslt")
    group = [{**first, "algo_id": 1000 + i} for i in range(20)]
    failed = {**first, "status": "incorrect", "reason": "so", "algo_id": 2000}
    counted = counts(to_table([*rows, *group[:19], failed]))
    assert (counted["cells"], counted["groups_of_20"]) == (50 + 19, 1)
    assert counted["not_ok"] == {"power_disputed": 10, "incorrect": 1}
    assert counts(to_table(group[:19]))["groups_of_20"] == 0
    different = {(gemm_of(row), config_of(row)) for row in rows}
    assert counts(to_table([*rows, *rows]))["cells"] == len(different)


@pytest.mark.parametrize(
    ("name", "message"),
    [("mine.csv", "FILE = .*name it SOMETHING.parquet"), ("mine", "FILE = ")],
)
def test_another_kind_of_file_is_refused(
    samples: pa.Table, tmp_path: Path, name: str, message: str
) -> None:
    with pytest.raises(InputError, match=message):
        write_dataset(samples, tmp_path / name)
    assert not list(tmp_path.iterdir())


def test_a_page_that_is_no_card_is_not_replaced(samples: pa.Table, tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text("# Mine\n\nTo `python -m coordinator export`, run it.\n")
    with pytest.raises(InputError, match="its card, README.md, would replace a page"):
        write_dataset(samples, tmp_path / "README.parquet")
    assert [path.name for path in tmp_path.iterdir()] == ["README.md"]
    for _ in range(2):
        write_dataset(samples, tmp_path / "other.parquet")
    assert "\n# other\n" in (tmp_path / "other.md").read_text()


def test_a_file_that_cannot_be_written_is_refused(samples: pa.Table, tmp_path: Path) -> None:
    for name in ("is.parquet", "card.md", "file"):
        if name == "file":
            (tmp_path / name).write_text("no folder")
        else:
            (tmp_path / name).mkdir()
    for name, rule in (
        ("is.parquet", "is a directory"),
        ("card.parquet", "is a directory"),
        ("file/in.parquet", "can't be written"),
        ("x" * 300 + ".parquet", "can't be written"),
    ):
        with pytest.raises(InputError, match=f"^FILE = .*{rule}"):
            write_dataset(samples, tmp_path / name)
        assert {path.name for path in tmp_path.iterdir()} == {"is.parquet", "card.md", "file"}


def test_without_samples_no_dataset_is_written(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="samples = 0: there are no samples"):
        write_dataset(to_table([]), tmp_path / "mine.parquet")
    assert not list(tmp_path.iterdir())


def test_the_card_of_a_cpu_has_no_drivers(cpu_samples: pa.Table, tmp_path: Path) -> None:
    path = tmp_path / "mine.parquet"
    write_dataset(cpu_samples, path)
    card = path.with_suffix(".md").read_text()
    assert "| driver, CUDA | none |" in card
    assert "| devices |" in card
    assert "| counter against instantaneous power, median | not read |" in card
