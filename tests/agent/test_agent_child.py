"""The worker and its measuring child, as real processes: what a kill, a hang or a death of the parent costs, and what it does not."""

from __future__ import annotations

import json
import os
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

from agent import child
from agent.supervisor import MAX_CRASHED_IN_A_ROW, ChildDied, ChildSupervisor
from gemmcast import modeldir
from gemmcast.arrow import to_table
from gemmcast.cell import Cell
from gemmcast.device import Device
from gemmcast.procedure import Procedure

pytestmark = pytest.mark.cluster
MakeCell = Callable[..., Cell]
MakeRow = Callable[..., dict[str, Any]]
MakeWorker = Callable[..., ChildSupervisor]
MEASURED = ("ok", "contended")
# on a CPU that we share, a row may end either way


@pytest.fixture
def long_cell(make_cell: MakeCell) -> Cell:
    """A second and more, on one thread of any CPU."""
    return make_cell(4096, 4096, 4096)


def _rows(supervisor: ChildSupervisor, cells: list[Cell], on_wait: Callable[[], None] = lambda: None) -> Generator[dict[str, Any]]:
    """Rows; `on_wait` is called while a cell has run for a fifth of a second."""
    for row in supervisor.measure(cells):
        if row is None:
            on_wait()
        else:
            yield row


def _kill(pid: int | None) -> None:
    assert pid is not None
    os.kill(pid, signal.SIGKILL)


def test_rows_come_in_the_order_of_the_cells(make_worker: MakeWorker, make_cell: MakeCell) -> None:
    supervisor = make_worker()
    cells = [make_cell(m=8 * i, layout=layout) for i, layout in enumerate(("nn", "nt", "tn", "tt", "nn"), 1)]
    cells.insert(2, make_cell(dtype="bf16"))
    rows = list(_rows(supervisor, cells))
    assert [row["cell_id"] for row in rows] == [cell.cell_id for cell in cells]
    assert rows[2]["status"] == "unsupported"
    assert all(row["status"] in MEASURED for row in rows[:2] + rows[3:])
    assert {row["agent"] for row in rows} == {"me"}
    assert list(supervisor.measure([])) == []


def test_the_device_is_characterised_once_and_then_remembered(make_worker: MakeWorker, model_dir: Path) -> None:
    first, second = make_worker(), make_worker()
    device = first.device
    assert device.kind == "cpu" and set(device.peak_tflops) == {"fp32", "fp64"}
    assert all(value > 0 for value in (*device.peak_tflops.values(), device.dram_gbps, device.empty_launch_us))
    assert second.device == device
    assert modeldir.devices(model_dir) == [device]


def test_a_device_whose_library_has_changed_is_measured_anew(make_worker: MakeWorker, model_dir: Path, tmp_path: Path) -> None:
    now = make_worker().device
    modeldir.put_device(tmp_path, replace(now, library="an older one", peak_tflops={"fp32": 12345.0, "fp64": 12345.0}))
    device = make_worker(model_dir=str(tmp_path)).device
    assert (device.uuid, device.library) == (now.uuid, now.library)
    assert max(device.peak_tflops.values()) < 12345.0
    assert modeldir.devices(tmp_path) == [device]


def _gpu(**values: Any) -> Device:
    described = {"arch": "sm_90", "l2_gbps": 5500.0, "counter_step_s": 0.1, "dram_gbps": 3300.0, "peak_tflops": {"fp32": 50.0}, **values}
    return Device(name="Paper GPU", kind="cuda", uuid="GPU-1", compute_units=132, memory_bytes=2**36, l2_bytes=2**25, empty_launch_us=2.0, **described)


FOUND = _gpu(l2_gbps=None, counter_step_s=None, dram_gbps=0.0, peak_tflops={})
# as `identify` gives it, nothing measured


@pytest.mark.parametrize(
    ("known", "remembered"),
    [
        (_gpu(), True),
        (_gpu(counter_step_s=None), True),  # a board without a regular counter: measuring again would not help
        (_gpu(arch=None), False),
        (_gpu(l2_gbps=None), False),
        (_gpu(l2_gbps=None, counter_step_s=None, arch=None), False),  # as an older version of this program left it
        (_gpu(peak_tflops={}), False),
        (replace(_gpu(), uuid="GPU-2"), False),
        (replace(_gpu(), driver="580.1"), False),
        (replace(_gpu(), power_limit_w=500.0), False),
        (replace(_gpu(), mig=True), False),
    ],
)
def test_a_gpus_description_is_remembered_where_nothing_changed_and_nothing_lacks(known: Device, remembered: bool) -> None:
    other = replace(_gpu(), uuid="GPU-3")
    assert child._characterised(FOUND, [other, known]) == (known if remembered else None)


def test_a_cpu_lacks_nothing_that_only_gpus_have(device: Device) -> None:
    assert child._characterised(replace(device, dram_gbps=0.0, peak_tflops={}), [device]) == device


def test_a_child_that_is_killed_under_a_cell_loses_nothing(make_worker: MakeWorker, make_cell: MakeCell) -> None:
    supervisor = make_worker()
    cells = [make_cell(m=8), make_cell(2048, 2048, 2048), make_cell(m=24)]
    killed: list[int | None] = []

    def kill_once() -> None:
        if not killed:
            killed.append(supervisor.pid)
            _kill(supervisor.pid)

    rows = list(_rows(supervisor, cells, kill_once))
    assert killed and supervisor.pid not in killed
    assert [row["cell_id"] for row in rows] == [cell.cell_id for cell in cells]
    assert all(row["status"] in MEASURED for row in rows)


def test_a_child_that_dies_between_two_calls_is_replaced(make_worker: MakeWorker, make_cell: MakeCell) -> None:
    supervisor = make_worker()
    _kill(supervisor.pid)
    rows = list(_rows(supervisor, [make_cell(m=8), make_cell(m=16)]))
    assert [row["status"] in MEASURED for row in rows] == [True, True]


def test_a_cell_that_kills_two_children_is_a_row_crashed(make_worker: MakeWorker, make_cell: MakeCell, long_cell: Cell) -> None:
    supervisor = make_worker()
    killed: set[int | None] = set()

    def kill_each_once() -> None:
        if supervisor.pid not in killed and len(killed) < 2:
            killed.add(supervisor.pid)
            _kill(supervisor.pid)

    after = make_cell(m=8)
    rows = list(_rows(supervisor, [long_cell, after], kill_each_once))
    assert len(killed) == 2
    assert [row["cell_id"] for row in rows] == [long_cell.cell_id, after.cell_id]
    assert (rows[0]["status"], rows[0]["runtime_us"]) == ("crashed", None)
    assert "died with status -9, 2 times" in rows[0]["reason"]
    assert rows[1]["status"] in MEASURED


def test_a_node_under_which_every_child_dies_is_given_up(make_worker: MakeWorker, make_cell: MakeCell) -> None:
    supervisor = make_worker()
    rows = _rows(supervisor, [make_cell(4096, 4096, 4096 + i) for i in range(MAX_CRASHED_IN_A_ROW + 5)], lambda: _kill(supervisor.pid))
    with pytest.raises(ChildDied, match=f"{MAX_CRASHED_IN_A_ROW + 1} cells in a row crashed on me, the last one: the measuring process died"):
        list(rows)


def test_a_cell_over_its_limit_is_a_row_timeout_and_the_next_goes_on(make_worker: MakeWorker, make_cell: MakeCell, long_cell: Cell) -> None:
    supervisor = make_worker(0.6)
    first = supervisor.pid
    cells = [make_cell(m=8), long_cell, make_cell(m=16)]
    rows = list(_rows(supervisor, cells))
    assert [row["cell_id"] for row in rows] == [cell.cell_id for cell in cells]
    assert (rows[1]["status"], rows[1]["reason"], rows[1]["runtime_us"]) == ("timeout", "ran longer than 0.6 s and was killed", None)
    assert rows[0]["status"] in MEASURED and rows[2]["status"] in MEASURED
    assert supervisor.pid != first


def test_time_in_the_queue_does_not_count(make_worker: MakeWorker, make_cell: MakeCell) -> None:
    limit_s = 1.0
    supervisor = make_worker(limit_s, procedure=Procedure(burst_s=0.25, target_rse=1e-9))
    cells = [make_cell(m=128, n=120 + i) for i in range(8)]
    start_s = time.monotonic()
    rows = []
    for row in _rows(supervisor, cells):
        rows.append(row)
        if len(rows) == 1:
            time.sleep(1.2 * limit_s)  # a consumer that is held back
    assert time.monotonic() - start_s > 1.2 * limit_s
    assert [row["cell_id"] for row in rows] == [cell.cell_id for cell in cells]
    assert all(row["status"] in MEASURED for row in rows)


def test_a_caller_that_leaves_early_does_not_disturb_the_next(make_worker: MakeWorker, make_cell: MakeCell) -> None:
    supervisor = make_worker()
    left = _rows(supervisor, [make_cell(m=8 * i) for i in range(1, 20)])
    next(left)
    left.close()
    cells = [make_cell(m=8 * i + 1) for i in range(1, 5)]
    assert [row["cell_id"] for row in _rows(supervisor, cells)] == [cell.cell_id for cell in cells]


PARENT = """
import json, sys
from agent.supervisor import Worker
from gemmcast.cell import Cell
spec, cell = json.loads(sys.argv[1]), Cell.from_dict(json.loads(sys.argv[2]))
worker = Worker(spec, 60.0)
for row in worker.measure([cell]):
    print(worker.pid, flush=True)
"""


def test_the_child_dies_with_its_parent(
    model_dir: Path, long_cell: Cell, alive: Callable[[int], bool], python_env: dict[str, str], tmp_path: Path
) -> None:
    spec = {"kind": "cpu", "agent": "me", "model_dir": str(model_dir), "procedure": {"burst_s": 30.0, "target_rse": 1e-9}}
    command = [sys.executable, "-c", PARENT, json.dumps(spec), json.dumps(long_cell.to_dict())]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=python_env, cwd=tmp_path) as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())  # its first word comes from the middle of the cell
        assert alive(pid)
        parent.kill()
    deadline_s = time.monotonic() + 5
    while alive(pid) and time.monotonic() < deadline_s:
        time.sleep(0.02)
    assert not alive(pid)


def test_a_child_that_cannot_start_says_why(make_worker: MakeWorker, tmp_path: Path) -> None:
    with pytest.raises(ChildDied, match=r"(?s)process of me did not start:.*nowhere.parquet.*no such file"):
        make_worker(kind="replay", dataset=str(tmp_path / "nowhere.parquet"))


def test_a_replay_child_answers_from_its_file(make_worker: MakeWorker, make_cell: MakeCell, make_row: MakeRow, tmp_path: Path) -> None:
    cells = [make_cell(m=8 * i) for i in range(1, 31)]
    pq.write_table(to_table([make_row(cell, runtime_us=float(i)) for i, cell in enumerate(cells[:-1])]), tmp_path / "recorded.parquet")
    supervisor = make_worker(kind="replay", dataset=str(tmp_path / "recorded.parquet"))
    rows = list(_rows(supervisor, cells))
    assert [row["cell_id"] for row in rows] == [cell.cell_id for cell in cells]
    assert [row["runtime_us"] for row in rows] == [*map(float, range(29)), None]
    assert rows[-1]["status"] == "not_recorded"
    assert supervisor.device.name == "Paper CPU (2 cores)"
