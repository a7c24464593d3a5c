"""Whose fault was it? Several cells are under way when a real child dies, hangs or reports a fault; and the lease that keeps the books."""

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

from agent.supervisor import MAX_DEATHS, ChildSupervisor, _Lease
from gemmcast.cell import Cell
from gemmcast.device import Device

MakeCell = Callable[..., Cell]
MakeWorker = Callable[..., ChildSupervisor]
PROGRAM = (sys.executable, str(Path(__file__).parent / "company_child.py"))
SIX = (8, 16, 24, 32, 40, 48)
MEASURED = ("ok", "contended")
# on a CPU that we share, a row may end either way


@dataclass
class Told:
    rows: list[dict[str, Any]]
    notes: Counter[str]

    @property
    def failed(self) -> dict[int, str]:
        return {row["m"]: row["status"] for row in self.rows if row["status"] not in MEASURED}

    def reason(self, m: int) -> str:
        (reason,) = (row["reason"] for row in self.rows if row["m"] == m)
        return str(reason)


@pytest.fixture
def measure(make_worker: MakeWorker, make_cell: MakeCell, tmp_path: Path) -> Callable[..., Told]:
    """Measures six cells with children whose bench has three under way, and meets with that trouble."""

    def go(timeout_s: float = 60.0, *, depth: int | None = None, **trouble: list[int]) -> Told:
        make_worker().stop()  # describes the device
        notes = tmp_path / "notes"
        notes.touch()
        options = {} if depth is None else {"depth": depth}
        supervisor = make_worker(timeout_s, program=PROGRAM, trouble=trouble, notes=str(notes), **options)
        cells = [make_cell(m=m) for m in SIX]
        rows = [row for row in supervisor.measure(cells) if row is not None]
        assert sorted(row["cell_id"] for row in rows) == sorted(cell.cell_id for cell in cells)
        return Told(rows, Counter(notes.read_text().splitlines()))

    return go


@pytest.mark.cluster
def test_without_trouble_one_child_measures_all(measure: Callable[..., Told]) -> None:
    told = measure()
    assert (told.failed, told.notes) == ({}, {"start": 1})


@pytest.mark.cluster
@pytest.mark.parametrize("m", [8, 24, 48])
def test_the_cell_under_which_children_die_is_crashed_and_the_others_are_measured(
    measure: Callable[..., Told], m: int, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING, "agent.supervisor"):
        told = measure(dies=[m])
    assert told.failed == {m: "crashed"}
    assert "died with status -9, 2 times" in told.reason(m)
    in_company = m != 8  # the first is alone as it begins: its first death counts already
    assert told.notes[f"dies {m}"] == MAX_DEATHS + in_company
    assert any("were under way when the measuring process ended; they are tried one by one" in line for line in caplog.messages) == in_company


@pytest.mark.cluster
def test_a_death_that_does_not_come_again_costs_nobody_a_row(measure: Callable[..., Told]) -> None:
    told = measure(dies_once=[24])
    assert told.failed == {}
    assert (told.notes["dies_once 24"], told.notes["start"]) == (1, 2)


@pytest.mark.cluster
def test_several_culprits_are_found_one_by_one(measure: Callable[..., Told]) -> None:
    told = measure(dies=[16, 24], faults=[48])
    assert told.failed == {16: "crashed", 24: "crashed", 48: "cuda_error"}


@pytest.mark.cluster
def test_a_fault_under_several_cells_is_the_row_of_the_one_that_faults_alone(measure: Callable[..., Told]) -> None:
    told = measure(faults=[24])
    assert told.failed == {24: "cuda_error"}
    assert told.reason(24) == "cudaErrorIllegalAddress"
    assert told.notes["faults 24"] <= 2


@pytest.mark.cluster
def test_only_the_cell_that_hangs_alone_is_a_timeout(measure: Callable[..., Told]) -> None:
    told = measure(2.0, hangs=[24])
    assert told.failed == {24: "timeout"}
    assert told.reason(24) == "ran longer than 2 s and was killed"
    assert told.notes["hangs 24"] == 2  # in company, then alone


@pytest.mark.cluster
def test_a_worker_that_is_told_so_has_one_cell_under_way(measure: Callable[..., Told]) -> None:
    told = measure(depth=1, dies=[24])
    assert told.failed == {24: "crashed"}
    assert [row["m"] for row in told.rows] == list(SIX)
    assert told.notes == {"dies 24": MAX_DEATHS, "start": MAX_DEATHS + 1}


LONE_FAULT = """
import json, sys
from multiprocessing.connection import Connection
pipe, device = Connection(int(sys.argv[1])), json.loads(sys.argv[2])["device"]
pipe.send_bytes(json.dumps({"ready": device}).encode())
cell = json.loads(pipe.recv_bytes())["measure"][0]
from gemmcast.cell import Cell
pipe.send_bytes(json.dumps({"started": Cell.from_dict(cell).cell_id}).encode())
pipe.send_bytes(json.dumps({"fault": "cudaErrorECCUncorrectable"}).encode())
"""


@pytest.mark.cluster
def test_a_fault_that_is_reported_under_one_cell_is_its_row(make_worker: MakeWorker, make_cell: MakeCell, device: Device) -> None:
    """A child that says so again and again must not be started for ever."""
    supervisor = make_worker(program=(sys.executable, "-c", LONE_FAULT), device=json.loads(device.to_json()))
    rows = [row for row in supervisor.measure([make_cell(m=8), make_cell(m=16)]) if row is not None]
    assert [(row["m"], row["status"], row["reason"]) for row in rows] == [(m, "cuda_error", "cudaErrorECCUncorrectable") for m in (8, 16)]


@pytest.fixture
def cells(make_cell: MakeCell) -> list[Cell]:
    return [make_cell(m=m) for m in SIX]


def test_of_several_under_way_nobody_is_the_culprit_and_each_is_asked_for_alone(cells: list[Cell]) -> None:
    lease = _Lease(cells)
    assert lease.ask() == cells
    for cell in cells[:3]:
        lease.start(cell.cell_id)
    lease.remove(cells[1].cell_id)
    assert lease.culprit() is None
    assert lease.ask() == [cells[0]]
    lease.start(cells[0].cell_id)
    lease.remove(cells[0].cell_id)
    assert lease.ask() == [cells[2]]
    lease.start(cells[2].cell_id)
    assert lease.culprit() == cells[2]
    assert lease.ask() == [cells[2]]  # until it has a row
    lease.remove(cells[2].cell_id)
    assert lease.ask() == cells[3:]


def test_one_under_way_is_the_culprit(cells: list[Cell]) -> None:
    lease = _Lease(cells)
    lease.ask()
    lease.start(cells[0].cell_id)
    lease.start(cells[1].cell_id)
    lease.remove(cells[0].cell_id)
    assert lease.culprit() == cells[1]
    assert lease.suspects == []


def test_a_child_that_dies_before_it_begins_is_held_against_the_next_cell(cells: list[Cell]) -> None:
    lease = _Lease(cells)
    lease.ask()
    assert lease.culprit() == cells[0]
    lease.suspects = cells[3:5]
    lease.ask()
    assert lease.culprit() == cells[3]


def test_the_same_cell_twice_is_two_rows(make_cell: MakeCell) -> None:
    cell = make_cell()
    lease = _Lease([cell, cell])
    lease.remove(cell.cell_id)
    assert lease.todo == [cell]
