"""What the coordinator's tests share: two devices on paper, a law of nature for each, some 300 samples drawn from it, and models of them."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import redirect_stderr, redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from threadpoolctl import threadpool_limits

from coordinator.cli import main
from coordinator.plan.cells import plan_cells
from coordinator.plan.schema import Plan, Train, parse_plan
from costmodel.train import Candidate, train
from gemmcast.arrow import to_table
from gemmcast.cell import Cell
from gemmcast.device import Device
from gemmcast.rows import blank

Ended = subprocess.CompletedProcess[str]
MEASURED_AT = "2026-01-01T12:00:00.000+00:00"
CPU = Device(
    name="Paper CPU (2 cores)", kind="cpu", uuid="CPU-paper", compute_units=2, memory_bytes=2**34, l2_bytes=2**25, dram_gbps=40.0,
    empty_launch_us=1.0, peak_tflops={"fp32": 0.2, "fp64": 0.1}, library="openblas 0",
)  # fmt: skip
GPU = Device(
    name="Paper GPU 80GB", kind="cuda", uuid="GPU-paper-0", compute_units=132, clock_max_mhz=1980.0, power_limit_w=700.0, idle_power_w=70.0,
    memory_bytes=80 * 2**30, l2_bytes=50 * 2**20, dram_gbps=2900.0, empty_launch_us=2.5,
    peak_tflops={"fp32": 50.0, "tf32": 380.0, "fp16": 640.0, "bf16": 660.0}, driver="580", cuda="13.0", library="cublas 13",
)  # fmt: skip
CPU_PLAN = {
    "name": "paper-cpu",
    "sweep": [
        {"family": "blas", "kernel": "numpy", "shapes": {"sample": 100, "min": 16, "max": 1024}, "knobs": {"cpu_threads": [1, 2]}},
        {"family": "blas", "kernel": "blocked", "shapes": {"sample": 100, "min": 16, "max": 1024}, "knobs": {"cpu_threads": [1], "tile": [64]}},
    ],
}
GPU_PLAN = {
    "name": "paper-gpu",
    "sweep": [
        {"family": "tiled", "shapes": {"sample": 60, "min": 16, "max": 4096}, "knobs": {"tile": [8, 16, 32]}, "power_share": 1.0},
        {"family": "cublas", "dtypes": ["fp16"], "shapes": {"sample": 60, "min": 16, "max": 4096}, "power_share": 1.0},
    ],
}


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> Iterator[None]:
    """A few hundred rows need no more, and threads that wait for a busy core make boosting fifty times slower."""
    with threadpool_limits(1, user_api="openmp"):
        yield


def _law(cell: Cell, device: Device) -> dict[str, Any]:
    """Readings as a real machine would give them: a roofline, lower efficiency for small and ragged shapes, 2 % of noise."""
    rng = np.random.default_rng(int(cell.cell_id, 16))
    gemm, config = cell.gemm, cell.config
    active_units = min(config.cpu_threads, device.compute_units) / device.compute_units if device.kind == "cpu" and config.cpu_threads else 1.0
    tile = config.tile_m or 96
    ragged = float(np.prod([size / (-(-size // tile) * tile) for size in (gemm.m, gemm.n)]))
    slow = {"tiled": 9.0 / max(config.tile_m, 1) ** 0.4, "blas": 1.3 if config.kernel == "blocked" else 1.0}.get(config.family, 1.1)
    compute_us = gemm.flops / (device.peak_tflops[gemm.dtype] * active_units * 1e6) * slow / ragged * (1 + 24 / gemm.k)
    moved_us = gemm.operand_bytes / (device.dram_gbps * 1e3)
    runtime_us = float((max(compute_us, moved_us) + device.empty_launch_us) * np.exp(0.02 * rng.standard_normal()))
    readings: dict[str, Any] = {"runtime_us": runtime_us, "runtime_rse": 0.003, "launches_timed": 250, "max_error_over_rms": 1e-6}
    if cell.power and device.has_power:
        busy = compute_us / (compute_us + moved_us + device.empty_launch_us)
        power_w = float(device.idle_power_w + (device.power_limit_w - device.idle_power_w) * busy * np.exp(0.02 * rng.standard_normal()))
        sustained_us = runtime_us * (1 + 0.15 * busy)
        readings |= {"power_w": power_w, "sustained_runtime_us": sustained_us, "energy_mj": power_w * sustained_us * 1e-3}
        readings |= {"window_s": 0.5, "counter_steps": 5}
    return readings


def _measure(cell: Cell, device: Device, **columns: Any) -> dict[str, Any]:
    """The sample of a cell on a device on paper."""
    readings = _law(cell, device) if columns.get("status", "ok") == "ok" else {}
    return {**blank(cell, device, f"{device.uuid}/agent"), "measured_at": MEASURED_AT, **readings, **columns}


@pytest.fixture(scope="session")
def measure() -> Callable[..., dict[str, Any]]:
    return _measure


@pytest.fixture(scope="session")
def cpu() -> Device:
    return CPU


@pytest.fixture(scope="session")
def gpu() -> Device:
    return GPU


@pytest.fixture(scope="session")
def make_plan() -> Callable[..., Plan]:
    """A plan of one sweep, blas unless told otherwise; keys with a dot reach into its tables."""

    def plan(shapes: dict[str, Any] | None = None, **options: Any) -> Plan:
        tables = {name: options.pop(name) for name in ("name", "seed", "devices", "measure", "train") if name in options}
        sweep = {"family": "blas", "shapes": shapes or {"sample": 20, "max": 512}, **options}
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
    return to_table([_measure(cell, GPU) for cell in plan_cells(parse_plan(GPU_PLAN), GPU).cells])


@pytest.fixture(scope="session")
def candidate(cpu_samples: pa.Table) -> Candidate:
    return train(cpu_samples, Train(), store_version=7)


@pytest.fixture(scope="session")
def power_candidate(power_samples: pa.Table) -> Candidate:
    return train(power_samples, Train())


@pytest.fixture(scope="session")
def python_env() -> dict[str, str]:
    """For a Python of our own in another process, started from anywhere."""
    root = Path(__file__).resolve().parent.parent
    return {**os.environ, "PYTHONPATH": str(root), "PYTHONDONTWRITEBYTECODE": "1"}


@pytest.fixture(scope="session")
def coordinator() -> Callable[..., Ended]:
    """In this process, because MLflow takes seconds to import; test_coordinator_plan.py and _workspace.py start it as its own."""

    def run(*arguments: str | Path) -> Ended:
        out, err, code = StringIO(), StringIO(), 0
        with redirect_stdout(out), redirect_stderr(err), pytest.MonkeyPatch.context() as patch:
            patch.setattr(sys, "argv", ["coordinator", *map(str, arguments)])
            patch.setenv("COLUMNS", "200")
            try:
                main()
            except SystemExit as leaving:
                code = int(leaving.code or 0)
        return Ended(sys.argv, code, out.getvalue(), err.getvalue())

    return run
