"""What this machine would measure on, without starting an agent: for `plan`, before a run.

Reads names and sizes only. Peaks that no agent has measured yet are absent; estimates then rest on
a guess. A GPU that CUDA_VISIBLE_DEVICES hides is not there (agent/devices/visible.py).
"""

from __future__ import annotations

import os
from pathlib import Path

import pynvml

from agent.devices.nvml import module_energy
from agent.devices.visible import VARIABLE, VisibleGpu, first_visible, name_of_slice, optional
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
    gpu = None if kind == "cpu" else first_visible()
    if gpu is not None:
        return _described(gpu)
    if kind == "cuda":
        raise _no_gpu(kind)
    from agent.devices.cpu import CpuBackend

    return CpuBackend().identify()


def _no_gpu(kind: str) -> InputError:
    way_out = "plan on a GPU node, or take another kind"
    if VARIABLE not in os.environ:
        rule = "this machine has no GPU that NVML sees"
        return InputError("devices.kind", kind, rule, way_out)
    rule = f"{VARIABLE} = {os.environ[VARIABLE]!r} shows no GPU of this machine"
    return InputError("devices.kind", kind, rule, f"correct {VARIABLE}, {way_out}")


def _described(gpu: VisibleGpu) -> Device:
    major, minor = pynvml.nvmlDeviceGetCudaComputeCapability(gpu.board)
    used = gpu.board if gpu.slice is None else gpu.slice
    # Some drivers name boards only.
    name = optional(lambda: pynvml.nvmlDeviceGetName(used))
    name = name or pynvml.nvmlDeviceGetName(gpu.board)
    memory_bytes = int(pynvml.nvmlDeviceGetMemoryInfo(used).total)
    if gpu.slice is not None:
        name = name_of_slice(name, memory_bytes)
    # Slices share the counter of the board, so their power cannot be metered.
    is_metered = gpu.slice is None and module_energy(name) is None
    return Device(
        name=name,
        kind="cuda",
        uuid=pynvml.nvmlDeviceGetUUID(used),
        compute_units=0,
        idle_power_w=_power_w(gpu.board) if is_metered else None,
        arch=f"sm_{major}{minor}",
        memory_bytes=memory_bytes,
        l2_bytes=0,
        dram_gbps=0.0,
        mig=gpu.slice is not None,
    )


def _power_w(handle: object) -> float | None:
    """Power now, where it can be metered: plans meter power only there."""
    try:
        pynvml.nvmlDeviceGetTotalEnergyConsumption(handle)
        milliwatts: int = pynvml.nvmlDeviceGetPowerUsage(handle)
    except pynvml.NVMLError:
        return None
    return milliwatts / 1e3
