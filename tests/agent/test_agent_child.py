"""The supervisor and its child, as real processes: what a kill, a hang or a death costs."""

from __future__ import annotations

import os
import pickle
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Generator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from agent import child_process
from agent.child import plain, recall
from agent.child_process import PROGRAM, ChildDied
from agent.spec import AgentSpec
from agent.supervisor import MAX_CRASHED_IN_A_ROW, ChildSupervisor
from gemmcast import modeldir
from gemmcast.arrow import to_table
from gemmcast.cell import Cell
from gemmcast.device import Device
from gemmcast.procedure import Procedure
from tests.made_up_clock import Clock

MakeCell = Callable[..., Cell]
MakeRow = Callable[..., dict[str, Any]]
MakeSupervisor = Callable[..., ChildSupervisor]
pytestmark = pytest.mark.cluster
HELD_CHILD = (sys.executable, str(Path(__file__).parent / "held_child.py"))


@pytest.fixture
def long_cell(make_cell: MakeCell) -> Cell:
    """A second and more, on one thread of any CPU."""
    return make_cell(4096, 4096, 4096)


@pytest.fixture
def held(tmp_path: Path, model_dir: Path) -> Path:
    """As long as this file exists, a child of HELD_CHILD stays under its cell."""
    for described in model_dir.glob("device-*.json"):
        shutil.copy(described, tmp_path)
    hold = tmp_path / "hold"
    hold.touch()
    return hold


def _rows(
    supervisor: ChildSupervisor, cells: list[Cell], on_wait: Callable[[], None] = lambda: None
) -> Generator[dict[str, Any]]:
    """Rows; `on_wait` is called while a cell has run for a fifth of a second."""
    for row in supervisor.measure(cells):
        if row is None:
            on_wait()
        else:
            yield row


def _ids(cells: list[Cell]) -> list[str]:
    return [cell.cell_id for cell in cells]


def _kill(pid: int | None) -> None:
    assert pid is not None
    os.kill(pid, signal.SIGKILL)


def test_rows_come_in_the_order_of_the_cells(
    make_supervisor: MakeSupervisor, make_cell: MakeCell
) -> None:
    supervisor = make_supervisor(program=PROGRAM)
    layouts = ("nn", "nt", "tn", "tt", "nn")
    cells = [make_cell(m=8 * i, layout=layout) for i, layout in enumerate(layouts, 1)]
    cells.insert(2, make_cell(dtype="bf16"))
    rows = list(_rows(supervisor, cells))
    assert [row["cell_id"] for row in rows] == _ids(cells)
    assert rows[2]["status"] == "unsupported"
    # Other processes may be busy on this CPU.
    assert all(row["status"] in ("ok", "contended") for row in rows[:2] + rows[3:])
    assert {row["agent"] for row in rows} == {"me"}
    assert list(supervisor.measure([])) == []


def test_the_device_is_characterised_once_and_then_remembered(
    make_supervisor: MakeSupervisor, model_dir: Path
) -> None:
    first, second = make_supervisor(program=PROGRAM), make_supervisor(program=PROGRAM)
    device = first.device
    assert device.kind == "cpu"
    assert set(device.peak_tflops) == {"fp32", "fp64"}
    assert min(device.peak_tflops.values()) > 0
    assert min(device.dram_gbps, device.empty_launch_us) > 0
    assert second.device == device
    assert modeldir.devices(model_dir) == [device]


def test_a_device_whose_library_has_changed_is_measured_anew(
    make_supervisor: MakeSupervisor, tmp_path: Path
) -> None:
    now = make_supervisor().device
    peaks = {"fp32": 12345.0, "fp64": 12345.0}
    modeldir.put_device(tmp_path, replace(now, library="an older one", peak_tflops=peaks))
    device = make_supervisor(model_dir=tmp_path).device
    assert (device.uuid, device.library) == (now.uuid, now.library)
    assert max(device.peak_tflops.values()) < 12345.0
    assert modeldir.devices(tmp_path) == [device]


def _gpu(**values: Any) -> Device:
    described = {
        "arch": "sm_90",
        "l2_gbps": 5500.0,
        "empty_kernel_us": 1.1,
        "counter_step_s": 0.1,
        "dram_gbps": 3300.0,
        "peak_tflops": {"fp32": 50.0},
        **values,
    }
    return Device(
        name="Paper GPU",
        kind="cuda",
        uuid="GPU-1",
        compute_units=132,
        memory_bytes=2**36,
        l2_bytes=2**25,
        empty_launch_us=2.0,
        **described,
    )


IDENTIFIED = _gpu(l2_gbps=None, counter_step_s=None, dram_gbps=0.0, peak_tflops={})


@pytest.mark.parametrize(
    ("stored", "is_recalled"),
    [
        (_gpu(), True),
        # A board without a regular counter: measuring again would not help.
        (_gpu(counter_step_s=None), True),
        (_gpu(arch=None), False),
        (_gpu(l2_gbps=None), False),
        (_gpu(empty_kernel_us=None), False),
        # As an older version of this program left it.
        (_gpu(l2_gbps=None, counter_step_s=None, arch=None), False),
        (_gpu(peak_tflops={}), False),
        (replace(_gpu(), uuid="GPU-2"), False),
        (replace(_gpu(), driver="580.1"), False),
        (replace(_gpu(), power_limit_w=500.0), False),
        (replace(_gpu(), mig=True), False),
    ],
)
def test_a_gpus_description_is_recalled_where_it_is_complete_and_nothing_changed(
    stored: Device, is_recalled: bool
) -> None:
    other = replace(_gpu(), uuid="GPU-3")
    assert recall(IDENTIFIED, [other, stored]) == (stored if is_recalled else None)


def test_a_cpu_needs_nothing_that_only_gpus_have(device: Device) -> None:
    assert recall(replace(device, dram_gbps=0.0, peak_tflops={}), [device]) == device


def test_rows_leave_the_child_with_pythons_own_numbers() -> None:
    np = pytest.importorskip("numpy")
    row = plain({"a": np.int64(3), "b": np.float32(0.5), "c": None, "d": "text", "e": True})
    assert row == {"a": 3, "b": 0.5, "c": None, "d": "text", "e": True}
    assert [type(value) for value in row.values()] == [int, float, type(None), str, bool]


def test_a_child_that_is_killed_under_a_cell_loses_nothing(
    make_supervisor: MakeSupervisor, make_cell: MakeCell, held: Path
) -> None:
    supervisor = make_supervisor(program=HELD_CHILD, model_dir=held.parent)
    cells = [make_cell(m=8), make_cell(m=16), make_cell(m=24)]
    killed: list[int | None] = []

    def kill_once() -> None:
        if not killed:
            held.unlink()
            killed.append(supervisor.pid)
            _kill(supervisor.pid)

    rows = list(_rows(supervisor, cells, kill_once))
    assert killed
    assert supervisor.pid not in killed
    assert [row["cell_id"] for row in rows] == _ids(cells)
    assert all(row["status"] == "ok" for row in rows)


def test_a_child_that_dies_between_two_calls_is_replaced(
    make_supervisor: MakeSupervisor, make_cell: MakeCell
) -> None:
    supervisor = make_supervisor()
    _kill(supervisor.pid)
    rows = list(_rows(supervisor, [make_cell(m=8), make_cell(m=16)]))
    assert [row["status"] == "ok" for row in rows] == [True, True]


def test_a_cell_that_kills_two_children_is_a_row_crashed(
    make_supervisor: MakeSupervisor, make_cell: MakeCell, held: Path
) -> None:
    supervisor = make_supervisor(program=HELD_CHILD, model_dir=held.parent)
    killed: set[int | None] = set()

    def kill_each_once() -> None:
        if supervisor.pid not in killed and len(killed) < 2:
            killed.add(supervisor.pid)
            _kill(supervisor.pid)
        if len(killed) == 2:
            held.unlink(missing_ok=True)

    cells = [make_cell(m=16), make_cell(m=8)]
    rows = list(_rows(supervisor, cells, kill_each_once))
    assert len(killed) == 2
    assert [row["cell_id"] for row in rows] == _ids(cells)
    assert (rows[0]["status"], rows[0]["runtime_us"]) == ("crashed", None)
    assert "died with status -9, 2 times" in rows[0]["reason"]
    assert rows[1]["status"] == "ok"


def test_a_node_under_which_every_child_dies_is_given_up(
    make_supervisor: MakeSupervisor, make_cell: MakeCell, held: Path
) -> None:
    supervisor = make_supervisor(program=HELD_CHILD, model_dir=held.parent)
    cells = [make_cell(m=8 + i) for i in range(MAX_CRASHED_IN_A_ROW + 5)]
    rows = _rows(supervisor, cells, lambda: _kill(supervisor.pid))
    message = (
        f"{MAX_CRASHED_IN_A_ROW + 1} cells in a row crashed on me, "
        "the last one: the measuring process died"
    )
    with pytest.raises(ChildDied, match=message):
        list(rows)


def test_a_cell_over_its_limit_is_a_row_timeout_and_the_next_goes_on(
    make_supervisor: MakeSupervisor, make_cell: MakeCell, held: Path, clock: Clock
) -> None:
    limit_s = 2.0
    supervisor = make_supervisor(limit_s, program=HELD_CHILD, model_dir=held.parent, clock=clock)
    first = supervisor.pid
    cells = [make_cell(m=8), make_cell(m=16)]

    def let_it_take_too_long() -> None:
        if supervisor.pid == first:
            clock.now += 0.5
        else:
            held.unlink(missing_ok=True)

    rows = list(_rows(supervisor, cells, let_it_take_too_long))
    assert [row["cell_id"] for row in rows] == _ids(cells)
    assert (rows[0]["status"], rows[0]["runtime_us"]) == ("timeout", None)
    assert rows[0]["reason"] == "ran longer than 2 s and was killed"
    assert rows[1]["status"] == "ok"
    assert supervisor.pid != first


@pytest.fixture
def immortal(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Children that no kill ends, as if they hung in the kernel, until it is called."""
    monkeypatch.setattr(child_process, "KILL_LIMIT_S", 0.1)
    kill = subprocess.Popen.kill
    kept: list[subprocess.Popen[bytes]] = []
    monkeypatch.setattr(subprocess.Popen, "kill", lambda process: kept.append(process))

    def let_them_end() -> None:
        monkeypatch.setattr(subprocess.Popen, "kill", kill)
        for process in kept:
            process.kill()
            process.wait()

    return let_them_end


def test_a_child_that_cannot_be_killed_costs_one_cell_and_is_waited_for(
    make_supervisor: MakeSupervisor,
    make_cell: MakeCell,
    held: Path,
    clock: Clock,
    immortal: Callable[[], None],
) -> None:
    supervisor = make_supervisor(2.0, program=HELD_CHILD, model_dir=held.parent, clock=clock)
    first = supervisor.pid
    cells = [make_cell(m=8), make_cell(m=16)]

    def let_it_take_too_long() -> None:
        clock.now += 0.5

    rows = _rows(supervisor, cells, let_it_take_too_long)
    row = next(rows)
    assert (row["cell_id"], row["status"]) == (cells[0].cell_id, "timeout")
    stuck = f"the measuring process {first} of me hangs in the kernel and can't be killed"
    with pytest.raises(ChildDied, match=stuck):
        next(rows)
    with pytest.raises(ChildDied, match="me waits for its end"):
        supervisor.be_ready()
    assert supervisor.pid is None, "no second child beside it"
    immortal()
    held.unlink()
    assert supervisor.be_ready().kind == "cpu"
    assert [row["status"] for row in _rows(supervisor, cells[1:])] == ["ok"]


def test_a_node_that_stands_still_for_longer_than_the_limit_gives_no_timeout(
    make_supervisor: MakeSupervisor, make_cell: MakeCell, held: Path, clock: Clock
) -> None:
    """The clock goes on meanwhile, and the child stands still as well."""
    supervisor = make_supervisor(60.0, program=HELD_CHILD, model_dir=held.parent, clock=clock)
    first = supervisor.pid

    def freeze() -> None:
        clock.now += 70.0
        held.unlink(missing_ok=True)

    cells = [make_cell(m=8), make_cell(m=16)]
    rows = list(_rows(supervisor, cells, freeze))
    assert clock.now > 1060.0
    assert [row["status"] for row in rows] == ["ok", "ok"]
    assert supervisor.pid == first


def test_time_in_the_queue_does_not_count(
    make_supervisor: MakeSupervisor, make_cell: MakeCell, clock: Clock
) -> None:
    """A consumer is held back for longer than the limit after each row."""
    limit_s = 0.7
    supervisor = make_supervisor(limit_s, clock=clock)
    cells = [make_cell(m=8 * i) for i in range(1, 9)]
    rows: list[dict[str, Any]] = []
    for row in _rows(supervisor, cells):
        rows.append(row)
        if len(rows) < len(cells):
            # Meanwhile the child goes on: its next message lies in the pipe.
            pipe = supervisor._child.pipe
            assert pipe is not None
            assert pipe.poll(60.0)
        clock.now += 1.2 * limit_s
    assert [row["cell_id"] for row in rows] == _ids(cells)
    assert all(row["status"] == "ok" for row in rows)


def test_a_caller_that_leaves_early_does_not_disturb_the_next(
    make_supervisor: MakeSupervisor, make_cell: MakeCell
) -> None:
    supervisor = make_supervisor()
    abandoned = _rows(supervisor, [make_cell(m=8 * i) for i in range(1, 20)])
    next(abandoned)
    abandoned.close()
    cells = [make_cell(m=8 * i + 1) for i in range(1, 5)]
    assert [row["cell_id"] for row in _rows(supervisor, cells)] == _ids(cells)


PARENT = """
import pickle, sys
from agent.supervisor import ChildSupervisor
spec, cell = pickle.load(sys.stdin.buffer)
supervisor = ChildSupervisor(spec)
for row in supervisor.measure([cell]):
    print(supervisor.pid, flush=True)
"""


def test_the_child_dies_with_its_parent(
    model_dir: Path,
    long_cell: Cell,
    alive: Callable[[int], bool],
    python_env: dict[str, str],
    tmp_path: Path,
) -> None:
    endless = Procedure(burst_s=30.0, target_rse=1e-9)
    spec = AgentSpec(kind="cpu", agent="me", model_dir=model_dir, procedure=endless)
    with subprocess.Popen(
        [sys.executable, "-c", PARENT],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=python_env,
        cwd=tmp_path,
    ) as parent:
        assert parent.stdin is not None
        assert parent.stdout is not None
        pickle.dump((spec, long_cell), parent.stdin)
        parent.stdin.close()
        # The first line comes from the middle of the cell.
        pid = int(parent.stdout.readline())
        assert alive(pid)
        parent.kill()
    deadline_s = time.monotonic() + 60
    while alive(pid) and time.monotonic() < deadline_s:
        time.sleep(0.02)
    assert not alive(pid)


def test_a_child_that_cannot_start_says_why(
    make_supervisor: MakeSupervisor, tmp_path: Path
) -> None:
    message = r"(?s)process of me did not start:.*nowhere.parquet.*no such file"
    with pytest.raises(ChildDied, match=message):
        make_supervisor(kind="replay", dataset=tmp_path / "nowhere.parquet", program=PROGRAM)


def test_a_replay_child_answers_from_its_file(
    make_supervisor: MakeSupervisor, make_cell: MakeCell, make_row: MakeRow, tmp_path: Path
) -> None:
    path = tmp_path / "recorded.parquet"
    cells = [make_cell(m=8 * i) for i in range(1, 31)]
    recorded = [make_row(cell, runtime_us=float(i)) for i, cell in enumerate(cells[:-1])]
    pq.write_table(to_table(recorded), path)
    supervisor = make_supervisor(kind="replay", dataset=path, program=PROGRAM)
    rows = list(_rows(supervisor, cells))
    assert [row["cell_id"] for row in rows] == _ids(cells)
    assert [row["runtime_us"] for row in rows] == [*map(float, range(29)), None]
    assert rows[-1]["status"] == "not_recorded"
    assert supervisor.device.name == "Paper CPU (2 cores)"
