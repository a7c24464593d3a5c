"""Boards as NVML shows them, over four fake ones: each agent reads only its own board."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from types import SimpleNamespace
from typing import Any

import pynvml
import pytest

from agent.devices import nvml
from agent.devices.nvml import NvmlBoard, module_energy
from agent.instrument import LiveInstrument
from agent.kernels import Prepared
from agent.operands import Operands
from agent.power import PowerReading, meter
from agent.power_window import HostClock
from agent.timing import Burst
from gemmcast.cell import Cell
from gemmcast.device import Device
from gemmcast.errors import MeasurementError
from gemmcast.procedure import Procedure

MakeCell = Callable[..., Cell]
BUS_IDS = tuple(f"00000000:{bus}:00.0" for bus in ("04", "1B", "43", "AC"))
IDLE_W, STEP_S = 70.0, 0.1
NOT_SUPPORTED = pynvml.NVMLError(pynvml.NVML_ERROR_NOT_SUPPORTED)


@dataclass
class FakeGpu:
    """One board, whose counter shows whole steps; `lacks` names calls that its driver refuses."""

    uuid: str
    watts: float = IDLE_W
    energy_mj: float = 5e9
    shown_mj: float = 5e9
    next_step_s: float = STEP_S
    mig_mode: tuple[int, int] = (0, 0)
    processes: list[int] = field(default_factory=list)
    reasons: int = 0
    lacks: set[str] = field(default_factory=set)

    def draw(self, from_s: float, to_s: float) -> None:
        while self.next_step_s <= to_s:
            self.energy_mj += self.watts * (self.next_step_s - from_s) * 1e3
            from_s, self.shown_mj = self.next_step_s, self.energy_mj
            self.next_step_s += STEP_S
        self.energy_mj += self.watts * (to_s - from_s) * 1e3


class FakeNvml:
    """The calls of pynvml that we make, and a clock: time passes for all boards alike."""

    def __init__(self) -> None:
        self.gpus = {
            bus_id: FakeGpu(f"GPU-{i}", processes=[100 + i], next_step_s=0.03 * i + STEP_S)
            for i, bus_id in enumerate(BUS_IDS)
        }
        self.now = 0.0
        self.initialised = False

    def __getattr__(self, name: str) -> Any:
        return getattr(pynvml, name)  # constants and the error's type

    def now_s(self) -> float:
        return self.now

    def wait(self, seconds: float) -> None:
        for gpu in self.gpus.values():
            gpu.draw(self.now, self.now + seconds)
        self.now += seconds

    def nvmlInit(self) -> None:
        self.initialised = True

    def nvmlDeviceGetHandleByPciBusId(self, bus_id: str) -> FakeGpu:
        assert self.initialised
        if bus_id not in self.gpus:
            raise pynvml.NVMLError(pynvml.NVML_ERROR_NOT_FOUND)
        return self.gpus[bus_id]

    @staticmethod
    def _read(name: str, gpu: FakeGpu, value: Any) -> Any:
        if name in gpu.lacks:
            raise NOT_SUPPORTED
        return value

    def nvmlDeviceGetUUID(self, gpu: FakeGpu) -> str:
        return str(self._read("uuid", gpu, gpu.uuid))

    def nvmlDeviceGetTotalEnergyConsumption(self, gpu: FakeGpu) -> int:
        self.wait(0.002)
        return int(self._read("energy", gpu, gpu.shown_mj))

    def nvmlDeviceGetFieldValues(self, gpu: FakeGpu, fields: list[int]) -> list[Any]:
        assert fields == [pynvml.NVML_FI_DEV_POWER_INSTANT]
        status = (
            pynvml.NVML_ERROR_NOT_SUPPORTED if "instant field" in gpu.lacks else pynvml.NVML_SUCCESS
        )
        return self._read(
            "fields",
            gpu,
            [SimpleNamespace(nvmlReturn=status, value=SimpleNamespace(uiVal=int(gpu.watts * 1e3)))],
        )  # type: ignore[no-any-return]

    def nvmlDeviceGetEnforcedPowerLimit(self, gpu: FakeGpu) -> int:
        return int(self._read("limit", gpu, 700_000))

    def nvmlDeviceGetMigMode(self, gpu: FakeGpu) -> Any:
        return self._read("mig", gpu, list(gpu.mig_mode))

    def nvmlDeviceGetComputeRunningProcesses(self, gpu: FakeGpu) -> Any:
        processes = [SimpleNamespace(pid=pid) for pid in gpu.processes]
        return self._read("processes", gpu, processes)

    def nvmlDeviceGetClockInfo(self, gpu: FakeGpu, domain: int) -> int:
        assert domain == pynvml.NVML_CLOCK_SM
        return int(self._read("clock", gpu, 1980 if gpu.watts > IDLE_W else 345))

    def nvmlDeviceGetMaxClockInfo(self, gpu: FakeGpu, domain: int) -> int:
        assert domain == pynvml.NVML_CLOCK_SM
        return int(self._read("max clock", gpu, 1980))

    def nvmlDeviceGetTemperature(self, gpu: FakeGpu, sensor: int) -> int:
        assert sensor == pynvml.NVML_TEMPERATURE_GPU
        return int(self._read("temperature", gpu, 41))

    def nvmlDeviceGetCurrentClocksThrottleReasons(self, gpu: FakeGpu) -> int:
        return int(self._read("reasons", gpu, gpu.reasons))

    def nvmlSystemGetDriverVersion(self) -> str:
        return "580.65.06"


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> FakeNvml:
    made = FakeNvml()
    monkeypatch.setattr(nvml, "pynvml", made)
    return made


@pytest.mark.parametrize("at", range(4))
def test_a_board_is_opened_by_its_bus_and_named_by_nvml(fake: FakeNvml, at: int) -> None:
    fake.gpus[BUS_IDS[at]].energy_mj = fake.gpus[BUS_IDS[at]].shown_mj = 1234.0 + at
    board = NvmlBoard(BUS_IDS[at])
    assert board.uuid == f"GPU-{at}"
    assert board.energy_mj() == 1234.0 + at
    assert [NvmlBoard(bus_id).energy_mj() == 5e9 for bus_id in BUS_IDS] == [
        i != at for i in range(4)
    ]


def test_a_board_that_is_not_there_is_unsupported_and_named(fake: FakeNvml) -> None:
    with pytest.raises(
        MeasurementError, match=r"NVML can't open the GPU at 00000000:FF:00.0: Not Found"
    ) as caught:
        NvmlBoard("00000000:FF:00.0")
    assert caught.value.status == "unsupported"


def test_a_driver_that_can_not_be_loaded_is_unsupported(
    fake: FakeNvml, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuses() -> None:
        raise pynvml.NVMLError(pynvml.NVML_ERROR_LIBRARY_NOT_FOUND)

    monkeypatch.setattr(fake, "nvmlInit", refuses)
    with pytest.raises(MeasurementError, match="NVML can't open the GPU at"):
        NvmlBoard(BUS_IDS[0])


class Load:
    """Launches on one board: it draws what they draw until they stop."""

    def __init__(self, fake: FakeNvml, gpu: FakeGpu, watts: float) -> None:
        self._fake, self._gpu, self._watts = fake, gpu, watts

    def feed(self) -> None:
        self._gpu.watts = self._watts

    def mark(self) -> None:
        pass

    def launch_us(self) -> float:
        return 1000.0

    def clock_mhz(self) -> float | None:
        return 1980.0

    def stop(self) -> None:
        self._gpu.watts = IDLE_W


@pytest.fixture
def sample(
    fake: FakeNvml, make_backend: Any, make_cell: MakeCell, device: Device
) -> Callable[[int, float], dict[str, Any]]:
    """A row with power from the agent of that board, whose kernel draws so many watts."""

    class DeviceBackend(make_backend):  # type: ignore[misc]
        def __init__(self, at: int, watts: float) -> None:
            self.board = NvmlBoard(BUS_IDS[at])
            self._load = Load(fake, fake.gpus[BUS_IDS[at]], watts)
            super().__init__(replace(device, uuid=self.board.uuid, counter_step_s=STEP_S))

        def power(
            self,
            prepared: Prepared,
            sets: Sequence[Operands],
            burst: Burst,
            procedure: Procedure,
            *,
            cold: bool,
            step_s: Any,
            meanwhile: Any,
        ) -> PowerReading:
            return meter(
                self.board,
                self._load,
                procedure,
                step_s=step_s,
                burst_mhz=1980.0,
                meanwhile=meanwhile,
                clock=HostClock(now_s=fake.now_s, wait=fake.wait),
            )

    def row(at: int, watts: float) -> dict[str, Any]:
        backend = DeviceBackend(at, watts)
        return (
            LiveInstrument(backend, backend.identify(), Procedure(), f"agent {at}")
            .measure(make_cell(power=True))
            .row
        )

    return row


@pytest.mark.parametrize("loaded", range(4))
def test_loading_one_of_four_boards_moves_only_its_own_counter(
    fake: FakeNvml, sample: Callable[[int, float], dict[str, Any]], loaded: int
) -> None:
    """One board is loaded all the while; the agents of the others see only their own kernels."""
    others = [at for at in range(4) if at != loaded]
    fake.gpus[BUS_IDS[loaded]].watts = 650.0
    before = [gpu.energy_mj for gpu in fake.gpus.values()]
    rows = {at: sample(at, 200.0 + at) for at in others}
    spent_w = [
        (gpu.energy_mj - mj) / fake.now / 1e3
        for gpu, mj in zip(fake.gpus.values(), before, strict=True)
    ]
    assert spent_w[loaded] == pytest.approx(650.0)
    for at, row in rows.items():
        assert row["status"] == "ok"
        assert row["device_uuid"] == f"GPU-{at}"
        assert row["agent"] == f"agent {at}"
        assert row["power_w"] == pytest.approx(200.0 + at, rel=0.001)
        assert row["power_instant_w"] == pytest.approx(200.0 + at, rel=0.001)
        # Of a launch of 1 ms.
        assert row["energy_mj"] == pytest.approx(row["power_w"])
    own = sample(loaded, 650.0)
    assert own["device_uuid"] == f"GPU-{loaded}"
    assert own["power_w"] == pytest.approx(650.0, rel=0.001)
    assert fake.gpus[BUS_IDS[loaded]].watts == IDLE_W
    assert all(fake.gpus[BUS_IDS[at]].watts == IDLE_W for at in others)


@pytest.mark.parametrize("at", range(4))
def test_readings_are_those_of_the_board(fake: FakeNvml, at: int) -> None:
    gpu, board = fake.gpus[BUS_IDS[at]], NvmlBoard(BUS_IDS[at])
    gpu.watts = 333.5
    assert board.power_instant_w() == 333.5
    assert board.clock_mhz() == 1980.0
    assert board.clock_max_mhz() == 1980.0
    assert board.temperature_c() == 41.0
    assert board.power_limit_w() == 700.0
    assert board.mig() is False
    assert board.has_energy() is True
    assert board.driver() == "580.65.06"
    assert [NvmlBoard(bus_id).power_instant_w() == 333.5 for bus_id in BUS_IDS] == [
        i == at for i in range(4)
    ]


@pytest.mark.parametrize(
    ("reasons", "capped"),
    [
        (0, False),
        (pynvml.nvmlClocksThrottleReasonGpuIdle, False),
        (pynvml.nvmlClocksThrottleReasonSwPowerCap, True),
        (
            pynvml.nvmlClocksThrottleReasonHwPowerBrakeSlowdown
            | pynvml.nvmlClocksThrottleReasonGpuIdle,
            True,
        ),
        (
            pynvml.nvmlClocksThrottleReasonHwSlowdown
            | pynvml.nvmlClocksThrottleReasonSwThermalSlowdown,
            False,
        ),
    ],
)
def test_a_power_cap_is_distinguished_from_other_reasons(
    fake: FakeNvml, reasons: int, capped: bool
) -> None:
    fake.gpus[BUS_IDS[2]].reasons = reasons
    board = NvmlBoard(BUS_IDS[2])
    assert board.throttle_reasons() == reasons
    assert board.capped() == capped
    assert not NvmlBoard(BUS_IDS[1]).capped()


@pytest.mark.parametrize(
    ("call", "method", "without"),
    [
        ("energy", "has_energy", False),
        ("fields", "power_instant_w", None),
        ("instant field", "power_instant_w", None),
        ("limit", "power_limit_w", None),
        ("mig", "mig", False),
        ("processes", "process_ids", None),
        ("clock", "clock_mhz", None),
        ("max clock", "clock_max_mhz", None),
        ("temperature", "temperature_c", None),
        ("reasons", "throttle_reasons", None),
        ("reasons", "capped", False),
    ],
)
def test_a_reading_that_a_board_does_not_have_is_absent_there_and_only_there(
    fake: FakeNvml, call: str, method: str, without: Any
) -> None:
    fake.gpus[BUS_IDS[1]].lacks.add(call)
    fake.gpus[BUS_IDS[0]].mig_mode, fake.gpus[BUS_IDS[0]].reasons = (
        (1, 1),
        pynvml.nvmlClocksThrottleReasonSwPowerCap,
    )
    assert getattr(NvmlBoard(BUS_IDS[1]), method)() == without
    assert getattr(NvmlBoard(BUS_IDS[0]), method)() != without


@pytest.mark.parametrize(
    "name",
    [
        "NVIDIA GH200 480GB",
        "NVIDIA GH200 144G HBM3e",
        "GH200 120GB",
        "NVIDIA GB200",
        "NVIDIA GB300",
        "NVIDIA GB10",
        "gb200_sxm",
        "NVIDIA Grace Hopper",
    ],
)
def test_the_counter_of_a_superchip_is_that_of_its_module(name: str) -> None:
    reason = module_energy(name)
    assert reason is not None
    assert name in reason
    assert "whole module" in reason


@pytest.mark.parametrize(
    "name",
    [
        "NVIDIA H100 80GB HBM3",
        "NVIDIA H200",
        "NVIDIA B200",
        "NVIDIA GeForce RTX 4090",
        "NVIDIA RTX PRO 6000 Blackwell Server Edition",
        "NVIDIA L40S",
        "Tesla V100-SXM2-32GB",
        "NVIDIA A100-SXM4-80GB MIG 1g.10gb",
    ],
)
def test_the_counter_of_a_board_is_that_of_its_gpu(name: str) -> None:
    assert module_energy(name) is None


def test_an_energy_counter_that_fails_is_a_row_and_not_the_end_of_the_process(
    fake: FakeNvml, sample: Callable[[int, float], dict[str, Any]]
) -> None:
    fake.gpus[BUS_IDS[3]].lacks.add("energy")
    row = sample(3, 300.0)
    assert row["status"] == "cuda_error"
    assert row["reason"] == "NVML can't read the energy counter: Not Supported"
    assert row["runtime_us"] == 12.5
    assert row["power_w"] is None
    assert sample(2, 300.0)["status"] == "ok"


def test_an_energy_counter_that_is_reset_is_a_row_without_power(
    fake: FakeNvml, sample: Callable[[int, float], dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a board without instantaneous power, which would contradict."""
    gpu = fake.gpus[BUS_IDS[3]]
    gpu.lacks.add("fields")
    shown = fake.nvmlDeviceGetTotalEnergyConsumption

    def reset(of: FakeGpu) -> int:
        return shown(of) - (0 if fake.now < 0.5 else 4_999_000_000)

    monkeypatch.setattr(fake, "nvmlDeviceGetTotalEnergyConsumption", reset)
    row = sample(3, 300.0)
    assert row["status"] == "power_disputed"
    assert row["reason"] == "the energy counter fell from 5000147000 to 1147000 mJ"
    assert row["runtime_us"] == 12.5
    assert row["power_w"] is None and row["energy_mj"] is None


@pytest.mark.parametrize(
    ("mode", "on"), [((0, 0), False), ((1, 1), True), ((1, 0), True), ((0, 1), False)]
)
def test_mig_is_on_where_it_is_on_now_and_not_where_it_is_pending(
    fake: FakeNvml, mode: tuple[int, int], on: bool
) -> None:
    fake.gpus[BUS_IDS[0]].mig_mode = mode
    assert NvmlBoard(BUS_IDS[0]).mig() is on


def test_processes_are_listed_on_the_board_where_they_compute(fake: FakeNvml) -> None:
    fake.gpus[BUS_IDS[1]].processes += [7001, 7002]
    fake.gpus[BUS_IDS[2]].processes.clear()
    listed = [NvmlBoard(bus_id).process_ids() for bus_id in BUS_IDS]
    assert listed == [[100], [101, 7001, 7002], [], [103]]


def test_power_is_disputed_where_the_counter_and_the_board_disagree(
    fake: FakeNvml, sample: Callable[[int, float], dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A counter that shows half of what is drawn."""
    shown = fake.nvmlDeviceGetTotalEnergyConsumption
    monkeypatch.setattr(fake, "nvmlDeviceGetTotalEnergyConsumption", lambda gpu: shown(gpu) // 2)
    row = sample(0, 300.0)
    assert row["status"] == "power_disputed"
    assert row["power_w"] == pytest.approx(150.0, rel=0.01)
    assert row["power_instant_w"] == pytest.approx(300.0, rel=0.01)


def test_a_slice_has_its_own_uuid_and_processes(
    fake: FakeNvml, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Agents of two slices of a board would be one board, and neighbours of each other for ever."""
    whole = fake.gpus[BUS_IDS[0]]
    whole.processes = [7, 8, 9]
    slice_ = FakeGpu("MIG-1", processes=[8])
    monkeypatch.setattr(nvml, "used_slice", lambda: slice_)
    board = NvmlBoard(BUS_IDS[0])
    assert (board.uuid, board.process_ids()) == (whole.uuid, [7, 8, 9])
    whole.mig_mode = (1, 1)
    board = NvmlBoard(BUS_IDS[0])
    assert (board.uuid, board.process_ids()) == ("MIG-1", [8])
    assert board.power_limit_w() == 700
