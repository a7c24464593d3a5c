"""A device that others use while it is described: its descriptors would be wrong for good."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest

from agent.child import open_instrument
from agent.measurement import CONTENTION_WAITS_S
from agent.spec import AgentSpec
from agent.undescribed import NOT_DESCRIBED
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
        ["busy"] * (len(CONTENTION_WAITS_S) + 2),
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
    assert begun == cells[: len(events)]
    assert [event.row["status"] for event in events] == ["contended"] * len(events)
    assert [event.fatal for event in events] == [False] * (len(events) - 1) + [True]
    assert events[0].row["reason"] == "busy"
    assert events[-1].row["reason"] == NOT_DESCRIBED
