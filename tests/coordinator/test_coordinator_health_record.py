"""What a workspace remembers of sick boards, what is not trained on, and the command `health`."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from coordinator import training
from coordinator.fleet.session import Places
from coordinator.health.findings import Finding, Verdict
from coordinator.health.record import HealthRecord
from coordinator.health.reference import read_reference
from coordinator.health.screen import screened
from coordinator.health.shifts import Shift
from coordinator.health_check import HealthCheck, check_boards
from coordinator.progress import RunDisplay
from coordinator.samples.store import SampleStore
from coordinator.workspace import Workspace
from costmodel.settings import TrainSettings
from gemmcast.arrow import to_table
from gemmcast.errors import InputError
from gemmcast.gemm import DTYPES
from gemmcast.rows import Row

Ended = subprocess.CompletedProcess[str]
Coordinator = Callable[..., Ended]
H100 = "GPU-640beb2f-b61e-0259-d52a-c16218cfa519"
NAME = "NVIDIA H100 80GB HBM3"
USUAL = Shift(shift=0.0, sigmas=0.1, cells=12, sisters=3, against="sisters")


def at(minute: int) -> str:
    return f"2026-01-01T12:{minute:02}:00.000+00:00"


def verdict(minute: int, *sorts: str, since: str = "") -> Verdict:
    findings = tuple(Finding(sort=sort, text=f"is {sort}", since=since) for sort in sorts)
    return Verdict(
        board="GPU-a",
        device="Paper GPU 80GB",
        agent="host/gpu0",
        cells=40,
        began_at=at(minute),
        checked_at=at(minute + 1),
        findings=findings,
        shifts={"compute": USUAL},
    )


def samples_at(*minutes: int, board: str = "GPU-a") -> pa.Table:
    row = read_reference().slice(0, 1).to_pylist()[0]
    return to_table([row | {"device_uuid": board, "measured_at": at(minute)} for minute in minutes])


def minutes_of(table: pa.Table) -> list[int]:
    return [int(moment[14:16]) for moment in table["measured_at"].to_pylist()]


def test_a_spell_lasts_from_the_first_finding_to_the_check_that_sees_it_well(
    tmp_path: Path,
) -> None:
    path = tmp_path / "health.json"
    record = HealthRecord().after_check([verdict(10, "slow")])
    record = record.after_check([verdict(20, "slow", "hot")])
    record.write(path)
    record = HealthRecord.read(path)
    (sick,) = record.sick()
    assert [finding.since for finding in sick.findings] == [at(10), at(20)]
    assert minutes_of(record.without_sick(samples_at(9, 10, 15, 40))) == [9]
    record = record.after_check([verdict(30)])
    assert record.sick() == []
    assert minutes_of(record.without_sick(samples_at(9, 10, 15, 40))) == [9, 40]
    others = samples_at(15, board="GPU-b")
    assert minutes_of(record.without_sick(others)) == [15]


def test_the_metric_of_a_board_has_its_reasons_and_loses_them() -> None:
    def reasons(record: HealthRecord) -> dict[str, bool]:
        return {labels["reason"]: is_so for labels, is_so in record.labels()}

    well = HealthRecord().after_check([verdict(10)])
    assert reasons(well) == {"": False}
    sick = well.after_check([verdict(20, "slow", "hot")])
    assert {name for name, is_so in reasons(sick).items() if is_so} == {"", "slow", "hot"}
    assert "power" in reasons(sick)
    assert not any(reasons(sick.after_check([verdict(30)])).values())
    assert {labels["board"] for labels, _ in sick.labels()} == {"GPU-a"}


def test_a_run_finds_a_board_sick_but_never_well() -> None:
    record = HealthRecord().after_run([verdict(10, "slow", since=at(4))])
    assert record.spells[0].since == at(4)
    assert record.after_run([verdict(30)]).sick() == record.sick()


def test_a_board_that_others_use_is_neither_sick_nor_cleared() -> None:
    sick = HealthRecord().after_check([verdict(10, "slow")])
    assert sick.after_check([verdict(20, "shared")]).sick() == sick.sick()
    assert HealthRecord().after_check([verdict(20, "shared")]).sick() == []


def test_clearing_ends_a_spell_by_hand() -> None:
    record = HealthRecord().after_check([verdict(10, "slow")]).cleared("GPU-a", at(20))
    assert record.sick() == []
    assert minutes_of(record.without_sick(samples_at(9, 15, 25))) == [9, 25]
    with pytest.raises(InputError, match="--clear = 'GPU-a': is not sick; name one of: none"):
        record.cleared("GPU-a", at(30))


def test_a_damaged_record_is_refused(tmp_path: Path) -> None:
    """To go on as if every board were well could train on what is wrong."""
    path = tmp_path / "health.json"
    path.write_text('{"boards": []}')
    with pytest.raises(InputError, match=r"health.json = .* delete it and run"):
        HealthRecord.read(path)


def sweep(percent: float) -> list[Row]:
    """Four H100s divide 800 cells, and the third is slow from the 320th on."""
    known = pc.and_(
        pc.equal(read_reference()["device"], NAME), pc.is_null(read_reference()["power_w"])
    )
    rows = read_reference().filter(known).to_pylist()
    rng = np.random.default_rng(0)
    swept: list[Row] = []
    for number in range(800):
        row = rows[rng.integers(len(rows))]
        is_slow = number % 4 == 2 and number >= 320
        factor = (1 + percent / 100 * is_slow) * np.exp(0.003 * rng.standard_normal())
        changes = {
            "device_uuid": f"GPU-{number % 4}",
            "alpha": 1.0 + number,
            "cell_id": f"cell-{number}",
            "sample_id": f"sample-{number}",
            "runtime_us": float(row["runtime_us"] * factor),
            "measured_at": f"2026-01-01T12:{number // 60:02}:{number % 60:02}.000+00:00",
        }
        swept.append(row | changes)
    return swept


def test_a_run_leaves_out_what_a_sick_board_measured(tmp_path: Path) -> None:
    table = to_table(sweep(12))
    place = Workspace(tmp_path)
    kept = screened(table, place)
    (spell,) = HealthRecord.read(place.health).spells
    assert spell.board == "GPU-2"
    assert "12:05:10" <= spell.since[11:19] <= "12:05:30"
    kept_ids = set(kept["sample_id"].to_pylist())
    dropped = [row for row in table.to_pylist() if row["sample_id"] not in kept_ids]
    assert {row["device_uuid"] for row in dropped} == {"GPU-2"}
    assert 116 <= len(dropped) <= 124
    assert screened(table, place).num_rows == kept.num_rows


def test_a_run_of_boards_that_are_well_keeps_every_sample(tmp_path: Path) -> None:
    table = to_table(sweep(0))
    assert screened(table, Workspace(tmp_path)).equals(table)
    assert not (tmp_path / "health.json").exists()


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    """Samples of a sweep with a slow board."""
    samples = SampleStore.open(tmp_path / "samples", create=True)
    samples.append([to_table(sweep(12))])
    return tmp_path


def test_the_command_judges_samples_and_status_names_the_sick(
    coordinator: Coordinator, workspace: Path
) -> None:
    ended = coordinator("health", "--samples", "--workspace", workspace, "--json")
    assert ended.returncode == 1, ended.stderr
    values: dict[str, Any] = json.loads(ended.stdout)
    assert values["sick"] == ["GPU-2"]
    (finding,) = next(one for one in values["boards"] if one["sick"])["findings"]
    assert finding["sort"] == "slow"
    assert finding["since"].startswith("2026-01-01T12:05:")
    status = coordinator("status", "--workspace", workspace).stdout
    assert "sick: GPU-2" in status
    assert "its samples are not trained on" in status
    cleared = coordinator("health", "--clear", "GPU-2", "--workspace", workspace)
    assert cleared.returncode == 0
    assert "sick" not in coordinator("status", "--workspace", workspace).stdout


def test_the_last_line_says_how_many_boards_were_not_judged(
    coordinator: Coordinator, workspace: Path, tmp_path: Path
) -> None:
    alone = [row for row in sweep(0) if row["device_uuid"] == "GPU-2"]
    samples = SampleStore.open(tmp_path / "alone" / "samples", create=True)
    samples.append([to_table(alone[:9])])
    ended = coordinator("health", "--samples", "--workspace", tmp_path / "alone")
    assert ended.stdout.splitlines()[-1] == "Boards checked: 1, sick: 0, not judged: 1."
    ended = coordinator("health", "--samples", "--workspace", workspace)
    assert "not judged" not in ended.stdout.splitlines()[-1]


def test_train_leaves_out_what_a_sick_board_measured(
    workspace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    screened(SampleStore.open(workspace / "samples", create=False).read(), Workspace(workspace))

    class Trained(Exception):
        """Instead of a training."""

    def fit(table: pa.Table, *_: object) -> None:
        raise Trained(len(table))

    monkeypatch.setattr(training, "fit_and_judge", fit)
    with pytest.raises(Trained) as caught:
        training.train_workspace(
            Workspace(workspace), Places(), TrainSettings(), [], None, lambda *_: None
        )
    assert 676 <= caught.value.args[0] <= 684


@pytest.mark.parametrize("seconds", ["0", "4000"])
def test_a_time_out_of_bounds_is_refused(
    coordinator: Coordinator, tmp_path: Path, seconds: str
) -> None:
    ended = coordinator("health", "--seconds", seconds, "--workspace", tmp_path / "none")
    assert ended.returncode == 2
    assert "--seconds" in ended.stderr
    assert not (tmp_path / "none").exists()


def test_a_dataset_that_is_not_there_changes_nothing(
    coordinator: Coordinator, tmp_path: Path
) -> None:
    ended = coordinator(
        "health", "--dataset", tmp_path / "no.parquet", "--workspace", tmp_path / "w"
    )
    assert ended.returncode == 2
    assert "no such file" in ended.stderr
    assert not (tmp_path / "w").exists()


@pytest.mark.cluster
def test_a_check_measures_judges_and_remembers(tmp_path: Path) -> None:
    """A recorded board that answers 4 % slower than it was, held against the reference."""
    rows = read_reference().filter(pc.equal(read_reference()["device_uuid"], H100)).to_pylist()
    slow = [row | {"runtime_us": 1.04 * row["runtime_us"]} for row in rows]
    dataset = tmp_path / "slow.parquet"
    pq.write_table(to_table(slow), dataset)
    place = Workspace(tmp_path / "workspace")
    check = check_boards(place, 60.0, RunDisplay(), "local", dataset)
    assert isinstance(check, HealthCheck)
    assert check.file is not None
    (found,) = check.verdicts
    assert [finding.sort for finding in found.findings] == ["slow"]
    assert re.search(r"4\.\d % slower than its only sister", found.findings[0].text)
    assert len(pq.read_table(check.file)) > len(rows)
    assert [one.board for one in HealthRecord.read(place.health).sick()] == [H100]
    assert (check.left, check.silent) == (0, 0)


def test_the_reference_holds_every_kind_of_cell_of_two_boards() -> None:
    reference = read_reference()
    for name in (NAME, "NVIDIA H200"):
        rows = reference.filter(pc.equal(reference["device"], name))
        shapes = {(row["m"], row["n"], row["k"]) for row in rows.to_pylist()}
        assert len(shapes) == 16
        assert len(set(rows["device_uuid"].to_pylist())) >= 2
        assert set(rows["dtype"].to_pylist()) == set(DTYPES) - {"fp64", "int8"}
