"""The ONNX contract: how a question is written as one row of float32, and what the graph answers.

    question[n_rows, len(FIELDS)] float32  ->  each output[n_rows] float32

One row holds the raw question and nothing derived: every feature is computed inside the graph, so an embedder in any language
only fills this row. Unknown descriptors and knobs are 0. docs/onnx.md is the public page of this file.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from gemmcast.config import FAMILIES, KernelConfig
from gemmcast.device import Device
from gemmcast.errors import InputError
from gemmcast.gemm import DTYPES, Gemm

CONTRACT: Final = 1
OPSET: Final = 17
ML_OPSET: Final = 3
IR_VERSION: Final = 8
INPUT: Final = "question"
OUTPUTS: Final = ("runtime_us", "tflops", "sustained_runtime_us", "power_w", "energy_mj")
# A model that was never shown power has the first two only.

PROBLEM_FIELDS: Final = ("m", "n", "k", "tile_m", "tile_n", "tile_k", "batch", "in_bytes", "out_bytes", "beta", "dtype", "trans_a", "trans_b")
CONFIG_FIELDS: Final = ("family", "warp_m", "warp_n", "warp_k", "stages", "split_k", "swizzle", "cluster_m", "cluster_n", "threads", "warm")
DEVICE_FIELDS: Final = ("sm_count", "peak_tflops", "dram_gbps", "l2_bytes", "clock_max_mhz", "device_launch_us", "power_limit_w", "idle_power_w")
FIELDS: Final = PROBLEM_FIELDS + CONFIG_FIELDS + DEVICE_FIELDS
AT: Final = {name: i for i, name in enumerate(FIELDS)}
DTYPE_CODES: Final = {name: float(i) for i, name in enumerate(DTYPES)}
FAMILY_CODES: Final = {name: float(i) for i, name in enumerate(FAMILIES)}

Rows = npt.NDArray[np.float32]
# [n_rows, len(FIELDS)]


def ask(gemm: Gemm, config: KernelConfig, device: Device, *, cache: str = "cold") -> tuple[float, ...]:
    """One question as the numbers of FIELDS, in order."""
    t = DTYPES[gemm.dtype]
    return (
        gemm.m, gemm.n, gemm.k, config.tile_m, config.tile_n, config.tile_k, gemm.batch, t.in_bytes, t.out_bytes,
        gemm.beta != 0, DTYPE_CODES[gemm.dtype], gemm.layout[0] == "t", gemm.layout[1] == "t",
        FAMILY_CODES[config.family], config.warp_m, config.warp_n, config.warp_k, config.stages, config.split_k, config.swizzle,
        config.cluster_m, config.cluster_n, config.threads, cache == "warm",
        *describe_device(device, gemm.dtype),
    )  # fmt: skip


def describe_device(device: Device, dtype: str) -> tuple[float, ...]:
    """The numbers of DEVICE_FIELDS. Raises InputError when the device was never measured at this dtype."""
    peak = device.peak_tflops.get(dtype)
    if not peak:
        known = ", ".join(sorted(device.peak_tflops)) or "none"
        raise InputError("dtype", dtype, f"device {device.name} has no measured peak for it (known: {known})", "ask for a known dtype")
    return (
        device.sm_count, peak, device.dram_gbps, device.l2_bytes, device.clock_max_mhz or 0.0,
        device.launch_overhead_us, device.power_limit_w or 0.0, device.idle_power_w or 0.0,
    )  # fmt: skip


def from_columns(columns: Mapping[str, Sequence[Any]]) -> Rows:
    """The questions of many samples at once.

    Args:
        columns: the sample columns (gemmcast.sample), each of one length.
    """
    size = len(columns["m"])
    rows = np.zeros((size, len(FIELDS)), dtype=np.float32)
    kinds = [DTYPES[name] for name in columns["dtype"]]
    layouts = list(columns["layout"])
    derived: dict[str, Sequence[Any]] = {
        "in_bytes": [t.in_bytes for t in kinds],
        "out_bytes": [t.out_bytes for t in kinds],
        "beta": [value != 0 for value in columns["beta"]],
        "dtype": [DTYPE_CODES[name] for name in columns["dtype"]],
        "trans_a": [layout[0] == "t" for layout in layouts],
        "trans_b": [layout[1] == "t" for layout in layouts],
        "family": [FAMILY_CODES[name] for name in columns["family"]],
        "warm": [value == "warm" for value in columns["cache"]],
    }
    for i, name in enumerate(FIELDS):
        values = derived.get(name, columns.get(name))
        if values is not None:
            rows[:, i] = np.nan_to_num(np.array([0 if v is None else v for v in values], dtype=np.float64))
    return rows
