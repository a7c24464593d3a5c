"""Which GPUs CUDA would show, through NVML, which ignores CUDA_VISIBLE_DEVICES.

The variable is a list of indices (in NVML's order, that of nvidia-smi), UUIDs or their beginnings
(`GPU-8932f937`), and MIG slices (`MIG-<uuid>`, or `MIG-GPU-<uuid>/1/2` of older drivers). It ends
at the first entry that is none of these; an empty one shows no GPU.
Rules: docs.nvidia.com/cuda/cuda-programming-guide, section 5.2. Where boards of several types have
no such list, CUDA shows the fastest first, by a rule of its own; here it is NVML's first.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import takewhile
from typing import TypeVar

import pynvml

from gemmcast.device_names import SLICE, words

VARIABLE = "CUDA_VISIBLE_DEVICES"

Handle = object
"""NVML's, of a board or of a slice of it."""
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class VisibleGpu:
    """A GPU as CUDA shows it."""

    board: Handle
    """The whole board: its power and its architecture."""
    slice: Handle | None = None
    """The MIG slice that is used; None where the whole board is."""


def visible_gpus(environment: Mapping[str, str] = os.environ) -> list[str]:
    """What to write into CUDA_VISIBLE_DEVICES for each GPU that CUDA would show."""
    try:
        boards = _boards()
        entries = environment.get(VARIABLE)
        if entries is None:
            return [pynvml.nvmlDeviceGetUUID(board) for board in boards]
        named = [entry.strip() for entry in entries.split(",")]
        return list(takewhile(lambda entry: _named(entry, boards), named))
    except pynvml.NVMLError:
        return []


def first_visible(environment: Mapping[str, str] = os.environ) -> VisibleGpu | None:
    """The first GPU that CUDA would show; None where it shows none or there is no driver."""
    try:
        boards = _boards()
        entries = environment.get(VARIABLE)
        if entries is None:
            return _whole_or_slice(boards[0]) if boards else None
        return _named(entries.split(",")[0].strip(), boards)
    except pynvml.NVMLError:
        return None


def used_slice(environment: Mapping[str, str] = os.environ) -> Handle | None:
    """The MIG slice that CUDA would use; None where it would use a whole board, or none."""
    gpu = first_visible(environment)
    return None if gpu is None else gpu.slice


def name_of_slice(name: str, memory_bytes: int) -> str:
    """The name of a MIG slice, where the driver may give that of its board.

    Its cells would count as the whole board's.
    """
    return name if SLICE in words(name) else f"{name} MIG {memory_bytes / 2**30:.0f}gb"


def optional(call: Callable[[], T]) -> T | None:
    """None where this board or driver does not have the reading."""
    try:
        return call()
    except pynvml.NVMLError:
        return None


def _boards() -> list[Handle]:
    """Every board of this machine, in NVML's order."""
    pynvml.nvmlInit()
    count = pynvml.nvmlDeviceGetCount()
    return [pynvml.nvmlDeviceGetHandleByIndex(i) for i in range(count)]


def _named(entry: str, boards: Sequence[Handle]) -> VisibleGpu | None:
    """What one entry of the list names."""
    if entry.isdecimal():
        index = int(entry)
        return _whole_or_slice(boards[index]) if index < len(boards) else None
    if entry.startswith("GPU-"):
        board = _of_uuid(entry, boards)
        return None if board is None else _whole_or_slice(board)
    if entry.startswith("MIG-GPU-"):
        uuid, *ids = entry.removeprefix("MIG-").split("/")
        board = _of_uuid(uuid, boards)
        return None if board is None else _slice_with_ids(board, ids)
    if entry.startswith("MIG-"):
        slice_ = pynvml.nvmlDeviceGetHandleByUUID(entry)
        return VisibleGpu(pynvml.nvmlDeviceGetDeviceHandleFromMigDeviceHandle(slice_), slice_)
    return None


def _of_uuid(beginning: str, boards: Sequence[Handle]) -> Handle | None:
    """The one board whose UUID begins so."""
    named = [board for board in boards if pynvml.nvmlDeviceGetUUID(board).startswith(beginning)]
    return named[0] if len(named) == 1 else None


def _whole_or_slice(board: Handle) -> VisibleGpu | None:
    """The board; where it is split, its first slice, if it has any."""
    mode = optional(lambda: pynvml.nvmlDeviceGetMigMode(board))
    is_split = bool(mode and mode[0])
    if not is_split:
        return VisibleGpu(board)
    slices = _slices(board)
    return VisibleGpu(board, slices[0]) if slices else None


def _slice_with_ids(board: Handle, ids: Sequence[str]) -> VisibleGpu | None:
    """The slice with that GPU instance and that compute instance."""
    for slice_ in _slices(board):
        gpu_instance = pynvml.nvmlDeviceGetGpuInstanceId(slice_)
        compute_instance = pynvml.nvmlDeviceGetComputeInstanceId(slice_)
        if [str(gpu_instance), str(compute_instance)] == list(ids):
            return VisibleGpu(board, slice_)
    return None


def _slices(board: Handle) -> list[Handle]:
    """Its MIG slices; places without one are left out."""
    slices = []
    for place in range(pynvml.nvmlDeviceGetMaxMigDeviceCount(board)):
        at_place = partial(pynvml.nvmlDeviceGetMigDeviceHandleByIndex, board, place)
        slice_ = optional(at_place)
        if slice_ is not None:
            slices.append(slice_)
    return slices
