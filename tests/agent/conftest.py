"""What the agent's tests share: a device on paper, cells and recorded rows, and a real measuring child."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from agent.instrument import blank
from agent.worker import Worker
from gemmcast.cell import Cell
from gemmcast.config import KernelConfig
from gemmcast.device import Device
from gemmcast.gemm import Gemm
from gemmcast.procedure import Procedure

MakeCell = Callable[..., Cell]
MakeWorker = Callable[..., Worker]
DEVICE = Device(
    name="Paper CPU (2 cores)", kind="cpu", uuid="CPU-paper", sm_count=2, memory_bytes=2**34, l2_bytes=2**25, dram_gbps=40.0,
    launch_overhead_us=1.0, peak_tflops={"fp32": 0.2, "fp64": 0.1}, library="openblas 0",
)  # fmt: skip
QUICK = Procedure(burst_s=0.005)


@pytest.fixture
def device() -> Device:
    return DEVICE


def _cell(m: int = 32, n: int = 48, k: int = 64, *, threads: int = 1, kernel: str = "numpy", **options: Any) -> Cell:
    """A small product on this CPU; options are a Gemm's, a KernelConfig's or a Cell's."""
    gemm = {name: options.pop(name) for name in ("batch", "dtype", "layout", "alpha", "beta") if name in options}
    of_cell = {name: options.pop(name) for name in ("target", "cache", "power", "repeat") if name in options}
    config = KernelConfig(**{"family": "blas", "kernel": kernel, "threads": threads, **options})
    return Cell(gemm=Gemm(m=m, n=n, k=k, **gemm), config=config, **{"target": DEVICE.name, "cache": "warm", **of_cell})


@pytest.fixture(scope="session")
def make_cell() -> MakeCell:
    return _cell


@pytest.fixture(scope="session")
def make_row() -> Callable[..., dict[str, Any]]:
    """A recorded sample of a cell, status ok."""

    def row(cell: Cell, runtime_us: float = 10.0, device: Device = DEVICE, **columns: Any) -> dict[str, Any]:
        readings = {"runtime_us": runtime_us, "runtime_rse": 0.001, "repeats": 100, "max_rel_error": 1e-7}
        return {**blank(cell, device, "recorder"), **readings, **columns}

    return row


@pytest.fixture(scope="session")
def model_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One for all: only the first child measures the device's peaks."""
    return tmp_path_factory.mktemp("node")


@pytest.fixture
def make_worker(model_dir: Path) -> Iterator[MakeWorker]:
    made: list[Worker] = []

    def worker(timeout_s: float = 60.0, *, procedure: Procedure = QUICK, **spec: Any) -> Worker:
        made.append(Worker({"kind": "cpu", "agent": "me", "model_dir": str(model_dir), "procedure": asdict(procedure), **spec}, timeout_s))
        return made[-1]

    yield worker
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
