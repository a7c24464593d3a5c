"""What the tests of the coordinator and the cost model share.

Two devices on paper, a law of nature for each, some 300 samples drawn from it, and models of them.
"""

from __future__ import annotations

import os
import pickle
import subprocess
from collections.abc import Callable, Iterator
from contextlib import redirect_stderr, redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from filelock import FileLock
from threadpoolctl import threadpool_limits

from coordinator import terminal
from coordinator.cli import main
from coordinator.plan.cells import plan_cells
from coordinator.plan.schema import Plan, parse_plan
from costmodel import ensemble
from costmodel.exam import Exam
from costmodel.settings import TrainSettings
from costmodel.train import TrainedModel, train
from gemmcast.arrow import to_table
from gemmcast.cell import Cell
from gemmcast.device import Device
from gemmcast.modeldir import write_atomically
from gemmcast.rows import Row, blank
from registry import mlflow_calls
from tests.made_up_clock import Clock

MadeOnce = Callable[[str, Callable[[], Any]], Any]
"""Called with a name and what makes it."""
Ended = subprocess.CompletedProcess[str]
MEASURED_AT = "2026-01-01T12:00:00.000+00:00"
NOISE = 0.02
"""Standard deviation of a reading's logarithm."""
CPU = Device(
    name="Paper CPU (2 cores)",
    kind="cpu",
    uuid="CPU-paper",
    compute_units=2,
    memory_bytes=2**34,
    l2_bytes=2**25,
    dram_gbps=40.0,
    empty_kernel_us=1.0,
    empty_launch_us=1.0,
    peak_tflops={"fp32": 0.2, "fp64": 0.1},
    library="openblas 0",
)
GPU = Device(
    name="Paper GPU 80GB",
    kind="cuda",
    uuid="GPU-paper-0",
    compute_units=132,
    clock_max_mhz=1980.0,
    power_limit_w=700.0,
    idle_power_w=70.0,
    memory_bytes=80 * 2**30,
    l2_bytes=50 * 2**20,
    dram_gbps=2900.0,
    empty_kernel_us=2.5,
    empty_launch_us=4.5,
    peak_tflops={"fp32": 50.0, "tf32": 380.0, "fp16": 640.0, "bf16": 660.0},
    driver="580",
    cuda="13.0",
    library="cublas 13",
)
CPU_PLAN = {
    "name": "paper-cpu",
    "sweep": [
        {
            "family": "blas",
            "kernel": "numpy",
            "shapes": {"sample": 100, "min": 16, "max": 1024},
            "knobs": {"cpu_threads": [1, 2]},
        },
        {
            "family": "blas",
            "kernel": "blocked",
            "shapes": {"sample": 100, "min": 16, "max": 1024},
            "knobs": {"cpu_threads": [1], "tile": [64]},
        },
    ],
}
GPU_PLAN = {
    "name": "paper-gpu",
    "sweep": [
        {
            "family": "tiled",
            "shapes": {"sample": 60, "min": 16, "max": 4096},
            "knobs": {"tile": [8, 16, 32]},
            "power_share": 1.0,
        },
        {
            "family": "cublas",
            "dtypes": ["fp16"],
            "shapes": {"sample": 60, "min": 16, "max": 4096},
            "power_share": 1.0,
        },
    ],
}
# Ray's workers would give way to every other process, and a node has 30 s to start: a busy machine
# would stop the tests.
os.environ.update(RAY_worker_niceness="0", RAY_raylet_start_wait_time_s="300")
WIDTH = 200
"""Columns of a terminal that no table is too wide for."""
PLAN_TABLES = ("name", "seed", "devices", "politeness", "measure", "train")


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture(scope="session", autouse=True)
def one_process_a_fit() -> Iterator[None]:
    """Networks are fitted one after another: the cores have tests enough to run."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ensemble, "_cores", lambda: 1)
        yield


@pytest.fixture(scope="session")
def made_once(tmp_path_factory: pytest.TempPathFactory) -> MadeOnce:
    """What takes seconds, made by the first worker that needs it and read by the others."""
    folder = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        folder = folder.parent

    def once(name: str, make: Callable[[], Any]) -> Any:
        path = folder / f"{name}.pickle"
        with FileLock(f"{path}.lock"):
            if not path.exists():
                write_atomically(path, pickle.dumps(make()))
            return pickle.loads(path.read_bytes())

    return once


@pytest.fixture(scope="session", autouse=True)
def _copied_registries(
    made_once: MadeOnce, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[None]:
    """MLflow writes the same tables into every new registry, in over a second: once is enough.

    The processes of test_registry_processes.py fill theirs themselves.
    """
    fill = mlflow_calls.fill

    def filled() -> bytes:
        path = tmp_path_factory.mktemp("filled") / "mlflow.db"
        fill(f"sqlite:///{path}")
        return path.read_bytes()

    def copy(uri: str) -> None:
        Path(uri.removeprefix("sqlite:///")).write_bytes(made_once("empty registry", filled))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(mlflow_calls, "fill", copy)
        yield


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> Iterator[None]:
    """Threads that wait for a busy core slow boosting down 50 times."""
    with threadpool_limits(1, user_api="openmp"):
        yield


def _law(cell: Cell, device: Device) -> Row:
    """Readings as a real machine would give them.

    A roofline, lower efficiency for small and ragged shapes, and noise.
    """
    rng = np.random.default_rng(int(cell.cell_id, 16))
    gemm = cell.gemm
    compute_us = _compute_us(cell, device)
    moved_us = gemm.operand_bytes / (device.dram_gbps * 1e3)
    assert device.empty_kernel_us is not None
    empty_us = device.empty_kernel_us
    quiet_us = max(compute_us, moved_us) + empty_us
    runtime_us = float(quiet_us * np.exp(NOISE * rng.standard_normal()))
    readings: Row = {
        "runtime_us": runtime_us,
        "runtime_uncertainty": 0.003,
        "launches_timed": 250,
        "max_error_over_rms": 1e-6,
    }
    if cell.power and device.has_power:
        assert device.power_limit_w is not None and device.idle_power_w is not None
        busy = compute_us / (compute_us + moved_us + empty_us)
        noise = np.exp(NOISE * rng.standard_normal())
        range_w = device.power_limit_w - device.idle_power_w
        power_w = float(device.idle_power_w + range_w * busy * noise)
        sustained_us = runtime_us * (1 + 0.15 * busy)
        readings |= {
            "power_w": power_w,
            "sustained_runtime_us": sustained_us,
            "energy_mj": power_w * sustained_us * 1e-3,
            "window_s": 0.5,
            "counter_steps": 5,
        }
    return readings


def _compute_us(cell: Cell, device: Device) -> float:
    """Time of the multiply-adds alone."""
    gemm, config = cell.gemm, cell.config
    active = 1.0
    if device.kind == "cpu" and config.cpu_threads:
        active = min(config.cpu_threads, device.compute_units) / device.compute_units
    tile = config.tile_m or 96
    full = [size / (-(-size // tile) * tile) for size in (gemm.m, gemm.n)]
    slow_by_family = {
        "tiled": 9.0 / max(config.tile_m, 1) ** 0.4,
        "blas": 1.3 if config.kernel == "blocked" else 1.0,
    }
    slow = slow_by_family.get(config.family, 1.1)
    ideal_us = gemm.flops / (device.peak_tflops[gemm.dtype] * active * 1e6)
    return ideal_us * slow / float(np.prod(full)) * (1 + 24 / gemm.k)


def _measure(cell: Cell, device: Device, **columns: object) -> Row:
    """The sample of a cell on a device on paper."""
    readings = _law(cell, device) if columns.get("status", "ok") == "ok" else {}
    row = blank(cell, device, f"{device.uuid}/agent")
    return {**row, "measured_at": MEASURED_AT, **readings, **columns}


@pytest.fixture(scope="session")
def measure() -> Callable[..., Row]:
    return _measure


@pytest.fixture(scope="session")
def cpu() -> Device:
    return CPU


@pytest.fixture(scope="session")
def gpu() -> Device:
    return GPU


@pytest.fixture(scope="session")
def make_plan() -> Callable[..., Plan]:
    """A plan of one sweep, of family blas by default."""

    def plan(shapes: dict[str, object] | None = None, **options: object) -> Plan:
        tables = {name: options.pop(name) for name in PLAN_TABLES if name in options}
        default = {"sample": 20, "max": 512}
        sweep = {"family": "blas", "shapes": shapes or default, **options}
        return parse_plan({"name": "test", "sweep": [sweep], **tables})

    return plan


@pytest.fixture(scope="session")
def cpu_cells() -> list[Cell]:
    return plan_cells(parse_plan(CPU_PLAN), CPU).cells


@pytest.fixture(scope="session")
def cpu_samples(cpu_cells: list[Cell]) -> pa.Table:
    """300 rows: 100 shapes, three ways to multiply."""
    return to_table([_measure(cell, CPU) for cell in cpu_cells])


@pytest.fixture(scope="session")
def power_samples() -> pa.Table:
    """240 rows of a GPU, every one with power."""
    cells = plan_cells(parse_plan(GPU_PLAN), GPU).cells
    return to_table([_measure(cell, GPU) for cell in cells])


@pytest.fixture(scope="session")
def _trained(
    made_once: MadeOnce, cpu_samples: pa.Table
) -> tuple[TrainedModel, list[tuple[str, int, int]]]:
    def make() -> tuple[TrainedModel, list[tuple[str, int, int]]]:
        steps: list[tuple[str, int, int]] = []
        trained = train(
            cpu_samples, TrainSettings(), store_version=7, step=lambda *done: steps.append(done)
        )
        return trained, steps

    trained: tuple[TrainedModel, list[tuple[str, int, int]]] = made_once("candidate", make)
    return trained


@pytest.fixture(scope="session")
def candidate(_trained: tuple[TrainedModel, list[tuple[str, int, int]]]) -> TrainedModel:
    return _trained[0]


@pytest.fixture(scope="session")
def training_steps(
    _trained: tuple[TrainedModel, list[tuple[str, int, int]]],
) -> list[tuple[str, int, int]]:
    """What the training of `candidate` reported."""
    return _trained[1]


def exam_of(samples: pa.Table) -> Exam:
    """Every eighth row as if of another board, at n + 1 and k + 1."""
    rows: list[Row] = samples.to_pylist()[::8]
    for row in rows:
        row |= {"n": row["n"] + 1, "k": row["k"] + 1, "device_uuid": "GPU-paper-exam"}
    return Exam(name="exam.parquet", table=to_table(rows))


@pytest.fixture(scope="session")
def power_candidate(made_once: MadeOnce, power_samples: pa.Table) -> TrainedModel:
    """With an exam in its card."""

    def make() -> TrainedModel:
        return train(power_samples, TrainSettings(), exam=exam_of(power_samples))

    trained: TrainedModel = made_once("power candidate", make)
    return trained


@pytest.fixture(scope="session")
def python_env() -> dict[str, str]:
    """For another Python process of this project, started from anywhere."""
    root = Path(__file__).resolve().parent.parent
    return {**os.environ, "PYTHONPATH": str(root), "PYTHONDONTWRITEBYTECODE": "1"}


@pytest.fixture(scope="session")
def coordinator() -> Callable[..., Ended]:
    """The command line in this process, because MLflow takes seconds to import.

    test_coordinator_plan.py and test_coordinator_workspace.py start it as a process of its own.
    """

    def run(*arguments: str | Path) -> Ended:
        out, err = StringIO(), StringIO()
        with (
            redirect_stdout(out),
            redirect_stderr(err),
            pytest.MonkeyPatch.context() as patch,
        ):
            patch.setattr(terminal.out, "width", WIDTH)
            patch.setattr(terminal.console, "width", WIDTH)
            code = main([str(argument) for argument in arguments])
        return Ended(arguments, code, out.getvalue(), err.getvalue())

    return run
