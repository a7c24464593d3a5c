"""One writer of a store, from whatever workspace; and commits whose answer is lost on the way."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pyarrow as pa
import pytest

from coordinator.plan.cells import plan_cells
from coordinator.plan.schema import Plan
from coordinator.samples import store as store_module
from coordinator.samples.data_files import encoded
from coordinator.samples.log import DataFile, DeltaLog, OvertakenError
from coordinator.samples.store import SampleStore
from gemmcast.arrow import to_table
from gemmcast.device import Device
from gemmcast.errors import InputError, UnavailableError, WorkspaceError
from gemmcast.rows import Row

SampleTable = Callable[[Sequence[int]], pa.Table]
Commit = Callable[..., None]
HOLDER = """
import sys
from pathlib import Path
from coordinator.samples.store import SampleStore
with SampleStore.writing(sys.argv[1], Path(sys.argv[2])):
    print("writing", flush=True)
    sys.stdin.read()
"""


@pytest.fixture(scope="module")
def samples(
    make_plan: Callable[..., Plan], cpu: Device, measure: Callable[..., Row]
) -> SampleTable:
    """Samples of the cells with these numbers; every call measures anew."""
    cells = plan_cells(make_plan({"sample": 60, "max": 4096}), cpu).cells
    return lambda numbers: to_table([measure(cells[i], cpu) for i in numbers])


@pytest.fixture
def place(tmp_path: Path) -> Path:
    return tmp_path / "shared" / "samples"


@pytest.fixture
def holder(
    place: Path, tmp_path: Path, python_env: dict[str, str]
) -> Iterator[subprocess.Popen[str]]:
    """Another process that writes to the store from the workspace `first`."""
    command = [sys.executable, "-c", HOLDER, str(place), str(tmp_path / "first")]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True, env=python_env) as process:
        assert process.stdout and process.stdout.readline() == "writing\n"
        yield process
        process.kill()


def _ids(table: pa.Table) -> list[str]:
    return sorted(table["cell_id"].to_pylist())


def _in_use(process: subprocess.Popen[str], workspace: Path) -> str:
    holder = f"process {process.pid} on {socket.gethostname()} \\(workspace {workspace}\\)"
    return f"is in use by {holder}: wait for it, stop it, or take another --store"


def test_a_second_writer_is_refused_with_the_name_of_the_first(
    place: Path, tmp_path: Path, holder: subprocess.Popen[str]
) -> None:
    rule = _in_use(holder, tmp_path / "first")
    with (
        pytest.raises(WorkspaceError, match=rule),
        SampleStore.writing(place, tmp_path / "second"),
    ):
        pass
    # however the store is named
    (tmp_path / "link").symlink_to(place.parent)
    for same in (place.as_uri(), tmp_path / "link" / "samples", f"{place.parent}/./samples/"):
        with pytest.raises(WorkspaceError, match=rule), SampleStore.writing(same, tmp_path):
            pass


def test_a_reader_is_not_refused(place: Path, holder: subprocess.Popen[str]) -> None:
    assert len(SampleStore.open(place, create=False).read()) == 0


def test_a_killed_writer_lets_go_at_once(
    place: Path, tmp_path: Path, holder: subprocess.Popen[str]
) -> None:
    holder.kill()
    holder.wait()
    with SampleStore.writing(place, tmp_path / "second") as store:
        assert store.version == 0


def test_an_import_into_a_store_that_is_written_ends_with_one_line(
    place: Path,
    tmp_path: Path,
    holder: subprocess.Popen[str],
    coordinator: Callable[..., subprocess.CompletedProcess[str]],
) -> None:
    table = Path(__file__).parents[1] / "before" / "kernels.parquet"
    workspace = tmp_path / "second"
    ended = coordinator("import", table, "--workspace", workspace, "--store", place)
    assert (ended.returncode, ended.stdout) == (2, "")
    assert f"in use by process {holder.pid}" in ended.stderr
    assert len(ended.stderr.strip().splitlines()) == 1
    assert len(SampleStore.open(place, create=False).read()) == 0


def test_without_a_lock_two_writers_still_commit_no_cell_twice(
    place: Path, samples: SampleTable
) -> None:
    """As on two hosts whose file system has no locks that reach the other."""
    first = SampleStore.open(place, create=True)
    second = SampleStore.open(place, create=True)
    first.append([samples([1, 2])])
    with pytest.raises(OvertakenError, match="another process has written to the sample store"):
        second.append([samples([2, 3])])
    first.append([samples([4])])
    with pytest.raises(OvertakenError):
        second.append([samples([2, 3])])
    table = SampleStore.open(place, create=False).read()
    assert _ids(table) == _ids(samples([1, 2, 4]))


# Commits whose answer is lost


@pytest.fixture
def lose(monkeypatch: pytest.MonkeyPatch) -> Callable[[Exception, bool], None]:
    """Let the next commit end with an error, after it has landed or without."""
    commit: Commit = DeltaLog.commit

    def lose(error: Exception, has_landed: bool) -> None:
        def failing(self: DeltaLog, *arguments: object, **options: object) -> None:
            monkeypatch.setattr(DeltaLog, "commit", commit)
            if has_landed:
                other = DeltaLog.load(self.place)
                assert other is not None
                commit(other, *arguments, **options)
            raise error

        monkeypatch.setattr(DeltaLog, "commit", failing)

    return lose


@pytest.mark.parametrize("has_landed", [True, False])
@pytest.mark.parametrize("error", [UnavailableError("timeout"), OvertakenError("conflict")])
def test_rows_whose_commit_failed_are_sent_again_and_committed_once(
    place: Path,
    samples: SampleTable,
    lose: Callable[[Exception, bool], None],
    error: Exception,
    has_landed: bool,
) -> None:
    store = SampleStore.open(place, create=True)
    store.append([samples([1])])
    sent, more = samples([2, 3]), samples([3, 4])
    lose(error, has_landed)
    with pytest.raises(UnavailableError):
        store.append([sent])
    committed = store.append([sent, more])
    assert _ids(committed) == _ids(samples([2, 3, 4]))
    assert store.append([sent, more]).num_rows == 0
    assert _ids(store.read()) == _ids(samples([1, 2, 3, 4]))
    assert store.counts() == {"ok": 4}


def test_a_compaction_that_fails_costs_nothing(
    place: Path, samples: SampleTable, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store_module, "COMPACT_FILES", 3)
    store = SampleStore.open(place, create=True)

    def no_space(_: DeltaLog) -> None:
        raise UnavailableError("No space left on device")

    with monkeypatch.context() as full:
        full.setattr(DeltaLog, "checkpoint", no_space)
        for number in range(4):
            assert len(store.append([samples([number])])) == 1
    assert len(store.append([samples([4])])) == 1
    assert _ids(SampleStore.open(place, create=False).read()) == _ids(samples(range(5)))


def test_a_full_disk_is_one_line_and_leaves_no_half_file(
    place: Path, samples: SampleTable, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = SampleStore.open(place, create=True)

    def no_space(_: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as full:
        full.setattr(os, "fsync", no_space)
        with pytest.raises(UnavailableError, match="sample store .*: No space left on device$"):
            store.append([samples([1])])
    assert not list(place.glob("*.parquet*"))
    assert len(store.append([samples([1])])) == 1


def test_a_reader_opened_before_a_compaction_still_reads(
    place: Path, samples: SampleTable, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Replaced files are kept for a day."""
    monkeypatch.setattr(store_module, "COMPACT_FILES", 4)
    store = SampleStore.open(place, create=True)
    for number in range(3):
        store.append([samples([number])])
    reader = SampleStore.open(place, create=False)
    for path in place.glob("*.parquet"):
        # old files are no reason: what counts is when they were replaced
        os.utime(path, (0, 0))
    for number in range(3, 9):
        store.append([samples([number])])
    assert len(DeltaLog.load(reader._place).files()) < 4  # type: ignore[union-attr]
    assert _ids(reader.read()) == _ids(samples(range(3)))


@pytest.mark.parametrize("version", [1, 77])
def test_a_version_whose_files_are_gone_is_refused(
    place: Path, samples: SampleTable, version: int
) -> None:
    store = SampleStore.open(place, create=True)
    for number in range(3):
        store.append([samples([number])])
    for path in place.glob("*.parquet"):
        path.unlink()
    with pytest.raises(InputError, match=f"version = {version}: its files are gone"):
        store.read(version=version)


def test_what_was_written_but_not_committed_is_no_row(place: Path, samples: SampleTable) -> None:
    store = SampleStore.open(place, create=True)
    name, data = encoded(samples([1]))
    store._place.write(name, data)
    assert DataFile(name=name, size=len(data), rows=1) not in store._log.files()
    assert len(SampleStore.open(place, create=False).read()) == 0


def test_the_last_commit_has_a_time_and_columns_are_read_alone(
    place: Path, samples: SampleTable
) -> None:
    before_ms = 1e3 * time.time() - 1
    store = SampleStore.open(place, create=True)
    store.append([samples([1, 2])])
    assert store.committed_ms is not None
    assert before_ms <= store.committed_ms <= 1e3 * time.time() + 1
    assert store.columns("cell_id", "agent").column_names == ["cell_id", "agent"]


# Names of places

NAMES = ("feature%2Fx", "per%cent", "what?", "a\\b", "[x]#1", "two words", "日本", "new\nline")


@pytest.mark.parametrize("name", NAMES)
def test_a_store_in_a_folder_of_any_name_lies_there(
    tmp_path: Path, samples: SampleTable, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store_module, "COMPACT_FILES", 2)
    monkeypatch.setattr(store_module, "RETENTION_S", 0)
    place = tmp_path / name / "samples"
    store = SampleStore.open(place, create=True)
    for number in range(3):
        store.append([samples([number])])
    for same in (place, str(place), place.as_uri()):
        assert _ids(SampleStore.open(same, create=False).read()) == _ids(samples(range(3)))
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_the_neighbour_with_the_decoded_name_is_not_read(
    tmp_path: Path, samples: SampleTable
) -> None:
    neighbour = SampleStore.open(tmp_path / "feature" / "x" / "samples", create=True)
    neighbour.append([samples([1])])
    place = tmp_path / "feature%2Fx" / "samples"
    with pytest.raises(InputError, match="no sample store there"):
        SampleStore.open(place, create=False)
    SampleStore.open(place, create=True).append([samples([2])])
    assert _ids(SampleStore.open(place, create=False).read()) == _ids(samples([2]))
    assert len(neighbour.read()) == 1


def test_a_name_that_no_library_can_open_is_refused_before_anything_is_written(
    tmp_path: Path,
) -> None:
    for name in (os.fsdecode(bytes(tmp_path) + b"/x\xff"), "file://elsewhere/samples"):
        with pytest.raises(InputError, match="--store = "):
            SampleStore.open(name, create=True)
    assert not list(tmp_path.iterdir())
