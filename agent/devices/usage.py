"""Whether other processes use a GPU, by what NVML says of it while this process does not.

    in use = a process holds a context, or it computes, or much of its memory is taken

A container may see no process of others, so the other two are looked at as well. Touches no GPU:
NVML makes no context.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Final

import pynvml

from agent.devices.visible import VisibleGpu, first_visible, optional

MOST_BUSY_PERCENT: Final = 5
"""Utilisation of a GPU that nobody uses: a look of a monitor may count."""
MOST_MEMORY_BYTES: Final = 2**30
"""Memory of a GPU that nobody uses: a driver may count what it keeps for itself."""


def in_use(environment: Mapping[str, str] = os.environ) -> str | None:
    """Why the first GPU that CUDA would show is not idle, for people; None where it is.

    None too where NVML shows no GPU: what is wrong there is said when it is opened.
    """
    gpu = first_visible(environment)
    return None if gpu is None else _use_of(gpu)


def _use_of(gpu: VisibleGpu) -> str | None:
    used = gpu.board if gpu.slice is None else gpu.slice
    processes = optional(lambda: pynvml.nvmlDeviceGetComputeRunningProcesses(used)) or ()
    if processes:
        return f"{len(processes)} other process(es) hold this GPU"
    rates = optional(lambda: pynvml.nvmlDeviceGetUtilizationRates(used))
    if rates is not None and rates.gpu > MOST_BUSY_PERCENT:
        return f"others compute on this GPU ({rates.gpu} % busy)"
    memory = optional(lambda: pynvml.nvmlDeviceGetMemoryInfo(used))
    if memory is not None and memory.used > MOST_MEMORY_BYTES:
        return f"others hold {memory.used / 2**30:.1f} GiB of this GPU"
    return None
