"""The CUDA backend over a fake GPU (fake_gpu.py): what it enqueues, and what it reads from that."""

from __future__ import annotations

from typing import Any

import fake_gpu
import pytest

from gemmcast.cell import Cell
from gemmcast.config import KernelConfig
from gemmcast.device import Device
from gemmcast.gemm import Gemm
from gemmcast.procedure import Procedure

Row = dict[str, Any]
LAYOUTS = (("nn", 0.0), ("nt", 0.5))


def _cell(
    m: int, *, family: str = "cublas", power: bool = False, cache: str = "cold", **gemm: Any
) -> Cell:
    return Cell(
        gemm=Gemm(m=m, n=48, k=32, **gemm),
        config=KernelConfig(family=family),
        device_key="here",
        power=power,
        cache=cache,
    )


CELLS = [
    *(
        _cell(48, dtype=dtype, layout=layout, beta=beta)
        for dtype in ("fp64", "fp32", "fp16", "bf16")
        for layout, beta in LAYOUTS
    ),
    _cell(48, family="cublaslt", dtype="fp8_e4m3", layout="nt"),
    _cell(48, cache="warm"),
    _cell(2048),
    *(_cell(64 + m, power=True) for m in range(3)),
    _cell(fake_gpu.SLOW_M, power=True),
]


@pytest.fixture(scope="module")
def measured() -> tuple[Device, list[Row]]:
    """The device as characterised, and a row of each cell."""
    with fake_gpu.installed() as gpu:
        from agent.devices.cuda import CudaBackend
        from agent.instrument import LiveInstrument

        backend = CudaBackend(gpu.clock)
        device = backend.characterise()
        instrument = LiveInstrument(backend, device, Procedure(), "fake", wait=gpu.wait)
        return device, [outcome.row for outcome in instrument.measure_all(CELLS)]


@pytest.fixture
def characterised(measured: tuple[Device, list[Row]]) -> Device:
    return measured[0]


@pytest.fixture
def rows(measured: tuple[Device, list[Row]]) -> list[Row]:
    return measured[1]


def test_the_device_is_described_by_what_was_measured(characterised: Device) -> None:
    device = characterised
    assert (device.name, device.arch, device.uuid) == ("Fake GPU", "sm_90", "GPU-fake")
    assert device.library == "fake 1.0"
    dtypes = {"fp64", "fp32", "tf32", "fp16", "bf16", "fp8_e4m3", "int8"}
    assert set(device.peak_tflops) == dtypes
    assert device.peak_tflops["fp32"] == pytest.approx(2 * 64**3 / 20e-6 / 1e12)
    assert device.idle_power_w == pytest.approx(300, rel=0.02)
    assert device.counter_step_s == pytest.approx(0.1, rel=0.02)
    assert device.empty_kernel_us == pytest.approx(fake_gpu.SHORT_US)
    assert device.empty_launch_us == pytest.approx(fake_gpu.HOST_LAUNCH_US)
    assert device.dram_gbps > 0
    assert device.l2_gbps is not None
    assert device.l2_gbps > 0


@pytest.mark.parametrize("launch_us", [10.0, 40.0])
def test_a_slower_host_changes_no_descriptor_but_its_own(
    characterised: Device, monkeypatch: pytest.MonkeyPatch, launch_us: float
) -> None:
    monkeypatch.setattr(fake_gpu, "HOST_LAUNCH_US", launch_us)
    with fake_gpu.installed() as gpu:
        from agent.devices.cuda import CudaBackend

        device = CudaBackend(gpu.clock).characterise()
    assert device.empty_launch_us == pytest.approx(launch_us)
    for name in ("dram_gbps", "l2_gbps", "empty_kernel_us"):
        assert getattr(device, name) == pytest.approx(getattr(characterised, name)), name
    assert dict(device.peak_tflops) == pytest.approx(dict(characterised.peak_tflops))


def test_every_cell_is_one_good_row(rows: list[Row]) -> None:
    assert sorted(row["cell_id"] for row in rows) == sorted(cell.cell_id for cell in CELLS)
    assert {(row["status"], row["reason"]) for row in rows} == {("ok", None)}


def test_times_and_clocks_are_those_of_the_gpu_not_of_the_host(rows: list[Row]) -> None:
    for row in rows:
        is_slow = row["m"] == fake_gpu.SLOW_M
        launch_us = fake_gpu.SLOW_US if is_slow else fake_gpu.GEMM_US
        assert row["runtime_us"] == pytest.approx(launch_us, rel=1e-3)
        # Batches of a fake GPU do not differ: what is left is what boards and their states add.
        windowed = row["power_w"] is not None
        assert row["runtime_uncertainty"] == pytest.approx(0.006 if windowed else 0.01166, rel=1e-3)
        assert row["clock_mhz"] == pytest.approx(1900, rel=1e-3)
        assert row["clock_start_mhz"] == pytest.approx(1980, rel=1e-3)
        assert row["launches_timed"] * row["runtime_us"] >= 15_000


def test_the_launch_overhead_is_that_of_the_host(rows: list[Row]) -> None:
    for row in rows:
        assert row["host_launch_us"] == pytest.approx(fake_gpu.HOST_LAUNCH_US)
        assert row["launch_bound"] is False


def test_power_is_that_of_the_counter(rows: list[Row]) -> None:
    metered = [row for row in rows if row["power_w"] is not None]
    assert len(metered) == 4
    for row in metered:
        assert row["power_w"] == pytest.approx(300, rel=0.03)
        assert row["power_instant_w"] == pytest.approx(300)
        assert row["counter_steps"] == 5
        assert row["window_s"] == pytest.approx(0.5, rel=0.02)
        assert row["sustained_clock_mhz"] == pytest.approx(1900, rel=1e-3)
        # Stamps lie between the rounds that are timed.
        assert row["sustained_runtime_us"] == pytest.approx(row["runtime_us"], rel=1e-6)


def test_the_module_of_a_superchip_is_not_taken_for_its_gpu() -> None:
    with fake_gpu.installed() as gpu:
        import cupy

        from agent.devices.cuda import CudaBackend
        from agent.instrument import LiveInstrument

        cupy.cuda.runtime.getDeviceProperties(0)["name"] = b"NVIDIA GH200 480GB"
        backend = CudaBackend(gpu.clock)
        device = backend.characterise()
        instrument = LiveInstrument(backend, device, Procedure(), "fake", wait=gpu.wait)
        (outcome,) = instrument.measure_all([_cell(48, power=True)])
    assert not device.has_power
    row = outcome.row
    assert row["status"] == "unsupported"
    assert "the energy counter of NVIDIA GH200 480GB is the whole module's" in row["reason"]
    assert row["runtime_us"] == pytest.approx(fake_gpu.GEMM_US, rel=1e-3)
    readings = ("power_w", "energy_mj", "sustained_runtime_us", "idle_power_w")
    assert [row[name] for name in readings] == [None] * 4
