"""`only_idle`: a GPU that others use is not opened, and is given back when they come."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import pynvml
import pytest

from agent.devices import usage, visible
from agent.devices.usage import in_use
from agent.idle import IdleOnly, NotIdleError
from gemmcast.cell import Cell
from gemmcast.device import Device
from gemmcast.rows import Row, failed

MakeCell = Callable[..., Cell]
BUSY = "1 other process(es) hold this GPU"


class FakeSupervisor:
    """Counts its children; cells are contended while `disturbed`."""

    def __init__(self, device: Device) -> None:
        self.device = device
        self.children = 0
        self.pid: int | None = None
        self.disturbed = False
        self.be_ready()

    def be_ready(self) -> Device:
        if self.pid is None:
            self.children += 1
            self.pid = self.children
        return self.device

    def measure(self, cells: Sequence[Cell]) -> Iterator[Row | None]:
        self.be_ready()
        for cell in cells:
            yield None
            status = "contended" if self.disturbed else "ok"
            yield failed(cell, self.device, "agent", status, "what the child saw")

    def stop(self) -> None:
        self.pid = None


@dataclass
class Gpu:
    """Who else uses it."""

    reason: str | None = None
    looks: int = 0

    def in_use(self) -> str | None:
        self.looks += 1
        return self.reason


@pytest.fixture
def made() -> list[FakeSupervisor]:
    return []


@pytest.fixture
def idle(cpu: Device, made: list[FakeSupervisor]) -> tuple[IdleOnly, Gpu]:
    others = Gpu()

    def start() -> FakeSupervisor:
        made.append(FakeSupervisor(cpu))
        return made[-1]

    return IdleOnly("node1/gpu0", start, others.in_use), others


def statuses(rows: Iterator[Row | None]) -> list[str]:
    return [row["status"] for row in rows if row is not None]


def test_no_child_starts_while_others_use_the_gpu(
    idle: tuple[IdleOnly, Gpu], made: list[FakeSupervisor], cpu: Device
) -> None:
    polite, others = idle
    others.reason = BUSY
    with pytest.raises(NotIdleError, match=r"1 other process\(es\) hold this GPU"):
        polite.be_ready()
    assert not made
    others.reason = None
    assert polite.be_ready() == cpu
    assert made[0].pid == 1


def test_the_child_ends_when_others_come_and_starts_when_they_have_left(
    idle: tuple[IdleOnly, Gpu], made: list[FakeSupervisor], make_cell: MakeCell
) -> None:
    polite, others = idle
    cells = [make_cell(m=m) for m in (16, 32)]
    polite.be_ready()
    assert statuses(polite.measure(cells)) == ["ok", "ok"]
    looks = others.looks
    assert statuses(polite.measure(cells)) == ["ok", "ok"]
    assert others.looks == looks, "the child sees others itself"

    made[0].disturbed = True
    assert statuses(polite.measure(cells)) == ["contended", "contended"]
    assert made[0].pid is None, "its memory is theirs"

    others.reason = BUSY
    rows = [row for row in polite.measure(cells) if row is not None]
    assert [(row["status"], row["reason"]) for row in rows] == [("contended", BUSY)] * 2
    assert [row["cell_id"] for row in rows] == [cell.cell_id for cell in cells]
    assert {row["agent"] for row in rows} == {"node1/gpu0"}
    assert made[0].children == 1

    others.reason, made[0].disturbed = None, False
    assert statuses(polite.measure(cells)) == ["ok", "ok"]
    assert (len(made), made[0].children) == (1, 2)


def test_a_child_that_is_disturbed_now_and_then_stays(
    idle: tuple[IdleOnly, Gpu], made: list[FakeSupervisor], make_cell: MakeCell
) -> None:
    polite, _ = idle
    polite.be_ready()
    rows = polite.measure([make_cell(m=m) for m in (16, 32)])
    made[0].disturbed = True
    next(rows)
    next(rows)
    made[0].disturbed = False
    assert statuses(rows) == ["ok"]
    assert made[0].pid == 1


# What NVML says


@dataclass
class FakeBoard:
    processes: list[int] = field(default_factory=list)
    percent: int | None = 0
    memory_bytes: int = 600 * 2**20


class FakeNvml:
    def __init__(self, board: FakeBoard) -> None:
        self.board = board

    def __getattr__(self, name: str) -> Any:
        return getattr(pynvml, name)

    def nvmlInit(self) -> None:
        pass

    def nvmlDeviceGetCount(self) -> int:
        return 1

    def nvmlDeviceGetHandleByIndex(self, index: int) -> FakeBoard:
        return self.board

    def nvmlDeviceGetMigMode(self, board: FakeBoard) -> tuple[int, int]:
        return 0, 0

    def nvmlDeviceGetComputeRunningProcesses(self, board: FakeBoard) -> list[Any]:
        return [SimpleNamespace(pid=pid) for pid in board.processes]

    def nvmlDeviceGetUtilizationRates(self, board: FakeBoard) -> Any:
        if board.percent is None:
            raise pynvml.NVMLError(pynvml.NVML_ERROR_NOT_SUPPORTED)
        return SimpleNamespace(gpu=board.percent)

    def nvmlDeviceGetMemoryInfo(self, board: FakeBoard) -> Any:
        return SimpleNamespace(used=board.memory_bytes)


@pytest.mark.parametrize(
    ("board", "reason"),
    [
        (FakeBoard(), None),
        (FakeBoard(percent=None), None),
        (FakeBoard(percent=3), None),
        (FakeBoard(processes=[7, 8]), "2 other process(es) hold this GPU"),
        # A container may see no process of others.
        (FakeBoard(percent=87), "others compute on this GPU (87 % busy)"),
        (FakeBoard(memory_bytes=40 * 2**30), "others hold 40.0 GiB of this GPU"),
    ],
)
def test_a_gpu_is_idle_without_processes_work_and_memory(
    board: FakeBoard, reason: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake = FakeNvml(board)
    monkeypatch.setattr(usage, "pynvml", fake)
    monkeypatch.setattr(visible, "pynvml", fake)
    assert in_use({}) == reason
    assert in_use({"CUDA_VISIBLE_DEVICES": ""}) is None, "what is wrong is said elsewhere"
