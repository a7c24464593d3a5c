"""What this machine would measure on, without starting an agent: for `plan`, before a run.

Reads names and sizes only. Peaks that no agent has measured yet are absent; estimates then rest on
a guess.
"""

from __future__ import annotations

from pathlib import Path

import pynvml

from gemmcast.device import Device
from gemmcast.errors import InputError


def local_device(
    kind: str, dataset: Path | str | None = None, device_name: str | None = None
) -> Device:
    """The device of that kind on this machine.

    Args:
        kind: auto (a GPU if there is one), cuda, cpu or replay.
        dataset: replay only: the file that answers.
        device_name: replay only: which device of the file, where it holds several.

    Raises:
        InputError: there is no such device.
    """
    if kind == "replay":
        from agent.devices.replay import ReplayInstrument

        return ReplayInstrument(Path(str(dataset)), "plan", device_name).device
    gpu = None if kind == "cpu" else _first_gpu()
    if gpu is not None:
        return gpu
    if kind == "cuda":
        rule = "this machine has no GPU that NVML sees"
        raise InputError("devices.kind", kind, rule, "plan on a GPU node, or take another kind")
    from agent.devices.cpu import CpuBackend

    return CpuBackend().identify()


def _first_gpu() -> Device | None:
    try:
        pynvml.nvmlInit()
        handle = pynvml.nvmlDeviceGetHandleByIndex(0)
    except pynvml.NVMLError:
        return None
    major, minor = pynvml.nvmlDeviceGetCudaComputeCapability(handle)
    return Device(
        name=pynvml.nvmlDeviceGetName(handle),
        kind="cuda",
        uuid=pynvml.nvmlDeviceGetUUID(handle),
        compute_units=0,
        idle_power_w=_power_w(handle),
        arch=f"sm_{major}{minor}",
        memory_bytes=int(pynvml.nvmlDeviceGetMemoryInfo(handle).total),
        l2_bytes=0,
        dram_gbps=0.0,
        empty_launch_us=0.0,
    )


def _power_w(handle: object) -> float | None:
    """Power now, where it can be metered: plans meter power only there."""
    try:
        pynvml.nvmlDeviceGetTotalEnergyConsumption(handle)
        milliwatts: int = pynvml.nvmlDeviceGetPowerUsage(handle)
    except pynvml.NVMLError:
        return None
    return milliwatts / 1e3
