"""What the agent's tests share: a paper device, cells, recorded rows, a fake backend, children."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent))

import fake_gpu

from agent.kernels import Prepared
from agent.operands import Carved, Operands, input_elements, output_elements
from agent.power import PowerReading
from agent.spec import AgentSpec
from agent.supervisor import ChildSupervisor
from agent.timing import Burst, Steps
from gemmcast.cell import Cell
from gemmcast.config import KernelConfig
from gemmcast.device import Device
from gemmcast.errors import MeasurementError
from gemmcast.gemm import Gemm
from gemmcast.procedure import Procedure
from gemmcast.rows import blank
from tests.conftest import CPU as DEVICE

MakeCell = Callable[..., Cell]
MakeSupervisor = Callable[..., ChildSupervisor]
GPU = replace(
    DEVICE,
    name="Paper GPU",
    kind="cuda",
    uuid="GPU-paper",
    arch="sm_90",
    compute_units=132,
    peak_tflops={"fp32": 50.0, "fp16": 640.0},
)
QUICK = Procedure(burst_s=0.005)
STEADY_CHILD = (sys.executable, str(Path(__file__).parent / "steady_child.py"))
GEMM_OPTIONS = ("batch", "dtype", "layout", "alpha", "beta")
CELL_OPTIONS = ("device_key", "cache", "power", "repeat")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Measuring processes must be alone on the GPU: before tests that hold it in this process."""
    items.sort(key=lambda item: item.path.name != "test_agent_gpu.py")


@pytest.fixture
def device() -> Device:
    return DEVICE


def _cell(
    m: int = 32,
    n: int = 48,
    k: int = 64,
    *,
    threads: int = 1,
    kernel: str = "numpy",
    **options: Any,
) -> Cell:
    """A small product on this CPU; options are a Gemm's, a KernelConfig's or a Cell's."""
    for_gemm = {name: options.pop(name) for name in GEMM_OPTIONS if name in options}
    for_cell = {name: options.pop(name) for name in CELL_OPTIONS if name in options}
    knobs = {"family": "blas", "kernel": kernel, "cpu_threads": threads, **options}
    return Cell(
        gemm=Gemm(m=m, n=n, k=k, **for_gemm),
        config=KernelConfig(**knobs),
        **{"device_key": DEVICE.name, "cache": "warm", **for_cell},
    )


@pytest.fixture(scope="session")
def make_cell() -> MakeCell:
    return _cell


@pytest.fixture(scope="session")
def make_row() -> Callable[..., dict[str, Any]]:
    """A recorded sample of a cell, status ok."""

    def row(
        cell: Cell, runtime_us: float = 10.0, device: Device = DEVICE, **columns: Any
    ) -> dict[str, Any]:
        readings = {
            "runtime_us": runtime_us,
            "runtime_uncertainty": 0.001,
            "launches_timed": 100,
            "max_error_over_rms": 1e-7,
        }
        return {**blank(cell, device, "recorder"), **readings, **columns}

    return row


class Work:
    """Enqueued by a cell; what is done after waiting for it is that cell's."""

    def __init__(self, backend: FakeBackend, stage: str, m: int) -> None:
        self._backend = backend
        self._stage = stage
        self._m = m

    def wait(self) -> None:
        self._backend.current = self._m
        self._backend.at(self._stage, self._m)


class FakeBackend:
    """NumPy arrays; a launch takes 12.5 us, in the power window 15 us at 200 W.

    Cells are distinguished by their m. Each goes through the stages operands, checked, burst,
    timed, power, window; `trouble` is called at each and may raise. `busy` holds the answers of
    `contention`.
    """

    xp: Any = np
    BURST = Burst(
        runtime_us=12.5,
        runtime_rse=0.002,
        launches_timed=400,
        clock_mhz=1755.0,
        start_mhz=1980.0,
    )
    POWER = PowerReading(
        power_w=200.0,
        power_instant_w=198.0,
        sustained_runtime_us=15.0,
        clock_mhz=1500.0,
        window_s=0.5,
        counter_steps=5,
    )

    def __init__(
        self,
        device: Device,
        *,
        depth: int = 1,
        busy: Iterable[str | None] = (),
        trouble: Callable[[str, int], object] = lambda stage, m: None,
        burst: Burst = BURST,
        power: PowerReading = POWER,
        no_power: str | None = None,
    ) -> None:
        self.depth = depth
        self._device = device
        self._busy = iter(busy)
        self._trouble = trouble
        self._burst = burst
        self._power = power
        self._no_power = no_power
        self.log: list[tuple[str, int]] = []
        self.requests: list[tuple[Gemm, bool]] = []
        self.steps_s: list[float | None] = []
        self.current = 0
        self._unchecked = False
        self._problem: tuple[Gemm, bool] | None = None
        self._sets: Sequence[Operands] = ()
        self._m_of: dict[int, int] = {}

    def at(self, stage: str, m: int) -> None:
        self.log.append((stage, m))
        self._trouble(stage, m)

    def identify(self) -> Device:
        return self._device

    characterise = identify

    def operands(self, gemm: Gemm, *, cold: bool, metered: bool = False) -> Sequence[Operands]:
        self.at("operands", gemm.m)
        self.requests.append((gemm, cold))
        self._unchecked = True
        if self._problem != (gemm, cold):
            sets = 3 if cold else 1
            rng = np.random.default_rng(0)
            inputs = rng.standard_normal(sets * input_elements(gemm), np.float32)
            outputs = rng.standard_normal(sets * output_elements(gemm), np.float32)
            self._sets = Carved(gemm, inputs, outputs, sets)
            self._problem = (gemm, cold)
        return self._sets

    def pending(self) -> Work:
        stage = "checked" if self._unchecked else "all waited for"
        self._unchecked = False
        return Work(self, stage, self.requests[-1][0].m)

    def read(self, array: Any) -> Any:
        return array

    def burst(
        self,
        prepared: Prepared,
        sets: Sequence[Operands],
        procedure: Procedure,
        *,
        cold: bool,
        window_mhz: float | None = None,
    ) -> Steps[tuple[Burst, dict[str, Any]]]:
        m = self._m_of[id(prepared)] = self.current
        self.at("burst", m)
        yield Work(self, "timed", m)
        return self._burst, {
            "temperature_c": 41.0,
            "host_launch_us": 2.5,
            "launch_bound": False,
            "throttle_reasons": 4,
        }

    def no_power(self) -> str | None:
        return self._no_power

    def power(
        self,
        prepared: Prepared,
        sets: Sequence[Operands],
        burst: Burst,
        procedure: Procedure,
        *,
        cold: bool,
        step_s: float | None,
        meanwhile: Callable[[], object],
    ) -> PowerReading:
        if self._no_power is not None:
            raise MeasurementError("unsupported", self._no_power)
        m = self._m_of[id(prepared)]
        self.steps_s.append(step_s)
        self.at("power", m)
        meanwhile()
        self.current = m
        self.at("window", m)
        return self._power

    def contention(self) -> str | None:
        return next(self._busy, None)


@pytest.fixture(scope="session")
def make_backend() -> Callable[..., Any]:
    return FakeBackend


@pytest.fixture
def devices() -> dict[str, Device]:
    """On paper, one of each kind."""
    return {device.kind: device for device in (DEVICE, GPU)}


@pytest.fixture
def gpu() -> Iterator[fake_gpu.Gpu]:
    """A fake GPU in place of CuPy and NVML, for one test."""
    with fake_gpu.installed() as installed:
        yield installed


@pytest.fixture(scope="session")
def device_fault() -> Callable[[str], RuntimeError]:
    """What CuPy raises when the context is gone."""
    module = {"__module__": "cupy_backends.cuda.api.runtime"}
    return type("CUDARuntimeError", (RuntimeError,), module)


@pytest.fixture(scope="session")
def model_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One for all: only the first child measures the device's peaks."""
    return tmp_path_factory.mktemp("node")


@pytest.fixture
def make_supervisor(model_dir: Path) -> Iterator[MakeSupervisor]:
    """Starts children, undisturbed by other processes; options are an AgentSpec's."""
    started: list[ChildSupervisor] = []

    def start(
        timeout_s: float = 60.0,
        *,
        procedure: Procedure = QUICK,
        program: Sequence[str] = STEADY_CHILD,
        clock: Any = None,
        **options: Any,
    ) -> ChildSupervisor:
        values = {"kind": "cpu", "agent": "me", "model_dir": model_dir, **options}
        spec = AgentSpec(procedure=replace(procedure, timeout_s=timeout_s), **values)
        now_s = {} if clock is None else {"now_s": clock}
        started.append(ChildSupervisor(spec, program, **now_s))
        return started[-1]

    yield start
    for supervisor in started:
        supervisor.stop()


def _alive(pid: int) -> bool:
    """A zombie is dead."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except FileNotFoundError:
        return False
    return stat.rpartition(")")[2].split()[0] != "Z"


@pytest.fixture(scope="session")
def alive() -> Callable[[int], bool]:
    return _alive


@pytest.fixture
def python_env() -> dict[str, str]:
    """For another Python process of this program, started from anywhere."""
    root = Path(__file__).resolve().parent.parent.parent
    return {**os.environ, "PYTHONPATH": str(root), "PYTHONDONTWRITEBYTECODE": "1"}
