"""What this machine would measure on, without starting anything: for `plan`, before a run.

Reads names and sizes only; peaks that an agent has not measured yet are absent, and estimates then rest on a guess.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from coordinator.plan.schema import Plan
from gemmcast.device import Device
from gemmcast.errors import InputError


def local_device(plan: Plan) -> Device:
    """The device of the plan's kind on this machine, or its dataset's."""
    devices = plan.devices
    if devices.kind == "replay":
        from agent.devices.replay import ReplayInstrument

        return ReplayInstrument(Path(str(devices.dataset)), "plan", devices.device_name).device
    gpu = None if devices.kind == "cpu" else _first_gpu()
    if gpu is None and devices.kind == "cuda":
        raise InputError("devices.kind", "cuda", "this machine has no GPU that NVML sees", "plan on a GPU node, or take another kind")
    if gpu is not None:
        return gpu
    from agent.devices.cpu import CpuBackend

    return CpuBackend().identify()


def _first_gpu() -> Device | None:
    import pynvml

    try:
        pynvml.nvmlInit()
        handle = pynvml.nvmlDeviceGetHandleByIndex(0)
    except pynvml.NVMLError:
        return None
    return Device(
        name=pynvml.nvmlDeviceGetName(handle),
        kind="cuda",
        uuid=pynvml.nvmlDeviceGetUUID(handle),
        compute_units=0,
        idle_power_w=_power_w(handle),
        arch="sm_{}{}".format(*pynvml.nvmlDeviceGetCudaComputeCapability(handle)),
        memory_bytes=int(pynvml.nvmlDeviceGetMemoryInfo(handle).total),
        l2_bytes=0,
        dram_gbps=0.0,
        empty_launch_us=0.0,
    )


def _power_w(handle: Any) -> float | None:
    """Of now, where power can be metered: plans ask for power only there."""
    import pynvml

    try:
        pynvml.nvmlDeviceGetTotalEnergyConsumption(handle)
        return float(pynvml.nvmlDeviceGetPowerUsage(handle)) / 1e3
    except pynvml.NVMLError:
        return None
