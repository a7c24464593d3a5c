"""What the agent's tests share: a device on paper, cells and recorded rows, a bench that plays a device, and a real measuring child."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from agent.kernels import Prepared
from agent.operands import Carved, Operands, input_elements, output_elements
from agent.power import PowerReading
from agent.supervisor import ChildSupervisor
from agent.timing import Burst, Steps
from gemmcast.cell import Cell
from gemmcast.config import KernelConfig
from gemmcast.device import Device
from gemmcast.gemm import Gemm
from gemmcast.procedure import Procedure
from gemmcast.rows import blank

MakeCell = Callable[..., Cell]
MakeWorker = Callable[..., ChildSupervisor]
DEVICE = Device(
    name="Paper CPU (2 cores)", kind="cpu", uuid="CPU-paper", compute_units=2, memory_bytes=2**34, l2_bytes=2**25, dram_gbps=40.0,
    empty_launch_us=1.0, peak_tflops={"fp32": 0.2, "fp64": 0.1}, library="openblas 0",
)  # fmt: skip
QUICK = Procedure(burst_s=0.005)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Measuring processes must be alone on the GPU: they go before any test that holds it in this process."""
    items.sort(key=lambda item: item.path.name != "test_agent_gpu.py")


@pytest.fixture
def device() -> Device:
    return DEVICE


def _cell(m: int = 32, n: int = 48, k: int = 64, *, threads: int = 1, kernel: str = "numpy", **options: Any) -> Cell:
    """A small product on this CPU; options are a Gemm's, a KernelConfig's or a Cell's."""
    gemm = {name: options.pop(name) for name in ("batch", "dtype", "layout", "alpha", "beta") if name in options}
    of_cell = {name: options.pop(name) for name in ("device_key", "cache", "power", "repeat") if name in options}
    config = KernelConfig(**{"family": "blas", "kernel": kernel, "cpu_threads": threads, **options})
    return Cell(gemm=Gemm(m=m, n=n, k=k, **gemm), config=config, **{"device_key": DEVICE.name, "cache": "warm", **of_cell})


@pytest.fixture(scope="session")
def make_cell() -> MakeCell:
    return _cell


@pytest.fixture(scope="session")
def make_row() -> Callable[..., dict[str, Any]]:
    """A recorded sample of a cell, status ok."""

    def row(cell: Cell, runtime_us: float = 10.0, device: Device = DEVICE, **columns: Any) -> dict[str, Any]:
        readings = {"runtime_us": runtime_us, "runtime_rse": 0.001, "launches_timed": 100, "max_error_over_rms": 1e-7}
        return {**blank(cell, device, "recorder"), **readings, **columns}

    return row


class Work:
    """Enqueued by a cell; what is done after waiting for it is that cell's."""

    def __init__(self, backend: FakeBench, stage: str, m: int) -> None:
        self._backend, self._stage, self._m = backend, stage, m

    def wait(self) -> None:
        self._backend.current = self._m
        self._backend.at(self._stage, self._m)


class FakeBench:
    """NumPy arrays; a launch takes 12.5 us, in the window 15 us at 200 W; neighbours come and go as `busy` says.

    Cells are told apart by their m. Each goes through the stages operands, checked, burst, timed, power, window; the first to hear of
    it is `trouble`, which may raise.
    """

    xp: Any = np
    BURST = Burst(runtime_us=12.5, runtime_rse=0.002, launches_timed=400, clock_mhz=1755.0, start_mhz=1980.0)
    POWER = PowerReading(power_w=200.0, power_instant_w=198.0, sustained_runtime_us=15.0, clock_mhz=1500.0, window_s=0.5, counter_steps=5)

    def __init__(
        self, device: Device, *, depth: int = 1, busy: Sequence[str | None] = (), trouble: Callable[[str, int], object] = lambda stage, m: None,
        burst: Burst = BURST, power: PowerReading = POWER, no_power: str | None = None,
    ) -> None:  # fmt: skip
        self.depth, self._device, self._busy, self._trouble = depth, device, iter(busy), trouble
        self._burst, self._power, self._no_power = burst, power, no_power
        self.log: list[tuple[str, int]] = []
        self.asked: list[tuple[Gemm, bool]] = []
        self.steps_s: list[float | None] = []
        self.current = 0
        self._unchecked = False
        self._made: tuple[Gemm, bool, list[Operands]] | None = None
        self._m_of: dict[int, int] = {}

    def at(self, stage: str, m: int) -> None:
        self.log.append((stage, m))
        self._trouble(stage, m)

    def identify(self) -> Device:
        return self._device

    characterise = identify

    def operands(self, gemm: Gemm, *, cold: bool) -> Sequence[Operands]:
        self.at("operands", gemm.m)
        self.asked.append((gemm, cold))
        self._unchecked = True
        if self._made is None or self._made[:2] != (gemm, cold):
            sets, rng = 3 if cold else 1, np.random.default_rng(0)
            arenas = (rng.standard_normal(sets * size, np.float32) for size in (input_elements(gemm), output_elements(gemm)))
            self._made = (gemm, cold, Carved(gemm, *arenas, sets))
        return self._made[2]

    def pending(self) -> Work:
        stage, self._unchecked = "checked" if self._unchecked else "all waited for", False
        return Work(self, stage, self.asked[-1][0].m)

    def read(self, array: Any) -> Any:
        return array

    def burst(self, prepared: Prepared, sets: int, procedure: Procedure, *, cold: bool) -> Steps[tuple[Burst, dict[str, Any]]]:
        m = self._m_of[id(prepared)] = self.current
        self.at("burst", m)
        yield Work(self, "timed", m)
        return self._burst, {"temperature_c": 41.0, "host_launch_us": 2.5, "launch_bound": False, "throttle_reasons": 4}

    def no_power(self) -> str | None:
        return self._no_power

    def power(
        self, prepared: Prepared, sets: int, burst: Burst, procedure: Procedure, *, step_s: float | None, meanwhile: Callable[[], object]
    ) -> PowerReading:
        self.steps_s.append(step_s)
        self.at("power", self._m_of[id(prepared)])
        meanwhile()
        self.current = self._m_of[id(prepared)]
        self.at("window", self.current)
        return self._power

    def contention(self) -> str | None:
        return next(self._busy, None)


@pytest.fixture(scope="session")
def make_bench() -> Callable[..., Any]:
    return FakeBench


@pytest.fixture(scope="session")
def device_fault() -> Callable[[str], RuntimeError]:
    """What CuPy raises when the context is gone."""
    return type("CUDARuntimeError", (RuntimeError,), {"__module__": "cupy_backends.cuda.api.runtime"})


@pytest.fixture(scope="session")
def model_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One for all: only the first child measures the device's peaks."""
    return tmp_path_factory.mktemp("node")


@pytest.fixture
def make_worker(model_dir: Path) -> Iterator[MakeWorker]:
    made: list[ChildSupervisor] = []

    def supervisor(timeout_s: float = 60.0, *, procedure: Procedure = QUICK, program: Sequence[str] = (), **spec: Any) -> ChildSupervisor:
        spec = {"kind": "cpu", "agent": "me", "model_dir": str(model_dir), "procedure": asdict(procedure), **spec}
        made.append(ChildSupervisor(spec, timeout_s, *([program] if program else [])))
        return made[-1]

    yield supervisor
    for one in made:
        one.stop()


def _alive(pid: int) -> bool:
    """A zombie is dead."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.fixture(scope="session")
def alive() -> Callable[[int], bool]:
    return _alive


@pytest.fixture
def python_env() -> dict[str, str]:
    """For a Python of our own in another process, started from anywhere."""
    root = Path(__file__).resolve().parent.parent.parent
    return {**os.environ, "PYTHONPATH": str(root), "PYTHONDONTWRITEBYTECODE": "1"}
