"""What a corrupt or hostile agent sends: refused, named, counted; no run ends for it."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from math import inf, nan
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from coordinator.fleet import admission as admission_module
from coordinator.fleet.admission import BROKEN_ROWS, MAX_REFUSALS, Admission
from coordinator.fleet.interface import Ended, Event, Progress, Ready, Samples
from coordinator.plan.cells import plan_cells
from coordinator.plan.schema import Plan
from coordinator.samples.batch_rules import BATCH_ROWS, SENT_BYTES, broken_rows, joined, received
from coordinator.samples.store import SampleStore
from gemmcast.arrow import SCHEMA, read_samples, to_bytes, to_table
from gemmcast.cell import Cell
from gemmcast.descriptions import device_of
from gemmcast.device import Device
from gemmcast.rows import Row, config_of, gemm_of
from tests.coordinator.fake_fleet import FakeAgent, FakeFleet, make_scheduler, never

AGENT = "node1/cpu"
DEMO = Path(__file__).parents[2] / "datasets" / "h100_demo.parquet"
MakePlan = Callable[..., Plan]
Measure = Callable[..., Row]
Change = Callable[[pa.Table], object]


@dataclass
class Bench:
    """One agent, its leased cells and their rows."""

    admission: Admission
    cells: Sequence[Cell]
    rows: list[Row]
    answered: set[str] = field(default_factory=set)

    def changed(self, place: int, **columns: object) -> pa.Table:
        """All rows, one of them with other values."""
        rows = list(self.rows)
        rows[place] = {**rows[place], **columns}
        return to_table(rows)


@pytest.fixture
def bench(cpu_cells: list[Cell], cpu: Device, measure: Measure) -> Bench:
    cells = sorted(cpu_cells, key=lambda cell: cell.gemm.flops)[-5:]
    rows = [measure(cell, cpu, agent=AGENT) for cell in cells]
    answered: set[str] = set()
    admission = Admission(answered.__contains__)
    assert admission.join(Ready(agent=AGENT, device=cpu, host="node1", local=False))
    admission.expect(AGENT, cells)
    return Bench(admission, cells, rows, answered)


def test_good_rows_are_taken_as_they_are(bench: Bench) -> None:
    batch = to_table(bench.rows)
    assert bench.admission.admit(AGENT, batch) is batch
    assert bench.admission.refused == 0
    assert bench.admission.faults() == {}


def test_every_row_ever_recorded_is_taken(cpu: Device) -> None:
    """The rules are not so narrow that a real GPU breaks them."""
    table = read_samples(DEMO)
    rows = table.to_pylist()
    device = device_of(rows)
    admission = Admission(lambda _: False, "replay")
    admission.join(Ready(agent=AGENT, device=device, host="h", local=False))
    cells = []
    for number, row in enumerate(rows):
        config = replace(config_of(row), kernel="")
        places = {"device_key": device.name, "cache": row["cache"], "repeat": number}
        cells.append(Cell(gemm=gemm_of(row), config=config, **places))
        row |= {"cell_id": cells[-1].cell_id, "agent": AGENT}
    admission.expect(AGENT, cells)
    taken = admission.admit(AGENT, to_table(rows))
    assert taken is not None
    assert len(taken) == len(rows)


def _with_column(table: pa.Table, name: str, column: pa.Array) -> pa.Table:
    return table.set_column(SCHEMA.names.index(name), name, column)


def _with_broken_offsets(table: pa.Table) -> pa.Table:
    """The second text begins far behind its buffer."""
    places = [0, 2**30, *[1] * (len(table) - 1)]
    offsets = pa.array(places, pa.int32()).buffers()[1]
    text = pa.Array.from_buffers(pa.string(), len(table), [None, offsets, pa.py_buffer(b"x")])
    return table.set_column(SCHEMA.names.index("status"), SCHEMA.field("status"), text)


WHOLE: dict[str, tuple[Change, str]] = {
    "no table": (lambda _: "a pickle", "batch = 'str': is no table of samples"),
    "a record batch": (lambda table: table.to_batches()[0], "is no table of samples"),
    "another schema": (lambda _: pa.table({"x": [1]}), "column = 'm': the batch has it not"),
    "a column more": (
        lambda table: table.append_column("x", table["m"]),
        f"columns = {len(SCHEMA) + 1}",
    ),
    "a column less": (lambda table: table.drop_columns("k"), "column = 'k'"),
    "another order": (lambda table: table.select(SCHEMA.names[::-1]), f"columns = {len(SCHEMA)}"),
    "text for a number": (
        lambda table: _with_column(table, "power_w", pa.array(["1"] * len(table))),
        "power_w = 'string': must be double",
    ),
    "nested values": (
        lambda table: _with_column(table, "reason", pa.array([[["x"]]] * len(table))),
        "must be string",
    ),
    "too many rows": (
        lambda table: pa.concat_tables([table] * (BATCH_ROWS // len(table) + 1)),
        f"a batch has up to {BATCH_ROWS}",
    ),
    "megabytes of text": (
        lambda table: _with_column_of(table, "reason", "x" * 5_000_000),
        "bytes = 25",
    ),
    "damaged buffers": (_with_broken_offsets, "batch = 5: is damaged"),
    "nulls in a number": (
        lambda table: _with_column_of(table, "n", None),
        "column = 'n': has nulls in it",
    ),
    "nulls in a text": (
        lambda table: _with_column_of(table, "status", None),
        "column = 'status': has nulls in it",
    ),
}


def _with_column_of(table: pa.Table, name: str, value: object) -> pa.Table:
    field_ = SCHEMA.field(name)
    column = pa.array([value] * len(table), field_.type)
    return table.set_column(SCHEMA.names.index(name), field_, column)


@pytest.mark.parametrize("case", WHOLE)
def test_a_batch_of_another_form_is_refused_whole(
    bench: Bench, case: str, caplog: pytest.LogCaptureFixture
) -> None:
    change, rule = WHOLE[case]
    admission: Any = bench.admission
    assert admission.admit(AGENT, change(to_table(bench.rows))) is None
    assert admission.refused >= 1
    (line,) = caplog.messages
    assert line.startswith(f"agent {AGENT}: a whole batch refused")
    assert rule in line
    assert len(line) < 700
    assert rule in admission.faults()[AGENT]


def _cut(data: bytes) -> bytes:
    return data[: len(data) // 2]


def _flipped(data: bytes) -> bytes:
    """The lengths in its first kilobyte are others."""
    return bytes(byte ^ 0xFF for byte in data[:1024]) + data[1024:]


BYTES: dict[str, Callable[[bytes], object]] = {
    "cut short": _cut,
    "flipped": _flipped,
    "empty": lambda _: b"",
    "a pickle": lambda _: b"\x80\x04.",
    "no bytes": lambda _: 7,
    "too large": lambda data: data + bytes(SENT_BYTES),
}


@pytest.mark.parametrize("case", BYTES)
def test_bytes_that_are_no_batch_are_refused(bench: Bench, case: str) -> None:
    sent = to_bytes(to_table(bench.rows))
    admission: Any = bench.admission
    assert admission.admit(AGENT, received(BYTES[case](sent))) is None
    assert "is no table of samples" in admission.faults()[AGENT]
    assert admission.admit(AGENT, received(sent)).equals(to_table(bench.rows))


VALUES: dict[str, dict[str, object]] = {
    "NaN": {"power_w": nan},
    "infinite": {"energy_mj": inf},
    "negative": {"clock_mhz": -1.0},
    "zero": {"runtime_us": 0.0},
    "no runtime though ok": {"runtime_us": None},
    "faster than light": {"runtime_us": 0.001, "status": "ok"},
    "hours": {"runtime_us": 1e11},
    "absurd power": {"power_w": 1e9},
    "absurd bytes": {"workspace_bytes": 2**62},
    "a share above 1": {"occupancy": 7.0},
    "newer schema": {"schema_version": 99},
    "unknown status": {"status": "splendid"},
    "long text": {"reason": "x" * 20_000},
    "long id": {"sample_id": "x" * 1_000},
    "no time": {"measured_at": "yesterday"},
    "a time without a zone": {"measured_at": "2026-01-01T12:00:00"},
    "another shape": {"m": 1},
    "another dtype": {"dtype": "fp8_e4m3"},
    "another family": {"family": "cublas"},
    "another cache state": {"cache": "warm"},
    "another agent": {"agent": "node2/cpu"},
    "another device": {"device_uuid": "GPU-of-others"},
    "another name": {"device": "NVIDIA H100"},
    "a cell that was not leased": {"cell_id": "0123456789abcdef"},
    "no cell": {"cell_id": ""},
}


@pytest.mark.parametrize("case", VALUES)
def test_a_row_that_breaks_a_rule_is_refused_alone(
    bench: Bench, case: str, caplog: pytest.LogCaptureFixture
) -> None:
    columns = VALUES[case]
    large = max(bench.rows, key=lambda row: row["m"] * row["n"] * row["k"])
    place = bench.rows.index(large)
    taken = bench.admission.admit(AGENT, bench.changed(place, **columns))
    assert taken is not None
    left = [row["sample_id"] for row in bench.rows if row is not large]
    assert taken["sample_id"].to_pylist() == left
    assert bench.admission.refused == 1
    assert bench.admission.faults() == {}
    (line,) = caplog.messages
    assert line.startswith(f"agent {AGENT}: 1 of 5 rows refused, 1 rows in this run: ")
    assert next(iter(columns)) in line


def test_rows_that_come_twice_or_late_are_no_fault(bench: Bench) -> None:
    """A duplicate of what has an answer; the store would drop it."""
    assert bench.admission.admit(AGENT, to_table(bench.rows)) is not None
    bench.answered |= {cell.cell_id for cell in bench.cells}
    assert bench.admission.admit(AGENT, to_table(bench.rows)) is None
    assert bench.admission.refused == 0


def test_a_contended_cell_may_be_answered_later(bench: Bench) -> None:
    reason = {"status": "contended", "reason": "busy", "runtime_us": None}
    assert bench.admission.admit(AGENT, bench.changed(0, **reason)) is not None
    bench.answered |= {cell.cell_id for cell in bench.cells[1:]}
    taken = bench.admission.admit(AGENT, to_table(bench.rows))
    assert taken is not None
    assert taken["cell_id"].to_pylist() == [bench.cells[0].cell_id]


def test_lines_grow_with_the_logarithm_of_what_is_refused(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    for _ in range(200):
        bench.admission.admit(AGENT, bench.changed(0, power_w=-1.0))
        bench.admission.expect(AGENT, bench.cells)
    assert bench.admission.refused == 200
    assert len(caplog.messages) == 8


def test_a_cell_whose_rows_are_refused_is_given_up(bench: Bench, cpu: Device) -> None:
    for _ in range(MAX_REFUSALS):
        assert bench.admission.lost_cells() == []
        bench.admission.expect(AGENT, bench.cells)
        bench.admission.admit(AGENT, bench.changed(2, power_w=nan))
    (lost,) = bench.admission.lost_cells()
    assert (lost.cell, lost.device, lost.agent) == (bench.cells[2], cpu, AGENT)
    (row,) = lost.row().to_pylist()
    assert row["status"] == "agent_lost"
    assert row["reason"].startswith("3 rows of it were refused: power_w = nan: must be a finite")


def test_the_cells_of_a_broken_agent_are_not_to_blame(bench: Bench) -> None:
    spoilt = to_table([{**row, "power_w": nan} for row in bench.rows])
    for _ in range(10 * MAX_REFUSALS):
        bench.admission.admit(AGENT, spoilt)
    assert bench.admission.lost_cells() == []
    ended = bench.admission.end(Ended(agent=AGENT, lease=1))
    assert ended.error is not None
    assert ended.error.startswith("its rows are refused: power_w = nan")
    assert not ended.is_cells_doing


def test_an_agent_that_sends_good_rows_again_is_not_broken(bench: Bench) -> None:
    spoilt = to_table([{**row, "power_w": nan} for row in bench.rows])
    for _ in range(BROKEN_ROWS):
        bench.admission.admit(AGENT, spoilt)
    assert AGENT in bench.admission.faults()
    bench.admission.admit(AGENT, to_table(bench.rows))
    assert bench.admission.faults() == {}
    assert bench.admission.end(Ended(agent=AGENT, lease=1)).error is None


SEVERAL = 4
"""Agents that send at the same time."""


@dataclass
class Crowd:
    """Agents, each with cells of its own and the rows of them."""

    admission: Admission
    cells: dict[str, list[Cell]]
    sent: list[Samples]
    answered: set[str]

    def expect(self) -> None:
        """All cells are leased, once more."""
        for agent, cells in self.cells.items():
            self.admission.expect(agent, cells)

    def spoilt(self, place: int, table: object) -> list[Samples]:
        """What all send, one of them something else."""
        other: Any = table
        sent = list(self.sent)
        sent[place] = replace(sent[place], table=other)
        return sent


@pytest.fixture
def crowd(cpu_cells: list[Cell], cpu: Device, measure: Measure) -> Crowd:
    largest = sorted(cpu_cells, key=lambda cell: cell.gemm.flops)[-5 * SEVERAL :]
    answered: set[str] = set()
    crowd = Crowd(Admission(answered.__contains__), {}, [], answered)
    for place in range(SEVERAL):
        agent, cells = f"node{place}/cpu", largest[5 * place : 5 * place + 5]
        crowd.admission.join(Ready(agent=agent, device=cpu, host="h", local=False))
        crowd.cells[agent] = cells
        table = to_table([measure(cell, cpu, agent=agent) for cell in cells])
        crowd.sent.append(Samples(agent=agent, lease=1, table=table))
    crowd.expect()
    return crowd


def test_batches_that_come_together_are_judged_once(
    crowd: Crowd, monkeypatch: pytest.MonkeyPatch
) -> None:
    judged: list[int] = []

    def noted(rows: pa.RecordBatch) -> Any:
        judged.append(len(rows))
        return broken_rows(rows)

    monkeypatch.setattr(admission_module, "broken_rows", noted)
    taken = list(crowd.admission.admit_all(crowd.sent))
    assert taken == [(one.agent, one.table) for one in crowd.sent]
    assert judged == [5 * SEVERAL]


def test_no_more_rows_are_judged_together_than_a_batch_may_have(
    crowd: Crowd, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(admission_module, "BATCH_ROWS", 12)
    groups = [[one.agent for one in group] for group in admission_module._groups(crowd.sent)]
    assert groups == [["node0/cpu", "node1/cpu"], ["node2/cpu", "node3/cpu"]]


@pytest.mark.parametrize("case", [*WHOLE, *VALUES])
def test_a_bad_batch_costs_those_beside_it_nothing(
    crowd: Crowd, case: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Refused by itself and named, in whatever place; the others are taken whole."""
    bad = crowd.sent[1]
    if case in WHOLE:
        change, rule = WHOLE[case]
        table, left = change(bad.table), 0
    else:
        rows, rule = bad.table.to_pylist(), next(iter(VALUES[case]))
        max(rows, key=lambda row: row["m"] * row["n"] * row["k"]).update(VALUES[case])
        table, left = to_table(rows), 4
    taken = dict(crowd.admission.admit_all(crowd.spoilt(1, table)))
    for one in crowd.sent:
        if one.agent != bad.agent:
            assert taken[one.agent] is one.table
    assert len(taken.get(bad.agent, [])) == left
    (line,) = caplog.messages
    assert line.startswith(f"agent {bad.agent}: ")
    assert rule in line


def test_an_agent_of_which_something_was_refused_is_judged_alone(
    crowd: Crowd, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So others pay for it once, however often it tries."""
    list(crowd.admission.admit_all(crowd.spoilt(1, "a pickle")))
    together: list[int] = []

    def noted(batches: Sequence[pa.RecordBatch]) -> pa.RecordBatch:
        together.append(len(batches))
        return joined(batches)

    monkeypatch.setattr(admission_module, "joined", noted)
    crowd.expect()
    taken = dict(crowd.admission.admit_all(crowd.spoilt(1, "a pickle")))
    assert len(taken) == SEVERAL - 1
    assert together == [SEVERAL - 1]


def test_a_batch_that_comes_twice_at_once_is_no_fault(crowd: Crowd) -> None:
    """Taken or left out, whoever is judged beside it; the store drops what is there already."""
    for extra in ([], [replace(crowd.sent[3], table=crowd.sent[3].table.slice(0, 0))]):
        agents = set()
        for agent, rows in crowd.admission.admit_all([*crowd.sent, crowd.sent[0], *extra]):
            crowd.answered.update(rows["cell_id"].to_pylist())
            agents.add(agent)
        assert agents == set(crowd.cells)
        assert crowd.admission.refused == 0
        crowd.answered.clear()
        crowd.expect()


DEVICES: dict[str, dict[str, object]] = {
    "NaN": {"dram_gbps": nan},
    "negative": {"compute_units": -1},
    "a kind of its own": {"kind": "toaster"},
    "a peak that is text": {"peak_tflops": {"fp32": "fast"}},
    "a long name": {"name": "x" * 10_000},
    "an escape sequence": {"name": "\x1b[2J"},
    "no text": {"uuid": 7},
}


@pytest.mark.parametrize("case", DEVICES)
def test_an_agent_with_an_impossible_device_gets_no_cells(
    case: str, cpu: Device, caplog: pytest.LogCaptureFixture
) -> None:
    device = replace(cpu)
    for name, value in DEVICES[case].items():
        # As unpickling makes one: without the checks of its constructor.
        object.__setattr__(device, name, value)
    admission = Admission(lambda _: False)
    ready = Ready(agent=AGENT, device=device, host="node1", local=False)
    assert not admission.join(ready)
    assert not admission.join(ready)
    assert AGENT in admission.faults()
    (line,) = caplog.messages
    assert line.startswith(f"agent {AGENT} gets no cells: ")
    assert line.isprintable()


def test_it_gets_none_from_a_run_either(
    store: SampleStore, measure: Measure, make_plan: MakePlan, cpu: Device
) -> None:
    broken = replace(cpu)
    object.__setattr__(broken, "dram_gbps", nan)
    agents = {"a": FakeAgent(broken), "b": FakeAgent(cpu)}
    fleet = FakeFleet(measure, agents)
    scheduler = make_scheduler(make_plan({"sample": 20}), store, fleet)
    assert scheduler.run(stop=never)
    assert {agent for agent, _ in fleet.leased} == {"b"}
    assert "dram_gbps = nan" in scheduler.progress.faults["a"]


class HostileFleet(FakeFleet):
    """Its agent "a" spoils what it sends."""

    def __init__(self, change: Change, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._change = change

    def poll(self, timeout_s: float) -> list[Event]:
        events: list[Event] = []
        for event in super().poll(timeout_s):
            if isinstance(event, Samples) and event.agent == "a":
                changed: Any = self._change(event.table)
                event = replace(event, table=changed)
            events.append(event)
        return events


HOSTILE: dict[str, Change] = {
    "no table": lambda _: b"\x80\x04.",
    "no samples": lambda table: pa.table({"x": [1]}),
    "infinite": lambda table: _with_column_of(table, "power_w", inf),
    "of others": lambda table: _with_column_of(table, "device_uuid", "GPU-of-others"),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_a_hostile_agent_neither_ends_a_run_nor_answers_a_cell(
    store: SampleStore,
    measure: Measure,
    make_plan: MakePlan,
    cpu: Device,
    case: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    agents = {"a": FakeAgent(cpu), "b": FakeAgent(cpu)}
    fleet = HostileFleet(HOSTILE[case], measure, agents)
    plan = make_plan({"sample": 100, "max": 512})
    scheduler = make_scheduler(plan, store, fleet)
    seen: list[Progress] = []

    def show(progress: Progress) -> None:
        seen.append(replace(progress, faults=dict(progress.faults)))

    assert scheduler.run(stop=never, show=show)
    rows = store.read()
    cells = plan_cells(plan, cpu).cells
    assert sorted(rows["cell_id"].to_pylist()) == sorted(cell.cell_id for cell in cells)
    assert set(rows["agent"].to_pylist()) == {"b"}
    assert store.counts() == {"ok": 100}
    assert seen[-1].refused > 0
    assert any("refused" in progress.faults.get("a", "") for progress in seen)
    assert sum("rows in this run" in line for line in caplog.messages) < 15


def test_one_bad_cell_costs_its_row_and_not_the_run(
    store: SampleStore, measure: Measure, make_plan: MakePlan, cpu: Device
) -> None:
    """Whichever agent measures it, its reading is impossible."""
    plan = make_plan({"sample": 30, "max": 512})
    bad = plan_cells(plan, cpu).cells[7].cell_id

    def measured(cell: Cell, device: Device) -> Row:
        spoilt = {"power_w": nan} if cell.cell_id == bad else {}
        return {**measure(cell, device), **spoilt}

    fleet = FakeFleet(measured, {"a": FakeAgent(cpu)})
    assert make_scheduler(plan, store, fleet).run(stop=never)
    assert store.counts() == {"ok": 29, "agent_lost": 1}
    (row,) = [row for row in store.read().to_pylist() if row["status"] != "ok"]
    assert row["cell_id"] == bad
    assert "3 rows of it were refused: power_w = nan" in row["reason"]


def test_refusals_are_quiet_where_there_are_none(
    store: SampleStore,
    measure: Measure,
    make_plan: MakePlan,
    cpu: Device,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.WARNING)
    fleet = FakeFleet(measure, {"a": FakeAgent(cpu)})
    scheduler = make_scheduler(make_plan({"sample": 20}), store, fleet)
    assert scheduler.run(stop=never)
    assert scheduler.progress.refused == 0
    assert caplog.messages == []
