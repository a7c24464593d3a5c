"""The CUDA bench over a GPU on paper (stand_in_gpu.py), in a process of its own: what it enqueues, and what it reads from that."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from gemmcast.cell import Cell
from gemmcast.config import KernelConfig
from gemmcast.gemm import Gemm

pytestmark = pytest.mark.cluster
HERE = Path(__file__).resolve().parent
Measured = dict[str, Any]


def _cell(m: int, *, family: str = "cublas", power: bool = False, cache: str = "cold", **gemm: Any) -> Cell:
    return Cell(gemm=Gemm(m=m, n=40, k=32, **gemm), config=KernelConfig(family=family), device_key="here", power=power, cache=cache)


CELLS = [
    *(_cell(48, dtype=dtype, layout=layout, beta=beta) for dtype in ("fp64", "fp32", "fp16", "bf16") for layout, beta in (("nn", 0.0), ("nt", 0.5))),
    _cell(48, family="cublaslt", dtype="fp8_e4m3", layout="nt"),
    _cell(48, cache="warm"),
    _cell(2048),
    *(_cell(64 + m, power=True) for m in range(3)),
    _cell(96, power=True),
]
SLOW_US = 8000.0
# with 96 rows


@pytest.fixture(scope="module")
def measured() -> Measured:
    command = [sys.executable, str(HERE / "stand_in_gpu.py"), str(HERE.parents[1]), json.dumps([cell.to_dict() for cell in CELLS])]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    found: Measured = json.loads(done.stdout.splitlines()[-1])
    return found


def test_the_device_is_described_by_what_was_measured(measured: Measured) -> None:
    device = measured["device"]
    assert (device["name"], device["arch"], device["uuid"], device["library"]) == ("Paper GPU", "sm_90", "GPU-paper", "paper 1.0")
    assert set(device["peak_tflops"]) == {"fp64", "fp32", "tf32", "fp16", "bf16", "fp8_e4m3"}
    assert device["peak_tflops"]["fp32"] == pytest.approx(2 * 64**3 / 20e-6 / 1e12)
    assert device["idle_power_w"] == pytest.approx(300, rel=0.02) and device["counter_step_s"] == pytest.approx(0.1, rel=0.02)
    assert device["dram_gbps"] > 0 and device["l2_gbps"] > 0


def test_every_cell_is_one_good_row(measured: Measured) -> None:
    assert sorted(row["cell_id"] for row in measured["rows"]) == sorted(cell.cell_id for cell in CELLS)
    assert {(row["status"], row["reason"]) for row in measured["rows"]} == {("ok", None)}


def test_times_and_clocks_are_those_of_the_gpu_not_of_the_host(measured: Measured) -> None:
    for row in measured["rows"]:
        assert row["runtime_us"] == pytest.approx(SLOW_US if row["m"] == 96 else 20.0, rel=1e-3) and row["runtime_rse"] < 1e-6
        assert row["clock_mhz"] == pytest.approx(1900, rel=1e-3) and row["clock_start_mhz"] == pytest.approx(1980, rel=1e-3)
        assert row["host_launch_us"] > 0 and row["launch_bound"] == (row["host_launch_us"] > row["runtime_us"])
        assert row["launches_timed"] * row["runtime_us"] >= 15_000


def test_power_is_that_of_the_counter(measured: Measured) -> None:
    metered = [row for row in measured["rows"] if row["power_w"] is not None]
    assert len(metered) == 4
    for row in metered:
        assert row["power_w"] == pytest.approx(300, rel=0.03) and row["power_instant_w"] == pytest.approx(300)
        # a launch of the slow one holds up whoever looks at the counter
        assert row["counter_steps"] == 5 or (row["m"] == 96 and row["counter_steps"] > 5)
        assert row["window_s"] == pytest.approx(0.1 * row["counter_steps"])
        assert row["sustained_clock_mhz"] == pytest.approx(1900, rel=1e-3)
        # stamps between the graphs are part of the load, and cost it next to nothing
        assert 1.0 <= row["sustained_runtime_us"] / row["runtime_us"] < 1.005
