"""What answers a cell in a store: a contended row does not; each board may, where it is wanted."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from coordinator.plan.cells import plan_cells
from coordinator.plan.schema import Plan
from coordinator.samples import store as store_module
from coordinator.samples.activity import activity
from coordinator.samples.answers import Answers, Statuses
from coordinator.samples.export import write_dataset
from coordinator.samples.importer import read_table
from coordinator.samples.store import SampleStore
from costmodel.dataset import training_set
from gemmcast.arrow import read_samples, to_table
from gemmcast.cell import Cell
from gemmcast.device import Device
from gemmcast.rows import Row

Rows = Callable[..., pa.Table]


@pytest.fixture(scope="module")
def cells(make_plan: Callable[..., Plan], gpu: Device) -> list[Cell]:
    return plan_cells(make_plan({"sample": 20}, family="cublas"), gpu).cells


@pytest.fixture(scope="module")
def rows(cells: list[Cell], gpu: Device, measure: Callable[..., Row]) -> Rows:
    """Rows of the cells with these numbers; every call measures anew."""

    def make(*numbers: int, status: str = "ok", board: str = "GPU-a") -> pa.Table:
        changed: dict[str, Any] = {"status": status, "device_uuid": board}
        return to_table([{**measure(cells[number], gpu), **changed} for number in numbers])

    return make


@pytest.fixture
def place(tmp_path: Path) -> Path:
    return tmp_path / "samples"


@pytest.fixture
def store(place: Path) -> SampleStore:
    return SampleStore.open(place, create=True)


def _shown(store: SampleStore) -> list[tuple[str, str, str]]:
    columns = store.read().select(["cell_id", "status", "device_uuid"]).to_pydict()
    return list(zip(*columns.values(), strict=True))


def test_an_answer_replaces_the_record_of_its_cell(
    store: SampleStore, place: Path, rows: Rows, cells: list[Cell]
) -> None:
    assert len(store.append([rows(0, 1, 2, status="contended")])) == 3
    assert (store.counts(), store.committed) == ({"contended": 3}, set())
    assert len(store.append([rows(0), rows(1, status="timeout")])) == 2
    for opened in (store, SampleStore.open(place, create=True)):
        assert opened.counts() == {"ok": 1, "timeout": 1, "contended": 1}
        assert opened.committed == {cells[0].cell_id, cells[1].cell_id}
        statuses = {cell_id: status for cell_id, status, _ in _shown(opened)}
        assert statuses == {
            cells[0].cell_id: "ok",
            cells[1].cell_id: "timeout",
            cells[2].cell_id: "contended",
        }
        assert sorted(opened.columns("status")["status"].to_pylist()) == [
            "contended",
            "ok",
            "timeout",
        ]


def test_one_record_is_enough_and_none_follows_an_answer(store: SampleStore, rows: Rows) -> None:
    store.append([rows(0, status="contended"), rows(0, status="contended")])
    assert len(store.append([rows(0, status="contended")])) == 0
    store.append([rows(0)])
    version = store.version
    assert len(store.append([rows(0, status="contended"), rows(0)])) == 0
    assert (store.counts(), store.version) == ({"ok": 1}, version)


def test_a_record_and_its_answer_may_come_in_one_commit_in_any_order(
    store: SampleStore, rows: Rows
) -> None:
    store.append([rows(0, status="contended"), rows(0), rows(1), rows(1, status="contended")])
    assert store.counts() == {"ok": 2}
    assert [status for _, status, _ in _shown(store)] == ["ok", "ok"]


def test_the_answer_of_each_board_is_taken_where_that_is_wanted(
    store: SampleStore, place: Path, rows: Rows, cells: list[Cell]
) -> None:
    store.append([rows(0, 1)])
    assert len(store.append([rows(0, 1, board="GPU-b")])) == 0
    store.each_board.add(cells[0].cell_id)
    assert len(store.append([rows(0, 1, board="GPU-b"), rows(0, board="GPU-b")])) == 1
    assert len(store.append([rows(0, board="GPU-a"), rows(0, board="GPU-b")])) == 0
    assert len(store.append([rows(0, status="contended", board="GPU-c")])) == 0
    first, second = cells[0].cell_id, cells[1].cell_id
    expected = [(first, "GPU-a"), (first, "GPU-b"), (second, "GPU-a")]
    for opened in (store, SampleStore.open(place, create=True)):
        shown = [(cell_id, board) for cell_id, _, board in _shown(opened)]
        assert shown == sorted(expected)
        assert opened.counts() == {"ok": 3}


@pytest.mark.parametrize("compact_files", [4, 50])
def test_compaction_and_mending_bring_no_record_back_and_lose_no_board(
    place: Path,
    rows: Rows,
    cells: list[Cell],
    monkeypatch: pytest.MonkeyPatch,
    compact_files: int,
) -> None:
    monkeypatch.setattr(store_module, "COMPACT_FILES", compact_files)
    store = SampleStore.open(place, create=True)
    store.each_board.add(cells[1].cell_id)
    store.append([rows(0, 1, status="contended")])
    store.append([rows(0, 1)])
    store.append([rows(1, board="GPU-b")])
    store.append([rows(2)])
    expected = _shown(store)
    assert len(expected) == 4
    # The log goes back to the records; the rows lie in whole files.
    for path in sorted((place / "_delta_log").glob("*.json"))[2:]:
        path.write_text("{")
    for path in (place / "_delta_log").glob("*checkpoint*"):
        path.unlink()
    assert _shown(SampleStore.open(place, create=True)) == expected


def test_what_is_trained_exported_and_counted_has_no_replaced_record(
    store: SampleStore, rows: Rows, tmp_path: Path, cells: list[Cell]
) -> None:
    store.each_board.add(cells[0].cell_id)
    store.append([rows(0, 1, status="contended")])
    store.append([rows(0, 1), rows(0, board="GPU-b")])
    assert len(training_set(store.read())) == 3
    path = tmp_path / "set.parquet"
    counted = write_dataset(store.read(), path)
    assert (counted["rows"], counted["cells"], counted["not_ok"]) == (3, 2, {})
    assert activity(store).agents == 1
    # Another store takes the file as it is, and takes it once.
    imported = read_table(path)
    assert (len(imported.table), imported.skipped) == (3, {})
    other = SampleStore.open(tmp_path / "other", create=True)
    other.each_board.update(imported.each_board)
    assert len(other.append([imported.table])) == 3
    assert len(other.append([imported.table])) == 0
    assert other.read().equals(store.read())
    assert read_samples(path)["sample_id"].to_pylist() != []


def test_a_table_without_boards_of_its_own_is_taken_once(
    store: SampleStore, rows: Rows, tmp_path: Path, gpu: Device
) -> None:
    """Whatever it is said to be measured on."""
    named = rows(0).to_pylist()[0]
    path = tmp_path / "table.csv"
    columns = ("m", "n", "k", "dtype", "family", "runtime_us", "device")
    path.write_text(",".join(columns) + "\n" + ",".join(str(named[name]) for name in columns))
    for uuid in ("GPU-said", "GPU-other"):
        imported = read_table(path, device=replace(gpu, uuid=uuid))
        assert imported.each_board == set()
        store.append([imported.table])
    assert len(store.read()) == 1


def test_a_snapshot_is_one_version_whatever_is_committed_later(
    store: SampleStore, rows: Rows, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also when its data files were replaced by one."""
    monkeypatch.setattr(store_module, "COMPACT_FILES", 3)
    store.append([rows(0, 1, status="contended")])
    store.append([rows(0)])
    snapshot, expected = store.snapshot(), store.read()
    store.append([rows(1, 2, 3)])
    store.append([rows(4)])
    assert not set(snapshot.names) & set(store.snapshot().names)
    assert snapshot.read().equals(expected)
    assert (snapshot.version, len(store.read())) == (store.version - 3, 5)


def test_a_snapshot_leaves_damaged_files_out(
    store: SampleStore, place: Path, rows: Rows, caplog: pytest.LogCaptureFixture
) -> None:
    store.append([rows(0, 1)])
    (damaged,) = store.snapshot().names
    store.append([rows(2)])
    (place / damaged).write_bytes(b"other bytes")
    assert len(store.snapshot().read()) == 1
    assert "left out 1 of 2 data files, which are damaged" in caplog.text


def test_statuses_of_a_run_are_those_of_its_answers(rows: Rows) -> None:
    statuses, answers = Statuses(), Answers()
    commits = [
        rows(0, 1, 2, status="contended"),
        rows(0, 0, status="contended", board="GPU-b"),
        pa.concat_tables([rows(3), rows(0), rows(4, status="timeout")]),
        pa.concat_tables([rows(5, status="contended"), rows(5), rows(1)]),
        rows(3, board="GPU-b"),
    ]
    for committed in commits:
        statuses.add(committed)
        answers.add(committed)
        assert +statuses.counts == +answers.statuses
    assert +statuses.counts == {"ok": 5, "timeout": 1, "contended": 1}
