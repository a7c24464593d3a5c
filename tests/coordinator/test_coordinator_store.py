"""Exactly once, over a real Delta table: whoever sends what again, a cell is in the store once and nothing is lost."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from deltalake import DeltaTable, write_deltalake

from coordinator.plan.cells import plan_cells
from coordinator.plan.schema import Plan
from coordinator.samples.store import COMPACT_EVERY, Batch, SampleStore
from gemmcast.arrow import SCHEMA, to_table
from gemmcast.cell import Cell
from gemmcast.device import Device
from gemmcast.errors import InputError

Rows = Callable[[Sequence[int]], pa.Table]


@pytest.fixture(scope="module")
def rows(make_plan: Callable[..., Plan], cpu: Device, measure: Callable[..., dict[str, Any]]) -> Rows:
    """Samples of the cells with these numbers; every call measures anew."""
    cells: list[Cell] = plan_cells(make_plan({"sample": 500, "max": 4096}), cpu).cells
    return lambda numbers: to_table([measure(cells[i], cpu) for i in numbers])


@pytest.fixture
def place(tmp_path: Path) -> Path:
    return tmp_path / "samples"


@pytest.fixture
def store(place: Path) -> SampleStore:
    return SampleStore.open(place, create=True)


def _ids(table: pa.Table) -> list[str]:
    return sorted(table["cell_id"].to_pylist())


def test_a_new_store_is_empty_and_has_our_schema(store: SampleStore, place: Path) -> None:
    assert (store.version, store.committed, store.counts()) == (0, set(), {})
    assert store.read().schema == SCHEMA
    assert SampleStore.open(place, create=False).read().num_rows == 0


def test_what_was_sent_is_what_is_read(store: SampleStore, place: Path, rows: Rows) -> None:
    sent = rows(range(20))
    assert store.append([Batch("a", 1, sent)]).equals(sent)
    for reader in (store, SampleStore.open(place, create=False)):
        assert reader.read().equals(sent.sort_by("cell_id"))
        assert reader.counts() == {"ok": 20}
        assert reader.version == 1


def test_counts_are_by_status(store: SampleStore, rows: Rows) -> None:
    table = rows(range(6)).set_column(SCHEMA.get_field_index("status"), SCHEMA.field("status"), pa.array(["ok"] * 3 + ["timeout"] * 2 + ["crashed"]))
    store.append([Batch("a", 1, table)])
    assert store.counts() == {"ok": 3, "timeout": 2, "crashed": 1}


# exactly once


def test_the_same_batch_twice_is_committed_once(store: SampleStore, rows: Rows) -> None:
    batch = Batch("a", 1, rows(range(5)))
    assert len(store.append([batch])) == 5
    version = store.version
    assert len(store.append([batch])) == 0
    assert len(store.append([batch, batch])) == 0
    assert (len(store.read()), store.version) == (5, version)


def test_a_batch_with_a_number_that_is_not_above_the_last_is_skipped(store: SampleStore, rows: Rows) -> None:
    store.append([Batch("a", 7, rows(range(5)))])
    for number in (7, 6, 0):
        assert len(store.append([Batch("a", number, rows([100 + number]))])) == 0
    assert len(store.append([Batch("b", 1, rows([10])), Batch("a", 8, rows([11]))])) == 2
    assert len(store.read()) == 7


def test_the_same_number_twice_in_one_call_counts_once(store: SampleStore, rows: Rows) -> None:
    assert _ids(store.append([Batch("a", 1, rows([1])), Batch("a", 1, rows([2])), Batch("a", 2, rows([3]))])) == _ids(rows([1, 3]))


def test_a_cell_from_two_senders_is_committed_once(store: SampleStore, rows: Rows) -> None:
    first = store.append([Batch("a", 1, rows([1, 2, 3]))])
    second = store.append([Batch("b", 1, rows([3, 4]))])
    assert (_ids(first), _ids(second)) == (_ids(rows([1, 2, 3])), _ids(rows([4])))
    together = store.append([Batch("a", 2, rows([5, 6])), Batch("b", 2, rows([6, 7]))])
    assert _ids(together) == _ids(rows([5, 6, 7]))
    assert _ids(store.read()) == _ids(rows(range(1, 8)))


def test_of_two_measurements_of_a_cell_the_first_stays(store: SampleStore, rows: Rows) -> None:
    first = rows([1])
    store.append([Batch("a", 1, first)])
    store.append([Batch("b", 1, rows([1]))])
    assert store.read()["sample_id"].to_pylist() == first["sample_id"].to_pylist()


def test_a_cell_twice_in_one_batch_is_committed_once(store: SampleStore, rows: Rows) -> None:
    assert _ids(store.append([Batch("a", 1, rows([1, 2, 1, 1, 3]))])) == _ids(rows([1, 2, 3]))
    assert len(store.read()) == 3


def test_rows_and_numbers_are_one_commit(store: SampleStore, place: Path, rows: Rows) -> None:
    store.append([Batch("a", 3, rows([1])), Batch("b", 9, rows([2]))])
    table = DeltaTable(place)
    assert (table.version(), table.transaction_version("a"), table.transaction_version("b")) == (1, 3, 9)


def test_nothing_new_is_no_commit(store: SampleStore, rows: Rows) -> None:
    store.append([Batch("a", 1, rows(range(5)))])
    version = store.version
    assert len(store.append([])) == len(store.append([Batch("b", 1, rows(range(5)))])) == len(store.append([Batch("c", 1, rows([]))])) == 0
    assert store.version == version


def test_a_reopened_store_goes_on_where_it_ended(store: SampleStore, place: Path, rows: Rows) -> None:
    store.append([Batch("a", 4, rows(range(5)))])
    again = SampleStore.open(place, create=True)
    assert again.committed == store.committed
    assert len(again.append([Batch("a", 4, rows([50]))])) == 0  # the number, though the cell is new
    assert _ids(again.append([Batch("a", 5, rows([4, 5]))])) == _ids(rows([5]))  # the cell, though the number is new
    assert len(again.read()) == 6


def test_compaction_and_checkpoints_change_nothing_that_is_read(store: SampleStore, place: Path, rows: Rows) -> None:
    for number in range(1, COMPACT_EVERY + 6):
        store.append([Batch("a", number, rows([2 * number, 2 * number + 1]))])
    assert (place / "_delta_log" / "_last_checkpoint").exists()
    assert len(DeltaTable(place).file_uris()) <= 1 + 5
    want = _ids(rows(range(2, 2 * COMPACT_EVERY + 12)))
    again = SampleStore.open(place, create=False)
    assert _ids(store.read()) == _ids(again.read()) == want
    assert len(again.append([Batch("a", COMPACT_EVERY + 5, rows([400]))])) == 0
    assert len(again.append([Batch("a", COMPACT_EVERY + 6, rows([2, 401]))])) == 1


def test_what_compaction_replaced_is_removed_when_its_time_is_up(place: Path, rows: Rows, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("coordinator.samples.store.KEPT", "interval 0 seconds")
    store = SampleStore.open(place, create=True)
    for number in range(1, 2 * COMPACT_EVERY + 1):
        store.append([Batch("a", number, rows([number]))])
    assert len(list(place.glob("*.parquet"))) <= 1 + COMPACT_EVERY
    assert len(list((place / "_delta_log").glob("*.json"))) < COMPACT_EVERY
    assert _ids(SampleStore.open(place, create=False).read()) == _ids(rows(range(1, 2 * COMPACT_EVERY + 1)))


def test_an_earlier_version_can_still_be_read(store: SampleStore, rows: Rows) -> None:
    store.append([Batch("a", 1, rows(range(3)))])
    named_by_a_model = store.version
    store.append([Batch("a", 2, rows(range(3, 9)))])
    assert _ids(store.read(version=named_by_a_model)) == _ids(rows(range(3)))
    assert _ids(store.read()) == _ids(rows(range(9)))


def test_nothing_is_created_where_nothing_was_asked_for(place: Path) -> None:
    with pytest.raises(InputError, match=r"samples = .*no sample store there; run a plan first"):
        SampleStore.open(place, create=False)
    assert not place.exists()


WRITER = """
import sys
import pyarrow.parquet as pq
from coordinator.samples.store import Batch, SampleStore
store, table = SampleStore.open(sys.argv[1], create=True), pq.read_table(sys.argv[2])
for number in range(len(table) // 10):
    store.append([Batch("a", number, table.slice(10 * number, 10))])
    print(number, flush=True)
"""


def test_a_writer_that_is_killed_leaves_whole_commits(place: Path, tmp_path: Path, rows: Rows, python_env: dict[str, str]) -> None:
    table = rows(range(500))
    pq.write_table(table, tmp_path / "sent.parquet")
    with subprocess.Popen(
        [sys.executable, "-c", WRITER, str(place), str(tmp_path / "sent.parquet")], stdout=subprocess.PIPE, env=python_env
    ) as writer:
        assert writer.stdout
        said = [writer.stdout.readline() for _ in range(8)]
        writer.kill()
    last = DeltaTable(place).transaction_version("a")
    assert last is not None and last >= int(said[-1]) == 7
    store = SampleStore.open(place, create=True)
    assert _ids(store.read()) == _ids(table.slice(0, 10 * (last + 1)))
    for number in range(50):  # everything is sent again
        store.append([Batch("a", number, table.slice(10 * number, 10))])
    assert _ids(store.read()) == _ids(table)


READER = """
import sys
from coordinator.samples.store import SampleStore
print("ready", flush=True)
for _ in sys.stdin:
    table = SampleStore.open(sys.argv[1], create=False).read()
    print(len(table), len(set(table["cell_id"].to_pylist())), flush=True)
"""


def test_a_reader_sees_whole_commits_while_a_writer_writes(store: SampleStore, place: Path, rows: Rows, python_env: dict[str, str]) -> None:
    command = [sys.executable, "-c", READER, str(place)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=python_env) as reader:
        assert reader.stdin and reader.stdout and reader.stdout.readline() == "ready\n"
        seen: list[list[int]] = []
        looks = 0
        for number in range(1, 31):
            if looks == len(seen):  # it is idle: let it look again while we go on
                reader.stdin.write("look\n")
                reader.stdin.flush()
                looks += 1
            store.append([Batch("a", number, rows(range(10 * number, 10 * number + 10)))])
            if number % 3 == 0:
                seen.append([int(word) for word in reader.stdout.readline().split()])
        reader.stdin.close()
    counts = [count for count, _ in seen]
    assert len(seen) >= 8
    assert all(count % 10 == 0 and count == different for count, different in seen)
    assert counts == sorted(counts) and counts[-1] > 100


def test_a_store_of_an_older_schema_is_read_and_goes_on(place: Path, rows: Rows) -> None:
    """Columns were added in schema 2: a store from before them has none."""
    new = ("arch", "l2_gbps", "workspace_bytes", "launch_bound", "sustained_clock_mhz", "power_instant_w")
    write_deltalake(str(place), rows(range(3)).drop_columns(list(new)))
    store = SampleStore.open(place, create=False)
    assert store.read().schema.names == SCHEMA.names
    assert all(value is None for name in new for value in store.read()[name].to_pylist())
    store.append([Batch("later", 0, rows([3, 4]))])
    assert len(SampleStore.open(place, create=False).read()) == 5
