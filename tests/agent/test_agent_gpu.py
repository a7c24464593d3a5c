"""On a real GPU: rows of every kind, and the cost of faults, hangs and wrong kernels."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median
from time import monotonic
from typing import Any

import pytest
from gpu_here import cupy_or_skip

from agent.spec import AgentSpec
from agent.supervisor import ChildSupervisor
from gemmcast.cell import Cell
from gemmcast.config import KernelConfig
from gemmcast.gemm import Gemm
from gemmcast.procedure import Procedure

pytestmark = [pytest.mark.gpu, pytest.mark.timeout(300)]
MakeSupervisor = Callable[..., ChildSupervisor]
TILE_16 = {"tile_m": 16, "tile_n": 16, "tile_k": 16}


@pytest.fixture(autouse=True)
def _needs_a_gpu() -> None:
    cupy_or_skip()


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One for all: each GPU is described once."""
    return tmp_path_factory.mktemp("gpu-node")


@pytest.fixture
def make_supervisor(node: Path) -> Iterator[MakeSupervisor]:
    made: list[ChildSupervisor] = []

    def supervisor(timeout_s: float = 60.0, **spec: Any) -> ChildSupervisor:
        procedure = Procedure(timeout_s=timeout_s)
        values = AgentSpec(kind="cuda", agent="gpu", model_dir=node, procedure=procedure, **spec)
        made.append(ChildSupervisor(values))
        return made[-1]

    yield supervisor
    for one in made:
        one.stop()


def _cell(
    m: int = 512, n: int = 512, k: int = 512, *, family: str = "cublas", **options: Any
) -> Cell:
    gemm = {
        name: options.pop(name)
        for name in ("batch", "dtype", "layout", "alpha", "beta")
        if name in options
    }
    of_cell = {name: options.pop(name) for name in ("cache", "power", "repeat") if name in options}
    return Cell(
        gemm=Gemm(m=m, n=n, k=k, **gemm),
        config=KernelConfig(family=family, **options),
        device_key="here",
        **of_cell,
    )


def _rows(supervisor: ChildSupervisor, cells: list[Cell]) -> dict[str, dict[str, Any]]:
    """By cell id; exactly one each."""
    rows = [row for row in supervisor.measure(cells) if row is not None]
    assert sorted(row["cell_id"] for row in rows) == sorted(cell.cell_id for cell in cells)
    return {row["cell_id"]: row for row in rows}


def test_a_gpu_is_described_by_what_was_measured_on_it(make_supervisor: MakeSupervisor) -> None:
    device = make_supervisor().device
    assert device.kind == "cuda"
    assert device.arch
    assert device.arch.startswith("sm_")
    assert device.uuid.startswith("GPU-")
    assert {"fp32", "fp64", "fp16"} <= set(device.peak_tflops)
    assert min(device.peak_tflops.values()) > 0.1
    assert device.l2_gbps
    assert device.l2_gbps > device.dram_gbps > 100
    assert 0.5 < device.empty_kernel_us < 3
    assert 0.5 < device.empty_launch_us < 100
    assert make_supervisor().device == device


@pytest.mark.parametrize("cache", ["cold", "warm"])
@pytest.mark.parametrize("dtype", ["fp64", "fp32", "tf32", "fp16", "bf16"])
def test_a_row_has_everything_that_was_read(
    make_supervisor: MakeSupervisor, dtype: str, cache: str
) -> None:
    supervisor = make_supervisor()
    (row,) = _rows(supervisor, [_cell(1000, 600, 800, dtype=dtype, cache=cache)]).values()
    assert row["status"] == "ok"
    assert row["reason"] is None
    # Nothing beats the peak by half.
    assert row["runtime_us"] > 2e-6 * row["m"] * row["n"] * row["k"] / (
        1.5 * supervisor.device.peak_tflops[dtype]
    )
    assert 0.006 <= row["runtime_uncertainty"] < 0.025
    assert row["launches_timed"] >= 5
    assert row["workspace_bytes"] > 0
    assert (
        0.3 * supervisor.device.clock_max_mhz
        <= row["clock_mhz"]
        <= 1.05 * supervisor.device.clock_max_mhz
    )  # type: ignore[operator]
    assert row["host_launch_us"] > 0
    assert row["launch_bound"] == (row["host_launch_us"] > row["runtime_us"])


def test_a_batch_of_products_is_measured_in_every_family_that_has_it(
    make_supervisor: MakeSupervisor,
) -> None:
    cells = [
        _cell(200, 136, 64, family="cublas", batch=7, dtype="fp16"),
        _cell(200, 136, 64, family="tiled", batch=7, **TILE_16),
    ]
    cells.append(_cell(200, 136, 64, family="cublaslt", batch=7, dtype="fp16"))
    assert {row["status"] for row in _rows(make_supervisor(), cells).values()} == {"ok"}


def test_power_comes_from_steps_of_the_counter_and_is_checked(
    make_supervisor: MakeSupervisor,
) -> None:
    supervisor = make_supervisor()
    assert supervisor.device.has_power
    light, heavy = _rows(
        supervisor, cells := [_cell(power=True), _cell(8192, 8192, 8192, dtype="fp16", power=True)]
    ).values()
    if light["cell_id"] != cells[0].cell_id:
        light, heavy = heavy, light
    for row in (light, heavy):
        assert row["status"] == "ok"
        assert row["counter_steps"] >= 5
        assert row["power_w"] == pytest.approx(row["power_instant_w"], rel=0.05)
        assert row["energy_mj"] == pytest.approx(
            row["power_w"] * row["sustained_runtime_us"] * 1e-3
        )
        assert row["power_w"] > 1.2 * row["idle_power_w"]
    assert heavy["power_w"] > light["power_w"]


def test_a_wrong_kernel_a_fault_and_a_hang_cost_no_other_cell(
    make_supervisor: MakeSupervisor,
) -> None:
    supervisor = make_supervisor(5.0)
    kernels = {
        name: _cell(64, 64, 64, family="custom", kernel=f"tests/agent/kernels/{name}.toml")
        for name in ("wrong", "traps", "hangs")
    }
    good = [_cell(64 * i, 256, 256) for i in range(1, 9)]
    start_s = monotonic()
    rows = _rows(
        supervisor,
        [
            *good[:3],
            kernels["wrong"],
            *good[3:5],
            kernels["traps"],
            good[5],
            kernels["hangs"],
            *good[6:],
        ],
    )
    assert {rows[cell.cell_id]["status"] for cell in good} == {"ok"}
    assert [rows[kernels[name].cell_id]["status"] for name in kernels] == [
        "incorrect",
        "cuda_error",
        "timeout",
    ]
    assert monotonic() - start_s < 120


def test_several_under_way_read_the_same_as_one_alone(make_supervisor: MakeSupervisor) -> None:
    cells = [
        _cell(m, 1024, 1024, dtype=dtype) for m in (128, 512, 1024) for dtype in ("fp32", "fp16")
    ]
    first = make_supervisor()
    together = _rows(first, cells)
    first.stop()  # two at once would be each other's neighbours
    alone = _rows(make_supervisor(depth=1), cells)
    differences = []
    for cell in cells:
        ratio = together[cell.cell_id]["runtime_us"] / alone[cell.cell_id]["runtime_us"]
        differences.append(abs(ratio - 1))
    assert median(differences) < 0.02


def test_loading_one_gpu_moves_only_its_own_counter(
    make_supervisor: MakeSupervisor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """NVML ignores CUDA_VISIBLE_DEVICES: by index, a GPU would read another one's energy."""
    if cupy_or_skip().cuda.runtime.getDeviceCount() < 2:
        pytest.skip("needs two GPUs")
    import pynvml

    pynvml.nvmlInit()
    handles = [pynvml.nvmlDeviceGetHandleByIndex(i) for i in range(pynvml.nvmlDeviceGetCount())]
    uuids = [pynvml.nvmlDeviceGetUUID(handle) for handle in handles]
    monkeypatch.setenv("CUDA_DEVICE_ORDER", "PCI_BUS_ID")
    for loaded in range(len(handles)):
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", str(loaded))
        assert os.environ["CUDA_VISIBLE_DEVICES"] == str(loaded)
        supervisor = make_supervisor()
        before_mj, start_s = (
            [pynvml.nvmlDeviceGetTotalEnergyConsumption(handle) for handle in handles],
            monotonic(),
        )
        (row,) = _rows(supervisor, [_cell(4096, 4096, 4096, dtype="fp16", power=True)]).values()
        took_s = monotonic() - start_s
        mean_w = [
            (pynvml.nvmlDeviceGetTotalEnergyConsumption(h) - mj) / took_s / 1e3
            for h, mj in zip(handles, before_mj, strict=True)
        ]
        supervisor.stop()
        assert row["device_uuid"] == supervisor.device.uuid == uuids[loaded]
        others = [watts for i, watts in enumerate(mean_w) if i != loaded]
        assert row["power_w"] > 2 * max(others)
        assert mean_w[loaded] > 1.5 * max(others)


def test_the_boards_timer_agrees_with_the_hosts() -> None:
    """Clocks and times rest on it: if it ran fast, an SM would seem to exceed its clock."""
    import cupy

    from agent.devices.cuda_stream import CudaStream, elapsed_us

    stream = CudaStream(int(cupy.cuda.runtime.getDeviceProperties(0)["multiProcessorCount"]), None)
    seen = cupy.zeros(4, dtype=cupy.int64)
    for _ in range(3):
        stream.spin(seen=seen)
        stream.synchronize()
        start_s = monotonic()
        begin = stream.event()
        stream.spin(2 * 10**9, seen)
        end = stream.event()
        end.synchronize()
        took_s = monotonic() - start_s
        assert elapsed_us(begin, end) * 1e-6 == pytest.approx(took_s, rel=2e-3)
        assert int(seen[3] - seen[1]) * 1e-9 == pytest.approx(took_s, rel=2e-3)
