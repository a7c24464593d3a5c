"""A device that others use while it is described: its descriptors would be wrong for good."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest

from agent.child import open_instrument
from agent.measurement import CONTENTION_WAITS_S
from agent.messages import Restart
from agent.spec import AgentSpec
from gemmcast import modeldir
from gemmcast.cell import Cell
from gemmcast.device import Device
from gemmcast.procedure import Procedure

MakeCell = Callable[..., Cell]
MakeBackend = Any


@pytest.fixture
def opened(
    make_backend: MakeBackend, device: Device, tmp_path: Path
) -> Callable[..., tuple[Any, list[float]]]:
    """What a child opens on a device that nobody has described; and how long it waited."""

    def open_(busy: Iterable[str | None]) -> tuple[Any, list[float]]:
        waited: list[float] = []
        backend = make_backend(device, busy=busy)
        spec = AgentSpec(kind="cuda", agent="me", model_dir=tmp_path, procedure=Procedure())
        return open_instrument(spec, lambda _: backend, waited.append), waited

    return open_


@pytest.mark.parametrize("looks", [[], ["busy"], ["busy"] * len(CONTENTION_WAITS_S)])
def test_a_device_is_described_when_others_have_left_and_that_is_kept(
    opened: Any, make_cell: MakeCell, tmp_path: Path, looks: list[str]
) -> None:
    instrument, waited = opened(looks)
    assert tuple(waited) == CONTENTION_WAITS_S[: len(looks)]
    assert modeldir.devices(tmp_path) == [instrument.device]
    (event,) = instrument.measure_all([make_cell()])
    assert event.row["status"] == "ok"


@pytest.mark.parametrize(
    "looks",
    [
        # They stay, through the waits and longer.
        ["busy"] * (len(CONTENTION_WAITS_S) + 1),
        # They come while the peaks are measured.
        [None, "busy"],
    ],
)
def test_a_description_that_others_spoilt_is_not_kept_and_nothing_is_measured_with_it(
    opened: Any, make_cell: MakeCell, tmp_path: Path, looks: list[str | None]
) -> None:
    instrument, _ = opened([*looks, "busy", None])
    assert modeldir.devices(tmp_path) == []
    cells = [make_cell(m=8 * i) for i in range(1, 5)]
    begun: list[Cell] = []
    events = list(instrument.measure_all(cells, begun=begun.append))
    # The second look shows that they have left: a new process describes the device.
    assert begun == cells[:1]
    assert (events[0].row["status"], events[0].row["reason"]) == ("contended", "busy")
    assert events[1:] == [Restart()]


RESTARTING_CHILD = """
import sys
from multiprocessing.connection import Connection
from agent.messages import Outcome, Ready, Restart, Started
from gemmcast import modeldir
from gemmcast.rows import blank
pipe = Connection(int(sys.argv[1]))
spec = pipe.recv()
(device,) = modeldir.devices(spec.model_dir)
pipe.send(Ready(device))
request = pipe.recv()
note = spec.model_dir / "restarted"
if not note.exists():
    note.touch()
    first = request.cells.pop(0)
    pipe.send(Started(first.cell_id))
    pipe.send(Outcome(blank(first, device, "before")))
    pipe.send(Restart())
    sys.exit()
for cell in request.cells:
    pipe.send(Started(cell.cell_id))
    pipe.send(Outcome(blank(cell, device, "after")))
pipe.recv()
"""


@pytest.mark.cluster
def test_a_new_process_goes_on_with_the_cells_that_have_no_row(
    make_supervisor: Any, make_cell: MakeCell, device: Device, tmp_path: Path
) -> None:
    modeldir.put_device(tmp_path, device)
    program = (sys.executable, "-c", RESTARTING_CHILD)
    supervisor = make_supervisor(program=program, model_dir=tmp_path)
    cells = [make_cell(m=8 * i) for i in range(1, 4)]
    rows = [row for row in supervisor.measure(cells) if row is not None]
    assert [row["cell_id"] for row in rows] == [cell.cell_id for cell in cells]
    assert [row["agent"] for row in rows] == ["before", "after", "after"]
