"""The contract of a sample store, over real Delta tables: whatever is sent again, a cell is in the
store once and nothing is lost.

`TestStoreContract` runs over every place in which a store can lie; a new kind of store is added to
PLACES.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from deltalake import DeltaTable, write_deltalake

from coordinator.plan.cells import plan_cells
from coordinator.plan.schema import Plan
from coordinator.samples import store as store_module
from coordinator.samples.store import COMPACT_FILES as COMPACT_EVERY
from coordinator.samples.store import SampleStore
from gemmcast.arrow import SCHEMA, read_samples, to_table
from gemmcast.device import Device
from gemmcast.errors import InputError
from gemmcast.rows import Row

SampleTable = Callable[[Sequence[int]], pa.Table]
Open = Callable[..., SampleStore]
OLD_FILE = Path(__file__).parents[1] / "before" / "kernels.parquet"
"""Written by a program of schema 2."""
SCHEMA_2_ADDED = (
    "arch",
    "l2_gbps",
    "workspace_bytes",
    "launch_bound",
    "sustained_clock_mhz",
    "power_instant_w",
)


def _local_path(folder: Path) -> Path | str:
    return folder / "samples"


def _file_uri(folder: Path) -> Path | str:
    return (folder / "samples").as_uri()


def _object(folder: Path) -> Path | str:
    return f"s3://bucket/{folder.name}/samples"


PLACES = (_local_path, _file_uri, _object)


@pytest.fixture(scope="module")
def samples(
    make_plan: Callable[..., Plan], cpu: Device, measure: Callable[..., Row]
) -> SampleTable:
    """Samples of the cells with these numbers; every call measures anew."""
    cells = plan_cells(make_plan({"sample": 500, "max": 4096}), cpu).cells
    return lambda numbers: to_table([measure(cells[i], cpu) for i in numbers])


@pytest.fixture
def place(tmp_path: Path) -> Path:
    return tmp_path / "samples"


@pytest.fixture
def store(place: Path) -> SampleStore:
    return SampleStore.open(place, create=True)


def _ids(table: pa.Table) -> list[str]:
    return sorted(table["cell_id"].to_pylist())


@pytest.mark.parametrize("place_in", PLACES)
class TestStoreContract:
    @pytest.fixture
    def open_store(
        self, place_in: Callable[[Path], Path | str], tmp_path: Path, s3: object
    ) -> Open:
        """Open the store of this test, for the writer unless `create` is false."""
        return lambda *, create=True: SampleStore.open(place_in(tmp_path), create=create)

    def test_a_new_store_is_empty_and_has_our_schema(self, open_store: Open) -> None:
        store = open_store()
        assert (store.version, store.committed, store.counts()) == (0, set(), {})
        assert store.read().schema == SCHEMA
        assert open_store(create=False).read().num_rows == 0

    def test_without_a_store_a_reader_is_refused_and_creates_nothing(
        self, open_store: Open, tmp_path: Path
    ) -> None:
        with pytest.raises(InputError, match=r"samples = .*no sample store there; run a plan"):
            open_store(create=False)
        assert not list(tmp_path.iterdir())

    def test_what_was_sent_is_what_is_read(self, open_store: Open, samples: SampleTable) -> None:
        store, sent = open_store(), samples(range(20))
        assert store.append([sent]).equals(sent)
        for reader in (store, open_store(create=False)):
            assert reader.read().equals(sent.sort_by("cell_id"))
            assert reader.counts() == {"ok": 20}
            assert reader.committed == set(_ids(sent))
            assert reader.version == 1

    def test_counts_are_by_status(self, open_store: Open, samples: SampleTable) -> None:
        store = open_store()
        rows = samples(range(6)).to_pylist()
        statuses = ["ok"] * 3 + ["timeout"] * 2 + ["crashed"]
        for row, status in zip(rows, statuses, strict=True):
            row["status"] = status
        store.append([to_table(rows)])
        assert store.counts() == {"ok": 3, "timeout": 2, "crashed": 1}

    def test_the_same_rows_again_are_committed_once(
        self, open_store: Open, samples: SampleTable
    ) -> None:
        store, sent = open_store(), samples(range(5))
        assert len(store.append([sent])) == 5
        version = store.version
        assert len(store.append([sent])) == 0
        assert len(store.append([sent, sent])) == 0
        assert (len(store.read()), store.version) == (5, version)

    def test_a_cell_from_two_senders_is_committed_once(
        self, open_store: Open, samples: SampleTable
    ) -> None:
        store = open_store()
        first = store.append([samples([1, 2, 3])])
        second = store.append([samples([3, 4])])
        together = store.append([samples([5, 6]), samples([6, 7])])
        assert _ids(first) == _ids(samples([1, 2, 3]))
        assert _ids(second) == _ids(samples([4]))
        assert _ids(together) == _ids(samples([5, 6, 7]))
        assert _ids(store.read()) == _ids(samples(range(1, 8)))

    def test_of_two_measurements_of_a_cell_the_first_stays(
        self, open_store: Open, samples: SampleTable
    ) -> None:
        store, first, second = open_store(), samples([1]), samples([1])
        assert first["sample_id"].to_pylist() != second["sample_id"].to_pylist()
        store.append([first, second])
        store.append([samples([1])])
        assert store.read()["sample_id"].to_pylist() == first["sample_id"].to_pylist()

    def test_a_cell_twice_in_one_table_is_committed_once(
        self, open_store: Open, samples: SampleTable
    ) -> None:
        store = open_store()
        assert _ids(store.append([samples([1, 2, 1, 1, 3])])) == _ids(samples([1, 2, 3]))
        assert len(store.read()) == 3

    def test_the_rows_of_a_call_are_one_commit(
        self, open_store: Open, samples: SampleTable
    ) -> None:
        store = open_store()
        store.append([samples([1]), samples([2, 3]), samples([4])])
        assert (store.version, len(store.read())) == (1, 4)

    def test_without_new_rows_there_is_no_commit(
        self, open_store: Open, samples: SampleTable
    ) -> None:
        store = open_store()
        store.append([samples(range(5))])
        version = store.version
        for tables in ([], [samples(range(5))], [samples([])]):
            assert len(store.append(tables)) == 0
        assert store.version == version

    def test_a_reopened_store_continues_where_it_ended(
        self, open_store: Open, samples: SampleTable
    ) -> None:
        store = open_store()
        store.append([samples(range(5))])
        again = open_store()
        assert again.committed == store.committed
        assert _ids(again.append([samples([4, 5])])) == _ids(samples([5]))
        assert len(again.read()) == 6

    def test_an_earlier_version_can_still_be_read(
        self, open_store: Open, samples: SampleTable
    ) -> None:
        store = open_store()
        store.append([samples(range(3))])
        named_by_a_model = store.version
        store.append([samples(range(3, 9))])
        assert _ids(store.read(version=named_by_a_model)) == _ids(samples(range(3)))
        assert _ids(store.read()) == _ids(samples(range(9)))


# What a Delta table in files does


def test_compaction_and_checkpoints_change_nothing_that_is_read(
    store: SampleStore, place: Path, samples: SampleTable
) -> None:
    for number in range(1, COMPACT_EVERY + 6):
        store.append([samples([2 * number, 2 * number + 1])])
    assert (place / "_delta_log" / "_last_checkpoint").exists()
    assert len(DeltaTable(place).file_uris()) <= 1 + 5
    expected = _ids(samples(range(2, 2 * COMPACT_EVERY + 12)))
    again = SampleStore.open(place, create=False)
    assert _ids(store.read()) == _ids(again.read()) == expected
    assert len(again.append([samples([2, 401])])) == 1


def test_large_data_files_stay_as_they_are(
    place: Path, samples: SampleTable, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A table that grows for days is not written anew for every hundred rows."""
    monkeypatch.setattr(store_module, "FULL_ROWS", 10)
    store = SampleStore.open(place, create=True)
    store.append([samples(range(6))])
    store.append([samples(range(6, 12))])
    (full,) = DeltaTable(place).file_uris()
    for first in range(12, 20, 4):
        store.append([samples(range(first, first + 4))])
        assert full in DeltaTable(place).file_uris()
    assert len(DeltaTable(place).file_uris()) == 3
    store.append([samples(range(20, 24))])
    assert len(DeltaTable(place).file_uris()) == 2
    assert full in DeltaTable(place).file_uris()
    again = SampleStore.open(place, create=False)
    assert _ids(store.read()) == _ids(again.read()) == _ids(samples(range(24)))
    assert again.committed == store.committed


def test_what_compaction_replaced_is_removed_when_its_time_is_up(
    place: Path, samples: SampleTable, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("coordinator.samples.store.RETENTION_S", 0)
    store = SampleStore.open(place, create=True)
    numbers = range(1, 2 * COMPACT_EVERY + 1)
    for number in numbers:
        store.append([samples([number])])
    assert len(list(place.glob("*.parquet"))) <= 1 + COMPACT_EVERY
    assert len(list((place / "_delta_log").glob("*.json"))) < COMPACT_EVERY
    assert _ids(SampleStore.open(place, create=False).read()) == _ids(samples(numbers))


WRITER = """
import sys
import pyarrow.parquet as pq
from coordinator.samples.store import SampleStore
store, table = SampleStore.open(sys.argv[1], create=True), pq.read_table(sys.argv[2])
for number in range(len(table) // 10):
    store.append([table.slice(10 * number, 10)])
    print(number, flush=True)
"""


def test_a_writer_that_is_killed_leaves_whole_commits(
    place: Path, tmp_path: Path, samples: SampleTable, python_env: dict[str, str]
) -> None:
    table, sent = samples(range(500)), tmp_path / "sent.parquet"
    pq.write_table(table, sent)
    command = [sys.executable, "-c", WRITER, str(place), str(sent)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=python_env) as writer:
        assert writer.stdout
        lines = [writer.stdout.readline() for _ in range(8)]
        writer.kill()
    store = SampleStore.open(place, create=True)
    commits = store.version
    assert commits - 1 >= int(lines[-1]) == 7
    assert _ids(store.read()) == _ids(table.slice(0, 10 * commits))

    # everything is sent again
    for number in range(50):
        store.append([table.slice(10 * number, 10)])
    assert _ids(store.read()) == _ids(table)


READER = """
import sys
from coordinator.samples.store import SampleStore
print("ready", flush=True)
for _ in sys.stdin:
    table = SampleStore.open(sys.argv[1], create=False).read()
    print(len(table), len(set(table["cell_id"].to_pylist())), flush=True)
"""


def test_a_reader_sees_whole_commits_while_a_writer_writes(
    store: SampleStore, place: Path, samples: SampleTable, python_env: dict[str, str]
) -> None:
    seen: list[list[int]] = []
    command = [sys.executable, "-c", READER, str(place)]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True, env=python_env) as reader:
        assert reader.stdin and reader.stdout
        assert reader.stdout.readline() == "ready\n"
        requested = 0
        for number in range(1, 31):
            # the reader is idle: let it read while the commits below happen
            if requested == len(seen):
                reader.stdin.write("read\n")
                reader.stdin.flush()
                requested += 1
            store.append([samples(range(10 * number, 10 * number + 10))])
            if number % 3 == 0:
                seen.append([int(word) for word in reader.stdout.readline().split()])
        reader.stdin.close()
    counts = [count for count, _ in seen]
    assert len(seen) >= 8
    for count, different_cells in seen:
        assert count % 10 == 0
        assert count == different_cells
    assert counts == sorted(counts)
    assert counts[-1] > 100


# Tables of older schemas


def test_a_store_of_schema_1_is_read_and_extended(place: Path, samples: SampleTable) -> None:
    write_deltalake(str(place), samples(range(3)).drop_columns(list(SCHEMA_2_ADDED)))
    table = SampleStore.open(place, create=False).read()
    assert table.schema.names == SCHEMA.names
    for name in SCHEMA_2_ADDED:
        assert table[name].null_count == 3
    SampleStore.open(place, create=True).append([samples([3, 4])])
    assert len(SampleStore.open(place, create=False).read()) == 5


@pytest.fixture
def old_table(place: Path) -> pa.Table:
    """A store of schema 2 in two commits, as an older program left it; its rows, brought up."""
    rows = pq.read_table(OLD_FILE)
    write_deltalake(str(place), rows.slice(0, 10))
    write_deltalake(str(place), rows.slice(10), mode="append")
    return read_samples(OLD_FILE).sort_by("cell_id")


def test_a_reader_of_an_old_store_changes_nothing(place: Path, old_table: pa.Table) -> None:
    store = SampleStore.open(place, create=False)
    assert store.read().equals(old_table)
    assert store.counts() == {"ok": 16, "unsupported": 2}
    assert DeltaTable(place).version() == 1
    assert "threads" in DeltaTable(place).schema().to_arrow().names


def test_a_writer_migrates_an_old_store_in_one_commit(place: Path, old_table: pa.Table) -> None:
    store = SampleStore.open(place, create=True)
    assert store.version == 2
    assert store.read().equals(old_table)
    assert {field.name for field in DeltaTable(place).schema().fields} == set(SCHEMA.names)
    assert SampleStore.open(place, create=True).version == 2


def test_a_migrated_store_takes_new_cells_only(
    place: Path, old_table: pa.Table, samples: SampleTable
) -> None:
    store = SampleStore.open(place, create=True)
    assert len(store.append([old_table])) == 0
    assert _ids(store.append([samples([1, 2]), old_table])) == _ids(samples([1, 2]))
    assert len(SampleStore.open(place, create=False).read()) == len(old_table) + 2


def test_versions_before_the_migration_can_still_be_read(place: Path, old_table: pa.Table) -> None:
    store = SampleStore.open(place, create=True)
    assert store.read(version=1).equals(old_table)
    assert len(store.read(version=0)) == 10


def test_a_store_with_unknown_columns_is_refused_and_not_changed(
    place: Path, samples: SampleTable
) -> None:
    rows = samples(range(3))
    write_deltalake(str(place), rows.append_column("colour", pa.array(["red"] * 3)))
    with pytest.raises(InputError, match="column = 'colour': "):
        SampleStore.open(place, create=True)
    assert DeltaTable(place).version() == 0
