"""What a power cut or a bad disk leaves of a store: it opens at its last whole version and says so.

Cuts are emulated on copies: whatever had no fsync yet is missing, empty or short. A flipped bit may
cost rows, which are counted, but is never a value.
"""

from __future__ import annotations

import os
import random
import shutil
from collections.abc import Callable, Sequence
from itertools import product
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from deltalake import DeltaTable, write_deltalake

from coordinator.plan.cells import plan_cells
from coordinator.plan.schema import Plan
from coordinator.samples import store as store_module
from coordinator.samples.store import SampleStore
from gemmcast.arrow import to_table
from gemmcast.device import Device
from gemmcast.rows import Row

OLD_FILE = Path(__file__).parents[1] / "before" / "kernels.parquet"
"""Written by a program of schema 2."""
COMMITS, ROWS = 6, 4
FLIPS = 60
Damage = Callable[[Path], None]


@pytest.fixture(scope="module")
def batches(
    make_plan: Callable[..., Plan], cpu: Device, measure: Callable[..., Row]
) -> list[pa.Table]:
    """The rows of each commit."""
    cells = plan_cells(make_plan({"sample": (COMMITS + 1) * ROWS, "max": 4096}), cpu).cells
    rows = [measure(cell, cpu) for cell in cells]
    return [to_table(rows[start : start + ROWS]) for start in range(0, len(rows), ROWS)]


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory, batches: list[pa.Table]) -> Path:
    """A store of COMMITS commits, compacted with its fourth file; the last commit is the newest."""
    place = tmp_path_factory.mktemp("damage") / "samples"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(store_module, "COMPACT_FILES", 4)
        store = SampleStore.open(place, create=True)
        for rows in batches[:COMMITS]:
            store.append([rows])
    return place


@pytest.fixture(scope="module")
def compacted(template: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same, compacted once more as its last step."""
    place = Path(shutil.copytree(template, tmp_path_factory.mktemp("compacted") / "samples"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(store_module, "COMPACT_FILES", 1)
        SampleStore.open(place, create=True).append([])
    return place


@pytest.fixture
def place(template: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(template, tmp_path / "samples"))


def _remove(path: Path) -> None:
    path.unlink()


def _empty(path: Path) -> None:
    path.write_bytes(b"")


def _halve(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def _blank(path: Path) -> None:
    path.write_bytes(bytes(path.stat().st_size))


def _first_line(path: Path) -> None:
    """Of a log entry: JSON still, but the file that it adds is gone."""
    path.write_bytes(path.read_bytes().splitlines(keepends=True)[0])


DAMAGES: Sequence[Damage] = (_remove, _empty, _halve, _blank)
CUTS: Sequence[Damage | None] = (None, _remove, _empty, _halve)


def _entries(place: Path) -> list[Path]:
    return sorted((place / "_delta_log").glob("*.json"))


def _ids(tables: Sequence[pa.Table]) -> list[str]:
    return sorted(pa.concat_tables(tables)["cell_id"].to_pylist())


def _read(place: Path, *, create: bool = False) -> list[str]:
    return sorted(SampleStore.open(place, create=create).read()["cell_id"].to_pylist())


@pytest.mark.parametrize("create", [False, True], ids=["reader", "writer"])
@pytest.mark.parametrize("damage", [_empty, _halve, _blank, _first_line])
def test_a_cut_of_the_newest_log_entry_costs_nothing_while_its_data_file_is_whole(
    place: Path,
    batches: list[pa.Table],
    damage: Damage,
    create: bool,
    caplog: pytest.LogCaptureFixture,
) -> None:
    newest = _entries(place)[-1]
    damage(newest)
    assert _read(place, create=create) == _ids(batches[:COMMITS])
    (line,) = [record.getMessage() for record in caplog.records]
    version = int(newest.stem)
    assert f"was damaged: lost versions {version} to {version} of its log; " in line
    assert line.endswith(f"{ROWS} rows rescued, {COMMITS * ROWS} rows in all")
    assert (place / "_damaged" / newest.name).exists()
    caplog.clear()
    assert _read(place, create=create) == _ids(batches[:COMMITS])
    assert not caplog.records
    assert len(SampleStore.open(place, create=True).append(batches)) == ROWS
    assert _read(place) == _ids(batches)


@pytest.mark.parametrize("damage", [_empty, _first_line])
def test_a_damaged_entry_before_the_newest_one_costs_nothing(
    place: Path, batches: list[pa.Table], damage: Damage, caplog: pytest.LogCaptureFixture
) -> None:
    damage(_entries(place)[-2])
    assert _read(place) == _ids(batches[:COMMITS])
    assert f"{2 * ROWS} rows rescued" in caplog.text


def test_a_store_without_any_whole_log_is_made_again_from_its_data_files(
    place: Path, batches: list[pa.Table], caplog: pytest.LogCaptureFixture
) -> None:
    for path in (place / "_delta_log").iterdir():
        _halve(path)
    assert _read(place) == _ids(batches[:COMMITS])
    assert f"{COMMITS * ROWS} rows rescued" in caplog.text


@pytest.mark.parametrize("damage", [_empty, _halve])
def test_a_store_that_delta_lake_wrote_itself_is_mended_too(
    tmp_path: Path, batches: list[pa.Table], damage: Damage, caplog: pytest.LogCaptureFixture
) -> None:
    """As older programs did: its data files have no digest, but they can be read."""
    place = tmp_path / "samples"
    for rows in batches[:3]:
        write_deltalake(str(place), rows, mode="append")
    DeltaTable(place).create_checkpoint()
    write_deltalake(str(place), batches[3], mode="append")
    damage(_entries(place)[-1])
    _halve(place / "_delta_log" / "_last_checkpoint")
    assert _read(place) == _ids(batches[:4])
    assert "lost versions 3 to 3 of its log; 4 rows rescued, 16 rows in all" in caplog.text


def test_the_log_of_a_store_that_delta_lake_wrote_itself_may_be_gone(
    tmp_path: Path, batches: list[pa.Table]
) -> None:
    place = tmp_path / "samples"
    write_deltalake(str(place), batches[0], mode="append")
    write_deltalake(str(place), batches[1], mode="append")
    for path in (place / "_delta_log").iterdir():
        _halve(path)
    assert _read(place) == _ids(batches[:2])


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_bad_checkpoint_costs_nothing(
    place: Path, batches: list[pa.Table], damage: Damage
) -> None:
    checkpoint = max((place / "_delta_log").glob("*.checkpoint.parquet"))
    damage(checkpoint)
    assert _read(place) == _ids(batches[:COMMITS])
    assert len(SampleStore.open(place, create=True).append(batches)) == ROWS


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_bad_hint_costs_nothing(place: Path, batches: list[pa.Table], damage: Damage) -> None:
    hint = place / "_delta_log" / "_last_checkpoint"
    damage(hint)
    assert _read(place) == _ids(batches[:COMMITS])
    hint.write_text('{"version":99,"size":1}')
    assert _read(place) == _ids(batches[:COMMITS])


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_bad_data_file_is_left_out_counted_and_measured_again(
    place: Path, batches: list[pa.Table], damage: Damage, caplog: pytest.LogCaptureFixture
) -> None:
    newest = max(place.glob("*.parquet"), key=lambda path: path.stat().st_mtime_ns)
    damage(newest)
    assert _read(place) == _ids(batches[: COMMITS - 1])
    (line,) = [record.getMessage() for record in caplog.records]
    assert f"lost 1 of 3 data files ({ROWS} rows): {newest.name}; 0 rows rescued" in line
    store = SampleStore.open(place, create=True)
    assert len(store.append([batches[COMMITS - 1]])) == ROWS
    caplog.clear()
    assert _read(place) == _ids(batches[:COMMITS])
    assert not caplog.records


def test_a_file_that_changes_while_the_store_is_open_is_left_out_of_the_training(
    place: Path, batches: list[pa.Table], caplog: pytest.LogCaptureFixture
) -> None:
    store = SampleStore.open(place, create=False)
    newest = max(place.glob("*.parquet"), key=lambda path: path.stat().st_mtime_ns)
    _flip(newest, 4321)
    assert _ids([store.read()]) == _ids(batches[: COMMITS - 1])
    assert f"left out 1 of 3 data files ({ROWS} rows): {newest.name}" in caplog.text


def test_a_bad_file_of_a_compaction_costs_nothing_while_the_old_ones_are_kept(
    compacted: Path, tmp_path: Path, batches: list[pa.Table]
) -> None:
    place = Path(shutil.copytree(compacted, tmp_path / "samples"))
    SampleStore.open(place, create=True).append([batches[COMMITS]])
    _halve(max(place.glob("*.parquet"), key=lambda path: path.stat().st_size))
    assert _read(place) == _ids(batches)


@pytest.mark.parametrize(("entry", "data"), list(product(CUTS, repeat=2)))
def test_a_cut_in_a_commit(
    place: Path, batches: list[pa.Table], entry: Damage | None, data: Damage | None
) -> None:
    """Log entry and data file of the last commit: rows are lost only with their file.

    Without its entry a commit never counted: the process ended before.
    """
    newest = max(place.glob("*.parquet"), key=lambda path: path.stat().st_mtime_ns)
    if entry:
        entry(_entries(place)[-1])
    if data:
        data(newest)
    is_lost = data is not None or entry is _remove
    whole = COMMITS - 1 if is_lost else COMMITS
    assert _read(place) == _ids(batches[:whole])
    store = SampleStore.open(place, create=True)
    assert len(store.append(batches)) == (COMMITS + 1 - whole) * ROWS
    assert _read(place) == _ids(batches)


@pytest.mark.parametrize(
    ("hint", "checkpoint", "entry"), list(product((None, _remove, _halve), repeat=3))
)
def test_a_cut_in_a_compaction(
    compacted: Path,
    tmp_path: Path,
    batches: list[pa.Table],
    hint: Damage | None,
    checkpoint: Damage | None,
    entry: Damage | None,
) -> None:
    """Hint, checkpoint and log entry of a compaction: the rows before it are never lost."""
    place = Path(shutil.copytree(compacted, tmp_path / "samples"))
    log = place / "_delta_log"
    if hint:
        hint(log / "_last_checkpoint")
    if checkpoint:
        checkpoint(max(log.glob("*.checkpoint.parquet")))
    if entry:
        entry(_entries(place)[-1])
    assert _read(place) == _ids(batches[:COMMITS])
    store = SampleStore.open(place, create=True)
    assert len(store.append(batches)) == ROWS
    assert _read(place) == _ids(batches)


def _flip(path: Path, bit: int) -> None:
    data = bytearray(path.read_bytes())
    data[bit // 8] ^= 1 << bit % 8
    path.write_bytes(data)


def test_a_flipped_bit_is_never_a_value(
    template: Path, tmp_path: Path, batches: list[pa.Table], caplog: pytest.LogCaptureFixture
) -> None:
    """Anywhere in the store: rows are as they were, or they are missing and that is said."""
    expected = {row["cell_id"]: row for rows in batches[:COMMITS] for row in rows.to_pylist()}
    files = [path for path in sorted(template.rglob("*")) if path.is_file()]
    files = [path for path in files if path.stat().st_size]
    generator = random.Random(20261128)
    for number in range(FLIPS):
        place = Path(shutil.copytree(template, tmp_path / str(number)))
        (chosen,) = generator.choices(files, [path.stat().st_size for path in files])
        damaged = place / chosen.relative_to(template)
        _flip(damaged, generator.randrange(8 * damaged.stat().st_size))
        caplog.clear()
        rows = SampleStore.open(place, create=False).read().to_pylist()
        assert all(row == expected[row["cell_id"]] for row in rows), damaged
        assert len(rows) == len(expected) or caplog.records, damaged
        shutil.rmtree(place)


def test_a_commit_counts_when_it_survives_a_cut(
    place: Path, batches: list[pa.Table], monkeypatch: pytest.MonkeyPatch
) -> None:
    """fsync of the data file and its folder come before the log entry, and that one's after it."""
    log = place / "_delta_log"
    store = SampleStore.open(place, create=True)
    entry = log / f"{store.version + 1:020}.json"
    before: list[Path] = []
    after: list[Path] = []
    sync = os.fsync

    def noted(handle: int) -> None:
        synced = Path(os.readlink(f"/proc/self/fd/{handle}"))
        (after if entry.exists() else before).append(synced)
        sync(handle)

    monkeypatch.setattr(os, "fsync", noted)
    store.append([batches[COMMITS]])
    newest = max(place.glob("*.parquet"), key=lambda path: path.stat().st_mtime_ns)
    unfinished, folder = before
    assert unfinished.name.startswith(f".{newest.name}.")
    assert (unfinished.parent, folder) == (place, place)
    assert {entry, log} <= set(after)


def test_old_log_entries_go_after_the_checkpoint_is_safe(
    place: Path, batches: list[pa.Table], monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: set[str] = set()
    safe: list[set[str]] = []
    sync, clean = os.fsync, DeltaTable.cleanup_metadata

    def noted(handle: int) -> None:
        synced.add(Path(os.readlink(f"/proc/self/fd/{handle}")).name)
        sync(handle)

    def clean_up(table: DeltaTable) -> None:
        safe.append(set(synced))
        clean(table)

    monkeypatch.setattr(os, "fsync", noted)
    monkeypatch.setattr(DeltaTable, "cleanup_metadata", clean_up)
    monkeypatch.setattr(store_module, "COMPACT_FILES", 1)
    SampleStore.open(place, create=True).append([batches[COMMITS]])
    newest = max((place / "_delta_log").glob("*.checkpoint.parquet"))
    assert {newest.name, "_last_checkpoint", "_delta_log"} <= safe[-1]


def test_a_file_that_changes_while_a_writer_writes_is_not_compacted_away_in_silence(
    place: Path,
    batches: list[pa.Table],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    store = SampleStore.open(place, create=True)
    newest = max(place.glob("*.parquet"), key=lambda path: path.stat().st_mtime_ns)
    _halve(newest)
    monkeypatch.setattr(store_module, "COMPACT_FILES", 1)
    store.append([batches[COMMITS]])
    assert f"left out 1 of 4 data files ({ROWS} rows): {newest.name}" in caplog.text
    assert sorted(store.committed) == _ids([*batches[: COMMITS - 1], batches[COMMITS]])
    assert len(store.append(batches)) == ROWS
    assert _read(place) == _ids(batches)


def test_a_damaged_store_of_an_older_schema_is_mended(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    place = tmp_path / "samples"
    rows = pq.read_table(OLD_FILE)
    for start in (0, 6, 12):
        write_deltalake(str(place), rows.slice(start, 6), mode="append")
    _halve(max(place.glob("*.parquet"), key=lambda path: path.stat().st_mtime_ns))
    assert len(SampleStore.open(place, create=False).read()) == 12
    assert "lost 1 of 3 data files (6 rows)" in caplog.text
    caplog.clear()
    assert len(SampleStore.open(place, create=True).read()) == 12
    assert not caplog.records
