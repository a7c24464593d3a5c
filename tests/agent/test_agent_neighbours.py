"""Which cell was it? Several are under way when a real child dies, hangs or reports a fault."""

from __future__ import annotations

import json
import logging
import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from agent.supervisor import MAX_DEATHS, ChildSupervisor, Lease
from gemmcast.cell import Cell
from gemmcast.device import Device

MakeCell = Callable[..., Cell]
MakeSupervisor = Callable[..., ChildSupervisor]
PROGRAM = (sys.executable, str(Path(__file__).parent / "neighbour_child.py"))
SIX = (8, 16, 24, 32, 40, 48)


@dataclass
class Result:
    rows: list[dict[str, Any]]
    notes: Counter[str]

    @property
    def failed(self) -> dict[int, str]:
        """m -> status of the cells that were not measured."""
        return {row["m"]: row["status"] for row in self.rows if row["status"] != "ok"}

    def reason(self, m: int) -> str:
        (reason,) = (row["reason"] for row in self.rows if row["m"] == m)
        return str(reason)


Measure = Callable[..., Result]


@pytest.fixture
def measure(
    make_supervisor: MakeSupervisor,
    make_cell: MakeCell,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Measure:
    """Measures six cells with children that have three under way and fail as `trouble` says."""

    def run(timeout_s: float = 60.0, *, depth: int | None = None, **trouble: list[int]) -> Result:
        # The first child describes the device.
        make_supervisor().stop()
        notes = tmp_path / "notes"
        notes.touch()
        settings = {"trouble": trouble, "notes": str(notes)}
        monkeypatch.setenv("TROUBLE", json.dumps(settings))
        now_s = 1000.0
        supervisor = make_supervisor(timeout_s, program=PROGRAM, depth=depth, clock=lambda: now_s)
        cells = [make_cell(m=m) for m in SIX]
        rows = []
        for row in supervisor.measure(cells):
            if row is not None:
                rows.append(row)
            elif notes.read_text().splitlines()[-1].startswith("hangs"):
                # Only a cell that hangs takes time.
                now_s += 1.1 * timeout_s
        assert sorted(row["cell_id"] for row in rows) == sorted(cell.cell_id for cell in cells)
        return Result(rows, Counter(notes.read_text().splitlines()))

    return run


@pytest.mark.cluster
def test_without_trouble_one_child_measures_all(measure: Measure) -> None:
    result = measure()
    assert (result.failed, result.notes) == ({}, {"start": 1})


@pytest.mark.cluster
@pytest.mark.parametrize("m", [8, 24, 48])
def test_the_cell_under_which_children_die_is_crashed_and_the_others_are_measured(
    measure: Measure, m: int, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING, "agent.supervisor"):
        result = measure(dies=[m])
    assert result.failed == {m: "crashed"}
    assert "died with status -9, 2 times" in result.reason(m)
    # The first cell is alone as it begins, so its first death counts already.
    was_with_others = m != 8
    assert result.notes[f"dies {m}"] == MAX_DEATHS + was_with_others
    warned = any("each is tried alone" in line for line in caplog.messages)
    assert warned == was_with_others


@pytest.mark.cluster
def test_a_death_that_does_not_come_again_costs_no_row(measure: Measure) -> None:
    result = measure(dies_once=[24])
    assert result.failed == {}
    assert (result.notes["dies_once 24"], result.notes["start"]) == (1, 2)


@pytest.mark.cluster
def test_several_culprits_are_identified_one_by_one(measure: Measure) -> None:
    result = measure(dies=[16, 24], faults=[48])
    assert result.failed == {16: "crashed", 24: "crashed", 48: "cuda_error"}


@pytest.mark.cluster
def test_a_fault_under_several_cells_is_the_row_of_the_one_that_faults_alone(
    measure: Measure,
) -> None:
    result = measure(faults=[24])
    assert result.failed == {24: "cuda_error"}
    assert result.reason(24) == "cudaErrorIllegalAddress"
    assert result.notes["faults 24"] <= 2


@pytest.mark.cluster
def test_only_the_cell_that_hangs_alone_is_a_timeout(measure: Measure) -> None:
    result = measure(2.0, hangs=[24])
    assert result.failed == {24: "timeout"}
    assert result.reason(24) == "ran longer than 2 s and was killed"
    # With others, then alone.
    assert result.notes["hangs 24"] == 2


@pytest.mark.cluster
def test_a_spec_of_depth_one_has_one_cell_under_way(measure: Measure) -> None:
    result = measure(depth=1, dies=[24])
    assert result.failed == {24: "crashed"}
    assert [row["m"] for row in result.rows] == list(SIX)
    assert result.notes == {"dies 24": MAX_DEATHS, "start": MAX_DEATHS + 1}


LONE_FAULT = """
import sys
from multiprocessing.connection import Connection
from agent.messages import Fault, Ready, Started
from gemmcast import modeldir
pipe = Connection(int(sys.argv[1]))
spec = pipe.recv()
(device,) = modeldir.devices(spec.model_dir)
pipe.send(Ready(device))
request = pipe.recv()
pipe.send(Started(request.cells[0].cell_id))
pipe.send(Fault("cudaErrorECCUncorrectable"))
"""


@pytest.mark.cluster
def test_a_fault_that_is_reported_under_one_cell_is_its_row(
    make_supervisor: MakeSupervisor, make_cell: MakeCell, device: Device, tmp_path: Path
) -> None:
    """A child that reports it again and again must not be started for ever."""
    from gemmcast import modeldir

    modeldir.put_device(tmp_path, device)
    program = (sys.executable, "-c", LONE_FAULT)
    supervisor = make_supervisor(program=program, model_dir=tmp_path)
    cells = [make_cell(m=8), make_cell(m=16)]
    rows = [row for row in supervisor.measure(cells) if row is not None]
    assert [row["m"] for row in rows] == [8, 16]
    for row in rows:
        assert (row["status"], row["reason"]) == ("cuda_error", "cudaErrorECCUncorrectable")


@pytest.fixture
def cells(make_cell: MakeCell) -> list[Cell]:
    return [make_cell(m=m) for m in SIX]


def test_of_several_under_way_each_is_measured_alone(cells: list[Cell]) -> None:
    lease = Lease(cells)
    assert lease.next_cells() == cells
    for cell in cells[:3]:
        lease.start(cell.cell_id)
    lease.remove(cells[1].cell_id)
    assert lease.culprit() is None
    assert lease.next_cells() == [cells[0]]
    lease.start(cells[0].cell_id)
    lease.remove(cells[0].cell_id)
    assert lease.next_cells() == [cells[2]]
    lease.start(cells[2].cell_id)
    assert lease.culprit() == cells[2]
    # Until it has a row.
    assert lease.next_cells() == [cells[2]]
    lease.remove(cells[2].cell_id)
    assert lease.next_cells() == cells[3:]


def test_one_under_way_is_the_culprit(cells: list[Cell]) -> None:
    lease = Lease(cells)
    lease.next_cells()
    lease.start(cells[0].cell_id)
    lease.start(cells[1].cell_id)
    lease.remove(cells[0].cell_id)
    assert lease.culprit() == cells[1]
    assert lease.suspects == []


def test_a_child_that_dies_before_it_begins_counts_against_the_next_cell(
    cells: list[Cell],
) -> None:
    lease = Lease(cells)
    lease.next_cells()
    assert lease.culprit() == cells[0]
    lease.suspects = cells[3:5]
    lease.next_cells()
    assert lease.culprit() == cells[3]


def test_the_same_cell_twice_is_two_rows(make_cell: MakeCell) -> None:
    cell = make_cell()
    lease = Lease([cell, cell])
    lease.remove(cell.cell_id)
    assert lease.todo == [cell]
