"""The device of this machine before a run: the first GPU that CUDA would show, not NVML's first."""

from __future__ import annotations

from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import pynvml
import pytest

from agent.devices import local, visible
from agent.devices.local import local_device
from gemmcast.errors import InputError

GIB = 2**30


def _error(number: int) -> pynvml.NVMLError:
    return pynvml.NVMLError(number)


@dataclass
class FakeSlice:
    """A MIG slice."""

    uuid: str
    name: str
    memory_gib: int
    ids: tuple[int, int]


@dataclass
class FakeBoard:
    uuid: str
    name: str
    memory_gib: int
    capability: tuple[int, int] = (9, 0)
    watts: float = 71.0
    slices: list[FakeSlice | None] = field(default_factory=list)


class FakeNvml:
    """Two H100, one A100, and one H100 that is split into slices, of which the first is missing."""

    def __init__(self) -> None:
        self.boards = [
            FakeBoard("GPU-aaaa1111", "NVIDIA H100", 80),
            FakeBoard("GPU-bbbb2222", "NVIDIA A100", 40, capability=(8, 0), watts=52.0),
            FakeBoard("GPU-bbbb3333", "NVIDIA H100", 80, watts=73.0),
            FakeBoard(
                "GPU-cccc4444",
                "NVIDIA H100",
                80,
                slices=[
                    None,
                    FakeSlice("MIG-dddd5555", "NVIDIA H100 MIG 1g.10gb", 10, (7, 0)),
                    FakeSlice("MIG-eeee6666", "NVIDIA H100 MIG 3g.40gb", 40, (2, 0)),
                ],
            ),
        ]

    def __getattr__(self, name: str) -> Any:
        return getattr(pynvml, name)

    def nvmlInit(self) -> None:
        pass

    def nvmlDeviceGetCount(self) -> int:
        return len(self.boards)

    def nvmlDeviceGetHandleByIndex(self, index: int) -> FakeBoard:
        return self.boards[index]

    def nvmlDeviceGetHandleByUUID(self, uuid: str) -> FakeBoard | FakeSlice:
        for board in self.boards:
            for handle in (board, *board.slices):
                if handle and handle.uuid == uuid:
                    return handle
        raise _error(pynvml.NVML_ERROR_NOT_FOUND)

    def nvmlDeviceGetUUID(self, handle: FakeBoard | FakeSlice) -> str:
        return handle.uuid

    def nvmlDeviceGetName(self, handle: FakeBoard | FakeSlice) -> str:
        return handle.name

    def nvmlDeviceGetMemoryInfo(self, handle: FakeBoard | FakeSlice) -> Any:
        return SimpleNamespace(total=handle.memory_gib * GIB)

    def nvmlDeviceGetCudaComputeCapability(self, board: FakeBoard) -> tuple[int, int]:
        return board.capability

    def nvmlDeviceGetTotalEnergyConsumption(self, board: FakeBoard) -> int:
        return 1

    def nvmlDeviceGetPowerUsage(self, board: FakeBoard) -> int:
        return int(board.watts * 1e3)

    def nvmlDeviceGetMigMode(self, board: FakeBoard) -> tuple[int, int]:
        if "A100" in board.name:
            raise _error(pynvml.NVML_ERROR_NOT_SUPPORTED)
        return (1, 1) if board.slices else (0, 0)

    def nvmlDeviceGetMaxMigDeviceCount(self, board: FakeBoard) -> int:
        return 7 if board.slices else 0

    def nvmlDeviceGetMigDeviceHandleByIndex(self, board: FakeBoard, index: int) -> FakeSlice:
        slice_ = board.slices[index] if index < len(board.slices) else None
        if slice_ is None:
            raise _error(pynvml.NVML_ERROR_NOT_FOUND)
        return slice_

    def nvmlDeviceGetDeviceHandleFromMigDeviceHandle(self, slice_: FakeSlice) -> FakeBoard:
        return next(board for board in self.boards if slice_ in board.slices)

    def nvmlDeviceGetGpuInstanceId(self, slice_: FakeSlice) -> int:
        return slice_.ids[0]

    def nvmlDeviceGetComputeInstanceId(self, slice_: FakeSlice) -> int:
        return slice_.ids[1]


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> FakeNvml:
    made = FakeNvml()
    monkeypatch.setattr(local, "pynvml", made)
    monkeypatch.setattr(visible, "pynvml", made)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    return made


@pytest.mark.parametrize(
    ("entries", "gpus"),
    [
        (None, ["GPU-aaaa1111", "GPU-bbbb2222", "GPU-bbbb3333", "GPU-cccc4444"]),
        ("2, 0", ["2", "0"]),
        ("1,-1,0", ["1"]),
        ("GPU-bbbb3,MIG-eeee6666", ["GPU-bbbb3", "MIG-eeee6666"]),
        ("", []),
    ],
)
def test_every_gpu_that_cuda_shows_is_listed(
    fake: FakeNvml, monkeypatch: pytest.MonkeyPatch, entries: str | None, gpus: list[str]
) -> None:
    if entries is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", entries)
    assert visible.visible_gpus() == gpus


@pytest.mark.parametrize(
    ("entries", "uuid"),
    [
        (None, "GPU-aaaa1111"),
        ("0", "GPU-aaaa1111"),
        ("1", "GPU-bbbb2222"),
        ("2,0", "GPU-bbbb3333"),
        (" 1 , 0", "GPU-bbbb2222"),
        ("1,-1,0", "GPU-bbbb2222"),
        ("GPU-bbbb2222", "GPU-bbbb2222"),
        ("GPU-bbbb3", "GPU-bbbb3333"),
        ("GPU-bbbb3333,GPU-aaaa1111", "GPU-bbbb3333"),
        ("3", "MIG-dddd5555"),
        ("GPU-cccc4444", "MIG-dddd5555"),
        ("MIG-eeee6666", "MIG-eeee6666"),
        ("MIG-GPU-cccc4444/2/0", "MIG-eeee6666"),
    ],
)
@pytest.mark.parametrize("kind", ["cuda", "auto"])
def test_the_device_is_the_first_that_cuda_shows(
    fake: FakeNvml, monkeypatch: pytest.MonkeyPatch, kind: str, entries: str | None, uuid: str
) -> None:
    if entries is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", entries)
    assert local_device(kind).uuid == uuid


@pytest.mark.parametrize(
    "entries",
    [
        "",
        " ",
        "-1",
        "-1,0",
        "4",
        "99",
        "none",
        "NoDevFiles",
        # Two boards begin so, and no board.
        "GPU-bbbb",
        "GPU-ffff",
        "MIG-ffff",
        "MIG-GPU-cccc4444/5/0",
        "MIG-GPU-cccc4444",
    ],
)
def test_where_cuda_shows_none_there_is_none(
    fake: FakeNvml, monkeypatch: pytest.MonkeyPatch, entries: str
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", entries)
    assert local_device("auto").kind == "cpu"
    with pytest.raises(InputError) as caught:
        local_device("cuda")
    assert str(caught.value) == (
        f"devices.kind = 'cuda': CUDA_VISIBLE_DEVICES = {entries!r} shows no GPU of this machine; "
        "correct CUDA_VISIBLE_DEVICES, plan on a GPU node, or take another kind"
    )


def test_a_machine_without_a_driver_has_no_gpu(
    fake: FakeNvml, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuses() -> None:
        raise _error(pynvml.NVML_ERROR_LIBRARY_NOT_FOUND)

    monkeypatch.setattr(fake, "nvmlInit", refuses, raising=False)
    with pytest.raises(InputError, match="this machine has no GPU that NVML sees"):
        local_device("cuda")
    assert local_device("auto").kind == "cpu"


def test_a_machine_with_a_driver_and_no_board_has_no_gpu(fake: FakeNvml) -> None:
    fake.boards.clear()
    assert local_device("auto").kind == "cpu"


def test_the_board_is_described_as_it_is(fake: FakeNvml, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")
    device = local_device("cuda")
    assert (device.name, device.arch, device.memory_bytes) == ("NVIDIA A100", "sm_80", 40 * GIB)
    assert (device.idle_power_w, device.mig) == (52.0, False)


def test_a_slice_has_its_own_memory_and_no_power(
    fake: FakeNvml, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "MIG-dddd5555")
    device = local_device("cuda")
    assert (device.name, device.arch) == ("NVIDIA H100 MIG 1g.10gb", "sm_90")
    assert (device.memory_bytes, device.mig) == (10 * GIB, True)
    assert not device.has_power
    # Some drivers give it the name of its board.
    (slice_,) = [one for one in fake.boards[3].slices if one and one.uuid == "MIG-dddd5555"]
    slice_.name = "NVIDIA H100"
    assert local_device("cuda").name == "NVIDIA H100 MIG 10gb"


def test_a_superchip_has_no_power_of_its_gpu(
    fake: FakeNvml, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its counter is the whole module's, so a plan must not count on power cells."""
    fake.boards[0].name = "NVIDIA GH200 480GB"
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    assert not local_device("cuda").has_power
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")
    assert local_device("cuda").has_power


def test_a_split_board_without_slices_is_no_gpu(
    fake: FakeNvml, monkeypatch: pytest.MonkeyPatch
) -> None:
    """CUDA does not show it."""
    fake.boards[3].slices = [None]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3")
    assert local_device("auto").kind == "cpu"


@pytest.mark.parametrize(
    ("entries", "uuid"),
    [("0", None), ("3", "MIG-dddd5555"), ("MIG-eeee6666", "MIG-eeee6666"), ("", None)],
)
def test_the_slice_that_cuda_would_use(fake: FakeNvml, entries: str, uuid: str | None) -> None:
    slice_ = visible.used_slice({"CUDA_VISIBLE_DEVICES": entries})
    assert getattr(slice_, "uuid", None) == uuid
